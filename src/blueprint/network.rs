//! Networks become bridges, dnsmasq servers and the rules of one nft table; ports become host entries.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Name;
use crate::blueprint::identity::Identity;
use crate::blueprint::ipam::Ipam;
use crate::blueprint::key::{bridge_key, firewall_table};
use crate::blueprint::object::{Bridge, Dhcp, DhcpRange, Firewall, HostEntry, Object, PortAddress, Rule, RuleChain};
use crate::blueprint::{Blueprint, Layout};
use crate::desired::{Desired, Network, Subnet};
use crate::spec::values::Forward;

/// What servers need to know of a network: the bridge and the MTU.
pub type Plugs = HashMap<Name, (String, u32)>;

/// What guests on an isolated network need of the host for IPv6: DHCPv6, and to find it as their neighbour and router (RFC
/// 4890, 4.4). Where one of them asks who listens to what, the bridge passes the host only what it has answered to: not
/// even who looks for it.
const SERVICES_V6: [&str; 6] = [
    "udp dport 547",
    "icmpv6 type echo-request",
    "icmpv6 type nd-router-solicit",
    "icmpv6 type nd-neighbor-solicit",
    "icmpv6 type nd-neighbor-advert",
    "icmpv6 type mld-listener-query",
];

pub(super) fn lower(
    desired: &Desired,
    ipam: &Ipam,
    identity: &Identity,
    layout: &Layout,
    blueprint: &mut Blueprint,
) -> Plugs {
    let mut plugs = Plugs::new();
    let mut firewall = Firewall {
        table: firewall_table(&desired.project),
        ip_forward: false,
        ip6_forward: false,
        networks: BTreeMap::new(),
        rules: Vec::new(),
    };
    for network in desired.networks.values() {
        let id = identity.network(&network.name);
        let device = network.bridge.clone().unwrap_or_else(|| Identity::bridge(id));
        let nets = |subnet: &Subnet| -> Vec<IpNet> {
            let held = ipam.host.get(&subnet.name).into_iter().flatten();
            held.filter_map(|address| IpNet::new(*address, subnet.cidr.prefix_len()).ok()).collect()
        };
        let mut addresses: Vec<IpNet> = network.subnets.iter().flat_map(nets).collect();
        addresses.sort();
        blueprint.add(Object::Bridge(Bridge {
            network: network.name.clone(),
            device: device.clone(),
            mac: Identity::mac(id, 0),
            mtu: network.mtu,
            addresses,
        }));
        blueprint.add(Object::Dhcp(Dhcp {
            network: network.name.clone(),
            bridge: device.clone(),
            dir: layout.network(network.name.as_str()),
            ranges: network
                .subnets
                .iter()
                .map(|subnet| DhcpRange {
                    subnet: subnet.name.clone(),
                    cidr: subnet.cidr,
                    assignment: subnet.assignment,
                    router: subnet.router,
                    dns: subnet.dns.clone(),
                    routes: subnet.routes.clone(),
                    domain: subnet.domain.clone(),
                    lease_seconds: subnet.lease_seconds,
                })
                .collect(),
            mtu: network.mtu,
            domain: network.domain.clone(),
            records: network.records.iter().map(|it| (it.name.clone(), it.records.clone())).collect(),
        }));
        if network.prevent_destroy {
            blueprint.guarded.insert(bridge_key(&network.name));
        }
        plugs.insert(network.name.clone(), (device, network.mtu));
    }
    // What is isolated is dropped before anything that answers is accepted.
    let mut networks: Vec<&Network> = desired.networks.values().collect();
    networks.sort_by_key(|network| network.forward != Forward::Isolated);
    for network in networks {
        if let Some((device, _)) = plugs.get(&network.name) {
            rules(network, device, &mut firewall);
        }
    }
    if !firewall.networks.is_empty() {
        blueprint.add(Object::Firewall(firewall));
    }
    plugs
}

/// Each port, whether a server has it or not, is known to the dnsmasq of its network.
pub(super) fn lower_ports(desired: &Desired, ipam: &Ipam, blueprint: &mut Blueprint) {
    for port in desired.ports.values() {
        let (Some(network), Some(held)) = (desired.networks.get(&port.network), ipam.ports.get(&port.id)) else {
            continue;
        };
        let address = |(address, name): &(IpAddr, Name)| {
            let subnet = network.subnets.iter().find(|subnet| subnet.name == *name)?;
            let domain = subnet.domain.as_ref().unwrap_or(&network.domain).clone();
            Some(PortAddress { address: *address, assignment: subnet.assignment, domain })
        };
        blueprint.add(Object::HostEntry(HostEntry {
            port: port.id.clone(),
            network: port.network.clone(),
            mac: held.mac,
            addresses: held.addresses.iter().filter_map(address).collect(),
            hostname: port.hostname().to_string(),
            options: port.options.clone(),
        }));
    }
}

/// Reference D4. Only what must be kept out is named; the chain accepts the rest, for other tables to judge.
///
/// What stays on the bridge is accepted first: where `br_netfilter` is loaded, frames between neighbours come by here too.
fn rules(network: &Network, device: &str, firewall: &mut Firewall) {
    let mut rule = |chain, text: String| firewall.rules.push(Rule { chain, text });
    let has_ipv4 = network.subnets.iter().any(Subnet::is_ipv4);
    let has_ipv6 = network.subnets.iter().any(|subnet| !subnet.is_ipv4());
    match network.forward {
        Forward::Isolated => {
            rule(RuleChain::Forward, format!("iifname \"{device}\" oifname \"{device}\" accept"));
            rule(RuleChain::Forward, format!("iifname \"{device}\" drop"));
            rule(RuleChain::Forward, format!("oifname \"{device}\" drop"));
            // Of the host, guests reach the DHCP and DNS server and a ping.
            let services = ["udp dport 67", "udp dport 53", "tcp dport 53", "icmp type echo-request"];
            for service in services.iter().chain(SERVICES_V6.iter().filter(|_| has_ipv6)) {
                rule(RuleChain::Input, format!("iifname \"{device}\" {service} accept"));
            }
            rule(RuleChain::Input, format!("iifname \"{device}\" ct state established,related accept"));
            rule(RuleChain::Input, format!("iifname \"{device}\" drop"));
        }
        Forward::Nat => {
            rule(RuleChain::Forward, format!("iifname \"{device}\" oifname \"{device}\" accept"));
            rule(RuleChain::Forward, format!("oifname \"{device}\" ct state established,related accept"));
            rule(RuleChain::Forward, format!("oifname \"{device}\" drop"));
            for subnet in &network.subnets {
                let (ip, cidr) = (if subnet.is_ipv4() { "ip" } else { "ip6" }, subnet.cidr);
                rule(
                    RuleChain::Postrouting,
                    format!("{ip} saddr {cidr} {ip} daddr != {cidr} oifname != \"{device}\" masquerade"),
                );
            }
        }
        Forward::Routed => {}
    }
    let cidrs: Vec<String> = network.subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
    let words = format!("{} {}", network.forward.as_str(), cidrs.join(", "));
    firewall.networks.insert(network.name.clone(), words.trim_end().to_owned());
    let leads_on = network.forward != Forward::Isolated;
    firewall.ip_forward |= leads_on && has_ipv4;
    firewall.ip6_forward |= leads_on && has_ipv6;
}
