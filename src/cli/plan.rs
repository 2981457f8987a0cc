//! `novella plan`.

use crate::blueprint::facts::Disruption;
use crate::cli::apply::disruption;
use crate::cli::format::FormatArguments;
use crate::cli::scope::{self, ScopeArguments};
use crate::cli::session::{self, Target};
use crate::cli::{CHANGES, Global, Stop};
use crate::{reconcile, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show what `destroy` would do
    #[arg(long)]
    destroy: bool,
    /// Exit with 2 when there are changes, 0 when there are none
    #[arg(long)]
    detailed_exitcode: bool,
    /// Mark what a guest would notice more of than this
    #[arg(long, value_name = "WHAT", value_parser = disruption())]
    max_disruption: Option<Disruption>,
    /// Show what `apply --defer-reboots` would do
    #[arg(long)]
    defer_reboots: bool,
    #[command(flatten)]
    format: FormatArguments,
    #[command(flatten)]
    scope: ScopeArguments,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    arguments.format.begin();
    let (desired, source) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let before = arguments.format.keep(&recorded);
    let scope = arguments.scope.resolve(&desired, &recorded, &source)?;
    let plan = match arguments.destroy {
        false => reconcile::plan(&desired, recorded, target.host()),
        true => reconcile::plan_destroy(&desired, recorded, target.host()),
    };
    let plan = plan.map_err(|error| session::no_plan(&error, &source))?;
    let plan = scope::confine(plan, scope.as_ref(), &source)?;
    let plan = if arguments.defer_reboots { plan.defer_reboots() } else { plan };
    report::diagnostics::print(&plan.warnings, &source);
    arguments.format.show(&plan, &before, (&desired.project, &source), arguments.max_disruption)?;
    session::refuse_conflicts(&plan)?;
    if arguments.detailed_exitcode && !plan.is_empty() { Err(Stop(CHANGES)) } else { Ok(()) }
}
