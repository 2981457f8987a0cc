//! One pass from a valid spec to a plan: look at the host, choose, compare, order.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::address::{Address, ResourceKind};
use crate::blueprint::key::bridge_key;
use crate::blueprint::object::Object;
use crate::blueprint::{self, Blueprint, Layout};
use crate::desired::Desired;
use crate::diagnostic::Diagnostic;
use crate::host::{Host, HostError};
use crate::plan::world::{Observed, Recorded};
use crate::plan::{Cycle, Plan};

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
    let (blueprint, observed) = blueprint(desired, &recorded, host)?;
    Ok(Plan::new(blueprint, recorded, &observed)?)
}

/// What the spec comes to on this host, and what is there.
///
/// # Errors
/// See [`PlanError`].
pub fn blueprint(desired: &Desired, recorded: &Recorded, host: &dyn Host) -> Result<(Blueprint, Observed), PlanError> {
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, recorded)?;
    let observed = host.observe()?;
    let chosen = blueprint::found::with_found(desired, recorded, &observed);
    let blueprint = blueprint::lower(desired, &chosen, &host.facts()?).map_err(PlanError::Spec)?;
    networks_are_free(desired, &observed)?;
    Ok((blueprint, observed))
}

/// The plan that takes away all that was made.
///
/// # Errors
/// See [`PlanError`].
pub fn plan_destroy(desired: &Desired, recorded: Recorded, host: &dyn Host) -> Result<Plan, PlanError> {
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    data_dir_is_where_it_was(&layout, &recorded)?;
    Ok(Plan::new(Blueprint::default(), recorded, &host.observe()?)?)
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
            Object::Seed(seed) => &seed.path,
            Object::Base(base) => &base.path,
            Object::Dhcp(dhcp) => &dhcp.dir,
            Object::Firewall(_) | Object::Bridge(_) | Object::HostEntry(_) | Object::Domain(_) => return None,
        };
        // <root>/<kind>/<name>[/<file>]
        let root =
            path.ancestors().nth(if matches!(record.object, Object::Disk(_) | Object::Seed(_)) { 3 } else { 2 })?;
        (root != layout.root).then(|| root.to_owned())
    });
    match outside {
        Some(was) => Err(PlanError::DataDirMoved { was, is: layout.root.clone() }),
        None => Ok(()),
    }
}
