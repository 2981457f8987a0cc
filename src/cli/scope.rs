//! `--target` and `--exclude`.

use crate::cli::candidates;

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
