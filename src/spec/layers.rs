//! What a table takes from another: an overlay is laid over the table of the same address, and `extends` lays a table over
//! another of its kind.
//!
//! Tables are merged key by key; anything else is replaced, lists too. Each value keeps its place.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::address::{Address, Name, ResourceKind};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::spec::load::{Reader, Table};

/// The kinds of which one can extend another.
const EXTENSIBLE: [ResourceKind; 3] = [ResourceKind::Server, ResourceKind::Flavor, ResourceKind::Image];

/// What is said of a table itself, and not handed on.
const OWN: [&str; 2] = ["extends", "abstract"];

/// A table with all its places this much further on.
pub(super) fn moved(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let shift = |bytes: Range<usize>| bytes.start + by..bytes.end + by;
    table
        .into_iter()
        .map(|(key, value)| (Spanned::new(shift(key.span()), key.into_inner()), moved_value(value, by)))
        .collect()
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let bytes = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved(table, by)),
        DeValue::Array(items) => {
            let mut all = DeArray::new();
            items.into_iter().for_each(|item| all.push(moved_value(item, by)));
            DeValue::Array(all)
        }
        other => other,
    };
    Spanned::new(bytes.start + by..bytes.end + by, value)
}

/// Whether these bytes belong to a value. What is merged may stand outside of the table that it is in.
pub(super) fn holds(value: &Spanned<DeValue<'_>>, bytes: &Range<usize>) -> bool {
    let own = value.span();
    own.start <= bytes.start && bytes.end <= own.end
        || match value.get_ref() {
            DeValue::Table(table) => table.values().any(|value| holds(value, bytes)),
            DeValue::Array(items) => items.iter().any(|value| holds(value, bytes)),
            _ => false,
        }
}

/// Lays a table over what is there of it so far.
pub(super) fn lay_over<'i>(below: &mut Option<Table<'i>>, over: Table<'i>) {
    match below {
        Some(below) => merge(below.get_mut(), over.into_inner()),
        None => *below = Some(over),
    }
}

fn merge<'i>(below: &mut DeTable<'i>, over: DeTable<'i>) {
    for (key, value) in over {
        // The key goes as well, for its place is that of the value.
        match (below.remove(&key).map(|below| (below.span(), below.into_inner())), value.span(), value.into_inner()) {
            (Some((bytes, DeValue::Table(mut table))), _, DeValue::Table(over)) => {
                merge(&mut table, over);
                below.insert(key, Spanned::new(bytes, DeValue::Table(table)));
            }
            (_, bytes, value) => {
                below.insert(key, Spanned::new(bytes, value));
            }
        }
    }
}

/// Gives each table that extends another what it has not itself.
pub(super) fn extend(reader: &mut Reader<'_>, tables: &mut BTreeMap<Address, Table<'_>>) {
    let extending = |address: &Address, tables: &BTreeMap<Address, Table<'_>>| {
        let value = tables.get(address)?.get_ref().get("extends")?;
        Some((value.get_ref().as_str()?.to_owned(), value.span()))
    };
    let extensible: Vec<Address> = tables.keys().filter(|it| EXTENSIBLE.contains(&it.kind)).cloned().collect();
    let mut done = HashSet::new();
    for address in extensible {
        // From it to what it extends, and on, as far as that is not whole yet.
        let mut chain = vec![address];
        let mut seen: HashSet<Address> = chain.iter().cloned().collect();
        let mut broken = false;
        while let Some(last) = chain.last().filter(|last| !done.contains(*last)).cloned()
            && let Some((base, bytes)) = extending(&last, tables)
        {
            broken = true;
            if reader.failed.contains(&bytes) {
                break;
            }
            let place = reader.span(bytes);
            let found = base.parse::<Name>().ok().map(|name| Address::new(last.kind, name));
            match found.filter(|base| tables.contains_key(base)) {
                None => {
                    let error = Diagnostic::error(format!("there is no `{}.{base}` to extend", last.kind)).at(place);
                    let names = tables.keys().filter(|it| it.kind == last.kind && **it != last);
                    reader.report(match did_you_mean(&base, names.map(|it| it.name.as_str())) {
                        Some(near) => error.help(format!("did you mean `{near}`?")),
                        None => error.help(format!("declare it: `[{}.{base}]`", last.kind)),
                    });
                    break;
                }
                Some(base) if !seen.insert(base.clone()) => {
                    let way: Vec<String> = chain.iter().chain([&base]).map(|it| format!("`{}`", it.name)).collect();
                    reader.report(
                        Diagnostic::error(format!("{}s extend each other in a circle: {}", last.kind, way.join(" → ")))
                            .code("extends-circle")
                            .at(place)
                            .help("take `extends` out of one of them"),
                    );
                    break;
                }
                Some(base) => {
                    broken = reader.source().incomplete.contains(&base.to_string());
                    chain.push(base);
                }
            }
        }
        if broken {
            reader.source().incomplete.extend(chain.iter().map(Address::to_string));
        }
        for pair in chain.windows(2).rev() {
            let [derived, base] = pair else { continue };
            // What is on a circle has been told of.
            let (Some(mut below), Some(over)) = (tables.get(base).cloned(), tables.get_mut(derived)) else { continue };
            for word in OWN {
                below.get_mut().remove(word);
            }
            let own = std::mem::replace(over, below);
            *over = Spanned::new(own.span(), std::mem::take(over.get_mut()));
            merge(over.get_mut(), own.into_inner());
        }
        done.extend(chain);
    }
}
