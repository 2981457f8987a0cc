//! What several verbs begin with: the spec, the host, the state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::facts::Disruption;
use crate::blueprint::object::Domain;
use crate::cli::{Backend, FAILED, Global, Stop};
use crate::desired::{self, Desired};
use crate::diagnostic::{Diagnostic, did_you_mean, has_errors};
use crate::host::dhcp::Lease;
use crate::host::images::Images;
use crate::host::images::trash::Entry;
use crate::host::machine::Machine;
use crate::host::sim::SimHost;
use crate::host::{Host, HostError, OnProgress};
use crate::plan::Plan;
use crate::plan::world::{Overlay, Recorded};
use crate::reconcile::PlanError;
use crate::report::{self, located::Located};
use crate::spec::{self, Source};
use crate::store::lock::StateLock;
use crate::store::sled::SledStore;
use crate::store::{StoreError, export};
use crate::value::{parse_span, unix_now};
use crate::watch;

/// Reads and resolves the spec, and prints what is wrong with it.
pub(super) fn spec(global: &Global) -> Result<(Desired, Source), Stop> {
    let loaded = spec::load_with(&global.inputs());
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let mut diagnostics = loaded.diagnostics;
    diagnostics.extend(problems);
    report::diagnostics::print(&diagnostics, &loaded.source);
    match desired {
        Some(desired) if !has_errors(&diagnostics) => Ok((desired, loaded.source)),
        _ => Err(Stop(FAILED)),
    }
}

/// Where the state of this backend is. A simulated host has a state of its own, so that a rehearsal cannot be taken for
/// the real thing.
pub(super) fn state_dir(global: &Global) -> PathBuf {
    match global.backend {
        Backend::Libvirt => global.state.clone(),
        Backend::Sim => global.state.join("sim"),
    }
}

/// A length of time, as in `lease_time`.
pub(super) fn length(text: &str) -> Result<Duration, String> {
    let seconds = parse_span(text).ok_or("write it as `90s`, `5m`, `2h` or `1d`")?;
    Ok(Duration::from_secs(seconds.into()))
}

/// How long a pass of the daemon is waited for at least.
const A_PASS: Duration = Duration::from_mins(5);

/// How verbs that write wait for each other.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Patience {
    /// How long to wait for another novella that works on the state, as `90s`, `5m`, `2h`; for a pass of a daemon, 5m at
    /// least
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = length)]
    lock_timeout: Duration,
}

/// Opens the state in order to write to it.
pub(super) fn store(global: &Global, operation: &str, patience: Patience) -> Result<SledStore, StoreError> {
    let dir = state_dir(global);
    let holder = StateLock::holder(&dir);
    // A daemon gives the state away after each pass, and waits as long as somebody else has it.
    let is_watched = StateLock::holder(&watch::directory(&dir)).is_some();
    let is_lent = is_watched && holder.as_ref().is_none_or(|holder| holder.operation == "watch");
    let timeout = if is_lent { patience.lock_timeout.max(A_PASS) } else { patience.lock_timeout };
    if !timeout.is_zero()
        && let Some(holder) = holder
    {
        report::note(format_args!("note: waiting for {}", report::clean_line(&holder.to_string())));
    }
    SledStore::with_lock(StateLock::acquire(&dir, operation, timeout)?)
}

/// The host that the verbs work on.
pub(super) enum Target {
    Machine(Box<Machine>),
    Sim(Box<SimHost>),
}

impl Target {
    /// Opens it. Nothing is connected or changed yet.
    pub(super) fn open(global: &Global, desired: &Desired, on_progress: OnProgress) -> Result<Self, HostError> {
        match global.backend {
            Backend::Libvirt => Ok(Self::Machine(Box::new(Machine::new(desired, on_progress)?))),
            Backend::Sim => SimHost::open(&state_dir(global).join("host.json")).map(Box::new).map(Self::Sim),
        }
    }

    /// It as a host.
    pub(super) fn host(&self) -> &dyn Host {
        match self {
            Self::Machine(machine) => machine.as_ref(),
            Self::Sim(sim) => sim.as_ref(),
        }
    }

    /// The same for good.
    pub(super) fn into_host(self) -> Box<dyn Host> {
        match self {
            Self::Machine(machine) => machine,
            Self::Sim(sim) => sim,
        }
    }

    /// The leases of a network; none on a host that hands out no addresses.
    pub(super) fn leases(&self, network: &Name) -> Result<Option<Vec<Lease>>, HostError> {
        match self {
            Self::Machine(machine) => machine.leases(network).map(Some),
            Self::Sim(_) => Ok(None),
        }
    }

    /// The image cache; none on a host that fetches nothing.
    pub(super) fn images(&self) -> Option<&Images> {
        match self {
            Self::Machine(machine) => Some(machine.images()),
            Self::Sim(_) => None,
        }
    }

    /// Shuts a guest that runs down, and starts it again as it is defined now.
    pub(super) fn reboot(&self, domain: &Domain) -> Result<(), HostError> {
        match self {
            Self::Machine(machine) => machine.reboot(domain),
            Self::Sim(sim) => sim.reboot(&domain.server),
        }
    }

    /// Keeps what is only in memory.
    pub(super) fn save(&self) -> Result<(), HostError> {
        match self {
            Self::Machine(machine) => {
                machine.remember();
                Ok(())
            }
            Self::Sim(sim) => sim.save(),
        }
    }

    /// Takes out of the trash what has been there for its time, and gives that. A simulated host has no clock.
    pub(super) fn sweep_trash(&self) -> Result<Vec<Entry>, HostError> {
        match self {
            Self::Machine(machine) => {
                let now = unix_now();
                machine.images().empty_trash(|entry| entry.is_expired(now))
            }
            Self::Sim(_) => Ok(Vec::new()),
        }
    }

    /// Removes what a project leaves that has no objects any more.
    pub(super) fn tidy(&self) {
        if let Self::Machine(machine) = self {
            machine.tidy();
        }
    }
}

/// No progress is shown.
pub(super) fn no_progress() -> OnProgress {
    std::sync::Arc::new(|_, _, _| {})
}

/// What is recorded, read without writing anything.
pub(super) fn recorded(global: &Global) -> Result<Recorded, Stop> {
    let read = export::read_only(&state_dir(global))?;
    if let Some(note) = read.note {
        report::note(format_args!("note: {}", report::clean(&note)));
    }
    Ok(read.recorded)
}

/// Prints problems, and ends with an error.
pub(super) fn refuse(problems: &[Diagnostic], source: &Source) -> Stop {
    report::diagnostics::print(problems, source);
    Stop(FAILED)
}

/// What the spec declares by this name, which may be written with its kind before it.
pub(super) fn find<'d, T>(
    kind: ResourceKind,
    declared: &'d BTreeMap<Name, T>,
    written: &str,
    source: &Source,
) -> Result<&'d T, Stop> {
    let name = written.strip_prefix(&format!("{kind}.")).unwrap_or(written);
    declared.get(name).ok_or_else(|| {
        let known: Vec<&str> = declared.keys().map(Name::as_str).collect();
        let help = match did_you_mean(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("the spec has no {kind}s"),
            None => {
                let names: Vec<String> = known.iter().take(8).map(|name| format!("`{name}`")).collect();
                format!("use one of {}", names.join(", "))
            }
        };
        let error = Diagnostic::error(format!("there is no `{kind}.{}`", name.escape_default())).help(help);
        refuse(&[error], source)
    })
}

/// Prints why there is no plan.
pub(super) fn no_plan(error: &PlanError, source: &Source) -> Stop {
    match error {
        PlanError::Spec(diagnostics) => refuse(diagnostics, source),
        PlanError::Host(error) => Stop::host(error),
        PlanError::Cycle(_) => Stop::error(error, None),
        PlanError::DataDirMoved { was, is } if was.file_name() != is.file_name() => {
            let project = was.file_name().unwrap_or_default().display();
            let help = format!(
                "set `name` in `[project]` back to `{project}`, or give the other project a state of its own with `--state`"
            );
            Stop::error(error, Some(&help))
        }
        PlanError::DataDirMoved { was, .. } => {
            let before = was.parent().unwrap_or(was).display();
            let help = format!(
                "set `data_dir` in `[host.local]` back to `{before}`; to move, run `novella destroy` first, then change it"
            );
            Stop::error(error, Some(&help))
        }
    }
}

/// Refuses a plan that costs guests more than `most`.
pub(super) fn refuse_beyond(plan: &Plan, most: Disruption) -> Result<(), Stop> {
    let beyond = report::plan::beyond(plan, most);
    if beyond.is_empty() {
        return Ok(());
    }
    let summary = format!("this goes beyond `--max-disruption {}`; nothing was done", most.as_str());
    report::error::say(&Located { detail: beyond.join("\n  "), ..Located::error(summary, None, None) });
    Err(Stop(FAILED))
}

/// Refuses a plan that takes away what has `prevent_destroy`, or what guests wrote since a snapshot was laid over their disks.
pub(super) fn refuse_guarded(plan: &Plan) -> Result<(), Stop> {
    for address in &plan.refused {
        report::note(format_args!(
            "{}error{:#}: `{address}` has `prevent_destroy`, and this would destroy or replace it; nothing was done\n  help: \
             set `prevent_destroy = false` in the spec and apply that first, or add `--allow-destroy {address}`",
            report::REMOVE,
            report::REMOVE,
        ));
    }
    for (address, overlays) in &plan.overlaid {
        refuse_overlaid(address, overlays, plan);
    }
    if plan.refused.is_empty() && plan.overlaid.is_empty() { Ok(()) } else { Err(Stop(FAILED)) }
}

/// Says which files would be lost, and how they become one with the disk. Without a base to stop at, libvirt would write
/// into the image that other disks lie over as well.
fn refuse_overlaid(address: &Address, overlays: &[Overlay], plan: &Plan) {
    let domain = plan.changes.iter().filter(|change| change.address == *address).find_map(|change| {
        let made = change.made.as_ref().map(|record| &record.object);
        made.or(change.want.as_ref())?.as_domain()
    });
    let domain = domain.map_or("DOMAIN", |domain| &domain.name);
    let mut detail: Vec<String> = overlays.iter().map(|it| format!("it is in `{}`", it.file.display())).collect();
    detail.push("help: bring it back into the disk while the guest runs (`novella start` starts it as it is):".into());
    detail.extend(overlays.iter().map(|it| {
        let (target, disk) = (&it.target, it.disk.display());
        format!("  virsh blockcommit {domain} {target} --base {disk} --active --pivot --wait")
    }));
    detail.push(format!("and forget each snapshot: `virsh snapshot-delete {domain} NAME --metadata`"));
    detail.push(format!("or, to lose it, add `--allow-destroy {address}`"));
    let summary = format!("`{address}` has a snapshot over its disk, and this would lose what was written since");
    let code = Some("external-snapshot".to_owned());
    report::error::say(&Located { code, detail: detail.join("\n  "), ..Located::error(summary, None, Some(address)) });
}

/// Refuses a plan in which something that is not ours is in the way.
pub(super) fn refuse_conflicts(plan: &Plan) -> Result<(), Stop> {
    for conflict in &plan.conflicts {
        let claim = report::clean_line(&conflict.claim.to_string()).into_owned();
        report::error::say(&Located::error(
            format!("`{}` cannot be made: {claim} exists and is not novella's", conflict.address),
            Some(
                "remove or rename it by hand, or give the resource another name; a domain can be taken over by an \
                 `[[import]]` in the spec",
            ),
            Some(&conflict.address),
        ));
    }
    if plan.conflicts.is_empty() { Ok(()) } else { Err(Stop(FAILED)) }
}
