//! `novella apply`, and the walk that `destroy` shares with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

use crate::apply::Options;
use crate::blueprint::facts::Disruption;
use crate::cli::handover::{self, Daemon, Done};
use crate::cli::journal::Journal;
use crate::cli::saved::{self, SavedFile};
use crate::cli::scope::ScopeArguments;
use crate::cli::session::{self, Target};
use crate::cli::telling::Telling;
use crate::cli::{FAILED, Global, INTERRUPTED, Stop, candidates, destroy, interrupt, lock};
use crate::plan::Plan;
use crate::plan::saved::Options as Asked;
use crate::plan::world::Recorded;
use crate::report::BOLD;
use crate::report::plan::Counts;
use crate::store::sled::SledStore;
use crate::store::{Store as _, export, history};
use crate::value::ByteSize;
use crate::{apply, reconcile, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do not ask before acting
    #[arg(long)]
    auto_approve: bool,
    /// Tell what happens as one JSON object a line, as Terraform does; needs `--auto-approve`
    #[arg(long)]
    json: bool,
    /// How many steps run at once, at most
    #[arg(long, value_name = "N", default_value_t = Options::default().parallelism, value_parser = threads())]
    parallelism: usize,
    /// The most that a guest may notice; a plan with more is refused before anything is touched
    #[arg(long, value_name = "WHAT", value_parser = disruption())]
    max_disruption: Option<Disruption>,
    #[command(flatten)]
    patience: session::Patience,
    /// Take this away although it has `prevent_destroy`; can be given more than once
    #[arg(long, value_name = "ADDRESS", add = candidates::addresses())]
    allow_destroy: Vec<String>,
    #[command(flatten)]
    scope: ScopeArguments,
}

/// What `apply` alone can be told.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArguments {
    /// A plan that `plan --out` has saved: exactly that is done, without a question, or nothing where spec, state or host
    /// have moved on
    #[arg(value_name = "FILE", conflicts_with_all = [
        "allow_destroy", "target", "exclude", "locked", "defer_reboots", "replace",
    ])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    common: Arguments,
    /// Refuse images that are neither pinned in the spec nor locked in `images.lock`
    #[arg(long)]
    locked: bool,
    /// Define what takes a reboot, and let the guests go on: `novella reboot --pending` reboots them later
    #[arg(long)]
    defer_reboots: bool,
    /// Give this server a new root disk, from what the spec says now; can be given more than once
    #[arg(long, value_name = "ADDRESS", add = candidates::server_addresses())]
    replace: Vec<String>,
}

/// One of the words for what a guest notices.
pub(super) fn disruption() -> impl TypedValueParser<Value = Disruption> {
    let words = PossibleValuesParser::new(Disruption::ALL.map(Disruption::as_str));
    words.map(|word| Disruption::ALL.into_iter().find(|it| it.as_str() == word).unwrap_or_default())
}

/// Each step that runs has a thread.
pub(super) fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=256)
}

/// What becomes of the lock file of the images.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Locking {
    /// It gains what was fetched for the first time.
    Gain,
    /// It must have all.
    Required,
    /// It is not looked at, and what stays in the cache is told.
    Unused,
}

/// What becomes of a plan when a daemon watches over the state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Watched {
    /// It is handed over.
    HandOver,
    /// It is carried out here, between two passes.
    Between,
    /// It is refused: the daemon would undo it.
    Refuse,
}

/// Which plan is made and what is said of it.
pub(super) struct Errand {
    /// What the lock says we are doing.
    pub operation: &'static str,
    /// What shapes the plan beside the spec.
    pub options: Asked,
    /// What becomes of the lock file of the images.
    pub images: Locking,
    /// What becomes of it when a daemon runs.
    pub watched: Watched,
    /// Asked before acting.
    pub question: &'static str,
    /// Said at the end.
    pub complete: &'static str,
    /// The plan that it must come to, where there is one already.
    pub saved: Option<SavedFile>,
}

impl Arguments {
    /// The same options, with those that were given here.
    fn with(&self, options: Asked) -> Asked {
        Asked {
            target: self.scope.target.clone(),
            exclude: self.scope.exclude.clone(),
            allow_destroy: self.allow_destroy.clone(),
            ..options
        }
    }
}

pub(super) fn run(global: &Global, arguments: &ApplyArguments) -> Result<(), Stop> {
    let ApplyArguments { plan, common, locked, defer_reboots, replace } = arguments;
    match plan {
        Some(file) => carry_out_saved(global, common, file),
        None => {
            let (defer_reboots, locked) = (*defer_reboots, *locked);
            let options = Asked { replace: replace.clone(), defer_reboots, locked, ..Asked::default() };
            carry_out(global, common, errand(options))
        }
    }
}

/// To make the host what the spec says.
fn errand(options: Asked) -> Errand {
    Errand {
        operation: "apply",
        images: if options.locked { Locking::Required } else { Locking::Gain },
        options,
        watched: Watched::HandOver,
        question: "Do you want to perform these actions?\n  Novella will perform the actions described above.",
        complete: "Apply complete!",
        saved: None,
    }
}

/// Does what was planned, with the options of then. Whoever made the plan has approved it.
fn carry_out_saved(global: &Global, arguments: &Arguments, file: &Path) -> Result<(), Stop> {
    let telling = Telling::new(arguments.json, true)?;
    let saved = SavedFile::read(file)?;
    let options = saved.plan.options.clone();
    let errand = if options.destroy { Errand { options, ..destroy::errand() } } else { errand(options) };
    walk(global, arguments, &Errand { saved: Some(saved), ..errand }, &telling)
}

pub(super) fn carry_out(global: &Global, arguments: &Arguments, errand: Errand) -> Result<(), Stop> {
    let telling = Telling::new(arguments.json, arguments.auto_approve)?;
    let options = arguments.with(errand.options);
    walk(global, arguments, &Errand { options, ..errand }, &telling)
}

fn walk(global: &Global, arguments: &Arguments, errand: &Errand, telling: &Telling) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    if let Some(saved) = &errand.saved {
        saved.is_of(&desired.project, &source)?;
    }
    if errand.images == Locking::Required {
        lock::require(&desired, &source)?;
    }
    let daemon = match errand.watched {
        Watched::HandOver => Daemon::find(global, &source)?,
        Watched::Between => None,
        Watched::Refuse => handover::refuse_if_watched(global, &desired.project).map(|()| None)?,
    };
    let store = session::store(global, errand.operation, arguments.patience)?;
    let target = Target::open(global, &desired, telling.sink())?;
    let recorded = store.load()?;
    if let Some(saved) = &errand.saved {
        saved.starts_from(&recorded)?;
    }
    let state = daemon.is_some().then(|| saved::state(&recorded));
    let plan = reconcile::plan_as(&desired, recorded, target.host(), &errand.options);
    let plan = plan.map_err(|error| session::no_plan(&error, &source))?;
    if let Some(saved) = &errand.saved {
        saved.does_what(&plan)?;
    }
    report::diagnostics::print(&plan.warnings, &source);
    telling.plan(&plan, arguments.max_disruption);
    session::refuse_conflicts(&plan)?;
    session::refuse_guarded(&plan)?;
    if let Some(most) = arguments.max_disruption {
        session::refuse_beyond(&plan, most)?;
    }
    let gain = |made: &Recorded| {
        if errand.images == Locking::Gain {
            lock::gain(global, &desired, &source, &target, made);
        }
    };
    let begin = || Journal::begin(store.lock(), errand.operation, Some(&source), report::plan::summary(&plan));
    if plan.changes.is_empty() {
        begin().end(history::Outcome::Complete, Vec::new());
        sweep_trash(&target, telling)?;
        gain(&store.load()?);
        close(&target, &store)?;
        telling.complete(errand.complete, Counts::default(), errand.operation);
        tell_kept(&target, errand, telling);
        return Ok(());
    }
    if !arguments.auto_approve && errand.saved.is_none() && !approved(errand.question) {
        report::note("Cancelled: nothing was done.");
        return Err(Stop(FAILED));
    }
    telling.begin(&plan);
    // Until here nothing was begun, and Ctrl-C ends the program as it does any other.
    if let (Some(daemon), Some(state)) = (daemon, state) {
        let stop = interrupt::listen_and_say("Interrupt again to leave; the daemon finishes them.")?;
        sweep_trash(&target, telling)?;
        let saved = saved::of(&plan, errand.options.clone(), state, (&desired.project, &source));
        let done = daemon.carry_out((&plan, saved), arguments.parallelism, store, &stop, telling)?;
        let concluded = conclude(telling, &plan, &done, errand);
        // What was fetched is in the cache, whoever has fetched it.
        gain(&export::read_only(&session::state_dir(global))?.recorded);
        return concluded;
    }
    let stop = interrupt::listen()?;
    sweep_trash(&target, telling)?;
    let journal = begin();
    let options = Options { parallelism: arguments.parallelism, ..Options::default() };
    let outcome = apply::apply(&plan, target.host(), &store, options, stop.as_ref(), telling.observer());
    let done = Done { outcome, interrupted: stop.load(Ordering::SeqCst), failed: false };
    // What came of it is told first, whatever comes of the rest.
    let concluded = conclude(telling, &plan, &done, errand);
    journal.end_of(&plan, &done.outcome, done.interrupted);
    target.save()?;
    gain(&store.load()?);
    close(&target, &store)?;
    concluded?;
    tell_kept(&target, errand, telling);
    Ok(())
}

/// Tells what the image cache keeps when all else is gone.
fn tell_kept(target: &Target, errand: &Errand, telling: &Telling) {
    let Some(images) = target.images().filter(|_| errand.images == Locking::Unused) else { return };
    // All was done; that this cannot be told is no failure.
    let kept = images.cached().unwrap_or_default();
    if !kept.is_empty() {
        let room = ByteSize(kept.iter().map(|image| image.room).sum());
        telling.remark(&format!(
            "The cache keeps {} ({}); `novella image prune --all` drops what nothing needs.",
            report::count(kept.len(), "image"),
            room.about()
        ));
    }
}

/// Takes out of the trash what has been there for its time.
fn sweep_trash(target: &Target, telling: &Telling) -> Result<(), Stop> {
    let gone = target.sweep_trash()?;
    if !gone.is_empty() {
        let ids: Vec<&str> = gone.iter().map(|entry| entry.id.as_str()).collect();
        telling.remark(&format!("Gone from the trash, for their time is over: {}.", ids.join(", ")));
    }
    Ok(())
}

/// Leaves state and host in order.
pub(super) fn close(target: &Target, store: &SledStore) -> Result<(), Stop> {
    if store.load()?.records.is_empty() {
        target.tidy();
    }
    Ok(store.export()?)
}

/// Asks on the terminal; only `yes` is a yes.
pub(super) fn approved(question: &str) -> bool {
    report::out(format_args!(
        "\n{BOLD}{question}{BOLD:#}\n  Only 'yes' will be accepted to approve.\n\n  {BOLD}Enter a value:{BOLD:#} "
    ));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

fn conclude(telling: &Telling, plan: &Plan, done: &Done, errand: &Errand) -> Result<(), Stop> {
    let Done { outcome, interrupted, failed } = done;
    let counts = report::plan::done(plan, outcome);
    if outcome.is_complete() && !failed {
        telling.complete(errand.complete, counts, errand.operation);
        return Ok(());
    }
    for (step, error) in outcome.failures() {
        report::error::step(&plan.changes[step.change], error);
    }
    telling.incomplete(outcome, counts, *interrupted, errand.operation);
    Err(Stop(if *interrupted { INTERRUPTED } else { FAILED }))
}
