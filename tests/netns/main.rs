//! Bridges and the firewall, made for real and checked with the system's own tools (`ip`, `bridge`, `nft`, `ping`). Each
//! test has a network namespace of its own, which goes with it.

mod advert;
mod firewall;
mod links;
mod packets;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use novella::address::Name;
use novella::blueprint::facts::Facts;
use novella::blueprint::object::Object;

/// A network namespace. It holds no process and no name: it is gone when this is dropped.
pub struct NetNs(File);

impl NetNs {
    /// A new one with loopback up; none, with the reason printed, where that is not allowed.
    pub fn new() -> Option<Self> {
        let opened = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| skip(&format!("cannot make a network namespace: {errno}")))?;
            run("ip link set lo up");
            Ok::<_, ()>(File::open("/proc/thread-self/ns/net").expect("own namespace"))
        });
        opened.ok().map(Self)
    }

    /// Does something inside, with all the processes it starts.
    pub fn run<T: Send>(&self, deed: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("enter namespace");
            deed()
        })
    }

    /// What `ip link set … netns` calls it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn in_thread<T: Send>(deed: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(deed).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Says why a test does not run.
#[allow(clippy::print_stderr)]
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Runs a test in a network namespace of its own.
pub fn in_netns(test: impl FnOnce() + Send) {
    if let Some(netns) = NetNs::new() {
        netns.run(test);
    }
}

/// Runs a command, its words parted by blanks (a word may be quoted by `'`), and gives its output.
pub fn run(line: &str) -> String {
    let (ok, said) = try_run(line);
    assert!(ok, "`{line}` failed: {said}");
    said
}

/// Runs a command; whether it went well, and what it said.
pub fn try_run(line: &str) -> (bool, String) {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// What a tool says in JSON.
pub fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(&run(line)).expect(line)
}

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().expect(text)
}

/// The facts in which what was seen differs from what is wanted, as a plan compares them: seen, wanted.
pub fn differences(object: &Object, seen: &Facts) -> BTreeMap<String, (String, String)> {
    let wanted = object.facts();
    seen.iter()
        .filter_map(|(fact, value)| {
            let want = wanted.get(fact)?;
            (want != value).then(|| (fact.to_string(), (value.clone(), want.clone())))
        })
        .collect()
}
