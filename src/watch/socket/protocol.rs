//! What is said: one JSON object a line.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apply::{Event, StepError};
use crate::blueprint::key::ObjectKey;
use crate::host::HostError;
use crate::plan::Deed;
use crate::plan::diff::Change;
use crate::plan::saved::{Saved, Stale};
use crate::report::located::Located;
use crate::value::Sha256;
use crate::watch::socket::work::Now;

/// The version of what is said.
pub const VERSION: u32 = 1;

/// What a client says: what it asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What it asks for.
    #[serde(flatten)]
    pub ask: Ask,
}

/// What can be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// What is done just now.
    Now,
    /// Which spec the daemon goes by.
    Spec,
    /// That what waits may go.
    Approve {
        /// Its digest, or the first digits of that.
        digest: String,
        /// Whether more may be lost than `--max-deletes` lets.
        #[serde(default)]
        allow_mass_delete: bool,
        /// Who has called sudo, if root asks.
        #[serde(default)]
        by: Option<String>,
    },
    /// That a plan be carried out.
    Apply {
        /// The plan. Its text is of no use here.
        plan: Box<Saved>,
        /// How many steps run at once, at most.
        parallelism: usize,
        /// Who has called sudo, if root asks.
        #[serde(default)]
        by: Option<String>,
    },
    /// That what was asked for on this connection end after the steps that run.
    Stop,
}

impl Ask {
    /// The words for what can be asked for first.
    pub const WORDS: [&str; 4] = ["now", "spec", "approve", "apply"];
}

/// What the daemon says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What it is.
    #[serde(flatten)]
    pub told: Told,
}

/// What is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// What is done just now.
    Now(Now),
    /// Which spec the daemon goes by.
    Spec(InForce),
    /// The plan is taken: whoever planned gives the state away, and what follows is how it goes.
    Taken {},
    /// Something happened to a step.
    Step {
        /// The resource.
        address: String,
        /// The object.
        object: ObjectKey,
        /// What is done to it.
        deed: Deed,
        /// What happened.
        #[serde(flatten)]
        happened: Happened,
    },
    /// How far a download is.
    Bytes {
        /// The object.
        object: ObjectKey,
        /// In bytes.
        done: u64,
        /// In bytes, if that is known.
        total: Option<u64>,
    },
    /// The plan was walked to its end, or as far as it went. It is the last line.
    Ended {
        /// Whether somebody asked for an end.
        interrupted: bool,
        /// What went wrong beside the steps.
        error: Option<Refusal>,
    },
    /// What waited goes now. It is the last line.
    Approved {
        /// What that does.
        summary: String,
    },
    /// What was asked for is not done. It is the last line.
    Refused(Refusal),
    /// What was asked is not understood, or not answered. It is the last line.
    Error(String),
}

/// The spec of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// The digest of what is in its directory now.
    pub digest: Sha256,
    /// The directory.
    pub directory: String,
    /// The version of the daemon.
    pub novella: String,
}

/// What happened to a step; see [`Event`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// Work on it begins.
    Started,
    /// It failed in a way that may pass, and is tried again.
    Retrying {
        /// Why it failed.
        error: Failure,
        /// When it is tried again, in milliseconds.
        wait_ms: u64,
    },
    /// It was done.
    Done {
        /// In this time, in milliseconds.
        elapsed_ms: u64,
    },
    /// It failed for good.
    Failed {
        /// Why.
        error: Failure,
        /// After this time, in milliseconds.
        elapsed_ms: u64,
    },
    /// It is not tried.
    Skipped,
}

/// Why a step failed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What failed, and each of its causes.
    said: Vec<String>,
    code: Option<String>,
    help: Option<String>,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its name, where it has one.
    pub code: Option<String>,
    /// Why.
    pub summary: String,
    /// The way out.
    pub help: Option<String>,
}

impl Refusal {
    /// For this reason.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { code: None, summary: summary.into(), help: None }
    }

    /// By this name.
    #[must_use]
    pub fn code(self, code: &str) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// With advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// A plan of another spec than the one in `directory`, which the daemon goes by.
    pub fn other_spec(directory: &Path) -> Self {
        let directory = directory.display();
        let summary = format!("the daemon goes by another spec, the one in `{directory}`; nothing was done");
        Self::new(summary).code("other-spec").help(
            "save this one there, and give the same `--var`, `--var-file` and `--overlay` as the daemon was given; or end the \
             daemon first: `systemctl stop novella`",
        )
    }

    /// It as an error.
    pub fn located(&self) -> Located {
        Located { code: self.code.clone(), ..Located::error(&self.summary, self.help.as_deref(), None) }
    }
}

/// What has moved on since the plan was made.
impl From<Stale> for Refusal {
    fn from(stale: Stale) -> Self {
        let summary = format!("the plan is stale: {stale}; nothing was done");
        Self::new(summary).code("stale-plan").help("look at a new one: run it again")
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Told {
    /// Something that happened to a step.
    pub fn event(change: &Change, deed: Deed, event: &Event<'_>) -> Self {
        let happened = match event {
            Event::Started => Happened::Started,
            Event::Retrying { error, wait } => {
                Happened::Retrying { error: Failure::from(*error), wait_ms: milliseconds(*wait) }
            }
            Event::Done { elapsed } => Happened::Done { elapsed_ms: milliseconds(*elapsed) },
            Event::Failed { error, elapsed } => {
                Happened::Failed { error: Failure::from(*error), elapsed_ms: milliseconds(*elapsed) }
            }
            Event::Skipped => Happened::Skipped,
        };
        Self::Step { address: change.address.to_string(), object: change.key.clone(), deed, happened }
    }

    /// Whether nothing comes after it.
    pub const fn is_last(&self) -> bool {
        !matches!(self, Self::Taken {} | Self::Step { .. } | Self::Bytes { .. })
    }
}

impl From<&StepError> for Failure {
    fn from(error: &StepError) -> Self {
        let mut said = vec![error.to_string()];
        let mut cause = error.source();
        while let Some(error) = cause {
            said.push(error.to_string());
            cause = error.source();
        }
        let (code, help) = match error {
            StepError::Host(error) => (error.code.as_deref(), &error.help),
            StepError::Store(error) => (None, &error.help),
        };
        Self { said, code: code.map(str::to_owned), help: help.clone() }
    }
}

/// A cause that was told from elsewhere.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
struct Cause {
    said: String,
    source: Option<Box<Cause>>,
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        let mut said = failure.said.into_iter();
        let deed = said.next().unwrap_or_default();
        let source = said.rev().fold(None, |source, said| Some(Box::new(Cause { said, source })));
        let mut error = HostError::refused(deed);
        error.source = source.map(Into::into);
        error.code = failure.code.map(Into::into);
        error.help = failure.help;
        Self::Host(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::key::ObjectKind;
    use crate::report::error::chain;
    use crate::store::StoreError;

    fn there_and_back<T: Serialize + for<'de> Deserialize<'de>>(what: &T) -> (T, String) {
        let line = serde_json::to_string(what).expect("JSON");
        (serde_json::from_str(&line).expect("what was written"), line)
    }

    #[test]
    fn a_failure_says_the_same_on_the_other_side() {
        let cause = std::io::Error::other("cause");
        let host = HostError::new("deed", StoreError::new("middle", cause)).code("image-changed").help("way out");
        let store = StoreError::refused("written").help("room");
        for error in [StepError::Host(host), StepError::Store(store)] {
            let (told, _) = there_and_back(&Failure::from(&error));
            let again = StepError::from(told);
            assert_eq!((chain(&again), again.to_string()), (chain(&error), error.to_string()));
            let named = |error: &StepError| match error {
                StepError::Host(error) => (error.code.clone(), error.help.clone()),
                StepError::Store(error) => (None, error.help.clone()),
            };
            assert_eq!(named(&again), named(&error));
        }
    }

    #[test]
    fn each_line_has_its_version_and_one_word_for_what_it_is() {
        let answer = |told| Answer { version: VERSION, told };
        let step = Told::Step {
            address: "host.local".into(),
            object: ObjectKey::new(ObjectKind::Domain, "web"),
            deed: Deed::Ensure,
            happened: Happened::Done { elapsed_ms: 7 },
        };
        let (again, line) = there_and_back(&answer(step));
        assert!(line.starts_with("{\"version\":1,\"step\":{\"address\":\"host.local\","), "{line}");
        assert!(line.contains("\"event\":\"done\",\"elapsed_ms\":7"), "{line}");
        assert!(matches!(again.told, Told::Step { happened: Happened::Done { elapsed_ms: 7 }, .. }));
        let (again, line) = there_and_back(&answer(Told::Taken {}));
        assert_eq!(line, "{\"version\":1,\"taken\":{}}");
        assert!(!again.told.is_last());
        let (again, _) = there_and_back(&answer(Told::Refused(Refusal::other_spec(Path::new("/etc/novella")))));
        assert!(again.told.is_last());
        let (again, line) = there_and_back(&Request { version: VERSION, ask: Ask::Now });
        assert_eq!(line, "{\"version\":1,\"ask\":\"now\"}");
        assert!(matches!(again.ask, Ask::Now));
    }
}
