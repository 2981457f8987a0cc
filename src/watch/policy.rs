//! What of a plan may go ahead with nobody there, and what waits for a person.
//!
//! The rule fits in a sentence: nothing is taken away, made anew or disturbed beyond `--max-disruption` unless somebody has
//! said yes to it. It looks at changes alone; that what depends on them waits too is the work of
//! [`Plan::confine`](crate::plan::Plan::confine).

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, VolumeId};
use crate::blueprint::facts::Disruption;
use crate::blueprint::object::Object;
use crate::plan::diff::Change;
use crate::plan::world::Record;
use crate::plan::{Action, Plan, Reason};

/// What goes without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules<'a> {
    /// The most that a guest may notice.
    pub max_disruption: Disruption,
    /// The servers that may be rebooted just now, in a window that was set for that.
    pub reboots_now: &'a BTreeSet<Address>,
}

/// Why a change waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It takes an object away that the spec does not have any more.
    Destroys,
    /// It takes an object away and makes another in its place.
    Replaces,
    /// The spec says, or said, that it is not to be taken away (`prevent_destroy`). No approval is enough for that.
    Guarded,
    /// A disk is not there that was made, as when its file system is not mounted: an empty one would take its place.
    DataIsGone,
    /// A guest that runs would have a disk no more, which it may be writing to.
    Detaches,
    /// A guest would be rebooted.
    Reboots,
    /// A guest would notice more than it may.
    Disturbs,
}

impl Why {
    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Destroys => "would be destroyed",
            Self::Replaces => "would be replaced",
            Self::Guarded => "has `prevent_destroy`, and would be destroyed or replaced",
            Self::DataIsGone => "is gone with what was in it, and an empty one would take its place",
            Self::Detaches => "would have to give up a disk as it runs",
            Self::Reboots => "needs a reboot",
            Self::Disturbs => "disturbs more than `--max-disruption` lets it",
        }
    }

    /// Whether something is lost by it. Of these, no more than some go at once.
    pub const fn loses(self) -> bool {
        match self {
            Self::Destroys | Self::Replaces | Self::Guarded | Self::DataIsGone => true,
            Self::Detaches | Self::Reboots | Self::Disturbs => false,
        }
    }
}

/// Why this change waits; none if it may go ahead.
pub fn why(change: &Change, rules: Rules<'_>) -> Option<Why> {
    let by_action = match change.action {
        Action::Delete => Some(Why::Destroys),
        Action::Replace | Action::CreateThenDelete => Some(Why::Replaces),
        Action::Create => {
            let held_data = change.want.as_ref().is_some_and(Object::is_worth_keeping);
            (change.reason == Reason::Vanished && held_data).then_some(Why::DataIsGone)
        }
        Action::Update => detaches(change).then_some(Why::Detaches),
        // These change records alone: what is forgotten is gone or stays as it is.
        Action::Record | Action::Forget | Action::Disown => None,
    };
    by_action.or_else(|| match change.cost() {
        cost if cost <= rules.max_disruption => None,
        Disruption::Reboot if rules.reboots_now.contains(&change.address) => None,
        Disruption::Reboot => Some(Why::Reboots),
        Disruption::None | Disruption::Live | Disruption::Replace => Some(Why::Disturbs),
    })
}

/// Whether a guest that runs has a disk that it is to have no more.
fn detaches(change: &Change) -> bool {
    let Some(want) = change.want.as_ref().and_then(Object::as_domain).filter(|_| change.cost() > Disruption::None)
    else {
        return false;
    };
    let keeps: BTreeSet<&VolumeId> = want.disks.iter().map(|disk| &disk.volume).collect();
    let made = change.made.iter().flat_map(Record::traces).filter_map(Object::as_domain);
    !change.releases.is_empty() || made.flat_map(|it| &it.disks).any(|disk| !keeps.contains(&disk.volume))
}

/// The resources of which a change waits, each with the reasons. `approved` tells of changes that somebody said yes to.
pub fn held(plan: &Plan, rules: Rules<'_>, approved: impl Fn(&Change) -> bool) -> BTreeMap<Address, BTreeSet<Why>> {
    let mut held: BTreeMap<Address, BTreeSet<Why>> = BTreeMap::new();
    for change in &plan.changes {
        if let Some(why) = why(change, rules).filter(|_| !approved(change)) {
            held.entry(change.address.clone()).or_default().insert(why);
        }
    }
    for address in &plan.refused {
        held.entry(address.clone()).or_default().insert(Why::Guarded);
    }
    held
}

/// The resources that wait for nothing but a window.
pub fn wait_for_window(held: &BTreeMap<Address, BTreeSet<Why>>) -> BTreeSet<Address> {
    held.iter().filter(|(_, why)| why.iter().eq([&Why::Reboots])).map(|(address, _)| address.clone()).collect()
}
