//! Chooses the address and MAC of every port, and the host's address on every subnet.
//!
//! In this order, so that no choice takes what a stronger one needs (reference C8):
//!
//! 1. addresses that the spec names;
//! 2. addresses that were given before and are still possible: they are kept, in a pool or not;
//! 3. the lowest free address of the subnet's pools, by name of server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::identity::{Identity, MAC_GENERATION_RETRIES};
use crate::blueprint::key::{bridge_key, host_entry_key};
use crate::blueprint::object::{HostEntry, Object};
use crate::desired::{Desired, Network, Server, Subnet};
use crate::diagnostic::{Diagnostic, Place};
use crate::plan::world::Recorded;
use crate::value::Mac;

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// The host's address on each subnet: the gateway, or the DHCP server's own (reference D6).
    pub host: HashMap<Name, Ipv4Addr>,
    /// The address and MAC of each port, by server and network.
    pub ports: HashMap<(Name, Name), (Ipv4Addr, Mac)>,
}

impl Ipam {
    /// Chooses for all networks and servers of a spec.
    pub fn allocate(
        desired: &Desired,
        recorded: &Recorded,
        identity: &Identity,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut ports: BTreeMap<&Name, Vec<Port>> = BTreeMap::new();
        for server in desired.servers.values() {
            for (network, fixed) in &server.ports {
                let key = host_entry_key(&server.name, network);
                let held = recorded.records.get(&key).and_then(|record| match &record.object {
                    Object::HostEntry(entry) => Some(entry),
                    _ => None,
                });
                ports.entry(network).or_default().push(Port { server, fixed: *fixed, held });
            }
        }
        let mut ipam = Self::default();
        for network in desired.networks.values() {
            let ports = ports.remove(&network.name).unwrap_or_default();
            ipam.network(network, &ports, recorded, problems);
            ipam.macs(network, &ports, identity, problems);
        }
        ipam
    }

    fn network(&mut self, network: &Network, ports: &[Port], recorded: &Recorded, problems: &mut Vec<Diagnostic>) {
        let mut spaces: Vec<Space> = network.subnets.iter().map(Space::new).collect();
        let mut chosen: Vec<Option<Ipv4Addr>> = ports.iter().map(|port| port.fixed).collect();
        let mut owner: HashMap<Ipv4Addr, usize> = HashMap::new();
        for (index, fixed) in chosen.iter().enumerate() {
            if let Some(fixed) = fixed {
                take(&mut spaces, *fixed);
                owner.insert(*fixed, index);
            }
        }
        let before = match recorded.records.get(&bridge_key(&network.name)).map(|record| &record.object) {
            Some(Object::Bridge(bridge)) => bridge.addresses.as_slice(),
            _ => &[],
        };
        for space in &mut spaces {
            let held = before.iter().map(ipnet::Ipv4Net::addr).find(|address| space.may_have(*address));
            let routing = space.subnet.router.filter(|_| space.subnet.host_is_router);
            if let Some(address) = routing.or(held) {
                space.used.insert(address);
                self.host.insert(space.subnet.name.clone(), address);
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let Some(held) = port.held.map(|entry| entry.address).filter(|_| port.fixed.is_none()) else { continue };
            if let Some(taker) = owner.get(&held).and_then(|taker| ports.get(*taker)) {
                // An address in use is not taken away from its holder by an edit somewhere else.
                problems.push(in_use(held, port.server, taker.server));
            } else if take(&mut spaces, held)
                && let Some(chosen) = chosen.get_mut(index)
            {
                *chosen = Some(held);
            }
        }
        for space in &mut spaces {
            if !self.host.contains_key(&space.subnet.name) {
                match space.lowest_anywhere() {
                    Some(address) => {
                        self.host.insert(space.subnet.name.clone(), address);
                    }
                    None => problems.push(no_room_for_host(space.subnet)),
                }
            }
        }
        let mut left_out = Vec::new();
        for (port, chosen) in ports.iter().zip(chosen) {
            match chosen.or_else(|| spaces.iter_mut().find_map(Space::lowest)) {
                Some(address) => {
                    // The MAC is filled in by the next pass.
                    let key = (port.server.name.clone(), network.name.clone());
                    self.ports.insert(key, (address, Mac([0; 6])));
                }
                None => left_out.push(port.server),
            }
        }
        if let [first, ..] = left_out[..] {
            problems.push(exhausted(network, first, left_out.len(), ports.len()));
        }
    }

    /// MAC addresses, unique on a network, those given before first (reference C6).
    fn macs(&mut self, network: &Network, ports: &[Port], identity: &Identity, problems: &mut Vec<Diagnostic>) {
        // The bridge has one too.
        let mut used = HashSet::from([Identity::mac(identity.network(&network.name), 0)]);
        let kept: Vec<Option<Mac>> =
            ports.iter().map(|port| port.held.map(|entry| entry.mac).filter(|mac| used.insert(*mac))).collect();
        for (port, kept) in ports.iter().zip(kept) {
            let id = identity.port(&port.server.name, &network.name);
            let mac = kept.or_else(|| {
                (0..MAC_GENERATION_RETRIES).map(|attempt| Identity::mac(id, attempt)).find(|mac| used.insert(*mac))
            });
            let chosen = self.ports.get_mut(&(port.server.name.clone(), network.name.clone()));
            match (mac, chosen) {
                (Some(mac), Some(chosen)) => chosen.1 = mac,
                (None, _) => problems.push(
                    Diagnostic::error(format!(
                        "no free MAC address for `server.{}` on `network.{}` after {MAC_GENERATION_RETRIES} tries",
                        port.server.name, network.name
                    ))
                    .on(&port.server.declared, "")
                    .help("give the server another name"),
                ),
                (Some(_), None) => {}
            }
        }
    }
}

/// A port that needs an address on the network at hand.
struct Port<'a> {
    server: &'a Server,
    fixed: Option<Ipv4Addr>,
    held: Option<&'a HostEntry>,
}

/// A subnet while its addresses are given out.
struct Space<'a> {
    subnet: &'a Subnet,
    used: HashSet<Ipv4Addr>,
    /// The pool to look in, and the lowest address in it that was not looked at. It only moves up, so that all ports
    /// together cost one walk.
    next: (usize, u32),
}

impl<'a> Space<'a> {
    fn new(subnet: &'a Subnet) -> Self {
        let start = subnet.pools.first().map_or(0, |pool| u32::from(pool.first));
        Self { subnet, used: subnet.router.into_iter().collect(), next: (0, start) }
    }

    fn may_have(&self, address: Ipv4Addr) -> bool {
        self.subnet.is_host(address) && !self.used.contains(&address)
    }

    fn lowest(&mut self) -> Option<Ipv4Addr> {
        while let Some(pool) = self.subnet.pools.get(self.next.0) {
            let last = u32::from(pool.last);
            while self.next.1 <= last {
                let address = Ipv4Addr::from(self.next.1);
                self.next.1 += 1;
                if self.used.insert(address) {
                    return Some(address);
                }
            }
            self.next.0 += 1;
            self.next.1 = self.subnet.pools.get(self.next.0).map_or(0, |pool| u32::from(pool.first));
        }
        None
    }

    fn lowest_anywhere(&mut self) -> Option<Ipv4Addr> {
        let all = u32::from(self.subnet.first())..=u32::from(self.subnet.last());
        let free = all.map(Ipv4Addr::from).find(|address| !self.used.contains(address))?;
        self.used.insert(free);
        Some(free)
    }
}

/// Takes an address in whichever subnet has it, if it is free.
fn take(spaces: &mut [Space], address: Ipv4Addr) -> bool {
    spaces.iter_mut().any(|space| space.may_have(address) && space.used.insert(address))
}

fn in_use(address: Ipv4Addr, holder: &Server, taker: &Server) -> Diagnostic {
    Diagnostic::error(format!("{address} is in use by `server.{}`", holder.name))
        .on(&taker.declared, "fixed_ip")
        .related(Place::of(&holder.declared, ""), "has it since it was made")
        .help(format!("choose a free address, or first give `server.{}` another `fixed_ip`", holder.name))
}

fn no_room_for_host(subnet: &Subnet) -> Diagnostic {
    Diagnostic::error(format!("no address is left in {} for the DHCP server", subnet.cidr))
        .on(&Address::new(ResourceKind::Subnet, subnet.name.clone()), "cidr")
        .help("use a larger range, or fewer fixed addresses")
}

fn exhausted(network: &Network, first: &Server, missing: usize, ports: usize) -> Diagnostic {
    let room: u64 = network
        .subnets
        .iter()
        .flat_map(|subnet| &subnet.pools)
        .map(|pool| u64::from(u32::from(pool.last) - u32::from(pool.first)) + 1)
        .sum();
    let more = if missing > 1 { format!(" and {} more", missing - 1) } else { String::new() };
    Diagnostic::error(format!(
        "`network.{}` has no address left for `server.{}`{more}: {ports} ports, and {room} addresses in its pools",
        network.name, first.name
    ))
    .on(&first.declared, "networks")
    .related(
        network.subnets.first().map_or(Place::Nowhere, |subnet| {
            Place::of(&Address::new(ResourceKind::Subnet, subnet.name.clone()), "pools")
        }),
        "all taken",
    )
    .help("widen `pools` or `cidr`, or add a subnet to the network")
}
