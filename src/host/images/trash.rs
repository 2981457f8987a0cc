//! The trash: disks that were taken away and can be put back, until their time is over.
//!
//! ```text
//! trash/<id>.json   what it was
//! trash/<id>        the disk
//! ```
//!
//! What is known of a disk is written first, then the disk is moved by renaming it; it comes back or goes for good before
//! what is known of it is removed. So whatever a kill leaves, a disk in the trash is always known, and what is known of a
//! disk that is not there means nothing and is swept.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::address::{InvalidName, Name, ResourceKind, VolumeId};
use crate::blueprint::Layout;
use crate::blueprint::object::DiskFormat;
use crate::host::images::imported::Imported;
use crate::host::images::{Images, header, names_in};
use crate::host::{HostError, Keep, Why, files};
use crate::value::{ByteSize, unix_now};

/// Only we may look into the trash.
const PRIVATE: u32 = 0o700;

/// Whose disk it is: the root disk of a server, or a disk beside root disks. Shown as `server.web`, `volume.data` and
/// `server.web/scratch`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Trashed {
    /// The root disk of this server.
    Root(Name),
    /// A volume, or a disk of one server.
    Volume(VolumeId),
}

impl fmt::Display for Trashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(server) => write!(f, "{}.{server}", ResourceKind::Server),
            Self::Volume(id) => f.write_str(&id.title()),
        }
    }
}

/// Why a text names no disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDisk {
    /// It begins in no way that is known.
    #[error("it names no disk")]
    Kind,
    /// A part of it is not a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl FromStr for Trashed {
    type Err = NoDisk;

    fn from_str(text: &str) -> Result<Self, NoDisk> {
        let (kind, rest) = text.split_once('.').ok_or(NoDisk::Kind)?;
        if kind == ResourceKind::Volume.as_str() {
            Ok(Self::Volume(VolumeId::Own(rest.parse()?)))
        } else if kind != ResourceKind::Server.as_str() {
            Err(NoDisk::Kind)
        } else if rest.contains('/') {
            Ok(Self::Volume(rest.parse()?))
        } else {
            Ok(Self::Root(rest.parse()?))
        }
    }
}

impl TryFrom<String> for Trashed {
    type Error = NoDisk;

    fn try_from(text: String) -> Result<Self, NoDisk> {
        text.parse()
    }
}

impl From<Trashed> for String {
    fn from(trashed: Trashed) -> Self {
        trashed.to_string()
    }
}

impl Trashed {
    /// Where its file stands; none where a disk of its kind never has this format.
    fn path(&self, layout: &Layout, format: DiskFormat) -> Option<PathBuf> {
        match self {
            Self::Root(server) => (format == DiskFormat::Qcow2).then(|| layout.disk(server.as_str())),
            Self::Volume(id) => Some(layout.volume(id, format)),
        }
    }
}

/// A disk in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// By what it is called in the trash: a file name.
    pub id: String,
    /// Whose disk it was.
    pub address: Trashed,
    /// Its format.
    pub format: DiskFormat,
    /// Its virtual size; none where its header cannot be read.
    pub size: Option<ByteSize>,
    /// What it lies over, which is kept for it.
    pub base: Option<PathBuf>,
    /// Why it was taken away.
    pub why: Why,
    /// When, in seconds since 1970.
    pub since: u64,
    /// Until when it is kept, in the same way.
    pub until: u64,
}

impl Entry {
    /// Whether its time is over.
    pub fn is_expired(&self, now: u64) -> bool {
        self.until <= now
    }
}

impl Images {
    /// Moves the disk in this file to the trash. Nothing happens where there is none.
    pub(super) fn put_into_trash(
        &self,
        path: &Path,
        what: &Trashed,
        format: DiskFormat,
        keep: Keep,
    ) -> Result<(), HostError> {
        let deed = || format!("cannot put the disk of `{what}` into the trash");
        let failed = |error: io::Error| {
            let is_far = error.kind() == io::ErrorKind::CrossesDevices;
            let error = HostError::new(deed(), error);
            if is_far {
                error.help("the trash must be on the same file system; or set `trash_ttl = \"0\"`")
            } else {
                error
            }
        };
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            // What is no file is no disk of ours.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
        files::make_dir(&self.layout.trash(), PRIVATE)?;
        let (size, base) = self.measure(path, format);
        let since = unix_now();
        let mut entry = Entry {
            id: String::new(),
            address: what.clone(),
            format,
            size,
            base,
            why: keep.why,
            since,
            until: since.saturating_add(keep.seconds.into()),
        };
        // One address is taken away by one thread at a time.
        let name = what.to_string().replace('/', ".");
        let ids = (1..)
            .map(|number| if number == 1 { format!("{name}-{since}") } else { format!("{name}-{since}-{number}") });
        let is_free = |id: &String| fs::symlink_metadata(self.record(id)).is_err();
        entry.id = ids.into_iter().find(is_free).unwrap_or_default();
        let text = serde_json::to_vec_pretty(&entry).map_err(|error| HostError::new(deed(), error))?;
        files::write_atomic(&self.record(&entry.id), &text, 0o600).map_err(failed)?;
        let trashed = self.layout.trash().join(&entry.id);
        fs::rename(path, &trashed)
            .and_then(|()| files::sync_parent(&trashed))
            .and_then(|()| files::sync_parent(path))
            .map_err(failed)
    }

    /// The size of a disk, and what it lies over.
    fn measure(&self, path: &Path, format: DiskFormat) -> (Option<ByteSize>, Option<PathBuf>) {
        match format {
            DiskFormat::Qcow2 => header(path).map_or((None, None), |header| {
                let base = header.backing.map(|base| PathBuf::from(std::ffi::OsStr::from_bytes(&base)));
                (Some(ByteSize(header.virtual_size)), base)
            }),
            DiskFormat::Raw => (fs::symlink_metadata(path).ok().map(|found| ByteSize(found.len())), None),
        }
    }

    /// Where what is known of a disk in the trash is written.
    fn record(&self, id: &str) -> PathBuf {
        self.layout.trash().join(format!("{id}.json"))
    }

    /// What is in the trash, the oldest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trash(&self) -> Result<Vec<Entry>, HostError> {
        let entry = |id: &str| {
            let entry: Entry = serde_json::from_reader(files::open_regular(&self.record(id)).ok()?).ok()?;
            let is_there = fs::symlink_metadata(self.layout.trash().join(id)).is_ok_and(|found| found.is_file());
            (is_there && entry.id == id).then_some(entry)
        };
        let names = names_in(&self.layout.trash())?;
        let mut entries: Vec<Entry> =
            names.iter().filter_map(|name| entry(name.to_str()?.strip_suffix(".json")?)).collect();
        entries.sort_by(|one, other| (one.since, &one.id).cmp(&(other.since, &other.id)));
        Ok(entries)
    }

    /// The ids of the base images that disks in the trash lie over. They are in use.
    ///
    /// # Errors
    /// When the trash cannot be read.
    pub fn bases_in_trash(&self) -> Result<BTreeSet<String>, HostError> {
        Ok(self.trash()?.into_iter().filter_map(|entry| self.layout.base_id(&entry.base?)).collect())
    }

    /// Puts a disk back where it was, or in the place of another. What it is then is the business of the next apply.
    ///
    /// # Errors
    /// When it is not in the trash, something stands in its place, or what it lies over is gone.
    pub fn restore(&self, id: &str, place: Option<&Trashed>) -> Result<Trashed, HostError> {
        let entries = self.trash()?;
        let Some(entry) = entries.iter().find(|entry| entry.id == id) else {
            let error = HostError::refused(format!("there is no `{}` in the trash", id.escape_debug()));
            return Err(error.help("`novella trash list` shows what there is"));
        };
        let place = place.unwrap_or(&entry.address);
        let deed = || format!("cannot put `{id}` back as the disk of `{place}`");
        let failed = |error: io::Error| HostError::new(deed(), error);
        let Some(path) = place.path(&self.layout, entry.format) else {
            let why = format!("a root disk is qcow2, and this is {}", entry.format.as_str());
            return Err(HostError::new(deed(), why).help("put it back as a volume: `--as volume.NAME`"));
        };
        if let Some(base) = entry.base.as_ref().filter(|base| !base.is_file()) {
            return Err(HostError::new(deed(), format!("what it lies over is gone: `{}`", base.display())));
        }
        for format in DiskFormat::ALL {
            if place.path(&self.layout, format).is_some_and(|path| fs::symlink_metadata(path).is_ok()) {
                return Err(HostError::new(deed(), "there is a disk already").help(format!(
                    "take `{place}` out of the spec and apply, or put it elsewhere: `--as volume.NAME`"
                )));
            }
        }
        if let Trashed::Root(server) = place
            && let Some(imported) = Imported::of(&self.layout, server.as_str())
        {
            let why = format!("it has the one that was imported with it, `{}`", imported.path.display());
            return Err(HostError::new(deed(), why).help("put it elsewhere: `--as volume.NAME`"));
        }
        match place {
            Trashed::Root(server) => files::make_instance_dir(&self.layout, server.as_str())?,
            Trashed::Volume(id) => self.make_volume_dir(id)?,
        }
        fs::rename(self.layout.trash().join(id), &path)
            .and_then(|()| files::sync_parent(&path))
            .and_then(|()| files::remove(&self.record(id)))
            .and_then(|()| files::sync_parent(&self.record(id)))
            .map_err(failed)?;
        Ok(place.clone())
    }

    /// Takes disks out of the trash for good, and sweeps what a kill has left. Gives those that went.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn empty_trash(&self, goes: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, HostError> {
        let (gone, kept): (Vec<Entry>, Vec<Entry>) = self.trash()?.into_iter().partition(|entry| goes(entry));
        let directory = self.layout.trash();
        let failed = |error: io::Error| HostError::new("cannot empty the trash", error);
        for entry in &gone {
            files::remove(&directory.join(&entry.id)).map_err(failed)?;
            files::remove(&self.record(&entry.id)).map_err(failed)?;
        }
        for name in names_in(&directory)? {
            let Some(name) = name.to_str() else { continue };
            let is_left = name.starts_with('.') && name.ends_with(".json.tmp");
            let is_vain = name.strip_suffix(".json").is_some_and(|id| {
                !kept.iter().any(|entry| entry.id == id) && fs::symlink_metadata(directory.join(id)).is_err()
            });
            if is_left || is_vain {
                files::remove(&directory.join(name)).map_err(failed)?;
            }
        }
        // As long as something is in it, it stays.
        let _ = fs::remove_dir(&directory);
        Ok(gone)
    }
}
