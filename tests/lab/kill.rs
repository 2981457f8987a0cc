//! `kill -9` at any instant: the next run converges, with nothing twice and nothing left over.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{Lab, base, note, server};

/// Set to replay a failure: the seed that it printed.
const SEED: &str = "NOVELLA_KILL_SEED";

/// How many applies are killed.
const ROUNDS: u32 = 12;

/// SplitMix64: the same moments for the same seed.
pub struct Random(u64);

impl Random {
    pub fn from_environment() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
        let seed = seed.unwrap_or_else(clock);
        note(format_args!("{SEED}={seed}"));
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A moment in the part `number` of `parts` of a time.
    pub fn moment(&mut self, time: Duration, number: u32, parts: u32) -> Duration {
        let part = time / parts;
        part * number + Duration::from_micros(self.below(part.as_micros().try_into().expect("a short time")))
    }
}

/// Kills a run after some time. Tells how long the run took, if that was too late.
pub fn kill_after(lab: &Lab, verb: &str, delay: Duration) -> Option<Duration> {
    let run = lab.start(&[verb, "--auto-approve"]);
    thread::sleep(delay);
    let killed = run.signal(Signal::SIGKILL);
    let run = run.wait();
    let last = run.out.lines().last().unwrap_or_default();
    note(format_args!("{verb} {} after {delay:?}, at {last:?}", if killed { "killed" } else { "was done" }));
    (!killed).then_some(run.took)
}

/// One of each thing, and nothing but them.
fn assert_single(lab: &Lab, expected: &[String]) {
    let mut there = lab.inventory();
    // What guests are told from is dnsmasq's to rewrite, and a stale mark of ours is harmless only if it is not there.
    assert!(!there.iter().any(|it| it.contains(".part") || it.ends_with(".new") || it.ends_with(".tmp")), "{there:#?}");
    there.retain(|it| !it.ends_with("/reload"));
    assert_eq!(there, expected);
    assert_eq!(lab.sh("nft -j list ruleset | grep -o '\"table\": {\"family\"' | wc -l"), "1");
}

#[test]
fn an_apply_that_is_killed_is_finished_by_the_next() {
    let Some(lab) = Lab::with_guests("kill-apply") else { return };
    let mut random = Random::from_environment();
    let servers = ["web", "db"].map(|name| server(name, "shutdown_timeout = 1"));
    lab.spec(&[base(), servers.concat()].concat());
    // How long it takes, and what there is at its end.
    let mut time = lab.apply().took;
    let whole = lab.inventory();
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
    note(format_args!("an apply takes {time:?}"));

    let mut killed = 0;
    for round in 0..ROUNDS {
        match kill_after(&lab, "apply", random.moment(time, round, ROUNDS)) {
            None => killed += 1,
            // Other tests ran when the time was taken.
            Some(took) => time = time.min(took),
        }
        let finish = lab.apply();
        note(format_args!("  the next took {:?}", finish.took));
        lab.assert_settled("after a kill");
        assert_single(&lab, &whole);
        if round + 1 < ROUNDS {
            lab.destroy();
            assert_eq!(lab.left(), [""; 0], "left after destroy");
        }
    }
    assert!(killed >= ROUNDS / 2, "only {killed} of {ROUNDS} were killed in time");
    assert_eq!(["10.20.0.2", "10.20.0.3"].map(|address| lab.guest(address).0), ["db", "web"]);
}

#[test]
fn a_destroy_that_is_killed_is_finished_by_the_next() {
    let Some(lab) = Lab::with_guests("kill-destroy") else { return };
    let mut random = Random::from_environment();
    let servers = ["web", "db"].map(|name| server(name, "shutdown_timeout = 1"));
    lab.spec(&[base(), servers.concat()].concat());
    lab.apply();
    let whole = lab.inventory();
    let mut time = lab.destroy().took;
    note(format_args!("a destroy takes {time:?}"));

    let mut killed = 0;
    for round in 0..4 {
        lab.apply();
        match kill_after(&lab, "destroy", random.moment(time, round, 4)) {
            None => killed += 1,
            Some(took) => time = time.min(took),
        }
        if round % 2 == 0 {
            // Forward from wherever it stopped.
            lab.apply();
            lab.assert_settled("an apply after a destroy that was killed");
            assert_single(&lab, &whole);
        }
        lab.destroy();
        assert_eq!(lab.left(), [""; 0], "left after destroy");
    }
    assert!(killed >= 2, "only {killed} of 4 were killed in time");
}
