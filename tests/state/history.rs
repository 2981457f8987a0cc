//! What was done, by whom, and how it ended.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use novella::report;
use novella::store::history::{Begun, Entry, Outcome, Step};

use crate::common::place::Place;
use crate::common::{BASE, SEEDS, assert_golden, plain};
use crate::golden;

#[test]
fn each_run_is_written_down() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["apply"]).ends(0);
    place.novella(&["state", "rm", "server.db"]).ends(0);
    place.novella(&["state", "rebuild"]).ends(0);
    place.answer(&["destroy"], "no\n").ends(1);
    place.novella(&["destroy", "--auto-approve"]).ends(0);
    let json = place.json(&["history", "--json"]);
    let runs = json["runs"].as_array().expect("runs");
    let said: Vec<String> = runs
        .iter()
        .map(|run| {
            format!("{} {} {}: {}", run["number"], run["operation"], run["outcome"], run["summary"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        said,
        [
            "1 apply complete: 9 to add, 0 to change, 0 to destroy",
            "2 apply complete: 0 to add, 0 to change, 0 to destroy",
            "3 state rm complete: forgot server.db",
            "4 state rebuild complete: recorded 4 objects",
            "5 destroy complete: 0 to add, 0 to change, 7 to destroy",
        ]
    );
    assert_eq!(runs[0]["user"], novella::store::who::person());
    assert_eq!(runs[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(runs[0]["spec"].as_str().map(str::len), Some(64));
    assert_eq!(runs[0]["spec"], runs[4]["spec"]);
    assert_eq!(runs[0]["steps"].as_array().map(Vec::len), Some(22));
    assert_eq!(place.novella(&["history", "-n", "2"]).ends(0).lines().len(), 3);
    let said = place.novella(&["history", "show", "1"]).ends(0).out("Outcome  complete");
    assert!(said.lines().contains(&"server.db domain db ensure done".into()), "{said:?}");
    place.novella(&["history", "show", "9"]).ends(1).err("the history has no run 9");
    let mode = place.path("state/sim/history.jsonl").metadata().expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_run_that_failed_tells_at_which_step() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    // A DHCP server that a host entry needs which is in no record is not taken away.
    place.novella(&["state", "rm", "server.spare"]).ends(0);
    place.novella(&["destroy", "--auto-approve"]).ends(1);
    let json = place.json(&["history", "show", "3", "--json"]);
    assert_eq!(json["run"]["outcome"], "failed");
    let steps = json["run"]["steps"].as_array().expect("steps");
    let failed: Vec<_> = steps.iter().filter(|step| step["result"] == "failed").collect();
    assert!(!failed.is_empty(), "{json:#}");
    assert!(failed.iter().all(|step| step["error"].as_str().is_some_and(|why| why.contains("uses it"))), "{failed:#?}");
    assert!(steps.iter().any(|step| step["result"] == "done"));
}

#[test]
fn an_apply_that_was_killed_is_interrupted() {
    let place = Place::new(BASE);
    for _ in 0..2 {
        let killed = Command::new("strace")
            // Each thread is counted by itself, so one does all the steps.
            .args([
                "-f",
                "-qq",
                "-e",
                "trace=fdatasync",
                "-e",
                "inject=fdatasync:signal=SIGKILL:when=10",
                "-o",
                "/dev/null",
            ])
            .arg(env!("CARGO_BIN_EXE_novella"))
            .args(["apply", "--auto-approve", "--parallelism", "1", "--backend", "sim"])
            .current_dir(place.0.path())
            .output()
            .expect("strace");
        assert_ne!(killed.status.code(), Some(0), "{killed:?}");
    }
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let lines = place.novella(&["history"]).ends(0).lines();
    let outcomes: Vec<&str> = lines[1..].iter().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(outcomes, ["interrupted", "interrupted", "complete"]);
    place.novella(&["history", "show", "1"]).ends(0).out("unknown: it was killed, or the machine went down");
}

#[test]
fn there_are_no_secrets_in_it() {
    let place = Place::new(&[BASE, SEEDS].concat());
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "backup"]).ends(0);
    place.novella(&["state", "export", "snapshot.json"]).ends(0);
    for (path, bytes) in crate::common::place::files(place.0.path()) {
        let text = String::from_utf8_lossy(&bytes);
        let in_spec = path.ends_with("specs/spec.toml");
        assert_eq!(text.contains("hunter2"), in_spec, "{}", path.display());
    }
}

#[test]
fn who_waits_for_the_lock_gets_it() {
    let place = Place::new(BASE);
    let start = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_novella"));
        command.args(arguments).args(["--backend", "sim"]).current_dir(place.0.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("novella")
    };
    let mut first = start(&["apply"]);
    let until = Instant::now() + Duration::from_secs(20);
    while novella::store::lock::StateLock::holder(&place.path("state/sim")).is_none_or(|holder| holder.pid == 0) {
        assert!(Instant::now() < until, "the lock is not taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    let who = format!("locked by `novella apply` by {}, pid {}, since", novella::store::who::person(), first.id());
    place.novella(&["apply", "--auto-approve"]).ends(1).err(&who);
    place.novella(&["state", "rm", "server.db", "--lock-timeout", "0s"]).ends(1).err(&who);
    let begun = Instant::now();
    place
        .novella(&["apply", "--auto-approve", "--lock-timeout", "1s"])
        .ends(1)
        .err("note: waiting for `novella apply`");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // Those who look are not kept.
    for verb in [
        &["plan"][..],
        &["drift"],
        &["show"],
        &["leases"],
        &["ip", "list", "private"],
        &["state", "list"],
        &["history"],
    ] {
        place.novella(verb).ends(0);
    }
    let second = start(&["apply", "--auto-approve", "--lock-timeout", "1m"]);
    first.stdin.take().expect("a pipe").write_all(b"no\n").expect("an answer");
    first.wait().expect("an end");
    assert!(second.wait_with_output().expect("an end").status.success());
}

#[test]
fn it_reads_as_it_should() {
    let begun = |number, operation: &str, summary: &str| Begun {
        number,
        started_at: 1_790_000_000 + 3600 * number,
        user: "alice".into(),
        pid: 4711,
        version: "0.1.0".into(),
        operation: operation.into(),
        spec: (operation == "apply").then(|| novella::value::Sha256::of(b"spec")),
        summary: summary.into(),
    };
    let step = |object: &str, deed: &str, result: &str, error: Option<&str>| Step {
        address: "server.web".into(),
        object: object.into(),
        deed: deed.into(),
        result: result.into(),
        error: error.map(str::to_owned),
    };
    let entry = |begun: Begun, outcome, seconds: Option<u64>, steps, left_out| Entry {
        ended_at: seconds.map(|seconds| begun.started_at + seconds),
        begun,
        outcome,
        steps,
        left_out,
    };
    let failed = vec![
        step("disk web", "ensure", "done", None),
        step("domain web", "ensure", "failed", Some("cannot start domain `default.web`: \u{1b}[31mno room")),
    ];
    let entries = [
        entry(begun(1, "apply", "1 to add, 0 to change, 0 to destroy"), Outcome::Failed, Some(12), failed, 3),
        entry(begun(2, "apply", "1 to add, 0 to change, 0 to destroy"), Outcome::Interrupted, None, Vec::new(), 0),
        entry(begun(3, "state rm", "forgot server.web"), Outcome::Complete, Some(0), Vec::new(), 0),
        entry(begun(4, "apply", "0 to add, 1 to change, 0 to destroy"), Outcome::UnderWay, None, Vec::new(), 0),
    ];
    let shown: Vec<String> = entries.iter().map(report::history::one).collect();
    let text = [report::history::render(&entries), shown.join("\n")].join("\n");
    assert_golden(&golden("history.txt"), &plain(&text));
}
