//! A place in which a daemon runs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::place::Place;

/// A daemon. It is killed when it is dropped.
pub struct Home {
    pub place: Place,
    child: Child,
}

impl Home {
    /// A daemon on a spec, that has come to rest. It looks for itself so seldom that what it sees, it was told.
    pub fn new(spec: &str) -> Self {
        let home = Self::with(Place::new(spec), &["--interval", "1h"]);
        home.settled(spec);
        home
    }

    pub fn with(place: Place, arguments: &[&str]) -> Self {
        Self::so(place, arguments, |_| {})
    }

    /// One whose command is changed before it starts.
    pub fn so(place: Place, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let child = start(&place, arguments, change);
        let home = Self { place, child };
        home.until("it tells how things are", |status| status["pid"] == home.child.id());
        home
    }

    /// Starts it again.
    pub fn again(&mut self, arguments: &[&str]) {
        self.child = start(&self.place, arguments, |_| {});
        let pid = self.child.id();
        self.until("it tells how things are", |status| status["pid"] == pid);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn specs(&self) -> PathBuf {
        self.place.path("specs")
    }

    pub fn file(&self) -> PathBuf {
        self.place.path("specs/spec.toml")
    }

    /// What it tells.
    pub fn status(&self) -> Value {
        let said = self.place.novella(&["status", "--json"]);
        serde_json::from_str::<Value>(&said.out).expect("JSON")["status"].take()
    }

    /// Waits until it tells so.
    #[track_caller]
    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status();
            if is_so(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "it never comes to be that {what}:\n{status:#}\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the host is what this spec says, to the last thing.
    #[track_caller]
    pub fn settled(&self, spec: &str) {
        self.place.path("as-it-should-be");
        let directory = self.place.path("as-it-should-be");
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("spec.toml"), spec).expect("a spec");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let plan = self.place.novella(&["plan", "--detailed-exitcode", "--specs", "as-it-should-be"]);
            if plan.code == Some(0) && !plan.err.contains("is at work") {
                return;
            }
            assert!(Instant::now() < deadline, "{plan:#?}\n{:#}\n{}", self.status(), self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that it has said so far.
    pub fn said(&self) -> String {
        let read = |name| std::fs::read_to_string(self.place.path(name)).unwrap_or_default();
        format!("{}{}", read("out"), read("err"))
    }

    pub fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    /// Waits for its end, and gives its exit code.
    pub fn end(&mut self) -> Option<i32> {
        self.child.wait().expect("a child").code()
    }

    /// How many files it has open.
    pub fn handles(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(place: &Place, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Child {
    let file = |name| {
        let file = File::options().create(true).append(true).open(place.path(name)).expect("a file");
        Stdio::from(file)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_novella"));
    command
        .args(["watch", "--backend", "sim"])
        .args(arguments)
        .current_dir(place.0.path())
        .env_remove("RUST_LOG")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(file("out"))
        .stderr(file("err"));
    change(&mut command);
    command.spawn().expect("novella")
}
