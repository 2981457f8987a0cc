//! A domain that others defined, told in the words of the spec. In what it would differ even so, [`compare`](super::compare)
//! finds; what no definition tells is told here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use roxmltree::{Document, Node};

use super::foreign_network::Networks;
use super::import::Unfit;
use super::{amount, at, disks, firmware, text, value};
use crate::address::Name;
use crate::blueprint::disk::{Bus, Cache, Discard, MAX_SERIAL};
use crate::blueprint::hardware::Firmware;
use crate::blueprint::object::DiskFormat;
use crate::plan::world::Differing;
use crate::value::{ByteSize, Mac};

/// A domain as libvirt has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Its name.
    pub name: String,
    /// Its persistent definition, with what is secret in it.
    pub xml: String,
    /// How much each of its disks holds, by the disk's target.
    pub capacities: BTreeMap<String, ByteSize>,
    /// Whether libvirt starts it with the host.
    pub autostart: bool,
    /// Whether it runs.
    pub running: bool,
    /// The definitions of the libvirt networks that it is on, by name.
    pub networks: BTreeMap<String, String>,
    /// The addresses that its interfaces have now, as far as that is known, by MAC address.
    pub addresses: BTreeMap<Mac, Vec<IpAddr>>,
}

/// The spec of a domain, without its networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// What it is and what becomes of it, as comments.
    pub head: String,
    /// The tables.
    pub toml: String,
    /// All in which the server would differ from the domain; each is a comment in the file as well.
    pub differing: Vec<String>,
}

impl Described {
    /// A server that is told already, of which only this is to be said.
    pub fn of(found: Vec<Differing>) -> Self {
        let differing = found.iter().map(|difference| one_line(&difference.to_string())).collect();
        Self { head: String::new(), toml: String::new(), differing }
    }
}

/// What becomes of a domain when its spec is applied.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// It is taken over: it keeps its name, its UUID, its MAC addresses and its disk.
    TakenOver,
    /// A new guest is made beside it, for this reason.
    Beside(&'a Unfit),
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
        help: String,
    },
}

impl Unsayable {
    /// The way out, where one is known.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Xml(_) => None,
            Self::Field { help, .. } => Some(help),
        }
    }
}

/// The targets of the disks of a domain, such as `vda`; of what is not XML, none.
pub fn targets(xml: &str) -> Vec<String> {
    let Ok(document) = Document::parse(xml) else { return Vec::new() };
    let disks = disks(document.root_element(), "disk");
    disks.filter_map(|disk| value(disk, &["target"], "dev").map(str::to_owned)).collect()
}

/// What the interfaces of a domain are plugged into, in their order: the kind, such as `network` or `bridge`, and its name.
pub fn places(domain: Node) -> Vec<(String, String)> {
    let place = |interface: Node| {
        let kind = interface.attribute("type").unwrap_or("none");
        let on = ["network", "bridge", "dev"].into_iter().find_map(|name| value(interface, &["source"], name));
        (kind.to_owned(), on.unwrap_or(kind).to_owned())
    };
    interfaces(domain).map(place).collect()
}

fn interfaces<'a, 'i>(domain: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let devices = at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children());
    devices.filter(|node| node.has_tag_name("interface"))
}

/// A text as a name: what is no letter or digit becomes `-`. Nothing where nothing is left.
pub fn name_of(text: &str) -> Option<Name> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let plain: String = text.chars().map(plain).collect();
    let plain = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    plain[..plain.len().min(Name::MAX_LEN)].trim_end_matches('-').parse().ok()
}

/// A name like this that is not taken, and is from now on.
pub fn unique(like: Name, taken: &mut BTreeSet<Name>) -> Name {
    let numbered = |number: u32| {
        let end = format!("-{number}");
        let stem = &like.as_str()[..like.as_str().len().min(Name::MAX_LEN - end.len())];
        format!("{}{end}", stem.trim_end_matches('-')).parse().ok()
    };
    let mut names = std::iter::once(like.clone()).chain((2..).filter_map(numbered));
    let name = names.find(|name| !taken.contains(name)).unwrap_or(like.clone());
    taken.insert(name.clone());
    name
}

/// Tells a domain as a server: its image, its flavor, its volumes, its ports, with `found` beside what it is about.
///
/// # Errors
/// When the domain has what no server can have, such as a root disk that is not a file.
pub fn describe(
    server: &Name,
    foreign: &Foreign,
    networks: &Networks,
    way: Way<'_>,
    found: &[Differing],
) -> Result<Described, Unsayable> {
    let document = Document::parse(&foreign.xml)?;
    let domain = document.root_element();
    let mut file = File { found: found.to_vec(), ..File::default() };
    let disks: Vec<Disk> = disks(domain, "disk").map(|disk| Disk::read(disk, foreign)).collect();
    let Some((root, further)) = disks.split_first() else {
        return Err(refused("disk", "it has none", "a server starts from the disk of an image: define it with one"));
    };
    image(server, domain, root, way, &mut file)?;
    flavor(server, domain, root, &mut file)?;
    let volumes = volumes(server, further, &mut file)?;
    let ports = ports(server, domain, networks, &mut file);
    file.table("server", server.as_str());
    if foreign.autostart {
        file.differs("autostart", "on there; here `power` is what counts, and `novella apply` starts it");
    }
    if ports.is_empty() {
        return Err(refused("interface", "it has none", "a server is on a network: give it an interface"));
    }
    file.found_below(&[""]);
    file.set("image", quoted("image", server.as_str())?);
    file.set("flavor", quoted("flavor", server.as_str())?);
    file.set("ports", format!("[{}]", ports.join(", ")));
    let root_disk = root.attachment();
    if !root_disk.is_empty() {
        file.set("root_disk", format!("{{ {} }}", root_disk.join(", ")));
    }
    if !volumes.is_empty() {
        file.set("volumes", format!("[{}]", volumes.join(", ")));
    }
    let name = one_line(&foreign.name);
    let head = match way {
        Way::TakenOver => {
            if !foreign.running {
                file.set("power", "\"off\"".into());
            }
            file.line(format_args!("\n[[import]]\nto = \"server.{server}\"\nid = {}", quoted("name", &foreign.name)?));
            format!(
                "# The libvirt domain `{name}` as `server.{server}`. Applied, it is taken over: it keeps its name, its UUID, its \
                 MACs and its\n# disk, where that is.\n"
            )
        }
        Way::Beside(Unfit { why, help }) => {
            file.line(
                "# Off, so that not two guests with one disk's content and one MAC run: turn it on when the domain is off.",
            );
            file.set("power", "\"off\"".into());
            format!(
                "# The libvirt domain `{name}` as `server.{server}`. It cannot be taken over: {}.\n# {}.\n# Applied, this makes a \
                 new guest beside it, whose disks begin as copies. The domain itself stays what it is. Copy\n# disks only while \
                 it is off: those of a running guest are torn.\n",
                one_line(why),
                one_line(help)
            )
        }
    };
    Ok(Described { head, toml: file.toml, differing: file.differing })
}

pub(super) fn refused(field: &str, why: impl Into<String>, help: impl Into<String>) -> Unsayable {
    Unsayable::Field { field: field.into(), why: why.into(), help: help.into() }
}

/// Text as TOML has it. JSON's escapes are TOML's, but for one character.
pub(super) fn quoted(field: &str, text: &str) -> Result<String, Unsayable> {
    if text.contains("${") {
        return Err(refused(field, "it has `${`, which begins a variable in a spec", "rename it in the domain"));
    }
    Ok(serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F"))
}

/// Text that may stand in a comment.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The file that is put together.
#[derive(Default)]
struct File {
    toml: String,
    /// What was found by comparison and is not told yet.
    found: Vec<Differing>,
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
        self.tell(&format!("{field}: {how}"));
    }

    fn tell(&mut self, what: &str) {
        let said = one_line(what);
        self.line(format_args!("# differs: {said}"));
        self.differing.push(said);
    }

    /// Tells what was found of these parts of the domain, and of all in them.
    fn found_below(&mut self, parts: &[&str]) {
        let is_in = |path: &str, part: &&str| {
            let rest = path.strip_prefix(part);
            part.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@', '[']))
        };
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.found).into_iter().partition(|it| parts.iter().any(|part| is_in(&it.field, part)));
        self.found = rest;
        for difference in mine {
            self.tell(&difference.to_string());
        }
    }
}

/// A disk of the domain.
struct Disk {
    target: String,
    bus: Bus,
    format: String,
    file: Option<String>,
    capacity: Option<ByteSize>,
    cache: Option<Cache>,
    discard: Discard,
    serial: Option<String>,
}

impl Disk {
    fn read(disk: Node, foreign: &Foreign) -> Self {
        let told = |path: &str, name: &str| value(disk, &[path], name).unwrap_or_default().to_owned();
        let target = told("target", "dev");
        let bus = told("target", "bus");
        let (cache, discard) = (told("driver", "cache"), told("driver", "discard"));
        Self {
            capacity: foreign.capacities.get(&target).copied(),
            format: told("driver", "type"),
            file: value(disk, &["source"], "file").map(str::to_owned),
            target,
            bus: [Bus::Virtio, Bus::Scsi].into_iter().find(|it| it.as_str() == bus).unwrap_or(Bus::Sata),
            cache: [Cache::None, Cache::Writethrough, Cache::Unsafe, Cache::Directsync]
                .into_iter()
                .find(|it| it.as_str() == cache),
            // What nobody says is QEMU's way, which is not novella's.
            discard: if discard == Discard::Unmap.as_str() { Discard::Unmap } else { Discard::Ignore },
            serial: text(disk, &["serial"]).map(str::to_owned),
        }
    }

    /// How it is attached, as far as that is not the usual way.
    fn attachment(&self) -> Vec<String> {
        let bus = Some(self.bus).filter(|bus| *bus != Bus::default()).map(|bus| format!("bus = \"{}\"", bus.as_str()));
        let cache = self.cache.map(|cache| format!("cache = \"{}\"", cache.as_str()));
        let discard = Some(self.discard).filter(|discard| *discard != Discard::default());
        let discard = discard.map(|discard| format!("discard = \"{}\"", discard.as_str()));
        [bus, cache, discard].into_iter().flatten().collect()
    }

    /// Its size, rounded up to whole MiB.
    fn size(&self, file: &mut File) -> Result<ByteSize, Unsayable> {
        let capacity = self.capacity.ok_or_else(|| {
            refused(&format!("disk {}", self.target), "libvirt does not tell its size", "see that its file is there")
        })?;
        let size = whole_mib(capacity);
        if size != capacity {
            file.differs(&format!("disk {}", self.target), format_args!("`{capacity}` there, `{size}` here"));
        }
        Ok(size)
    }

    fn source(&self, file: &mut File) -> Result<(), Unsayable> {
        let field = format!("disk {}", self.target);
        let help = "copy it into a file with `qemu-img convert -O qcow2`, and write that file into a spec as an image";
        let path = self.file.as_deref().ok_or_else(|| refused(&field, "it is not a file", help))?;
        if !["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"].contains(&self.format.as_str()) {
            return Err(refused(&field, format!("its format is {:?}", self.format), help));
        }
        file.set("source", quoted(&field, path)?);
        file.set("format", quoted(&field, &self.format)?);
        Ok(())
    }
}

fn whole_mib(size: ByteSize) -> ByteSize {
    ByteSize::mib(size.bytes().div_ceil(1 << 20))
}

fn image(name: &Name, domain: Node, root: &Disk, way: Way<'_>, file: &mut File) -> Result<(), Unsayable> {
    let arch = value(domain, &["os", "type"], "arch").unwrap_or("none");
    if arch != "x86_64" || text(domain, &["os", "type"]) != Some("hvm") {
        return Err(refused(
            "os/type",
            format!("it is for {arch:?}"),
            "novella makes `x86_64` machines with full virtualization",
        ));
    }
    file.table("image", name.as_str());
    file.found_below(&["devices/disk[1]", "os", "devices/tpm"]);
    root.source(file)?;
    for (key, path) in [("kernel", "kernel"), ("initrd", "initrd"), ("cmdline", "cmdline")] {
        if let Some(value) = text(domain, &["os", path]) {
            file.set(key, quoted(key, value)?);
        }
    }
    // Without a word a kernel has a command line here.
    if at(domain, &["os", "kernel"]).is_some() && text(domain, &["os", "cmdline"]).is_none() {
        file.set("cmdline", "\"\"".into());
    }
    let firmware = firmware(domain);
    if firmware != Firmware::Bios {
        file.set("firmware", "\"uefi\"".into());
        file.set("secure_boot", (firmware == Firmware::SecureBoot).to_string());
        if let Way::Beside(_) = way {
            file.differs("nvram", "the firmware's variables are not carried over: boot entries begin anew");
        }
    }
    if at(domain, &["devices", "tpm"]).is_some() {
        file.set("tpm", "\"2.0\"".into());
        if let Way::Beside(_) = way {
            file.differs("tpm", "a new one: what is sealed in it is not carried over");
        }
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
    file.found_below(&["memory", "currentMemory", "vcpu", "vcpus", "cpu"]);
    file.set("vcpus", vcpus.to_string());
    if all > vcpus {
        file.set("max_vcpus", all.to_string());
    }
    file.set("ram", format!("\"{}\"", whole_mib(memory)));
    if whole_mib(most) > whole_mib(memory) {
        file.set("max_ram", format!("\"{}\"", whole_mib(most)));
    }
    let size = root.size(file)?;
    file.set("disk", format!("\"{size}\""));
    match (value(domain, &["cpu"], "mode"), text(domain, &["cpu", "model"])) {
        (Some(mode @ ("host-model" | "host-passthrough" | "maximum")), _) => {
            file.set("cpu_mode", format!("\"{mode}\""));
        }
        (_, Some(model)) => file.set("cpu_model", quoted("cpu/model", model)?),
        _ => {}
    }
    Ok(())
}

/// The disks beside the first. Each begins as an image of its own.
fn volumes(server: &Name, disks: &[Disk], file: &mut File) -> Result<Vec<String>, Unsayable> {
    let mut names = BTreeSet::new();
    let mut volumes = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        // A guest finds a volume by its name, which is its serial number.
        let field = format!("disk {}", disk.target);
        let serial = disk.serial.as_deref().filter(|serial| serial.len() <= MAX_SERIAL);
        let name =
            serial.and_then(|serial| serial.parse().ok()).or_else(|| name_of(&format!("{server}-{}", disk.target)));
        let name = name.ok_or_else(|| refused(&field, "it has no target", "give it one, as `vdb`"))?;
        let name = unique(name, &mut names);
        file.table("image", name.as_str());
        disk.source(file)?;
        file.table("volume", name.as_str());
        file.found_below(&[&format!("devices/disk[{}]", number + 2)]);
        let size = disk.size(file)?;
        file.set("size", format!("\"{size}\""));
        if disk.format == DiskFormat::Raw.as_str() {
            file.set("format", quoted(&field, &disk.format)?);
        }
        file.set("image", quoted("image", name.as_str())?);
        let attachment: String = disk.attachment().into_iter().map(|it| format!(", {it}")).collect();
        volumes.push(format!("{{ volume = \"{name}\"{attachment} }}"));
    }
    Ok(volumes)
}

/// The interfaces. A second one on a network is a port of its own.
fn ports(server: &Name, domain: Node, networks: &Networks, file: &mut File) -> Vec<String> {
    let mut on: BTreeSet<Name> = BTreeSet::new();
    let mut ports = Vec::new();
    for (number, (its, place)) in interfaces(domain).zip(places(domain)).enumerate() {
        let Some(network) = networks.get(&place) else { continue };
        let mac = value(its, &["mac"], "address").and_then(|mac| mac.parse::<Mac>().ok());
        let mut told = vec![format!("network = \"{}\"", network.name)];
        told.extend(
            mac.filter(|mac| mac.0[0] != 0xfe && mac.0 != [0; 6]).map(|mac| format!("mac_address = \"{mac}\"")),
        );
        let fixed: Vec<String> =
            mac.map(|mac| network.fixed(mac)).unwrap_or_default().iter().map(|ip| format!("\"{ip}\"")).collect();
        if !fixed.is_empty() {
            told.push(format!("fixed_ips = [{}]", fixed.join(", ")));
        }
        if value(its, &["link"], "state") == Some("down") {
            told.push("admin_state_up = false".into());
        }
        if on.insert(network.name.clone()) {
            ports.push(format!("{{ {} }}", told.join(", ")));
            continue;
        }
        let name = format!("{server}-{}", number + 1);
        file.table("port", &name);
        for field in told {
            file.line(field);
        }
        ports.push(format!("\"{name}\""));
    }
    ports
}
