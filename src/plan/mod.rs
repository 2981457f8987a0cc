//! From what is wanted, made and seen to the steps that close the gap. Pure: no clock, no environment, no I/O.
//!
//! [`world`] has the two sides that a blueprint is compared with, [`diff`] the table that gives birth to every action,
//! [`graph`] the order of the steps; `release` tells which volumes a domain gives up first, and [`confine`] takes the part of a
//! plan that concerns some resources. [`drift`] compares the two sides with each other alone, and [`records`] edits the first of
//! them by hand.

pub mod confine;
pub mod diff;
pub mod drift;
pub mod graph;
pub mod records;
mod release;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};

use petgraph::graph::DiGraph;

use crate::address::Address;
use crate::blueprint::Blueprint;
use crate::blueprint::cache::CacheUse;
use crate::blueprint::facts::Disruption;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::desired::lifecycle::Ignored;
use crate::diagnostic::Diagnostic;
use crate::plan::diff::{Change, Conflict};
use crate::plan::world::{Observed, Recorded};

pub use confine::Scope;
pub use diff::{Action, Reason};
pub use graph::{Cycle, Deed, Step, Wait};

/// All that is to be done, with nothing left to decide.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What changes, by key.
    pub changes: Vec<Change>,
    /// What cannot be, because something that is not ours is in the way.
    pub conflicts: Vec<Conflict>,
    /// What carries our mark and is neither wanted nor recorded: not touched.
    pub left_alone: Vec<ObjectKey>,
    /// What is worth knowing of the choices that were made.
    pub warnings: Vec<Diagnostic>,
    /// The servers whose guests become what they are defined to be only when they are started again, and are not by this
    /// plan; each with what waits, as names of facts.
    pub waiting: BTreeMap<Address, Vec<String>>,
    /// How long disks that are taken away are kept in the trash, in seconds; none for not at all.
    pub trash: Option<u32>,
    /// What it means for the image cache, where that is known.
    pub cache: Option<CacheUse>,
    /// The servers that the spec says something else of, and that stay as they are for they ignore it; each with what.
    pub ignored: BTreeMap<Address, BTreeSet<Ignored>>,
    /// What this would take away and may not, by `prevent_destroy`.
    pub refused: BTreeSet<Address>,
    /// The same before anything is done.
    pub pending: BTreeMap<Address, Vec<String>>,
    /// What would change too, and was left out on demand.
    pub left_out: BTreeSet<Address>,
    /// The steps, each pointing at its change; an edge goes from a step to one that must wait for it.
    pub steps: DiGraph<Step, Wait>,
}

/// The wanted servers whose guests wait for a start.
fn waiting(want: &Blueprint, seen: &Observed) -> BTreeMap<Address, Vec<String>> {
    let guests = seen.guests.iter().filter(|(_, guest)| !guest.pending.is_empty());
    guests.filter_map(|(key, guest)| Some((want.objects.get(key)?.address(), guest.pending.clone()))).collect()
}

impl Plan {
    /// Compares the three sides and orders what is to be done.
    ///
    /// # Errors
    /// When the steps wait for each other in a circle, which is a defect of novella.
    pub fn new(mut want: Blueprint, made: Recorded, seen: &Observed) -> Result<Self, Cycle> {
        let warnings = std::mem::take(&mut want.warnings);
        let ignored = std::mem::take(&mut want.ignored);
        let pending = waiting(&want, seen);
        let diff::Difference { changes, conflicts, left_alone } = diff::diff(want, made, seen);
        let mut plan = Self {
            steps: graph::order(&changes)?,
            changes,
            conflicts,
            left_alone,
            warnings,
            waiting: BTreeMap::new(),
            trash: None,
            cache: None,
            ignored,
            refused: BTreeSet::new(),
            pending,
            left_out: BTreeSet::new(),
        };
        plan.note_waiting();
        Ok(plan)
    }

    /// The same plan, in which no guest is started again that can go on as it is: what it cannot take waits. One whose
    /// address or disk goes to another, or that is to be off, cannot.
    #[must_use]
    pub fn defer_reboots(mut self) -> Self {
        self.changes = self.changes.into_iter().map(Change::defer).collect();
        self.note_waiting();
        self
    }

    fn note_waiting(&mut self) {
        self.waiting = self.pending.clone();
        for change in self.changes.iter().filter(|change| change.key.kind == ObjectKind::Domain) {
            if change.deferred {
                let waits = change.fields.iter().filter(|field| field.disruption >= Disruption::Reboot);
                let waits = waits.map(|field| field.name.to_string()).filter(|name| name != "definition");
                let its = self.waiting.entry(change.address.clone()).or_default();
                its.extend(waits);
                its.sort();
                its.dedup();
                if its.is_empty() {
                    its.push("definition".into());
                }
            } else if change.disruption >= Disruption::Reboot || change.want.is_none() {
                self.waiting.remove(&change.address);
            }
        }
    }

    /// The same plan, in which none of these resources may be taken away.
    #[must_use]
    pub fn protecting(mut self, guarded: &BTreeSet<Address>) -> Self {
        let lost = self.changes.iter().filter(|change| change.destroys() && guarded.contains(&change.address));
        self.refused = lost.map(|change| change.address.clone()).collect();
        self
    }

    /// The changes that cost guests more than this, by resource.
    pub fn beyond(&self, most: Disruption) -> BTreeMap<&Address, Vec<&Change>> {
        let mut beyond: BTreeMap<&Address, Vec<&Change>> = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.cost() > most) {
            beyond.entry(&change.address).or_default().push(change);
        }
        beyond
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.conflicts.is_empty()
    }
}
