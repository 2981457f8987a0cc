//! The DHCP and DNS server of a network, what it knows of ports, and what it tells: routes, options, records.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{Name, PortId};
use crate::value::Mac;

/// How guests get the addresses of a subnet (Neutron's `enable_dhcp` and `ipv6_address_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assignment {
    /// From the DHCP server: DHCPv4 or stateful DHCPv6.
    Dhcp,
    /// Each makes its own from the announced prefix and its MAC (RFC 4862).
    Slaac,
    /// The same, and DHCPv6 tells the rest (RFC 8415, 4.2).
    Stateless,
    /// Whoever sets up the guest writes it there; nobody hands it out.
    Static,
}

impl Assignment {
    /// Whether the MAC of a port decides its address, so that nobody chooses one.
    pub const fn is_by_mac(self) -> bool {
        matches!(self, Self::Slaac | Self::Stateless)
    }

    /// The word in plans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Slaac => "slaac",
            Self::Stateless => "dhcpv6-stateless",
            Self::Static => "static",
        }
    }
}

/// A way to somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The router that knows the way.
    pub nexthop: IpAddr,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.nexthop)
    }
}

/// A version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpVersion {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl IpVersion {
    /// The version of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A DHCP option that one port is told (Neutron's `extra_dhcp_opts`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    /// Whether DHCPv4 or DHCPv6 tells it.
    pub version: IpVersion,
    /// Which one: a name that dnsmasq knows, or a number.
    pub name: String,
    /// What it says.
    pub value: OptionValue,
}

/// What an option says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionValue {
    /// Addresses of the option's IP version.
    Addresses(Vec<IpAddr>),
    /// Text without control characters.
    Text(String),
    /// A number of the option's own width.
    Number(u32),
    /// DNS domains.
    Domains(Vec<String>),
    /// Routes (RFC 3442).
    Routes(Vec<Route>),
    /// Two bytes or more.
    Bytes(Vec<u8>),
}

impl fmt::Display for OptionValue {
    /// In dnsmasq's words, as they stand in a file of options (dnsmasq(8), `--dhcp-option`). Only text is in quotes: dnsmasq
    /// takes addresses without, and anything else without for what it looks like.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |address: &IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        f.write_str(&match self {
            Self::Addresses(all) => all.iter().map(address).collect::<Vec<_>>().join(","),
            Self::Text(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            Self::Number(number) => number.to_string(),
            Self::Domains(all) => all.join(","),
            Self::Routes(all) => {
                all.iter().map(|it| format!("{},{}", it.destination, it.nexthop)).collect::<Vec<_>>().join(",")
            }
            Self::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        })
    }
}

/// A record in the DNS of a network, beside those of its ports. Names are full ones, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Record {
    /// The name that is asked for.
    pub name: String,
    /// What is answered.
    pub data: RecordData,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordData {
    /// `A` or `AAAA`, by the version of the address.
    Address(IpAddr),
    /// `CNAME`.
    Cname(String),
    /// `SRV` (RFC 2782).
    Srv {
        /// Lower ones are asked first.
        priority: u16,
        /// How much of the load among those of one priority.
        weight: u16,
        /// The TCP or UDP port.
        port: u16,
        /// The host.
        target: String,
    },
    /// `TXT`: one string of at most 255 bytes.
    Txt(String),
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match &self.data {
            RecordData::Address(address @ IpAddr::V4(_)) => write!(f, "A {address}"),
            RecordData::Address(address @ IpAddr::V6(_)) => write!(f, "AAAA {address}"),
            RecordData::Cname(target) => write!(f, "CNAME {target}"),
            RecordData::Srv { priority, weight, port, target } => {
                write!(f, "SRV {priority} {weight} {port} {target}")
            }
            RecordData::Txt(text) => write!(f, "TXT {text:?}"),
        }
    }
}

/// What a dnsmasq tells the ports of one subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpRange {
    /// The subnet.
    pub subnet: Name,
    /// Its addresses.
    pub cidr: IpNet,
    /// How guests get theirs.
    pub assignment: Assignment,
    /// The router to announce, if there is one: DHCPv4 option 3; with IPv6, whether router advertisements name the host.
    pub router: Option<IpAddr>,
    /// The DNS servers to announce (DHCPv4 option 6, DHCPv6 option 23, RFC 8106); none stands for the dnsmasq itself.
    pub dns: Vec<IpAddr>,
    /// More routes to announce (DHCPv4 option 121).
    pub routes: Vec<Route>,
    /// The DNS domain of its addresses, where it is not that of the network.
    pub domain: Option<String>,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u32,
}

/// One dnsmasq process serving one bridge (reference D5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// The network it serves.
    pub network: Name,
    /// The bridge it is bound to, and to nothing else.
    pub bridge: String,
    /// The directory of its files: `hosts/`, `names/`, `options/`, `leases`, `pid`, `log`.
    pub dir: PathBuf,
    /// What it serves, by subnet. Addresses are handed out only by host entry.
    pub ranges: Vec<DhcpRange>,
    /// The MTU to announce (option 26; RFC 4861, 4.6.4), in bytes.
    pub mtu: u32,
    /// The DNS domain of the guests.
    pub domain: String,
    /// What its DNS knows beside the ports, each under the name of its table.
    pub records: BTreeMap<Name, Vec<Record>>,
}

/// An address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAddress {
    /// The address.
    pub address: IpAddr,
    /// How the guest gets it.
    pub assignment: Assignment,
    /// The DNS domain in which it has its name.
    pub domain: String,
}

/// What the dnsmasq of a network knows of one port: its addresses, its name, its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEntry {
    /// The port.
    pub port: PortId,
    /// The network the port is on.
    pub network: Name,
    /// The port's MAC address.
    pub mac: Mac,
    /// The port's addresses, in the order of the request.
    pub addresses: Vec<PortAddress>,
    /// The name the guest is told, and is known by in DNS.
    pub hostname: String,
    /// What it alone is told.
    pub options: Vec<DhcpOption>,
}

impl HostEntry {
    /// The addresses that DHCP hands out: the first of IPv4, for dnsmasq gives a MAC one, and all of IPv6.
    pub fn served(&self) -> Vec<IpAddr> {
        let by_dhcp = || self.addresses.iter().filter(|it| it.assignment == Assignment::Dhcp).map(|it| it.address);
        by_dhcp().filter(IpAddr::is_ipv4).take(1).chain(by_dhcp().filter(IpAddr::is_ipv6)).collect()
    }

    /// Its full names in DNS, each with an address.
    pub fn names(&self) -> impl Iterator<Item = (IpAddr, String)> {
        self.addresses.iter().map(|it| (it.address, format!("{}.{}", self.hostname, it.domain)))
    }

    /// Whether a DHCP server could not believe in both: it knows a guest by its MAC, and gives an address to one.
    pub fn collides(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.served(), other.served());
        self.network == other.network && (self.mac == other.mac || ours.iter().any(|it| theirs.contains(it)))
    }

    /// Whether a guest that has its addresses as `before` says must give one up for another. It would keep the old one until
    /// half of its lease is over. One that is only added, or only taken away, it may go on with.
    pub fn readdresses(&self, before: &Self) -> bool {
        let (was, is) = (before.served(), self.served());
        [IpVersion::V4, IpVersion::V6].into_iter().any(|version| {
            let lost = was.iter().any(|it| IpVersion::of(*it) == version && !is.contains(it));
            let gained = is.iter().any(|it| IpVersion::of(*it) == version && !was.contains(it));
            lost && gained
        })
    }
}
