//! A plan as JSON: Terraform's plan, with what novella knows beside it. `docs/plan.schema.json` says what each part means.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::Object;
use crate::plan::Plan;
use crate::plan::diff::{Action, Change, FieldChange, Reason};
use crate::plan::world::Recorded;
use crate::report::json;
use crate::report::located::Located;
use crate::report::plan::{Counts, Verdict, by_resource, count, disruption_counts, imported_from, verdict};
use crate::report::topology::{Fate, PortView, ServerView, Topology};
use crate::spec::Source;
use crate::value::Mac;

/// Grows in its first part when something is taken away or means something else, in its second when something is added.
const FORMAT_VERSION: &str = "1.0";

/// What is there of a resource: the facts of its objects, by kind and id.
type Side<'p> = BTreeMap<ObjectKind, BTreeMap<&'p str, Facts>>;

#[derive(Serialize)]
struct Document<'p> {
    format_version: &'static str,
    novella_version: &'static str,
    complete: bool,
    errored: bool,
    summary: Summary,
    disruption: BTreeMap<&'static str, usize>,
    resource_changes: Vec<ResourceChange<'p>>,
    resource_drift: Vec<ResourceDrift<'p>>,
    addresses: Vec<PortRow<'p>>,
    conflicts: Vec<ConflictRow<'p>>,
    warnings: Vec<Located>,
    pending_reboot: BTreeMap<String, &'p [String]>,
    left_out: Vec<String>,
    left_alone: &'p [ObjectKey],
}

/// How many resources are imported, added, changed and removed, as in Terraform's `change_summary`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Summary {
    #[serde(skip_serializing_if = "is_zero")]
    import: usize,
    add: usize,
    change: usize,
    remove: usize,
}

impl From<Counts> for Summary {
    fn from(Counts { import, add, change, destroy }: Counts) -> Self {
        Self { import, add, change, remove: destroy }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Which resource it is.
#[derive(Serialize)]
struct Resource<'p> {
    address: String,
    mode: &'static str,
    r#type: ResourceKind,
    name: &'p Name,
}

impl<'p> From<&'p Address> for Resource<'p> {
    fn from(address: &'p Address) -> Self {
        Self { address: address.to_string(), mode: "managed", r#type: address.kind, name: &address.name }
    }
}

#[derive(Serialize)]
struct ResourceChange<'p> {
    #[serde(flatten)]
    resource: Resource<'p>,
    change: ChangeOf<'p, Side<'p>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_reason: Option<&'static str>,
    disruption: Disruption,
    deferred: bool,
    objects: Vec<ObjectChange<'p>>,
}

#[derive(Serialize)]
struct ChangeOf<'p, T> {
    actions: &'static [&'static str],
    before: Option<T>,
    after: Option<T>,
    /// There is nothing that is known only after an apply; Terraform's tools look for it.
    after_unknown: BTreeMap<String, bool>,
    replace_paths: Vec<Vec<String>>,
    /// The domain of others that it is made from, of a resource alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    importing: Option<Importing<'p>>,
}

/// What a resource is imported from.
#[derive(Serialize)]
struct Importing<'p> {
    id: &'p str,
}

#[derive(Serialize)]
struct ObjectChange<'p> {
    #[serde(flatten)]
    key: &'p ObjectKey,
    change: ChangeOf<'p, Facts>,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<&'p ObjectKey>,
    disruption: Disruption,
    deferred: bool,
    fields: &'p [FieldChange],
}

#[derive(Serialize)]
struct ResourceDrift<'p> {
    #[serde(flatten)]
    resource: Resource<'p>,
    change: ChangeOf<'p, Side<'p>>,
}

#[derive(Serialize)]
struct PortRow<'p> {
    port: &'p PortId,
    server: Option<&'p Name>,
    network: &'p Name,
    mac: Mac,
    action: Fate,
    before: &'p [IpAddr],
    after: &'p [IpAddr],
}

#[derive(Serialize)]
struct ConflictRow<'p> {
    address: String,
    object: &'p ObjectKey,
    claim: String,
}

/// The plan as a document. Places of diagnostics are those in `source`; `recorded` is what the plan was made from.
pub fn render(plan: &Plan, recorded: &Recorded, source: &Source) -> String {
    let resources = by_resource(plan);
    let topology = Topology::new(plan, recorded);
    let changes = resources.iter().map(|(address, changes)| resource(address, changes));
    let drift = resources.iter().filter_map(|(address, changes)| drift(address, changes));
    json::document(&Document {
        format_version: FORMAT_VERSION,
        novella_version: env!("CARGO_PKG_VERSION"),
        complete: plan.left_out.is_empty()
            && plan.conflicts.is_empty()
            && !plan.changes.iter().any(|change| change.deferred),
        errored: !plan.conflicts.is_empty(),
        summary: count(&resources, |_| true).into(),
        disruption: disruption_counts(&resources).into_iter().map(|(kind, hit)| (kind.as_str(), hit)).collect(),
        resource_changes: changes.collect(),
        resource_drift: drift.collect(),
        addresses: topology.ports().map(port_row).collect(),
        conflicts: plan
            .conflicts
            .iter()
            .map(|it| ConflictRow { address: it.address.to_string(), object: &it.key, claim: it.claim.to_string() })
            .collect(),
        warnings: plan.warnings.iter().map(|warning| Located::new(warning, source)).collect(),
        pending_reboot: plan.waiting.iter().map(|(address, what)| (address.to_string(), what.as_slice())).collect(),
        left_out: plan.left_out.iter().map(ToString::to_string).collect(),
        left_alone: &plan.left_alone,
    })
}

fn port_row<'p>((server, port): (Option<&'p ServerView>, &'p PortView)) -> PortRow<'p> {
    PortRow {
        port: &port.port,
        server: server.map(|server| &server.name),
        network: &port.network,
        mac: port.mac,
        action: port.fate,
        before: &port.before,
        after: &port.after,
    }
}

fn resource<'p>(address: &'p Address, changes: &[(usize, &'p Change)]) -> ResourceChange<'p> {
    let changes = || changes.iter().map(|(_, change)| *change);
    let numbered: Vec<(usize, &'p Change)> = changes().enumerate().collect();
    let verdict = verdict(&numbered);
    let objects: Vec<ObjectChange<'p>> = changes().map(object).collect();
    let replace_paths = objects.iter().flat_map(|object| {
        let under = [kind_word(object.key.kind), object.key.id.clone()];
        object.change.replace_paths.iter().map(move |path| under.iter().chain(path).cloned().collect())
    });
    ResourceChange {
        resource: address.into(),
        change: ChangeOf {
            actions: actions(verdict.action()),
            before: side(changes(), before),
            after: side(changes(), |change| change.want.as_ref().map(Object::facts)),
            after_unknown: BTreeMap::new(),
            replace_paths: replace_paths.collect(),
            importing: imported_from(&numbered).map(|id| Importing { id }),
        },
        action_reason: action_reason(verdict, &numbered),
        disruption: changes().map(Change::cost).max().unwrap_or_default(),
        deferred: changes().any(|change| change.deferred),
        objects,
    }
}

fn object(change: &Change) -> ObjectChange<'_> {
    let replaced = change.fields.iter().filter(|field| field.replaces);
    ObjectChange {
        key: &change.key,
        change: ChangeOf {
            actions: actions(change.action),
            before: before(change),
            after: change.want.as_ref().map(Object::facts),
            after_unknown: BTreeMap::new(),
            replace_paths: replaced.map(|field| vec![field.name.to_string()]).collect(),
            importing: None,
        },
        reason: match &change.reason {
            Reason::New => "new",
            Reason::Found => "found",
            Reason::Vanished => "vanished",
            Reason::Unfinished => "unfinished",
            Reason::Edited => "edited",
            Reason::Drifted => "drifted",
            Reason::Follows(_) => "follows",
            Reason::Unneeded => "unneeded",
            Reason::Cached => "cached",
            Reason::Disowned => "disowned",
            Reason::Moved => "moved",
            Reason::Requested => "requested",
            Reason::Imported(_) => "imported",
        },
        follows: match &change.reason {
            Reason::Follows(key) => Some(key),
            _ => None,
        },
        disruption: change.cost(),
        deferred: change.deferred,
        fields: &change.fields,
    }
}

/// The facts that some changes have on one side; none where there are none.
fn side<'p>(
    changes: impl Iterator<Item = &'p Change>,
    facts: impl Fn(&'p Change) -> Option<Facts>,
) -> Option<Side<'p>> {
    let mut side = Side::new();
    for change in changes {
        if let Some(facts) = facts(change) {
            side.entry(change.key.kind).or_default().insert(&change.key.id, facts);
        }
    }
    (!side.is_empty()).then_some(side)
}

/// What is there before a change: as seen, or as recorded where it cannot be seen.
fn before(change: &Change) -> Option<Facts> {
    if change.action == Action::Create {
        return None;
    }
    let mut facts = recorded(change)?;
    for field in &change.fields {
        set(&mut facts, field);
    }
    Some(facts)
}

/// What was made, or is to be recorded as made.
fn recorded(change: &Change) -> Option<Facts> {
    change.made.as_ref().map(|made| &made.object).or(change.want.as_ref()).map(Object::facts)
}

fn set(facts: &mut Facts, field: &FieldChange) {
    match &field.before {
        Some(before) => facts.insert(field.name.clone(), before.clone()),
        None => facts.remove(&field.name),
    };
}

/// What has become of the objects of a resource that are not any more as they were made: `delete` where none of them is
/// there.
fn drift<'p>(address: &'p Address, changes: &[(usize, &'p Change)]) -> Option<ResourceDrift<'p>> {
    let has_drifted = |change: &Change| {
        change.made.is_some() && (change.reason == Reason::Vanished || change.fields.iter().any(|it| it.drifted))
    };
    let drifted = || changes.iter().map(|(_, change)| *change).filter(|change| has_drifted(change));
    let is = |change: &'p Change| {
        let mut facts = recorded(change).filter(|_| change.reason != Reason::Vanished)?;
        change.fields.iter().filter(|field| field.drifted).for_each(|field| set(&mut facts, field));
        Some(facts)
    };
    let (before, after) = (side(drifted(), recorded)?, side(drifted(), is));
    let action = if after.is_some() { Action::Update } else { Action::Delete };
    let change = ChangeOf {
        actions: actions(action),
        before: Some(before),
        after,
        after_unknown: BTreeMap::new(),
        replace_paths: Vec::new(),
        importing: None,
    };
    Some(ResourceDrift { resource: address.into(), change })
}

/// Terraform's words for what is done.
const fn actions(action: Action) -> &'static [&'static str] {
    match action {
        Action::Create => &["create"],
        Action::Record => &["no-op"],
        Action::Update => &["update"],
        Action::Replace => &["delete", "create"],
        Action::Delete => &["delete"],
        Action::CreateThenDelete => &["create", "delete"],
        Action::Forget | Action::Disown => &["forget"],
    }
}

/// Terraform's word for why a resource is replaced or goes, where it has one.
fn action_reason(verdict: Verdict, changes: &[(usize, &Change)]) -> Option<&'static str> {
    let cannot_update = changes.iter().flat_map(|(_, change)| &change.fields).any(|field| field.replaces);
    match verdict {
        Verdict::Replace if changes.iter().any(|(_, change)| change.reason == Reason::Requested) => {
            Some("replace_by_request")
        }
        Verdict::Replace if cannot_update => Some("replace_because_cannot_update"),
        Verdict::Delete => Some("delete_because_no_resource_config"),
        _ => None,
    }
}

/// The word for a kind, as in the rest of the document.
fn kind_word(kind: ObjectKind) -> String {
    serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}
