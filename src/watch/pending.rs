//! The plan that waits for a person, and the word that lets it go.
//!
//! The word is for exactly this plan: it names the digest of all changes that wait. Once what it allows was begun, what is
//! left of that may go on, after a failure or a kill, until the spec is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use petgraph::graph::DiGraph;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::host::files;
use crate::plan::diff::Change;
use crate::plan::{Action, Plan};
use crate::report;
use crate::value::Sha256;
use crate::watch::policy::Why;
use crate::watch::socket::protocol::Refusal;
use crate::watch::{read_json, write_json};

const PENDING: &str = "pending.json";
const TEXT: &str = "pending.txt";

/// The file that `novella approve` writes.
pub const APPROVAL: &str = "approval.json";

/// How many digits of a digest are enough to name a plan.
const FEWEST_DIGITS: usize = 8;

/// A plan that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Of all its changes.
    pub digest: Sha256,
    /// Of the spec that it comes from.
    pub spec: Sha256,
    /// Since when it waits as it is, in seconds since 1970 (UTC).
    pub since: u64,
    /// What it does, in a line.
    pub summary: String,
    /// How many resources are destroyed or replaced, or have lost what was in them.
    pub losses: usize,
    /// How many resources are recorded; 0 in what an older daemon has written, who did not count them.
    #[serde(default)]
    pub resources: usize,
    /// What an approval that says nothing of losses may come to.
    #[serde(flatten)]
    pub limits: Limits,
    /// What waits, by object.
    pub changes: Vec<Waiting>,
}

/// How much may be lost at once, unless an approval says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How many resources.
    pub max_deletes: usize,
    /// How many of a hundred that are recorded, if it is more than one.
    #[serde(default)]
    pub max_delete_percent: usize,
}

/// A change that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The resource.
    pub address: String,
    /// The object.
    pub object: String,
    /// What would be done to it.
    pub action: Action,
    /// Why its resource waits, in words; nothing if it waits for another.
    pub why: Vec<String>,
    /// Of all that would be done.
    pub digest: Sha256,
}

/// Where a plan that waits comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The digest of the spec.
    pub spec: &'a Sha256,
    /// How many resources are recorded.
    pub resources: usize,
    /// How many of them may be lost at once.
    pub limits: Limits,
    /// The time, in seconds since 1970 (UTC).
    pub unix: u64,
}

impl Pending {
    /// What of `plan` is not in `going`, and why it is held; none if that is nothing. Gives its text as well.
    pub fn new(
        plan: &Plan,
        going: &Plan,
        held: &BTreeMap<Address, BTreeSet<Why>>,
        origin: Origin<'_>,
    ) -> Option<(Self, String)> {
        let goes: BTreeSet<_> = going.changes.iter().map(|change| &change.key).collect();
        let mut rest = plan.clone();
        rest.changes.retain(|change| !goes.contains(&change.key));
        if rest.changes.is_empty() {
            return None;
        }
        (rest.conflicts, rest.warnings, rest.steps) = (Vec::new(), Vec::new(), DiGraph::new());
        let changes: Vec<Waiting> = rest.changes.iter().map(|change| waiting(change, held)).collect();
        let digests: String = changes.iter().map(|change| format!("{}\n", change.digest)).collect();
        let pending = Self {
            digest: Sha256::of(digests.as_bytes()),
            spec: origin.spec.clone(),
            since: origin.unix,
            summary: report::plan::summary(&rest),
            losses: held.values().filter(|why| why.iter().any(|why| why.loses())).count(),
            resources: origin.resources,
            limits: origin.limits,
            changes,
        };
        let text = anstream::adapter::strip_str(&report::plan::render(&rest)).to_string();
        Some((pending, text))
    }

    /// Whether it is this plan, of this spec, under the same rules.
    pub fn is_same(&self, other: &Self) -> bool {
        let of = |it: &Self| (it.resources, it.limits);
        (&self.digest, &self.spec, of(self)) == (&other.digest, &other.spec, of(other))
    }

    /// Why an approval has to say that so much may be lost at once; none if that is no more than may be. A single resource
    /// is never too many in a hundred.
    pub fn exceeds(&self) -> Option<String> {
        let Self { losses, resources, limits: Limits { max_deletes, max_delete_percent }, .. } = *self;
        let (of, most) = if losses > max_deletes {
            (String::new(), format!("{max_deletes} may be without `--allow-mass-delete` (`--max-deletes`)"))
        } else if losses > 1 && resources > 0 && losses * 100 > resources * max_delete_percent {
            let most = format!("{max_delete_percent} % may be without `--allow-mass-delete` (`--max-delete-percent`)");
            (format!(" of {resources}, {} %,", losses * 100 / resources), most)
        } else {
            return None;
        };
        let lost = report::count(losses, "resource");
        Some(format!("{lost}{of} would be destroyed or replaced at once, and at most {most}"))
    }

    /// The word that lets it go, by the first digits of its digest.
    ///
    /// # Errors
    /// When it is another, or more would be lost than such a word lets.
    pub fn approval(&self, digest: &str, allow_mass_delete: bool, by: &str, at: u64) -> Result<Approval, Refusal> {
        if digest.len() < FEWEST_DIGITS || !self.digest.as_str().starts_with(digest) {
            let summary = format!("no plan waits that has the digest `{}`", digest.escape_default());
            let help = format!("what waits is {}; `novella approve` shows it", self.digest.short());
            return Err(Refusal::new(summary).help(help));
        }
        if let Some(why) = self.exceeds().filter(|_| !allow_mass_delete) {
            return Err(Refusal::new(why));
        }
        Ok(Approval {
            digest: self.digest.clone(),
            spec: self.spec.clone(),
            changes: self.changes.iter().map(|change| change.digest.clone()).collect(),
            allow_mass_delete,
            begun: false,
            by: by.to_owned(),
            at,
        })
    }

    /// Reads the plan that waits.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        read_json(&dir.join(PENDING))
    }

    /// The plan that waits as people read it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(dir: &Path) -> io::Result<String> {
        std::fs::read_to_string(dir.join(TEXT))
    }

    /// Writes what waits, or that nothing does.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn write(dir: &Path, pending: Option<&(Self, String)>) -> io::Result<()> {
        match pending {
            Some((pending, text)) => {
                files::write_atomic(&dir.join(TEXT), text.as_bytes(), 0o600)?;
                write_json(&dir.join(PENDING), pending)
            }
            None => {
                files::remove(&dir.join(PENDING))?;
                files::remove(&dir.join(TEXT))
            }
        }
    }
}

fn waiting(change: &Change, held: &BTreeMap<Address, BTreeSet<Why>>) -> Waiting {
    let why = held.get(&change.address).into_iter().flatten().map(|why| why.as_str().to_owned()).collect();
    Waiting {
        address: change.address.to_string(),
        object: change.key.to_string(),
        action: change.action,
        why,
        digest: digest(change),
    }
}

/// Of all that a change does. Why it is done is no part of it: that is another after it was begun.
pub fn digest(change: &Change) -> Sha256 {
    let Change { key, action, disruption, deferred, releases, want, fields, .. } = change;
    let releases: Vec<String> = releases.iter().map(ToString::to_string).collect();
    let said = serde_json::json!([key.to_string(), action, disruption, deferred, releases, want, fields]);
    Sha256::of(said.to_string().as_bytes())
}

/// The word of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Of the plan that may go.
    pub digest: Sha256,
    /// Of the spec that it comes from.
    pub spec: Sha256,
    /// Of each of its changes.
    pub changes: BTreeSet<Sha256>,
    /// Whether more may be lost than `--max-deletes` and `--max-delete-percent` let.
    pub allow_mass_delete: bool,
    /// Whether its changes were begun.
    #[serde(default)]
    pub begun: bool,
    /// Who said so.
    pub by: String,
    /// When, in seconds since 1970 (UTC).
    pub at: u64,
}

/// What an approval comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its changes may go.
    Holds,
    /// All that it allowed is done.
    Spent,
    /// It is of another plan, or not enough.
    Refused(String),
}

impl Approval {
    /// Reads the one that was given.
    ///
    /// # Errors
    /// When there is a file that cannot be read.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        read_json(&dir.join(APPROVAL))
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write_json(&dir.join(APPROVAL), self)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn withdraw(dir: &Path) -> io::Result<()> {
        files::remove(&dir.join(APPROVAL))
    }

    /// What it comes to, where `pending` is what waits with nothing approved, of the spec with the digest `spec`.
    pub fn judge(&self, pending: Option<&Pending>, spec: &Sha256) -> Judgement {
        if self.spec != *spec {
            return Judgement::Refused("the spec was changed since".into());
        }
        let Some(pending) = pending else {
            return if self.begun { Judgement::Spent } else { Judgement::Refused("nothing waits any more".into()) };
        };
        if self.begun {
            let is_left = pending.changes.iter().any(|change| self.changes.contains(&change.digest));
            return if is_left { Judgement::Holds } else { Judgement::Spent };
        }
        if self.digest != pending.digest {
            return Judgement::Refused(format!("the plan that waits is another now, {}", pending.digest.short()));
        }
        match pending.exceeds() {
            Some(why) if !self.allow_mass_delete => Judgement::Refused(why),
            Some(_) | None => Judgement::Holds,
        }
    }

    /// Whether it is for this change too.
    pub fn allows(&self, change: &Change) -> bool {
        self.changes.contains(&digest(change))
    }
}
