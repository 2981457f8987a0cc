//! The real host: routes each kind of object to its adapter.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::address::{Name, PortId, VolumeId};
use crate::blueprint::facts::Disruption;
use crate::blueprint::import::Import;
use crate::blueprint::key::{ObjectKey, ObjectKind, disk_key};
use crate::blueprint::object::{DiskFormat, Domain, Object, Seed, Source, VirtType};
use crate::blueprint::{HostFacts, Layout, hardware};
use crate::desired::{Desired, Image};
use crate::host::dhcp::{Dnsmasq, Lease};
use crate::host::domain_xml::import::beside_facts;
use crate::host::firewall::Nft;
use crate::host::hypervisor::Hypervisor;
use crate::host::images::Images;
use crate::host::kvm::{self, Kvm};
use crate::host::links::Links;
use crate::host::{Host, HostError, Keep, OnProgress, Why};
use crate::plan::world::{Differing, Imported, Observed};
use crate::spec::values::VirtTypeSpec;

/// This machine.
pub struct Machine {
    layout: Layout,
    links: Links,
    firewall: Nft,
    dhcp: Dnsmasq,
    images: Images,
    hypervisor: Hypervisor,
    virt_type: VirtTypeSpec,
    kvm: OnceLock<Kvm>,
    kvm_cache: PathBuf,
    /// How long disks that were replaced are kept, in seconds; none for not at all.
    trash_ttl: Option<u32>,
    /// Whether it matters what QEMU can do.
    asks_for_abilities: bool,
    /// The files of this host that images come from.
    sources: Vec<PathBuf>,
    /// libvirt's test driver has domains without interfaces.
    has_taps: bool,
}

impl Machine {
    /// The machine as a valid spec wants it used. Connects to libvirt when it is first needed.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket or the libvirt URI is refused.
    pub fn new(desired: &Desired, on_progress: OnProgress) -> Result<Self, HostError> {
        let layout = Layout::new(&desired.host.data_dir, &desired.project);
        let is_test_driver = desired.host.libvirt_uri.starts_with("test:");
        Ok(Self {
            links: Links::new(&desired.project)?,
            firewall: Nft::new(&desired.project),
            dhcp: Dnsmasq::new(layout.clone()),
            images: Images::new(layout.clone(), on_progress),
            hypervisor: Hypervisor::new(&desired.host.libvirt_uri, layout.clone())?,
            virt_type: desired.host.virt_type,
            kvm: OnceLock::new(),
            kvm_cache: layout.root.join("kvm"),
            trash_ttl: desired.host.trash_ttl,
            asks_for_abilities: hardware::asks_for_abilities(desired) && !is_test_driver,
            sources: local_sources(desired),
            has_taps: !is_test_driver,
            layout,
        })
    }

    /// Keeps what was found out about KVM until the next boot, so that it need not be tried again.
    pub fn remember(&self) {
        if let Some(kvm) = self.kvm.get()
            && let Err(error) = kvm::remember(*kvm, &self.kvm_cache)
        {
            tracing::debug!(%error, "cannot keep what was found out about KVM");
        }
    }

    /// The leases that the DHCP server of a network has granted, also ended ones. Nothing but its lease file is looked at.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn leases(&self, network: &Name) -> Result<Vec<Lease>, HostError> {
        self.dhcp.leases(network.as_str())
    }

    /// The libvirt of this machine.
    pub fn hypervisor(&self) -> &Hypervisor {
        &self.hypervisor
    }

    /// The images and disks of this project.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The links of this machine.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Removes the directories of a project without objects, and what is kept in them about this host. One with anything
    /// else in it stays.
    pub fn tidy(&self) {
        let layout = &self.layout;
        let _ = std::fs::remove_file(&self.kvm_cache);
        for directory in
            [&layout.bases(), &layout.instances(), &layout.volumes(), &layout.trash(), &layout.networks(), &layout.root]
        {
            if let Err(error) = std::fs::remove_dir(directory) {
                tracing::debug!(directory = %directory.display(), %error, "not removed");
            }
        }
    }

    fn ensure_domain(&self, domain: &Domain, most: Disruption) -> Result<(), HostError> {
        let taps = self.hypervisor.ensure_within(domain, most, &|| self.forget_guest(domain))?;
        self.sweep_seeds(&domain.server, domain.seed.as_deref())?;
        self.sweep_disks(domain)?;
        self.plug(domain, &taps)
    }

    /// Shuts a guest that runs down, by force once its time is over, and starts it again as it is defined now.
    ///
    /// # Errors
    /// When none runs, or it cannot be stopped or started.
    pub fn reboot(&self, domain: &Domain) -> Result<(), HostError> {
        let taps = self.hypervisor.reboot(domain, &|| self.forget_guest(domain))?;
        self.plug(domain, &taps)
    }

    /// What a guest that is about to start held before, by another name of its own, is in its way.
    fn forget_guest(&self, domain: &Domain) {
        for nic in &domain.nics {
            self.dhcp.forget_guest(&nic.id(&domain.server), &nic.network);
        }
    }

    /// Plugs the taps of a guest in. A bridge that was made anew has lost its taps, and a tap keeps the MTU it was started
    /// with.
    fn plug(&self, domain: &Domain, taps: &[String]) -> Result<(), HostError> {
        for nic in domain.nics.iter().filter(|nic| self.has_taps && taps.contains(&nic.tap)) {
            self.links.plug(&nic.tap, &nic.bridge, nic.mtu)?;
        }
        Ok(())
    }
}

impl Machine {
    fn ensure_seed(&self, seed: &Seed) -> Result<(), HostError> {
        self.images.ensure_seed(seed)?;
        self.sweep_seeds(&seed.server, Some(&seed.path))
    }

    /// Takes away the root disks that a server had before, and that its domain has no more.
    fn sweep_disks(&self, domain: &Domain) -> Result<(), HostError> {
        self.images.forget_imported(&domain.server, &domain.disk)?;
        let mut old = self.images.disks_but(&domain.server, &domain.disk)?;
        if old.is_empty() {
            return Ok(());
        }
        let used = self.hypervisor.disks_of(domain.server.as_str())?;
        old.retain(|path| !used.contains(path));
        let keep = self.trash_ttl.map(|seconds| Keep { seconds, why: Why::Replaced });
        self.images.remove_disks(&domain.server, &old, keep)
    }

    /// Takes away the seeds of a server that no domain has any more, and that are not the wanted one.
    fn sweep_seeds(&self, server: &Name, wanted: Option<&Path>) -> Result<(), HostError> {
        let mut old = self.images.seeds_but(server, wanted)?;
        if old.is_empty() {
            return Ok(());
        }
        let used = self.hypervisor.seeds_of(server.as_str())?;
        old.retain(|path| !used.contains(path));
        self.images.remove_seeds(&old)
    }
}

fn local_sources(desired: &Desired) -> Vec<PathBuf> {
    let files = desired.images.values().flat_map(Image::files);
    let paths = files.filter_map(|(_, file)| match &file.source {
        Source::File(path) => Some(path.clone()),
        Source::Url(_) => None,
    });
    paths.collect()
}

impl Host for Machine {
    fn facts(&self) -> Result<HostFacts, HostError> {
        let virt_type = match self.virt_type {
            VirtTypeSpec::Kvm => VirtType::Kvm,
            VirtTypeSpec::Qemu => VirtType::Qemu,
            VirtTypeSpec::Auto => match self.kvm.get_or_init(|| kvm::probe(Some(&self.kvm_cache))) {
                Kvm::Usable => VirtType::Kvm,
                Kvm::Unusable(_) => VirtType::Qemu,
            },
        };
        let abilities = self.asks_for_abilities.then(|| self.hypervisor.abilities(virt_type)).transpose()?;
        let (capacity, cache) = (Some(self.hypervisor.facts()?), Some(self.images.facts(&self.sources)?));
        Ok(HostFacts { virt_type, capacity, abilities, cache })
    }

    fn observe(&self) -> Result<Observed, HostError> {
        let mut observed = Observed::default();
        let links = self.links.observe(&mut observed)?;
        self.firewall.observe(&mut observed)?;
        self.dhcp.observe(&mut observed)?;
        self.images.observe(&mut observed)?;
        let bridge_of = |tap: &str| links.master_of(tap).flatten().map(str::to_owned);
        self.hypervisor.observe(&mut observed, bridge_of)?;
        Ok(observed)
    }

    fn observe_foreign(&self, import: &Import, into: &mut Observed) -> Result<(), HostError> {
        let Some(disk) = self.hypervisor.observe_foreign(import, into)? else { return Ok(()) };
        let facts = self.images.foreign_disk(&import.id, &disk)?;
        into.objects.insert(disk_key(&import.server), facts);
        Ok(())
    }

    fn differing(&self, imported: &Imported, wanted: &Domain) -> Result<Vec<Differing>, HostError> {
        beside_facts(&imported.definition, wanted)
    }

    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        self.ensure_within(object, Disruption::Replace)
    }

    fn ensure_within(&self, object: &Object, most: Disruption) -> Result<(), HostError> {
        match object {
            Object::Firewall(it) => self.firewall.ensure(it),
            Object::Bridge(it) => self.links.ensure_bridge(it),
            Object::Dhcp(it) => self.dhcp.ensure_server(it),
            Object::HostEntry(it) => self.dhcp.ensure_host(it),
            Object::Base(it) => self.images.ensure_base(it),
            Object::Disk(it) => {
                let grow = |path: &Path, size| self.hypervisor.grow_disk(path, size, Some(&it.server));
                self.images.ensure_disk_under(it, &grow)
            }
            Object::Volume(it) => {
                let server = match &it.id {
                    VolumeId::Own(_) => None,
                    VolumeId::Inline { server, .. } => Some(server),
                };
                let grow = |path: &Path, size| self.hypervisor.grow_disk(path, size, server);
                self.images.ensure_volume_under(it, &grow)
            }
            Object::Seed(it) => self.ensure_seed(it),
            Object::Domain(it) => self.ensure_domain(it, most),
        }
    }

    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        self.discard(key, None)
    }

    fn discard(&self, key: &ObjectKey, keep: Option<Keep>) -> Result<(), HostError> {
        match key.kind {
            ObjectKind::Firewall => self.firewall.remove(),
            ObjectKind::Bridge => self.links.remove_bridge(&key.id),
            ObjectKind::Dhcp => self.dhcp.remove_server(&key.id),
            ObjectKind::HostEntry => match key.id.parse::<PortId>() {
                Ok(port) => self.dhcp.remove_host(&port),
                Err(error) => Err(HostError::new(format!("{key} names no port"), error)),
            },
            ObjectKind::Base => self.images.remove_base(&key.id),
            ObjectKind::Disk => self.images.remove_disk(&key.id, keep),
            ObjectKind::Volume => self.images.remove_volume(&volume_id(key)?, keep),
            ObjectKind::Seed => self.images.remove_seed(&key.id),
            ObjectKind::Domain => self.hypervisor.remove(&key.id),
        }
    }

    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        let mut files = Vec::new();
        for key in volumes {
            let id = volume_id(key)?;
            files.extend(DiskFormat::ALL.map(|format| self.layout.volume(&id, format)));
        }
        self.hypervisor.release(&domain.id, &files)
    }

    fn retire(&self, key: &ObjectKey) -> Result<(), HostError> {
        match key.kind {
            ObjectKind::Base => self.images.release_base(&key.id),
            ObjectKind::Firewall
            | ObjectKind::Bridge
            | ObjectKind::Dhcp
            | ObjectKind::HostEntry
            | ObjectKind::Disk
            | ObjectKind::Volume
            | ObjectKind::Seed
            | ObjectKind::Domain => Ok(()),
        }
    }

    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        self.dhcp.reload(&server.id)
    }
}

fn volume_id(key: &ObjectKey) -> Result<VolumeId, HostError> {
    key.id.parse().map_err(|error| HostError::new(format!("{key} names no volume"), error))
}
