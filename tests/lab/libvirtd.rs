//! A libvirtd that dies, and one that hangs.

use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, base, note, server};

/// As scripts/lab starts it.
pub const START: &str = "cd / && env -i \"PATH=$PATH\" libvirtd --daemon";

#[test]
fn a_libvirtd_that_is_started_anew_is_waited_for() {
    let Some(lab) = Lab::with_guests("libvirtd") else { return };
    lab.spec(&[base(), server("web", "shutdown_timeout = 1"), server("node", "count = 10\npower = \"off\"")].concat());
    for (round, moment) in
        ["base image (kernel): Creating", "domain: Creating", "web: domain: Creating"].iter().enumerate()
    {
        let mut run = lab.start(&["apply", "--auto-approve", "--parallelism", "2"]);
        run.wait_for(moment);
        lab.sh("kill -9 $(pgrep -x libvirtd)");
        thread::sleep(Duration::from_millis(500));
        lab.sh(START);
        let run = run.wait();
        note(format_args!("killed at {moment:?}: exit {:?} after {:?}\n{}", run.code(), run.took, run.err));
        if !run.status.success() {
            assert_eq!(run.code(), Some(1), "{run:#?}");
            assert!(run.err.contains("the next run goes on from here"), "{run:#?}");
            lab.apply();
        }
        lab.assert_settled(moment);
        assert_eq!(lab.sh("virsh -q list --all --name | grep -c ."), "11");
        assert_eq!(lab.count("qemu-system-x86"), 1, "guests, round {round}");
        lab.guest("10.20.0.12");
        lab.destroy();
        assert_eq!(lab.left(), [""; 0]);
    }
}

#[test]
fn a_libvirtd_that_hangs_is_given_up() {
    let Some(lab) = Lab::without_guests("hung") else { return };
    lab.spec(&[base(), server("web", "power = \"off\"")].concat());
    lab.apply();
    lab.sh("kill -STOP $(pgrep -x libvirtd)");
    let run = lab.novella(&["plan"]);
    assert_eq!(run.code(), Some(1), "{run:#?}");
    note(format_args!("given up after {:?}: {}", run.took, run.err));
    assert!(run.took < Duration::from_secs(30), "{run:#?}");
    assert!(run.err.contains("cannot connect to libvirt") && run.err.contains("libvirtd hangs"), "{}", run.err);
    lab.sh("kill -CONT $(pgrep -x libvirtd)");
    lab.assert_settled("when it goes on");

    lab.sh("kill -9 $(pgrep -x libvirtd)");
    let run = lab.novella(&["plan"]);
    assert_eq!(run.code(), Some(1), "{run:#?}");
    assert!(run.took < Duration::from_secs(5), "{run:#?}");
    assert!(run.err.contains("libvirtd is not running"), "{}", run.err);
    lab.sh(START);
    lab.assert_settled("when it is back");
}

#[test]
fn a_libvirtd_that_goes_while_it_is_worked_with_ends_the_run() {
    let Some(lab) = Lab::without_guests("gone") else { return };
    lab.spec(&[base(), server("node", "count = 6\npower = \"off\"")].concat());
    for (signal, limit) in [("KILL", 60), ("STOP", 120)] {
        // Two at a time, for what frees one of them need not free the other.
        let mut run = lab.start(&["apply", "--auto-approve", "--parallelism", "2"]);
        // With the first step: the domains come last, and hardly one of them is made in time.
        run.wait_for(": Creating");
        lab.sh(&format!("kill -{signal} $(pgrep -x libvirtd)"));
        let deadline = Instant::now() + Duration::from_secs(limit);
        while run.is_going_on() {
            assert!(Instant::now() < deadline, "{signal}: it goes on for ever:\n{}", run.so_far());
            thread::sleep(Duration::from_millis(100));
        }
        let run = run.wait();
        note(format_args!("{signal}: given up after {:?}", run.took));
        assert_eq!(run.code(), Some(1), "{run:#?}");
        let left = (1..=6)
            .any(|left| run.err.contains(&format!("{left} of 26 steps are left; the next run goes on from here")));
        assert!(left, "{}", run.err);
        lab.sh(if signal == "STOP" { "kill -CONT $(pgrep -x libvirtd)" } else { START });
        lab.apply();
        lab.assert_settled(signal);
        lab.destroy();
        assert_eq!(lab.left(), [""; 0]);
        // The next round is to copy them again.
        lab.novella(&["image", "prune", "--all"]).success();
    }
}
