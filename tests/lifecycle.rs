//! What may become of a resource by an edit: `prevent_destroy`, `ignore_changes`, and disks that cannot shrink.

mod common;

use std::collections::BTreeSet;

use common::{BASE, SEEDS, converge, desired, plan, plan_anew, walk};
use novella::blueprint::key::{ObjectKey, ObjectKind};
use novella::blueprint::usage;
use novella::diagnostic::{Diagnostic, Place};
use novella::host::sim::{Fuse, SimHost, When};
use novella::plan::Plan;
use novella::plan::diff::Action;
use novella::reconcile::{self, PlanError};
use novella::report;
use novella::store::Store as _;
use novella::store::memory::MemoryStore;
use novella::wishes::Wishes;

/// What a plan refuses to take away.
fn refused(plan: &Plan) -> Vec<String> {
    plan.refused.iter().map(ToString::to_string).collect()
}

fn guarded(text: &str, header: &str) -> String {
    text.replace(header, &format!("{header}\nlifecycle = {{ prevent_destroy = true }}"))
}

fn allow(address: &str, text: &str, store: &MemoryStore) -> Wishes {
    Wishes::new(&[], &[address.to_owned()], &desired(text), &store.snapshot()).expect("an address")
}

#[test]
fn what_is_guarded_stays_when_its_block_is_deleted() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = guarded(&guarded(BASE, "[server.spare]"), "[server.web]");
    let plan_of = |text: &str| plan(text, store.snapshot(), &host);
    converge(&spec, &host, &store);
    // Deleted, the highest number fallen away, or all that was made.
    let without = spec.split("[server.spare]").next().expect("a beginning").to_owned();
    assert_eq!(refused(&plan_of(&without)), ["server.spare"]);
    assert_eq!(refused(&plan_of(&spec.replace("count = 2", "count = 1"))), ["server.web-2"]);
    let destroy = reconcile::plan_destroy(&desired(&spec), store.snapshot(), &host).expect("a plan");
    assert_eq!(refused(&destroy), ["server.spare", "server.web-1", "server.web-2"]);
    // An edit that replaces the disk; one that does not.
    assert_eq!(refused(&plan_of(&spec.replace("\"debian\"", "\"tiny\""))), ["server.web-1", "server.web-2"]);
    assert_eq!(refused(&plan_of(&spec.replace("128 MiB", "256 MiB"))), [""; 0]);
    let anew = Wishes::new(&["server.spare".into()], &[], &desired(&spec), &store.snapshot()).expect("an address");
    let anew = reconcile::plan_with(&desired(&spec), store.snapshot(), &host, &anew).expect("a plan");
    assert_eq!(refused(&anew), ["server.spare"]);

    // The ways out: by name, or by the spec's own word.
    let allowed = allow("server.spare", &without, &store);
    let allowed = reconcile::plan_with(&desired(&without), store.snapshot(), &host, &allowed).expect("a plan");
    assert_eq!(refused(&allowed), [""; 0]);
    let one = allow("server.web-1", &spec, &store);
    let one = reconcile::plan_destroy_with(&desired(&spec), store.snapshot(), &host, &one).expect("a plan");
    assert_eq!(refused(&one), ["server.spare", "server.web-2"]);
    assert_eq!(refused(&plan_of("")), [""; 0], "the spec has them, and guards them no more");
    converge(BASE, &host, &store);
    assert_eq!(refused(&plan_of("")), [""; 0]);
}

#[test]
fn a_guard_counts_as_soon_as_the_spec_has_it_and_is_written_down_without_touching_the_host() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let spec = guarded(BASE, "[server.spare]");
    let edited = spec.replace(
        "[server.spare]\nlifecycle = { prevent_destroy = true }\nimage = \"tiny\"",
        "[server.spare]\nlifecycle = { prevent_destroy = true }\nimage = \"debian\"",
    );
    assert_ne!(edited, spec);
    assert_eq!(refused(&plan(&edited, store.snapshot(), &host)), ["server.spare"]);
    let destroy = reconcile::plan_destroy(&desired(&spec), store.snapshot(), &host).expect("a plan");
    assert_eq!(refused(&destroy), ["server.spare"]);
    // Until that is applied, only the spec knows.
    assert_eq!(refused(&plan("", store.snapshot(), &host)), [""; 0]);

    let plan = converge(&spec, &host, &store);
    let [change] = &plan.changes[..] else { panic!("{}", report::plan::render(&plan)) };
    assert_eq!((change.key.to_string().as_str(), change.action), ("domain spare", Action::Record));
    assert!(common::plain(&report::plan::render(&plan)).contains("+ prevent_destroy = true"));
}

#[test]
fn networks_and_volumes_are_guarded_too() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = format!("{BASE}[volume.data]\nsize = \"1 GiB\"\n");
    let spec = guarded(&guarded(&spec, "[network.closed]"), "[volume.data]");
    converge(&spec, &host, &store);
    let plan_of = |text: &str| refused(&plan(text, store.snapshot(), &host));
    let destroy = reconcile::plan_destroy(&desired(&spec), store.snapshot(), &host).expect("a plan");
    assert_eq!(refused(&destroy), ["network.closed", "volume.data"]);
    assert_eq!(plan_of(&spec.replace("[network.closed]", "[network.closed]\nbridge = \"br-lab\"")), ["network.closed"]);
    assert_eq!(plan_of(&spec.replace("[network.closed]", "[network.closed]\nmtu = 1400")), [""; 0]);
    assert_eq!(plan_of(&spec.replace("[volume.data]", "[volume.data]\nformat = \"raw\"")), ["volume.data"]);
    let without = &spec[..spec.find("[volume.data]").expect("it is there")];
    assert_eq!(plan_of(without), ["volume.data"]);
}

#[test]
fn a_destruction_that_was_allowed_and_begun_is_finished_without_being_allowed_again() {
    for when in [When::Before, When::After] {
        for deed in 0.. {
            let (host, store) = (SimHost::new(), MemoryStore::default());
            let spec = guarded(BASE, "[server.spare]");
            converge(&spec, &host, &store);
            let without = spec.split("[server.spare]").next().expect("a beginning").to_owned();
            let fuse = Fuse::new(deed, when);
            let host = host.fused(Some(fuse.clone()));
            let allowed = allow("server.spare", &without, &store);
            let first = reconcile::plan_with(&desired(&without), store.snapshot(), &host, &allowed).expect("a plan");
            walk(&first, &host, &store, 1);
            if !fuse.has_blown() {
                break;
            }
            let host = host.fused(None);
            let key = ObjectKey::new(ObjectKind::Domain, "spare");
            let is_begun = !host.objects().contains_key(&key) || !store.snapshot().records[&key].prevent_destroy;
            let second = plan(&without, store.snapshot(), &host);
            assert_eq!(refused(&second).is_empty(), is_begun, "cut {when:?} deed {deed}");
            if is_begun {
                converge(&without, &host, &store);
                assert!(!store.load().expect("records").records.contains_key(&key));
            }
        }
    }
}

const WEB: &str = "[server.web]\nimage = \"debian\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount = 2\n";

/// The base, with something more, where the servers `web` ignore some changes and one thing is edited.
fn ignoring(what: &str, (old, new): (&str, &str)) -> String {
    let more = "[flavor.large]\nvcpus = 2\nram = \"1 GiB\"\ndisk = \"2 GiB\"\n[keypair.me]\npublic_key = \
                \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t\"\n";
    let web = WEB.replace("count = 2\n", &format!("lifecycle = {{ ignore_changes = [{what}] }}\nuser_data = \"x\"\n"));
    assert!(BASE.contains(WEB) && web.contains(old), "{old}");
    format!("{}{more}", BASE.replace(WEB, &web.replace(old, new)))
}

#[test]
fn each_field_that_is_ignored_keeps_what_was_made() {
    let line = "user_data = \"x\"";
    let rows: [(&str, &str, (&str, &str)); 16] = [
        ("image", "image", ("\"debian\"", "\"tiny\"")),
        ("flavor", "flavor", ("\"small\"", "\"large\"")),
        ("networks", "networks", ("[\"private\"]", "[\"private\", \"closed\"]")),
        ("networks", "networks", ("[\"private\"]", "[\"closed\"]")),
        (
            "ports",
            "networks",
            ("networks = [\"private\"]", "ports = [{ network = \"closed\" }, { network = \"private\" }]"),
        ),
        ("fixed_ip", "fixed_ip", (line, "user_data = \"x\"\nfixed_ip = \"10.20.0.77\"")),
        ("power", "power", (line, "user_data = \"x\"\npower = \"off\"")),
        ("depends_on", "depends_on", (line, "user_data = \"x\"\ndepends_on = [\"db\"]")),
        ("shutdown_timeout", "shutdown_timeout", (line, "user_data = \"x\"\nshutdown_timeout = 5")),
        ("user_data", "user_data", (line, "user_data = \"y\"")),
        ("user_data", "user_data", (line, "user_data = \"y\"\non_user_data_change = \"rebuild\"")),
        ("user_data", "user_data", (line, "")),
        ("key_pairs", "user_data", (line, "user_data = \"x\"\nkey_pairs = [\"me\"]")),
        ("metadata", "user_data", (line, "user_data = \"x\"\nmetadata = { role = \"db\" }")),
        ("files", "user_data", (line, "user_data = \"x\"\nfiles = [{ path = \"/a\", content = \"b\" }]")),
        ("config_drive", "user_data", (line, "user_data = \"x\"\nconfig_drive = true")),
    ];
    for (key, told, edit) in rows {
        for what in [format!("\"{key}\""), "\"all\"".to_owned()] {
            let (host, store) = (SimHost::new(), MemoryStore::default());
            converge(&ignoring(&what, ("", "")), &host, &store);
            let before = host.objects();
            let edited = ignoring(&what, edit);
            let plan = plan(&edited, store.snapshot(), &host);
            let case = format!("{what}: {edit:?}");
            assert!(plan.is_empty(), "{case}:\n{}", report::plan::render(&plan));
            let said: Vec<String> = plan.ignored.iter().map(|(it, what)| format!("{it} {what:?}")).collect();
            let name = plan.ignored.values().flatten().map(|it| it.as_str()).collect::<Vec<_>>();
            assert_eq!(name, [told], "{case}: {said:?}");
            let text = common::plain(&report::plan::render(&plan));
            assert!(text.contains(&format!("Ignored, by `ignore_changes`: server.web ({told}).")), "{case}: {text}");
            // What is not ignored any more is caught up with.
            let caught_up = edited.replace(&what, "");
            assert!(!common::plan(&caught_up, store.snapshot(), &host).is_empty(), "{case}");
            assert_eq!(host.objects(), before);
        }
        // Another field is none of its business.
        let other = if key == "power" { "\"flavor\"" } else { "\"power\"" };
        let (host, store) = (SimHost::new(), MemoryStore::default());
        converge(&ignoring(other, ("", "")), &host, &store);
        let plan = converge(&ignoring(other, edit), &host, &store);
        assert!(!plan.is_empty() && plan.ignored.is_empty(), "{key}");
    }
}

#[test]
fn a_new_server_is_made_as_the_spec_says_whatever_it_ignores() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let plan = converge(&ignoring("\"all\"", ("\"small\"", "\"large\"")), &host, &store);
    assert!(plan.ignored.is_empty());
    let domain = host.guest("web").expect("it runs");
    assert_eq!(domain.vcpus, 2);
}

#[test]
fn a_rebuilt_server_is_told_anew_whatever_it_ignores() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = format!("{BASE}{SEEDS}")
        .replace("[server.next]", "[server.next]\nlifecycle = { ignore_changes = [\"user_data\"] }");
    converge(&spec, &host, &store);
    let edited = spec.replace("hunter2", "hunter3");
    converge(&edited, &host, &store);
    let seed = |server: &str| host.objects()[&ObjectKey::new(ObjectKind::Seed, server)].facts()["sha256"].clone();
    let servers = ["many-1", "next", "same"];
    let before = servers.map(seed);
    let replace = servers.map(|server| format!("server.{server}"));
    let plan = plan_anew(&edited, &replace, true, store.snapshot(), &host);
    assert!(walk(&plan, &host, &store, 1).is_complete());
    let after = servers.map(seed);
    for (server, (before, after)) in servers.iter().zip(before.iter().zip(&after)) {
        assert_ne!(before, after, "{server} would take itself for the old instance");
    }
    assert!(common::plan(&edited, store.snapshot(), &host).is_empty());
    assert_eq!(servers.map(seed), after, "it is told the same again");
}

#[test]
fn addresses_that_are_kept_are_listed_as_kept() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(&ignoring("\"fixed_ip\"", ("", "")), &host, &store);
    let edited = desired(&ignoring("\"fixed_ip\"", ("user_data = \"x\"", "fixed_ip = \"10.20.0.77\"")));
    let mut problems = Vec::new();
    let usage = usage::of(&edited.networks["private"], &edited, &store.snapshot(), &mut problems);
    assert!(problems.is_empty() && !usage.used.iter().any(|it| it.address.to_string() == "10.20.0.77"), "{usage:?}");
}

/// The problems of a spec that cannot be planned.
fn problems(text: &str, store: &MemoryStore, host: &SimHost) -> Vec<Diagnostic> {
    match reconcile::plan(&desired(text), store.snapshot(), host) {
        Err(PlanError::Spec(problems)) => problems,
        Err(other) => panic!("{other}"),
        Ok(plan) => panic!("it is planned:\n{}", report::plan::render(&plan)),
    }
}

#[test]
fn an_interface_that_cannot_be_kept_is_told() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = ignoring("\"networks\"", ("[\"private\"]", "[\"private\", \"closed\"]"));
    converge(&spec, &host, &store);
    let gone = spec.replace("[\"private\", \"closed\"]", "[\"private\"]").replace("[\"closed\"]", "[\"private\"]");
    let gone = gone.replace(
        "[network.closed]\nforward = \"isolated\"\n[subnet.closed-v4]\nnetwork = \"closed\"\ncidr = \"10.30.0.0/24\"\n",
        "",
    );
    let [problem] = &problems(&gone, &store, &host)[..] else { panic!("one problem") };
    assert_eq!(problem.code.as_deref(), Some("ignore-changes"));
    assert_eq!(problem.place, Place::Key("server.web.lifecycle.ignore_changes".into()));
    assert!(problem.message.contains("`network.closed`, which is not there any more"), "{}", problem.message);
}

#[test]
fn a_disk_that_would_shrink_is_refused_where_it_is_written() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let small = format!("{BASE}[flavor.tight]\nram = \"128 MiB\"\ndisk = \"512 MiB\"\n");
    let web = |flavor: &str| small.replace(WEB, &WEB.replace("\"small\"", &format!("\"{flavor}\"")));
    let found = problems(&web("tight"), &store, &host);
    assert_eq!(found.len(), 2, "one for each server");
    let problem = &found[0];
    assert_eq!(problem.code.as_deref(), Some("disk-would-shrink"));
    assert_eq!(problem.message, "the disk of `server.web-1` has 1 GiB and cannot shrink to 512 MiB");
    assert_eq!(problem.place, Place::Key("server.web.flavor".into()));
    assert_eq!(problem.related[0].0, Place::Key("flavor.tight.disk".into()));
    assert!(problem.help.as_deref().unwrap_or_default().contains("`novella rebuild web-1`"));

    // Another image is another disk, and so is one that is asked for; and one that is gone can be of any size.
    let other = web("tight").replace("\"debian\"", "\"tiny\"");
    assert!(reconcile::plan(&desired(&other), store.snapshot(), &host).is_ok());
    let wishes = |servers: &[&str]| Wishes {
        replace: servers.iter().map(|name| name.parse().expect("a name")).collect::<BTreeSet<_>>(),
        ..Wishes::default()
    };
    let one = reconcile::plan_with(&desired(&web("tight")), store.snapshot(), &host, &wishes(&["web-1"]));
    assert!(matches!(one, Err(PlanError::Spec(problems)) if problems.len() == 1), "the other one still has its disk");
    let both = reconcile::plan_with(&desired(&web("tight")), store.snapshot(), &host, &wishes(&["web-1", "web-2"]));
    assert!(walk(&both.expect("a plan"), &host, &store, 1).is_complete());
    assert!(plan(&web("tight"), store.snapshot(), &host).is_empty());
    assert!(host.lose(&ObjectKey::new(ObjectKind::Disk, "spare")));
    converge(&web("tight").replace("disk = \"1 GiB\"", "disk = \"2 GiB\""), &host, &store);
}
