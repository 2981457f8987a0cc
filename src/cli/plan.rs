//! `novella plan`.

use std::path::{Path, PathBuf};

use clap::ArgAction;

use crate::blueprint::facts::Disruption;
use crate::blueprint::{HostFacts, import};
use crate::cli::apply::disruption;
use crate::cli::format::FormatArguments;
use crate::cli::saved;
use crate::cli::scope::ScopeArguments;
use crate::cli::session::{self, Target};
use crate::cli::{CHANGES, Global, Stop, candidates, lock};
use crate::desired::Desired;
use crate::host::Host;
use crate::host::recorded::RecordedHost;
use crate::plan::saved::Options;
use crate::plan::world::Recorded;
use crate::store::{StoreError, snapshot};
use crate::{reconcile, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Show what `destroy` would do
    #[arg(long)]
    destroy: bool,
    /// Exit with 2 when there are changes, 0 when there are none
    #[arg(long)]
    detailed_exitcode: bool,
    /// Mark what a guest would notice more of than this
    #[arg(long, value_name = "WHAT", value_parser = disruption())]
    max_disruption: Option<Disruption>,
    /// Refuse images that are neither pinned in the spec nor locked in `images.lock`
    #[arg(long)]
    locked: bool,
    /// Show what `apply --defer-reboots` would do
    #[arg(long)]
    defer_reboots: bool,
    /// Plan from what `novella state export` wrote, and look at nothing else: no state, no host
    #[arg(long, value_name = "FILE", conflicts_with = "empty_state")]
    state_file: Option<PathBuf>,
    /// Plan as if nothing had been made yet, and look at neither the state nor the host
    #[arg(long)]
    empty_state: bool,
    /// With `false`, do not look at the host: what was recorded is taken to be there
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    refresh: bool,
    /// Show what `apply --replace` would do; can be given more than once
    #[arg(long, value_name = "ADDRESS", conflicts_with = "destroy", add = candidates::server_addresses())]
    replace: Vec<String>,
    /// Show what the same with `--allow-destroy` would do; can be given more than once
    #[arg(long, value_name = "ADDRESS", add = candidates::addresses())]
    allow_destroy: Vec<String>,
    /// Save the plan in this file as well, open to its owner only: `novella apply FILE` carries it out
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArguments,
    #[command(flatten)]
    scope: ScopeArguments,
}

impl Arguments {
    /// What is to hold for the plan when it is carried out.
    fn options(&self) -> Options {
        Options {
            destroy: self.destroy,
            replace: self.replace.clone(),
            target: self.scope.target.clone(),
            exclude: self.scope.exclude.clone(),
            allow_destroy: self.allow_destroy.clone(),
            defer_reboots: self.defer_reboots,
            locked: self.locked,
            only_these: false,
        }
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    arguments.format.begin();
    let (desired, source) = session::spec(global)?;
    if arguments.locked {
        lock::require(&desired, &source)?;
    }
    let Sides { recorded, host, assumptions } = sides(global, arguments, &desired)?;
    let before = arguments.format.keep(&recorded);
    let out = arguments.out.as_ref().map(|file| (file, saved::state(&recorded), assumptions));
    let options = arguments.options();
    let plan = reconcile::plan_as(&desired, recorded, host.as_ref(), &options);
    let plan = plan.map_err(|error| session::no_plan(&error, &source))?;
    report::diagnostics::print(&plan.warnings, &source);
    arguments.format.show(&plan, &before, (&desired.project, &source), arguments.max_disruption)?;
    session::refuse_conflicts(&plan)?;
    session::refuse_guarded(&plan)?;
    if let Some((file, state, assumptions)) = out {
        saved::write(file, &plan, options, (state, assumptions), (&desired.project, &source))?;
    }
    if arguments.detailed_exitcode && !plan.is_empty() { Err(Stop(CHANGES)) } else { Ok(()) }
}

/// What a plan is made from beside the spec.
struct Sides {
    /// What was made.
    recorded: Recorded,
    /// What is there.
    host: Box<dyn Host>,
    /// What that is taken to be, where nobody looks.
    assumptions: Vec<String>,
}

/// What was made and what is there.
fn sides(global: &Global, arguments: &Arguments, desired: &Desired) -> Result<Sides, Stop> {
    let (recorded, facts) = match &arguments.state_file {
        Some(file) => from_file(file, desired)?,
        None if arguments.empty_state => (Recorded::default(), None),
        None => {
            let recorded = session::recorded(global)?;
            if arguments.refresh {
                let host = Target::open(global, desired, session::no_progress())?.into_host();
                return Ok(Sides { recorded, host, assumptions: Vec::new() });
            }
            (recorded, None)
        }
    };
    let host = RecordedHost::new(&recorded, facts, &desired.host);
    let mut assumptions: Vec<String> = host.assumptions().into_iter().map(str::to_owned).collect();
    let unseen = import::pending(desired, &recorded).into_iter().map(|(_, import)| import);
    assumptions
        .extend(unseen.map(|it| format!("`server.{}` is shown as made anew, and not as `{}`", it.server, it.id)));
    report::note(format_args!("note: planned without a look at the host: {}", assumptions.join(", ")));
    Ok(Sides { recorded, host: Box::new(host), assumptions })
}

fn from_file(file: &Path, desired: &Desired) -> Result<(Recorded, Option<HostFacts>), StoreError> {
    let snapshot = snapshot::read(file)?;
    snapshot::is_of(&snapshot, &desired.project, file)?;
    Ok((snapshot.recorded, snapshot.host))
}
