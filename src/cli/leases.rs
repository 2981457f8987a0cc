//! `novella leases`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::blueprint::object::Object;
use crate::cli::session::{self, Target};
use crate::cli::{Global, Stop};
use crate::report;
use crate::report::leases::Row;
use crate::value::unix_now;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, with times in seconds since 1970
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    format_version: &'static str,
    /// When it was looked, in seconds since 1970.
    now: u64,
    leases: Vec<Row>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let mut leases = BTreeMap::new();
    let mut hands_out = true;
    for record in recorded.records.values() {
        if let Object::Dhcp(dhcp) = &record.object {
            match target.leases(&dhcp.network)? {
                Some(found) => drop(leases.insert(dhcp.network.clone(), found)),
                None => hands_out = false,
            }
        }
    }
    let now = unix_now();
    let rows = report::leases::compare(&recorded, &leases, now);
    if !hands_out {
        report::note("note: the simulated host hands out no addresses; these are the planned ones");
    }
    if arguments.json {
        let document = Document { format_version: "1.0", now, leases: rows };
        report::out(report::json::document(&document));
    } else if rows.is_empty() {
        report::line("There are no ports, and no leases. `novella apply` makes what the spec says.");
    } else {
        report::out(report::leases::render(&rows, now));
    }
    Ok(())
}
