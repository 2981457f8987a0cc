//! What a server keeps as it was made, whatever the spec says by now: its `ignore_changes`.
//!
//! What it was made is read from the records. Its root disk is in `root_disk` and its seed in [`seed`](super::seed).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::dhcp::{HostEntry, IpVersion};
use crate::blueprint::hardware::Hardware;
use crate::blueprint::key::{base_key, domain_key, host_entry_key};
use crate::blueprint::object::{DirectBoot, Domain, Nic, Object};
use crate::blueprint::{Blueprint, Context};
use crate::desired::lifecycle::Ignored;
use crate::desired::port::{Declared, Port, Request, Wanted};
use crate::desired::{Desired, Server};
use crate::diagnostic::Diagnostic;
use crate::plan::world::Recorded;

/// What is ignored, by server.
pub(super) type Notes = BTreeMap<Address, BTreeSet<Ignored>>;

/// Notes that the spec says something else of a server than what it keeps.
pub(super) fn note(notes: &mut Notes, server: &Name, what: Ignored) {
    notes.entry(Address::new(ResourceKind::Server, server.clone())).or_default().insert(what);
}

/// The domain that is recorded of a server.
pub(super) fn made<'r>(server: &Name, recorded: &'r Recorded) -> Option<&'r Domain> {
    match &recorded.records.get(&domain_key(server))?.object {
        Object::Domain(domain) => Some(domain),
        _ => None,
    }
}

/// Gives a domain back what it keeps. `is_new`: it is yet to be started from another disk, with what that boots.
pub(super) fn keep(
    server: &Server,
    is_new: bool,
    domain: &mut Domain,
    context: &Context<'_>,
    blueprint: &mut Blueprint,
) {
    // One that was only found tells nothing of all that.
    let is_known = |made: &&Domain| made.vcpus > 0 && !server.lifecycle.ignore_changes.is_empty();
    let Some(made) = made(&server.name, context.recorded).filter(is_known) else { return };
    let mut keep = |what: Ignored, keep: &dyn Fn(&mut Domain)| {
        if server.ignores(what) {
            let before = domain.clone();
            keep(domain);
            if before != *domain {
                note(&mut blueprint.ignored, &server.name, what);
            }
        }
    };
    keep(Ignored::Flavor, &|it| {
        (it.vcpus, it.max_vcpus) = (made.vcpus, made.max_vcpus);
        (it.memory, it.max_memory) = (made.memory, made.max_memory);
        it.hardware.cpu.clone_from(&made.hardware.cpu);
    });
    keep(Ignored::Power, &|it| it.power = made.power);
    keep(Ignored::DependsOn, &|it| it.depends_on.clone_from(&made.depends_on));
    keep(Ignored::ShutdownTimeout, &|it| it.shutdown_timeout = made.shutdown_timeout);
    let files = made.boot.iter().flat_map(DirectBoot::files);
    let files: Option<Vec<&Object>> =
        files.map(|id| context.recorded.records.get(&base_key(id)).map(|record| &record.object)).collect();
    if let Some(files) = files.filter(|_| !is_new) {
        keep(Ignored::Image, &|it| {
            it.boot.clone_from(&made.boot);
            it.hardware = Hardware { cpu: it.hardware.cpu.take(), ..made.hardware.clone() };
        });
        if domain.boot == made.boot {
            files.into_iter().for_each(|file| blueprint.add(file.clone()));
        }
    }
}

/// The spec with the ports that servers keep.
///
/// # Errors
/// When a server is to keep an interface on a network, or a port of its own, that the spec does not have for it.
pub(super) fn ports<'d>(
    desired: &'d Desired,
    recorded: &Recorded,
    notes: &mut Notes,
) -> Result<Cow<'d, Desired>, Vec<Diagnostic>> {
    let concerned = |server: &&Server| server.ignores(Ignored::Networks) || server.ignores(Ignored::FixedIp);
    let concerned = desired.servers.values().filter(concerned);
    let concerned: Vec<_> = concerned.filter_map(|server| Some((server, made(&server.name, recorded)?))).collect();
    if concerned.is_empty() {
        return Ok(Cow::Borrowed(desired));
    }
    let mut kept = desired.clone();
    let mut problems = Vec::new();
    for (server, made) in concerned {
        if server.ignores(Ignored::Networks) && !made.nics.is_empty() {
            match interfaces(server, made, recorded, &mut kept) {
                Ok(true) => note(notes, &server.name, Ignored::Networks),
                Ok(false) => {}
                Err(problem) => problems.push(*problem),
            }
        }
        if server.ignores(Ignored::FixedIp) {
            for port in kept.ports.values_mut().filter(|port| port.id.address() == address(server)) {
                let Some(entry) = entry(&port.id, recorded).filter(|entry| !entry.addresses.is_empty()) else {
                    continue;
                };
                let is_other = |it: &Request| matches!(it.wanted, Wanted::Address(is) if !has(entry, is));
                if port.requests.iter().any(is_other) {
                    note(notes, &server.name, Ignored::FixedIp);
                }
                port.requests = requests(entry, &port.declared);
            }
        }
    }
    if problems.is_empty() { Ok(Cow::Owned(kept)) } else { Err(problems) }
}

/// Gives a server the interfaces that its domain has. Tells whether the spec says something else.
fn interfaces(
    server: &Server,
    made: &Domain,
    recorded: &Recorded,
    kept: &mut Desired,
) -> Result<bool, Box<Diagnostic>> {
    let ids: Vec<PortId> = made.nics.iter().map(|nic| nic.id(&server.name)).collect();
    if ids == server.ports {
        return Ok(false);
    }
    let gone = |what: String| {
        let error = Diagnostic::error(format!("`{}` keeps its interface on {what}", address(server)))
            .code("ignore-changes")
            .on(&server.declared, "lifecycle.ignore_changes")
            .help("put that back, or take `networks` out of `ignore_changes`");
        Box::new(error)
    };
    for (id, nic) in ids.iter().zip(&made.nics) {
        if !kept.networks.contains_key(&nic.network) {
            return Err(gone(format!("`network.{}`, which is not there any more", nic.network)));
        }
        match kept.ports.get(id) {
            Some(port) if port.server.as_ref().is_none_or(|holder| *holder == server.name) => {}
            Some(_) => return Err(gone(format!("`{}`, which another server has now", id.address()))),
            None if matches!(id, PortId::Own(_)) => {
                return Err(gone(format!("`{}`, which is not there any more", id.address())));
            }
            None => {}
        }
    }
    kept.ports.retain(|id, port| {
        let is_its = port.server.as_ref() == Some(&server.name) && !ids.contains(id);
        if is_its {
            port.server = None;
        }
        !is_its || matches!(id, PortId::Own(_))
    });
    for (id, nic) in ids.iter().zip(&made.nics) {
        let port = kept.ports.entry(id.clone()).or_insert_with(|| port(id, nic, server, entry(id, recorded)));
        port.server = Some(server.name.clone());
    }
    if let Some(server) = kept.servers.get_mut(&server.name) {
        server.ports = ids;
    }
    Ok(true)
}

/// A port that the spec does not have any more, as it was made.
fn port(id: &PortId, nic: &Nic, server: &Server, entry: Option<&HostEntry>) -> Port {
    let declared = Declared { resource: server.declared.clone(), key: "lifecycle".into() };
    let hostname = entry.and_then(|entry| entry.hostname.parse::<Name>().ok());
    Port {
        id: id.clone(),
        network: nic.network.clone(),
        requests: entry.map_or_else(Vec::new, |entry| requests(entry, &declared)),
        mac: None,
        up: !nic.unplugged,
        options: entry.map_or_else(Vec::new, |entry| entry.options.clone()),
        dns_name: hostname.filter(|name| *name != server.name),
        server: Some(server.name.clone()),
        declared,
    }
}

/// What a port asks for that is to have again what it has: as many addresses of each version. That they are the same ones is
/// the doing of [`ipam`](super::ipam).
fn requests(entry: &HostEntry, declared: &Declared) -> Vec<Request> {
    let chosen = entry.addresses.iter().filter(|it| !it.assignment.is_by_mac());
    let wanted = chosen.map(|it| Wanted::Any(IpVersion::of(it.address)));
    wanted.map(|wanted| Request { wanted, place: declared.place("") }).collect()
}

fn has(entry: &HostEntry, address: std::net::IpAddr) -> bool {
    entry.addresses.iter().any(|it| it.address == address)
}

fn entry<'r>(id: &PortId, recorded: &'r Recorded) -> Option<&'r HostEntry> {
    match &recorded.records.get(&host_entry_key(id))?.object {
        Object::HostEntry(entry) => Some(entry),
        _ => None,
    }
}

fn address(server: &Server) -> Address {
    Address::new(ResourceKind::Server, server.name.clone())
}
