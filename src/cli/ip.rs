//! `novella ip`: the addresses of a network, from the spec and the state alone.

use clap::Subcommand;

use crate::address::ResourceKind;
use crate::blueprint::usage;
use crate::cli::{FAILED, Global, Stop, candidates, session};
use crate::diagnostic::has_errors;
use crate::report;
use crate::report::addresses;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show every address that is in use, by whom, and how it was come by
    List(Of),
    /// Show what is free in the pools, and what is given next
    Free(Of),
}

#[derive(Debug, clap::Args)]
struct Of {
    /// The network, as `private` or `network.private`
    #[arg(add = candidates::networks())]
    network: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (What::List(of) | What::Free(of)) = &arguments.what;
    let (desired, source) = session::spec(global)?;
    let network = session::find(ResourceKind::Network, &desired.networks, &of.network, &source)?;
    let recorded = session::recorded(global)?;
    let mut problems = Vec::new();
    let usage = usage::of(network, &desired, &recorded, &mut problems);
    report::diagnostics::print(&problems, &source);
    report::out(match (&arguments.what, of.json) {
        (What::List(_), true) => addresses::used_json(&network.name, &usage.used),
        (What::List(_), false) => addresses::used(&network.name, &usage.used),
        (What::Free(_), true) => addresses::free_json(&network.name, &usage.free),
        (What::Free(_), false) => addresses::free(&network.name, &usage.free),
    });
    // Whoever has run out of addresses wants to see them all the more.
    if has_errors(&problems) { Err(Stop(FAILED)) } else { Ok(()) }
}
