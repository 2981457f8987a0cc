//! The text and the JSON of the history.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::json;

use crate::report::{BOLD, clean_line, count, table};
use crate::store::history::{Entry, Outcome};

/// A line for each run, the oldest first.
pub fn render(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "Nothing was done yet.\n".into();
    }
    let row = |entry: &Entry| {
        let begun = &entry.begun;
        let time = time(begun.started_at);
        let words = [&time, &begun.user, &begun.operation, entry.outcome.as_str(), &begun.summary];
        [vec![begun.number.to_string()], words.map(String::from).to_vec()].concat()
    };
    let rows: Vec<Vec<String>> = entries.iter().map(row).collect();
    table::render(&["N", "BEGUN", "BY", "WHAT", "OUTCOME", "SUMMARY"], &rows)
}

/// One run with its steps.
pub fn one(entry: &Entry) -> String {
    let begun = &entry.begun;
    let ended = match (entry.ended_at, entry.outcome) {
        (Some(at), _) => format!("{} ({} s)", time(at), at.saturating_sub(begun.started_at)),
        (None, Outcome::UnderWay) => "not yet".into(),
        (None, _) => "unknown: it was killed, or the machine went down".into(),
    };
    let spec = begun.spec.as_ref().map_or("-".into(), ToString::to_string);
    let mut text = String::new();
    for (name, value) in [
        ("Run", begun.number.to_string()),
        ("What", begun.operation.clone()),
        ("Begun", time(begun.started_at)),
        ("Ended", ended),
        ("Outcome", entry.outcome.as_str().into()),
        ("By", format!("{}, pid {}, novella {}", begun.user, begun.pid, begun.version)),
        ("Spec", spec),
        ("Summary", begun.summary.clone()),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{BOLD}{name:<8}{BOLD:#} {}", clean_line(&value));
    }
    let rows = entry.steps.iter().map(|step| {
        let result = match &step.error {
            Some(error) => format!("{}: {error}", step.result),
            None => step.result.clone(),
        };
        vec![step.address.clone(), step.object.clone(), step.deed.clone(), result]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table::render(&["RESOURCE", "OBJECT", "STEP", "RESULT"], &rows));
    }
    if entry.left_out > 0 {
        let _ = writeln!(text, "and {} that are not kept", count(entry.left_out, "step"));
    }
    text
}

/// Runs as a program reads them.
pub fn json(entries: &[Entry]) -> String {
    serde_json::to_string_pretty(&json!({ "format_version": "1.0", "runs": entries })).unwrap_or_default()
}

/// One run as a program reads it.
pub fn one_json(entry: &Entry) -> String {
    serde_json::to_string_pretty(&json!({ "format_version": "1.0", "run": entry })).unwrap_or_default()
}

/// A time to the second, in UTC.
pub(super) fn time(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.map_or_else(|| seconds.to_string(), |at| at.to_string())
}
