//! Directories and small files that survive a kill, with modes that do not hang on the umask.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::blueprint::Layout;
use crate::host::HostError;

/// The mode of the directories that QEMU's user must pass through and need not list.
pub const PASSABLE: u32 = 0o711;

/// Makes the data directory and the project's directory in it.
///
/// The data directory may be somebody's own: it only gains what QEMU's user needs to pass through it. All below is ours
/// and is made with [`make_dir`].
///
/// # Errors
/// When a directory can be neither made nor passed through by others.
pub fn make_project_dir(layout: &Layout) -> Result<(), HostError> {
    if let Some(data_dir) = layout.root.parent() {
        let failed = |error| HostError::new(format!("cannot create directory `{}`", data_dir.display()), error);
        DirBuilder::new().recursive(true).mode(PASSABLE).create(data_dir).map_err(failed)?;
        let mode = fs::metadata(data_dir).map_err(failed)?.mode() & 0o7777;
        if mode & 0o111 != 0o111 {
            fs::set_permissions(data_dir, Permissions::from_mode(mode | 0o111)).map_err(failed)?;
        }
    }
    make_dir(&layout.root, PASSABLE)
}

/// Makes the directory of a server's files.
///
/// # Errors
/// When it cannot be made.
pub fn make_instance_dir(layout: &Layout, server: &str) -> Result<(), HostError> {
    make_project_dir(layout)?;
    make_dir(&layout.instances(), PASSABLE)?;
    make_dir(&layout.instance(server), PASSABLE)
}

/// Makes one directory with exactly this mode, or gives one that is there this mode. A symbolic link is not followed.
///
/// # Errors
/// When its parent is missing, or something else stands there.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), HostError> {
    let failed = |error| HostError::new(format!("cannot create directory `{}`", path.display()), error);
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    if found.mode() & 0o7777 != mode {
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// Writes a whole file, so that after a kill or a power cut the old bytes are there or the new ones, never a mixture.
///
/// The bytes go to `.<name>.tmp` beside it, which no reader of our directories looks at (dnsmasq skips a leading dot as
/// well), are synced and renamed. Callers that write the same path keep each other out.
///
/// # Errors
/// The cause alone: the caller knows what the file is for.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary(path)?;
    let mut file = create_new(&temporary, mode)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes a file anew, for reading and writing. What stood there is unlinked, so a symbolic link planted there leads
/// nowhere.
pub fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    remove(path)?;
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
}

/// Unlinks a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the names in the directory of `path` durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Opens a regular file for reading without following a symbolic link, and without waiting on a pipe.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Fills the buffer as far as the file goes, and tells how far.
///
/// # Errors
/// Those of the reader.
pub fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn temporary(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, victim) = (dir.path().join("file"), dir.path().join("victim"));
        fs::write(&victim, "precious").expect("writable");
        for planted in [".file.tmp", "file"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(planted)).expect("planted");
            write_atomic(&path, b"new", 0o604).expect("written");
            assert_eq!(fs::read(&path).expect("there"), b"new");
            assert_eq!(fs::symlink_metadata(&path).expect("there").mode(), 0o100_604);
            assert_eq!(fs::read(&victim).expect("there"), b"precious");
            assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 2);
            fs::remove_file(&path).expect("there");
        }
    }

    #[test]
    fn a_directory_is_made_or_mended_and_never_found_through_a_link() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("made");
        for mode in [0o711, 0o700, 0o755] {
            make_dir(&path, mode).expect("made");
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, mode);
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("made");
        let error = make_dir(&link, 0o700).expect_err("a link");
        assert!(error.to_string().contains("cannot create directory `"), "{error}");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o755);
        make_dir(&dir.path().join("no/parent"), 0o700).expect_err("no parent");
    }
}
