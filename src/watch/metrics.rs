//! What monitoring is told: the text format of Prometheus (version 0.0.4), and in a word how things are.
//!
//! Most of it is read off the [`Status`]; what must be counted, [`Counts`] keeps. [`Board`] is where the daemon writes both as
//! they stand, and where [`http`](crate::watch::http) reads them, so that nobody who asks waits for a pass.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::blueprint::key::ObjectKind;
use crate::watch::status::{Health, Status};

/// What the text is, to those who read it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How many resources in trouble are named, at most. How many there are is told beside.
const MOST_NAMED: usize = 50;

/// The upper ends of the buckets of how long passes take, in seconds.
const BUCKETS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// What came of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassResult {
    /// It came to its end, whatever came of its steps.
    Done,
    /// It did not.
    Failed,
    /// Another novella was at work.
    Busy,
    /// The host cannot be made what the spec says.
    Rejected,
}

impl PassResult {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Busy, Self::Rejected];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Busy => "busy",
            Self::Rejected => "rejected",
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepResult {
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was not begun, for something that it waits for failed, or an end was asked for.
    Skipped,
}

impl StepResult {
    const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Skipped];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// How many steps there were of each kind of object, and what came of them.
pub type Steps = BTreeMap<(ObjectKind, StepResult), u64>;

/// What the daemon woke up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Something happened where the spec is.
    Spec,
    /// Something happened on the host.
    Host,
    /// Somebody asked for it.
    Request,
    /// It was time.
    Timer,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Spec, Self::Host, Self::Request, Self::Timer];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Host => "host",
            Self::Request => "request",
            Self::Timer => "timer",
        }
    }
}

/// What is counted from the beginning of a daemon on.
#[derive(Debug, Default)]
pub struct Counts {
    passes: BTreeMap<PassResult, u64>,
    /// How many passes took no longer than the end of each bucket, and longer than that of the one before.
    buckets: [u64; BUCKETS.len()],
    /// How many passes were timed, and how long all of them took.
    timed: (u64, Duration),
    last_took: Option<Duration>,
    last_done: Option<u64>,
    steps: Steps,
    reads: u64,
    rejections: u64,
    wakeups: BTreeMap<Cause, u64>,
}

impl Counts {
    /// A pass is over, at the time `unix` and after so long. One that only saw that another novella is at work took no time.
    pub fn pass(&mut self, result: PassResult, took: Duration, unix: u64) {
        *self.passes.entry(result).or_default() += 1;
        if result == PassResult::Done {
            self.last_done = Some(unix);
        }
        if result != PassResult::Busy {
            if let Some(bucket) = BUCKETS.iter().position(|end| took.as_secs_f64() <= *end) {
                self.buckets[bucket] += 1;
            }
            self.timed = (self.timed.0 + 1, self.timed.1 + took);
            self.last_took = Some(took);
        }
    }

    /// These steps were done, or not.
    pub fn steps(&mut self, steps: &Steps) {
        for (step, count) in steps {
            *self.steps.entry(*step).or_default() += count;
        }
    }

    /// The spec was read.
    pub fn read(&mut self) {
        self.reads += 1;
    }

    /// A spec was not put in force.
    pub fn rejected(&mut self) {
        self.rejections += 1;
    }

    /// The daemon has woken up.
    pub fn woken(&mut self, cause: Cause) {
        *self.wakeups.entry(cause).or_default() += 1;
    }
}

/// Where the daemon tells how things are, for whoever asks.
#[derive(Debug, Default)]
pub struct Board(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    metrics: String,
    health: Option<Health>,
    why: Option<String>,
}

impl Board {
    /// Tells how things are now.
    pub fn tell(&self, status: &Status, counts: &Counts) {
        let told = Told { metrics: render(status, counts), health: health(status), why: status.why() };
        *self.told() = told;
    }

    /// The metrics.
    pub fn metrics(&self) -> String {
        self.told().metrics.clone()
    }

    /// Whether things are well, and how they are in a line.
    pub fn health(&self) -> (bool, String) {
        let told = self.told();
        match (told.health, &told.why) {
            (None, _) => (false, "starting".into()),
            (Some(Health::Degraded), Some(why)) => (false, format!("{}: {why}", Health::Degraded.as_str())),
            (Some(health), _) => (health != Health::Degraded, health.as_str().into()),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In a word how things are; none as long as no pass came to its end, for then nobody knows that they are well.
fn health(status: &Status) -> Option<Health> {
    let health = status.judge();
    (health == Health::Degraded || status.last_pass.is_some()).then_some(health)
}

/// The type of a metric.
#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// Text in the format of Prometheus.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a metric. Its samples follow.
    fn metric(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP novella_{name} {help}\n# TYPE novella_{name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "novella_{name}{labels} {value}");
    }

    /// A metric of one sample.
    fn one(&mut self, name: &str, kind: Type, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    /// A metric that has a sample only where there is a value.
    fn some(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        self.metric(name, Type::Gauge, help);
        if let Some(value) = value {
            self.sample(name, &[], value);
        }
    }
}

/// The value of a label.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics.
fn render(status: &Status, counts: &Counts) -> String {
    let mut text = Text::default();
    daemon(&mut text, status, counts);
    passes(&mut text, counts);
    specs(&mut text, status, counts);
    waiting(&mut text, status);
    text.0
}

fn daemon(text: &mut Text, status: &Status, counts: &Counts) {
    text.metric("build_info", Type::Gauge, "Which novella this is.");
    text.sample("build_info", &[("version", &status.version)], 1);
    text.one("start_time_seconds", Type::Gauge, "When the daemon began, in seconds since 1970.", status.started_at);
    text.metric("health", Type::Gauge, "How things are: 1 for the one state that is so, none while it starts.");
    let now = health(status);
    for (state, word) in [
        (Health::Healthy, "healthy"),
        (Health::WaitingForReboot, "waiting_for_reboot"),
        (Health::PendingApproval, "pending_approval"),
        (Health::Degraded, "degraded"),
    ] {
        text.sample("health", &[("state", word)], u8::from(now == Some(state)));
    }
    text.metric("wakeups_total", Type::Counter, "How often the daemon woke up, and what for.");
    for cause in Cause::ALL {
        let count = counts.wakeups.get(&cause).copied().unwrap_or_default();
        text.sample("wakeups_total", &[("cause", cause.as_str())], count);
    }
    let heard = |why: &Option<String>| u8::from(why.is_none());
    let help = "Whether a save is heard of at once, and not only at the next interval.";
    text.one("spec_events_heard", Type::Gauge, help, heard(&status.without_inotify));
    let help = "Whether what happens on the host is heard of at once, and not only at the next interval.";
    text.one("host_events_heard", Type::Gauge, help, heard(&status.without_events));
}

fn passes(text: &mut Text, counts: &Counts) {
    text.metric("passes_total", Type::Counter, "Passes, by what came of them.");
    for result in PassResult::ALL {
        let count = counts.passes.get(&result).copied().unwrap_or_default();
        text.sample("passes_total", &[("result", result.as_str())], count);
    }
    let last = counts.last_took.map(|took| took.as_secs_f64());
    text.some("last_pass_duration_seconds", "How long the last pass took.", last);
    let help = "When the last pass that came to its end was over, in seconds since 1970.";
    text.some("last_successful_pass_timestamp_seconds", help, counts.last_done);
    text.metric("pass_duration_seconds", Type::Histogram, "How long passes take.");
    let mut sum = 0;
    for (end, count) in BUCKETS.iter().zip(counts.buckets) {
        sum += count;
        text.sample("pass_duration_seconds_bucket", &[("le", &end.to_string())], sum);
    }
    let (count, took) = counts.timed;
    text.sample("pass_duration_seconds_bucket", &[("le", "+Inf")], count);
    text.sample("pass_duration_seconds_sum", &[], took.as_secs_f64());
    text.sample("pass_duration_seconds_count", &[], count);
    text.metric("steps_total", Type::Counter, "Steps, by the kind of object and what came of them.");
    for kind in ObjectKind::ALL {
        let word = kind.as_str().replace(' ', "_");
        for result in StepResult::ALL {
            let count = counts.steps.get(&(kind, result)).copied().unwrap_or_default();
            text.sample("steps_total", &[("kind", &word), ("result", result.as_str())], count);
        }
    }
}

fn specs(text: &mut Text, status: &Status, counts: &Counts) {
    text.metric("spec_info", Type::Gauge, "The digest of the spec in force.");
    if let Some(spec) = &status.spec {
        text.sample("spec_info", &[("digest", spec.digest.as_str())], 1);
    }
    let since = status.spec.as_ref().map(|it| it.since);
    text.some("spec_since_timestamp_seconds", "Since when it is in force, in seconds since 1970.", since);
    let help = "Whether there is another spec in the directory, which is not in force.";
    text.one("spec_rejected", Type::Gauge, help, u8::from(status.rejected.is_some()));
    let since = status.rejected.as_ref().map(|it| it.since);
    text.some("spec_rejected_since_timestamp_seconds", "Since when, in seconds since 1970.", since);
    text.one("spec_reads_total", Type::Counter, "How often the spec was read.", counts.reads);
    text.one("spec_rejections_total", Type::Counter, "How often a spec was not put in force.", counts.rejections);
}

fn waiting(text: &mut Text, status: &Status) {
    let pending = status.pending.as_ref();
    let changes = pending.map_or(0, |it| it.changes.len());
    text.one("pending_changes", Type::Gauge, "Changes of objects that wait for approval.", changes);
    let losses = pending.map_or(0, |it| it.losses);
    text.one("pending_losses", Type::Gauge, "Resources that would be destroyed or replaced by them.", losses);
    let help = "Since when the plan waits as it is, in seconds since 1970.";
    text.some("pending_since_timestamp_seconds", help, pending.map(|it| it.since));
    let help = "Servers that wait for a window to be rebooted.";
    text.one("servers_waiting_for_window", Type::Gauge, help, status.windows.len());
    let help = "Servers that wait for a reboot to become what they are defined to be.";
    text.one("servers_waiting_for_reboot", Type::Gauge, help, status.waiting_for_reboot.len());
    text.one("resources_in_trouble", Type::Gauge, "Resources that are in trouble.", status.troubles.len());
    let help = format!("How often a resource in trouble has failed in a row; of {MOST_NAMED} at most.");
    text.metric("resource_failures", Type::Gauge, &help);
    for (address, trouble) in status.troubles.iter().take(MOST_NAMED) {
        text.sample("resource_failures", &[("address", address)], trouble.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::status::Trouble;

    #[test]
    fn passes_are_counted_and_timed() {
        let mut counts = Counts::default();
        for (result, milliseconds, unix) in [
            (PassResult::Done, 50, 10),
            (PassResult::Done, 51, 20),
            (PassResult::Busy, 9000, 30),
            (PassResult::Failed, 2_000_000, 40),
        ] {
            counts.pass(result, Duration::from_millis(milliseconds), unix);
        }
        let text = render(&Status::new(1), &counts);
        for line in [
            "novella_passes_total{result=\"done\"} 2",
            "novella_passes_total{result=\"busy\"} 1",
            "novella_passes_total{result=\"rejected\"} 0",
            "novella_last_pass_duration_seconds 2000",
            "novella_last_successful_pass_timestamp_seconds 20",
            "novella_pass_duration_seconds_bucket{le=\"0.05\"} 1",
            "novella_pass_duration_seconds_bucket{le=\"0.1\"} 2",
            "novella_pass_duration_seconds_bucket{le=\"1800\"} 2",
            "novella_pass_duration_seconds_bucket{le=\"+Inf\"} 3",
            "novella_pass_duration_seconds_sum 2000.101",
            "novella_pass_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn resources_in_trouble_are_named_up_to_a_number() {
        let mut status = Status::new(1);
        let trouble = |failures| Trouble { object: String::new(), since: 1, failures, error: "no\nroom".into() };
        status.troubles = (0..200).map(|number| (format!("server.web-{number:03}"), trouble(number))).collect();
        status.troubles.insert("a\"b\\c\nd".into(), trouble(7));
        let text = render(&status, &Counts::default());
        assert!(text.contains("novella_resource_failures{address=\"a\\\"b\\\\c\\nd\"} 7\n"), "{text}");
        assert!(text.contains("\nnovella_resources_in_trouble 201\n"), "{text}");
        assert_eq!(text.matches("novella_resource_failures{").count(), MOST_NAMED);
    }

    #[test]
    fn nobody_is_told_that_all_is_well_before_that_is_known() {
        let (board, mut status) = (Board::default(), Status::new(1));
        assert_eq!(board.health(), (false, "starting".into()));
        board.tell(&status, &Counts::default());
        assert_eq!(board.health(), (false, "degraded: there is no good spec yet".into()));
        status.spec = Some(crate::watch::status::InForce { digest: crate::value::Sha256::of(b""), since: 1 });
        board.tell(&status, &Counts::default());
        assert_eq!(board.health(), (false, "starting".into()));
        assert!(!board.metrics().lines().any(|it| it.starts_with("novella_health{") && it.ends_with(" 1")));
    }
}
