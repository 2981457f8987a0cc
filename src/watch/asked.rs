//! What is asked of the daemon by its socket, and how whoever asked is told what comes of it.
//!
//! The wheel does not wait for anybody: what a client has no room for, it is not told, and then it is told nothing more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::apply::Event;
use crate::blueprint::key::ObjectKey;
use crate::plan::Deed;
use crate::plan::diff::Change;
use crate::plan::saved::Saved;
use crate::watch::socket::protocol::{Refusal, Told};

/// How many lines wait for a client that reads slowly, at most.
const ROOM: usize = 16 * 1024;

/// How often a client is told how far a download is, at most.
const BYTES: Duration = Duration::from_millis(200);

/// What somebody asks for.
#[derive(Debug)]
pub enum Asked {
    /// That a plan be carried out.
    Apply(Box<Handed>),
    /// That what waits may go.
    Approve(Word),
}

/// A plan that was handed over: a person has seen it and said yes.
#[derive(Debug)]
pub struct Handed {
    /// The plan.
    pub plan: Saved,
    /// How many steps run at once, at most.
    pub parallelism: usize,
    /// Who handed it over.
    pub by: String,
    /// Who is told how it goes.
    pub client: Client,
}

/// A yes to the plan that waits.
#[derive(Debug)]
pub struct Word {
    /// Its digest, or the first digits of that.
    pub digest: String,
    /// Whether more may be lost than `--max-deletes` lets.
    pub allow_mass_delete: bool,
    /// Who says so.
    pub by: String,
    /// Who is told what comes of it.
    pub client: Client,
}

/// Whoever has asked.
#[derive(Clone, Debug)]
pub struct Client {
    lines: SyncSender<Told>,
    /// What it lets us know.
    pub signs: Arc<Signs>,
    told: Arc<Mutex<HashMap<ObjectKey, Instant>>>,
}

/// What a client lets us know, and what became of it.
#[derive(Debug, Default)]
pub struct Signs {
    /// It wants the work to end after the steps that run.
    pub stop: AtomicBool,
    /// It has closed its connection.
    pub gone: AtomicBool,
    /// It could not be told something, and so is told nothing more.
    pub lost: AtomicBool,
}

impl Client {
    /// A client, and what it is told.
    pub fn new() -> (Self, Receiver<Told>) {
        let (lines, receiver) = mpsc::sync_channel(ROOM);
        (Self { lines, signs: Arc::default(), told: Arc::default() }, receiver)
    }

    /// Whether it still waits for what comes of it.
    pub fn is_there(&self) -> bool {
        !self.signs.gone.load(Ordering::SeqCst)
    }

    /// Tells it something, if it has room for that.
    pub fn tell(&self, told: Told) {
        if !self.signs.lost.load(Ordering::SeqCst) && self.lines.try_send(told).is_err() {
            self.signs.lost.store(true, Ordering::SeqCst);
        }
    }

    /// Tells it that what it asked for is not done.
    pub fn refuse(&self, refusal: Refusal) {
        self.tell(Told::Refused(refusal));
    }

    /// Tells it what happened to a step.
    pub fn event(&self, change: &Change, deed: Deed, event: &Event<'_>) {
        self.tell(Told::event(change, deed, event));
    }

    /// Tells it how far a download is, now and then.
    pub fn bytes(&self, object: &ObjectKey, done: u64, total: Option<u64>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(object).is_some_and(|last| last.elapsed() < BYTES) {
            return;
        }
        told.insert(object.clone(), Instant::now());
        drop(told);
        // It may miss that.
        let _ = self.lines.try_send(Told::Bytes { object: object.clone(), done, total });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::key::ObjectKind;

    #[test]
    fn one_that_does_not_read_is_told_no_more_and_nobody_waits_for_it() {
        let (client, told) = Client::new();
        for _ in 0..ROOM {
            client.tell(Told::Taken {});
        }
        assert!(!client.signs.lost.load(Ordering::SeqCst));
        client.bytes(&ObjectKey::new(ObjectKind::Base, "x"), 1, None);
        assert!(!client.signs.lost.load(Ordering::SeqCst), "it may miss how far a download is");
        client.refuse(Refusal::new("no"));
        assert!(client.signs.lost.load(Ordering::SeqCst));
        // There would be a gap.
        assert!(told.try_recv().is_ok());
        client.refuse(Refusal::new("no"));
        assert_eq!(told.iter().take(ROOM - 1).filter(|it| matches!(it, Told::Taken {})).count(), ROOM - 1);
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn of_a_download_it_hears_now_and_then() {
        let (client, told) = Client::new();
        let [one, other] = ["x", "y"].map(|id| ObjectKey::new(ObjectKind::Base, id));
        for (key, done) in [(&one, 1), (&one, 2), (&other, 1)] {
            client.bytes(key, done, Some(9));
        }
        drop(client);
        let objects: Vec<Told> = told.iter().collect();
        assert!(matches!(&objects[..], [Told::Bytes { object: a, done: 1, .. }, Told::Bytes { object: b, .. }]
            if *a == one && *b == other));
    }
}
