//! The image cache and the disks over it.
//!
//! | file | what it does |
//! |---|---|
//! | `base.rs` | a cached image: fetched under a lock, checked, put in place |
//! | `fetch.rs` | the bytes of one image, from a file or a web server into a `.part` |
//! | `hash.rs` | the digests of bytes as they pass |
//! | `digest.rs` | what an image hashes to, by a list of digests or by reading it |
//! | `prepare.rs` | the way from there to what is cached: unpacked, checked, converted |
//! | `packing.rs` | what is compressed, and how it is unpacked |
//! | `sparse.rs` | a file with holes where there are only zeros |
//! | `foreign.rs` | what may be converted at all |
//! | `content.rs` | what may be a disk image at all |
//! | `cache.rs` | what is in the cache, who uses it, and what can go |
//! | `disk.rs` | a server's root disk: a qcow2 overlay over a base |
//! | `imported.rs` | root disks that are files of others |
//! | `volume.rs` | disks beside root disks |
//! | `trash.rs` | disks that were taken away, and can be put back |
//! | `web.rs` | what a web server may do, and which of its failures may pass |
//! | `seed.rs` | what its cloud-init is told |
//!
//! ```text
//! base/<id>             the image, mode 0444, never changed again
//! base/<id>.json        its length and digest; an image without one is not trusted
//! base/<id>.part        what has come so far of an image being fetched
//! base/<id>.part.json   what the server said of it, for resuming
//! base/<id>.unpacked    what it becomes, where it is compressed
//! base/<id>.converted   what it becomes, where it is in a format that guests do not run from
//! base/<id>.lock        held while it is fetched or removed, and shared while a disk is made over it
//! ```

mod base;
pub mod cache;
mod content;
mod digest;
mod disk;
mod fetch;
mod foreign;
mod hash;
pub mod imported;
mod packing;
mod prepare;
mod seed;
mod sparse;
pub mod trash;
mod volume;
mod web;

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{base_key, disk_key, seed_key, volume_key};
use crate::host::images::base::Place;
use crate::host::qcow2::Header;
use crate::host::{HostError, OnProgress, files};
use crate::plan::world::Observed;
use crate::value::ByteSize;

pub use cache::Cached;

/// The adapter for base images, disks and seeds. Called from many threads at once; locks are held per image.
pub struct Images {
    layout: Layout,
    on_progress: OnProgress,
    reserve: ByteSize,
    most_unpacked: ByteSize,
    agent: ureq::Agent,
}

impl Images {
    /// The images and disks of one project. `on_progress` is told how a fetch goes on, some ten times a second.
    pub fn new(layout: Layout, on_progress: OnProgress) -> Self {
        let agent = web::agent(Duration::from_secs(30));
        Self { layout, on_progress, reserve: ByteSize::mib(256), most_unpacked: ByteSize::gib(1024), agent }
    }

    /// The same, giving up on a server that says nothing for so long. The default is 30 seconds.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.agent = web::agent(patience);
        self
    }

    /// The same, leaving so much of the file system free when an image is cached. The default is 256 MiB.
    #[must_use]
    pub fn with_reserve(mut self, reserve: ByteSize) -> Self {
        self.reserve = reserve;
        self
    }

    /// Adds the cached images, the disks and the seeds of the project to what was seen. Reads directories, sidecars, headers,
    /// and seeds to their end, for these are small.
    ///
    /// # Errors
    /// When the directories cannot be read. A file that makes no sense is seen as `damaged` or `unknown`.
    pub fn observe(&self, into: &mut Observed) -> Result<(), HostError> {
        for name in names_in(&self.layout.bases())? {
            let Some(place) = name.to_str().and_then(|id| Place::new(&self.layout, id)) else { continue };
            let whole = place.whole();
            let content = if whole.is_some() { "whole" } else { "damaged" };
            let mut seen = facts([("path", place.image.display().to_string()), ("content", content.into())]);
            // Told by no object: whoever makes a disk over it may want to know.
            if let Some(size) = whole.and_then(|whole| whole.virtual_size) {
                seen.extend(facts([("virtual_size", ByteSize(size).to_string())]));
            }
            into.objects.insert(base_key(&place.id), seen);
        }
        for server in self.servers()? {
            if let Some(seen) = self.seed_facts(&server)? {
                into.objects.insert(seed_key(&server), seen);
            }
        }
        for server in self.servers()? {
            into.objects.extend(self.imported_facts(&server).map(|seen| (disk_key(&server), seen)));
        }
        for (server, path) in self.disks()? {
            let mut disk = facts([("path", path.display().to_string())]);
            match header(&path) {
                Ok(header) => {
                    let base = header.backing.as_deref().map_or("none".into(), String::from_utf8_lossy);
                    disk.extend(facts([
                        ("format", "qcow2".into()),
                        ("size", ByteSize(header.virtual_size).to_string()),
                        ("base", base.into_owned()),
                    ]));
                }
                Err(_) => disk.extend(facts([("format", "unknown".into())])),
            }
            into.objects.insert(disk_key(&server), disk);
        }
        for (id, format) in self.volumes()? {
            into.objects.insert(volume_key(&id), self.volume_facts(&id, format));
        }
        Ok(())
    }

    /// The disks of all servers, each with its server. Where a new one was made beside an old one, the old one comes first.
    fn disks(&self) -> Result<Vec<(Name, PathBuf)>, HostError> {
        let mut disks = Vec::new();
        for server in self.servers()? {
            disks.extend(self.root_disks(&server)?.into_iter().map(|path| (server.clone(), path)));
        }
        Ok(disks)
    }

    /// The servers that have a directory, or something else in its place, known to a record or not.
    ///
    /// # Errors
    /// When the directory of them all cannot be read.
    pub fn servers(&self) -> Result<Vec<Name>, HostError> {
        let names = names_in(&self.layout.instances())?;
        let mut servers: Vec<Name> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
        servers.sort();
        Ok(servers)
    }
}

/// The qcow2 header of a disk, without following a symbolic link.
fn header(path: &Path) -> Result<Header, crate::host::qcow2::Invalid> {
    Header::read(&files::open_regular(path)?)
}

/// The names in a directory; none if there is no such directory.
fn names_in(directory: &Path) -> Result<Vec<OsString>, HostError> {
    let failed = |error: io::Error| {
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        let error = HostError::new(format!("cannot read directory `{}`", directory.display()), error);
        if denied { error.help("run as root") } else { error }
    };
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(entries) => entries.map(|entry| entry.map(|it| it.file_name()).map_err(failed)).collect(),
    }
}

fn facts<const N: usize>(facts: [(&'static str, String); N]) -> Facts {
    facts.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}
