//! External snapshots of our disks (<https://libvirt.org/kbase/snapshots.html>): files that a guest has in their place, and
//! that hold what it has written since. They are known by what they lie over, whoever made them and however they are called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::blueprint::Layout;
use crate::blueprint::object::DiskFormat;
use crate::host::domain_xml::Read;
use crate::host::files;
use crate::host::images::imported::Imported;
use crate::host::qcow2::Header;
use crate::plan::world::Overlay;

/// The longest chain that is followed. libvirt itself takes no more than 200.
const MAX_CHAIN: usize = 200;

/// What lies over the disks of ours that a domain has by these readings of its XML. One that carries no mark has none.
pub(super) fn overlays<'a>(layout: &Layout, reads: impl Iterator<Item = &'a Read>) -> Vec<Overlay> {
    let mut overlays: Vec<Overlay> = Vec::new();
    for read in reads {
        let imported = read.marked.as_ref().and_then(|marked| Imported::of(layout, marked.server.as_str()));
        let imported = imported.as_ref().map(|disk| disk.path.as_path());
        for (target, file) in disks(read) {
            if overlays.iter().all(|known| known.file != file)
                && let Some(disk) = disk_under(layout, imported, &file)
            {
                overlays.push(Overlay { file, disk, target });
            }
        }
    }
    overlays
}

/// The disks that are qcow2, by where they are plugged in. What is raw lies over nothing, whatever its guest wrote there.
fn disks(read: &Read) -> Vec<(String, PathBuf)> {
    let target = |attached: &str| attached.split(' ').next().unwrap_or_default().to_owned();
    let Some(facts) = read.marked.as_ref().map(|marked| &marked.facts) else { return Vec::new() };
    let root = facts.get("root_disk").zip(facts.get("disk"));
    let root = root.map(|(attached, file)| (target(attached), PathBuf::from(file)));
    let qcow2 = format!(" ({})", DiskFormat::Qcow2.as_str());
    let further = read.disks.values().filter_map(|disk| {
        let path = disk.path.clone()?;
        let told = format!("{}{qcow2}", path.display());
        disk.disk.source.starts_with(&told).then(|| (target(&disk.disk.attached), path))
    });
    root.into_iter().chain(further).collect()
}

/// The disk of ours that a file lies over.
fn disk_under(layout: &Layout, imported: Option<&Path>, file: &Path) -> Option<PathBuf> {
    let is_disk = |path: &Path| {
        [layout.instances(), layout.volumes()].iter().any(|ours| path.starts_with(ours)) || Some(path) == imported
    };
    let mut path = file.to_owned();
    let mut lowest = None;
    for _ in 0..MAX_CHAIN {
        let Some(header) = files::open_regular(&path).ok().and_then(|file| Header::read(&file).ok()) else { break };
        let Some(backing) = header.backing else { break };
        path = path.parent()?.join(OsStr::from_bytes(&backing));
        if is_disk(&path) {
            lowest = Some(path.clone());
        }
    }
    lowest
}
