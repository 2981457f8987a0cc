//! `novella state mv` and `novella state rm`.

use crate::address::Address;
use crate::cli::session::{self, Patience};
use crate::cli::state::{self, Edit, rewrite};
use crate::cli::{Global, Stop, candidates};
use crate::plan::records::{self, Refusal};
use crate::report;
use crate::store::Store as _;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct MvArguments {
    /// The resource as it is recorded, as `image.debian`
    #[arg(value_parser = state::address, add = candidates::recorded_addresses())]
    from: Address,
    /// The same under its new name
    #[arg(value_parser = state::address)]
    to: Address,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArguments {
    /// The resources, as `server.web`
    #[arg(required = true, value_name = "ADDRESS", value_parser = state::address, add = candidates::recorded_addresses())]
    addresses: Vec<Address>,
    #[command(flatten)]
    patience: Patience,
}

fn refused(refusal: &Refusal) -> Stop {
    Stop::error(refusal, refusal.help())
}

pub(super) fn mv(global: &Global, arguments: &MvArguments) -> Result<(), Stop> {
    let MvArguments { from, to, patience } = arguments;
    let store = session::store(global, "state mv", *patience)?;
    let before = store.load()?;
    let mut after = before.clone();
    let rest = records::rename(&mut after, from, to).map_err(|refusal| refused(&refusal))?;
    let edit = Edit { operation: "state mv", spec: None, summary: format!("{from} to {to}") };
    rewrite(&store, before, &after, edit)?;
    report::line(format_args!("{from} is recorded as {to} now: {rest}."));
    report::note(format_args!("note: rename it in the spec as well, before the next `apply`"));
    Ok(())
}

pub(super) fn rm(global: &Global, arguments: &RmArguments) -> Result<(), Stop> {
    let store = session::store(global, "state rm", arguments.patience)?;
    let before = store.load()?;
    let mut after = before.clone();
    let keys = records::forget(&mut after, &arguments.addresses).map_err(|refusal| refused(&refusal))?;
    let addresses: Vec<String> = arguments.addresses.iter().map(Address::to_string).collect();
    let addresses = addresses.join(", ");
    let edit = Edit { operation: "state rm", spec: None, summary: format!("forgot {addresses}") };
    rewrite(&store, before, &after, edit)?;
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    report::line(format_args!("Forgot {addresses}: {}.", report::clean_line(&keys.join(", "))));
    report::note(
        "note: all of it stays on the host, with our mark. What the spec still has, the next `apply` finds by that and \
         records again; what it has not, novella leaves alone from now on",
    );
    Ok(())
}
