//! Snapshots: written, kept, and put back.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::BASE;
use crate::common::place::Place;

fn mode(place: &Place, name: &str) -> u32 {
    place.path(name).metadata().expect("a file").permissions().mode() & 0o777
}

#[test]
fn what_is_exported_is_imported() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "export", "one.json"]).ends(0);
    assert_eq!(mode(&place, "one.json"), 0o600);
    let said = place.novella(&["state", "export"]).ends(0);
    assert_eq!(said.out, std::fs::read_to_string(place.path("one.json")).expect("a snapshot"));
    assert!(said.out.contains("\"project\":\"default\",\"host\":{\"virt_type\":\"kvm\""), "{}", said.out);
    place.novella(&["state", "import", "one.json"]).ends(0).out("Nothing to import");

    place.write(&BASE.replace("count = 2", "count = 3"));
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let now = place.novella(&["state", "list"]).out;
    place.novella(&["state", "export", "two.json"]).ends(0);
    let said = place.novella(&["state", "import", "one.json"]).ends(1).err("it is older than what is recorded");
    said.err("`--force` imports it all the same");
    assert_eq!(place.novella(&["state", "list"]).out, now);
    let said = place.novella(&["state", "import", "one.json", "--force"]).ends(0);
    said.out("Imported 22 records from write").out("0 other, 3 dropped");
    place.novella(&["drift"]).ends(0).out("Not recorded: host entry web-3/private, disk web-3, domain web-3.");
    place.novella(&["plan"]).ends(0).out("found on the host with our mark");
    // The serial does not go back with it: what is older stays older.
    place.novella(&["state", "import", "two.json"]).ends(1).err("it is older");
    place.novella(&["state", "import", "two.json", "--force"]).ends(0);
    assert_eq!(place.novella(&["state", "list"]).out, now);
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

/// Wherever an import is killed, all of it was done or nothing.
#[test]
fn an_import_that_is_killed_was_done_or_not() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "export", "all.json"]).ends(0);
    place.novella(&["state", "rm", "server.db", "server.spare", "network.closed"]).ends(0);
    let less = place.novella(&["state", "list"]).out;
    let all = [&less, "network.closed", "server.db", "server.spare"];
    let is_all = |listed: &str| all[1..].iter().filter(|address| listed.contains(**address)).count();
    let (mut kills, mut done) = (0, 0);
    // Each kind of call is counted by itself.
    for call in ["fdatasync", "fsync", "rename", "unlink", "linkat", "write"] {
        for number in 1.. {
            let killed = std::process::Command::new("strace")
                .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e"])
                .arg(format!("inject={call}:signal=SIGKILL:when={number}"))
                .args(["-o", "/dev/null", env!("CARGO_BIN_EXE_novella"), "state", "import", "all.json", "--force"])
                .args(["--backend", "sim"])
                .current_dir(place.0.path())
                .output()
                .expect("strace");
            let listed = place.novella(&["state", "list"]).ends(0).out;
            assert!(matches!(is_all(&listed), 0 | 3), "killed at {call} {number}: {listed}");
            let is_done = is_all(&listed) == 3;
            if is_done {
                place.novella(&["state", "rm", "server.db", "server.spare", "network.closed"]).ends(0);
            }
            if killed.status.success() {
                assert!(is_done);
                break;
            }
            kills += 1;
            done += usize::from(is_done);
        }
    }
    assert!(kills > 20 && done > 0 && done < kills, "{kills} kills, of which {done} came too late");
}

#[test]
fn a_snapshot_has_no_secrets_of_urls_and_plans_as_well() {
    let place = Place::new(&BASE.replace("debian.qcow2", "debian.qcow2?token=hunter2"));
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "export", "snapshot.json"]).ends(0);
    let text = std::fs::read_to_string(place.path("snapshot.json")).expect("a snapshot");
    assert!(text.contains("https://images.example/debian.qcow2") && !text.contains("hunter2"), "{text}");
    place.novella(&["plan", "--state-file", "snapshot.json", "--detailed-exitcode"]).ends(0);
    place.novella(&["state", "import", "snapshot.json", "--force"]).ends(0);
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

#[test]
fn a_state_is_moved_to_another_place() {
    let (place, other) = (Place::new(BASE), Place::new(BASE));
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let snapshot = other.path("snapshot.json");
    let snapshot = snapshot.to_str().expect("a path");
    place.novella(&["state", "export", snapshot]).ends(0);
    other.novella(&["state", "import", snapshot]).ends(0).out("22 other, 0 dropped");
    assert_eq!(other.novella(&["state", "list"]).out, place.novella(&["state", "list"]).out);
    let third = Place::new(&format!("[project]\nname = \"other\"\n{BASE}").replace("novella = 1", ""));
    third
        .novella(&["state", "import", snapshot])
        .ends(1)
        .err("is of the project `default`, and the spec is of `other`");
    std::fs::write(other.path("bad.json"), "{}").expect("a file");
    other.novella(&["state", "import", "bad.json"]).ends(1).err("cannot read the snapshot `bad.json`");
}

#[test]
fn the_newest_backups_are_kept() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    for keep in ["3"; 5] {
        place.novella(&["state", "backup", "--keep", keep]).ends(0).out("Kept 22 records in `state/sim/backups/");
        // Two at the same write and in the same second are the same.
        std::thread::sleep(std::time::Duration::from_millis(1010));
    }
    let backups = || -> Vec<String> {
        let entries = std::fs::read_dir(place.path("state/sim/backups")).expect("backups");
        let mut names: Vec<String> =
            entries.map(|it| it.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let kept = backups();
    assert_eq!(kept.len(), 3);
    assert_eq!(mode(&place, "state/sim/backups"), 0o700);
    assert_eq!(mode(&place, &format!("state/sim/backups/{}", kept[0])), 0o600);
    place.novella(&["state", "rm", "server.db"]).ends(0);
    let newest = format!("state/sim/backups/{}", backups().pop().expect("a backup"));
    place.novella(&["state", "import", &newest]).ends(1).err("it is older");
    place.novella(&["state", "import", &newest, "--force"]).ends(0).out("4 other, 0 dropped");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}
