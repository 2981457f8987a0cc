//! The table that gives birth to every action: want × made × seen.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::blueprint::Blueprint;
use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::guest::Guest;
use crate::blueprint::key::{ObjectKey, ObjectKind, domain_key};
use crate::blueprint::object::{Claim, Domain, Object, Power};
use crate::plan::release;
use crate::plan::world::{Differing, Imported, Observed, Record, Recorded, Status};
use crate::value::ByteSize;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Make it.
    Create,
    /// It is there and as it should be; only the record is missing.
    Record,
    /// Change it where it stands.
    Update,
    /// Take it away and make it anew.
    Replace,
    /// Make it anew beside what stands there, which goes when its user has the new one.
    CreateThenDelete,
    /// Take it away.
    Delete,
    /// It is gone already; drop its record.
    Forget,
    /// Drop its record, and leave it as it is.
    Disown,
}

/// Why it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The spec has it and nothing else knows it.
    New,
    /// It carries our mark but is in no record.
    Found,
    /// It was made and is not there any more.
    Vanished,
    /// An earlier run began it and did not come to the end.
    Unfinished,
    /// The spec says something else than it did.
    Edited,
    /// The host has something else than was made.
    Drifted,
    /// What it is built on is changed or made anew under it.
    Follows(ObjectKey),
    /// The spec does not have it any more.
    Unneeded,
    /// The same, and it stays in the cache for its next use.
    Cached,
    /// The spec says that it is to be forgotten.
    Disowned,
    /// The spec says that it is what was recorded under another name.
    Moved,
    /// Somebody asked for it to be made anew.
    Requested,
    /// The spec says that it is a domain of others, by this name or UUID.
    Imported(String),
}

/// One attribute that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// The attribute, as in [`Object::facts`].
    pub name: Cow<'static, str>,
    /// What it is: as seen, or as recorded where it cannot be seen.
    pub before: Option<String>,
    /// What it is to be.
    pub after: Option<String>,
    /// Whether the host has something else than was made.
    pub drifted: bool,
    /// Whether the object cannot take this change where it stands.
    pub replaces: bool,
    /// What a running guest notices of it.
    pub disruption: Disruption,
}

/// What is to be done to one object, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object.
    pub key: ObjectKey,
    /// The resource it belongs to.
    pub address: Address,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What a running guest notices.
    pub disruption: Disruption,
    /// Whether the guest becomes what is wanted only when it is started again, and is not by this.
    pub deferred: bool,
    /// The volumes that a domain gives up before all else, for they go to others or are made anew.
    pub releases: Vec<ObjectKey>,
    /// What it is to be; none where it is to go.
    pub want: Option<Object>,
    /// What is recorded of it.
    pub made: Option<Record>,
    /// Whether no plan after this one may take it away.
    pub prevent_destroy: bool,
    /// The attributes that change, for an update or a replacement.
    pub fields: Vec<FieldChange>,
}

impl Change {
    /// The same change, with which the guest goes on as it is until it is started again, where that can be. A guest that
    /// is to be off, is on its way off or has to give up what others need cannot wait.
    #[must_use]
    pub fn defer(mut self) -> Self {
        let cannot_wait = |field: &FieldChange| field.name == "power" && field.disruption == Disruption::Reboot;
        if self.key.kind == ObjectKind::Domain
            && self.action == Action::Update
            && self.disruption == Disruption::Reboot
            && !self.fields.iter().any(cannot_wait)
        {
            (self.disruption, self.deferred) = (Disruption::Live, true);
        }
        self
    }

    /// The same change, for which the domain is taken down before and defined anew after.
    pub(super) fn take_down(&mut self) {
        self.action = Action::Replace;
        if self.disruption > Disruption::None {
            (self.disruption, self.deferred) = (self.disruption.max(Disruption::Reboot), false);
        }
    }

    /// The worst that it does to a guest, running or not: one that goes, or whose disk goes, is as good as replaced.
    pub fn cost(&self) -> Disruption {
        match (self.action, self.key.kind) {
            (Action::Delete, ObjectKind::Domain) => Disruption::Replace,
            (Action::Delete, _) if self.made.as_ref().is_some_and(|made| made.object.is_worth_keeping()) => {
                Disruption::Replace
            }
            _ => self.disruption,
        }
    }

    /// Whether it takes away what a resource is: its data, or itself. A domain that is made anew over its disk is none.
    pub fn destroys(&self) -> bool {
        match (self.key.kind, self.action) {
            (ObjectKind::Disk | ObjectKind::Volume | ObjectKind::Bridge, action) => {
                matches!(action, Action::Delete | Action::Replace | Action::CreateThenDelete)
            }
            (ObjectKind::Domain, action) => action == Action::Delete,
            (
                ObjectKind::Firewall | ObjectKind::Dhcp | ObjectKind::HostEntry | ObjectKind::Base | ObjectKind::Seed,
                _,
            ) => false,
        }
    }
}

/// Something that is not ours has what an object needs to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The object that cannot be made.
    pub key: ObjectKey,
    /// The resource it belongs to.
    pub address: Address,
    /// What is taken.
    pub claim: Claim,
}

/// All changes, all conflicts, and what is left alone.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// By key.
    pub changes: Vec<Change>,
    /// By key.
    pub conflicts: Vec<Conflict>,
    /// What carries our mark and is neither wanted nor recorded: not touched.
    pub left_alone: Vec<ObjectKey>,
}

/// Compares the three sides.
pub fn diff(want: Blueprint, made: Recorded, seen: &Observed) -> Difference {
    let Blueprint { objects: mut want, disowned, moved, requested, beside, guarded, .. } = want;
    let mut made = made.records;
    let disowned = disowned_keys(&disowned, &made);
    let keys: BTreeSet<ObjectKey> = want.keys().chain(made.keys()).cloned().collect();
    // An image in the cache waits to be of use, and is nobody's.
    let is_left = |key: &&ObjectKey| key.kind != ObjectKind::Base && !keys.contains(*key);
    let left_alone = seen.objects.keys().filter(is_left).cloned().collect();
    let mut difference = Difference { left_alone, ..Difference::default() };
    // What a domain stands on comes before it in the order of keys.
    let mut shaken: BTreeMap<ObjectKey, Disruption> = BTreeMap::new();
    let mut remade: BTreeMap<ObjectKey, Action> = BTreeMap::new();
    for key in keys {
        let (want, made, seen_facts) = (want.remove(&key), made.remove(&key), seen.objects.get(&key));
        if let Some(object) = &want
            && let Some(claim) = object.claims().into_iter().find(|claim| seen.foreign.contains(claim))
        {
            difference.conflicts.push(Conflict { key, address: object.address(), claim });
            continue;
        }
        if want.is_none() && disowned.contains(&key) {
            difference.changes.extend(made.map(|made| bookkeeping(key, Action::Disown, Reason::Disowned, None, made)));
            continue;
        }
        let renamed = moved.contains(&key).then(|| want.clone().zip(made.clone())).flatten();
        let guest = seen.guests.get(&key);
        let follows = match &want {
            Some(domain @ Object::Domain(_)) if !shaken.is_empty() => {
                domain.needs().into_iter().filter_map(|need| Some((*shaken.get(&need)?, need))).max()
            }
            _ => None,
        };
        let gives_up = release::given_up(want.as_ref(), made.as_ref(), &remade, seen_facts, guest);
        let asked = Asked {
            requested: requested.contains(&key),
            beside: beside.contains(&key),
            prevent_destroy: guarded.contains(&key),
            releases: gives_up.releases,
            imported: import_of(&key, seen),
        };
        let follows = follows.or(gives_up.stuck);
        let mut change = change(key.clone(), want, made, seen_facts, follows, guest, asked);
        if let Some(begun) = change.as_mut().filter(|it| it.reason == Reason::Unfinished && moved.contains(&key)) {
            begun.reason = Reason::Moved;
        }
        let noted = || renamed.map(|(want, made)| bookkeeping(key, Action::Record, Reason::Moved, Some(want), made));
        if let Some(change) = change.or_else(noted) {
            if change.key.kind == ObjectKind::Volume && matches!(change.action, Action::Create | Action::Replace) {
                remade.insert(change.key.clone(), change.action);
            }
            if let Some(disruption) = shakes(&change, seen) {
                shaken.insert(change.key.clone(), disruption);
            }
            difference.changes.push(change);
        }
    }
    hand_over_links(&mut difference.changes);
    release::hand_over_volumes(&mut difference.changes, seen);
    difference
}

/// The objects of the resources that are to be forgotten, and the images that they stand on.
fn disowned_keys(disowned: &BTreeSet<Address>, made: &BTreeMap<ObjectKey, Record>) -> BTreeSet<ObjectKey> {
    let records = made.iter().filter(|(_, record)| disowned.contains(&record.object.address()));
    records
        .flat_map(|(key, record)| {
            let under = record.needs().into_iter().filter(|need| need.kind == ObjectKind::Base);
            under.chain([key.clone()])
        })
        .collect()
}

/// A change of the records alone.
fn bookkeeping(key: ObjectKey, action: Action, reason: Reason, want: Option<Object>, made: Record) -> Change {
    Change {
        key,
        address: made.object.address(),
        action,
        reason,
        disruption: Disruption::None,
        deferred: false,
        releases: Vec::new(),
        want,
        prevent_destroy: made.prevent_destroy,
        made: Some(made),
        fields: Vec::new(),
    }
}

/// A port that goes from one server to another takes its tap along. A guest that still runs has it: so whoever gives one
/// away is taken down before, also where two exchange theirs.
fn hand_over_links(changes: &mut [Change]) {
    let is_link = |claim: &Claim| matches!(claim, Claim::Link(_));
    let mut takers: BTreeMap<Claim, ObjectKey> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.key.kind == ObjectKind::Domain) {
        let wanted = change.want.iter().flat_map(Object::claims).filter(is_link);
        takers.extend(wanted.map(|claim| (claim, change.key.clone())));
    }
    for change in changes.iter_mut() {
        let gives = |claim| takers.get(&claim).is_some_and(|taker| *taker != change.key);
        if change.key.kind == ObjectKind::Domain
            && change.action == Action::Update
            && change.made.iter().flat_map(Record::claims).filter(is_link).any(gives)
        {
            change.take_down();
        }
    }
}

/// What a change does to a running domain that stands on the object. A domain holds its disk open, and its guest goes on
/// with the address that it has until half the lease is over.
fn shakes(change: &Change, seen: &Observed) -> Option<Disruption> {
    match (change.key.kind, change.action) {
        (ObjectKind::Disk, Action::Create | Action::Replace) => Some(Disruption::Replace),
        // The domain goes from the old one to the new one by itself.
        (ObjectKind::Disk, Action::CreateThenDelete) => None,
        (ObjectKind::Disk, Action::Update) if grows_live(change, seen) => None,
        (ObjectKind::Disk, Action::Update) if !change.fields.is_empty() => Some(Disruption::Reboot),
        (ObjectKind::HostEntry, _) if is_readdressed(change) => Some(Disruption::Reboot),
        _ => None,
    }
}

/// Whether a disk only becomes larger, under a guest that runs from it.
fn grows_live(change: &Change, seen: &Observed) -> bool {
    let Some(Object::Disk(disk)) = &change.want else { return false };
    let domain = domain_key(&disk.server);
    let is = |facts: Option<&Facts>, name, value: &str| facts.and_then(|it| it.get(name)).is_some_and(|it| it == value);
    let guest = seen.guests.get(&domain).map(|guest| &guest.facts);
    let larger = |field: &FieldChange| {
        let before = field.before.as_ref().and_then(|size| size.parse::<ByteSize>().ok());
        field.name == "size" && before.is_some_and(|before| before < disk.size)
    };
    change.fields.iter().all(larger)
        && is(guest, "disk", &disk.path.display().to_string())
        && is(seen.objects.get(&domain), "power", "on")
}

/// Whether the guest of a host entry must give up an address that it has. An entry that was changed by hand is put right
/// under a guest that has the right address.
fn is_readdressed(change: &Change) -> bool {
    let (Some(Object::HostEntry(want)), Some(made)) = (&change.want, &change.made) else { return false };
    made.traces().any(|it| matches!(it, Object::HostEntry(before) if want.readdresses(before)))
}

/// What the blueprint asks of the making of an object.
#[derive(Clone, Debug)]
struct Asked {
    /// Somebody asked for it to be made anew.
    requested: bool,
    /// It is made beside what it replaces.
    beside: bool,
    /// No plan after this one may take it away.
    prevent_destroy: bool,
    /// The volumes that it gives up before all else.
    releases: Vec<ObjectKey>,
    /// The domain of others that it is, or is the disk of.
    imported: Option<Imported>,
}

/// One row of the table. `follows` is what the object stands on, and what a change of that does to it: a domain is taken
/// down before, and defined anew after.
fn change(
    key: ObjectKey,
    want: Option<Object>,
    made: Option<Record>,
    seen: Option<&Facts>,
    follows: Option<(Disruption, ObjectKey)>,
    guest: Option<&Guest>,
    asked: Asked,
) -> Option<Change> {
    let address = want.as_ref().or(made.as_ref().map(|record| &record.object))?.address();
    let intended = made.as_ref().is_some_and(|record| record.status == Status::Intended);
    let running = is_running(seen);
    let unmanaged = matches!(&want, Some(Object::Domain(domain)) if domain.power == Power::Unmanaged);
    // A domain that is off is only concerned by a disk that is another; so is one that others start and stop.
    let concerned = running && !unmanaged;
    let is_another = |(disruption, key): &(Disruption, ObjectKey)| {
        *disruption == Disruption::Replace || key.kind == ObjectKind::Volume
    };
    let follows = follows.filter(|it| concerned || is_another(it));
    let followed = follows.as_ref().filter(|_| running).map_or(Disruption::None, |(disruption, _)| *disruption);
    let (action, reason, fields) = match (&want, &made, seen) {
        (Some(_), None, None) => (Action::Create, Reason::New, Vec::new()),
        (Some(_), Some(_), None) if intended => (Action::Create, Reason::Unfinished, Vec::new()),
        (Some(_), Some(_), None) => (Action::Create, Reason::Vanished, Vec::new()),
        (Some(object), made, Some(seen)) => {
            let mut fields = fields(key.kind, object, made.as_ref(), seen, guest);
            if let Some(imported) = &asked.imported {
                // Nobody has changed what was never ours.
                fields.iter_mut().for_each(|field| field.drifted = false);
                let is_domain = key.kind == ObjectKind::Domain;
                fields.extend(imported.differing.iter().filter(|_| is_domain).map(beside_facts));
            }
            let why = |otherwise| match made {
                None => Reason::Found,
                Some(_) if intended => Reason::Unfinished,
                Some(_) => otherwise,
            };
            if let Some(imported) = asked.imported {
                // Also where nothing differs: the mark is set.
                (Action::Update, Reason::Imported(imported.id), fields)
            } else if let Some((_, disk)) = follows {
                (Action::Replace, Reason::Follows(disk), fields)
            } else if fields.is_empty() {
                match made {
                    // To the eye it is there, and may yet be unfinished: a guest that still runs as it was, a stale lease.
                    Some(_) if intended => (Action::Update, Reason::Unfinished, fields),
                    Some(_)
                        if want.is_some()
                            && let Some(volume) = asked.releases.first() =>
                    {
                        (Action::Update, Reason::Follows(volume.clone()), fields)
                    }
                    Some(made) if made.prevent_destroy != asked.prevent_destroy => {
                        (Action::Record, Reason::Edited, Vec::new())
                    }
                    Some(_) => return None,
                    None => (Action::Record, Reason::Found, fields),
                }
            } else {
                let edited = fields.iter().any(|field| !field.drifted);
                let action = match fields.iter().any(|field| field.replaces) {
                    true if asked.beside && seen.get("path") != object.facts().get("path") => Action::CreateThenDelete,
                    true => Action::Replace,
                    false => Action::Update,
                };
                let otherwise = match edited {
                    _ if asked.requested && action != Action::Update => Reason::Requested,
                    true => Reason::Edited,
                    false => Reason::Drifted,
                };
                (action, why(otherwise), fields)
            }
        }
        // An image may be of use again (reference E3), and somebody's disk may lie over it.
        (None, Some(_), Some(_)) if key.kind == ObjectKind::Base => (Action::Disown, Reason::Cached, Vec::new()),
        (None, Some(_), Some(_)) => (Action::Delete, Reason::Unneeded, Vec::new()),
        // Half of it may be there, in a way that cannot be seen as the object yet.
        (None, Some(_), None) if intended => (Action::Delete, Reason::Unneeded, Vec::new()),
        (None, Some(_), None) => (Action::Forget, Reason::Vanished, Vec::new()),
        (None, None, _) => return None,
    };
    let prevent_destroy = want.is_some() && asked.prevent_destroy;
    let fields = [fields, guard_fields(want.is_some(), made.as_ref(), prevent_destroy)].concat();
    let noticed = fields.iter().map(|field| field.disruption).max().unwrap_or_default();
    let disruption = match key.kind {
        ObjectKind::Domain if !running => followed,
        _ => followed.max(noticed).max(behind(want.as_ref(), made.as_ref(), guest)),
    };
    // What a guest is made to let go of, it notices.
    let releases = asked.releases;
    let disruption = if running && !releases.is_empty() { disruption.max(Disruption::Live) } else { disruption };
    let change = Change {
        key,
        address,
        action,
        reason,
        disruption,
        deferred: false,
        releases,
        want,
        made,
        prevent_destroy,
        fields,
    };
    Some(if unmanaged { change.defer() } else { change })
}

/// The domain of others that an object is to be, or whose disk.
fn import_of(key: &ObjectKey, seen: &Observed) -> Option<Imported> {
    match key.kind {
        ObjectKind::Domain => seen.imports.get(key).cloned(),
        ObjectKind::Disk => seen.imports.get(&ObjectKey::new(ObjectKind::Domain, key.id.clone())).cloned(),
        _ => None,
    }
}

/// In what a domain of others will differ as a server, where no fact tells it.
fn beside_facts(Differing { field, there, here }: &Differing) -> FieldChange {
    FieldChange {
        name: Cow::Owned(field.clone()),
        before: there.clone(),
        after: here.clone(),
        drifted: false,
        replaces: false,
        disruption: Disruption::Reboot,
    }
}

/// The attributes in which an object is to differ from what was made, or differs from what is there.
///
/// What replaces an object and cannot be seen on it may stand there yet as it was before an edit that was begun and not
/// finished. To replace it once more loses nothing: nobody uses it before it is recorded as made.
fn fields(
    kind: ObjectKind,
    want: &Object,
    record: Option<&Record>,
    seen: &Facts,
    guest: Option<&Guest>,
) -> Vec<FieldChange> {
    let made = record.map(|record| &record.object);
    // Nobody resumes a guest that others have paused, and until then it takes nothing.
    let paused = |want: &Domain| want.power == Power::Unmanaged && seen.get("power").is_some_and(|power| power != "on");
    let guest = guest.filter(|_| !matches!(want, Object::Domain(want) if paused(want)));
    let takes = match (want, made) {
        (Object::Domain(want), Some(Object::Domain(made))) => {
            let is_as_made = seen.get("definition").is_none_or(|seen| *seen == made.definition());
            GuestChange::new(want, Some(made).filter(|_| is_as_made), guest)
        }
        (Object::Domain(want), _) => GuestChange::new(want, None, guest),
        _ => GuestChange::default(),
    };
    let after = want.facts();
    let before = made.filter(|made| *made != want).map(Object::facts);
    let unfinished: Vec<Facts> = record.iter().flat_map(|record| &record.previous).map(Object::facts).collect();
    let names: BTreeSet<&Cow<'static, str>> =
        after.keys().chain(before.iter().chain(&unfinished).flat_map(Facts::keys)).collect();
    let mut changes = Vec::new();
    for name in names {
        let (after, mut made, seen) = (after.get(name), before.as_ref().map(|before| before.get(name)), seen.get(name));
        if seen.is_none() && kind.replaces(name) && made.is_none_or(|made| made == after) {
            made = unfinished.iter().map(|before| before.get(name)).find(|before| *before != after).or(made);
        }
        let edited = made.is_some_and(|made| made != after);
        // What others do with a guest is their business.
        let is_free = name == "power" && after.is_some_and(|power| power == Power::Unmanaged.as_str());
        let drifted = seen.is_some() && seen != after && !is_free;
        if edited || drifted {
            let before = seen.or(made.flatten());
            changes.push(FieldChange {
                name: name.clone(),
                before: before.cloned(),
                after: after.cloned(),
                drifted: drifted && !edited,
                replaces: kind.replaces(name),
                disruption: disruption(kind, name, (before, after), &takes),
            });
        }
    }
    changes
}

/// That a record is to say another thing of whether its object may be taken away, as an attribute.
fn guard_fields(is_wanted: bool, made: Option<&Record>, prevent_destroy: bool) -> Vec<FieldChange> {
    let was = made.is_some_and(|made| made.prevent_destroy);
    if !is_wanted || was == prevent_destroy {
        return Vec::new();
    }
    let side = |is: bool| is.then(|| "true".to_owned());
    vec![FieldChange {
        name: "prevent_destroy".into(),
        before: side(was),
        after: side(prevent_destroy),
        drifted: false,
        replaces: false,
        disruption: Disruption::None,
    }]
}

/// How a domain comes to what its guest may be able to take as it runs.
#[derive(Default)]
struct GuestChange {
    /// Whether nothing but its interfaces changes of its definition that has no fact of its own.
    only_nics: bool,
    /// What a running guest notices of other interfaces.
    nics: Disruption,
    /// What it notices of other disks.
    disks: Disruption,
    /// What it can be resized in as it runs, as names of facts.
    resizes: Vec<&'static str>,
    /// Whether it runs as what others have defined.
    is_foreign: bool,
}

impl GuestChange {
    fn new(want: &Domain, made: Option<&Domain>, guest: Option<&Guest>) -> Self {
        let takes = guest.map(|guest| guest.takes(&want.nic_facts(), &want.disks)).unwrap_or_default();
        let notices = |takes| if takes { Disruption::Live } else { Disruption::Reboot };
        let resizes = |fact: &&str| guest.is_some_and(|guest| guest.resizes(fact, want));
        Self {
            only_nics: made.is_some_and(|made| made.differs_in_nics_only(want)),
            nics: notices(takes.nics),
            disks: notices(takes.disks),
            resizes: ["vcpus", "memory"].into_iter().filter(resizes).collect(),
            is_foreign: guest.is_some_and(Guest::is_foreign),
        }
    }
}

/// What a running guest notices of the change of one fact.
fn disruption(
    kind: ObjectKind,
    name: &str,
    (before, after): (Option<&String>, Option<&String>),
    takes: &GuestChange,
) -> Disruption {
    let (before, after) = (before.map(String::as_str), after.map(String::as_str));
    match (kind, name) {
        (ObjectKind::Domain, "power") => match after {
            Some("unmanaged") => Disruption::None,
            // Paused or undefined by hand: it is resumed or defined again, and loses nothing.
            Some("on") if !is_ending(before) => Disruption::Live,
            _ => kind.disruption(name),
        },
        // What others have started is not changed as it runs.
        (ObjectKind::Domain, name)
            if takes.is_foreign && !matches!(name, "depends_on" | "shutdown_timeout" | "imported") =>
        {
            Disruption::Reboot
        }
        (ObjectKind::Domain, "definition") if takes.only_nics => takes.nics,
        (ObjectKind::Domain, name) if takes.resizes.contains(&name) => Disruption::Live,
        (ObjectKind::Domain, name) if name == "disks" || name.starts_with("disk.") => takes.disks,
        (ObjectKind::Domain, _) if name.starts_with("nic.") => {
            let attribute = before.is_some() && after.is_some() && kind.disruption(name) == Disruption::Live;
            if attribute { Disruption::Live } else { takes.nics }
        }
        _ => kind.disruption(name),
    }
}

/// Whether a guest is on its way off, from which it only comes back by a new start.
fn is_ending(power: Option<&str>) -> bool {
    power.is_some_and(|power| power.starts_with("shutting down"))
}

/// What it does to a guest to catch up with its definition: it may still run as what stood there before an edit that was
/// begun and not finished.
fn behind(want: Option<&Object>, made: Option<&Record>, guest: Option<&Guest>) -> Disruption {
    let (Some(Object::Domain(wanted)), Some(made), Some(guest)) = (want, made, guest) else { return Disruption::None };
    let after = Object::Domain(wanted.clone()).facts();
    let catches_up = |name: &str| match name.starts_with("nic.") {
        true => guest.nics == wanted.nic_facts(),
        false => name == "power" || guest.facts.get(name) == after.get(name),
    };
    let differs = |before: &Domain| {
        let takes = GuestChange::new(wanted, Some(before), Some(guest));
        let before = Object::Domain(before.clone()).facts();
        let names: BTreeSet<&Cow<'static, str>> = after.keys().chain(before.keys()).collect();
        let names = names.into_iter().filter(|name| before.get(*name) != after.get(*name) && !catches_up(name));
        names.map(|name| disruption(ObjectKind::Domain, name, (before.get(name), after.get(name)), &takes)).max()
    };
    let previous = made.previous.iter().filter_map(|it| match it {
        Object::Domain(before) => Some(before),
        _ => None,
    });
    previous.filter_map(differs).max().unwrap_or_default()
}

/// Whether a domain that was seen has a guest in it, running or held.
pub(super) fn is_running(seen: Option<&Facts>) -> bool {
    seen.and_then(|seen| seen.get("power")).is_some_and(|power| power != "off")
}
