//! Domains, through libvirt (reference F).
//!
//! - `connection`: the one connection that all threads share.
//! - `devices`: what a guest takes while it runs: interfaces that come and go, what is in its drive, cables.
//! - `power`: starting, shutting down, forcing off.
//! - `overlays`: snapshots over our disks.
//! - `foreign`: looking at a domain of others.
//! - `import`: taking one over.
//! - `guest`: what people do to one guest by hand.
//! - here: what is there, making it what it is to be, and taking it away.
//!
//! A domain is ours if it carries our mark (see [`domain_xml`]); no other is ever changed.

mod connection;
mod devices;
mod foreign;
mod guest;
mod import;
mod overlays;
mod power;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

pub use self::connection::LibvirtError;
use self::connection::{Connection, failed, is};
pub use self::foreign::on_host;
pub use self::guest::Console;
use self::power::State;
use crate::address::Name;
use crate::blueprint::facts::{Disruption, Facts};
use crate::blueprint::guest::{Guest, pending};
use crate::blueprint::key::{ObjectKind, domain_key};
use crate::blueprint::object::{self, Claim, Object, Power, VirtType};
use crate::blueprint::{Abilities, Capacity, Layout};
use crate::host::domain_xml::{self, Marked, ReadDisk};
use crate::host::files;
use crate::host::{HostError, domain_xml::Read};
use crate::plan::world::Observed;
use crate::value::ByteSize;

/// How long a guest may take to shut down when its mark does not tell, in seconds.
const SHUTDOWN_TIMEOUT: u32 = 60;

/// The libvirt of this host.
pub struct Hypervisor {
    connection: Connection,
    layout: Layout,
}

/// What libvirt says of itself, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The URI in use.
    pub uri: String,
    /// libvirt's version, as `9.0.0`.
    pub libvirt: String,
    /// The hypervisor's name and version, as `QEMU 7.2.22`.
    pub hypervisor: String,
    /// What keeps guests from the host's files and each other beside their user id: `apparmor`, `selinux`; none if nothing
    /// does.
    pub confinement: Option<String>,
}

/// One domain as it was seen.
struct Seen {
    name: String,
    uuid: Uuid,
    /// Its definition.
    read: Read,
    /// What runs, where something does.
    live: Option<Read>,
    state: State,
    persistent: bool,
}

impl Hypervisor {
    /// The libvirt at `uri`, for the project of `layout`. It is connected to when it is first needed.
    ///
    /// # Errors
    /// When the URI must not be used: unencrypted TCP, control characters.
    pub fn new(uri: &str, layout: Layout) -> Result<Self, HostError> {
        Ok(Self { connection: Connection::new(uri)?, layout })
    }

    /// What the host has to share out.
    ///
    /// # Errors
    /// When libvirt cannot be reached, or the file system of the data directory not be read.
    pub fn facts(&self) -> Result<Capacity, HostError> {
        let node = self.connection.run(|connect| {
            connect.node_info().map_err(|error| failed("cannot ask libvirt for the host's size", error))
        })?;
        let root = &self.layout.root;
        let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let disk = statvfs(existing).map_err(|error| {
            HostError::new(format!("cannot tell the size of the disk under {}", root.display()), error)
        })?;
        Ok(Capacity {
            vcpus: node.cpus,
            memory: ByteSize(node.memory.saturating_mul(1024)),
            disk: ByteSize(disk.blocks().saturating_mul(disk.fragment_size())),
        })
    }

    /// What its QEMU can do for domains that are run in this way.
    ///
    /// # Errors
    /// When libvirt cannot be reached, or cannot tell.
    pub fn abilities(&self, virt_type: VirtType) -> Result<Abilities, HostError> {
        self.connection.run(|connect| {
            let told = connect.domain_capabilities(None, Some("x86_64"), Some("q35"), Some(virt_type.as_str()), 0);
            let told = told.map_err(|error| failed("cannot ask libvirt what domains can be", error))?;
            Ok(abilities(&told).unwrap_or_default())
        })
    }

    /// What libvirt says of itself.
    ///
    /// # Errors
    /// When it cannot be reached: why, and what to do about it.
    pub fn about(&self) -> Result<About, HostError> {
        self.connection.run(|connect| {
            let ask = |error| failed(format!("cannot ask libvirt at `{}` about itself", self.connection.uri()), error);
            Ok(About {
                uri: self.connection.uri().to_owned(),
                libvirt: version(connect.lib_version().map_err(ask)?),
                hypervisor: format!(
                    "{} {}",
                    connect.driver_type().map_err(ask)?,
                    version(connect.hyp_version().map_err(ask)?)
                ),
                confinement: confinement(&connect.capabilities().map_err(ask)?),
            })
        })
    }

    /// Adds what is there: our domains with their facts, and what others have taken.
    ///
    /// `bridge_of` tells which bridge an interface of this host is plugged into. A running guest is where that says, and
    /// not where its definition says.
    ///
    /// # Errors
    /// When libvirt cannot be reached, or does not answer.
    pub fn observe(&self, into: &mut Observed, bridge_of: impl Fn(&str) -> Option<String>) -> Result<(), HostError> {
        for seen in self.connection.run(look)? {
            let reads = [Some(&seen.read), seen.live.as_ref()].into_iter().flatten();
            let overlays = overlays::overlays(&self.layout, reads);
            match seen.read.marked {
                Some(marked) if marked.project == self.layout.project => {
                    let mut facts = marked.facts;
                    if seen.state != State::Off {
                        // One that the guest gets with its next start is where its definition says.
                        let has = |tap: &String| seen.live.as_ref().is_none_or(|live| live.taps.contains(tap));
                        for (nic, tap) in marked.taps.iter().filter(|(_, tap)| has(tap)) {
                            let bridge = bridge_of(tap).unwrap_or_else(|| "none".into());
                            facts.insert(format!("nic.{nic}.bridge").into(), bridge);
                        }
                    }
                    // A cable is pulled in the guest, in the definition, or in both.
                    let live = seen.live.as_ref().and_then(|live| live.marked.as_ref());
                    let live = live.map(|marked| marked.facts.clone()).unwrap_or_default();
                    for (fact, is) in live.into_iter().filter(|(fact, _)| fact.ends_with(".link")) {
                        if let Some(defined) = facts.get_mut(&fact).filter(|defined| **defined != is) {
                            *defined = format!("{is} (defined as {defined})");
                        }
                    }
                    // Undefined by hand while it runs: still on, but it must be defined again to outlive a shutdown.
                    let power =
                        if seen.persistent { seen.state.to_string() } else { format!("{} (undefined)", seen.state) };
                    facts.insert("power".into(), power);
                    if let Some(live) = seen.live.as_ref().filter(|live| live.marked.is_some()) {
                        let defined: Vec<String> = seen.read.nics.into_iter().map(|(fact, _)| fact).collect();
                        let mut guest = guest(live);
                        guest.pending = pending(&guest.facts, &guest.nics, &facts, &defined);
                        into.guests.insert(domain_key(&marked.server), guest);
                    }
                    if !overlays.is_empty() {
                        into.overlays.insert(domain_key(&marked.server), overlays);
                    }
                    into.objects.insert(domain_key(&marked.server), facts);
                }
                _ => {
                    into.foreign.insert(Claim::DomainName(seen.name));
                    into.foreign.insert(Claim::DomainUuid(seen.uuid));
                    into.foreign.extend(seen.read.taps.into_iter().map(Claim::Link));
                }
            }
        }
        Ok(())
    }

    /// Makes a domain what it is to be.
    ///
    /// It is defined over what is there. A running guest is shut down and started again only if it runs with a definition
    /// from which the wanted one differs by more than it can take while it runs ([`ObjectKind::disruption`]); so a restart
    /// that an earlier run announced and did not get to is made up for.
    ///
    /// # Errors
    /// When its name or UUID belongs to a domain that is not ours, libvirt refuses the definition, or the guest does not
    /// get to the power that is wanted.
    pub fn ensure(&self, wanted: &object::Domain) -> Result<(), HostError> {
        self.ensure_within(wanted, Disruption::Replace, &|| {}).map(drop)
    }

    /// The same, where a running guest may notice no more than `most`: what it cannot take is defined, and waits for its next
    /// start. Gives the host sides of the interfaces that a running guest has. `before_start` is what there is to do whenever
    /// the guest is off and about to be started.
    ///
    /// # Errors
    /// As [`Self::ensure`]; and when a guest does not let go of an interface.
    pub fn ensure_within(
        &self,
        wanted: &object::Domain,
        most: Disruption,
        before_start: &dyn Fn(),
    ) -> Result<Vec<String>, HostError> {
        let name = &wanted.name;
        let xml = domain_xml::write(wanted)
            .map_err(|error| HostError::new(format!("cannot define domain `{name}`"), error))?;
        // The console log is there too.
        files::make_instance_dir(&self.layout, wanted.server.as_str())?;
        self.connection.run(|connect| {
            let domain = self.define(connect, wanted, &xml)?;
            power::settle(&domain, wanted, most >= Disruption::Reboot, before_start)?;
            devices::change(&domain, wanted)
        })
    }

    /// Shuts the guest of a domain down, by force once its time is over, and starts it again as it is defined now. Gives
    /// the host sides of the interfaces that it has then.
    ///
    /// # Errors
    /// When none runs, or it cannot be stopped or started.
    pub fn reboot(&self, wanted: &object::Domain, before_start: &dyn Fn()) -> Result<Vec<String>, HostError> {
        let server = &wanted.server;
        // If the connection breaks between the two, the guest is off when it is done again.
        let stopped = AtomicBool::new(false);
        self.connection.run(|connect| {
            let Some((name, domain, _)) = self.ours(connect, server.as_str())?.into_iter().next() else {
                return Err(HostError::refused(format!("cannot reboot server.{server}: there is no such domain")));
            };
            let look = |error| failed(format!("cannot look at domain `{name}`"), error);
            if power::state(&domain).map_err(look)? != State::Off {
                power::stop(&domain, &name, Duration::from_secs(wanted.shutdown_timeout.into()))?;
                stopped.store(true, Ordering::SeqCst);
            } else if !stopped.load(Ordering::SeqCst) {
                return Err(HostError::refused(format!("cannot reboot server.{server}: it does not run")));
            }
            let on = object::Domain { power: Power::On, ..wanted.clone() };
            power::settle(&domain, &on, false, before_start)?;
            devices::change(&domain, &on)
        })
    }

    /// Makes a disk larger under the guest that runs with it. Tells whether there is one. Only the guest of `server` is looked
    /// at where that is known.
    ///
    /// # Errors
    /// When libvirt refuses.
    pub fn grow_disk(&self, path: &Path, size: ByteSize, server: Option<&Name>) -> Result<bool, HostError> {
        let file = path.display().to_string();
        self.connection.run(|connect| {
            let list = |error| failed("cannot list the domains", error);
            let candidates = match server {
                Some(server) => self.ours(connect, server.as_str())?.into_iter().map(|(_, domain, _)| domain).collect(),
                None => connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).map_err(list)?,
            };
            for domain in candidates {
                let name = domain.name().map_err(list)?;
                let look = |error| failed(format!("cannot look at domain `{name}`"), error);
                if power::state(&domain).map_err(look)? == State::Off {
                    continue;
                }
                let Some(live) = found(read(&domain, 0)).map_err(look)? else { continue };
                let Some(marked) = live.marked.filter(|marked| marked.project == self.layout.project) else { continue };
                let is_root = marked.facts.get("disk") == Some(&file);
                if is_root || live.disks.values().any(|disk| disk.path.as_deref() == Some(path)) {
                    let grown = domain.block_resize(&file, size.bytes(), sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES);
                    return grown
                        .map(|()| true)
                        .map_err(|error| failed(format!("cannot resize `{file}` of running domain `{name}`"), error));
                }
            }
            Ok(false)
        })
    }

    /// Makes the domain of a server give up the disks that are these files, in its guest and in its definition.
    ///
    /// # Errors
    /// When the guest does not let go of one.
    pub fn release(&self, server: &str, files: &[PathBuf]) -> Result<(), HostError> {
        self.connection.run(|connect| {
            for (name, domain, _) in self.ours(connect, server)? {
                let look = |error| failed(format!("cannot look at domain `{name}`"), error);
                let is_it = |disk: &ReadDisk| disk.path.as_ref().is_some_and(|path| files.contains(path));
                if power::state(&domain).map_err(look)? != State::Off {
                    let live = read(&domain, 0).map_err(look)?;
                    for (label, disk) in live.disks.iter().filter(|(_, disk)| is_it(disk)) {
                        devices::detach_disk(&domain, &name, label, &disk.xml)?;
                    }
                }
                let defined = read(&domain, sys::VIR_DOMAIN_XML_INACTIVE).map_err(look)?;
                for (label, disk) in defined.disks.iter().filter(|(_, disk)| is_it(disk)) {
                    domain.detach_device_flags(&disk.xml, sys::VIR_DOMAIN_AFFECT_CONFIG).map_err(|error| {
                        failed(format!("cannot take disk `{label}` out of the definition of domain `{name}`"), error)
                    })?;
                }
            }
            Ok(())
        })
    }

    /// The seeds that the domain of a server has, by its definition or as it runs.
    ///
    /// # Errors
    /// When libvirt cannot be reached, or does not answer.
    pub fn seeds_of(&self, server: &str) -> Result<BTreeSet<PathBuf>, HostError> {
        self.files_of(server, "seed")
    }

    /// The root disks that the domain of a server has, by its definition or as it runs.
    ///
    /// # Errors
    /// When libvirt cannot be reached, or does not answer.
    pub fn disks_of(&self, server: &str) -> Result<BTreeSet<PathBuf>, HostError> {
        self.files_of(server, "disk")
    }

    /// The files that the domain of a server has under this fact.
    fn files_of(&self, server: &str, fact: &str) -> Result<BTreeSet<PathBuf>, HostError> {
        self.connection.run(|connect| {
            let mut files = BTreeSet::new();
            for (name, domain, _) in self.ours(connect, server)? {
                for flags in [0, sys::VIR_DOMAIN_XML_INACTIVE] {
                    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
                    let read = found(read(&domain, flags)).map_err(look)?.unwrap_or_default();
                    files.extend(read.marked.and_then(|it| it.facts.get(fact).map(PathBuf::from)));
                }
            }
            Ok(files)
        })
    }

    /// Takes the domain of a server away: shuts it down as its mark says, and undefines it with all that libvirt keeps of
    /// it. Its disk is left.
    ///
    /// # Errors
    /// When it cannot be forced off or undefined.
    pub fn remove(&self, server: &str) -> Result<(), HostError> {
        self.connection.run(|connect| {
            for (name, domain, marked) in self.ours(connect, server)? {
                let patience = marked.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT);
                power::stop(&domain, &name, Duration::from_secs(patience.into()))?;
                self.undefine(&domain, &name)?;
            }
            Ok(())
        })
    }

    /// The domain, defined as wanted.
    fn define(&self, connect: &Connect, wanted: &object::Domain, xml: &str) -> Result<Domain, HostError> {
        let name = &wanted.name;
        let look = |error| failed(format!("cannot look for domain `{name}`"), error);
        match found(connect.lookup_domain_by_uuid(wanted.uuid)).map_err(look)? {
            Some(domain) => {
                let read = read(&domain, sys::VIR_DOMAIN_XML_INACTIVE).map_err(look)?;
                match read.marked {
                    Some(marked) if self.is_ours(&marked, wanted.server.as_str()) => {
                        if domain.is_persistent().map_err(look)? && agrees(wanted, &marked.facts, |_| true) {
                            return Ok(domain);
                        }
                    }
                    None if wanted.imported => self.claim(&domain, wanted)?,
                    _ => return Err(not_ours(&format!("domain {}", wanted.uuid))),
                }
            }
            None if found(connect.lookup_domain_by_name(name)).map_err(look)?.is_some() => {
                return Err(not_ours(&format!("domain `{name}`")));
            }
            None => {}
        }
        connect.define_domain_xml(xml).map_err(|error| failed(format!("cannot define domain `{name}`"), error))
    }

    fn undefine(&self, domain: &Domain, name: &str) -> Result<(), HostError> {
        let mut flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
        if !self.connection.is_test_driver() {
            flags |= sys::VIR_DOMAIN_UNDEFINE_NVRAM | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
        }
        match domain.undefine_flags(flags) {
            Err(error) if !is(&error, &[ErrorNumber::NoDomain]) => {
                Err(failed(format!("cannot undefine domain `{name}`"), error))
            }
            _ => Ok(()),
        }
    }

    /// The domains that carry the mark of this server: one or none, unless somebody meddled.
    fn ours(&self, connect: &Connect, server: &str) -> Result<Vec<(String, Domain, Marked)>, HostError> {
        let look = |error| failed(format!("cannot look for the domain of server.{server}"), error);
        let mut ours = Vec::new();
        let name = format!("{}.{server}", self.layout.project);
        let mut candidates: Vec<Domain> =
            found(connect.lookup_domain_by_name(&name)).map_err(look)?.into_iter().collect();
        // Where the name is not there or not ours, the domain may have been renamed by hand.
        for all in [false, true] {
            if all {
                candidates = connect.list_all_domains(0).map_err(look)?;
            }
            for domain in candidates.drain(..) {
                let Some(read) = found(read(&domain, sys::VIR_DOMAIN_XML_INACTIVE)).map_err(look)? else { continue };
                if let Some(marked) = read.marked.filter(|marked| self.is_ours(marked, server)) {
                    ours.push((domain.name().map_err(look)?, domain, marked));
                }
            }
            if !ours.is_empty() {
                break;
            }
        }
        Ok(ours)
    }

    fn is_ours(&self, marked: &Marked, server: &str) -> bool {
        marked.project == self.layout.project && marked.server.as_str() == server
    }
}

/// All domains: the list of all, two lists of those that are out of the ordinary, and the XML of each.
fn look(connect: &Connect) -> Result<Vec<Seen>, HostError> {
    let cannot = |error| failed("cannot list the domains", error);
    let list = |flags| connect.list_all_domains(flags);
    let uuids = |flags| list(flags)?.iter().map(Domain::uuid).collect::<Result<BTreeSet<Uuid>, Error>>();
    let transient = uuids(sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT).map_err(cannot)?;
    let not_running =
        uuids(sys::VIR_CONNECT_LIST_DOMAINS_PAUSED | sys::VIR_CONNECT_LIST_DOMAINS_OTHER).map_err(cannot)?;
    let mut seen = Vec::new();
    for domain in list(0).map_err(cannot)? {
        let (name, uuid) = (domain.name().map_err(cannot)?, domain.uuid().map_err(cannot)?);
        let cannot = |error| failed(format!("cannot look at domain `{name}`"), error);
        // One that went since it was listed is not there.
        let Some(read) = found(read(&domain, sys::VIR_DOMAIN_XML_INACTIVE)).map_err(cannot)? else { continue };
        let state = match domain.id() {
            None => State::Off,
            Some(_) if not_running.contains(&uuid) => power::state(&domain).map_err(cannot)?,
            Some(_) => State::On,
        };
        // What others run is not looked into.
        let live = match state {
            State::Off => None,
            _ if read.marked.is_none() => None,
            _ => found(self::read(&domain, 0)).map_err(cannot)?,
        };
        seen.push(Seen { persistent: !transient.contains(&uuid), name, uuid, read, live, state });
    }
    Ok(seen)
}

/// What the XML of a domain tells; nothing if it is no XML at all, as that of no domain of ours is.
fn read(domain: &Domain, flags: sys::virDomainXMLFlags) -> Result<Read, Error> {
    Ok(domain_xml::read(&domain.xml_desc(flags)?).unwrap_or_default())
}

/// What a guest runs with, by the XML of its running domain, but for what waits.
fn guest(live: &Read) -> Guest {
    Guest {
        facts: live.marked.as_ref().map(|marked| marked.facts.clone()).unwrap_or_default(),
        nics: live.nics.iter().map(|(fact, _)| fact.clone()).collect(),
        disks: live.disks.iter().map(|(label, read)| (label.clone(), read.disk.clone())).collect(),
        has_scsi: live.has_scsi,
        free_slots: live.free_slots,
        pending: Vec::new(),
    }
}

/// Whether a running guest must be started again to become what is wanted. `live` is the definition that it runs with.
fn differs_from_guest(wanted: &object::Domain, live: &Read) -> bool {
    differs_but_for(wanted, live, |_| false)
}

/// The same, without the facts that `spared` selects, and those that it can be given as it runs.
fn differs_but_for(wanted: &object::Domain, live: &Read, spared: impl Fn(&str) -> bool) -> bool {
    let guest = guest(live);
    let needs_reboot = |fact: &str| {
        ObjectKind::Domain.disruption(fact) >= Disruption::Reboot && !guest.resizes(fact, wanted) && !spared(fact)
    };
    live.marked.is_none() || !agrees(wanted, &guest.facts, needs_reboot)
}

/// Whether the facts of a definition are the wanted ones, as far as `which` selects them.
fn agrees(wanted: &object::Domain, facts: &Facts, which: impl Fn(&str) -> bool) -> bool {
    let wanted = Object::Domain(wanted.clone()).facts();
    wanted
        .iter()
        .filter(|(fact, _)| !matches!(fact.as_ref(), "power" | "depends_on" | "cpu") && which(fact))
        .all(|(fact, value)| facts.get(fact) == Some(value))
}

/// Nothing where there is no such domain.
fn found<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if is(&error, &[ErrorNumber::NoDomain]) => Ok(None),
        Err(error) => Err(error),
    }
}

fn not_ours(what: &str) -> HostError {
    HostError::refused(format!("{what} is there already, and is not ours")).help(
        "it does not carry the mark of this project and server, so it is left as it is; undefine it, or give the server \
         another name",
    )
}

/// libvirt's versions are major * 1000000 + minor * 1000 + release.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

/// What the capabilities for domains say (<https://libvirt.org/formatdomaincaps.html>).
fn abilities(capabilities: &str) -> Option<Abilities> {
    let document = roxmltree::Document::parse(capabilities).ok()?;
    let root = document.root_element();
    let lists = |parent: &str, name: &str, value: &str| {
        let parents = root.descendants().filter(|node| node.has_tag_name(parent));
        let mut lists = parents.flat_map(|node| node.children()).filter(|node| node.attribute("name") == Some(name));
        lists.any(|list| list.children().any(|node| node.text() == Some(value)))
    };
    let uefi = lists("os", "firmware", "efi");
    let models =
        root.descendants().filter(|node| node.has_tag_name("mode") && node.attribute("name") == Some("custom"));
    let models = models.flat_map(|mode| mode.children()).filter(|model| model.attribute("usable") == Some("yes"));
    Some(Abilities {
        uefi,
        secure_boot: uefi && lists("loader", "secure", "yes"),
        tpm: lists("tpm", "backendModel", "emulator"),
        cpus: models.filter_map(|model| model.text().map(str::to_owned)).collect(),
    })
}

/// The security model of the host, apart from plain ownership (<https://libvirt.org/formatcaps.html>).
fn confinement(capabilities: &str) -> Option<String> {
    let document = roxmltree::Document::parse(capabilities).ok()?;
    let models = document.descendants().filter(|node| node.has_tag_name("secmodel"));
    let mut models = models.filter_map(|node| node.children().find(|child| child.has_tag_name("model"))?.text());
    models.find(|model| !matches!(*model, "dac" | "none")).map(str::to_owned)
}
