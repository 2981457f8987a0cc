//! `novella start` and `novella stop`: power by hand, for the moment. What the spec says stays what is wanted, so the next
//! `apply` undoes it where the two differ.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::address::Name;
use crate::blueprint::key::domain_key;
use crate::blueprint::object::{Object, Power};
use crate::cli::servers::Servers;
use crate::cli::session::Target;
use crate::cli::{FAILED, Global, Stop, candidates};
use crate::host::HostError;
use crate::report::{self, BOLD};

/// How many are started or stopped at once.
const AT_ONCE: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct StartArguments {
    /// The servers, as `web` or `server.web`
    #[arg(required = true, value_name = "SERVER", add = candidates::servers())]
    servers: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StopArguments {
    /// The servers, as `web` or `server.web`
    #[arg(required = true, value_name = "SERVER", add = candidates::servers())]
    servers: Vec<String>,
    /// Force them off at once, as if the plug were pulled
    #[arg(long)]
    force: bool,
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Deed {
    Start,
    Stop { force: bool },
}

pub(super) fn start(global: &Global, arguments: &StartArguments) -> Result<(), Stop> {
    run(global, &arguments.servers, Deed::Start)
}

pub(super) fn stop(global: &Global, arguments: &StopArguments) -> Result<(), Stop> {
    run(global, &arguments.servers, Deed::Stop { force: arguments.force })
}

fn run(global: &Global, written: &[String], deed: Deed) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let names: Vec<&Name> = servers.made(written)?.into_iter().map(|domain| &domain.server).collect();
    let target = servers.target(global)?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..names.len().min(AT_ONCE) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if carry_out(&target, name, deed) {
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(*name);
                    }
                }
            });
        }
    });
    target.save()?;
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    drift(&servers, &done, deed);
    if done.len() == names.len() { Ok(()) } else { Err(Stop(FAILED)) }
}

/// Does it, and says what came of it.
fn carry_out(target: &Target, name: &Name, deed: Deed) -> bool {
    let begun = Instant::now();
    let outcome = match (target, deed) {
        (Target::Machine(machine), Deed::Start) => machine.hypervisor().start(name),
        (Target::Machine(machine), Deed::Stop { force }) => machine.hypervisor().stop(name, force),
        (Target::Sim(sim), deed) => {
            let wanted = match deed {
                Deed::Start => Power::On,
                Deed::Stop { .. } => Power::Off,
            };
            let mut changed = false;
            let there = sim.alter(&domain_key(name), |object| {
                if let Object::Domain(domain) = object {
                    changed = domain.power != wanted;
                    domain.power = wanted;
                }
            });
            if there { Ok(changed) } else { Err(HostError::refused("the simulated host has no such domain")) }
        }
    };
    let said = match (&outcome, deed) {
        (Ok(true), Deed::Start) => "started",
        (Ok(false), Deed::Start) => "runs already",
        (Ok(true), Deed::Stop { force: true }) => "forced off",
        (Ok(true), Deed::Stop { force: false }) => "shut off",
        (Ok(false), Deed::Stop { .. }) => "is off already",
        (Err(_), Deed::Start) => "not started",
        (Err(_), Deed::Stop { .. }) => "not shut off",
    };
    match outcome {
        Ok(true) => {
            let took = report::progress::seconds(begun.elapsed());
            report::line(format_args!("{BOLD}server.{name}{BOLD:#}: {said} after {took}"));
            true
        }
        Ok(false) => {
            report::line(format_args!("{BOLD}server.{name}{BOLD:#}: {said}"));
            true
        }
        Err(error) => {
            report::note(format_args!("{BOLD}server.{name}{BOLD:#}: {said}"));
            report::error::print(&error, error.help.as_deref());
            false
        }
    }
}

/// Says which of them the next apply will put back.
fn drift(servers: &Servers, done: &[&Name], deed: Deed) {
    let wanted = match deed {
        Deed::Start => Power::Off,
        Deed::Stop { .. } => Power::On,
    };
    let differs = |name: &Name| servers.desired.servers.get(name).is_some_and(|server| server.power == wanted);
    let mut names: Vec<String> = done.iter().filter(|name| differs(name)).map(|it| format!("server.{it}")).collect();
    names.sort_unstable();
    if names.is_empty() {
        return;
    }
    let one = names.len() == 1;
    let (again, keep) = match (deed, one) {
        (Deed::Start, true) => ("shuts it off again", Power::On),
        (Deed::Start, false) => ("shuts them off again", Power::On),
        (Deed::Stop { .. }, true) => ("starts it again", Power::Off),
        (Deed::Stop { .. }, false) => ("starts them again", Power::Off),
    };
    report::note(format_args!(
        "note: the spec says `power = \"{}\"` for {}: the next `apply` {again}\n  \
         help: to keep it so, write `power = \"{}\"` in the spec",
        wanted.as_str(),
        names.join(", "),
        keep.as_str(),
    ));
}
