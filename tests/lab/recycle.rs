//! Addresses that go from one guest to the next, and how dnsmasq is told of it.

use std::time::Instant;

use crate::kill::{Random, kill_after};
use crate::lab::{Lab, base, note, server};
use crate::read;

const WEB: &str = "10.20.0.2";
const V6: &str = r#"
[subnet.private-v6]
network = "private"
cidr = "fd00:20::/64"
ipv6_mode = "dhcpv6-stateful"
"#;
const NETWORK: &str = "/var/lib/novella/default/networks/private";

/// A server with a fixed address of each version, and more said of its port.
fn fixed(name: &str, host: u8, more: &str) -> String {
    format!(
        "\n[server.{name}]\nimage = \"tiny\"\nflavor = \"small\"\nshutdown_timeout = 5\n\
         ports = [{{ network = \"private\", fixed_ips = [\"10.20.0.{host}\", \"fd00:20::{host}\"]{more} }}]\n"
    )
}

/// Servers that are there, with all that dnsmasq knows of them, and do not run.
fn nodes(names: &[&str]) -> String {
    names.iter().map(|name| server(name, "power = \"off\"")).collect()
}

/// How often the dnsmasq of the network has read all its files anew, and its process.
fn reads(lab: &Lab) -> (usize, String) {
    let said = lab.sh(&format!("grep -c 'cleared cache' {NETWORK}/log; cat {NETWORK}/pid"));
    let (reads, pid) = said.split_once('\n').expect("two lines");
    (reads.parse().expect("a number"), pid.to_owned())
}

#[test]
fn the_next_guest_has_the_address_at_its_first_try() {
    let Some(lab) = Lab::with_guests("recycle") else { return };
    let spec = |servers: &str| lab.spec(&[&base(), V6, &server("web", "fixed_ip = \"10.20.0.2\""), servers].concat());
    spec(&fixed("old", 50, ""));
    lab.apply();
    let web = lab.boot_of(WEB);
    for address in ["10.20.0.50", "fd00:20::50"] {
        assert_eq!(lab.guest(address).0, "old");
    }
    let pid = reads(&lab).1;
    let step = |case: &str, servers: &str, name: &str, mac: &str| {
        spec(servers);
        let ping = lab.ping(WEB);
        lab.apply();
        lab.assert_settled(case);
        if !name.is_empty() {
            let begun = Instant::now();
            assert_eq!(lab.guest("10.20.0.50").0, name, "{case}");
            let (v4, begun) = (begun.elapsed(), Instant::now());
            assert_eq!(lab.guest("fd00:20::50").0, name, "{case}");
            note(format_args!("{case}: by IPv4 after {v4:?}, by IPv6 {:?} later", begun.elapsed()));
            let said = lab.said(name, "eth0 10");
            assert!(said.starts_with(&format!("eth0 10.20.0.50/24 mac {mac}")), "{case}: {said}");
            assert!(!lab.console(name).iter().any(|line| line.contains("no lease")), "{case}");
        }
        let (sent, lost) = ping.stop();
        note(format_args!("{case}: {lost} of {sent} packets to web lost"));
        assert!(lost <= 1, "{case}: {lost} of {sent} packets to web were lost");
        assert_eq!(lab.boot_of(WEB), web, "{case}: web was booted anew");
        let log = lab.sh(&format!("cat {NETWORK}/log"));
        assert!(!log.contains("no addresses available") && !log.contains("not using configured"), "{case}: {log}");
        assert_eq!(reads(&lab).1, pid, "{case}: dnsmasq was started anew");
    };
    let mac =
        |last: u8| (format!(", mac_address = \"02:00:00:00:00:{last:02x}\""), format!("02:00:00:00:00:{last:02x}"));
    step("another server", &fixed("new", 50, ""), "new", "fa:16:3e:");
    step("another MAC", &fixed("new", 50, &mac(1).0), "new", &mac(1).1);
    step("gone", "", "", "");
    step("the same name again", &fixed("new", 50, &mac(2).0), "new", &mac(2).1);
}

#[test]
fn dnsmasq_reads_its_files_once_an_apply() {
    let Some(lab) = Lab::without_guests("once") else { return };
    let fixed = |name: &str, address: u8| server(name, &format!("power = \"off\"\nfixed_ip = \"10.20.0.{address}\""));
    let before = [&*nodes(&["a", "b", "c"]), &fixed("web", 11), &fixed("db", 12)].concat();
    let after = [&*nodes(&["d", "e", "f"]), &fixed("web", 12), &fixed("db", 13)].concat();
    let more = [&*after, &nodes(&["g", "h", "i"])].concat();
    let kept = |port: &str| {
        let kept = server("kept", "power = \"off\"");
        kept.replace("networks = [\"private\"]", &format!("ports = [{{ network = \"private\"{port} }}]"))
    };
    let named = kept(", dns_name = \"other\"");
    let told = V6.replace("ipv6_mode", "dns = [\"2001:db8::1\"]\nipv6_mode");
    let mut last = None;
    for (case, spec, expected) in [
        ("at first", [V6, &before, &kept("")], 0),
        ("three less, two readdressed, three more", [V6, &after, &kept("")], 1),
        ("three more", [V6, &more, &kept("")], 0),
        ("three less", [V6, &after, &kept("")], 1),
        ("back, all at once", [V6, &before, &kept("")], 1),
        ("and again", [V6, &after, &kept("")], 1),
        ("a name", [V6, &after, &named], 1),
        ("DNS servers and a name", [&told, &after, &kept("")], 1),
        ("all of it", [V6, &before, &named], 1),
    ] {
        lab.spec(&[&*base(), &*spec.concat()].concat());
        let run = lab.apply();
        lab.assert_settled(case);
        let (now, pid) = reads(&lab);
        if let Some((before, its)) = last {
            assert_eq!(pid, its, "{case}: dnsmasq was started anew");
            assert_eq!(
                now - before,
                expected,
                "{case}: how often all was read\n{}",
                lab.sh(&format!("cat {NETWORK}/log"))
            );
        }
        note(format_args!("{case}: {:?}, {} steps", run.took, read::steps(&run.out).len()));
        last = Some((now, pid));
    }
}

#[test]
fn an_exchange_that_is_killed_is_finished_by_the_next() {
    const ROUNDS: u32 = 4;
    let Some(lab) = Lab::with_guests("kill-exchange") else { return };
    let mut random = Random::from_environment();
    let spec = |round: u32| {
        let (web, db) = if round.is_multiple_of(2) { (11, 12) } else { (12, 11) };
        let come_and_go = if round.is_multiple_of(2) { ["a", "b", "c"] } else { ["d", "e", "f"] };
        // Ports of their own change hands too.
        let owns = "\n[port.one]\nnetwork = \"back\"\n[port.two]\nnetwork = \"back\"\n";
        let (one, two) = if round.is_multiple_of(2) { ("one", "two") } else { ("two", "one") };
        let guest = |name, host, port| fixed(name, host, "").replace(" }]\n", &format!(" }}, \"{port}\"]\n"));
        let guests = [guest("web", web, one), guest("db", db, two)].concat();
        lab.spec(&[&*base(), V6, owns, &guests, &nodes(&come_and_go)].concat());
        [("web", web), ("db", db)]
    };
    // Guests that are still booting do not feel the power button.
    let servers = spec(0);
    lab.apply();
    for (_, host) in servers {
        lab.guest(&format!("10.20.0.{host}"));
    }
    spec(1);
    let mut time = lab.apply().took;
    note(format_args!("an apply takes {time:?}"));
    let mut killed = 0;
    for round in 0..ROUNDS {
        let servers = spec(round);
        match kill_after(&lab, "apply", random.moment(time, round, ROUNDS)) {
            None => killed += 1,
            Some(took) => time = time.min(took),
        }
        let finish = lab.apply();
        lab.assert_settled("after a kill");
        let begun = Instant::now();
        for (name, host) in servers {
            for address in [format!("10.20.0.{host}"), format!("fd00:20::{host}")] {
                assert_eq!(lab.guest(&address).0, name, "round {round}: who answers at {address}");
            }
            let addresses = [format!("10.20.0.{host}"), format!("fd00:20::{host}")];
            let fqdn = format!("{name}.novella.internal");
            assert_eq!(lab.resolve("", &fqdn, "10.20.0.1"), addresses, "round {round}");
            let told = lab.page(&addresses[0], &format!("/cgi-bin/resolve?{fqdn}"), 20).unwrap_or_default();
            assert!(addresses.iter().all(|address| told.contains(address.as_str())), "round {round}: {told}");
        }
        for (port, round_of) in [("one", 0), ("two", 1)] {
            let file = format!("/var/lib/novella/default/networks/back/hosts/port.{port}");
            let entry = lab.sh(&format!("cat {file}"));
            let words: Vec<&str> = entry.trim_end_matches('.').split(',').collect();
            let owner = servers[usize::try_from((round + round_of) % 2).expect("0 or 1")].0;
            assert_eq!((words[2], lab.guest(words[1]).0.as_str()), (owner, owner), "round {round}: {entry}");
        }
        note(format_args!("  the next took {:?}, and all answered {:?} later", finish.took, begun.elapsed()));
    }
    assert!(killed >= ROUNDS / 2, "only {killed} of {ROUNDS} were killed in time");
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}
