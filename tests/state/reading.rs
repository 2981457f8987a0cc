//! Verbs that look write nothing: seen by the system calls that they make.

use std::process::Command;

use crate::common::BASE;
use crate::common::place::{Place, files};

/// System calls that change what is on a disk, or reach for others.
const CHANGES: [&str; 21] = [
    "creat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "truncate",
    "chmod",
    "fchmodat",
    "chown",
    "fchownat",
    "mknodat",
    "utimensat",
    "mount",
];

/// The calls of a run that could have changed something.
fn suspicious(place: &Place, backend: &str, verb: &[&str], code: i32) -> Vec<String> {
    let trace = place.path("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=%file,%network", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_novella"))
        .args(verb)
        .args(["--backend", backend])
        .current_dir(place.0.path())
        .output()
        .expect("strace");
    assert_eq!(output.status.code(), Some(code), "{verb:?}: {output:?}");
    let text = std::fs::read_to_string(&trace).expect("a trace");
    std::fs::remove_file(&trace).expect("removes");
    assert!(text.lines().count() > 10, "{verb:?}: nothing was traced");
    let is_suspicious = |line: &&str| {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let name = call.split('(').next().unwrap_or_default();
        let opens = name.starts_with("open")
            && ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag))
            && !call.contains("\"/dev/null\"");
        opens || CHANGES.contains(&name) || matches!(name, "socket" | "connect" | "bind" | "sendto")
    };
    text.lines().filter(is_suspicious).map(str::to_owned).collect()
}

#[test]
fn verbs_that_look_call_nothing_that_changes_anything() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "export", "snapshot.json"]).ends(0);
    let before = files(place.0.path());
    let verbs: [(&[&str], i32); 14] = [
        (&["validate"], 0),
        (&["plan"], 0),
        (&["plan", "--destroy"], 0),
        (&["plan", "--refresh=false"], 0),
        (&["drift"], 0),
        (&["drift", "--json"], 0),
        (&["show"], 0),
        (&["leases"], 0),
        (&["ip", "list", "private"], 0),
        (&["ip", "free", "private"], 0),
        (&["state", "list"], 0),
        (&["state", "show", "server.db"], 0),
        (&["state", "export"], 0),
        (&["plan", "--state-file", "snapshot.json"], 0),
    ];
    for (verb, code) in verbs {
        assert_eq!(suspicious(&place, "sim", verb, code), [""; 0], "{verb:?}");
    }
    // Without a host, also where there is one.
    for verb in [&["plan", "--empty-state"][..], &["plan", "--state-file", "snapshot.json"]] {
        assert_eq!(suspicious(&place, "libvirt", verb, 0), [""; 0], "{verb:?}");
    }
    assert_eq!(files(place.0.path()), before);
    // What writes is seen to.
    let writes = suspicious(&place, "sim", &["apply"], 0);
    assert!(writes.iter().any(|call| call.contains("history.jsonl")), "{writes:#?}");
}

#[test]
fn the_history_is_read_without_a_spec_and_without_a_trace() {
    let place = Place::new(BASE);
    place.novella(&["history"]).ends(0).out("Nothing was done yet.");
    assert!(!place.path("state").exists());
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(place.0.path());
    place.novella(&["history", "--specs", "nowhere"]).ends(0).out("apply");
    place.novella(&["state", "list", "--specs", "nowhere"]).ends(0).out("server.db");
    assert_eq!(files(place.0.path()), before);
}
