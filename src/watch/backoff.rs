//! When what has failed is tried again: after a second, and each time after twice as long, up to five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::address::Address;

/// The first wait.
pub const FIRST: Duration = Duration::from_secs(1);

/// The longest wait.
pub const MOST: Duration = Duration::from_mins(5);

/// The wait after so many failures in a row.
pub fn wait(failures: u32) -> Duration {
    let factor = 1 << failures.saturating_sub(1).min(16);
    (FIRST * factor).min(MOST)
}

/// Something that failed, and may fail again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The object.
    pub object: String,
    /// How often in a row.
    pub failures: u32,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
    /// When it is tried again, by the clock of the daemon.
    pub retry_at: Duration,
    /// Why it failed last.
    pub error: String,
}

/// The resources that are in trouble. Each waits for itself, so that one keeps none of the others back.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    /// By resource.
    pub by_address: BTreeMap<Address, Trouble>,
}

impl Troubles {
    /// An object of a resource has failed, `now` by the clock of the daemon.
    pub fn failed(&mut self, address: &Address, object: String, error: String, now: Duration, unix: u64) {
        let before = self.by_address.remove(address);
        let failures = before.as_ref().map_or(0, |it| it.failures) + 1;
        let since = before.map_or(unix, |it| it.since);
        let trouble = Trouble { object, failures, since, retry_at: now + wait(failures), error };
        self.by_address.insert(address.clone(), trouble);
    }

    /// The resources that are not tried yet.
    pub fn held_back(&self, now: Duration) -> BTreeSet<Address> {
        let waiting = self.by_address.iter().filter(|(_, trouble)| trouble.retry_at > now);
        waiting.map(|(address, _)| address.clone()).collect()
    }

    /// When the next one is to be tried again.
    pub fn next(&self) -> Option<Duration> {
        self.by_address.values().map(|trouble| trouble.retry_at).min()
    }

    /// All that was tried and did not fail is well.
    pub fn well_but(&mut self, failed: &BTreeSet<Address>, not_tried: &BTreeSet<Address>) {
        self.by_address.retain(|address, _| failed.contains(address) || not_tried.contains(address));
    }

    /// The spec is another: all is tried at once.
    pub fn forget(&mut self) {
        self.by_address.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let waits: Vec<u64> = (1..=11).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(wait(u32::MAX), MOST);
    }

    #[test]
    fn each_waits_for_itself_and_a_changed_spec_forgets() {
        let address = |text: &str| text.parse::<Address>().expect("an address");
        let (web, db) = (address("server.web"), address("server.db"));
        let mut troubles = Troubles::default();
        let at = Duration::from_secs;
        troubles.failed(&web, "domain web".into(), "no".into(), at(10), 100);
        troubles.failed(&web, "domain web".into(), "no".into(), at(11), 101);
        troubles.failed(&db, "disk db".into(), "no".into(), at(11), 101);
        assert_eq!(troubles.by_address[&web].since, 100);
        assert_eq!(troubles.held_back(at(12)), [web.clone()].into());
        assert_eq!(troubles.next(), Some(at(12)));
        troubles.well_but(&[].into(), &[web.clone()].into());
        assert_eq!(troubles.held_back(at(0)), [web].into());
        troubles.forget();
        assert_eq!(troubles.next(), None);
    }
}
