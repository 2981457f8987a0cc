//! To read a state changes nothing in it, whatever it is in.

use std::io::BufRead as _;
use std::path::Path;
use std::time::{Duration, Instant};

use novella::plan::world::Recorded;
use novella::store::Store as _;
use novella::store::export::{ReadOnly, read_only};
use novella::store::sled::SledStore;
use novella::store::who;

use crate::{child, count_of, crashed, entry, exported, fingerprint, put, scratch, whole};

/// Reads a state and makes sure that it is as it was, to the byte and the nanosecond.
fn read(state: &Path) -> ReadOnly {
    let before = fingerprint(state);
    let read = read_only(state).unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(fingerprint(state), before, "reading has left a trace");
    read
}

/// How often each server in a state with ten was written.
fn counts(recorded: &Recorded) -> Vec<u64> {
    (0..10).filter_map(|server| recorded.records.get(&entry(server, 0).0)).map(count_of).collect()
}

#[test]
fn no_state_is_an_empty_state() {
    let (scratch, state) = scratch();
    assert_eq!(read(&state), ReadOnly::default());
    assert!(!state.exists());
    assert_eq!(read(scratch.path()), ReadOnly::default());
    // A run that ended before it wrote anything.
    drop(SledStore::open(&state, "apply").expect("opens"));
    assert_eq!(read(&state), ReadOnly::default());
}

#[test]
fn after_an_apply_the_export_is_read() {
    let (_scratch, state) = scratch();
    exported(&state);
    // Not even a database is needed.
    std::fs::remove_dir_all(state.join("db")).expect("removes");
    let read = read(&state);
    assert_eq!((counts(&read.recorded), read.note), (vec![1; 10], None));
}

#[test]
fn after_a_crash_the_database_is_read() {
    let (_scratch, state) = scratch();
    crashed(&state);
    let read = read(&state);
    let expected = [[2; 5], [1; 5]].concat();
    assert_eq!((counts(&read.recorded), read.note), (expected.clone(), None));
    assert_eq!(read.recorded.serial, 15);
    // The next to write exports what was left, so that readers find it.
    let _holding = SledStore::open(&state, "apply").expect("opens");
    assert!(!state.join("dirty").exists());
    assert_eq!(counts(&read_only(&state).expect("reads").recorded), expected);
}

#[test]
fn beside_a_writer_the_state_before_it_is_read() {
    let (_scratch, state) = scratch();
    crashed(&state);
    for role in ["hold", "hold-dirty"] {
        let (mut writer, _lines) = child::spawn_ready(role, &state);
        let read = read(&state);
        assert_eq!(counts(&read.recorded), [[2; 5], [1; 5]].concat(), "{role}");
        let note = read.note.unwrap_or_default();
        if role == "hold-dirty" {
            let who = format!("`novella apply` by {}, pid {}, since ", who::person(), writer.id());
            assert!(
                note.starts_with(&who) && note.ends_with(", is at work; this is the state before it began"),
                "{note}"
            );
        } else {
            assert_eq!(note, "");
        }
        writer.kill().expect("kills");
        writer.wait().expect("ends");
    }
    assert_eq!(counts(&read(&state).recorded), [[3; 5], [1; 5]].concat());
}

#[test]
fn beside_the_first_writer_of_all_nothing_is_read() {
    let (_scratch, state) = scratch();
    let (mut writer, _lines) = child::spawn_ready("hold-dirty", &state);
    let beside = read(&state);
    assert_eq!(beside.recorded, Recorded::default());
    assert!(beside.note.is_some_and(|note| note.contains("before it began")));
    writer.kill().expect("kills");
    writer.wait().expect("ends");
    assert_eq!(counts(&read(&state).recorded), vec![3; 5]);
}

#[test]
fn beside_writers_that_come_and_go_every_state_read_is_one_that_was() {
    let (_scratch, state) = scratch();
    exported(&state);
    // So that a copy takes long enough for a writer to come in between.
    std::fs::write(state.join("db/aside.padding"), vec![1; 20 << 20]).expect("writes");
    let until = Instant::now() + Duration::from_millis(2000);
    let reads = std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut reads, mut newest) = (0, 0);
            while Instant::now() < until {
                let ReadOnly { recorded: Recorded { serial, records }, note } = read_only(&state).expect("reads");
                assert!(note.as_ref().is_none_or(|note| note.contains("is at work")), "{note:?}");
                // Each run writes all ten: before it and after it they are equal. Every other run is killed, in effect.
                let sum: u64 = records.values().map(count_of).sum();
                assert_eq!((records.len(), sum), (10, serial), "a torn state");
                assert!(serial >= newest || newest - serial <= 10, "back from {newest} to {serial}");
                newest = newest.max(serial);
                reads += 1;
            }
            reads
        });
        let mut count = 2;
        while Instant::now() < until {
            let store = SledStore::open(&state, "apply").expect("opens");
            (0..10).for_each(|server| put(&store, server, count));
            if count % 2 == 0 {
                store.export().expect("exports");
            }
            count += 1;
            drop(store);
            std::thread::sleep(Duration::from_millis(3));
        }
        reading.join().expect("reads")
    });
    assert!(reads > 10, "{reads} reads");
}

#[test]
fn a_damaged_export_is_not_believed() {
    for situation in [exported, crashed] {
        let (_scratch, state) = scratch();
        situation(&state);
        let good = read(&state).recorded;
        let path = state.join("export.json");
        let text = std::fs::read_to_string(&path).expect("reads");
        let damaged = text.replacen("fa:16:3e:00:00:02", "fa:16:3e:00:00:03", 1);
        assert_ne!(damaged, text);
        std::fs::write(&path, damaged).expect("damages");
        let from_database = read(&state);
        assert_eq!(from_database.recorded, good);
        assert!(from_database.note.is_some_and(|note| note.contains("export is damaged")));
    }
}

#[test]
fn with_a_damaged_export_and_database_the_older_export_is_read() {
    let (_scratch, state) = scratch();
    exported(&state);
    {
        let store = SledStore::open(&state, "apply").expect("opens");
        put(&store, 0, 2);
        store.export().expect("exports");
    }
    std::fs::write(state.join("export.json"), "").expect("damages");
    crate::damage::ruin(&state);
    let older = read(&state);
    assert_eq!(counts(&older.recorded), vec![1; 10]);
    assert!(older.note.is_some_and(|note| note.contains("an older export")));

    std::fs::write(state.join("export.1.json"), "{").expect("damages");
    let before = fingerprint(&state);
    let error = whole(&read_only(&state).expect_err("nothing is left"));
    assert!(error.contains("cannot read the export"), "{error}");
    assert_eq!(fingerprint(&state), before);
}

#[test]
fn a_lost_database_without_an_export_is_not_an_empty_state() {
    let (_scratch, state) = scratch();
    crashed(&state);
    std::fs::remove_file(state.join("export.json")).expect("removes");
    std::fs::remove_dir_all(state.join("db")).expect("removes");
    let error = whole(&read_only(&state).expect_err("refused"));
    assert!(error.contains("cannot read the state") && error.contains("help: there is no export"), "{error}");
}

#[test]
fn a_state_of_a_newer_novella_is_not_read() {
    let (_scratch, state) = scratch();
    exported(&state);
    let before = std::fs::read_to_string(state.join("export.json")).expect("reads");
    std::fs::write(state.join("export.json"), before.replacen("\"version\":1", "\"version\":2", 1)).expect("writes");
    let state_before = fingerprint(&state);
    for error in [read_only(&state).map(drop), SledStore::open(&state, "apply").map(drop)] {
        let error = whole(&error.expect_err("refused"));
        assert!(error.contains("written by a newer novella") && error.contains("help: use the novella"), "{error}");
    }
    let lock = state.join("lock");
    let changed: Vec<_> = fingerprint(&state).into_iter().filter(|(path, seen)| state_before[path] != *seen).collect();
    assert!(changed.iter().all(|(path, _)| *path == lock), "{changed:?}");
}

#[test]
fn a_writer_leaves_no_line_unread() {
    // The child of the other tests says what it has done: without that they would prove nothing.
    let (_scratch, state) = scratch();
    let output = child::command("write-some", &state).output().expect("runs");
    assert!(output.status.success());
    let wrote = output.stdout.lines().map_while(Result::ok).filter(|line| line.starts_with("wrote ")).count();
    assert_eq!(wrote, 12);
    assert_eq!(SledStore::open(&state, "apply").expect("opens").load().expect("loads").serial, 12);
}
