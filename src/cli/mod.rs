//! The command line: one file a verb.
//!
//! Exit codes: 0 done or valid; 1 an error; 2 with `plan --detailed-exitcode` when there are changes, and of `drift` when
//! there is some; 3 with `fmt --check` when a file is not as it should be, and of `status` when a plan waits for approval;
//! 130 when interrupted. `ssh` ends with the code of ssh.

mod apply;
mod approve;
mod candidates;
mod completions;
mod console;
mod destroy;
mod doctor;
#[cfg(test)]
mod documented;
mod drift;
mod explain;
mod fmt;
mod format;
mod given;
mod graph;
mod handover;
mod history;
mod image;
mod import;
mod interrupt;
mod ip;
mod journal;
mod leases;
mod lock;
mod logs;
mod man;
mod plan;
mod power;
mod reboot;
mod rebuild;
mod saved;
mod schema;
mod scope;
mod servers;
mod session;
mod show;
mod ssh;
mod state;
mod status;
mod telling;
mod trash;
mod validate;
mod vnc;
mod wait;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::report;
use crate::spec::Inputs;

/// An error was met, and has been printed.
const FAILED: u8 = 1;
/// The arguments do not go together.
const USAGE: u8 = 2;
/// There are changes (`plan --detailed-exitcode`), or there is drift (`drift`).
const CHANGES: u8 = 2;
/// A plan waits for approval (`status`).
const PENDING: u8 = 3;
/// A file has not its canonical form (`fmt --check`).
const UNFORMATTED: u8 = 3;
/// A signal ended the work: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// Makes the virtual machines of this host what the files in `specs/` say.
#[derive(Debug, Parser)]
#[command(name = "novella", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Args)]
struct Global {
    /// The directory of the spec files
    #[arg(long, global = true, value_name = "DIR", env = "NOVELLA_SPECS", default_value = "specs")]
    specs: PathBuf,
    #[arg(skip)]
    given: given::Arguments,
    /// The directory of the state
    #[arg(long, global = true, value_name = "DIR", env = "NOVELLA_STATE", default_value = "state")]
    state: PathBuf,
    /// The host to work on: this machine, or a simulated one that is kept in the state directory
    #[arg(long, global = true, value_name = "BACKEND", env = "NOVELLA_BACKEND", default_value = "libvirt")]
    backend: Backend,
    /// What to log to standard error, such as `debug` or `novella::host=trace`; `RUST_LOG` does the same
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// Print without colours
    #[arg(long, global = true)]
    no_color: bool,
}

impl Global {
    /// Where the spec is, with what is laid over it and what its variables are given.
    fn inputs(&self) -> Inputs {
        Inputs { directory: self.specs.clone(), overlays: self.given.overlays.clone(), given: self.given.given() }
    }
}

/// Where objects are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// This machine.
    Libvirt,
    /// A strict host in memory. Needs no root, no libvirt and no images.
    Sim,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the spec files and show every problem at its place
    Validate(validate::Arguments),
    /// Show what `apply` would do, with every address; touches nothing
    Plan(plan::Arguments),
    /// Show what the host has against what was recorded; the spec's edits do not count, and nothing is touched
    Drift(drift::Arguments),
    /// Make the host what the spec says, or carry out a saved plan
    Apply(apply::ApplyArguments),
    /// Take away everything that was made
    Destroy(apply::Arguments),
    /// Shut servers down and start them again, one after the other
    Reboot(reboot::Arguments),
    /// Give servers a new root disk from their image; they keep addresses, MACs and names
    Rebuild(rebuild::RebuildArguments),
    /// Show the servers with their state and addresses, or a saved plan
    Show(show::Arguments),
    /// Show who holds which address: what was planned, and what is leased
    Leases(leases::Arguments),
    /// Show which addresses of a network are in use, and which are free
    Ip(ip::Arguments),
    /// Tell libvirt domains of others as a spec that takes them over, naming all that would differ; they are only read
    Import(import::Arguments),
    /// Show and tidy the image cache, and lock images to what they are
    Image(image::Arguments),
    /// Apply whatever is saved, and keep it so; what would destroy or disturb waits for approval
    Watch(watch::Arguments),
    /// Let the plan go that the daemon has waiting; without a digest, show it
    Approve(approve::Arguments),
    /// Show how things are with the daemon: 0 healthy, 1 degraded or not running, 3 a plan waits for approval
    Status(status::Arguments),
    /// Show what was done, by whom, and how it ended
    History(history::Arguments),
    /// Look at what is recorded, and mend it by hand; the host is never touched
    #[command(subcommand)]
    State(state::State),
    /// Turn servers on, for the moment: the spec still says what is wanted
    Start(power::StartArguments),
    /// Shut servers off, for the moment: the spec still says what is wanted
    Stop(power::StopArguments),
    /// Wait until servers run, have their address, can be logged in to, or are set up
    Wait(wait::Arguments),
    /// Log in to a server by SSH
    Ssh(ssh::Arguments),
    /// Sit at the serial console of a server; Ctrl-] leaves it
    Console(console::Arguments),
    /// Show what a server has said on its console
    Logs(logs::Arguments),
    /// Tell where the screen of a server can be seen by VNC
    Vnc(vnc::Arguments),
    /// Show disks that were taken away, put them back, or remove them for good
    Trash(trash::Arguments),
    /// Check that this machine has all that is needed, and say how to mend what is not
    Doctor,
    /// Tell where a value comes from, what was made of it, and what a change of it costs
    Explain(explain::Arguments),
    /// Draw what refers to what, as a picture, or for Graphviz or Mermaid
    Graph(graph::Arguments),
    /// Give the spec files their canonical spacing; comments and order stay
    Fmt(fmt::Arguments),
    /// Print the JSON Schema of the spec files, for editors
    Schema,
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
    /// Print what makes a shell complete verbs, options, and the names in the spec and the state
    Completions(completions::Arguments),
}

fn command() -> clap::Command {
    given::everywhere(Cli::command())
}

/// Runs the program with the arguments it was started with.
pub fn run() -> ExitCode {
    candidates::answer();
    let matches = command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.given = given::Arguments::read(&matches);
    if cli.global.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    log(cli.global.log.as_deref());
    // What we write is ours alone unless we say otherwise: a state has secrets in it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let Cli { global, verb } = cli;
    let result = match verb {
        Verb::Validate(arguments) => validate::run(&global, &arguments),
        Verb::Plan(arguments) => plan::run(&global, &arguments),
        Verb::Drift(arguments) => drift::run(&global, &arguments),
        Verb::Apply(arguments) => apply::run(&global, &arguments),
        Verb::Destroy(arguments) => destroy::run(&global, &arguments),
        Verb::Reboot(arguments) => reboot::run(&global, &arguments),
        Verb::Rebuild(arguments) => rebuild::run(&global, &arguments),
        Verb::Show(arguments) => show::run(&global, &arguments),
        Verb::Leases(arguments) => leases::run(&global, &arguments),
        Verb::Ip(arguments) => ip::run(&global, &arguments),
        Verb::Import(arguments) => import::run(&global, &arguments),
        Verb::Image(arguments) => image::run(&global, &arguments),
        Verb::Watch(arguments) => watch::run(&global, &arguments),
        Verb::Approve(arguments) => approve::run(&global, &arguments),
        Verb::Status(arguments) => status::run(&global, &arguments),
        Verb::History(arguments) => history::run(&global, &arguments),
        Verb::State(verb) => state::run(&global, &verb),
        Verb::Start(arguments) => power::start(&global, &arguments),
        Verb::Stop(arguments) => power::stop(&global, &arguments),
        Verb::Wait(arguments) => wait::run(&global, &arguments),
        Verb::Ssh(arguments) => ssh::run(&global, &arguments),
        Verb::Console(arguments) => console::run(&global, &arguments),
        Verb::Logs(arguments) => logs::run(&global, &arguments),
        Verb::Vnc(arguments) => vnc::run(&global, &arguments),
        Verb::Trash(arguments) => trash::run(&global, &arguments),
        Verb::Doctor => doctor::run(&global),
        Verb::Explain(arguments) => explain::run(&global, &arguments),
        Verb::Graph(arguments) => graph::run(&global, &arguments),
        Verb::Fmt(arguments) => fmt::run(&global, &arguments),
        Verb::Schema => {
            schema::run();
            Ok(())
        }
        Verb::Man(arguments) => man::run(&arguments, command()),
        Verb::Completions(arguments) => completions::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop(code)) => ExitCode::from(code),
    }
}

/// Ends the program with this code. All that is to be said has been said.
#[derive(Clone, Copy, Debug)]
struct Stop(u8);

impl Stop {
    /// Prints an error and ends with code 1.
    fn error(error: &dyn std::error::Error, help: Option<&str>) -> Self {
        report::error::print(error, help);
        Self(FAILED)
    }

    /// The same of a deed on the host.
    fn host(error: &crate::host::HostError) -> Self {
        report::error::print_named(error, error.code.as_deref(), error.help.as_deref());
        Self(FAILED)
    }
}

impl From<crate::host::HostError> for Stop {
    fn from(error: crate::host::HostError) -> Self {
        Self::host(&error)
    }
}

impl From<crate::store::StoreError> for Stop {
    fn from(error: crate::store::StoreError) -> Self {
        Self::error(&error, error.help.as_deref())
    }
}

fn log(filter: Option<&str>) {
    let filter = match filter {
        Some(filter) => EnvFilter::builder().parse_lossy(filter),
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn")),
    };
    // What is logged within a pass or a step says of which, whatever part of the program is asked for.
    let spans = ["[pass]=error", "[step]=error"].into_iter().filter_map(|span| span.parse().ok());
    let filter = spans.fold(filter, EnvFilter::add_directive);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(report::Log)
        .with_ansi(false)
        .with_level(!report::is_journal())
        .without_time()
        .init();
}
