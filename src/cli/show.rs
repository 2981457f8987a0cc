//! `novella show`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::address::{Name, PortId};
use crate::blueprint::key::domain_key;
use crate::blueprint::object::{Domain, HostEntry, Object};
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
    /// What the guest becomes only when it is started again, as names of attributes.
    pending_reboot: Vec<String>,
    host: &'static str,
    uuid: Option<String>,
    ports: Vec<PortRow>,
    /// The disks that it has beside its root disk, each as `volume.NAME` or `server.NAME/DISK`.
    volumes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PortRow {
    port: PortId,
    network: Name,
    addresses: Vec<IpAddr>,
    mac: String,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let recorded = session::recorded(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let rows = rows(&recorded, &target.host().observe()?);
    if arguments.json {
        let json = serde_json::json!({ "format_version": "1.0", "servers": rows });
        report::out(report::json::document(&json));
    } else if rows.is_empty() {
        report::line("There are no servers. `novella apply` makes those of the spec.");
    } else {
        report::out(report::table::render(&["SERVER", "STATE", "HOST", "ADDRESS", "MAC", "NETWORK"], &table(&rows)));
    }
    Ok(())
}

fn rows(recorded: &Recorded, observed: &Observed) -> Vec<Row> {
    let mut entries: BTreeMap<&PortId, &HostEntry> = BTreeMap::new();
    let mut servers: BTreeMap<&Name, (Option<&Domain>, Status, Vec<&PortId>)> = BTreeMap::new();
    // Host entries come before domains, in the order of keys.
    for record in recorded.records.values() {
        match &record.object {
            Object::HostEntry(entry) => {
                entries.insert(&entry.port, entry);
                if let PortId::Inline { server, .. } = &entry.port {
                    // A server whose domain was never begun shows up by its first port.
                    servers.entry(server).or_insert((None, Status::Intended, Vec::new())).2.push(&entry.port);
                }
            }
            Object::Domain(domain) => {
                let server = servers.entry(&domain.server).or_insert((None, record.status, Vec::new()));
                (server.0, server.1) = (Some(domain), record.status);
            }
            _ => {}
        }
    }
    let row = |(server, (domain, status, others)): (&Name, (Option<&Domain>, Status, Vec<&PortId>))| {
        let state = match observed.objects.get(&domain_key(server)).and_then(|facts| facts.get("power")) {
            Some(power) if power == "on" => "running".into(),
            Some(power) if power == "off" => "shut off".into(),
            Some(other) => other.clone(),
            None if status == Status::Intended => "incomplete".into(),
            None => "missing".into(),
        };
        let guest = observed.guests.get(&domain_key(server));
        let mut ports: Vec<PortId> = domain.iter().flat_map(|it| &it.nics).map(|nic| nic.id(server)).collect();
        let others: Vec<PortId> = others.into_iter().filter(|port| !ports.contains(port)).cloned().collect();
        ports.extend(others);
        Row {
            server: server.clone(),
            state,
            pending_reboot: guest.map(|guest| guest.pending.clone()).unwrap_or_default(),
            host: "local",
            uuid: domain.map(|domain| domain.uuid.to_string()),
            ports: ports.iter().filter_map(|port| entries.get(port)).map(|entry| PortRow::of(entry)).collect(),
            volumes: domain.iter().flat_map(|it| &it.disks).map(|disk| disk.volume.title()).collect(),
        }
    };
    servers.into_iter().map(row).collect()
}

impl PortRow {
    fn of(entry: &HostEntry) -> Self {
        Self {
            port: entry.port.clone(),
            network: entry.network.clone(),
            addresses: entry.addresses.iter().map(|it| it.address).collect(),
            mac: entry.mac.to_string(),
        }
    }
}

/// A line for each port; the server is named on its first.
fn table(rows: &[Row]) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for row in rows {
        let pending = if row.pending_reboot.is_empty() { "" } else { ", pending reboot" };
        let mut head = [row.server.to_string(), format!("{}{pending}", row.state), row.host.to_owned()];
        if row.ports.is_empty() {
            lines.push(head.to_vec());
        }
        for port in &row.ports {
            let mut cells = std::mem::take(&mut head).to_vec();
            let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
            cells.extend([addresses.join(", "), port.mac.clone(), port.network.to_string()]);
            lines.push(cells);
        }
    }
    lines
}
