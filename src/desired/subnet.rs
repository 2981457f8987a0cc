//! Subnets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::{Network, Problems};
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::values::{Forward, GatewaySpec, Pool};

/// A range of addresses on a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Subnet {
    /// Its name.
    pub name: Name,
    /// Its addresses.
    pub cidr: Ipv4Net,
    /// The router that guests are told of.
    pub router: Option<Ipv4Addr>,
    /// Whether the host itself is that router, and so has its address.
    pub host_is_router: bool,
    /// From where ports are served.
    pub pools: Vec<Pool>,
    /// The DNS servers that guests are told of; none stands for the network's own dnsmasq.
    pub dns: Vec<Ipv4Addr>,
}

impl Subnet {
    /// Whether a host on this subnet may have the address (reference C7: not the network's, not the broadcast address).
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        self.cidr.contains(&address) && address != self.cidr.network() && address != self.cidr.broadcast()
    }

    /// The first address a host may have.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()).saturating_add(1))
    }

    /// The last address a host may have.
    pub fn last(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.broadcast()).saturating_sub(1))
    }
}

/// A subnet needs room for the host and one guest; beyond a /8 there is nothing private.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=30;

pub(super) fn resolve(spec: &Spec, networks: &mut BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    for (name, written) in &spec.subnets {
        let address = Address::new(ResourceKind::Subnet, name.clone());
        let network = problems.need(&address, "network", &written.network, "\"NETWORK\"");
        let network =
            network.and_then(|network| problems.refer(&address, "network", ResourceKind::Network, network, networks));
        let cidr = if spec_has_cidr(written.cidr.is_some(), &address, problems) { written.cidr } else { None };
        let (Some(network), Some(cidr)) = (network.map(|network| network.name.clone()), cidr) else { continue };
        let Some(network) = networks.get_mut(&network) else { continue };
        let cidr = cidr.0;
        if !PREFIXES.contains(&cidr.prefix_len()) {
            problems.push(
                Diagnostic::error(format!("a subnet of /{} is not possible", cidr.prefix_len()))
                    .on(&address, "cidr")
                    .help(format!("the prefix may be from /{} to /{}", PREFIXES.start(), PREFIXES.end())),
            );
            continue;
        }
        let mut subnet = Subnet {
            name: name.clone(),
            cidr,
            router: None,
            host_is_router: false,
            pools: Vec::new(),
            dns: written.dns.iter().flatten().map(|ip| ip.0).collect(),
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
                    .on(&address, "gateway")
                    .help(format!("use one from {} to {}, or leave it out", subnet.first(), subnet.last())),
            );
        }
        subnet.pools = pools(&subnet, written.pools.as_deref(), &address, problems);
        network.subnets.push(subnet);
    }
}

fn spec_has_cidr(has: bool, address: &Address, problems: &mut Problems<'_>) -> bool {
    problems.need(address, "cidr", &has.then_some(()), "\"10.20.0.0/24\"").is_some()
}

/// The pools as written and in order, or the whole subnet. Addresses that are taken are passed over when ports are served.
fn pools(subnet: &Subnet, written: Option<&[Pool]>, address: &Address, problems: &mut Problems<'_>) -> Vec<Pool> {
    let Some(written) = written else {
        return vec![Pool { first: subnet.first(), last: subnet.last() }];
    };
    for (index, pool) in written.iter().enumerate() {
        let key = format!("pools[{index}]");
        if !subnet.is_host(pool.first) || !subnet.is_host(pool.last) {
            problems.push(
                Diagnostic::error(format!("the pool {pool} does not lie in {}", subnet.cidr))
                    .on(address, &key)
                    .help(format!("addresses from {} to {} can be served", subnet.first(), subnet.last())),
            );
        } else if let Some(router) = subnet.router.filter(|router| (pool.first..=pool.last).contains(router)) {
            problems.push(
                Diagnostic::error(format!("the pool {pool} holds the gateway {router}"))
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
                    .on(address, &format!("pools[{index}]")),
            );
        }
    }
    sorted.into_iter().map(|(_, pool)| pool).collect()
}
