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

fn line(level: Level, r#type: &'static str, message: &str, body: impl Serialize) -> String {
    let timestamp = Timestamp::now().to_string();
    json::line(&Line { level, message, module: "novella.ui", timestamp, r#type, body })
}

fn say(level: Level, r#type: &'static str, message: &str, body: impl Serialize) {
    out(line(level, r#type, message, body));
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

/// Says something for people.
pub fn log(text: &str) {
    #[derive(Serialize)]
    struct Nothing {}
    say(Level::Info, "log", text, Nothing {});
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
    summary(&format!("Plan: {counts}."), counts, "plan");
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
        Verdict::Import => "import",
        Verdict::Replace => "replace",
        Verdict::Delete => "delete",
        Verdict::Forget | Verdict::Disown => "forget",
        Verdict::Record => "noop",
    }
}

/// Says what happens while a plan is walked.
pub struct Stream {
    /// Takes each line.
    say: Box<dyn Fn(String) + Send + Sync>,
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

impl Default for Stream {
    fn default() -> Self {
        Self::to(out)
    }
}

impl Stream {
    /// One that gives each line to this.
    pub fn to(say: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self { say: Box::new(say), work: Mutex::default(), told: Mutex::default() }
    }

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

    fn hook(
        &self,
        level: Level,
        r#type: &'static str,
        message: &str,
        address: &Address,
        work: &Work,
        object: Option<&ObjectKey>,
    ) {
        (self.say)(line(level, r#type, message, Hooked { hook: work.hook(address, object) }));
    }

    /// Says of each resource that is worked on that it still is.
    fn beat(&self) {
        for (address, work) in self.work().iter().filter(|(_, work)| !work.open.is_empty()) {
            let message = format!("{address}: Still working... [{} elapsed]", seconds(work.elapsed()));
            self.hook(Level::Info, "apply_progress", &message, address, work, None);
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
        (self.say)(line(Level::Info, "apply_progress", &format!("{address}: {done}{of} bytes"), Hooked { hook: body }));
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
                    self.hook(
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
                self.hook(Level::Warn, "apply_progress", &message, address, work, Some(key));
            }
            Event::Done { elapsed } => {
                work.over(key);
                if work.left == 0 && !work.failed {
                    let message = format!("{address}: Complete after {}", seconds(work.elapsed()));
                    self.hook(Level::Info, "apply_complete", &message, address, work, None);
                } else if !quiet {
                    let message = format!("{what}: complete after {}", seconds(elapsed));
                    self.hook(Level::Info, "apply_progress", &message, address, work, Some(key));
                }
            }
            Event::Failed { error, elapsed } => {
                work.over(key);
                let message = format!("{what}: failed after {}: {}", seconds(elapsed), error::chain(error));
                let kind = if work.failed { "apply_progress" } else { "apply_errored" };
                work.failed = true;
                self.hook(Level::Error, kind, &message, address, work, Some(key));
            }
            Event::Skipped => {
                work.over(key);
                work.failed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::apply::{self, Options, Retry};
    use crate::blueprint::HostFacts;
    use crate::blueprint::key::ObjectKind;
    use crate::blueprint::object::Object;
    use crate::host::sim::SimHost;
    use crate::host::{Host, HostError};
    use crate::plan::world::{Observed, Recorded};
    use crate::spec::load::load_texts;
    use crate::store::memory::MemoryStore;

    /// A host on which there is no room for one disk.
    struct Full(SimHost);

    impl Host for Full {
        fn facts(&self) -> Result<HostFacts, HostError> {
            self.0.facts()
        }
        fn observe(&self) -> Result<Observed, HostError> {
            self.0.observe()
        }
        fn ensure(&self, object: &Object) -> Result<(), HostError> {
            let key = object.key();
            if (key.kind, key.id.as_str()) == (ObjectKind::Disk, "a") {
                return Err(HostError::refused("no space left\u{1b}"));
            }
            self.0.ensure(object)
        }
        fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
            self.0.remove(key)
        }
        fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
            self.0.release(domain, volumes)
        }
        fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
            self.0.reload(server)
        }
    }

    #[test]
    fn a_resource_starts_once_and_comes_to_one_end() {
        let spec = "[network.n]\n[subnet.s]\nnetwork = \"n\"\ncidr = \"10.0.0.0/24\"\n[image.i]\nsource = \"/i\"\n\
                    format = \"raw\"\n[flavor.f]\nram = \"1 GiB\"\ndisk = \"1 GiB\"\n[server.a]\nimage = \"i\"\n\
                    flavor = \"f\"\nnetworks = [\"n\"]\n[server.b]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"n\"]\n";
        let loaded = load_texts([("spec.toml", spec)]);
        let (desired, problems) = crate::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?}"));
        let host = Full(SimHost::new());
        let plan = crate::reconcile::plan(&desired, Recorded::default(), &host).expect("a plan");
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let stream = Arc::new(Stream::to(move |line| sink.lock().expect("lines").push(line)));
        stream.begin(&plan);
        let retry = Retry { retries: 0, first: Duration::ZERO, most: Duration::ZERO };
        let options = Options { parallelism: 2, retry };
        let store = MemoryStore::default();
        let outcome = apply::apply(&plan, &host, &store, options, &AtomicBool::new(false), stream.as_ref());
        assert!(!outcome.is_complete());

        let lines: Vec<serde_json::Value> = said
            .lock()
            .expect("lines")
            .iter()
            .inspect(|line| assert!(!line.contains('\u{1b}') && line.ends_with("}\n"), "{line}"))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let of = |kind: &str| {
            let lines = lines.iter().filter(|line| line["type"] == kind);
            let mut of: Vec<&str> = lines.filter_map(|line| line["hook"]["resource"]["addr"].as_str()).collect();
            of.sort_unstable();
            of
        };
        assert_eq!(of("apply_start"), ["host.local", "image.i", "network.n", "server.a", "server.b"]);
        assert_eq!(of("apply_complete"), ["host.local", "image.i", "network.n", "server.b"]);
        assert_eq!(of("apply_errored"), ["server.a"]);
        let errored = lines.iter().find(|line| line["type"] == "apply_errored").expect("a line");
        assert_eq!((&errored["@level"], &errored["hook"]["action"]), (&"error".into(), &"create".into()));
        assert!(errored["@message"].as_str().is_some_and(|it| it.contains("no space left")), "{errored}");
        assert!(of("apply_progress").contains(&"server.b"));
    }

    #[test]
    fn a_download_tells_how_far_it_is_but_not_too_often() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let stream = Arc::new(Stream::to(move |line| sink.lock().expect("lines").push(line)));
        let (address, key) = (Address::local_host(), ObjectKey::new(ObjectKind::Base, "x"));
        let work = Work {
            verdict: Verdict::Create,
            left: 1,
            begun: Some(Instant::now()),
            failed: false,
            open: vec![key.clone()],
        };
        stream.work().insert(address, work);
        let tell = stream.sink();
        tell(&key, 10, Some(100));
        tell(&key, 20, Some(100));
        stream.beat();
        let said = said.lock().expect("lines");
        assert_eq!(said.len(), 2);
        let line: serde_json::Value = serde_json::from_str(&said[0]).expect("JSON");
        assert_eq!((&line["hook"]["bytes"], &line["hook"]["bytes_total"]), (&10.into(), &100.into()));
        assert!(said[1].contains("Still working..."));
    }
}
