//! When a spec that is being saved may be read: when nothing has come for a while, and nobody is still writing.
//!
//! Editors save in many ways: in place, cut off and written anew, under another name and renamed. In between, the files may
//! say anything, and may well be valid; so they are read when it is quiet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How long a file that was written and not closed keeps others from being read. One that is changed without being opened
/// for it is never closed.
pub const LONGEST_WRITE: Duration = Duration::from_secs(10);

/// How often the quiet may be put off, as a multiple of it: one who saves without end is read now and then.
const LONGEST_UNREST: u32 = 10;

/// What happened to a file of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something was written to it.
    Written(PathBuf),
    /// It was closed by one who may have written, removed, or given another name.
    Closed(PathBuf),
    /// Anything else that may mean another spec.
    Changed,
}

/// Waits for the quiet.
#[derive(Clone, Debug)]
pub struct Settle {
    quiet: Duration,
    /// When the unrest began, and when it was last seen.
    unrest: Option<(Duration, Duration)>,
    /// The files that are being written, each with when that was last seen.
    written: BTreeMap<PathBuf, Duration>,
}

impl Settle {
    /// One that waits for so long a quiet.
    pub const fn new(quiet: Duration) -> Self {
        Self { quiet, unrest: None, written: BTreeMap::new() }
    }

    /// Something happened, `now` by the clock of the daemon.
    pub fn note(&mut self, sign: Sign, now: Duration) {
        match sign {
            Sign::Written(path) => {
                self.written.insert(path, now);
            }
            Sign::Closed(path) => {
                self.written.remove(&path);
            }
            Sign::Changed => {}
        }
        let since = self.unrest.map_or(now, |(since, _)| since);
        self.unrest = Some((since, now));
    }

    /// When it will be quiet if nothing more happens; none if it is.
    pub fn due(&self) -> Option<Duration> {
        let (since, last) = self.unrest?;
        let quiet = (last + self.quiet).min(since + self.quiet * LONGEST_UNREST);
        let closed = self.written.values().max().map(|written| *written + LONGEST_WRITE);
        Some(closed.map_or(quiet, |closed| closed.max(quiet)))
    }

    /// Whether it is quiet now, and something happened before.
    pub fn is_due(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Whether nothing is under way.
    pub const fn is_quiet(&self) -> bool {
        self.unrest.is_none()
    }

    /// What happened was looked at.
    pub fn rest(&mut self) {
        self.unrest = None;
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(300);

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn quiet_comes_after_the_last_sign() {
        let mut settle = Settle::new(QUIET);
        assert_eq!(settle.due(), None);
        settle.note(Sign::Changed, ms(1000));
        settle.note(Sign::Changed, ms(1200));
        assert_eq!(settle.due(), Some(ms(1500)));
        assert!(!settle.is_due(ms(1499)) && settle.is_due(ms(1500)));
        settle.rest();
        assert!(settle.is_quiet());
    }

    #[test]
    fn who_saves_without_end_is_read_now_and_then() {
        let mut settle = Settle::new(QUIET);
        (0..100).for_each(|save| settle.note(Sign::Changed, ms(save * 100)));
        assert_eq!(settle.due(), Some(ms(3000)));
    }

    #[test]
    fn a_slow_writer_is_waited_for_but_not_for_ever() {
        let mut settle = Settle::new(QUIET);
        let file = PathBuf::from("spec.toml");
        settle.note(Sign::Written(file.clone()), ms(0));
        settle.note(Sign::Written(file.clone()), ms(4000));
        assert_eq!(settle.due(), Some(ms(4000) + LONGEST_WRITE));
        settle.note(Sign::Closed(file), ms(5000));
        assert_eq!(settle.due(), Some(ms(3000)), "no longer than anybody else");
    }
}
