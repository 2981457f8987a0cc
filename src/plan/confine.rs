//! The part of a plan that concerns some resources alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::Address;
use crate::blueprint::key::ObjectKey;
use crate::blueprint::object::Object;
use crate::plan::diff::Change;
use crate::plan::world::{Record, Recorded};

/// What each recorded object needs.
pub(super) type Needs = BTreeMap<ObjectKey, BTreeSet<ObjectKey>>;

/// What the records say.
pub(super) fn needs(recorded: &Recorded) -> Needs {
    recorded.records.iter().map(|(key, record)| (key.clone(), record.needs())).collect()
}

/// The changes of some resources, of all that these need, and of what only they needed and nobody will.
pub(super) fn confine(changes: Vec<Change>, to: &BTreeSet<Address>, needs: &Needs) -> Vec<Change> {
    let by_key: BTreeMap<&ObjectKey, &Change> = changes.iter().map(|change| (&change.key, change)).collect();
    let mut open: Vec<&Change> = changes.iter().filter(|change| to.contains(&change.address)).collect();
    let mut chosen: BTreeSet<ObjectKey> = BTreeSet::new();
    let mut left: BTreeSet<ObjectKey> = BTreeSet::new();
    while let Some(change) = open.pop() {
        if chosen.insert(change.key.clone()) {
            let needed = change.want.iter().flat_map(Object::needs);
            open.extend(needed.filter_map(|need| by_key.get(&need).copied()));
            left.extend(change.made.iter().flat_map(Record::needs));
        }
    }
    let is_used = |key: &ObjectKey| needs.iter().any(|(user, needs)| !chosen.contains(user) && needs.contains(key));
    left.retain(|key| by_key.get(key).is_some_and(|change| change.want.is_none()) && !is_used(key));
    chosen.extend(left);
    changes.into_iter().filter(|change| chosen.contains(&change.key)).collect()
}
