//! The account of what is done just now.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::apply::Event;
use crate::plan::Deed;
use crate::plan::diff::Change;
use crate::value::unix_now;

/// What a daemon does just now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Since when a pass runs, in seconds since 1970 (UTC); none if none does.
    pub pass_since: Option<u64>,
    /// The steps that run.
    pub steps: Vec<Running>,
}

/// A step that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The resource.
    pub address: String,
    /// The object.
    pub object: String,
    /// What is done to it.
    pub deed: String,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
}

/// Keeps account of what is done.
#[derive(Debug, Default)]
pub struct Work(Mutex<Now>);

impl Work {
    /// A pass begins. It has ended when what is given back is dropped.
    pub fn pass(&self) -> InPass<'_> {
        self.change(|now| now.pass_since = Some(unix_now()));
        InPass(self)
    }

    /// Something happened to a step.
    pub fn event(&self, change: &Change, deed: Deed, event: &Event<'_>) {
        let object = change.key.to_string();
        let deed = deed.as_str();
        self.change(|now| match event {
            Event::Started => {
                now.steps.push(Running {
                    address: change.address.to_string(),
                    object,
                    deed: deed.into(),
                    since: unix_now(),
                });
            }
            Event::Retrying { .. } => {}
            Event::Done { .. } | Event::Failed { .. } | Event::Skipped => {
                now.steps.retain(|step| (step.object.as_str(), step.deed.as_str()) != (object.as_str(), deed));
            }
        });
    }

    /// What is done just now.
    pub fn now(&self) -> Now {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A pass that runs.
#[derive(Debug)]
pub struct InPass<'a>(&'a Work);

impl Drop for InPass<'_> {
    fn drop(&mut self) {
        self.0.change(|now| *now = Now::default());
    }
}
