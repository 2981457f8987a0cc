//! A plan as people read it: by resource, in the words and symbols that Terraform's users have in their fingers.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use std::path::Path;

use anstyle::Style;

use crate::address::{Address, ResourceKind};
use crate::apply::Outcome;
use crate::blueprint::disk::Bus;
use crate::blueprint::facts::Disruption;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::{Attachment, Object};
use crate::desired::lifecycle::Ignored;
use crate::plan::Plan;
use crate::plan::diff::{Action, Change, FieldChange, Reason};
use crate::report::{ADD, BOLD, CHANGE, DIM, REMOVE, clean_line};
use crate::value::{ByteSize, span};

/// What is done to a resource, from what is done to its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Create,
    /// It is changed where it stands.
    Update,
    /// It is made anew.
    Replace,
    /// It is taken away.
    Delete,
    /// It is gone, and its record is dropped.
    Forget,
    /// It stays as it is, and its record is dropped.
    Disown,
    /// It is there, and is recorded.
    Record,
    /// It is what others made, and is taken over.
    Import,
}

impl Verdict {
    /// What people read behind the address.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Create => "will be created",
            Self::Update => "will be updated in-place",
            Self::Replace => "must be replaced",
            Self::Delete => "will be destroyed",
            Self::Forget => "is gone and will be forgotten",
            Self::Disown => "will be forgotten, and stays as it is",
            Self::Record => "is there and will be recorded",
            Self::Import => "will be imported",
        }
    }

    /// What is done to an object when this is done to it.
    pub const fn action(self) -> Action {
        match self {
            Self::Create => Action::Create,
            Self::Update | Self::Import => Action::Update,
            Self::Replace => Action::Replace,
            Self::Delete => Action::Delete,
            Self::Forget => Action::Forget,
            Self::Disown => Action::Disown,
            Self::Record => Action::Record,
        }
    }
}

/// How many resources are imported, added, changed and destroyed. A replacement counts as both added and destroyed, and an
/// import also as changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken over from others.
    pub import: usize,
    /// Made.
    pub add: usize,
    /// Changed where they stand.
    pub change: usize,
    /// Taken away.
    pub destroy: usize,
}

impl fmt::Display for Counts {
    /// `2 to add, 1 to change, 0 to destroy`, with imports where there are any, as Terraform has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { import, add, change, destroy } = self;
        if *import > 0 {
            write!(f, "{import} to import, ")?;
        }
        write!(f, "{add} to add, {change} to change, {destroy} to destroy")
    }
}

impl Counts {
    /// The same of what was done: `2 added, 1 changed, 0 destroyed`.
    pub fn done(self) -> String {
        let Self { import, add, change, destroy } = self;
        let imported = if import > 0 { format!("{import} imported, ") } else { String::new() };
        format!("{imported}{add} added, {change} changed, {destroy} destroyed")
    }
}

/// The domain of others that a resource is made from, by its name or UUID.
pub(super) fn imported_from<'p>(changes: &[(usize, &'p Change)]) -> Option<&'p str> {
    changes.iter().find_map(|(_, change)| match &change.reason {
        Reason::Imported(id) => Some(id.as_str()),
        _ => None,
    })
}

/// What becomes of a resource, as people read it behind its address.
pub(super) fn words(changes: &[(usize, &Change)]) -> String {
    let words = verdict(changes).words();
    match imported_from(changes) {
        Some(id) => format!("{words} from \"{}\"", clean_line(id)),
        None => words.to_owned(),
    }
}

/// The changes of each resource with their numbers in the plan, in the order of addresses.
pub(super) type Resources<'p> = BTreeMap<&'p Address, Vec<(usize, &'p Change)>>;

pub(super) fn by_resource(plan: &Plan) -> Resources<'_> {
    let mut resources = Resources::new();
    for (number, change) in plan.changes.iter().enumerate() {
        resources.entry(&change.address).or_default().push((number, change));
    }
    resources
}

pub(super) fn verdict(changes: &[(usize, &Change)]) -> Verdict {
    let all = |test: fn(&Change) -> bool| changes.iter().all(|(_, change)| test(change));
    if imported_from(changes).is_some() {
        return Verdict::Import;
    }
    if all(|change| {
        change.action == Action::Create && matches!(change.reason, Reason::New | Reason::Unfinished | Reason::Moved)
    }) {
        Verdict::Create
    } else if all(|change| change.action == Action::Forget) {
        Verdict::Forget
    } else if all(|change| change.action == Action::Disown) {
        Verdict::Disown
    } else if all(|change| matches!(change.action, Action::Delete | Action::Forget)) {
        Verdict::Delete
    } else if all(|change| change.action == Action::Record) {
        Verdict::Record
    } else if changes.iter().any(|(_, change)| change.disruption == Disruption::Replace && is_all_of_it(change)) {
        Verdict::Replace
    } else {
        Verdict::Update
    }
}

/// What becomes of each resource that the plan changes: `create`, `update`, `replace` or `delete`.
pub fn verdicts(plan: &Plan) -> BTreeMap<&Address, &'static str> {
    let word = |changes: &Vec<(usize, &Change)>| match verdict(changes) {
        Verdict::Create | Verdict::Record => "create",
        Verdict::Update | Verdict::Import => "update",
        Verdict::Replace => "replace",
        Verdict::Delete | Verdict::Forget | Verdict::Disown => "delete",
    };
    by_resource(plan).iter().map(|(address, changes)| (*address, word(changes))).collect()
}

/// What a plan does, in a line: `2 to add, 1 to change, 0 to destroy`.
pub fn summary(plan: &Plan) -> String {
    count(&by_resource(plan), |_| true).to_string()
}

/// Whether what is made anew is the resource itself: a server goes on with a further disk that is another.
fn is_all_of_it(change: &Change) -> bool {
    change.key.kind != ObjectKind::Volume || change.address.kind == ResourceKind::Volume
}

/// How many resources were added, changed and destroyed to the end.
pub fn done(plan: &Plan, outcome: &Outcome) -> Counts {
    let mut done = vec![true; plan.changes.len()];
    for (step, fate) in &outcome.steps {
        done[step.change] &= matches!(fate, crate::apply::Fate::Done);
    }
    count(&by_resource(plan), |change| done[change])
}

/// How many resources are added, changed and destroyed, of those whose changes all count.
pub(super) fn count(resources: &Resources<'_>, counts_in: impl Fn(usize) -> bool) -> Counts {
    let mut counts = Counts::default();
    for changes in resources.values().filter(|changes| changes.iter().all(|(number, _)| counts_in(*number))) {
        match verdict(changes) {
            Verdict::Create => counts.add += 1,
            Verdict::Update => counts.change += 1,
            Verdict::Import => {
                counts.import += 1;
                counts.change += 1;
            }
            Verdict::Delete => counts.destroy += 1,
            Verdict::Replace => {
                counts.add += 1;
                counts.destroy += 1;
            }
            Verdict::Forget | Verdict::Disown | Verdict::Record => {}
        }
    }
    counts
}

/// The whole plan with its footer.
pub fn render(plan: &Plan) -> String {
    render_within(plan, None)
}

/// The whole plan with its footer, where what costs guests more than `most` is marked.
pub fn render_within(plan: &Plan, most: Option<Disruption>) -> String {
    if plan.is_empty() {
        return format!(
            "{ADD}{BOLD}No changes.{BOLD:#}{ADD:#} {BOLD}{}{BOLD:#}\n{}{}{}",
            nothing(plan),
            images(plan),
            waiting(plan),
            ignored(plan) + &left_alone(plan)
        );
    }
    let mut text = String::new();
    if !plan.changes.is_empty() {
        text.push_str("Novella will perform the following actions:\n");
    }
    let resources = by_resource(plan);
    for (address, changes) in &resources {
        let words = words(changes);
        // Writing to a string cannot fail, here and below.
        let _ = write!(text, "\n  {BOLD}# {address}{BOLD:#} {words}\n");
        for (_, change) in changes {
            object(&mut text, change, Marks { most, trash: plan.trash });
        }
    }
    let _ = write!(text, "\n{BOLD}Plan:{BOLD:#} {}.\n", summary(plan));
    if let Some(words) = disruption_words(&resources) {
        let _ = writeln!(text, "{BOLD}Disruption:{BOLD:#} {words}.");
    }
    for (disruption, words) in [(Disruption::Reboot, "rebooted"), (Disruption::Replace, "replaced, with its disk")] {
        let hit = disrupted(&resources, disruption);
        if !hit.is_empty() {
            let _ = writeln!(text, "{CHANGE}Will be {words}:{CHANGE:#} {}", hit.join(", "));
        }
    }
    text.push_str(&images(plan));
    text.push_str(&waiting(plan));
    text.push_str(&ignored(plan));
    text.push_str(&left_alone(plan));
    text
}

/// What the plan means for the image cache, where it fetches or leaves something.
fn images(plan: &Plan) -> String {
    let leaves = plan.changes.iter().any(|change| change.reason == Reason::Cached);
    let Some(cache) = &plan.cache else { return String::new() };
    let mut parts = Vec::new();
    if !cache.fetches.is_empty() {
        let mut unknown: Vec<String> = cache.unknown().map(ToString::to_string).collect();
        unknown.dedup();
        let size = match (cache.needed(), unknown.is_empty()) {
            (needed, true) => format!("to fetch {}", needed.about()),
            (ByteSize(0), false) => format!("to fetch {}, of unknown size", unknown.join(", ")),
            (needed, false) => format!("to fetch {}, and {} of unknown size", needed.about(), unknown.join(", ")),
        };
        parts.push(size);
    }
    if leaves || !cache.fetches.is_empty() {
        parts.push(format!("{} free in `{}`", cache.free.about(), clean_line(&cache.directory.display().to_string())));
        if cache.prunable > ByteSize(0) {
            parts.push(format!("`novella image prune --all` would then free {}", cache.prunable.about()));
        }
    }
    if !cache.locks.is_empty() {
        let images: Vec<String> = cache.locks.iter().map(ToString::to_string).collect();
        parts.push(format!("`images.lock` gains {}", images.join(", ")));
    }
    if parts.is_empty() { String::new() } else { format!("{BOLD}Images:{BOLD:#} {}.\n", parts.join("; ")) }
}

/// What it means that there is nothing to do.
pub(super) fn nothing(plan: &Plan) -> &'static str {
    if plan.left_out.is_empty() {
        "Your infrastructure matches the configuration."
    } else {
        "What was chosen matches the configuration."
    }
}

/// How many resources each kind of disruption hits, the worst first; nothing where no guest is concerned.
pub(super) fn disruption_counts(resources: &Resources<'_>) -> Vec<(Disruption, usize)> {
    let worst = |changes: &Vec<(usize, &Change)>| changes.iter().map(|(_, change)| change.cost()).max();
    let kinds = [Disruption::Replace, Disruption::Reboot, Disruption::Live].into_iter();
    let hit = |kind| resources.values().filter(|changes| worst(changes) == Some(kind)).count();
    kinds.map(|kind| (kind, hit(kind))).filter(|(_, hit)| *hit > 0).collect()
}

/// The same in words.
pub(super) fn disruption_words(resources: &Resources<'_>) -> Option<String> {
    let counts = disruption_counts(resources).into_iter().map(|(kind, hit)| format!("{hit} {}", kind.as_str()));
    let counts: Vec<String> = counts.collect();
    (!counts.is_empty()).then(|| counts.join(", "))
}

/// What costs guests more than `most`, one resource a line, each with the reasons; nothing where all is within.
pub fn beyond(plan: &Plan, most: Disruption) -> Vec<String> {
    let why = |change: &&Change| {
        let title = title(change);
        if change.action == Action::Delete {
            return format!("{title}: destroyed");
        }
        if let Reason::Follows(key) = &change.reason {
            return format!("{title}: taken down while its {} is changed", key.kind);
        }
        let fields = told(change).filter(|field| field.disruption > most);
        let fields: Vec<String> = fields
            .map(|it| {
                let side = |value: &Option<String>| clean_line(value.as_deref().unwrap_or("none")).into_owned();
                format!("{} = {} -> {}", it.name, side(&it.before), side(&it.after))
            })
            .collect();
        if fields.is_empty() { title } else { format!("{title}: {}", fields.join(", ")) }
    };
    let line = |(address, changes): (&Address, Vec<&Change>)| {
        let worst = changes.iter().map(|change| change.cost()).max().unwrap_or_default();
        let why: Vec<String> = changes.iter().map(why).collect();
        format!("{address}: {} ({})", worst.as_str(), why.join("; "))
    };
    plan.beyond(most).into_iter().map(line).collect()
}

/// The attributes of a change that are worth telling: a digest says something only where nothing else does.
fn told(change: &Change) -> impl Iterator<Item = &FieldChange> {
    let lone = change.fields.len() == 1;
    change.fields.iter().filter(move |field| lone || !matches!(field.name.as_ref(), "definition" | "disks"))
}

/// The servers that wait for a reboot once this is done.
fn waiting(plan: &Plan) -> String {
    if plan.waiting.is_empty() {
        return String::new();
    }
    let wait = if plan.waiting.len() == 1 { "waits" } else { "wait" };
    let servers = plan.waiting.iter().map(|(address, what)| format!("{address} ({})", clean_line(&what.join(", "))));
    format!(
        "{CHANGE}{} {wait} for a reboot:{CHANGE:#} {}. `novella reboot --pending` does it.\n",
        crate::report::count(plan.waiting.len(), "server"),
        servers.collect::<Vec<String>>().join(", "),
    )
}

/// The servers that the spec says something else of, and that stay as they are.
fn ignored(plan: &Plan) -> String {
    if plan.ignored.is_empty() {
        return String::new();
    }
    let words = |what: &BTreeSet<Ignored>| what.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
    let servers: Vec<String> =
        plan.ignored.iter().map(|(address, what)| format!("{address} ({})", words(what))).collect();
    format!("{DIM}Ignored, by `ignore_changes`:{DIM:#} {}.\n", servers.join(", "))
}

/// What a person should know who has lost the state, and with it half of the spec.
pub fn left_alone(plan: &Plan) -> String {
    if plan.left_alone.is_empty() {
        return String::new();
    }
    let keys: Vec<String> = plan.left_alone.iter().map(|key| clean_line(&key.to_string()).into_owned()).collect();
    format!(
        "{CHANGE}Left alone:{CHANGE:#} {}. They carry the mark of this project, and neither the spec nor the state has \
         them; apply a spec that has them to take them over, also before you destroy them.\n",
        keys.join(", ")
    )
}

/// The resources whose worst change does this to them.
fn disrupted(resources: &Resources<'_>, disruption: Disruption) -> Vec<String> {
    resources
        .iter()
        .filter(|(address, changes)| {
            let guests = changes.iter().filter(|(_, change)| change.key.kind != ObjectKind::Volume);
            address.kind != ResourceKind::Volume && guests.map(|(_, it)| it.disruption).max() == Some(disruption)
        })
        .map(|(address, _)| address.to_string())
        .collect()
}

fn object(text: &mut String, change: &Change, marks: Marks) {
    let (symbol, style) = symbol(change.action);
    let why = reason_within(change, marks);
    let dim = if why.is_empty() { String::new() } else { format!("  {DIM}# {why}{DIM:#}") };
    let _ = writeln!(text, "  {style}{symbol:>3}{style:#} {}{dim}", title(change));
    attributes(text, &attributes_of(change));
}

/// The attributes of a change that are worth telling.
pub(super) fn attributes_of(change: &Change) -> Vec<Attribute> {
    match (change.action, &change.want) {
        (Action::Create, Some(want)) => {
            let mut facts = want.facts();
            // What is recorded beside it.
            facts.extend(change.fields.iter().filter_map(|field| Some((field.name.clone(), field.after.clone()?))));
            let news = facts.into_iter().filter(|(name, value)| is_news(name, value));
            let attribute = |(name, value): (Cow<'static, str>, String)| Attribute {
                name,
                before: None,
                after: Some(clean_line(&value).into_owned()),
                note: "",
            };
            news.map(attribute).collect()
        }
        (Action::Update | Action::Replace | Action::CreateThenDelete | Action::Record, _) => {
            // What DHCP hands out is said only where it is not simply the address.
            let address = change.fields.iter().find(|field| field.name == "address");
            let same = |field: &&FieldChange| {
                address.is_some_and(|address| (&address.before, &address.after) == (&field.before, &field.after))
            };
            let told = told(change).filter(|field| field.name != "dhcp" || !same(field));
            let side = |value: &Option<String>| value.as_deref().map(|value| clean_line(value).into_owned());
            let attribute = |field: &FieldChange| Attribute {
                name: field.name.clone(),
                before: side(&field.before),
                after: side(&field.after),
                note: match (field.replaces, field.drifted) {
                    (true, _) => "forces replacement",
                    (false, true) => "changed on the host",
                    (false, false) if is_read_at_boot(change, field) => "takes effect at its next boot",
                    (false, false) => "",
                },
            };
            told.map(attribute).collect()
        }
        (Action::Create | Action::Delete | Action::Forget | Action::Disown, _) => Vec::new(),
    }
}

/// Whether a disk is taken away that is worth to be kept.
fn goes_to_trash(change: &Change) -> bool {
    let object = change.made.as_ref().map(|made| &made.object).or(change.want.as_ref());
    let is_taken_away = matches!(change.action, Action::Delete | Action::Replace | Action::CreateThenDelete);
    is_taken_away && object.is_some_and(Object::is_worth_keeping)
}

/// The file of an imported disk that a server has no more.
fn stays(change: &Change) -> Option<&Path> {
    let is_left = matches!(change.action, Action::Delete | Action::Replace | Action::CreateThenDelete);
    match change.made.as_ref().map(|made| &made.object) {
        Some(Object::Disk(disk)) if disk.imported && is_left => Some(&disk.path),
        _ => None,
    }
}

/// The kind of the object, and its own name where that says more than the address it stands under.
pub fn title(change: &Change) -> String {
    object_title(&change.key, change.want.as_ref().or(change.made.as_ref().map(|made| &made.object)))
}

/// The same of an object that may be known.
pub(super) fn object_title(key: &ObjectKey, object: Option<&Object>) -> String {
    match (key.kind, object) {
        (ObjectKind::HostEntry, _) => key.to_string(),
        (ObjectKind::Volume, Some(object)) if object.address().kind == ResourceKind::Server => key.to_string(),
        (ObjectKind::Base, Some(Object::Base(base))) => format!("{} ({})", key.kind, base.role),
        (kind, _) => kind.to_string(),
    }
}

/// One attribute as people read it, cleaned.
pub(super) struct Attribute {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is.
    pub before: Option<String>,
    /// What it is to be.
    pub after: Option<String>,
    /// What else is to be known; empty where there is nothing.
    pub note: &'static str,
}

pub(super) fn attributes(text: &mut String, attributes: &[Attribute]) {
    let width = attributes.iter().map(|attribute| attribute.name.len()).max().unwrap_or(0);
    for Attribute { name, before, after, note } in attributes {
        let (symbol, style, value) = match (before, after) {
            (None, Some(after)) => ("+", ADD, after.clone()),
            (Some(before), None) => ("-", REMOVE, before.clone()),
            (before, after) => {
                let side = |value: &Option<String>| value.clone().unwrap_or_default();
                ("~", CHANGE, format!("{} -> {}", side(before), side(after)))
            }
        };
        let note = if note.is_empty() { String::new() } else { format!("  # {note}") };
        let _ = writeln!(text, "        {style}{symbol}{style:#} {name:<width$} = {value}{DIM}{note}{DIM:#}");
    }
}

/// Whether an attribute tells a person something about a new object: the rest is the same for all of its kind, or only
/// there to be compared.
fn is_news(name: &str, value: &str) -> bool {
    if matches!(name, "seed" | "base") {
        return value != "none";
    }
    if name == "root_disk" {
        return value != Attachment::default().fact(&Bus::default().target('a'));
    }
    if name == "ip6_forward" || name.starts_with("nic.") && name.ends_with(".link") {
        return !matches!(value, "off" | "up");
    }
    !matches!(
        name,
        "stp"
            | "forward_delay"
            | "state"
            | "content"
            | "process"
            | "definition"
            | "ruleset"
            | "directory"
            | "format"
            | "dhcp"
            | "disks"
            | "options"
            | "records"
            | "subnets"
    )
}

/// Whether a guest goes on with what it read when it was booted.
fn is_read_at_boot(change: &Change, field: &FieldChange) -> bool {
    change.key.kind == ObjectKind::Domain && field.name == "seed" && change.disruption == Disruption::Live
}

/// What people read while it is done.
pub(super) fn doing(action: Action) -> &'static str {
    match action {
        Action::Create => "Creating",
        Action::Update => "Modifying",
        Action::Replace => "Replacing",
        Action::CreateThenDelete => "Creating beside the old one",
        Action::Delete => "Destroying",
        Action::Forget | Action::Disown => "Forgetting",
        Action::Record => "Recording",
    }
}

/// Terraform's symbol for what is done, and its colour.
pub(super) fn symbol(action: Action) -> (&'static str, Style) {
    match action {
        Action::Create => ("+", ADD),
        Action::Update => ("~", CHANGE),
        Action::Replace => ("-/+", REMOVE),
        Action::CreateThenDelete => ("+/-", REMOVE),
        Action::Delete => ("-", REMOVE),
        Action::Forget | Action::Disown => (".", DIM),
        Action::Record => ("=", DIM),
    }
}

/// What is said of a change that it does not tell itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// What costs guests more than this is marked.
    pub most: Option<Disruption>,
    /// How long disks that are taken away are kept in the trash, in seconds; none for not at all.
    pub trash: Option<u32>,
}

/// Why a change is made and what a guest notices, with its marks.
pub(super) fn reason_within(change: &Change, Marks { most, trash }: Marks) -> String {
    let mut why = reason(change);
    if let Some(file) = stays(change) {
        let stays = format!("its file stays: {}", clean_line(&file.display().to_string()));
        why = if why.is_empty() { stays } else { format!("{why}, {stays}") };
    }
    if let Some(seconds) = trash.filter(|_| goes_to_trash(change)) {
        let kept = format!("into the trash for {}", span(seconds));
        why = if why.is_empty() { kept } else { format!("{why}, {kept}") };
    }
    let Some(most) = most.filter(|most| change.cost() > *most) else { return why };
    let cost = if change.cost() > change.disruption { change.cost().as_str() } else { "" };
    let parts = [&why, cost, &format!("beyond --max-disruption {}", most.as_str())];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<&str>>().join(", ")
}

fn reason(change: &Change) -> String {
    let why = match (&change.reason, change.action) {
        (Reason::New | Reason::Unneeded | Reason::Edited, _) => String::new(),
        (Reason::Cached, _) => "kept in the cache".into(),
        (Reason::Disowned, _) => "stays on the host".into(),
        (Reason::Moved, _) => "recorded under another name before".into(),
        (Reason::Requested, _) => "requested".into(),
        (Reason::Found, _) => "found on the host with our mark".into(),
        (Reason::Vanished, Action::Forget) => "gone from the host already".into(),
        (Reason::Vanished, _) => "vanished from the host".into(),
        (Reason::Unfinished, _) => "begun by a run that did not end".into(),
        (Reason::Drifted, _) => "changed on the host".into(),
        (Reason::Imported(id), _) => format!("imported from \"{}\"", clean_line(id)),
        (Reason::Follows(key), Action::Update) => format!("{key} is taken out meanwhile"),
        (Reason::Follows(key), _) => format!("taken down while its {} is changed", key.kind),
    };
    let what = match change.disruption {
        Disruption::None => return why,
        Disruption::Live if change.deferred => "live, the rest with its next start",
        disruption => disruption.as_str(),
    };
    if why.is_empty() { what.into() } else { format!("{why}, {what}") }
}
