//! A server's root disk: a qcow2 overlay over a base image, or an empty qcow2.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::object::{BaseRef, BaseRole, Disk};
use crate::host::images::base::{Lock, Place};
use crate::host::images::{Images, content, header, names_in, seed};
use crate::host::qcow2::Header;
use crate::host::{HostError, command, files};
use crate::value::ByteSize;

/// Makes a disk larger under the guest that runs from it; `false` if there is none.
type Grow<'a> = dyn Fn(&Disk) -> Result<bool, HostError> + 'a;

impl Images {
    /// Sees to it that the disk is there, over the right base and of the right size. A smaller one grows; nothing that
    /// a guest may have written to is ever thrown away here.
    ///
    /// # Errors
    /// When the base is not there or may not be given to a guest, the disk would be smaller than its base or smaller than
    /// it is, or another disk stands in its place.
    pub fn ensure_disk(&self, disk: &Disk) -> Result<(), HostError> {
        self.ensure_disk_under(disk, &|_| Ok(false))
    }

    /// The same, where `grow` makes the disk larger if a guest runs from it, and tells whether one does.
    ///
    /// # Errors
    /// As [`Self::ensure_disk`], and those of `grow`.
    pub fn ensure_disk_under(&self, disk: &Disk, grow: &Grow<'_>) -> Result<(), HostError> {
        let generation = Layout::disk_generation(&disk.path);
        if generation.is_none_or(|it| self.layout.disk_of(disk.server.as_str(), it) != disk.path) {
            return Err(HostError::refused(format!(
                "`{}` is not the disk of `server.{}`",
                disk.path.display(),
                disk.server
            )));
        }
        let _base = disk.base.as_ref().map(|base| self.check_base(disk, base)).transpose()?;
        files::make_instance_dir(&self.layout, disk.server.as_str())?;
        let failed = |error| HostError::new(format!("cannot create the disk of `server.{}`", disk.server), error);
        match fs::symlink_metadata(&disk.path) {
            Ok(_) => adjust(disk, grow),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(disk, &part(&disk.path)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Looks at a base once more before a guest is given it, and keeps it from being removed meanwhile.
    fn check_base(&self, disk: &Disk, base: &BaseRef) -> Result<fs::File, HostError> {
        let deed = || format!("cannot put the disk of `server.{}` over base image `{}`", disk.server, base.id);
        let place = Place::new(&self.layout, &base.id)
            .filter(|place| place.image == base.path && place.whole().is_some())
            .ok_or_else(|| HostError::new(deed(), "it is not in the image cache, or damaged"))?;
        let lock = place.lock(Lock::Shared)?;
        let size = files::open_regular(&base.path)
            .map_err(content::Unfit::from)
            .and_then(|file| content::check(&file, BaseRole::Disk(base.format)))
            .map_err(|unfit| {
                let help = unfit.help();
                HostError::new(deed(), unfit).help(help)
            })?;
        match size.map(ByteSize) {
            Some(size) if size > disk.size => {
                Err(HostError::new(deed(), format!("the disk is {}, but the image has a disk of {size}", disk.size))
                    .help("raise `disk` of the flavor, or set `min_disk` on the image to catch this earlier"))
            }
            _ => Ok(lock),
        }
    }

    /// Takes away a server's disk, its console logs and its directory.
    ///
    /// # Errors
    /// When the file system refuses. A file in the directory that is not ours stays, and so does the directory.
    pub fn remove_disk(&self, server: &str) -> Result<(), HostError> {
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
        for name in names_in(&directory)? {
            // The log, and those that virtlogd rotated away.
            if is_disk(&name) || name.as_bytes().starts_with(b"console.log") {
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

    /// Takes away root disks that no domain has any more.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_disks(&self, disks: &[PathBuf]) -> Result<(), HostError> {
        for disk in disks {
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
    path.with_extension("qcow2.part")
}

fn create(disk: &Disk, part: &Path) -> Result<(), HostError> {
    let deed = || format!("cannot create the disk of `server.{}`", disk.server);
    let failed = |error: io::Error| HostError::new(deed(), error);
    // The file is made here, so that qemu-img follows no symbolic link.
    files::create_new(part, 0o600).map_err(failed)?;
    let mut create = qemu_img("create")?;
    if let Some(base) = &disk.base {
        // `-u`: qemu-img need not open the base, which was checked already.
        create.args(["-u", "-F", base.format.as_str(), "-b"]).arg(&base.path);
    }
    create.arg("--").arg(part).arg(disk.size.bytes().to_string());
    command::run(&mut create, None, deed)?;
    // qemu-img syncs what it writes; the name is ours to sync.
    fs::rename(part, &disk.path).and_then(|()| files::sync_parent(&disk.path)).map_err(failed)
}

/// Makes the disk that is there the wanted one, if that can be done without loss.
fn adjust(disk: &Disk, grow: &Grow<'_>) -> Result<(), HostError> {
    let server = &disk.server;
    let unusable = |cause: content::Unfit| {
        HostError::new(format!("cannot use what stands in place of the disk of `server.{server}`"), cause)
            .help(format!("move `{}` away, and a new disk is made", disk.path.display()))
    };
    let there = header(&disk.path).map_err(|invalid| unusable(invalid.into()))?;
    there.check_features().map_err(|hazard| unusable(hazard.into()))?;
    check_chain(disk, &there)?;
    let size = ByteSize(there.virtual_size);
    if size == disk.size {
        return Ok(());
    }
    let deed = || format!("cannot resize the disk of `server.{server}` from {size} to {}", disk.size);
    if size > disk.size {
        return Err(HostError::new(deed(), "a disk cannot shrink without loss")
            .help(format!("set `disk` of the flavor to {size} or more, or replace the server")));
    }
    if grow(disk)? {
        return Ok(());
    }
    let mut resize = qemu_img("resize")?;
    resize.arg("--").arg(&disk.path).arg(disk.size.bytes().to_string());
    command::run(&mut resize, None, deed).map(drop).map_err(|error| {
        let locked = error.source.as_ref().is_some_and(|said| said.to_string().contains("Failed to get"));
        if locked { error.help("the server is running: shut it down first") } else { error }
    })
}

/// Whether the disk lies over exactly its base, in the format that was checked.
fn check_chain(disk: &Disk, there: &Header) -> Result<(), HostError> {
    let wanted = disk.base.as_ref().map(|base| (base.path.as_os_str().as_bytes(), base.format.as_str().as_bytes()));
    let found = there.backing.as_deref().map(|path| (path, there.backing_format.as_deref().unwrap_or_default()));
    if wanted == found {
        return Ok(());
    }
    let name = |path: Option<&[u8]>| {
        path.map_or("no base".into(), |path| format!("`{}`", String::from_utf8_lossy(path).escape_debug()))
    };
    let (found, wanted) = (name(found.map(|it| it.0)), name(wanted.map(|it| it.0)));
    Err(HostError::refused(format!("the disk of `server.{}` lies over {found}, not {wanted}", disk.server))
        .help("replace the server to get a new disk; what is on the old one is lost"))
}

/// `qemu-img VERB -q -f qcow2`: the format is always said, never probed.
fn qemu_img(verb: &str) -> Result<Command, HostError> {
    let mut command = Command::new(command::find("qemu-img", "qemu-utils")?);
    command.args([verb, "-q", "-f", "qcow2"]);
    Ok(command)
}
