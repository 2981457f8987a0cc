//! `--target` and `--exclude`.

use crate::choice;
use crate::cli::{FAILED, Stop, candidates, session};
use crate::desired::Desired;
use crate::plan::world::Recorded;
use crate::plan::{Plan, Scope};
use crate::report;
use crate::spec::Source;

/// Which part of a plan is meant.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ScopeArguments {
    /// Only this resource, with what it needs; can be given more than once
    #[arg(long, value_name = "ADDRESS", conflicts_with = "exclude", add = candidates::addresses())]
    pub target: Vec<String>,
    /// Everything but this resource, and what depends on it; can be given more than once
    #[arg(long, value_name = "ADDRESS", add = candidates::addresses())]
    pub exclude: Vec<String>,
}

impl ScopeArguments {
    /// What they mean; none where the whole plan is meant.
    pub(super) fn resolve(
        &self,
        desired: &Desired,
        recorded: &Recorded,
        source: &Source,
    ) -> Result<Option<Scope>, Stop> {
        let choose = |written: &[String]| {
            choice::choose(written, desired, recorded).map_err(|problems| {
                report::diagnostics::print(&problems, source);
                Stop(FAILED)
            })
        };
        Ok(match (self.target.as_slice(), self.exclude.as_slice()) {
            ([], []) => None,
            ([], exclude) => Some(Scope::Without(choose(exclude)?)),
            (target, _) => Some(Scope::Only(choose(target)?)),
        })
    }
}

/// That part of the plan.
pub(super) fn confine(plan: Plan, scope: Option<&Scope>, source: &Source) -> Result<Plan, Stop> {
    match scope {
        Some(scope) => plan.confine(scope).map_err(|error| session::no_plan(&error.into(), source)),
        None => Ok(plan),
    }
}
