//! `novella state export`, `import` and `backup`.

use std::path::PathBuf;

use crate::blueprint::HostFacts;
use crate::cli::session::{self, Patience, Target};
use crate::cli::state::{Edit, project, rewrite};
use crate::cli::{Global, Stop};
use crate::desired;
use crate::diagnostic::has_errors;
use crate::plan::world::Recorded;
use crate::report;
use crate::spec;
use crate::store::format::{self, Snapshot};
use crate::store::{Store as _, StoreError, snapshot};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArguments {
    /// The file, open to its owner only; standard output if none is named
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ImportArguments {
    /// The snapshot: what `export` or `backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Import it even if it is older than what is recorded: what was made since is then not known any more
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct BackupArguments {
    /// How many backups to keep, the newest ones
    #[arg(long, value_name = "N", default_value_t = snapshot::KEPT_BACKUPS)]
    keep: usize,
    #[command(flatten)]
    patience: Patience,
}

pub(super) fn export(global: &Global, arguments: &ExportArguments) -> Result<(), Stop> {
    let recorded = snapshot::without_secrets(session::recorded(global)?);
    let snapshot = Snapshot { project: Some(project(global, &recorded)), host: facts(global), recorded };
    match &arguments.file {
        Some(file) => snapshot::write(file, &snapshot)?,
        None => {
            let bytes =
                format::encode_snapshot(&snapshot).map_err(|error| error.during("cannot write the snapshot"))?;
            report::out(String::from_utf8_lossy(&bytes));
        }
    }
    Ok(())
}

/// What the host can do, where the spec tells how to ask it. A snapshot without is better than none.
fn facts(global: &Global) -> Option<HostFacts> {
    let loaded = spec::load(&global.specs);
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let Some(desired) = desired.filter(|_| !has_errors(&loaded.diagnostics) && !has_errors(&problems)) else {
        report::note("note: the spec is not valid, so the snapshot does not tell what the host can do");
        return None;
    };
    let asked = Target::open(global, &desired, session::no_progress()).and_then(|target| target.host().facts());
    match asked {
        Ok(facts) => Some(facts),
        Err(error) => {
            let why = report::error::chain(&error);
            report::note(format_args!("note: the snapshot does not tell what the host can do: {why}"));
            None
        }
    }
}

pub(super) fn import(global: &Global, arguments: &ImportArguments) -> Result<(), Stop> {
    let ImportArguments { file, force, patience } = arguments;
    let snapshot = snapshot::read(file)?;
    let store = session::store(global, "state import", *patience)?;
    let before = store.load()?;
    snapshot::is_of(&snapshot, &project(global, &before), file)?;
    let after = snapshot.recorded;
    if !force {
        is_no_step_back(&before, &after)?;
    }
    let dropped = before.records.keys().filter(|key| !after.records.contains_key(*key)).count();
    let other = after.records.iter().filter(|(key, record)| before.records.get(*key) != Some(*record)).count();
    if dropped + other == 0 {
        report::line("Nothing to import: this is what is recorded.");
        return Ok(());
    }
    let said = format!("{} from write {}: {other} other, {dropped} dropped", records(&after), after.serial);
    let edit = Edit { operation: "state import", spec: None, summary: said.clone() };
    rewrite(&store, before, &after, edit)?;
    report::line(format_args!("Imported {said}."));
    Ok(())
}

fn records(recorded: &Recorded) -> String {
    report::count(recorded.records.len(), "record")
}

fn is_no_step_back(before: &Recorded, after: &Recorded) -> Result<(), StoreError> {
    let what = match after.serial.cmp(&before.serial) {
        std::cmp::Ordering::Greater => return Ok(()),
        std::cmp::Ordering::Equal if after.records == before.records => return Ok(()),
        std::cmp::Ordering::Equal => "it is as old as what is recorded, and not the same".to_owned(),
        std::cmp::Ordering::Less => {
            format!("it is older than what is recorded: from write {}, where there are {}", after.serial, before.serial)
        }
    };
    Err(StoreError::new("cannot import the snapshot", what)
        .help("`--force` imports it all the same: what was made since is not known then, until an `apply` finds it"))
}

pub(super) fn backup(global: &Global, arguments: &BackupArguments) -> Result<(), Stop> {
    let store = session::store(global, "state backup", arguments.patience)?;
    let recorded = store.load()?;
    let said = records(&recorded);
    let snapshot = Snapshot { project: Some(project(global, &recorded)), host: None, recorded };
    let file = snapshot::backup(store.lock().dir(), &snapshot, arguments.keep)?;
    report::line(format_args!("Kept {said} in `{}`.", file.display()));
    Ok(())
}
