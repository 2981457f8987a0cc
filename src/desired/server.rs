//! Servers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::dhcp::IpVersion;
use crate::blueprint::disk::Attachment;
use crate::blueprint::object::Power;
use crate::desired::host::{HostConfig, windows};
use crate::desired::lifecycle::{self, Ignored, Lifecycle};
use crate::desired::port::{Declared, Request, Wanted, address_is_possible, has_subnet, port, usual};
use crate::desired::volume::{Attached, attachment};
use crate::desired::{CloudInit, Flavor, Image, Network, Port, Ports, Problems, Volumes, cloud_init, volume};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::schema::{PortSpec, ServerSpec};
use crate::spec::values::PortRef;
use crate::window::Window;

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
    /// The ports, in the order of its interfaces.
    pub ports: Vec<PortId>,
    /// How its root disk is attached.
    pub root_disk: Attachment,
    /// The disks that it has beside that.
    pub volumes: Vec<Attached>,
    /// Whether it is to run.
    pub power: Power,
    /// The servers that are started before it, and stopped after it, sorted.
    pub depends_on: Vec<Name>,
    /// How long it may take to shut down, in seconds.
    pub shutdown_timeout: u32,
    /// When the daemon may reboot it unasked. Servers of one table share it.
    pub maintenance: Arc<[Window]>,
    /// What the cloud-init of its guest is told. Servers of one table share it.
    pub cloud_init: Arc<CloudInit>,
    /// What may become of it by an edit. Servers of one table share it.
    pub lifecycle: Arc<Lifecycle>,
}

impl Server {
    /// Whether a new root disk is made beside the old one. Where others start and stop the guest, the old one cannot be taken
    /// from it when the new one is there.
    pub fn is_made_beside(&self) -> bool {
        self.lifecycle.create_before_destroy && self.power != Power::Unmanaged
    }

    /// Whether it keeps this as it was made.
    pub fn ignores(&self, what: Ignored) -> bool {
        self.lifecycle.ignore_changes.contains(&what)
    }
}

/// What a server may refer to.
pub(super) struct Known<'a> {
    pub host: &'a HostConfig,
    pub networks: &'a BTreeMap<Name, Network>,
    pub images: &'a BTreeMap<Name, Image>,
    pub flavors: &'a BTreeMap<Name, Flavor>,
    pub keypairs: &'a BTreeMap<Name, Option<String>>,
}

/// Nova's `shutdown_timeout`.
const SHUTDOWN_TIMEOUT: u32 = 60;

/// The most servers one spec may make.
const MAX_SERVERS: usize = 100_000;

pub(super) fn resolve(
    spec: &Spec,
    known: &Known<'_>,
    all_ports: &mut Ports,
    all_volumes: &mut Volumes,
    problems: &mut Problems<'_>,
) -> BTreeMap<Name, Server> {
    let Known { host, networks, images, flavors, keypairs } = *known;
    let mut servers: BTreeMap<Name, Server> = BTreeMap::new();
    let depends_on = depends_on(spec, problems);
    for (name, written) in &spec.servers {
        let address = Address::new(ResourceKind::Server, name.clone());
        let image = problems.need(&address, "image", &written.image, "\"IMAGE\"");
        let flavor = problems.need(&address, "flavor", &written.flavor, "\"FLAVOR\"");
        let found_image = image.and_then(|it| problems.refer(&address, "image", ResourceKind::Image, it, images));
        let found_flavor = flavor.and_then(|it| problems.refer(&address, "flavor", ResourceKind::Flavor, it, flavors));
        if let (Some(image), Some(flavor)) = (found_image, found_flavor) {
            fits(&address, image, flavor, problems);
        }
        if written.autostart.is_some() {
            problems.push(
                Diagnostic::error("libvirt would start the guest before its bridges are there, and it would stay off")
                    .code("no-autostart")
                    .on(&address, "autostart")
                    .help("leave it out, and run `novella apply` when the host has booted: it starts what is to run"),
            );
        }
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
        let ports = ports(&address, written, &names, (spec, networks), all_ports, problems);
        let bus = found_image.map(|image| image.disk_bus).unwrap_or_default();
        let of = volume::Of { address: &address, names: &names, flavor: found_flavor, spec, images, bus };
        let volumes = volume::of_server(&of, written, all_volumes, problems);
        let root_disk = attachment(written.root_disk.unwrap_or_default(), bus);
        let cloud_init = Arc::new(cloud_init::resolve(&address, written, keypairs, problems));
        let maintenance = written.maintenance.as_ref().map_or_else(|| Arc::clone(&host.maintenance), windows);
        let lifecycle = Arc::new(lifecycle::resolve(&address, written.lifecycle.as_ref(), problems));
        let (Some(image), Some(flavor)) = (image, flavor) else { continue };
        for ((name, ports), volumes) in names.into_iter().zip(ports).zip(volumes) {
            let server = Server {
                name: name.clone(),
                declared: address.clone(),
                image: image.clone(),
                flavor: flavor.clone(),
                ports,
                root_disk,
                volumes,
                power: written.power.unwrap_or_default(),
                depends_on: depends_on.get(&address.name).cloned().unwrap_or_default(),
                shutdown_timeout: written.shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT),
                maintenance: Arc::clone(&maintenance),
                cloud_init: Arc::clone(&cloud_init),
                lifecycle: Arc::clone(&lifecycle),
            };
            if let Some(other) = servers.insert(name.clone(), server) {
                problems.push(
                    Diagnostic::error(format!("`server.{name}` is declared twice"))
                        .on(&address, "count")
                        .related(Place::of(&other.declared, ""), "and by this")
                        .help("`count = 3` makes NAME-1, NAME-2 and NAME-3; give one of the two another name"),
                );
            }
        }
    }
    servers
}

/// What each table of servers depends on: all servers of the tables it names.
fn depends_on<'s>(spec: &'s Spec, problems: &mut Problems<'_>) -> BTreeMap<&'s Name, Vec<Name>> {
    let mut graph: DiGraph<&Name, usize> = DiGraph::new();
    let nodes: BTreeMap<&Name, _> = spec.servers.keys().map(|name| (name, graph.add_node(name))).collect();
    let mut depends_on = BTreeMap::new();
    for (name, written) in &spec.servers {
        let address = Address::new(ResourceKind::Server, name.clone());
        let mut all = BTreeSet::new();
        for (number, other) in written.depends_on.iter().flatten().enumerate() {
            let key = format!("depends_on[{number}]");
            let Some(found) = problems.refer(&address, &key, ResourceKind::Server, other, &spec.servers) else {
                continue;
            };
            graph.add_edge(nodes[name], nodes[other], number);
            match found.count {
                None => all.extend([other.clone()]),
                // A name that cannot be has its problem already.
                Some(count) => all.extend((1..=count).filter_map(|n| format!("{other}-{n}").parse::<Name>().ok())),
            }
        }
        depends_on.insert(name, all.into_iter().collect());
    }
    for circle in circles(&graph) {
        let step = |from, to| {
            let key = graph.find_edge(from, to).map_or(0, |edge| graph[edge]);
            Place::of(&Address::new(ResourceKind::Server, graph[from].clone()), &format!("depends_on[{key}]"))
        };
        let ends = circle.iter().skip(1).chain(circle.first());
        let places: Vec<Place> = circle.iter().zip(ends).map(|(from, to)| step(*from, *to)).collect();
        let way: Vec<String> = circle.iter().chain(circle.first()).map(|node| format!("`{}`", graph[*node])).collect();
        let message = match circle.len() {
            1 => format!("`server.{}` depends on itself", graph[circle[0]]),
            _ => format!("servers depend on each other in a circle: {}", way.join(" → ")),
        };
        let error = Diagnostic::error(message).placed(places[0].clone()).code("dependency-circle");
        let error = places[1..].iter().take(1).fold(error, |error, place| error.related(place.clone(), "and this"));
        problems.push(error.help("none could be the first to start; take one of the names out"));
    }
    depends_on
}

/// One circle, the shortest through its first server, of each set of servers that depend on each other.
fn circles(graph: &DiGraph<&Name, usize>) -> Vec<Vec<NodeIndex>> {
    let mut circles = Vec::new();
    for mut component in kosaraju_scc(graph) {
        component.sort();
        let first = component[0];
        // A server on its own is a component as well, whether it depends on itself or not.
        if component.len() == 1 && graph.find_edge(first, first).is_none() {
            continue;
        }
        let mut from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
        let mut open = VecDeque::from([first]);
        'search: while let Some(node) = open.pop_front() {
            let mut next: Vec<NodeIndex> = graph.neighbors(node).filter(|next| component.contains(next)).collect();
            next.sort();
            for next in next {
                if next == first {
                    let mut circle = vec![node];
                    while let Some(before) = from.get(&circle[circle.len() - 1]) {
                        circle.push(*before);
                    }
                    circle.reverse();
                    circles.push(circle);
                    break 'search;
                }
                if let Entry::Vacant(unseen) = from.entry(next) {
                    unseen.insert(node);
                    open.push_back(next);
                }
            }
        }
    }
    circles.sort();
    circles
}

/// Reference A2: the flavor has the memory and the disk that the image asks for.
fn fits(address: &Address, image: &Image, flavor: &Flavor, problems: &mut Problems<'_>) {
    let limits = [("ram", flavor.ram, "min_ram", image.min_ram), ("disk", flavor.disk, "min_disk", image.min_disk)];
    for (key, has, min_key, min) in limits {
        if has < min {
            let flavor_place = Place::of(&Address::new(ResourceKind::Flavor, flavor.name.clone()), key);
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

/// The ports of a server, in the order of its interfaces (reference C4): those of the table, and those to be made for each of
/// its `names`. The latter are noted in `all`.
fn ports(
    address: &Address,
    written: &ServerSpec,
    names: &[Name],
    context: (&Spec, &BTreeMap<Name, Network>),
    all: &mut Ports,
    problems: &mut Problems<'_>,
) -> Vec<Vec<PortId>> {
    let (spec, networks) = context;
    let written_ports = match (&written.networks, &written.ports) {
        (Some(_), Some(_)) => {
            problems.push(
                Diagnostic::error("`networks` and `ports` would leave the order of the interfaces open")
                    .code("networks-and-ports")
                    .on(address, "networks")
                    .related(Place::of(address, "ports"), "the other one")
                    .help("write the networks into `ports` too: `ports = [\"PORT\", { network = \"NETWORK\" }]`"),
            );
            return Vec::new();
        }
        (_, Some(ports)) => ports.iter().cloned().enumerate().map(|(n, port)| (format!("ports[{n}]"), port)).collect(),
        (networks, None) => {
            let Some(networks) = problems.need(address, "networks", networks, "[\"NETWORK\"]") else {
                return Vec::new();
            };
            let port = |network: &Name| {
                PortRef::Inline(Box::new(PortSpec { network: Some(network.clone()), ..PortSpec::default() }))
            };
            networks
                .iter()
                .enumerate()
                .map(|(n, network)| (format!("networks[{n}]"), port(network)))
                .collect::<Vec<_>>()
        }
    };
    if written_ports.is_empty() {
        let key = if written.ports.is_some() { "ports" } else { "networks" };
        problems.push(
            Diagnostic::error(format!("`{address}` is on no network"))
                .on(address, key)
                .help("name at least one: `networks = [\"NETWORK\"]`"),
        );
    }
    let mut inline: Vec<Port> = Vec::new();
    let mut order: Vec<PortId> = Vec::new();
    for (key, port) in &written_ports {
        match port {
            PortRef::Own(name) => own_port(address, key, name, names, (spec, all), &mut order, problems),
            PortRef::Inline(port) => {
                let declared = Declared { resource: address.clone(), key: key.clone() };
                let Some(name) = &port.network else {
                    problems.push(
                        Diagnostic::error("a port needs `network`")
                            .on(address, key)
                            .help("add `network = \"NETWORK\"`"),
                    );
                    continue;
                };
                let dot = if key.starts_with("ports") { ".network" } else { "" };
                let network = problems.refer(address, &format!("{key}{dot}"), ResourceKind::Network, name, networks);
                let Some(network) = network else { continue };
                if inline.iter().any(|other| other.network == *name) {
                    problems.push(
                        Diagnostic::error(format!("`network.{name}` is named twice"))
                            .code("network-twice")
                            .on(address, key)
                            .help("for a second interface on it, declare a `[port.NAME]` and name that in `ports`"),
                    );
                    continue;
                }
                has_subnet(network, spec, &declared, problems);
                let id = PortId::inline(&address.name, name);
                order.push(id.clone());
                inline.push(self::port(id, declared, port, network, spec, problems));
            }
        }
    }
    for port in inline.iter().filter(|_| written.count.is_some()) {
        let addresses = port.requests.iter().find(|it| matches!(it.wanted, Wanted::Address(_))).map(|it| &it.place);
        let mac = port.mac.map(|_| port.declared.place("mac_address"));
        if let Some(place) = addresses.or(mac.as_ref()) {
            one_only(place, "this", problems);
        }
    }
    if let Some(fixed) = written.fixed_ip.map(|ip| ip.0) {
        fixed_ip(address, written, fixed, networks, &mut inline, problems);
    }
    let ids_of = |name: &Name| -> Vec<PortId> {
        let of = |id: &PortId| match id {
            PortId::Own(_) => id.clone(),
            PortId::Inline { network, .. } => PortId::inline(name, network),
        };
        order.iter().map(of).collect()
    };
    for name in names {
        for port in &inline {
            let id = PortId::inline(name, &port.network);
            all.insert(id.clone(), Port { id, server: Some(name.clone()), ..port.clone() });
        }
    }
    names.iter().map(ids_of).collect()
}

/// A port of its own belongs to one server.
fn own_port(
    address: &Address,
    key: &str,
    name: &Name,
    names: &[Name],
    (spec, all): (&Spec, &mut Ports),
    order: &mut Vec<PortId>,
    problems: &mut Problems<'_>,
) {
    let id = PortId::Own(name.clone());
    if problems.refer(address, key, ResourceKind::Port, name, &spec.ports).is_none() {
        return;
    }
    if names.len() > 1 {
        one_only(&Place::of(address, key), &format!("`port.{name}`"), problems);
        return;
    }
    // One with mistakes in it is not there.
    let (Some(port), Some(server)) = (all.get_mut(&id), names.first()) else { return };
    if let Some(other) = &port.server {
        let other = Address::new(ResourceKind::Server, other.clone());
        problems.push(
            Diagnostic::error(format!("`port.{name}` is a port of `{other}` already"))
                .code("port-in-use")
                .on(address, key)
                .related(Place::of(&other, "ports"), "in use here")
                .help("take it out of one of them, or declare another port"),
        );
        return;
    }
    port.server = Some(server.clone());
    order.push(id);
}

pub(super) fn one_only(place: &Place, what: &str, problems: &mut Problems<'_>) {
    let error = Diagnostic::error(format!("{what} can belong to one server only"));
    problems.push(error.placed(place.clone()).code("one-server-only").help("leave `count` out, or take it out here"));
}

/// The short way to one fixed address: it goes to the port on whose network it lies, which has of the other IP version what
/// any port has.
fn fixed_ip(
    address: &Address,
    written: &ServerSpec,
    fixed: IpAddr,
    networks: &BTreeMap<Name, Network>,
    inline: &mut [Port],
    problems: &mut Problems<'_>,
) {
    let place = Place::of(address, "fixed_ip");
    if written.count.is_some() {
        one_only(&place, &format!("the address {fixed}"), problems);
        return;
    }
    if written.ports.is_some() {
        problems.push(
            Diagnostic::error("with `ports`, an address belongs to one of them")
                .code("fixed-ip-and-ports")
                .on(address, "fixed_ip")
                .help(format!("write it there: `fixed_ips = [\"{fixed}\"]`")),
        );
        return;
    }
    let on: Vec<&Network> = inline.iter().filter_map(|port| networks.get(&port.network)).collect();
    let home = on.iter().position(|network| network.subnets.iter().any(|subnet| subnet.cidr.contains(&fixed)));
    if let Some((network, port)) = home.and_then(|home| Some((*on.get(home)?, inline.get_mut(home)?))) {
        if address_is_possible(fixed, None, network, &place, problems) {
            let rest = usual(network, &port.declared.place(""), &[IpVersion::of(fixed)]);
            port.requests = vec![Request { wanted: Wanted::Address(fixed), place }];
            // IPv4 comes first, as in any port.
            let at = if fixed.is_ipv4() { 1 } else { 0 };
            port.requests.splice(at..at, rest);
        }
        return;
    }
    let subnets: Vec<String> = on.iter().flat_map(|it| &it.subnets).map(|subnet| subnet.cidr.to_string()).collect();
    // Without a subnet there is another problem.
    if !subnets.is_empty() {
        problems.push(
            Diagnostic::error(format!("{fixed} lies in no subnet of the server's networks"))
                .code("address-outside-network")
                .on(address, "fixed_ip")
                .help(format!("use an address in {}", subnets.join(" or "))),
        );
    }
}
