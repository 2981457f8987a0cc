//! Tells the history of what a verb does. A history that cannot be written keeps nobody from mending a host, so that is only
//! warned of.

use crate::apply::{Fate, Outcome};
use crate::plan::Plan;
use crate::report;
use crate::spec::Source;
use crate::store::history::{self, Step};
use crate::store::lock::StateLock;
use crate::store::who::person;

/// A run that has begun.
pub(super) struct Journal(Option<history::Journal>);

impl Journal {
    /// A run begins. `spec` is the one that it goes by.
    pub(super) fn begin(lock: &StateLock, operation: &str, spec: Option<&Source>, summary: String) -> Self {
        Self::begin_for(person(), lock, operation, spec, summary)
    }

    /// The same for somebody else.
    pub(super) fn begin_for(
        user: String,
        lock: &StateLock,
        operation: &str,
        spec: Option<&Source>,
        summary: String,
    ) -> Self {
        match history::begin_for(lock, user, operation, spec.map(Source::digest), summary) {
            Ok(journal) => Self(Some(journal)),
            Err(error) => {
                tracing::warn!("{}", report::error::chain(&error));
                Self(None)
            }
        }
    }

    /// It has ended.
    pub(super) fn end(self, outcome: history::Outcome, steps: Vec<Step>) {
        if let Some(Err(error)) = self.0.map(|journal| journal.end(outcome, steps)) {
            tracing::warn!(%error, "cannot write the end of this run to the history");
        }
    }

    /// The walk of a plan has ended.
    pub(super) fn end_of(self, plan: &Plan, outcome: &Outcome, interrupted: bool) {
        let steps = outcome.steps.iter().map(|(step, fate)| {
            let change = &plan.changes[step.change];
            let (result, error) = match fate {
                Fate::Done => ("done", None),
                Fate::Failed(error) => ("failed", Some(report::error::chain(error))),
                Fate::Skipped => ("skipped", None),
                Fate::NotStarted => ("not started", None),
            };
            Step {
                address: change.address.to_string(),
                object: change.key.to_string(),
                deed: step.deed.as_str().into(),
                result: result.into(),
                error,
            }
        });
        let ended = match (outcome.is_complete(), interrupted) {
            (true, _) => history::Outcome::Complete,
            (false, true) => history::Outcome::Stopped,
            (false, false) => history::Outcome::Failed,
        };
        self.end(ended, steps.collect());
    }
}
