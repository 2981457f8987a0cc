//! What is written is there, for one process at a time and for all its threads.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use novella::plan::world::Recorded;
use novella::store::Store;
use novella::store::export::read_only;
use novella::store::lock::StateLock;
use novella::store::memory::MemoryStore;
use novella::store::sled::SledStore;
use novella::store::who;

use crate::{child, count_of, entry, exported, large, put, say, scratch, whole};

fn round_trip(store: &dyn Store) {
    assert_eq!(store.load().expect("loads"), Recorded::default());
    let (a, first) = entry(1, 1);
    let (b, other) = entry(2, 1);
    let (_, second) = entry(1, 2);
    store.put(&a, &first).expect("puts");
    store.put(&b, &other).expect("puts");
    store.put(&a, &second).expect("puts over");
    store.forget(&b).expect("forgets");
    store.forget(&b).expect("forgets again");
    let recorded = store.load().expect("loads");
    assert_eq!(recorded.serial, 5, "each write counts");
    assert_eq!(recorded.records, [(a, second)].into());
}

#[test]
fn what_is_put_is_loaded() {
    let memory = MemoryStore::default();
    round_trip(&memory);
    assert_eq!(memory.snapshot(), memory.load().expect("loads"));

    let (_scratch, state) = scratch();
    let store = SledStore::open(&state, "apply").expect("opens");
    round_trip(&store);
    let before = store.load().expect("loads");
    drop(store);
    let begin = Instant::now();
    for _ in 0..20 {
        let store = SledStore::open(&state, "apply").expect("opens again at once");
        assert_eq!(store.load().expect("loads"), before);
    }
    say(&format!("measured: to open and close {:?}", begin.elapsed() / 20));
}

#[test]
fn a_large_record_survives() {
    let (_scratch, state) = scratch();
    let (key, record) = large(400_000);
    for _ in 0..3 {
        let store = SledStore::open(&state, "apply").expect("opens");
        store.put(&key, &record).expect("puts");
        put(&store, 1, 1);
        store.export().expect("exports");
        assert_eq!(store.load().expect("loads").records[&key], record);
    }
}

#[test]
fn threads_share_the_way_to_the_disk() {
    const THREADS: u64 = 10;
    const PUTS: u64 = 60;
    let (_scratch, state) = scratch();
    let store = SledStore::open(&state, "apply").expect("opens");

    let begin = Instant::now();
    (0..PUTS).for_each(|count| put(&store, 0, count));
    let alone = begin.elapsed();

    let barrier = Barrier::new(THREADS as usize);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for count in 0..PUTS {
                    put(store, thread * PUTS + count, count);
                }
            });
        }
    });
    let together = begin.elapsed();
    say(&format!(
        "measured: a put alone {:?}, one of {THREADS} at once {:?}",
        alone / PUTS as u32,
        together / (THREADS * PUTS) as u32
    ));
    drop(store);

    let recorded = SledStore::open(&state, "apply").expect("opens").load().expect("loads");
    assert_eq!(recorded.serial, PUTS + THREADS * PUTS);
    assert_eq!(recorded.records.len() as u64, THREADS * PUTS);
    for (key, record) in &recorded.records {
        let (expected, _) = entry(key.id["web-".len()..].trim_end_matches("/private").parse().expect("a number"), 0);
        assert_eq!((key, count_of(record)), (&expected, count_of(record) % PUTS));
    }
}

#[test]
fn a_load_or_an_export_sees_whole_writes() {
    let (_scratch, state) = scratch();
    let store = SledStore::open(&state, "apply").expect("opens");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || (0..50).for_each(|count| put(store, thread * 50 + count, count)));
        }
        for _ in 0..20 {
            let recorded = store.load().expect("loads");
            assert_eq!(recorded.serial, recorded.records.len() as u64, "each write makes a record");
            store.export().expect("exports");
        }
    });
    store.export().expect("exports");
    assert_eq!(read_only(&state).expect("reads").recorded, store.load().expect("loads"));
}

#[test]
fn the_second_process_is_told_who_was_first() {
    let (_scratch, state) = scratch();
    let (mut first, _lines) = child::spawn_ready("hold", &state);
    let holder = StateLock::holder(&state).expect("it is held");
    assert_eq!((holder.pid, holder.operation.as_str()), (first.id(), "apply"));
    assert!(holder.command.contains("child::child"), "{}", holder.command);

    let error = whole(&SledStore::open(&state, "apply").expect_err("refused"));
    let who = format!("is locked by `novella apply` by {}, pid {}, since ", who::person(), first.id());
    assert!(error.contains(&who), "{error}");
    assert!(error.contains("help: wait until it has ended"), "{error}");

    let begin = Instant::now();
    StateLock::acquire(&state, "apply", Duration::from_millis(200)).expect_err("refused after a while");
    assert!(begin.elapsed() >= Duration::from_millis(200));

    // Who waits long enough gets it as the first is gone, however it went.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| StateLock::acquire(&state, "destroy", Duration::from_secs(10)));
        std::thread::sleep(Duration::from_millis(100));
        first.kill().expect("kills");
        first.wait().expect("ends");
        let lock = waiting.join().expect("waits").expect("gets it");
        assert_eq!(StateLock::holder(&state).expect("it is held").operation, "destroy");
        SledStore::with_lock(lock).expect("opens");
    });
    assert_eq!(StateLock::holder(&state), None, "a lock that was given back has no holder");
}

#[test]
fn to_ask_for_the_holder_takes_and_writes_nothing() {
    let (_scratch, state) = scratch();
    assert_eq!(StateLock::holder(&state), None);
    assert!(!state.exists());
    exported(&state);
    let before = crate::fingerprint(&state);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..20_000 {
                let _ = StateLock::holder(&state);
            }
        });
        while !asking.is_finished() {
            StateLock::acquire(&state, "apply", Duration::ZERO).expect("nobody but us takes it");
        }
    });
    let lock = state.join("lock");
    let unchanged = |mut seen: std::collections::BTreeMap<_, _>| {
        seen.remove(&lock);
        seen
    };
    assert_eq!(unchanged(before), unchanged(crate::fingerprint(&state)));
}

#[test]
fn others_can_neither_read_nor_write() {
    let (_scratch, state) = scratch();
    let mode = |path: &std::path::Path| path.metadata().expect("is there").permissions().mode() & 0o777;
    // A checkout has the directory, open to all and even to the group's writing, with files of its own.
    std::fs::create_dir(&state).expect("makes");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o775)).expect("opens up");
    std::fs::write(state.join("README.md"), "ours").expect("writes");
    let _holding = {
        let store = SledStore::open(&state, "apply").expect("opens");
        let (key, record) = large(400_000);
        store.put(&key, &record).expect("puts");
        store.export().expect("exports");
        put(&store, 1, 1);
        store
    };
    assert_eq!(mode(&state), 0o755);
    assert_eq!(mode(&state.join("README.md")), 0o644);
    assert_eq!(mode(&state.join("db")), 0o700);
    for name in ["lock", "export.json", "dirty", "reserve", "db/db", "db/conf"] {
        assert_eq!(mode(&state.join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&state.join("db/blobs")), 0o700);
    assert_eq!(std::fs::read_to_string(state.join("README.md")).expect("reads"), "ours");

    let (_scratch, fresh) = scratch();
    exported(&fresh);
    assert_eq!(mode(&fresh), 0o700);
}

#[test]
fn the_export_is_written_only_when_something_changed() {
    let (_scratch, state) = scratch();
    exported(&state);
    let export = std::fs::read(state.join("export.json")).expect("reads");
    let before = crate::fingerprint(&state.join("export.json"));
    {
        let store = SledStore::open(&state, "apply").expect("opens");
        store.export().expect("has nothing to do");
        assert_eq!(crate::fingerprint(&state.join("export.json")), before);
        assert!(!state.join("dirty").exists());
        put(&store, 1, 2);
        assert!(state.join("dirty").exists());
        store.export().expect("exports");
    }
    assert!(!state.join("dirty").exists());
    assert_ne!(crate::fingerprint(&state.join("export.json")), before);
    assert_eq!(std::fs::read(state.join("export.1.json")).expect("reads"), export, "the one before is kept");
}

/// Else they would look each second, for as long as the process lives, whether they are needed.
#[test]
fn the_threads_of_sled_let_a_process_sleep() {
    let (_scratch, state) = scratch();
    let own = nix::sys::prctl::get_timerslack().expect("a number");
    let store = SledStore::open(&state, "apply").expect("opens");
    put(&store, 1, 1);
    drop(store);
    SledStore::open(&state, "apply").expect("opens again");
    assert_eq!(nix::sys::prctl::get_timerslack().expect("a number"), own, "who opens it is as punctual as before");
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc").map(|task| task.expect("a task"));
    let is_sleds = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("sled-io"))
    };
    let ids: Vec<String> = tasks.filter(is_sleds).filter_map(|task| task.file_name().into_string().ok()).collect();
    assert!(!ids.is_empty());
    for id in ids {
        match std::fs::read_to_string(format!("/proc/{id}/timerslack_ns")) {
            Ok(slack) => assert!(slack.trim().parse::<u64>().expect("a number") >= 60_000_000_000, "{slack}"),
            Err(error) => return say(&format!("skipped: only root may see how late a thread may be: {error}")),
        }
    }
}
