//! A domain that others defined, told in the words of the spec. What has no equivalent becomes a difference, not a guess.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use roxmltree::{Document, Node};

use super::{amount, at, disks, firmware, text, value};
use crate::address::Name;
use crate::blueprint::hardware::Firmware;
use crate::value::{ByteSize, Mac};

/// What is read of every element below `<domain>`; anything else is told as a difference.
const READ: [&str; 16] = [
    "name",
    "uuid",
    "metadata",
    "memory",
    "currentMemory",
    "vcpu",
    "os",
    "features",
    "cpu",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "devices",
    "pm",
    "resource",
];

/// What is read of the devices, or made by libvirt or novella for every guest.
const DEVICES: [&str; 13] = [
    "emulator",
    "disk",
    "controller",
    "interface",
    "serial",
    "console",
    "input",
    "graphics",
    "video",
    "memballoon",
    "rng",
    "tpm",
    "audio",
];

/// A domain as libvirt has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Its persistent definition.
    pub xml: String,
    /// How much each of its disks holds, by the disk's target.
    pub capacities: BTreeMap<String, ByteSize>,
    /// Whether libvirt starts it with the host.
    pub autostart: bool,
}

/// The spec of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The file.
    pub toml: String,
    /// The fields in which the server would differ from the domain; each is a comment in the file as well.
    pub differing: Vec<String>,
}

/// Why a domain cannot be told in the words of the spec.
#[derive(Debug, thiserror::Error)]
pub enum Unsayable {
    /// It is not XML.
    #[error(transparent)]
    Xml(#[from] roxmltree::Error),
    /// A field is what no server can be.
    #[error("`{field}`: {why}")]
    Field {
        /// The field of the domain.
        field: String,
        /// What is wrong with it.
        why: String,
        /// The way out.
        help: &'static str,
    },
}

/// The targets of the disks of a domain, such as `vda`; of what is not XML, none.
pub fn targets(xml: &str) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let disks = disks(document.root_element(), "disk");
    disks.filter_map(|disk| value(disk, &["target"], "dev").map(str::to_owned)).collect()
}

/// Tells a domain as a server: its image, its flavor, its volumes, its networks, its ports.
///
/// # Errors
/// When the domain has what no server can have, such as a root disk that is not a file.
pub fn describe(server: &Name, foreign: &Foreign) -> Result<Described, Unsayable> {
    let document = Document::parse(&foreign.xml)?;
    let domain = document.root_element();
    let mut file = File::default();
    let disks: Vec<Disk> = disks(domain, "disk").map(|disk| Disk::read(disk, foreign)).collect();
    let Some((root, further)) = disks.split_first() else {
        return Err(refused("disk", "it has none", "a server starts from the disk of an image: define it with one"));
    };
    identity(server, domain, foreign, &mut file);
    image(server.as_str(), domain, root, &mut file)?;
    flavor(server, domain, root, &mut file)?;
    let volumes = volumes(server, further, &mut file)?;
    let ports = interfaces(server, domain, &mut file);
    file.table("server", server.as_str());
    file.set("image", quoted("image", server.as_str())?);
    file.set("flavor", quoted("flavor", server.as_str())?);
    file.set("ports", format!("[{}]", ports.join(", ")));
    if !volumes.is_empty() {
        file.set("volumes", format!("[{}]", volumes.join(", ")));
    }
    file.set("root_disk", format!("{{ bus = \"{}\" }}", root.bus));
    file.line(
        "# Off, so that not two guests with one disk's content and one MAC run: turn it on when the domain is off.",
    );
    file.set("power", "\"off\"".into());
    file.devices(domain);
    let name = one_line(text(domain, &["name"]).unwrap_or_default());
    let head = format!(
        "# The libvirt domain `{name}` as `server.{server}`. Applied, this makes a new guest beside it, whose disks begin as \
         copies.\n# The domain itself stays what it is. Copy disks only while it is off: those of a running guest are torn.\n\
         # Fields that differ: {}.\n\nnovella = 1\n",
        file.differing.len()
    );
    Ok(Described { toml: head + &file.toml, differing: file.differing })
}

fn refused(field: &str, why: impl Into<String>, help: &'static str) -> Unsayable {
    Unsayable::Field { field: field.into(), why: why.into(), help }
}

/// Text as TOML has it. JSON's escapes are TOML's, but for one character.
fn quoted(field: &str, text: &str) -> Result<String, Unsayable> {
    if text.contains("${") {
        return Err(refused(field, "it has `${`, which begins a variable in a spec", "rename it in the domain"));
    }
    Ok(serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F"))
}

/// Text that may stand in a comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The file that is put together.
#[derive(Default)]
struct File {
    toml: String,
    differing: Vec<String>,
}

impl File {
    fn line(&mut self, line: impl fmt::Display) {
        // Writing to memory cannot fail.
        let _ = writeln!(self.toml, "{line}");
    }

    fn table(&mut self, kind: &str, name: &str) {
        self.line(format_args!("\n[{kind}.{name}]"));
    }

    fn set(&mut self, key: &str, value: String) {
        self.line(format_args!("{key} = {value}"));
    }

    fn differs(&mut self, field: &str, how: impl fmt::Display) {
        let said = one_line(&format!("{field}: {how}"));
        self.line(format_args!("# differs: {said}"));
        self.differing.push(said);
    }

    /// What stands in the domain and is read by nobody here.
    fn devices(&mut self, domain: Node) {
        let unread = |parent: Option<Node>, read: &[&str]| -> Vec<String> {
            let children = parent.into_iter().flat_map(|parent| parent.children().filter(Node::is_element));
            let names = children.map(|child| child.tag_name().name().to_owned());
            names.filter(|name| !read.contains(&name.as_str())).collect()
        };
        for name in unread(Some(domain), &READ) {
            self.differs(&name, "a server has none");
        }
        for name in unread(at(domain, &["devices"]), &DEVICES) {
            self.differs(&format!("devices/{name}"), "a server has none");
        }
        for name in unread(at(domain, &["features"]), &["acpi", "apic"]) {
            self.differs(&format!("features/{name}"), "a server has acpi and apic");
        }
        for name in unread(at(domain, &["metadata"]), &[]) {
            self.differs(&format!("metadata/{name}"), "of another program, and not carried over");
        }
        for drive in disks(domain, "cdrom") {
            let medium = value(drive, &["source"], "file").unwrap_or("empty");
            self.differs("cdrom", format_args!("`{medium}` there; a server has its own drive"));
        }
        for graphics in domain.descendants().filter(|node| node.has_tag_name("graphics")) {
            let kind = graphics.attribute("type").unwrap_or_default();
            if kind != "vnc" {
                self.differs("graphics", format_args!("`{kind}` there, `vnc` here"));
            }
        }
    }
}

fn identity(server: &Name, domain: Node, foreign: &Foreign, file: &mut File) {
    let told = |path: &[&str]| text(domain, path).unwrap_or("none").to_owned();
    file.differs("name", format_args!("`{}` there, `PROJECT.{server}` here", told(&["name"])));
    file.differs("uuid", format_args!("`{}` there, one derived from the project and the name here", told(&["uuid"])));
    let machine = value(domain, &["os", "type"], "machine").unwrap_or("none");
    if !machine.contains("q35") {
        file.differs("machine", format_args!("`{machine}` there, `q35` here: devices have other places"));
    }
    match domain.attribute("type") {
        Some("kvm") => {}
        kind => {
            let kind = kind.unwrap_or("none");
            file.differs("type", format_args!("`{kind}` there, what `host.local.virt_type` says here"));
        }
    }
    let clock = value(domain, &["clock"], "offset").unwrap_or("utc");
    if clock != "utc" {
        file.differs("clock", format_args!("`{clock}` there, `utc` here"));
    }
    if foreign.autostart {
        file.differs("autostart", "on there; here `power` is what counts, and `novella apply` starts it");
    }
}

/// A disk of the domain.
struct Disk {
    target: String,
    bus: &'static str,
    bus_there: String,
    format: String,
    file: Option<String>,
    capacity: Option<ByteSize>,
    tuned: Vec<String>,
}

impl Disk {
    fn read(disk: Node, foreign: &Foreign) -> Self {
        let told = |path: &str, name: &str| value(disk, &[path], name).unwrap_or_default().to_owned();
        let target = told("target", "dev");
        let bus_there = told("target", "bus");
        let bus = match bus_there.as_str() {
            "virtio" => "virtio",
            "scsi" => "scsi",
            _ => "sata",
        };
        let tuned = ["cache", "discard", "io"].into_iter().filter_map(|name| {
            let value = value(disk, &["driver"], name)?;
            Some(format!("{name} `{value}`"))
        });
        Self {
            capacity: foreign.capacities.get(&target).copied(),
            tuned: tuned.collect(),
            format: told("driver", "type"),
            file: value(disk, &["source"], "file").map(str::to_owned),
            target,
            bus,
            bus_there,
        }
    }

    /// Its size, rounded up to whole MiB.
    fn size(&self) -> Result<ByteSize, Unsayable> {
        let capacity = self.capacity.ok_or_else(|| {
            refused(&format!("disk {}", self.target), "libvirt does not tell its size", "see that its file is there")
        })?;
        Ok(whole_mib(capacity))
    }

    fn source(&self, file: &mut File) -> Result<(), Unsayable> {
        let field = format!("disk {}", self.target);
        let help = "copy it into a file with `qemu-img convert -O qcow2`, and write that file into a spec as an image";
        let path = self.file.as_deref().ok_or_else(|| refused(&field, "it is not a file", help))?;
        if !["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"].contains(&self.format.as_str()) {
            return Err(refused(&field, format!("its format is {:?}", self.format), help));
        }
        file.differs(&field, format_args!("`{path}` there, a copy in `host.local.data_dir` here"));
        if self.bus != self.bus_there {
            file.differs(&field, format_args!("on `{}` there, on `{}` here", self.bus_there, self.bus));
        }
        if !self.tuned.is_empty() {
            file.differs(&field, format_args!("{} there, see the spec's `cache` and `discard`", self.tuned.join(", ")));
        }
        file.set("source", quoted(&field, path)?);
        file.set("format", quoted(&field, &self.format)?);
        Ok(())
    }
}

fn whole_mib(size: ByteSize) -> ByteSize {
    ByteSize::mib(size.bytes().div_ceil(1 << 20))
}

fn image(name: &str, domain: Node, root: &Disk, file: &mut File) -> Result<(), Unsayable> {
    let arch = value(domain, &["os", "type"], "arch").unwrap_or("none");
    if arch != "x86_64" || text(domain, &["os", "type"]) != Some("hvm") {
        return Err(refused(
            "os/type",
            format!("it is for {arch:?}"),
            "novella makes `x86_64` machines with full virtualization",
        ));
    }
    file.table("image", name);
    root.source(file)?;
    for (key, path) in [("kernel", "kernel"), ("initrd", "initrd"), ("cmdline", "cmdline")] {
        if let Some(value) = text(domain, &["os", path]) {
            file.set(key, quoted(key, value)?);
        }
    }
    let firmware = firmware(domain);
    if firmware != Firmware::Bios {
        file.set("firmware", "\"uefi\"".into());
        file.set("secure_boot", (firmware == Firmware::SecureBoot).to_string());
        file.differs("nvram", "the firmware's variables are not carried over: boot entries begin anew");
    }
    if at(domain, &["devices", "tpm"]).is_some() {
        file.set("tpm", "\"2.0\"".into());
        file.differs("tpm", "a new one: what is sealed in it is not carried over");
    }
    Ok(())
}

fn flavor(server: &Name, domain: Node, root: &Disk, file: &mut File) -> Result<(), Unsayable> {
    let most =
        amount(domain, "memory").ok_or_else(|| refused("memory", "it is not told", "look at `virsh dumpxml`"))?;
    let memory = amount(domain, "currentMemory").unwrap_or(most).min(most);
    let processors = |told: Option<&str>| told.and_then(|number| number.trim().parse::<u32>().ok());
    let all = processors(text(domain, &["vcpu"])).unwrap_or(1);
    let vcpus = processors(value(domain, &["vcpu"], "current")).unwrap_or(all);
    file.table("flavor", server.as_str());
    if memory != whole_mib(memory) || most != whole_mib(most) {
        file.differs("memory", format_args!("`{memory}` of `{most}` there, whole MiB here"));
    }
    file.set("vcpus", vcpus.to_string());
    if all > vcpus {
        file.set("max_vcpus", all.to_string());
    }
    file.set("ram", format!("\"{}\"", whole_mib(memory)));
    if whole_mib(most) > whole_mib(memory) {
        file.set("max_ram", format!("\"{}\"", whole_mib(most)));
    }
    let size = root.size()?;
    if root.capacity != Some(size) {
        file.differs("disk", "its size is no whole number of MiB, and is rounded up");
    }
    file.set("disk", format!("\"{size}\""));
    processor(domain, file)
}

fn processor(domain: Node, file: &mut File) -> Result<(), Unsayable> {
    match (value(domain, &["cpu"], "mode"), text(domain, &["cpu", "model"])) {
        (Some(mode @ ("host-model" | "host-passthrough" | "maximum")), _) => {
            file.set("cpu_mode", format!("\"{mode}\""))
        }
        (_, Some(model)) => file.set("cpu_model", quoted("cpu/model", model)?),
        _ => file.differs("cpu", "none is named there; here it is the host's own, or all that QEMU can emulate"),
    }
    for name in ["topology", "feature", "numa", "cache"] {
        if at(domain, &["cpu", name]).is_some() {
            file.differs(&format!("cpu/{name}"), "a server has none");
        }
    }
    Ok(())
}

/// The disks beside the first. Each begins as an image of its own.
fn volumes(server: &Name, disks: &[Disk], file: &mut File) -> Result<Vec<String>, Unsayable> {
    let mut names = Vec::new();
    for disk in disks {
        let name = format!("{server}-{}", disk.target);
        file.table("image", &name);
        disk.source(file)?;
        file.table("volume", &name);
        file.set("size", format!("\"{}\"", disk.size()?));
        file.set("image", quoted("image", &name)?);
        file.differs(&format!("disk {}", disk.target), "its serial number here is the name of the volume");
        names.push(format!("{{ volume = \"{name}\", bus = \"{}\" }}", disk.bus));
    }
    Ok(names)
}

/// The interfaces, with a network for each that they are on.
fn interfaces(server: &Name, domain: Node, file: &mut File) -> Vec<String> {
    let mut networks: Vec<String> = Vec::new();
    let mut ports = Vec::new();
    let devices = at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children());
    for (number, its) in devices.filter(|node| node.has_tag_name("interface")).enumerate() {
        let kind = its.attribute("type").unwrap_or("none");
        let on =
            ["network", "bridge", "dev"].into_iter().find_map(|name| value(its, &["source"], name)).unwrap_or(kind);
        let place = networks.iter().position(|network| network == on).unwrap_or_else(|| {
            networks.push(on.to_owned());
            let name = format!("{server}-net{}", networks.len());
            file.table("network", &name);
            file.differs("network", format_args!("{kind} `{on}` there, a bridge of novella's here"));
            file.table("subnet", &name);
            file.differs(
                "subnet",
                "what addresses the domain has is not known: write a range that the host does not use",
            );
            file.set("network", format!("\"{name}\""));
            file.set("cidr", format!("\"10.{}.0.0/24\"", 200 + networks.len() % 50));
            networks.len() - 1
        });
        let field = format!("interface {}", number + 1);
        let model = value(its, &["model"], "type").unwrap_or("none");
        if model != "virtio" {
            file.differs(&field, format_args!("`{model}` there, `virtio` here"));
        }
        let mac = value(its, &["mac"], "address").and_then(|mac| mac.parse::<Mac>().ok());
        let mac = mac.map(|mac| format!(", mac_address = \"{mac}\"")).unwrap_or_else(|| {
            file.differs(&field, "its MAC is not one that a spec can have");
            String::new()
        });
        let unplugged = value(its, &["link"], "state") == Some("down");
        let state = if unplugged { ", admin_state_up = false" } else { "" };
        ports.push(format!("{{ network = \"{server}-net{}\"{mac}{state} }}", place + 1));
    }
    if ports.is_empty() {
        file.differs("interface", "none there; a server must have one");
    }
    ports
}
