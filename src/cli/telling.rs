//! How a walk is told: to people, or to tools.

use std::sync::Arc;

use crate::apply::{Observer, Outcome};
use crate::blueprint::facts::Disruption;
use crate::cli::{Stop, USAGE};
use crate::host::OnProgress;
use crate::plan::Plan;
use crate::report::located::Located;
use crate::report::plan::Counts;
use crate::report::progress::Progress;
use crate::report::stream::{self, Stream};
use crate::report::{self, ADD, BOLD, REMOVE, Voice};

/// To whom a walk is told.
pub(super) enum Telling {
    /// To people, as text.
    People(Arc<Progress>),
    /// To tools, as one JSON object a line.
    Tools(Arc<Stream>),
}

impl Telling {
    /// To tools with `json`. They cannot answer a question, so it must not be asked.
    pub(super) fn new(json: bool, is_approved: bool) -> Result<Self, Stop> {
        if !json {
            return Ok(Self::People(Arc::default()));
        }
        report::speak(Voice::Stream);
        stream::version();
        if !is_approved {
            let help = "look at `novella plan --json` first";
            let error = Located::error("`--json` needs `--auto-approve`: a tool cannot be asked", Some(help), None);
            report::error::say(&error);
            return Err(Stop(USAGE));
        }
        Ok(Self::Tools(Arc::default()))
    }

    /// Takes the progress of long steps.
    pub(super) fn sink(&self) -> OnProgress {
        match self {
            Self::People(progress) => progress.sink(),
            Self::Tools(stream) => stream.sink(),
        }
    }

    /// Takes what happens.
    pub(super) fn observer(&self) -> &dyn Observer {
        match self {
            Self::People(progress) => progress.as_ref(),
            Self::Tools(stream) => stream.as_ref(),
        }
    }

    /// Tells what is to be done.
    pub(super) fn plan(&self, plan: &Plan, most: Option<Disruption>) {
        match self {
            Self::People(_) => report::out(report::plan::render_within(plan, most)),
            Self::Tools(_) => stream::planned(plan),
        }
    }

    /// Tells that it begins.
    pub(super) fn begin(&self, plan: &Plan) {
        match self {
            Self::People(_) => report::line(""),
            Self::Tools(stream) => stream.begin(plan),
        }
    }

    /// Tells of something else that is worth knowing.
    pub(super) fn remark(&self, text: &str) {
        match self {
            Self::People(_) => report::line(text),
            Self::Tools(_) => stream::log(text),
        }
    }

    /// Tells that all was done.
    pub(super) fn complete(&self, words: &str, counts: Counts, operation: &'static str) {
        let said = format!("{words} {}", resources(counts));
        match self {
            Self::People(_) => report::line(format_args!("\n{ADD}{BOLD}{said}{BOLD:#}{ADD:#}")),
            Self::Tools(_) => stream::summary(&said, counts, operation),
        }
    }

    /// Tells that not all was done.
    pub(super) fn incomplete(&self, outcome: &Outcome, counts: Counts, interrupted: bool, operation: &'static str) {
        let word = if interrupted { "Interrupted." } else { "Not complete." };
        let left = outcome.steps.iter().filter(|(_, fate)| !matches!(fate, crate::apply::Fate::Done)).count();
        let rest = format!(
            "{} {left} of {} steps are left; the next run goes on from here.",
            resources(counts),
            outcome.steps.len()
        );
        match self {
            Self::People(_) => {
                report::note(format_args!("\n{REMOVE}{BOLD}{word}{BOLD:#}{REMOVE:#} {rest}"));
            }
            Self::Tools(_) => stream::summary(&format!("{word} {rest}"), counts, operation),
        }
    }
}

fn resources(counts: Counts) -> String {
    format!("Resources: {}.", counts.done())
}
