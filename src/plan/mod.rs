//! From what is wanted, made and seen to the steps that close the gap. Pure: no clock, no environment, no I/O.
//!
//! [`world`] has the two sides that a blueprint is compared with, [`diff`] the table that gives birth to every action,
//! [`graph`] the order of the steps.

pub mod diff;
pub mod graph;
pub mod world;

use std::collections::BTreeMap;

use petgraph::graph::DiGraph;

use crate::address::Address;
use crate::blueprint::Blueprint;
use crate::blueprint::facts::Disruption;
use crate::blueprint::key::ObjectKey;
use crate::diagnostic::Diagnostic;
use crate::plan::diff::{Change, Conflict};
use crate::plan::world::{Observed, Recorded};

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
    /// The steps, each pointing at its change; an edge goes from a step to one that must wait for it.
    pub steps: DiGraph<Step, Wait>,
}

impl Plan {
    /// Compares the three sides and orders what is to be done.
    ///
    /// # Errors
    /// When the steps wait for each other in a circle, which is a defect of novella.
    pub fn new(mut want: Blueprint, made: Recorded, seen: &Observed) -> Result<Self, Cycle> {
        let warnings = std::mem::take(&mut want.warnings);
        let diff::Difference { changes, conflicts, left_alone } = diff::diff(want, made, seen);
        let steps = graph::order(&changes)?;
        Ok(Self { changes, conflicts, left_alone, warnings, steps })
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
