//! Disks beside root disks: empty, from an image, with a file system, or to swap to.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use crate::address::{Name, VolumeId};
use crate::blueprint::disk::{Content, EPHEMERAL, SWAP, Volume};
use crate::blueprint::facts::Facts;
use crate::blueprint::object::{BaseRef, DiskFormat};
use crate::host::images::disk::{DiskFile, Grow, qemu_img};
use crate::host::images::trash::Trashed;
use crate::host::images::{Images, facts, header, names_in};
use crate::host::{HostError, Keep, command, files};
use crate::value::ByteSize;

impl Images {
    /// Sees to it that a disk is there, and of the right size. A smaller one grows, by `grow` if a guest runs with it; nothing
    /// that a guest may have written to is ever thrown away here.
    ///
    /// # Errors
    /// As [`Self::ensure_disk_under`]; and when `mke2fs` fails.
    pub fn ensure_volume_under(&self, volume: &Volume, grow: &Grow<'_>) -> Result<(), HostError> {
        let what = format!("`{}`", volume.id.title());
        if volume.path != self.layout.volume(&volume.id, volume.format) {
            return Err(HostError::refused(format!("`{}` is not {what}", volume.path.display())));
        }
        let file =
            DiskFile { what, path: &volume.path, format: volume.format, size: volume.size, base: volume.backing() };
        if file.is_there()? {
            let _base = file.base.map(|base| self.check_base(&file, base)).transpose()?;
            return file.adjust(grow);
        }
        let _base = volume.base.as_ref().map(|base| self.check_base(&file, base)).transpose()?;
        self.make_volume_dir(&volume.id)?;
        file.create(|part| match volume.format {
            DiskFormat::Qcow2 => file.create_qcow2(part),
            DiskFormat::Raw => fill_raw(&file, volume, part),
        })
    }

    /// Makes the directory that the file of a disk is in.
    pub(super) fn make_volume_dir(&self, id: &VolumeId) -> Result<(), HostError> {
        files::make_project_dir(&self.layout)?;
        files::make_dir(&self.layout.volumes(), files::PASSABLE)?;
        match id {
            VolumeId::Own(_) => Ok(()),
            VolumeId::Inline { server, .. } => {
                files::make_dir(&self.layout.volumes().join(server.as_str()), files::PASSABLE)
            }
        }
    }

    /// Takes a disk away. It goes to the trash if it is to be kept; one to swap to is not worth that.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_volume(&self, id: &VolumeId, keep: Option<Keep>) -> Result<(), HostError> {
        for format in DiskFormat::ALL {
            let path = self.layout.volume(id, format);
            if let Some(keep) = keep.filter(|_| !is_swap(id)) {
                self.put_into_trash(&path, &Trashed::Volume(id.clone()), format, keep)?;
            }
            let mut part = path.clone().into_os_string();
            part.push(".part");
            for path in [path, part.into()] {
                files::remove(&path)
                    .map_err(|error| HostError::new(format!("cannot remove `{}`", id.title()), error))?;
            }
        }
        if let VolumeId::Inline { server, .. } = id {
            // As a rule others are there yet, or it was the last.
            let _ = fs::remove_dir(self.layout.volumes().join(server.as_str()));
        }
        Ok(())
    }

    /// The disks beside root disks that are there, each with its format.
    pub(super) fn volumes(&self) -> Result<Vec<(VolumeId, DiskFormat)>, HostError> {
        let mut volumes = Vec::new();
        let volume = |file: &str| {
            let (name, format) = file.rsplit_once('.')?;
            let format = DiskFormat::ALL.into_iter().find(|it| it.as_str() == format)?;
            Some((name.parse::<Name>().ok()?, format))
        };
        for name in names_in(&self.layout.volumes())?.iter().filter_map(|name| name.to_str()) {
            if let Some((name, format)) = volume(name) {
                volumes.push((VolumeId::Own(name), format));
            } else if let Ok(server) = name.parse::<Name>() {
                let directory = self.layout.volumes().join(name);
                // Nobody else's is looked into through a link.
                if !fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir()) {
                    continue;
                }
                let disks = names_in(&directory)?;
                let disks = disks.iter().filter_map(|name| volume(name.to_str()?));
                volumes.extend(disks.map(|(disk, format)| (VolumeId::Inline { server: server.clone(), disk }, format)));
            }
        }
        volumes.sort();
        Ok(volumes)
    }

    /// A disk that is there, as facts.
    pub(super) fn volume_facts(&self, id: &VolumeId, format: DiskFormat) -> Facts {
        let path = self.layout.volume(id, format);
        let mut seen = facts([("path", path.display().to_string())]);
        let size = match format {
            DiskFormat::Qcow2 => header(&path).ok().map(|header| {
                let base = header.backing.as_deref().map_or("none".into(), String::from_utf8_lossy);
                seen.extend(facts([("base", base.into_owned())]));
                header.virtual_size
            }),
            DiskFormat::Raw => {
                files::open_regular(&path).and_then(|file| file.metadata()).ok().map(|found| found.len())
            }
        };
        match size {
            Some(size) => {
                let name = if is_swap(id) { "swap" } else { "size" };
                seen.extend(facts([("format", format.as_str().into()), (name, ByteSize(size).to_string())]));
            }
            None => seen.extend(facts([("format", "unknown".into())])),
        }
        seen
    }
}

/// Whether it is the disk of a flavor to swap to. No other disk of a server has its name.
fn is_swap(id: &VolumeId) -> bool {
    matches!(id, VolumeId::Inline { disk, .. } if disk.as_str() == SWAP)
}

/// Makes an empty file what a raw disk is to be.
fn fill_raw(file: &DiskFile<'_>, volume: &Volume, part: &Path) -> Result<(), HostError> {
    let deed = || format!("cannot create {}", file.what);
    let failed = |error: io::Error| HostError::new(deed(), error);
    if let Some(BaseRef { path, format, .. }) = &volume.base {
        let mut convert = qemu_img("convert", *format)?;
        convert.args(["-O", DiskFormat::Raw.as_str(), "--"]).arg(path).arg(part);
        command::run(&mut convert, None, deed)?;
    }
    let raw = OpenOptions::new().write(true).open(part).map_err(failed)?;
    raw.set_len(volume.size.bytes()).map_err(failed)?;
    match volume.content {
        Content::Plain => Ok(()),
        Content::Swap => raw.write_all_at(&swap_header(volume.size), 0).map_err(failed),
        Content::Ephemeral => {
            let mut mke2fs = Command::new(command::find("mke2fs", "e2fsprogs")?);
            // `-F`: it is a file and not a device.
            mke2fs.args(["-q", "-F", "-t", "ext4", "-L", EPHEMERAL, "--"]).arg(part);
            command::run(&mut mke2fs, None, deed).map(drop)
        }
    }
}

/// The page size of a swap area. That of x86-64.
const PAGE: usize = 4096;

/// The first page of a swap area (mkswap(8); `union swap_header` in the kernel's `include/linux/swap.h`): 1024 bytes for boot
/// loaders, version, last page, number of bad pages, UUID, label; at its end the signature.
fn swap_header(size: ByteSize) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let last = u32::try_from(size.bytes() / PAGE as u64).unwrap_or(u32::MAX).saturating_sub(1);
    page[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&last.to_le_bytes());
    page[1052..1052 + SWAP.len()].copy_from_slice(SWAP.as_bytes());
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    page
}
