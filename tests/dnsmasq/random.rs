//! Whatever can be written, dnsmasq takes as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use ipnet::IpNet;
use novella::blueprint::dhcp::{Assignment, DhcpOption, IpVersion, OptionValue, Record, RecordData, Route};
use novella::blueprint::object::{Dhcp, DhcpRange, HostEntry, Object, PortAddress, VirtType};
use novella::blueprint::{self, HostFacts};
use novella::plan::world::Recorded;
use novella::value::Mac;
use novella::{desired, diagnostic, spec};

use crate::lab::{Lab, entry, lab, range};

/// Chance, the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % sides
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len() as u32) as usize].clone()
    }

    /// Up to so many of what is made.
    fn some<T>(&mut self, most: u32, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.roll(most + 1)).map(|_| make(self)).collect()
    }

    fn label(&mut self) -> String {
        let letters: Vec<char> = "abcz09-".chars().collect();
        let length = self.one_of(&[1, 3, 9, 30, 61]);
        let middle: String = (0..length).map(|_| self.one_of(&letters)).collect();
        format!("a{middle}7")
    }

    fn domain(&mut self) -> String {
        (0..=self.roll(3)).map(|_| self.label()).collect::<Vec<_>>().join(".")
    }

    fn text(&mut self, most: u32) -> String {
        (0..=self.roll(most)).map(|_| char::from(b' ' + self.roll(95) as u8)).collect()
    }

    fn v4(&mut self) -> IpAddr {
        Ipv4Addr::new(10, self.roll(250) as u8, self.roll(256) as u8, self.roll(256) as u8).into()
    }

    fn v6(&mut self) -> IpAddr {
        Ipv6Addr::new(0xfd00, self.roll(9) as u16, 0, 0, 0, 0, self.roll(9) as u16, self.roll(65536) as u16).into()
    }

    fn routes(&mut self, most: u32) -> Vec<Route> {
        self.some(most, |dice| {
            let destination = IpNet::new(dice.v4(), dice.roll(33) as u8).expect("network").trunc();
            Route { destination, nexthop: dice.v4() }
        })
    }

    fn record(&mut self) -> Record {
        let data = match self.roll(5) {
            0 => RecordData::Address(self.v4()),
            1 => RecordData::Address(self.v6()),
            2 => RecordData::Cname(format!("target.{}", self.domain())),
            3 => RecordData::Srv {
                priority: self.roll(65536) as u16,
                weight: self.roll(65536) as u16,
                port: self.roll(65536) as u16,
                target: self.domain(),
            },
            _ => RecordData::Txt(self.text(254)),
        };
        Record { name: format!("{}.{}", self.one_of(&["_a._tcp", "x", "0"]), self.domain()), data }
    }

    fn range(&mut self, number: u8) -> DhcpRange {
        let v4 = self.roll(2) == 0;
        let assignment = if v4 {
            self.one_of(&[Assignment::Dhcp, Assignment::Static])
        } else {
            self.one_of(&[Assignment::Dhcp, Assignment::Static, Assignment::Slaac, Assignment::Stateless])
        };
        let cidr = match (v4, assignment) {
            (true, _) => format!("10.{number}.0.0/{}", 16 + self.roll(15)),
            (false, Assignment::Slaac | Assignment::Stateless) => format!("fd00:{number}::/64"),
            (false, _) => format!("fd00:{number}::/{}", 64 + self.roll(63)),
        };
        let address = |dice: &mut Self| if v4 { dice.v4() } else { dice.v6() };
        DhcpRange {
            assignment,
            router: self.some(1, address).pop(),
            dns: self.some(4, address),
            routes: if v4 { self.routes(9) } else { Vec::new() },
            domain: self.some(1, Self::domain).pop(),
            lease_seconds: self.one_of(&[120, 3600, 86_400, u32::MAX - 1]),
            ..range(&format!("s{number}"), &cidr, None)
        }
    }

    fn network(&mut self, lab: &Lab) -> Dhcp {
        let ranges = (1..=1 + self.roll(5)).map(|number| self.range(number as u8)).collect();
        let mut names = BTreeSet::new();
        // One name cannot stand for two others.
        let mut records = self.some(9, Self::record);
        records.retain(|it| !matches!(it.data, RecordData::Cname(_)) || names.insert(it.name.clone()));
        let table = |(n, it)| (format!("r{n}").parse().expect("name"), vec![it]);
        Dhcp {
            ranges,
            mtu: self.one_of(&[68, 1280, 1500, 65_535]),
            domain: self.domain(),
            records: records.into_iter().enumerate().map(table).collect::<BTreeMap<_, _>>(),
            ..lab.dhcp()
        }
    }
}

/// What dnsmasq says to a configuration.
fn check(lab: &Lab, dhcp: &Dhcp) {
    let arguments = lab.dnsmasq.arguments(dhcp);
    let checked = Command::new("/usr/sbin/dnsmasq").arg("--test").args(&arguments).output().expect("dnsmasq");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("syntax check OK"), "{said}\n{dhcp:#?}\n{arguments:#?}");
}

#[test]
fn any_network_is_a_configuration_that_dnsmasq_takes() {
    lab(|lab| {
        lab.start();
        let mut dice = Dice::new(1);
        (0..150).for_each(|_| check(lab, &dice.network(lab)));
    });
}

#[test]
fn any_network_is_served_and_seen_as_it_is() {
    lab(|lab| {
        let mut dice = Dice::new(2);
        for _ in 0..20 {
            let dhcp = dice.network(lab);
            lab.serve(&dhcp);
            lab.assert_settled_as(&dhcp, &[]);
            lab.assert_no_complaint();
        }
    });
}

/// Options of any kind, each once.
fn options(dice: &mut Dice) -> Vec<DhcpOption> {
    let mut options: Vec<DhcpOption> = Vec::new();
    for _ in 0..dice.roll(6) {
        let number = 151 + dice.roll(99);
        let (version, name, value) = match dice.roll(10) {
            0 => (IpVersion::V4, "ntp-server".into(), OptionValue::Addresses(vec![dice.v4(), dice.v4()])),
            1 => (IpVersion::V6, "sntp-server".into(), OptionValue::Addresses(vec![dice.v6(), dice.v6()])),
            2 => (IpVersion::V4, "bootfile-name".into(), OptionValue::Text(dice.text(253))),
            3 => (IpVersion::V6, "bootfile-url".into(), OptionValue::Text(dice.text(253))),
            4 => (IpVersion::V4, number.to_string(), OptionValue::Text(dice.text(253))),
            5 => (IpVersion::V6, number.to_string(), OptionValue::Text(dice.text(253))),
            6 => {
                let bytes: Vec<u8> = (0..2 + dice.roll(250)).map(|_| dice.roll(256) as u8).collect();
                (dice.one_of(&[IpVersion::V4, IpVersion::V6]), number.to_string(), OptionValue::Bytes(bytes))
            }
            7 => (IpVersion::V4, "mtu".into(), OptionValue::Number(dice.roll(65_536))),
            8 => (IpVersion::V4, "domain-search".into(), OptionValue::Domains(vec![dice.label(), dice.label()])),
            _ => {
                let mut routes = dice.routes(20);
                routes.push(Route { destination: "0.0.0.0/0".parse().expect("network"), nexthop: dice.v4() });
                (IpVersion::V4, "classless-static-route".into(), OptionValue::Routes(routes))
            }
        };
        if !options.iter().any(|it| it.version == version && it.name == name) {
            options.push(DhcpOption { version, name, value });
        }
    }
    options
}

#[test]
fn any_port_is_read_without_a_complaint_and_seen_as_it_is() {
    lab(|lab| {
        let mut dhcp = lab.dhcp();
        dhcp.ranges.truncate(1);
        dhcp.ranges.push(range("six", "fd00:9::/64", None));
        lab.serve(&dhcp);
        let mut dice = Dice::new(3);
        let mut make = |number: u8| -> HostEntry {
            let mac = Mac([0xfa, 0x16, dice.roll(256) as u8, dice.roll(256) as u8, dice.roll(256) as u8, number]);
            let mut port = entry(&format!("web-{number}"), &mac.to_string(), [10, 9, 0, number]);
            port.hostname = dice.label();
            port.options = options(&mut dice);
            let (assignment, domain) = (dice.one_of(&[Assignment::Dhcp, Assignment::Static]), dice.label());
            let address = format!("fd00:9::{number:x}").parse().expect("address");
            port.addresses.push(PortAddress { address, assignment, domain });
            port
        };
        let mut ports: Vec<HostEntry> = (10..250).map(&mut make).collect();
        ports.iter().for_each(|it| lab.dnsmasq.ensure_host(it).expect("host entry"));
        lab.assert_settled_as(&dhcp, &ports.iter().collect::<Vec<_>>());
        lab.assert_no_complaint();
        // Changed options are read when they are written, and once more upon the signal.
        for (port, number) in ports.iter_mut().zip(10..250).step_by(3) {
            port.options = make(number).options;
            lab.dnsmasq.ensure_host(port).expect("host entry");
        }
        lab.dnsmasq.reload("private").expect("reloaded");
        lab.assert_settled_as(&dhcp, &ports.iter().collect::<Vec<_>>());
        lab.assert_no_complaint();
        for port in ports.iter().step_by(20) {
            let client = lab.client(&port.mac.to_string());
            assert_eq!(client.address(), Some(port.addresses[0].address.to_string()), "{port:?}");
            client.unplug();
        }
    });
}

/// The objects of a spec, where it is one.
fn objects(text: &str) -> Option<Vec<Object>> {
    let loaded = spec::load::load_texts([("test.toml", text)]);
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let problems = [loaded.diagnostics, problems].concat();
    let desired = desired.filter(|_| !diagnostic::has_errors(&problems))?;
    let facts = HostFacts::unknown(VirtType::Qemu);
    Some(blueprint::lower(&desired, &Recorded::default(), &facts).expect("a blueprint").objects.into_values().collect())
}

/// Its networks, as if they were in the lab.
fn networks(objects: &[Object], lab: &Lab) -> Vec<Dhcp> {
    let there = |it: &Object| match it {
        Object::Dhcp(it) => Some(Dhcp { dir: lab.net(""), ..it.clone() }),
        _ => None,
    };
    objects.iter().filter_map(there).collect()
}

#[test]
fn the_examples_are_configurations_that_dnsmasq_takes() {
    lab(|lab| {
        lab.start();
        let mut checked = 0;
        for folder in ["examples/quickstart", "specs", "tests/golden/lifecycle", "tests/golden/address"] {
            for file in fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path()) {
                let text = fs::read_to_string(&file).unwrap_or_default();
                if file.extension().is_some_and(|it| it == "toml") {
                    let objects = objects(&text).unwrap_or_default();
                    networks(&objects, lab).iter().for_each(|it| check(lab, it));
                    checked += networks(&objects, lab).len();
                }
            }
        }
        assert!(checked > 0);
    });
}

#[test]
fn each_option_that_a_spec_may_name_is_one_that_dnsmasq_takes() {
    lab(|lab| {
        let mut ports = String::new();
        let mut known = 0;
        for (version, list) in [(4, "dhcp"), (6, "dhcp6")] {
            let help = Command::new("/usr/sbin/dnsmasq").args(["--help", list]).output().expect("dnsmasq");
            for line in String::from_utf8_lossy(&help.stdout).lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [number, name] = words[..] else { continue };
                for (n, name) in [number, name].into_iter().enumerate() {
                    let v4 =
                        ["10.9.0.1, 10.9.0.2", "10.9.0.0/16,10.9.0.1", "5", "a.example, b.example", "a \\\"b\\\", #c"];
                    let v6 = ["fd00::1, fd00::2", "5", "a.example, b.example", "a \\\"b\\\", #c"];
                    let port = |value: &str| {
                        format!(
                            "[port.p{version}-{number}-{n}]\nnetwork = \"private\"\nextra_dhcp_opts = [{{ name = \"{name}\", \
                             value = \"{value}\", ip_version = {version} }}]\n"
                        )
                    };
                    let values: &[&str] = if version == 4 { &v4 } else { &v6 };
                    let taken =
                        values.iter().map(|value| port(value)).find(|it| objects(&format!("{SPEC}{it}")).is_some());
                    known += usize::from(taken.is_some());
                    ports.push_str(&taken.unwrap_or_default());
                }
            }
        }
        assert!(known > 70, "{known} options are known");
        let objects = objects(&format!("{SPEC}{ports}")).expect("a spec");
        let dhcp = Dhcp { bridge: lab.dhcp().bridge, ..networks(&objects, lab)[0].clone() };
        lab.serve(&dhcp);
        let entries: Vec<&HostEntry> =
            objects.iter().filter_map(|it| if let Object::HostEntry(it) = it { Some(it) } else { None }).collect();
        assert_eq!(entries.len(), known);
        entries.iter().for_each(|it| lab.dnsmasq.ensure_host(it).expect("host entry"));
        lab.assert_settled_as(&dhcp, &entries);
        lab.assert_no_complaint();
    });
}

const SPEC: &str = r#"
novella = 1
[network.private]
[subnet.four]
network = "private"
cidr = "10.9.0.0/24"
[subnet.six]
network = "private"
cidr = "fd00:9::/64"
ipv6_mode = "dhcpv6-stateful"
"#;
