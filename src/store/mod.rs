//! The state store: what novella has made and means to make.
//!
//! [`Store`] is the seam. [`sled::SledStore`] keeps records on disk, [`memory::MemoryStore`] in memory for tests. Records
//! are versioned by [`format`](mod@format), so that an old state is always readable.

pub mod export;
pub mod format;
mod guard;
pub mod history;
pub mod lock;
pub mod memory;
pub mod sled;
pub mod snapshot;
pub mod who;

use crate::blueprint::key::ObjectKey;
use crate::plan::world::{Record, Recorded};

/// A durable set of records. Shared by the threads of one apply.
pub trait Store: Send + Sync {
    /// All records.
    fn load(&self) -> Result<Recorded, StoreError>;

    /// Writes the record of an object over what was there. Durable when it returns.
    fn put(&self, key: &ObjectKey, record: &Record) -> Result<(), StoreError>;

    /// Drops the record of an object. Durable when it returns.
    fn forget(&self, key: &ObjectKey) -> Result<(), StoreError>;
}

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{deed}")]
pub struct StoreError {
    /// What was to be done: ``cannot open the state in `state` ``.
    pub deed: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What the person can do about it.
    pub help: Option<String>,
}

impl StoreError {
    /// A deed that failed for the reason `source`.
    pub fn new(deed: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { deed: deed.into(), source: Some(source.into()), help: None }
    }

    /// A deed that failed for a reason that the deed's own words tell.
    pub fn refused(deed: impl Into<String>) -> Self {
        Self { deed: deed.into(), source: None, help: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
