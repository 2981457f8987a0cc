//! Who holds which address: what was planned beside what a DHCP server has really leased.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use crate::address::{Name, PortId};
use crate::blueprint::dhcp::{Assignment, IpVersion};
use crate::blueprint::object::{Dhcp, HostEntry, Object};
use crate::host::dhcp::{Client, Lease};
use crate::plan::world::Recorded;
use crate::report::table;
use crate::value::Mac;

/// An address of a port, or a lease of nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The port; none where no record knows who that is.
    pub port: Option<PortId>,
    /// The server that has the port.
    pub server: Option<Name>,
    /// The network.
    pub network: Name,
    /// The address that the port is to have.
    pub planned: Option<IpAddr>,
    /// The address that the lease is of.
    pub leased: Option<IpAddr>,
    /// Who has the lease: the MAC address, with DHCPv6 that of any of its interfaces, or the DUID where it tells none.
    pub client: Option<String>,
    /// What the client calls itself.
    pub hostname: Option<String>,
    /// When it last asked, in seconds since 1970. The lease file has only the end of a lease, so this is the end less the
    /// lease time of the subnet. It is wrong of a guest that asked for a shorter lease, and of one that has not asked again
    /// since `lease_time` was changed; where it would lie ahead, there is none.
    pub renewed: Option<u64>,
    /// When the lease ends, in seconds since 1970; none stands for never.
    pub expires: Option<u64>,
    /// What came of the plan.
    pub state: State,
}

/// How a lease compares with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// The port has its address.
    #[serde(rename = "as planned")]
    AsPlanned,
    /// The port has not asked for it yet.
    #[serde(rename = "no lease")]
    NoLease,
    /// The port has a lease of another address.
    #[serde(rename = "other address")]
    OtherAddress,
    /// The address is leased to somebody else.
    #[serde(rename = "taken")]
    Taken,
    /// A lease of nobody that the records know.
    #[serde(rename = "unknown")]
    Unknown,
    /// The port had it, and did not ask again in time.
    #[serde(rename = "expired")]
    Expired,
    /// The port makes it from its MAC: there is nothing to lease.
    #[serde(rename = "slaac")]
    Slaac,
    /// DHCP does not hand it out: the guest sets it up itself.
    #[serde(rename = "static")]
    Static,
}

impl State {
    /// The words for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AsPlanned => "as planned",
            Self::NoLease => "no lease",
            Self::OtherAddress => "other address",
            Self::Taken => "taken",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Slaac => "slaac",
            Self::Static => "static",
        }
    }
}

/// Compares the leases of each network with the records, at this time in seconds since 1970.
pub fn compare(recorded: &Recorded, leases: &BTreeMap<Name, Vec<Lease>>, now: u64) -> Vec<Row> {
    let mut networks: BTreeMap<&Name, Network> =
        leases.iter().map(|(name, leases)| (name, Network { leases, ..Network::default() })).collect();
    let mut machines = Machines::default();
    for record in recorded.records.values() {
        match &record.object {
            Object::Dhcp(dhcp) => networks.entry(&dhcp.network).or_default().dhcp = Some(dhcp),
            Object::HostEntry(entry) => networks.entry(&entry.network).or_default().entries.push(entry),
            Object::Domain(domain) => {
                machines.0.extend(domain.nics.iter().map(|nic| (nic.id(&domain.server), &domain.server)));
            }
            _ => {}
        }
    }
    let entries = networks.values().flat_map(|network| &network.entries);
    let of_mac = entries.filter_map(|entry| Some((entry.mac, machines.of(&entry.port)?))).collect();
    networks.iter().flat_map(|(name, network)| network.rows(name, &machines, &of_mac, now)).collect()
}

/// The servers that have ports of their own.
#[derive(Default)]
struct Machines<'a>(HashMap<PortId, &'a Name>);

impl<'a> Machines<'a> {
    fn of(&self, port: &'a PortId) -> Option<&'a Name> {
        match port {
            PortId::Inline { server, .. } => Some(server),
            PortId::Own(_) => self.0.get(port).copied(),
        }
    }
}

/// What is known of one network.
#[derive(Default)]
struct Network<'a> {
    dhcp: Option<&'a Dhcp>,
    entries: Vec<&'a HostEntry>,
    leases: &'a [Lease],
}

impl<'a> Network<'a> {
    fn rows(&self, name: &Name, machines: &Machines<'a>, of_mac: &HashMap<Mac, &Name>, now: u64) -> Vec<Row> {
        let served: Vec<Vec<IpAddr>> = self.entries.iter().map(|entry| entry.served()).collect();
        let owners = self.owners(&served, machines, of_mac);
        let by_address: HashMap<IpAddr, (&Lease, Option<usize>)> =
            self.leases.iter().zip(&owners).map(|(lease, owner)| (lease.address, (lease, *owner))).collect();
        // What each port holds and should not.
        let mut strays: Vec<Vec<&Lease>> = vec![Vec::new(); self.entries.len()];
        let mut of_nobody: Vec<&Lease> = Vec::new();
        let planned = |address| served.iter().any(|all| all.contains(address));
        for (lease, owner) in self.leases.iter().zip(&owners).filter(|(lease, _)| is_live(lease, now)) {
            match owner.and_then(|index| Some((served.get(index)?, strays.get_mut(index)?))) {
                Some((served, strays)) if !served.contains(&lease.address) => strays.push(lease),
                Some(_) => {}
                // One of a planned address is told of where that is.
                None if !planned(&lease.address) => of_nobody.push(lease),
                None => {}
            }
        }
        let row = |entry: Option<&'a HostEntry>, planned, lease, state| Row {
            server: entry.and_then(|entry| machines.of(&entry.port)).cloned(),
            ..self.row(name, entry, planned, lease, state, now)
        };
        let mut rows = Vec::new();
        for (index, ((entry, served), mut strays)) in self.entries.iter().zip(&served).zip(strays).enumerate() {
            for its in &entry.addresses {
                let address = its.address;
                let (state, lease) = if its.assignment.is_by_mac() {
                    (State::Slaac, None)
                } else if its.assignment == Assignment::Static || !served.contains(&address) {
                    (State::Static, None)
                } else {
                    match by_address.get(&address) {
                        Some((lease, Some(owner))) if *owner == index && is_live(lease, now) => {
                            (State::AsPlanned, Some(*lease))
                        }
                        Some((lease, owner)) if *owner != Some(index) && is_live(lease, now) => {
                            (State::Taken, Some(*lease))
                        }
                        at => {
                            let same = |lease: &&Lease| IpVersion::of(lease.address) == IpVersion::of(address);
                            match (strays.iter().position(same), at) {
                                (Some(stray), _) => (State::OtherAddress, Some(strays.remove(stray))),
                                (None, Some((lease, Some(owner)))) if *owner == index => (State::Expired, Some(*lease)),
                                (None, _) => (State::NoLease, None),
                            }
                        }
                    }
                };
                rows.push(row(Some(entry), Some(address), lease, state));
            }
            for stray in strays {
                rows.push(row(Some(entry), None, Some(stray), State::OtherAddress));
            }
        }
        rows.extend(of_nobody.into_iter().map(|lease| row(None, None, Some(lease), State::Unknown)));
        rows
    }

    /// Which of the ports has each lease. With DHCPv4, the one with its MAC.
    ///
    /// With DHCPv6, a guest has one DUID for all its interfaces (RFC 8415, 11), so that the MAC in it tells the server and
    /// no more; dnsmasq goes by the MAC of the frame, and does not write it down. So it is the port that the address is meant
    /// for, if nothing speaks against that; else the one with the MAC, one of the same server, or the one with the name.
    fn owners(
        &self,
        served: &[Vec<IpAddr>],
        machines: &Machines<'a>,
        of_mac: &HashMap<Mac, &Name>,
    ) -> Vec<Option<usize>> {
        let numbered = || self.entries.iter().enumerate();
        let by_mac: HashMap<Mac, usize> = numbered().map(|(index, it)| (it.mac, index)).collect();
        let by_name: HashMap<&str, usize> = numbered().map(|(index, it)| (it.hostname.as_str(), index)).collect();
        let by_server: HashMap<&Name, usize> =
            numbered().filter_map(|(index, it)| Some((machines.of(&it.port)?, index))).collect();
        let by_address: HashMap<IpAddr, usize> =
            served.iter().enumerate().flat_map(|(index, all)| all.iter().map(move |it| (*it, index))).collect();
        let owner = |lease: &Lease| {
            let (mac, name) = (lease.client.mac(), lease.hostname.as_deref());
            if let Client::Mac(mac) = lease.client {
                return by_mac.get(&mac).copied();
            }
            let server = mac.and_then(|mac| of_mac.get(&mac).copied());
            let fits = |index: &usize| {
                self.entries.get(*index).is_some_and(|entry| {
                    mac == Some(entry.mac)
                        || server.is_some() && server == machines.of(&entry.port)
                        || name.map_or(mac.is_none(), |name| name == entry.hostname)
                })
            };
            let meant = by_address.get(&lease.address).copied().filter(fits);
            let by_mac = || by_mac.get(&mac?).copied();
            let by_server = || by_server.get(server?).copied();
            meant.or_else(by_mac).or_else(by_server).or_else(|| by_name.get(name?).copied())
        };
        self.leases.iter().map(owner).collect()
    }

    fn row(
        &self,
        network: &Name,
        entry: Option<&HostEntry>,
        planned: Option<IpAddr>,
        lease: Option<&Lease>,
        state: State,
        now: u64,
    ) -> Row {
        let expires = lease.map(|lease| lease.expires).filter(|expires| *expires != 0);
        let lasts = lease.and_then(|lease| {
            let ranges = self.dhcp.into_iter().flat_map(|dhcp| &dhcp.ranges);
            ranges.into_iter().find(|range| range.cidr.contains(&lease.address)).map(|range| range.lease_seconds)
        });
        let renewed = expires.zip(lasts).and_then(|(expires, lasts)| expires.checked_sub(lasts.into()));
        Row {
            port: entry.map(|entry| entry.port.clone()),
            server: None,
            network: network.clone(),
            planned,
            leased: lease.map(|lease| lease.address),
            client: lease.map(|lease| client(&lease.client)),
            hostname: lease.and_then(|lease| lease.hostname.clone()),
            renewed: renewed.filter(|renewed| *renewed <= now),
            expires,
            state,
        }
    }
}

fn is_live(lease: &Lease, now: u64) -> bool {
    lease.expires == 0 || lease.expires > now
}

fn client(client: &Client) -> String {
    match client {
        Client::Mac(mac) => mac.to_string(),
        Client::Duid { duid, .. } => client.mac().map_or_else(
            || duid.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
            |mac| mac.to_string(),
        ),
    }
}

/// The rows as a table, with times as they are seen at this one.
pub fn render(rows: &[Row], now: u64) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let line = |row: &Row| {
        let port = row.port.as_ref().map(|port| match (port, &row.server) {
            (PortId::Own(_), Some(server)) => format!("{} ({server})", port.address()),
            _ => port_label(port),
        });
        let who = match (&row.client, &row.hostname) {
            (Some(client), Some(name)) => format!("{client} ({name})"),
            (client, _) => client.clone().unwrap_or_default(),
        };
        let state = match row.state {
            State::Taken => format!("taken by {who}"),
            State::Unknown => format!("unknown: {who}"),
            other => other.as_str().into(),
        };
        let expires = match (row.leased, row.expires) {
            (None, _) => "-".into(),
            (Some(_), None) => "never".into(),
            (Some(_), Some(then)) => relative(then, now),
        };
        vec![
            or_none(port),
            row.network.to_string(),
            or_none(row.planned.map(|it| it.to_string())),
            or_none(row.leased.map(|it| it.to_string())),
            or_none(row.renewed.map(|then| relative(then, now))),
            expires,
            state,
        ]
    };
    let heading = ["PORT", "NETWORK", "PLANNED", "LEASED", "RENEWED", "EXPIRES", "STATE"];
    table::render(&heading, &rows.iter().map(line).collect::<Vec<_>>())
}

/// A port as people point at it: `web/private`, or the header of its table, `port.vip`.
pub fn port_label(port: &PortId) -> String {
    match port {
        PortId::Own(_) => port.address().to_string(),
        PortId::Inline { .. } => port.to_string(),
    }
}

/// How far a time is from now: `3m ago`, `in 23h`.
pub fn relative(then: u64, now: u64) -> String {
    let seconds = then.abs_diff(now);
    if seconds == 0 {
        return "now".into();
    }
    let span = crate::report::span(seconds);
    if then > now { format!("in {span}") } else { format!("{span} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::object::{DhcpRange, PortAddress};
    use crate::plan::world::Record;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn entry(port: &str, mac: u8, addresses: &[(&str, Assignment)]) -> HostEntry {
        let address = |(address, assignment): &(&str, Assignment)| PortAddress {
            address: address.parse().expect("an address"),
            assignment: *assignment,
            domain: "lab".into(),
        };
        let port: PortId = port.parse().expect("a port");
        HostEntry {
            hostname: port.address().name.to_string(),
            network: match &port {
                PortId::Inline { network, .. } => network.clone(),
                PortId::Own(_) => "net".parse().expect("a name"),
            },
            port,
            mac: Mac([2, 0, 0, 0, 0, mac]),
            addresses: addresses.iter().map(address).collect(),
            options: Vec::new(),
        }
    }

    fn dhcp() -> Dhcp {
        let range = |subnet: &str, cidr: &str, lease_seconds| DhcpRange {
            subnet: subnet.parse().expect("a name"),
            cidr: cidr.parse().expect("a network"),
            assignment: Assignment::Dhcp,
            router: None,
            dns: Vec::new(),
            routes: Vec::new(),
            domain: None,
            lease_seconds,
        };
        Dhcp {
            network: "net".parse().expect("a name"),
            bridge: "br0".into(),
            dir: "/networks/net".into(),
            ranges: vec![range("four", "10.0.0.0/24", 86_400), range("six", "fd00::/64", 3600)],
            mtu: 1500,
            domain: "lab".into(),
            records: BTreeMap::new(),
        }
    }

    /// The rows as short texts, of leases as dnsmasq writes them but for the time, which counts from now.
    fn rows(entries: Vec<HostEntry>, leases: &str) -> Vec<String> {
        let objects = entries.into_iter().map(Object::HostEntry).chain([Object::Dhcp(dhcp())]);
        let records = objects.map(|object| (object.key(), Record::present(object))).collect();
        let leases: Vec<Lease> = leases.lines().map(lease).collect();
        let leases = BTreeMap::from([("net".parse().expect("a name"), leases)]);
        let rows = compare(&Recorded { serial: 1, records }, &leases, NOW);
        let text = render(&rows, NOW);
        let mut lines: Vec<String> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.iter_mut().for_each(|line| *line = line.replace(" net ", " "));
        lines
    }

    /// `+86400 02:00:00:00:00:01 10.0.0.11 web`, or a DUID in place of the MAC.
    fn lease(line: &str) -> Lease {
        let words: Vec<&str> = line.split(' ').collect();
        let [left, who, address, name] = words[..] else { panic!("{line}") };
        let left: i64 = left.parse().expect("a number");
        let bytes = |text: &str| text.split(':').map(|it| u8::from_str_radix(it, 16).expect("hex")).collect();
        Lease {
            expires: NOW.checked_add_signed(left).expect("a time"),
            client: who.parse().map_or_else(|_| Client::Duid { duid: bytes(who), iaid: 1 }, Client::Mac),
            address: address.parse().expect("an address"),
            hostname: Some(name).filter(|name| *name != "*").map(str::to_owned),
        }
    }

    #[test]
    fn each_lease_is_compared_with_the_plan() {
        use Assignment::{Dhcp, Slaac, Static};
        let web = || entry("web/net", 1, &[("10.0.0.11", Dhcp)]);
        let db = || entry("db/net", 2, &[("10.0.0.12", Dhcp)]);
        let six = || entry("six/net", 3, &[("fd00::13", Dhcp)]);
        let cases: [(&str, Vec<HostEntry>, &str, &[&str]); 14] = [
            (
                "it has what it should",
                vec![web()],
                "+82800 02:00:00:00:00:01 10.0.0.11 web",
                &["web/net 10.0.0.11 10.0.0.11 1h ago in 23h as planned"],
            ),
            ("it has not asked", vec![web()], "", &["web/net 10.0.0.11 - - - no lease"]),
            (
                "it did not ask again",
                vec![web()],
                "-7200 02:00:00:00:00:01 10.0.0.11 web",
                &["web/net 10.0.0.11 10.0.0.11 1d ago 2h ago expired"],
            ),
            (
                "it holds another",
                vec![web()],
                "+60 02:00:00:00:00:01 10.0.0.99 web",
                &["web/net 10.0.0.11 10.0.0.99 23h ago in 1m other address"],
            ),
            (
                "it holds another too",
                vec![web()],
                "+86390 02:00:00:00:00:01 10.0.0.11 web\n+60 02:00:00:00:00:01 10.0.0.99 web",
                &[
                    "web/net 10.0.0.11 10.0.0.11 10s ago in 23h as planned",
                    "web/net - 10.0.0.99 23h ago in 1m other address",
                ],
            ),
            (
                "a stranger has it",
                vec![web()],
                "+86400 02:00:00:00:00:09 10.0.0.11 evil",
                &["web/net 10.0.0.11 10.0.0.11 now in 1d taken by 02:00:00:00:00:09 (evil)"],
            ),
            (
                "one has that of another",
                vec![db(), web()],
                "+60 02:00:00:00:00:02 10.0.0.11 db",
                &[
                    "db/net 10.0.0.12 10.0.0.11 23h ago in 1m other address",
                    "web/net 10.0.0.11 10.0.0.11 23h ago in 1m taken by 02:00:00:00:00:02 (db)",
                ],
            ),
            (
                "what a stranger had is free",
                vec![web()],
                "-1 02:00:00:00:00:09 10.0.0.11 *\n-1 02:00:00:00:00:09 10.0.0.98 *",
                &["web/net 10.0.0.11 - - - no lease"],
            ),
            (
                "nobody knows it",
                vec![web()],
                "+60 02:00:00:00:00:09 10.0.0.98 *",
                &["web/net 10.0.0.11 - - - no lease", "- - 10.0.0.98 23h ago in 1m unknown: 02:00:00:00:00:09"],
            ),
            (
                "DHCPv6 knows a guest by the MAC in its DUID, or by its name",
                vec![six(), entry("one/net", 4, &[("fd00::14", Dhcp)]), entry("two/net", 5, &[("fd00::15", Dhcp)])],
                "+3000 00:03:00:01:02:00:00:00:00:03 fd00::13 *\n+3000 00:04:aa fd00::14 one\n\
                 +3000 00:04:bb fd00::15 other\n+9999 00:04:cc fd00::99 one",
                &[
                    "one/net fd00::14 fd00::14 10m ago in 50m as planned",
                    "one/net - fd00::99 - in 2h other address",
                    "six/net fd00::13 fd00::13 10m ago in 50m as planned",
                    "two/net fd00::15 fd00::15 10m ago in 50m taken by 00:04:bb (other)",
                ],
            ),
            (
                "a guest has one DUID for all its interfaces",
                vec![entry("web/a", 1, &[]), entry("web/net", 2, &[("fd00::11", Dhcp)])],
                "+3000 00:03:00:01:02:00:00:00:00:01 fd00::11 *",
                &["web/net fd00::11 fd00::11 10m ago in 50m as planned"],
            ),
            (
                "a DUID may be that of a machine that was cloned",
                vec![entry("web/net", 2, &[("fd00::11", Dhcp)])],
                "+3000 00:03:00:01:02:00:00:00:00:09 fd00::11 web",
                &["web/net fd00::11 fd00::11 10m ago in 50m as planned"],
            ),
            (
                "what is not leased is none",
                vec![entry(
                    "vip",
                    6,
                    &[("10.0.0.16", Dhcp), ("10.0.0.17", Dhcp), ("10.1.0.9", Static), ("fd01::1", Slaac)],
                )],
                "+86400 02:00:00:00:00:06 10.0.0.16 *",
                &[
                    "port.vip 10.0.0.16 10.0.0.16 now in 1d as planned",
                    "port.vip 10.0.0.17 - - - static",
                    "port.vip 10.1.0.9 - - - static",
                    "port.vip fd01::1 - - - slaac",
                ],
            ),
            (
                "a name is no terminal's business",
                vec![],
                "+60 02:00:00:00:00:09 10.0.0.98 a\u{1b}[2J",
                &["- - 10.0.0.98 23h ago in 1m unknown: 02:00:00:00:00:09 (a\\u{1b}[2J)"],
            ),
        ];
        for (what, entries, leases, expected) in cases {
            assert_eq!(rows(entries, leases), expected, "{what}");
        }
    }

    #[test]
    fn a_lease_without_an_end_has_no_times() {
        let lease = Lease { expires: 0, ..lease("+0 02:00:00:00:00:01 10.0.0.11 web") };
        let row = compare(&Recorded::default(), &BTreeMap::from([("net".parse().expect("a name"), vec![lease])]), NOW);
        assert_eq!((row[0].expires, row[0].renewed), (None, None));
        assert!(render(&row, NOW).contains("never"));
    }

    #[test]
    fn times_are_told_from_now() {
        for (then, text) in [
            (NOW, "now"),
            (NOW + 1, "in 1s"),
            (NOW - 59, "59s ago"),
            (NOW - 200, "3m ago"),
            (NOW + DAY - 1, "in 23h"),
            (NOW + DAY, "in 1d"),
            (0, "20833d ago"),
        ] {
            assert_eq!(relative(then, NOW), text);
        }
    }
}
