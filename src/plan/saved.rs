//! A plan that is kept in a file, to be carried out later as it is or not at all.
//!
//! The file has no steps. It has what was asked for, and digests of all that the plan came from and of what it does. Whoever
//! carries it out plans anew with the same options and compares: first the spec, then the state, and then what is to be done,
//! which can differ only where the host does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::Name;
use crate::plan::Plan;
use crate::plan::diff::Change;
use crate::plan::world::Recorded;
use crate::value::Sha256;

/// The version of the files that this novella reads and writes.
pub const VERSION: u32 = 1;

/// How many resources an error names.
const NAMED: usize = 8;

/// A plan as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The version of the file. By this key it is known for what it is.
    pub novella_plan: u32,
    /// The novella that made it. Another one may plan otherwise.
    pub novella_version: String,
    /// When it was made, as RFC 3339 has it.
    pub timestamp: String,
    /// The project that it is of.
    pub project: Name,
    /// What was asked for.
    pub options: Options,
    /// The digest of the spec, its variables and the files that it names among it.
    pub spec: Sha256,
    /// The state that it starts from.
    pub state: State,
    /// What the host was taken to be, where it was not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<String>,
    /// A digest of what is done to each resource, by address.
    pub changes: BTreeMap<String, Sha256>,
    /// The plan as people read it.
    pub text: String,
}

/// What shapes a plan beside the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// `--destroy`.
    pub destroy: bool,
    /// `--replace`.
    pub replace: Vec<String>,
    /// `--target`.
    pub target: Vec<String>,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `--allow-destroy`.
    pub allow_destroy: Vec<String>,
    /// `--defer-reboots`.
    pub defer_reboots: bool,
    /// `--locked`.
    pub locked: bool,
    /// Whether nothing but what is replaced is touched, as by `rebuild`. No saved plan is of that.
    #[serde(skip)]
    pub only_these: bool,
}

impl fmt::Display for Options {
    /// As they stand on the command line, each with a space before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destroy, replace, target, exclude, allow_destroy, defer_reboots, locked, only_these: _ } = self;
        for (name, is_given) in [("destroy", destroy), ("defer-reboots", defer_reboots), ("locked", locked)] {
            if *is_given {
                write!(f, " --{name}")?;
            }
        }
        let lists = [("replace", replace), ("target", target), ("exclude", exclude), ("allow-destroy", allow_destroy)];
        for (name, addresses) in lists {
            addresses.iter().try_for_each(|address| write!(f, " --{name} {address}"))?;
        }
        Ok(())
    }
}

/// One state, as it is told from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How often it was written.
    pub serial: u64,
    /// The digest of its records.
    pub sha256: Sha256,
}

/// Why a file is not a plan that can be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or not of the shape that a saved plan has.
    #[error("it is not a saved plan")]
    Shape(#[from] serde_json::Error),
    /// A version of the file that this novella does not know.
    #[error("it has format {0}, and this novella reads format {VERSION}")]
    Format(u32),
    /// Another novella made it.
    #[error("novella {0} made it, and this is {version}", version = env!("CARGO_PKG_VERSION"))]
    Version(String),
}

/// What has moved on since a plan was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The spec, its variables or a file that it names.
    #[error("the spec has changed since")]
    Spec,
    /// The records.
    #[error("the state has changed since ({})", moved(*.then, *.now))]
    State {
        /// The serial that the plan starts from.
        then: u64,
        /// The serial as it is. It is the same where another state was put in place.
        now: u64,
    },
    /// The host: something else would be done to these resources.
    #[error("the host has changed since: {}", named(.0))]
    Host(Vec<String>),
}

fn moved(then: u64, now: u64) -> String {
    match then == now {
        true => format!("other records, with serial {now} as then"),
        false => format!("serial {then} then, {now} now"),
    }
}

fn named(addresses: &[String]) -> String {
    let shown = addresses.iter().take(NAMED).map(|address| format!("`{address}`")).collect::<Vec<_>>().join(", ");
    match addresses.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl State {
    /// What tells these records from others.
    pub fn of(recorded: &Recorded) -> Self {
        // As a list, for a key is no string.
        let records: Vec<_> = recorded.records.iter().collect();
        Self { serial: recorded.serial, sha256: digest(&records) }
    }
}

/// A digest of what is done to each resource, by address. What is recorded is left out: it has a digest of its own.
pub fn changes(plan: &Plan) -> BTreeMap<String, Sha256> {
    let mut texts: BTreeMap<String, Vec<Sha256>> = BTreeMap::new();
    for change in &plan.changes {
        let Change {
            key,
            address,
            action,
            reason,
            disruption,
            deferred,
            releases,
            want,
            made: _,
            prevent_destroy,
            fields,
        } = change;
        let what = (key, action, reason, disruption, deferred, releases, want, prevent_destroy, fields);
        texts.entry(address.to_string()).or_default().push(digest(&what));
    }
    texts.into_iter().map(|(address, digests)| (address, digest(&digests))).collect()
}

fn digest(data: &impl Serialize) -> Sha256 {
    // To put plain data into memory cannot fail.
    Sha256::of(&serde_json::to_vec(data).unwrap_or_default())
}

impl Saved {
    /// The plan in these bytes.
    ///
    /// # Errors
    /// When they are none, or one of another novella.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versions {
            novella_plan: u32,
            novella_version: String,
        }
        let Versions { novella_plan, novella_version } = serde_json::from_slice(bytes)?;
        if novella_plan != VERSION {
            return Err(Unreadable::Format(novella_plan));
        }
        if novella_version != env!("CARGO_PKG_VERSION") {
            return Err(Unreadable::Version(novella_version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Refuses another spec than the one that it was made from.
    ///
    /// # Errors
    /// [`Stale::Spec`].
    pub fn check_spec(&self, now: &Sha256) -> Result<(), Stale> {
        if self.spec == *now { Ok(()) } else { Err(Stale::Spec) }
    }

    /// Refuses another state than the one that it starts from.
    ///
    /// # Errors
    /// [`Stale::State`].
    pub fn check_state(&self, now: &State) -> Result<(), Stale> {
        if self.state == *now {
            return Ok(());
        }
        Err(Stale::State { then: self.state.serial, now: now.serial })
    }

    /// Refuses a plan that does something else, which the same spec and state come to on another host only.
    ///
    /// # Errors
    /// [`Stale::Host`].
    pub fn check_changes(&self, plan: &Plan) -> Result<(), Stale> {
        let now = changes(plan);
        let all: BTreeSet<&String> = self.changes.keys().chain(now.keys()).collect();
        let other = all.into_iter().filter(|address| self.changes.get(*address) != now.get(*address));
        let other: Vec<String> = other.cloned().collect();
        if other.is_empty() { Ok(()) } else { Err(Stale::Host(other)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_some_and_counts_the_rest() {
        let many = |count| (1..=count).map(|number| format!("server.s{number}")).collect();
        let said = |count| Stale::Host(many(count)).to_string();
        assert_eq!(said(2), "the host has changed since: `server.s1`, `server.s2`");
        assert!(said(8).ends_with(", `server.s8`"));
        assert!(said(10).ends_with("`server.s8` and 2 more"));
    }
}
