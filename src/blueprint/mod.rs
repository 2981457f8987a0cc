//! What a host must hold, with nothing left to decide.
//!
//! Every address, MAC, UUID, device name and path is chosen here, so that a plan can show them. Choices that were made
//! before are read back from the records and kept.
//!
//! [`object`], [`dhcp`], [`disk`], [`key`], [`facts`] and [`guest`] have the vocabulary; [`identity`] and [`ipam`] make the choices,
//! and [`found`] tells of those that no record holds any more; [`network`], [`image`], [`server`], [`volume`] and [`seed`] lower one
//! kind of thing each; [`capacity`] proves that it all fits, [`cache`] that the images do, [`hardware`] that the host can be such
//! machines, and [`usage`] tells what is left of a network.

pub mod cache;
pub mod capacity;
pub mod dhcp;
pub mod disk;
pub mod facts;
pub mod found;
pub mod guest;
pub mod hardware;
pub mod identity;
pub mod image;
pub mod ipam;
pub mod key;
pub mod layout;
pub mod network;
pub mod object;
pub mod seed;
pub mod server;
pub mod usage;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Name};
use crate::blueprint::identity::Identity;
use crate::blueprint::ipam::Ipam;
use crate::blueprint::key::ObjectKey;
use crate::blueprint::object::{Object, VirtType};
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, has_errors};
use crate::plan::world::Recorded;

pub use cache::CacheFacts;
pub use capacity::Capacity;
pub use hardware::Abilities;
pub use layout::Layout;

/// What a host can do and has room for, as far as choices depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The best way to run a domain that really works here.
    pub virt_type: VirtType,
    /// What there is to share out; none where that is unknown, as on the simulated host.
    pub capacity: Option<Capacity>,
    /// What its hypervisor can do; none where nothing asks for it, or it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abilities: Option<Abilities>,
    /// What is in the image cache, and what it has room for; none where that is unknown.
    #[serde(skip)]
    pub cache: Option<CacheFacts>,
}

/// All that a host must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blueprint {
    /// The objects, by key.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// What is worth knowing of the choices that were made.
    pub warnings: Vec<Diagnostic>,
    /// The resources that are to be forgotten, and stay on the host as they are.
    pub disowned: BTreeSet<Address>,
    /// The objects that are recorded under a name that the spec does not have any more.
    pub moved: BTreeSet<ObjectKey>,
}

impl HostFacts {
    /// A host of which nothing else is known.
    pub fn unknown(virt_type: VirtType) -> Self {
        Self { virt_type, capacity: None, abilities: None, cache: None }
    }
}

impl Blueprint {
    fn add(&mut self, object: Object) {
        // Two images with the same content want the same file: the first has it.
        self.objects.entry(object.key()).or_insert(object);
    }
}

/// All that the choices for a server depend on.
struct Context<'a> {
    desired: &'a Desired,
    recorded: &'a Recorded,
    identity: &'a Identity,
    layout: &'a Layout,
    ipam: &'a Ipam,
    host: &'a HostFacts,
}

/// Lowers a valid spec to the objects of this host.
///
/// # Errors
/// When the addresses or the host's capacity do not suffice, or an address is asked for that another server holds.
pub fn lower(desired: &Desired, recorded: &Recorded, host: &HostFacts) -> Result<Blueprint, Vec<Diagnostic>> {
    lower_beside(desired, recorded, &[], host)
}

/// The same, where others have these addresses: see [`Ipam::allocate_beside`].
///
/// # Errors
/// As [`lower`].
pub fn lower_beside(
    desired: &Desired,
    recorded: &Recorded,
    taken: &[(Name, IpAddr)],
    host: &HostFacts,
) -> Result<Blueprint, Vec<Diagnostic>> {
    let mut problems = capacity::check(desired, host.capacity);
    problems.extend(hardware::check(desired, recorded, host));
    let identity = Identity::new(&desired.project);
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    let ipam = Ipam::allocate_beside(desired, recorded, taken, &identity, &mut problems);
    if has_errors(&problems) {
        return Err(problems);
    }
    let mut blueprint = Blueprint { warnings: problems, ..Blueprint::default() };
    let networks = network::lower(desired, &ipam, &identity, &layout, &mut blueprint);
    let context = Context { desired, recorded, identity: &identity, layout: &layout, ipam: &ipam, host };
    image::lower(&context, &mut blueprint);
    network::lower_ports(desired, &ipam, &mut blueprint);
    volume::lower(&context, &mut blueprint);
    for server in desired.servers.values() {
        server::lower(server, &context, &networks, &mut blueprint);
    }
    Ok(blueprint)
}
