//! A domain as libvirt's XML, and back to facts (reference F2; <https://libvirt.org/formatdomain.html>).
//!
//! The XML carries our mark in its `<metadata>`: whose it is, a digest of the definition, and what the XML itself does
//! not tell, such as the network of each interface.
//!
//! ```xml
//! <novella:server xmlns:novella="urn:novella:1" project="default" name="web" uuid="…" definition="…"
//!                 shutdown_timeout="60">
//!   <novella:nic network="private" mac="fa:16:3e:…"/>
//! </novella:server>
//! ```

pub mod compare;
pub mod foreign;
pub mod foreign_network;
pub mod import;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use roxmltree::{Document, Node};
use uuid::Uuid;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::disk::{Bus, SWAP, attachment_fact, source_fact};
use crate::blueprint::facts::Facts;
use crate::blueprint::guest::GuestDisk;
use crate::blueprint::hardware::{CpuModel, Firmware};
use crate::blueprint::object::{Attachment, BaseRef, DiskFormat, Domain, DomainDisk, FOREIGN, Nic, VirtType};
use crate::value::{ByteSize, Mac};

/// The namespace of our mark. The number is the version of what stands in it.
const NAMESPACE: &str = "urn:novella:1";

/// Root ports beside those for the interfaces. Four devices have one each: libvirt's USB controller, the root disk, the balloon,
/// the source of randomness. The rest are for what is plugged in while the guest runs; of these, libvirt makes one by itself.
const SLOTS: usize = 8;

/// The letter of the CD-ROM drive among the disks; of one beside a root disk that has this, the other.
const DRIVE: [char; 2] = ['a', 'z'];

/// What a fact says of a thing that ought to be in the XML and is not.
const NONE: &str = "none";

/// What the fact `seed` says of a CD-ROM drive without a medium.
pub const EMPTY: &str = "empty";

/// Why a domain cannot be written as XML.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// XML 1.0 (section 2.2) has no way to carry this character, or none that every reader keeps.
    #[error("{text:?} has a character that XML cannot carry")]
    Character {
        /// The text that holds it.
        text: String,
    },
    /// libvirt's XML is UTF-8.
    #[error("the path {path:?} is not UTF-8")]
    Path {
        /// The path.
        path: std::path::PathBuf,
    },
    /// libvirt rounds memory up to whole MiB when a guest starts, and the guest would differ from its definition for ever.
    #[error("{0} of memory is not a whole number of MiB")]
    Memory(ByteSize),
}

/// The definition of a domain, ready for `virDomainDefineXML`.
///
/// What is left out is libvirt's to choose: emulator, controllers, PCI addresses, the version of the machine type.
///
/// # Errors
/// When it holds text that XML cannot carry, or memory that libvirt would round.
pub fn write(domain: &Domain) -> Result<String, Unwritable> {
    for memory in domain.max_memory.iter().chain([&domain.memory]) {
        if !memory.bytes().is_multiple_of(1 << 20) {
            return Err(Unwritable::Memory(*memory));
        }
    }
    let root = Element::new("domain")
        .attribute("type", domain.virt_type.as_str())
        .child(Element::new("name").text(&domain.name))
        .child(Element::new("uuid").text(domain.uuid.to_string()))
        .child(Element::new("metadata").child(mark(domain)))
        .children(memory(domain))
        .child(vcpu(domain))
        .child(os(domain)?)
        .child(Element::new("features").child(Element::new("acpi")).child(Element::new("apic")))
        .child(cpu(domain))
        .child(Element::new("clock").attribute("offset", "utc"))
        .child(Element::new("on_poweroff").text("destroy"))
        .child(Element::new("on_reboot").text("restart"))
        .child(Element::new("on_crash").text("destroy"))
        .child(devices(domain)?);
    to_text(&root)
}

fn mark(domain: &Domain) -> Element {
    mark_of(domain, domain.definition())
}

/// The mark of a domain, and what it says of the definition.
fn mark_of(domain: &Domain, definition: String) -> Element {
    let mark = Element::new("novella:server")
        .attribute("xmlns:novella", NAMESPACE)
        .attribute("project", domain.project.as_str())
        .attribute("name", domain.server.as_str())
        .attribute("uuid", domain.uuid.to_string())
        .attribute("definition", definition)
        .attribute("shutdown_timeout", domain.shutdown_timeout.to_string());
    // libvirt leaves out a maximum that is what the domain has.
    let more = [
        ("imported", domain.imported.then(|| "true".to_owned())),
        ("max_vcpus", domain.max_vcpus.map(|most| most.to_string())),
        ("max_memory", domain.max_memory.map(|most| most.to_string())),
    ];
    let mark = more.into_iter().fold(mark, |mark, (name, most)| match most {
        Some(most) => mark.attribute(name, most),
        None => mark,
    });
    domain.nics.iter().fold(mark, |mark, nic| {
        let its = Element::new("novella:nic").attribute("network", nic.network.as_str());
        let its = match &nic.port {
            Some(port) => its.attribute("port", port.as_str()),
            None => its,
        };
        mark.child(its.attribute("mac", nic.mac.to_string()))
    })
}

/// The memory that the machine has. Where it has more than the guest is to have, the guest's balloon holds the rest.
fn memory(domain: &Domain) -> Vec<Element> {
    let amount =
        |name, memory: ByteSize| Element::new(name).attribute("unit", "KiB").text((memory.bytes() >> 10).to_string());
    match domain.max_memory {
        Some(most) => vec![amount("memory", most), amount("currentMemory", domain.memory)],
        None => vec![amount("memory", domain.memory)],
    }
}

fn vcpu(domain: &Domain) -> Element {
    let vcpu = Element::new("vcpu");
    match domain.max_vcpus {
        Some(most) => vcpu.attribute("current", domain.vcpus.to_string()).text(most.to_string()),
        None => vcpu.text(domain.vcpus.to_string()),
    }
}

fn os(domain: &Domain) -> Result<Element, Unwritable> {
    // q35 is PCIe and what Linux distributions test today; libvirt keeps the exact version it stands for at the time of
    // definition, so that a newer QEMU does not change the machine under a guest.
    let kind = Element::new("type").attribute("arch", "x86_64").attribute("machine", "q35").text("hvm");
    let mut os = match domain.hardware.firmware {
        Firmware::Bios => Element::new("os").child(kind),
        Firmware::Uefi => uefi(kind, "no"),
        Firmware::SecureBoot => uefi(kind, "yes"),
    };
    if let Some(nvram) = &domain.hardware.nvram {
        os = os.child(Element::new("nvram").text(utf8(nvram)?));
    }
    if let Some(boot) = &domain.boot {
        os = os.child(Element::new("kernel").text(utf8(&boot.kernel.1)?));
        if let Some((_, initrd)) = &boot.initrd {
            os = os.child(Element::new("initrd").text(utf8(initrd)?));
        }
        os = os.child(Element::new("cmdline").text(&boot.cmdline));
    }
    Ok(os.child(Element::new("boot").attribute("dev", "hd")))
}

/// UEFI, from the file that the host's descriptors name for it (<https://qemu.org/docs/master/interop/firmware.json>).
fn uefi(kind: Element, secure: &str) -> Element {
    let features = ["enrolled-keys", "secure-boot"];
    let feature = |name: &str| Element::new("feature").attribute("enabled", secure).attribute("name", name);
    let firmware = Element::new("firmware").children(features.into_iter().map(feature).collect());
    Element::new("os").attribute("firmware", "efi").child(kind).child(firmware)
}

/// With KVM the host's own model, named and with its features listed, as Nova does. By emulation all that QEMU can emulate:
/// its default, `qemu64`, lacks x86-64-v2, without which RHEL 9 and its kin do not start.
fn cpu(domain: &Domain) -> Element {
    let cpu = Element::new("cpu");
    match (&domain.hardware.cpu, domain.virt_type) {
        (Some(CpuModel::HostModel), _) | (None, VirtType::Kvm) => cpu.attribute("mode", "host-model"),
        (Some(CpuModel::HostPassthrough), _) => cpu.attribute("mode", "host-passthrough"),
        (Some(CpuModel::Maximum), _) | (None, VirtType::Qemu) => cpu.attribute("mode", "maximum"),
        (Some(CpuModel::Named(name)), _) => {
            let model = Element::new("model").attribute("fallback", "forbid").text(name);
            cpu.attribute("mode", "custom").attribute("match", "exact").child(model)
        }
    }
}

fn devices(domain: &Domain) -> Result<Element, Unwritable> {
    let mut devices = Element::new("devices").child(root_disk(domain)?);
    for disk in &domain.disks {
        devices = devices.child(further_disk(disk)?);
    }
    if let Some(seed) = &domain.seed {
        devices = devices.child(drive(Some(seed), domain.root_disk.bus)?);
    }
    let has = |bus| domain.disks.iter().filter(|disk| disk.attachment.bus == bus).count();
    let has_scsi = domain.seed.is_some() || domain.root_disk.bus == Bus::Scsi || has(Bus::Scsi) > 0;
    if has_scsi {
        devices = devices.child(scsi_controller());
    }
    let ports = domain.nics.len() + SLOTS + has(Bus::Virtio) + usize::from(has_scsi);
    let devices = (1..=ports).fold(devices, |devices, index| {
        let port = Element::new("controller").attribute("type", "pci").attribute("index", index.to_string());
        devices.child(port.attribute("model", "pcie-root-port"))
    });
    let devices = domain.nics.iter().fold(devices, |devices, nic| devices.child(interface(nic)));
    let devices = match domain.hardware.tpm {
        true => devices.child(tpm()),
        false => devices,
    };
    let log = Element::new("log").attribute("file", utf8(&domain.console_log)?).attribute("append", "on");
    Ok(devices
        .child(Element::new("serial").attribute("type", "pty").child(log))
        .child(
            Element::new("console").attribute("type", "pty").child(Element::new("target").attribute("type", "serial")),
        )
        .child(Element::new("input").attribute("type", "tablet").attribute("bus", "usb"))
        .child(
            Element::new("graphics")
                .attribute("type", "vnc")
                .attribute("autoport", "yes")
                .child(Element::new("listen").attribute("type", "address").attribute("address", "127.0.0.1")),
        )
        .child(Element::new("video").child(Element::new("model").attribute("type", "vga")))
        .child(Element::new("memballoon").attribute("model", "virtio"))
        .child(
            Element::new("rng")
                .attribute("model", "virtio")
                .child(Element::new("backend").attribute("model", "random").text("/dev/urandom")),
        ))
}

/// A TPM 2.0 of its own, by swtpm; libvirt keeps what is in it for as long as the domain is defined.
fn tpm() -> Element {
    let backend = Element::new("backend").attribute("type", "emulator").attribute("version", "2.0");
    Element::new("tpm").attribute("model", "tpm-crb").child(backend)
}

/// A virtio-scsi controller; libvirt's default is one that few systems have a driver for.
fn scsi_controller() -> Element {
    let controller = Element::new("controller").attribute("type", "scsi").attribute("index", "0");
    controller.attribute("model", "virtio-scsi")
}

/// A disk with its whole chain written out and closed. QEMU then opens what is named here and nothing that a disk's header
/// names: a guest writes its own header, and could name any file of the host in it.
///
/// The base keeps its owner (`relabel='no'`), for whoever owns it could write into the disks of all.
///
/// The default cache mode, `writeback`, heeds the guest's flushes, works on every file system, and lets the host keep one
/// copy of a base in memory for all guests.
fn disk(
    (path, format): (&Path, DiskFormat),
    base: Option<&BaseRef>,
    target: &str,
    how: Attachment,
) -> Result<Element, Unwritable> {
    let mut backing = Element::new("backingStore");
    if let Some(base) = base {
        let label = Element::new("seclabel").attribute("model", "dac").attribute("relabel", "no");
        backing = backing
            .attribute("type", "file")
            .child(Element::new("format").attribute("type", base.format.as_str()))
            .child(Element::new("source").attribute("file", utf8(&base.path)?).child(label))
            .child(Element::new("backingStore"));
    }
    Ok(Element::new("disk")
        .attribute("type", "file")
        .attribute("device", "disk")
        .child(
            Element::new("driver")
                .attribute("name", "qemu")
                .attribute("type", format.as_str())
                .attribute("cache", how.cache.as_str())
                .attribute("discard", how.discard.as_str()),
        )
        .child(Element::new("source").attribute("file", utf8(path)?))
        .child(backing)
        .child(Element::new("target").attribute("dev", target).attribute("bus", how.bus.as_str())))
}

fn root_disk(domain: &Domain) -> Result<Element, Unwritable> {
    let file = (domain.disk.as_path(), domain.disk_format);
    disk(file, domain.base.as_ref(), &domain.root_target(), domain.root_disk)
}

/// A disk beside the root disk. The guest finds it by its serial number.
fn further_disk(its: &DomainDisk) -> Result<Element, Unwritable> {
    let element = disk((&its.path, its.format), its.base.as_ref(), &its.target, its.attachment)?;
    let element = element.child(Element::new("serial").text(its.volume.label().as_str()));
    // All on the controller that we name. libvirt would make one more for every seven letters, of a model of its own.
    let is_scsi = its.attachment.bus == Bus::Scsi;
    Ok(if is_scsi { element.child(scsi_address(&its.target)) } else { element })
}

/// The place of a disk on the controller, by the letter of its name.
fn scsi_address(target: &str) -> Element {
    let unit = target.bytes().last().map_or(0, |letter| letter.saturating_sub(b'a'));
    let address = Element::new("address").attribute("type", "drive");
    let address = ["controller", "bus", "target"].into_iter().fold(address, |it, name| it.attribute(name, "0"));
    address.attribute("unit", unit.to_string())
}

/// A disk beside the root disk alone, as `virDomainAttachDeviceFlags` takes it.
///
/// # Errors
/// When it holds text that XML cannot carry.
pub fn write_disk(disk: &DomainDisk) -> Result<String, Unwritable> {
    to_text(&further_disk(disk)?)
}

/// The controller of SCSI disks alone, as `virDomainAttachDeviceFlags` takes it.
///
/// # Errors
/// None: it holds no text of others.
pub fn write_scsi_controller() -> Result<String, Unwritable> {
    to_text(&scsi_controller())
}

/// The CD-ROM drive with what cloud-init is told. A guest that is booted anew by itself keeps its devices, and a disk could
/// not be another then; the medium of a drive can be changed under a guest that runs.
///
/// On virtio-scsi, for the kernels of cloud images have no driver for SATA, and libvirt plugs in all interfaces first: so
/// they keep their places, and with these their names, when a server gets a drive.
fn drive(seed: Option<&Path>, root: Bus) -> Result<Element, Unwritable> {
    let mut drive = Element::new("disk")
        .attribute("type", "file")
        .attribute("device", "cdrom")
        .child(Element::new("driver").attribute("name", "qemu").attribute("type", "raw"));
    if let Some(seed) = seed {
        drive = drive.child(Element::new("source").attribute("file", utf8(seed)?));
    }
    let [usual, beside] = DRIVE;
    let target = Bus::Scsi.target(if root == Bus::Virtio { usual } else { beside });
    let drive = drive
        .child(Element::new("target").attribute("dev", &target).attribute("bus", "scsi"))
        .child(Element::new("readonly"));
    Ok(if root == Bus::Virtio { drive } else { drive.child(scsi_address(&target)) })
}

/// The CD-ROM drive of a domain alone, with this in it or nothing, as `virDomainUpdateDeviceFlags` takes it. The
/// root disk is on the bus `root`.
///
/// # Errors
/// When it holds text that XML cannot carry.
pub fn write_drive(seed: Option<&Path>, root: Bus) -> Result<String, Unwritable> {
    to_text(&drive(seed, root)?)
}

fn interface(nic: &Nic) -> Element {
    Element::new("interface")
        .attribute("type", "bridge")
        .child(Element::new("mac").attribute("address", nic.mac.to_string()))
        .child(Element::new("source").attribute("bridge", &nic.bridge))
        .child(Element::new("target").attribute("dev", &nic.tap))
        .child(Element::new("model").attribute("type", "virtio"))
        .child(Element::new("mtu").attribute("size", nic.mtu.to_string()))
        .child(Element::new("link").attribute("state", if nic.unplugged { "down" } else { "up" }))
}

/// The mark alone, as `virDomainSetMetadata` takes it: the key of its namespace, the namespace, and the element, to which
/// libvirt adds the namespace itself.
///
/// # Errors
/// When it holds text that XML cannot carry.
pub fn write_mark(domain: &Domain) -> Result<[String; 3], Unwritable> {
    alone(&mark(domain))
}

/// The same for a domain that others defined, which stays what it is yet.
///
/// # Errors
/// As [`write_mark`].
pub fn write_claim(domain: &Domain) -> Result<[String; 3], Unwritable> {
    alone(&mark_of(domain, FOREIGN.to_owned()))
}

fn alone(mark: &Element) -> Result<[String; 3], Unwritable> {
    let mark = to_text(mark)?.replace(&format!(" xmlns:novella=\"{NAMESPACE}\""), "");
    Ok(["novella".into(), NAMESPACE.into(), mark.replace("<novella:", "<").replace("</novella:", "</")])
}

/// One interface of a domain alone, as `virDomainUpdateDeviceFlags` takes it.
///
/// # Errors
/// When it holds text that XML cannot carry.
pub fn write_interface(nic: &Nic) -> Result<String, Unwritable> {
    to_text(&interface(nic))
}

fn to_text(root: &Element) -> Result<String, Unwritable> {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    root.write(&mut writer)?;
    // The writer copies text, so what comes out is UTF-8 as what went in was.
    Ok(String::from_utf8_lossy(&writer.into_inner()).into_owned())
}

fn utf8(path: &Path) -> Result<&str, Unwritable> {
    path.to_str().ok_or_else(|| Unwritable::Path { path: path.to_owned() })
}

/// An XML element that is being put together.
struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    text: Option<String>,
    children: Vec<Element>,
}

impl Element {
    fn new(name: &'static str) -> Self {
        Self { name, attributes: Vec::new(), text: None, children: Vec::new() }
    }

    fn attribute(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    fn child(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    fn children(mut self, children: Vec<Self>) -> Self {
        self.children.extend(children);
        self
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> Result<(), Unwritable> {
        for (_, value) in &self.attributes {
            carriable(value)?;
        }
        let attributes = self.attributes.iter().map(|(name, value)| (*name, value.as_str()));
        let start = BytesStart::new(self.name).with_attributes(attributes);
        if self.text.is_none() && self.children.is_empty() {
            put(writer, Event::Empty(start));
            return Ok(());
        }
        put(writer, Event::Start(start));
        if let Some(text) = &self.text {
            carriable(text)?;
            put(writer, Event::Text(BytesText::new(text)));
        }
        for child in &self.children {
            child.write(writer)?;
        }
        put(writer, Event::End(BytesEnd::new(self.name)));
        Ok(())
    }
}

fn put(writer: &mut Writer<Vec<u8>>, event: Event<'_>) {
    // Writing to memory cannot fail.
    let _ = writer.write_event(event);
}

/// Refuses what quick-xml lets through: control characters, and the two code points that XML leaves out by name.
fn carriable(text: &str) -> Result<(), Unwritable> {
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}')) {
        return Err(Unwritable::Character { text: text.to_owned() });
    }
    Ok(())
}

/// What the XML of a domain, ours or not, tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The host sides of its interfaces, where the XML names them.
    pub taps: Vec<String>,
    /// Its interfaces in their order: each as a fact (see [`Nic::fact`]), and as it stands in the XML.
    pub nics: Vec<(String, String)>,
    /// Its disks beside the root disk, as far as they tell a serial number, by that.
    pub disks: BTreeMap<String, ReadDisk>,
    /// Whether it has a controller for SCSI disks.
    pub has_scsi: bool,
    /// How many devices more fit, while it runs, into the slots made for that.
    pub free_slots: usize,
    /// What it is as a server, if it carries our mark.
    pub marked: Option<Marked>,
}

/// A disk beside the root disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadDisk {
    /// It in the words of facts.
    pub disk: GuestDisk,
    /// The file, where it is one.
    pub path: Option<PathBuf>,
    /// It as it stands in the XML.
    pub xml: String,
}

/// A domain that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The project it belongs to.
    pub project: Name,
    /// The server it is.
    pub server: Name,
    /// How long it may take to shut down, in seconds; none if somebody took that out of the mark.
    pub shutdown_timeout: Option<u32>,
    /// The host side of each interface, by [`Nic::label`].
    pub taps: Vec<(String, String)>,
    /// What it is, in the words of [`Object::facts`](crate::blueprint::object::Object::facts), without `power`.
    pub facts: Facts,
}

/// Reads the XML of a domain as libvirt gives it.
///
/// What libvirt adds by itself is left out. The mark of a domain that was cloned with it names another UUID, and does not
/// count.
///
/// # Errors
/// When it is not XML.
pub fn read(xml: &str) -> Result<Read, roxmltree::Error> {
    let document = Document::parse(xml)?;
    let domain = document.root_element();
    let interfaces = interfaces(domain);
    let taps = interfaces.iter().filter_map(|interface| value(*interface, &["target"], "dev").map(str::to_owned));
    let nics = interfaces.iter().map(|interface| {
        let mac = value(*interface, &["mac"], "address").unwrap_or(NONE);
        let mac = mac.parse().map_or_else(|_| mac.to_owned(), |mac: Mac| mac.to_string());
        let tap = value(*interface, &["target"], "dev").unwrap_or(NONE);
        (format!("{mac} {tap}"), xml.get(interface.range()).unwrap_or_default().to_owned())
    });
    Ok(Read {
        taps: taps.collect(),
        nics: nics.collect(),
        disks: further_disks(domain, xml),
        has_scsi: domain.descendants().any(|node| {
            node.has_tag_name("controller")
                && node.attribute("type") == Some("scsi")
                && node.attribute("model") == Some("virtio-scsi")
        }),
        free_slots: free_slots(domain),
        marked: read_mark(domain).and_then(|mark| marked(domain, &interfaces, &mark)),
    })
}

fn interfaces<'a, 'i>(domain: Node<'a, 'i>) -> Vec<Node<'a, 'i>> {
    let devices = at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children());
    devices.filter(|node| node.has_tag_name("interface")).collect()
}

/// What the mark of a domain says.
struct Mark {
    project: Name,
    server: Name,
    definition: Option<String>,
    shutdown_timeout: Option<u32>,
    imported: bool,
    has_max_vcpus: bool,
    has_max_memory: bool,
    nics: Vec<MarkedNic>,
}

/// What it says of an interface.
struct MarkedNic {
    port: Option<Name>,
    network: Option<Name>,
    mac: Option<Mac>,
}

fn read_mark(domain: Node) -> Option<Mark> {
    let mark = at(domain, &["metadata"])?.children().find(|node| node.has_tag_name((NAMESPACE, "server")))?;
    let uuid: Uuid = text(domain, &["uuid"])?.parse().ok()?;
    if mark.attribute("uuid")?.parse() != Ok(uuid) {
        return None;
    }
    let nic = |nic: Node| {
        let name = |attribute| nic.attribute(attribute).and_then(|name: &str| name.parse::<Name>().ok());
        let mac = nic.attribute("mac").and_then(|mac| mac.parse().ok());
        MarkedNic { port: name("port"), network: name("network"), mac }
    };
    Some(Mark {
        project: mark.attribute("project")?.parse().ok()?,
        server: mark.attribute("name")?.parse().ok()?,
        definition: mark.attribute("definition").map(str::to_owned),
        shutdown_timeout: mark.attribute("shutdown_timeout").and_then(|seconds| seconds.parse().ok()),
        imported: mark.attribute("imported") == Some("true"),
        has_max_vcpus: mark.has_attribute("max_vcpus"),
        has_max_memory: mark.has_attribute("max_memory"),
        nics: mark.children().filter(|node| node.has_tag_name((NAMESPACE, "nic"))).map(nic).collect(),
    })
}

/// What a domain is as the server that its mark names.
fn marked(domain: Node, interfaces: &[Node], mark: &Mark) -> Option<Marked> {
    let uuid: Uuid = text(domain, &["uuid"])?.parse().ok()?;
    let is_foreign = mark.definition.as_deref() == Some(FOREIGN);
    let mut facts = Facts::new();
    let mut put = |name: &'static str, value: Option<&str>| {
        facts.insert(Cow::Borrowed(name), value.unwrap_or(NONE).to_owned());
    };
    put("name", text(domain, &["name"]));
    put("uuid", Some(&uuid.to_string()));
    if mark.imported {
        put("imported", Some("true"));
    }
    put("type", domain.attribute("type"));
    put("vcpus", value(domain, &["vcpu"], "current").or(text(domain, &["vcpu"])));
    if mark.has_max_vcpus {
        put("max_vcpus", text(domain, &["vcpu"]));
    }
    // Without a maximum the guest has what the machine has, unless somebody fills its balloon.
    let most = amount(domain, "memory");
    let told = |amount: Option<ByteSize>| amount.map(|it| it.to_string());
    if mark.has_max_memory {
        put("memory", told(amount(domain, "currentMemory").or(most)).as_deref());
        put("max_memory", told(most).as_deref());
    } else {
        put("memory", told(most).as_deref());
    }
    match firmware(domain) {
        Firmware::Bios => {}
        firmware @ (Firmware::Uefi | Firmware::SecureBoot) => {
            put("firmware", Some(firmware.as_str()));
            put("nvram", text(domain, &["os", "nvram"]));
        }
    }
    if let Some(version) = value(domain, &["devices", "tpm", "backend"], "version") {
        put("tpm", Some(version));
    }
    // What others have defined starts from its first disk, whatever that is called.
    let root = disks(domain, "disk").find(|disk| is_foreign || is_root(*disk));
    put("disk", root.and_then(|disk| value(disk, &["source"], "file")));
    if mark.imported {
        put("disk_format", root.and_then(|disk| value(disk, &["driver"], "type")));
    }
    put("root_disk", root.map(attached).as_deref());
    let is_further = |disk: &Node| serial(*disk).is_some() && Some(*disk) != root;
    let further: Vec<Node> = disks(domain, "disk").filter(is_further).collect();
    let labels: BTreeSet<&str> = further.iter().filter_map(|disk| serial(*disk)).collect();
    let labels: Vec<&str> = labels.into_iter().collect();
    put("disks", Some(labels.join(", ")).filter(|labels| !labels.is_empty()).as_deref());
    put("seed", disks(domain, "cdrom").next().map(|drive| value(drive, &["source"], "file").unwrap_or(EMPTY)));
    put("console_log", value(domain, &["devices", "serial", "log"], "file"));
    put("shutdown_timeout", mark.shutdown_timeout.map(|seconds| format!("{seconds} s")).as_deref());
    put("definition", mark.definition.as_deref());
    put("kernel", text(domain, &["os", "kernel"]));
    if at(domain, &["os", "kernel"]).is_some() {
        put("initrd", text(domain, &["os", "initrd"]));
        put("cmdline", Some(text(domain, &["os", "cmdline"]).unwrap_or_default()));
    }

    for (label, disk) in further.iter().filter_map(|disk| Some((serial(*disk)?, disk))) {
        facts.insert(Cow::Owned(format!("disk.{label}")), attached(*disk));
        facts.insert(Cow::Owned(format!("disk.{label}.source")), source(*disk));
    }
    let mut taps = Vec::new();
    for MarkedNic { port, network, mac } in &mark.nics {
        let label = match (port, network) {
            (Some(port), _) => Address::new(ResourceKind::Port, port.clone()).to_string(),
            (None, Some(network)) => network.to_string(),
            (None, None) => continue,
        };
        let interface = interfaces.iter().copied().find(|interface| {
            mac.is_some() && value(*interface, &["mac"], "address").and_then(|mac| mac.parse().ok()) == *mac
        });
        let Some((mac, interface)) = mac.zip(interface) else {
            facts.insert(Cow::Owned(format!("nic.{label}")), NONE.into());
            continue;
        };
        let told = |path: &[&str], name: &str| value(interface, path, name).unwrap_or(NONE).to_owned();
        let tap = told(&["target"], "dev");
        facts.insert(Cow::Owned(format!("nic.{label}")), format!("{mac} {tap}"));
        facts.insert(Cow::Owned(format!("nic.{label}.bridge")), told(&["source"], "bridge"));
        facts.insert(Cow::Owned(format!("nic.{label}.mtu")), told(&["mtu"], "size"));
        // Without a word it is up.
        let link = value(interface, &["link"], "state").unwrap_or("up");
        facts.insert(Cow::Owned(format!("nic.{label}.link")), link.to_owned());
        taps.push((label, tap));
    }
    let (project, server, shutdown_timeout) = (mark.project.clone(), mark.server.clone(), mark.shutdown_timeout);
    Some(Marked { project, server, shutdown_timeout, taps, facts })
}

/// What libvirt was told, or what it has chosen by that: from its first start on, the domain may name a file in place.
fn firmware(domain: Node) -> Firmware {
    let Some(os) = at(domain, &["os"]) else { return Firmware::Bios };
    let is_secure = |node: &Node| {
        node.has_tag_name("loader") && node.attribute("secure") == Some("yes")
            || node.attribute("name") == Some("secure-boot") && node.attribute("enabled") == Some("yes")
    };
    match os.attribute("firmware") == Some("efi") || at(os, &["loader"]).is_some() {
        true if os.descendants().any(|node| is_secure(&node)) => Firmware::SecureBoot,
        true => Firmware::Uefi,
        false => Firmware::Bios,
    }
}

/// The root ports that nothing is plugged into: only these take devices while the guest runs.
fn free_slots(domain: Node) -> usize {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let numbers = |name, attribute: &'static str, which: fn(&Node) -> bool| -> BTreeSet<u32> {
        let nodes = domain.descendants().filter(|node| node.has_tag_name(name)).filter(which);
        nodes.filter_map(|node| number(node.attribute(attribute)?)).collect()
    };
    let ports = numbers("controller", "index", |node| node.attribute("model") == Some("pcie-root-port"));
    let taken = numbers("address", "bus", |node| node.attribute("type") == Some("pci"));
    ports.difference(&taken).count()
}

/// libvirt gives memory in KiB, whatever unit it was defined in.
fn amount(domain: Node, name: &str) -> Option<ByteSize> {
    let kib: u64 = text(domain, &[name])?.parse().ok()?;
    Some(ByteSize(kib.checked_mul(1024)?))
}

/// The disks of a kind: `disk`, `cdrom`.
fn disks<'a, 'i>(domain: Node<'a, 'i>, device: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    let is_it = move |node: &Node| node.has_tag_name("disk") && node.attribute("device") == Some(device);
    at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children()).filter(is_it)
}

/// The serial number of a disk. The root disk has none.
fn serial<'a>(disk: Node<'a, '_>) -> Option<&'a str> {
    text(disk, &["serial"])
}

fn is_root(disk: Node) -> bool {
    serial(disk).is_none() && matches!(value(disk, &["target"], "dev"), Some("vda" | "sda"))
}

/// How a disk is attached, as a fact.
fn attached(disk: Node) -> String {
    let told = |path, name| value(disk, &[path], name).unwrap_or(NONE);
    attachment_fact(told("target", "dev"), told("target", "bus"), told("driver", "cache"), told("driver", "discard"))
}

/// What a disk is over what base, as a fact.
fn source(disk: Node) -> String {
    let path = |node| value(node, &["source"], "file");
    let base = at(disk, &["backingStore"])
        .and_then(|base| Some((path(base)?, value(base, &["format"], "type").unwrap_or(NONE))));
    source_fact((path(disk).unwrap_or(NONE), value(disk, &["driver"], "type").unwrap_or(NONE)), base)
}

fn further_disks(domain: Node, xml: &str) -> BTreeMap<String, ReadDisk> {
    let read = |disk: Node| {
        let label = serial(disk)?;
        let bus = value(disk, &["target"], "bus");
        let is_pluggable = [Bus::Virtio, Bus::Scsi].iter().any(|it| bus == Some(it.as_str()) && it.is_hot_pluggable());
        let its =
            GuestDisk { attached: attached(disk), source: source(disk), is_detachable: is_pluggable && label != SWAP };
        let read = ReadDisk {
            disk: its,
            path: value(disk, &["source"], "file").map(PathBuf::from),
            xml: xml.get(disk.range()).unwrap_or_default().to_owned(),
        };
        Some((label.to_owned(), read))
    };
    disks(domain, "disk").filter_map(read).collect()
}

/// The first element at a path of names.
fn at<'a, 'i>(node: Node<'a, 'i>, path: &[&str]) -> Option<Node<'a, 'i>> {
    path.iter().try_fold(node, |node, name| node.children().find(|child| child.has_tag_name(*name)))
}

fn text<'a>(node: Node<'a, '_>, path: &[&str]) -> Option<&'a str> {
    at(node, path)?.text()
}

fn value<'a>(node: Node<'a, '_>, path: &[&str], attribute: &str) -> Option<&'a str> {
    at(node, path)?.attribute(attribute)
}
