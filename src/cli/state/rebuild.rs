//! `novella state rebuild`: a lost state is made again from the marks on the host. An `apply` does the same as it goes; this
//! does it alone, and changes nothing on the host.

use crate::cli::session::{self, Patience, Target};
use crate::cli::state::{Edit, rewrite};
use crate::cli::{Global, Stop};
use crate::plan::records;
use crate::store::Store as _;
use crate::{reconcile, report};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    let store = session::store(global, "state rebuild", arguments.patience)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let before = store.load()?;
    let plan = reconcile::plan(&desired, before.clone(), target.host());
    let plan = plan.map_err(|error| session::no_plan(&error, &source))?;
    let mut after = before.clone();
    let found = records::record_found(&mut after, &plan);
    if found.is_empty() {
        report::line("Nothing to record: all that the spec wants and the host has with our mark is recorded.");
    } else {
        let said = report::count(found.len(), "object");
        let edit = Edit { operation: "state rebuild", spec: Some(&source), summary: format!("recorded {said}") };
        rewrite(&store, before, &after, edit)?;
        report::line(format_args!("Recorded {said} that the host has and the spec wants:"));
        report::out(report::records::list(&crate::plan::world::Recorded {
            records: after.records.into_iter().filter(|(key, _)| found.contains(key)).collect(),
            ..Default::default()
        }));
    }
    report::out(report::plan::left_alone(&plan));
    Ok(())
}
