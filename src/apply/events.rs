//! What a walk tells as it goes.

use std::time::Duration;

use crate::apply::StepError;
use crate::plan::Deed;
use crate::plan::diff::Change;

/// Something that happened to a step.
#[derive(Debug)]
pub enum Event<'a> {
    /// Work on it begins.
    Started,
    /// It failed in a way that may pass, and is tried again.
    Retrying {
        /// Why it failed.
        error: &'a StepError,
        /// When it is tried again.
        wait: Duration,
    },
    /// It was done.
    Done {
        /// In this time.
        elapsed: Duration,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: &'a StepError,
        /// After this time.
        elapsed: Duration,
    },
    /// It is not tried, for something it waits for failed.
    Skipped,
}

/// Is told what happens, by several threads at once.
pub trait Observer: Sync {
    /// This happened to this step.
    fn event(&self, change: &Change, deed: Deed, event: Event<'_>);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Change, _: Deed, _: Event<'_>) {}
}
