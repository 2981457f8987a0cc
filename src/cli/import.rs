//! `novella import`: a domain of others, told as a spec. It is only looked at.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::address::{Address, Name, ResourceKind};
use crate::cli::servers::machine;
use crate::cli::session::{self, Target};
use crate::cli::{Global, Stop};
use crate::host::HostError;
use crate::host::domain_xml::foreign::{self, Unsayable};
use crate::host::files::sync_parent;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server it is to be in the spec, as `web` or `server.web`
    #[arg(value_parser = server)]
    server: Name,
    /// The name of the domain, as `virsh list --all` has it
    domain: String,
    /// Write a new file in place of printing; one that is there is never written over
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
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
    let (desired, _) = session::spec(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let foreign = machine(&target, "import")?.hypervisor().foreign(&arguments.domain)?;
    let described = foreign::describe(&arguments.server, &foreign).map_err(|error| {
        let help = match &error {
            Unsayable::Field { help, .. } => Some(*help),
            Unsayable::Xml(_) => None,
        };
        let failed = HostError::new(format!("cannot tell domain `{}` as a server", arguments.domain), error);
        Stop::host(&match help {
            Some(help) => failed.help(help),
            None => failed,
        })
    })?;
    match &arguments.out {
        None => report::out(report::clean(&described.toml)),
        Some(path) => write_new(path, &described.toml)?,
    }
    let said = report::count(described.differing.len(), "field");
    let domain = report::clean_line(&arguments.domain);
    report::note(format_args!(
        "note: {said} of `{domain}` would differ, each with `# differs:`; the domain was only read"
    ));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), HostError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_parent(path)
    });
    written.map_err(|error| {
        let there = error.kind() == ErrorKind::AlreadyExists;
        let error = HostError::new(format!("cannot write `{}`", path.display()), error);
        if there { error.help("`import` writes over nothing: name another file") } else { error }
    })
}
