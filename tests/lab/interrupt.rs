//! Ctrl-C, and two at once.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::lab::{Lab, base, note, server};
use crate::read;

const ONE_BY_ONE: [&str; 4] = ["apply", "--auto-approve", "--parallelism", "1"];

/// Twenty servers that never run.
fn twenty() -> String {
    [base(), server("node", "count = 20\npower = \"off\"")].concat()
}

#[test]
fn ctrl_c_ends_an_apply_and_the_next_goes_on() {
    let Some(lab) = Lab::without_guests("ctrl-c") else { return };
    lab.spec(&twenty());
    let all = lab.plan().len();

    // Once: what runs is finished, and the rest left.
    let mut run = lab.start(&ONE_BY_ONE);
    run.wait_for("disk: Creation complete");
    assert!(run.signal(Signal::SIGINT));
    let run = run.wait();
    assert_eq!(run.code(), Some(130), "{run:#?}");
    assert!(run.err.contains("Interrupt received: finishing the steps that run."), "{}", run.err);
    assert!(run.err.contains("Interrupted."), "{}", run.err);
    let begun = read::steps(&run.out).len();
    let complete = run.out.matches(" complete after ").count();
    assert_eq!(begun, complete, "each step that was begun was finished:\n{}", run.out);
    let left = lab.plan();
    note(format_args!("{begun} of {all} steps done, {} left", left.len()));
    assert_eq!(left.len(), all - begun, "{left:#?}");
    assert!(left.iter().all(|change| change.contains(" + ") && !change.contains('#')), "as if never begun: {left:#?}");

    // Twice: at once. What was begun is told from what was not.
    let mut run = lab.start(&ONE_BY_ONE);
    run.wait_for("disk: Creation complete");
    assert!(run.signal(Signal::SIGINT));
    while !run.err_so_far().contains("Interrupt received") {
        thread::sleep(Duration::from_millis(1));
    }
    run.signal(Signal::SIGINT);
    let run = run.wait();
    assert_eq!(run.code(), Some(130), "{run:#?}");

    // And on to the end.
    let run = lab.apply();
    assert!(read::steps(&run.out).len() < all - begun, "it began from the start:\n{}", run.out);
    lab.assert_settled("after two interrupts");
    assert_eq!(lab.sh("virsh -q list --all --name | grep -c ."), "20");
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn one_applies_at_a_time_and_others_may_look() {
    let Some(lab) = Lab::without_guests("lock") else { return };
    // Long enough for all that look.
    lab.spec(&twenty().replace("count = 20", "count = 60"));
    let mut first = lab.start(&ONE_BY_ONE);
    first.wait_for("disk: Creation complete");
    let pid = lab.sh("pgrep -x novella");

    // A lock is asked for before anything else is done, so this is quick.
    for verb in ["apply", "destroy"] {
        let second = lab.novella(&[verb, "--auto-approve"]);
        assert_eq!(second.code(), Some(1), "{second:#?}");
        assert!(second.err.contains("is locked by `novella apply` by "), "{}", second.err);
        assert!(second.err.contains(&format!(", pid {pid}, since ")), "{}", second.err);
    }
    for look in
        [&["plan"][..], &["drift"], &["show", "--json"], &["leases"], &["ip", "list", "private"], &["state", "list"]]
    {
        let run = lab.novella(look).success();
        assert!(run.err.contains("note: `novella apply` by "), "{look:?}: {}", run.err);
        assert!(run.err.contains(", is at work; this is the state before it began"), "{look:?}: {}", run.err);
    }
    lab.novella(&["validate"]).success();
    assert!(lab.novella(&["history"]).success().out.contains("under way"));
    let waiting = lab.start(&["apply", "--auto-approve", "--lock-timeout", "5m"]);
    assert!(!first.so_far().contains("Apply complete!"), "it was over before the others came");
    assert!(first.wait().success().out.contains("Apply complete!"));
    let waited = waiting.wait().success();
    assert!(waited.err.contains("note: waiting for `novella apply` by "), "{}", waited.err);
    assert!(waited.out.contains("No changes."), "it had not waited: {}", waited.out);
    lab.assert_settled("after all");
}
