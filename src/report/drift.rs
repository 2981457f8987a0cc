//! The text and the JSON of a drift.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use crate::address::Address;
use crate::blueprint::key::ObjectKey;
use crate::plan::drift::{Drift, Drifted, DriftedField};
use crate::report::plan::{Attribute, attributes, object_title};
use crate::report::{ADD, BOLD, CHANGE, DIM, REMOVE, clean_line, count};

/// The drift as a person reads it, in the form of a plan: what was recorded, and what the host has in its place.
pub fn render(drift: &Drift) -> String {
    let mut text = String::new();
    if drift.is_none() {
        let _ = writeln!(text, "{ADD}{BOLD}No drift.{BOLD:#}{ADD:#} {BOLD}The host is as it was made.{BOLD:#}");
    } else {
        text.push_str("The host is not as it was made:\n");
    }
    let mut resources: BTreeMap<&Address, Vec<&Drifted>> = BTreeMap::new();
    for drifted in &drift.objects {
        resources.entry(&drifted.address).or_default().push(drifted);
    }
    for (address, objects) in &resources {
        let _ = write!(text, "\n  {BOLD}# {address}{BOLD:#} has changed\n");
        for drifted in objects {
            object(&mut text, drifted);
        }
    }
    if !drift.is_none() {
        let (objects, resources) = (count(drift.objects.len(), "object"), count(resources.len(), "resource"));
        let _ = write!(
            text,
            "\n{BOLD}Drift:{BOLD:#} {objects} of {resources}. `novella plan` shows how the next `apply` puts it right.\n"
        );
    }
    if !drift.unfinished.is_empty() {
        let _ = writeln!(
            text,
            "{CHANGE}Not compared:{CHANGE:#} {}. A run that did not end has begun them; the next `apply` goes on.",
            list(&drift.unfinished)
        );
    }
    if !drift.unrecorded.is_empty() {
        let _ = writeln!(
            text,
            "{CHANGE}Not recorded:{CHANGE:#} {}. They carry the mark of this project; an `apply` of a spec that has them, \
             or `novella state rebuild`, records them.",
            list(&drift.unrecorded)
        );
    }
    text
}

fn list(keys: &[ObjectKey]) -> String {
    keys.iter().map(|key| clean_line(&key.to_string()).into_owned()).collect::<Vec<String>>().join(", ")
}

fn object(text: &mut String, drifted: &Drifted) {
    let title = object_title(&drifted.key, Some(&drifted.made));
    // Writing to a string cannot fail.
    match &drifted.fields {
        None => {
            let _ = writeln!(text, "  {REMOVE}{:>3}{REMOVE:#} {title}  {DIM}# gone from the host{DIM:#}", "-");
        }
        Some(fields) => {
            let _ = writeln!(text, "  {CHANGE}{:>3}{CHANGE:#} {title}", "~");
            let side = |value: &str| Some(clean_line(value).into_owned());
            let attribute = |it: &DriftedField| Attribute {
                name: it.name.clone(),
                before: side(&it.recorded),
                after: side(&it.seen),
                note: "",
            };
            attributes(text, &told(fields).map(attribute).collect::<Vec<_>>());
        }
    }
}

/// A digest says something only where nothing else does.
fn told(fields: &[DriftedField]) -> impl Iterator<Item = &DriftedField> {
    let lone = fields.len() == 1;
    fields.iter().filter(move |field| lone || field.name != "definition")
}

/// The drift as a program reads it.
pub fn json(drift: &Drift) -> String {
    let object = |drifted: &Drifted| {
        let fields = drifted.fields.iter().flatten();
        let fields = fields.map(|it| json!({ "name": it.name, "recorded": it.recorded, "host": it.seen }));
        json!({
            "address": drifted.address.to_string(),
            "kind": drifted.key.kind.as_str(),
            "id": drifted.key.id,
            "change": if drifted.fields.is_some() { "changed" } else { "gone" },
            "fields": fields.collect::<Vec<_>>(),
        })
    };
    let key = |key: &ObjectKey| json!({ "kind": key.kind.as_str(), "id": key.id });
    let document = json!({
        "format_version": "1.0",
        "drift": !drift.is_none(),
        "objects": drift.objects.iter().map(object).collect::<Vec<_>>(),
        "unfinished": drift.unfinished.iter().map(key).collect::<Vec<_>>(),
        "unrecorded": drift.unrecorded.iter().map(key).collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
