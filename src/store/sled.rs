//! Records on disk, in sled, behind guards that sled lacks.
//!
//! ```text
//! state/lock           who writes; see `lock`
//! state/db/            sled's files
//! state/db.corrupt-1/  a database that was given up
//! state/export.json    the state as of the last apply that ended; see `export`
//! state/dirty          there as long as the database holds more than that
//! state/reserve        room for opening the state on a full disk
//! state/history.jsonl  what was done, by whom, and how it ended; see `history`
//! state/backups/       what the state was before it was edited by hand; see `snapshot`
//! ```
//!
//! sled's `flush` hands its log to the kernel and no further (spacejam/sled#1452), so each write is followed by an
//! fdatasync(2) of ours. Writes of many threads that come while one is on its way to the disk go together in the next.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::blueprint::key::ObjectKey;
use crate::plan::world::{Record, Recorded};
use crate::store::export::Exports;
use crate::store::guard::{self, DATABASE, LoadError, Trouble};
use crate::store::lock::StateLock;
use crate::store::{Store, StoreError, export, format};

/// What a database that was given up is called, before its number.
const CORRUPT: &str = "db.corrupt-";

/// A store in a state directory. Holds its lock.
pub struct SledStore {
    queue: Mutex<Queue>,
    turn: Condvar,
    database: sled::Db,
    /// The file of sled's log, for fdatasync.
    log: File,
    /// The last field: given back when sled has let go.
    lock: StateLock,
}

/// The writes that are not on disk yet, and how far the disk is.
#[derive(Default)]
struct Queue {
    /// The serial of the last write, on disk or not.
    serial: u64,
    /// The writes that wait for the next trip to the disk.
    batch: sled::Batch,
    /// The number of that trip.
    next_trip: u64,
    /// The number of the last trip that arrived.
    arrived: u64,
    /// Whether one is under way.
    under_way: bool,
    /// Whether the mark that the export is wanting is on disk.
    marked_dirty: bool,
    /// Why a trip did not arrive. Nothing can be said of the disk then, so there is no other.
    failure: Option<Failure>,
}

#[derive(Clone)]
struct Failure {
    why: String,
    help: Option<String>,
}

impl Failure {
    fn during(&self, deed: String) -> StoreError {
        let error = StoreError::new(deed, self.why.clone());
        match &self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

impl SledStore {
    /// Opens the state in `dir`, made if there is none, for an operation (`apply`).
    ///
    /// # Errors
    /// As [`SledStore::with_lock`]; and when another process has the lock, which the error names.
    pub fn open(dir: &Path, operation: &str) -> Result<Self, StoreError> {
        Self::with_lock(StateLock::acquire(dir, operation, Duration::ZERO)?)
    }

    /// Opens the state that was locked.
    ///
    /// A damaged database is set aside and made anew from the newest export that is whole.
    ///
    /// # Errors
    /// When the database is damaged or gone and there is no export: a state is never taken for empty because it was
    /// lost. When it was written by a newer novella, the disk is full, or a file cannot be read or written.
    pub fn with_lock(lock: StateLock) -> Result<Self, StoreError> {
        let dir = lock.dir();
        let exports = export::read(dir)?;
        let (database, recorded) = open_or_restore(dir, &exports)?;
        let log = guard::log_of(&dir.join(DATABASE)).map_err(|error| {
            StoreError::new(format!("cannot open the log of the state in `{}`", dir.display()), error)
        })?;
        if exports.damage.is_some() && !exports.is_last {
            export::set_aside(dir)?;
        }
        let exported = exports.is_last && exports.newest.is_some_and(|newest| newest.serial == recorded.serial);
        if export::is_dirty(dir) || (!exported && recorded.serial > 0) {
            // Whoever reads while we write is to find the state as it was before.
            export::write(dir, &recorded)?;
        }
        guard::keep_reserve(dir);
        let queue = Queue { serial: recorded.serial, next_trip: 1, ..Queue::default() };
        Ok(Self { queue: Mutex::new(queue), turn: Condvar::new(), database, log, lock })
    }

    /// The lock that it holds.
    pub const fn lock(&self) -> &StateLock {
        &self.lock
    }

    /// Writes the export, if the state has changed since the last. To be called when an apply has ended, so that others
    /// can read the state at no cost.
    ///
    /// # Errors
    /// When it cannot be written, or a write has failed before. What was written is safe then; those who read get it from
    /// the database.
    pub fn export(&self) -> Result<(), StoreError> {
        let mut queue = self.quiet();
        if let Some(failure) = &queue.failure {
            return Err(failure.during(format!("cannot export the state in `{}`", self.lock.dir().display())));
        }
        if !queue.marked_dirty {
            return Ok(());
        }
        export::write(self.lock.dir(), &self.read()?)?;
        queue.marked_dirty = false;
        Ok(())
    }

    /// Puts these records in place of all that there are, in one write: whatever happens, it was done or it was not. The
    /// serial goes on from the higher of the two.
    ///
    /// # Errors
    /// When the state cannot be read or written.
    pub fn replace(&self, recorded: &Recorded) -> Result<(), StoreError> {
        let before = self.load()?;
        let mut changes = Vec::new();
        for (key, record) in &recorded.records {
            if before.records.get(key) != Some(record) {
                let value = format::encode(record).map_err(|it| it.during(format!("cannot write down `{key}`")))?;
                changes.push((key, Some(value)));
            }
        }
        changes.extend(before.records.keys().filter(|key| !recorded.records.contains_key(*key)).map(|key| (key, None)));
        self.commit(changes, recorded.serial).map_err(|failure| failure.during("cannot write the records".into()))
    }

    /// Writes changes and comes back when they are on disk. The serial grows by one, and is more than `serial`.
    fn commit<'k>(
        &self,
        changes: impl IntoIterator<Item = (&'k ObjectKey, Option<Vec<u8>>)>,
        serial: u64,
    ) -> Result<(), Failure> {
        let mut queue = self.queue();
        queue.serial = queue.serial.max(serial).saturating_add(1);
        let serial = queue.serial.to_be_bytes();
        queue.batch.insert(guard::SERIAL, &serial);
        for (key, value) in changes {
            let key = format!("{}{}", guard::RECORD, format::encode_key(key));
            match value {
                Some(value) => queue.batch.insert(key.as_bytes(), value),
                None => queue.batch.remove(key.as_bytes()),
            }
        }
        let trip = queue.next_trip;
        loop {
            if queue.arrived >= trip {
                return Ok(());
            }
            if let Some(failure) = &queue.failure {
                return Err(failure.clone());
            }
            if queue.under_way {
                queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.under_way = true;
            drop(queue);
            // Those whom the last trip has brought home may have their next writes ready for this one.
            std::thread::yield_now();
            queue = self.queue();
            let batch = std::mem::take(&mut queue.batch);
            let mark = !std::mem::replace(&mut queue.marked_dirty, true);
            queue.next_trip += 1;
            drop(queue);
            let mut arrival = Arrival { store: self, trip, outcome: None };
            arrival.outcome = Some(self.travel(batch, mark));
            drop(arrival);
            queue = self.queue();
        }
    }

    /// Brings a batch to the disk.
    fn travel(&self, batch: sled::Batch, mark: bool) -> io::Result<()> {
        if mark {
            export::mark_dirty(self.lock.dir())?;
        }
        self.database.apply_batch(batch)?;
        guard::to_disk(&self.database, &self.lock.dir().join(DATABASE), &self.log)
    }

    fn read(&self) -> Result<Recorded, StoreError> {
        guard::load(&self.database).map_err(|error| {
            let deed = format!("cannot read the state in `{}`", self.lock.dir().display());
            match error {
                LoadError::Format(error) => error.during(deed),
                error => StoreError::new(deed, error),
            }
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two of its changes.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue, at a time when nothing is on its way; and nothing is, as long as it is held.
    fn quiet(&self) -> MutexGuard<'_, Queue> {
        self.turn.wait_while(self.queue(), |queue| queue.under_way).unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &ObjectKey, value: Option<Vec<u8>>, deed: &str) -> Result<(), StoreError> {
        self.commit([(key, value)], 0).map_err(|failure| failure.during(format!("cannot {deed} the record of `{key}`")))
    }
}

impl std::fmt::Debug for SledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // sled would print all that it holds.
        f.debug_struct("SledStore").field("lock", &self.lock).finish_non_exhaustive()
    }
}

impl Store for SledStore {
    fn load(&self) -> Result<Recorded, StoreError> {
        let _quiet = self.quiet();
        self.read()
    }

    fn put(&self, key: &ObjectKey, record: &Record) -> Result<(), StoreError> {
        let bytes = format::encode(record).map_err(|error| error.during(format!("cannot write down `{key}`")))?;
        self.write(key, Some(bytes), "write")
    }

    fn forget(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.write(key, None, "drop")
    }
}

/// Tells those who wait how a trip ended, even if that is a panic in sled.
struct Arrival<'a> {
    store: &'a SledStore,
    trip: u64,
    outcome: Option<io::Result<()>>,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        let mut queue = self.store.queue();
        queue.under_way = false;
        match self.outcome.take() {
            Some(Ok(())) => queue.arrived = self.trip,
            Some(Err(error)) => {
                let help = guard::is_full(&error).then(|| guard::free_space(self.store.lock.dir()));
                queue.failure = Some(Failure { why: error.to_string(), help });
            }
            None => queue.failure = Some(Failure { why: "sled panicked".into(), help: None }),
        }
        self.store.turn.notify_all();
    }
}

/// Opens the database of a state; one that is damaged or gone is made anew from the export.
fn open_or_restore(dir: &Path, exports: &Exports) -> Result<(sled::Db, Recorded), StoreError> {
    let deed = || format!("cannot open the state in `{}`", dir.display());
    let path = dir.join(DATABASE);
    let floor = exports.floor(dir);
    let why = if path.exists() || (floor.is_none() && !corrupt(dir, 1).exists()) {
        match open_with_reserve(dir, floor) {
            Ok(opened) => return Ok(opened),
            Err(Trouble::Damaged(why)) => why,
            Err(trouble) => return Err(trouble.during(deed())),
        }
    } else {
        "the database is gone".to_owned()
    };
    let Some(export) = &exports.newest else {
        return Err(StoreError::new(deed(), why).help(format!(
            "there is no whole export to restore it from. Put back a copy of `{0}`, or move it away: \
             the next apply then finds what it made by its mark",
            dir.display()
        )));
    };
    if path.exists() {
        // The numbers are counted up from 1, and there are not 2^64 of them.
        let aside = (1..).map(|number| corrupt(dir, number)).find(|aside| !aside.exists()).unwrap_or_default();
        std::fs::rename(&path, &aside).map_err(|error| StoreError::new(deed(), error))?;
    }
    if export::is_dirty(dir) {
        tracing::warn!(%why, serial = export.serial, "the state is restored from the export of the last apply that ended");
    } else {
        tracing::warn!(%why, serial = export.serial, "the state is restored from its export; nothing is lost");
    }
    restore(dir, export)
}

fn open_with_reserve(dir: &Path, floor: Option<u64>) -> Result<(sled::Db, Recorded), Trouble> {
    let full = |trouble: &Trouble| matches!(trouble, Trouble::Full(_));
    guard::with_reserve(dir, full, || guard::open(&dir.join(DATABASE), floor))
}

fn restore(dir: &Path, export: &Recorded) -> Result<(sled::Db, Recorded), StoreError> {
    let deed = || format!("cannot restore the state in `{}`", dir.display());
    let (database, _) = open_with_reserve(dir, None).map_err(|trouble| trouble.during(deed()))?;
    for (key, record) in &export.records {
        let value = format::encode(record).map_err(|error| error.during(deed()))?;
        let key = format!("{}{}", guard::RECORD, format::encode_key(key));
        database.insert(key.as_bytes(), value).map_err(|error| StoreError::new(deed(), error))?;
    }
    let written = || {
        let db = dir.join(DATABASE);
        let log = guard::log_of(&db)?;
        guard::to_disk(&database, &db, &log)?;
        // The serial comes last: without it, the database counts as damaged, and is restored again.
        database.insert(guard::SERIAL, &export.serial.to_be_bytes())?;
        guard::to_disk(&database, &db, &log)
    };
    written().map_err(|error| StoreError::new(deed(), error))?;
    Ok((database, export.clone()))
}

fn corrupt(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CORRUPT}{number}"))
}
