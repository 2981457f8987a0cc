//! A plan that is handed over to the daemon: what it tells is told as if it was done here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::address::Name;
use crate::apply::{Event, Fate, Outcome};
use crate::blueprint::key::ObjectKey;
use crate::cli::session;
use crate::cli::telling::Telling;
use crate::cli::{FAILED, Global, Stop};
use crate::plan::saved::Saved;
use crate::plan::{Deed, Plan, Step};
use crate::report;
use crate::spec::Source;
use crate::store::lock::StateLock;
use crate::store::sled::SledStore;
use crate::watch;
use crate::watch::socket::client::{self, Conversation};
use crate::watch::socket::protocol::{Ask, Happened, Refusal, Told};

/// How soon it is seen that somebody wants an end.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a process that ends may have its lock when its connections are closed.
const TO_DIE: Duration = Duration::from_secs(2);

/// Said to who wants an end.
const GOES_ON: &str = "note: the daemon goes on by itself with what needs no approval, for its spec says so";

/// Who has called sudo, for the daemon to write down.
pub(super) fn caller() -> Option<String> {
    std::env::var("SUDO_USER").ok()
}

/// Says why something is not done.
pub(super) fn refused(refusal: &Refusal) -> Stop {
    report::error::say(&refusal.located());
    Stop(FAILED)
}

/// Refuses to take away what the daemon would make again.
pub(super) fn refuse_if_watched(global: &Global, project: &Name) -> Result<(), Stop> {
    let state = session::state_dir(global);
    let Some(holder) = StateLock::holder(&watch::directory(&state)) else { return Ok(()) };
    let summary =
        format!("`{project}` is watched over by {holder}, which would make all of it again; nothing was done");
    let help = "end the daemon first: `systemctl stop novella`; or take out of its spec what is to go";
    Err(refused(&Refusal::new(summary).help(help)))
}

/// The daemon that has the state.
pub(super) struct Daemon {
    state: PathBuf,
}

/// How far the daemon has come, as it tells.
struct Walk<'a> {
    plan: &'a Plan,
    telling: &'a Telling,
    /// The numbers of the steps.
    numbers: HashMap<(&'a ObjectKey, &'static str), usize>,
    outcome: Outcome,
}

/// What came of a plan that was handed over.
pub(super) struct Done {
    /// What came of its steps.
    pub outcome: Outcome,
    /// Whether it was ended before its end.
    pub interrupted: bool,
    /// What else went wrong; it has been said.
    pub failed: bool,
}

impl Daemon {
    /// The one that watches over the state, if there is one and it listens. What it would undo is refused: a plan of another
    /// spec than its own.
    pub(super) fn find(global: &Global, source: &Source) -> Result<Option<Self>, Stop> {
        let state = session::state_dir(global);
        if StateLock::holder(&watch::directory(&state)).is_none() {
            return Ok(None);
        }
        let its = match client::spec(&state) {
            Ok(its) => its,
            Err(error) => {
                let error = error.to_string();
                report::note(format_args!(
                    "note: the daemon cannot be asked ({}), so this is done without it; what its spec does not say it will undo",
                    report::clean_line(&error)
                ));
                return Ok(None);
            }
        };
        if its.novella != env!("CARGO_PKG_VERSION") {
            let (its, ours) = (report::clean_line(&its.novella).into_owned(), env!("CARGO_PKG_VERSION"));
            let refusal = Refusal::new(format!("the daemon is novella {its}, and this is {ours}; nothing was done"));
            return Err(refused(&refusal.help("start it again as this one: `systemctl restart novella`")));
        }
        if its.digest != source.digest() {
            return Err(refused(&Refusal::other_spec(Path::new(&its.directory))));
        }
        Ok(Some(Self { state }))
    }

    /// Hands a plan over, and tells how it goes. The state is given away when the daemon takes the plan.
    pub(super) fn carry_out(
        &self,
        (plan, saved): (&Plan, Saved),
        parallelism: usize,
        store: SledStore,
        stop: &AtomicBool,
        telling: &Telling,
    ) -> Result<Done, Stop> {
        let ask = Ask::Apply { plan: Box::new(saved), parallelism, by: caller() };
        let mut conversation = Conversation::begin(&self.state, ask).map_err(|error| self.broken(&error))?;
        let mut store = Some(store);
        let mut is_told = false;
        let mut walk = Walk::new(plan, telling);
        let sink = telling.sink();
        loop {
            if stop.load(Ordering::SeqCst) && !is_told {
                // Where it cannot be told, it will not tell either.
                let _ = conversation.stop();
                is_told = true;
            }
            match conversation.next(GLANCE) {
                Ok(None) => {}
                Ok(Some(Told::Taken {})) => drop(store.take()),
                Ok(Some(Told::Step { object, deed, happened, .. })) => walk.step(&object, deed, happened),
                Ok(Some(Told::Bytes { object, done, total })) => sink(&object, done, total),
                Ok(Some(Told::Ended { interrupted, error })) => {
                    if interrupted {
                        report::note(if is_told { GOES_ON } else { "note: the daemon was told to end" });
                    }
                    let stop = error.map(|error| refused(&error));
                    return Ok(Done { outcome: walk.outcome, interrupted, failed: stop.is_some() });
                }
                Ok(Some(Told::Refused(refusal))) => return Err(refused(&refusal)),
                Ok(Some(told)) => {
                    let Told::Error(why) = told else { continue };
                    return Err(refused(&Refusal::new(format!("the daemon does not take the plan: {why}"))));
                }
                Err(error) => {
                    let stop = self.broken(&error);
                    // What was taken may have been begun.
                    return match store {
                        Some(_) => Err(stop),
                        None => Ok(Done { outcome: walk.outcome, interrupted: false, failed: true }),
                    };
                }
            }
        }
    }

    /// Says that the daemon tells nothing more.
    fn broken(&self, error: &std::io::Error) -> Stop {
        // One that is killed loses its connections a moment before its lock.
        let dir = watch::directory(&self.state);
        let deadline = Instant::now() + TO_DIE;
        while StateLock::holder(&dir).is_some() && Instant::now() < deadline {
            std::thread::sleep(GLANCE);
        }
        let refusal = match StateLock::holder(&dir).is_some() {
            true => Refusal::new(format!("the daemon tells nothing more, and goes on: {error}"))
                .help("`novella status` shows what it does"),
            false => Refusal::new("the daemon has ended in the midst of it")
                .help("the next one goes on from here, and so does `novella apply` without one"),
        };
        refused(&refusal)
    }
}

impl<'a> Walk<'a> {
    fn new(plan: &'a Plan, telling: &'a Telling) -> Self {
        let steps: Vec<Step> = plan.steps.node_weights().copied().collect();
        let key = |step: &Step| (&plan.changes[step.change].key, step.deed.as_str());
        let numbers = steps.iter().enumerate().map(|(number, step)| (key(step), number)).collect();
        let outcome = Outcome { steps: steps.into_iter().map(|step| (step, Fate::NotStarted)).collect() };
        Self { plan, telling, numbers, outcome }
    }

    fn step(&mut self, object: &ObjectKey, deed: Deed, happened: Happened) {
        // It is the same plan, or it would have been refused.
        let number = self.numbers.get(&(object, deed.as_str()));
        let Some((step, fate)) = number.and_then(|number| self.outcome.steps.get_mut(*number)) else { return };
        let change = &self.plan.changes[step.change];
        let tell = |event| self.telling.observer().event(change, deed, event);
        match happened {
            Happened::Started => tell(Event::Started),
            Happened::Retrying { error, wait_ms } => {
                tell(Event::Retrying { error: &error.into(), wait: Duration::from_millis(wait_ms) });
            }
            Happened::Done { elapsed_ms } => {
                tell(Event::Done { elapsed: Duration::from_millis(elapsed_ms) });
                *fate = Fate::Done;
            }
            Happened::Failed { error, elapsed_ms } => {
                let error = error.into();
                tell(Event::Failed { error: &error, elapsed: Duration::from_millis(elapsed_ms) });
                *fate = Fate::Failed(error);
            }
            Happened::Skipped => {
                tell(Event::Skipped);
                *fate = Fate::Skipped;
            }
        }
    }
}
