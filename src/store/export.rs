//! A checksummed JSON copy of the state, for those who only read, and for the day when the database is lost.
//!
//! `export.json` is written when an apply has ended, and the one before is kept as `export.1.json`. From the first write
//! to the database until the next export there is a file `dirty`: as long as it is not there, the export is exact.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc;

use crate::plan::world::Recorded;
use crate::store::StoreError;
use crate::store::format::{self, FormatError};
use crate::store::guard::{self, DATABASE, Trouble};
use crate::store::lock::{self, StateLock};

const CURRENT: &str = "export.json";
const PREVIOUS: &str = "export.1.json";
const UNFINISHED: &str = "export.tmp";
const DAMAGED: &str = "export.corrupt.json";
const DIRTY: &str = "dirty";

/// How often the state is read anew when it changes as it is read.
const ATTEMPTS: u32 = 20;

/// What the exports of a state tell.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// The newest one that is whole.
    pub(super) newest: Option<Recorded>,
    /// Whether that is the last one that was written.
    pub(super) is_last: bool,
    /// Why a newer one is not whole.
    pub(super) damage: Option<StoreError>,
}

impl Exports {
    /// The serial that the database in `dir` has reached for certain; none if it was never written to.
    pub(super) fn floor(&self, dir: &Path) -> Option<u64> {
        match &self.newest {
            Some(newest) => Some(newest.serial),
            None => (self.damage.is_some() || is_dirty(dir)).then_some(0),
        }
    }
}

/// Reads the exports of the state in `dir`.
///
/// # Errors
/// When one was written by a newer novella, or may not be read.
pub(super) fn read(dir: &Path) -> Result<Exports, StoreError> {
    let mut exports = Exports::default();
    for name in [CURRENT, PREVIOUS] {
        let path = dir.join(name);
        let deed = || format!("cannot read the export `{}`", path.display());
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            read => read.map_err(|error| StoreError::new(deed(), error))?,
        };
        match format::decode_export(&bytes) {
            Ok(recorded) => {
                exports.newest = Some(recorded);
                exports.is_last = name == CURRENT;
                break;
            }
            Err(error @ FormatError::Newer { .. }) => return Err(error.during(deed())),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the export is damaged");
                exports.damage.get_or_insert(error.during(deed()));
            }
        }
    }
    Ok(exports)
}

/// Writes the export of the state in `dir` and takes the mark away that says it is wanting.
pub(super) fn write(dir: &Path, recorded: &Recorded) -> Result<(), StoreError> {
    let deed = || format!("cannot export the state in `{}`", dir.display());
    let bytes = format::encode_export(recorded).map_err(|error| error.during(deed()))?;
    guard::with_reserve(dir, guard::is_full, || replace(dir, &bytes)).map_err(|error| {
        let full = guard::is_full(&error);
        let error = StoreError::new(deed(), error);
        if full { error.help(guard::free_space(dir)) } else { error }
    })
}

/// Puts the last export away, which is damaged, so that it is not kept in place of a whole one.
pub(super) fn set_aside(dir: &Path) -> Result<(), StoreError> {
    std::fs::rename(dir.join(CURRENT), dir.join(DAMAGED))
        .map_err(|error| StoreError::new(format!("cannot put away the damaged export in `{}`", dir.display()), error))
}

/// A reader finds a whole export under [`CURRENT`] at every instant of this.
fn replace(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = dir.join(UNFINISHED);
    remove_if_there(&unfinished)?;
    let mut file = create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    let current = dir.join(CURRENT);
    if current.exists() {
        remove_if_there(&dir.join(PREVIOUS))?;
        std::fs::hard_link(&current, dir.join(PREVIOUS))?;
    }
    std::fs::rename(&unfinished, &current)?;
    sync(dir)?;
    remove_if_there(&dir.join(DIRTY))
}

/// Whether the database holds, or may hold, what the export does not.
pub(super) fn is_dirty(dir: &Path) -> bool {
    dir.join(DIRTY).exists()
}

/// Says, durably, that the database is about to hold what the export does not.
pub(super) fn mark_dirty(dir: &Path) -> io::Result<()> {
    match create(&dir.join(DIRTY)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => sync(dir),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A state as it was read by someone who may not change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOnly {
    /// The records.
    pub recorded: Recorded,
    /// What the person should know of how they were come by, if anything.
    pub note: Option<String>,
}

/// Reads the state in `dir`. Takes no lock and changes nothing, not even if a run was killed and left work to do.
///
/// While another process writes, the state is read as it was before that began, and a note says so.
///
/// # Errors
/// When the state is there but cannot be read: it is never taken for empty because of that.
pub fn read_only(dir: &Path) -> Result<ReadOnly, StoreError> {
    let there = dir.try_exists();
    if !there.map_err(|error| StoreError::new(format!("cannot look for the state in `{}`", dir.display()), error))? {
        return Ok(ReadOnly::default());
    }
    for _ in 0..ATTEMPTS {
        let before = traces(dir);
        let read = read_as_it_is(dir);
        // A run that began or ended in the meantime may have changed what was being read.
        if traces(dir) == before {
            return read;
        }
    }
    Err(StoreError::refused(format!("cannot read the state in `{}`: it keeps changing", dir.display()))
        .help("wait until the runs that write it have ended"))
}

/// What shows that a run began or ended: the mark of unexported writes, the last export, and the last who had the lock.
type Traces = (bool, Option<(u64, i64, i64)>, Option<(i64, i64)>);

fn traces(dir: &Path) -> Traces {
    let metadata = |name| dir.join(name).metadata().ok();
    let export = metadata(CURRENT).map(|it| (it.ino(), it.mtime(), it.mtime_nsec()));
    let lock = metadata(lock::FILE).map(|it| (it.mtime(), it.mtime_nsec()));
    (is_dirty(dir), export, lock)
}

fn read_as_it_is(dir: &Path) -> Result<ReadOnly, StoreError> {
    let dirty = is_dirty(dir);
    let holder = StateLock::holder(dir);
    let exports = read(dir)?;
    let floor = exports.floor(dir);
    let Exports { newest, is_last, damage } = exports;
    if let (false, true, Some(recorded)) = (dirty, is_last, &newest) {
        return Ok(ReadOnly { recorded: recorded.clone(), note: None });
    }
    if let Some(holder) = holder {
        return match (newest, damage) {
            (None, Some(damage)) => Err(damage),
            (newest, damage) => {
                let which = if damage.is_some() {
                    "an older state, for the last export is damaged"
                } else {
                    "the state before it began"
                };
                let note = format!("{holder}, is at work; this is {which}");
                Ok(ReadOnly { recorded: newest.unwrap_or_default(), note: Some(note) })
            }
        };
    }
    let why = match read_copy(dir, floor)? {
        Ok(Some(recorded)) => {
            let note = damage.map(|_| "the last export is damaged; this is the state from the database".to_owned());
            return Ok(ReadOnly { recorded, note });
        }
        Ok(None) => "there is no database".to_owned(),
        Err(why) => why,
    };
    match (newest, damage) {
        (Some(recorded), _) => {
            let note = format!("{why}; this is the state as of an older export, which the next apply restores");
            Ok(ReadOnly { recorded, note: Some(note) })
        }
        (None, Some(damage)) => Err(damage),
        (None, None) if dirty || dir.join(DATABASE).exists() => {
            Err(StoreError::new(format!("cannot read the state in `{}`", dir.display()), why)
                .help("there is no export to read instead; restore the directory from a backup"))
        }
        (None, None) => Ok(ReadOnly::default()),
    }
}

/// Reads the database of a state where nobody is at work from a copy, for to open it is to write to it. The inner error
/// says how it is damaged.
fn read_copy(dir: &Path, floor: Option<u64>) -> Result<Result<Option<Recorded>, String>, StoreError> {
    let database = dir.join(DATABASE);
    if !database.exists() {
        return Ok(Ok(None));
    }
    let deed = || format!("cannot copy the database `{}` in order to read it", database.display());
    let scratch =
        tempfile::Builder::new().prefix("novella-").tempdir().map_err(|error| StoreError::new(deed(), error))?;
    let copy = scratch.path().join(DATABASE);
    copy_dir(&database, &copy).map_err(|error| StoreError::new(deed(), error))?;
    match guard::open(&copy, floor) {
        Ok((_, recorded)) => Ok(Ok(Some(recorded))),
        Err(Trouble::Damaged(why)) => Ok(Err(why)),
        Err(trouble) => Err(trouble.during(deed())),
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
