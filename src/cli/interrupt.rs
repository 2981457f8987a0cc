//! Ctrl-C: the first ends the work after the steps that run, the second at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cli::{INTERRUPTED, Stop};
use crate::report;

/// A flag that the first signal sets. Another signal ends the process: every record is written before and after its
/// deed, so the next run goes on from there.
pub(super) fn listen() -> Result<Arc<AtomicBool>, Stop> {
    listen_and_say("Interrupt again to stop at once.")
}

/// The same where another signal does something else than it says there.
pub(super) fn listen_and_say(then: &'static str) -> Result<Arc<AtomicBool>, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| Stop::error(&error, None))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED.into());
            }
            report::note(format_args!("\nInterrupt received: finishing the steps that run. {then}"));
        }
    });
    Ok(stop)
}
