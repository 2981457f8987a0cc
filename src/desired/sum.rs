//! What the tables of a spec ask for in sum, as people can check it.

use std::collections::BTreeMap;

use crate::address::Address;
use crate::desired::Server;

/// What one table asks for: so many times so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The table.
    pub table: Address,
    /// How many it makes.
    pub count: u64,
    /// What each of these asks for.
    pub each: u64,
}

impl Part {
    /// What it asks for in all.
    pub fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// How many tables are named; the rest is summed up.
const NAMED: usize = 3;

/// What servers ask for, by table, the largest first.
pub fn by_table<'s>(servers: impl IntoIterator<Item = &'s Server>, each: impl Fn(&Server) -> u64) -> Vec<Part> {
    let mut tables: BTreeMap<&Address, Part> = BTreeMap::new();
    for server in servers {
        let part = || Part { table: server.declared.clone(), count: 0, each: each(server) };
        tables.entry(&server.declared).or_insert_with(part).count += 1;
    }
    largest_first(tables.into_values())
}

/// The parts that ask for something, the largest first.
pub fn largest_first(parts: impl IntoIterator<Item = Part>) -> Vec<Part> {
    let mut parts: Vec<Part> = parts.into_iter().filter(|part| part.total() > 0).collect();
    parts.sort_by_key(|part| (std::cmp::Reverse(part.total()), part.table.clone()));
    parts
}

/// All of it together.
pub fn total(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |sum, part| sum.saturating_add(part.total()))
}

/// The parts that are named.
pub fn named(parts: &[Part]) -> &[Part] {
    &parts[..parts.len().min(NAMED)]
}

/// The sum as it is written down: `server.web 3 × 2 + server.db 4 + 5 more 7`.
pub fn arithmetic(parts: &[Part], show: impl Fn(u64) -> String) -> String {
    let named = named(parts);
    let rest = &parts[named.len()..];
    let mut terms: Vec<String> = named
        .iter()
        .map(|part| match (part.count, part.each) {
            (1, each) => format!("{} {}", part.table, show(each)),
            (count, 1) => format!("{} {}", part.table, show(count)),
            (count, each) => format!("{} {count} × {}", part.table, show(each)),
        })
        .collect();
    if !rest.is_empty() {
        terms.push(format!("{} more {}", rest.len(), show(total(rest))));
    }
    terms.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::ResourceKind;

    #[test]
    fn a_sum_names_the_largest_and_adds_up_the_rest() {
        let part = |name: &str, count, each| {
            let table = Address::new(ResourceKind::Server, name.parse().expect("a name"));
            Part { table, count, each }
        };
        let parts =
            [part("a", 1, 1), part("b", 3, 2), part("c", 5, 1), part("d", 1, 4), part("e", 2, 1), part("f", 9, 0)];
        let parts = largest_first(parts);
        assert_eq!(total(&parts), 18);
        assert_eq!(arithmetic(&parts, |it| it.to_string()), "server.b 3 × 2 + server.c 5 + server.d 4 + 2 more 3");
        assert_eq!(arithmetic(&parts[..1], |it| format!("{it} GiB")), "server.b 3 × 2 GiB");
    }
}
