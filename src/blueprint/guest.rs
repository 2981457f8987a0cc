//! What a running guest runs with, and what it can take as it runs.
//!
//! A domain can be defined anew under its guest, which then goes on as what it was started with. What it runs with is seen
//! on the host and written nowhere, so it is never out of date.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::key::ObjectKind;
use crate::blueprint::object::Domain;

/// What a running guest runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// What its domain was when it was started, in the words of [`Object::facts`](crate::blueprint::object::Object::facts).
    pub facts: Facts,
    /// Its interfaces, each as [`Nic::fact`](crate::blueprint::object::Nic::fact), in the order in which it got them.
    pub nics: Vec<String>,
    /// How many devices more it can take.
    pub free_slots: usize,
    /// What of its definition it becomes only when it is started again, as names of facts.
    pub pending: Vec<String>,
}

impl Guest {
    /// Whether it can be given these interfaces as it runs: some more, or some less.
    ///
    /// Not so if they come in another order, or one goes for another: whoever is in the guest would have to set the new
    /// one up by the old one, which is gone.
    pub fn takes(&self, nics: &[String]) -> bool {
        match nics.strip_prefix(self.nics.as_slice()) {
            Some(more) => more.len() <= self.free_slots,
            None => {
                let mut has = self.nics.iter();
                nics.iter().all(|nic| has.any(|its| its == nic))
            }
        }
    }

    /// Whether it can be brought to the wanted size, by this fact, as it runs: to more processors, and to more or less
    /// memory, up to the maximum that it was started with. It does not give a processor back that it booted with.
    pub fn resizes(&self, fact: &str, wanted: &Domain) -> bool {
        let was_started_with = |name, most: String| self.facts.get(name) == Some(&most);
        match fact {
            "vcpus" => {
                let has: Option<u32> = self.facts.get("vcpus").and_then(|has| has.parse().ok());
                wanted.max_vcpus.is_some_and(|most| was_started_with("max_vcpus", most.to_string()))
                    && has.is_some_and(|has| has <= wanted.vcpus)
            }
            "memory" => wanted.max_memory.is_some_and(|most| was_started_with("max_memory", most.to_string())),
            _ => false,
        }
    }
}

/// What a guest with these facts and interfaces lacks of its definition until it is started again.
pub fn pending(facts: &Facts, nics: &[String], defined: &Facts, defined_nics: &[String]) -> Vec<String> {
    let mut names: BTreeSet<&Cow<'static, str>> = facts.keys().chain(defined.keys()).collect();
    names.retain(|name| {
        ObjectKind::Domain.disruption(name) >= Disruption::Reboot
            && !matches!(name.as_ref(), "power" | "definition")
            && !name.starts_with("nic.")
            && facts.get(*name) != defined.get(*name)
    });
    let mut pending: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if nics != defined_nics {
        pending.push("interfaces".into());
    }
    if pending.is_empty() && facts.get("definition") != defined.get("definition") {
        pending.push("definition".into());
    }
    pending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_come_and_go_but_do_not_change_places() {
        let list = |nics: &str| nics.chars().map(String::from).collect::<Vec<_>>();
        let guest = |nics| Guest { nics: list(nics), free_slots: 2, ..Guest::default() };
        for (has, wants, takes) in [
            ("a", "a", true),
            ("a", "ab", true),
            ("a", "abc", true),
            ("a", "abcd", false),
            ("abc", "ac", true),
            ("abc", "c", true),
            ("abc", "", true),
            ("ab", "ba", false),
            ("ab", "b", true),
            ("a", "ba", false),
            ("a", "b", false),
            ("ab", "ac", false),
        ] {
            assert_eq!(guest(has).takes(&list(wants)), takes, "from {has} to {wants}");
        }
    }
}
