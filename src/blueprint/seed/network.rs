//! How a guest is to set up its interfaces, where it has addresses that nobody hands out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::blueprint::dhcp::{Assignment, IpVersion, Route};
use crate::blueprint::ipam::Ipam;
use crate::blueprint::object::HostEntry;
use crate::desired::Network;

/// One interface of a guest, and all that it must be told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    id: String,
    mac: String,
    network: String,
    /// How it gets the others: DHCPv4, DHCPv6, router advertisements.
    by: Vec<Assigned>,
    /// The addresses that it sets up by itself.
    own: Vec<IpNet>,
    routes: Vec<Route>,
    dns: Vec<IpAddr>,
    search: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assigned {
    V4,
    V6,
    Slaac,
    Stateless,
}

/// The interfaces of a server, in order; nothing where all addresses are handed out or made by the guest.
pub(super) fn interfaces<'a>(
    ports: impl Iterator<Item = (&'a HostEntry, &'a Network, String)>,
    ipam: &Ipam,
) -> Option<Vec<Interface>> {
    // The first way out of each version wins.
    let mut ways_out: Vec<IpVersion> = Vec::new();
    let all: Vec<Interface> =
        ports.map(|(entry, network, id)| interface(entry, network, id, ipam, &mut ways_out)).collect();
    all.iter().any(|it| !it.own.is_empty()).then_some(all)
}

fn interface(
    entry: &HostEntry,
    network: &Network,
    id: String,
    ipam: &Ipam,
    ways_out: &mut Vec<IpVersion>,
) -> Interface {
    let served = entry.served();
    let mut it = Interface {
        id,
        mac: entry.mac.to_string(),
        network: network.name.to_string(),
        by: Vec::new(),
        own: Vec::new(),
        routes: Vec::new(),
        dns: Vec::new(),
        search: Vec::new(),
    };
    // Of these versions, somebody tells the guest the rest.
    let mut told: Vec<IpVersion> = Vec::new();
    for address in &entry.addresses {
        let by = match address.assignment {
            Assignment::Slaac => Assigned::Slaac,
            Assignment::Stateless => Assigned::Stateless,
            Assignment::Dhcp | Assignment::Static if !served.contains(&address.address) => continue,
            Assignment::Dhcp | Assignment::Static if address.address.is_ipv4() => Assigned::V4,
            Assignment::Dhcp | Assignment::Static => Assigned::V6,
        };
        told.push(IpVersion::of(address.address));
        if !it.by.contains(&by) {
            it.by.push(by);
        }
    }
    for subnet in network.subnets.iter().filter(|subnet| subnet.router.is_some()) {
        if told.contains(&subnet.version()) && !ways_out.contains(&subnet.version()) {
            ways_out.push(subnet.version());
        }
    }
    for address in &entry.addresses {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(&address.address));
        let Some(subnet) = subnet.filter(|_| !address.assignment.is_by_mac() && !served.contains(&address.address))
        else {
            continue;
        };
        it.own.extend(IpNet::new(address.address, subnet.cidr.prefix_len()));
        if told.contains(&subnet.version()) {
            continue;
        }
        if let Some(nexthop) = subnet.router
            && !ways_out.contains(&subnet.version())
        {
            ways_out.push(subnet.version());
            it.routes.push(Route { destination: everywhere(nexthop), nexthop });
        }
        add(&mut it.routes, &subnet.routes);
        let its_own = ipam.host.get(&subnet.name).and_then(|held| held.first());
        add(&mut it.dns, if subnet.dns.is_empty() { its_own.map_or(&[], std::slice::from_ref) } else { &subnet.dns });
        add(&mut it.search, std::slice::from_ref(&address.domain));
    }
    it
}

fn add<T: Clone + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for it in more {
        if !all.contains(it) {
            all.push(it.clone());
        }
    }
}

fn everywhere(like: IpAddr) -> IpNet {
    match like {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

/// In the words of cloud-init's network configuration, version 2, which are netplan's.
pub(super) fn version_2(interfaces: &[Interface]) -> Value {
    let mut ethernets = Map::new();
    for (number, it) in interfaces.iter().enumerate() {
        let mut ethernet = Map::new();
        let mut put = |key: &str, value: Value| ethernet.insert(key.into(), value);
        put("match", json!({ "macaddress": it.mac }));
        put("dhcp4", json!(it.by.contains(&Assigned::V4)));
        put("dhcp6", json!(it.by.contains(&Assigned::V6)));
        if !it.own.is_empty() {
            put("addresses", json!(it.own));
        }
        if !it.routes.is_empty() {
            let route = |route: &Route| json!({ "to": route.destination, "via": route.nexthop });
            put("routes", it.routes.iter().map(route).collect());
        }
        if !it.dns.is_empty() {
            put("nameservers", json!({ "addresses": it.dns, "search": it.search }));
        }
        ethernets.insert(format!("nic{number}"), ethernet.into());
    }
    json!({ "version": 2, "ethernets": ethernets })
}

/// In OpenStack's words (Nova's `network_data.json`).
pub(super) fn network_data(interfaces: &[Interface]) -> Value {
    let (mut links, mut networks, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for it in interfaces {
        links.push(json!({ "id": it.id, "type": "phy", "ethernet_mac_address": it.mac, "mtu": null }));
        let mut put = |kind: &str, more: Value| {
            let mut network = json!({
                "id": format!("network{}", networks.len()), "type": kind, "link": it.id, "network_id": it.network,
            });
            if let (Some(network), Value::Object(more)) = (network.as_object_mut(), more) {
                network.extend(more);
            }
            networks.push(network);
        };
        for by in &it.by {
            let kind = match by {
                Assigned::V4 => "ipv4_dhcp",
                Assigned::V6 => "ipv6_dhcpv6-stateful",
                Assigned::Slaac => "ipv6_slaac",
                Assigned::Stateless => "ipv6_dhcpv6-stateless",
            };
            put(kind, json!({}));
        }
        // A way stands with the first address from which it is reached.
        let mut left = it.routes.clone();
        for own in &it.own {
            let (here, later): (Vec<Route>, Vec<Route>) = left.into_iter().partition(|it| own.contains(&it.nexthop));
            left = later;
            let route = |it: &Route| {
                let (network, netmask) = (it.destination.network(), it.destination.netmask());
                json!({ "network": network, "netmask": netmask, "gateway": it.nexthop })
            };
            let kind = if own.addr().is_ipv4() { "ipv4" } else { "ipv6" };
            let routes: Vec<Value> = here.iter().map(route).collect();
            put(kind, json!({ "ip_address": own.addr(), "netmask": own.netmask(), "routes": routes }));
        }
        for address in &it.dns {
            let service = json!({ "type": "dns", "address": address });
            if !services.contains(&service) {
                services.push(service);
            }
        }
    }
    json!({ "links": links, "networks": networks, "services": services })
}
