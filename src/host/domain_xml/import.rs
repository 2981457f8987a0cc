//! A domain that others defined, read as the server that it is to be. What a server cannot be without loss is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use roxmltree::{Document, Node};

use super::{FOREIGN, Mark, MarkedNic, NONE, at, disks, firmware, interfaces, marked, text, value};
use crate::address::PortId;
use crate::blueprint::hardware::{CpuModel, Firmware};
use crate::blueprint::import::{Import, ImportedNic};
use crate::blueprint::object::{DiskFormat, VirtType};
use crate::host::domain_xml::Marked;
use crate::plan::world::Differing;
use crate::value::Mac;

/// What of a domain facts tell of, or every domain has: what else it has is named as a difference.
const KNOWN: [&str; 17] = [
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
    "seclabel",
];

/// The same of its devices.
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

/// A domain of others as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAs {
    /// It, as if it carried the mark of the server.
    pub marked: Marked,
    /// The MAC addresses of its interfaces, by the ports that these are to be.
    pub macs: BTreeMap<PortId, Mac>,
    /// In what it differs from every server, as far as no fact tells that.
    pub differing: Vec<Differing>,
}

/// Why a domain cannot become a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unfit {
    /// What is wrong with it.
    pub why: String,
    /// The way out.
    pub help: String,
}

fn unfit(why: impl Into<String>, help: impl Into<String>) -> Unfit {
    Unfit { why: why.into(), help: help.into() }
}

/// Reads a domain as the server that it is to be.
///
/// # Errors
/// When it would not start any more as a server, or something of it would be lost.
pub fn read_as(xml: &str, import: &Import) -> Result<ReadAs, Unfit> {
    let document = Document::parse(xml).map_err(|error| unfit(error.to_string(), "see `virsh dumpxml`"))?;
    let domain = document.root_element();
    check(domain, import)?;
    let interfaces = interfaces(domain);
    let macs = interfaces.iter().filter_map(|interface| value(*interface, &["mac"], "address")?.parse().ok());
    let macs = import.macs(&macs.collect::<Vec<Mac>>());
    let nic = |(nic, mac): &(&ImportedNic, Option<Mac>)| MarkedNic {
        port: match &nic.port {
            PortId::Own(name) => Some(name.clone()),
            PortId::Inline { .. } => None,
        },
        network: Some(nic.network.clone()),
        mac: *mac,
    };
    let mark = Mark {
        project: import.project.clone(),
        server: import.server.clone(),
        definition: Some(FOREIGN.to_owned()),
        shutdown_timeout: Some(import.shutdown_timeout),
        imported: true,
        has_max_vcpus: import.has_max_vcpus,
        has_max_memory: import.has_max_memory,
        nics: macs.iter().map(nic).collect(),
    };
    let marked = marked(domain, &interfaces, &mark).ok_or_else(|| unfit("it has no UUID", "see `virsh dumpxml`"))?;
    let macs = macs.into_iter().filter_map(|(nic, mac)| Some((nic.port.clone(), mac?))).collect();
    Ok(ReadAs { differing: differing(domain, &interfaces, &macs, import), marked, macs })
}

/// The file that a domain starts from; nothing of what is not XML.
pub fn first_disk(xml: &str) -> Option<PathBuf> {
    let document = Document::parse(xml).ok()?;
    let root = disks(document.root_element(), "disk").next()?;
    value(root, &["source"], "file").map(PathBuf::from)
}

/// What no change of the definition puts right.
fn check(domain: Node, import: &Import) -> Result<(), Unfit> {
    let arch = value(domain, &["os", "type"], "arch").unwrap_or(NONE);
    if arch != "x86_64" || text(domain, &["os", "type"]) != Some("hvm") {
        return Err(unfit(format!("it is for `{arch}`"), "novella makes `x86_64` machines with full virtualization"));
    }
    let kind = domain.attribute("type").unwrap_or(NONE);
    if VirtType::ALL.iter().all(|it| it.as_str() != kind) {
        return Err(unfit(
            format!("it is of the type `{kind}`"),
            "novella takes over domains of QEMU, with KVM or without",
        ));
    }
    let (is, wanted) = (firmware(domain), import.firmware);
    if is != wanted {
        let help = match is {
            Firmware::Bios => "take `firmware` out of its image",
            Firmware::Uefi => "write `firmware = \"uefi\"` in its image, without `secure_boot`",
            Firmware::SecureBoot => "write `firmware = \"uefi\"` and `secure_boot = true` in its image",
        };
        let why = format!(
            "it starts by `{}`, and the spec has `{}`: it would not find its system",
            is.as_str(),
            wanted.as_str()
        );
        return Err(unfit(why, help));
    }
    let devices = at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children());
    let drives = devices.filter(|node| node.has_tag_name("disk") && node.attribute("device") != Some("cdrom"));
    let disks: Vec<Node> = drives.collect();
    let [root] = disks.as_slice() else {
        let help = match disks.is_empty() {
            true => "a server starts from a disk",
            false => {
                "a server keeps one disk by an import: take the others out first (`virsh detach-disk --config`), and give \
                 them back as volumes whose images they are; or make a new guest by what `novella import` tells"
            }
        };
        return Err(unfit(format!("it has {} disks", disks.len()), help));
    };
    let target = value(*root, &["target"], "dev").unwrap_or(NONE);
    let help = "copy it into a file while the guest is off: `qemu-img convert -O qcow2`";
    if root.attribute("device").is_some_and(|device| device != "disk")
        || root.attribute("type") != Some("file")
        || value(*root, &["source"], "file").is_none()
    {
        return Err(unfit(format!("its disk `{target}` is not a file"), help));
    }
    let format = value(*root, &["driver"], "type").unwrap_or(NONE);
    if DiskFormat::ALL.iter().all(|it| it.as_str() != format) {
        return Err(unfit(format!("its disk `{target}` has the format `{format}`"), help));
    }
    Ok(())
}

/// In what a domain differs from every server, where no fact tells it.
fn differing(domain: Node, interfaces: &[Node], macs: &BTreeMap<PortId, Mac>, import: &Import) -> Vec<Differing> {
    let mut all = Vec::new();
    let mut differs = |field: String, there: &str, here: Option<&str>| {
        if Some(there) != here {
            all.push(Differing { field, there: there.to_owned(), here: here.map(str::to_owned) });
        }
    };
    let machine = value(domain, &["os", "type"], "machine").unwrap_or(NONE);
    if !machine.contains("q35") {
        differs("machine".into(), machine, Some("q35"));
    }
    differs("clock".into(), value(domain, &["clock"], "offset").unwrap_or("utc"), Some("utc"));
    let cpu = match value(domain, &["cpu"], "mode") {
        Some("custom") | None => text(domain, &["cpu", "model"]).unwrap_or(NONE),
        Some(mode) => mode,
    };
    let usual = if domain.attribute("type") == Some("kvm") { CpuModel::HostModel } else { CpuModel::Maximum };
    differs("cpu".into(), cpu, Some(&import.cpu.as_ref().unwrap_or(&usual).to_string()));
    for (number, interface) in interfaces.iter().enumerate() {
        let model = value(*interface, &["model"], "type").unwrap_or(NONE);
        differs(format!("interface.{}.model", number + 1), model, Some("virtio"));
    }
    for interface in interfaces {
        let mac = value(*interface, &["mac"], "address").unwrap_or(NONE);
        if mac.parse().is_ok_and(|mac: Mac| !macs.values().any(|its| *its == mac)) {
            differs("interface".into(), mac, None);
        }
    }
    let children = |parent: Option<Node>| -> Vec<(String, String)> {
        let children =
            parent.into_iter().flat_map(|parent| parent.children().filter(Node::is_element).collect::<Vec<_>>());
        children.map(|child| (child.tag_name().name().to_owned(), in_short(child))).collect()
    };
    let mut unknown = |parent: Option<Node>, under: &str, known: &[&str]| {
        for (name, short) in children(parent).into_iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            differs(format!("{under}{name}"), &short, None);
        }
    };
    unknown(Some(domain), "", &KNOWN);
    unknown(at(domain, &["devices"]), "devices/", &DEVICES);
    unknown(at(domain, &["features"]), "features/", &["acpi", "apic"]);
    let devices: Vec<Node> = at(domain, &["devices"]).into_iter().flat_map(|devices| devices.children()).collect();
    for graphics in devices.iter().filter(|node| node.has_tag_name("graphics")) {
        differs("graphics".into(), graphics.attribute("type").unwrap_or(NONE), Some("vnc"));
    }
    all
}

/// What an element has, in a few words.
fn in_short(element: Node) -> String {
    let attributes: Vec<String> = element.attributes().map(|it| format!("{} {}", it.name(), it.value())).collect();
    let text = element.text().map(str::trim).filter(|text| !text.is_empty());
    match (text, attributes.is_empty()) {
        (Some(text), true) => text.to_owned(),
        (Some(text), false) => format!("{text} ({})", attributes.join(", ")),
        (None, false) => attributes.join(", "),
        (None, true) => "present".into(),
    }
}
