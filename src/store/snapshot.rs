//! Exports that people keep and carry: written with `novella state export`, read with `plan --state-file` and
//! `state import`.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::address::Name;
use crate::blueprint::object::{Object, Source};
use crate::plan::world::Recorded;
use crate::store::StoreError;
use crate::store::format::{self, Snapshot};

/// Where backups are kept in the state directory.
const BACKUPS: &str = "backups";

/// How many backups are kept, where nobody says otherwise.
pub const KEPT_BACKUPS: usize = 20;

/// Reads a snapshot, or an export of novella's own.
///
/// # Errors
/// When it cannot be read, is damaged, or was written by a newer novella.
pub fn read(file: &Path) -> Result<Snapshot, StoreError> {
    let deed = || format!("cannot read the snapshot `{}`", file.display());
    let bytes = std::fs::read(file).map_err(|error| StoreError::new(deed(), error))?;
    format::decode_snapshot(&bytes).map_err(|error| error.during(deed()))
}

/// The records without what may be secret in the URLs of images, for a snapshot that goes elsewhere. Nothing depends on it:
/// what is fetched is fetched from where the spec says.
pub fn without_secrets(mut recorded: Recorded) -> Recorded {
    for record in recorded.records.values_mut() {
        for object in record.previous.iter_mut().chain([&mut record.object]) {
            if let Object::Base(base) = object
                && let Source::Url(_) = base.source
            {
                base.source = Source::Url(base.source.shown());
            }
        }
    }
    recorded
}

/// Writes a snapshot over what is in the file, for its owner only. There is a whole one at every instant.
///
/// # Errors
/// When it cannot be written.
pub fn write(file: &Path, snapshot: &Snapshot) -> Result<(), StoreError> {
    let deed = || format!("cannot write the snapshot `{}`", file.display());
    let bytes = format::encode_snapshot(snapshot).map_err(|error| error.during(deed()))?;
    put_in_place(file, &bytes).map_err(|error| StoreError::new(deed(), error))
}

/// Puts a file for its owner only in place of what is there, durably. There is a whole one at every instant.
///
/// # Errors
/// When it cannot be written, or what is there is no file: `/dev/null` must stay what it is.
pub fn put_in_place(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // It is made with mode 0600.
    let mut unfinished = tempfile::NamedTempFile::new_in(dir)?;
    unfinished.write_all(bytes)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Writes a snapshot of the state in `dir` under the time of day, and keeps the newest `keep`. Tells where it is.
///
/// # Errors
/// When it cannot be written.
pub fn backup(dir: &Path, snapshot: &Snapshot, keep: usize) -> Result<PathBuf, StoreError> {
    let backups = dir.join(BACKUPS);
    let deed = |error| StoreError::new(format!("cannot keep a backup in `{}`", backups.display()), error);
    DirBuilder::new().recursive(true).mode(0o700).create(&backups).map_err(deed)?;
    let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%SZ");
    // Two in one second come in the order of the writes that they hold.
    let file = backups.join(format!("{time}.{:010}.json", snapshot.recorded.serial));
    write(&file, snapshot)?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&backups).map_err(deed)? {
        let path = entry.map_err(deed)?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            all.push(path);
        }
    }
    all.sort();
    for old in all.iter().rev().skip(keep.max(1)) {
        std::fs::remove_file(old).map_err(deed)?;
    }
    Ok(file)
}

/// Refuses a snapshot that tells that it is of another project.
///
/// # Errors
/// When it is.
pub fn is_of(snapshot: &Snapshot, project: &Name, file: &Path) -> Result<(), StoreError> {
    match snapshot.project.clone().or_else(|| snapshot.recorded.project()) {
        Some(other) if other != *project => Err(StoreError::refused(format!(
            "the snapshot `{}` is of the project `{other}`, and the spec is of `{project}`",
            file.display()
        ))
        .help("use a snapshot of this project, or name the other with `name` in `[project]`")),
        _ => Ok(()),
    }
}
