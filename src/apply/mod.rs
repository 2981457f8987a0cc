//! Walks a plan: several steps at once, each after all that it must wait for.
//!
//! The walk decides nothing. For each step it writes the intent, does the deed, writes the fact; so whatever stops it,
//! the next run finds out what was begun. A step that fails keeps only those back that wait for it.

pub mod events;
mod walk;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::host::{Host, HostError};
use crate::plan::{Plan, Step};
use crate::store::{Store, StoreError};

pub use events::{Event, Observer};

/// How a plan is walked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many steps run at once, at most.
    pub parallelism: usize,
    /// What is done about a failure that may pass.
    pub retry: Retry,
}

/// Waits that double, as in reference C2.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often a deed is tried again.
    pub retries: u32,
    /// The first wait; each further one is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let retry = Retry { retries: 3, first: Duration::from_secs(1), most: Duration::from_secs(30) };
        Self { parallelism: 10, retry }
    }
}

/// What came of a step.
#[derive(Debug)]
pub enum Fate {
    /// It was done.
    Done,
    /// It failed.
    Failed(StepError),
    /// Something that it waits for failed.
    Skipped,
    /// The walk was stopped before its turn.
    NotStarted,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The host did not do it.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It could not be written down. Nothing more is begun then.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What came of a walk.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The steps with their fates, in the order of the plan's graph.
    pub steps: Vec<(Step, Fate)>,
}

impl Outcome {
    /// Whether every step was done.
    pub fn is_complete(&self) -> bool {
        self.steps.iter().all(|(_, fate)| matches!(fate, Fate::Done))
    }

    /// The steps that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&Step, &StepError)> {
        self.steps.iter().filter_map(|(step, fate)| match fate {
            Fate::Failed(error) => Some((step, error)),
            _ => None,
        })
    }
}

/// Whether a walk is to come to its end before all is done.
pub trait Stop: Sync {
    /// Whether it is to begin nothing more.
    fn is_asked(&self) -> bool;
}

impl Stop for AtomicBool {
    fn is_asked(&self) -> bool {
        self.load(Ordering::SeqCst)
    }
}

/// Either of the two asks for it.
impl Stop for (&AtomicBool, &AtomicBool) {
    fn is_asked(&self) -> bool {
        self.0.is_asked() || self.1.is_asked()
    }
}

/// Walks the plan until all is done, or nothing more can be, or `stop` asks for it; steps that run then are finished.
pub fn apply(
    plan: &Plan,
    host: &dyn Host,
    store: &dyn Store,
    options: Options,
    stop: &dyn Stop,
    observer: &dyn Observer,
) -> Outcome {
    walk::Walk::new(plan, host, store, options, stop, observer).run()
}
