//! Host entries that come, go and change, and the leases that stand in their way.

use std::thread;
use std::time::{Duration, Instant};

use novella::blueprint::object::HostEntry;
use novella::value::Mac;

use crate::lab::{Lab, entry, ip, lab, port};

const MACS: [&str; 4] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03", "fa:16:3e:00:00:04"];

#[test]
fn a_host_is_added_and_removed_under_a_running_guest() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        assert_eq!(guest.address().as_deref(), Some("10.9.0.11"));
        let pid = lab.pid();
        let pings = thread::scope(|scope| {
            let pings = scope.spawn(|| guest.run("/usr/bin/ping -n -i 0.01 -c 200 -W 1 10.9.0.1"));
            thread::sleep(Duration::from_millis(300));
            lab.host("db", MACS[1], [10, 9, 0, 12]);
            assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.12"));
            lab.remove("db");
            lab.remove("db");
            assert_eq!(lab.client(MACS[1]).address(), None, "a removed host is served no more");
            pings.join().expect("ping")
        });
        assert!(pings.contains("200 received"), "{pings}");
        assert_eq!(lab.pid(), pid, "the process went on");
        lab.assert_settled(&[&web]);
    });
}

#[test]
fn a_recycled_address_is_given_out_at_the_first_try() {
    lab(|lab| {
        lab.start();
        let keep = lab.host("keep", MACS[2], [10, 9, 0, 13]);
        assert_eq!(lab.client(MACS[2]).address().as_deref(), Some("10.9.0.13"));
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let old = lab.client(MACS[0]);
        assert_eq!(old.address().as_deref(), Some("10.9.0.11"));
        let pid = lab.pid();
        old.unplug();
        lab.remove("web");
        let db = lab.host("db", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        assert_eq!(lab.pid(), pid, "no restart");
        lab.assert_settled(&[&keep, &db]);
        let leases = lab.dnsmasq.leases("private").expect("leases");
        assert!(
            leases.iter().any(|it| it.client.mac().is_some_and(|mac| mac.to_string() == MACS[2])),
            "the lease of another is kept: {leases:?}"
        );
    });
}

/// A port that gets another MAC, another address, and then that of another, which gets its own.
fn exchange(lab: &Lab) -> [HostEntry; 2] {
    // New MAC under the same server and address, with a lease of the old one.
    lab.host("web", MACS[0], [10, 9, 0, 11]);
    assert_eq!(lab.client(MACS[0]).address().as_deref(), Some("10.9.0.11"));
    lab.replace(&["web"], &[&entry("web", MACS[1], [10, 9, 0, 11])]);
    let web = lab.client(MACS[1]);
    assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
    // New address for the same MAC, with a lease of the old one; and the old address to another at once.
    let changed = [entry("web", MACS[1], [10, 9, 0, 12]), entry("db", MACS[2], [10, 9, 0, 11])];
    lab.replace(&["web"], &changed.each_ref());
    let db = lab.client(MACS[2]);
    assert_eq!(db.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
    assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.12");
    // Two exchange their addresses: both are removed, then made.
    let starts = lab.log().matches("started, version").count();
    let exchanged = [entry("web", MACS[1], [10, 9, 0, 11]), entry("db", MACS[2], [10, 9, 0, 12])];
    lab.replace(&["web", "db"], &exchanged.each_ref());
    assert!(lab.log().matches("started, version").count() <= starts + 1, "at most one restart for both");
    assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
    assert_eq!(db.dhcp(1, "").expect("first try")["ip"], "10.9.0.12");
    exchanged
}

#[test]
fn a_port_may_change_its_mac_its_address_and_exchange_them() {
    lab(|lab| {
        lab.start();
        let pid = lab.pid();
        let [one, two] = exchange(lab);
        lab.assert_settled(&[&one, &two]);
        assert_eq!(lab.pid(), pid, "no restart");
        // Changed in place, as no plan has it, it is right as well.
        let one = lab.host("web", MACS[3], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[3]).dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        lab.assert_settled(&[&one, &two]);
        assert_eq!(lab.pid(), pid, "no restart");
    });
}

#[test]
fn where_no_lease_can_be_given_back_a_restart_frees_it() {
    lab(|lab| {
        // Messages of the host to itself go through it.
        ip("link set lo down");
        lab.start();
        let keep = lab.host("keep", MACS[3], [10, 9, 0, 13]);
        assert_eq!(lab.client(MACS[3]).address().as_deref(), Some("10.9.0.13"));
        let pid = lab.pid();
        let [one, two] = exchange(lab);
        lab.assert_settled(&[&keep, &one, &two]);
        assert_ne!(lab.pid(), pid);
        assert!(lab.leases().contains(&(Some(MACS[3].into()), "10.9.0.13".into())), "the lease of another is kept");
    });
}

#[test]
fn a_changed_entry_leaves_its_old_address_free() {
    lab(|lab| {
        lab.start();
        // No leases at all: what stands in the way is only what dnsmasq remembers of the files.
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let pid = lab.pid();
        lab.host("web", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.11"));
        lab.host("web", MACS[1], [10, 9, 0, 12]);
        let db = lab.host("db", MACS[2], [10, 9, 0, 13]);
        lab.remove("db");
        let other =
            HostEntry { port: port("other"), hostname: "other".into(), mac: MACS[3].parse().expect("mac"), ..db };
        lab.put(&other);
        assert_eq!(lab.client(MACS[3]).address().as_deref(), Some("10.9.0.13"));
        assert_eq!(lab.pid(), pid, "a signal was enough");
    });
}

#[test]
fn a_hundred_hosts_come_at_once() {
    lab(|lab| {
        lab.start();
        let pid = lab.pid();
        let dnsmasq = &lab.dnsmasq;
        let entries: Vec<HostEntry> = (0..100)
            .map(|n| entry(&format!("web-{n}"), &Mac([0xfa, 0x16, 0x3e, 0, 1, n]).to_string(), [10, 9, 0, 100 + n]))
            .collect();
        let everywhere = |deed: &(dyn Fn(&HostEntry) + Sync)| {
            let begin = Instant::now();
            thread::scope(|scope| {
                for part in entries.chunks(10) {
                    scope.spawn(move || part.iter().for_each(deed));
                }
            });
            begin.elapsed()
        };
        let took = everywhere(&|entry| dnsmasq.ensure_host(entry).expect("host entry"));
        assert!(took < Duration::from_secs(2), "took {took:?}");
        lab.assert_settled(&entries.iter().collect::<Vec<_>>());
        assert_eq!(lab.pid(), pid, "no restart");
        lab.assert_no_complaint();
        let last = lab.client(&entries[99].mac.to_string());
        assert_eq!(last.address().as_deref(), Some("10.9.0.199"));
        let took = everywhere(&|entry| dnsmasq.remove_host(&entry.port).expect("removed"));
        assert!(took < Duration::from_secs(2), "took {took:?}");
        dnsmasq.reload("private").expect("reloaded");
        lab.assert_settled(&[]);
        assert_eq!(lab.pid(), pid, "no restart");
        assert_eq!(last.address(), None);
    });
}
