//! Networks, servers and the ports between them, before a plan and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::facts::Disruption;
use crate::blueprint::key::{ObjectKey, host_entry_key};
use crate::blueprint::object::{Domain, HostEntry, Object};
use crate::plan::Plan;
use crate::plan::diff::{Action, Reason};
use crate::plan::world::Recorded;
use crate::report::leases::port_label;
use crate::report::plan::{Resources, Verdict, by_resource, verdict};
use crate::value::Mac;

/// All networks, servers and ports that there are before a plan, after it, or both.
#[derive(Debug)]
pub struct Topology {
    /// The networks, by name.
    pub networks: Vec<NetworkView>,
    /// The servers, by name.
    pub servers: Vec<ServerView>,
    /// The ports that no server has.
    pub free: Vec<PortView>,
    /// What the servers have in all, before and after.
    pub sums: (Sums, Sums),
}

/// What servers have in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many there are.
    pub servers: u64,
    /// Their processors.
    pub vcpus: u64,
    /// Their memory, in bytes.
    pub memory: u64,
    /// Their root disks, in bytes.
    pub disk: u64,
}

impl Sums {
    fn add(&mut self, object: Option<&Object>) {
        match object {
            Some(Object::Domain(domain)) => {
                self.servers += 1;
                self.vcpus += u64::from(domain.vcpus);
                self.memory = self.memory.saturating_add(domain.memory.bytes());
            }
            Some(Object::Disk(disk)) => self.disk = self.disk.saturating_add(disk.size.bytes()),
            _ => {}
        }
    }
}

/// A network.
#[derive(Debug)]
pub struct NetworkView {
    /// Its name.
    pub name: Name,
    /// What is done to it; none where it stays as it is.
    pub verdict: Option<Verdict>,
    /// Its subnets as they are to be, or as they were where it goes.
    pub subnets: Vec<(Name, IpNet)>,
}

/// A server.
#[derive(Debug)]
pub struct ServerView {
    /// Its name.
    pub name: Name,
    /// What is done to it; none where it stays as it is.
    pub verdict: Option<Verdict>,
    /// The worst that is done to it.
    pub cost: Disruption,
    /// Its ports, in the order of its interfaces; those that it loses last.
    pub ports: Vec<PortView>,
}

/// A port, of the server that has it.
#[derive(Debug)]
pub struct PortView {
    /// The port.
    pub port: PortId,
    /// The network it is on.
    pub network: Name,
    /// Its MAC address as it is to be, or as it was where it goes.
    pub mac: Mac,
    /// The addresses that the server has by it before; none where it has not the port.
    pub before: Vec<IpAddr>,
    /// The addresses that it has by it after.
    pub after: Vec<IpAddr>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a port, for the server that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// It comes.
    #[serde(rename = "create")]
    Comes,
    /// It goes.
    #[serde(rename = "delete")]
    Goes,
    /// It gets other addresses, or another MAC.
    #[serde(rename = "update")]
    Changes,
    /// It stays as it is.
    #[serde(rename = "no-op")]
    Stays,
}

impl PortView {
    /// The port as people know it: `web/private`, or `port.vip`.
    pub fn label(&self) -> String {
        port_label(&self.port)
    }
}

/// An object before and after.
type Sides<'a> = BTreeMap<&'a ObjectKey, (Option<&'a Object>, Option<&'a Object>)>;

impl Topology {
    /// What there is before the plan, by what is recorded, and after it.
    pub fn new(plan: &Plan, recorded: &Recorded) -> Self {
        let sides = sides(plan, recorded);
        let resources = by_resource(plan);
        let mut networks: BTreeMap<&Name, NetworkView> = BTreeMap::new();
        let mut servers = Vec::new();
        let mut sums = (Sums::default(), Sums::default());
        let mut plugged: BTreeSet<PortId> = BTreeSet::new();
        for (before, after) in sides.values() {
            sums.0.add(*before);
            sums.1.add(*after);
            match after.or(*before) {
                Some(Object::Bridge(bridge)) => {
                    networks.entry(&bridge.network).or_insert_with(|| network(&bridge.network, &resources));
                }
                Some(Object::Dhcp(dhcp)) => {
                    let view = networks.entry(&dhcp.network).or_insert_with(|| network(&dhcp.network, &resources));
                    view.subnets = dhcp.ranges.iter().map(|range| (range.subnet.clone(), range.cidr)).collect();
                }
                Some(Object::Domain(domain)) => {
                    let view = server(&domain.server, as_domain(*before), as_domain(*after), &sides, &resources);
                    plugged.extend(view.ports.iter().map(|port| port.port.clone()));
                    servers.push(view);
                }
                _ => {}
            }
        }
        let free = sides.values().filter_map(|(before, after)| {
            let (before, after) = (before.and_then(as_entry), after.and_then(as_entry));
            let entry = after.or(before).filter(|entry| !plugged.contains(&entry.port))?;
            Some(port(entry, before, after))
        });
        Self { networks: networks.into_values().collect(), servers, free: free.collect(), sums }
    }

    /// All ports, each with the server that has it.
    pub fn ports(&self) -> impl Iterator<Item = (Option<&ServerView>, &PortView)> {
        let plugged = self.servers.iter().flat_map(|server| server.ports.iter().map(move |port| (Some(server), port)));
        plugged.chain(self.free.iter().map(|port| (None, port)))
    }
}

/// What no change concerns is after as it was before.
fn sides<'a>(plan: &'a Plan, recorded: &'a Recorded) -> Sides<'a> {
    let stays = |object: &'a Object| (Some(object), Some(object));
    let mut sides: Sides<'a> = recorded.records.iter().map(|(key, it)| (key, stays(&it.object))).collect();
    for change in &plan.changes {
        let after = change.want.as_ref();
        let before = match (change.action, &change.reason) {
            (Action::Create, Reason::New | Reason::Unfinished) => None,
            // What carries our mark and is in no record is there.
            _ => change.made.as_ref().map(|made| &made.object).or(after),
        };
        sides.insert(&change.key, (before, after));
    }
    sides
}

fn as_domain(object: Option<&Object>) -> Option<&Domain> {
    match object {
        Some(Object::Domain(domain)) => Some(domain),
        _ => None,
    }
}

fn as_entry(object: &Object) -> Option<&HostEntry> {
    match object {
        Object::HostEntry(entry) => Some(entry),
        _ => None,
    }
}

fn network(name: &Name, resources: &Resources<'_>) -> NetworkView {
    let changes = resources.get(&Address::new(ResourceKind::Network, name.clone()));
    NetworkView { name: name.clone(), verdict: changes.map(|it| verdict(it)), subnets: Vec::new() }
}

fn server(
    name: &Name,
    before: Option<&Domain>,
    after: Option<&Domain>,
    sides: &Sides<'_>,
    resources: &Resources<'_>,
) -> ServerView {
    let changes = resources.get(&Address::new(ResourceKind::Server, name.clone()));
    let cost = changes.into_iter().flatten().map(|(_, change)| change.cost()).max().unwrap_or_default();
    let ids = |domain: Option<&Domain>| -> Vec<PortId> {
        domain.iter().flat_map(|domain| &domain.nics).map(|nic| nic.id(name)).collect()
    };
    let (was, is) = (ids(before), ids(after));
    let lost = was.iter().filter(|port| !is.contains(port));
    let view = |id: &PortId| {
        let (before, after) = *sides.get(&host_entry_key(id))?;
        let before = before.and_then(as_entry).filter(|_| was.contains(id));
        let after = after.and_then(as_entry).filter(|_| is.contains(id));
        Some(port(after.or(before)?, before, after))
    };
    let ports = is.iter().chain(lost).filter_map(view).collect();
    ServerView { name: name.clone(), verdict: changes.map(|it| verdict(it)), cost, ports }
}

/// A port of which this is known, before and after.
fn port(entry: &HostEntry, before: Option<&HostEntry>, after: Option<&HostEntry>) -> PortView {
    let addresses = |entry: Option<&HostEntry>| -> Vec<IpAddr> {
        entry.iter().flat_map(|entry| &entry.addresses).map(|it| it.address).collect()
    };
    let fate = match (before, after) {
        (None, _) => Fate::Comes,
        (_, None) => Fate::Goes,
        (Some(was), Some(is)) => {
            let same = was.mac == is.mac && was.network == is.network && addresses(before) == addresses(after);
            if same { Fate::Stays } else { Fate::Changes }
        }
    };
    PortView {
        port: entry.port.clone(),
        network: entry.network.clone(),
        mac: entry.mac,
        before: addresses(before),
        after: addresses(after),
        fate,
    }
}
