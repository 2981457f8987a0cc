//! Which addresses of a network are in use, and which are free. Nothing here grows with the size of a subnet.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Name, PortId};
use crate::blueprint::dhcp::Assignment;
use crate::blueprint::identity::Identity;
use crate::blueprint::ignore;
use crate::blueprint::ipam::Ipam;
use crate::blueprint::key::bridge_key;
use crate::blueprint::object::Object;
use crate::desired::port::Wanted;
use crate::desired::{Carried, Desired, Network, Subnet};
use crate::diagnostic::Diagnostic;
use crate::plan::world::{Recorded, Status};
use crate::spec::values::Pool;
use crate::value::{Mac, ip_address, ip_number};

/// The addresses of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Those in use, in the order of their numbers, IPv4 first.
    pub used: Vec<Use>,
    /// What is left in each subnet.
    pub free: Vec<Free>,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The address.
    pub address: IpAddr,
    /// Its subnet; none where the spec has it no more.
    pub subnet: Option<Name>,
    /// Who has it.
    pub holder: Holder,
    /// The holder's MAC address, where it is one of ours.
    pub mac: Option<Mac>,
    /// How the holder came by it; none where the spec has that no more.
    pub how: Option<How>,
    /// Whether it stands on the host.
    pub state: State,
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// This machine.
    Host,
    /// A router that is none of ours.
    Router,
    /// A port.
    Port(PortId),
}

/// How a holder came by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is the way out of the subnet.
    Gateway,
    /// The DHCP and DNS server of a subnet needs one.
    DhcpServer,
    /// It was one of the two before, and guests may still go by it.
    Former,
    /// The spec names it.
    Pinned,
    /// It was the lowest free one of a pool.
    Served,
    /// It was one of a pool once, and stays.
    Kept,
    /// It is made from the MAC.
    Slaac,
}

impl How {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::DhcpServer => "dhcp server",
            Self::Former => "former",
            Self::Pinned => "pinned",
            Self::Served => "served",
            Self::Kept => "kept",
            Self::Slaac => "slaac",
        }
    }
}

/// Whether an address stands on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, and stays.
    Made,
    /// The next apply makes it.
    Planned,
    /// The next apply takes it away.
    Leaving,
    /// That is not ours to say.
    Foreign,
}

impl State {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Planned => "planned",
            Self::Leaving => "leaving",
            Self::Foreign => "not ours",
        }
    }
}

/// What is left of a subnet once the next apply is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// The subnet.
    pub subnet: Name,
    /// Its addresses.
    pub cidr: IpNet,
    /// How guests get theirs. Where the MAC decides, nothing is served, and the rest is empty.
    pub assignment: Assignment,
    /// The free ranges within its pools, in the order in which they are served.
    pub ranges: Vec<Pool>,
    /// How many addresses that is.
    pub free: u128,
    /// How many the pools have.
    pub total: u128,
}

impl Free {
    /// The address that is served next.
    pub fn next(&self) -> Option<IpAddr> {
        self.ranges.first().map(|range| range.first)
    }
}

/// The addresses of a network, as the spec wants them and the records have them. Adds what is wrong to `problems`.
///
/// What the host holds and no record tells of is not seen here: nothing is asked of the host.
pub fn of(network: &Network, desired: &Desired, recorded: &Recorded, problems: &mut Vec<Diagnostic>) -> Usage {
    let kept = ignore::ports(desired, recorded, &mut ignore::Notes::new()).unwrap_or_else(|more| {
        problems.extend(more);
        Cow::Borrowed(desired)
    });
    let desired = &*kept;
    let identity = Identity::new(&desired.project);
    let on_it = desired.ports.iter().filter(|(_, port)| port.network == network.name);
    let alone = Desired {
        project: desired.project.clone(),
        host: desired.host.clone(),
        networks: BTreeMap::from([(network.name.clone(), network.clone())]),
        images: BTreeMap::new(),
        flavors: BTreeMap::new(),
        ports: on_it.map(|(id, port)| (id.clone(), port.clone())).collect(),
        volumes: BTreeMap::new(),
        servers: BTreeMap::new(),
        carried: Carried::default(),
        references: Default::default(),
    };
    let ipam = Ipam::allocate(&alone, recorded, &identity, problems);
    let mut made = Made::of(network, recorded);
    let mut used: Vec<Use> = Vec::new();
    for subnet in &network.subnets {
        let host = ipam.host.get(&subnet.name).map_or(&[][..], Vec::as_slice);
        for (number, address) in host.iter().enumerate() {
            used.push(Use {
                address: *address,
                subnet: Some(subnet.name.clone()),
                holder: Holder::Host,
                mac: Some(Identity::mac(identity.network(&network.name), 0)),
                how: Some(match number {
                    0 if subnet.router == Some(*address) => How::Gateway,
                    0 => How::DhcpServer,
                    _ => How::Former,
                }),
                state: made.state(&Holder::Host, *address),
            });
        }
        if let Some(address) = subnet.router.filter(|router| !host.contains(router)) {
            used.push(Use {
                address,
                subnet: Some(subnet.name.clone()),
                holder: Holder::Router,
                mac: None,
                how: Some(How::Gateway),
                state: State::Foreign,
            });
        }
    }
    for port in alone.ports.values() {
        let Some(held) = ipam.ports.get(&port.id) else { continue };
        for (address, subnet) in &held.addresses {
            let pinned = port.requests.iter().any(|request| request.wanted == Wanted::Address(*address));
            let subnet = network.subnets.iter().find(|it| it.name == *subnet);
            let holder = Holder::Port(port.id.clone());
            used.push(Use {
                address: *address,
                subnet: subnet.map(|subnet| subnet.name.clone()),
                mac: Some(held.mac),
                how: subnet.map(|subnet| how(subnet, *address, pinned)),
                state: made.state(&holder, *address),
                holder,
            });
        }
    }
    let free = network.subnets.iter().map(|subnet| free(subnet, &used)).collect();
    used.extend(made.rest(network));
    used.sort_by(|a, b| {
        (a.address, a.state == State::Leaving, &a.holder).cmp(&(b.address, b.state == State::Leaving, &b.holder))
    });
    Usage { used, free }
}

fn how(subnet: &Subnet, address: IpAddr, pinned: bool) -> How {
    if subnet.assignment.is_by_mac() {
        How::Slaac
    } else if pinned {
        How::Pinned
    } else if subnet.pools.iter().any(|pool| pool.contains(address)) {
        How::Served
    } else {
        How::Kept
    }
}

fn free(subnet: &Subnet, used: &[Use]) -> Free {
    let pools: &[Pool] = if subnet.assignment.is_by_mac() { &[] } else { &subnet.pools };
    let taken: BTreeSet<u128> =
        used.iter().map(|it| it.address).filter(|it| subnet.cidr.contains(it)).map(ip_number).collect();
    let ranges: Vec<Pool> = pools.iter().flat_map(|pool| gaps(*pool, &taken)).collect();
    let count = |pools: &[Pool]| pools.iter().fold(0, |sum: u128, pool| sum.saturating_add(pool.size()));
    Free {
        subnet: subnet.name.clone(),
        cidr: subnet.cidr,
        assignment: subnet.assignment,
        free: count(&ranges),
        total: count(pools),
        ranges,
    }
}

/// What a pool has between the numbers that are taken.
fn gaps(pool: Pool, taken: &BTreeSet<u128>) -> Vec<Pool> {
    let (first, last) = (ip_number(pool.first), ip_number(pool.last));
    let range = |from, to| Pool { first: ip_address(from, pool.first), last: ip_address(to, pool.first) };
    let mut gaps = Vec::new();
    // None once the last number there is was taken.
    let mut next = Some(first);
    for number in taken.range(first..=last) {
        if let Some(from) = next.filter(|from| from < number) {
            gaps.push(range(from, number - 1));
        }
        next = number.checked_add(1);
    }
    gaps.extend(next.filter(|from| *from <= last).map(|from| range(from, last)));
    gaps
}

/// What the records say of the addresses of a network, until somebody asks.
struct Made(HashMap<(Holder, IpAddr), (Mac, Status)>);

impl Made {
    fn of(network: &Network, recorded: &Recorded) -> Self {
        let mut made = Self(HashMap::new());
        let bridge = bridge_key(&network.name);
        for (key, record) in &recorded.records {
            // What stood there before may stand there still.
            let before = record.previous.iter().map(|object| (object, Status::Present));
            for (object, status) in before.chain([(&record.object, record.status)]) {
                match object {
                    Object::Bridge(it) if *key == bridge => {
                        for net in &it.addresses {
                            made.0.entry((Holder::Host, net.addr())).or_insert((it.mac, status));
                        }
                    }
                    Object::HostEntry(it) if it.network == network.name => {
                        for its in &it.addresses {
                            let holder = Holder::Port(it.port.clone());
                            made.0.entry((holder, its.address)).or_insert((it.mac, status));
                        }
                    }
                    _ => {}
                }
            }
        }
        made
    }

    /// How far an address is that is to stay.
    fn state(&mut self, holder: &Holder, address: IpAddr) -> State {
        match self.0.remove(&(holder.clone(), address)) {
            Some((_, Status::Present)) => State::Made,
            Some((_, Status::Intended)) | None => State::Planned,
        }
    }

    /// Those that are not to stay.
    fn rest(self, network: &Network) -> impl Iterator<Item = Use> {
        self.0.into_iter().map(|((holder, address), (mac, _))| Use {
            address,
            subnet: network.subnets.iter().find(|it| it.cidr.contains(&address)).map(|it| it.name.clone()),
            holder,
            mac: Some(mac),
            how: None,
            state: State::Leaving,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_between() {
        for (pool, taken, expected) in [
            ("10.0.0.1-10.0.0.9", &[][..], "10.0.0.1-10.0.0.9"),
            (
                "10.0.0.1-10.0.0.9",
                &["10.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.9"],
                "10.0.0.2-10.0.0.4 10.0.0.7-10.0.0.8",
            ),
            ("10.0.0.1-10.0.0.3", &["10.0.0.0", "10.0.0.2", "10.0.0.4"], "10.0.0.1-10.0.0.1 10.0.0.3-10.0.0.3"),
            ("10.0.0.1-10.0.0.2", &["10.0.0.1", "10.0.0.2"], ""),
            ("255.255.255.254-255.255.255.255", &["255.255.255.255"], "255.255.255.254-255.255.255.254"),
            ("fd00::1-fd00::ffff:ffff:ffff:ffff", &["fd00::1"], "fd00::2-fd00::ffff:ffff:ffff:ffff"),
            (
                "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                &["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
                "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
            ),
        ] {
            let number = |text: &&str| ip_number(text.parse().expect("an address"));
            let gaps = gaps(pool.parse().expect("a pool"), &taken.iter().map(number).collect());
            assert_eq!(
                gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                expected,
                "{pool} {taken:?}"
            );
        }
    }
}
