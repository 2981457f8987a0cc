//! Networks become bridges, dnsmasq servers and the rules of one nft table.

use std::collections::{BTreeMap, HashMap};

use ipnet::Ipv4Net;

use crate::address::Name;
use crate::blueprint::identity::Identity;
use crate::blueprint::ipam::Ipam;
use crate::blueprint::key::firewall_table;
use crate::blueprint::object::{Bridge, Dhcp, DhcpRange, Firewall, Object, Rule, RuleChain};
use crate::blueprint::{Blueprint, Layout};
use crate::desired::{Desired, Network};
use crate::spec::values::Forward;

/// What servers need to know of a network: the bridge and the MTU.
pub type Plugs = HashMap<Name, (String, u32)>;

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
        networks: BTreeMap::new(),
        rules: Vec::new(),
    };
    for network in desired.networks.values() {
        let id = identity.network(&network.name);
        let device = network.bridge.clone().unwrap_or_else(|| Identity::bridge(id));
        let mut addresses: Vec<Ipv4Net> = network
            .subnets
            .iter()
            .filter_map(|subnet| Ipv4Net::new(*ipam.host.get(&subnet.name)?, subnet.cidr.prefix_len()).ok())
            .collect();
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
                    router: subnet.router,
                    dns: subnet.dns.clone(),
                })
                .collect(),
            mtu: network.mtu,
            domain: network.domain.clone(),
            lease_seconds: network.lease_seconds,
        }));
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

/// Reference D4. Only what must be kept out is named; the chain accepts the rest, for other tables to judge.
///
/// What stays on the bridge is accepted first: where `br_netfilter` is loaded, frames between neighbours come by here too.
fn rules(network: &Network, device: &str, firewall: &mut Firewall) {
    let mut rule = |chain, text: String| firewall.rules.push(Rule { chain, text });
    match network.forward {
        Forward::Isolated => {
            rule(RuleChain::Forward, format!("iifname \"{device}\" oifname \"{device}\" accept"));
            rule(RuleChain::Forward, format!("iifname \"{device}\" drop"));
            rule(RuleChain::Forward, format!("oifname \"{device}\" drop"));
            // Of the host, guests reach the DHCP and DNS server and a ping.
            for service in ["udp dport 67", "udp dport 53", "tcp dport 53", "icmp type echo-request"] {
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
                let cidr = subnet.cidr;
                rule(
                    RuleChain::Postrouting,
                    format!("ip saddr {cidr} ip daddr != {cidr} oifname != \"{device}\" masquerade"),
                );
            }
        }
        Forward::Routed => {}
    }
    let cidrs: Vec<String> = network.subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
    let words = format!("{} {}", network.forward.as_str(), cidrs.join(", "));
    firewall.networks.insert(network.name.clone(), words.trim_end().to_owned());
    firewall.ip_forward |= network.forward != Forward::Isolated;
}
