//! A server's root disk: a qcow2 overlay over a base image, or an empty qcow2. And what it has in common with any disk.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::layout::IMPORTED;
use crate::blueprint::object::{BaseRef, BaseRole, Disk, DiskFormat};
use crate::host::images::base::{Lock, Place, note_use};
use crate::host::images::trash::Trashed;
use crate::host::images::{Images, content, header, names_in, seed};
use crate::host::qcow2::Header;
use crate::host::{HostError, Keep, command, files};
use crate::value::ByteSize;

/// Makes the disk in this file larger under the guest that runs with it; `false` if there is none.
pub(super) type Grow<'a> = dyn Fn(&Path, ByteSize) -> Result<bool, HostError> + 'a;

/// A disk as a file.
pub(super) struct DiskFile<'a> {
    /// What it is, in words.
    pub what: String,
    /// Where it is kept.
    pub path: &'a Path,
    /// Its format.
    pub format: DiskFormat,
    /// Its virtual size.
    pub size: ByteSize,
    /// What it lies over.
    pub base: Option<&'a BaseRef>,
}

impl Images {
    /// Sees to it that the disk is there, over the right base and of the right size. A smaller one grows; nothing that
    /// a guest may have written to is ever thrown away here.
    ///
    /// # Errors
    /// When the base is not there or may not be given to a guest, the disk would be smaller than its base or smaller than
    /// it is, or another disk stands in its place.
    pub fn ensure_disk(&self, disk: &Disk) -> Result<(), HostError> {
        self.ensure_disk_under(disk, &|_, _| Ok(false))
    }

    /// The same, where `grow` makes the disk larger if a guest runs from it, and tells whether one does.
    ///
    /// # Errors
    /// As [`Self::ensure_disk`], and those of `grow`.
    pub fn ensure_disk_under(&self, disk: &Disk, grow: &Grow<'_>) -> Result<(), HostError> {
        if disk.imported {
            return self.ensure_imported(disk, grow);
        }
        if self.layout.generation_of(disk.server.as_str(), &disk.path).is_none() {
            return Err(HostError::refused(format!(
                "`{}` is not the disk of `server.{}`",
                disk.path.display(),
                disk.server
            )));
        }
        let file = DiskFile {
            what: format!("the disk of `server.{}`", disk.server),
            path: &disk.path,
            format: DiskFormat::Qcow2,
            size: disk.size,
            base: disk.base.as_ref(),
        };
        let _base = disk.base.as_ref().map(|base| self.check_base(&file, base)).transpose()?;
        files::make_instance_dir(&self.layout, disk.server.as_str())?;
        if file.is_there()? { file.adjust(grow) } else { file.create(|part| file.create_qcow2(part)) }
    }

    /// Looks at a base once more before a guest is given it, and keeps it from being removed meanwhile.
    pub(super) fn check_base(&self, disk: &DiskFile<'_>, base: &BaseRef) -> Result<fs::File, HostError> {
        let deed = || format!("cannot put {} over base image `{}`", disk.what, base.id);
        let place = Place::new(&self.layout, &base.id)
            .filter(|place| place.image == base.path && place.whole().is_some())
            .ok_or_else(|| HostError::new(deed(), "it is not in the image cache, or damaged"))?;
        let lock = place.lock(Lock::Shared)?;
        note_use(&lock);
        let size = files::open_regular(&base.path)
            .map_err(content::Unfit::from)
            .and_then(|file| content::check(&file, BaseRole::Disk(base.format)))
            .map_err(|unfit| {
                let help = unfit.help();
                HostError::new(deed(), unfit).help(help)
            })?;
        match size.map(ByteSize) {
            Some(size) if size > disk.size => Err(HostError::new(
                deed(),
                format!("the disk is {}, but the image has a disk of {size}", disk.size),
            )
            .help(
                "raise `disk` of the flavor, or `size` of the volume; `min_disk` on the image catches the former earlier",
            )),
            _ => Ok(lock),
        }
    }

    /// Takes away a server's disk, its console logs and its directory. The disk goes to the trash if it is to be kept.
    ///
    /// # Errors
    /// When the file system refuses. A file in the directory that is not ours stays, and so does the directory.
    pub fn remove_disk(&self, server: &str, keep: Option<Keep>) -> Result<(), HostError> {
        let server: Name = server
            .parse()
            .map_err(|_| HostError::refused(format!("`{}` is not the name of a server", server.escape_debug())))?;
        let directory = self.layout.instance(server.as_str());
        let failed = |error| HostError::new(format!("cannot remove the disk of `server.{server}`"), error);
        match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.is_dir() => return files::remove(&directory).map_err(failed),
            Ok(_) => {}
        }
        self.remove_disks(&server, &self.root_disks(&server)?, keep)?;
        for name in names_in(&directory)? {
            // What the firmware keeps of the disk; the log, and those that virtlogd rotated away.
            let is_ours = [&b"nvram-"[..], b"console.log", IMPORTED.as_bytes()]
                .iter()
                .any(|ours| name.as_bytes().starts_with(ours));
            if is_ours || is_disk(&name) {
                files::remove(&directory.join(name)).map_err(failed)?;
            }
        }
        match fs::remove_dir(&directory) {
            // Its seed goes by itself, and stays where only the disk is made anew.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && has_only_seeds(&directory)? => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(directory = %directory.display(), "not removed: something in it is not ours");
                Ok(())
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

impl Images {
    /// The root disks of a server beside the wanted one: what it had before, if that was not taken away yet.
    ///
    /// # Errors
    /// When its directory cannot be read.
    pub fn disks_but(&self, server: &Name, wanted: &Path) -> Result<Vec<PathBuf>, HostError> {
        Ok(self.root_disks(server)?.into_iter().filter(|path| path != wanted).collect())
    }

    /// Takes away root disks of a server that no domain has any more. They go to the trash if they are to be kept.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_disks(&self, server: &Name, disks: &[PathBuf], keep: Option<Keep>) -> Result<(), HostError> {
        for disk in disks {
            remove_overlays(disk)
                .map_err(|error| HostError::new(format!("cannot remove what lies over `{}`", disk.display()), error))?;
            if let Some(keep) = keep {
                self.put_into_trash(disk, &Trashed::Root(server.clone()), DiskFormat::Qcow2, keep)?;
                continue;
            }
            files::remove(disk)
                .and_then(|()| files::sync_parent(disk))
                .map_err(|error| HostError::new(format!("cannot remove the old disk `{}`", disk.display()), error))?;
        }
        Ok(())
    }

    /// The root disks in the directory of a server, the newest last: as a rule one.
    pub(super) fn root_disks(&self, server: &Name) -> Result<Vec<PathBuf>, HostError> {
        let names = self.names_of(server)?;
        let mut generations: Vec<u32> =
            names.iter().filter_map(|name| Layout::disk_generation(Path::new(name))).collect();
        generations.sort_unstable();
        Ok(generations.into_iter().map(|it| self.layout.disk_of(server.as_str(), it)).collect())
    }
}

/// Takes away the files beside a disk that lie over it: snapshots that libvirt was asked for, which are nothing without it.
///
/// # Errors
/// When the file system refuses.
pub(super) fn remove_overlays(disk: &Path) -> io::Result<()> {
    let Some(directory) = disk.parent() else { return Ok(()) };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    // What is on a raw disk was written by its guest, and tells nothing.
    let may_lie_over = |file: &PathBuf| file != disk && file.extension() != Some(OsStr::new(DiskFormat::Raw.as_str()));
    for file in entries.into_iter().map(|entry| entry.path()).filter(may_lie_over) {
        let lies_over = header(&file).ok().and_then(|header| header.backing);
        if lies_over.is_some_and(|backing| backing == disk.as_os_str().as_bytes()) {
            // The last of a chain first: a walk that is cut off finds the others again.
            remove_overlays(&file)?;
            files::remove(&file)?;
        }
    }
    Ok(())
}

/// Whether a name in a server's directory is that of a root disk, or of a part of one.
fn is_disk(name: &OsStr) -> bool {
    let whole = name.as_bytes().strip_suffix(b".part").unwrap_or(name.as_bytes());
    Layout::disk_generation(Path::new(OsStr::from_bytes(whole))).is_some()
}

fn has_only_seeds(directory: &Path) -> Result<bool, HostError> {
    let names = names_in(directory)?;
    Ok(names.iter().all(|name| seed::is_seed(name.to_string_lossy().trim_start_matches('.').trim_end_matches(".tmp"))))
}

fn part(path: &Path) -> PathBuf {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

impl DiskFile<'_> {
    fn deed(&self) -> String {
        format!("cannot create {}", self.what)
    }

    /// Whether something stands in its place.
    pub(super) fn is_there(&self) -> Result<bool, HostError> {
        match fs::symlink_metadata(self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(HostError::new(self.deed(), error)),
        }
    }

    /// Makes it: `fill` makes a file that is empty yet what it is to be.
    pub(super) fn create(&self, fill: impl FnOnce(&Path) -> Result<(), HostError>) -> Result<(), HostError> {
        let failed = |error: io::Error| HostError::new(self.deed(), error);
        let part = part(self.path);
        // The file is made here, so that qemu-img follows no symbolic link.
        files::create_new(&part, 0o600).map_err(failed)?;
        fill(&part)?;
        let file = files::open_regular(&part).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        fs::rename(&part, self.path).and_then(|()| files::sync_parent(self.path)).map_err(failed)
    }

    pub(super) fn create_qcow2(&self, part: &Path) -> Result<(), HostError> {
        let mut create = qemu_img("create", DiskFormat::Qcow2)?;
        if let Some(base) = self.base {
            // `-u`: qemu-img need not open the base, which was checked already.
            create.args(["-u", "-F", base.format.as_str(), "-b"]).arg(&base.path);
        }
        create.arg("--").arg(part).arg(self.size.bytes().to_string());
        command::run(&mut create, None, || self.deed()).map(drop)
    }

    /// Makes the disk that is there the wanted one, if that can be done without loss.
    pub(super) fn adjust(&self, grow: &Grow<'_>) -> Result<(), HostError> {
        let unusable = |cause: content::Unfit| {
            HostError::new(format!("cannot use what stands in place of {}", self.what), cause)
                .help(format!("move `{}` away, and a new disk is made", self.path.display()))
        };
        let size = match self.format {
            DiskFormat::Qcow2 => {
                let there = header(self.path).map_err(|invalid| unusable(invalid.into()))?;
                there.check_features().map_err(|hazard| unusable(hazard.into()))?;
                self.check_chain(&there)?;
                ByteSize(there.virtual_size)
            }
            DiskFormat::Raw => {
                let there = files::open_regular(self.path).and_then(|file| file.metadata());
                ByteSize(there.map_err(|error| unusable(error.into()))?.len())
            }
        };
        if size == self.size {
            return Ok(());
        }
        let deed = || format!("cannot resize {} from {size} to {}", self.what, self.size);
        if size > self.size {
            return Err(HostError::new(deed(), "a disk cannot shrink without loss")
                .help(format!("set `disk` of the flavor, or `size` of the volume, to {size} or more, or replace it")));
        }
        if grow(self.path, self.size)? {
            return Ok(());
        }
        let mut resize = qemu_img("resize", self.format)?;
        resize.arg("--").arg(self.path).arg(self.size.bytes().to_string());
        command::run(&mut resize, None, deed).map(drop).map_err(|error| {
            let locked = error.source.as_ref().is_some_and(|said| said.to_string().contains("Failed to get"));
            if locked { error.help("the server is running: shut it down first") } else { error }
        })
    }

    /// Whether the disk lies over exactly its base, in the format that was checked.
    fn check_chain(&self, there: &Header) -> Result<(), HostError> {
        let wanted = self.base.map(|base| (base.path.as_os_str().as_bytes(), base.format.as_str().as_bytes()));
        let found = there.backing.as_deref().map(|path| (path, there.backing_format.as_deref().unwrap_or_default()));
        if wanted == found {
            return Ok(());
        }
        let name = |path: Option<&[u8]>| {
            path.map_or("no base".into(), |path| format!("`{}`", String::from_utf8_lossy(path).escape_debug()))
        };
        let (found, wanted) = (name(found.map(|it| it.0)), name(wanted.map(|it| it.0)));
        Err(HostError::refused(format!("{} lies over {found}, not {wanted}", self.what))
            .help("replace the server or the volume to get a new disk; what is on the old one is lost"))
    }
}

/// `qemu-img VERB -q -f FORMAT`: the format is always said, never probed.
pub(super) fn qemu_img(verb: &str, format: DiskFormat) -> Result<Command, HostError> {
    let mut command = Command::new(command::find("qemu-img", "qemu-utils")?);
    command.args([verb, "-q", "-f", format.as_str()]);
    Ok(command)
}
