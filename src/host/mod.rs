//! The host, and how it is looked at and changed.
//!
//! [`Host`] is the seam between what novella decides and what it touches. [`machine::Machine`] is the real one: it routes
//! each kind of object to the adapter that knows it. [`sim::SimHost`] is a strict one in memory, and
//! [`recorded::RecordedHost`] one that is only known by the records.
//!
//! | kind | adapter | means |
//! |---|---|---|
//! | bridge | [`links`] | rtnetlink |
//! | firewall | [`firewall`] | `nft` |
//! | dhcp, host entry | [`dhcp`] | `dnsmasq` |
//! | base image, disk, volume, seed | [`images`] | files, http(s), `qemu-img` |
//! | domain | [`hypervisor`] | libvirt |

pub mod command;
pub mod dhcp;
pub mod domain_xml;
pub mod files;
pub mod firewall;
#[cfg(feature = "libvirt")]
pub mod hypervisor;
pub mod images;
pub mod kvm;
#[cfg(feature = "libvirt")]
pub mod links;
#[cfg(feature = "libvirt")]
pub mod machine;
pub mod qcow2;
pub mod recorded;
pub mod sim;
#[cfg(not(feature = "libvirt"))]
mod without_libvirt;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blueprint::HostFacts;
use crate::blueprint::facts::Disruption;
use crate::blueprint::import::Import;
use crate::blueprint::key::ObjectKey;
use crate::blueprint::object::{Domain, Object};
use crate::plan::world::{Differing, Imported, Observed};

#[cfg(not(feature = "libvirt"))]
pub use without_libvirt::{hypervisor, machine};

/// A place that holds objects.
pub trait Host: Send + Sync {
    /// What the host can do and has room for. Changes nothing.
    fn facts(&self) -> Result<HostFacts, HostError>;

    /// All objects that carry our mark, and all names that others have taken. One bulk query for each kind; changes
    /// nothing.
    fn observe(&self) -> Result<Observed, HostError>;

    /// Adds a domain that does not carry our mark, and its disk, to what was seen: as if it carried the mark of a server. One
    /// that carries it already is among that. Changes nothing. Nothing is added by a host that cannot be looked at.
    fn observe_foreign(&self, import: &Import, into: &mut Observed) -> Result<(), HostError> {
        let (_, _) = (import, into);
        Ok(())
    }

    /// In what a domain of others that was seen differs from the one that it is to be, where no fact tells it.
    fn differing(&self, imported: &Imported, wanted: &Domain) -> Result<Vec<Differing>, HostError> {
        let (_, _) = (imported, wanted);
        Ok(Vec::new())
    }

    /// Makes the object what it is to be, whatever stands there of it now. Succeeds when it is already so.
    fn ensure(&self, object: &Object) -> Result<(), HostError>;

    /// The same, where a running guest may notice no more than `most`: what it cannot take then waits for its next start.
    fn ensure_within(&self, object: &Object, most: Disruption) -> Result<(), HostError> {
        let _ = most;
        self.ensure(object)
    }

    /// Takes the object away, whatever stands there of it now. Succeeds when it is already gone. Never touches what does
    /// not carry our mark.
    fn remove(&self, key: &ObjectKey) -> Result<(), HostError>;

    /// The same, where a disk is put into the trash. No other kind of object is kept.
    fn discard(&self, key: &ObjectKey, keep: Option<Keep>) -> Result<(), HostError> {
        let _ = keep;
        self.remove(key)
    }

    /// Makes a domain give up these volumes, in its definition and in its guest, which goes on. Succeeds when it does not
    /// have them, and when there is no such domain.
    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError>;

    /// Notes that nothing needs the object any more, which stays where it is. Succeeds when it is already gone.
    fn retire(&self, key: &ObjectKey) -> Result<(), HostError> {
        let _ = key;
        Ok(())
    }

    /// Makes a DHCP server know all that was removed and changed among its host entries. Succeeds when there is nothing
    /// new, and when there is no such server.
    fn reload(&self, server: &ObjectKey) -> Result<(), HostError>;
}

/// How a disk that is taken away is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// For how many seconds.
    pub seconds: u32,
    /// Why it is taken away.
    pub why: Why,
}

/// Why a disk is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The spec does not have it any more.
    Removed,
    /// Another was made in its place.
    Replaced,
}

impl Why {
    /// The word that people see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        }
    }
}

/// Called as a long step goes on: the object, bytes done, bytes in all where known.
pub type OnProgress = Arc<dyn Fn(&ObjectKey, u64, Option<u64>) + Send + Sync>;

/// A deed on the host that failed.
#[derive(Debug, thiserror::Error)]
#[error("{deed}")]
pub struct HostError {
    /// What was to be done, to what: ``cannot create bridge `brq0123` ``.
    pub deed: String,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
    /// What the person can do about it.
    pub help: Option<String>,
    /// Whether the same deed may succeed in a moment, with nothing changed by anybody.
    pub transient: bool,
    /// Its name, where it has one, like that of a [`Diagnostic`](crate::diagnostic::Diagnostic).
    pub code: Option<Cow<'static, str>>,
}

impl HostError {
    /// A deed that failed for the reason `source`.
    pub fn new(deed: impl Into<String>, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { deed: deed.into(), source: Some(source.into()), help: None, transient: false, code: None }
    }

    /// A deed that failed for a reason that the deed's own words tell.
    pub fn refused(deed: impl Into<String>) -> Self {
        Self { deed: deed.into(), source: None, help: None, transient: false, code: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same error by this name.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same error, said to be a passing one (or not).
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = transient;
        self
    }
}
