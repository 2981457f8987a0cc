//! Those who come to the daemon, at its socket or for its metrics: each has a thread of its own for a moment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Answers all who come, so many at once at most, until somebody comes when it is over. Their threads have this name.
pub(super) fn serve<C: Send + 'static>(
    name: &str,
    most: usize,
    ends: &AtomicBool,
    accept: impl Fn() -> io::Result<C>,
    answer: impl Fn(C) -> io::Result<()> + Clone + Send + 'static,
) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = accept();
        if ends.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else {
            // No file handles are left, perhaps.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Those who come when there are too many find their connection closed.
        if clients.load(Ordering::SeqCst) >= most {
            continue;
        }
        let (counted, answer) = (Counted::new(&clients), answer.clone());
        // Where there can be no thread, its connection is closed as well.
        let _ = thread::Builder::new().name(name.into()).spawn(move || {
            let _counted = counted;
            // A client that has left, or takes too long, gets no answer.
            let _ = answer(client);
        });
    }
}

/// One that counts until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
