//! The command line: words, streams and exit codes, on the simulated host.

mod common;

use std::path::Path;
use std::process::Command;

use common::place::{Place, Said, files};
use common::{BASE, SEEDS};
use novella::blueprint::key::domain_key;
use novella::blueprint::object::{Domain, Object};
use novella::desired::Desired;
use novella::host::sim::SimHost;
use novella::plan::world::Recorded;
use novella::reconcile;
use novella::value::ByteSize;

#[test]
fn a_life_from_plan_to_destroy() {
    let place = Place::new(BASE);
    place.novella(&["validate"]).ends(0).out("Success! The configuration is valid: 2 networks, 2 images, 4 servers.");
    place
        .novella(&["plan"])
        .ends(0)
        .out("# server.web-1 will be created")
        .out("Plan: 9 to add, 0 to change, 0 to destroy.");
    place.novella(&["plan", "--detailed-exitcode"]).ends(2);
    place
        .novella(&["apply", "--auto-approve"])
        .ends(0)
        .out("server.web-1: domain: Creation complete after")
        .out("Apply complete! Resources: 9 added, 0 changed, 0 destroyed.");
    place
        .novella(&["plan", "--detailed-exitcode"])
        .ends(0)
        .out("No changes. Your infrastructure matches the configuration.");
    place.novella(&["apply"]).ends(0).out("Apply complete! Resources: 0 added, 0 changed, 0 destroyed.");
    place.novella(&["show"]).ends(0).out("db      running   local  10.20.0.50").out("spare   shut off");
    let json = place.json(&["show", "--json"]);
    assert_eq!(json["servers"][0]["server"], "db");
    assert_eq!(json["servers"][0]["ports"][0]["addresses"][0], "10.20.0.50");

    place.write(&BASE.replace("128 MiB", "256 MiB").replace("count = 2", "count = 1"));
    place
        .novella(&["apply", "--auto-approve"])
        .ends(0)
        .out("# server.web-2 will be destroyed")
        .out("Will be rebooted: server.db, server.web-1")
        .out("Apply complete! Resources: 0 added, 3 changed, 1 destroyed.");

    place
        .novella(&["plan", "--destroy"])
        .ends(0)
        .out("Plan: 0 to add, 0 to change, 6 to destroy.")
        .out("# kept in the cache");
    place
        .novella(&["destroy", "--auto-approve"])
        .ends(0)
        .out("Destroy complete! Resources: 0 added, 0 changed, 6 destroyed.");
    place.novella(&["show"]).ends(0).out("There are no servers.");
}

#[test]
fn only_yes_is_a_yes() {
    let place = Place::new(BASE);
    for answer in ["", "no\n", "y\n", "YES\n"] {
        place.answer(&["apply"], answer).ends(1).out("Only 'yes' will be accepted").err("nothing was done");
    }
    place.novella(&["plan", "--detailed-exitcode"]).ends(2);
    place.answer(&["apply"], "yes\n").ends(0).out("Apply complete!");
    place.answer(&["destroy"], "no\n").ends(1).out("There is no undo but for disks that go to the trash.");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

#[test]
fn an_empty_or_broken_spec_never_means_destroy() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(&place.path("state"));
    place.write("[server.web\n");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("spec.toml:1").err("1 error");
    std::fs::remove_file(place.path("specs/spec.toml")).expect("gone");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("there is no `*.toml` file in `specs`");
    std::fs::remove_dir(place.path("specs")).expect("gone");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("cannot read the specs in `specs`").err("--specs DIR");
    assert_eq!(files(&place.path("state")), before);
}

#[test]
fn verbs_that_look_change_nothing() {
    let place = Place::new(BASE);
    for verb in
        [&["validate"][..], &["plan"], &["show"], &["plan", "--destroy"], &["leases"], &["ip", "list", "private"]]
    {
        place.novella(verb).ends(0);
        assert!(!place.path("state").exists(), "{verb:?} made a state");
    }
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(place.0.path());
    let verbs = [
        &["validate"][..],
        &["plan"],
        &["show"],
        &["show", "--json"],
        &["plan", "--destroy"],
        &["leases"],
        &["leases", "--json"],
        &["ip", "list", "private"],
        &["ip", "free", "private"],
        &["wait", "web-1", "db", "--for", "running", "--timeout", "0s"],
    ];
    for verb in verbs {
        place.novella(verb).ends(0);
    }
    assert_eq!(files(place.0.path()), before);
}

#[test]
fn a_plan_is_the_same_every_time() {
    let place = Place::new(BASE);
    let first = place.novella(&["plan"]).ends(0).out;
    for _ in 0..3 {
        assert_eq!(place.novella(&["plan"]).ends(0).out, first);
    }
    assert!(!first.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn specs_in_several_files_are_one() {
    let place = Place::new("[network.a]\n");
    let other = "[subnet.a-v4]\nnetwork = \"a\"\ncidr = \"10.0.0.0/24\"\n";
    std::fs::write(place.path("specs/other.toml"), other).expect("a file");
    std::fs::write(place.path("specs/.hidden.toml"), "nonsense").expect("a file");
    std::fs::write(place.path("specs/notes.txt"), "nonsense").expect("a file");
    place.novella(&["plan"]).ends(0).out("10.0.0.1/24");
}

#[test]
fn root_does_not_do_what_anybody_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new(BASE);
    std::fs::set_permissions(place.path("specs/spec.toml"), std::fs::Permissions::from_mode(0o666)).expect("mode");
    let root = nix::unistd::geteuid().is_root();
    let said = place.novella(&["plan"]).ends(i32::from(root));
    if root {
        said.err("anybody may write to it").err("chmod o-w");
    }
}

#[test]
fn a_data_directory_does_not_move_under_what_lies_in_it() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.write(&BASE.replace("/data", "/elsewhere"));
    place.novella(&["plan"]).ends(1).err("`/data/default`").err("set `data_dir` in `[host.local]` back to `/data`");
    place.write(&format!("[project]\nname = \"other\"\n{BASE}").replace("novella = 1", ""));
    place.novella(&["plan"]).ends(1).err("set `name` in `[project]` back to `default`").err("`--state`");
}

#[test]
fn a_simulated_host_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    std::fs::write(place.path("state/sim/host.json"), "{").expect("a broken file");
    place.novella(&["plan"]).ends(1).err("cannot read the simulated host").err("help:");
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    let place = Place::new(BASE);
    place.novella(&["aply"]).ends(2).err("apply");
    place.novella(&["plan", "--backend", "xen"]).ends(2);
    place.novella(&["apply", "--parallelism", "0"]).ends(2).err("1..=256");
    place.novella(&["--version"]).ends(0).out("novella ");
}

#[test]
fn a_log_has_no_colours_where_none_are_wanted() {
    let place = Place::new(BASE);
    let said = place.novella(&["apply", "--auto-approve", "--log", "trace", "--no-color"]);
    assert!(said.err.contains("DEBUG") || said.err.contains("TRACE"), "{}", said.err);
    assert!(!said.err.contains('\u{1b}'), "{}", said.err);
}

#[test]
fn power_by_hand_is_drift() {
    let place = Place::new(BASE);
    place.novella(&["start", "db"]).ends(1).err("`server.db` has not been made yet").err("`novella apply` makes it");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let said = place.novella(&["stop", "web-1", "server.db", "db"]).ends(0);
    assert_eq!(said.out.matches("shut off after").count(), 2, "each once: {said:#?}");
    let said =
        said.err("the spec says `power = \"on\"` for server.db, server.web-1: the next `apply` starts them again");
    said.err("to keep it so, write `power = \"off\"`");
    place.novella(&["stop", "--force", "db"]).ends(0).out("server.db: is off already").err("starts it again");
    place.novella(&["show"]).ends(0).out("db      shut off");
    place.novella(&["plan", "--detailed-exitcode"]).ends(2).out("Plan: 0 to add, 2 to change, 0 to destroy.");
    place.novella(&["start", "web-1"]).ends(0).out("server.web-1: started after");
    assert_eq!(place.novella(&["start", "web-1"]).ends(0).out("server.web-1: runs already").err, "");
    place
        .novella(&["start", "spare"])
        .ends(0)
        .err("`power = \"off\"` for server.spare: the next `apply` shuts it off again");
    let said = place.novella(&["apply", "--auto-approve"]).ends(0);
    let said = said.out("Apply complete! Resources: 0 added, 2 changed, 0 destroyed.");
    assert!(!said.out.contains("server.web-1"), "{said:#?}");
    place.novella(&["show"]).ends(0).out("db      running").out("spare   shut off");

    // One that is no longer in the spec is known by the state, and one that the host lost is told.
    place.write(&BASE.replace("count = 2", "count = 1"));
    place.novella(&["stop", "web-2"]).ends(0).out("server.web-2: shut off");
    let file = place.path("state/sim/host.json");
    let host = std::fs::read_to_string(&file).expect("the host");
    let mut host: serde_json::Value = serde_json::from_str(&host).expect("JSON");
    let objects = host["objects"].as_array_mut().expect("objects");
    objects.retain(|object| object["kind"] != "domain" || object["spec"]["server"] != "db");
    std::fs::write(&file, host.to_string()).expect("written");
    let said = place.novella(&["stop", "db", "web-1"]).ends(1).out("server.web-1: shut off");
    said.err("server.db: not shut off").err("error: the simulated host has no such domain");
}

#[test]
fn servers_are_named_by_name_or_address() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    for verb in ["start", "stop", "wait", "ssh", "console", "logs", "vnc"] {
        place.novella(&[verb, "web_1"]).ends(1).err("there is no `server.web_1`").err("did you mean `web-1`?");
        place.novella(&[verb, "server.zzzzzz"]).ends(1).err("use one of `db`, `spare`, `web-1`, `web-2`");
        place.novella(&[verb]).ends(2).err("<SERVER>");
    }
    place.novella(&["stop", "a-b", "web-1", "b-c"]).ends(1).err("`server.a-b`").err("`server.b-c`").err("2 errors");
    place.novella(&["show"]).ends(0).out("web-1   running");
}

#[test]
fn what_a_simulated_host_cannot_do_is_said() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    for verb in [
        &["ssh", "db"][..],
        &["console", "db"],
        &["logs", "db"],
        &["vnc", "db", "--json"],
        &["wait", "db"],
        &["wait", "db", "--for", "cloud-init"],
    ] {
        let said = place.novella(verb).ends(1).err("the simulated host boots no guests");
        assert_eq!(said.err("leave `--backend sim` away").out, "");
    }
}

#[test]
fn waiting_ends() {
    let place = Place::new(BASE);
    place.novella(&["wait", "db", "--for", "running", "--timeout", "0s"]).ends(1).err("it has not been made yet");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["wait", "db", "--for", "running"]).ends(0).out("server.db: runs after 0.0s");
    let said = place.novella(&["wait", "db", "spare", "--for", "running", "--timeout", "1s"]).ends(1);
    let said = said.out("server.db: runs after").err("`server.spare` is not at `running` after 1.");
    assert!(!said.err("`novella start spare` turns it on").err.contains("..."), "no progress where nobody watches");
    let said = place.novella(&["wait", "db", "spare", "--for", "running", "--timeout", "0s", "--json"]).ends(1);
    let json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&json["format_version"], &json["for"]), (&"1.0".into(), &"running".into()));
    assert_eq!((&json["servers"][0]["done"], &json["servers"][0]["missing"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(json["servers"][1]["missing"], "it is shut off");
    for bad in ["5", "5 minutes", "-1s", ""] {
        place.novella(&["wait", "db", "--timeout", bad]).ends(2);
    }
    place.novella(&["wait", "db", "--for", "lunch"]).ends(2).err("cloud-init");
}

#[test]
fn leases_are_told_beside_the_plan() {
    let place = Place::new(BASE);
    place.novella(&["leases"]).ends(0).out("There are no ports, and no leases.");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let said = place.novella(&["leases"]).ends(0).err("the simulated host hands out no addresses");
    assert_eq!(said.lines()[0], "PORT NETWORK PLANNED LEASED RENEWED EXPIRES STATE");
    assert!(said.lines().contains(&"db/private private 10.20.0.50 - - - no lease".into()), "{said:#?}");

    // The same state on the real host, where a DHCP server has leased some of it.
    let data = place.path("data");
    place.write(&BASE.replace("/data", data.to_str().expect("UTF-8")));
    place.novella(&["destroy", "--auto-approve"]).ends(1).err("data_dir");
    std::fs::remove_dir_all(place.path("state")).expect("gone");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    for (name, bytes) in files(&place.path("state/sim")) {
        if name.ends_with("export.json") {
            std::fs::write(place.path("state/export.json"), bytes).expect("a state");
        }
    }
    let json = place.json(&["show", "--json"]);
    let mac = json["servers"][0]["ports"][0]["mac"].as_str().expect("a MAC address").to_owned();
    let leases = data.join("default/networks/private/leases");
    std::fs::create_dir_all(leases.parent().expect("a directory")).expect("a directory");
    if cfg!(not(feature = "libvirt")) {
        place.on("libvirt", &["leases"], "").ends(1).err("built without libvirt");
        return;
    }
    let end = json_now(&place) + 86_400 - 200;
    let text = format!("{end} {mac} 10.20.0.50 db *\n{end} 02:00:00:00:00:01 10.20.0.99 guest *\n");
    std::fs::write(leases, text).expect("leases");
    let said = place.on("libvirt", &["leases"], "").ends(0);
    assert_eq!(said.err, "");
    for line in [
        "db/private private 10.20.0.50 10.20.0.50 3m ago in 23h as planned",
        "web-1/private private 10.20.0.2 - - - no lease",
        "- private - 10.20.0.99 3m ago in 23h unknown: 02:00:00:00:00:01 (guest)",
    ] {
        assert!(said.lines().contains(&line.into()), "{line:?} is not in {said:#?}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&place.on("libvirt", &["leases", "--json"], "").ends(0).out).expect("JSON");
    assert_eq!(json["format_version"], "1.0");
    let rows = json["leases"].as_array().expect("leases");
    let db = rows.iter().find(|row| row["port"] == "db/private").expect("its row");
    assert_eq!(db["state"], "as planned");
    assert_eq!((&db["server"], &db["client"]), (&"db".into(), &mac.into()));
    assert_eq!((&db["renewed"], &db["expires"]), (&(end - 86_400).into(), &end.into()));
}

fn json_now(place: &Place) -> u64 {
    place.json(&["leases", "--json"])["now"].as_u64().expect("a time")
}

#[test]
fn addresses_are_listed_with_how_they_were_come_by() {
    const POOLS: &str = "cidr = \"10.20.0.0/24\"\npools = [\"10.20.0.10-10.20.0.19\", \"10.20.0.30-10.20.0.30\"]\n";
    let spec = BASE.replace("cidr = \"10.20.0.0/24\"\n", POOLS);
    let place = Place::new(&spec);
    let heading = "ADDRESS SUBNET HOLDER MAC HOW STATE";
    // Without the MAC.
    let list = |network: &str| -> Vec<String> {
        let said = place.novella(&["ip", "list", network]).ends(0);
        assert_eq!(said.lines()[0], heading);
        let without = |line: &String| {
            let words: Vec<&str> = line.split(' ').filter(|word| word.matches(':').count() != 5).collect();
            words.join(" ")
        };
        said.lines()[1..].iter().map(without).collect()
    };
    let first = [
        "10.20.0.1 private-v4 host gateway planned",
        "10.20.0.10 private-v4 web-1/private served planned",
        "10.20.0.11 private-v4 web-2/private served planned",
        "10.20.0.50 private-v4 db/private pinned planned",
    ];
    assert_eq!(list("private"), first);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    assert_eq!(list("network.private"), first.map(|line| line.replace("planned", "made")));
    assert_eq!(list("closed")[0], "10.30.0.1 closed-v4 host dhcp server made");

    // One that comes, one that goes, one that stays where it was served before.
    let spec = spec.replace("count = 2", "count = 1").replace("10.20.0.10-", "10.20.0.11-");
    place.write(&spec.replace("10.20.0.50", "10.20.0.51"));
    let said = place.novella(&["ip", "list", "private"]).ends(0).err("warning[outside-pools]");
    assert!(said.err.contains("10.20.0.10 of web-1/private"), "{said:#?}");
    assert_eq!(
        list("private"),
        [
            "10.20.0.1 private-v4 host gateway made",
            "10.20.0.10 private-v4 web-1/private kept made",
            "10.20.0.11 private-v4 web-2/private - leaving",
            "10.20.0.50 private-v4 db/private - leaving",
            "10.20.0.51 private-v4 db/private pinned planned",
        ]
    );
    assert_eq!(
        place.novella(&["ip", "free", "private"]).ends(0).lines()[1..],
        ["private-v4 10.20.0.0/24 10 of 10 10.20.0.11 10.20.0.11-10.20.0.19 (9)", "10.20.0.30 (1)"]
    );
    let json = place.json(&["ip", "list", "private", "--json"]);
    assert_eq!(json["format_version"], "1.0");
    assert_eq!(json["addresses"][1]["port"], "web-1/private");
    assert_eq!(json["addresses"][1]["how"], "kept");

    place.novella(&["ip", "list", "privat"]).ends(1).err("there is no `network.privat`").err("did you mean `private`?");
    place.novella(&["ip", "free", "other"]).ends(1).err("use one of `closed`, `private`");
    place.novella(&["ip"]).ends(2);
    place.novella(&["ip", "list"]).ends(2);

    // When there are too few, what there is is shown with the error.
    place.write(&spec.replace("count = 1", "count = 30"));
    place.novella(&["ip", "free", "private"]).ends(1).err("error[pool-exhausted]").out("0 of 10").out("all are in use");
}

#[test]
fn the_size_of_a_subnet_is_no_matter() {
    let place = Place::new(
        "[network.wide]\nforward = \"isolated\"\n\
         [subnet.a]\nnetwork = \"wide\"\ncidr = \"fd00::/64\"\nipv6_mode = \"dhcpv6-stateful\"\ngateway = \"fd00::ffff\"\n\
         [subnet.b]\nnetwork = \"wide\"\ncidr = \"fd01::/64\"\n\
         [subnet.c]\nnetwork = \"wide\"\ncidr = \"fe00::/8\"\ndhcp = false\n\
         [port.vip]\nnetwork = \"wide\"\nfixed_ips = [\"fd00::10\"]\n",
    );
    let said = place.novella(&["ip", "list", "wide"]).ends(0);
    assert_eq!(said.lines().iter().filter(|line| line.contains("fd00::10 a port.vip")).count(), 1, "{said:#?}");
    assert!(said.lines().contains(&"fd00::ffff a router - gateway not ours".into()), "{said:#?}");
    assert_eq!(
        place.novella(&["ip", "free", "wide"]).ends(0).lines()[1..],
        [
            "a fd00::/64 1.8e19 of 1.8e19 fd00::2 fd00::2-fd00::f (14)",
            "fd00::11-fd00::fffe (65518)",
            "fd00::1:0-fd00::ffff:ffff:ffff:ffff (1.8e19)",
            "b fd01::/64 - - nothing is served: each guest makes its own address",
            "c fe00::/8 1.3e36 of 1.3e36 fe00::2 fe00::2-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff (1.3e36)",
        ]
    );
    let text = place.novella(&["ip", "free", "wide", "--json"]).ends(0).out;
    assert!(text.contains("\"total\": 1329227995784915872903807060280344575"), "{text}");
    // Pools of an isolated network hold the DHCP server's address too.
    assert!(text.contains("\"free\": 18446744073709551612"), "{text}");
}

/// Puts the domains of others on the simulated host that a spec takes over: such as it wants, and with one processor more.
fn define_others(place: &Place, desired: &Desired) {
    let without = Desired { carried: Default::default(), ..desired.clone() };
    let (blueprint, _) = reconcile::blueprint(&without, &Recorded::default(), &SimHost::new()).expect("a blueprint");
    std::fs::create_dir_all(place.path("state/sim")).expect("a directory");
    let host = SimHost::open(&place.path("state/sim/host.json")).expect("a host");
    for import in &desired.carried.imports {
        let server = blueprint.objects.get(&domain_key(&import.server)).and_then(Object::as_domain).expect("a domain");
        let (name, disk) = (import.id.clone(), format!("/images/{}.qcow2", import.id).into());
        let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes());
        let vcpus = server.vcpus + 1;
        host.define(Domain { name, uuid, disk, base: None, vcpus, ..server.clone() }, ByteSize::mib(64), false);
    }
    if !desired.carried.imports.is_empty() {
        host.save().expect("saved");
    }
}

#[test]
fn every_example_lives_from_plan_to_destroy() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).expect("the examples") {
        let example = entry.expect("an entry").path();
        let place = Place::new("");
        let specs = example.to_str().expect("UTF-8");
        let novella = |arguments: &[&str]| place.novella(&[arguments, &["--specs", specs]].concat());
        novella(&["validate"]).ends(0).out("Success!");
        let desired = common::desired_in(&example);
        define_others(&place, &desired);
        let imports = desired.carried.imports.len();
        novella(&["plan", "--detailed-exitcode"]).ends(2).out(&format!("{imports} to change, 0 to destroy."));
        novella(&["apply", "--auto-approve"]).ends(0).out("Apply complete!");
        novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.");
        let said = novella(&["show"]).ends(0);
        assert!(said.out.matches("running").count() > 1, "{said:#?}");
        for network in desired.networks.keys() {
            novella(&["ip", "list", network.as_str()]).ends(0).out(" made");
            novella(&["ip", "free", network.as_str()]).ends(0).out("NEXT");
        }
        let said = novella(&["leases"]).ends(0).out("no lease");
        assert!(desired.ports.keys().all(|port| said.out.contains(&port.to_string())), "{said:#?}");
        novella(&["destroy", "--auto-approve"]).ends(0).out("Destroy complete!");
        novella(&["show"]).ends(0).out("There are no servers.");
        assert!(example.join("README.md").exists(), "{specs} has no README");
        seen += 1;
    }
    assert!(seen > 1);
}

/// What the steps of the workflow run, one after the other, as its runner would.
#[test]
fn the_workflow_of_the_example_runs() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipeline");
    let workflow = std::fs::read_to_string(example.join("workflow.yml")).expect("the workflow");
    let place = Place::new(&std::fs::read_to_string(example.join("pipeline.toml")).expect("the spec"));
    // Where its images lie does not matter on a simulated host; that of the state does.
    let state = place.path("state").display().to_string();
    let workflow = workflow.replace("/var/lib/novella-state", &state);
    let summary = place.path("summary");
    let run = |what: &str| {
        let mut lines = workflow.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("run: "));
        let line = lines.find(|line| line.contains(what)).expect("a step");
        let script = format!("novella() {{ \"$NOVELLA\" \"$@\"; }}\n{line}");
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", &script]).current_dir(place.0.path()).env("NOVELLA", env!("CARGO_BIN_EXE_novella"));
        bash.env("NOVELLA_BACKEND", "sim").env("GITHUB_STEP_SUMMARY", &summary).env_remove("RUST_LOG");
        Said::from(bash.output().expect("bash")).ends(0)
    };
    let summed = || std::fs::read_to_string(&summary).expect("a summary");
    run("validate").out("Success!");
    run("--empty-state");
    assert!(summed().contains("5 to add, 0 to change, 0 to destroy"), "{}", summed());
    run(" apply ").out("Apply complete!");
    run("state export");
    run("--state-file");
    assert!(summed().contains("No changes"), "{}", summed());
    place.write(
        &std::fs::read_to_string(place.path("specs/spec.toml")).expect("the spec").replace("128 MiB", "192 MiB"),
    );
    run("--state-file");
    assert!(summed().contains("0 to add, 2 to change, 0 to destroy") && summed().contains("reboot"), "{}", summed());
    place.novella(&["apply", "--auto-approve", "--max-disruption", "live"]).ends(1).err("server.web-1: reboot");
}

#[test]
fn one_spec_is_for_several_places() {
    let place = Place::new("");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/vars");
    let path = |below: &str| example.join(below).to_str().expect("UTF-8").to_owned();
    let specs = path("");
    let plan = |arguments: &[&str]| place.novella(&[&["--specs", &specs, "plan"], arguments].concat());
    plan(&[]).ends(0).out("server.web-1").out("server.debug").out("10.60.0.50").out("shop-lab.db");
    let values = path("values/staging.toml");
    let said = plan(&["--var-file", &values, "--var", "webs=2"]).ends(0).out("10.61.0.50").out("shop-staging.web-2");
    assert!(!said.out.contains("web-3"), "{said:#?}");
    let prod = path("prod");
    let said = plan(&["--overlay", &prod]).ends(0).out("shop-prod.web-3");
    assert!(!said.out.contains("debug") && !said.out.contains("server.base"), "{said:#?}");
    // Before the verb and behind it, and the later counts.
    let all = ["--var", "webs=4", "--specs", &specs, "--var", "net=10.62.0", "plan", "--var", "webs=5"];
    place.novella(&all).ends(0).out("shop-lab.web-5").out("10.62.0.50");
    plan(&["--var", "nett=x"]).ends(1).err("there is no variable `nett`").err("did you mean `net`?");
    plan(&["--overlay", "nowhere"]).ends(1).err("cannot read the specs in `nowhere`").err("--overlay DIR");
    plan(&["--var-file", "nowhere"]).ends(1).err("cannot read `nowhere`");
}

#[test]
fn a_value_of_the_environment_is_not_shown() {
    let place = Place::new("[vars]\nn = 1\n[flavor.a]\nvcpus = \"${var.n}\"\nram = \"1 GiB\"\ndisk = \"1 GiB\"\n");
    let run = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_novella"));
        Said::from(command.arg("validate").current_dir(place.0.path()).env(name, value).output().expect("novella"))
    };
    run("NOVELLA_VAR_n", "2").ends(0);
    run("NOVELLA_VAR_other", "hunter2").ends(0);
    let said = run("NOVELLA_VAR_n", "hunter2").ends(1).err("NOVELLA_VAR_n:1:1").err("`var.n` is an integer");
    assert!(!said.err.contains("hunter2"), "{said:#?}");
}

#[test]
fn files_are_given_their_form_in_place() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let crooked = "[flavor.a]   # comment\nram=\"1 GiB\"\n\n\ndisk = \"1 GiB\"";
    let place = Place::new(crooked);
    let spec = place.path("specs/spec.toml");
    std::fs::set_permissions(&spec, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    // As anybody but root, it can only be ours.
    let owner = if nix::unistd::Uid::effective().is_root() { 12345 } else { nix::unistd::Uid::effective().as_raw() };
    std::os::unix::fs::chown(&spec, Some(owner), None).expect("an owner");
    std::fs::write(place.path("specs/good.toml"), "novella = 1\n").expect("written");
    let said = place.novella(&["fmt", "--check"]).ends(3);
    assert_eq!(said.out, "specs/spec.toml\n");
    place.novella(&["fmt", "--diff"]).ends(0).out("--- specs/spec.toml").out("-ram=\"1 GiB\"").out("+ram = \"1 GiB\"");
    assert_eq!(std::fs::read_to_string(&spec).expect("a text"), crooked, "only shown");
    std::os::unix::fs::symlink(&spec, place.path("link.toml")).expect("a link");
    place.novella(&["fmt", "link.toml"]).ends(0).out("link.toml");
    let formed = "[flavor.a]   # comment\nram = \"1 GiB\"\n\ndisk = \"1 GiB\"\n";
    assert_eq!(std::fs::read_to_string(&spec).expect("a text"), formed);
    let found = std::fs::symlink_metadata(&spec).expect("a file");
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o640, owner));
    assert!(std::fs::symlink_metadata(place.path("link.toml")).expect("a link").is_symlink());
    assert_eq!(place.novella(&["fmt", "--check"]).ends(0).out, "");
    assert_eq!(std::fs::read_dir(place.path("specs")).expect("a directory").count(), 2, "nothing is left");

    std::fs::write(place.path("specs/good.toml"), "novella=1").expect("written");
    place.write("[flavor.a\nram=1\n");
    place.novella(&["fmt"]).ends(1).out("specs/good.toml").err("specs/spec.toml:1").err("1 error");
    assert_eq!(std::fs::read_to_string(&spec).expect("a text"), "[flavor.a\nram=1\n");
    place.novella(&["fmt", "nowhere.toml"]).ends(1).err("cannot read `nowhere.toml`");
}

#[test]
fn editors_and_man_are_told() {
    let place = Place::new("");
    let schema: serde_json::Value = serde_json::from_str(&place.novella(&["schema"]).ends(0).out).expect("JSON");
    assert_eq!(schema["properties"]["novella"]["const"], 1);
    place.novella(&["man", "pages"]).ends(0);
    let page = std::fs::read_to_string(place.path("pages/novella-apply.1")).expect("a page");
    assert!(page.starts_with(".ie") && page.contains("auto\\-approve"), "{page}");
}

#[test]
fn a_plan_that_disrupts_more_than_is_allowed_is_refused_before_anything_is_touched() {
    let place = Place::new(BASE);
    // What is new disrupts nobody.
    place.novella(&["apply", "--auto-approve", "--max-disruption", "none"]).ends(0).out("9 added");
    let host = || std::fs::read(place.path("state/sim/host.json")).expect("a host");
    let before = host();
    let refused = |spec: &str, most: &str, beyond: &[&str]| {
        place.write(spec);
        let said = place.novella(&["apply", "--auto-approve", "--max-disruption", most]).ends(1);
        let said = said.err(&format!("error: this goes beyond `--max-disruption {most}`; nothing was done"));
        let lines: Vec<&str> = said.err.lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, beyond, "{said:#?}");
        assert!(host() == before, "something was touched");
        // A plan marks it, and is no error.
        place.novella(&["plan", "--max-disruption", most]).ends(0).out(&format!("beyond --max-disruption {most}"));
    };
    refused(
        &BASE.replace("128 MiB", "256 MiB"),
        "live",
        &[
            "server.db: reboot (domain: memory = 128 MiB -> 256 MiB)",
            "server.web-1: reboot (domain: memory = 128 MiB -> 256 MiB)",
            "server.web-2: reboot (domain: memory = 128 MiB -> 256 MiB)",
        ],
    );
    refused(
        &BASE.replace("count = 2", "count = 1"),
        "reboot",
        &["server.web-2: replace (disk: destroyed; domain: destroyed)"],
    );
    refused(
        &BASE.replace("10.20.0.50", "10.20.0.51"),
        "live",
        &["server.db: reboot (domain: taken down while its host entry is changed)"],
    );
    let routed = BASE.replace("\"isolated\"", "\"routed\"");
    place.write(&routed);
    place.novella(&["apply", "--auto-approve", "--max-disruption", "none"]).ends(1).err("host.local: live (firewall:");
    place.novella(&["apply", "--auto-approve", "--max-disruption", "live"]).ends(0).out("live.\n");
    place.write(&routed.replace("128 MiB", "256 MiB"));
    place.novella(&["plan", "--max-disruption", "reboot"]).ends(0).out("Disruption: 3 reboot.").out("# reboot\n");
    place.novella(&["plan", "--destroy", "--max-disruption", "reboot"]).ends(0).out("replace, beyond");
    place.novella(&["destroy", "--auto-approve", "--max-disruption", "reboot"]).ends(1).err("server.web-1: replace");
    place.novella(&["destroy", "--auto-approve", "--max-disruption", "replace"]).ends(0).out("7 destroyed");
    place.novella(&["apply", "--max-disruption", "some"]).ends(2).err("[possible values: none, live, reboot, replace]");
}

#[test]
fn reboots_wait_until_they_are_asked_for() {
    let place = Place::new(BASE);
    place.novella(&["reboot"]).ends(2).err("<SERVER>...");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["reboot", "--pending"]).ends(0).out("No server waits for a reboot.");
    place.novella(&["reboot", "bd"]).ends(1).err("there is no server `bd`").err("did you mean `db`?");
    place.novella(&["reboot", "spare"]).ends(1).err("cannot reboot server.spare: it does not run");

    place.write(&BASE.replace("128 MiB", "256 MiB").replace("[server.db]", "[server.db]\ndepends_on = [\"web\"]"));
    let waits = "3 servers wait for a reboot: server.db (memory), server.web-1 (memory), server.web-2 (memory).";
    place
        .novella(&["plan", "--defer-reboots", "--max-disruption", "live"])
        .ends(0)
        .out("~ domain  # live, the rest with its next start")
        .out("Disruption: 3 live.")
        .out(waits);
    place
        .novella(&["apply", "--auto-approve", "--defer-reboots", "--max-disruption", "live"])
        .ends(0)
        .out(waits)
        .out("Apply complete!");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.").out(waits);
    place.novella(&["show"]).ends(0).out("web-1   running, pending reboot").out("spare   shut off ");
    let json = place.json(&["show", "--json"]);
    assert_eq!(json["servers"][0]["pending_reboot"], serde_json::json!(["memory"]));

    place.novella(&["reboot", "web-2"]).ends(0).out("server.web-2: Rebooting...").out("1 server rebooted.");
    let said = place.novella(&["reboot", "--pending"]).ends(0).out("Reboot complete! 2 servers rebooted.").out;
    assert!(said.find("server.web-1: Rebooting") < said.find("server.db: Rebooting"), "{said}");
    let said = place.novella(&["plan", "--detailed-exitcode"]).ends(0).out("No changes.").out;
    assert!(!said.contains("for a reboot"), "{said}");

    // What cannot wait.
    place.write(&BASE.replace("10.20.0.50", "10.20.0.51").replace("128 MiB", "256 MiB"));
    place.novella(&["plan", "--defer-reboots"]).ends(0).out("Will be rebooted: server.db");
    place
        .novella(&["apply", "--auto-approve", "--defer-reboots", "--max-disruption", "live"])
        .ends(1)
        .err("server.db: reboot (domain: taken down while its host entry is changed)");
}

#[test]
fn what_a_guest_is_told_is_shown_and_kept_nowhere() {
    use std::os::unix::fs::PermissionsExt as _;

    const SECRET: &str = "correct-horse-battery";
    let place = Place::new(&format!("{BASE}{SEEDS}").replace("hunter2", SECRET));
    let told = |said: &Said, verb: &str| {
        let all = format!("{}{}", said.out, said.err);
        assert!(!all.contains(SECRET), "{verb} tells it");
        // As a list of numbers, or in base64.
        assert!(!all.contains("99, 111, 114, 114, 101, 99, 116") && !all.contains("Y29ycmVjdC1"), "{verb} tells it");
    };
    for arguments in [
        &["validate"][..],
        &["plan"],
        &["apply", "--auto-approve"],
        &["show"],
        &["show", "--json"],
        &["plan"],
        &["leases", "--json"],
    ] {
        for log in ["warn", "trace"] {
            let said = place.novella(&[arguments, &["--log", log]].concat()).ends(0);
            told(&said, arguments[0]);
        }
    }
    place.write(&format!("{BASE}{SEEDS}").replace("hunter2", &format!("{SECRET}-2")));
    told(&place.novella(&["apply", "--auto-approve", "--log", "trace"]).ends(0).out("Modifying"), "apply");
    let mut open = vec![place.path("state")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} may be read by others: {mode:o}", path.display());
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(!has(SECRET.as_bytes()) && !has(b"Y29ycmVjdC1"), "{} has it", path.display());
        files += 1;
    }
    assert!(files > 2, "only {files} files were looked at");
    // With a mistake beside it.
    place.write(&format!(
        "[server.a]\nuser_data = \"{SECRET}\"\nfiles = [{{ path = \"a\", content = \"{SECRET}\" }}]\n"
    ));
    told(&place.novella(&["validate"]).ends(1), "a diagnostic");
}

#[test]
fn servers_are_made_anew_when_that_is_asked_for() {
    let place = Place::new(BASE);
    place.novella(&["rebuild", "db"]).ends(1).err("`server.db` has not been made yet").err("`novella apply` makes it");
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.novella(&["rebuild"]).ends(2);
    place.novella(&["rebuild", "bd"]).ends(1).err("error[unknown-address]").err("did you mean `server.db`?");
    place.novella(&["plan", "--replace", "web"]).ends(1).err("did you mean `server.web`?");
    place.novella(&["plan", "--replace", "server.web"]).ends(0).out("Plan: 2 to add, 0 to change, 2 to destroy.");
    place.novella(&["plan", "--replace", "image.debian"]).ends(1).err("error[not-replaceable]").err("`sha256`");
    place.novella(&["plan", "--replace", "server.db", "--destroy"]).ends(2);

    let plan = place.novella(&["plan", "--replace", "server.db", "--replace", "server.spare", "--detailed-exitcode"]);
    let plan = plan.ends(2).out("# server.db must be replaced").out("# server.spare must be replaced");
    assert!(plan.out.contains("Plan: 2 to add, 0 to change, 2 to destroy."), "{plan:?}");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
    place
        .answer(&["rebuild", "db"], "no\n")
        .ends(1)
        .out("What is on their root disks is lost.")
        .err("nothing was done");
    place.novella(&["rebuild", "db", "--auto-approve", "--max-disruption", "reboot"]).ends(1).err("server.db: replace");
    place
        .answer(&["rebuild", "db", "server.web-1"], "yes\n")
        .ends(0)
        .out("Rebuild complete! Resources: 2 added, 0 changed, 2");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

#[test]
fn what_is_guarded_is_not_destroyed_but_by_its_name() {
    let guarded = BASE.replace("[server.spare]", "[server.spare]\nlifecycle = { prevent_destroy = true }");
    let place = Place::new(&guarded);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let host = || std::fs::read(place.path("state/sim/host.json")).expect("a host");
    let before = host();
    let help = "--allow-destroy server.spare";
    place.novella(&["destroy", "--auto-approve"]).ends(1).err("`server.spare` has `prevent_destroy`").err(help);
    place.novella(&["plan", "--destroy"]).ends(1).err(help);
    place.novella(&["rebuild", "spare", "--auto-approve"]).ends(1).err(help);
    place.write(guarded.split("[server.spare]").next().expect("a beginning"));
    place.novella(&["apply", "--auto-approve"]).ends(1).err(help);
    assert_eq!(host(), before, "something was done");
    place
        .novella(&["apply", "--auto-approve", "--allow-destroy", "server.sprae"])
        .ends(1)
        .err("did you mean `server.spare`?");
    place.novella(&["plan", "--allow-destroy", "server.spare"]).ends(0).out("# server.spare will be destroyed");
    place.novella(&["apply", "--auto-approve", "--allow-destroy", "server.spare"]).ends(0);
    place.novella(&["destroy", "--auto-approve"]).ends(0);
}

#[test]
fn a_part_of_a_plan_is_told_apart_from_the_whole() {
    let place = Place::new(BASE);
    let said = place.novella(&["plan", "--target", "server.web"]).ends(0);
    assert!(said.out.contains("server.web-1") && said.out.contains("server.web-2") && !said.out.contains("server.db"));
    assert!(said.err.contains("warning[partial-plan]: this plan is not the whole: `network.closed`, `image.tiny`"));
    place.novella(&["apply", "--auto-approve", "--target", "server.web"]).ends(0).out("Resources: 5 added");
    let said = place.novella(&["plan", "--target", "server.web"]).ends(0);
    assert!(said.out.contains("No changes. What was chosen matches the configuration."), "{said:#?}");
    place.novella(&["apply", "--auto-approve", "--exclude", "server.db"]).ends(0);
    let left = place.novella(&["plan"]).ends(0);
    assert!(left.out.contains("Plan: 1 to add, 0 to change, 0 to destroy."), "{left:#?}");
    place.novella(&["destroy", "--auto-approve", "--target", "network.closed"]).ends(0);
    let left = place.novella(&["plan"]).ends(0);
    assert!(left.out.contains("server.spare") && !left.out.contains("server.web-1"), "{left:#?}");

    let said = place.novella(&["plan", "--target", "server.wbe", "--target", "flavor.small"]).ends(1);
    assert!(said.err.contains("error[unknown-address]: there is no `server.wbe`"), "{said:#?}");
    assert!(said.err.contains("did you mean `server.web`?") && said.err.contains("2 errors"), "{said:#?}");
    place.novella(&["plan", "--target", "server.web", "--exclude", "server.db"]).ends(2);
}

#[test]
fn a_plan_is_written_for_tools_and_merge_requests() {
    let place = Place::new(BASE);
    let json = place.json(&["plan", "--json"]);
    assert_eq!(json["summary"], serde_json::json!({ "add": 9, "change": 0, "remove": 0 }));
    assert_eq!(json["resource_changes"][0]["address"], "host.local");
    assert_eq!(place.novella(&["plan", "--json"]).out, place.novella(&["plan", "--format", "json"]).out);
    let text = place.novella(&["plan", "--format", "markdown"]).ends(0).out;
    assert!(text.starts_with("### Plan: 9 to add, 0 to change, 0 to destroy\n"), "{text}");
    assert!(text.contains("| `+` | `web-1` | `web-1/private` | `10.20.0.2` |"), "{text}");
    place.novella(&["plan", "--json", "--detailed-exitcode"]).ends(2);
    place.novella(&["plan", "--json", "--format", "text"]).ends(2);
}

#[test]
fn a_comment_has_room_for_a_large_plan() {
    let place = Place::new(&BASE.replace("count = 2", "count = 300").replace("10.20.0.0/24", "10.20.0.0/22"));
    let text = place.novella(&["plan", "--format", "markdown"]).ends(0).out;
    assert!(text.len() <= 65_536 && text.len() > 60_000, "{}", text.len());
    assert!(text.contains("\n**Cut:** ") && text.contains(" of 307 resources have no room in a comment: "), "{text}");
    assert!(text.ends_with("`novella plan` shows all.\n") && text.contains(" more ports.\n"));
    assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
}

#[test]
fn a_workflow_is_told_where_it_is() {
    let place = Place::new(&BASE.replace("10.20.0.0/24", "10.20.0.5/24"));
    let annotation = "::error file=specs/spec.toml,line=10,col=8,endColumn=22,title=novella%3A host-bits::";
    for verb in ["validate", "plan"] {
        let said = place.novella(&[verb, "--format", "github"]).ends(1);
        assert!(said.out.starts_with(annotation), "{said:#?}");
        assert!(said.err.contains("error[host-bits]"), "{said:#?}");
    }
    place.write(BASE);
    let said = place.novella(&["plan", "--format", "github", "--target", "server.web"]).ends(0);
    assert!(said.out.starts_with("::warning title=novella%3A partial-plan::"), "{said:#?}");
    assert!(said.out.contains("\n::stop-commands::") && said.out.contains("Plan: 5 to add"), "{said:#?}");
    let said = place.novella(&["plan", "--format", "github", "--target", "server.no"]).ends(1);
    assert!(said.out.starts_with("::error title=novella%3A unknown-address::there is no `server.no`%0A"), "{said:#?}");
}

/// What a walk says to tools, line by line.
fn stream(said: &Said) -> Vec<serde_json::Value> {
    let lines: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for line in &lines {
        for key in ["@level", "@message", "@module", "@timestamp", "type"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    lines
}

/// The lines of this type, as resource and action.
fn hooks(lines: &[serde_json::Value], kind: &str) -> Vec<String> {
    let lines = lines.iter().filter(|line| line["type"] == kind);
    let hooks = lines.map(|line| if line["hook"].is_null() { &line["change"] } else { &line["hook"] });
    let mut hooks: Vec<String> =
        hooks.map(|hook| format!("{} {}", hook["resource"]["addr"], hook["action"]).replace('"', "")).collect();
    hooks.sort();
    hooks
}

#[test]
fn tools_are_told_of_a_walk_line_by_line() {
    let place = Place::new(BASE);
    let said = place.novella(&["apply", "--json"]).ends(2);
    let lines = stream(&said);
    assert_eq!((&lines[0]["type"], &lines[1]["type"]), (&"version".into(), &"diagnostic".into()));
    assert!(said.out.contains("`--json` needs `--auto-approve`") && said.err.is_empty(), "{said:#?}");
    assert!(!place.path("state").exists(), "nothing was begun");

    let said = place.novella(&["apply", "--json", "--auto-approve"]).ends(0);
    assert_eq!(said.err, "");
    let lines = stream(&said);
    let planned = hooks(&lines, "planned_change");
    assert_eq!(planned.len(), 9);
    assert!(planned.contains(&"server.web-1 create".into()), "{planned:?}");
    for kind in ["apply_start", "apply_complete"] {
        assert_eq!(hooks(&lines, kind), planned, "{kind}");
    }
    assert!(lines.iter().any(|line| line["type"] == "apply_progress" && line["hook"]["object"]["kind"] == "disk"));
    let sums: Vec<&serde_json::Value> =
        lines.iter().filter(|line| line["type"] == "change_summary").map(|line| &line["changes"]).collect();
    let sum = |operation| serde_json::json!({ "add": 9, "change": 0, "remove": 0, "operation": operation });
    assert_eq!(sums, [&sum("plan"), &sum("apply")]);

    let said = place.novella(&["apply", "--json", "--auto-approve"]).ends(0);
    let lines = stream(&said);
    assert_eq!(lines.len(), 3, "{said:#?}");

    place.write(&BASE.replace("10.20.0.50", "10.20.0.51"));
    let said = place.novella(&["apply", "--json", "--auto-approve", "--max-disruption", "live"]).ends(1);
    let lines = stream(&said);
    let last = lines.last().expect("a line");
    assert_eq!(last["diagnostic"]["severity"], "error");
    assert!(last["diagnostic"]["detail"].as_str().is_some_and(|it| it.contains("server.db: reboot")), "{last}");
    assert_eq!(said.err, "");

    place.write(&BASE.replace("10.20.0.0/24", "10.20.0.5/24"));
    let said = place.novella(&["apply", "--json", "--auto-approve"]).ends(1);
    let lines = stream(&said);
    assert_eq!(lines[1]["diagnostic"]["code"], "host-bits");
    assert_eq!(lines[1]["diagnostic"]["range"]["start"], serde_json::json!({ "line": 10, "column": 8, "byte": 112 }));

    place.write(BASE);
    let lines = stream(&place.novella(&["destroy", "--json", "--auto-approve"]).ends(0));
    assert_eq!(hooks(&lines, "apply_complete").len(), 9);
    let last = lines.last().expect("a line");
    assert_eq!(last["@message"], "Destroy complete! Resources: 0 added, 0 changed, 7 destroyed.");
}

#[test]
fn a_plan_is_a_page_beside_its_text() {
    let place = Place::new(BASE);
    place.novella(&["plan", "--html", "plan.html"]).ends(0).out("Plan: 9 to add");
    let page = std::fs::read_to_string(place.path("plan.html")).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.contains("<h1>Plan of default</h1>"));
    let said = place.novella(&["plan", "--html", "none/plan.html"]).ends(1);
    assert!(said.err.contains("error: cannot write `none/plan.html`: No such file"), "{said:#?}");
}
