//! Rules that concern several resources.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::network::MTU_V6;
use crate::desired::port::{Port, Wanted};
use crate::desired::{Network, Ports, Problems};
use crate::diagnostic::{Diagnostic, Place};

/// No address may be in two subnets: the host has an address on each, and could not tell where to send.
pub(super) fn subnets_do_not_overlap(networks: &BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    let mut all: Vec<(IpNet, Address)> = networks
        .values()
        .flat_map(|network| &network.subnets)
        .map(|subnet| (subnet.cidr, Address::new(ResourceKind::Subnet, subnet.name.clone())))
        .collect();
    // CIDR blocks are nested or apart, so in this order an overlap is always with the widest block still open.
    // Those of IPv4 come before those of IPv6.
    all.sort_by_key(|(cidr, address)| (cidr.network(), cidr.prefix_len(), address.clone()));
    let mut widest: Option<(IpNet, Address)> = None;
    for (cidr, address) in all {
        match &widest {
            Some((open, other)) if open.contains(&cidr) => problems.push(
                Diagnostic::error(format!("{cidr} of `{address}` overlaps {open} of `{other}`"))
                    .code("overlapping-subnets")
                    .on(&address, "cidr")
                    .related(Place::of(other, "cidr"), "the other one")
                    .help("give each subnet a range of its own"),
            ),
            _ => widest = Some((cidr, address)),
        }
    }
}

/// A bridge carries one network.
pub(super) fn bridges_are_unique(networks: &BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    let mut seen: HashMap<&str, &Name> = HashMap::new();
    for network in networks.values() {
        let Some(bridge) = &network.bridge else { continue };
        let address = Address::new(ResourceKind::Network, network.name.clone());
        if let Some(other) = seen.insert(bridge, &network.name) {
            let other = Address::new(ResourceKind::Network, other.clone());
            problems.push(
                Diagnostic::error(format!("`{other}` and `{address}` cannot share the bridge `{bridge}`"))
                    .on(&address, "bridge")
                    .related(Place::of(&other, "bridge"), "used here")
                    .help("leave `bridge` out, and each gets its own"),
            );
        }
    }
}

/// RFC 8200, 5: a link that is narrower carries no IPv6.
pub(super) fn mtu_suits_ipv6(networks: &BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    for network in networks.values().filter(|network| network.mtu < MTU_V6) {
        if let Some(subnet) = network.subnets.iter().find(|subnet| !subnet.is_ipv4()) {
            let subnet = Address::new(ResourceKind::Subnet, subnet.name.clone());
            problems.push(
                Diagnostic::error(format!("an MTU of {} is too small for the IPv6 of `{subnet}`", network.mtu))
                    .code("mtu-too-small")
                    .on(&Address::new(ResourceKind::Network, network.name.clone()), "mtu")
                    .related(Place::of(&subnet, "cidr"), "IPv6 here")
                    .help(format!("IPv6 needs at least {MTU_V6}")),
            );
        }
    }
}

/// An address and a MAC address belong to one port of a network (reference C6, C7).
pub(super) fn addresses_and_macs_are_unique(ports: &Ports, problems: &mut Problems<'_>) {
    let mut addresses = HashMap::new();
    let mut macs = HashMap::new();
    let mut clash = |what: String, code: &str, one: (&Port, &Place), other: (&Port, &Place)| {
        let error = Diagnostic::error(format!(
            "`{}` and `{}` cannot both have {what}",
            other.0.id.address(),
            one.0.id.address()
        ));
        problems.push(
            error
                .placed(one.1.clone())
                .code(code)
                .related(other.1.clone(), "taken here")
                .help("give one of them another address"),
        );
    };
    for port in ports.values() {
        for request in &port.requests {
            let Wanted::Address(address) = request.wanted else { continue };
            match addresses.insert((&port.network, address), (port, &request.place)) {
                // Within one port that has been said.
                Some(other) if other.0.id != port.id => {
                    clash(address.to_string(), "address-in-use", (port, &request.place), other);
                }
                _ => {}
            }
        }
        if let Some(mac) = port.mac
            && let Some(other) = macs.insert((&port.network, mac), port)
        {
            let (place, its) = (port.declared.place("mac_address"), other.declared.place("mac_address"));
            clash(format!("the MAC address {mac}"), "mac-in-use", (port, &place), (other, &its));
        }
    }
}

/// A name on a network stands for one server, or for one port that no server has.
pub(super) fn names_are_unique(ports: &Ports, problems: &mut Problems<'_>) {
    let mut names: HashMap<(&Name, &Name), &Port> = HashMap::new();
    for port in ports.values() {
        let Some(other) = names.insert((&port.network, port.hostname()), port) else { continue };
        if port.server.is_some() && port.server == other.server {
            continue;
        }
        // Who chose the name is at fault, and not who is called by its own.
        let (port, other) = if port.dns_name.is_some() { (port, other) } else { (other, port) };
        let key = |port: &Port| port.declared.place(if port.dns_name.is_some() { "dns_name" } else { "" });
        let error = Diagnostic::error(format!(
            "`{}` and `{}` would both be called `{}` on `network.{}`",
            other.id.address(),
            port.id.address(),
            port.hostname(),
            port.network
        ));
        problems.push(
            error
                .placed(key(port))
                .code("dns-name-taken")
                .related(key(other), "called so too")
                .help("give one of them another `dns_name`"),
        );
    }
}
