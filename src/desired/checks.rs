//! Rules that concern several resources.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::{Network, Problems, Server};
use crate::diagnostic::{Diagnostic, Place};

/// No address may be in two subnets: the host has an address on each, and could not tell where to send.
pub(super) fn subnets_do_not_overlap(networks: &BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    let mut all: Vec<(Ipv4Net, Address)> = networks
        .values()
        .flat_map(|network| &network.subnets)
        .map(|subnet| (subnet.cidr, Address::new(ResourceKind::Subnet, subnet.name.clone())))
        .collect();
    // CIDR blocks are nested or apart, so in this order an overlap is always with the widest block still open.
    all.sort_by_key(|(cidr, address)| (cidr.network(), cidr.prefix_len(), address.clone()));
    let mut widest: Option<(Ipv4Net, Address)> = None;
    for (cidr, address) in all {
        match &widest {
            Some((open, other)) if open.contains(&cidr) => problems.push(
                Diagnostic::error(format!("{cidr} of `{address}` overlaps {open} of `{other}`"))
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

/// An address belongs to one server.
pub(super) fn fixed_addresses_are_unique(servers: &BTreeMap<Name, Server>, problems: &mut Problems<'_>) {
    let mut seen: HashMap<(&Name, Ipv4Addr), &Server> = HashMap::new();
    for server in servers.values() {
        for (network, address) in &server.ports {
            let Some(address) = address else { continue };
            if let Some(other) = seen.insert((network, *address), server) {
                problems.push(
                    Diagnostic::error(format!(
                        "`{}` and `{}` cannot both have {address}",
                        other.declared, server.declared
                    ))
                    .on(&server.declared, "fixed_ip")
                    .related(Place::of(&other.declared, "fixed_ip"), "taken here")
                    .help("give one of them another address"),
                );
            }
        }
    }
}
