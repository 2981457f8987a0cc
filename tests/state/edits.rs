//! Records that are renamed, forgotten, and found again.

use crate::common::place::Place;
use crate::common::{BASE, PORTS, assert_golden};
use crate::golden;

#[test]
fn records_are_listed_and_shown() {
    let place = Place::new(BASE);
    place.novella(&["state", "list"]).ends(0).out("Nothing is recorded.");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    assert_golden(&golden("list.txt"), &place.novella(&["state", "list"]).ends(0).out);
    assert_golden(&golden("show.txt"), &place.novella(&["state", "show", "server.db"]).ends(0).out);
    let json = place.json(&["state", "list", "--json"]);
    assert_eq!(json["resources"].as_array().map(Vec::len), Some(9));
    assert_eq!(json["resources"][0]["address"], "host.local");
    let json = place.json(&["state", "show", "server.db", "--json"]);
    assert_eq!(json["objects"][3]["attributes"]["memory"], "128 MiB");
    let said = place.novella(&["state", "show", "server.dbb"]).ends(1).err("nothing is recorded of `server.dbb`");
    said.err("`novella state list`");
    place.novella(&["state", "show", "db"]).ends(2).err("an address is a kind and a name, as `server.web`");
    place.novella(&["state", "show", "router.db"]).ends(2).err("`router` is not a kind of resource");
}

#[test]
fn what_is_forgotten_stays_and_is_found_again() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let host = std::fs::read(place.path("state/sim/host.json")).expect("the host");
    let said = place.novella(&["state", "rm", "server.web-1", "server.web-2"]).ends(0);
    let said = said.out(
        "Forgot server.web-1, server.web-2: host entry web-1/private, host entry web-2/private, base image unpinned-",
    );
    said.err("stays on the host, with our mark").err("note: the records as they were are in `state/sim/backups/");
    assert_eq!(std::fs::read(place.path("state/sim/host.json")).expect("the host"), host);
    place.novella(&["show"]).ends(0).out("db");
    let said = place.novella(&["plan"]).ends(0).out("Plan: 0 to add, 0 to change, 0 to destroy.");
    said.out("# server.web-1 is there and will be recorded").out("found on the host with our mark");
    // What the spec has not either is left alone.
    place.write(&BASE.replace("count = 2", "count = 1"));
    place
        .novella(&["apply", "--auto-approve"])
        .ends(0)
        .out("Left alone: host entry web-2/private, disk web-2, domain web-2.");
    place.novella(&["state", "rm", "server.web-2"]).ends(1).err("nothing is recorded of `server.web-2`");
    place.novella(&["state", "rm"]).ends(2);
}

#[test]
fn an_image_is_renamed_and_no_disk_is_replaced() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let renamed = BASE.replace("image.debian", "image.bookworm").replace("\"debian\"", "\"bookworm\"");
    place.write(&renamed);
    place.novella(&["plan"]).ends(0).out("must be replaced");
    let said = place.novella(&["state", "mv", "image.debian", "image.bookworm"]).ends(0);
    said.out("image.debian is recorded as image.bookworm now: the files in the cache")
        .err("rename it in the spec as well");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.");
    place
        .novella(&["state", "mv", "image.debian", "image.jessie"])
        .ends(1)
        .err("nothing is recorded of `image.debian`");
    place.novella(&["state", "mv", "image.bookworm", "image.tiny"]).ends(1).err("`image.tiny` is recorded already");
}

#[test]
fn a_port_is_renamed_and_keeps_its_addresses() {
    let spec = [BASE, PORTS].concat().replace("fixed_ips = [\"10.40.0.40\", { subnet = \"lab-v6\" }]\n", "");
    let place = Place::new(&spec);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let (address, mac) = port(&place, "port.vip");
    let renamed = spec.replace("[port.vip]", "[port.front]").replace("\"vip\"", "\"front\"");
    place.novella(&["state", "mv", "port.vip", "port.front"]).ends(0).out("is rebooted for it");
    place.write(&renamed);
    place.novella(&["plan"]).ends(0).out("Will be rebooted: server.app");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    assert_eq!(port(&place, "port.front"), (address, mac));
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
    place.novella(&["state", "show", "port.vip"]).ends(1);
}

fn port(place: &Place, address: &str) -> (String, String) {
    let json = place.json(&["state", "show", address, "--json"]);
    let attributes = &json["objects"][0]["attributes"];
    (attributes["address"].to_string(), attributes["mac"].to_string())
}

#[test]
fn what_would_lose_something_is_not_renamed() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let listed = place.novella(&["state", "list"]).out;
    for (from, to, why, help) in [
        ("server.db", "server.sql", "and destroy this one", "a `[port.N]`, which outlives the server"),
        ("network.private", "network.front", "the mark of its bridge", "keep the name"),
        (
            "flavor.small",
            "flavor.tiny",
            "nothing is recorded of `flavor.small`",
            "rename it in the spec, and nothing else",
        ),
        ("image.debian", "server.debian", "they are of different kinds", ""),
    ] {
        place.novella(&["state", "mv", from, to]).ends(1).err(why).err(help);
    }
    assert_eq!(place.novella(&["state", "list"]).out, listed);
    assert!(!place.path("state/sim/backups").exists());
}

#[test]
fn what_the_spec_disowns_is_forgotten_and_its_address_is_not_given_away() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let spec = BASE.replace("count = 2", "count = 1");
    let more = "\n[server.new]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\n";
    let host = |kind: &str| {
        std::fs::read_to_string(place.path("state/sim/host.json")).expect("the host").matches(kind).count()
    };
    let domains = host("\"kind\":\"domain\"");
    place.write(&format!("{spec}{more}[[removed]]\nfrom = \"server.web-2\"\n"));
    let said = place.novella(&["apply", "--auto-approve"]).ends(0);
    said.out("# server.web-2 will be forgotten, and stays as it is").out("1 added, 0 changed, 0 destroyed");
    assert_eq!(host("\"kind\":\"domain\""), domains + 1);
    let addresses = |server: &str| {
        let json = place.json(&["state", "show", server, "--json"]);
        json["objects"][0]["attributes"]["address"].as_str().expect("an address").to_owned()
    };
    // web-2 has 10.20.0.3, and goes on with it.
    assert_eq!((addresses("server.web-1"), addresses("server.new")), ("10.20.0.2".into(), "10.20.0.4".into()));
    // The same when nothing tells of it but the host.
    place.write(&format!("{spec}{more}{}", more.replace("new", "newer")));
    place.novella(&["apply", "--auto-approve"]).ends(0).out("Left alone: host entry web-2/private");
    assert_eq!(addresses("server.newer"), "10.20.0.5");
    // And back again.
    place.write(&format!("{BASE}{more}{}", more.replace("new", "newer")));
    place.novella(&["apply", "--auto-approve"]).ends(0).out("0 added, 0 changed, 0 destroyed");
    place.novella(&["state", "show", "server.web-2"]).ends(0).out("10.20.0.3");
}

#[test]
fn a_lost_state_is_rebuilt_from_the_marks() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "rebuild"]).ends(0).out("Nothing to record");
    let listed = place.novella(&["state", "list"]).out;
    let host = std::fs::read(place.path("state/sim/host.json")).expect("the host");
    std::fs::remove_dir_all(place.path("state/sim")).expect("the state is lost");
    std::fs::create_dir(place.path("state/sim")).expect("a state");
    std::fs::write(place.path("state/sim/host.json"), &host).expect("the host");
    place.novella(&["state", "rebuild"]).ends(0).out("Recorded 22 objects that the host has and the spec wants:");
    assert_eq!(place.novella(&["state", "list"]).out, listed);
    assert_eq!(std::fs::read(place.path("state/sim/host.json")).expect("the host"), host);
    place.novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.");
    place.novella(&["drift"]).ends(0).out("No drift.");

    // Half of the spec is lost as well, and a bit of the host.
    std::fs::remove_dir_all(place.path("state/sim/db")).expect("the state is lost");
    std::fs::remove_file(place.path("state/sim/export.json")).expect("the export is lost");
    crate::tamper(&place, |object| object["kind"] != "domain" || object["spec"]["server"] != "db");
    place.write(&BASE.replace("count = 2", "count = 1"));
    let said = place.novella(&["state", "rebuild"]).ends(0).out("Recorded 18 objects");
    said.out("Left alone: host entry web-2/private, disk web-2, domain web-2. They carry the mark of this project");
    place.novella(&["plan"]).ends(0).out("Plan: 1 to add, 0 to change, 0 to destroy.");
}
