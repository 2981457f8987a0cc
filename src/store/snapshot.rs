//! Exports that people keep and carry: written with `novella state export`, read with `plan --state-file` and
//! `state import`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use crate::address::Name;
use crate::blueprint::object::{Object, Source};
use crate::plan::world::Recorded;
use crate::store::StoreError;
use crate::store::format::{self, Snapshot};

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
pub(super) fn put_in_place(file: &Path, bytes: &[u8]) -> io::Result<()> {
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
