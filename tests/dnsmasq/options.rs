//! What guests are told beside their addresses, and how that is changed under them.

use std::net::{IpAddr, Ipv4Addr};

use novella::blueprint::dhcp::{DhcpOption, IpVersion, OptionValue, Record, RecordData, Route};
use novella::blueprint::object::{Dhcp, HostEntry};

use crate::lab::{Client, SERVER, chain, entry, lab};
use crate::wire::Told;

const MACS: [&str; 3] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fe:16:3e:00:00:01"];

const ROUTER: u8 = 3;
const DNS: u8 = 6;
const DOMAIN: u8 = 15;
const MTU: u8 = 26;
const LEASE: u8 = 51;
const ROUTES: u8 = 121;

pub fn option(name: &str, value: OptionValue) -> DhcpOption {
    DhcpOption { version: IpVersion::V4, name: name.into(), value }
}

pub fn text(text: &str) -> OptionValue {
    OptionValue::Text(text.into())
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

#[test]
fn options_of_a_port_are_told_to_it_alone() {
    lab(|lab| {
        lab.start();
        let mut web = entry("web", MACS[0], [10, 9, 0, 11]);
        web.options = vec![
            option("bootfile-name", text("pxelinux.0")),
            option("server-ip-address", OptionValue::Addresses(vec![address("10.9.0.200")])),
            option("tftp-server", text("10.9.0.201")),
            option("ntp-server", OptionValue::Addresses(vec![address("10.9.0.202"), address("10.9.0.203")])),
            option("224", OptionValue::Bytes(vec![1, 0, 0xff])),
            option("domain-search", OptionValue::Domains(vec!["a.example".into(), "b.example".into()])),
            option("mtu", OptionValue::Number(1300)),
            option("tcp-keepalive", OptionValue::Number(u32::MAX)),
        ];
        lab.put(&web);
        // Two that differ from it in one byte of the MAC, at its start and at its end.
        let others = [lab.host("db", MACS[1], [10, 9, 0, 12]), lab.host("mail", MACS[2], [10, 9, 0, 13])];
        lab.assert_settled(&[&web, &others[0], &others[1]]);
        let pid = lab.pid();

        let wanted = [MTU, 38, 42, 66, 67, 119, 224];
        let guest = lab.client(MACS[0]);
        let told = guest.ask(&wanted).expect("lease");
        assert_eq!((told.text(66), told.text(67)), (Some("10.9.0.201"), Some("pxelinux.0")));
        assert_eq!(told.next_server, Ipv4Addr::new(10, 9, 0, 200));
        assert_eq!(told.addresses(42), [Ipv4Addr::new(10, 9, 0, 202), Ipv4Addr::new(10, 9, 0, 203)]);
        assert_eq!(told.bytes(224), Some(&[1, 0, 0xff][..]));
        assert_eq!(told.bytes(119), Some(&b"\x01a\x07example\x00\x01b\xc0\x02"[..]));
        assert_eq!((told.number(MTU), told.bytes(38)), (Some(1300), Some(&[0xff; 4][..])));
        let clients = [lab.client(MACS[1]), lab.client(MACS[2])];
        let has_none = |client: &Client| {
            let told = client.ask(&wanted).expect("lease");
            assert!([38, 42, 66, 67, 119, 224].iter().all(|it| told.bytes(*it).is_none()), "{told:?}");
            assert_eq!((told.next_server, told.number(MTU)), (SERVER, Some(1400)));
        };
        clients.iter().for_each(has_none);

        // Changed, and dropped, each in force after one signal.
        web.options = vec![option("bootfile-name", text("second.0"))];
        lab.put(&web);
        let told = guest.ask(&wanted).expect("lease");
        assert_eq!((told.text(67), told.bytes(224), told.next_server), (Some("second.0"), None, SERVER));
        lab.assert_settled(&[&web, &others[0], &others[1]]);
        web.options.clear();
        lab.put(&web);
        has_none(&guest);
        clients.iter().for_each(has_none);

        // To another port, while the first is there; and none is left behind by a port that goes.
        let db = HostEntry { options: vec![option("224", text("db"))], ..others[0].clone() };
        lab.put(&db);
        assert_eq!(clients[0].ask(&wanted).expect("lease").text(224), Some("db"));
        has_none(&guest);
        lab.replace(&["db"], &[&others[0]]);
        has_none(&clients[0]);
        lab.assert_settled(&[&web, &others[0], &others[1]]);
        assert_eq!(lab.pid(), pid, "no restart");
        lab.assert_no_complaint();
    });
}

#[test]
fn text_is_told_letter_by_letter() {
    lab(|lab| {
        lab.start();
        let guest = lab.client(MACS[0]);
        let long = "y".repeat(250);
        for (n, said) in [
            "a, b,c",
            "#1 #2",
            "say \"no\"",
            "back\\slash \\n \\\\",
            " spaces  around ",
            "'quoted'",
            "\"",
            "\\",
            "#",
            ",",
            "1",
            "123",
            "5s",
            "-7",
            "0a:0b",
            "10.9.0.1",
            "10.0.0.0/8,10.9.0.1",
            "fd00::1",
            "option:router,1.2.3.4",
            "tag:x,3",
            "~!@$%^&*()[]{}|;<>?=+`_",
            long.as_str(),
        ]
        .into_iter()
        .enumerate()
        {
            let mut web = entry("web", MACS[0], [10, 9, 0, 11]);
            let names = [("bootfile-name", 67), ("224", 224), ("netbios-scope", 47)];
            web.options = names.map(|it| option(it.0, text(said))).to_vec();
            lab.put(&web);
            lab.assert_settled(&[&web]);
            for (name, number) in names {
                let told = guest.ask(&[number]).expect("lease");
                assert_eq!(told.text(number), Some(said), "{name}, text {n}");
            }
        }
        lab.assert_no_complaint();
    });
}

fn route(destination: &str, nexthop: &str) -> Route {
    Route { destination: destination.parse().expect("network"), nexthop: address(nexthop) }
}

#[test]
fn what_a_subnet_tells_is_changed_by_a_signal_or_a_restart_and_leases_stay() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let db = lab.host("db", MACS[1], [10, 9, 1, 12]);
        let (guest, other) = (lab.client(MACS[0]), lab.client(MACS[1]));
        let wanted = [ROUTER, DNS, DOMAIN, MTU, ROUTES];
        let ask = |client: &Client| client.ask(&wanted).expect("lease");
        let host = |last: u8| Ipv4Addr::new(10, 9, 0, last);
        let before = ask(&other);
        ask(&guest);
        let leases = lab.leases();
        let mut dhcp = lab.dhcp();
        let mut change = |restarts: bool, change: &dyn Fn(&mut Dhcp)| -> Told {
            let pid = lab.pid();
            change(&mut dhcp);
            lab.serve(&dhcp);
            lab.assert_settled_as(&dhcp, &[&web, &db]);
            assert_eq!(lab.pid() != pid, restarts, "restarts");
            let now = lab.leases();
            assert_eq!(now, leases, "leases are kept");
            let told = ask(&guest);
            assert_eq!(told.address, host(11));
            told
        };

        let told = change(false, &|it| it.ranges[0].router = Some(host(254).into()));
        assert_eq!((told.addresses(ROUTER), told.addresses(DNS)), (vec![host(254)], vec![SERVER]));
        let told = change(false, &|it| it.ranges[0].router = None);
        assert_eq!(told.bytes(ROUTER), None);
        let told = change(false, &|it| it.ranges[0].dns = vec![host(53).into(), host(54).into()]);
        assert_eq!(told.addresses(DNS), [host(53), host(54)]);
        let told = change(false, &|it| it.ranges[0].dns.clear());
        assert_eq!(told.addresses(DNS), [SERVER]);

        // Whoever heeds the routes does not heed the router, so it is among them.
        let told = change(false, &|it| {
            it.ranges[0].router = Some(host(1).into());
            it.ranges[0].routes = vec![route("10.77.0.0/16", "10.9.0.7"), route("10.78.1.128/25", "10.9.0.8")];
        });
        let routes = [16, 10, 77, 10, 9, 0, 7, 25, 10, 78, 1, 128, 10, 9, 0, 8, 0, 10, 9, 0, 1];
        assert_eq!((told.bytes(ROUTES), told.addresses(ROUTER)), (Some(&routes[..]), vec![host(1)]));
        let told = change(false, &|it| it.ranges[0].router = None);
        assert_eq!(told.bytes(ROUTES), Some(&routes[..routes.len() - 5]));
        let told = change(false, &|it| it.ranges[0].routes.clear());
        assert_eq!(told.bytes(ROUTES), None);

        let told = change(true, &|it| it.mtu = 1300);
        assert_eq!(told.number(MTU), Some(1300));
        let told = change(true, &|it| it.ranges[0].lease_seconds = 600);
        assert_eq!((told.number(LEASE), ask(&other).number(LEASE)), (Some(600), Some(3600)));
        let told = change(true, &|it| it.domain = "new.example".into());
        assert_eq!(told.text(DOMAIN), Some("new.example"));
        let told = change(true, &|it| it.ranges[0].domain = Some("one.example".into()));
        assert_eq!((told.text(DOMAIN), ask(&other).text(DOMAIN)), (Some("one.example"), Some("new.example")));
        let record = Record { name: "a.new.example".into(), data: RecordData::Address(host(99).into()) };
        change(true, &|it| drop(it.records.insert("a".parse().expect("name"), vec![record.clone()])));

        let after = ask(&other);
        assert_eq!((after.addresses(DNS), after.bytes(ROUTER)), (before.addresses(DNS), None));
        lab.assert_no_complaint();
    });
}

#[test]
fn what_dnsmasq_would_take_for_something_else_is_refused() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let refuse = |entry: &HostEntry| {
            let error = lab.dnsmasq.ensure_host(entry).expect_err("refused");
            assert!(chain(&error).contains("is not a"), "{}", chain(&error));
            assert!(!chain(&error).contains(['\n', '\0']), "{}", chain(&error));
        };
        let hostile = ["", "a\nb", "a\rb", "a\0b", "\t", "\u{1b}[2J", "\u{7f}", "ä", "\u{2028}"];
        let (label, long) = ("a".repeat(64), ["a".repeat(60).as_str(); 5].join("."));
        for bad in
            hostile.into_iter().chain([label.as_str(), long.as_str(), "a,b", "a b", "#a", "a\"", "A", "-a", "a."])
        {
            refuse(&HostEntry { hostname: bad.into(), ..web.clone() });
            if bad != long {
                let mut other = web.clone();
                other.addresses[0].domain = bad.into();
                refuse(&other);
            }
            let mut other = lab.dhcp();
            for (name, data) in [
                (bad, RecordData::Address([10, 9, 0, 9].into())),
                ("a.example", RecordData::Cname(bad.into())),
                ("a.example", RecordData::Srv { priority: 0, weight: 0, port: 1, target: bad.into() }),
            ] {
                let record = Record { name: name.into(), data };
                other.records = [("r".parse().expect("name"), vec![record])].into();
                // Upper case is no harm here.
                assert_eq!(lab.dnsmasq.ensure_server(&other).is_err(), !matches!(bad, "A" | "-a"), "{bad:?}");
            }
        }
        lab.start();
        let mut deep = web.clone();
        deep.hostname = "a".repeat(63);
        deep.addresses[0].domain = [label[1..].to_owned(), label[1..].to_owned(), label[1..].to_owned()].join(".");
        refuse(&deep);

        let with = |option: DhcpOption| HostEntry { options: vec![option], ..web.clone() };
        let long = "x".repeat(255);
        for bad in hostile.into_iter().chain([long.as_str()]) {
            refuse(&with(option("224", text(bad))));
            refuse(&with(option("224", OptionValue::Domains(vec![bad.into()]))));
            if bad != long {
                refuse(&with(option(bad, text("a"))));
            }
            let mut other = lab.dhcp();
            let record = Record { name: "a.example".into(), data: RecordData::Txt(bad.into()) };
            other.records = [("r".parse().expect("name"), vec![record])].into();
            assert_eq!(lab.dnsmasq.ensure_server(&other).is_err(), bad != long, "{bad:?}");
        }
        for bad in ["router,10.9.0.9", "tag:x", "option6:dns-server", "A"] {
            refuse(&with(option(bad, text("a"))));
        }
        let v6 = address("fd00::1");
        for value in [
            OptionValue::Addresses(Vec::new()),
            OptionValue::Addresses(vec![v6]),
            OptionValue::Addresses(vec![address("10.9.0.9"); 64]),
            OptionValue::Domains(Vec::new()),
            OptionValue::Domains(vec!["a,b".into()]),
            OptionValue::Routes(Vec::new()),
            OptionValue::Routes(vec![Route { destination: "fd00::/64".parse().expect("network"), nexthop: v6 }]),
            OptionValue::Routes(vec![route("10.0.0.0/24", "10.9.0.1"); 40]),
            OptionValue::Bytes(Vec::new()),
            OptionValue::Bytes(vec![1]),
            OptionValue::Bytes(vec![1; 256]),
        ] {
            refuse(&with(option("224", value)));
        }
        let mut other = lab.dhcp();
        other.ranges[0].dns = vec![v6];
        lab.dnsmasq.ensure_server(&other).expect_err("refused");
        other.ranges[0].dns = vec![address("10.9.0.9"); 64];
        lab.dnsmasq.ensure_server(&other).expect_err("refused");

        lab.start();
        lab.assert_settled(&[&web]);
        lab.assert_no_complaint();
    });
}
