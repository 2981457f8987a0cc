//! One cached image: fetched under a lock, unpacked, checked, converted, put in place, and taken away when nobody uses it.
//!
//! After a kill at any instant there is nothing, a whole image with its sidecar, or a part that can be resumed: an image
//! that stood there and was damaged goes first, then the sidecar comes, then the image by rename. What a compressed or
//! foreign image becomes on the way is made anew from the part.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::blueprint::Layout;
use crate::blueprint::object::{Base, Sums};
use crate::host::images::Images;
use crate::host::images::fetch::Fetch;
use crate::host::images::hash::Digest;
use crate::host::images::prepare::Prepared;
use crate::host::{HostError, files};
use crate::value::{Sha256, Sha512};

/// Where the files of one cached image are.
pub(super) struct Place {
    pub(super) id: String,
    pub(super) image: PathBuf,
    pub(super) part: PathBuf,
    pub(super) note: PathBuf,
    /// What it is unpacked to.
    pub(super) unpacked: PathBuf,
    /// What it is converted to.
    pub(super) converted: PathBuf,
    pub(super) sidecar: PathBuf,
    pub(super) lock: PathBuf,
}

/// What the names of files beside an image end with.
const SUFFIXES: [&str; 5] = [".json", ".part", ".unpacked", ".converted", ".lock"];

/// What is known of an image that was found whole.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// What it hashed to as it was published.
    pub(super) sha256: Sha256,
    /// The same, where a list of these was compared with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha512: Option<Sha512>,
    /// How long the cached file is.
    pub(super) bytes: u64,
    /// How long it was as it was published, where that is another length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) published: Option<u64>,
    /// The size of the disk in it, in bytes, where it is one.
    pub(super) virtual_size: Option<u64>,
    pub(super) source: String,
    pub(super) etag: Option<String>,
    /// What told, of a file of this host, whether it is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stamp: Option<String>,
    pub(super) format: String,
}

impl Place {
    /// The place of the image with this id; none where the id is not one of ours.
    pub(super) fn new(layout: &Layout, id: &str) -> Option<Self> {
        let ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let reserved = SUFFIXES.iter().any(|suffix| id.ends_with(suffix));
        if id.is_empty() || id.len() > 200 || id.starts_with('.') || reserved || !id.bytes().all(ours) {
            return None;
        }
        let beside = |suffix: &str| layout.bases().join(format!("{id}{suffix}"));
        Some(Self {
            id: id.to_owned(),
            image: beside(""),
            part: beside(".part"),
            note: beside(".part.json"),
            unpacked: beside(".unpacked"),
            converted: beside(".converted"),
            sidecar: beside(".json"),
            lock: beside(".lock"),
        })
    }

    /// The id of the image that a file in the cache belongs to.
    pub(super) fn id_of(name: &str) -> Option<String> {
        let mut id = name;
        while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| id.strip_suffix(suffix)) {
            id = shorter;
        }
        // What is being written begins with a dot.
        (!id.starts_with('.')).then(|| id.to_owned())
    }

    /// The sidecar of the image, if the image is there as it was put there.
    pub(super) fn whole(&self) -> Option<Sidecar> {
        let found = fs::symlink_metadata(&self.image).ok()?;
        self.sidecar().filter(|sidecar| found.is_file() && found.len() == sidecar.bytes)
    }

    /// What is known of the image, whether it is there or not.
    pub(super) fn sidecar(&self) -> Option<Sidecar> {
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

/// What an image is compared with, and who says so.
pub(super) struct Pin {
    pub(super) digest: Digest,
    pub(super) by: PinnedBy,
}

/// Who says what an image must hash to.
pub(super) enum PinnedBy {
    /// The spec.
    Spec,
    /// The lock file.
    Lock,
    /// A list of digests.
    Sums(Sums),
    /// The disks that lie over it, or were made over it before it vanished.
    Disks,
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
            return clear_way(&place).map_err(|error| cannot_cache(base, error));
        }
        files::make_project_dir(&self.layout)?;
        files::make_dir(&self.layout.bases(), files::PASSABLE)?;
        let lock = place.lock(Lock::Alone)?;
        if done() {
            return Ok(());
        }
        let fetched = self.fetch(base, &place);
        if fetched.as_ref().is_err_and(|error| !error.transient) {
            // What came is of no use, or there is no room for it. The error says more than a failure here would.
            let _ = clear_way(&place);
        }
        note_use(&lock);
        fetched
    }

    fn fetch(&self, base: &Base, place: &Place) -> Result<(), HostError> {
        let pinned = self.pinned(base, place)?;
        let fetched = Fetch { images: self, base, place, pinned: pinned.as_ref() }.run()?;
        let Prepared { path, file, virtual_size } = self.prepare(base, place, &fetched)?;
        let bytes = file.metadata().map_err(|error| cannot_cache(base, error))?.len();
        let sidecar = Sidecar {
            sha256: fetched.hashes.sha256,
            sha512: fetched.hashes.sha512,
            bytes,
            published: Some(fetched.bytes).filter(|published| *published != bytes),
            virtual_size,
            source: base.source.shown(),
            etag: fetched.etag,
            stamp: fetched.stamp,
            format: base.role.to_string(),
        };
        put_in_place(place, &path, &file, &sidecar).map_err(|error| cannot_cache(base, error))?;
        clear_way(place).map_err(|error| cannot_cache(base, error))
    }

    /// What the bytes must hash to: what the spec says, or else what they were when the disks over them were made, or what
    /// the lock file or a list of digests says.
    fn pinned(&self, base: &Base, place: &Place) -> Result<Option<Pin>, HostError> {
        let pin = |digest, by| Ok(Some(Pin { digest, by }));
        if let Some(sha256) = &base.sha256 {
            let by = if base.locked.as_ref().is_some_and(|it| it.sha256 == *sha256) {
                PinnedBy::Lock
            } else {
                PinnedBy::Spec
            };
            return pin(Digest::Sha256(sha256.clone()), by);
        }
        let users = self.users(place)?;
        match (place.sidecar(), &base.locked, &base.sums) {
            (Some(sidecar), ..) if !users.is_empty() => pin(Digest::Sha256(sidecar.sha256), PinnedBy::Disks),
            (None, ..) if !users.is_empty() => Err(HostError::refused(format!(
                "cannot fetch image `{}` again: {} would lie over other bytes if it has changed",
                base.image,
                users.join(", ")
            ))
            .help(format!("remove the servers first; what is lost is `{0}` or `{0}.json`", place.image.display()))),
            (_, Some(locked), _) => pin(Digest::Sha256(locked.sha256.clone()), PinnedBy::Lock),
            (_, None, Some(sums)) => pin(self.digest_in(sums, &base.source)?, PinnedBy::Sums(sums.clone())),
            (_, None, None) => Ok(None),
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
        let users = self.users(&place)?;
        if !users.is_empty() {
            let deed = format!("cannot remove base image `{id}`: over it lies {}", users.join(", "));
            return Err(HostError::refused(deed)
                .help("remove the servers or volumes first; what is in the trash goes with `novella trash empty`"));
        }
        remove_all(&place).map_err(|error| HostError::new(format!("cannot remove base image `{id}`"), error))
    }
}

/// Unlinks all that belongs to an image. The image goes after its sidecar, so that what a kill leaves is still seen; the
/// lock, which the caller holds, goes last.
pub(super) fn remove_all(place: &Place) -> io::Result<()> {
    clear_way(place)?;
    [&place.sidecar, &place.image, &place.lock].into_iter().try_for_each(|path| files::remove(path))
}

/// Unlinks what there is on the way to an image.
fn clear_way(place: &Place) -> io::Result<()> {
    let way = [&place.part, &place.note, &place.unpacked, &place.converted];
    way.into_iter().try_for_each(|path| files::remove(path))
}

/// Notes on the lock of an image that it was of use now. Only its age in the cache hangs on it.
pub(super) fn note_use(lock: &File) {
    if let Err(error) = lock.set_modified(SystemTime::now()) {
        tracing::debug!(%error, "cannot note when an image was used");
    }
}

pub(super) fn cannot_cache(base: &Base, error: io::Error) -> HostError {
    HostError::new(format!("cannot cache image `{}`", base.image), error)
}

fn put_in_place(place: &Place, made: &Path, file: &File, sidecar: &Sidecar) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()?;
    // Never beside a new sidecar: a damaged image of the same length would look whole.
    files::remove(&place.image)?;
    // Plain data: serialising it to memory cannot fail but for want of memory.
    let text = serde_json::to_vec_pretty(sidecar).map_err(io::Error::other)?;
    files::write_atomic(&place.sidecar, &text, 0o600)?;
    fs::rename(made, &place.image)?;
    files::sync_parent(&place.image)
}
