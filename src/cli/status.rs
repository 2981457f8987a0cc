//! `novella status`.

use serde_json::json;

use crate::cli::{FAILED, Global, PENDING, Stop, session};
use crate::report;
use crate::store::StoreError;
use crate::store::lock::StateLock;
use crate::value::unix_now;
use crate::watch;
use crate::watch::socket::client;
use crate::watch::status::{Health, Status};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let state = session::state_dir(global);
    let dir = watch::directory(&state);
    let status = Status::read(&dir).map_err(|error| StoreError::new("cannot read the status of the daemon", error))?;
    // A lock goes with its process, so it tells more than a number that another process may have by now.
    let holder = StateLock::holder(&dir);
    // One that does not answer has told how things were.
    let now = holder.as_ref().and_then(|_| client::now(&state).ok());
    if arguments.json {
        let text = json!({ "format_version": "1.0", "running": holder.is_some(), "now": now, "status": status });
        report::line(serde_json::to_string_pretty(&text).unwrap_or_default());
    } else {
        report::out(report::watch::status(status.as_ref(), holder.as_ref(), unix_now()));
        report::out(now.map(|now| report::watch::now(&now, unix_now())).unwrap_or_default());
    }
    match status.filter(|_| holder.is_some()).map(|status| status.health) {
        Some(Health::Healthy | Health::WaitingForReboot) => Ok(()),
        Some(Health::PendingApproval) => Err(Stop(PENDING)),
        Some(Health::Degraded) | None => Err(Stop(FAILED)),
    }
}
