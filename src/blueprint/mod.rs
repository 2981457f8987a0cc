//! What a host must hold, with nothing left to decide.
//!
//! Every address, MAC, UUID, device name and path is chosen here, so that a plan can show them. Choices that were made
//! before are read back from the records and kept.
//!
//! [`object`], [`dhcp`], [`disk`], [`key`], [`facts`] and [`guest`] have the vocabulary; [`identity`] and [`ipam`] make the choices,
//! [`found`] tells of those that no record holds any more, and [`import`] of those that others made; [`network`], [`image`],
//! [`server`], `root_disk`, [`volume`] and [`seed`] lower one kind of thing each, and `ignore` keeps what is not to change;
//! [`capacity`] proves that it all fits, [`cache`] that the images do, [`hardware`] that the host can be such machines, and [`usage`] tells what is left of a network.

pub mod cache;
pub mod capacity;
pub mod dhcp;
pub mod disk;
pub mod facts;
pub mod found;
pub mod guest;
pub mod hardware;
pub mod identity;
mod ignore;
pub mod image;
pub mod import;
pub mod ipam;
pub mod key;
pub mod layout;
pub mod network;
pub mod object;
mod root_disk;
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
use crate::desired::lifecycle::Ignored;
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
    /// What is made anew because somebody asked for it.
    pub requested: BTreeSet<ObjectKey>,
    /// What is made beside what it replaces, as long as that is in use.
    pub beside: BTreeSet<ObjectKey>,
    /// What no plan may take away, for as long as its record says so.
    pub guarded: BTreeSet<ObjectKey>,
    /// What stays as it was made although the spec says something else, by server.
    pub ignored: BTreeMap<Address, BTreeSet<Ignored>>,
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
    /// The servers that are to get a new root disk.
    replace: &'a BTreeSet<Name>,
}

/// Lowers a valid spec to the objects of this host.
///
/// # Errors
/// When the addresses or the host's capacity do not suffice, or an address is asked for that another server holds.
pub fn lower(desired: &Desired, recorded: &Recorded, host: &HostFacts) -> Result<Blueprint, Vec<Diagnostic>> {
    lower_beside(desired, recorded, host, &Beside::default())
}

/// What choices depend on beside the spec, the records and the host.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Addresses that others have: see [`Ipam::allocate_beside`].
    pub taken: Vec<(Name, IpAddr)>,
    /// The servers that get a new root disk if they have one.
    pub replace: BTreeSet<Name>,
}

/// The same, beside other things.
///
/// # Errors
/// As [`lower`].
pub fn lower_beside(
    desired: &Desired,
    recorded: &Recorded,
    host: &HostFacts,
    beside: &Beside,
) -> Result<Blueprint, Vec<Diagnostic>> {
    let mut ignored = ignore::Notes::new();
    let desired = &*ignore::ports(desired, recorded, &mut ignored)?;
    let mut problems = capacity::check(desired, host.capacity);
    problems.extend(hardware::check(desired, recorded, host));
    let identity = Identity::new(&desired.project);
    let layout = Layout::new(&desired.host.data_dir, &desired.project);
    let ipam = Ipam::allocate_beside(desired, recorded, &beside.taken, &identity, &mut problems);
    if has_errors(&problems) {
        return Err(problems);
    }
    let mut blueprint = Blueprint { warnings: problems, ignored, ..Blueprint::default() };
    let networks = network::lower(desired, &ipam, &identity, &layout, &mut blueprint);
    let (identity, layout, ipam, replace) = (&identity, &layout, &ipam, &beside.replace);
    let context = Context { desired, recorded, identity, layout, ipam, host, replace };
    image::lower(&context, &mut blueprint);
    network::lower_ports(desired, ipam, &mut blueprint);
    volume::lower(&context, &mut blueprint);
    for server in desired.servers.values() {
        server::lower(server, &context, &networks, &mut blueprint);
    }
    image::leave_out(&context, &mut blueprint);
    Ok(blueprint)
}
