//! Saved plans on the simulated host: carried out as they are, or not at all.

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::place::{Place, Said};
use common::{BASE, PORTS, SEEDS};

/// Saves a plan with these options in `p`.
fn save(place: &Place, options: &[&str]) -> Said {
    place.novella(&[&["plan", "--out", "p"], options].concat()).ends(0).err("`novella apply p` carries it out")
}

fn saved(place: &Place) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(place.path("p")).expect("a plan")).expect("JSON")
}

/// The host, and what is recorded of it.
fn made(place: &Place) -> [Option<Vec<u8>>; 2] {
    ["host.json", "export.json"].map(|name| std::fs::read(place.path("state/sim").join(name)).ok())
}

/// Carries out `p`, which must be refused with these words, and touch nothing.
#[track_caller]
fn refused(place: &Place, options: &[&str], words: &str) -> Said {
    let before = made(place);
    let said = place.novella(&[&["apply", "p"], options].concat()).ends(1).err(words);
    assert!(made(place) == before, "something was touched");
    said
}

#[track_caller]
fn stale(place: &Place, words: &str) {
    refused(place, &[], "error[stale-plan]: the plan `p` is stale: ")
        .err(&format!("{words}; nothing was done"))
        .err("help: make it anew with `novella plan --out p`");
}

fn is_done(place: &Place) {
    place.novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.");
}

#[test]
fn a_plan_is_carried_out_as_it_is_and_once() {
    let place = Place::new(BASE);
    let plan = save(&place, &[]);
    assert!(!place.path("state").exists(), "a plan made a state");
    let mode = std::fs::metadata(place.path("p")).expect("a plan").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let show = place.novella(&["show", "p"]).ends(0);
    assert!(show.out.starts_with(&plan.out), "{show:#?}");
    assert!(show.out.contains("for the project `default` by `novella plan`."), "{show:#?}");

    let said =
        place.novella(&["apply", "p"]).ends(0).out("Apply complete! Resources: 9 added, 0 changed, 0 destroyed.");
    assert!(!said.out.contains("Enter a value"), "{said:#?}");
    is_done(&place);
    save(&place, &[]).out("No changes.");
    let now = saved(&place)["state"]["serial"].as_u64().expect("a serial");
    // There is nothing to it, and it stays so.
    for _ in 0..2 {
        place.novella(&["apply", "p"]).ends(0).out("Resources: 0 added, 0 changed, 0 destroyed.");
    }
    place.write(&BASE.replace("128 MiB", "256 MiB"));
    save(&place, &[]);
    place.novella(&["apply", "p", "--max-disruption", "live"]).ends(1).err("this goes beyond `--max-disruption live`");
    place.novella(&["apply", "p", "--parallelism", "1", "--lock-timeout", "1s"]).ends(0).out("4 changed");
    let after = place.json(&["state", "export"])["state"]["serial"].as_u64().expect("a serial");
    assert!(after > now);
    stale(&place, &format!("the state has changed since (serial {now} then, {after} now)"));
}

#[test]
fn a_plan_that_was_saved_is_written_in_every_form() {
    let place = Place::new(BASE);
    for form in [&["--json"][..], &["--format", "markdown"], &["--format", "github"], &["--html", "page.html"]] {
        let said = save(&place, form);
        let without = place.novella(&[&["plan"], form].concat()).ends(0);
        // A workflow's log has a word of its own around the text.
        let inner =
            |said: &Said| said.out.lines().filter(|line| !line.starts_with("::")).collect::<Vec<_>>().join("\n");
        assert_eq!(inner(&said), inner(&without));
    }
    assert!(place.path("page.html").exists());
    place.novella(&["plan", "--out", "p", "--detailed-exitcode"]).ends(2);
    // The place of a device or a directory is not taken.
    place.novella(&["plan", "--out", "specs"]).ends(1).err("cannot write the plan `specs`: it is not a regular file");
    place.novella(&["plan", "--out", "no/p"]).ends(1).err("cannot write the plan `no/p`: ");
}

#[test]
fn a_spec_that_has_changed_is_told() {
    let place = Place::new(&format!("{BASE}user_data_file = \"hello\"\n[vars]\nunused = 1\n"));
    let hello = |text: &str| std::fs::write(place.path("specs/hello"), text).expect("a file");
    hello("#!/bin/sh\n");
    save(&place, &[]);
    let words = "the spec has changed since";
    let spec = std::fs::read_to_string(place.path("specs/spec.toml")).expect("the spec");
    place.write(&spec.replace("128 MiB", "256 MiB"));
    stale(&place, words);
    assert!(!place.path("state").exists(), "it made a state");
    place.write(&spec);
    // What its files name is of the spec too, and so are variables.
    hello("#!/bin/bash\n");
    stale(&place, words);
    hello("#!/bin/sh\n");
    refused(&place, &["--var", "unused=2"], words).err("or give the same `--var`");
    std::fs::write(place.path("specs/images.lock"), "version = 1\n[image.debian.source]\nsource = \"https://images.example/debian.qcow2\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\nsize = 1\n").expect("a lock");
    stale(&place, words);
    std::fs::remove_file(place.path("specs/images.lock")).expect("gone");
    place.novella(&["apply", "p"]).ends(0);

    save(&place, &["--var", "unused=2"]);
    stale(&place, words);
    place.novella(&["apply", "p", "--var", "unused=2"]).ends(0);
}

#[test]
fn a_state_that_has_changed_is_told() {
    let place = Place::new(BASE);
    save(&place, &[]);
    place.novella(&["apply", "--auto-approve", "--target", "network.closed"]).ends(0);
    stale(&place, "the state has changed since (serial 0 then, 4 now)");
    // Another state with the same serial is another.
    save(&place, &[]);
    let mut state = saved(&place);
    let serial = state["state"]["serial"].clone();
    state["state"]["sha256"] = state["spec"].clone();
    std::fs::write(place.path("p"), state.to_string()).expect("a plan");
    stale(&place, &format!("the state has changed since (other records, with serial {serial} as then)"));
}

#[test]
fn a_host_that_has_changed_is_told() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.write(&BASE.replace("fixed_ip", "depends_on = [\"spare\"]\nfixed_ip"));
    save(&place, &[]).out("server.db");
    place.novella(&["stop", "web-1"]).ends(0);
    stale(&place, "the host has changed since: `server.web-1`");
    place.novella(&["start", "web-1"]).ends(0);
    place.novella(&["apply", "p"]).ends(0);
    is_done(&place);
    // Less to be done is another plan as well.
    place.novella(&["stop", "web-1"]).ends(0);
    save(&place, &[]).out("server.web-1");
    place.novella(&["start", "web-1"]).ends(0);
    stale(&place, "the host has changed since: `server.web-1`");
}

#[test]
fn options_are_those_of_then() {
    let place = Place::new(BASE);
    save(&place, &["--target", "server.web"]);
    place.novella(&["apply", "p"]).ends(0).out("Resources: 5 added").err("warning[partial-plan]");
    save(&place, &["--exclude", "server.db"]);
    place.novella(&["apply", "p"]).ends(0);
    place.novella(&["plan"]).ends(0).out("Plan: 1 to add, 0 to change, 0 to destroy.");
    place.novella(&["apply", "--auto-approve"]).ends(0);

    save(&place, &["--replace", "server.db"]).out("# server.db must be replaced");
    place.novella(&["apply", "p"]).ends(0).out("Resources: 1 added, 0 changed, 1 destroyed.");

    place.write(&BASE.replace("128 MiB", "256 MiB"));
    save(&place, &["--defer-reboots"]);
    place.novella(&["apply", "p", "--max-disruption", "live"]).ends(0).out("3 servers wait for a reboot");

    let guarded = BASE.replace("[server.spare]", "[server.spare]\nlifecycle = { prevent_destroy = true }");
    place.write(&guarded);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    std::fs::remove_file(place.path("p")).expect("a plan");
    place.novella(&["plan", "--destroy", "--out", "p"]).ends(1).err("`server.spare` has `prevent_destroy`");
    assert!(!place.path("p").exists(), "a plan that may not be carried out was saved");
    save(&place, &["--destroy", "--allow-destroy", "server.spare"]);
    place.novella(&["apply", "p"]).ends(0).out("Destroy complete! Resources: 0 added, 0 changed, 7 destroyed.");
    place.novella(&["history"]).ends(0).out("destroy");
    // The way out is the same plan again.
    place.novella(&["show", "p"]).ends(0).out("by `novella plan --destroy --allow-destroy server.spare`.");
    refused(&place, &[], "make it anew with `novella plan --destroy --allow-destroy server.spare --out p`");
    place.novella(&["show"]).ends(0).out("There are no servers.");

    for option in [
        &["--target", "server.web"][..],
        &["--exclude", "server.web"],
        &["--replace", "server.web"],
        &["--allow-destroy", "server.web"],
        &["--defer-reboots"],
        &["--locked"],
    ] {
        place.novella(&[&["apply", "p"], option].concat()).ends(2).err("cannot be used with");
    }
}

#[test]
fn tools_are_told_line_by_line() {
    let place = Place::new(BASE);
    save(&place, &[]);
    let lines = |said: &Said| -> Vec<serde_json::Value> {
        said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let said = place.novella(&["apply", "p", "--json"]).ends(0);
    assert_eq!(lines(&said).last().expect("lines")["changes"]["add"], 9, "{said:#?}");
    let said = place.novella(&["apply", "p", "--json"]).ends(1);
    let told = lines(&said);
    assert_eq!(told.last().expect("lines")["diagnostic"]["code"], "stale-plan", "{said:#?}");
    assert_eq!(said.err, "");
}

#[test]
fn a_plan_made_elsewhere_is_carried_out_where_it_holds() {
    let (place, elsewhere) = (Place::new(BASE), Place::new(BASE));
    let path = |place: &Place, name: &str| place.path(name).to_str().expect("a path").to_owned();
    let out = path(&place, "p");
    elsewhere.on("libvirt", &["plan", "--empty-state", "--out", &out], "").ends(0);
    place.novella(&["apply", "p"]).ends(0).out("9 added");
    let snapshot = path(&elsewhere, "snapshot.json");
    place.novella(&["state", "export", &snapshot]).ends(0);
    for place in [&place, &elsewhere] {
        place.write(&BASE.replace("128 MiB", "256 MiB"));
    }
    elsewhere.on("libvirt", &["plan", "--state-file", &snapshot, "--out", &out], "").ends(0);
    place.novella(&["apply", "p"]).ends(0).out("4 changed");
    is_done(&place);

    // The host is not what it was taken to be there.
    place.novella(&["stop", "web-1"]).ends(0);
    elsewhere.write(&BASE.replace("128 MiB", "512 MiB"));
    place.write(&BASE.replace("128 MiB", "512 MiB"));
    place.novella(&["state", "export", &snapshot]).ends(0);
    elsewhere.on("libvirt", &["plan", "--state-file", &snapshot, "--out", &out], "").ends(0);
    refused(&place, &[], "the host has changed since: `server.web-1`")
        .err("it was made without a look at the host: what was recorded is taken to be there");
}

#[test]
fn every_edit_can_be_saved_first() {
    let place = Place::new(BASE);
    for spec in [
        BASE.into(),
        [BASE, PORTS, SEEDS].concat(),
        BASE.replace("count = 2", "count = 1"),
        BASE.replace("count = 2", "count = 5").replace("10.20.0.50", "10.20.0.60"),
        BASE.replace("image = \"debian\"", "image = \"tiny\"").replace("1 GiB", "2 GiB"),
        BASE.replace("\"isolated\"", "\"routed\"").replace("1 GiB", "2 GiB"),
        BASE[..BASE.find("[server.web]").expect("servers")].into(),
    ] {
        place.write(&spec);
        save(&place, &[]);
        place.novella(&["apply", "p"]).ends(0).out("Apply complete!");
        is_done(&place);
    }
}

#[test]
fn a_plan_has_no_secrets() {
    let spec = [BASE, SEEDS].concat().replace("debian.qcow2", "debian.qcow2?token=hunter2");
    let place = Place::new(&spec);
    save(&place, &[]);
    let text = std::fs::read_to_string(place.path("p")).expect("a plan");
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    place.novella(&["apply", "p", "--max-disruption", "none"]).ends(0);
}

#[test]
fn what_is_no_plan_of_this_project_is_told() {
    let place = Place::new(BASE);
    refused(&place, &[], "cannot read the plan `p`: No such file");
    let plan = place.novella(&["plan", "--json"]).ends(0).out;
    for text in ["", "nonsense", "[]", "{}", "{\"novella_plan\": 1}", "\u{1b}[31m", &plan] {
        std::fs::write(place.path("p"), text).expect("a file");
        refused(&place, &[], "error: cannot read the plan `p`: it is not a saved plan")
            .err("`novella plan --out p` writes one");
        place.novella(&["show", "p"]).ends(1).err("it is not a saved plan");
    }
    save(&place, &[]);
    let whole = saved(&place);
    let with = |key: &str, value: serde_json::Value| {
        let mut plan = whole.clone();
        plan[key] = value;
        std::fs::write(place.path("p"), plan.to_string()).expect("a file");
    };
    with("novella_plan", 2.into());
    refused(&place, &[], "it has format 2, and this novella reads format 1").err("make it anew");
    with("novella_version", "0.0.9".into());
    refused(&place, &[], "novella 0.0.9 made it, and this is ").err("make it anew");
    with("changes", "none".into());
    refused(&place, &[], "it is not a saved plan: invalid type");
    with("project", "other".into());
    refused(&place, &[], "the plan `p` is of the project `other`, and the spec is of `default`").err("--specs DIR");
    // What it says of itself does not speak to the terminal.
    with("text", "\u{1b}[31mred\u{7}".into());
    place.novella(&["show", "p"]).ends(0).out("\\u{1b}[31mred\\u{7}\n");

    with("project", "default".into());
    std::fs::set_permissions(place.path("p"), std::fs::Permissions::from_mode(0o666)).expect("mode");
    if nix::unistd::geteuid().is_root() {
        refused(&place, &[], "anybody may write to it").err("chmod o-w");
    }
}
