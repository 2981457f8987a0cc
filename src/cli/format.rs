//! `--format`, `--json` and `--html`: how a plan is written.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::address::Name;
use crate::blueprint::facts::Disruption;
use crate::cli::Stop;
use crate::host::HostError;
use crate::plan::Plan;
use crate::plan::world::Recorded;
use crate::report::{self, Voice};
use crate::spec::Source;

/// How a plan is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For tools: `docs/plan.schema.json` describes it.
    Json,
    /// For a comment on a merge request, at most as long as GitHub takes.
    Markdown,
    /// For the log of a GitHub workflow, with annotations at the lines of the spec.
    Github,
}

#[derive(Debug, clap::Args)]
pub(super) struct FormatArguments {
    /// How the plan is written to standard output
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Write the plan as a page to this file as well
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl FormatArguments {
    const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    /// Makes all that is said from now on suit the format.
    pub(super) fn begin(&self) {
        if self.format() == Format::Github {
            report::speak(Voice::Github);
        }
    }

    /// What `show` wants to know of what is recorded.
    pub(super) fn keep(&self, recorded: &Recorded) -> Recorded {
        match self.format() {
            Format::Text | Format::Github if self.html.is_none() => Recorded::default(),
            _ => recorded.clone(),
        }
    }

    /// Writes the plan.
    pub(super) fn show(
        &self,
        plan: &Plan,
        recorded: &Recorded,
        (project, source): (&Name, &Source),
        most: Option<Disruption>,
    ) -> Result<(), Stop> {
        match self.format() {
            Format::Text => report::out(report::plan::render_within(plan, most)),
            Format::Json => report::out(report::document::render(plan, recorded, source)),
            Format::Markdown => {
                report::out(report::markdown::render(plan, recorded, source, most, report::markdown::LIMIT));
            }
            Format::Github => report::out(report::github::inert(&report::plan::render_within(plan, most))),
        }
        let Some(file) = &self.html else { return Ok(()) };
        let page = report::html::render(plan, recorded, source, project, most);
        std::fs::write(file, page).map_err(|error| {
            let error = HostError::new(format!("cannot write `{}`", file.display()), error);
            Stop::error(&error, None)
        })
    }
}
