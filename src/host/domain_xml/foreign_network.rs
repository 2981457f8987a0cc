//! The networks that domains of others are on, told in the words of the spec: libvirt's, with the addresses that they hand
//! out, and bridges of the host (<https://libvirt.org/formatnetwork.html>).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use roxmltree::{Document, Node};

use super::foreign::{Foreign, name_of, one_line, places, unique};
use super::{at, value};
use crate::address::Name;
use crate::spec::values::{Forward, Pool};
use crate::value::{Mac, ip_address, ip_number};

/// The networks of some domains.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Network>);

/// One of them.
#[derive(Clone, Debug)]
pub struct Network {
    /// What it is called in the spec.
    pub name: Name,
    /// What the interfaces on it say: the kind of thing, and its name.
    place: (String, String),
    forward: Option<Forward>,
    mtu: Option<u32>,
    domain: Option<String>,
    subnets: Vec<Subnet>,
    /// Which addresses interfaces have, or are to be given.
    hosts: BTreeMap<Mac, Vec<IpAddr>>,
}

#[derive(Clone, Debug)]
struct Subnet {
    cidr: IpNet,
    /// The router, where it is not the first address.
    gateway: Option<IpAddr>,
    pools: Vec<Pool>,
    dhcp: bool,
    /// The interface of the host that has an address in it.
    on_host: Option<String>,
}

impl Networks {
    /// Those that these domains are on. `on_host` are the networks that the host is on: interface and address.
    pub fn of<'f>(foreign: impl IntoIterator<Item = &'f Foreign>, on_host: &[(String, IpNet)]) -> Self {
        let mut all = Self::default();
        let mut names = BTreeSet::new();
        for foreign in foreign {
            let Ok(document) = Document::parse(&foreign.xml) else { continue };
            let domain = document.root_element();
            for place in places(domain) {
                let network = match all.0.iter().position(|network| network.place == place) {
                    Some(known) => &mut all.0[known],
                    None => {
                        let name = name_of(&place.1).or_else(|| name_of(&format!("net-{}", place.1)));
                        let Some(name) = name.or_else(|| name_of("net")) else { continue };
                        let xml = foreign.networks.get(&place.1).filter(|_| place.0 == "network");
                        let network = Network::read(unique(name, &mut names), place, xml.map(String::as_str), on_host);
                        all.0.push(network);
                        let last = all.0.len() - 1;
                        &mut all.0[last]
                    }
                };
                for (mac, addresses) in &foreign.addresses {
                    network.hosts.insert(*mac, addresses.clone());
                }
            }
            all.hear_mtu(domain);
        }
        all
    }

    /// The network that an interface is on.
    pub fn get(&self, place: &(String, String)) -> Option<&Network> {
        self.0.iter().find(|network| network.place == *place)
    }

    /// The tables of all, and what is to be known of them.
    pub fn toml(&self) -> (String, Vec<String>) {
        let (mut toml, mut unknown) = (String::new(), Vec::new());
        let known = || self.0.iter().flat_map(|network| &network.subnets).map(|subnet| subnet.cidr);
        let is_free = |made_up: &Ipv4Net| known().all(|cidr| !cidr.contains(&IpNet::V4(*made_up)));
        let mut free = (0..)
            .filter_map(|number: u32| Ipv4Net::new(Ipv4Addr::from((10 << 24) + (200 << 16) + (number << 8)), 24).ok());
        for network in &self.0 {
            network.write(&mut || free.find(is_free), &mut toml, &mut unknown);
        }
        (toml, unknown)
    }

    /// The MTU is one of the network here, and one of the interface there.
    fn hear_mtu(&mut self, domain: Node) {
        let interfaces = domain.descendants().filter(|node| node.has_tag_name("interface"));
        for (interface, place) in interfaces.zip(places(domain)) {
            let mtu = value(interface, &["mtu"], "size").and_then(|mtu| mtu.parse().ok());
            if let Some(network) = self.0.iter_mut().find(|network| network.place == place) {
                network.mtu = network.mtu.or(mtu);
            }
        }
    }
}

impl Network {
    fn read(name: Name, place: (String, String), xml: Option<&str>, on_host: &[(String, IpNet)]) -> Self {
        let mut network =
            Self { name, place, forward: None, mtu: None, domain: None, subnets: Vec::new(), hosts: BTreeMap::new() };
        let document = xml.and_then(|xml| Document::parse(xml).ok());
        // One of libvirt's may be a bridge of the host by another name.
        let mut bridge = (network.place.0 == "bridge").then(|| network.place.1.clone());
        if let Some(document) = &document {
            let its = document.root_element();
            let mode = value(its, &["forward"], "mode");
            network.forward = match (at(its, &["forward"]), mode) {
                (None, _) => Some(Forward::Isolated),
                (Some(_), None | Some("nat")) => Some(Forward::Nat),
                (Some(_), Some("route" | "open")) => Some(Forward::Routed),
                (Some(_), Some(_)) => None,
            };
            network.mtu = value(its, &["mtu"], "size").and_then(|mtu| mtu.parse().ok());
            let is_domain = |text: &&str| text.split('.').all(|label| label.parse::<Name>().is_ok());
            network.domain = value(its, &["domain"], "name").filter(is_domain).map(str::to_owned);
            network.subnets =
                its.children().filter(|node| node.has_tag_name("ip")).filter_map(|ip| subnet(ip, on_host)).collect();
            network.hosts = hosts(its);
            if network.subnets.is_empty() {
                bridge = value(its, &["bridge"], "name").map(str::to_owned);
            }
        }
        if let Some(bridge) = bridge {
            let its = on_host.iter().filter(|(interface, net)| *interface == bridge && is_possible(net));
            network.subnets = its
                .map(|(interface, net)| Subnet {
                    cidr: net.trunc(),
                    gateway: None,
                    pools: Vec::new(),
                    dhcp: true,
                    on_host: Some(interface.clone()),
                })
                .collect();
        }
        network
    }

    /// The addresses that an interface has, as far as they can be asked for.
    pub fn fixed(&self, mac: Mac) -> Vec<IpAddr> {
        let is_possible = |ip: &&IpAddr| {
            self.subnets.iter().any(|subnet| {
                let IpNet::V4(net) = subnet.cidr else { return false };
                subnet.cidr.contains(*ip)
                    && **ip != IpAddr::V4(net.network())
                    && **ip != IpAddr::V4(net.broadcast())
                    && **ip != subnet.router()
            })
        };
        // DHCP hands out one.
        self.hosts.get(&mac).into_iter().flatten().filter(is_possible).take(1).copied().collect()
    }

    fn write(&self, free: &mut dyn FnMut() -> Option<Ipv4Net>, toml: &mut String, unknown: &mut Vec<String>) {
        let (kind, on) = &self.place;
        let Self { name, .. } = self;
        let mut line = |text: std::fmt::Arguments| {
            // Writing to memory cannot fail.
            let _ = writeln!(toml, "{text}");
        };
        line(format_args!("\n# The {kind} `{}`, as a bridge of novella's.\n[network.{name}]", one_line(on)));
        if let Some(forward) = self.forward.filter(|forward| *forward != Forward::default()) {
            line(format_args!("forward = \"{}\"", forward.as_str()));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu != 1500) {
            line(format_args!("mtu = {mtu}"));
        }
        if let Some(domain) = &self.domain {
            line(format_args!("domain = \"{domain}\""));
        }
        if self.subnets.is_empty()
            && let Some(cidr) = free()
        {
            let said = format!("subnet {name}: what addresses `{}` has is not known", one_line(on));
            line(format_args!(
                "[subnet.{name}]\n# differs: {said}: write a range that the host does not use\nnetwork = \"{name}\"\n\
                 cidr = \"{cidr}\"",
            ));
            unknown.push(said);
        }
        for (number, subnet) in self.subnets.iter().enumerate() {
            let name = if number == 0 { self.name.to_string() } else { format!("{}-{}", self.name, number + 1) };
            line(format_args!("[subnet.{name}]"));
            if let Some(interface) = &subnet.on_host {
                line(format_args!(
                    "# In use on this host by `{}`: `plan` refuses it until the last guest has left that, and it is taken \
                     away ({}). Or write another range.",
                    one_line(interface),
                    match kind.as_str() {
                        "network" => format!("`virsh net-destroy {}`", one_line(on)),
                        _ => format!("`ip link delete {}`", one_line(interface)),
                    }
                ));
            }
            line(format_args!("network = \"{}\"\ncidr = \"{}\"", self.name, subnet.cidr));
            if let Some(gateway) = subnet.gateway.filter(|_| self.forward != Some(Forward::Isolated)) {
                line(format_args!("gateway = \"{gateway}\""));
            }
            if !subnet.pools.is_empty() {
                let pools: Vec<String> = subnet.pools.iter().map(|pool| format!("\"{pool}\"")).collect();
                line(format_args!("pools = [{}]", pools.join(", ")));
            }
            if !subnet.dhcp {
                line(format_args!("dhcp = false"));
            }
        }
    }
}

impl Subnet {
    fn router(&self) -> IpAddr {
        self.gateway.unwrap_or_else(|| first(self.cidr))
    }
}

fn first(cidr: IpNet) -> IpAddr {
    ip_address(ip_number(cidr.network()) + 1, cidr.network())
}

/// Whether a subnet can have these addresses: IPv6 where guests make their own.
fn is_possible(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => (8..=30).contains(&net.prefix_len()) && !net.addr().is_link_local(),
        IpNet::V6(net) => net.prefix_len() == 64 && !net.addr().is_unicast_link_local(),
    }
}

/// An `<ip>` of a libvirt network.
fn subnet(ip: Node, on_host: &[(String, IpNet)]) -> Option<Subnet> {
    let address: IpAddr = ip.attribute("address")?.parse().ok()?;
    let prefix = match (ip.attribute("prefix"), ip.attribute("netmask")) {
        (Some(prefix), _) => prefix.parse().ok()?,
        (None, Some(mask)) => ipnet::ip_mask_to_prefix(mask.parse().ok()?).ok()?,
        // As libvirt takes it: the whole of its class.
        (None, None) => return None,
    };
    let cidr = IpNet::new(address, prefix).ok().filter(is_possible)?.trunc();
    let ranges = ip.descendants().filter(|node| node.has_tag_name("range"));
    let range = |range: Node| {
        let end = |name| range.attribute(name)?.parse::<IpAddr>().ok();
        format!("{}-{}", end("start")?, end("end")?).parse::<Pool>().ok()
    };
    let has_dhcp = at(ip, &["dhcp"]).is_some();
    // Guests of IPv6 make their own addresses here, whatever is handed out there.
    let pools = ranges.filter_map(range).filter(|pool| cidr.addr().is_ipv4() && !pool.contains(address)).collect();
    let overlaps = |net: &IpNet| net.contains(&cidr) || cidr.contains(net);
    Some(Subnet {
        cidr,
        gateway: Some(address).filter(|gateway| *gateway != first(cidr)),
        pools,
        dhcp: has_dhcp || cidr.addr().is_ipv6(),
        on_host: on_host.iter().find(|(_, net)| overlaps(net)).map(|(interface, _)| interface.clone()),
    })
}

/// What `<host>` says in its DHCP.
fn hosts(network: Node) -> BTreeMap<Mac, Vec<IpAddr>> {
    let mut hosts: BTreeMap<Mac, Vec<IpAddr>> = BTreeMap::new();
    for host in network.descendants().filter(|node| node.has_tag_name("host")) {
        let mac = host.attribute("mac").and_then(|mac| mac.parse().ok());
        let ip = host.attribute("ip").and_then(|ip| ip.parse().ok());
        if let Some((mac, ip)) = mac.zip(ip) {
            hosts.entry(mac).or_default().push(ip);
        }
    }
    hosts
}
