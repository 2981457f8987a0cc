//! `novella completions`.

use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::cli::{Stop, candidates};
use crate::host::HostError;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to complete in
    shell: Shell,
}

/// The script asks the `novella` that is on the path: for verbs and options, and for what the spec and the state have.
pub(super) fn run(arguments: &Arguments) -> Result<(), Stop> {
    let shell = arguments.shell.to_string();
    let refused = || HostError::refused(format!("there are no completions for `{shell}`"));
    let shells = Shells::builtins();
    let completer = shells.completer(&shell).ok_or_else(refused)?;
    let mut script = Vec::new();
    completer
        .write_registration(candidates::ASKED, "novella", "novella", "novella", &mut script)
        .map_err(|error| HostError::new("cannot write the completions", error))?;
    report::out(String::from_utf8_lossy(&script));
    Ok(())
}
