//! The wheel: waits for something to happen, reads the spec, has a pass made, tells how things are.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, ResourceKind};
use crate::desired::Desired;
use crate::diagnostic::Diagnostic;
use crate::report;
use crate::spec::Inputs;
use crate::spec::variables::Given;
use crate::watch::asked::{Asked, Handed, Word};
use crate::watch::backoff::{self, Troubles};
use crate::watch::metrics::{Board, Cause, Counts, PassResult, Steps};
use crate::watch::pending::Pending;
use crate::watch::settle::{Settle, Sign};
use crate::watch::socket::protocol::{Refusal, Told};
use crate::watch::specs::{Good, Read, Specs};
use crate::watch::status::{Failure, InForce, LastPass, Refused, RefusedApproval, Status, Trouble};
use crate::watch::systemd;
use crate::window::{self, Window};

/// How often a pass opens the state though nothing is likely to be done: what is in the trash goes when its time is over.
const WHOLE: Duration = Duration::from_hours(1);

/// How soon it is looked again whether another novella is done.
const BUSY: Duration = Duration::from_secs(1);

/// How long nothing has to happen on the host before it is looked at: what happens comes in bursts.
const QUIET: Duration = Duration::from_millis(200);

/// How many times as long as a look that found nothing to do took, it is waited before there is another for what happened on
/// the host: so one where something happens without end costs a tenth of a processor at most.
const REST: u32 = 9;

/// Something for which the daemon wakes up.
#[derive(Debug)]
pub enum Wake {
    /// Something happened where the spec is.
    Spec(Sign),
    /// Something happened on the host to what may be ours.
    Host,
    /// Somebody has said yes to a plan or asks for a pass, or libvirt is back.
    Now,
    /// Somebody asks for something by the socket.
    Asked(Asked),
    /// It is to end.
    End,
}

/// Time, and what happens in it.
pub trait World {
    /// The clock of the daemon: time since it began, which never goes back.
    fn now(&self) -> Duration;

    /// The time of day, in seconds since 1970 (UTC).
    fn unix(&self) -> u64;

    /// Waits for something to happen, for so long at most.
    fn wait(&mut self, most: Duration) -> Option<Wake>;

    /// Sees to it that what happens in these directories of specs, and to these files, is heard of, also where one was made
    /// anew.
    ///
    /// # Errors
    /// Why it is not, as a phrase. Time goes on all the same.
    fn listen(&mut self, directories: &[PathBuf], files: &[PathBuf]) -> Result<(), String>;

    /// Sees to it that what happens on the host to the project of this spec is heard of, also to what was made meanwhile.
    ///
    /// # Errors
    /// Why it is not, as a phrase. Time goes on all the same.
    fn heed(&mut self, desired: &Desired) -> Result<(), String>;
}

/// What a pass goes by.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The spec in force.
    pub spec: &'a Good,
    /// The resources that have failed and are not tried yet.
    pub held_back: &'a BTreeSet<Address>,
    /// The servers that may be rebooted just now.
    pub reboots_now: BTreeSet<Address>,
    /// Whether nothing is likely to be done, so that others are not kept from the state for a look.
    pub look_first: bool,
    /// The time of day, in seconds since 1970 (UTC).
    pub unix: u64,
}

/// What came of a pass.
#[derive(Debug, Default)]
pub struct Passed {
    /// What was to be done, in a line; none if nothing was.
    pub summary: Option<String>,
    /// How many steps were done.
    pub done: usize,
    /// How many were not.
    pub not_done: usize,
    /// All of them, by kind.
    pub steps: Steps,
    /// The resources of which something was done.
    pub worked_on: BTreeSet<Address>,
    /// What failed: the resource, the object, the reason.
    pub failed: Vec<(Address, String, String)>,
    /// What cannot be made, for something that is not ours is in the way: the resource, the object, what is taken.
    pub conflicts: Vec<(Address, String, String)>,
    /// The plan that waits.
    pub pending: Option<Pending>,
    /// The servers of that which wait for nothing but a window to be rebooted.
    pub wait_for_window: BTreeSet<Address>,
    /// An approval that was refused.
    pub refused: Option<RefusedApproval>,
    /// The servers that wait for a reboot, each with what for.
    pub waiting: BTreeMap<Address, Vec<String>>,
}

/// Why a pass came to nothing.
#[derive(Debug)]
pub enum NoPass {
    /// Another novella works on the state: this one.
    Busy(String),
    /// The host cannot be made what the spec says.
    Spec(Vec<Diagnostic>),
    /// Anything else, as a phrase.
    Failed(String),
}

/// What came of a plan that was handed over.
#[derive(Debug, Default)]
pub struct Carried {
    /// As of a pass.
    pub passed: Passed,
    /// Whether it was ended before its end.
    pub interrupted: bool,
    /// What went wrong beside its steps.
    pub error: Option<Refusal>,
}

impl From<NoPass> for Refusal {
    fn from(no_pass: NoPass) -> Self {
        let why = match no_pass {
            NoPass::Busy(holder) => format!("the state is in use by {holder}"),
            NoPass::Spec(diagnostics) => {
                diagnostics.iter().map(|it| it.message.as_str()).collect::<Vec<_>>().join("; ")
            }
            NoPass::Failed(error) => error,
        };
        Self::new(format!("{why}; nothing was done"))
    }
}

/// Makes passes.
pub trait Pass {
    /// Compares the host with the spec, and does what may be done.
    ///
    /// # Errors
    /// See [`NoPass`]. What was done before it, if anything, is in the history and will be found done.
    fn pass(&mut self, turn: &Turn<'_>) -> Result<Passed, NoPass>;

    /// Carries out a plan that was handed over, as it is. Tells its client what happens to its steps.
    ///
    /// # Errors
    /// When it is not the plan any more, or cannot be begun: nothing was done then.
    fn carry_out(&mut self, turn: &Turn<'_>, handed: &Handed) -> Result<Carried, Refusal>;
}

/// How a daemon was told to go about it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the spec is.
    pub inputs: Inputs,
    /// The directory of what the daemon writes.
    pub dir: PathBuf,
    /// How often it is looked with nothing heard of.
    pub interval: Duration,
    /// How long it has to be quiet before a spec is read.
    pub debounce: Duration,
    /// Where it tells how things are, for whoever asks.
    pub board: Arc<Board>,
    /// When guests may be rebooted, beside what the spec says of each.
    pub maintenance: Vec<Window>,
}

/// A daemon.
pub struct Daemon<'a> {
    config: &'a Config,
    world: &'a mut dyn World,
    passes: &'a mut dyn Pass,
    specs: Specs,
    settle: Settle,
    /// What happens on the host.
    unrest: Settle,
    /// Before this it is not looked for what happened on the host.
    rest: Duration,
    troubles: Troubles,
    /// What was worked on in the last pass: it should be settled now.
    just_done: BTreeSet<Address>,
    /// When the next pass is made at the latest.
    next: Duration,
    /// Before this nothing is tried again: another novella is at work, or the host does not answer.
    not_before: Duration,
    /// When a spec that the host could not be made is tried again.
    retry_spec: Duration,
    /// When the next pass opens the state at the latest.
    next_whole: Duration,
    /// Whether the last pass left nothing to do.
    is_settled: bool,
    status: Status,
    counts: Counts,
}

impl<'a> Daemon<'a> {
    /// One that has done nothing yet.
    pub fn new(config: &'a Config, world: &'a mut dyn World, passes: &'a mut dyn Pass) -> Self {
        let status = Status::new(world.unix());
        Self {
            settle: Settle::new(config.debounce),
            unrest: Settle::new(QUIET),
            rest: Duration::ZERO,
            next: world.now(),
            config,
            world,
            passes,
            specs: Specs::default(),
            troubles: Troubles::default(),
            just_done: BTreeSet::new(),
            not_before: Duration::ZERO,
            retry_spec: Duration::ZERO,
            next_whole: Duration::ZERO,
            is_settled: false,
            status,
            counts: Counts::default(),
        }
    }

    /// Goes on until it is to end. The first pass is made at once, whatever happened while nobody was there.
    pub fn run(mut self) {
        self.listen();
        self.read_spec(false);
        self.config.board.tell(&self.status, &self.counts);
        systemd::tell("READY=1");
        loop {
            // What was said by now is heard before anything is done: what happens before a pass, the pass sees.
            let left = self.next_wake().saturating_sub(self.world.now());
            let most = systemd::watchdog().map_or(left, |watchdog| watchdog.min(left));
            let wake = self.world.wait(most);
            let cause = match &wake {
                Some(Wake::Spec(_)) => Some(Cause::Spec),
                Some(Wake::Host) => Some(Cause::Host),
                Some(Wake::Now | Wake::Asked(_)) => Some(Cause::Request),
                None if left.is_zero() => Some(Cause::Timer),
                Some(Wake::End) | None => None,
            };
            cause.into_iter().for_each(|cause| self.counts.woken(cause));
            match wake {
                Some(Wake::End) => break,
                Some(Wake::Now) => {
                    self.next = self.world.now();
                    self.not_before = self.next;
                }
                Some(Wake::Asked(Asked::Apply(handed))) => self.carry_out(&handed),
                Some(Wake::Asked(Asked::Approve(word))) => self.approve(&word),
                Some(Wake::Host) => self.unrest.note(Sign::Changed, self.world.now()),
                Some(Wake::Spec(sign)) => self.settle.note(sign, self.world.now()),
                None if left.is_zero() => self.turn(),
                None => {}
            }
            systemd::tell("WATCHDOG=1");
        }
        systemd::tell("STOPPING=1");
        self.write_status();
        report::watch::ended();
    }

    /// When there is something to do.
    fn next_wake(&self) -> Duration {
        let pass = self.next_pass();
        self.settle.due().map_or(pass, |due| due.min(pass))
    }

    fn next_pass(&self) -> Duration {
        let heard = self.unrest.due().map(|due| due.max(self.rest));
        iter::once(self.next).chain(self.troubles.next()).chain(heard).min().unwrap_or(self.next).max(self.not_before)
    }

    fn listen(&mut self) {
        let Inputs { directory, overlays, given } = &self.config.inputs;
        let directories: Vec<PathBuf> = iter::once(directory).chain(overlays).cloned().collect();
        let mut files = self.specs.named();
        files.extend(given.iter().filter_map(|it| match it {
            Given::File(path) => Some(path.clone()),
            Given::Argument(_) | Given::Environment { .. } => None,
        }));
        self.status.without_inotify = self.world.listen(&directories, &files).err();
        let good = self.specs.good.as_ref();
        self.status.without_events = good.and_then(|good| self.world.heed(&good.desired).err());
    }

    fn turn(&mut self) {
        self.listen();
        let now = self.world.now();
        let mut is_time = now >= self.next_pass();
        if self.settle.is_due(now) {
            self.settle.rest();
            is_time |= self.read_spec(false);
        } else if self.settle.is_quiet() && self.specs.has_changed(&self.config.inputs) {
            // Nobody told of that: it may be half of something, and is read when it stays as it is.
            self.settle.note(Sign::Changed, now);
        }
        if self.specs.rejected.as_ref().is_some_and(|it| it.by_host) && now >= self.retry_spec {
            is_time |= self.read_spec(false);
        }
        if is_time {
            self.pass();
        }
        self.write_status();
    }

    /// Tells whether there is another spec to go by. One that the host could not be made is tried again when it is time for
    /// that, or at once.
    fn read_spec(&mut self, at_once: bool) -> bool {
        let (now, unix) = (self.world.now(), self.world.unix());
        let read = self.specs.read(&self.config.inputs, at_once || now >= self.retry_spec, unix);
        self.counts.read();
        match read {
            Read::Same => {}
            Read::Other => {
                self.troubles.forget();
                self.just_done.clear();
                self.is_settled = false;
            }
            Read::Bad => self.tell_rejected(),
        }
        self.tell_specs();
        matches!(read, Read::Other)
    }

    fn tell_rejected(&mut self) {
        self.counts.rejected();
        if let Some(rejected) = &self.specs.rejected {
            report::watch::rejected(&rejected.text, self.specs.good.is_some());
        }
    }

    fn tell_specs(&mut self) {
        let rejected = self.specs.rejected.as_ref().map(|it| Refused {
            digest: it.digest.clone(),
            since: it.since,
            problems: it.problems.clone(),
        });
        if self.status.rejected.is_some() && rejected.is_none() {
            report::watch::accepted();
        }
        self.status.rejected = rejected;
        let unix = self.world.unix();
        let digest = self.specs.good.as_ref().map(|good| good.digest.clone());
        if self.status.spec.as_ref().map(|it| &it.digest) != digest.as_ref() {
            self.status.spec = digest.map(|digest| InForce { digest, since: unix });
        }
    }

    fn pass(&mut self) {
        let (begun, unix) = (self.world.now(), self.world.unix());
        self.next = begun + self.config.interval;
        let Some(spec) = self.specs.good.as_ref() else {
            self.not_before = self.next;
            return;
        };
        self.unrest.rest();
        let held_back = self.troubles.held_back(begun);
        let look_first = self.is_settled && begun < self.next_whole;
        let turn = Turn {
            spec,
            held_back: &held_back,
            reboots_now: reboots_now(&spec.desired, &self.config.maintenance, unix),
            look_first,
            unix,
        };
        let span = tracing::error_span!("pass", number = self.status.passes + 1, spec = spec.digest.short());
        let passed = span.in_scope(|| self.passes.pass(&turn));
        self.status.passes += 1;
        self.status.waiting_for = None;
        let took = self.world.now().saturating_sub(begun);
        let result = match &passed {
            Ok(_) => PassResult::Done,
            Err(NoPass::Busy(_)) => PassResult::Busy,
            Err(NoPass::Spec(_)) => PassResult::Rejected,
            Err(NoPass::Failed(_)) => PassResult::Failed,
        };
        self.counts.pass(result, took, self.world.unix());
        match passed {
            Ok(passed) => {
                if !look_first {
                    self.next_whole = begun + WHOLE;
                }
                self.tell_done(&passed, took, unix);
                self.tell_passed(passed, &held_back, took);
            }
            Err(NoPass::Busy(holder)) => {
                self.next = self.world.now() + BUSY;
                self.not_before = self.next;
                self.status.waiting_for = Some(holder);
            }
            Err(NoPass::Spec(diagnostics)) => {
                self.retry_spec = self.next;
                if self.specs.take_back(&diagnostics, unix) {
                    self.tell_rejected();
                }
                if self.specs.good.is_some() {
                    // The one before goes on at once.
                    self.next = self.world.now();
                }
                self.tell_specs();
            }
            Err(NoPass::Failed(error)) => self.fail(error),
        }
    }

    /// A pass that began at the time `unix` has come to its end after so long.
    fn tell_done(&mut self, passed: &Passed, took: Duration, unix: u64) {
        self.specs.proven();
        self.tell_specs();
        (self.status.failure, self.not_before) = (None, Duration::ZERO);
        self.counts.steps(&passed.steps);
        let pass = LastPass {
            at: unix,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            done: passed.done,
            not_done: passed.not_done,
            summary: passed.summary.clone(),
        };
        if pass.summary.is_some() {
            self.status.last_applied = Some(pass.clone());
        }
        self.status.last_pass = Some(pass);
    }

    /// Carries out a plan that a person has seen and said yes to: what else waits for one does not wait in it.
    fn carry_out(&mut self, handed: &Handed) {
        // A save of a moment ago counts.
        self.read_spec(true);
        let told = match self.carried(handed) {
            Ok(Carried { interrupted, error, .. }) => Told::Ended { interrupted, error },
            Err(refusal) => Told::Refused(refusal),
        };
        // It is looked at once whether all is as it should be, and what is left to do.
        self.is_settled = false;
        self.next = self.world.now();
        self.write_status();
        handed.client.tell(told);
    }

    fn carried(&mut self, handed: &Handed) -> Result<Carried, Refusal> {
        let (begun, unix) = (self.world.now(), self.world.unix());
        let good = self.specs.good.as_ref();
        let Some(spec) = good.filter(|good| handed.plan.check_spec(&good.source.digest()).is_ok()) else {
            return Err(Refusal::other_spec(&self.config.inputs.directory));
        };
        handed.client.tell(Told::Taken {});
        let turn = Turn { spec, held_back: &BTreeSet::new(), reboots_now: BTreeSet::new(), look_first: false, unix };
        let span = tracing::error_span!("apply", number = self.status.passes + 1, spec = spec.digest.short());
        let carried = span.in_scope(|| self.passes.carry_out(&turn, handed))?;
        self.status.passes += 1;
        let took = self.world.now().saturating_sub(begun);
        self.counts.pass(PassResult::Done, took, self.world.unix());
        self.tell_done(&carried.passed, took, unix);
        Ok(carried)
    }

    /// Judges a yes to what waits, and lets it go.
    fn approve(&mut self, word: &Word) {
        if !word.client.is_there() {
            return;
        }
        // What waits is what waits now, whatever was saved or has happened a moment ago.
        self.read_spec(true);
        self.pass();
        let told = match self.approved(word) {
            Ok(summary) => Told::Approved { summary },
            Err(refusal) => Told::Refused(refusal),
        };
        self.write_status();
        word.client.tell(told);
    }

    fn approved(&mut self, word: &Word) -> Result<String, Refusal> {
        let cannot = |deed: &str, error: std::io::Error| Refusal::new(format!("cannot {deed}: {error}"));
        let dir = &self.config.dir;
        let pending = Pending::read(dir).map_err(|error| cannot("read the plan that waits", error))?;
        let pending = pending.ok_or_else(|| Refusal::new("nothing waits for approval"))?;
        let approval = pending.approval(&word.digest, word.allow_mass_delete, &word.by, self.world.unix())?;
        approval.write(dir).map_err(|error| cannot("write the approval", error))?;
        self.next = self.world.now();
        self.not_before = self.next;
        Ok(pending.summary)
    }

    /// A whole pass has failed.
    fn fail(&mut self, error: String) {
        let before = self.status.failure.take();
        if before.as_ref().is_none_or(|before| before.error != error) {
            report::watch::failed(&error);
        }
        let failures = before.as_ref().map_or(0, |it| it.failures) + 1;
        let since = before.map_or_else(|| self.world.unix(), |it| it.since);
        self.next = self.world.now() + backoff::wait(failures).min(self.config.interval.max(backoff::FIRST));
        self.not_before = self.next;
        self.is_settled = false;
        self.status.failure = Some(Failure { since, failures, error });
    }

    fn tell_passed(&mut self, passed: Passed, held_back: &BTreeSet<Address>, took: Duration) {
        let (now, unix) = (self.world.now(), self.world.unix());
        let mut failed: BTreeSet<Address> = BTreeSet::new();
        for (address, object, error) in passed.failed {
            if failed.insert(address.clone()) {
                self.troubles.failed(&address, object, error, now, unix);
            }
        }
        // What was done a moment ago and had to be done again does not stay: so it is not done without end.
        for address in passed.worked_on.intersection(&self.just_done) {
            if failed.insert(address.clone()) {
                let error = "it was made what it is to be, and did not stay so".to_owned();
                self.troubles.failed(address, String::new(), error, now, unix);
            }
        }
        // What was done is only well when the next pass finds it so.
        self.troubles.well_but(&failed, &(held_back | &passed.worked_on));
        self.is_settled = passed.worked_on.is_empty() && failed.is_empty() && passed.not_done == 0;
        if !passed.worked_on.is_empty() {
            // It is looked whether it is so now.
            self.next = now;
        }
        if self.is_settled {
            self.rest = now + took * REST;
        }
        self.just_done = passed.worked_on;
        self.tell_troubles(&passed.conflicts);
        if passed.pending.as_ref().map(|it| &it.digest) != self.status.pending.as_ref().map(|it| &it.digest) {
            report::watch::pending(passed.pending.as_ref());
        }
        self.status.pending = passed.pending;
        if let Some(refused) = passed.refused {
            report::watch::refused(&refused);
            self.status.refused_approval = Some(refused);
        }
        self.tell_windows(&passed.wait_for_window);
        let waiting = passed.waiting.into_iter().map(|(address, what)| (address.to_string(), what));
        self.status.waiting_for_reboot = waiting.collect();
    }

    /// Sees to it that what waits for a window is looked at when that opens.
    fn tell_windows(&mut self, waiting: &BTreeSet<Address>) {
        let (now, unix) = (self.world.now(), self.world.unix());
        let servers = self.specs.good.as_ref().map(|good| &good.desired.servers);
        let opens = |address: &Address| {
            let server = servers?.get(&address.name).filter(|_| address.kind == ResourceKind::Server)?;
            next_open(self.config.maintenance.iter().chain(&*server.maintenance), unix)
        };
        self.status.windows = waiting.iter().filter_map(|it| Some((it.to_string(), opens(it)?))).collect();
        if let Some(first) = self.status.windows.values().min() {
            self.next = self.next.min(now + Duration::from_secs(first.saturating_sub(unix)));
        }
    }

    fn tell_troubles(&mut self, conflicts: &[(Address, String, String)]) {
        let before = std::mem::take(&mut self.status.troubles);
        for (address, object, claim) in conflicts {
            let since = before.get(&address.to_string()).map_or_else(|| self.world.unix(), |it| it.since);
            let error = format!("{claim} exists and is not novella's");
            let trouble = Trouble { object: object.clone(), since, failures: 0, error };
            self.status.troubles.insert(address.to_string(), trouble);
        }
        for (address, it) in &self.troubles.by_address {
            let trouble =
                Trouble { object: it.object.clone(), since: it.since, failures: it.failures, error: it.error.clone() };
            self.status.troubles.insert(address.to_string(), trouble);
        }
    }

    fn write_status(&mut self) {
        if let Err(error) = self.status.write(&self.config.dir) {
            tracing::warn!(%error, "cannot write the status");
        }
        self.config.board.tell(&self.status, &self.counts);
        systemd::tell(&format!("STATUS={}", self.status.health.as_str()));
    }
}

/// The servers that may be rebooted at this time, in a window of their own or one that is for `all`.
fn reboots_now(desired: &Desired, all: &[Window], unix: u64) -> BTreeSet<Address> {
    let Some(at) = window::local(unix) else { return BTreeSet::new() };
    let servers = desired.servers.values();
    let may = servers.filter(|it| all.iter().chain(&*it.maintenance).any(|window| window.is_open(&at)));
    may.map(|it| Address::new(ResourceKind::Server, it.name.clone())).collect()
}

/// When the first of these windows opens next, in seconds since 1970 (UTC).
fn next_open<'w>(windows: impl Iterator<Item = &'w Window>, unix: u64) -> Option<u64> {
    let at = window::local(unix)?;
    let opens = windows.filter_map(|window| window.next_open(&at)).min()?;
    u64::try_from(opens.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;
    use std::rc::Rc;

    use jiff::ToSpan as _;
    use tempfile::TempDir;

    use super::*;
    use crate::plan::saved::{Options, Saved, State};
    use crate::spec::load::load_texts;
    use crate::value::Sha256;
    use crate::watch::asked::Client;
    use crate::watch::fake::Fake;

    const SPEC: &str = "novella = 1\n[network.a]\n[subnet.a]\nnetwork = \"a\"\ncidr = \"10.0.0.0/24\"\n";

    /// The passes that were made: when, and what was not to be tried.
    type Seen = Vec<(u64, Vec<String>)>;

    /// Something that happens in the directory of the spec, and when.
    type Event<'a> = (u64, Box<dyn FnMut(&Path) + 'a>);

    /// What comes of a pass.
    type Outcome<'a> = dyn FnMut(&Turn<'_>) -> Result<Passed, NoPass> + 'a;

    /// Passes that come out as a test wants it; each is noted.
    struct Scripted<'a> {
        seen: Rc<RefCell<Seen>>,
        outcome: Box<Outcome<'a>>,
    }

    impl Pass for Scripted<'_> {
        fn pass(&mut self, turn: &Turn<'_>) -> Result<Passed, NoPass> {
            let held_back = turn.held_back.iter().map(ToString::to_string).collect();
            self.seen.borrow_mut().push((turn.unix - 1_000_000_000, held_back));
            (self.outcome)(turn)
        }

        fn carry_out(&mut self, turn: &Turn<'_>, handed: &Handed) -> Result<Carried, Refusal> {
            self.seen.borrow_mut().push((turn.unix - 1_000_000_000, vec![format!("handed over by {}", handed.by)]));
            let passed = (self.outcome)(turn).map_err(Refusal::from)?;
            Ok(Carried { passed, ..Carried::default() })
        }
    }

    /// Lets a daemon run for so many seconds, with an interval of a minute, and gives its passes and its last word.
    fn live<'a>(
        seconds: u64,
        events: Vec<Event<'a>>,
        outcome: impl FnMut(&Turn<'_>) -> Result<Passed, NoPass> + 'a,
    ) -> (Seen, Status) {
        let changed = |event| (event, Wake::Spec(Sign::Changed));
        live_so(SPEC, |_| {}, seconds, events.into_iter().map(changed).collect(), outcome)
    }

    /// The same with another spec, told in another way to go about it, and where it hears something else.
    fn live_so<'a>(
        spec: &str,
        told: impl FnOnce(&mut Config),
        seconds: u64,
        events: Vec<(Event<'a>, Wake)>,
        outcome: impl FnMut(&Turn<'_>) -> Result<Passed, NoPass> + 'a,
    ) -> (Seen, Status) {
        let place: TempDir = tempfile::tempdir().expect("a directory");
        let (specs, dir) = (place.path().join("specs"), place.path().join("watch"));
        std::fs::create_dir(&specs).expect("a directory");
        std::fs::create_dir(&dir).expect("a directory");
        std::fs::write(specs.join("spec.toml"), spec).expect("a spec");
        let mut config = Config {
            inputs: Inputs { directory: specs.clone(), ..Inputs::default() },
            dir: dir.clone(),
            interval: Duration::from_mins(1),
            debounce: Duration::from_millis(300),
            board: Arc::default(),
            maintenance: Vec::new(),
        };
        told(&mut config);
        let events = events.into_iter().map(|((at, mut happen), heard)| {
            let specs = specs.clone();
            let happen: Box<dyn FnMut()> = Box::new(move || happen(&specs));
            (Duration::from_secs(at), happen, Some(heard))
        });
        let end = Duration::from_secs(seconds);
        let mut world = Fake { now: Duration::ZERO, end, events: events.collect() };
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut passes = Scripted { seen: Rc::clone(&seen), outcome: Box::new(outcome) };
        Daemon::new(&config, &mut world, &mut passes).run();
        let status = Status::read(&dir).expect("a status").expect("a status");
        (seen.take(), status)
    }

    fn write(text: &'static str) -> Box<dyn FnMut(&Path)> {
        Box::new(move |specs| std::fs::write(specs.join("spec.toml"), text).expect("saved"))
    }

    fn web() -> Address {
        "server.web".parse().expect("an address")
    }

    fn fails() -> Passed {
        Passed { not_done: 1, failed: vec![(web(), "domain web".into(), "no".into())], ..Passed::default() }
    }

    fn times(seen: &Seen) -> Vec<u64> {
        seen.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn it_looks_each_minute() {
        let (seen, status) = live(200, vec![], |_| Ok(Passed::default()));
        assert_eq!(times(&seen), [0, 60, 120, 180]);
        assert_eq!((status.passes, status.judge()), (4, crate::watch::status::Health::Healthy));
    }

    #[test]
    fn what_fails_is_tried_again_later_and_later_and_at_once_with_another_spec() {
        let other = SPEC.replace("10.0.0.0", "10.1.0.0");
        let (seen, status) = live(
            100,
            vec![(40, Box::new(move |specs: &Path| std::fs::write(specs.join("spec.toml"), &other).expect("saved")))],
            |turn| Ok(if turn.held_back.contains(&web()) { Passed::default() } else { fails() }),
        );
        let tried: Vec<u64> = seen.iter().filter(|(_, held)| held.is_empty()).map(|(at, _)| *at).collect();
        assert_eq!(tried, [0, 1, 3, 7, 15, 31, 40, 41, 43, 47, 55, 71]);
        assert_eq!(status.troubles["server.web"].failures, 6);
        assert_eq!(status.troubles["server.web"].since, 1_000_000_040);
    }

    #[test]
    fn a_reboot_waits_until_the_window_of_its_server_opens() {
        // Windows by the minute after the beginning, each two minutes long.
        let window = |minute: i64| {
            let at = |minute: i64| {
                let begun = window::local(1_000_000_000).expect("a time");
                begun.checked_add(minute.minutes()).expect("a time").strftime("%H:%M").to_string()
            };
            format!("{}-{}", at(minute), at(minute + 2))
        };
        let opens = |minute: u64| minute * 60 - 40;
        let server = |name: &str, maintenance: &str| {
            format!("[server.{name}]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"a\"]\n{maintenance}\n")
        };
        let spec = [
            SPEC,
            "[image.i]\nsource = \"/i.raw\"\nformat = \"raw\"\n[flavor.f]\nram = \"128 MiB\"\ndisk = \"1 GiB\"\n",
            &format!("[host.local]\nmaintenance = \"{}\"\n", window(10)),
            &server("as-the-host", ""),
            &server("own", &format!("maintenance = [\"{}\", \"{}\"]", window(25), window(20))),
            &server("never", "maintenance = []"),
        ]
        .concat();
        // What needs a reboot, until it was rebooted: when that was.
        let rebooted = RefCell::new(BTreeMap::new());
        let pass = |turn: &Turn<'_>| {
            for address in &turn.reboots_now {
                rebooted.borrow_mut().entry(address.to_string()).or_insert(turn.unix - 1_000_000_000);
            }
            let waits = turn.spec.desired.servers.keys().map(|name| Address::new(ResourceKind::Server, name.clone()));
            let wait_for_window = waits.filter(|it| !rebooted.borrow().contains_key(&it.to_string())).collect();
            Ok(Passed { wait_for_window, ..Passed::default() })
        };
        let told = |config: &mut Config| config.interval = Duration::from_hours(1);
        let (seen, status) = live_so(&spec, told, opens(10), vec![], pass);
        assert_eq!(times(&seen), [0]);
        let windows = [("as-the-host", 10), ("own", 20)];
        let windows = windows.map(|(name, minute)| (format!("server.{name}"), 1_000_000_000 + opens(minute)));
        assert_eq!(status.windows, windows.into_iter().collect());

        let (seen, status) = live_so(&spec, told, 3000, vec![], pass);
        assert_eq!(times(&seen), [0, opens(10), opens(20)], "each is looked at when it may go, and not before");
        assert_eq!(status.windows, BTreeMap::new());
        let own = [("server.as-the-host".to_owned(), opens(10)), ("server.own".to_owned(), opens(20))];
        assert_eq!(rebooted.take(), own.into_iter().collect());

        // A window that is for all is one for those too that have others, or none.
        let told = |config: &mut Config| config.maintenance = vec![window(5).parse().expect("a window")];
        live_so(&spec, told, 400, vec![], pass);
        let all = ["as-the-host", "own", "never"].map(|name| (format!("server.{name}"), opens(5)));
        assert_eq!(rebooted.take(), all.into_iter().collect());
    }

    #[test]
    fn a_trouble_that_is_over_is_told_no_more() {
        let mut left = 3;
        let (_, status) = live(60, vec![], move |turn| {
            left -= i32::from(turn.held_back.is_empty());
            Ok(if left >= 0 && turn.held_back.is_empty() { fails() } else { Passed::default() })
        });
        assert!(status.troubles.is_empty(), "{status:#?}");
    }

    #[test]
    fn what_does_not_stay_is_not_made_without_end() {
        let (seen, status) = live(600, vec![], |turn| {
            let worked_on = [web()].into_iter().filter(|it| !turn.held_back.contains(it)).collect();
            Ok(Passed { done: 1, worked_on, ..Passed::default() })
        });
        assert!(seen.len() < 50, "{} passes", seen.len());
        assert!(status.troubles["server.web"].error.contains("did not stay so"));
    }

    #[test]
    fn who_waits_for_another_or_for_the_host_waits_in_peace() {
        let mut number = 0;
        let (seen, status) = live(10, vec![], |_| {
            number += 1;
            if number < 5 { Err(NoPass::Busy("`novella apply`".into())) } else { Ok(Passed::default()) }
        });
        assert_eq!(times(&seen), [0, 1, 2, 3, 4]);
        assert_eq!(status.waiting_for, None);

        let (seen, status) = live(200, vec![], |_| Err(NoPass::Failed("libvirt does not answer".into())));
        assert_eq!(times(&seen), [0, 1, 3, 7, 15, 31, 63, 123, 183]);
        let failure = status.failure.expect("it is told");
        assert_eq!((failure.failures, failure.since), (9, 1_000_000_000));
    }

    #[test]
    fn a_trouble_does_not_make_it_turn_while_another_is_at_work() {
        let mut number = 0;
        let (seen, _) = live(20, vec![], |_| {
            number += 1;
            if number == 1 { Ok(fails()) } else { Err(NoPass::Busy("`novella apply`".into())) }
        });
        assert!(seen.len() <= 21, "{} passes", seen.len());
    }

    #[test]
    fn with_a_trouble_and_without_a_spec_it_waits_in_peace() {
        let (seen, status) = live(200, vec![], |turn| match turn.unix - 1_000_000_000 {
            0 => Ok(fails()),
            _ => Err(NoPass::Spec(vec![Diagnostic::error("the host is on this network")])),
        });
        assert!(seen.len() < 8, "{} passes", seen.len());
        assert!(status.spec.is_none() && status.rejected.is_some());
    }

    #[test]
    fn a_broken_spec_makes_no_pass_and_the_way_back_none_either() {
        let (seen, status) = live(59, vec![(10, write("[")), (20, write(SPEC))], |_| Ok(Passed::default()));
        assert_eq!(times(&seen), [0]);
        assert_eq!(status.rejected, None);
        let (seen, status) = live(100, vec![(10, write("["))], |_| Ok(Passed::default()));
        assert_eq!(times(&seen), [0, 60], "the host is looked after by the last good one");
        assert_eq!(status.rejected.expect("it is told").since, 1_000_000_010);
    }

    #[test]
    fn what_the_host_cannot_be_made_is_tried_again_each_minute_and_the_one_before_holds() {
        let other = SPEC.replace("10.0.0.0", "10.1.0.0");
        let good = std::cell::Cell::new(0);
        let (seen, status) = live(
            200,
            vec![(10, Box::new(move |specs: &Path| std::fs::write(specs.join("spec.toml"), &other).expect("saved")))],
            |turn| match turn.spec.source.files[0].text.contains("10.1.0.0") && turn.unix < 1_000_000_120 {
                true => Err(NoPass::Spec(vec![Diagnostic::error("no")])),
                false => {
                    good.set(good.get() + 1);
                    Ok(Passed::default())
                }
            },
        );
        assert!(seen.len() < 12, "{} passes", seen.len());
        assert!(good.get() >= 4);
        assert_eq!(status.rejected, None, "in the end it could be made");
    }

    /// A plan of this spec that somebody hands over.
    fn handed(text: &str) -> (Handed, std::sync::mpsc::Receiver<Told>) {
        let (client, told) = Client::new();
        let plan = Saved {
            novella_plan: 1,
            novella_version: env!("CARGO_PKG_VERSION").into(),
            timestamp: String::new(),
            project: "default".parse().expect("a name"),
            options: Options::default(),
            spec: load_texts([("spec.toml", text)]).source.digest(),
            state: State { serial: 0, sha256: Sha256::of(b"") },
            assumptions: Vec::new(),
            changes: BTreeMap::new(),
            text: String::new(),
        };
        (Handed { plan, parallelism: 1, by: "lea".into(), client }, told)
    }

    #[test]
    fn a_plan_of_what_was_saved_a_moment_ago_is_carried_out_at_once_and_looked_at() {
        let other = SPEC.replace("10.0.0.0", "10.1.0.0");
        let (plan, told) = handed(&other);
        let save = Box::new(move |specs: &Path| std::fs::write(specs.join("spec.toml"), &other).expect("saved"));
        let (seen, status) = live_so(
            SPEC,
            |_| {},
            59,
            vec![((10, save), Wake::Asked(Asked::Apply(plan.into())))],
            |_| Ok(Passed::default()),
        );
        assert_eq!(seen, [(0, vec![]), (10, vec!["handed over by lea".to_owned()]), (10, vec![])]);
        assert!(matches!(
            told.iter().collect::<Vec<_>>()[..],
            [Told::Taken {}, Told::Ended { interrupted: false, error: None }]
        ));
        assert_eq!(status.passes, 3);
    }

    #[test]
    fn a_plan_of_another_spec_is_not_carried_out() {
        let (plan, told) = handed(&SPEC.replace("10.0.0.0", "10.1.0.0"));
        let (seen, status) = live_so(
            SPEC,
            |_| {},
            59,
            vec![((10, Box::new(|_| {})), Wake::Asked(Asked::Apply(plan.into())))],
            |_| Ok(Passed::default()),
        );
        assert_eq!(seen, [(0, vec![]), (10, vec![])], "it only looks");
        let told: Vec<Told> = told.iter().collect();
        assert!(matches!(&told[..], [Told::Refused(it)] if it.code.as_deref() == Some("other-spec")), "{told:?}");
        assert_eq!(status.rejected, None);
    }

    #[test]
    fn a_plan_that_cannot_be_begun_leaves_all_as_it_was() {
        let (plan, told) = handed(SPEC);
        let first = std::cell::Cell::new(true);
        let (seen, status) = live_so(
            SPEC,
            |_| {},
            59,
            vec![((10, Box::new(|_| {})), Wake::Asked(Asked::Apply(plan.into())))],
            |turn| match turn.unix == 1_000_000_010 && first.take() {
                true => Err(NoPass::Busy("lea".into())),
                false => Ok(Passed::default()),
            },
        );
        assert_eq!(seen.len(), 3);
        let told: Vec<Told> = told.iter().collect();
        assert!(
            matches!(&told[..], [Told::Taken {}, Told::Refused(it)] if it.summary.contains("in use by lea")),
            "{told:?}"
        );
        assert_eq!((status.failure, status.waiting_for), (None, None));
    }

    #[test]
    fn where_nothing_waits_a_yes_is_refused_and_of_who_has_left_it_is_not_heard() {
        let word = |is_there: bool| {
            let (client, told) = Client::new();
            client.signs.gone.store(!is_there, std::sync::atomic::Ordering::SeqCst);
            (Word { digest: "0123456789".into(), allow_mass_delete: false, by: "lea".into(), client }, told)
        };
        let ((there, told), (left, untold)) = (word(true), word(false));
        let nothing = || Box::new(|_: &Path| {});
        let events = vec![
            ((10, nothing() as Box<dyn FnMut(&Path)>), Wake::Asked(Asked::Approve(there))),
            ((20, nothing()), Wake::Asked(Asked::Approve(left))),
        ];
        let (seen, _) = live_so(SPEC, |_| {}, 59, events, |_| Ok(Passed::default()));
        assert_eq!(times(&seen), [0, 10], "it looks before it judges");
        let told: Vec<Told> = told.iter().collect();
        assert!(matches!(&told[..], [Told::Refused(it)] if it.summary == "nothing waits for approval"), "{told:?}");
        assert_eq!(untold.iter().count(), 0);
    }
}
