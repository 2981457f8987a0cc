//! Chooses the addresses and the MAC of every port, and the host's address on every subnet.
//!
//! In this order, so that no choice takes what a stronger one needs (reference C8):
//!
//! 1. addresses that the spec names, and those that a MAC makes;
//! 2. addresses that were given before and are still possible: they are kept, in a pool or not;
//! 3. the lowest free address of the subnet's pools, ports of their own first, then by name of server.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::identity::{Identity, MAC_GENERATION_RETRIES};
use crate::blueprint::key::{bridge_key, host_entry_key};
use crate::blueprint::object::{HostEntry, Object};
use crate::desired::port::{Port, Request, Wanted};
use crate::desired::{Desired, Network, Subnet};
use crate::diagnostic::{Diagnostic, Place};
use crate::plan::world::Recorded;
use crate::spec::values::Pool;
use crate::value::{Mac, ip_address, ip_number};

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// The host's addresses on each subnet. The first is the gateway, or the DHCP server's own (reference D6). Others were
    /// that before: guests go by them until they renew their leases, so the host keeps them until a port needs them.
    pub host: HashMap<Name, Vec<IpAddr>>,
    /// What each port has.
    pub ports: HashMap<PortId, Allocation>,
}

/// What one port has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its MAC address.
    pub mac: Mac,
    /// Its addresses, in the order of the request, each with its subnet; those that the MAC makes come last.
    pub addresses: Vec<(IpAddr, Name)>,
}

/// How many holders of addresses a message names.
const NAMED: usize = 5;

impl Ipam {
    /// Chooses for all networks and ports of a spec. Adds what is wrong, and what is worth knowing, to `problems`.
    pub fn allocate(
        desired: &Desired,
        recorded: &Recorded,
        identity: &Identity,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        Self::allocate_beside(desired, recorded, &[], identity, problems)
    }

    /// The same, where guests that nobody wants or records any more have these addresses, each on its network: they are not
    /// given to others, unless the spec names them.
    pub fn allocate_beside(
        desired: &Desired,
        recorded: &Recorded,
        taken: &[(Name, IpAddr)],
        identity: &Identity,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut claimants: BTreeMap<&Name, Vec<Claimant>> = BTreeMap::new();
        for port in desired.ports.values() {
            let held = recorded.records.get(&host_entry_key(&port.id)).and_then(|record| match &record.object {
                // What it had on another network says nothing here.
                Object::HostEntry(entry) if entry.network == port.network => Some(entry),
                _ => None,
            });
            let chosen = vec![None; port.requests.len()];
            claimants.entry(&port.network).or_default().push(Claimant { port, held, chosen, mac: None });
        }
        let mut ipam = Self::default();
        for network in desired.networks.values() {
            let mut claimants = claimants.remove(&network.name).unwrap_or_default();
            macs(network, &mut claimants, identity, problems);
            let taken = taken.iter().filter(|(on, _)| *on == network.name).map(|(_, address)| *address);
            ipam.network(network, claimants, recorded, taken, problems);
        }
        ipam
    }

    fn network(
        &mut self,
        network: &Network,
        mut claimants: Vec<Claimant>,
        recorded: &Recorded,
        taken: impl Iterator<Item = IpAddr>,
        problems: &mut Vec<Diagnostic>,
    ) {
        let mut spaces: Vec<Space> = network.subnets.iter().map(Space::new).collect();
        let mut owners: HashMap<IpAddr, usize> = HashMap::new();
        for (index, claimant) in claimants.iter_mut().enumerate() {
            for (request, chosen) in claimant.port.requests.iter().zip(&mut claimant.chosen) {
                if let Wanted::Address(address) = request.wanted {
                    take(&mut spaces, address);
                    owners.insert(address, index);
                    *chosen = Some(address);
                }
            }
            for address in by_mac(network, claimant).map(|(address, _)| address) {
                take(&mut spaces, address);
            }
        }
        for address in taken {
            take(&mut spaces, address);
        }
        self.host_keeps(network, &mut spaces, recorded);
        for index in 0..claimants.len() {
            keep(index, &mut claimants, &mut spaces, &owners, problems);
        }
        for space in &mut spaces {
            if !self.host.contains_key(&space.subnet.name) {
                match space.lowest_anywhere() {
                    Some(address) => {
                        self.host.insert(space.subnet.name.clone(), vec![address]);
                    }
                    None => problems.push(no_room_for_host(space.subnet)),
                }
            }
        }
        // By what they ask for: those that ask for the same have one problem.
        let mut left_out: Vec<Vec<(&Port, &Request)>> = Vec::new();
        for claimant in &mut claimants {
            for (request, chosen) in claimant.port.requests.iter().zip(&mut claimant.chosen) {
                if chosen.is_none() {
                    *chosen = spaces.iter_mut().filter(|it| it.serves(&request.wanted)).find_map(Space::lowest);
                    if chosen.is_none() {
                        *chosen = spaces.iter().find_map(|space| self.host_gives_up(space, &request.wanted));
                    }
                }
                if chosen.is_none() {
                    match left_out
                        .iter_mut()
                        .find(|it| it.first().is_some_and(|(_, other)| other.wanted == request.wanted))
                    {
                        Some(same) => same.push((claimant.port, request)),
                        None => left_out.push(vec![(claimant.port, request)]),
                    }
                }
            }
        }
        problems.extend(left_out.iter().filter_map(|ports| exhausted(network, ports, &claimants)));
        problems.extend(spaces.iter().filter_map(|space| outside_pools(space, &claimants)));
        for claimant in claimants {
            let subnet = |address: &IpAddr| network.subnets.iter().find(|subnet| subnet.cidr.contains(address));
            let chosen = claimant.chosen.iter().flatten();
            let mut addresses: Vec<(IpAddr, Name)> =
                chosen.filter_map(|address| Some((*address, subnet(address)?.name.clone()))).collect();
            addresses.extend(by_mac(network, &claimant).map(|(address, subnet)| (address, subnet.name.clone())));
            if let Some(mac) = claimant.mac {
                self.ports.insert(claimant.port.id.clone(), Allocation { mac, addresses });
            }
        }
    }

    /// The host's own addresses: a router's is set, all others are kept while they can be.
    fn host_keeps(&mut self, network: &Network, spaces: &mut [Space], recorded: &Recorded) {
        let before = match recorded.records.get(&bridge_key(&network.name)).map(|record| &record.object) {
            Some(Object::Bridge(bridge)) => bridge.addresses.as_slice(),
            _ => &[],
        };
        for space in spaces {
            let routing = space.subnet.router.filter(|_| space.subnet.host_is_router);
            let held = before.iter().map(IpNet::addr).filter(|address| space.may_have(*address));
            let all: Vec<IpAddr> = routing.into_iter().chain(held).collect();
            space.used.extend(all.iter().copied().map(ip_number));
            if !all.is_empty() {
                self.host.insert(space.subnet.name.clone(), all);
            }
        }
    }

    /// An address in a pool that the host only keeps for guests which may still go by it.
    fn host_gives_up(&mut self, space: &Space, wanted: &Wanted) -> Option<IpAddr> {
        let all = self.host.get_mut(&space.subnet.name).filter(|_| space.serves(wanted))?;
        let former = all.iter().skip(1).position(|address| space.is_in_pool(*address))?;
        Some(all.remove(former + 1))
    }
}

/// A port while it is given its addresses.
struct Claimant<'a> {
    port: &'a Port,
    held: Option<&'a HostEntry>,
    /// The address for each request.
    chosen: Vec<Option<IpAddr>>,
    mac: Option<Mac>,
}

/// MAC addresses, unique on a network: those of the spec, then those given before, then derived ones (reference C6).
fn macs(network: &Network, claimants: &mut [Claimant], identity: &Identity, problems: &mut Vec<Diagnostic>) {
    // The bridge has one too.
    let mut used = HashSet::from([Identity::mac(identity.network(&network.name), 0)]);
    let mut owners: HashMap<Mac, &Port> = HashMap::new();
    for claimant in claimants.iter_mut() {
        claimant.mac = claimant.port.mac;
        owners.extend(claimant.mac.map(|mac| (mac, claimant.port)));
        used.extend(claimant.mac);
    }
    for claimant in claimants.iter_mut().filter(|claimant| claimant.port.mac.is_none()) {
        let Some(held) = claimant.held.map(|held| held.mac) else { continue };
        if let Some(taker) = owners.get(&held) {
            problems.push(in_use(held, "mac-in-use", claimant.port, &taker.declared.place("mac_address")));
        } else {
            claimant.mac = Some(held).filter(|held| used.insert(*held));
        }
    }
    for claimant in claimants.iter_mut().filter(|claimant| claimant.mac.is_none()) {
        let id = identity.port(&claimant.port.id);
        let mut drawn = (0..MAC_GENERATION_RETRIES).map(|attempt| Identity::mac(id, attempt));
        claimant.mac = drawn.find(|mac| used.insert(*mac));
        if claimant.mac.is_none() {
            let place = claimant.port.declared.place("");
            let error = Diagnostic::error(format!(
                "no free MAC address for `{}` on `network.{}` after {MAC_GENERATION_RETRIES} tries",
                claimant.port.id.address(),
                network.name
            ));
            problems
                .push(error.placed(place).code("mac-exhausted").help("give the port a `mac_address`, or another name"));
        }
    }
}

/// The addresses that a port makes from its MAC (reference C9).
fn by_mac<'n>(network: &'n Network, claimant: &Claimant) -> impl Iterator<Item = (IpAddr, &'n Subnet)> {
    let mac = claimant.mac;
    network.subnets.iter().filter(|subnet| subnet.assignment.is_by_mac()).filter_map(move |subnet| match subnet.cidr {
        IpNet::V6(net) => Some((IpAddr::V6(mac?.eui64(net)), subnet)),
        IpNet::V4(_) => None,
    })
}

/// Gives a port again what it had, as far as it asks for that and may have it.
fn keep(
    index: usize,
    claimants: &mut [Claimant],
    spaces: &mut [Space],
    owners: &HashMap<IpAddr, usize>,
    problems: &mut Vec<Diagnostic>,
) {
    let Some(held) = claimants.get(index).and_then(|claimant| claimant.held) else { return };
    for address in held.addresses.iter().map(|it| it.address) {
        let Some(space) = spaces.iter_mut().find(|space| space.subnet.is_host(address)) else { continue };
        let Some(claimant) = claimants.get(index) else { return };
        let mut open = claimant.port.requests.iter().zip(&claimant.chosen).map(|(request, chosen)| {
            chosen.is_none() && !matches!(request.wanted, Wanted::Address(_)) && space.serves(&request.wanted)
        });
        let Some(slot) = open.position(|open| open) else { continue };
        let taker = owners.get(&address).and_then(|taker| claimants.get(*taker));
        if let Some(taker) = taker {
            // An address in use is not taken away from its holder by an edit somewhere else.
            let asks = taker.port.requests.iter().find(|it| it.wanted == Wanted::Address(address));
            let place = asks.map_or(Place::Nowhere, |request| request.place.clone());
            problems.push(in_use(address, "address-in-use", claimant.port, &place));
        } else if space.may_have(address) {
            space.used.insert(ip_number(address));
            if let Some(chosen) = claimants.get_mut(index).and_then(|claimant| claimant.chosen.get_mut(slot)) {
                *chosen = Some(address);
            }
        }
    }
}

/// A subnet while its addresses are given out.
struct Space<'a> {
    subnet: &'a Subnet,
    used: HashSet<u128>,
    /// The pool to look in, and the lowest address in it that was not looked at. It only moves up, so that all ports
    /// together cost one walk.
    next: (usize, u128),
}

impl<'a> Space<'a> {
    fn new(subnet: &'a Subnet) -> Self {
        let start = subnet.pools.first().map_or(0, |pool| ip_number(pool.first));
        Self { subnet, used: subnet.router.map(ip_number).into_iter().collect(), next: (0, start) }
    }

    fn may_have(&self, address: IpAddr) -> bool {
        self.subnet.is_host(address) && !self.used.contains(&ip_number(address))
    }

    /// Whether an address of this subnet is what is wanted.
    fn serves(&self, wanted: &Wanted) -> bool {
        let subnet = self.subnet;
        match wanted {
            Wanted::Address(address) => subnet.cidr.contains(address),
            Wanted::Subnet(name) => subnet.name == *name,
            Wanted::Any(version) => subnet.version() == *version && !subnet.assignment.is_by_mac(),
        }
    }

    fn lowest(&mut self) -> Option<IpAddr> {
        while let Some(pool) = self.subnet.pools.get(self.next.0) {
            let last = ip_number(pool.last);
            while self.next.1 <= last {
                let number = self.next.1;
                self.next.1 += 1;
                if self.used.insert(number) {
                    return Some(ip_address(number, pool.first));
                }
            }
            self.next.0 += 1;
            self.next.1 = self.subnet.pools.get(self.next.0).map_or(0, |pool| ip_number(pool.first));
        }
        None
    }

    fn lowest_anywhere(&mut self) -> Option<IpAddr> {
        let (first, last) = (self.subnet.first(), self.subnet.last());
        let free = (ip_number(first)..=ip_number(last)).find(|number| !self.used.contains(number))?;
        self.used.insert(free);
        Some(ip_address(free, first))
    }

    fn is_in_pool(&self, address: IpAddr) -> bool {
        self.subnet.pools.iter().any(|pool| pool.contains(address))
    }
}

/// Takes an address in whichever subnet has it, if it is free.
fn take(spaces: &mut [Space], address: IpAddr) -> bool {
    spaces.iter_mut().any(|space| space.may_have(address) && space.used.insert(ip_number(address)))
}

fn in_use(what: impl std::fmt::Display, code: &str, holder: &Port, place: &Place) -> Diagnostic {
    let resource = holder.id.address();
    let error = Diagnostic::error(format!("{what} is in use by `{resource}`"));
    error
        .placed(place.clone())
        .code(code)
        .related(holder.declared.place(""), "has it since it was made")
        .help(format!("choose a free address, or first give `{resource}` another one of its own choice"))
}

fn no_room_for_host(subnet: &Subnet) -> Diagnostic {
    Diagnostic::error(format!("no address is left in {} for the DHCP server", subnet.cidr))
        .code("no-address-for-host")
        .on(&Address::new(ResourceKind::Subnet, subnet.name.clone()), "cidr")
        .help("use a larger range, or fewer fixed addresses")
}

/// Reference C10: which pools are empty, how large they are, and who holds what is in them.
fn exhausted(network: &Network, left_out: &[(&Port, &Request)], claimants: &[Claimant]) -> Option<Diagnostic> {
    let (first, request) = left_out.first()?;
    let what = match &request.wanted {
        Wanted::Any(version) => format!("`network.{}` has no {version} address left", network.name),
        Wanted::Subnet(name) => format!("`subnet.{name}` has no address left"),
        Wanted::Address(address) => format!("{address} is not left"),
    };
    let spaces: Vec<Space> = network.subnets.iter().map(Space::new).filter(|it| it.serves(&request.wanted)).collect();
    let pools: Vec<Pool> = spaces.iter().flat_map(|space| space.subnet.pools.iter().copied()).collect();
    let size = pools.iter().fold(0, |sum: u128, pool| sum.saturating_add(pool.size()));
    let holds = |claimant: &&Claimant| {
        claimant.chosen.iter().flatten().any(|address| pools.iter().any(|pool| pool.contains(*address)))
    };
    let holders: Vec<String> = claimants.iter().filter(holds).map(|it| it.port.id.to_string()).collect();
    let more = if left_out.len() > 1 { format!(" and {} more", left_out.len() - 1) } else { String::new() };
    let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
    let error = Diagnostic::error(format!(
        "{what} for `{}`{more}: {} of the {size} in {} are held by {}",
        first.id.address(),
        holders.len(),
        pools.join(" and "),
        some(&holders)
    ));
    let subnet = spaces.first().map(|space| Address::new(ResourceKind::Subnet, space.subnet.name.clone()));
    let related = subnet.map_or(Place::Nowhere, |subnet| Place::of(&subnet, "pools"));
    let error = error.placed(request.place.clone());
    Some(
        error
            .code("pool-exhausted")
            .related(related, "all taken")
            .help("widen `pools` or `cidr`, or add a subnet to the network"),
    )
}

/// An address that was served from a pool which has become smaller stays with its port.
fn outside_pools(space: &Space, claimants: &[Claimant]) -> Option<Diagnostic> {
    let stays = |claimant: &Claimant| -> Vec<String> {
        let served = claimant.port.requests.iter().zip(&claimant.chosen);
        let served = served.filter(|(request, _)| !matches!(request.wanted, Wanted::Address(_)));
        let outside = served
            .filter_map(|(_, chosen)| *chosen)
            .filter(|address| space.subnet.is_host(*address) && !space.is_in_pool(*address));
        outside.map(|address| format!("{address} of {}", claimant.port.id)).collect()
    };
    let outside: Vec<String> = claimants.iter().flat_map(stays).collect();
    let (it, stay) = if outside.len() == 1 { ("lies", "stays") } else { ("lie", "stay") };
    (!outside.is_empty()).then(|| {
        Diagnostic::warning(format!("{} {it} outside the pools, and {stay} in use", some(&outside)))
            .code("outside-pools")
            .on(&Address::new(ResourceKind::Subnet, space.subnet.name.clone()), "pools")
            .help("nothing is taken from whoever has it; to move a port, give it a fixed address")
    })
}

/// The first few of many.
fn some(all: &[String]) -> String {
    let named: Vec<String> = all.iter().take(NAMED).map(|it| format!("`{it}`")).collect();
    match all.len().saturating_sub(NAMED) {
        0 if named.is_empty() => "nobody".into(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
