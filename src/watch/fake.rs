//! A world in which hours pass in a moment, for tests.

use std::path::PathBuf;
use std::time::Duration;

use crate::desired::Desired;
use crate::watch::daemon::{Wake, World};

/// What happens at a time, and what is heard of it.
pub(crate) type Event<'a> = (Duration, Box<dyn FnMut() + 'a>, Option<Wake>);

/// Ends the daemon when its time is over.
pub(crate) struct Fake<'a> {
    pub(crate) now: Duration,
    pub(crate) end: Duration,
    /// In the order of time.
    pub(crate) events: Vec<Event<'a>>,
}

impl World for Fake<'_> {
    fn now(&self) -> Duration {
        self.now
    }

    fn unix(&self) -> u64 {
        1_000_000_000 + self.now.as_secs()
    }

    fn wait(&mut self, most: Duration) -> Option<Wake> {
        let until = self.now + most;
        if let Some((at, ..)) = self.events.first().filter(|(at, ..)| *at <= until) {
            self.now = self.now.max(*at);
            let (_, mut happen, heard) = self.events.remove(0);
            happen();
            return heard;
        }
        self.now = until;
        (self.now >= self.end).then_some(Wake::End)
    }

    fn listen(&mut self, _: &[PathBuf], _: &[PathBuf]) -> Result<(), String> {
        Ok(())
    }

    fn heed(&mut self, _: &Desired) -> Result<(), String> {
        Ok(())
    }
}
