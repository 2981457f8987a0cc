//! One cached image: fetched under a lock, checked, put in place, and taken away when nobody uses it.
//!
//! After a kill at any instant there is nothing, a whole image with its sidecar, or a part that can be resumed: an image
//! that stood there and was damaged goes first, then the sidecar comes, then the image by rename.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::blueprint::Layout;
use crate::blueprint::object::Base;
use crate::host::images::fetch::Fetch;
use crate::host::images::{Images, content};
use crate::host::{HostError, files};
use crate::value::Sha256;

/// Where the files of one cached image are.
pub(super) struct Place {
    pub(super) id: String,
    pub(super) image: PathBuf,
    pub(super) part: PathBuf,
    pub(super) note: PathBuf,
    sidecar: PathBuf,
    lock: PathBuf,
}

/// What is known of an image that was found whole.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sidecar {
    pub(super) sha256: Sha256,
    pub(super) bytes: u64,
    /// The size of the disk in it, in bytes, where it is one.
    pub(super) virtual_size: Option<u64>,
    source: String,
    etag: Option<String>,
    format: String,
}

impl Place {
    /// The place of the image with this id; none where the id is not one of ours.
    pub(super) fn new(layout: &Layout, id: &str) -> Option<Self> {
        let ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let reserved = [".json", ".part", ".lock"].iter().any(|suffix| id.ends_with(suffix));
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || reserved || !id.bytes().all(ours) {
            return None;
        }
        let beside = |suffix: &str| layout.bases().join(format!("{id}{suffix}"));
        Some(Self {
            id: id.to_owned(),
            image: beside(""),
            part: beside(".part"),
            note: beside(".part.json"),
            sidecar: beside(".json"),
            lock: beside(".lock"),
        })
    }

    /// The sidecar of the image, if the image is there as it was put there.
    pub(super) fn whole(&self) -> Option<Sidecar> {
        let found = fs::symlink_metadata(&self.image).ok()?;
        self.sidecar().filter(|sidecar| found.is_file() && found.len() == sidecar.bytes)
    }

    fn sidecar(&self) -> Option<Sidecar> {
        serde_json::from_reader(io::BufReader::new(files::open_regular(&self.sidecar).ok()?)).ok()
    }

    /// Waits until nobody else, in this process or another, holds the lock of this image. The kernel gives it back when
    /// the holder is killed.
    pub(super) fn lock(&self, kind: Lock) -> Result<File, HostError> {
        let failed = |error| HostError::new(format!("cannot lock base image `{}`", self.id), error);
        let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow);
            let file = options.open(&self.lock).map_err(failed)?;
            let tried = match kind {
                Lock::Alone => file.try_lock(),
                Lock::Shared => file.try_lock_shared(),
            };
            match tried {
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {
                    tracing::info!(base = self.id, "waiting for another to be done with the image");
                    match kind {
                        Lock::Alone => file.lock(),
                        Lock::Shared => file.lock_shared(),
                    }
                    .map_err(failed)?;
                }
            }
            // The last holder may have unlinked the file: then the lock that counts is on a new one.
            let held = file.metadata().map_err(failed)?;
            if fs::symlink_metadata(&self.lock).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
                return Ok(file);
            }
        }
    }
}

/// Who else may hold the lock of an image at the same time.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    /// Nobody.
    Alone,
    /// Those who share it as well.
    Shared,
}

impl Images {
    /// Sees to it that the cache holds the image, fetching it if it does not.
    ///
    /// # Errors
    /// When it cannot be fetched (transient where the network or the server may recover), is not what its digest says,
    /// is not what it is declared to be, refers to other files, or does not fit.
    pub fn ensure_base(&self, base: &Base) -> Result<(), HostError> {
        let place = Place::new(&self.layout, &base.id)
            .filter(|place| place.image == base.path)
            .ok_or_else(|| HostError::refused(format!("`{}` is not in the image cache", base.path.display())))?;
        let done =
            || place.whole().is_some_and(|found| base.sha256.as_ref().is_none_or(|wanted| *wanted == found.sha256));
        if done() {
            // All that a kill can have left of the way there.
            return files::remove(&place.note).map_err(|error| cannot_cache(base, error));
        }
        files::make_project_dir(&self.layout)?;
        files::make_dir(&self.layout.bases(), files::PASSABLE)?;
        let _lock = place.lock(Lock::Alone)?;
        if done() {
            return Ok(());
        }
        let fetched = self.fetch(base, &place);
        if fetched.as_ref().is_err_and(|error| !error.transient) {
            // What came is of no use, or there is no room for it. The error says more than a failure here would.
            let _ = files::remove(&place.part).and_then(|()| files::remove(&place.note));
        }
        fetched
    }

    fn fetch(&self, base: &Base, place: &Place) -> Result<(), HostError> {
        let pinned = self.pinned(base, place)?;
        let fetched = Fetch { images: self, base, place, pinned: pinned.as_ref() }.run()?;
        let deed = || format!("cannot use image `{}` from `{}`", base.image, base.source.shown());
        let virtual_size = content::check(&fetched.file, base.role).map_err(|unfit| {
            let help = unfit.help();
            HostError::new(deed(), unfit).help(help)
        })?;
        let sidecar = Sidecar {
            sha256: fetched.sha256,
            bytes: fetched.bytes,
            virtual_size,
            source: base.source.shown(),
            etag: fetched.etag,
            format: base.role.to_string(),
        };
        put_in_place(place, &fetched.file, &sidecar).map_err(|error| cannot_cache(base, error))
    }

    /// What the bytes must hash to: what the spec says, or else what they were when the disks over them were made.
    fn pinned(&self, base: &Base, place: &Place) -> Result<Option<Sha256>, HostError> {
        if base.sha256.is_some() {
            return Ok(base.sha256.clone());
        }
        let users = self.users(&place.image)?;
        match place.sidecar() {
            _ if users.is_empty() => Ok(None),
            Some(sidecar) => Ok(Some(sidecar.sha256)),
            None => Err(HostError::refused(format!(
                "cannot fetch image `{}` again: {} would lie over other bytes if it has changed",
                base.image,
                users.join(", ")
            ))
            .help(format!("remove the servers first; what is lost is `{0}` or `{0}.json`", place.image.display()))),
        }
    }

    /// Takes an image out of the cache, with all that belongs to it.
    ///
    /// # Errors
    /// When a disk still lies over it.
    pub fn remove_base(&self, id: &str) -> Result<(), HostError> {
        let Some(place) = Place::new(&self.layout, id) else {
            return Err(HostError::refused(format!("`{}` is not the id of a base image", id.escape_debug())));
        };
        if !self.layout.bases().is_dir() {
            return Ok(());
        }
        let _lock = place.lock(Lock::Alone)?;
        let users = self.users(&place.image)?;
        if !users.is_empty() {
            let deed = format!("cannot remove base image `{id}`: the disk of {} lies over it", users.join(", "));
            return Err(HostError::refused(deed)
                .help("remove the servers first; what is in the trash goes with `novella trash empty`"));
        }
        // The image goes after its sidecar, so that what a kill leaves is still seen; the lock goes last.
        [&place.part, &place.note, &place.sidecar, &place.image, &place.lock]
            .into_iter()
            .try_for_each(|path| files::remove(path))
            .map_err(|error| HostError::new(format!("cannot remove base image `{id}`"), error))
    }
}

fn cannot_cache(base: &Base, error: io::Error) -> HostError {
    HostError::new(format!("cannot cache image `{}`", base.image), error)
}

fn put_in_place(place: &Place, file: &File, sidecar: &Sidecar) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()?;
    // Never beside a new sidecar: a damaged image of the same length would look whole.
    files::remove(&place.image)?;
    // Plain data: serialising it to memory cannot fail but for want of memory.
    let text = serde_json::to_vec_pretty(sidecar).map_err(io::Error::other)?;
    files::write_atomic(&place.sidecar, &text, 0o600)?;
    fs::rename(&place.part, &place.image)?;
    files::sync_parent(&place.image)?;
    files::remove(&place.note)
}
