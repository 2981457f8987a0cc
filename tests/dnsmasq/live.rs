//! A network that is changed all the time under its guests.

use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use novella::blueprint::object::HostEntry;
use novella::value::Mac;

use crate::lab::{SERVER, entry, ip, kill_and_wait, lab, range, say};
use crate::options::{option, text};
use crate::random::Dice;
use crate::wire::{self, ACK};

const EDITS: u32 = 200;
/// An option that nobody else uses.
const OWN: u8 = 224;

/// The last byte of the address of a port.
fn last_of(entry: &HostEntry) -> u8 {
    match entry.addresses[0].address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

fn server_of(entry: &HostEntry) -> String {
    entry.port.to_string().trim_end_matches("/private").to_owned()
}

#[test]
fn guests_notice_nothing_of_two_hundred_edits_of_others() {
    lab(|lab| {
        lab.start();
        let still = lab.host("still", "fa:16:3e:00:00:01", [10, 9, 0, 250]);
        let mut renewing = lab.host("renewing", "fa:16:3e:00:00:02", [10, 9, 0, 251]);
        let (pinging, renewer) = (lab.client("fa:16:3e:00:00:01"), lab.client("fa:16:3e:00:00:02"));
        // Asks in the name of any.
        let lender = lab.client("fa:16:3e:00:00:03");
        assert_eq!(pinging.address().as_deref(), Some("10.9.0.250"));
        assert_eq!(renewer.address().as_deref(), Some("10.9.0.251"));
        let pid = lab.pid();
        let ping = pinging.within(|| {
            let mut ping = Command::new("/usr/bin/ping");
            ping.args(["-n", "-i", "0.02", "-W", "2", "10.9.0.1"]).stdout(Stdio::piped()).spawn().expect("ping")
        });

        let (over, told) = (AtomicBool::new(false), AtomicU32::new(0));
        let (mut others, mut dice): (Vec<HostEntry>, _) = (Vec::new(), Dice::new(7));
        let (took, renewals, lookups) = thread::scope(|scope| {
            let renewals = scope.spawn(|| {
                let (mac, mut times) = (renewer.mac, Vec::new());
                while !over.load(Ordering::SeqCst) {
                    let (at_least, begin) = (told.load(Ordering::SeqCst), Instant::now());
                    let answer = renewer.within(move || wire::renew(mac, [10, 9, 0, 251].into(), SERVER, &[OWN]));
                    times.push(begin.elapsed());
                    let answer = answer.expect("each renewal is answered");
                    assert_eq!((answer.kind, answer.address.octets()), (ACK, [10, 9, 0, 251]));
                    let said = answer.text(OWN).map_or(0, |it| it.parse().expect("number"));
                    assert!(said >= at_least, "told {said} after {at_least} was in force");
                }
                times
            });
            let lookups = scope.spawn(|| {
                let mut times = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    assert_eq!(wire::lookup(SERVER.into(), "A", "renewing.lab.example"), ["A 10.9.0.251"]);
                    times.push(begin.elapsed());
                    thread::sleep(Duration::from_millis(1));
                }
                times
            });
            let begin = Instant::now();
            for edit in 1..=EDITS {
                thread::sleep(Duration::from_millis(10));
                let which = if others.is_empty() { 0 } else { dice.roll(others.len() as u32) as usize };
                // Lowest first, so that each has been another's before, with a lease.
                let last = (10..).find(|it| others.iter().all(|other| last_of(other) != *it)).expect("free");
                match dice.roll(6) {
                    0 => {
                        renewing.options = vec![option("224", text(&edit.to_string()))];
                        lab.put(&renewing);
                        told.store(edit, Ordering::SeqCst);
                    }
                    1 if others.len() > 10 => lab.remove(&server_of(&others.swap_remove(which))),
                    2 if !others.is_empty() => {
                        others[which].options = vec![option("bootfile-name", text(&format!("boot-{edit}")))];
                        lab.put(&others[which]);
                    }
                    3 if !others.is_empty() => {
                        others[which].hostname = format!("renamed-{edit}");
                        lab.put(&others[which]);
                    }
                    4 if !others.is_empty() => {
                        others[which].addresses[0].address = [10, 9, 0, last].into();
                        lab.replace(&[&server_of(&others[which])], &[&others[which]]);
                        let mac = others[which].mac;
                        let given = lender.within(move || wire::lease(mac, &[])).expect("a lease at the first try");
                        assert_eq!(given.address.octets(), [10, 9, 0, last]);
                    }
                    _ => {
                        let mac = Mac([0xfa, 0x16, 0x3e, 0, 2, edit as u8]).to_string();
                        others.push(entry(&format!("other-{edit}"), &mac, [10, 9, 0, last]));
                        lab.dnsmasq.ensure_host(&others[others.len() - 1]).expect("host entry");
                    }
                }
            }
            let took = begin.elapsed();
            over.store(true, Ordering::SeqCst);
            (took, renewals.join().expect("renewals"), lookups.join().expect("lookups"))
        });
        kill(Pid::from_raw(ping.id() as i32), Signal::SIGINT).expect("signal");
        let said = ping.wait_with_output().expect("ping");
        let said = String::from_utf8_lossy(&said.stdout);
        let summary: Vec<&str> = said.lines().rev().take(2).collect();
        assert!(said.contains(" 0% packet loss"), "{summary:?}");
        assert_eq!(lab.pid(), pid, "no restart");
        let mut all: Vec<&HostEntry> = others.iter().collect();
        all.extend([&still, &renewing]);
        lab.assert_settled(&all);
        lab.assert_no_complaint();
        let worst = |times: &[Duration]| times.iter().max().copied().unwrap_or_default();
        say(&format!("measured: {EDITS} edits in {took:?}; {}; {}", summary[1], summary[0]));
        say(&format!(
            "measured: {} renewals, the slowest {:?}; {} names asked for, the slowest {:?}",
            renewals.len(),
            worst(&renewals),
            lookups.len(),
            worst(&lookups)
        ));
    });
}

#[test]
fn a_hundred_signals_do_no_harm() {
    lab(|lab| {
        lab.start();
        let mut web = entry("web", "fa:16:3e:00:00:01", [10, 9, 0, 11]);
        web.options = vec![option("224", text("mine")), option("bootfile-name", text("pxelinux.0"))];
        lab.put(&web);
        let mut db = entry("db", "fa:16:3e:00:00:02", [10, 9, 1, 12]);
        db.options = vec![option("224", text("its"))];
        lab.put(&db);
        let clients = [lab.client("fa:16:3e:00:00:01"), lab.client("fa:16:3e:00:00:02")];
        let pid = lab.pid();
        for n in 0..100 {
            kill(Pid::from_raw(pid), Signal::SIGHUP).expect("signal");
            if n % 10 == 0 {
                for (client, own) in clients.iter().zip(["mine", "its"]) {
                    assert_eq!(client.ask(&[OWN]).expect("lease").text(OWN), Some(own));
                }
            }
            web.options.reverse();
            lab.put(&web);
        }
        assert_eq!(lab.pid(), pid, "the process lives");
        assert_eq!(lab.leases().len(), 2);
        lab.assert_settled(&[&web, &db]);
    });
}

#[test]
fn one_more_host_is_soon_there_among_thousands() {
    lab(|lab| {
        ip("addr add 10.20.0.1/16 dev brq-test");
        let mut dhcp = lab.dhcp();
        dhcp.ranges.push(range("big", "10.20.0.0/16", None));
        let client = lab.client("fa:16:3e:00:00:01");
        let host = |number: u16| {
            let [high, low] = number.to_be_bytes();
            entry(&format!("host-{number}"), &Mac([0xfa, 0x16, 0x3e, 1, high, low]).to_string(), [10, 20, high, low])
        };
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let mut medians = Vec::new();
        for (hosts, times) in [(50_u16, 21), (1000, 11), (5000, 5)] {
            lab.serve(&dhcp);
            kill_and_wait(lab.pid());
            let begin = Instant::now();
            (10..10 + hosts).for_each(|number| lab.dnsmasq.ensure_host(&host(number)).expect("host entry"));
            let each = begin.elapsed() / u32::from(hosts);
            let lease = |it: HostEntry| format!("4102444800 {} {} {} *\n", it.mac, it.served()[0], it.hostname);
            let leases: String = (10..10 + hosts).map(|number| lease(host(number))).collect();
            std::fs::write(lab.net("leases"), leases).expect("leases");
            lab.serve(&dhcp);
            assert_eq!(lab.leases().len(), usize::from(hosts));
            let (mut alone, mut answered, mut gone) = (Vec::new(), Vec::new(), Vec::new());
            for number in 60_000..60_000 + times {
                let entry = host(number);
                lab.rest();
                let begin = Instant::now();
                lab.dnsmasq.ensure_host(&entry).expect("host entry");
                alone.push(begin.elapsed());
                let mac = entry.mac;
                let told = loop {
                    if let Some(told) = client.within(move || wire::lease(mac, &[])) {
                        break told;
                    }
                };
                answered.push(begin.elapsed());
                assert_eq!(entry.served(), [IpAddr::from(told.address)]);
                let begin = Instant::now();
                lab.dnsmasq.remove_host(&entry.port).expect("removed");
                lab.dnsmasq.reload("private").expect("reloaded");
                gone.push(begin.elapsed());
            }
            let these = [&mut alone, &mut answered, &mut gone].map(median);
            say(&format!(
                "measured: with {hosts} hosts and leases, one more takes {:?}, until it is answered {:?}; to remove it and \
                 reload {:?}; to write each of them {each:?}",
                these[0], these[1], these[2]
            ));
            medians.push(these);
            lab.dnsmasq.remove_server("private").expect("removed");
        }
        // dnsmasq itself compares each lease with each host whenever it reads a file.
        let [few, many, most] = medians[..] else { unreachable!() };
        assert!(most[0] < few[0] + Duration::from_millis(200), "{medians:?}");
        assert!(many[1] < few[1] + Duration::from_millis(500), "{medians:?}");
        assert!(most[1] < few[1] + Duration::from_secs(10), "{medians:?}");
    });
}
