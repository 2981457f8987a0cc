//! The other process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use novella::store::Store as _;
use novella::store::sled::SledStore;

use crate::put;

/// Set in the environment of the other process: what it is to do.
const ROLE: &str = "NOVELLA_STORE_TEST_ROLE";

/// Set in the environment of the other process: the state it is to work on.
const STATE: &str = "NOVELLA_STORE_TEST_STATE";

/// How many records a writer writes over and over.
pub const SERVERS: u64 = 40;

/// The command that runs this binary again in a role.
pub fn command(role: &str, state: &Path) -> Command {
    dress(Command::new(std::env::current_exe().expect("this binary")), role, state)
}

/// The same under another program, such as strace.
pub fn command_under(mut program: Command, role: &str, state: &Path) -> Command {
    program.arg(std::env::current_exe().expect("this binary"));
    dress(program, role, state)
}

fn dress(mut command: Command, role: &str, state: &Path) -> Command {
    command.args(["child::child", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(STATE, state);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Runs a process in a role and waits until it says `ready`.
pub fn spawn_ready(role: &str, state: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = command(role, state).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output"));
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("reads"), 0, "the child ended before it was ready");
    }
    (child, lines)
}

fn tell(text: &str) {
    let mut out = std::io::stdout();
    // The parent may be gone; then nobody asks.
    let _ = out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush());
}

fn wait_for_ever() {
    // Ends with the parent, for that holds the other end.
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Not a test: what the other process does.
#[test]
fn child() {
    let (Ok(role), Ok(state)) = (std::env::var(ROLE), std::env::var(STATE)) else { return };
    let state = Path::new(&state);
    // The test harness has begun a line.
    tell("");
    let store = SledStore::open(state, "apply");
    match role.as_str() {
        // Holds the state, with nothing written.
        "hold" => {
            let _store = store.expect("opens");
            tell("ready");
            wait_for_ever();
        }
        // Holds the state, with five of its records written over.
        "hold-dirty" => {
            let store = store.expect("opens");
            (0..5).for_each(|server| put(&store, server, 3));
            tell("ready");
            wait_for_ever();
        }
        // Writes for ever and tells of each write that is done.
        "write" => {
            let store = store.expect("opens");
            let first = store.load().expect("loads").serial;
            for count in first.. {
                put(&store, count % SERVERS, count);
                tell(&format!("wrote {count}"));
                if count % 17 == 0 {
                    store.export().expect("exports");
                }
            }
        }
        // Writes a little and exports it, telling of each write that is done. Fails where it fails.
        "write-some" => {
            let store = store.expect("opens");
            let first = store.load().expect("loads").serial;
            for count in first..first + 12 {
                put(&store, count % SERVERS, count);
                tell(&format!("wrote {count}"));
            }
            store.export().expect("exports");
            tell("done");
        }
        // Fills the disk, then opens and writes. Told in words, for the parent cannot look into this namespace.
        "full" => {
            drop(store.expect("opens"));
            crate::damage::on_a_full_disk(state);
            tell("done");
        }
        other => panic!("no such role: {other}"),
    }
}
