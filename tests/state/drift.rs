//! Drift, apart from edits that were not applied yet.

use serde_json::json;

use crate::common::place::Place;
use crate::common::{BASE, assert_golden};
use crate::{golden, tamper};

#[test]
fn drift_is_what_the_host_has_and_not_what_the_spec_says() {
    let place = Place::new(BASE);
    assert_eq!(place.novella(&["drift"]).ends(0).out, "No drift. The host is as it was made.\n");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["drift"]).ends(0).out("No drift.");

    // Edits of every kind, none of them applied.
    let edited =
        BASE.replace("128 MiB", "256 MiB").replace("count = 2", "count = 1").replace("10.20.0.50", "10.20.0.60");
    place.write(&edited);
    place.novella(&["plan", "--detailed-exitcode"]).ends(2);
    place.novella(&["drift"]).ends(0).out("No drift.");

    place.novella(&["stop", "db", "--force"]).ends(0);
    tamper(&place, |object| {
        let spec = &mut object["spec"];
        if spec["network"] == "private" && spec["mtu"] == 1500 && spec["device"].is_string() {
            spec["mtu"] = json!(1400);
        }
        if spec["server"] == "web-2" && spec["vcpus"].is_number() {
            spec["vcpus"] = json!(4);
        }
        !(spec["network"] == "closed" && spec["device"].is_string())
    });
    let said = place.novella(&["drift"]).ends(2);
    assert_golden(&golden("drift.txt"), &said.out);
    assert_eq!(said.err, "");
    let said = place.novella(&["drift", "--json"]).ends(2);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["drift"], true);
    let changes = json["objects"].as_array().expect("objects").iter();
    let changes: Vec<String> = changes.map(|it| format!("{} {} {}", it["address"], it["kind"], it["change"])).collect();
    assert_eq!(
        changes,
        [
            r#""network.closed" "bridge" "gone""#,
            r#""network.private" "bridge" "changed""#,
            r#""server.db" "domain" "changed""#,
            r#""server.web-2" "domain" "changed""#
        ]
    );
    let power = json!([
        { "name": "nic.closed.bridge", "recorded": power_bridge(&json), "host": "none" },
        { "name": "power", "recorded": "on", "host": "off" },
    ]);
    let fields = &json["objects"][2]["fields"];
    assert!(*fields == power || *fields == json!([power[1]]), "{fields}");

    // Mended, it is none again, though the spec is still another.
    place.write(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.write(&edited);
    place.novella(&["drift"]).ends(0).out("No drift.");
}

/// The bridge of the network that is gone, as it was recorded for the interface in it, if that is told.
fn power_bridge(json: &serde_json::Value) -> serde_json::Value {
    json["objects"][2]["fields"][0]["recorded"].clone()
}

#[test]
fn what_others_start_and_stop_does_not_drift() {
    let place = Place::new(&BASE.replace("power = \"off\"", "power = \"unmanaged\""));
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["drift"]).ends(0);
    place.novella(&["start", "spare"]).ends(0);
    place.novella(&["drift"]).ends(0);
}

#[test]
fn what_is_unfinished_or_unrecorded_is_named_and_is_no_drift() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "rm", "server.spare"]).ends(0);
    let said = place.novella(&["drift"]).ends(0).out("No drift.");
    let said = said.out("Not recorded: host entry spare/closed, disk spare, domain spare.");
    said.out("`novella state rebuild`");
    let json = place.json(&["drift", "--json"]);
    assert_eq!((&json["drift"], json["unrecorded"].as_array().map(Vec::len)), (&json!(false), Some(3)));
}

#[test]
fn a_host_that_cannot_be_looked_at_is_an_error() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    std::fs::write(place.path("state/sim/host.json"), "{").expect("a broken file");
    place.novella(&["drift"]).ends(1).err("cannot read the simulated host");
}
