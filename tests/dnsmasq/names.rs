//! What the DNS of a network knows.

use std::collections::BTreeMap;

use novella::blueprint::dhcp::{Assignment, Record, RecordData};
use novella::blueprint::object::{Dhcp, DhcpRange, HostEntry, PortAddress};

use crate::lab::{Lab, entry, lab, range};
use crate::wire::reverse;

const MACS: [&str; 3] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03"];

fn with_ipv6(mut entry: HostEntry, address: &str, domain: &str) -> HostEntry {
    entry.addresses.push(PortAddress {
        address: address.parse().expect("address"),
        assignment: Assignment::Static,
        domain: domain.into(),
    });
    entry
}

#[test]
fn a_port_has_its_names_before_it_has_a_lease_and_no_longer_than_itself() {
    lab(|lab| {
        let mut dhcp = lab.dhcp();
        let six = DhcpRange { assignment: Assignment::Static, ..range("six", "fd00:9::/64", None) };
        dhcp.ranges.push(six);
        lab.serve(&dhcp);
        let other = lab.host("other", MACS[2], [10, 9, 0, 13]);
        let guest = lab.client(MACS[2]);
        guest.address().expect("lease");

        let web = with_ipv6(entry("web", MACS[0], [10, 9, 0, 11]), "fd00:9::11", "lab.example");
        lab.put(&web);
        let knows = |name: &str, v4: &str, v6: &str| {
            for ask in
                [&|kind: &str, name: &str| lab.lookup(kind, name), &|kind: &str, name: &str| guest.lookup(kind, name)]
                    as [&dyn Fn(&str, &str) -> Vec<String>; 2]
            {
                assert_eq!(ask("A", name), [format!("A {v4}")]);
                assert_eq!(ask("AAAA", name), [format!("AAAA {v6}")]);
                assert_eq!(ask("PTR", &reverse(v4)), [format!("PTR {name}")]);
                assert_eq!(ask("PTR", &reverse(v6)), [format!("PTR {name}")]);
            }
        };
        knows("web.lab.example", "10.9.0.11", "fd00:9::11");
        lab.assert_settled_as(&dhcp, &[&other, &web]);

        // With a lease under its old name and address.
        let mut client = lab.client(MACS[0]);
        assert_eq!(client.address().as_deref(), Some("10.9.0.11"));
        knows("web.lab.example", "10.9.0.11", "fd00:9::11");
        let moved = with_ipv6(entry("web", MACS[0], [10, 9, 0, 21]), "fd00:9::21", "lab.example");
        lab.replace(&["web"], &[&moved]);
        knows("web.lab.example", "10.9.0.21", "fd00:9::21");
        for old in ["10.9.0.11", "fd00:9::11"] {
            assert_eq!(lab.lookup("PTR", &reverse(old)), ["NXDOMAIN"], "{old}");
        }

        // A new name in place, again with a lease.
        assert_eq!(client.address().as_deref(), Some("10.9.0.21"));
        let renamed = HostEntry { hostname: "shop".into(), ..moved };
        lab.put(&renamed);
        knows("shop.lab.example", "10.9.0.21", "fd00:9::21");
        assert_eq!(lab.lookup("A", "web.lab.example"), ["NXDOMAIN"]);
        lab.assert_settled_as(&dhcp, &[&other, &renamed]);
        client = lab.client(MACS[0]);
        assert_eq!(client.dhcp(2, "").expect("lease")["hostname"], "shop");
        knows("shop.lab.example", "10.9.0.21", "fd00:9::21");

        lab.remove("web");
        for kind in ["A", "AAAA"] {
            assert_eq!(lab.lookup(kind, "shop.lab.example"), ["NXDOMAIN"]);
        }
        for old in ["10.9.0.21", "fd00:9::21"] {
            assert_eq!(lab.lookup("PTR", &reverse(old)), ["NXDOMAIN"], "{old}");
        }
        lab.assert_settled_as(&dhcp, &[&other]);
    });
}

#[test]
fn an_address_has_its_name_in_the_domain_of_its_subnet() {
    lab(|lab| {
        let mut dhcp = lab.dhcp();
        dhcp.ranges[1].domain = Some("two.example".into());
        lab.serve(&dhcp);
        let mut web = entry("web", MACS[0], [10, 9, 1, 11]);
        web.addresses[0].domain = "two.example".into();
        lab.put(&web);
        let db = lab.host("db", MACS[1], [10, 9, 0, 12]);
        let told = lab.client(MACS[0]).dhcp(2, "").expect("lease");
        assert_eq!((told["ip"].as_str(), told["domain"].as_str()), ("10.9.1.11", "two.example"));
        let told = lab.client(MACS[1]).dhcp(2, "").expect("lease");
        assert_eq!((told["ip"].as_str(), told["domain"].as_str()), ("10.9.0.12", "lab.example"));
        assert_eq!(lab.lookup("A", "web.two.example"), ["A 10.9.1.11"]);
        assert_eq!(lab.lookup("A", "web.lab.example"), ["NXDOMAIN"]);
        assert_eq!(lab.lookup("A", "db.two.example"), ["NXDOMAIN"]);
        assert_eq!(lab.lookup("PTR", &reverse("10.9.1.11")), ["PTR web.two.example"]);
        lab.assert_settled_as(&dhcp, &[&web, &db]);
    });
}

/// A network with these records.
fn with_records(lab: &Lab, records: &[(&str, RecordData)]) -> Dhcp {
    let record = |(name, data): &(&str, RecordData)| Record { name: (*name).into(), data: data.clone() };
    let table = |(n, it): (usize, &(&str, RecordData))| (format!("r{n}").parse().expect("name"), vec![record(it)]);
    Dhcp { records: records.iter().enumerate().map(table).collect::<BTreeMap<_, _>>(), ..lab.dhcp() }
}

#[test]
fn records_are_answered_as_they_are_written() {
    lab(|lab| {
        let text = |text: &str| RecordData::Txt(text.into());
        let long = "x".repeat(255);
        let texts = ["a,b", "say \"no\"", "back\\slash", "v=spf1 -all", " a  b ", "#1; $x `y`", "1", long.as_str()];
        let mut records = vec![
            ("a.lab.example", RecordData::Address([10, 9, 0, 30].into())),
            ("a.lab.example", RecordData::Address([10, 9, 0, 31].into())),
            ("a.lab.example", RecordData::Address("fd00:9::30".parse().expect("address"))),
            ("www.lab.example", RecordData::Cname("web.lab.example".into())),
            ("www.lab.example", RecordData::Cname("web.lab.example".into())),
            ("alias.lab.example", RecordData::Cname("a.lab.example".into())),
            (
                "_http._tcp.lab.example",
                RecordData::Srv { priority: 1, weight: 20, port: 8080, target: "web.lab.example".into() },
            ),
            (
                "_http._tcp.lab.example",
                RecordData::Srv { priority: 2, weight: 0, port: 80, target: "elsewhere.example".into() },
            ),
        ];
        let names: Vec<String> = (0..texts.len()).map(|n| format!("t{n}.lab.example")).collect();
        records.extend(names.iter().map(String::as_str).zip(texts.map(text)));
        let dhcp = with_records(lab, &records);
        lab.serve(&dhcp);
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        guest.address().expect("lease");

        assert_eq!(guest.lookup("A", "a.lab.example"), ["A 10.9.0.30", "A 10.9.0.31"]);
        assert_eq!(guest.lookup("AAAA", "a.lab.example"), ["AAAA fd00:9::30"]);
        assert_eq!(guest.lookup("PTR", &reverse("10.9.0.30")), ["PTR a.lab.example"]);
        assert_eq!(guest.lookup("A", "www.lab.example"), ["A 10.9.0.11", "CNAME web.lab.example"]);
        assert_eq!(guest.lookup("CNAME", "www.lab.example"), ["CNAME web.lab.example"]);
        assert_eq!(guest.lookup("A", "alias.lab.example"), ["A 10.9.0.30", "A 10.9.0.31", "CNAME a.lab.example"]);
        let services = ["SRV 1 20 8080 web.lab.example", "SRV 2 0 80 elsewhere.example"];
        assert_eq!(guest.lookup("SRV", "_http._tcp.lab.example"), services);
        for (name, text) in names.iter().zip(texts) {
            assert_eq!(guest.lookup("TXT", name), [format!("TXT {text}")]);
        }
        assert_eq!(guest.lookup("TXT", "web.lab.example"), [""; 0], "a name without such a record is still a name");
        lab.assert_settled_as(&dhcp, &[&web]);

        // The alias goes with the address of its port.
        lab.replace(&["web"], &[&entry("web", MACS[0], [10, 9, 0, 41])]);
        assert_eq!(lab.lookup("A", "www.lab.example"), ["A 10.9.0.41", "CNAME web.lab.example"]);

        // Records are on the command line: changed ones take a restart, and are in force after it.
        let pid = lab.pid();
        let dhcp = with_records(lab, &[("a.lab.example", RecordData::Address([10, 9, 0, 32].into()))]);
        lab.serve(&dhcp);
        assert_ne!(lab.pid(), pid);
        assert_eq!(lab.lookup("A", "a.lab.example"), ["A 10.9.0.32"]);
        assert_eq!(lab.lookup("A", "www.lab.example"), ["NXDOMAIN"]);
        assert_eq!(lab.leases().len(), 0, "the address was taken away, and its lease");
    });
}
