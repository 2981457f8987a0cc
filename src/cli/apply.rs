//! `novella apply`, and the walk that `destroy` shares with it.

use std::sync::atomic::Ordering;

use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

use crate::apply::{Options, Outcome};
use crate::blueprint::facts::Disruption;
use crate::cli::scope::{self, ScopeArguments};
use crate::cli::session::{self, Target};
use crate::cli::telling::Telling;
use crate::cli::{FAILED, Global, INTERRUPTED, Stop, interrupt};
use crate::desired::Desired;
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::world::Recorded;
use crate::reconcile::{self, PlanError};
use crate::report::BOLD;
use crate::report::plan::Counts;
use crate::store::Store as _;
use crate::store::sled::SledStore;
use crate::{apply, report};

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
    scope: ScopeArguments,
}

/// What `apply` alone can be told.
#[derive(Debug, clap::Args)]
pub(super) struct ApplyArguments {
    #[command(flatten)]
    common: Arguments,
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
fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=256)
}

/// Which plan is made and what is said of it.
pub(super) struct Errand {
    /// What the lock says we are doing.
    pub operation: &'static str,
    /// Makes the plan.
    pub plan: fn(&Desired, Recorded, &dyn Host) -> Result<Plan, PlanError>,
    /// Whether what takes a reboot waits until it is asked for.
    pub defer_reboots: bool,
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
        question: "Do you want to perform these actions?\n  Novella will perform the actions described above.",
        complete: "Apply complete!",
    };
    carry_out(global, &arguments.common, &errand)
}

pub(super) fn carry_out(global: &Global, arguments: &Arguments, errand: &Errand) -> Result<(), Stop> {
    let telling = Telling::new(arguments.json, arguments.auto_approve)?;
    let (desired, source) = session::spec(global)?;
    let store = SledStore::open(&session::state_dir(global), errand.operation)?;
    let target = Target::open(global, &desired, telling.sink())?;
    let recorded = store.load()?;
    let scope = arguments.scope.resolve(&desired, &recorded, &source)?;
    let plan = (errand.plan)(&desired, recorded, target.host());
    let plan = plan.map_err(|error| session::no_plan(&error, &source))?;
    let plan = scope::confine(plan, scope.as_ref(), &source)?;
    let plan = if errand.defer_reboots { plan.defer_reboots() } else { plan };
    report::diagnostics::print(&plan.warnings, &source);
    telling.plan(&plan, arguments.max_disruption);
    session::refuse_conflicts(&plan)?;
    if let Some(most) = arguments.max_disruption {
        session::refuse_beyond(&plan, most)?;
    }
    if plan.changes.is_empty() {
        close(&target, &store)?;
        telling.complete(errand.complete, Counts::default(), errand.operation);
        return Ok(());
    }
    if !arguments.auto_approve && !approved(errand.question) {
        report::note("Cancelled: nothing was done.");
        return Err(Stop(FAILED));
    }
    telling.begin(&plan);
    // Until here nothing was begun, and Ctrl-C ends the program as it does any other.
    let stop = interrupt::listen()?;
    let options = Options { parallelism: arguments.parallelism, ..Options::default() };
    let outcome = apply::apply(&plan, target.host(), &store, options, &stop, telling.observer());
    // What came of it is told first, whatever comes of the rest.
    let concluded = conclude(&telling, &plan, &outcome, errand, stop.load(Ordering::SeqCst));
    target.save()?;
    close(&target, &store)?;
    concluded
}

/// Leaves state and host in order.
fn close(target: &Target, store: &SledStore) -> Result<(), Stop> {
    if store.load()?.records.is_empty() {
        target.tidy();
    }
    Ok(store.export()?)
}

/// Asks on the terminal; only `yes` is a yes.
fn approved(question: &str) -> bool {
    report::out(format_args!(
        "\n{BOLD}{question}{BOLD:#}\n  Only 'yes' will be accepted to approve.\n\n  {BOLD}Enter a value:{BOLD:#} "
    ));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

fn conclude(telling: &Telling, plan: &Plan, outcome: &Outcome, errand: &Errand, interrupted: bool) -> Result<(), Stop> {
    let counts = report::plan::done(plan, outcome);
    if outcome.is_complete() {
        telling.complete(errand.complete, counts, errand.operation);
        return Ok(());
    }
    for (step, error) in outcome.failures() {
        report::error::step(&plan.changes[step.change], error);
    }
    telling.incomplete(outcome, counts, interrupted, errand.operation);
    Err(Stop(if interrupted { INTERRUPTED } else { FAILED }))
}
