//! The daemon, with real files, real inotify and real signals, on the simulated host.
//!
//! - [`home`]: a place in which a daemon runs.
//! - [`saves`]: every way in which a spec is saved, lost and found again.
//! - [`consent`]: what waits, and what lets it go.
//! - [`handover`]: plans that are handed over, and approvals by the socket.
//! - [`life`]: two daemons, kills, signals, others at work.
//! - [`journal`]: what it says, and what the log says of passes and steps.
//! - [`metrics`]: what it tells monitoring.
//! - [`socket`]: who asks it what it does, well or badly.
//! - [`policy`]: what goes by itself, as a table.

#[path = "../common/mod.rs"]
mod common;

mod consent;
mod handover;
mod home;
mod journal;
mod life;
mod metrics;
mod policy;
mod saves;
mod socket;
