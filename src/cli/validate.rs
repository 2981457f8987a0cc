//! `novella validate`.

use crate::cli::{Global, Stop, session};
use crate::report;

pub(super) fn run(global: &Global) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    report::line(format_args!(
        "{}Success!{:#} The configuration is valid: {} networks, {} images, {} servers.",
        report::ADD,
        report::ADD,
        desired.networks.len(),
        desired.images.len(),
        desired.servers.len()
    ));
    Ok(())
}
