//! `novella state`: what is recorded, and how it is mended by hand. The host is looked at by some, and touched by none.
//!
//! [`look`] only reads. [`edit`], [`copies`] and [`rebuild`] write: each takes the lock, keeps a backup of what was, and
//! tells the history.

mod copies;
mod edit;
mod look;
mod rebuild;

use clap::Subcommand;

use crate::address::{Address, Name};
use crate::cli::journal::Journal;
use crate::cli::{Global, Stop};
use crate::plan::world::Recorded;
use crate::store::format::Snapshot;
use crate::store::history::Outcome;
use crate::store::sled::SledStore;
use crate::store::{StoreError, snapshot};
use crate::{desired, report, spec};

/// What is done with the state.
#[derive(Debug, Subcommand)]
pub(super) enum State {
    /// List what is recorded, by resource
    List(look::ListArguments),
    /// Show all that is recorded of a resource
    Show(look::ShowArguments),
    /// Give what is recorded of a resource to one of another name, as far as anything can be kept
    Mv(edit::MvArguments),
    /// Forget resources; what they are on the host stays there
    Rm(edit::RmArguments),
    /// Write a snapshot, for `plan --state-file` and `state import`
    Export(copies::ExportArguments),
    /// Put a snapshot in place of what is recorded
    Import(copies::ImportArguments),
    /// Keep a dated snapshot in the state directory
    Backup(copies::BackupArguments),
    /// Record what the spec wants and the host has with our mark, after the state was lost
    Rebuild(rebuild::Arguments),
}

pub(super) fn run(global: &Global, verb: &State) -> Result<(), Stop> {
    match verb {
        State::List(arguments) => look::list(global, arguments),
        State::Show(arguments) => look::show(global, arguments),
        State::Mv(arguments) => edit::mv(global, arguments),
        State::Rm(arguments) => edit::rm(global, arguments),
        State::Export(arguments) => copies::export(global, arguments),
        State::Import(arguments) => copies::import(global, arguments),
        State::Backup(arguments) => copies::backup(global, arguments),
        State::Rebuild(arguments) => rebuild::run(global, arguments),
    }
}

/// An address on the command line.
fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error: crate::address::InvalidAddress| report::error::chain(&error))
}

/// The project that these records are of; where they do not tell, the one that the spec names.
fn project(global: &Global, recorded: &Recorded) -> Name {
    recorded.project().unwrap_or_else(|| desired::project(&spec::load(&global.specs).spec))
}

/// What an edit of the records is to the history.
struct Edit<'a> {
    operation: &'static str,
    spec: Option<&'a spec::Source>,
    summary: String,
}

/// Puts the records `after` in place of `before`, of which a backup is kept.
fn rewrite(store: &SledStore, before: Recorded, after: &Recorded, edit: Edit<'_>) -> Result<(), StoreError> {
    let dir = store.lock().dir();
    let before = Snapshot { project: before.project(), host: None, recorded: before };
    let backup = snapshot::backup(dir, &before, snapshot::KEPT_BACKUPS)?;
    let journal = Journal::begin(store.lock(), edit.operation, edit.spec, edit.summary);
    let written = store.replace(after).and_then(|()| store.export());
    journal.end(if written.is_ok() { Outcome::Complete } else { Outcome::Failed }, Vec::new());
    written?;
    report::note(format_args!("note: the records as they were are in `{}`", backup.display()));
    Ok(())
}
