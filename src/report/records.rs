//! The text and the JSON of what is recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use crate::address::Address;
use crate::plan::world::{Record, Recorded, Status};
use crate::report::plan::object_title;
use crate::report::{BOLD, DIM, clean_line, table};

const fn status(record: &Record) -> &'static str {
    match record.status {
        Status::Present => "made",
        Status::Intended => "unfinished",
    }
}

fn by_resource(recorded: &Recorded) -> BTreeMap<Address, Vec<&Record>> {
    let mut resources: BTreeMap<Address, Vec<&Record>> = BTreeMap::new();
    for record in recorded.records.values() {
        resources.entry(record.object.address()).or_default().push(record);
    }
    resources
}

fn title(record: &Record) -> String {
    object_title(&record.object.key(), Some(&record.object))
}

/// A line for each resource.
pub fn list(recorded: &Recorded) -> String {
    if recorded.records.is_empty() {
        return "Nothing is recorded.\n".into();
    }
    let row = |(address, records): (Address, Vec<&Record>)| {
        let state = match records.iter().all(|record| record.status == Status::Present) {
            true => "made",
            false => "unfinished",
        };
        let titles: Vec<String> = records.into_iter().map(title).collect();
        vec![address.to_string(), state.into(), titles.join(", ")]
    };
    let rows: Vec<Vec<String>> = by_resource(recorded).into_iter().map(row).collect();
    table::render(&["ADDRESS", "STATE", "OBJECTS"], &rows)
}

/// The same as a program reads it.
pub fn list_json(recorded: &Recorded) -> String {
    let object = |record: &&Record| {
        let key = record.object.key();
        json!({ "kind": key.kind.as_str(), "id": key.id, "state": status(record) })
    };
    let resource = |(address, records): (Address, Vec<&Record>)| json!({ "address": address.to_string(), "objects": records.iter().map(object).collect::<Vec<_>>() });
    let resources: Vec<_> = by_resource(recorded).into_iter().map(resource).collect();
    let document = json!({ "format_version": "1.0", "serial": recorded.serial, "resources": resources });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// All objects of a resource, attribute by attribute. What may be secret has no attribute but its digest.
pub fn show(address: &Address, recorded: &Recorded) -> String {
    let mut text = format!("{BOLD}# {address}{BOLD:#}\n");
    for record in recorded.records.values() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}  {DIM}# {}{DIM:#}", title(record), status(record));
        let facts = record.object.facts();
        let width = facts.keys().map(|name| name.len()).max().unwrap_or(0);
        for (name, value) in &facts {
            let _ = writeln!(text, "      {name:<width$} = {}", clean_line(value));
        }
    }
    text
}

/// The same as a program reads it.
pub fn show_json(address: &Address, recorded: &Recorded) -> String {
    let object = |record: &Record| {
        let key = record.object.key();
        json!({
            "kind": key.kind.as_str(),
            "id": key.id,
            "state": status(record),
            "attributes": record.object.facts(),
        })
    };
    let objects: Vec<_> = recorded.records.values().map(object).collect();
    let document = json!({ "format_version": "1.0", "address": address.to_string(), "objects": objects });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
