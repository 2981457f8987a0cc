//! The daemon, with guests that run.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::lab::{Lab, Running, base, note, server};
use crate::libvirtd::START;

const WEB: &str = "10.20.0.2";
const DB: &str = "10.20.0.50";

/// How long anything may take. A pass comes every two seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

fn start(lab: &Lab) -> Running {
    lab.start(&["watch", "--interval", "2s"])
}

pub(crate) fn status(lab: &Lab) -> Value {
    let said = lab.novella(&["status", "--json"]);
    serde_json::from_str::<Value>(&said.out).unwrap_or_else(|error| panic!("{error}: {said:#?}"))["status"].take()
}

/// Waits until the daemon tells so, and gives what it tells and how long it took.
pub(crate) fn until(lab: &Lab, daemon: &Running, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let told = status(lab);
        if is_so(&told) {
            note(format_args!("{what}: after {:?}", begun.elapsed()));
            return told;
        }
        let said = || format!("{told:#}\n{}{}", daemon.so_far(), daemon.err_so_far());
        assert!(begun.elapsed() < PATIENCE, "it never comes to be: {what}\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the host is what the spec says, without the daemon's word for it.
fn settled(lab: &Lab, daemon: &Running, what: &str) {
    let begun = Instant::now();
    loop {
        let plan = lab.novella(&["plan", "--detailed-exitcode"]);
        if plan.code() == Some(0) && !plan.err.contains("is at work") {
            note(format_args!("{what}: after {:?}", begun.elapsed()));
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {plan:#?}\n{}{}", daemon.so_far(), daemon.err_so_far());
    }
}

fn approve(lab: &Lab, told: &Value) {
    lab.novella(&["approve", told["pending"]["digest"].as_str().expect("a digest")]).success();
}

/// How many files it has open between two passes; one that runs has some open, and so has an answer over the socket.
pub(crate) fn handles(daemon: &Running) -> usize {
    let pid = daemon.pid.expect("it runs");
    let now = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let looks = std::iter::repeat_with(now).inspect(|_| std::thread::sleep(Duration::from_millis(50)));
    looks.take(80).min().expect("a look")
}

#[test]
fn a_daemon_keeps_guests_what_they_are_to_be() {
    let Some(lab) = Lab::with_guests("watch") else { return };
    let (web, db) = (server("web", ""), server("db", "fixed_ip = \"10.20.0.50\""));
    let spec = [base(), web.clone(), db.clone()].concat();
    lab.spec(&spec);
    let daemon = start(&lab);
    let boots = [WEB, DB].map(|address| lab.boot_of(address));
    until(&lab, &daemon, "all is made, with nobody asked", |told| told["health"] == "healthy");

    // A save that the guest can take as it runs.
    let more = db.replace("[\"private\"]", "[\"private\", \"back\"]");
    lab.spec(&[base(), web.clone(), more.clone()].concat());
    settled(&lab, &daemon, "an interface more");
    assert_eq!(lab.sh("virsh -q domiflist default.db | grep -c ."), "2");
    assert_eq!([WEB, DB].map(|address| lab.boot_of(address)), boots, "nobody was booted anew");

    // What is taken away by hand comes back.
    let bridge = lab.sh(
        "ls -l /sys/class/net/*/brport/bridge | sed -n 's,.*/,,p' | sort | uniq -c | sort -rn | awk 'NR==1 {print $2}'",
    );
    for (name, damage) in [
        ("a dnsmasq is killed", "pkill -9 -o -x dnsmasq".to_owned()),
        ("a bridge is deleted", format!("ip link del {bridge}")),
        ("the rules are gone", "nft flush ruleset".to_owned()),
        ("a guest is pulled down", "virsh -q destroy default.db".to_owned()),
    ] {
        lab.sh(&damage);
        settled(&lab, &daemon, name);
    }
    assert_eq!(lab.boot_of(WEB), boots[0]);
    assert_eq!(lab.sh("ps -eo stat=,comm= | grep '^Z' || true"), "", "the dead are buried");
    let before = lab.boot_of(DB);
    until(&lab, &daemon, "all is well again", |told| told["health"] == "healthy");

    // A save that takes a reboot waits for a word.
    let large = more.replace("\"small\"", "\"large\"");
    let flavor = "\n[flavor.large]\nram = \"128 MiB\"\ndisk = \"64 MiB\"\n";
    lab.spec(&[&base(), flavor, &web, &large].concat());
    let told = until(&lab, &daemon, "a reboot waits", |told| told["health"] == "pending_approval");
    assert!(told["pending"].to_string().contains("needs a reboot"), "{told:#}");
    assert_eq!(lab.novella(&["status"]).code(), Some(3));
    assert_eq!(lab.boot_of(DB), before);
    approve(&lab, &told);
    settled(&lab, &daemon, "the reboot");
    assert_ne!(lab.boot_of(DB), before);
    assert_eq!(lab.boot_of(WEB), boots[0]);

    // A server that is in the spec no more runs on until somebody says so, whoever is killed meanwhile.
    lab.spec(&[&base(), flavor, &large].concat());
    let told = until(&lab, &daemon, "a destruction waits", |told| told["health"] == "pending_approval");
    assert!(daemon.signal(Signal::SIGKILL));
    daemon.wait();
    let mut daemon = start(&lab);
    let before = told.clone();
    let again = until(&lab, &daemon, "it waits again", |told| {
        told["health"] == "pending_approval" && told["started_at"] != before["started_at"]
    });
    assert_eq!(again["pending"]["digest"], told["pending"]["digest"], "the same plan has the same digest");
    assert_eq!(lab.boot_of(WEB), boots[0], "the guest still answers");
    let before = handles(&daemon);
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(handles(&daemon), before, "passes leave nothing open");
    approve(&lab, &again);
    settled(&lab, &daemon, "the destruction");
    assert_eq!(lab.sh("virsh -q list --all --name | grep -c ."), "1");

    assert!(daemon.is_going_on() && daemon.signal(Signal::SIGTERM));
    daemon.wait().success();
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn an_edit_is_handed_over_and_done_by_the_daemon() {
    let Some(lab) = Lab::with_guests("watch-apply") else { return };
    lab.spec(&[base(), server("web", "")].concat());
    // It reads a save only after an hour, so that what is done was handed over.
    let mut daemon = lab.start(&["watch", "--interval", "1h", "--debounce", "1h"]);
    let boot = lab.boot_of(WEB);
    until(&lab, &daemon, "all is made", |told| told["health"] == "healthy");

    // A network more, with a dnsmasq of its own, and a guest that gets an interface as it runs.
    let more = server("web", "").replace("[\"private\"]", "[\"private\", \"back\"]");
    lab.spec(&[base(), more.clone(), server("db", "fixed_ip = \"10.20.0.50\"")].concat());
    let said = lab.novella(&["apply", "--auto-approve"]).success();
    assert!(said.out.contains("server.db: Creation complete") || said.out.contains("server.db: domain"), "{said:#?}");
    assert!(said.out.contains("Apply complete! Resources: "), "{said:#?}");
    assert_eq!(lab.sh("virsh -q domiflist default.web | grep -c ."), "2");
    lab.boot_of(DB);
    assert_eq!(lab.boot_of(WEB), boot);
    assert!(daemon.so_far().contains("handed over by "), "{}", daemon.so_far());
    assert!(lab.novella(&["history"]).out.contains("through the daemon"));
    settled(&lab, &daemon, "an edit that was handed over");

    // What the daemon would let wait, a person has said yes to here.
    lab.spec(&[base(), more].concat());
    lab.novella(&["apply", "--auto-approve"]).success();
    assert_eq!(lab.sh("virsh -q list --all --name | grep -c ."), "1");
    let refused = lab.novella(&["destroy", "--auto-approve"]);
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.err.contains("is watched over by "), "{refused:#?}");
    until(&lab, &daemon, "all is well", |told| told["health"] == "healthy" && told["pending"] == Value::Null);

    assert!(daemon.is_going_on() && daemon.signal(Signal::SIGTERM));
    daemon.wait().success();
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn what_happens_on_the_host_wakes_it() {
    let Some(lab) = Lab::with_guests("watch-events") else { return };
    lab.spec(&[base(), server("web", "")].concat());
    // No pass comes by itself while this test runs.
    let mut daemon = lab.start(&["watch", "--interval", "1h"]);
    lab.boot_of(WEB);
    until(&lab, &daemon, "all is made", |told| told["health"] == "healthy");
    settled(&lab, &daemon, "all is made");
    let bridge = lab.sh("ls /sys/class/net | grep -m 1 ^brq");
    for (name, damage) in [
        ("a guest is pulled down", "virsh -q destroy default.web".to_owned()),
        ("a dnsmasq is killed", "kill -9 $(pgrep -o -x dnsmasq)".to_owned()),
        ("the rules are gone", "nft flush ruleset".to_owned()),
        ("an address is gone", format!("ip addr flush dev {bridge}")),
        ("a bridge is deleted", format!("ip link del {bridge}")),
        (
            "libvirtd is killed, a guest with it, and libvirtd started anew",
            format!("kill -9 $(pgrep -x libvirtd) $(pgrep -x qemu-system-x86); sleep 1\n{START}"),
        ),
    ] {
        lab.sh(&damage);
        settled(&lab, &daemon, name);
        lab.boot_of(WEB);
    }
    until(&lab, &daemon, "all is well again", |told| told["health"] == "healthy");

    // Where nothing happens, nothing wakes it: what it did itself does not go on waking it either. The threads of sled, which
    // it keeps once a state was open, look once a minute or so whether they are needed.
    let pid = daemon.pid.expect("it runs");
    let woken = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").filter_map(Result::ok);
        let status = tasks.map(|task| std::fs::read_to_string(task.path().join("status")).unwrap_or_default());
        let times = status.filter_map(|it| {
            it.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse::<u64>().ok()
        });
        times.sum()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (before, quiet) = (woken(), Duration::from_secs(5));
        std::thread::sleep(quiet);
        let times = woken() - before;
        note(format_args!("woken {times} times in {quiet:?}"));
        if times == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "it does not come to rest\n{}", daemon.err_so_far());
    }
    assert!(daemon.is_going_on() && daemon.signal(Signal::SIGTERM));
    daemon.wait().success();
    assert_eq!(lab.count("virsh"), 0, "nobody listens any more");
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn a_daemon_killed_at_any_instant_is_followed_by_one_that_goes_on() {
    let Some(lab) = Lab::without_guests("watch-kill") else { return };
    let spec = |count: usize| [base(), server("node", &format!("count = {count}\npower = \"off\""))].concat();
    for round in 1..=6_usize {
        lab.spec(&spec(round * 4));
        let mut daemon = start(&lab);
        daemon.wait_for("Applying:");
        std::thread::sleep(Duration::from_millis(40 * round as u64));
        assert!(daemon.signal(Signal::SIGKILL));
        daemon.wait();
    }
    let mut daemon = start(&lab);
    until(&lab, &daemon, "all is made", |told| told["health"] == "healthy");
    lab.assert_settled("after six kills");
    assert_eq!(lab.sh("virsh -q list --all --name | grep -c ."), "24");
    assert!(daemon.is_going_on() && daemon.signal(Signal::SIGTERM));
    daemon.wait().success();
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}
