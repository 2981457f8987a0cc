//! Volumes that a domain gives up: to another, or to be made anew.
//!
//! It does so before all else, and its guest goes on. Only where the guest cannot be made to let go is it taken down.

use std::collections::{BTreeMap, BTreeSet};

use crate::blueprint::disk::DomainDisk;
use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::guest::Guest;
use crate::blueprint::key::{ObjectKey, ObjectKind, volume_key};
use crate::blueprint::object::{Object, Power};
use crate::plan::diff::{Action, Change, is_running};
use crate::plan::world::{Observed, Record};

/// What a domain gives up, and how.
#[derive(Default)]
pub(super) struct GivenUp {
    /// The volumes that it gives up by itself, and its guest with it if it runs.
    pub releases: Vec<ObjectKey>,
    /// A volume that is made anew and of which the guest cannot be made to let go, with what that takes.
    pub stuck: Option<(Disruption, ObjectKey)>,
}

/// What a domain gives up: volumes that it is not to have any more, and those that are made anew.
pub(super) fn given_up(
    want: Option<&Object>,
    made: Option<&Record>,
    remade: &BTreeMap<ObjectKey, Action>,
    seen: Option<&Facts>,
    guest: Option<&Guest>,
) -> GivenUp {
    let mut given_up = GivenUp::default();
    let (Some(Object::Domain(want)), Some(made)) = (want, made) else { return given_up };
    let wanted: BTreeSet<ObjectKey> = want.disks.iter().map(|disk| volume_key(&disk.volume)).collect();
    let mut looked_at = BTreeSet::new();
    for disk in disks(made) {
        let key = volume_key(&disk.volume);
        // One that is gone from the host is gone from under a guest alone.
        let is_remade = match remade.get(&key) {
            Some(Action::Replace) => true,
            Some(_) => is_running(seen),
            None => false,
        };
        if !looked_at.insert(key.clone()) || wanted.contains(&key) && !is_remade {
            continue;
        }
        if lets_go(disk, seen, guest) {
            given_up.releases.push(key);
        } else if is_remade && wanted.contains(&key) {
            given_up.stuck = Some((Disruption::Reboot, key));
        }
    }
    given_up
}

/// The disks that a domain may have by its record.
fn disks(made: &Record) -> impl Iterator<Item = &DomainDisk> {
    made.traces().flat_map(|made| match made {
        Object::Domain(made) => made.disks.as_slice(),
        _ => &[],
    })
}

/// Whether nobody runs with a disk, or who does can be made to let go of it.
fn lets_go(disk: &DomainDisk, seen: Option<&Facts>, guest: Option<&Guest>) -> bool {
    if !is_running(seen) {
        return true;
    }
    // A guest that is paused does not hear that it should.
    let hears = seen.and_then(|seen| seen.get("power")).is_some_and(|power| power.starts_with(Power::On.as_str()));
    let has = guest.map(|guest| guest.disks.get(disk.volume.label().as_str()));
    has.is_some_and(|has| has.is_none_or(|has| hears && has.is_detachable))
}

/// Where a guest cannot be made to let go of a volume that another is to have, or that goes, it is taken down before.
pub(super) fn hand_over_volumes(changes: &mut [Change], seen: &Observed) {
    let mut needed: BTreeMap<ObjectKey, BTreeSet<ObjectKey>> = BTreeMap::new();
    for change in changes.iter() {
        match (change.key.kind, &change.want) {
            (ObjectKind::Domain, Some(Object::Domain(want))) => {
                for disk in &want.disks {
                    needed.entry(volume_key(&disk.volume)).or_default().insert(change.key.clone());
                }
            }
            (ObjectKind::Volume, _) if matches!(change.action, Action::Delete | Action::Replace) => {
                needed.entry(change.key.clone()).or_default().insert(change.key.clone());
            }
            _ => {}
        }
    }
    for change in changes.iter_mut() {
        let (Some(Object::Domain(want)), Some(made), Action::Update) = (&change.want, &change.made, change.action)
        else {
            continue;
        };
        let keeps = |key: &ObjectKey| want.disks.iter().any(|disk| volume_key(&disk.volume) == *key);
        let is_needed =
            |key: &ObjectKey| needed.get(key).is_some_and(|others| others.iter().any(|other| *other != change.key));
        let (facts, guest) = (seen.objects.get(&change.key), seen.guests.get(&change.key));
        let is_stuck = disks(made).any(|disk| {
            let key = volume_key(&disk.volume);
            !keeps(&key) && is_needed(&key) && !lets_go(disk, facts, guest)
        });
        if is_stuck {
            change.take_down();
        }
    }
}
