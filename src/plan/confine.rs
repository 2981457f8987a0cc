//! The part of a plan that concerns some resources alone.
//!
//! What a change needs is what would keep it back if it failed: a part that is closed under this is what a walk with some
//! failures leaves behind, and from there the next whole plan goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef as _, Reversed, VisitMap as _, Visitable as _};

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::Object;
use crate::diagnostic::Diagnostic;
use crate::plan::diff::{Action, Change, Conflict};
use crate::plan::world::Record;
use crate::plan::{Cycle, Plan, Wait, graph};
use crate::value::Mac;

/// Which part of a plan is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// These resources, with all that they need.
    Only(BTreeSet<Address>),
    /// All but these resources, and what depends on them.
    Without(BTreeSet<Address>),
}

impl Plan {
    /// This part of the plan, with a warning that it is not the whole.
    ///
    /// # Errors
    /// As [`Self::part`].
    pub fn confine(self, scope: &Scope) -> Result<Self, Cycle> {
        let mut plan = self.part(scope)?;
        if !plan.left_out.is_empty() {
            plan.warnings.push(partial(&plan.left_out));
        }
        Ok(plan)
    }

    /// This part of the plan. What is left out is named in [`Plan::left_out`].
    ///
    /// # Errors
    /// When the steps that are left wait for each other in a circle, which is a defect of novella.
    pub fn part(self, scope: &Scope) -> Result<Self, Cycle> {
        let chosen = Bonds::of(&self).choose(scope);
        let Self { changes, conflicts, .. } = &self;
        let addresses =
            changes.iter().map(|it| &it.address).chain(conflicts.iter().map(|it| &it.address)).cloned().zip(&chosen);
        let left_out: BTreeSet<Address> = addresses.filter(|(_, chosen)| !**chosen).map(|(it, _)| it).collect();
        if left_out.is_empty() {
            return Ok(self);
        }
        let mut chosen = chosen.into_iter();
        let mut is_chosen = || chosen.next().unwrap_or_default();
        let mut plan = Self { left_out, ..self };
        plan.changes.retain(|_| is_chosen());
        plan.conflicts.retain(|_| is_chosen());
        plan.steps = graph::order(&plan.changes)?;
        let destroyed: BTreeSet<Address> =
            plan.changes.iter().filter(|change| change.destroys()).map(|change| change.address.clone()).collect();
        plan.refused.retain(|address| destroyed.contains(address));
        if let Some(cache) = &mut plan.cache {
            cache.fetches.retain(|(image, _)| !plan.left_out.contains(image));
            cache.locks.retain(|image| !plan.left_out.contains(image));
        }
        plan.note_waiting();
        Ok(plan)
    }
}

/// Says that a plan is not the whole.
fn partial(left_out: &BTreeSet<Address>) -> Diagnostic {
    const NAMED: usize = 8;
    let named: Vec<String> = left_out.iter().take(NAMED).map(|address| format!("`{address}`")).collect();
    let more = left_out.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Diagnostic::warning(format!("this plan is not the whole: {}{more} would change too", named.join(", ")))
        .code("partial-plan")
        .help("`--target` and `--exclude` are for exceptions; apply without them to come to what the spec says")
}

/// What the changes and the conflicts of a plan cannot be without. The nodes are the changes and then the conflicts, in
/// their order; an edge goes from one to what cannot be without it.
struct Bonds<'p> {
    plan: &'p Plan,
    graph: DiGraph<&'p Address, ()>,
}

impl<'p> Bonds<'p> {
    fn of(plan: &'p Plan) -> Self {
        let (changes, conflicts) = (&plan.changes, &plan.conflicts);
        let mut graph = DiGraph::new();
        for address in changes.iter().map(|it| &it.address).chain(conflicts.iter().map(|it| &it.address)) {
            graph.add_node(address);
        }
        let mut bonds = Self { plan, graph };
        bonds.steps();
        bonds.resources();
        bonds.users(changes, conflicts);
        bonds.entries(changes);
        bonds
    }

    fn bind(&mut self, first: usize, then: usize) {
        self.graph.add_edge(NodeIndex::new(first), NodeIndex::new(then), ());
    }

    /// A step that fails keeps back those that wait for it to be done.
    fn steps(&mut self) {
        let steps = &self.plan.steps;
        for edge in steps.edge_references().filter(|edge| *edge.weight() == Wait::Done) {
            self.bind(steps[edge.source()].change, steps[edge.target()].change);
        }
    }

    /// A resource goes as a whole; but the files of an image, each with its users, have only the address in common.
    fn resources(&mut self) {
        let mut first: BTreeMap<&Address, NodeIndex> = BTreeMap::new();
        for node in self.graph.node_indices().filter(|node| self.graph[*node].kind != ResourceKind::Image) {
            first.entry(self.graph[node]).or_insert(node);
        }
        for node in self.graph.node_indices() {
            if let Some(first) = first.get(self.graph[node]).filter(|first| **first != node) {
                self.bind(first.index(), node.index());
                self.bind(node.index(), first.index());
            }
        }
    }

    /// What is taken away, if only for a moment, takes along those who stand on it: left as they are, they would be cut off.
    /// What cannot be made keeps back who needs it.
    fn users(&mut self, changes: &[Change], conflicts: &[Conflict]) {
        let goes =
            |change: &&(usize, &Change)| matches!(change.1.action, Action::Replace | Action::Delete | Action::Forget);
        let gone: BTreeMap<&ObjectKey, usize> =
            changes.iter().enumerate().filter(|it| goes(&it)).map(|(number, it)| (&it.key, number)).collect();
        let missing = conflicts.iter().enumerate().map(|(number, it)| (&it.key, changes.len() + number));
        let missing: BTreeMap<&ObjectKey, usize> = missing.collect();
        for (user, change) in changes.iter().enumerate() {
            for used in change.made.iter().flat_map(Record::needs).filter_map(|used| gone.get(&used).copied()) {
                self.bind(user, used);
            }
            for used in change.want.iter().flat_map(Object::needs).filter_map(|used| missing.get(&used).copied()) {
                self.bind(used, user);
            }
        }
    }

    /// An address or a MAC that goes from one host entry to another is given away before it is taken: a DHCP server does not
    /// believe in both.
    fn entries(&mut self, changes: &'p [Change]) {
        let mut held: BTreeMap<(&Name, Mark), BTreeSet<usize>> = BTreeMap::new();
        for (holder, change) in changes.iter().enumerate() {
            for mark in change.made.iter().flat_map(Record::traces).flat_map(marks) {
                held.entry(mark).or_default().insert(holder);
            }
        }
        for (taker, change) in changes.iter().enumerate() {
            let wanted = change.want.iter().flat_map(marks);
            for holder in wanted.filter_map(|mark| held.get(&mark)).flatten().filter(|holder| **holder != taker) {
                self.bind(*holder, taker);
            }
        }
    }

    /// Whether each node is in the scope.
    fn choose(&self, scope: &Scope) -> Vec<bool> {
        let nodes = || self.graph.node_indices();
        match scope {
            Scope::Only(these) => {
                let needed = Reversed(&self.graph);
                let mut chosen = self.graph.visit_map();
                for node in nodes().filter(|node| these.contains(self.graph[*node])) {
                    let mut walk = Dfs::from_parts(vec![node], chosen);
                    while walk.next(needed).is_some() {}
                    chosen = walk.discovered;
                }
                let chosen: Vec<bool> = nodes().map(|node| chosen.is_visited(&node)).collect();
                self.with_leftovers(chosen)
            }
            Scope::Without(these) => {
                let mut left = self.graph.visit_map();
                for node in nodes().filter(|node| these.contains(self.graph[*node])) {
                    let mut walk = Dfs::from_parts(vec![node], left);
                    while walk.next(&self.graph).is_some() {}
                    left = walk.discovered;
                }
                nodes().map(|node| !left.is_visited(&node)).collect()
            }
        }
    }

    /// The same, with the files in the image cache that nobody needs once this is done, and that it needed before.
    fn with_leftovers(&self, mut chosen: Vec<bool>) -> Vec<bool> {
        let mut used: BTreeMap<ObjectKey, bool> = BTreeMap::new();
        for (change, chosen) in self.plan.changes.iter().zip(&chosen) {
            for key in change.made.iter().flat_map(Record::needs).filter(|key| key.kind == ObjectKind::Base) {
                *used.entry(key).or_insert(true) &= chosen;
            }
        }
        for (change, chosen) in self.plan.changes.iter().zip(&mut chosen) {
            *chosen |= change.want.is_none() && used.get(&change.key).is_some_and(|only_these| *only_these);
        }
        chosen
    }
}

/// What a DHCP server knows a guest by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Mac(Mac),
    Address(IpAddr),
}

/// What a host entry has that no other on its network may have, as in [`HostEntry::collides`].
///
/// [`HostEntry::collides`]: crate::blueprint::dhcp::HostEntry::collides
fn marks(object: &Object) -> Vec<(&Name, Mark)> {
    let Object::HostEntry(entry) = object else { return Vec::new() };
    let addresses = entry.served().into_iter().map(Mark::Address);
    addresses.chain([Mark::Mac(entry.mac)]).map(|mark| (&entry.network, mark)).collect()
}
