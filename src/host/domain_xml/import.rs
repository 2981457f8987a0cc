//! A domain that others defined, read as the server that it is to be. What a server cannot be without loss is refused.

use std::collections::BTreeMap;
use std::path::PathBuf;

use roxmltree::{Document, Node};

use super::compare::differences;
use super::{FOREIGN, Mark, MarkedNic, NONE, at, disks, firmware, interfaces, marked, text, value, write};
use crate::address::PortId;
use crate::blueprint::hardware::Firmware;
use crate::blueprint::import::{Import, ImportedNic};
use crate::blueprint::object::{DiskFormat, Domain, VirtType};
use crate::host::HostError;
use crate::host::domain_xml::Marked;
use crate::plan::world::Differing;
use crate::value::Mac;

/// The parts of a definition that facts tell of.
const FACTS: [&str; 20] = [
    "name",
    "uuid",
    "@type",
    "memory",
    "currentMemory",
    "vcpu",
    "vcpu@current",
    "os/kernel",
    "os/initrd",
    "os/cmdline",
    "devices/disk/source@file",
    "devices/disk/driver@type",
    "devices/disk/driver@cache",
    "devices/disk/driver@discard",
    "devices/disk/target@bus",
    "devices/interface/mac@address",
    "devices/interface/source",
    "devices/interface/mtu@size",
    "devices/interface/link@state",
    "devices/serial/log@file",
];

/// A domain of others as a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAs {
    /// It, as if it carried the mark of the server.
    pub marked: Marked,
    /// The MAC addresses of its interfaces, by the ports that these are to be.
    pub macs: BTreeMap<PortId, Mac>,
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
    Ok(ReadAs { marked, macs })
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

/// In what a domain of others differs from the one that a server is to have, where no fact tells it.
///
/// # Errors
/// When the one cannot be read or the other not be written.
pub fn beside_facts(definition: &str, wanted: &Domain) -> Result<Vec<Differing>, HostError> {
    let name = &wanted.name;
    let wanted = write(wanted).map_err(|error| HostError::new(format!("cannot define domain `{name}`"), error))?;
    let mut differing = differences(definition, &wanted)
        .map_err(|error| HostError::new(format!("cannot read the definition of domain `{name}`"), error))?;
    differing.retain(|it| !FACTS.contains(&without_numbers(&it.field).as_str()));
    Ok(differing)
}

/// Where a difference is, whichever of several devices has it: `devices/interface[2]/mac` becomes `devices/interface/mac`.
fn without_numbers(field: &str) -> String {
    let mut parts = field.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| match part.split_once(']') {
        Some((number, rest)) if number.bytes().all(|it| it.is_ascii_digit()) => path + rest,
        _ => format!("{path}[{part}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_whichever_device_has_it() {
        for (field, part) in [
            ("devices/interface[2]/mac@address", "devices/interface/mac@address"),
            ("devices/disk[1]/source@file", "devices/disk/source@file"),
            ("devices/disk[cdrom]/source@file", "devices/disk[cdrom]/source@file"),
            ("devices/disk[cdrom 2]", "devices/disk[cdrom 2]"),
            ("cpu@mode", "cpu@mode"),
        ] {
            assert_eq!(without_numbers(field), part);
        }
    }
}
