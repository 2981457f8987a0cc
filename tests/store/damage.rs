//! What a bad disk, a full disk or a careless hand does to a state.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use novella::plan::world::Recorded;
use novella::store::Store as _;
use novella::store::export::read_only;
use novella::store::sled::SledStore;

use crate::{child, count_of, crashed, entry, exported, put, say, scratch, whole};

fn load(state: &Path) -> Recorded {
    let store = SledStore::open(state, "apply").unwrap_or_else(|error| panic!("{}", whole(&error)));
    store.load().expect("loads")
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).expect("lists").map(|it| it.expect("entry").path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    files.sort();
    files
}

/// Opens a database, as sled alone does, that novella has closed a moment ago: sled lets go of its file in the background.
fn opened_by_sled(db: &Path) -> Result<sled::Db, sled::Error> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match sled::open(db) {
            Err(sled::Error::Io(error)) if error.to_string().contains("lock") && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// Makes a database that cannot be read in any way.
pub fn ruin(state: &Path) {
    let log = state.join("db/db");
    let length = log.metadata().expect("is there").len();
    std::fs::write(&log, vec![0xa5; usize::try_from(length).expect("small")]).expect("ruins");
}

#[test]
fn snapshots_are_only_a_help() {
    let (_scratch, state) = scratch();
    crashed(&state);
    let good = load(&state);
    let db = state.join("db");
    let snapshot = files(&db, "snap.").pop().expect("sled has written a snapshot");

    // What a kill leaves as sled opens: sled alone could never open it again.
    std::fs::write(db.join("snap.FFFFFFFFFFFFFFFF.generating"), "half").expect("plants");
    opened_by_sled(&db).expect_err("this is what the guard is for");
    assert_eq!(load(&state), good);
    assert_eq!(files(&db, "snap.").len(), 1);

    for length in [0, 5, 20] {
        let snapshot = files(&db, "snap.").pop().unwrap_or_else(|| snapshot.clone());
        OpenOptions::new().write(true).open(&snapshot).and_then(|file| file.set_len(length)).expect("cuts");
        assert_eq!(read_only(&state).expect("reads").recorded, good, "read with a snapshot of {length} bytes");
        assert_eq!(load(&state), good, "opened with a snapshot of {length} bytes");
    }
    for snapshot in files(&db, "snap.") {
        std::fs::remove_file(snapshot).expect("removes");
    }
    assert_eq!(load(&state), good);
    assert!(files(&state, "db.corrupt").is_empty(), "nothing was given up for that");
}

#[test]
fn a_configuration_that_was_cut_short_is_made_anew() {
    let (_scratch, state) = scratch();
    crashed(&state);
    let good = load(&state);
    let conf = state.join("db/conf");
    let whole = std::fs::read(&conf).expect("reads");
    for length in 0..whole.len() {
        std::fs::write(&conf, &whole[..length]).expect("cuts");
        assert_eq!(load(&state), good, "{length} bytes");
    }
    assert!(files(&state, "db.corrupt").is_empty());
}

#[test]
fn a_ruined_database_is_restored_from_the_export() {
    for situation in [exported, crashed] {
        let (_scratch, state) = scratch();
        situation(&state);
        ruin(&state);
        let restored = load(&state);
        assert_eq!((restored.serial, restored.records.len()), (10, 10));
        assert!(restored.records.values().all(|record| count_of(record) == 1));
        assert_eq!(files(&state, "db.corrupt-"), [state.join("db.corrupt-1")], "the ruin is kept");
        assert!(!state.join("dirty").exists());
        assert_eq!(load(&state), restored, "once is enough");
        ruin(&state);
        assert_eq!(load(&state), restored);
        assert_eq!(files(&state, "db.corrupt-").len(), 2);
    }
}

#[test]
fn a_database_of_a_newer_novella_is_left_alone() {
    let (_scratch, state) = scratch();
    crashed(&state);
    let newer = opened_by_sled(&state.join("db")).expect("opens");
    newer.insert("record:bridge:private", r#"{"version":99,"record":{"of":"the future"}}"#).expect("inserts");
    drop(newer);
    for error in [SledStore::open(&state, "apply").map(drop), read_only(&state).map(drop)] {
        let error = whole(&error.expect_err("refused"));
        assert!(error.contains("written by a newer novella") && error.contains("help: use the novella"), "{error}");
    }
    assert!(files(&state, "db.corrupt-").is_empty());
}

#[test]
fn a_restore_that_was_cut_short_is_done_again() {
    let (_scratch, state) = scratch();
    exported(&state);
    let good = load(&state);
    // Between the moves: the database is put away, and there is none, or an empty one.
    std::fs::rename(state.join("db"), state.join("db.corrupt-1")).expect("moves");
    assert_eq!(load(&state), good);
    std::fs::remove_dir_all(state.join("db")).expect("removes");
    drop(sled::open(state.join("db")).expect("makes an empty one"));
    assert_eq!(load(&state), good);
}

#[test]
fn without_an_export_nothing_lost_is_taken_for_empty() {
    let ways: [fn(&Path); 3] = [
        ruin,
        |state| std::fs::remove_dir_all(state.join("db")).expect("removes"),
        |state| std::fs::write(state.join("db/db"), "").expect("empties"),
    ];
    for way in ways {
        let (_scratch, state) = scratch();
        let store = SledStore::open(&state, "apply").expect("opens");
        put(&store, 1, 1);
        drop(store);
        way(&state);
        for _ in 0..2 {
            let error = whole(&SledStore::open(&state, "apply").expect_err("refused"));
            assert!(error.starts_with("cannot open the state in `"), "{error}");
            assert!(error.contains("help: there is no whole export to restore it from"), "{error}");
        }
        read_only(&state).expect_err("refused to a reader too");
    }
}

#[test]
fn a_damaged_export_does_not_push_out_the_good_one() {
    let (_scratch, state) = scratch();
    exported(&state);
    {
        let store = SledStore::open(&state, "apply").expect("opens");
        put(&store, 0, 2);
        store.export().expect("exports");
    }
    let good = load(&state);
    let older = std::fs::read(state.join("export.1.json")).expect("reads");
    std::fs::write(state.join("export.json"), "{").expect("damages");
    assert_eq!(load(&state), good, "the database is whole");
    assert_eq!(read_only(&state).expect("reads").recorded, good, "and exported anew");
    assert_eq!(std::fs::read(state.join("export.1.json")).expect("reads"), older);

    // With the database gone too, there is still the older one.
    std::fs::write(state.join("export.json"), "{").expect("damages");
    ruin(&state);
    let restored = load(&state);
    assert_eq!((restored.serial, count_of(&restored.records[&entry(0, 0).0])), (10, 1));

    // With neither, nothing.
    for export in ["export.json", "export.1.json"] {
        std::fs::write(state.join(export), "{").expect("damages");
    }
    ruin(&state);
    let error = whole(&SledStore::open(&state, "apply").expect_err("refused"));
    assert!(error.contains("help: there is no whole export to restore it from"), "{error}");
}

#[test]
fn no_damage_to_the_database_changes_an_exported_state() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        // xorshift64 (Marsaglia 2003): the same damage in each run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let (pristine_scratch, pristine) = scratch();
    exported(&pristine);
    for round in 0..3 {
        let store = SledStore::open(&pristine, "apply").expect("opens");
        (0..50).for_each(|server| put(&store, server, round));
        store.export().expect("exports");
    }
    let good = load(&pristine);
    let mut restored = 0;
    for round in 0..60 {
        let state = pristine_scratch.path().join(format!("damaged-{round}"));
        let copied = Command::new("cp").arg("-a").args([&pristine, &state]).status().expect("runs");
        assert!(copied.success());
        let victim = match round % 5 {
            0 => files(&state.join("db"), "snap.").pop().expect("a snapshot"),
            _ => state.join("db/db"),
        };
        let mut file = OpenOptions::new().read(true).write(true).open(victim).expect("opens");
        let length = file.metadata().expect("is there").len();
        let mut used = Vec::new();
        file.read_to_end(&mut used).expect("reads");
        let used = used.iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        let at = random(used);
        match round % 4 {
            0 => file.set_len(at).expect("cuts"),
            1 => {
                file.seek(SeekFrom::Start(at)).expect("seeks");
                file.write_all(&vec![0; usize::try_from(random(512).min(length - at)).expect("small")])
                    .expect("zeroes");
            }
            2 => {
                file.seek(SeekFrom::Start(at)).expect("seeks");
                file.write_all(&[u8::try_from(random(256)).expect("a byte")]).expect("changes a byte");
            }
            _ => {
                file.seek(SeekFrom::Start(at)).expect("seeks");
                file.write_all(&[0xff; 4096]).expect("overwrites");
            }
        }
        drop(file);
        assert_eq!(read_only(&state).expect("reads").recorded, good, "round {round}");
        assert_eq!(load(&state), good, "round {round}");
        restored += files(&state, "db.corrupt-").len();
        std::fs::remove_dir_all(&state).expect("removes");
    }
    assert!(restored > 5, "only {restored} of the damages were any");
}

#[test]
fn a_full_disk_is_told_and_can_be_lived_with() {
    if !nix::unistd::geteuid().is_root() {
        return say("skipped: a small file system takes root to mount");
    }
    let (scratch, _) = scratch();
    let mount = scratch.path().join("small");
    std::fs::create_dir(&mount).expect("makes");
    let mut shell = Command::new("unshare");
    // The script is fixed; the directory and the program come as its arguments.
    shell.args(["--mount", "sh", "-c", "mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\""]).arg(&mount);
    let run = child::command_under(shell, "full", &mount.join("state")).stderr(std::process::Stdio::piped()).output();
    let run = run.expect("runs");
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    if errors.contains("unshare failed") || errors.contains("mount:") {
        return say(&format!("skipped: no small file system can be mounted here: {errors}"));
    }
    assert!(said.contains("done"), "{said}{errors}");
}

/// The part of the test above that runs where the disk is small.
pub fn on_a_full_disk(state: &Path) {
    let filler = state.with_file_name("filler");
    let fill = || {
        let mut file = OpenOptions::new().append(true).create(true).open(&filler).expect("opens");
        while file.write_all(&[7; 4096]).is_ok() {}
        while file.write_all(&[7]).is_ok() {}
    };
    crashed(state);
    let good = read_only(state).expect("reads").recorded;
    assert!(state.join("reserve").exists());

    // The reserve is enough to open, read and go on a little.
    fill();
    let store = SledStore::open(state, "apply").unwrap_or_else(|error| panic!("{}", whole(&error)));
    assert_eq!(store.load().expect("loads"), good);
    // When all is used up a write fails, says why, and the store does not pretend to work from then on.
    fill();
    let (key, record) = crate::large(100_000);
    let failed = (0..200).find_map(|_| store.put(&key, &record).err()).expect("the disk is full");
    let error = whole(&failed);
    assert!(error.contains("cannot write the record of `dhcp private`") && error.contains("No space left"), "{error}");
    assert!(error.contains("help: free some space"), "{error}");
    let (key, record) = entry(1, 9);
    store.put(&key, &record).expect_err("nothing can be said of the disk now");
    drop(store);

    // With no reserve left, opening fails in words.
    fill();
    let _ = std::fs::remove_file(state.join("reserve"));
    fill();
    match SledStore::open(state, "apply") {
        Ok(store) => drop(store),
        Err(error) => {
            let error = whole(&error);
            assert!(error.contains("help: free some space"), "{error}");
        }
    }

    // With room again, all is there, and so is the reserve.
    std::fs::remove_file(&filler).expect("removes");
    let after = load(state);
    for (key, record) in &good.records {
        assert_eq!(after.records.get(key), Some(record));
    }
    assert!(state.join("reserve").exists());
}
