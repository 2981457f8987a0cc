//! `novella import`: domains of others, told as a spec. They are only looked at.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::address::{Address, Name, ResourceKind};
use crate::cli::servers::machine;
use crate::cli::session::{self, Target};
use crate::cli::{CHANGES, FAILED, Global, Stop};
use crate::desired::{self, Desired};
use crate::host::HostError;
use crate::host::domain_xml::foreign::{Described, Foreign, Unsayable, name_of, unique};
use crate::host::domain_xml::foreign_network::Networks;
use crate::host::files::sync_parent;
use crate::host::hypervisor;
use crate::import::{self, Place};
use crate::report;
use crate::spec::load;

/// The file of all networks, beside those of the servers.
const NETWORKS: &str = "networks";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server it is to be in the spec, as `web` or `server.web`
    #[arg(value_parser = server, required_unless_present = "all", conflicts_with = "all")]
    server: Option<Name>,
    /// The name of the domain, as `virsh list --all` has it
    #[arg(required_unless_present = "all")]
    domain: Option<String>,
    /// Every domain of others that this libvirt has, each as a server of its own name
    #[arg(long)]
    all: bool,
    /// Write a new file in place of printing, with `--all` one for each server into this directory; nothing is written over
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Write no spec, and say in which fields each would differ: from the server of the present spec if it has one of this
    /// name. Exit with 2 when some do, 0 when none does
    #[arg(long, conflicts_with = "out")]
    verify: bool,
}

fn server(text: &str) -> Result<Name, String> {
    if !text.contains('.') {
        return text.parse().map_err(|error| format!("{error}"));
    }
    let address: Address = text.parse().map_err(|error| format!("{error}"))?;
    match address.kind {
        ResourceKind::Server => Ok(address.name),
        kind => Err(format!("a domain becomes a server, not a {}", kind.as_str())),
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let desired = spec(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let hypervisor = machine(&target, "import")?.hypervisor();
    let foreign = match (&arguments.server, &arguments.domain) {
        (Some(server), Some(domain)) => vec![(server.clone(), hypervisor.foreign(domain)?)],
        _ => named(hypervisor.all_foreign()?),
    };
    let place = Place {
        project: desired.project.clone(),
        host: desired.host.clone(),
        virt_type: target.host().facts()?.virt_type,
    };
    let on_host = hypervisor::on_host();
    let networks = |of: &[&Foreign]| Networks::of(of.iter().copied(), &on_host);
    let tell = |server: &Name, foreign: &Foreign, networks: &Networks| {
        let is_declared = arguments.verify && !arguments.all && desired.servers.contains_key(server);
        match is_declared {
            true => import::against(&desired, server, foreign, place.virt_type).map(Described::of),
            false => import::describe(server, foreign, networks, &place),
        }
    };
    let all = networks(&foreign.iter().map(|(_, foreign)| foreign).collect::<Vec<_>>());
    let mut told: Vec<Told> =
        foreign.iter().map(|(server, foreign)| (server, foreign, tell(server, foreign, &all))).collect();
    // Those that can be no servers need no networks.
    let networks = networks(&told.iter().filter(|(.., it)| it.is_ok()).map(|(_, it, _)| *it).collect::<Vec<_>>());
    for (server, foreign, described) in told.iter_mut().filter(|(.., it)| it.is_ok()) {
        *described = tell(server, foreign, &networks);
    }
    if let ([(_, foreign, Err(error))], false) = (told.as_slice(), arguments.all) {
        return Err(Stop::host(&unsayable(foreign, error)));
    }
    match arguments.verify {
        true => verify(&told),
        false => {
            write(arguments, &told, &networks)?;
            report_unsayable(&told)
        }
    }
}

/// A server, the domain that it is, and how that is told.
type Told<'f> = (&'f Name, &'f Foreign, Result<Described, Unsayable>);

/// The spec, of which only project and host matter as a rule. One that is not there yet is one that says nothing.
fn spec(global: &Global) -> Result<Desired, Stop> {
    let is_none = match load::list(&global.specs) {
        Ok(files) => files.is_empty(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if !is_none {
        return session::spec(global).map(|(desired, _)| desired);
    }
    let nothing = load::load_texts([]);
    desired::resolve(&nothing.spec, &nothing.source).0.ok_or(Stop(FAILED))
}

/// Each with a name of its own.
fn named(foreign: Vec<Foreign>) -> Vec<(Name, Foreign)> {
    let mut taken: BTreeSet<Name> = NETWORKS.parse().into_iter().collect();
    let like = |foreign: &Foreign| name_of(&foreign.name).or_else(|| name_of(&format!("server-{}", foreign.name)));
    foreign.into_iter().filter_map(|foreign| Some((unique(like(&foreign)?, &mut taken), foreign))).collect()
}

fn unsayable(foreign: &Foreign, error: &Unsayable) -> HostError {
    let failed = HostError::new(format!("cannot tell domain `{}` as a server", foreign.name), error.to_string());
    match error.help() {
        Some(help) => failed.help(help),
        None => failed,
    }
}

/// Says of each why it can be no server; an error if none can.
fn report_unsayable(told: &[Told]) -> Result<(), Stop> {
    let mut stop = Ok(());
    for (_, foreign, described) in told {
        if let Err(error) = described {
            stop = Err(Stop::host(&unsayable(foreign, error)));
        }
    }
    if told.iter().any(|(.., described)| described.is_ok()) { Ok(()) } else { stop }
}

fn verify(told: &[Told]) -> Result<(), Stop> {
    for (server, foreign, described) in told {
        let (domain, differing) = (report::clean_line(&foreign.name), described.as_ref().map(|it| &it.differing));
        match differing {
            Ok(differing) if differing.is_empty() => {
                report::line(format_args!("{domain} as server.{server}: zero changes"))
            }
            Ok(differing) => {
                let differ = report::count(differing.len(), "field");
                report::line(format_args!("{domain} as server.{server}: {differ} would differ"));
                for field in differing {
                    report::line(format_args!("  {}", report::clean_line(field)));
                }
            }
            Err(_) => {}
        }
    }
    report_unsayable(told)?;
    let is_same = |(.., described): &Told| described.as_ref().is_ok_and(|it| it.differing.is_empty());
    if told.iter().all(is_same) { Ok(()) } else { Err(Stop(CHANGES)) }
}

/// Prints or writes the specs, and says how much would differ.
fn write(arguments: &Arguments, told: &[Told], networks: &Networks) -> Result<(), Stop> {
    let sayable: Vec<(&Name, &Foreign, &Described)> =
        told.iter().filter_map(|(server, foreign, it)| Some((*server, *foreign, it.as_ref().ok()?))).collect();
    let (tables, unknown) = networks.toml();
    match (&arguments.out, sayable.as_slice()) {
        (_, []) => return Ok(()),
        (Some(directory), all) if arguments.all => write_all(directory, &tables, all)?,
        (out, all) => {
            let heads: String = all.iter().map(|(.., it)| it.head.as_str()).collect();
            let servers: String = all.iter().map(|(.., it)| it.toml.as_str()).collect();
            let text = format!("{heads}\nnovella = 1\n{tables}{servers}");
            match out {
                None => report::out(report::clean(&text)),
                Some(path) => write_new(path, &text)?,
            }
        }
    }
    for (_, foreign, described) in &sayable {
        let said = report::count(described.differing.len() + unknown.len(), "field");
        let domain = report::clean_line(&foreign.name);
        report::note(format_args!(
            "note: {said} of `{domain}` would differ, each with `# differs:`; the domain was only read"
        ));
    }
    Ok(())
}

/// Writes a file for each server, and one with the networks of all; nothing if one of them is there.
fn write_all(directory: &Path, networks: &str, all: &[(&Name, &Foreign, &Described)]) -> Result<(), HostError> {
    let path = |name: &str| directory.join(format!("{name}.toml"));
    let networks = format!("# The networks of the servers here.\n\nnovella = 1\n{networks}");
    let servers =
        all.iter().map(|(server, _, it)| (path(server.as_str()), format!("{}\nnovella = 1\n{}", it.head, it.toml)));
    let files: Vec<(PathBuf, String)> = servers.chain([(path(NETWORKS), networks)]).collect();
    if let Some((there, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        return Err(cannot_write(there, ErrorKind::AlreadyExists.into()));
    }
    std::fs::create_dir_all(directory).map_err(|error| cannot_write(directory, error))?;
    files.iter().try_for_each(|(path, text)| write_new(path, text))
}

fn write_new(path: &Path, text: &str) -> Result<(), HostError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_parent(path)
    });
    written.map_err(|error| cannot_write(path, error))
}

fn cannot_write(path: &Path, error: std::io::Error) -> HostError {
    let there = error.kind() == ErrorKind::AlreadyExists;
    let error = HostError::new(format!("cannot write `{}`", path.display()), error);
    if there { error.help("`import` writes over nothing: name another file") } else { error }
}
