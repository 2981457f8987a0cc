//! The order of the steps: one small pass for each rule.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::IpNet;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use serde::{Deserialize, Serialize};

use crate::blueprint::key::{ObjectKey, ObjectKind, domain_key};
use crate::blueprint::object::{Claim, Object, Power};
use crate::plan::diff::{Action, Change, Reason};
use crate::plan::world::Record;

/// What one step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Makes the object what it is to be.
    Ensure,
    /// Makes a domain give up volumes.
    Release,
    /// Takes the object away.
    Remove,
    /// Writes down that the object is there.
    Record,
    /// Drops the record of an object that is gone, and takes away what may be left of it.
    Forget,
    /// Drops the record of an object that stays as it is.
    Disown,
    /// Makes the DHCP server of a host entry's network know that this one and others are gone or changed.
    Reload,
}

impl Deed {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ensure => "ensure",
            Self::Release => "release",
            Self::Remove => "remove",
            Self::Record => "record",
            Self::Forget => "forget",
            Self::Disown => "disown",
            Self::Reload => "reload",
        }
    }
}

/// What an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The step must have been done.
    Done,
    /// The step must be over, whatever came of it.
    Over,
}

/// One step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The change it is part of, by its number in the plan.
    pub change: usize,
    /// What it does.
    pub deed: Deed,
}

/// Steps that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the steps wait for each other: {}", .0.join(", "))]
pub struct Cycle(pub Vec<String>);

/// The steps of the changes, each after all that it must wait for.
///
/// A few edges are wishes: they keep a guest connected while it goes from one network to another, and are dropped where
/// that cannot be, as when one network takes the name of another's bridge. Then the old one goes first.
///
/// # Errors
/// When there is no such order.
pub fn order(changes: &[Change]) -> Result<DiGraph<Step, Wait>, Cycle> {
    let mut order = Order::default();
    for (number, change) in changes.iter().enumerate() {
        order.steps_of(number, change);
    }
    order.maker_before_user(changes);
    order.user_gone_before_used(changes);
    order.volumes_given_up_first(changes);
    order.used_disowned_before_user(changes);
    order.removal_before_creation();
    order.claim_free_before_taken(changes);
    order.follower_gone_before_followed(changes);
    order.servers_in_turn(changes);
    order.subnet_left_before_taken(changes);
    order.dhcp_told_once(changes);
    if toposort(&order.graph, None).is_ok() {
        return Ok(order.graph);
    }
    order.drop_vain_wishes();
    match toposort(&order.graph, None) {
        Ok(_) => Ok(order.graph),
        Err(_) => Err(cycle(&order.graph, changes)),
    }
}

#[derive(Default)]
struct Order<'a> {
    graph: DiGraph<Step, Wait>,
    /// The step after which an object is as it is to be.
    makes: HashMap<&'a ObjectKey, NodeIndex>,
    /// The step after which an object is gone.
    removes: BTreeMap<&'a ObjectKey, NodeIndex>,
    /// The step after which a domain has given up volumes.
    releases: BTreeMap<&'a ObjectKey, NodeIndex>,
    /// The step after which an object is not ours any more.
    disowns: HashMap<&'a ObjectKey, NodeIndex>,
    /// The edges that may be dropped, in the order of their numbers.
    wishes: Vec<EdgeIndex>,
}

impl<'a> Order<'a> {
    fn steps_of(&mut self, number: usize, change: &'a Change) {
        let mut add = |deed| self.graph.add_node(Step { change: number, deed });
        match change.action {
            Action::Create | Action::Update | Action::CreateThenDelete => {
                if !change.releases.is_empty() {
                    self.releases.insert(&change.key, add(Deed::Release));
                }
                self.makes.insert(&change.key, add(Deed::Ensure));
            }
            Action::Record => {
                self.makes.insert(&change.key, add(Deed::Record));
            }
            Action::Replace => {
                self.removes.insert(&change.key, add(Deed::Remove));
                self.makes.insert(&change.key, add(Deed::Ensure));
            }
            Action::Delete => {
                self.removes.insert(&change.key, add(Deed::Remove));
            }
            Action::Forget => {
                self.removes.insert(&change.key, add(Deed::Forget));
            }
            Action::Disown => {
                // What stays in the cache is of no use to others from then on.
                let disown = add(Deed::Disown);
                match change.reason {
                    Reason::Cached => self.removes.insert(&change.key, disown),
                    _ => self.disowns.insert(&change.key, disown),
                };
            }
        }
    }

    fn maker_before_user(&mut self, changes: &[Change]) {
        for change in changes {
            let (Some(user), Some(want)) = (self.makes.get(&change.key), &change.want) else { continue };
            for need in want.needs() {
                if let Some(maker) = self.makes.get(&need).filter(|_| !self.is_told_after(change, &need, changes)) {
                    self.graph.add_edge(*maker, *user, Wait::Done);
                }
            }
        }
    }

    /// Covers both a user that goes and one that is changed to use something else. What a user used is told by its
    /// record, so the order does not depend on what the spec still says.
    fn user_gone_before_used(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(made) = &change.made else { continue };
            let wanted = change.want.as_ref().map(Object::needs).unwrap_or_default();
            for used in made.needs() {
                let Some(removal) = self.removes.get(&used) else { continue };
                if let Some(gone) = self.removes.get(&change.key) {
                    self.graph.add_edge(*gone, *removal, Wait::Done);
                } else if let Some(changed) = self.makes.get(&change.key)
                    && !wanted.contains(&used)
                    && !change.releases.contains(&used)
                {
                    self.wishes.push(self.graph.add_edge(*changed, *removal, Wait::Done));
                }
            }
        }
    }

    /// A volume is given up by whoever has it before it is changed, taken away or given to another. It is given up by
    /// domains that are taken down, and by those that go on.
    fn volumes_given_up_first(&mut self, changes: &'a [Change]) {
        let mut free: HashMap<ObjectKey, Vec<(&ObjectKey, NodeIndex)>> = HashMap::new();
        for change in changes.iter().filter(|change| change.key.kind == ObjectKind::Domain) {
            let release = self.releases.get(&change.key).copied();
            if let (Some(release), Some(maker)) = (release, self.makes.get(&change.key)) {
                self.graph.add_edge(release, *maker, Wait::Done);
            }
            let wanted = change.want.as_ref().map(Object::needs).unwrap_or_default();
            let had = change.made.iter().flat_map(Record::needs).filter(|need| need.kind == ObjectKind::Volume);
            for volume in had {
                let released = release.filter(|_| change.releases.contains(&volume));
                let removed = || self.removes.get(&change.key).copied();
                // One of which the guest lets go when it is started again.
                let changed = || self.makes.get(&change.key).copied().filter(|_| !wanted.contains(&volume));
                if let Some(given_up) = released.or_else(removed).or_else(changed) {
                    free.entry(volume).or_default().push((&change.key, given_up));
                }
            }
        }
        if free.is_empty() {
            return;
        }
        for change in changes {
            let (step, volumes) = match (change.key.kind, &change.want) {
                (ObjectKind::Volume, _) => {
                    (self.removes.get(&change.key).or(self.makes.get(&change.key)), vec![change.key.clone()])
                }
                (ObjectKind::Domain, Some(want)) => (self.makes.get(&change.key), want.needs()),
                _ => continue,
            };
            let Some(step) = step.copied() else { continue };
            let holders = volumes.iter().filter_map(|volume| free.get(volume)).flatten();
            for (_, given_up) in holders.filter(|(holder, _)| **holder != change.key) {
                let edge = self.graph.add_edge(*given_up, step, Wait::Done);
                if self.graph[*given_up].deed == Deed::Ensure {
                    self.wishes.push(edge);
                }
            }
        }
    }

    /// The other way round: it is by the record of the user that the used is known to stay.
    fn used_disowned_before_user(&mut self, changes: &[Change]) {
        for change in changes {
            let (Some(user), Some(made)) = (self.disowns.get(&change.key), &change.made) else { continue };
            for used in made.needs().iter().filter_map(|used| self.disowns.get(used)) {
                self.graph.add_edge(*used, *user, Wait::Done);
            }
        }
    }

    fn removal_before_creation(&mut self) {
        for (key, removal) in &self.removes {
            if let Some(maker) = self.makes.get(key) {
                self.graph.add_edge(*removal, *maker, Wait::Done);
            }
        }
    }

    fn claim_free_before_taken(&mut self, changes: &'a [Change]) {
        let mut freed: HashMap<Claim, Vec<&ObjectKey>> = HashMap::new();
        for change in changes.iter().filter(|change| self.removes.contains_key(&change.key)) {
            for claim in change.made.iter().flat_map(|made| made.claims()) {
                freed.entry(claim).or_default().push(&change.key);
            }
        }
        if freed.is_empty() {
            return;
        }
        for change in changes {
            let (Some(taker), Some(want)) = (self.makes.get(&change.key), &change.want) else { continue };
            for claim in want.claims() {
                for holder in freed.get(&claim).into_iter().flatten().filter(|holder| ***holder != change.key) {
                    if let Some(removal) = self.removes.get(*holder) {
                        self.graph.add_edge(*removal, *taker, Wait::Done);
                    }
                }
            }
        }
    }

    fn follower_gone_before_followed(&mut self, changes: &[Change]) {
        for change in changes {
            let Reason::Follows(followed) = &change.reason else { continue };
            let Some(gone) = self.removes.get(&change.key) else { continue };
            // One that is in no record does not say what it used.
            let removal = self.removes.get(followed).filter(|_| change.made.is_none());
            for step in removal.into_iter().chain(self.makes.get(followed)) {
                self.graph.add_edge(*gone, *step, Wait::Done);
            }
        }
    }

    /// A server starts after those that it depends on, and stops before them. Records of several runs may name each other,
    /// so these are wishes.
    fn servers_in_turn(&mut self, changes: &'a [Change]) {
        for change in changes {
            if let (Some(start), Some(Object::Domain(want))) = (self.makes.get(&change.key), &change.want) {
                for other in want.depends_on.iter().map(domain_key) {
                    let other = self.makes.get(&other).map(|node| (*node, &changes[self.graph[*node].change].want));
                    let Some((node, Some(Object::Domain(other)))) = other else { continue };
                    let edge = match (other.power == Power::Off, want.power == Power::Off) {
                        (true, true) => self.graph.add_edge(*start, node, Wait::Done),
                        (false, false) => self.graph.add_edge(node, *start, Wait::Done),
                        _ => continue,
                    };
                    self.wishes.push(edge);
                }
            }
            let made = change.made.iter().flat_map(Record::traces);
            let others: BTreeSet<ObjectKey> = made
                .flat_map(|made| match made {
                    Object::Domain(made) => made.depends_on.iter().map(domain_key).collect(),
                    _ => Vec::new(),
                })
                .collect();
            if let Some(stop) = self.removes.get(&change.key) {
                for other in others.iter().filter_map(|other| self.removes.get(other)) {
                    self.wishes.push(self.graph.add_edge(*stop, *other, Wait::Done));
                }
            }
        }
    }

    /// The host's address is on one bridge at a time, and a DHCP server that listens on it is not started while another
    /// does. Two bridges that exchange their addresses do so at once, and their DHCP servers follow.
    fn subnet_left_before_taken(&mut self, changes: &'a [Change]) {
        let mut left: HashMap<IpNet, Vec<(&ObjectKey, NodeIndex)>> = HashMap::new();
        for change in changes {
            let step = self.removes.get(&change.key).or(self.makes.get(&change.key));
            let (Some(step), Some(made)) = (step, &change.made) else { continue };
            let kept = change.want.as_ref().map(Object::host_networks).unwrap_or_default();
            let stays = |net: &IpNet| kept.contains(net) && !self.removes.contains_key(&change.key);
            for net in made.traces().flat_map(Object::host_networks).filter(|net| !stays(net)) {
                left.entry(net).or_default().push((&change.key, *step));
            }
        }
        if left.is_empty() {
            return;
        }
        for change in changes {
            let (Some(taker), Some(want)) = (self.makes.get(&change.key), &change.want) else { continue };
            let nets = match want {
                Object::Bridge(_) => want.host_networks(),
                Object::Dhcp(dhcp) => dhcp.ranges.iter().map(|range| range.cidr).collect(),
                _ => continue,
            };
            let holders = left.iter().filter(|(net, _)| nets.iter().any(|it| it.contains(*net) || net.contains(it)));
            let mut steps: Vec<NodeIndex> = holders
                .flat_map(|(_, steps)| steps)
                .filter(|(key, _)| key.id != change.key.id)
                .map(|it| it.1)
                .collect();
            steps.sort();
            steps.dedup();
            for step in steps {
                let edge = self.graph.add_edge(step, *taker, Wait::Done);
                if matches!(want, Object::Bridge(_)) && self.graph[step].deed == Deed::Ensure {
                    self.wishes.push(edge);
                }
            }
        }
    }

    /// Whether a host entry changes in place on a DHCP server that is there and changes too: the server is told of both
    /// at once, when it is changed.
    fn is_told_after(&self, change: &Change, server: &ObjectKey, changes: &[Change]) -> bool {
        let server = self.makes.get(server).map(|node| &changes[self.graph[*node].change]);
        is_changed_in_place(change)
            && server.is_some_and(|it| it.key.kind == ObjectKind::Dhcp && it.action == Action::Update)
    }

    /// A DHCP server forgets a host entry only when it reads all of them anew. It does so once: after all that are removed
    /// or changed, and before those that are made, which it takes as they come. Where the server itself is changed, it
    /// reads them then. One entry that cannot be removed does not keep the others waiting.
    fn dhcp_told_once(&mut self, changes: &'a [Change]) {
        /// What a server is told of, and who waits for that.
        #[derive(Default)]
        struct News<'a> {
            /// The changes that it is told of, each with the step after which it can be.
            told: Vec<(&'a Change, usize, NodeIndex)>,
            /// The steps that make new entries.
            new: Vec<NodeIndex>,
        }
        let mut news: BTreeMap<ObjectKey, News<'a>> = BTreeMap::new();
        // A guest that starts is to be told what its entry says now.
        let mut guests: HashMap<ObjectKey, Vec<NodeIndex>> = HashMap::new();
        for (number, change) in changes.iter().enumerate() {
            let maker = self.makes.get(&change.key);
            if let (Some(Object::Domain(_)), Some(maker)) = (&change.want, maker) {
                for need in change.want.iter().flat_map(Object::needs) {
                    guests.entry(need).or_default().push(*maker);
                }
            }
            if change.key.kind != ObjectKind::HostEntry {
                continue;
            }
            let in_place = is_changed_in_place(change);
            let step = if in_place { maker } else { self.removes.get(&change.key) };
            for server in servers_of(change) {
                let comes = self.makes.contains_key(&server) && !self.is_told_after(change, &server, changes);
                let its = news.entry(server).or_default();
                // One that is yet to come knows nothing old.
                its.told.extend(step.filter(|_| !(in_place && comes)).map(|step| (change, number, *step)));
                its.new.extend(maker.filter(|_| !in_place));
            }
        }
        for (server, News { told, new }) in news {
            // One that goes itself needs to know nothing.
            let Some((_, first, _)) = told.first().filter(|_| !self.removes.contains_key(&server)) else { continue };
            let ensures = |node: &&NodeIndex| self.graph[**node].deed == Deed::Ensure;
            let reads = match self.makes.get(&server).filter(ensures) {
                Some(change) => *change,
                None => {
                    // A port that goes from one network to another has two servers.
                    let alone = told.iter().find(|(change, ..)| servers_of(change).len() == 1);
                    let change = alone.map_or(*first, |(_, number, _)| *number);
                    self.graph.add_node(Step { change, deed: Deed::Reload })
                }
            };
            let waits = told.iter().filter_map(|(change, ..)| guests.get(&change.key)).flatten().chain(&new);
            let waits: BTreeSet<NodeIndex> = waits.copied().filter(|step| *step != reads).collect();
            for (_, _, step) in told {
                self.graph.add_edge(step, reads, Wait::Over);
            }
            for step in waits {
                self.graph.add_edge(reads, step, Wait::Over);
            }
        }
    }

    /// Drops the wishes that are part of a circle. All other edges go from removals to removals, from these to makers, and
    /// from makers to makers of users, so there is no circle without a wish in it.
    fn drop_vain_wishes(&mut self) {
        let mut circle = vec![0; self.graph.node_count()];
        for (number, nodes) in kosaraju_scc(&self.graph).into_iter().enumerate() {
            for node in nodes {
                circle[node.index()] = number;
            }
        }
        // From the last on, for a removal gives its number to the last edge.
        for edge in self.wishes.drain(..).rev() {
            if let Some((from, to)) = self.graph.edge_endpoints(edge)
                && circle[from.index()] == circle[to.index()]
            {
                self.graph.remove_edge(edge);
            }
        }
    }
}

/// Whether a change is that of a host entry which stays where it is.
fn is_changed_in_place(change: &Change) -> bool {
    change.key.kind == ObjectKind::HostEntry && change.action == Action::Update
}

/// The DHCP servers that know a host entry, or knew it.
pub fn servers_of(change: &Change) -> BTreeSet<ObjectKey> {
    change.made.iter().flat_map(Record::needs).chain(change.want.iter().flat_map(Object::needs)).collect()
}

fn cycle(graph: &DiGraph<Step, Wait>, changes: &[Change]) -> Cycle {
    let circle = kosaraju_scc(graph).into_iter().find(|component| component.len() > 1).unwrap_or_default();
    Cycle(circle.into_iter().map(|node| changes[graph[node].change].key.to_string()).collect())
}
