//! `novella drift`: what the host has against what was recorded, apart from edits that were not applied yet.

use crate::cli::session::{self, Target};
use crate::cli::{CHANGES, Global, Stop};
use crate::plan::drift::Drift;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    // Of the spec it is only the host that matters: how it is reached, and where its files are.
    let (desired, _) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let drift = Drift::new(&recorded, &target.host().observe()?);
    match arguments.json {
        true => report::line(report::drift::json(&drift)),
        false => report::out(report::drift::render(&drift)),
    }
    if drift.is_none() { Ok(()) } else { Err(Stop(CHANGES)) }
}
