//! `novella validate`.

use crate::cli::{Global, Stop, session};
use crate::report;

pub(super) fn run(global: &Global) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    report::line(format_args!(
        "{}Success!{:#} The configuration is valid: {}, {}, {}.",
        report::ADD,
        report::ADD,
        report::count(desired.networks.len(), "network"),
        report::count(desired.images.len(), "image"),
        report::count(desired.servers.len(), "server")
    ));
    Ok(())
}
