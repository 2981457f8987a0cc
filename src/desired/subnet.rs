//! Subnets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::dhcp::{Assignment, IpVersion, Route};
use crate::desired::network::domain;
use crate::desired::{Network, Problems};
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::schema::SubnetSpec;
use crate::spec::values::{Forward, GatewaySpec, Ipv6Mode, Pool};
use crate::value::{ip_address, ip_number};

/// A range of addresses on a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// Its name.
    pub name: Name,
    /// Its addresses.
    pub cidr: IpNet,
    /// How guests get theirs.
    pub assignment: Assignment,
    /// The router that guests are told of.
    pub router: Option<IpAddr>,
    /// Whether the host itself is that router, and so has its address.
    pub host_is_router: bool,
    /// From where ports are served, in order.
    pub pools: Vec<Pool>,
    /// The DNS servers that guests are told of; none stands for the network's own dnsmasq.
    pub dns: Vec<IpAddr>,
    /// More routes that guests are told of.
    pub routes: Vec<Route>,
    /// The DNS domain of its addresses, where it is not that of the network.
    pub domain: Option<String>,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u32,
}

impl Subnet {
    /// Whether a host on this subnet may have the address (reference C7): not the network's own, which with IPv6 names all
    /// its routers (RFC 4291, 2.6.1), and not the broadcast address, which only IPv4 has.
    pub fn is_host(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && (self.first()..=self.last()).contains(&address)
    }

    /// The first address a host may have.
    pub fn first(&self) -> IpAddr {
        let network = self.cidr.network();
        ip_address(ip_number(network).saturating_add(1), network)
    }

    /// The last address a host may have.
    pub fn last(&self) -> IpAddr {
        let last = self.cidr.broadcast();
        let broadcast = u128::from(last.is_ipv4());
        ip_address(ip_number(last).saturating_sub(broadcast), last)
    }

    /// The version of its addresses.
    pub fn version(&self) -> IpVersion {
        IpVersion::of(self.cidr.addr())
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.version() == IpVersion::V4
    }

    /// The addresses that a host may have, in words.
    pub fn range(&self) -> String {
        format!("from {} to {}", self.first(), self.last())
    }
}

/// A subnet needs room for the host and one guest; beyond a /8 there is nothing private.
const PREFIXES_V4: std::ops::RangeInclusive<u8> = 8..=30;

/// The same for IPv6, where a site has a /48 and private addresses a /8 (RFC 4193).
const PREFIXES_V6: std::ops::RangeInclusive<u8> = 8..=126;

/// Nova's `dhcp_lease_time`: a day.
const LEASE_SECONDS: u32 = 86_400;

pub(super) fn resolve(spec: &Spec, networks: &mut BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    for (name, written) in &spec.subnets {
        let address = Address::new(ResourceKind::Subnet, name.clone());
        let network = problems.need(&address, "network", &written.network, "\"NETWORK\"");
        let network =
            network.and_then(|network| problems.refer(&address, "network", ResourceKind::Network, network, networks));
        let cidr = problems.need(&address, "cidr", &written.cidr, "\"10.20.0.0/24\"");
        let (Some(network), Some(cidr)) = (network.map(|network| network.name.clone()), cidr) else { continue };
        let Some(network) = networks.get_mut(&network) else { continue };
        if let Some(subnet) = subnet(name, written, cidr.0, network, &address, problems) {
            network.subnets.push(subnet);
        }
    }
}

fn subnet(
    name: &Name,
    written: &SubnetSpec,
    cidr: IpNet,
    network: &Network,
    address: &Address,
    problems: &mut Problems<'_>,
) -> Option<Subnet> {
    let prefixes = if cidr.addr().is_ipv4() { PREFIXES_V4 } else { PREFIXES_V6 };
    if !prefixes.contains(&cidr.prefix_len()) {
        problems.push(
            Diagnostic::error(format!("a subnet of /{} is not possible", cidr.prefix_len()))
                .code("subnet-size")
                .on(address, "cidr")
                .help(format!("the prefix may be from /{} to /{}", prefixes.start(), prefixes.end())),
        );
        return None;
    }
    let mut subnet = Subnet {
        name: name.clone(),
        cidr,
        assignment: assignment(written, cidr, address, problems),
        router: None,
        host_is_router: false,
        pools: Vec::new(),
        dns: written.dns.iter().flatten().map(|ip| ip.0).collect(),
        routes: Vec::new(),
        domain: written.domain.as_deref().map(|text| domain(text, address, problems)),
        lease_seconds: written.lease_time.map_or(LEASE_SECONDS, |time| time.0),
    };
    (subnet.router, subnet.host_is_router) = match (written.gateway, network.forward) {
        (Some(GatewaySpec::None), _) | (None, Forward::Isolated) => (None, false),
        (Some(GatewaySpec::Address(gateway)), Forward::Isolated) => (Some(gateway), false),
        (Some(GatewaySpec::Address(gateway)), Forward::Nat | Forward::Routed) => (Some(gateway), true),
        (None, Forward::Nat | Forward::Routed) => (Some(subnet.first()), true),
    };
    if let Some(router) = subnet.router
        && !subnet.is_host(router)
    {
        problems.push(
            Diagnostic::error(format!("the gateway {router} is not a host address in {cidr}"))
                .code("gateway-outside-subnet")
                .on(address, "gateway")
                .help(format!("use one {}, or leave it out", subnet.range())),
        );
    }
    subnet.pools = pools(&subnet, written.pools.as_deref(), address, problems);
    subnet.routes = routes(&subnet, written, address, problems);
    versions(&subnet, address, problems);
    Some(subnet)
}

fn assignment(written: &SubnetSpec, cidr: IpNet, address: &Address, problems: &mut Problems<'_>) -> Assignment {
    let is_ipv4 = cidr.addr().is_ipv4();
    let mode = written.ipv6_mode.filter(|_| !is_ipv4).unwrap_or_default();
    if written.ipv6_mode.is_some() && is_ipv4 {
        problems.push(
            Diagnostic::error(format!("{cidr} is not an IPv6 subnet"))
                .code("ipv6-mode")
                .on(address, "ipv6_mode")
                .help("leave `ipv6_mode` out"),
        );
    }
    if written.dhcp == Some(false) {
        if written.ipv6_mode.is_some() && !is_ipv4 {
            problems.push(
                Diagnostic::error("without DHCP and router advertisements there is no mode")
                    .code("ipv6-mode")
                    .on(address, "ipv6_mode")
                    .help("leave `ipv6_mode` or `dhcp = false` out"),
            );
        }
        return Assignment::Static;
    }
    let assignment = match mode {
        _ if is_ipv4 => Assignment::Dhcp,
        Ipv6Mode::Slaac => Assignment::Slaac,
        Ipv6Mode::Dhcpv6Stateless => Assignment::Stateless,
        Ipv6Mode::Dhcpv6Stateful => Assignment::Dhcp,
    };
    if !is_ipv4 && cidr.prefix_len() != 64 && (assignment.is_by_mac() || cidr.prefix_len() < 64) {
        // dnsmasq takes no range wider than a /64 either.
        problems.push(
            Diagnostic::error(format!("guests cannot make their own addresses in {cidr}: that takes a /64"))
                .code("ipv6-prefix")
                .on(address, "cidr")
                .help("use a /64 (RFC 7421); a smaller one needs `ipv6_mode = \"dhcpv6-stateful\"`"),
        );
    }
    assignment
}

/// The pools as written and in order, or the whole subnet. Addresses that are taken are passed over when ports are served.
fn pools(subnet: &Subnet, written: Option<&[Pool]>, address: &Address, problems: &mut Problems<'_>) -> Vec<Pool> {
    let Some(written) = written else {
        return vec![Pool { first: subnet.first(), last: subnet.last() }];
    };
    if subnet.assignment.is_by_mac() {
        problems.push(
            Diagnostic::error("guests make their own addresses here, so there is nothing to serve from a pool")
                .code("pool-on-slaac-subnet")
                .on(address, "pools")
                .help("leave `pools` out, or set `ipv6_mode = \"dhcpv6-stateful\"`"),
        );
    }
    for (index, pool) in written.iter().enumerate() {
        let key = format!("pools[{index}]");
        if !subnet.is_host(pool.first) || !subnet.is_host(pool.last) {
            problems.push(
                Diagnostic::error(format!("the pool {pool} does not lie in {}", subnet.cidr))
                    .code("pool-outside-subnet")
                    .on(address, &key)
                    .help(format!("addresses {} can be served", subnet.range())),
            );
        } else if let Some(router) = subnet.router.filter(|router| pool.contains(*router)) {
            problems.push(
                Diagnostic::error(format!("the pool {pool} holds the gateway {router}"))
                    .code("pool-over-gateway")
                    .on(address, &key)
                    .help("leave the gateway out of the pool, or set `gateway` to another address"),
            );
        }
    }
    let mut sorted: Vec<(usize, Pool)> = written.iter().copied().enumerate().collect();
    sorted.sort_by_key(|(_, pool)| pool.first);
    for pair in sorted.windows(2) {
        if let [(_, one), (index, other)] = pair
            && other.first <= one.last
        {
            problems.push(
                Diagnostic::error(format!("the pools {one} and {other} overlap"))
                    .code("overlapping-pools")
                    .on(address, &format!("pools[{index}]"))
                    .help("make one pool of them"),
            );
        }
    }
    sorted.into_iter().map(|(_, pool)| pool).collect()
}

/// DHCP tells them by option 121 (RFC 3442), and where there is none, the seed of a guest; router advertisements could (RFC
/// 4191), but dnsmasq's do not.
fn routes(subnet: &Subnet, written: &SubnetSpec, address: &Address, problems: &mut Problems<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for (index, route) in written.host_routes.iter().flatten().enumerate() {
        let route = Route { destination: route.destination.0, nexthop: route.nexthop.0 };
        let key = format!("host_routes[{index}]");
        let mut wrong = |message: String, help: &str| {
            problems.push(Diagnostic::error(message).code("host-route").on(address, &key).help(help));
        };
        if !subnet.is_ipv4() && subnet.assignment != Assignment::Static {
            wrong(
                "router advertisements tell guests of no routes here".into(),
                "put them on an IPv4 subnet of the network, or into the guests",
            );
        } else if IpVersion::of(route.destination.addr()) != subnet.version() {
            wrong(
                format!("{} is not an {} network, as the subnet is", route.destination, subnet.version()),
                "put it on a subnet of its own IP version",
            );
        } else if !subnet.is_host(route.nexthop) {
            wrong(
                format!("{} is not a host address in {}", route.nexthop, subnet.cidr),
                "the next hop must be on the subnet itself",
            );
        } else if routes.iter().any(|other| other.destination == route.destination) {
            wrong(format!("there are two routes to {}", route.destination), "leave one of them out");
        }
        routes.push(route);
    }
    routes
}

/// All that a subnet is told is of its own IP version.
fn versions(subnet: &Subnet, address: &Address, problems: &mut Problems<'_>) {
    let version = subnet.version();
    for (index, server) in subnet.dns.iter().enumerate().filter(|(_, dns)| dns.is_ipv4() != subnet.is_ipv4()) {
        problems.push(
            Diagnostic::error(format!("{server} is not an {version} address, as the subnet is"))
                .code("ip-version")
                .on(address, &format!("dns[{index}]"))
                .help("put it on a subnet of its own IP version"),
        );
    }
    // An option of DHCP has 255 bytes (RFC 2132, 2), and dnsmasq puts no more into one.
    if subnet.is_ipv4() && subnet.dns.len() > 60 || subnet.routes.len() > 25 {
        let key = if subnet.dns.len() > 60 { "dns" } else { "host_routes" };
        problems.push(
            Diagnostic::error(format!("there are more of `{key}` than DHCP can tell"))
                .code("dhcp-option")
                .on(address, key)
                .help("a guest can be told of up to 60 DNS servers and 25 routes"),
        );
    }
}
