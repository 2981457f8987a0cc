//! One pass from a valid spec to a plan: look at the host, choose, compare, order.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::address::{Address, ResourceKind, VolumeId};
use crate::blueprint::cache::CacheUse;
use crate::blueprint::key::bridge_key;
use crate::blueprint::object::Object;
use crate::blueprint::{self, Blueprint, Layout};
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, Place};
use crate::host::{Host, HostError};
use crate::plan::world::{Observed, Recorded};
use crate::plan::{Action, Cycle, Plan, records};
use crate::value::ByteSize;

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
pub fn plan(desired: &Desired, mut recorded: Recorded, host: &dyn Host) -> Result<Plan, PlanError> {
    let moved = records::carry_over(&mut recorded, &desired.carried.moved);
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, &recorded)?;
    let observed = host.observe()?;
    let chosen = blueprint::found::with_found(desired, &recorded, &observed);
    let facts = host.facts()?;
    let taken = blueprint::found::left_alone(desired, &recorded, &chosen);
    let lowered = blueprint::lower_beside(desired, &chosen, &taken, &facts);
    let mut blueprint = lowered.map_err(PlanError::Spec)?;
    blueprint.disowned.clone_from(&desired.carried.removed);
    blueprint.moved = moved;
    drop(chosen);
    networks_are_free(desired, &observed)?;
    let cache = facts.cache.map(|cache| CacheUse::new(&blueprint, &recorded, &observed, &cache));
    if let Some(problem) = cache.as_ref().and_then(CacheUse::check) {
        return Err(PlanError::Spec(vec![problem]));
    }
    let mut plan = Plan::new(blueprint, recorded, &observed)?;
    (plan.trash, plan.cache) = (desired.host.trash_ttl, cache);
    disks_do_not_shrink(&plan, desired)?;
    Ok(plan)
}

/// The plan that takes away all that was made.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_destroy(desired: &Desired, recorded: Recorded, host: &dyn Host) -> Result<Plan, PlanError> {
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, &recorded)?;
    let nothing = Blueprint { disowned: desired.carried.removed.clone(), ..Blueprint::default() };
    let mut plan = Plan::new(nothing, recorded, &host.observe()?)?;
    plan.trash = desired.host.trash_ttl;
    Ok(plan)
}

/// What a disk becomes less by is lost, so none does.
fn disks_do_not_shrink(plan: &Plan, desired: &Desired) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    for change in plan.changes.iter().filter(|change| change.action == Action::Update) {
        let size = change.fields.iter().find(|field| field.name == "size");
        let before = size.and_then(|size| size.before.as_ref()?.parse::<ByteSize>().ok());
        let (what, size, place) = match &change.want {
            Some(Object::Disk(disk)) => {
                let Some(server) = desired.servers.get(&disk.server) else { continue };
                let flavor = Address::new(ResourceKind::Flavor, server.flavor.clone());
                (format!("the root disk of `server.{}`", disk.server), disk.size, Place::of(&flavor, "disk"))
            }
            Some(Object::Volume(volume)) => {
                let Some(wanted) = desired.volumes.get(&volume.id) else { continue };
                (format!("`{}`", volume.id.title()), volume.size, wanted.sized.clone())
            }
            _ => continue,
        };
        if let Some(before) = before.filter(|before| *before > size) {
            problems.push(
                Diagnostic::error(format!("{what} has {before}, and cannot shrink to {size} without loss"))
                    .code("disk-shrinks")
                    .placed(place)
                    .help(format!("write at least `\"{before}\"`; a smaller one has to be another disk")),
            );
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(PlanError::Spec(problems)) }
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
