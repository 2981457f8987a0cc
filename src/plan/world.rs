//! What was made and what is there: the two things a blueprint is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{Name, PortId};
use crate::blueprint::facts::Facts;
use crate::blueprint::guest::Guest;
use crate::blueprint::key::{ObjectKey, ObjectKind, project_of_table};
use crate::blueprint::object::{Claim, Object};
use crate::value::Mac;

/// How far the making of a recorded object got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Work on it was begun. The host may hold nothing, a part, or all of it.
    Intended,
    /// It was made.
    Present,
}

/// What is written down of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The object as it was, or is to be, made.
    pub object: Object,
    /// How far that got.
    pub status: Status,
    /// What stood under this key before, as long as the record is only intended: the host may still hold it, with all
    /// that it needs and claims. Empty once present.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Object>,
    /// Whether no plan may take the object away, though the spec has it no more (Terraform's `prevent_destroy`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prevent_destroy: bool,
}

impl Record {
    /// The record of an object that is there.
    pub fn present(object: Object) -> Self {
        Self { object, status: Status::Present, previous: Vec::new(), prevent_destroy: false }
    }

    /// The record of an object that is about to be made, where `before` is what is recorded now.
    pub fn intended(object: Object, before: Option<&Record>) -> Self {
        let mut previous: Vec<Object> = Vec::new();
        if let Some(before) = before {
            for old in before.previous.iter().chain([&before.object]) {
                if *old != object && !previous.contains(old) {
                    previous.push(old.clone());
                }
            }
        }
        Self { object, status: Status::Intended, previous, prevent_destroy: false }
    }

    /// The same record, whether no plan may take its object away or any may.
    #[must_use]
    pub fn guarded(self, prevent_destroy: bool) -> Self {
        Self { prevent_destroy, ..self }
    }

    /// The object, and all that may still stand in its place.
    pub fn traces(&self) -> impl Iterator<Item = &Object> {
        self.previous.iter().chain([&self.object])
    }

    /// All that the object, or what stood in its place, needs.
    pub fn needs(&self) -> BTreeSet<ObjectKey> {
        self.traces().flat_map(Object::needs).collect()
    }

    /// All that the object, or what stood in its place, claims.
    pub fn claims(&self) -> BTreeSet<Claim> {
        self.traces().flat_map(Object::claims).collect()
    }
}

/// Everything that was made and not yet taken away, as the store tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Grows by one with each write.
    pub serial: u64,
    /// The records, by key.
    pub records: BTreeMap<ObjectKey, Record>,
}

impl Recorded {
    /// The project that the records are of, where one of them tells.
    pub fn project(&self) -> Option<Name> {
        let of_domain = self.records.values().find_map(|record| record.object.as_domain().map(|it| it.project.clone()));
        let mut tables = self.records.keys().filter(|key| key.kind == ObjectKind::Firewall);
        of_domain.or_else(|| tables.find_map(|key| project_of_table(&key.id)))
    }
}

/// A file that a guest has in place of a disk of ours, over which it lies: an external snapshot of libvirt's was made. What
/// the guest has written since is in this file alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// What the guest has.
    pub file: PathBuf,
    /// The disk of ours that it lies over, perhaps with others in between.
    pub disk: PathBuf,
    /// Where it is plugged in, as `vda`.
    pub target: String,
}

/// A domain of others that is to be taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The name or the UUID that the spec knows it by.
    pub id: String,
    /// The MAC addresses of its interfaces, by the ports that these are to be.
    pub macs: BTreeMap<PortId, Mac>,
    /// Its definition, as the host has it.
    pub definition: String,
    /// In what it differs from the server that it is to be, as far as no fact tells that.
    pub differing: Vec<Differing>,
}

/// In what a domain of others differs from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The field of the domain: `devices/interface[1]/vlan`, `cpu@mode`.
    pub field: String,
    /// What it is there, if it is.
    pub there: Option<String>,
    /// What it is of the server.
    pub here: Option<String>,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |told: &Option<String>| told.as_ref().map_or_else(|| "none".into(), |told| format!("`{told}`"));
        write!(f, "{}: {} there, {} here", self.field, side(&self.there), side(&self.here))
    }
}

/// What a host holds, as its adapters see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The objects that carry the mark of our project, with the facts that could be read, normalised: what the kernel or
    /// libvirt adds by itself is left out.
    pub objects: BTreeMap<ObjectKey, Facts>,
    /// What the guests run with that run in our domains.
    pub guests: BTreeMap<ObjectKey, Guest>,
    /// What others have laid over the disks of our domains.
    pub overlays: BTreeMap<ObjectKey, Vec<Overlay>>,
    /// The domains of others that are to be taken over, by the keys of those that they are to become. They are among the
    /// objects, as if they carried our mark.
    pub imports: BTreeMap<ObjectKey, Imported>,
    /// What is taken by things that do not carry our mark.
    pub foreign: BTreeSet<Claim>,
    /// The networks that the host is on by interfaces that do not carry our mark: interface, address and prefix length.
    pub foreign_networks: Vec<(String, IpNet)>,
}
