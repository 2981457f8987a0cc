//! Domains of others that servers are to become: what a host is asked of them, and what of it is a choice that is kept.
//!
//! To import is to find: the domain is read as if it carried the mark of its server already. So all that holds for what is
//! found with our mark holds for it, and the plan names each field that differs.

use std::collections::BTreeMap;

use crate::address::{Name, PortId};
use crate::blueprint::dhcp::HostEntry;
use crate::blueprint::hardware::Firmware;
use crate::blueprint::key::{ObjectKey, domain_key, host_entry_key};
use crate::blueprint::object::Object;
use crate::desired::carried;
use crate::desired::{Desired, Port, Server};
use crate::plan::world::{Observed, Record, Recorded, Status};
use crate::value::Mac;

/// The name of the diagnostic that a domain cannot be taken over.
pub const NOT_IMPORTABLE: &str = "not-importable";

/// The name of the diagnostic that an imported disk is gone.
pub const DISK_GONE: &str = "imported-disk-gone";

/// What can be done where the imported disk of a server is gone.
pub fn way_out(server: &Name) -> String {
    format!(
        "put the file back; or give the server a new disk, from its image and without what was on that one: \
         `--replace server.{server}`"
    )
}

/// A domain of others that is not taken over yet, as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The project.
    pub project: Name,
    /// The server.
    pub server: Name,
    /// The name or the UUID of the domain.
    pub id: String,
    /// The interfaces of the server, in their order.
    pub nics: Vec<ImportedNic>,
    /// Whether it was begun to be taken over: where there is no such domain then, it is to be made anew.
    pub begun: bool,
    /// What starts the machine.
    pub firmware: Firmware,
    /// How long it may take to shut down, in seconds.
    pub shutdown_timeout: u32,
    /// Whether the server says how many processors it can be brought to.
    pub has_max_vcpus: bool,
    /// Whether it says to how much memory.
    pub has_max_memory: bool,
}

/// An interface of a server that is to be one of a domain of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedNic {
    /// The port.
    pub port: PortId,
    /// Its network.
    pub network: Name,
    /// Its MAC address, where the spec has one.
    pub mac: Option<Mac>,
}

impl Import {
    fn new(desired: &Desired, server: &Server, import: &carried::Import, begun: bool) -> Self {
        let ports = server.ports.iter().filter_map(|id| desired.ports.get(id));
        let nic = |port: &Port| ImportedNic { port: port.id.clone(), network: port.network.clone(), mac: port.mac };
        let flavor = desired.flavors.get(&server.flavor);
        Self {
            project: desired.project.clone(),
            server: server.name.clone(),
            id: import.id.clone(),
            nics: ports.map(nic).collect(),
            begun,
            firmware: desired.images.get(&server.image).map(|image| image.firmware).unwrap_or_default(),
            shutdown_timeout: server.shutdown_timeout,
            has_max_vcpus: flavor.is_some_and(|flavor| flavor.max_vcpus.is_some()),
            has_max_memory: flavor.is_some_and(|flavor| flavor.max_ram.is_some()),
        }
    }

    /// Which interface of the domain is which of the server: by the MAC address that the spec has, the others in their order.
    /// One that the domain does not have has the address of the spec, or none.
    pub fn macs(&self, has: &[Mac]) -> Vec<(&ImportedNic, Option<Mac>)> {
        let named = |mac: &Mac| self.nics.iter().any(|nic| nic.mac == Some(*mac));
        let mut others = has.iter().filter(|mac| !named(mac)).copied();
        self.nics.iter().map(|nic| (nic, nic.mac.or_else(|| others.next()))).collect()
    }
}

/// The domains that are to be taken over yet: of these servers nothing is recorded, or only that it was begun.
pub fn pending<'d>(desired: &'d Desired, recorded: &Recorded) -> Vec<(&'d carried::Import, Import)> {
    let imports = desired.carried.imports.iter().filter_map(|import| {
        let status = recorded.records.get(&domain_key(&import.server)).map(|record| record.status);
        let server = desired.servers.get(&import.server).filter(|_| status != Some(Status::Present))?;
        Some((import, Import::new(desired, server, import, status.is_some())))
    });
    imports.collect()
}

/// The MAC addresses of domains that are to be taken over, as host entries that have no addresses yet.
pub(super) fn choices(desired: &Desired, observed: &Observed) -> BTreeMap<ObjectKey, Record> {
    let macs = observed.imports.values().flat_map(|import| &import.macs);
    let entries = macs.filter_map(|(port, mac)| {
        let entry = HostEntry {
            port: port.clone(),
            network: desired.ports.get(port)?.network.clone(),
            mac: *mac,
            addresses: Vec::new(),
            hostname: String::new(),
            options: Vec::new(),
        };
        Some((host_entry_key(port), Record::present(Object::HostEntry(entry))))
    });
    entries.collect()
}
