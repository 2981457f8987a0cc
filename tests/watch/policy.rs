//! What goes by itself and what waits, as a table.

use std::collections::{BTreeMap, BTreeSet};

use novella::address::Address;
use novella::blueprint::facts::Disruption;
use novella::blueprint::key::ObjectKind;
use novella::host::sim::SimHost;
use novella::plan::{Plan, Scope};
use novella::store::Store as _;
use novella::store::memory::MemoryStore;
use novella::watch::pending::{self, Approval, Judgement, Limits, Origin, Pending};
use novella::watch::policy::{Rules, Why, held, wait_for_window};

use crate::common::{BASE, DISKS, converge, plan};

const NOBODY: &BTreeSet<Address> = &BTreeSet::new();
const LIVE: Rules<'_> = Rules { max_disruption: Disruption::Live, reboots_now: NOBODY };
const NONE: Rules<'_> = Rules { max_disruption: Disruption::None, reboots_now: NOBODY };
const REBOOT: Rules<'_> = Rules { max_disruption: Disruption::Reboot, reboots_now: NOBODY };
const ALL: Rules<'_> = Rules { max_disruption: Disruption::Replace, reboots_now: NOBODY };

fn base() -> String {
    [BASE, DISKS].concat()
}

/// The plan after an edit, and after objects of these kinds were lost.
fn after(edits: &[(&str, &str)], lost: &[(ObjectKind, &str)]) -> Plan {
    let (host, store, before) = (SimHost::new(), MemoryStore::default(), base());
    converge(&before, &host, &store);
    let mut text = before;
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    for key in
        host.objects().keys().filter(|key| lost.iter().any(|(kind, id)| key.kind == *kind && key.id.contains(id)))
    {
        assert!(host.lose(key));
    }
    plan(&text, store.load().expect("records"), &host)
}

/// What waits, with why, and what goes.
fn verdict(plan: &Plan, rules: Rules<'_>) -> (Vec<String>, Vec<String>) {
    let held = held(plan, rules, |_| false);
    let going = plan.clone().confine(&Scope::Without(held.keys().cloned().collect())).expect("an order");
    let going: BTreeSet<&Address> = going.changes.iter().map(|change| &change.address).collect();
    let waiting = held.iter().map(|(address, why)| format!("{address} {why:?}"));
    (waiting.collect(), going.into_iter().map(ToString::to_string).collect())
}

#[test]
fn each_edit_goes_or_waits() {
    use ObjectKind::{Bridge, Dhcp, Disk, Domain, Firewall, HostEntry, Volume};
    type Row<'a> =
        (&'a str, &'a [(&'a str, &'a str)], &'a [(ObjectKind, &'a str)], Rules<'a>, &'a [&'a str], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        ("nothing", &[], &[], LIVE, &[], &[]),
        (
            "a server more",
            &[("count = 2\n\n[server.db]", "count = 3\n\n[server.db]")],
            &[],
            LIVE,
            &[],
            &["server.web-3"],
        ),
        (
            "a server less",
            &[("count = 2\n\n[server.db]", "count = 1\n\n[server.db]")],
            &[],
            LIVE,
            &["server.web-2 {Destroys}"],
            &[],
        ),
        (
            "a server less, whatever guests may notice",
            &[("count = 2\n\n[server.db]", "count = 1\n\n[server.db]")],
            &[],
            ALL,
            &["server.web-2 {Destroys}"],
            &[],
        ),
        (
            "an interface more",
            &[(
                "[server.spare]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"closed\"]",
                "[server.spare]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"closed\", \"private\"]",
            )],
            &[],
            LIVE,
            &[],
            &["server.spare"],
        ),
        (
            "an interface less",
            &[("networks = [\"private\", \"closed\"]\nfixed_ip", "networks = [\"private\"]\nfixed_ip")],
            &[],
            LIVE,
            &["server.db {Destroys}"],
            &[],
        ),
        (
            "another MTU",
            &[("[network.closed]", "[network.closed]\nmtu = 1400")],
            &[],
            LIVE,
            &[],
            &["network.closed", "server.db", "server.many-1", "server.many-2", "server.off", "server.spare"],
        ),
        (
            "a volume less",
            &[("[volume.copy]\nimage = \"debian\"\nsize = \"1 GiB\"\n", ""), ("volumes = [\"copy\"]\n", "")],
            &[],
            LIVE,
            &["volume.copy {Destroys}", "server.two {Detaches}"],
            &[],
        ),
        (
            "bridges lost",
            &[],
            &[(Bridge, "")],
            LIVE,
            &[],
            &[
                "network.closed",
                "network.private",
                "server.db",
                "server.many-1",
                "server.many-2",
                "server.one",
                "server.two",
                "server.web-1",
                "server.web-2",
            ],
        ),
        ("a dnsmasq lost", &[], &[(Dhcp, "closed")], LIVE, &[], &["network.closed"]),
        ("the rules lost", &[], &[(Firewall, "")], LIVE, &[], &["host.local"]),
        ("host entries lost", &[], &[(HostEntry, "db/")], LIVE, &[], &["server.db"]),
        ("a domain lost", &[], &[(Domain, "db")], LIVE, &[], &["server.db"]),
        ("a disk and its domain lost", &[], &[(Disk, "db"), (Domain, "db")], LIVE, &["server.db {DataIsGone}"], &[]),
        ("the same, whatever", &[], &[(Disk, "db"), (Domain, "db")], ALL, &["server.db {DataIsGone}"], &[]),
        ("a volume lost", &[], &[(Volume, "data")], LIVE, &["volume.data {DataIsGone}", "server.one {Detaches}"], &[]),
    ];
    for (name, edits, lost, rules, waits, goes) in rows {
        let (waiting, going) = verdict(&after(edits, lost), *rules);
        assert_eq!((waiting, going), (waits.map_owned(), goes.map_owned()), "{name}");
    }
}

trait Owned {
    fn map_owned(&self) -> Vec<String>;
}

impl Owned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[test]
fn reboots_wait_for_their_time() {
    let plan = after(
        &[(
            "ram = \"128 MiB\"\ndisk = \"1 GiB\"\n\n[server.web]",
            "ram = \"256 MiB\"\ndisk = \"1 GiB\"\n\n[server.web]",
        )],
        &[],
    );
    let running = ["server.db", "server.many-1", "server.many-2", "server.web-1", "server.web-2"];
    let waits: Vec<String> = running.iter().map(|server| format!("{server} {{Reboots}}")).collect();
    let off = ["server.off", "server.spare"];
    assert_eq!(verdict(&plan, LIVE), (waits.clone(), off.map_owned()), "what is off needs none");
    assert_eq!(verdict(&plan, NONE).0, waits);
    assert_eq!(verdict(&plan, REBOOT).0, [""; 0]);
    // The windows of these are open.
    for open in [&running[..], &["server.db", "server.web-1", "server.off", "volume.data"], &["server.web"]] {
        let reboots_now = open.iter().map(|it| it.parse().expect("an address")).collect();
        let waits: Vec<String> =
            running.iter().filter(|it| !open.contains(it)).map(|server| format!("{server} {{Reboots}}")).collect();
        for max_disruption in [Disruption::None, Disruption::Live] {
            assert_eq!(verdict(&plan, Rules { max_disruption, reboots_now: &reboots_now }).0, waits, "{open:?}");
        }
    }
    let held: BTreeMap<Address, BTreeSet<Why>> = [
        ("server.a", &[Why::Reboots][..]),
        ("server.b", &[Why::Reboots, Why::Detaches]),
        ("server.c", &[Why::Destroys]),
        ("server.d", &[]),
    ]
    .into_iter()
    .map(|(address, why)| (address.parse().expect("an address"), why.iter().copied().collect()))
    .collect();
    let waits: Vec<String> = wait_for_window(&held).iter().map(ToString::to_string).collect();
    assert_eq!(waits, ["server.a"], "no window lets others go");
}

#[test]
fn what_depends_on_what_waits_waits_too() {
    // The new server takes the address of one that goes.
    let plan = after(&[("[server.db]", "[server.heir]")], &[]);
    let (waits, goes) = verdict(&plan, LIVE);
    assert_eq!((waits, goes), (vec!["server.db {Destroys}".to_owned()], vec![]));
}

#[test]
fn an_approval_is_for_one_plan_of_one_spec() {
    let plan = after(&[("count = 2\n\n[server.db]", "count = 0\n\n[server.db]")], &[]);
    let (spec, other) = (novella::value::Sha256::of(b"one"), novella::value::Sha256::of(b"other"));
    let held = held(&plan, LIVE, |_| false);
    let going = plan.clone().confine(&Scope::Without(held.keys().cloned().collect())).expect("an order");
    let of = |max_deletes| {
        let limits = Limits { max_deletes, max_delete_percent: 50 };
        let origin = Origin { spec: &spec, resources: 9, limits, unix: 7 };
        Pending::new(&plan, &going, &held, origin).expect("something waits").0
    };
    let pending = of(3);
    assert_eq!(pending.losses, 2);
    let approval = Approval {
        digest: pending.digest.clone(),
        spec: spec.clone(),
        changes: pending.changes.iter().map(|change| change.digest.clone()).collect(),
        allow_mass_delete: false,
        begun: false,
        by: "me".into(),
        at: 7,
    };
    let refused = |judgement| matches!(judgement, Judgement::Refused(_));
    assert_eq!(approval.judge(Some(&pending), &spec), Judgement::Holds);
    assert!(plan.changes.iter().filter(|it| it.address.to_string() == "server.web-1").all(|it| approval.allows(it)));
    assert!(refused(approval.judge(Some(&pending), &other)), "another spec");
    assert!(refused(approval.judge(None, &spec)), "nothing waits");
    assert!(refused(approval.judge(Some(&of(1)), &spec)), "too many");
    let mass = Approval { allow_mass_delete: true, ..approval.clone() };
    assert_eq!(mass.judge(Some(&of(1)), &spec), Judgement::Holds);

    // Of what was begun, some is left, and nothing more is allowed.
    let mut rest = pending.clone();
    rest.changes.truncate(1);
    rest.digest = other.clone();
    assert!(refused(approval.judge(Some(&rest), &spec)), "another plan");
    let begun = Approval { begun: true, ..approval };
    assert_eq!(begun.judge(Some(&rest), &spec), Judgement::Holds);
    assert!(refused(begun.judge(Some(&rest), &other)), "another spec");
    rest.changes[0].digest = other;
    assert_eq!(begun.judge(Some(&rest), &spec), Judgement::Spent);
    assert_eq!(begun.judge(None, &spec), Judgement::Spent);
}

#[test]
fn losses_have_two_limits() {
    let plan = after(&[("count = 2\n\n[server.db]", "count = 0\n\n[server.db]")], &[]);
    let (spec, held) = (novella::value::Sha256::of(b"one"), held(&plan, LIVE, |_| false));
    let nothing = Plan { changes: Vec::new(), ..plan.clone() };
    let of = |losses, resources, max_deletes, max_delete_percent| {
        let origin = Origin { spec: &spec, resources, limits: Limits { max_deletes, max_delete_percent }, unix: 7 };
        Pending { losses, ..Pending::new(&plan, &nothing, &held, origin).expect("something waits").0 }
    };
    let (number, share) = (Some("`--max-deletes`"), Some("`--max-delete-percent`"));
    for (losses, resources, max_deletes, percent, limit) in [
        (3, 100, 3, 50, None),
        (4, 100, 3, 50, number),
        (2, 4, 3, 50, None),
        (2, 3, 3, 50, share),
        (3, 3, 3, 100, None),
        (3, 3, 2, 0, number),
        (2, 1000, 3, 0, share),
        // A single one is no share of anything.
        (1, 1, 3, 0, None),
        (1, 1, 0, 100, number),
        (0, 9, 0, 0, None),
        (33, 100, 99, 33, None),
        (34, 101, 99, 33, share),
    ] {
        let why = of(losses, resources, max_deletes, percent).exceeds();
        let is_so = limit.map_or(why.is_none(), |limit| why.as_ref().is_some_and(|why| why.contains(limit)));
        assert!(is_so, "{losses} of {resources} with {max_deletes} and {percent} %: {why:?}");
    }
    let pending = of(2, 3, 3, 50);
    assert_eq!(
        pending.exceeds().as_deref(),
        Some(
            "2 resources of 3, 66 %, would be destroyed or replaced at once, and at most 50 % may be without \
             `--allow-mass-delete` (`--max-delete-percent`)"
        )
    );
    assert!(!pending.is_same(&of(2, 3, 3, 60)) && !pending.is_same(&of(2, 4, 3, 50)) && pending.is_same(&pending));

    // What an older daemon has written knows of no share.
    let mut old = serde_json::to_value(of(2, 3, 3, 50)).expect("JSON");
    for key in ["resources", "max_delete_percent"] {
        assert!(old.as_object_mut().expect("an object").remove(key).is_some(), "{key}");
    }
    assert_eq!(serde_json::from_value::<Pending>(old).expect("a plan that waits").exceeds(), None);
}

#[test]
fn a_digest_says_what_is_done_and_not_why() {
    let plan = after(&[("count = 2\n\n[server.db]", "count = 0\n\n[server.db]")], &[]);
    let mut change = plan.changes[0].clone();
    let digest = pending::digest(&change);
    change.reason = novella::plan::Reason::Unfinished;
    assert_eq!(pending::digest(&change), digest);
    change.disruption = Disruption::Replace;
    assert_ne!(pending::digest(&change), digest);
    assert!(Why::Destroys.loses() && !Why::Reboots.loses());
}

#[test]
fn what_has_prevent_destroy_waits_with_every_approval() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let before = base().replace("[server.spare]", "[server.spare]\nlifecycle = { prevent_destroy = true }");
    converge(&before, &host, &store);
    let text = before.replace("[server.spare]", "[server.heir]").replace("lifecycle = { prevent_destroy = true }", "");
    let plan = plan(&text, store.load().expect("records"), &host);
    let all = held(&plan, ALL, |_| true);
    assert_eq!(
        all.into_iter().map(|(address, why)| format!("{address} {why:?}")).collect::<Vec<_>>(),
        ["server.spare {Guarded}"]
    );
}
