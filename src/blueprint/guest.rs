//! What a running guest runs with, and what it can take as it runs.
//!
//! A domain can be defined anew under its guest, which then goes on as what it was started with. What it runs with is seen
//! on the host and written nowhere, so it is never out of date.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::blueprint::disk::{Bus, DomainDisk};
use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::key::ObjectKind;
use crate::blueprint::object::{Domain, FOREIGN, Object};

/// What a running guest runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// What its domain was when it was started, in the words of [`Object::facts`](crate::blueprint::object::Object::facts).
    pub facts: Facts,
    /// Its interfaces, each as [`Nic::fact`](crate::blueprint::object::Nic::fact), in the order in which it got them.
    pub nics: Vec<String>,
    /// Its disks beside the root disk, by name.
    pub disks: BTreeMap<String, GuestDisk>,
    /// Whether it has a controller for SCSI disks.
    pub has_scsi: bool,
    /// How many devices more it can take.
    pub free_slots: usize,
    /// What of its definition it becomes only when it is started again, as names of facts.
    pub pending: Vec<String>,
}

/// A disk of a running guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDisk {
    /// How it is attached, as [`DomainDisk::fact`].
    pub attached: String,
    /// What it is, as [`DomainDisk::source`].
    pub source: String,
    /// Whether the guest can be made to let go of it, as [`DomainDisk::is_detachable`].
    pub is_detachable: bool,
}

impl GuestDisk {
    /// A disk of a guest that was started so.
    pub fn of(disk: &DomainDisk) -> Self {
        Self { attached: disk.fact(), source: disk.source(), is_detachable: disk.is_detachable() }
    }
}

/// What of the devices of a domain its running guest can be given as it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes {
    /// Its interfaces.
    pub nics: bool,
    /// Its disks.
    pub disks: bool,
}

/// How many devices more a guest can take of which nothing else is known: what every one can when it starts.
const FREE_SLOTS: usize = 3;

impl Guest {
    /// The guest of a domain that was started as this, with nothing that waits.
    pub fn started_as(domain: &Domain) -> Self {
        let disks = domain.disks.iter().map(|disk| (disk.volume.label().to_string(), GuestDisk::of(disk)));
        Self {
            facts: Object::Domain(domain.clone()).facts(),
            nics: domain.nic_facts(),
            disks: disks.collect(),
            has_scsi: true,
            free_slots: FREE_SLOTS,
            pending: Vec::new(),
        }
    }

    /// Whether it was started by others, from a definition of theirs: it is let go on as it is until it is started again.
    pub fn is_foreign(&self) -> bool {
        self.facts.get("definition").is_some_and(|definition| definition == FOREIGN)
    }

    /// Whether it can be given these interfaces and disks as it runs: some more, or some less.
    ///
    /// Not so if interfaces come in another order, or one goes for another: whoever is in the guest would have to set the
    /// new one up by the old one, which is gone. Disks are known by their names, and come in any order; one that is to be
    /// attached in another way does not go and come again, for the guest may have it mounted.
    pub fn takes(&self, nics: &[String], disks: &[DomainDisk]) -> Takes {
        if self.is_foreign() {
            return Takes::default();
        }
        let nics = match nics.strip_prefix(self.nics.as_slice()) {
            Some(more) => Some(more.len()),
            None => {
                let mut has = self.nics.iter();
                nics.iter().all(|nic| has.any(|its| its == nic)).then_some(0)
            }
        };
        let disks = self.slots_for(disks);
        let all = nics.unwrap_or(0) + disks.unwrap_or(0);
        let fits = |slots: Option<usize>| slots.is_some_and(|slots| slots == 0 || all <= self.free_slots);
        Takes { nics: fits(nics), disks: fits(disks) }
    }

    /// How many slots these disks take beside those that it has; none if they cannot come, or others not go.
    fn slots_for(&self, disks: &[DomainDisk]) -> Option<usize> {
        let mut slots = 0;
        let mut has_scsi = self.has_scsi;
        for disk in disks {
            match self.disks.get(disk.volume.label().as_str()) {
                Some(its) if its.source == disk.source() && its.attached == disk.fact() => continue,
                Some(its) if its.source == disk.source() || !its.is_detachable => return None,
                _ => {}
            }
            match disk.attachment.bus {
                Bus::Virtio => slots += 1,
                Bus::Scsi => slots += usize::from(!std::mem::replace(&mut has_scsi, true)),
                Bus::Sata => return None,
            }
        }
        let stays = |label: &String| disks.iter().any(|disk| disk.volume.label().as_str() == label);
        self.disks.iter().all(|(label, its)| its.is_detachable || stays(label)).then_some(slots)
    }

    /// Whether it can be brought to the wanted size, by this fact, as it runs: to more processors, and to more or less
    /// memory, up to the maximum that it was started with. It does not give a processor back that it booted with.
    pub fn resizes(&self, fact: &str, wanted: &Domain) -> bool {
        if self.is_foreign() {
            return false;
        }
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
            && !matches!(name.as_ref(), "power" | "definition" | "disks")
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
    use crate::address::VolumeId;
    use crate::blueprint::object::{Attachment, DiskFormat};

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
            assert_eq!(guest(has).takes(&list(wants), &[]).nics, takes, "from {has} to {wants}");
        }
    }
    #[test]
    fn disks_come_and_go_and_share_the_slots_with_interfaces() {
        let disk = |label: &str, bus| DomainDisk {
            volume: VolumeId::Own(label.parse().expect("a name")),
            path: format!("/{label}").into(),
            format: DiskFormat::Qcow2,
            base: None,
            target: "vdb".into(),
            attachment: Attachment { bus, ..Attachment::default() },
        };
        let (a, b, scsi, sata) =
            (disk("a", Bus::Virtio), disk("b", Bus::Virtio), disk("c", Bus::Scsi), disk("d", Bus::Sata));
        let swap = disk("swap", Bus::Virtio);
        let elsewhere = DomainDisk { path: "/elsewhere".into(), ..a.clone() };
        let (none, again) = (Vec::new(), DomainDisk { target: "vdc".into(), ..a.clone() });
        let all = [&a, &b, &scsi, &sata, &swap];
        for (has, wants, free_slots, takes) in [
            (vec![], vec![&a], 1, true),
            (vec![], vec![&a], 0, false),
            (vec![], vec![&a, &b], 1, false),
            (vec![&a], vec![&b, &a], 1, true),
            (all.to_vec(), all.to_vec(), 0, true),
            (vec![&a, &b], vec![&b], 0, true),
            (vec![], vec![&scsi], 1, true),
            (vec![], vec![&scsi], 0, false),
            (vec![], vec![&sata], 4, false),
            (vec![&sata], none.clone(), 4, false),
            (vec![&swap], none.clone(), 4, false),
            (vec![], vec![&swap], 4, true),
            (vec![&a], vec![&again], 4, false),
            (vec![&a], vec![&elsewhere], 4, true),
        ] {
            let disks = has.iter().map(|disk: &&DomainDisk| (disk.volume.label().to_string(), GuestDisk::of(disk)));
            let guest = Guest { disks: disks.collect(), free_slots, ..Guest::default() };
            let wants: Vec<DomainDisk> = wants.into_iter().cloned().collect();
            assert_eq!(guest.takes(&[], &wants).disks, takes, "from {has:?} to {wants:?} with {free_slots}");
        }
        let guest = Guest { free_slots: 1, ..Guest::default() };
        assert_eq!(guest.takes(&["nic".into()], &[a]), Takes { nics: false, disks: false }, "only one of them fits");
        assert!(Guest { has_scsi: true, ..Guest::default() }.takes(&[], &[scsi]).disks);
    }
}
