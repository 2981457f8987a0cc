//! What the host has against what was recorded. The spec has no say in it, so no edit of it shows up here.

use std::borrow::Cow;

use crate::address::Address;
use crate::blueprint::key::ObjectKey;
use crate::blueprint::object::{Object, Power};
use crate::plan::world::{Observed, Recorded, Status};

/// All in which a host differs from the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// What is gone or changed, by key.
    pub objects: Vec<Drifted>,
    /// What a run that did not end has left: what is to be there of it is not certain, so it is not compared.
    pub unfinished: Vec<ObjectKey>,
    /// What carries our mark and is in no record.
    pub unrecorded: Vec<ObjectKey>,
}

/// One object that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    /// The object.
    pub key: ObjectKey,
    /// The resource it belongs to.
    pub address: Address,
    /// It as it was recorded.
    pub made: Object,
    /// In what it differs; none where it is gone.
    pub fields: Option<Vec<DriftedField>>,
}

/// One attribute that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftedField {
    /// The attribute, as in [`Object::facts`].
    pub name: Cow<'static, str>,
    /// What was recorded.
    pub recorded: String,
    /// What the host has.
    pub seen: String,
}

impl Drift {
    /// Compares what was made with what is there.
    pub fn new(recorded: &Recorded, observed: &Observed) -> Self {
        let mut drift = Self::default();
        for (key, record) in &recorded.records {
            if record.status == Status::Intended {
                drift.unfinished.push(key.clone());
                continue;
            }
            let fields = match observed.objects.contains_key(key) {
                true => Some(fields(key, &record.object, observed)),
                false => None,
            };
            if fields.as_ref().is_none_or(|fields| !fields.is_empty()) {
                let address = record.object.address();
                drift.objects.push(Drifted { key: key.clone(), address, made: record.object.clone(), fields });
            }
        }
        let known = |key: &&ObjectKey| recorded.records.contains_key(*key);
        drift.unrecorded = observed.objects.keys().filter(|key| !known(key)).cloned().collect();
        drift
    }

    /// Whether all that was made is as it was made.
    pub fn is_none(&self) -> bool {
        self.objects.is_empty()
    }
}

/// As in a plan, only what both sides tell is compared: see [`Facts`](crate::blueprint::facts::Facts).
fn fields(key: &ObjectKey, made: &Object, observed: &Observed) -> Vec<DriftedField> {
    let Some(seen) = observed.objects.get(key) else { return Vec::new() };
    let unmanaged = made.as_domain().is_some_and(|domain| domain.power == Power::Unmanaged);
    let mut fields = Vec::new();
    for (name, recorded) in made.facts() {
        // What others do with such a guest is their business.
        let is_free = name == "power" && unmanaged;
        if let Some(seen) = seen.get(&name).filter(|seen| **seen != recorded && !is_free) {
            fields.push(DriftedField { name, recorded, seen: seen.clone() });
        }
    }
    fields
}
