//! The state store against a real disk, real kills and real damage.
//!
//! Where a test needs another process, this binary runs itself again: the test `child` then acts as the writer.

mod child;
mod damage;
mod kill;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use novella::blueprint::dhcp::Assignment;
use novella::blueprint::key::ObjectKey;
use novella::blueprint::object::{Dhcp, DhcpRange, HostEntry, Object};
use novella::plan::world::Record;
use novella::store::Store;
use novella::store::sled::SledStore;
use novella::value::Sha256;

/// A directory for a test, with the path of a state in it that is not there yet.
fn scratch() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().expect("a directory");
    let state = scratch.path().join("state");
    (scratch, state)
}

/// The record of the host entry of a server; `count` tells one write of it from another.
fn entry(server: u64, count: u64) -> (ObjectKey, Record) {
    let object = Object::HostEntry(HostEntry {
        port: format!("web-{server}/private").parse().expect("a port"),
        network: "private".parse().expect("a name"),
        mac: "fa:16:3e:00:00:02".parse().expect("a MAC address"),
        addresses: Vec::new(),
        hostname: count.to_string(),
        options: Vec::new(),
    });
    (object.key(), Record::present(object))
}

/// The `count` in a record that [`entry`] made.
fn count_of(record: &Record) -> u64 {
    match &record.object {
        Object::HostEntry(entry) => entry.hostname.parse().expect("a number"),
        other => panic!("not a host entry: {other:?}"),
    }
}

/// A record of about so many bytes.
fn large(bytes: usize) -> (ObjectKey, Record) {
    let range = DhcpRange {
        subnet: "private-v4".parse().expect("a name"),
        cidr: "10.0.0.0/24".parse().expect("a network"),
        assignment: Assignment::Dhcp,
        router: None,
        dns: Vec::new(),
        routes: Vec::new(),
        domain: None,
        lease_seconds: 60,
    };
    let object = Object::Dhcp(Dhcp {
        network: "private".parse().expect("a name"),
        bridge: "nvb0123456789".into(),
        dir: "/var/lib/novella".into(),
        ranges: vec![range; bytes / 140],
        mtu: 1500,
        domain: "internal".into(),
        records: BTreeMap::new(),
    });
    (object.key(), Record::present(object))
}

fn put(store: &SledStore, server: u64, count: u64) {
    let (key, record) = entry(server, count);
    store.put(&key, &record).expect("put");
}

/// A state with ten records, exported.
fn exported(state: &Path) {
    let store = SledStore::open(state, "apply").expect("opens");
    (0..10).for_each(|server| put(&store, server, 1));
    store.export().expect("exports");
}

/// What a kill leaves of a state with ten exported records and five later ones.
fn crashed(state: &Path) {
    exported(state);
    let store = SledStore::open(state, "apply").expect("opens");
    (0..5).for_each(|server| put(&store, server, 2));
}

/// All that can be seen of a directory: modes, sizes, times, and contents by their digests.
fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(path) = rest.pop() {
        let Ok(data) = path.symlink_metadata() else { continue };
        let digest = if data.is_dir() {
            rest.extend(std::fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
            String::new()
        } else {
            Sha256::of(&std::fs::read(&path).expect("reads")).to_string()
        };
        let text = format!(
            "{:o} {} {}.{} {}.{} {digest}",
            data.permissions().mode(),
            data.ino(),
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec()
        );
        seen.insert(path, text);
    }
    seen
}

/// An error with its causes and its help, in one line.
fn whole(error: &novella::store::StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    format!("{text}; help: {}", error.help.as_deref().unwrap_or("none"))
}

/// Says on standard error what cannot be tested here, or what was measured.
fn say(text: &str) {
    // Where nobody listens, nothing is lost.
    let _ = writeln!(std::io::stderr(), "{text}");
}
