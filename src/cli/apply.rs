//! `novella apply`, and the walk that `destroy` shares with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

use crate::apply::{Options, Outcome};
use crate::blueprint::facts::Disruption;
use crate::cli::journal::Journal;
use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, INTERRUPTED, Stop, interrupt, lock};
use crate::desired::Desired;
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::world::Recorded;
use crate::reconcile::{self, PlanError};
use crate::report::progress::Progress;
use crate::report::{ADD, BOLD, REMOVE};
use crate::store::sled::SledStore;
use crate::store::{Store as _, history};
use crate::value::ByteSize;
use crate::{apply, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Do not ask before acting
    #[arg(long)]
    auto_approve: bool,
    /// How many steps run at once, at most
    #[arg(long, value_name = "N", default_value_t = Options::default().parallelism, value_parser = threads())]
    parallelism: usize,
    /// The most that a guest may notice; a plan with more is refused before anything is touched
    #[arg(long, value_name = "WHAT", value_parser = disruption())]
    max_disruption: Option<Disruption>,
    #[command(flatten)]
    patience: session::Patience,
}

/// What `apply` alone can be told.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    common: Arguments,
    /// Refuse images that are neither pinned in the spec nor locked in `images.lock`
    #[arg(long)]
    locked: bool,
    /// Define what takes a reboot, and let the guests go on: `novella reboot --pending` reboots them later
    #[arg(long)]
    defer_reboots: bool,
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

/// Which plan is made and what is said of it.
pub(super) struct Errand {
    /// What the lock says we are doing.
    pub operation: &'static str,
    /// Makes the plan.
    pub plan: fn(&Desired, Recorded, &dyn Host) -> Result<Plan, PlanError>,
    /// Whether what takes a reboot waits until it is asked for.
    pub defer_reboots: bool,
    /// What becomes of the lock file of the images.
    pub images: Locking,
    /// Asked before acting.
    pub question: &'static str,
    /// Said at the end.
    pub complete: &'static str,
}

pub(super) fn run(global: &Global, arguments: &ApplyArguments) -> Result<(), Stop> {
    let errand = Errand {
        operation: "apply",
        plan: reconcile::plan,
        defer_reboots: arguments.defer_reboots,
        images: if arguments.locked { Locking::Required } else { Locking::Gain },
        question: "Do you want to perform these actions?\n  Novella will perform the actions described above.",
        complete: "Apply complete!",
    };
    carry_out(global, &arguments.common, &errand)
}

pub(super) fn carry_out(global: &Global, arguments: &Arguments, errand: &Errand) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    if errand.images == Locking::Required {
        lock::require(&desired, &source)?;
    }
    let store = session::store(global, errand.operation, arguments.patience)?;
    let progress = Arc::new(Progress::default());
    let target = Target::open(global, &desired, progress.sink())?;
    let plan =
        (errand.plan)(&desired, store.load()?, target.host()).map_err(|error| session::no_plan(&error, &source))?;
    let plan = if errand.defer_reboots { plan.defer_reboots() } else { plan };
    report::diagnostics::print(&plan.warnings, &source);
    report::out(report::plan::render_within(&plan, arguments.max_disruption));
    session::refuse_conflicts(&plan)?;
    if let Some(most) = arguments.max_disruption {
        session::refuse_beyond(&plan, most)?;
    }
    let end = |target: &Target| -> Result<(), Stop> {
        if errand.images == Locking::Gain {
            lock::gain(global, &desired, &source, target, &store.load()?);
        }
        close(target, &store)
    };
    let begin = || Journal::begin(store.lock(), errand.operation, Some(&source), report::plan::summary(&plan));
    if plan.changes.is_empty() {
        begin().end(history::Outcome::Complete, Vec::new());
        sweep_trash(&target)?;
        end(&target)?;
        report::line(format_args!(
            "\n{ADD}{BOLD}{} Resources: 0 added, 0 changed, 0 destroyed.{BOLD:#}{ADD:#}",
            errand.complete
        ));
        tell_kept(&target, errand);
        return Ok(());
    }
    if !arguments.auto_approve && !approved(errand.question) {
        report::note("Cancelled: nothing was done.");
        return Err(Stop(FAILED));
    }
    report::line("");
    // Until here nothing was begun, and Ctrl-C ends the program as it does any other.
    let stop = interrupt::listen()?;
    sweep_trash(&target)?;
    let journal = begin();
    let options = Options { parallelism: arguments.parallelism, ..Options::default() };
    let outcome = apply::apply(&plan, target.host(), &store, options, &stop, progress.as_ref());
    // What came of it is told first, whatever comes of the rest.
    let interrupted = stop.load(Ordering::SeqCst);
    let concluded = conclude(&plan, &outcome, errand, interrupted);
    journal.end_of(&plan, &outcome, interrupted);
    target.save()?;
    end(&target)?;
    concluded?;
    tell_kept(&target, errand);
    Ok(())
}

/// Tells what the image cache keeps when all else is gone.
fn tell_kept(target: &Target, errand: &Errand) {
    let Some(images) = target.images().filter(|_| errand.images == Locking::Unused) else { return };
    // All was done; that this cannot be told is no failure.
    let kept = images.cached().unwrap_or_default();
    if !kept.is_empty() {
        let room = ByteSize(kept.iter().map(|image| image.room).sum());
        report::line(format_args!(
            "The cache keeps {} ({}); `novella image prune --all` drops what nothing needs.",
            report::count(kept.len(), "image"),
            room.about()
        ));
    }
}

/// Takes out of the trash what has been there for its time. It is the first thing to be done: base images that were kept for
/// it may go then.
fn sweep_trash(target: &Target) -> Result<(), Stop> {
    let gone = target.sweep_trash()?;
    if !gone.is_empty() {
        let ids: Vec<&str> = gone.iter().map(|entry| entry.id.as_str()).collect();
        report::line(format_args!("Gone from the trash, for their time is over: {}.", ids.join(", ")));
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

fn conclude(plan: &Plan, outcome: &Outcome, errand: &Errand, interrupted: bool) -> Result<(), Stop> {
    let report::plan::Counts { add, change, destroy } = report::plan::done(plan, outcome);
    let counts = format!("Resources: {add} added, {change} changed, {destroy} destroyed.");
    if outcome.is_complete() {
        report::line(format_args!("\n{ADD}{BOLD}{} {counts}{BOLD:#}{ADD:#}", errand.complete));
        return Ok(());
    }
    for (step, error) in outcome.failures() {
        let change = &plan.changes[step.change];
        let help = match error {
            apply::StepError::Host(error) => error.help.as_deref(),
            apply::StepError::Store(error) => error.help.as_deref(),
        };
        report::note("");
        report::note(format_args!("{BOLD}{}{BOLD:#} ({})", change.address, change.key));
        let code = if let apply::StepError::Host(error) = error { error.code } else { None };
        report::error::print_named(error, code, help);
    }
    let left = outcome.steps.iter().filter(|(_, fate)| !matches!(fate, apply::Fate::Done)).count();
    report::note(format_args!(
        "\n{REMOVE}{BOLD}{}{BOLD:#}{REMOVE:#} {counts} {left} of {} steps are left; the next run goes on from here.",
        if interrupted { "Interrupted." } else { "Not complete." },
        outcome.steps.len(),
    ));
    Err(Stop(if interrupted { INTERRUPTED } else { FAILED }))
}
