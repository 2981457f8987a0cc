//! How things are, as the daemon tells it: a file for `novella status` and for other programs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::report::{clean_line, count};
use crate::value::Sha256;
use crate::watch::pending::Pending;
use crate::watch::{read_json, write_json};

const FILE: &str = "status.json";

/// The version of the file.
const FORMAT: &str = "1.0";

/// How things are, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The host is what the spec says.
    Healthy,
    /// The same, and guests wait for a reboot to become it.
    WaitingForReboot,
    /// A plan waits for a person.
    PendingApproval,
    /// Something is wrong.
    Degraded,
}

impl Health {
    /// The words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::WaitingForReboot => "waiting for reboot",
            Self::PendingApproval => "pending approval",
            Self::Degraded => "degraded",
        }
    }
}

/// All that is told. Times are in seconds since 1970 (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this format.
    pub format_version: String,
    /// In a word.
    pub health: Health,
    /// The process of the daemon.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// When it began.
    pub started_at: u64,
    /// How many passes it has made.
    pub passes: u64,
    /// The spec in force.
    pub spec: Option<InForce>,
    /// The spec in the directory, if it is another and not in force.
    pub rejected: Option<Refused>,
    /// The last pass that came to its end.
    pub last_pass: Option<LastPass>,
    /// The last one that had something to do.
    pub last_applied: Option<LastPass>,
    /// Why the last pass did not, with since when.
    pub failure: Option<Failure>,
    /// Who else works on the state, as long as the daemon waits for that.
    pub waiting_for: Option<String>,
    /// The plan that waits for a person.
    pub pending: Option<Pending>,
    /// The last approval that was refused, and why.
    pub refused_approval: Option<RefusedApproval>,
    /// The resources that are in trouble.
    pub troubles: BTreeMap<String, Trouble>,
    /// The servers that wait for a reboot, each with what for.
    pub waiting_for_reboot: BTreeMap<String, Vec<String>>,
    /// The servers that wait for a window to be rebooted, each with when its next one opens.
    #[serde(default)]
    pub windows: BTreeMap<String, u64>,
    /// Why changes of files are only seen by and by; none if they are seen at once.
    pub without_inotify: Option<String>,
    /// Why what happens on the host is only seen by and by; none if it is seen at once.
    #[serde(default)]
    pub without_events: Option<String>,
}

/// A spec in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Its digest.
    pub digest: Sha256,
    /// Since when.
    pub since: u64,
}

/// A spec that is not in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its digest, as far as it could be read.
    pub digest: Sha256,
    /// Since when.
    pub since: u64,
    /// What is wrong with it.
    pub problems: Vec<String>,
}

/// A pass that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastPass {
    /// When it began.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many steps were done.
    pub done: usize,
    /// How many were not.
    pub not_done: usize,
    /// What was to be done, in a line; none if nothing was.
    pub summary: Option<String>,
}

/// Something that kept a whole pass from being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Since when.
    pub since: u64,
    /// How often in a row.
    pub failures: u32,
    /// What.
    pub error: String,
}

/// An approval that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedApproval {
    /// Of the plan that it was for.
    pub digest: Sha256,
    /// When it was refused.
    pub at: u64,
    /// Why.
    pub why: String,
}

/// The trouble of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The object.
    pub object: String,
    /// Since when.
    pub since: u64,
    /// How often it has failed in a row; 0 if something that is not ours is in its way.
    pub failures: u32,
    /// Why it failed last.
    pub error: String,
}

impl Status {
    /// That of a daemon that has only just begun.
    pub fn new(unix: u64) -> Self {
        Self {
            format_version: FORMAT.into(),
            health: Health::Healthy,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: unix,
            passes: 0,
            spec: None,
            rejected: None,
            last_pass: None,
            last_applied: None,
            failure: None,
            waiting_for: None,
            pending: None,
            refused_approval: None,
            troubles: BTreeMap::new(),
            waiting_for_reboot: BTreeMap::new(),
            windows: BTreeMap::new(),
            without_inotify: None,
            without_events: None,
        }
    }

    /// What all that comes to. What is wrong goes before what waits.
    pub fn judge(&self) -> Health {
        if self.rejected.is_some() || self.spec.is_none() || self.failure.is_some() || !self.troubles.is_empty() {
            Health::Degraded
        } else if self.pending.is_some() {
            Health::PendingApproval
        } else if !self.waiting_for_reboot.is_empty() {
            Health::WaitingForReboot
        } else {
            Health::Healthy
        }
    }

    /// Why things are degraded, the first of it, in a line; none if they are not.
    pub fn why(&self) -> Option<String> {
        let more = self.troubles.len().saturating_sub(1);
        let more = if more > 0 { format!(" (and {} more)", count(more, "resource")) } else { String::new() };
        let rejected = self.rejected.as_ref().map(|it| match it.problems.first() {
            Some(problem) => format!("the spec is not in force: {problem}"),
            None => "the spec is not in force".into(),
        });
        let why = rejected
            .or_else(|| self.spec.is_none().then(|| "there is no good spec yet".into()))
            .or_else(|| self.failure.as_ref().map(|it| it.error.clone()))
            .or_else(|| self.troubles.iter().next().map(|(address, it)| format!("{address}: {}{more}", it.error)))?;
        Some(clean_line(&why).into_owned())
    }

    /// Reads what the daemon wrote last; none if there was never one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        read_json(&dir.join(FILE))
    }

    /// Writes it, with its health.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, dir: &Path) -> io::Result<()> {
        self.health = self.judge();
        write_json(&dir.join(FILE), self)
    }
}
