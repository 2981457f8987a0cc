//! The state: looked at, planned from without a host, edited by hand, and what it tells of what was done. On the simulated
//! host.

#[path = "../common/mod.rs"]
mod common;

mod copies;
mod drift;
mod edits;
mod history;
mod offline;
mod reading;

use common::place::Place;

/// Takes objects away from the simulated host of a place, or changes them, as somebody else would: gets each in turn, and
/// keeps those of which it gives true.
fn tamper(place: &Place, mut keep: impl FnMut(&mut serde_json::Value) -> bool) {
    let file = place.path("state/sim/host.json");
    let host = std::fs::read_to_string(&file).expect("the host");
    let mut host: serde_json::Value = serde_json::from_str(&host).expect("JSON");
    host["objects"].as_array_mut().expect("objects").retain_mut(|object| keep(object));
    std::fs::write(&file, host.to_string()).expect("written");
}

/// The path of a golden text of these tests.
fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state").join(name)
}
