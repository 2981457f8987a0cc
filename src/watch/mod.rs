//! The daemon: applies what is saved, and keeps it so.
//!
//! Whoever is not watched over has to be the most careful. What the daemon decides is pure, and has neither clock nor files:
//!
//! | file | what it knows |
//! |---|---|
//! | [`policy`] | what of a plan may go ahead by itself, and what waits for a person |
//! | [`pending`] | the plan that waits, and the word that lets it go |
//! | [`backoff`] | when what has failed is tried again |
//! | [`settle`] | when a file that is being saved may be read |
//! | [`window`](crate::window) | when guests may be rebooted |
//!
//! [`specs`] keeps the last good spec, [`status`] is what is told of all this, [`daemon`] turns the wheel: it is handed the
//! [`World`](daemon::World) with its clock and its events, and somebody who does a [`Pass`](daemon::Pass), so that hours can
//! be lived through in a moment. [`outside`] is the real world: inotify, signals, time; [`events`] is what happens on the host.
//! [`systemd`] tells the service manager, [`socket`] those who ask what is done just now, or for something to be done, which is
//! [`asked`]; [`metrics`] is what monitoring is told, by [`http`]. Both answer by `clients`.
//!
//! All that the daemon writes is in one directory in that of the state, but for its [`socket`]:
//!
//! ```text
//! state/watch/lock           which daemon this state has; see `store::lock`
//! state/watch/status.json    how things are, written after each pass and each change
//! state/watch/pending.json   the plan that waits, and its digest
//! state/watch/pending.txt    the same for people
//! state/watch/approval.json  the word that lets that plan go, written by `novella approve`
//! ```

pub mod asked;
pub mod backoff;
mod clients;
pub mod daemon;
pub mod events;
#[cfg(test)]
pub(crate) mod fake;
pub mod http;
pub mod metrics;
pub mod outside;
pub mod pending;
pub mod policy;
pub mod settle;
pub mod socket;
pub mod specs;
pub mod status;
pub mod systemd;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::host::files;

/// Where the daemon of the state in `state` keeps what it writes.
pub fn directory(state: &Path) -> PathBuf {
    state.join("watch")
}

/// Reads a file of ours; none if it is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file of ours, for its owner only: the old text is there or the new one, whatever happens.
fn write_json(path: &Path, what: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(what)?;
    bytes.push(b'\n');
    files::write_atomic(path, &bytes, 0o600)
}
