//! `novella man`.

use std::path::PathBuf;

use crate::cli::Stop;
use crate::host::HostError;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The directory that the pages are written to
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, command: clap::Command) -> Result<(), Stop> {
    let directory = &arguments.directory;
    let failed = |error| HostError::new(format!("cannot write manual pages to `{}`", directory.display()), error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(command, directory).map_err(failed)?;
    Ok(())
}
