//! One pass from a valid spec to a plan: look at the host, choose, compare, order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;

use crate::address::{Address, Name, ResourceKind, VolumeId};
use crate::blueprint::cache::CacheUse;
use crate::blueprint::guest::Guest;
use crate::blueprint::import::{self, DISK_GONE, NOT_IMPORTABLE};
use crate::blueprint::key::{base_key, bridge_key, domain_key};
use crate::blueprint::object::{Disk, Object};
use crate::blueprint::{self, Beside, Blueprint, HostFacts, Layout};
use crate::choice;
use crate::desired::{Desired, Server};
use crate::diagnostic::{Diagnostic, Place};
use crate::host::{Host, HostError};
use crate::plan::diff::Change;
use crate::plan::world::{Observed, Recorded};
use crate::plan::{Action, Cycle, Plan, Scope, records, saved};
use crate::value::ByteSize;
use crate::wishes::Wishes;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The spec asks for what cannot be had.
    #[error("the spec cannot be met")]
    Spec(Vec<Diagnostic>),
    /// The host could not be looked at.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A defect of novella.
    #[error("cannot order the steps; this is a defect of novella, please report it")]
    Cycle(#[from] Cycle),
    /// `data_dir` was changed under what lies in it.
    #[error("the files of this project are in `{}`, and the spec now says `{}`", .was.display(), .is.display())]
    DataDirMoved {
        /// Where they are.
        was: PathBuf,
        /// Where the spec says they are.
        is: PathBuf,
    },
}

/// The plan that makes the host what the spec says.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(desired: &Desired, recorded: Recorded, host: &dyn Host) -> Result<Plan, PlanError> {
    plan_with(desired, recorded, host, &Wishes::default())
}

/// The plan that makes the host what the spec says, and does what is asked for beside it.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_with(
    desired: &Desired,
    mut recorded: Recorded,
    host: &dyn Host,
    wishes: &Wishes,
) -> Result<Plan, PlanError> {
    let moved = records::carry_over(&mut recorded, &desired.carried.moved);
    let Lowered { mut blueprint, observed, facts } = lower(desired, &recorded, host, &wishes.replace)?;
    blueprint.moved = moved;
    let cache = facts.cache.map(|cache| CacheUse::new(&blueprint, &recorded, &observed, &cache));
    if let Some(problem) = cache.as_ref().and_then(CacheUse::check) {
        return Err(PlanError::Spec(vec![problem]));
    }
    let guarded = wishes.guarded(desired, &recorded);
    let server = |name: &Name| Address::new(ResourceKind::Server, name.clone());
    let to: BTreeSet<Address> = wishes.replace.iter().map(server).collect();
    let plan = Plan { trash: desired.host.trash_ttl, cache, ..Plan::new(blueprint, recorded, &observed)? };
    let plan = if wishes.only_these { plan.part(&Scope::Only(to))? } else { plan };
    disks_are_possible(desired, &plan, &observed)?;
    Ok(plan.protecting(&guarded).allowing(&wishes.allow_destroy))
}

/// The plan that makes the host what the spec says, or takes away all that was made, in the shape that was asked for.
///
/// # Errors
/// See [`PlanError`]. Addresses that were asked for and are none count as what cannot be had.
pub fn plan_as(
    desired: &Desired,
    recorded: Recorded,
    host: &dyn Host,
    asked: &saved::Options,
) -> Result<Plan, PlanError> {
    let choose = |written: &[String]| choice::choose(written, desired, &recorded).map_err(PlanError::Spec);
    let scope = match (asked.target.as_slice(), asked.exclude.as_slice()) {
        ([], []) => None,
        ([], exclude) => Some(Scope::Without(choose(exclude)?)),
        (target, _) => Some(Scope::Only(choose(target)?)),
    };
    let wishes = Wishes::new(&asked.replace, &asked.allow_destroy, desired, &recorded).map_err(PlanError::Spec)?;
    let wishes = if asked.only_these { wishes.only_these(&recorded).map_err(PlanError::Spec)? } else { wishes };
    let plan = match asked.destroy {
        false => plan_with(desired, recorded, host, &wishes)?,
        true => plan_destroy_with(desired, recorded, host, &wishes)?,
    };
    let plan = match &scope {
        Some(scope) => plan.confine(scope)?,
        None => plan,
    };
    Ok(if asked.defer_reboots { plan.defer_reboots() } else { plan })
}

/// What the spec comes to on this host, and what is there.
///
/// # Errors
/// See [`PlanError`].
pub fn blueprint(desired: &Desired, recorded: &Recorded, host: &dyn Host) -> Result<(Blueprint, Observed), PlanError> {
    let Lowered { blueprint, observed, .. } = lower(desired, recorded, host, &BTreeSet::new())?;
    Ok((blueprint, observed))
}

/// What the spec comes to on a host, and what was found there.
struct Lowered {
    blueprint: Blueprint,
    observed: Observed,
    facts: HostFacts,
}

fn lower(
    desired: &Desired,
    recorded: &Recorded,
    host: &dyn Host,
    replace: &BTreeSet<Name>,
) -> Result<Lowered, PlanError> {
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, recorded)?;
    let mut observed = host.observe()?;
    look_at_imports(desired, recorded, host, &mut observed)?;
    let chosen = blueprint::found::with_found(desired, recorded, &observed);
    let facts = host.facts()?;
    let taken = blueprint::found::left_alone(desired, recorded, &chosen);
    let beside = Beside { taken, replace: replace.clone() };
    let mut blueprint = blueprint::lower_beside(desired, &chosen, &facts, &beside).map_err(PlanError::Spec)?;
    blueprint.disowned.clone_from(&desired.carried.removed);
    for (key, imported) in &mut observed.imports {
        if let Some(domain) = blueprint.objects.get(key).and_then(Object::as_domain) {
            let differing = host.differing(imported, domain)?;
            imported.differing.extend(differing);
        }
    }
    networks_are_free(desired, &observed)?;
    Ok(Lowered { blueprint, observed, facts })
}

/// Adds the domains of others that are to be taken over to what was seen.
fn look_at_imports(
    desired: &Desired,
    recorded: &Recorded,
    host: &dyn Host,
    observed: &mut Observed,
) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<String, Place> = BTreeMap::new();
    for (block, import) in import::pending(desired, recorded) {
        let key = domain_key(&import.server);
        match host.observe_foreign(&import, observed) {
            Ok(()) => {
                let is_import = observed.imports.contains_key(&key);
                let uuid = observed.objects.get(&key).and_then(|facts| facts.get("uuid")).filter(|_| is_import);
                let Some(uuid) = uuid else { continue };
                if let Some(other) = seen.insert(uuid.clone(), block.place.clone()) {
                    let error = Diagnostic::error(format!("domain `{}` is named twice", import.id));
                    let error = error.code(NOT_IMPORTABLE).placed(block.place.clone()).related(other, "here too");
                    problems.push(error.help("take one of the blocks out"));
                }
            }
            Err(error) if error.code.as_deref() == Some(NOT_IMPORTABLE) => {
                let problem = Diagnostic::error(error.to_string()).code(NOT_IMPORTABLE).placed(block.place.clone());
                problems.push(Diagnostic { help: error.help, ..problem });
            }
            Err(error) => return Err(error.into()),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Spec(problems)) }
}

/// The plan that takes away all that was made.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_destroy(desired: &Desired, recorded: Recorded, host: &dyn Host) -> Result<Plan, PlanError> {
    plan_destroy_with(desired, recorded, host, &Wishes::default())
}

/// The plan that takes away all that was made, also what is asked for beside the spec.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_destroy_with(
    desired: &Desired,
    recorded: Recorded,
    host: &dyn Host,
    wishes: &Wishes,
) -> Result<Plan, PlanError> {
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, &recorded)?;
    let guarded = wishes.guarded(desired, &recorded);
    let nothing = Blueprint { disowned: desired.carried.removed.clone(), ..Blueprint::default() };
    let plan = Plan { trash: desired.host.trash_ttl, ..Plan::new(nothing, recorded, &host.observe()?)? };
    Ok(plan.protecting(&guarded).allowing(&wishes.allow_destroy))
}

/// A disk never shrinks, for its guest would lose what is at its end; and none is smaller than what it is made from, as far
/// as that is known (reference A2).
fn disks_are_possible(desired: &Desired, plan: &Plan, observed: &Observed) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    for change in plan.changes.iter().filter(|change| change.action != Action::Record) {
        let size_before = || {
            let size = change.fields.iter().find(|field| field.name == "size" && change.action == Action::Update);
            size.and_then(|field| field.before.as_ref()?.parse::<ByteSize>().ok())
        };
        let disk = match &change.want {
            Some(Object::Disk(disk)) => disk,
            Some(Object::Volume(volume)) => {
                let Some(wanted) = desired.volumes.get(&volume.id) else { continue };
                if let Some(is) = size_before().filter(|is| *is > volume.size) {
                    let what = volume.id.title();
                    let error = format!("`{what}` has {is} and cannot shrink to {}", volume.size);
                    let error = Diagnostic::error(error).code("disk-would-shrink").placed(wanted.sized.clone());
                    problems
                        .push(error.help(format!("write at least `\"{is}\"`; a smaller one has to be another disk")));
                }
                continue;
            }
            _ => continue,
        };
        let Some(server) = desired.servers.get(&disk.server) else { continue };
        if disk.imported {
            problems.extend(imported_disk_is_there(server, disk, change, observed));
        }
        let at = |error: Diagnostic, code: &str| {
            let flavor = Address::new(ResourceKind::Flavor, server.flavor.clone());
            let error = error.code(code).on(&server.declared, "flavor");
            error.related(Place::of(&flavor, "disk"), format!("{} here", disk.size))
        };
        if change.action == Action::Update {
            if let Some(is) = size_before().filter(|is| *is > disk.size) {
                let error = format!("the disk of `server.{}` has {is} and cannot shrink to {}", disk.server, disk.size);
                problems.push(at(Diagnostic::error(error), "disk-would-shrink").help(format!(
                    "use a flavor with {is} or more; or give it a new disk of {}, without what is on this one: \
                     `novella rebuild {}`, or `--replace server.{}`",
                    disk.size, disk.server, disk.server
                )));
            }
            continue;
        }
        let Some(base) = &disk.base else { continue };
        let has = observed.objects.get(&base_key(&base.id)).and_then(|facts| facts.get("virtual_size"));
        if let Some(has) = has.and_then(|size| size.parse::<ByteSize>().ok()).filter(|has| *has > disk.size) {
            let error =
                format!("`image.{}` is a disk of {has}, and `server.{}` has {}", disk.image, disk.server, disk.size);
            let help =
                format!("use a flavor with {has} or more; `min_disk = \"{has}\"` in the image tells that earlier");
            problems.push(at(Diagnostic::error(error), "image-too-large").help(help));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Spec(problems)) }
}

/// An imported disk is never made; and it grows by its guest only once that is ours.
fn imported_disk_is_there(server: &Server, disk: &Disk, change: &Change, observed: &Observed) -> Option<Diagnostic> {
    let file = disk.path.display();
    if change.action == Action::Create {
        let gone = Diagnostic::error(format!("the disk of `server.{}`, `{file}`, is gone", disk.server));
        return Some(gone.code(DISK_GONE).on(&server.declared, "").help(import::way_out(&disk.server)));
    }
    let runs = observed.guests.get(&domain_key(&disk.server)).is_some_and(Guest::is_foreign);
    let size = change.fields.iter().find(|field| field.name == "size").filter(|_| runs)?;
    let is = size.before.as_deref().unwrap_or_default();
    let error = format!("the disk of `server.{}` has {is} and cannot grow to {} while it runs", disk.server, disk.size);
    let help = format!("shut the domain down first; or use a flavor with {is} until it is taken over and was rebooted");
    Some(Diagnostic::error(error).code(NOT_IMPORTABLE).on(&server.declared, "flavor").help(help))
}

/// To take addresses of a network that the host is on already would draw the host's own traffic to the bridge. A subnet that
/// its bridge has is left in peace: the host came to the other network later.
fn networks_are_free(desired: &Desired, observed: &Observed) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    for network in desired.networks.values() {
        let bridge = observed.objects.get(&bridge_key(&network.name));
        let held = bridge.and_then(|facts| facts.get("addresses")).map_or("", String::as_str);
        let held: Vec<IpNet> = held.split(", ").filter_map(|net| net.parse().ok()).collect();
        for subnet in network.subnets.iter().filter(|subnet| !held.iter().any(|net| net.trunc() == subnet.cidr)) {
            let cidr = subnet.cidr;
            let overlaps = |net: &IpNet| net.contains(&cidr.network()) || cidr.contains(&net.network());
            if let Some((interface, net)) = observed.foreign_networks.iter().find(|(_, net)| overlaps(net)) {
                problems.push(
                    Diagnostic::error(format!("{cidr} is in use on this host: `{interface}` has {net}"))
                        .code("subnet-on-host")
                        .on(&Address::new(ResourceKind::Subnet, subnet.name.clone()), "cidr")
                        .help("choose another range for the subnet"),
                );
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Spec(problems)) }
}

/// Everything under a new directory would be made anew, and what is under the old one forgotten.
fn data_dir_is_where_it_was(layout: &Layout, recorded: &Recorded) -> Result<(), PlanError> {
    let outside = recorded.records.values().find_map(|record| {
        let path = match &record.object {
            Object::Disk(disk) if disk.imported => return None,
            Object::Disk(disk) => &disk.path,
            Object::Volume(volume) => &volume.path,
            Object::Seed(seed) => &seed.path,
            Object::Base(base) => &base.path,
            Object::Dhcp(dhcp) => &dhcp.dir,
            Object::Firewall(_) | Object::Bridge(_) | Object::HostEntry(_) | Object::Domain(_) => return None,
        };
        // <root>/<kind>/<name>[/<file>]
        let depth = match &record.object {
            Object::Disk(_) | Object::Seed(_) => 3,
            Object::Volume(volume) if matches!(volume.id, VolumeId::Inline { .. }) => 3,
            _ => 2,
        };
        let root = path.ancestors().nth(depth)?;
        (root != layout.root).then(|| root.to_owned())
    });
    match outside {
        Some(was) => Err(PlanError::DataDirMoved { was, is: layout.root.clone() }),
        None => Ok(()),
    }
}
