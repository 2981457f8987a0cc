//! `novella validate`.

use clap::ValueEnum;

use crate::cli::{Global, Stop, session};
use crate::report::{self, Voice};

/// How problems are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For the log of a GitHub workflow, with annotations at the lines of the spec.
    Github,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How problems are told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    if arguments.format == Format::Github {
        report::speak(Voice::Github);
    }
    let (desired, _) = session::spec(global)?;
    report::line(format_args!(
        "{}Success!{:#} The configuration is valid: {}, {}, {}.",
        report::ADD,
        report::ADD,
        report::count(desired.networks.len(), "network"),
        report::count(desired.images.len(), "image"),
        report::count(desired.servers.len(), "server")
    ));
    Ok(())
}
