//! A strict host in memory.
//!
//! It refuses what a kernel, dnsmasq or libvirt would refuse: a thing that is made before what it needs, two things with
//! one name or address, a change that cannot be made in place, a disk that is taken from under its domain. It fails to
//! order by a [`Fuse`]. `--backend sim` rehearses a plan on it without root; the convergence tests run on it by the
//! thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{Name, PortId};
use crate::blueprint::HostFacts;
use crate::blueprint::facts::Disruption;
use crate::blueprint::guest::{self, Guest};
use crate::blueprint::import::{Import, ImportedNic, NOT_IMPORTABLE};
use crate::blueprint::key::{ObjectKey, ObjectKind, bridge_key, dhcp_key, disk_key, domain_key, seed_key, volume_key};
use crate::blueprint::object::{Claim, Disk, Domain, DomainDisk, FOREIGN, HostEntry, Nic, Object, Power, VirtType};
use crate::host::{Host, HostError, Keep};
use crate::plan::world::{Imported, Observed};
use crate::value::{ByteSize, Mac};

/// Whether a fuse blows before a deed has its effect or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Nothing has happened yet.
    Before,
    /// It has happened, and nobody was told.
    After,
}

/// Blows at the n-th deed. From then on every deed fails without effect, as after a `kill -9`.
#[derive(Debug)]
pub struct Fuse {
    left: AtomicUsize,
    when: When,
    blown: AtomicBool,
}

impl Fuse {
    /// Blows at deed number `deed`, counted from 0.
    pub fn new(deed: usize, when: When) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(deed), when, blown: AtomicBool::new(false) })
    }

    /// Whether it has blown.
    pub fn has_blown(&self) -> bool {
        self.blown.load(Ordering::SeqCst)
    }

    /// Does a deed under the fuse; none if the fuse has blown or blows now.
    pub fn guard<T>(&self, deed: impl FnOnce() -> T) -> Option<T> {
        if self.has_blown() {
            return None;
        }
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Some(deed());
        }
        self.blown.store(true, Ordering::SeqCst);
        if self.when == When::After {
            deed();
        }
        None
    }
}

/// A host in memory, kept in a file between runs if it is given one.
#[derive(Debug, Default)]
pub struct SimHost {
    world: Mutex<World>,
    file: Option<PathBuf>,
    fuse: Option<Arc<Fuse>>,
    twice: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct World {
    #[serde(with = "as_list")]
    objects: BTreeMap<ObjectKey, Object>,
    /// The guests that run, each as the domain that it runs with.
    #[serde(default)]
    guests: BTreeMap<Name, Domain>,
    /// How often the guest of a server was started.
    #[serde(default)]
    boots: BTreeMap<Name, u32>,
    /// Disks beside which a new one was made, until no domain has them any more.
    #[serde(default)]
    old_disks: Vec<Disk>,
    /// Interfaces of running domains whose bridge was taken away, by server and label.
    unplugged: BTreeSet<(Name, String)>,
    /// Host entries that are no more, and that a DHCP server believes in until it is told.
    #[serde(default)]
    believed: Vec<HostEntry>,
    /// Disks that were taken away and are kept.
    #[serde(default)]
    trash: Vec<Object>,
    /// Domains of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Other>,
    /// The disks of domains that others defined, and how large they are; they stay where they are, whoever has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<PathBuf, ByteSize>,
    #[serde(skip)]
    foreign: BTreeSet<Claim>,
    #[serde(skip)]
    foreign_networks: Vec<(String, IpNet)>,
}

/// A domain of others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Other {
    /// It, as a server of its own.
    domain: Domain,
    /// Whether it runs.
    on: bool,
}

impl Other {
    fn is(&self, id: &str) -> bool {
        self.domain.name == id || self.domain.uuid.to_string() == id
    }

    /// It as the server that it is to be.
    fn as_server(&self, import: &Import) -> (Domain, BTreeMap<PortId, Mac>) {
        let has: Vec<Mac> = self.domain.nics.iter().map(|nic| nic.mac).collect();
        let macs = import.macs(&has);
        let nic = |(nic, mac): &(&ImportedNic, Option<Mac>)| {
            let its = self.domain.nics.iter().find(|its| Some(its.mac) == *mac)?;
            let port = match &nic.port {
                PortId::Own(name) => Some(name.clone()),
                PortId::Inline { .. } => None,
            };
            Some(Nic { network: nic.network.clone(), port, ..its.clone() })
        };
        let nics = macs.iter().filter_map(nic).collect();
        let macs = macs.into_iter().filter_map(|(nic, mac)| Some((nic.port.clone(), mac?))).collect();
        let (project, server) = (import.project.clone(), import.server.clone());
        (Domain { project, server, imported: true, nics, ..self.domain.clone() }, macs)
    }
}

/// JSON has no maps by structured keys, and an object knows its own key.
mod as_list {
    use super::{BTreeMap, Deserialize, Object, ObjectKey, Serialize};

    pub fn serialize<S: serde::Serializer>(objects: &BTreeMap<ObjectKey, Object>, to: S) -> Result<S::Ok, S::Error> {
        objects.values().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<ObjectKey, Object>, D::Error> {
        let objects = Vec::<Object>::deserialize(from)?;
        Ok(objects.into_iter().map(|object| (object.key(), object)).collect())
    }
}

impl SimHost {
    /// An empty host.
    pub fn new() -> Self {
        Self::default()
    }

    /// The host that was saved in this file, or an empty one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(file: &Path) -> Result<Self, HostError> {
        let deed = || format!("cannot read the simulated host in `{}`", file.display());
        let world = match std::fs::read(file) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| HostError::new(deed(), error).help("delete the file to start with an empty host"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => World::default(),
            Err(error) => return Err(HostError::new(deed(), error)),
        };
        Ok(Self { world: Mutex::new(world), file: Some(file.to_owned()), ..Self::default() })
    }

    /// Writes the host to its file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<(), HostError> {
        let Some(file) = &self.file else { return Ok(()) };
        let deed = || format!("cannot write the simulated host to `{}`", file.display());
        let bytes = serde_json::to_vec(&*self.world()).map_err(|error| HostError::new(deed(), error))?;
        std::fs::write(file, bytes).map_err(|error| HostError::new(deed(), error))
    }

    /// The same host with a fuse in it, or without.
    #[must_use]
    pub fn fused(mut self, fuse: Option<Arc<Fuse>>) -> Self {
        self.fuse = fuse;
        self
    }

    /// The same host, where each deed is done twice: the second time must be as good as nothing.
    #[must_use]
    pub fn twice(mut self, twice: bool) -> Self {
        self.twice = twice;
        self
    }

    /// All that it holds.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Object> {
        self.world().objects.clone()
    }

    /// Takes something away behind novella's back.
    pub fn lose(&self, key: &ObjectKey) -> bool {
        self.world().take(key).is_some()
    }

    /// Changes something behind novella's back.
    pub fn alter(&self, key: &ObjectKey, change: impl FnOnce(&mut Object)) -> bool {
        let mut world = self.world();
        let Some(object) = world.objects.get_mut(key) else { return false };
        change(object);
        if let Object::Domain(domain) = object.clone() {
            match domain.power {
                Power::On if !world.guests.contains_key(&domain.server) => world.start(&domain),
                Power::On => {}
                Power::Off => drop(world.guests.remove(&domain.server)),
                Power::Unmanaged => {}
            }
        }
        true
    }

    /// Starts a guest anew, with what is defined now, or stops it: as somebody else does it, or it does itself.
    pub fn switch(&self, server: &Name, on: bool) -> bool {
        let mut world = self.world();
        let Some(Object::Domain(domain)) = world.objects.get(&domain_key(server)).cloned() else { return false };
        match on {
            true => world.start(&domain),
            false => drop(world.guests.remove(server)),
        }
        true
    }

    /// Starts a guest that runs anew, with what is defined now.
    ///
    /// # Errors
    /// When there is none.
    pub fn reboot(&self, server: &Name) -> Result<(), HostError> {
        if !self.world().guests.contains_key(server) || !self.switch(server, true) {
            return Err(HostError::refused(format!("cannot reboot server.{server}: it does not run")));
        }
        Ok(())
    }

    /// How often the guest of a server was started.
    pub fn boots(&self, server: &str) -> u32 {
        self.world().boots.iter().find(|(name, _)| name.as_str() == server).map_or(0, |(_, boots)| *boots)
    }

    /// What the guest of a server runs with.
    pub fn guest(&self, server: &str) -> Option<Domain> {
        self.world().guests.iter().find(|(name, _)| name.as_str() == server).map(|(_, domain)| domain.clone())
    }

    /// Gives a name to somebody else.
    pub fn occupy(&self, claim: Claim) {
        self.world().foreign.insert(claim);
    }

    /// Defines a domain of others, whose disk is as large as this.
    pub fn define(&self, domain: Domain, size: ByteSize, on: bool) {
        let mut world = self.world();
        world.files.insert(domain.disk.clone(), size);
        world.others.push(Other { domain, on });
    }

    /// The disks of domains that others defined, and how large they are.
    pub fn files(&self) -> BTreeMap<PathBuf, ByteSize> {
        self.world().files.clone()
    }

    /// Takes such a disk away.
    pub fn lose_file(&self, path: &Path) -> bool {
        self.world().files.remove(path).is_some()
    }

    /// Puts the host on a network by an interface of its own.
    pub fn join(&self, interface: &str, address: IpNet) {
        self.world().foreign_networks.push((interface.into(), address));
    }

    /// The disks in the trash.
    pub fn trash(&self) -> Vec<Object> {
        self.world().trash.clone()
    }

    /// Empties the trash.
    pub fn empty_trash(&self) {
        self.world().trash.clear();
    }

    /// What is there without something that it needs, or has no cable: nothing, after a good run.
    pub fn broken(&self) -> Vec<String> {
        let world = self.world();
        let mut broken: Vec<String> =
            world.unplugged.iter().map(|(server, nic)| format!("{server} is cut off {nic}")).collect();
        broken.extend(world.believed.iter().map(|entry| format!("{} is still believed in", entry.port)));
        broken.extend(world.old_disks.iter().map(|old| format!("the old disk `{}` is left", old.path.display())));
        let entries: Vec<&HostEntry> = world.entries().collect();
        for (number, entry) in entries.iter().enumerate() {
            let twins = entries[number + 1..].iter().filter(|other| other.collides(entry));
            broken.extend(twins.map(|other| format!("{} collides with {}", other.port, entry.port)));
        }
        for (key, object) in &world.objects {
            for need in object.needs().into_iter().filter(|need| !world.objects.contains_key(need)) {
                broken.push(format!("{key} lacks {need}"));
            }
        }
        broken
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deed(&self, deed: impl Fn(&mut World) -> Result<(), HostError>) -> Result<(), HostError> {
        let mut world = self.world();
        let mut act = || {
            deed(&mut world)?;
            if self.twice {
                let once = world.clone();
                deed(&mut world)?;
                if *world != once {
                    return Err(HostError::refused("the second time was not the same as the first"));
                }
            }
            Ok(())
        };
        match &self.fuse {
            Some(fuse) => fuse.guard(act).unwrap_or_else(|| Err(HostError::refused("the fuse has blown"))),
            None => act(),
        }
    }
}

impl World {
    fn entries(&self) -> impl Iterator<Item = &HostEntry> {
        self.objects.values().filter_map(|object| match object {
            Object::HostEntry(entry) => Some(entry),
            _ => None,
        })
    }

    /// A DHCP server reads its host entries anew.
    fn tell(&mut self, server: &ObjectKey) {
        self.believed.retain(|entry| dhcp_key(&entry.network) != *server);
    }

    fn ensure(&mut self, object: &Object, most: Disruption) -> Result<(), HostError> {
        let key = object.key();
        let refuse = |why: String| Err(HostError::new(format!("cannot make {key}"), why));
        for need in object.needs() {
            if !self.objects.contains_key(&need) {
                return refuse(format!("it needs {need}, which is not there"));
            }
        }
        if let Object::Domain(domain) = object {
            self.take_over(domain);
        }
        for claim in object.claims() {
            if self.others.iter().any(|other| Object::Domain(other.domain.clone()).claims().contains(&claim)) {
                return refuse(format!("{claim} belongs to a domain of others"));
            }
            if self.foreign.contains(&claim) {
                return refuse(format!("{claim} belongs to somebody else"));
            }
            let holder = self.objects.iter().find(|(other, held)| **other != key && held.claims().contains(&claim));
            if let Some((holder, _)) = holder {
                return refuse(format!("{claim} belongs to {holder}"));
            }
        }
        if let (Some(Object::Disk(old)), Object::Disk(new)) = (self.objects.get(&key), object)
            && old.path != new.path
        {
            // A file beside the other.
            self.old_disks.push(old.clone());
        } else if let Some(there) = self.objects.get(&key) {
            let (is, wanted) = (there.facts(), object.facts());
            // The image of a disk may go by another name since; what it is shows by the base.
            let cannot_change = |fact: &str| key.kind.replaces(fact) && fact != "image";
            if let Some(fact) = wanted.keys().find(|fact| cannot_change(fact) && is.get(*fact) != wanted.get(*fact)) {
                return refuse(format!("its {fact} cannot be changed where it stands"));
            }
            if size_of(object) < size_of(there) {
                return refuse("it cannot shrink without loss".into());
            }
        }
        if let Object::Disk(disk) = object
            && disk.imported
        {
            match self.files.get_mut(&disk.path) {
                None => return refuse(format!("`{}` is gone", disk.path.display())),
                Some(size) if *size > disk.size => return refuse("it cannot shrink without loss".into()),
                Some(size) => *size = disk.size,
            }
        }
        if let Object::Dhcp(dhcp) = object {
            let meets = |net: &IpNet| dhcp.ranges.iter().any(|it| it.cidr.contains(net) || net.contains(&it.cidr));
            let others = self.objects.values().filter(|other| other.key() != bridge_key(&dhcp.network));
            if let Some(net) = others.flat_map(Object::host_networks).find(meets) {
                return refuse(format!("another listens on {net}"));
            }
        }
        if let Object::HostEntry(entry) = object {
            match self.objects.get(&key) {
                Some(Object::HostEntry(before)) if before != entry => self.believed.push(before.clone()),
                Some(_) => {}
                None => {
                    // A new one is taken as it comes, if it fits what is believed.
                    let entries = self.entries().chain(&self.believed);
                    if let Some(other) = entries.filter(|other| other.port != entry.port).find(|it| it.collides(entry))
                    {
                        return refuse(format!("the DHCP server believes in {}", other.port));
                    }
                }
            }
        }
        if let Object::Dhcp(_) = object {
            self.tell(&key);
        }
        if let Object::Domain(domain) = object {
            match self.objects.get(&disk_key(&domain.server)) {
                Some(Object::Disk(disk)) if disk.path == domain.disk => {}
                _ => return refuse(format!("there is no disk `{}`", domain.disk.display())),
            }
            if let Some(path) = &domain.seed {
                match self.objects.get(&seed_key(&domain.server)) {
                    Some(Object::Seed(seed)) if seed.path == *path => {}
                    _ => return refuse(format!("there is no seed `{}`", path.display())),
                }
            }
            for disk in &domain.disks {
                match self.objects.get(&volume_key(&disk.volume)) {
                    Some(Object::Volume(volume)) if volume.path == disk.path && volume.format == disk.format => {}
                    _ => return refuse(format!("there is no disk `{}`", disk.path.display())),
                }
                if let Some(other) = self.holder(&disk.path, &domain.server) {
                    return refuse(format!("server.{other} has the disk `{}`", disk.path.display()));
                }
            }
            for nic in &domain.nics {
                match self.objects.get(&bridge_key(&nic.network)) {
                    Some(Object::Bridge(bridge)) if bridge.device == nic.bridge => {}
                    _ => return refuse(format!("there is no bridge `{}`", nic.bridge)),
                }
            }
            self.unplugged.retain(|(server, _)| *server != domain.server);
            self.run(domain, most);
            let used = self.guests.get(&domain.server).map(|guest| &guest.disk);
            self.old_disks.retain(|old| old.server != domain.server || Some(&old.path) == used);
        }
        self.objects.insert(key, object.clone());
        Ok(())
    }

    /// A domain of others becomes ours, with its guest.
    fn take_over(&mut self, wanted: &Domain) {
        let is_it = |other: &Other| (&other.domain.name, other.domain.uuid) == (&wanted.name, wanted.uuid);
        if let Some(at) = self.others.iter().position(|other| wanted.imported && is_it(other)) {
            let Other { domain, on } = self.others.remove(at);
            if on {
                self.guests.insert(wanted.server.clone(), domain);
            }
        }
    }

    fn start(&mut self, domain: &Domain) {
        *self.boots.entry(domain.server.clone()).or_default() += 1;
        self.guests.insert(domain.server.clone(), domain.clone());
    }

    /// Starts and stops the guest of a domain, or gives it what it can take as it runs.
    fn run(&mut self, domain: &Domain, most: Disruption) {
        let Some(guest) = self.guests.get_mut(&domain.server) else {
            if domain.power == Power::On {
                self.start(domain);
            }
            return;
        };
        if domain.power == Power::Off {
            self.guests.remove(&domain.server);
            return;
        }
        let has = seen(guest, domain);
        if has.resizes("vcpus", domain) {
            guest.vcpus = domain.vcpus;
        }
        if has.resizes("memory", domain) {
            guest.memory = domain.memory;
        }
        let has = seen(guest, domain);
        if domain.power == Power::On && most >= Disruption::Reboot && !has.pending.is_empty() {
            self.start(domain);
            return;
        }
        if has.is_foreign() {
            return;
        }
        let takes = has.takes(&domain.nic_facts(), &domain.disks);
        if takes.nics {
            guest.nics.clone_from(&domain.nics);
        }
        if takes.disks {
            guest.disks.clone_from(&domain.disks);
        }
        for nic in &mut guest.nics {
            if let Some(wanted) = domain.nics.iter().find(|wanted| wanted.fact() == nic.fact()) {
                nic.clone_from(wanted);
            }
        }
        (guest.power, guest.shutdown_timeout) = (domain.power, domain.shutdown_timeout);
        guest.depends_on.clone_from(&domain.depends_on);
        guest.seed.clone_from(&domain.seed);
    }

    /// Another server that has a disk, by its domain or its guest.
    fn holder(&self, path: &Path, server: &Name) -> Option<Name> {
        let domains = self.objects.values().filter_map(|object| match object {
            Object::Domain(domain) => Some(domain),
            _ => None,
        });
        let mut domains = domains.chain(self.guests.values()).filter(|domain| domain.server != *server);
        domains.find(|domain| domain.disks.iter().any(|disk| disk.path == path)).map(|domain| domain.server.clone())
    }

    fn release(&mut self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        let Some(Object::Domain(defined)) = self.objects.get_mut(domain) else { return Ok(()) };
        if let Some(guest) = self.guests.get_mut(&defined.server) {
            let stuck = |disk: &&DomainDisk| volumes.contains(&volume_key(&disk.volume)) && !disk.is_detachable();
            if let Some(disk) = guest.disks.iter().find(stuck) {
                return Err(HostError::refused(format!("the guest of {domain} does not let go of {}", disk.volume)));
            }
            guest.disks.retain(|disk| !volumes.contains(&volume_key(&disk.volume)));
        }
        defined.disks.retain(|disk| !volumes.contains(&volume_key(&disk.volume)));
        Ok(())
    }

    fn discard(&mut self, key: &ObjectKey, keep: Option<Keep>) -> Result<(), HostError> {
        let object = self.objects.get(key).cloned();
        self.remove(key)?;
        match object {
            Some(object) if keep.is_some() && object.is_worth_keeping() => self.trash.push(object),
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, key: &ObjectKey) -> Result<(), HostError> {
        if key.kind == ObjectKind::Volume
            && let Some(guest) =
                self.guests.values().find(|guest| guest.disks.iter().any(|disk| volume_key(&disk.volume) == *key))
        {
            return Err(HostError::new(
                format!("cannot remove {key}"),
                format!("server.{} runs with it", guest.server),
            ));
        }
        // A kernel takes a bridge from under its taps, and a dnsmasq forgets a host that has a lease. The rest is in use.
        if matches!(
            key.kind,
            ObjectKind::Disk | ObjectKind::Volume | ObjectKind::Seed | ObjectKind::Base | ObjectKind::Dhcp
        ) && self.objects.contains_key(key)
            && let Some(user) = self.user_of(key)
        {
            return Err(HostError::new(format!("cannot remove {key}"), format!("{user} uses it")));
        }
        // What is taken away by hand, the server does not know of either; but it comes back as it was.
        if let Some(Object::HostEntry(entry)) = self.take(key)
            && self.objects.contains_key(&dhcp_key(&entry.network))
        {
            self.believed.push(entry);
        }
        Ok(())
    }

    /// What has a use for an object.
    fn user_of(&self, key: &ObjectKey) -> Option<String> {
        let user =
            self.objects.iter().find(|(_, object)| object.needs().contains(key)).map(|(user, _)| user.to_string());
        let old = self.old_disks.iter().find(|old| Object::Disk((*old).clone()).needs().contains(key));
        user.or_else(|| old.map(|old| format!("the old disk of {}", old.server)))
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Object> {
        let object = self.objects.remove(key)?;
        match &object {
            Object::Bridge(bridge) => {
                for other in self.objects.values() {
                    if let Object::Domain(domain) = other
                        && let Some(guest) = self.guests.get(&domain.server)
                    {
                        let cut = guest.nics.iter().filter(|nic| nic.network == bridge.network);
                        self.unplugged.extend(cut.map(|nic| (domain.server.clone(), nic.label())));
                    }
                }
            }
            Object::Domain(domain) => {
                self.guests.remove(&domain.server);
                self.unplugged.retain(|(server, _)| *server != domain.server);
            }
            Object::Dhcp(_) => self.tell(key),
            Object::Disk(disk) => self.old_disks.retain(|old| old.server != disk.server),
            _ => {}
        }
        Some(object)
    }
}

/// A guest as a real host shows it, which has this definition now.
fn seen(guest: &Domain, defined: &Domain) -> Guest {
    let is_foreign = guest.server != defined.server;
    let mut guest = Guest::started_as(guest);
    if is_foreign {
        guest.facts.insert("definition".into(), FOREIGN.into());
    }
    let defined_facts = Object::Domain(defined.clone()).facts();
    let pending = guest::pending(&guest.facts, &guest.nics, &defined_facts, &defined.nic_facts());
    Guest { pending, ..guest }
}

/// The size of a disk, where that may grow and not shrink.
fn size_of(object: &Object) -> Option<ByteSize> {
    match object {
        Object::Disk(disk) => Some(disk.size),
        Object::Volume(volume) => Some(volume.size),
        _ => None,
    }
}

impl Host for SimHost {
    fn facts(&self) -> Result<HostFacts, HostError> {
        Ok(HostFacts::unknown(VirtType::Kvm))
    }

    fn observe(&self) -> Result<Observed, HostError> {
        let world = self.world();
        let (foreign, foreign_networks) = (world.foreign.clone(), world.foreign_networks.clone());
        let mut observed = Observed { foreign, foreign_networks, ..Observed::default() };
        for other in &world.others {
            observed.foreign.extend(Object::Domain(other.domain.clone()).claims());
        }
        for (key, object) in &world.objects {
            if matches!(object, Object::Disk(disk) if disk.imported && !world.files.contains_key(&disk.path)) {
                continue;
            }
            let mut facts = object.visible_facts();
            if let Object::Domain(domain) = object {
                let guest = world.guests.get(&domain.server);
                facts.insert("power".into(), if guest.is_some() { "on" } else { "off" }.into());
                observed.guests.extend(guest.map(|guest| (key.clone(), seen(guest, domain))));
            }
            observed.objects.insert(key.clone(), facts);
        }
        for entry in &world.believed {
            if let Some(facts) = observed.objects.get_mut(&dhcp_key(&entry.network)) {
                facts.insert("process".into(), "running on old host entries".into());
            }
        }
        for (server, nic) in &world.unplugged {
            let key = ObjectKey::new(ObjectKind::Domain, server.as_str());
            if let Some(facts) = observed.objects.get_mut(&key) {
                facts.insert(format!("nic.{nic}.bridge").into(), "none".into());
            }
        }
        Ok(observed)
    }

    fn observe_foreign(&self, import: &Import, into: &mut Observed) -> Result<(), HostError> {
        let world = self.world();
        let id = &import.id;
        let refused = |why: String| Err(HostError::refused(why).code(NOT_IMPORTABLE));
        let Some(other) = world.others.iter().find(|other| other.is(id)) else {
            let ours = world.objects.values().filter_map(Object::as_domain);
            let known = ours.clone().find(|ours| ours.name == *id || ours.uuid.to_string() == *id);
            return match known {
                Some(ours) if ours.server == import.server => Ok(()),
                Some(ours) => refused(format!("domain `{id}` is novella's already: `server.{}`", ours.server)),
                None if import.begun => Ok(()),
                None => refused(format!("there is no domain `{id}`")),
            };
        };
        let key = domain_key(&import.server);
        let (domain, macs) = other.as_server(import);
        let facts = |on: bool| {
            let mut facts = Object::Domain(domain.clone()).visible_facts();
            facts.insert("definition".into(), FOREIGN.into());
            facts.insert("power".into(), if on { "on" } else { "off" }.into());
            facts
        };
        let size = world.files.get(&domain.disk).copied().unwrap_or_default();
        let disk = Disk {
            server: import.server.clone(),
            image: import.server.clone(),
            path: domain.disk.clone(),
            format: domain.disk_format,
            imported: true,
            base: None,
            size,
            user_data: None,
        };
        let claims = Object::Domain(other.domain.clone()).claims();
        into.foreign.retain(|claim| !claims.contains(claim));
        if other.on {
            into.guests.insert(key.clone(), Guest { facts: facts(true), ..Guest::started_as(&domain) });
        }
        into.imports.insert(key.clone(), Imported { id: id.clone(), macs, ..Imported::default() });
        into.objects.insert(key, facts(other.on));
        into.objects.insert(disk_key(&import.server), Object::Disk(disk).visible_facts());
        Ok(())
    }

    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        self.ensure_within(object, Disruption::Replace)
    }

    fn ensure_within(&self, object: &Object, most: Disruption) -> Result<(), HostError> {
        self.deed(|world| world.ensure(object, most))
    }

    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        self.deed(|world| world.remove(key))
    }

    fn discard(&self, key: &ObjectKey, keep: Option<Keep>) -> Result<(), HostError> {
        self.deed(|world| world.discard(key, keep))
    }

    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        self.deed(|world| world.release(domain, volumes))
    }

    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        self.deed(|world| {
            world.tell(server);
            Ok(())
        })
    }
}
