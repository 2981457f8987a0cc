//! What guests are told, and what they are not.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::lab::{chain, entry, ip, lab, skip};

const MACS: [&str; 4] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03", "fa:16:3e:00:00:04"];

#[test]
fn a_guest_is_told_exactly_what_was_planned() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let db = lab.host("db", MACS[1], [10, 9, 1, 12]);
        lab.assert_settled(&[&web, &db]);

        let guest = lab.client(MACS[0]);
        let told = guest.dhcp(2, "").expect("lease");
        for (option, value) in [
            ("ip", "10.9.0.11"),
            ("subnet", "255.255.255.0"),
            ("router", "10.9.0.1"),
            ("dns", "10.9.0.1"),
            ("mtu", "1400"),
            ("domain", "lab.example"),
            ("hostname", "web"),
            ("lease", "3600"),
        ] {
            assert_eq!(told.get(option).map(String::as_str), Some(value), "{option}");
        }

        // The other subnet has no router, and DNS servers of its own.
        let other = lab.client(MACS[1]);
        let told = other.dhcp(2, "").expect("lease");
        assert_eq!(told["ip"], "10.9.1.12");
        assert_eq!(told.get("router"), None);
        assert_eq!(told["dns"], "192.0.2.1 192.0.2.2");

        assert_eq!(lab.client(MACS[2]).dhcp(2, ""), None, "a stranger gets nothing");

        let leases = lab.dnsmasq.leases("private").expect("leases");
        let mut seen: Vec<_> =
            leases.iter().map(|it| (it.client.mac().expect("a MAC").to_string(), it.address.to_string())).collect();
        seen.sort();
        assert_eq!(seen, [(MACS[0].into(), "10.9.0.11".into()), (MACS[1].into(), "10.9.1.12".into())]);
        assert!(leases.iter().all(|it| it.expires > 1_700_000_000 && it.hostname.is_some()));

        for name in ["db", "db.lab.example"] {
            assert!(guest.resolve(name).contains("10.9.1.12"), "{name} resolves: {}", guest.resolve(name));
        }
        assert!(guest.resolve("nobody.lab.example").contains("NXDOMAIN"), "our own domain is not asked elsewhere");
        assert!(!lab.log().contains(MACS[2]), "a stranger cannot make the log grow");
        lab.assert_settled(&[&web, &db]);
    });
}

#[test]
fn a_guest_resolves_names_of_the_world_through_the_host() {
    lab(|lab| {
        let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let server = resolv.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<Ipv4Addr>().ok());
        let Some(server) = server else {
            return skip("this host has no IPv4 name server");
        };
        // The host's name server, as this network has it.
        if !server.is_loopback() {
            ip(&format!("addr add {server}/32 dev lo"));
        }
        let status = Command::new("/usr/sbin/dnsmasq")
            .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .args([&format!("--listen-address={server}"), "--address=/world.example/192.0.2.7"])
            .arg(format!("--pid-file={}", lab.dir.path().join("world").display()))
            .status();
        assert!(status.expect("dnsmasq").success());
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        guest.address().expect("lease");
        let said = guest.resolve("world.example");
        assert!(said.contains("192.0.2.7"), "{said}");
    });
}

#[test]
fn names_that_mean_something_to_dnsmasq_are_just_names() {
    lab(|lab| {
        lab.start();
        for (n, name) in ["ignore", "infinite", "h1"].into_iter().enumerate() {
            lab.host(name, MACS[n], [10, 9, 0, 20 + n as u8]);
            let told = lab.client(MACS[n]).dhcp(2, "").expect(name);
            assert_eq!((told["ip"].as_str(), told["hostname"].as_str()), (&*format!("10.9.0.{}", 20 + n), name));
            assert_eq!(told["lease"], "3600", "{name}");
        }
        let mut odd = entry("odd", MACS[3], [10, 9, 0, 30]);
        odd.hostname = "1h".into();
        lab.put(&odd);
        let told = lab.client(MACS[3]).dhcp(2, "").expect("lease");
        assert_eq!((told["hostname"].as_str(), told["lease"].as_str()), ("1h", "3600"));

        for bad in ["", "a,b", "a\nfa:16:3e:00:00:09,10.9.0.99,x", "-a", "a.b", "A", "a#", "ä"] {
            odd.hostname = bad.into();
            let error = lab.dnsmasq.ensure_host(&odd).expect_err("refused");
            assert!(chain(&error).contains("is not a host name"), "{}", chain(&error));
        }
        for bad in ["../../x", "/etc/passwd", "", ".", ".."] {
            lab.dnsmasq.reload(bad).expect_err("refused");
            lab.dnsmasq.remove_server(bad).expect_err("refused");
            lab.dnsmasq.leases(bad).expect_err("refused");
        }
    });
}

#[test]
fn guests_with_one_client_id_keep_their_own_addresses() {
    lab(|lab| {
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        lab.host("db", MACS[1], [10, 9, 0, 12]);
        let (web, db) = (lab.client(MACS[0]), lab.client(MACS[1]));
        for _ in 0..2 {
            assert_eq!(web.dhcp(2, "-C -x 61:ff000102").expect("lease")["ip"], "10.9.0.11");
            assert_eq!(db.dhcp(2, "-C -x 61:ff000102").expect("lease")["ip"], "10.9.0.12");
        }
        assert_eq!(lab.dnsmasq.leases("private").expect("leases").len(), 2);
    });
}
