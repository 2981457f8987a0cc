//! `novella show`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::address::Name;
use crate::blueprint::key::domain_key;
use crate::blueprint::object::Object;
use crate::cli::session::{self, Target};
use crate::cli::{Global, Stop};
use crate::plan::world::{Observed, Recorded, Status};
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One server as it is.
#[derive(Debug, Serialize)]
struct Row {
    server: Name,
    /// `running`, `shut off`, or what libvirt says; `missing` when the host has no such domain, `incomplete` when it was
    /// never made to the end.
    state: String,
    host: &'static str,
    uuid: Option<String>,
    ports: Vec<PortRow>,
}

#[derive(Debug, Serialize)]
struct PortRow {
    network: Name,
    address: String,
    mac: String,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let rows = rows(&recorded, &target.host().observe()?);
    if arguments.json {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "format_version": "1.0", "servers": rows }));
        report::line(json.unwrap_or_default());
    } else if rows.is_empty() {
        report::line("There are no servers. `novella apply` makes those of the spec.");
    } else {
        report::out(report::table::render(&["SERVER", "STATE", "HOST", "ADDRESS", "MAC", "NETWORK"], &table(&rows)));
    }
    Ok(())
}

fn rows(recorded: &Recorded, observed: &Observed) -> Vec<Row> {
    let mut ports: BTreeMap<&Name, Vec<PortRow>> = BTreeMap::new();
    for record in recorded.records.values() {
        if let Object::HostEntry(entry) = &record.object {
            ports.entry(&entry.server).or_default().push(PortRow {
                network: entry.network.clone(),
                address: entry.address.to_string(),
                mac: entry.mac.to_string(),
            });
        }
    }
    let mut rows: BTreeMap<&Name, Row> = BTreeMap::new();
    for record in recorded.records.values() {
        let (server, uuid, order) = match &record.object {
            Object::Domain(domain) => (&domain.server, Some(domain.uuid.to_string()), domain.nics.as_slice()),
            // A server whose domain was never begun shows up by its first object.
            Object::HostEntry(entry) if !rows.contains_key(&entry.server) => (&entry.server, None, &[][..]),
            _ => continue,
        };
        let state = match observed.objects.get(&domain_key(server)).and_then(|facts| facts.get("power")) {
            Some(power) if power == "on" => "running".into(),
            Some(power) if power == "off" => "shut off".into(),
            Some(other) => other.clone(),
            None if uuid.is_none() || record.status == Status::Intended => "incomplete".into(),
            None => "missing".into(),
        };
        let mut ports = ports.remove(server).or_else(|| rows.remove(server).map(|row| row.ports)).unwrap_or_default();
        ports.sort_by_key(|port| order.iter().position(|nic| nic.network == port.network));
        rows.insert(server, Row { server: server.clone(), state, host: "local", uuid, ports });
    }
    rows.into_values().collect()
}

/// A line for each port; the server is named on its first.
fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for row in rows {
        let mut head = [row.server.to_string(), row.state.clone(), row.host.to_owned()];
        if row.ports.is_empty() {
            lines.push(head.to_vec());
        }
        for port in &row.ports {
            let mut cells = std::mem::take(&mut head).to_vec();
            cells.extend([port.address.clone(), port.mac.clone(), port.network.to_string()]);
            lines.push(cells);
        }
    }
    lines
}
