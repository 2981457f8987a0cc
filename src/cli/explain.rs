//! `novella explain`.

use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, Stop, candidates};
use crate::report::explain::{Known, explain};
use crate::{reconcile, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// An address, or one key or attribute of it: `server.web`, `server.web.memory`
    #[arg(value_name = "ADDRESS[.FIELD]", add = candidates::questions())]
    question: String,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let lowered = reconcile::blueprint(&desired, &recorded, target.host());
    let (blueprint, observed) = lowered.map_err(|error| session::no_plan(&error, &source))?;
    let known =
        Known { desired: &desired, source: &source, blueprint: &blueprint, recorded: &recorded, observed: &observed };
    match explain(&arguments.question, &known) {
        Ok(said) => {
            report::out(said);
            Ok(())
        }
        Err(problem) => {
            report::diagnostics::print(&[*problem], &source);
            Err(Stop(FAILED))
        }
    }
}
