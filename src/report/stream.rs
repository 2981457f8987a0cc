//! What `apply --json` says: one object a line, as Terraform's machine-readable UI, by resource. What comes of single objects
//! is `apply_progress`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::address::{Address, Name, ResourceKind};
use crate::apply::{Event, Observer};
use crate::blueprint::facts::Disruption;
use crate::blueprint::key::ObjectKey;
use crate::host::OnProgress;
use crate::plan::diff::{Change, Reason};
use crate::plan::{Deed, Plan};
use crate::report::document::Summary;
use crate::report::located::Located;
use crate::report::plan::{Counts, Verdict, by_resource, count, doing, title, verdict};
use crate::report::progress::seconds;
use crate::report::{clean_line, error, json, out};

/// The version of the lines, in Terraform's sense.
const UI: &str = "1.2";

/// How often a resource that is worked on says so, as with Terraform.
const BEAT: Duration = Duration::from_secs(10);

/// How often a download tells how far it is, at most.
const BYTES: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Info,
    Warn,
    Error,
}

#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "@level")]
    level: Level,
    #[serde(rename = "@message")]
    message: &'a str,
    #[serde(rename = "@module")]
    module: &'static str,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    r#type: &'static str,
    #[serde(flatten)]
    body: T,
}

fn say(level: Level, r#type: &'static str, message: &str, body: impl Serialize) {
    let timestamp = Timestamp::now().to_string();
    out(json::line(&Line { level, message, module: "novella.ui", timestamp, r#type, body }));
}

/// Which resource it is, in Terraform's words.
#[derive(Serialize)]
struct Resource<'a> {
    addr: String,
    module: &'static str,
    resource: String,
    implied_provider: &'static str,
    resource_type: ResourceKind,
    resource_name: &'a Name,
    resource_key: Option<&'static str>,
}

impl<'a> From<&'a Address> for Resource<'a> {
    fn from(address: &'a Address) -> Self {
        Self {
            addr: address.to_string(),
            module: "",
            resource: address.to_string(),
            implied_provider: "novella",
            resource_type: address.kind,
            resource_name: &address.name,
            resource_key: None,
        }
    }
}

#[derive(Serialize)]
struct Planned<'a> {
    change: PlannedChange<'a>,
}

#[derive(Serialize)]
struct PlannedChange<'a> {
    resource: Resource<'a>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    disruption: Option<Disruption>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deferred: bool,
}

#[derive(Serialize)]
struct Hooked<'a> {
    hook: Hook<'a>,
}

#[derive(Serialize)]
struct Hook<'a> {
    resource: Resource<'a>,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a ObjectKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
}

#[derive(Serialize)]
struct Changes {
    changes: Changed,
}

#[derive(Serialize)]
struct Changed {
    #[serde(flatten)]
    summary: Summary,
    operation: &'static str,
}

/// Says who speaks. It is the first line.
pub fn version() {
    #[derive(Serialize)]
    struct Version {
        novella: &'static str,
        ui: &'static str,
    }
    let novella = env!("CARGO_PKG_VERSION");
    say(Level::Info, "version", &format!("Novella {novella}"), Version { novella, ui: UI });
}

/// Says what is wrong, or worth knowing.
pub fn diagnostic(it: &Located) {
    #[derive(Serialize)]
    struct Body<'a> {
        diagnostic: &'a Located,
    }
    let (level, word) = if it.severity == "error" { (Level::Error, "Error") } else { (Level::Warn, "Warning") };
    say(level, "diagnostic", &format!("{word}: {}", clean_line(&it.summary)), Body { diagnostic: it });
}

/// Says what is to be done: what drifted, each resource, and the sum.
pub fn planned(plan: &Plan) {
    let resources = by_resource(plan);
    for (address, changes) in &resources {
        let has_drifted = |change: &Change| change.fields.iter().any(|field| field.drifted);
        let gone = changes.iter().all(|(_, change)| change.reason == Reason::Vanished);
        if gone || changes.iter().any(|(_, change)| change.reason == Reason::Vanished || has_drifted(change)) {
            let action = if gone { Verdict::Delete } else { Verdict::Update };
            let change =
                PlannedChange { resource: (*address).into(), action: word(action), disruption: None, deferred: false };
            say(
                Level::Info,
                "resource_drift",
                &format!("{address}: Drift detected ({})", word(action)),
                Planned { change },
            );
        }
    }
    for (address, changes) in &resources {
        let action = word(verdict(changes));
        let change = PlannedChange {
            resource: (*address).into(),
            action,
            disruption: changes.iter().map(|(_, change)| change.cost()).max(),
            deferred: changes.iter().any(|(_, change)| change.deferred),
        };
        say(Level::Info, "planned_change", &format!("{address}: Plan to {action}"), Planned { change });
    }
    let counts = count(&resources, |_| true);
    let Counts { add, change, destroy } = counts;
    summary(&format!("Plan: {add} to add, {change} to change, {destroy} to destroy."), counts, "plan");
}

/// Says how much was done, or is to be, by what was asked for: `plan`, `apply` or `destroy`.
pub fn summary(message: &str, counts: Counts, operation: &'static str) {
    say(Level::Info, "change_summary", message, Changes { changes: Changed { summary: counts.into(), operation } });
}

/// Terraform's word for what is done to a resource.
const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Create => "create",
        Verdict::Update => "update",
        Verdict::Replace => "replace",
        Verdict::Delete => "delete",
        Verdict::Forget => "forget",
        Verdict::Record => "noop",
    }
}

/// Says what happens while a plan is walked.
#[derive(Debug, Default)]
pub struct Stream {
    work: Mutex<BTreeMap<Address, Work>>,
    told: Mutex<BTreeMap<ObjectKey, Instant>>,
}

/// How far a resource is.
#[derive(Debug)]
struct Work {
    verdict: Verdict,
    /// The steps that are not over.
    left: usize,
    begun: Option<Instant>,
    /// Whether a step failed, or was skipped.
    failed: bool,
    /// The objects that are worked on.
    open: Vec<ObjectKey>,
}

impl Stream {
    /// Gets ready for a walk of this plan.
    pub fn begin(self: &Arc<Self>, plan: &Plan) {
        let mut work = self.work();
        for (address, changes) in by_resource(plan) {
            let verdict = verdict(&changes);
            work.insert(address.clone(), Work { verdict, left: 0, begun: None, failed: false, open: Vec::new() });
        }
        for step in plan.steps.node_weights() {
            if let Some(its) = work.get_mut(&plan.changes[step.change].address) {
                its.left += 1;
            }
        }
        drop(work);
        let stream = Arc::downgrade(self);
        // It ends with the program, or with the stream.
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(BEAT);
                let Some(stream) = stream.upgrade() else { break };
                stream.beat();
            }
        });
    }

    /// Takes the progress of long steps, such as downloads.
    pub fn sink(self: &Arc<Self>) -> OnProgress {
        let stream = Arc::clone(self);
        Arc::new(move |key, done, total| stream.bytes(key, done, total))
    }

    fn work(&self) -> MutexGuard<'_, BTreeMap<Address, Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of each resource that is worked on that it still is.
    fn beat(&self) {
        for (address, work) in self.work().iter().filter(|(_, work)| !work.open.is_empty()) {
            let message = format!("{address}: Still working... [{} elapsed]", seconds(work.elapsed()));
            hook(Level::Info, "apply_progress", &message, address, work, None);
        }
    }

    fn bytes(&self, key: &ObjectKey, done: u64, total: Option<u64>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(key).is_some_and(|last| last.elapsed() < BYTES) {
            return;
        }
        told.insert(key.clone(), Instant::now());
        drop(told);
        let work = self.work();
        let Some((address, its)) = work.iter().find(|(_, work)| work.open.contains(key)) else { return };
        let of = total.map_or(String::new(), |total| format!(" of {total}"));
        let body = Hook { bytes: Some(done), bytes_total: total, ..its.hook(address, Some(key)) };
        say(Level::Info, "apply_progress", &format!("{address}: {done}{of} bytes"), Hooked { hook: body });
    }
}

impl Work {
    fn elapsed(&self) -> Duration {
        self.begun.map(|begun| begun.elapsed()).unwrap_or_default()
    }

    fn hook<'a>(&self, address: &'a Address, object: Option<&'a ObjectKey>) -> Hook<'a> {
        Hook {
            resource: address.into(),
            action: word(self.verdict),
            elapsed_seconds: self.begun.map(|begun| begun.elapsed().as_secs()),
            object,
            bytes: None,
            bytes_total: None,
        }
    }
}

fn hook(level: Level, r#type: &'static str, message: &str, address: &Address, work: &Work, object: Option<&ObjectKey>) {
    say(level, r#type, message, Hooked { hook: work.hook(address, object) });
}

impl Observer for Stream {
    fn event(&self, change: &Change, deed: Deed, event: Event<'_>) {
        let (address, key) = (&change.address, &change.key);
        let mut all = self.work();
        let Some(work) = all.get_mut(address) else { return };
        let what = format!("{address}: {}", title(change));
        // Book-keeping is over before it could be read.
        let quiet = matches!(deed, Deed::Record | Deed::Forget | Deed::Reload);
        match event {
            Event::Started => {
                if work.begun.is_none() {
                    hook(
                        Level::Info,
                        "apply_start",
                        &format!("{address}: {}...", doing(work.verdict.action())),
                        address,
                        work,
                        None,
                    );
                    work.begun = Some(Instant::now());
                }
                work.open.push(key.clone());
            }
            Event::Retrying { error, wait } => {
                let message = format!("{what}: will be tried again in {}: {}", seconds(wait), error::chain(error));
                hook(Level::Warn, "apply_progress", &message, address, work, Some(key));
            }
            Event::Done { elapsed } => {
                work.over(key);
                if work.left == 0 && !work.failed {
                    let message = format!("{address}: Complete after {}", seconds(work.elapsed()));
                    hook(Level::Info, "apply_complete", &message, address, work, None);
                } else if !quiet {
                    let message = format!("{what}: complete after {}", seconds(elapsed));
                    hook(Level::Info, "apply_progress", &message, address, work, Some(key));
                }
            }
            Event::Failed { error, elapsed } => {
                work.over(key);
                let message = format!("{what}: failed after {}: {}", seconds(elapsed), error::chain(error));
                let kind = if work.failed { "apply_progress" } else { "apply_errored" };
                work.failed = true;
                hook(Level::Error, kind, &message, address, work, Some(key));
            }
            Event::Skipped => {
                work.over(key);
                work.failed = true;
            }
        }
    }
}

impl Work {
    /// A step with this object is over.
    fn over(&mut self, key: &ObjectKey) {
        self.left = self.left.saturating_sub(1);
        if let Some(place) = self.open.iter().position(|open| open == key) {
            self.open.swap_remove(place);
        }
    }
}
