//! What kinds of objects there are, and how an object is known for as long as it lives.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::{Name, PortId, VolumeId};

/// What kind of thing on a host an object is. The order is the order in which a plan lists the objects of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// The nft table of the project.
    Firewall,
    /// A Linux bridge.
    Bridge,
    /// A dnsmasq process serving one bridge.
    Dhcp,
    /// A host entry of a dnsmasq: MAC, address, name of one port.
    HostEntry,
    /// A file in the image cache.
    Base,
    /// The root disk of a server.
    Disk,
    /// A disk beside a root disk: a volume of its own, or a disk of one server.
    Volume,
    /// What the cloud-init of a server is told: a small medium.
    Seed,
    /// A libvirt domain.
    Domain,
}

impl ObjectKind {
    /// Every kind, in order.
    pub const ALL: [Self; 9] = [
        Self::Firewall,
        Self::Bridge,
        Self::Dhcp,
        Self::HostEntry,
        Self::Base,
        Self::Disk,
        Self::Volume,
        Self::Seed,
        Self::Domain,
    ];

    /// The word that plans and errors use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firewall => "firewall",
            Self::Bridge => "bridge",
            Self::Dhcp => "dhcp",
            Self::HostEntry => "host entry",
            Self::Base => "base image",
            Self::Disk => "disk",
            Self::Volume => "volume",
            Self::Seed => "seed",
            Self::Domain => "domain",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The identity of an object within a project. It never changes while the object lives.
///
/// | kind | id |
/// |---|---|
/// | firewall | the nft table: `novella-default` |
/// | bridge, dhcp | the network: `private` |
/// | host entry | the port: server and network, `web/private`, or its own name, `vip` |
/// | base image | the id of its content, a file name in the cache |
/// | volume | its own name, `data`, or server and disk, `web/scratch` |
/// | disk, seed, domain | the server: `web` |
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// What kind of thing it is.
    pub kind: ObjectKind,
    /// Its name among its kind.
    pub id: String,
}

impl ObjectKey {
    /// The key of the object `id` of this kind.
    pub fn new(kind: ObjectKind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// How the alias of every link of a project begins that we make ourselves; libvirt makes the taps.
pub fn link_mark(project: &Name) -> String {
    format!("novella:{project}:")
}

/// The name of a project's nft table.
pub fn firewall_table(project: &Name) -> String {
    format!("novella-{project}")
}

/// The project that an nft table is of, if it is one of ours.
pub fn project_of_table(table: &str) -> Option<Name> {
    table.strip_prefix("novella-")?.parse().ok()
}

/// The key of a project's firewall.
pub fn firewall_key(project: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Firewall, firewall_table(project))
}

/// The key of the bridge of a network.
pub fn bridge_key(network: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Bridge, network.as_str())
}

/// The key of the dnsmasq of a network.
pub fn dhcp_key(network: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Dhcp, network.as_str())
}

/// The key of the host entry of a port.
pub fn host_entry_key(port: &PortId) -> ObjectKey {
    ObjectKey::new(ObjectKind::HostEntry, port.to_string())
}

/// The key of a cached image file.
pub fn base_key(id: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::Base, id)
}

/// The key of the root disk of a server.
pub fn disk_key(server: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Disk, server.as_str())
}

/// The key of a volume, or of a disk that a server has beside its root disk.
pub fn volume_key(id: &VolumeId) -> ObjectKey {
    ObjectKey::new(ObjectKind::Volume, id.to_string())
}

/// The key of the seed of a server.
pub fn seed_key(server: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Seed, server.as_str())
}

/// The key of the domain of a server.
pub fn domain_key(server: &Name) -> ObjectKey {
    ObjectKey::new(ObjectKind::Domain, server.as_str())
}
