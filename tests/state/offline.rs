//! Plans without a host, a state or rights.

use crate::common::place::Place;
#[cfg(not(feature = "libvirt"))]
use crate::common::place::files;
use crate::common::{BASE, PORTS, SEEDS, old};
use novella::host::sim::SimHost;
use novella::value::ByteSize;

/// Edits that touch every kind of object.
fn edits() -> Vec<(&'static str, String)> {
    vec![
        ("nothing", BASE.into()),
        ("more memory", BASE.replace("128 MiB", "256 MiB")),
        ("one server less", BASE.replace("count = 2", "count = 1")),
        ("three more", BASE.replace("count = 2", "count = 5")),
        ("another address", BASE.replace("10.20.0.50", "10.20.0.60")),
        ("another image", BASE.replace("image = \"debian\"", "image = \"tiny\"")),
        ("a larger disk", BASE.replace("1 GiB", "2 GiB")),
        ("another forward", BASE.replace("\"isolated\"", "\"routed\"")),
        ("off", BASE.replace("fixed_ip", "power = \"off\"\nfixed_ip")),
        ("ports and seeds", [BASE, PORTS, SEEDS].concat()),
        ("nothing left", BASE[..BASE.find("[server.web]").expect("servers")].into()),
    ]
}

#[test]
fn a_plan_from_a_snapshot_is_the_plan_from_the_state() {
    let (place, elsewhere) = (Place::new(BASE), Place::new(BASE));
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let snapshot = elsewhere.path("snapshot.json");
    let snapshot = snapshot.to_str().expect("a path");
    place.novella(&["state", "export", snapshot]).ends(0);
    for (name, spec) in edits() {
        place.write(&spec);
        elsewhere.write(&spec);
        for more in [&[][..], &["--destroy"], &["--defer-reboots"]] {
            let arguments = |with: &[&'static str]| [&["plan", "--detailed-exitcode"], with, more].concat();
            let live = place.novella(&arguments(&[]));
            let records = place.novella(&arguments(&["--refresh=false"]));
            assert_eq!((records.code, &records.out), (live.code, &live.out), "{name}: from the records");
            // On the host that needs root, so that it is seen not to be asked.
            let file = [&["plan", "--detailed-exitcode", "--state-file", snapshot], more].concat();
            let from_file = elsewhere.on("libvirt", &file, "");
            assert_eq!((from_file.code, &from_file.out), (live.code, &live.out), "{name}: from the snapshot");
            from_file.err("note: planned without a look at the host: what was recorded is taken to be there");
        }
    }
    assert!(!elsewhere.path("state").exists());
}

#[test]
fn a_plan_from_nothing_is_the_first_plan() {
    let place = Place::new(&[BASE, PORTS, SEEDS].concat());
    let first = place.novella(&["plan"]).ends(0);
    let offline = place.on("libvirt", &["plan", "--empty-state"], "").ends(0);
    assert_eq!(offline.out, first.out);
    let offline = offline.err("there is taken to be nothing, KVM is taken to work, room is taken to be enough");
    assert!(!place.path("state").exists(), "{offline:?}");
    // What was made has no say.
    place.novella(&["apply", "--auto-approve"]).ends(0);
    assert_eq!(place.novella(&["plan", "--empty-state", "--detailed-exitcode"]).ends(2).out, first.out);
    place.novella(&["plan", "--empty-state", "--state-file", "x"]).ends(2).err("cannot be used with");
}

#[test]
fn a_domain_that_is_to_be_taken_over_is_looked_at_where_there_is_a_host() {
    let import = "[server.taken]\nimage = \"debian\"\nflavor = \"small\"\nnetworks = [\"private\"]\n\
                  [[import]]\nto = \"server.taken\"\nid = \"old-web\"\n";
    let place = Place::new(&[BASE, import].concat());
    let missing = place.novella(&["plan"]).ends(1);
    missing.err("error[not-importable]: there is no domain `old-web`").err("id = \"old-web\"");
    place.novella(&["validate"]).ends(0);
    std::fs::create_dir_all(place.path("state/sim")).expect("a directory");
    let host = SimHost::open(&place.path("state/sim/host.json")).expect("a host");
    host.define(old(), ByteSize::gib(1), true);
    host.save().expect("written");

    let offline = place.novella(&["plan", "--empty-state"]).ends(0);
    offline.err("`server.taken` is shown as made anew, and not as `old-web`");
    place.novella(&["plan"]).ends(0).out("# server.taken will be imported from \"old-web\"");
    let json = place.json(&["plan", "--json"]);
    let taken = json["resource_changes"].as_array().expect("changes").iter().find(|it| it["name"] == "taken");
    let change = &taken.expect("an import")["change"];
    assert_eq!((&change["importing"]["id"], &change["actions"][0]), (&"old-web".into(), &"update".into()));
    assert_eq!(json["summary"]["import"], 1);
    let lines = place.novella(&["apply", "--auto-approve", "--json"]).ends(0);
    lines.out("server.taken: Plan to import").out("Resources: 1 imported, ");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
    // Taken over once, it is as any other.
    place.novella(&["plan", "--state-file", "none"]).ends(1);
    place.novella(&["plan", "--refresh=false", "--detailed-exitcode"]).ends(0);
    place.novella(&["state", "rm", "server.taken"]).ends(0);
    place.novella(&["plan"]).ends(0).out("found on the host with our mark");
    place.novella(&["state", "rebuild"]).ends(0);
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

#[test]
fn what_the_host_can_do_is_in_the_snapshot() {
    let place = Place::new(BASE);
    place.novella(&["state", "export", "snapshot.json"]).ends(0);
    let text = std::fs::read_to_string(place.path("snapshot.json")).expect("a snapshot");
    let text = text.replace("{\"virt_type\":\"kvm\",\"capacity\":null}", {
        "{\"virt_type\":\"qemu\",\"capacity\":{\"vcpus\":1,\"memory\":\"1 GiB\",\"disk\":\"4 GiB\"}}"
    });
    let state = text.split_once('\n').expect("a line").1;
    let digest = novella::value::Sha256::of(state.as_bytes());
    let text = format!("{{\"version\":1,\"sha256\":\"{digest}\",\"state\":\n{state}");
    std::fs::write(place.path("snapshot.json"), text).expect("a snapshot");
    let plan = place.novella(&["plan", "--state-file", "snapshot.json"]).ends(0).out("type               = qemu");
    plan.err("there is taken to be nothing\n");
    place.write(&BASE.replace("count = 2", "count = 3"));
    place
        .novella(&["plan", "--state-file", "snapshot.json"])
        .ends(1)
        .err("the servers need 5 of vCPUs (server.web 3 + server.db 1 + server.spare 1), and the host has 4");
    // What the spec says comes first.
    place.write(&BASE.replace("data_dir", "virt_type = \"kvm\"\ndata_dir"));
    place.novella(&["plan", "--state-file", "snapshot.json"]).ends(0).out("type               = kvm");
}

#[test]
fn a_snapshot_that_is_no_good_is_refused() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["state", "export", "snapshot.json"]).ends(0);
    let plan = |file| place.novella(&["plan", "--state-file", file]).ends(1);
    plan("missing.json").err("cannot read the snapshot `missing.json`");
    let whole = std::fs::read_to_string(place.path("snapshot.json")).expect("a snapshot");
    for (name, text, why) in [
        ("empty.json", "", "not of the shape"),
        ("changed.json", &whole.replace("10.20.0.50", "10.20.0.51"), "its checksum is wrong"),
        (
            "newer.json",
            &whole.replace("{\"version\":1,\"sha", "{\"version\":99,\"sha"),
            "use the novella that wrote it",
        ),
    ] {
        std::fs::write(place.path(name), text).expect("a file");
        plan(name).err(why);
    }
    place.write(&format!("[project]\nname = \"other\"\n{BASE}").replace("novella = 1", ""));
    plan("snapshot.json").err("is of the project `default`, and the spec is of `other`");
}

#[cfg(not(feature = "libvirt"))]
#[test]
fn without_libvirt_what_needs_it_says_so() {
    let linked = std::process::Command::new("ldd").arg(env!("CARGO_BIN_EXE_novella")).output().expect("ldd");
    let linked = String::from_utf8_lossy(&linked.stdout);
    assert!(linked.contains("libc.so") && !linked.contains("libvirt"), "{linked}");
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(&place.path("state/sim"));
    for verb in [&["plan"][..], &["apply", "--auto-approve"], &["show"], &["drift"], &["leases"], &["state", "rebuild"]]
    {
        let said = place.on("libvirt", verb, "").ends(1);
        said.err("this novella was built without libvirt")
            .err("help: use one that was built with the feature `libvirt`");
    }
    place.on("libvirt", &["doctor"], "").ends(1).out("built without libvirt");
    for verb in [&["validate"][..], &["plan", "--empty-state"], &["history"], &["state", "list"]] {
        place.on("libvirt", verb, "").ends(0);
    }
    assert_eq!(files(&place.path("state/sim")), before);
}
