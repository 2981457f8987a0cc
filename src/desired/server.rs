//! Servers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::object::Power;
use crate::desired::{Flavor, Image, Network, Problems};
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::schema::ServerSpec;

/// A virtual machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: Name,
    /// The table that declares it: the same, or one with a `count`.
    pub declared: Address,
    /// The image.
    pub image: Name,
    /// The flavor.
    pub flavor: Name,
    /// The networks, in the order of its interfaces, each with the address it must have there.
    pub ports: Vec<(Name, Option<Ipv4Addr>)>,
    /// Whether it is to run.
    pub power: Power,
    /// How long it may take to shut down, in seconds.
    pub shutdown_timeout: u32,
}

/// Nova's `shutdown_timeout`.
const SHUTDOWN_TIMEOUT: u32 = 60;

/// The most servers one spec may make.
const MAX_SERVERS: usize = 100_000;

pub(super) fn resolve(
    spec: &Spec,
    networks: &BTreeMap<Name, Network>,
    images: &BTreeMap<Name, Image>,
    flavors: &BTreeMap<Name, Flavor>,
    problems: &mut Problems<'_>,
) -> BTreeMap<Name, Server> {
    let mut servers: BTreeMap<Name, Server> = BTreeMap::new();
    for (name, written) in &spec.servers {
        let address = Address::new(ResourceKind::Server, name.clone());
        let image = problems.need(&address, "image", &written.image, "\"IMAGE\"");
        let flavor = problems.need(&address, "flavor", &written.flavor, "\"FLAVOR\"");
        let found_image = image.and_then(|it| problems.refer(&address, "image", ResourceKind::Image, it, images));
        let found_flavor = flavor.and_then(|it| problems.refer(&address, "flavor", ResourceKind::Flavor, it, flavors));
        if let (Some(image), Some(flavor)) = (found_image, found_flavor) {
            fits(&address, image, flavor, problems);
        }
        let ports = ports(&address, written, spec, networks, problems);
        let (Some(image), Some(flavor)) = (image, flavor) else { continue };
        let names = match written.count {
            None => vec![name.clone()],
            // All servers so far count: many tables make as many as one.
            Some(count) if servers.len() + count as usize > MAX_SERVERS => {
                problems.push(
                    Diagnostic::error(format!("a count of {count} is not possible"))
                        .on(&address, "count")
                        .help(format!("there may be at most {MAX_SERVERS} servers in all")),
                );
                continue;
            }
            Some(count) => numbered(name, count, &address, problems),
        };
        for name in names {
            let server = Server {
                name: name.clone(),
                declared: address.clone(),
                image: image.clone(),
                flavor: flavor.clone(),
                ports: ports.clone(),
                power: written.power.unwrap_or_default(),
                shutdown_timeout: written.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
            };
            if let Some(other) = servers.insert(name.clone(), server) {
                problems.push(
                    Diagnostic::error(format!("`server.{name}` is declared twice"))
                        .on(&address, "count")
                        .related(crate::diagnostic::Place::of(&other.declared, ""), "and by this")
                        .help("`count = 3` makes NAME-1, NAME-2 and NAME-3; give one of the two another name"),
                );
            }
        }
    }
    servers
}

/// Reference A2: the flavor has the memory and the disk that the image asks for.
fn fits(address: &Address, image: &Image, flavor: &Flavor, problems: &mut Problems<'_>) {
    let limits = [("ram", flavor.ram, "min_ram", image.min_ram), ("disk", flavor.disk, "min_disk", image.min_disk)];
    for (key, has, min_key, min) in limits {
        if has < min {
            let flavor_place =
                crate::diagnostic::Place::of(&Address::new(ResourceKind::Flavor, flavor.name.clone()), key);
            problems.push(
                Diagnostic::error(format!(
                    "`flavor.{}` has {key} {has}, and `image.{}` needs at least {min} (`{min_key}`)",
                    flavor.name, image.name
                ))
                .on(address, "flavor")
                .related(flavor_place, "too small")
                .help(format!("use a larger flavor, or write `{key} = \"{min}\"` in this one")),
            );
        }
    }
}

fn numbered(name: &Name, count: u32, address: &Address, problems: &mut Problems<'_>) -> Vec<Name> {
    let mut names = Vec::new();
    for number in 1..=count {
        match format!("{name}-{number}").parse() {
            Ok(name) => names.push(name),
            Err(error) => {
                problems
                    .push(Diagnostic::error(format!("`{name}-{number}` is not a name: {error}")).on(address, "count"));
                break;
            }
        }
    }
    names
}

fn ports(
    address: &Address,
    written: &ServerSpec,
    spec: &Spec,
    networks: &BTreeMap<Name, Network>,
    problems: &mut Problems<'_>,
) -> Vec<(Name, Option<Ipv4Addr>)> {
    let Some(names) = problems.need(address, "networks", &written.networks, "[\"NETWORK\"]") else {
        return Vec::new();
    };
    if names.is_empty() {
        problems.push(
            Diagnostic::error(format!("`{address}` is on no network"))
                .on(address, "networks")
                .help("name at least one: `networks = [\"NETWORK\"]`"),
        );
    }
    let mut ports: Vec<(Name, Option<Ipv4Addr>)> = Vec::new();
    let mut on: Vec<&Network> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let key = format!("networks[{index}]");
        let Some(network) = problems.refer(address, &key, ResourceKind::Network, name, networks) else { continue };
        if ports.iter().any(|(other, _)| other == name) {
            problems.push(
                Diagnostic::error(format!("`network.{name}` is named twice"))
                    .on(address, &key)
                    .help("a server has one interface on a network"),
            );
            continue;
        }
        // A subnet with mistakes in it has problems of its own.
        if network.subnets.is_empty() && !spec.subnets.values().any(|subnet| subnet.network.as_ref() == Some(name)) {
            problems.push(
                Diagnostic::error(format!("`network.{name}` has no subnet, so there is no address for `{address}`"))
                    .on(address, &key)
                    .help(format!("add a `[subnet.NAME]` with `network = \"{name}\"` and a `cidr`")),
            );
        }
        ports.push((name.clone(), None));
        on.push(network);
    }
    if let Some(fixed) = written.fixed_ip.map(|ip| ip.0) {
        fixed_ip(address, written, fixed, &on, &mut ports, problems);
    }
    ports
}

/// Reference C7: the address lies in a subnet of one of the server's networks, and a host may have it.
fn fixed_ip(
    address: &Address,
    written: &ServerSpec,
    fixed: Ipv4Addr,
    networks: &[&Network],
    ports: &mut [(Name, Option<Ipv4Addr>)],
    problems: &mut Problems<'_>,
) {
    let error = |message: String, help: String| Diagnostic::error(message).on(address, "fixed_ip").help(help);
    if written.count.is_some() {
        problems
            .push(error(format!("{fixed} can belong to one server only"), "leave out `count` or `fixed_ip`".into()));
        return;
    }
    let homes = networks.iter().flat_map(|network| network.subnets.iter().map(move |subnet| (network, subnet)));
    let Some((network, subnet)) = homes.clone().find(|(_, subnet)| subnet.cidr.contains(&fixed)) else {
        let subnets: Vec<String> = homes.map(|(_, subnet)| format!("{}", subnet.cidr)).collect();
        if !subnets.is_empty() {
            problems.push(error(
                format!("{fixed} lies in no subnet of the server's networks"),
                format!("use an address in {}", subnets.join(" or ")),
            ));
        }
        return;
    };
    let range = format!("use one from {} to {}", subnet.first(), subnet.last());
    if !subnet.is_host(fixed) {
        problems.push(error(format!("{fixed} is the network or broadcast address of {}", subnet.cidr), range));
    } else if subnet.router == Some(fixed) {
        problems.push(error(format!("{fixed} is the gateway of `subnet.{}`", subnet.name), range));
    } else if let Some(port) = ports.iter_mut().find(|(name, _)| *name == network.name) {
        port.1 = Some(fixed);
    }
}
