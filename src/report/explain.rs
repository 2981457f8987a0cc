//! Where a value comes from, what was made of it, and what a change of it costs.
//!
//! Nothing here knows a key or an attribute by its name: the keys and their meaning are those of the schema, the attributes
//! and their cost those of [`Object::facts`] and [`ObjectKind::disruption`].
//!
//! [`ObjectKind::disruption`]: crate::blueprint::key::ObjectKind::disruption

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::address::{Address, ResourceKind};
use crate::blueprint::Blueprint;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::Object;
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, Span, did_you_mean};
use crate::plan::world::{Observed, Recorded};
use crate::report::{BOLD, clean_line, table};
use crate::spec::{Source, json_schema};
use crate::value::ByteSize;

/// All that is known.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What is meant.
    pub desired: &'a Desired,
    /// What is written.
    pub source: &'a Source,
    /// What it comes to.
    pub blueprint: &'a Blueprint,
    /// What was made.
    pub recorded: &'a Recorded,
    /// What is there.
    pub observed: &'a Observed,
}

/// One attribute of an object, on all three sides.
struct Fact {
    key: ObjectKey,
    name: String,
    want: Option<String>,
    made: Option<String>,
    seen: Option<String>,
}

/// Explains `server.web`, or one key or attribute of it: `server.web.memory`.
///
/// # Errors
/// When there is no such thing.
pub fn explain(question: &str, known: &Known<'_>) -> Result<String, Box<Diagnostic>> {
    let end = question.match_indices('.').nth(1).map_or(question.len(), |(end, _)| end);
    let (text, field) = (&question[..end], question.get(end + 1..));
    let address = known.find(text)?;
    let declared = known.desired.declared(&address);
    let made = known.desired.servers.values().filter(|it| it.declared == address && it.name != address.name);
    let made: Vec<Address> = made.map(|it| Address::new(ResourceKind::Server, it.name.clone())).collect();
    let mut said = format!("{BOLD}{question}{BOLD:#}\n");
    // Writing to a string cannot fail, here and below.
    let Some(field) = field else {
        let written = known.source.keys_of(&declared.to_string()).into_iter();
        let rows: Vec<Vec<String>> =
            written.map(|(key, span)| vec![key.to_owned(), known.value(span), known.from(span)]).collect();
        if !rows.is_empty() {
            let _ = write!(said, "\n{}", table::render(&["KEY", "WRITTEN", "AT"], &rows));
        }
        let refers = known.desired.references.iter().filter(|it| it.from == declared);
        let refers: BTreeSet<String> = refers.map(|it| it.to.to_string()).collect();
        if !refers.is_empty() {
            let _ = write!(said, "\nIt refers to {}.\n", refers.into_iter().collect::<Vec<_>>().join(", "));
        }
        if !made.is_empty() {
            let made: Vec<String> = made.iter().map(Address::to_string).collect();
            let _ = write!(said, "\nIt makes {}.\n", made.join(", "));
        }
        said.push_str(&rendered(&known.facts(&address)));
        return Ok(said);
    };
    let meaning = json_schema::keys(address.kind).into_iter().find(|(key, _)| key == field);
    let below = format!("{field}.");
    let facts = [&address].into_iter().chain(&made).flat_map(|address| known.facts(address));
    let (of_field, others): (Vec<Fact>, Vec<Fact>) =
        facts.partition(|fact| fact.name == field || fact.name.starts_with(&below));
    if meaning.is_none() && of_field.is_empty() {
        let keys = json_schema::keys(address.kind);
        let words = keys.iter().map(|(key, _)| key.as_str()).chain(others.iter().map(|fact| fact.name.as_str()));
        let error = Diagnostic::error(format!("`{address}` has no `{}`", clean_line(field)));
        return Err(Box::new(match did_you_mean(field, words) {
            Some(near) => error.help(format!("did you mean `{address}.{near}`?")),
            None => error.help(format!("`novella explain {address}` shows what it has")),
        }));
    }
    let written = known.source.key(&format!("{declared}.{field}"));
    if let Some((_, meaning)) = meaning {
        let _ = match written {
            Some(span) => writeln!(said, "\n{meaning}\nWritten: {}, at {}.", known.value(span), known.from(span)),
            None => writeln!(said, "\n{meaning}\nIt is not written."),
        };
    }
    said.push_str(&rendered(&of_field));
    if written.is_some() {
        return Ok(said);
    }
    let values: BTreeSet<&String> = of_field.iter().filter_map(|fact| fact.want.as_ref()).collect();
    for value in values {
        let at = known.says(&declared, value);
        let _ = match at.is_empty() {
            true => writeln!(said, "\nNo key says `{}` as it is: it is a default, or was chosen.", clean_line(value)),
            false => writeln!(said, "\n`{}` stands in {}.", clean_line(value), at.join(", ")),
        };
    }
    Ok(said)
}

impl Known<'_> {
    /// The resource of this address: in the spec, or in the state.
    fn find(&self, text: &str) -> Result<Address, Box<Diagnostic>> {
        let objects = self.blueprint.objects.values().chain(self.recorded.records.values().map(|it| &it.object));
        let mut all = self.source.addresses();
        all.extend(objects.map(Object::address));
        all.extend(self.desired.servers.values().map(|server| server.declared.clone()));
        if let Some(address) = text.parse().ok().filter(|address| all.contains(address)) {
            return Ok(address);
        }
        let words: Vec<String> = all.iter().map(Address::to_string).collect();
        let error = Diagnostic::error(format!("there is no `{}`", clean_line(text)));
        Err(Box::new(match did_you_mean(text, words.iter().map(String::as_str)) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("write KIND.NAME or KIND.NAME.FIELD, as `server.web.memory`"),
        }))
    }

    /// The attributes of all objects of a resource.
    fn facts(&self, address: &Address) -> Vec<Fact> {
        let want = self.blueprint.objects.iter().filter(|(_, object)| object.address() == *address);
        let made = self.recorded.records.iter().filter(|(_, record)| record.object.address() == *address);
        let keys: BTreeSet<&ObjectKey> = want.map(|(key, _)| key).chain(made.map(|(key, _)| key)).collect();
        let mut facts = Vec::new();
        for key in keys {
            let want = self.blueprint.objects.get(key).map(Object::facts).unwrap_or_default();
            let made = self.recorded.records.get(key).map(|record| record.object.facts()).unwrap_or_default();
            let seen = self.observed.objects.get(key);
            let names: BTreeSet<_> = want.keys().chain(made.keys()).collect();
            facts.extend(names.into_iter().map(|name| Fact {
                key: key.clone(),
                name: name.to_string(),
                want: want.get(name).cloned(),
                made: made.get(name).cloned(),
                seen: seen.and_then(|seen| seen.get(name)).cloned(),
            }));
        }
        facts
    }

    /// What is written, on one line.
    fn value(&self, span: &Span) -> String {
        let Some(text) = self.source.text(span) else { return "(not shown)".into() };
        let words: Vec<&str> = text.split_whitespace().collect();
        let line = words.join(" ");
        let short: String = line.chars().take(60).collect();
        if short.len() < line.len() { format!("{short}...") } else { line }
    }

    /// Where it is written, and by which variables.
    fn from(&self, span: &Span) -> String {
        let uses = self.source.uses_in(span).into_iter();
        let uses: Vec<String> = uses
            .map(|it| format!("var.{} = {} at {}", it.name, self.value(&it.from), self.source.shown(&it.from)))
            .collect();
        let at = self.source.shown(span);
        if uses.is_empty() { at } else { format!("{at}, with {}", uses.join(", ")) }
    }

    /// The keys that say a value as it is, of a table, of what it refers to, and of what refers to it. What servers say is
    /// their own affair.
    fn says(&self, declared: &Address, value: &str) -> Vec<String> {
        let references = self.desired.references.iter();
        let beside = references.filter_map(|it| match (it.from == *declared, it.to == *declared) {
            (true, _) => Some(&it.to),
            (_, true) => Some(&it.from),
            _ => None,
        });
        let beside: BTreeSet<&Address> = beside.filter(|it| it.kind != ResourceKind::Server).collect();
        let tables: Vec<&Address> = [declared].into_iter().chain(beside).collect();
        let size: Option<ByteSize> = value.parse().ok();
        let is_same = |span: &Span| {
            let by_variable = self.source.uses_in(span).first().map(|it| it.from.clone());
            let text = self.source.text(by_variable.as_ref().unwrap_or(span)).unwrap_or_default();
            let text = text.trim_matches(['"', '\'']);
            text == value || size.is_some() && text.parse().ok() == size
        };
        let mut found = Vec::new();
        for table in tables {
            let table = table.to_string();
            let keys = self.source.keys_of(&table).into_iter().filter(|(_, span)| is_same(span));
            found.extend(keys.map(|(key, span)| format!("`{table}.{key}` at {}", self.from(span))));
        }
        found
    }
}

/// What a change costs that cannot be taken in a better way.
fn cost(kind: ObjectKind, fact: &str) -> String {
    let anew = if kind.replaces(fact) { ", made anew" } else { "" };
    format!("{}{anew}", kind.disruption(fact).as_str())
}

fn rendered(facts: &[Fact]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let side = |fact: &Fact, value: &Option<String>| match value {
        None => "-".to_owned(),
        same if *same == fact.want => "same".to_owned(),
        Some(other) => other.clone(),
    };
    let row = |fact: &Fact| {
        let want = fact.want.clone().unwrap_or_else(|| "-".into());
        let title = fact.key.to_string();
        vec![
            title,
            fact.name.clone(),
            want,
            side(fact, &fact.made),
            side(fact, &fact.seen),
            cost(fact.key.kind, &fact.name),
        ]
    };
    let rows: Vec<Vec<String>> = facts.iter().map(row).collect();
    let heading = ["OBJECT", "ATTRIBUTE", "WANTED", "RECORDED", "ON THE HOST", "A CHANGE COSTS AT MOST"];
    format!("\n{}", table::render(&heading, &rows))
}
