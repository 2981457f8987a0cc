//! `novella state list` and `novella state show`.

use crate::address::Address;
use crate::cli::{Global, Stop, candidates, session, state};
use crate::plan::records::{self, Refusal};
use crate::report;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArguments {
    /// The resource, as `server.web`
    #[arg(value_parser = state::address, add = candidates::recorded_addresses())]
    address: Address,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn list(global: &Global, arguments: &ListArguments) -> Result<(), Stop> {
    let recorded = session::recorded(global)?;
    match arguments.json {
        true => report::line(report::records::list_json(&recorded)),
        false => report::out(report::records::list(&recorded)),
    }
    Ok(())
}

pub(super) fn show(global: &Global, arguments: &ShowArguments) -> Result<(), Stop> {
    let mut recorded = session::recorded(global)?;
    let keys = records::keys_of(&recorded, &arguments.address);
    if keys.is_empty() {
        let refusal = Refusal::Unrecorded(arguments.address.clone());
        return Err(Stop::error(&refusal, refusal.help()));
    }
    recorded.records.retain(|key, _| keys.contains(key));
    match arguments.json {
        true => report::line(report::records::show_json(&arguments.address, &recorded)),
        false => report::out(report::records::show(&arguments.address, &recorded)),
    }
    Ok(())
}
