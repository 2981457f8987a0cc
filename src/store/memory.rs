//! Records in memory, for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::blueprint::key::ObjectKey;
use crate::plan::world::{Record, Recorded};
use crate::store::{Store, StoreError};

/// A store that lasts as long as it is held.
#[derive(Debug, Default)]
pub struct MemoryStore {
    recorded: Mutex<Recorded>,
}

impl MemoryStore {
    /// A store that already holds these records.
    pub fn new(recorded: Recorded) -> Self {
        Self { recorded: Mutex::new(recorded) }
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Recorded {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        // Each write is whole before anything in it could panic.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Recorded, StoreError> {
        Ok(self.snapshot())
    }

    fn put(&self, key: &ObjectKey, record: &Record) -> Result<(), StoreError> {
        let mut recorded = self.lock();
        recorded.serial += 1;
        recorded.records.insert(key.clone(), record.clone());
        Ok(())
    }

    fn forget(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let mut recorded = self.lock();
        recorded.serial += 1;
        recorded.records.remove(key);
        Ok(())
    }
}
