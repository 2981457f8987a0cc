//! What was written before a kill is there after it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use novella::plan::world::Recorded;
use novella::store::Store as _;
use novella::store::export::read_only;
use novella::store::sled::SledStore;

use crate::child::{self, SERVERS};
use crate::{count_of, entry, say, scratch, whole};

/// The last write in what a writer said that it has done.
fn last_done(said: &[u8]) -> Option<u64> {
    // The last line may be cut off.
    let whole = said.rsplitn(2, |byte| *byte == b'\n').nth(1)?;
    whole.lines().map_while(Result::ok).filter_map(|line| line.strip_prefix("wrote ")?.parse().ok()).last()
}

/// Makes sure that all writes up to the one counted `last` are there, and at most one more for each of the last two kills:
/// one that was done, and could not be told.
fn check(recorded: &Recorded, last: Option<u64>, when: &str) {
    let Some(last) = last else { return };
    assert!((last + 1..=last + 3).contains(&recorded.serial), "{when}: {} writes, {last} was told", recorded.serial);
    for count in (last + 1).saturating_sub(SERVERS)..recorded.serial {
        let record = recorded.records.get(&entry(count % SERVERS, 0).0);
        let there = record.map(count_of);
        assert!(there >= Some(count), "{when}: write {count} is lost, there is {there:?}");
    }
}

fn open(state: &Path, when: &str) -> Recorded {
    let store = SledStore::open(state, "apply").unwrap_or_else(|error| panic!("{when}: {}", whole(&error)));
    store.load().expect("loads")
}

#[test]
fn no_kill_loses_a_write() {
    const KILLS: u64 = 220;
    let (_scratch, state) = scratch();
    let mut last = None;
    let begin = Instant::now();
    for kill in 0..KILLS {
        let mut writer = child::command("write", &state).spawn().expect("starts");
        let mut lines = BufReader::new(writer.stdout.take().expect("its output"));
        let mut said = Vec::new();
        // One in three is killed as it opens the store or at its first writes, the others well into their writing.
        let mut patience = (kill * 7919) % 60_000;
        if kill % 3 != 1 {
            while !said.starts_with(b"wrote ") {
                said.clear();
                assert_ne!(lines.read_until(b'\n', &mut said).expect("reads"), 0, "kill {kill}: the writer has failed");
            }
            patience /= 6;
        }
        std::thread::sleep(Duration::from_micros(patience));
        writer.kill().expect("kills");
        lines.read_to_end(&mut said).expect("reads");
        writer.wait().expect("ends");
        last = last_done(&said).or(last);
        let when = format!("kill {kill}");
        match kill % 5 {
            0 | 3 => {
                let opened = open(&state, &when);
                check(&opened, last, &when);
                last = opened.serial.checked_sub(1);
            }
            1 => {
                let read = read_only(&state).unwrap_or_else(|error| panic!("{when}: {}", whole(&error)));
                check(&read.recorded, last, &when);
                last = read.recorded.serial.checked_sub(1);
            }
            // The next writer opens what this one left.
            _ => {}
        }
    }
    check(&open(&state, "at the end"), last, "at the end");
    assert!(!state.join("db.corrupt-1").exists(), "nothing was given up");
    say(&format!("measured: {KILLS} kills, {} writes, {:?}", last.unwrap_or_default(), begin.elapsed()));
    assert!(last > Some(100), "the writers were killed before they could write");
}

/// strace, told to do something to these calls of what it runs; nothing where it cannot.
fn strace(calls: &str, injected: &str) -> Option<Command> {
    let mut strace = Command::new("/usr/bin/strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    if !Path::new("/usr/bin/strace").exists() {
        say("skipped: strace is not installed (apt install strace)");
        return None;
    }
    let tried = Command::new("/usr/bin/strace").args(["-o", "/dev/null", "true"]).output().expect("runs");
    if !tried.status.success() {
        say("skipped: strace may not trace here");
        return None;
    }
    strace.arg("-e").arg(format!("trace={calls}")).arg("-e").arg(format!("inject={calls}:{injected}"));
    Some(strace)
}

#[test]
fn no_kill_at_a_system_call_loses_a_write() {
    let (_scratch, state) = scratch();
    let mut kills = 0;
    // Each call is swept until a run comes through, on a state that is worked on by one run after the other, as in life.
    for calls in ["pwrite64", "write", "fdatasync,fsync", "rename,renameat,unlink,link,linkat,ftruncate", "openat"] {
        let mut last = None;
        for nth in (1..).step_by(if calls == "openat" { 5 } else { 1 }) {
            let Some(strace) = strace(calls, &format!("signal=KILL:when={nth}")) else { return };
            let run = child::command_under(strace, "write-some", &state).stdin(Stdio::null()).output().expect("runs");
            last = last_done(&run.stdout).or(last);
            let when = format!("killed at {calls} number {nth}");
            let read = read_only(&state).unwrap_or_else(|error| panic!("{when}: {}", whole(&error)));
            check(&read.recorded, last, &when);
            let opened = open(&state, &when);
            assert_eq!(read.recorded, opened, "{when}");
            last = opened.serial.checked_sub(1);
            if run.status.success() {
                break;
            }
            kills += 1;
        }
    }
    assert!(!state.join("db.corrupt-1").exists(), "nothing was given up");
    say(&format!("measured: {kills} kills at system calls"));
    // They are counted in each of sled's threads, of which it has more or less.
    assert!(kills > 20, "{kills} kills");
}

#[test]
fn no_write_is_told_before_it_is_on_disk() {
    let (_scratch, state) = scratch();
    drop(SledStore::open(&state, "apply").expect("opens"));
    for (nth, told) in [("1", 0), ("4", 3)] {
        let Some(strace) = strace("fdatasync", &format!("error=EIO:when={nth}")) else { return };
        let run = child::command_under(strace, "write-some", &state).output().expect("runs");
        assert!(!run.status.success(), "the writer is told of the error");
        assert_eq!(run.stdout.lines().map_while(Result::ok).filter(|line| line.starts_with("wrote ")).count(), told);
    }
}
