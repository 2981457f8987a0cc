//! Ports: those of their own, and those that servers have on networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::dhcp::{Assignment, DhcpOption, IpVersion};
use crate::desired::{Network, Problems, Subnet, dhcp_option};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::schema::PortSpec;
use crate::spec::values::FixedIpSpec;
use crate::value::Mac;

/// A place on a network for one interface of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Which one it is.
    pub id: PortId,
    /// Where it is declared.
    pub declared: Declared,
    /// The network it is on.
    pub network: Name,
    /// The addresses that it is to have, beside those that its MAC gives it.
    pub requests: Vec<Request>,
    /// Its MAC address, where the spec says.
    pub mac: Option<Mac>,
    /// Whether its cable is plugged in.
    pub up: bool,
    /// DHCP options for it alone.
    pub options: Vec<DhcpOption>,
    /// Its name in DNS, where the spec says.
    pub dns_name: Option<Name>,
    /// The server that has it.
    pub server: Option<Name>,
}

/// An address that a port is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked for.
    pub wanted: Wanted,
    /// Where.
    pub place: Place,
}

/// What a port asks for (reference C7, C9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This address.
    Address(IpAddr),
    /// Some address of this subnet.
    Subnet(Name),
    /// Some address of this version.
    Any(IpVersion),
}

/// The place in a spec that declares a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The resource.
    pub resource: Address,
    /// The key in it that stands for the port; empty for a port of its own.
    pub key: String,
}

impl Declared {
    /// The place of a key of the port; of the port itself where `key` is empty.
    pub fn place(&self, key: &str) -> Place {
        let dot = if key.is_empty() || self.key.is_empty() { "" } else { "." };
        Place::of(&self.resource, &format!("{}{dot}{key}", self.key))
    }
}

impl Port {
    /// What its guest is called on this network.
    pub fn hostname(&self) -> &Name {
        match (&self.dns_name, &self.server, &self.id) {
            (Some(name), ..) | (None, Some(name), _) | (None, None, PortId::Own(name)) => name,
            (None, None, PortId::Inline { server, .. }) => server,
        }
    }
}

/// Neutron's `max_fixed_ips_per_port` (reference C7).
const MAX_FIXED_IPS: usize = 5;

/// The ports of their own.
pub(super) fn resolve(
    spec: &Spec,
    networks: &BTreeMap<Name, Network>,
    problems: &mut Problems<'_>,
) -> BTreeMap<PortId, Port> {
    let mut ports = BTreeMap::new();
    for (name, written) in &spec.ports {
        let id = PortId::Own(name.clone());
        let declared = Declared { resource: id.address(), key: String::new() };
        let network = problems.need(&declared.resource, "network", &written.network, "\"NETWORK\"");
        let network = network.and_then(|network| {
            problems.refer(&declared.resource, "network", ResourceKind::Network, network, networks)
        });
        if let Some(network) = network {
            has_subnet(network, spec, &declared, problems);
            ports.insert(id.clone(), port(id, declared, written, network, spec, problems));
        }
    }
    ports
}

/// Reference C5: without a subnet there is no address. A subnet with mistakes in it has problems of its own.
pub(super) fn has_subnet(network: &Network, spec: &Spec, declared: &Declared, problems: &mut Problems<'_>) {
    let name = &network.name;
    if network.subnets.is_empty() && !spec.subnets.values().any(|subnet| subnet.network.as_ref() == Some(name)) {
        let error = format!("`network.{name}` has no subnet, so there is no address for `{}`", declared.resource);
        let place = declared.place(if declared.key.is_empty() { "network" } else { "" });
        problems.push(
            Diagnostic::error(error)
                .placed(place)
                .code("network-without-subnet")
                .help(format!("add a `[subnet.NAME]` with `network = \"{name}\"` and a `cidr`")),
        );
    }
}

/// A port as it is written.
pub(super) fn port(
    id: PortId,
    declared: Declared,
    written: &PortSpec,
    network: &Network,
    spec: &Spec,
    problems: &mut Problems<'_>,
) -> Port {
    let mut wrong = |key: &str, code: &str, message: String, help: String| {
        let place = declared.place(key);
        problems.push(Diagnostic::error(message).placed(place).code(code).help(help));
    };
    for (key, is_written) in [
        ("security_groups", written.security_groups.is_some()),
        ("allowed_address_pairs", written.allowed_address_pairs.is_some()),
        ("port_security_enabled", written.port_security_enabled.is_some()),
    ] {
        if is_written {
            wrong(
                key,
                "not-enforced",
                format!("`{key}` is not enforced yet, and so not taken"),
                "leave it out; guests on one network reach each other".into(),
            );
        }
    }
    if let Some(mac) = written.mac_address
        && let Some(why) = unusable(mac)
    {
        wrong(
            "mac_address",
            "mac-not-usable",
            format!("{mac} {why}"),
            "leave it out, and a good one is derived".into(),
        );
    }
    let mut options = Vec::new();
    for (index, option) in written.extra_dhcp_opts.iter().flatten().enumerate() {
        let key = format!("extra_dhcp_opts[{index}]");
        match dhcp_option::read(option) {
            Ok(option)
                if options.iter().any(|it: &DhcpOption| (it.version, &it.name) == (option.version, &option.name)) =>
            {
                wrong(
                    &key,
                    "dhcp-option",
                    format!("the option `{}` is there twice", option.name),
                    "leave one of them out".into(),
                );
            }
            Ok(option) => options.push(option),
            Err(error) => wrong(&format!("{key}.{}", error.key), "dhcp-option", error.message, error.help),
        }
    }
    let requests = match &written.fixed_ips {
        Some(fixed) => fixed_ips(fixed, &declared, network, spec, problems),
        None => usual(network, &declared.place(if declared.key.is_empty() { "network" } else { "" }), &[]),
    };
    Port {
        id,
        declared,
        network: network.name.clone(),
        requests,
        mac: written.mac_address,
        up: written.admin_state_up.unwrap_or(true),
        options,
        dns_name: written.dns_name.clone(),
        server: None,
    }
}

/// Why an interface cannot have a MAC address that is one.
fn unusable(mac: Mac) -> Option<&'static str> {
    match mac.0 {
        [0, 0, 0, 0, 0, 0] => Some("is no address: all of it is zero"),
        // virnetdevtap.c: the kernel would give the bridge the lowest MAC of its ports, so libvirt raises that of the tap.
        [0xfe, ..] => Some("is what libvirt gives the host's side of an interface"),
        _ => None,
    }
}

/// Reference C9: one address of each version that there is, but those that are made from the MAC. `but` are the versions
/// of which it has one already.
pub(super) fn usual(network: &Network, place: &Place, but: &[IpVersion]) -> Vec<Request> {
    let has =
        |version| network.subnets.iter().any(|subnet| subnet.version() == version && !subnet.assignment.is_by_mac());
    [IpVersion::V4, IpVersion::V6]
        .into_iter()
        .filter(|version| has(*version) && !but.contains(version))
        .map(|version| Request { wanted: Wanted::Any(version), place: place.clone() })
        .collect()
}

fn fixed_ips(
    written: &[FixedIpSpec],
    declared: &Declared,
    network: &Network,
    spec: &Spec,
    problems: &mut Problems<'_>,
) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let error = |place: &Place, code: &str, message: String, help: String| {
        Diagnostic::error(message).placed(place.clone()).code(code).help(help)
    };
    if written.len() > MAX_FIXED_IPS {
        problems.push(error(
            &declared.place("fixed_ips"),
            "too-many-fixed-ips",
            format!("a port has at most {MAX_FIXED_IPS} fixed addresses, not {}", written.len()),
            "spread them over several ports".into(),
        ));
    }
    for (index, fixed) in written.iter().enumerate() {
        let place = declared.place(&format!("fixed_ips[{index}]"));
        let found = match &fixed.subnet {
            None => None,
            Some(name) => match subnet_of(network, name, spec, &place, problems) {
                Some(subnet) => Some(subnet),
                None => continue,
            },
        };
        let wanted = match (found, fixed.ip_address) {
            (None, None) => {
                problems.push(error(
                    &place,
                    "fixed-ip-says-nothing",
                    "this names neither an address nor a subnet".into(),
                    "write `{ subnet = \"SUBNET\" }`, `{ ip_address = \"ADDRESS\" }`, or leave it out".into(),
                ));
                continue;
            }
            // What the MAC gives is there in any case.
            (Some(subnet), None) if subnet.assignment.is_by_mac() => continue,
            (Some(subnet), None) => Wanted::Subnet(subnet.name.clone()),
            (subnet, Some(address)) => {
                if !address_is_possible(address.0, subnet, network, &place, problems) {
                    continue;
                }
                Wanted::Address(address.0)
            }
        };
        if matches!(wanted, Wanted::Address(_)) && requests.iter().any(|other| other.wanted == wanted) {
            problems.push(error(
                &place,
                "address-twice",
                "the port has this address already".into(),
                "leave it out".into(),
            ));
        }
        requests.push(Request { wanted, place });
    }
    // What DHCP gives a MAC of IPv4 is one address.
    let is_by_dhcp = |request: &&Request| {
        network.subnets.iter().any(|subnet| {
            subnet.is_ipv4()
                && subnet.assignment == Assignment::Dhcp
                && match &request.wanted {
                    Wanted::Address(address) => subnet.cidr.contains(address),
                    Wanted::Subnet(name) => subnet.name == *name,
                    Wanted::Any(_) => false,
                }
        })
    };
    for request in requests.iter().filter(is_by_dhcp).skip(1) {
        problems.push(
            Diagnostic::warning("DHCP hands out the first IPv4 address alone")
                .code("not-handed-out")
                .placed(request.place.clone())
                .help("this one is kept free for the port, and its guest sets it up by itself"),
        );
    }
    requests
}

/// The subnet of a network by its name. One that is not there for its own mistakes is no problem here.
fn subnet_of<'n>(
    network: &'n Network,
    name: &Name,
    spec: &Spec,
    place: &Place,
    problems: &mut Problems<'_>,
) -> Option<&'n Subnet> {
    let found = network.subnets.iter().find(|subnet| subnet.name == *name);
    let written = spec.subnets.get(name);
    if found.is_none() && written.is_none_or(|it| it.network.as_ref() != Some(&network.name)) {
        let is = if written.is_some() { "is not on" } else { "is no subnet of" };
        let known: Vec<String> = network.subnets.iter().map(|subnet| format!("`{}`", subnet.name)).collect();
        problems.push(
            Diagnostic::error(format!("`subnet.{name}` {is} `network.{}`", network.name))
                .code("subnet-not-on-network")
                .placed(place.clone())
                .help(format!("its subnets are {}", known.join(", "))),
        );
    }
    found
}

/// Reference C7: an address lies in a subnet of the network, the named one if one is named; a host may have it, and nobody
/// else decides it.
pub(super) fn address_is_possible(
    address: IpAddr,
    named: Option<&Subnet>,
    network: &Network,
    place: &Place,
    problems: &mut Problems<'_>,
) -> bool {
    let mut wrong = |code: &str, message: String, help: String| {
        problems.push(Diagnostic::error(message).placed(place.clone()).code(code).help(help));
        false
    };
    if let Some(subnet) = named
        && !subnet.cidr.contains(&address)
    {
        return wrong(
            "address-outside-subnet",
            format!("{address} does not lie in {} of `subnet.{}`", subnet.cidr, subnet.name),
            format!("use one {}, or another subnet", subnet.range()),
        );
    }
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.cidr.contains(&address)) else {
        // Without a subnet there is another problem.
        let subnets: Vec<String> = network.subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
        return !subnets.is_empty()
            && wrong(
                "address-outside-network",
                format!("{address} lies in no subnet of `network.{}`", network.name),
                format!("use an address in {}", subnets.join(" or ")),
            );
    };
    if !subnet.is_host(address) {
        let what = if address.is_ipv4() { "the network or broadcast address" } else { "the routers' anycast address" };
        return wrong(
            "address-of-subnet",
            format!("{address} is {what} of {}", subnet.cidr),
            format!("use one {}", subnet.range()),
        );
    }
    if subnet.router == Some(address) {
        return wrong(
            "address-of-gateway",
            format!("{address} is the gateway of `subnet.{}`", subnet.name),
            format!("use one {}", subnet.range()),
        );
    }
    if subnet.assignment.is_by_mac() {
        return wrong(
            "address-on-slaac-subnet",
            format!("guests make their own addresses in {}, so {address} cannot be given", subnet.cidr),
            "leave it out, or set `ipv6_mode = \"dhcpv6-stateful\"` in the subnet".into(),
        );
    }
    true
}
