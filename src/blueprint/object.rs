//! The concrete things a host holds, and what they need and claim.
//!
//! An [`Object`] leaves nothing to decide: an adapter makes it as it stands. [`Object::facts`] is the flat form in which
//! an object is compared with what was recorded and what was seen, and shown to people; it is in [`facts`](super::facts).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::address::{Address, Name, PortId, ResourceKind};
pub use crate::blueprint::dhcp::{Dhcp, DhcpRange, HostEntry, PortAddress};
use crate::blueprint::disk::Content;
pub use crate::blueprint::disk::{Attachment, DomainDisk, Volume};
use crate::blueprint::hardware::Hardware;
use crate::blueprint::key::{
    ObjectKey, ObjectKind, base_key, bridge_key, dhcp_key, disk_key, domain_key, firewall_key, host_entry_key,
    seed_key, volume_key,
};
use crate::blueprint::seed::volume::Sealed;
use crate::value::{ByteSize, Mac, Sha256, Sha512};

/// Something of which a host has only one, so that two objects cannot both have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// The name of a network interface.
    Link(String),
    /// The name of a libvirt domain.
    DomainName(String),
    /// The UUID of a libvirt domain.
    DomainUuid(Uuid),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "interface `{name}`"),
            Self::DomainName(name) => write!(f, "libvirt domain `{name}`"),
            Self::DomainUuid(uuid) => write!(f, "libvirt domain {uuid}"),
        }
    }
}

/// A Linux bridge with the host's addresses on it (reference D1, D3). STP is off, the forward delay 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The network it carries.
    pub network: Name,
    /// The device name, at most 15 bytes (`IFNAMSIZ` - 1).
    pub device: String,
    /// The bridge's own MAC address. Set, so that it does not follow the first port.
    pub mac: Mac,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The host's addresses on the bridge with their prefix lengths, sorted.
    pub addresses: Vec<IpNet>,
}

/// One rule of the nft table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The chain it belongs to.
    pub chain: RuleChain,
    /// The rule in nft's own words, without a comment.
    pub text: String,
}

/// The base chains of our nft table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleChain {
    /// What comes to the host itself: `type filter hook input priority filter; policy accept`.
    Input,
    /// `type filter hook forward priority filter; policy accept`.
    Forward,
    /// `type nat hook postrouting priority srcnat; policy accept`.
    Postrouting,
}

impl RuleChain {
    /// Every chain, in order.
    pub const ALL: [Self; 3] = [Self::Input, Self::Forward, Self::Postrouting];

    /// The chain's name in nft.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
        }
    }
}

/// The nft table of the project, replaced as a whole in one transaction (reference D4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// The table's name in family `inet`: `novella-<project>`.
    pub table: String,
    /// Whether the host must forward IPv4 packets. It is turned on where needed and never turned off, for others may
    /// rely on it.
    pub ip_forward: bool,
    /// The same for IPv6.
    #[serde(default)]
    pub ip6_forward: bool,
    /// How each network forwards, in words for people.
    pub networks: BTreeMap<Name, String>,
    /// The rules, in the order in which they are tried.
    pub rules: Vec<Rule>,
}

impl Firewall {
    /// A short digest of one rule. The rule carries it as its comment, so that it is known again when it is listed.
    pub fn rule_mark(rule: &Rule) -> String {
        Sha256::of(format!("{}\n{}", rule.chain.as_str(), rule.text).as_bytes()).short().to_owned()
    }

    /// The digest of a list of rule marks, in order. What stands in the table is compared with what should by this.
    pub fn ruleset_digest<'a>(marks: impl IntoIterator<Item = &'a str>) -> String {
        let joined: Vec<&str> = marks.into_iter().collect();
        Sha256::of(joined.join("\n").as_bytes()).short().to_owned()
    }
}

/// Where the bytes of an image file come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A file on the host, as an absolute path.
    File(PathBuf),
    /// An `https://` or `http://` URL.
    Url(String),
}

impl Source {
    /// It without user, password and query, which may be secrets.
    pub fn shown(&self) -> String {
        let Self::Url(url) = self else { return self.to_string() };
        let url = url.split(['?', '#']).next().unwrap_or_default();
        match url.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
                let host = host.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}{path}")
            }
            None => url.to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// The format of a disk image. It is declared, never guessed: guessing lets a guest choose (reference E4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// QEMU copy-on-write, version 2 or 3.
    #[default]
    Qcow2,
    /// Plain bytes.
    Raw,
}

impl DiskFormat {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Qcow2, Self::Raw];

    /// The word that qemu-img and libvirt use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }

    /// Whether it is the one of every root disk that is made here.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// The format in which a disk image is published, declared like [`DiskFormat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// QEMU copy-on-write, kept as it is.
    Qcow2,
    /// Plain bytes, kept as they are.
    Raw,
    /// VMware's, in one file.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Hyper-V's.
    Vhdx,
    /// Virtual PC's and Azure's, also called VHD.
    Vpc,
}

impl ImageFormat {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Qcow2, Self::Raw, Self::Vmdk, Self::Vdi, Self::Vhdx, Self::Vpc];

    /// The word that qemu-img uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
        }
    }

    /// The format in which it is cached: what guests do not run from is converted once.
    pub const fn kept_as(self) -> DiskFormat {
        match self {
            Self::Raw => DiskFormat::Raw,
            Self::Qcow2 | Self::Vmdk | Self::Vdi | Self::Vhdx | Self::Vpc => DiskFormat::Qcow2,
        }
    }

    /// It, where it is not the one in which it is cached.
    pub const fn converted(self) -> Option<Self> {
        match self {
            Self::Qcow2 | Self::Raw => None,
            Self::Vmdk | Self::Vdi | Self::Vhdx | Self::Vpc => Some(self),
        }
    }
}

/// What a cached file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRole {
    /// A disk under overlays, in this format.
    Disk(DiskFormat),
    /// A kernel for direct boot.
    Kernel,
    /// An initial ramdisk for direct boot.
    Initrd,
}

impl fmt::Display for BaseRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk(format) => format.as_str(),
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        })
    }
}

/// A file in the image cache, fetched once and never changed after (reference E1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Names the content: the SHA-256 of the file where it is known, else that of its source. A file name.
    pub id: String,
    /// The image that asks for it; the first by name if several do.
    pub image: Name,
    /// Where it is kept.
    pub path: PathBuf,
    /// Where it comes from.
    pub source: Source,
    /// What the file must hash to as it is published, where its id says so.
    pub sha256: Option<Sha256>,
    /// What it is for.
    pub role: BaseRole,
    /// The format in which it is published, where it is kept in another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converted_from: Option<ImageFormat>,
    /// A list of digests that has its name, where nothing else tells what it must hash to.
    #[serde(flatten)]
    pub sums: Option<Sums>,
    /// What the lock file says of it. It vouches for the bytes and does not make another object of them, so it is not
    /// recorded.
    #[serde(skip)]
    pub locked: Option<Box<Locked>>,
}

/// A list of the digests of files, as it is published beside them; by the kind of digest that it is read for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sums {
    /// As `sha256sum` writes it.
    #[serde(rename = "sha256sums")]
    Sha256(Source),
    /// As `sha512sum` writes it.
    #[serde(rename = "sha512sums")]
    Sha512(Source),
}

impl Sums {
    /// The key of an image that names it.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256sums",
            Self::Sha512(_) => "sha512sums",
        }
    }

    /// Where it is.
    pub const fn source(&self) -> &Source {
        match self {
            Self::Sha256(source) | Self::Sha512(source) => source,
        }
    }
}

/// What a file of an image was when it was first fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Where it came from: a URL without its query.
    pub source: String,
    /// What it hashes to as it is published, before it is unpacked or converted.
    pub sha256: Sha256,
    /// The same, where a list of these was compared with it: so that it can be asked whether it still says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha512: Option<Sha512>,
    /// How long it is, in bytes, likewise.
    pub size: u64,
    /// What the server called it, for asking whether it is still the same (RFC 9110, 8.8.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A base image as a disk refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRef {
    /// The [`Base::id`].
    pub id: String,
    /// Its path.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
}

/// The root disk of a server: a qcow2 overlay over a base image, or an empty qcow2 (reference E2). One that was imported is a
/// file of others, which is used where it is and never made, shrunk or taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The server whose disk it is.
    pub server: Name,
    /// The image it was made from. What the image becomes later does not concern it.
    pub image: Name,
    /// Where it is kept.
    pub path: PathBuf,
    /// Its format.
    #[serde(default, skip_serializing_if = "DiskFormat::is_usual")]
    pub format: DiskFormat,
    /// Whether it was imported with its domain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// What it lies over.
    pub base: Option<BaseRef>,
    /// Its virtual size.
    pub size: ByteSize,
    /// A digest of the user data that it was made with, where there were any. Only where a server is to be rebuilt does it
    /// matter that these are others now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// In which way the cloud-init of a guest finds what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datasource {
    /// A few files on a medium with the label `cidata`.
    NoCloud,
    /// OpenStack's tree of files, on one with the label `config-2`.
    ConfigDrive,
}

impl Datasource {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::NoCloud, Self::ConfigDrive];

    /// The word in plans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCloud => "NoCloud",
            Self::ConfigDrive => "config drive",
        }
    }

    /// The label that cloud-init knows the medium by.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoCloud => "cidata",
            Self::ConfigDrive => "config-2",
        }
    }
}

/// What the cloud-init of a server is told, as a FAT image that its domain has in a CD-ROM drive (reference F1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The server that is told.
    pub server: Name,
    /// Where it is kept, named by its content: another content is another file.
    pub path: PathBuf,
    /// In which way it is told.
    pub datasource: Datasource,
    /// The image. What is in it may be secret.
    pub image: Sealed,
}

/// How a domain is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtType {
    /// With the processor's help.
    Kvm,
    /// By emulation (TCG).
    Qemu,
}

impl VirtType {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Kvm, Self::Qemu];

    /// libvirt's `<domain type=…>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

/// Whether a server is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// Running.
    #[default]
    On,
    /// Defined and shut off.
    Off,
    /// Defined; others start and stop it.
    Unmanaged,
}

impl Power {
    /// `on`, `off` or `unmanaged`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unmanaged => "unmanaged",
        }
    }
}

/// One network interface of a domain, in the order of the request (reference C4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// The network it is on.
    pub network: Name,
    /// The port, where it is one of its own; else it is the one that the server has on the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// The bridge it is plugged into.
    pub bridge: String,
    /// The host side of it, `tap` and 11 characters of the port's id (reference C12).
    pub tap: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether its cable is pulled out (Neutron's `admin_state_up = false`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unplugged: bool,
}

impl Nic {
    /// It as a fact: its MAC address and its host side.
    pub fn fact(&self) -> String {
        format!("{} {}", self.mac, self.tap)
    }

    /// Which port of a server it is.
    pub fn id(&self, server: &Name) -> PortId {
        match &self.port {
            Some(port) => PortId::Own(port.clone()),
            None => PortId::inline(server, &self.network),
        }
    }

    /// Its name among the interfaces of its server: the network, or the address of a port of its own.
    pub fn label(&self) -> String {
        match &self.port {
            Some(port) => Address::new(ResourceKind::Port, port.clone()).to_string(),
            None => self.network.to_string(),
        }
    }
}

/// A kernel that is booted without a boot loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectBoot {
    /// The [`Base::id`] and path of the kernel.
    pub kernel: (String, PathBuf),
    /// The [`Base::id`] and path of the initial ramdisk.
    pub initrd: Option<(String, PathBuf)>,
    /// The kernel's command line.
    pub cmdline: String,
}

impl DirectBoot {
    /// The [`Base::id`] of each of its files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.kernel).chain(&self.initrd).map(|(id, _)| id.as_str())
    }
}

/// A libvirt domain (reference F2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The server it is.
    pub server: Name,
    /// The project, kept in the domain's metadata as part of our mark.
    pub project: Name,
    /// libvirt's name for it, `<project>.<server>`; of one that was imported, the one that it has.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// Whether others defined it, before it was taken over by an `[[import]]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imported: bool,
    /// How it is run.
    pub virt_type: VirtType,
    /// How many processors it has.
    pub vcpus: u32,
    /// How many it can be brought to while it runs, where that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u32>,
    /// How much memory it has.
    pub memory: ByteSize,
    /// How much it can be brought to while it runs, where that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<ByteSize>,
    /// What kind of machine it is.
    #[serde(default, skip_serializing_if = "Hardware::is_usual")]
    pub hardware: Hardware,
    /// Its root disk.
    pub disk: PathBuf,
    /// The format of that.
    #[serde(default, skip_serializing_if = "DiskFormat::is_usual")]
    pub disk_format: DiskFormat,
    /// What the root disk lies over: written into the domain, so that QEMU never reads a chain from a disk.
    pub base: Option<BaseRef>,
    /// How the root disk is attached.
    #[serde(default, skip_serializing_if = "Attachment::is_default")]
    pub root_disk: Attachment,
    /// The disks that it has beside that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DomainDisk>,
    /// Its network interfaces.
    pub nics: Vec<Nic>,
    /// The kernel to boot, where the image has one.
    pub boot: Option<DirectBoot>,
    /// What is in its CD-ROM drive, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<PathBuf>,
    /// The file its console is logged to.
    pub console_log: PathBuf,
    /// Whether it is to run.
    pub power: Power,
    /// The servers that are started before it, and stopped after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Name>,
    /// How long it may take to shut down by ACPI before it is forced off, in seconds.
    pub shutdown_timeout: u32,
}

/// What the mark says in place of the digest of a definition, where others made that. It is never a digest.
pub const FOREIGN: &str = "foreign";

impl Domain {
    /// What its root disk is called in it.
    pub fn root_target(&self) -> String {
        self.root_disk.bus.target('a')
    }

    /// Its interfaces as facts, in their order.
    pub fn nic_facts(&self) -> Vec<String> {
        self.nics.iter().map(Nic::fact).collect()
    }

    /// Whether it would be defined as another is, if it had the other's interfaces.
    pub fn differs_in_nics_only(&self, other: &Self) -> bool {
        let as_other = Self { nics: other.nics.clone(), ..self.clone() };
        as_other.definition() == other.definition()
    }

    /// A digest of all that makes up the definition but what can change under a running guest. The domain carries it in
    /// its mark, so that a change of anything that has no fact of its own is seen too.
    pub fn definition(&self) -> String {
        let mut definition = self.clone();
        definition.power = Power::On;
        definition.depends_on.clear();
        definition.shutdown_timeout = 0;
        definition.seed = None;
        if definition.max_vcpus.is_some() {
            definition.vcpus = 0;
        }
        if definition.max_memory.is_some() {
            definition.memory = ByteSize(0);
        }
        // Each has facts for all that it is.
        definition.disks.clear();
        for nic in &mut definition.nics {
            nic.bridge.clear();
            nic.mtu = 0;
            nic.unplugged = false;
        }
        // Serialising plain data to memory cannot fail.
        Sha256::of(&serde_json::to_vec(&definition).unwrap_or_default()).short().to_owned()
    }
}

/// One thing that a host must hold. The set is closed: each kind has one adapter, found by one match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "spec")]
#[expect(
    clippy::large_enum_variant,
    reason = "domains are as common as the small ones, and a box would be in every match"
)]
pub enum Object {
    /// The nft table of the project.
    Firewall(Firewall),
    /// A bridge.
    Bridge(Bridge),
    /// A dnsmasq.
    Dhcp(Dhcp),
    /// A host entry of a dnsmasq.
    HostEntry(HostEntry),
    /// A cached image file.
    Base(Base),
    /// A root disk.
    Disk(Disk),
    /// A disk beside a root disk.
    Volume(Volume),
    /// What a server's cloud-init is told.
    Seed(Seed),
    /// A libvirt domain.
    Domain(Domain),
}

impl Object {
    /// What kind of thing it is.
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Firewall(_) => ObjectKind::Firewall,
            Self::Bridge(_) => ObjectKind::Bridge,
            Self::Dhcp(_) => ObjectKind::Dhcp,
            Self::HostEntry(_) => ObjectKind::HostEntry,
            Self::Base(_) => ObjectKind::Base,
            Self::Disk(_) => ObjectKind::Disk,
            Self::Volume(_) => ObjectKind::Volume,
            Self::Seed(_) => ObjectKind::Seed,
            Self::Domain(_) => ObjectKind::Domain,
        }
    }

    /// Its identity.
    pub fn key(&self) -> ObjectKey {
        match self {
            Self::Firewall(it) => ObjectKey::new(ObjectKind::Firewall, it.table.clone()),
            Self::Bridge(it) => bridge_key(&it.network),
            Self::Dhcp(it) => dhcp_key(&it.network),
            Self::HostEntry(it) => host_entry_key(&it.port),
            Self::Base(it) => base_key(&it.id),
            Self::Disk(it) => disk_key(&it.server),
            Self::Volume(it) => volume_key(&it.id),
            Self::Seed(it) => seed_key(&it.server),
            Self::Domain(it) => domain_key(&it.server),
        }
    }

    /// It as a domain, if it is one.
    pub const fn as_domain(&self) -> Option<&Domain> {
        match self {
            Self::Domain(domain) => Some(domain),
            _ => None,
        }
    }

    /// The resource it is made for, under which people see it.
    pub fn address(&self) -> Address {
        let (kind, name) = match self {
            Self::Firewall(_) => return Address::local_host(),
            Self::HostEntry(it) => return it.port.address(),
            Self::Volume(it) => return it.id.address(),
            Self::Bridge(it) => (ResourceKind::Network, &it.network),
            Self::Dhcp(it) => (ResourceKind::Network, &it.network),
            Self::Base(it) => (ResourceKind::Image, &it.image),
            Self::Disk(it) => (ResourceKind::Server, &it.server),
            Self::Seed(it) => (ResourceKind::Server, &it.server),
            Self::Domain(it) => (ResourceKind::Server, &it.server),
        };
        Address::new(kind, name.clone())
    }

    /// The objects that must be there before this one is made, and as long as it is.
    pub fn needs(&self) -> Vec<ObjectKey> {
        match self {
            Self::Firewall(_) | Self::Bridge(_) | Self::Base(_) | Self::Seed(_) => Vec::new(),
            Self::Dhcp(it) => vec![bridge_key(&it.network)],
            Self::HostEntry(it) => vec![dhcp_key(&it.network)],
            Self::Disk(it) => it.base.iter().map(|base| base_key(&base.id)).collect(),
            Self::Volume(it) => it.base.iter().map(|base| base_key(&base.id)).collect(),
            Self::Domain(it) => {
                let mut needs = vec![firewall_key(&it.project), disk_key(&it.server)];
                needs.extend(it.base.iter().map(|base| base_key(&base.id)));
                needs.extend(it.disks.iter().map(|disk| volume_key(&disk.volume)));
                needs.extend(it.seed.iter().map(|_| seed_key(&it.server)));
                if let Some(boot) = &it.boot {
                    needs.extend(boot.files().map(base_key));
                }
                for nic in &it.nics {
                    needs.push(bridge_key(&nic.network));
                    needs.push(host_entry_key(&nic.id(&it.server)));
                }
                needs
            }
        }
    }

    /// Whether it is a disk on which there may be something that is missed when it is gone.
    pub fn is_worth_keeping(&self) -> bool {
        match self {
            Self::Disk(disk) => !disk.imported,
            Self::Volume(volume) => volume.content != Content::Swap,
            _ => false,
        }
    }

    /// The networks that the host is on by it.
    pub fn host_networks(&self) -> Vec<IpNet> {
        match self {
            Self::Bridge(it) => it.addresses.iter().map(IpNet::trunc).collect(),
            _ => Vec::new(),
        }
    }

    /// What it has that nothing else on the host, or on its network, may have.
    pub fn claims(&self) -> Vec<Claim> {
        match self {
            // Addresses change hands when a DHCP server reads all of its host entries anew.
            Self::Firewall(_)
            | Self::Dhcp(_)
            | Self::HostEntry(_)
            | Self::Base(_)
            | Self::Disk(_)
            | Self::Volume(_)
            | Self::Seed(_) => Vec::new(),
            Self::Bridge(it) => vec![Claim::Link(it.device.clone())],
            Self::Domain(it) => {
                let mut claims = vec![Claim::DomainName(it.name.clone()), Claim::DomainUuid(it.uuid)];
                claims.extend(it.nics.iter().map(|nic| Claim::Link(nic.tap.clone())));
                claims
            }
        }
    }
}
