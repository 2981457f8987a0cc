//! `novella trash`: disks that were taken away, until their time is over.

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use crate::cli::apply::approved;
use crate::cli::servers::machine;
use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, Stop, candidates};
use crate::host::images::trash::{Entry, Trashed};
use crate::report;
use crate::report::leases::relative;
use crate::store::lock::StateLock;
use crate::value::{ByteSize, parse_span, unix_now};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is in the trash, and until when
    List(ListArguments),
    /// Put a disk back; the next `apply` takes it as it is
    Restore(RestoreArguments),
    /// Take disks out of the trash for good
    Empty(EmptyArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RestoreArguments {
    /// What it is called in the trash
    #[arg(add = candidates::trashed())]
    id: String,
    /// Put it in this place, and not where it was: `server.NAME` (its root disk), `server.NAME/DISK` or `volume.NAME`
    #[arg(long = "as", value_name = "ADDR", add = candidates::disks())]
    place: Option<Trashed>,
}

#[derive(Debug, clap::Args)]
struct EmptyArguments {
    /// Only what has been there for so long, as `1d` or `12h`
    #[arg(long, value_name = "TIME", value_parser = age, required_unless_present = "all")]
    older_than: Option<u32>,
    /// All of it
    #[arg(long, conflicts_with = "older_than")]
    all: bool,
    /// Do not ask before acting
    #[arg(long)]
    auto_approve: bool,
}

fn age(text: &str) -> Result<u32, &'static str> {
    parse_span(text).ok_or("write a length of time, as `90s`, `12h` or `1d`")
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let images = machine(&target, "restore")?.images();
    match &arguments.what {
        What::List(list) => {
            let entries = images.trash()?;
            if list.json {
                let json = json!({ "format_version": "1.0", "trash": entries });
                report::line(serde_json::to_string_pretty(&json).unwrap_or_default());
            } else if entries.is_empty() {
                report::line("The trash is empty.");
            } else {
                show(&entries);
            }
        }
        What::Restore(restore) => {
            let _lock = lock(global, "trash restore")?;
            let place = images.restore(&restore.id, restore.place.as_ref())?;
            report::line(format_args!("`{}` is the disk of {place} again.", restore.id));
            report::note("note: the next `apply` takes it over, if the spec has it");
        }
        What::Empty(empty) => {
            let _lock = lock(global, "trash empty")?;
            let now = unix_now();
            let goes = |entry: &Entry| {
                empty.all
                    || entry.is_expired(now)
                    || empty.older_than.is_some_and(|age| entry.since.saturating_add(age.into()) <= now)
            };
            let entries: Vec<Entry> = images.trash()?.into_iter().filter(goes).collect();
            if entries.is_empty() {
                report::line("Nothing in the trash is that old.");
            } else {
                show(&entries);
                let question = "Do you really want to remove these disks?\n  There is no undo.";
                if !empty.auto_approve && !approved(question) {
                    report::note("Cancelled: nothing was done.");
                    return Err(Stop(FAILED));
                }
            }
            let gone = images.empty_trash(|entry| entries.iter().any(|it| it.id == entry.id))?;
            report::line(format_args!("{} removed.", report::count(gone.len(), "disk")));
            if gone.iter().any(|entry| entry.base.is_some()) {
                report::note("note: base images that only these needed go with the next `apply` or `destroy`");
            }
        }
    }
    Ok(())
}

/// Nobody else changes the host meanwhile.
fn lock(global: &Global, operation: &str) -> Result<StateLock, Stop> {
    Ok(StateLock::acquire(&session::state_dir(global), operation, Duration::ZERO)?)
}

fn show(entries: &[Entry]) {
    let now = unix_now();
    let size = |size: Option<ByteSize>| size.map_or("unknown".into(), |size| size.to_string());
    let row = |entry: &Entry| {
        vec![
            entry.id.clone(),
            entry.address.to_string(),
            size(entry.size),
            entry.format.as_str().to_owned(),
            entry.why.as_str().to_owned(),
            relative(entry.since, now),
            relative(entry.until, now),
        ]
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    report::out(report::table::render(&["ID", "DISK OF", "SIZE", "FORMAT", "WHY", "SINCE", "GOES"], &rows));
}
