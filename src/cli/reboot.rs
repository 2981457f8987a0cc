//! `novella reboot`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::key::domain_key;
use crate::blueprint::object::Domain;
use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, INTERRUPTED, Stop, candidates, interrupt};
use crate::host::HostError;
use crate::plan::world::Recorded;
use crate::report;
use crate::report::{ADD, BOLD};
use crate::store::Store as _;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only those that wait for a reboot; all of them if none is named
    #[arg(long)]
    pending: bool,
    /// The servers, by name
    #[arg(value_name = "SERVER", required_unless_present = "pending", add = candidates::servers())]
    servers: Vec<Name>,
    #[command(flatten)]
    patience: session::Patience,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let store = session::store(global, "reboot", arguments.patience)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let recorded = store.load()?;
    let mut chosen = choose(&recorded, &arguments.servers)?;
    if arguments.pending {
        let guests = target.host().observe()?.guests;
        chosen.retain(|domain| guests.get(&domain_key(&domain.server)).is_some_and(|guest| !guest.pending.is_empty()));
        if chosen.is_empty() {
            report::line("No server waits for a reboot.");
            return Ok(());
        }
    }
    let stop = interrupt::listen()?;
    let mut done = 0;
    let mut outcome = Ok(());
    for domain in &chosen {
        if stop.load(Ordering::SeqCst) {
            outcome = Err(Stop(INTERRUPTED));
            break;
        }
        let address = Address::new(ResourceKind::Server, domain.server.clone());
        report::line(format_args!("{BOLD}{address}:{BOLD:#} Rebooting..."));
        let begun = Instant::now();
        match target.reboot(domain) {
            Ok(()) => {
                done += 1;
                let elapsed = begun.elapsed().as_secs_f32();
                report::line(format_args!("{BOLD}{address}:{BOLD:#} Reboot complete after {elapsed:.1}s"));
            }
            Err(error) => {
                // The others may be the ones on which it depends.
                outcome = Err(error.into());
                break;
            }
        }
    }
    target.save()?;
    let count = report::count(done, "server");
    match outcome {
        Ok(()) => report::line(format_args!("\n{ADD}{BOLD}Reboot complete!{BOLD:#}{ADD:#} {count} rebooted.")),
        Err(_) => report::note(format_args!("\n{count} of {} rebooted.", chosen.len())),
    }
    outcome
}

/// The servers with these names, or all that are recorded; each after those that it depends on.
fn choose<'r>(recorded: &'r Recorded, names: &[Name]) -> Result<Vec<&'r Domain>, Stop> {
    let domains: Vec<&Domain> = recorded.records.values().filter_map(|record| record.object.as_domain()).collect();
    for name in names {
        if !domains.iter().any(|domain| domain.server == *name) {
            let error = HostError::refused(format!("there is no server `{name}`"));
            let near =
                crate::diagnostic::did_you_mean(name.as_str(), domains.iter().map(|domain| domain.server.as_str()));
            let help = near.map_or("`novella show` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
            report::error::print(&error, Some(&help));
            return Err(Stop(FAILED));
        }
    }
    let mut left: Vec<&Domain> =
        domains.into_iter().filter(|domain| names.is_empty() || names.contains(&domain.server)).collect();
    let mut chosen: Vec<&Domain> = Vec::new();
    let mut waiting: BTreeSet<&Name> = left.iter().map(|domain| &domain.server).collect();
    while !left.is_empty() {
        let first = left.iter().position(|domain| !domain.depends_on.iter().any(|other| waiting.contains(other)));
        // A circle, as records of several runs may make one, is begun anywhere.
        let next = left.remove(first.unwrap_or(0));
        waiting.remove(&next.server);
        chosen.push(next);
    }
    Ok(chosen)
}
