//! One pass of the daemon: compare, decide, do what may be done. The state is opened for it and closed again, so that others
//! can work in between.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::address::Address;
use crate::apply::{self, Event, Fate, Observer, Options, Outcome, Retry, Stop as _};
use crate::blueprint::key::ObjectKey;
use crate::cli::Global;
use crate::cli::apply::close;
use crate::cli::journal::Journal;
use crate::cli::saved;
use crate::cli::session::{self, Target};
use crate::cli::watch::Arguments;
use crate::diagnostic::Diagnostic;
use crate::host::{Host, HostError};
use crate::plan::diff::Change;
use crate::plan::world::Recorded;
use crate::plan::{Deed, Plan, Scope};
use crate::reconcile::{self, PlanError};
use crate::report;
use crate::report::progress::Progress;
use crate::store::lock::StateLock;
use crate::store::sled::SledStore;
use crate::store::{Store as _, StoreError, export};
use crate::watch::asked::{Client, Handed};
use crate::watch::daemon::{Carried, NoPass, Pass, Passed, Turn};
use crate::watch::metrics::StepResult;
use crate::watch::pending::{Approval, Judgement, Limits, Origin, Pending};
use crate::watch::policy::{self, Rules};
use crate::watch::socket::protocol::Refusal;
use crate::watch::socket::work::Work;
use crate::watch::status::RefusedApproval;
use crate::watch::systemd::Pulse;

/// How long who hands a plan over may take to give the state away.
const TO_GIVE_AWAY: Duration = Duration::from_secs(10);

/// Makes the passes of a daemon.
pub(super) struct Reconciler<'a> {
    global: &'a Global,
    arguments: &'a Arguments,
    /// The state.
    state: PathBuf,
    /// Where the daemon writes.
    dir: &'a Path,
    stop: Arc<AtomicBool>,
    /// What it does just now.
    work: Arc<Work>,
}

/// What a pass comes to before anything is done.
struct Decision {
    /// What is done.
    going: Plan,
    /// What is told.
    passed: Passed,
    /// The approval that it goes by.
    approval: Option<Approval>,
}

impl<'a> Reconciler<'a> {
    pub(super) fn new(
        global: &'a Global,
        arguments: &'a Arguments,
        dir: &'a Path,
        stop: Arc<AtomicBool>,
        work: Arc<Work>,
    ) -> Self {
        Self { global, arguments, state: session::state_dir(global), dir, stop, work }
    }

    fn decide(&self, turn: &Turn<'_>, recorded: Recorded, host: &dyn Host) -> Result<Decision, NoPass> {
        let resources: BTreeSet<Address> = recorded.records.values().map(|it| it.object.address()).collect();
        let plan = reconcile::plan(&turn.spec.desired, recorded, host)?;
        let rules = Rules { max_disruption: self.arguments.max_disruption, reboots_now: &turn.reboots_now };
        let limits =
            Limits { max_deletes: self.arguments.max_deletes, max_delete_percent: self.arguments.max_delete_percent };
        let origin = Origin { spec: &turn.spec.digest, resources: resources.len(), limits, unix: turn.unix };
        let mut held = policy::held(&plan, rules, |_| false);
        let mut going = without(plan.clone(), held.keys().cloned().collect())?;
        let mut pending = Pending::new(&plan, &going, &held, origin);
        let mut passed = Passed::default();
        let approval = self.approval(turn, pending.as_ref().map(|(pending, _)| pending), &mut passed)?;
        if let Some(approval) = &approval {
            held = policy::held(&plan, rules, |change| approval.allows(change));
            going = without(plan.clone(), held.keys().cloned().collect())?;
            pending = Pending::new(&plan, &going, &held, origin);
        }
        passed.wait_for_window = policy::wait_for_window(&held);
        passed.pending = self.tell_pending(pending).map_err(|error| failed(&error))?;
        passed.conflicts =
            plan.conflicts.iter().map(|it| (it.address.clone(), it.key.to_string(), it.claim.to_string())).collect();
        let in_the_way = plan.conflicts.iter().map(|it| it.address.clone());
        let going = without(going, turn.held_back.iter().cloned().chain(in_the_way).collect())?;
        passed.waiting.clone_from(&going.waiting);
        Ok(Decision { going, passed, approval })
    }

    /// The approval that holds for what waits now, if there is one. One that does not is withdrawn.
    fn approval(
        &self,
        turn: &Turn<'_>,
        pending: Option<&Pending>,
        passed: &mut Passed,
    ) -> Result<Option<Approval>, NoPass> {
        let refuse = |digest, why| RefusedApproval { digest, at: turn.unix, why };
        let approval = match Approval::read(self.dir) {
            Ok(Some(approval)) => approval,
            Ok(None) => return Ok(None),
            Err(error) => {
                // What cannot be read allows nothing.
                Approval::withdraw(self.dir).map_err(|error| failed(&error))?;
                passed.refused = pending.map(|it| refuse(it.digest.clone(), format!("it cannot be read: {error}")));
                return Ok(None);
            }
        };
        match approval.judge(pending, &turn.spec.digest) {
            Judgement::Holds => return Ok(Some(approval)),
            Judgement::Spent => {}
            Judgement::Refused(why) => passed.refused = Some(refuse(approval.digest, why)),
        }
        Approval::withdraw(self.dir).map_err(|error| failed(&error))?;
        Ok(None)
    }

    /// Writes down what waits. What waited before as it is now has waited since then.
    fn tell_pending(&self, pending: Option<(Pending, String)>) -> std::io::Result<Option<Pending>> {
        // What cannot be read is written anew.
        let before = Pending::read(self.dir).unwrap_or_default();
        let is_same = |it: &Pending| before.as_ref().is_some_and(|before| it.is_same(before));
        match &pending {
            Some((pending, _)) if is_same(pending) => return Ok(before),
            None if before.is_none() => return Ok(None),
            _ => Pending::write(self.dir, pending.as_ref())?,
        }
        Ok(pending.map(|(pending, _)| pending))
    }

    /// Opens what a plan is carried out with, on the state that is locked.
    fn tools(&self, turn: &Turn<'_>, lock: StateLock, client: Option<Client>) -> Result<Tools, NoPass> {
        let store = SledStore::with_lock(lock)?;
        let heard =
            Arc::new(Heard { progress: Arc::default(), pulse: Pulse::default(), work: Arc::clone(&self.work), client });
        let (hears, sink) = (Arc::clone(&heard), heard.progress.sink());
        let on_progress = Arc::new(move |key: &ObjectKey, done, total| {
            hears.pulse.beat();
            hears.client.iter().for_each(|client| client.bytes(key, done, total));
            sink(key, done, total);
        });
        let target = Target::open(self.global, &turn.spec.desired, on_progress)?;
        Ok(Tools { store, target, heard })
    }

    fn work(&self, turn: &Turn<'_>) -> Result<Passed, NoPass> {
        let lock = match StateLock::acquire(&self.state, "watch", Duration::ZERO) {
            Ok(lock) => lock,
            Err(error) => return Err(self.busy().unwrap_or_else(|| failed(&error))),
        };
        let Tools { store, target, heard } = self.tools(turn, lock, None)?;
        target.sweep_trash()?;
        let Decision { going, mut passed, approval } = self.decide(turn, store.load()?, target.host())?;
        if going.changes.is_empty() {
            store.export()?;
            return Ok(passed);
        }
        let mut summary = report::plan::summary(&going);
        if let Some(approval) = approval {
            summary.push_str(&format!(", approved by {}", approval.by));
            // Each time that it is written, the daemon is woken up.
            if !approval.begun {
                Approval { begun: true, ..approval }.write(self.dir).map_err(|error| failed(&error))?;
            }
        }
        report::watch::begins(&summary);
        let journal = Journal::begin(store.lock(), "watch", Some(&turn.spec.source), summary.clone());
        // What fails is tried again by later passes, so that nobody waits for it here.
        let retry = Retry { retries: 0, ..Options::default().retry };
        let options = Options { parallelism: self.arguments.parallelism, retry };
        let outcome = apply::apply(&going, target.host(), &store, options, self.stop.as_ref(), heard.as_ref());
        journal.end_of(&going, &outcome, self.stop.load(Ordering::SeqCst));
        target.save()?;
        close(&target, &store).map_err(|_| NoPass::Failed("the state could not be exported".into()))?;
        passed.summary = Some(summary);
        tell_outcome(&mut passed, &going, &outcome);
        Ok(passed)
    }

    /// Takes over the state from whoever planned, and gives the plan if it is the one that was handed over.
    fn take_over(&self, turn: &Turn<'_>, handed: &Handed) -> Result<(Tools, Plan), Refusal> {
        let lock = match StateLock::acquire(&self.state, "watch", TO_GIVE_AWAY) {
            Ok(lock) => lock,
            Err(error) => return Err(self.busy().unwrap_or_else(|| failed(&error)).into()),
        };
        let tools = self.tools(turn, lock, Some(handed.client.clone()))?;
        let recorded = tools.store.load().map_err(NoPass::from)?;
        handed.plan.check_state(&saved::state(&recorded))?;
        let plan = reconcile::plan_as(&turn.spec.desired, recorded, tools.target.host(), &handed.plan.options);
        let plan = plan.map_err(NoPass::from)?;
        handed.plan.check_changes(&plan)?;
        match in_the_way(&plan) {
            Some(refusal) => Err(refusal),
            None => Ok((tools, plan)),
        }
    }

    /// Whoever else works on the state.
    fn busy(&self) -> Option<NoPass> {
        StateLock::holder(&self.state).map(|holder| NoPass::Busy(holder.to_string()))
    }
}

impl Pass for Reconciler<'_> {
    fn pass(&mut self, turn: &Turn<'_>) -> Result<Passed, NoPass> {
        if let Some(busy) = self.busy() {
            return Err(busy);
        }
        let work = Arc::clone(&self.work);
        let _running = work.pass();
        if turn.look_first {
            let recorded = export::read_only(&self.state)?.recorded;
            let target = Target::open(self.global, &turn.spec.desired, session::no_progress())?;
            let Decision { going, passed, .. } = self.decide(turn, recorded, target.host())?;
            if going.changes.is_empty() {
                return Ok(passed);
            }
            // What was refused is withdrawn, and not seen a second time.
            return self.work(turn).map(|done| Passed { refused: done.refused.or(passed.refused), ..done });
        }
        self.work(turn)
    }

    fn carry_out(&mut self, turn: &Turn<'_>, handed: &Handed) -> Result<Carried, Refusal> {
        let work = Arc::clone(&self.work);
        let _running = work.pass();
        let (Tools { store, target, heard }, plan) = self.take_over(turn, handed)?;
        let summary = format!("{}, handed over by {}", report::plan::summary(&plan), handed.by);
        report::watch::begins(&summary);
        let (by, source) = (handed.by.clone(), Some(&turn.spec.source));
        let what = format!("{}, through the daemon", report::plan::summary(&plan));
        let journal = Journal::begin_for(by, store.lock(), "apply", source, what);
        let options = Options { parallelism: handed.parallelism, ..Options::default() };
        let stop = (self.stop.as_ref(), &handed.client.signs.stop);
        let outcome = apply::apply(&plan, target.host(), &store, options, &stop, heard.as_ref());
        let mut carried = Carried { interrupted: stop.is_asked(), ..Carried::default() };
        journal.end_of(&plan, &outcome, carried.interrupted);
        carried.error = target.save().err().map(|error| Refusal::new(report::error::chain(&error)));
        let is_closed = close(&target, &store).is_ok();
        carried.error = carried.error.or((!is_closed).then(|| Refusal::new("the state could not be exported")));
        carried.passed.summary = Some(summary);
        tell_outcome(&mut carried.passed, &plan, &outcome);
        Ok(carried)
    }
}

/// What nobody may do who was not there when the plan was made: what has come in its way since, and what is guarded.
fn in_the_way(plan: &Plan) -> Option<Refusal> {
    let conflict = plan.conflicts.first().map(|it| {
        let claim = report::clean_line(&it.claim.to_string()).into_owned();
        format!("`{}` cannot be made: {claim} exists and is not novella's", it.address)
    });
    let guarded = plan.refused.iter().chain(plan.overlaid.keys()).next();
    let guarded = guarded.map(|address| format!("`{address}` would be destroyed or replaced, and may not be"));
    conflict.or(guarded).map(|why| Refusal::new(format!("{why}; nothing was done")))
}

/// A plan without these resources and what depends on them.
fn without(plan: Plan, these: BTreeSet<Address>) -> Result<Plan, NoPass> {
    if these.is_empty() {
        Ok(plan)
    } else {
        plan.confine(&Scope::Without(these)).map_err(|error| PlanError::from(error).into())
    }
}

fn tell_outcome(passed: &mut Passed, plan: &Plan, outcome: &Outcome) {
    for (step, fate) in &outcome.steps {
        let change = &plan.changes[step.change];
        let result = match fate {
            Fate::Done => StepResult::Done,
            Fate::Failed(_) => StepResult::Failed,
            Fate::Skipped | Fate::NotStarted => StepResult::Skipped,
        };
        *passed.steps.entry((change.key.kind, result)).or_default() += 1;
        match fate {
            Fate::Done => {
                passed.done += 1;
                passed.worked_on.insert(change.address.clone());
            }
            Fate::Failed(error) => {
                passed.not_done += 1;
                report::error::step(change, error);
                let error = report::error::chain(error);
                passed.failed.push((change.address.clone(), change.key.to_string(), error));
            }
            Fate::Skipped | Fate::NotStarted => passed.not_done += 1,
        }
    }
}

fn failed(error: &dyn std::error::Error) -> NoPass {
    NoPass::Failed(report::error::chain(error))
}

impl From<StoreError> for NoPass {
    fn from(error: StoreError) -> Self {
        failed(&error)
    }
}

impl From<HostError> for NoPass {
    fn from(error: HostError) -> Self {
        failed(&error)
    }
}

impl From<PlanError> for NoPass {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Spec(diagnostics) => Self::Spec(diagnostics),
            // A matter of the spec as well, so that the one before goes on.
            PlanError::DataDirMoved { .. } => Self::Spec(vec![Diagnostic::error(error.to_string())]),
            PlanError::Host(_) | PlanError::Cycle(_) => failed(&error),
        }
    }
}

/// What a plan is carried out with.
struct Tools {
    store: SledStore,
    target: Target,
    heard: Arc<Heard>,
}

/// Shows the progress, and tells the service manager, those who ask and who handed the plan over that things go on.
struct Heard {
    progress: Arc<Progress>,
    pulse: Pulse,
    work: Arc<Work>,
    client: Option<Client>,
}

impl Observer for Heard {
    fn event(&self, change: &Change, deed: Deed, event: Event<'_>) {
        self.pulse.beat();
        self.work.event(change, deed, &event);
        self.client.iter().for_each(|client| client.event(change, deed, &event));
        self.progress.event(change, deed, event);
    }
}
