//! The guards that sled 0.34.7 lacks: how a database that a kill, a full disk or a bad one left behind is opened.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{self, c_ulong};
use nix::sys::prctl;

use crate::plan::world::Recorded;
use crate::store::{StoreError, format};

/// sled's directory in the state directory.
pub(super) const DATABASE: &str = "db";

/// The key of the serial in the database, a big-endian `u64`.
pub(super) const SERIAL: &[u8] = b"serial";

/// What the keys of records start with in the database.
pub(super) const RECORD: &str = "record:";

/// What sled 0.34 writes in its `conf` with the settings that we use; a checksum of 4 bytes follows.
const CONF: &str = "segment_size: 524288\nuse_compression: false\nversion: 0.34\n";

/// The file that holds room for opening the state on a full disk.
const RESERVE: &str = "reserve";

/// How much room that takes: sled writes up to two segments of 512 KiB and a snapshot as it opens.
const RESERVE_BYTES: i64 = 2 << 20;

/// How long sled's threads may hold on to a database that was closed.
const RELEASE: Duration = Duration::from_secs(2);

/// How much later than they meant to the threads of sled may wake up: what they clean up now and then can wait so long.
const SLACK: Duration = Duration::from_mins(1);

/// Why a database could not be opened.
pub(super) enum Trouble {
    /// It does not hold what was written to it.
    Damaged(String),
    /// There is no room on the disk to open it.
    Full(StoreError),
    /// It may be sound, but cannot be had.
    Failed(StoreError),
}

impl Trouble {
    /// The trouble as an error of a deed that cannot go on.
    pub(super) fn during(self, deed: impl Into<String>) -> StoreError {
        match self {
            Self::Damaged(why) => StoreError::new(deed, why),
            Self::Full(error) | Self::Failed(error) => error,
        }
    }
}

/// Opens the database in `db`, made if there is none, and reads all of it.
///
/// `floor` is a serial that the database is known to have reached, if it was ever written to. sled takes damage at the end
/// of its log for a write that was cut off, and drops it without a word, to the point of starting anew; that shows as a
/// serial that went back.
pub(super) fn open(db: &Path, floor: Option<u64>) -> Result<(sled::Db, Recorded), Trouble> {
    let deed = || format!("cannot open the database `{}`", db.display());
    let failed = |error: io::Error| Trouble::Failed(StoreError::new(deed(), error));
    DirBuilder::new().recursive(true).mode(0o700).create(db).map_err(failed)?;
    std::fs::set_permissions(db, Permissions::from_mode(0o700)).map_err(failed)?;
    remove_unfinished(db).map_err(failed)?;
    let opened = match open_and_load(db) {
        Err(error) if is_damage(&error) => {
            tracing::warn!(db = %db.display(), %error, "the database is damaged; reading its log anew");
            set_aside(db).map_err(failed)?;
            open_and_load(db)
        }
        opened => opened,
    };
    match opened {
        Ok((database, recorded)) => {
            let new = database.get(SERIAL).is_ok_and(|serial| serial.is_none());
            if floor.is_some_and(|floor| new || recorded.serial < floor) {
                let why = format!("the database holds {} writes, and there were more", recorded.serial);
                return Err(Trouble::Damaged(why));
            }
            if new {
                // From now on, a database without a serial is one that lost it.
                database.insert(SERIAL, &0_u64.to_be_bytes()).map_err(|error| failed(error.into()))?;
                log_of(db).and_then(|log| to_disk(&database, db, &log)).map_err(failed)?;
            }
            settle(db).map_err(failed)?;
            Ok((database, recorded))
        }
        Err(error) if is_damage(&error) => Err(Trouble::Damaged(error.to_string())),
        Err(LoadError::Format(error)) => Err(Trouble::Failed(error.during(deed()))),
        Err(LoadError::Sled(error)) => {
            let error = io::Error::from(error);
            Err(if is_full(&error) {
                Trouble::Full(StoreError::new(deed(), error).help(free_space(db)))
            } else {
                Trouble::Failed(StoreError::new(deed(), error))
            })
        }
        Err(LoadError::Panic) => Err(Trouble::Damaged("sled gave up on it".into())),
    }
}

/// All records of an open database.
pub(super) fn load(database: &sled::Db) -> Result<Recorded, LoadError> {
    let mut recorded = Recorded::default();
    if let Some(bytes) = database.get(SERIAL)? {
        let bytes =
            bytes.as_ref().try_into().map_err(|_| sled::Error::ReportableBug("the serial is cut off".into()))?;
        recorded.serial = u64::from_be_bytes(bytes);
    }
    for entry in database.scan_prefix(RECORD) {
        let (key, bytes) = entry?;
        let key = String::from_utf8_lossy(&key[RECORD.len()..]);
        recorded.records.insert(format::decode_key(&key)?, format::decode(&bytes)?);
    }
    Ok(recorded)
}

/// Brings to the disk what was written to the database in `db`, whose log is `log`.
pub(super) fn to_disk(database: &sled::Db, db: &Path, log: &File) -> io::Result<()> {
    database.flush()?;
    // sled puts what is larger than 128 KiB in files of their own.
    let blobs = db.join("blobs");
    let mut any = false;
    for entry in std::fs::read_dir(&blobs)? {
        match File::open(entry?.path()) {
            // sled takes away what was overwritten whenever it likes.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            blob => blob?.sync_all()?,
        }
        any = true;
    }
    if any {
        File::open(&blobs)?.sync_all()?;
    }
    log.sync_data()
}

/// sled's log in `db`, for [`to_disk`].
pub(super) fn log_of(db: &Path) -> io::Result<File> {
    File::open(db.join("db"))
}

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Format(#[from] format::FormatError),
    #[error("sled panicked over it")]
    Panic,
}

fn open_and_load(db: &Path) -> Result<(sled::Db, Recorded), LoadError> {
    // sled has assertions in its recovery that damaged files can break.
    catch_unwind(AssertUnwindSafe(|| {
        let database = open_waiting(db)?;
        let recorded = load(&database)?;
        Ok((database, recorded))
    }))
    .unwrap_or(Err(LoadError::Panic))
}

/// Opens a database that this or an earlier process may have closed a moment ago: sled lets go of its file in the
/// background.
fn open_waiting(db: &Path) -> Result<sled::Db, sled::Error> {
    let until = Instant::now() + RELEASE;
    loop {
        match open_with_lazy_threads(db) {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if Instant::now() >= until {
                    return Err(error.into());
                }
                thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn open_with_lazy_threads(db: &Path) -> Result<sled::Db, sled::Error> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    let _slack = Slack::give();
    let database = sled::Config::new().path(db).cache_capacity(8 << 20).open()?;
    if !STARTED.swap(true, Ordering::Relaxed) {
        // They are started by the first work there is for them; of sled's deeds, this one is always theirs.
        let (mut flush, mut context) = (pin!(database.flush_async()), Context::from_waker(Waker::noop()));
        while flush.as_mut().poll(&mut context).is_pending() {
            thread::yield_now();
        }
    }
    Ok(database)
}

/// Lets the threads that this one starts, as long as this lives, wake up late where they only wait for time to pass; see
/// prctl(2), `PR_SET_TIMERSLACK`. What they are woken up for by others they do at once.
///
/// sled keeps seven threads from the first time that a database was opened to the end of the process, and each looks every
/// second whether it is needed. In a daemon that would be all that wakes it.
struct Slack(Option<i32>);

impl Slack {
    fn give() -> Self {
        let before = prctl::get_timerslack().ok();
        // Where it cannot be given, they wake up more often, and that is all.
        let _ = prctl::set_timerslack(SLACK.as_nanos().try_into().unwrap_or(c_ulong::MAX));
        Self(before)
    }
}

impl Drop for Slack {
    fn drop(&mut self) {
        // 0 is what this thread had from the beginning.
        let before = self.0.and_then(|before| before.try_into().ok()).unwrap_or(0);
        let _ = prctl::set_timerslack(before);
    }
}

fn is_damage(error: &LoadError) -> bool {
    match error {
        LoadError::Panic => true,
        LoadError::Format(_) => false,
        LoadError::Sled(error) => match error {
            sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::CollectionNotFound(_) => true,
            // A part of the log, or a file that the log speaks of, is not there.
            sled::Error::Io(error) => {
                matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound | ErrorKind::InvalidData)
            }
            sled::Error::Unsupported(_) => false,
        },
    }
}

/// Whether a write failed for want of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The way out of a full disk.
pub(super) fn free_space(path: &Path) -> String {
    format!("free some space on the file system of `{}`", path.display())
}

/// Removes what a kill or a full disk cut short in the making. sled would take a part of a snapshot for the newest one and
/// give up (spacejam/sled#1527), and a part of its configuration for that of another version. It makes both anew.
fn remove_unfinished(db: &Path) -> io::Result<()> {
    for path in files_of(db, "snap.")? {
        if path.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(&path)?;
        }
    }
    let conf = db.join("conf");
    match std::fs::read(&conf) {
        Ok(text) if text.len() < CONF.len() + 4 && text.iter().zip(CONF.as_bytes()).all(|(is, want)| is == want) => {
            std::fs::remove_file(&conf)
        }
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Puts away all that sled keeps beside its log: it makes them anew from the log.
fn set_aside(db: &Path) -> io::Result<()> {
    for path in files_of(db, "snap.")?.into_iter().chain(files_of(db, "conf")?) {
        if let Some(name) = path.file_name() {
            std::fs::rename(&path, db.join(format!("aside.{}", name.to_string_lossy())))?;
        }
    }
    Ok(())
}

/// Makes the names of the database's files durable, and closes the files to others: sled does neither.
fn settle(db: &Path) -> io::Result<()> {
    for path in files_of(db, "")? {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    File::open(db)?.sync_all()?;
    db.parent().map_or(Ok(()), |state| File::open(state)?.sync_all())
}

fn files_of(db: &Path, prefix: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(db)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Makes the deed succeed on a full disk, if the reserve of the state in `dir` is enough for it. sled cannot even open
/// a database without writing.
pub(super) fn with_reserve<T, E>(
    dir: &Path,
    full: impl Fn(&E) -> bool,
    deed: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    match deed() {
        Err(error) if full(&error) && std::fs::remove_file(dir.join(RESERVE)).is_ok() => {
            tracing::warn!(dir = %dir.display(), "the disk is full; giving up the room that was kept for that");
            deed()
        }
        done => done,
    }
}

/// Keeps room for [`with_reserve`]. It is not an error if there is none left.
pub(super) fn keep_reserve(dir: &Path) {
    let path = dir.join(RESERVE);
    if path.exists() {
        return;
    }
    let kept = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|file| Ok(nix::fcntl::posix_fallocate(&file, 0, RESERVE_BYTES)?));
    if let Err(error) = kept {
        tracing::warn!(path = %path.display(), %error, "cannot keep room for a full disk");
        // Half a reserve would only stand in the way of a whole one.
        let _ = std::fs::remove_file(&path);
    }
}
