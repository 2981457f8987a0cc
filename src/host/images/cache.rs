//! What is in the cache, who uses it, and what can go (reference E3).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::blueprint::CacheFacts;
use crate::blueprint::cache::{CachedFile, SourceFile};
use crate::blueprint::object::{Base, Locked};
use crate::host::HostError;
use crate::host::images::base::{Lock, Place, Sidecar, note_use, remove_all};
use crate::host::images::fetch::{room_of, stamp};
use crate::host::images::{Images, header, names_in};
use crate::value::{ByteSize, Sha256};

/// One image in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The id of the [`Base`].
    pub id: String,
    /// Where it came from; none where nothing is known of it.
    pub source: Option<String>,
    /// What it hashed to as it was published, likewise.
    pub sha256: Option<Sha256>,
    /// What it is kept as: `qcow2`, `raw`, `kernel` or `initrd`.
    pub format: String,
    /// The room it takes, in bytes, with all that belongs to it.
    pub room: u64,
    /// How long ago it was fetched or a disk was made over it, whichever was last; never negative.
    pub unused_for: Duration,
    /// The disks below the data directory that lie over it, of whatever project.
    pub disks: Vec<PathBuf>,
}

impl Images {
    /// What is in the cache, and what there is room for. `sources` are files of this host that are to be copied; those that
    /// cannot be looked at are left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn facts(&self, sources: &[PathBuf]) -> Result<CacheFacts, HostError> {
        let directory = self.layout.bases();
        let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let found = nix::sys::statvfs::statvfs(existing).map_err(|error| {
            HostError::new(format!("cannot tell what is free in `{}`", existing.display()), io::Error::from(error))
        })?;
        let known = self.ids()?.into_iter().filter_map(|id| Place::new(&self.layout, &id));
        let files = known.filter_map(|place| {
            let Sidecar { sha256, stamp, .. } = place.sidecar()?;
            let room = fs::symlink_metadata(&place.image).map_or(0, |found| room_of(&found));
            Some((place.id, CachedFile { sha256, stamp, room }))
        });
        let source = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some((path.clone(), SourceFile { stamp: stamp(&found), room: room_of(&found) }))
        };
        Ok(CacheFacts {
            free: ByteSize(found.blocks_available().saturating_mul(found.fragment_size())),
            reserve: self.reserve,
            files: files.collect(),
            in_trash: self.bases_in_trash()?,
            sources: sources.iter().filter_map(source).collect(),
            directory,
        })
    }

    /// What a cached image was as it was published; none if it is not there.
    pub fn locked(&self, base: &Base) -> Option<Locked> {
        let sidecar = Place::new(&self.layout, &base.id)?.whole()?;
        let size = sidecar.published.unwrap_or(sidecar.bytes);
        let Sidecar { source, sha256, sha512, etag, .. } = sidecar;
        Some(Locked { source, sha256, sha512, size, etag })
    }

    /// Everything in the cache, also what is only a part, by id.
    ///
    /// # Errors
    /// When a directory below the data directory cannot be read: what cannot be seen may be a disk.
    pub fn cached(&self) -> Result<Vec<Cached>, HostError> {
        let overlays = self.overlays()?;
        let places = self.ids()?.into_iter().filter_map(|id| Place::new(&self.layout, &id));
        Ok(places.map(|place| cached(place, &overlays)).collect())
    }

    /// Takes an image out of the cache if nothing lies over it and it was not of use for so long; tells whether it did.
    /// Both are looked at anew, while nobody can begin to use it. What records need is for the caller to say.
    ///
    /// # Errors
    /// When a directory cannot be read or a file not be removed.
    pub fn prune(&self, id: &str, older_than: Duration) -> Result<bool, HostError> {
        let Some(place) = Place::new(&self.layout, id) else { return Ok(false) };
        let unused_for = last_use(&place);
        let _lock = place.lock(Lock::Alone)?;
        if unused_for < older_than || !self.users(&place)?.is_empty() {
            return Ok(false);
        }
        let removed = remove_all(&place).map(|()| true);
        removed.map_err(|error| HostError::new(format!("cannot remove base image `{id}`"), error))
    }

    /// Notes that an image was of use until now, so that its age in the cache begins here.
    ///
    /// # Errors
    /// When its lock cannot be had.
    pub fn release_base(&self, id: &str) -> Result<(), HostError> {
        match Place::new(&self.layout, id).filter(|place| place.whole().is_some()) {
            Some(place) => place.lock(Lock::Shared).map(|lock| note_use(&lock)),
            None => Ok(()),
        }
    }

    /// The ids of all that is in the cache, whole or not.
    fn ids(&self) -> Result<BTreeSet<String>, HostError> {
        let names = names_in(&self.layout.bases())?;
        Ok(names.iter().filter_map(|name| Place::id_of(name.to_str()?)).collect())
    }

    /// What lies over an image, for a message: the servers of this project, and the paths of other disks.
    pub(super) fn users(&self, place: &Place) -> Result<Vec<String>, HostError> {
        let name = |overlay: &Overlay| {
            let server = overlay.path.parent().and_then(Path::file_name).map(|it| it.to_string_lossy().into_owned());
            match server.filter(|server| overlay.path == self.layout.disk(server)) {
                Some(server) => format!("`server.{server}`"),
                None => format!("`{}`", overlay.path.display()),
            }
        };
        Ok(self.overlays()?.iter().filter(|overlay| overlay.is_over(place)).map(name).collect())
    }

    /// Every disk below the data directory that lies over something: of whatever project, in the trash, or where a person
    /// has put it.
    pub(super) fn overlays(&self) -> Result<Vec<Overlay>, HostError> {
        let mut overlays = Vec::new();
        let root = self.layout.root.parent().unwrap_or(&self.layout.root);
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for name in names_in(&directory)? {
                let path = directory.join(name);
                let Ok(found) = fs::symlink_metadata(&path) else { continue };
                if found.is_dir() {
                    open.push(path);
                } else if found.is_file()
                    && let Some(backing) = header(&path).ok().and_then(|header| header.backing)
                {
                    overlays.push(Overlay { path, backing });
                }
            }
        }
        overlays.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(overlays)
    }
}

/// A disk that lies over something.
pub(super) struct Overlay {
    pub(super) path: PathBuf,
    /// What, as its header has it.
    backing: Vec<u8>,
}

impl Overlay {
    /// Whether it lies over this image: by whatever path, or by a name that QEMU reads in its own way, such as `json:`.
    pub(super) fn is_over(&self, place: &Place) -> bool {
        let named = self.backing.windows(place.id.len()).any(|part| part == place.id.as_bytes());
        let at = self.path.with_file_name(OsStr::from_bytes(&self.backing));
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        named || fs::metadata(at).is_ok_and(|over| fs::metadata(&place.image).is_ok_and(|image| same(over, image)))
    }
}

fn cached(place: Place, overlays: &[Overlay]) -> Cached {
    let files = [&place.image, &place.part, &place.unpacked, &place.converted];
    let room = files.into_iter().filter_map(|path| fs::symlink_metadata(path).ok()).map(|found| room_of(&found)).sum();
    let sidecar = place.sidecar();
    Cached {
        source: sidecar.as_ref().map(|sidecar| sidecar.source.clone()),
        sha256: sidecar.map(|sidecar| sidecar.sha256),
        format: place.id.rsplit('.').next().unwrap_or_default().to_owned(),
        room,
        unused_for: last_use(&place),
        disks: overlays.iter().filter(|overlay| overlay.is_over(&place)).map(|overlay| overlay.path.clone()).collect(),
        id: place.id,
    }
}

/// How long ago anything was done with an image. The clock of the host may have gone back: then it was just now.
fn last_use(place: &Place) -> Duration {
    let times = [&place.lock, &place.part, &place.sidecar]
        .into_iter()
        .filter_map(|path| fs::symlink_metadata(path).ok()?.modified().ok());
    let last = times.max().unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(last).unwrap_or_default()
}
