//! The threads, the queue, and what one step is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef as _;
use tracing::Span;

use crate::apply::{Event, Fate, Observer, Options, Outcome, StepError, Stop};
use crate::host::{Host, HostError, Keep, Why};
use crate::plan::diff::{Action, Change};
use crate::plan::graph::servers_of;
use crate::plan::world::{Record, Status};
use crate::plan::{Deed, Plan, Wait};
use crate::store::Store;

/// How long a wait may go on after a stop was asked for.
const STOP_POLL: Duration = Duration::from_millis(50);

pub(super) struct Walk<'a> {
    plan: &'a Plan,
    host: &'a dyn Host,
    store: &'a dyn Store,
    options: Options,
    stop: &'a dyn Stop,
    /// Set when a record could not be written: what is done from then on would not be known.
    halted: AtomicBool,
    observer: &'a dyn Observer,
    /// The turn of each step among those that are ready: resource by resource. So one server is made to its end while
    /// the next is begun, and libvirt has work while images are made; and where a run stops, few are half made.
    turns: Vec<usize>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Queue {
    /// Steps that wait for nothing any more, with their turns, lowest first.
    ready: BinaryHeap<Reverse<(usize, NodeIndex)>>,
    /// How many steps each step still waits for.
    waits_for: Vec<usize>,
    fates: Vec<Option<Fate>>,
    running: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        host: &'a dyn Host,
        store: &'a dyn Store,
        options: Options,
        stop: &'a dyn Stop,
        observer: &'a dyn Observer,
    ) -> Self {
        let graph = &plan.steps;
        let waits_for: Vec<usize> =
            graph.node_indices().map(|node| graph.edges_directed(node, Direction::Incoming).count()).collect();
        let mut in_turn: Vec<NodeIndex> = graph.node_indices().collect();
        in_turn.sort_by_key(|node| (&plan.changes[graph[*node].change].address, *node));
        let mut turns = vec![0; in_turn.len()];
        for (turn, node) in in_turn.iter().enumerate() {
            turns[node.index()] = turn;
        }
        let free = graph.node_indices().filter(|node| waits_for[node.index()] == 0);
        let ready = free.map(|node| Reverse((turns[node.index()], node))).collect();
        let fates = waits_for.iter().map(|_| None).collect();
        let queue = Mutex::new(Queue { ready, waits_for, fates, running: 0 });
        let halted = AtomicBool::new(false);
        Self { plan, host, store, options, stop, halted, observer, turns, queue, changed: Condvar::new() }
    }

    pub(super) fn run(self) -> Outcome {
        let workers = self.options.parallelism.clamp(1, self.plan.steps.node_count().max(1));
        // What the threads log belongs to whoever has asked for the walk.
        let span = Span::current();
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| span.in_scope(|| self.work()));
            }
        });
        let fates = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner).fates;
        let steps = self.plan.steps.node_weights().copied();
        Outcome { steps: steps.zip(fates.into_iter().map(|fate| fate.unwrap_or(Fate::NotStarted))).collect() }
    }

    fn work(&self) {
        while let Some(node) = self.next() {
            let step = self.plan.steps[node];
            let change = &self.plan.changes[step.change];
            let (address, object, deed) = (&change.address, &change.key, step.deed.as_str());
            let _span = tracing::error_span!("step", %address, %object, deed).entered();
            let start = Instant::now();
            tracing::debug!("begins");
            self.observer.event(change, step.deed, Event::Started);
            // A panic must not leave the others waiting for a step that never ends.
            let done = catch_unwind(AssertUnwindSafe(|| self.step(change, step.deed))).unwrap_or_else(|_| {
                let error = HostError::refused(format!("novella panicked over {}", change.key));
                Err(error.help("this is a defect of novella, please report it; the other steps go on").into())
            });
            let fate = match done {
                Ok(()) => {
                    tracing::debug!(elapsed = ?start.elapsed(), "done");
                    self.observer.event(change, step.deed, Event::Done { elapsed: start.elapsed() });
                    Fate::Done
                }
                Err(error) => {
                    if matches!(error, StepError::Store(_)) {
                        self.halted.store(true, Ordering::SeqCst);
                    }
                    let event = Event::Failed { error: &error, elapsed: start.elapsed() };
                    self.observer.event(change, step.deed, event);
                    Fate::Failed(error)
                }
            };
            self.finish(node, fate);
        }
    }

    fn stopping(&self) -> bool {
        self.stop.is_asked() || self.halted.load(Ordering::SeqCst)
    }

    /// The next step to do; none when nothing is left to do or to wait for.
    fn next(&self) -> Option<NodeIndex> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stopping() {
                return None;
            }
            if let Some(Reverse((_, node))) = queue.ready.pop() {
                queue.running += 1;
                return Some(node);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, node: NodeIndex, fate: Fate) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let done = matches!(fate, Fate::Done);
        queue.fates[node.index()] = Some(fate);
        queue.running -= 1;
        let graph = &self.plan.steps;
        let mut skipped = Vec::new();
        let mut over = vec![node];
        while let Some(step) = over.pop() {
            for edge in graph.edges(step) {
                let next = edge.target();
                queue.waits_for[next.index()] -= 1;
                if queue.fates[next.index()].is_some() {
                    continue;
                }
                if *edge.weight() == Wait::Done && !(done && step == node) {
                    queue.fates[next.index()] = Some(Fate::Skipped);
                    over.push(next);
                    skipped.push(graph[next]);
                } else if queue.waits_for[next.index()] == 0 {
                    queue.ready.push(Reverse((self.turns[next.index()], next)));
                }
            }
        }
        drop(queue);
        self.changed.notify_all();
        for step in skipped {
            self.observer.event(&self.plan.changes[step.change], step.deed, Event::Skipped);
        }
    }

    /// Intent, deed, fact.
    fn step(&self, change: &Change, deed: Deed) -> Result<(), StepError> {
        let (key, made) = (&change.key, change.made.as_ref());
        let put = |record: Record| self.store.put(key, &record.guarded(change.prevent_destroy));
        match (deed, &change.want) {
            (Deed::Ensure, Some(want)) => {
                // A replacement wrote its intent before the removal.
                if change.action != Action::Replace {
                    put(Record::intended(want.clone(), made))?;
                }
                self.patiently(change, deed, || self.host.ensure_within(want, change.disruption))?;
                put(Record::present(want.clone()))?;
            }
            (Deed::Remove, Some(want)) => {
                // The record stays between removal and re-creation, and with it the claim on address and name.
                put(Record::intended(want.clone(), made))?;
                self.patiently(change, deed, || self.host.discard(key, self.keep(Why::Replaced)))?;
            }
            (Deed::Release, Some(want)) => {
                put(Record::intended(want.clone(), made))?;
                self.patiently(change, deed, || self.host.release(key, &change.releases))?;
            }
            // What is gone may have left something behind, as after a kill in the midst of its removal.
            (Deed::Remove | Deed::Forget, None) => {
                // Else what is half gone, and not seen any more, would be taken for gone.
                if let Some(made) = made.filter(|made| made.status == Status::Present) {
                    put(Record::intended(made.object.clone(), Some(made)))?;
                }
                self.patiently(change, deed, || self.host.discard(key, self.keep(Why::Removed)))?;
                self.store.forget(key)?;
            }
            (Deed::Disown, _) => {
                self.patiently(change, deed, || self.host.retire(key))?;
                self.store.forget(key)?;
            }
            (Deed::Reload, _) => {
                for server in servers_of(change) {
                    self.patiently(change, deed, || self.host.reload(&server))?;
                }
            }
            (Deed::Record, Some(want)) => put(Record::present(want.clone()))?,
            (Deed::Forget, Some(_)) | (Deed::Ensure | Deed::Release | Deed::Record, None) => self.store.forget(key)?,
        }
        Ok(())
    }

    /// What becomes of a disk that is taken away for this reason.
    fn keep(&self, why: Why) -> Option<Keep> {
        self.plan.trash.map(|seconds| Keep { seconds, why })
    }

    /// Tries a deed again while it fails in a way that may pass.
    fn patiently(&self, change: &Change, deed: Deed, act: impl Fn() -> Result<(), HostError>) -> Result<(), StepError> {
        let retry = self.options.retry;
        let mut wait = retry.first;
        for _ in 0..retry.retries {
            match act() {
                Err(error) if error.transient && !self.stopping() => {
                    let error = StepError::Host(error);
                    self.observer.event(change, deed, Event::Retrying { error: &error, wait });
                    self.sleep(wait);
                    wait = (wait * 2).min(retry.most);
                }
                other => return Ok(other?),
            }
        }
        Ok(act()?)
    }

    fn sleep(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while !self.stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(STOP_POLL));
        }
    }
}
