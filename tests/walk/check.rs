//! Whether what is there is what the spec says, worked out from the spec by other means than novella's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::model::{Gateway, Model, Network, PROJECT, Server};
use crate::world::{World, string};

/// What was there at the last look, and is to be kept.
#[derive(Default)]
pub struct Memory {
    /// MAC and address, by server and network.
    pub ports: BTreeMap<(String, String), (String, String)>,
    /// The inode of the disk and the image it was made from, by server.
    pub disks: BTreeMap<String, (u64, String)>,
}

/// All that is wrong, a line each.
pub fn check(model: &Model, world: &World, memory: &mut Memory) -> Vec<String> {
    let mut wrong = Vec::new();
    foreign(world, &mut wrong);
    let mut devices = BTreeMap::new();
    for (name, link) in world.bridges() {
        if devices.insert(name.clone(), string(&link["ifname"])).is_some() {
            wrong.push(format!("two bridges for network {name}"));
        }
        if !model.networks.contains_key(&name) {
            wrong.push(format!("the bridge of network {name} is left"));
        }
    }
    for (name, network) in &model.networks {
        let Some(device) = devices.get(name) else {
            wrong.push(format!("network {name} has no bridge"));
            continue;
        };
        bridge(name, network, device, world, &mut wrong);
        dnsmasq(name, network, device, model, world, &mut wrong);
    }
    if world.dnsmasqs.len() != model.networks.len() {
        wrong.push(format!("{} networks, and these dnsmasqs: {:#?}", model.networks.len(), world.dnsmasqs));
    }
    rules(model, &devices, world, &mut wrong);
    let servers = model.each_server();
    for name in world.domains.keys().filter_map(|name| name.strip_prefix("walk.")) {
        if !servers.contains_key(name) {
            wrong.push(format!("domain {name} is left"));
        }
    }
    for (name, server) in &servers {
        domain(name, server, model, &devices, world, &mut wrong);
        disk(name, server, model, world, memory, &mut wrong);
    }
    memory.disks.retain(|name, _| servers.contains_key(name));
    ports(model, &servers, world, memory, &mut wrong);
    files(model, &servers, world, &mut wrong);
    wrong
}

/// All that is wrong when nothing is to be left.
pub fn check_empty(world: &World) -> Vec<String> {
    // Whole images stay in the cache.
    let is_kept = |file: &&String| *file == "base" || file.starts_with("base/") && !file.contains(".part");
    let left = world.files.iter().filter(|file| !is_kept(file));
    let mut wrong: Vec<String> = left.map(|file| format!("{file} is left")).collect();
    foreign(world, &mut wrong);
    wrong.extend(world.bridges().into_iter().map(|(name, _)| format!("the bridge of network {name} is left")));
    wrong.extend(world.dnsmasqs.iter().map(|it| format!("{it:?} is left")));
    wrong.extend(world.domains.keys().filter(|it| it.starts_with("walk.")).map(|it| format!("{it} is left")));
    if world.ruleset.contains("novella") {
        wrong.push(format!("rules are left: {}", world.ruleset));
    }
    for link in &world.links {
        if !["lo", "br0", "ext0"].contains(&string(&link["ifname"]).as_str()) {
            wrong.push(format!("{} is left", link["ifname"]));
        }
    }
    wrong
}

/// What is not ours stays as it is.
fn foreign(world: &World, wrong: &mut Vec<String>) {
    for (name, addresses) in world.addresses.iter().filter(|it| it.0 != "ext0") {
        wrong.extend(
            addresses.iter().filter(|it| it.starts_with("10.77.5.")).map(|it| format!("{name} has {it}, as ext0")),
        );
    }
    for (name, address) in [("br0", "10.99.0.1/24"), ("ext0", "10.77.5.1/24")] {
        if world.addresses.get(name).is_none_or(|it| !it.contains(address)) {
            wrong.push(format!("{name}, which is not ours, has lost {address}"));
        }
    }
    if !world.ruleset.contains("table inet foreign") {
        wrong.push("a table that is not ours is gone".into());
    }
    if !world.domains.contains_key("foreign") {
        wrong.push("a domain that is not ours is gone".into());
    }
}

/// The address of the host on a subnet, where it is a router; none where it takes one that is free.
fn router(network: &Network, gateway: Gateway, cidr: ipnet::Ipv4Net) -> Option<Ipv4Addr> {
    let isolated = network.forward == 2;
    match gateway {
        Gateway::At(address) => Some(address).filter(|_| !isolated),
        Gateway::Unsaid => Some(Ipv4Addr::from(u32::from(cidr.network()) + 1)).filter(|_| !isolated),
        Gateway::None => None,
    }
}

fn bridge(name: &str, network: &Network, device: &str, world: &World, wrong: &mut Vec<String>) {
    let link = world.links.iter().find(|link| link["ifname"] == device).expect("listed");
    let mut say = |what: &str, is: String| wrong.push(format!("{what} of {device} (network {name}) is {is}"));
    match &network.bridge {
        Some(wanted) if wanted != device => say("the name", device.into()),
        None if !device.starts_with("brq") => say("the name", device.into()),
        _ => {}
    }
    if link["mtu"] != network.mtu.unwrap_or(1500) {
        say("the mtu", link["mtu"].to_string());
    }
    if !link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP")) {
        say("a flag", "down".into());
    }
    let mut addresses: BTreeSet<String> = world.addresses.get(device).cloned().unwrap_or_default();
    for subnet in &network.subnets {
        let found = addresses.iter().find(|it| {
            let net: ipnet::Ipv4Net = it.parse().expect("an address");
            net.trunc() == subnet.cidr
                && router(network, subnet.gateway, subnet.cidr).is_none_or(|router| router == net.addr())
                && !world.ports.iter().any(|((_, on), (_, port))| on == name && *port == net.addr().to_string())
        });
        match found.cloned() {
            Some(found) => drop(addresses.remove(&found)),
            None => say("no address", format!("right for {}: {addresses:?}", subnet.cidr)),
        }
    }
    if !addresses.is_empty() {
        say("one address", format!("too many: {addresses:?}"));
    }
}

fn dnsmasq(name: &str, network: &Network, device: &str, model: &Model, world: &World, wrong: &mut Vec<String>) {
    let pid_file = format!("/networks/{name}/pid ");
    let ours: Vec<&String> = world.dnsmasqs.iter().map(|it| &it.1).filter(|line| line.contains(&pid_file)).collect();
    let [line] = ours[..] else {
        return wrong.push(format!("network {name} has these dnsmasqs: {ours:?}"));
    };
    let mut needs = vec![
        format!("--interface={device} "),
        format!("--domain={} ", network.domain.as_deref().unwrap_or("novella.internal")),
        format!("option:mtu,{} ", network.mtu.unwrap_or(1500)),
    ];
    needs.extend(network.subnets.iter().map(|it| format!("{},static,{}", it.cidr.network(), it.cidr.netmask())));
    wrong.extend(
        needs.iter().filter(|it| !line.contains(*it)).map(|it| format!("dnsmasq of {name} lacks {it}: {line}")),
    );
    if line.matches("--dhcp-range").count() != network.subnets.len() {
        wrong.push(format!("dnsmasq of {name} serves other subnets: {line}"));
    }
    for ((server, on), (mac, _)) in world.ports.iter().filter(|((_, on), _)| on == name) {
        if !model.each_server().get(server).is_some_and(|server| server.networks.contains(on)) {
            wrong.push(format!("the host entry {server} {mac} on {on} is left"));
        }
    }
}

fn rules(model: &Model, devices: &BTreeMap<String, String>, world: &World, wrong: &mut Vec<String>) {
    let table = world.ruleset.split_once("table inet novella-walk {").map(|it| it.1);
    let table = table.and_then(|it| it.split_once("\n}")).map(|it| it.0);
    if table.is_some() == model.networks.is_empty() {
        return wrong.push(format!("the table is there: {}", table.is_some()));
    }
    let table = table.unwrap_or_default();
    let mut wanted = 0;
    for (name, network) in &model.networks {
        let Some(device) = devices.get(name) else { continue };
        let rules = match network.forward {
            0 => {
                let mut rules = vec![format!("oifname \"{device}\" drop"), format!("oifname \"{device}\" ct state")];
                rules.extend(network.subnets.iter().map(|it| format!("ip saddr {0} ip daddr != {0}", it.cidr)));
                rules
            }
            1 => vec![],
            _ => {
                let services = ["udp dport 67", "udp dport 53", "tcp dport 53", "icmp type echo-request"];
                let mut rules: Vec<String> =
                    services.iter().map(|it| format!("iifname \"{device}\" {it} accept")).collect();
                rules.push(format!("iifname \"{device}\" ct state established,related accept"));
                // Both on the way through the host and to it.
                rules.extend([format!("iifname \"{device}\" drop"), format!("iifname \"{device}\" drop")]);
                rules.push(format!("oifname \"{device}\" drop"));
                rules
            }
        };
        // Neighbours may talk.
        wanted += rules.len() + usize::from(network.forward != 1);
        wrong
            .extend(rules.iter().filter(|rule| !table.contains(*rule)).map(|rule| format!("no rule {rule}:\n{table}")));
    }
    let found = table.matches(" comment ").count();
    if found != wanted {
        wrong.push(format!("{wanted} rules are right, and there are {found}:\n{table}"));
    }
}

fn domain(
    name: &str,
    server: &Server,
    model: &Model,
    devices: &BTreeMap<String, String>,
    world: &World,
    wrong: &mut Vec<String>,
) {
    let Some((state, xml)) = world.domains.get(&format!("walk.{name}")) else {
        return wrong.push(format!("server {name} has no domain"));
    };
    let mut say = |what: String| wrong.push(format!("domain {name}: {what}"));
    if state.as_str() != if server.on { "running" } else { "shut off" } {
        say(format!("is {state}"));
    }
    let document = roxmltree::Document::parse(xml).expect("XML");
    let element = |tag: &str| document.descendants().find(|node| node.has_tag_name(tag));
    let text = |tag: &str| element(tag).and_then(|node| node.text().map(str::to_owned));
    let flavor = &model.flavors[&server.flavor];
    for (tag, wanted) in [("vcpu", flavor.vcpus.to_string()), ("memory", (flavor.ram * 1024).to_string())] {
        if text(tag).as_ref() != Some(&wanted) {
            say(format!("{tag} is {:?}, not {wanted}", text(tag)));
        }
    }
    let image = &model.images[&server.image];
    for (tag, wanted) in [("kernel", image.kernel), ("initrd", image.kernel && image.initrd)] {
        if text(tag).is_some_and(|path| std::path::Path::new(&path).is_file()) != wanted {
            say(format!("{tag} is {:?}", text(tag)));
        }
    }
    let cmdline = image.cmdline.as_deref().map_or("root=/dev/vda console=ttyS0".into(), |it| it.replace('\\', ""));
    if image.kernel && text("cmdline").as_deref() != Some(&cmdline) {
        say(format!("cmdline is {:?}", text("cmdline")));
    }
    let attribute = |node: roxmltree::Node, tag: &str, name: &str| {
        node.children().find(|it| it.has_tag_name(tag)).and_then(|it| it.attribute(name)).unwrap_or("none").to_owned()
    };
    let disks: Vec<_> = document.descendants().filter(|node| node.has_tag_name("disk")).collect();
    let [disk] = disks[..] else { return say(format!("has {} disks", disks.len())) };
    if !attribute(disk, "source", "file").ends_with(&format!("/walk/instances/{name}/disk.qcow2")) {
        say("has another disk".into());
    }
    let nics: Vec<_> = document.descendants().filter(|node| node.has_tag_name("interface")).collect();
    let found: Vec<_> = nics
        .iter()
        .map(|it| (attribute(*it, "mac", "address"), attribute(*it, "source", "bridge"), attribute(*it, "mtu", "size")))
        .collect();
    let wanted: Vec<_> = server
        .networks
        .iter()
        .map(|network| {
            let mac = world.ports.get(&(name.to_owned(), network.clone())).map(|it| it.0.clone()).unwrap_or_default();
            let device = devices.get(network).cloned().unwrap_or_default();
            (mac, device, model.networks[network].mtu.unwrap_or(1500).to_string())
        })
        .collect();
    if found != wanted {
        say(format!("has the interfaces {found:?}, not {wanted:?}"));
    }
    if server.on {
        for nic in nics {
            let tap = attribute(nic, "target", "dev");
            let link = world.links.iter().find(|link| link["ifname"] == tap.as_str());
            let bridge = attribute(nic, "source", "bridge");
            if link.is_none_or(|link| link["master"] != bridge.as_str()) {
                say(format!("{tap} is not in {bridge}"));
            }
        }
    }
}

fn disk(name: &str, server: &Server, model: &Model, world: &World, memory: &mut Memory, wrong: &mut Vec<String>) {
    let (Some(disk), Some(inode)) = (world.disks.get(name), world.inodes.get(name)) else {
        return wrong.push(format!("server {name} has no disk"));
    };
    if disk["format"] != "qcow2" || disk["virtual-size"] != (model.flavors[&server.flavor].disk << 20) {
        wrong.push(format!("disk of {name} is {} {}", disk["format"], disk["virtual-size"]));
    }
    let base = disk["full-backing-filename"].as_str();
    let suffix = model.images[&server.image].disk.map(|it| it.replace("disk", ""));
    let right = match (&suffix, base) {
        (None, None) => true,
        (Some(suffix), Some(base)) => base.ends_with(suffix.as_str()) && std::path::Path::new(base).is_file(),
        _ => false,
    };
    if !right {
        wrong.push(format!("disk of {name} lies over {base:?}"));
    }
    let now = (*inode, server.image.clone());
    if memory.disks.insert(name.to_owned(), now.clone()).is_some_and(|before| before.1 == now.1 && before != now) {
        wrong.push(format!("the disk of {name} was made anew, and what was on it is lost"));
    }
}

fn ports(
    model: &Model,
    servers: &BTreeMap<String, &Server>,
    world: &World,
    memory: &mut Memory,
    wrong: &mut Vec<String>,
) {
    let mut addresses = BTreeSet::new();
    let mut macs = BTreeSet::new();
    for (name, server) in servers {
        let mut has = Vec::new();
        for on in &server.networks {
            let key = (name.clone(), on.clone());
            let Some((mac, address)) = world.ports.get(&key) else {
                wrong.push(format!("{name} has no host entry on {on}"));
                continue;
            };
            if !addresses.insert(address.clone()) || !macs.insert((on, mac)) {
                wrong.push(format!("{mac} {address} of {name} on {on} is another's as well"));
            }
            let ip: Ipv4Addr = address.parse().expect("an address");
            let network = &model.networks[on];
            let named = format!("{address} {name}.{}\n", network.domain.as_deref().unwrap_or("novella.internal"));
            if world.names.get(&key) != Some(&named) {
                wrong.push(format!("the DNS of {on} knows {name} as {:?}, not {named:?}", world.names.get(&key)));
            }
            // Whether a host may have an address, and the host and the router do not.
            let possible = |ip: Ipv4Addr| {
                network.subnets.iter().any(|subnet| {
                    let cidr = subnet.cidr;
                    let router = match subnet.gateway {
                        Gateway::At(address) => Some(address),
                        _ => router(network, subnet.gateway, cidr),
                    };
                    cidr.contains(&ip) && ip != cidr.network() && ip != cidr.broadcast() && router != Some(ip)
                })
            };
            if !possible(ip) {
                wrong.push(format!("{name} on {on} cannot have {address}"));
            }
            if let Some((mac_before, before)) = memory.ports.get(&key) {
                if mac_before != mac {
                    wrong.push(format!("{name} on {on} had the MAC {mac_before} and has {mac}"));
                }
                if before != address && server.fixed != Some(ip) && before.parse().is_ok_and(possible) {
                    wrong.push(format!("{name} on {on} had {before} and has {address}"));
                }
            }
            has.push(ip);
        }
        if server.fixed.is_some_and(|fixed| !has.contains(&fixed)) {
            wrong.push(format!("{name} has {has:?}, not {:?}", server.fixed));
        }
    }
    memory.ports.clone_from(&world.ports);
}

/// No file, but those that are to be.
fn files(model: &Model, servers: &BTreeMap<String, &Server>, world: &World, wrong: &mut Vec<String>) {
    let mut bases = 0;
    for file in &world.files {
        let parts: Vec<&str> = file.split('/').collect();
        let right = match parts[..] {
            ["base" | "instances" | "networks"] => true,
            ["base", base] => {
                bases += usize::from([".qcow2", ".raw", ".kernel", ".initrd"].iter().any(|it| base.ends_with(it)));
                !base.contains(".part")
            }
            ["instances", server] => servers.contains_key(server),
            ["instances", _, file] => matches!(file, "disk.qcow2" | "console.log"),
            ["networks", network] => model.networks.contains_key(network),
            ["networks", _, file] => {
                matches!(file, "dhcp.json" | "hosts" | "leases" | "log" | "macs.conf" | "names" | "options" | "pid")
            }
            ["networks", _, "hosts", _] | ["networks", _, "options", "network.options"] => true,
            ["networks", network, "names", server] => world.ports.contains_key(&(server.into(), network.into())),
            _ => false,
        };
        if !right {
            wrong.push(format!("{PROJECT}/{file} is left"));
        }
    }
    let images = || model.images.values();
    let any = |has: bool| usize::from(has);
    let wanted = any(images().any(|it| it.disk == Some("disk.qcow2")))
        + any(images().any(|it| it.disk == Some("disk.raw")))
        + any(images().any(|it| it.kernel))
        + any(images().any(|it| it.kernel && it.initrd));
    // What was needed once stays in the cache.
    if bases < wanted {
        wrong.push(format!("{wanted} base images are needed, and there are {bases}: {:?}", world.files));
    }
}
