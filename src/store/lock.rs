//! One writer at a time, and who it is.
//!
//! The lock is an open file description lock (`F_OFD_SETLK`, see fcntl(2)) on `<state>/lock`. It goes with the process,
//! however that ends, so there is never a lock to break by hand. Unlike flock(2) it can be asked after without being
//! taken, so that a reader never stands in a writer's way.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;
use crate::store::who;
use crate::value::unix_now;

/// The lock's file in the state directory. It stays when the lock is gone.
pub(super) const FILE: &str = "lock";

/// [`libc::F_UNLCK`] in the type that it has in a lock.
const F_UNLCK: i16 = libc::F_UNLCK as i16;

/// How often a lock that is waited for is tried.
const POLL: Duration = Duration::from_millis(50);

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// What it does, as the verb of the command line: `apply`.
    pub operation: String,
    /// When it took the lock, in seconds since 1970 (UTC). For display only.
    pub started_at: u64,
    /// Its command line.
    pub command: String,
    /// Who started it. For display only.
    #[serde(default)]
    pub user: String,
}

impl Holder {
    fn this(operation: &str) -> Self {
        let arguments: Vec<_> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
        Self {
            pid: std::process::id(),
            operation: operation.to_owned(),
            started_at: unix_now(),
            command: arguments.join(" "),
            user: who::person(),
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pid == 0 {
            return f.write_str("a novella that has only just begun");
        }
        let seconds = unix_now().saturating_sub(self.started_at);
        let age = match seconds {
            0..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            _ => format!("{} h", seconds / 3600),
        };
        write!(f, "`novella {}`", self.operation)?;
        if !self.user.is_empty() {
            write!(f, " by {}", self.user)?;
        }
        write!(f, ", pid {}, since {age}", self.pid)
    }
}

/// The right to write a state. Given back when dropped.
#[derive(Debug)]
pub struct StateLock {
    dir: PathBuf,
    /// Carries the lock.
    file: File,
}

impl StateLock {
    /// Takes the lock of the state in `dir` for an operation (`apply`), waiting for as long as `timeout` if another
    /// process has it. Makes the directory, open to its owner only, if there is none.
    ///
    /// # Errors
    /// When another process has the lock, which the error names, or the directory or the lock cannot be made.
    pub fn acquire(dir: &Path, operation: &str, timeout: Duration) -> Result<Self, StoreError> {
        let deed = || format!("cannot lock the state in `{}`", dir.display());
        prepare(dir)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join(FILE))
            .map_err(|error| StoreError::new(deed(), error))?;
        let until = Instant::now().checked_add(timeout);
        while !take(&file).map_err(|error| StoreError::new(deed(), error))? {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(held(dir));
            }
            std::thread::sleep(POLL);
        }
        let written = serde_json::to_vec(&Holder::this(operation)).map_err(io::Error::from).and_then(|mut text| {
            text.push(b'\n');
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.set_len(0)?;
            file.write_all(&text)
        });
        written.map_err(|error| StoreError::new(deed(), error))?;
        Ok(Self { dir: dir.to_owned(), file })
    }

    /// Who holds the lock of the state in `dir`, if anybody does. Takes and writes nothing.
    ///
    /// A holder that has the lock but has not yet written its name is shown with the pid 0.
    pub fn holder(dir: &Path) -> Option<Holder> {
        let mut file = File::open(dir.join(FILE)).ok()?;
        if !is_held(&file) {
            return None;
        }
        let mut text = String::new();
        let named = file.read_to_string(&mut text).ok().and_then(|_| serde_json::from_str(&text).ok());
        Some(named.unwrap_or_else(|| Holder {
            pid: 0,
            operation: "?".into(),
            started_at: unix_now(),
            command: String::new(),
            user: String::new(),
        }))
    }

    /// The directory of the state that is locked.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // To close the file is not enough: a program that another thread is about to start has it open too for a moment.
        let mut lock = whole_file();
        lock.l_type = F_UNLCK;
        // It goes with the process at the latest.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock));
    }
}

/// Makes the state directory, or takes from others the right to write in one that is there: who may write in it may
/// put another state in place of ours.
fn prepare(dir: &Path) -> Result<(), StoreError> {
    let deed = || format!("cannot make the state directory `{}`", dir.display());
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| StoreError::new(deed(), error))?;
    let mode = dir.metadata().map_err(|error| StoreError::new(deed(), error))?.permissions().mode();
    if mode & 0o022 != 0 {
        tracing::warn!(dir = %dir.display(), "others could write in the state directory; taking that from them");
        std::fs::set_permissions(dir, Permissions::from_mode(mode & 0o7755)).map_err(|error| {
            StoreError::new(format!("cannot close the state directory `{}` to others", dir.display()), error)
        })?;
    }
    Ok(())
}

fn held(dir: &Path) -> StoreError {
    let what = format!("the state in `{}` is locked", dir.display());
    match StateLock::holder(dir) {
        Some(holder) => StoreError::refused(format!("{what} by {holder}")),
        None => StoreError::refused(what),
    }
    .help("wait until it has ended; the lock goes with its process")
}

/// Takes the lock; tells whether that went.
fn take(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn is_held(file: &File) -> bool {
    let mut lock = whole_file();
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && lock.l_type != F_UNLCK
}

/// A write lock on all of a file.
#[expect(clippy::cast_possible_truncation, reason = "the constants are small; only the C types differ")]
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
