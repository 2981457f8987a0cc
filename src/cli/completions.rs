//! `novella completions`.

use clap_complete::Shell;

use crate::cli::Stop;
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The shell to complete in
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, command: &mut clap::Command) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "novella", &mut script);
    report::out(String::from_utf8_lossy(&script));
    Ok(())
}
