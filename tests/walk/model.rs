//! The spec as the walk knows it, and the edits a person makes to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;

use crate::dice::Dice;

pub const PROJECT: &str = "walk";

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub networks: BTreeMap<String, Network>,
    pub images: BTreeMap<String, Image>,
    pub flavors: BTreeMap<String, Flavor>,
    pub servers: BTreeMap<String, Server>,
}

#[derive(Clone, Debug, Default)]
pub struct Network {
    pub forward: usize,
    pub mtu: Option<u32>,
    pub bridge: Option<String>,
    pub domain: Option<String>,
    pub subnets: Vec<Subnet>,
}

#[derive(Clone, Debug)]
pub struct Subnet {
    pub name: String,
    pub cidr: Ipv4Net,
    pub gateway: Gateway,
    pub pool: Option<(Ipv4Addr, Ipv4Addr)>,
    pub dns: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gateway {
    Unsaid,
    None,
    At(Ipv4Addr),
}

#[derive(Clone, Debug)]
pub struct Image {
    /// `disk.qcow2` or `disk.raw`, if it has one.
    pub disk: Option<&'static str>,
    pub kernel: bool,
    pub initrd: bool,
    pub cmdline: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Flavor {
    pub vcpus: u32,
    pub ram: u64,
    pub disk: u64,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub image: String,
    pub flavor: String,
    pub networks: Vec<String>,
    pub fixed: Option<Ipv4Addr>,
    pub on: bool,
    pub count: Option<u32>,
}

pub const FORWARD: [&str; 3] = ["nat", "routed", "isolated"];
const NETWORKS: [&str; 4] = ["a", "b", "private", "a-very-long-name-of-a-network-as-long-as-can-be-63-characters-x"];
const SERVERS: [&str; 6] = ["web", "db", "null", "ignore", "a", "x-1"];
const BRIDGES: [&str; 3] = ["br-one", "br-two", "br0"];

impl Subnet {
    /// The address at this number, if a host may have it.
    fn host(&self, number: usize) -> Ipv4Addr {
        let size = 1_u32 << (32 - self.cidr.prefix_len());
        let number = 1 + u32::try_from(number).expect("small") % (size - 2);
        Ipv4Addr::from(u32::from(self.cidr.network()) + number)
    }

    fn random(dice: &mut Dice, model: &Model) -> Self {
        // Among few, so that they meet those that are gone or are to go.
        let free: Vec<usize> = (0..6)
            .filter(|third| {
                !model
                    .networks
                    .values()
                    .flat_map(|it| &it.subnets)
                    .any(|it| usize::from(it.cidr.addr().octets()[2]) == *third)
            })
            .collect();
        let third = u8::try_from(dice.pick(free).unwrap_or(9)).expect("small");
        let prefix = dice.pick([24, 28, 29, 30]).expect("some");
        let cidr = Ipv4Net::new(Ipv4Addr::new(10, 77, third, 0), prefix).expect("a prefix");
        Self { name: format!("sub-{}", dice.below(1000)), cidr, gateway: Gateway::Unsaid, pool: None, dns: None }
    }
}

impl Model {
    /// One network, one server.
    pub fn first() -> Self {
        let image = |disk, kernel| Image { disk, kernel, initrd: kernel, cmdline: None };
        let mut model = Self::default();
        model.images.insert("alpha".into(), image(Some("disk.qcow2"), false));
        model.images.insert("beta".into(), image(Some("disk.raw"), true));
        model.images.insert("bare".into(), image(None, true));
        model.flavors.insert("small".into(), Flavor { vcpus: 1, ram: 64, disk: 16 });
        model.flavors.insert("large".into(), Flavor { vcpus: 2, ram: 96, disk: 24 });
        let cidr = "10.77.0.0/24".parse().expect("a network");
        let subnet = Subnet { name: "sub".into(), cidr, gateway: Gateway::Unsaid, pool: None, dns: None };
        model.networks.insert("a".into(), Network { subnets: vec![subnet], ..Network::default() });
        model.servers.insert(
            "web".into(),
            Server {
                image: "alpha".into(),
                flavor: "small".into(),
                networks: vec!["a".into()],
                fixed: None,
                on: false,
                count: None,
            },
        );
        model
    }

    /// Each server there is to be, by its own name.
    pub fn each_server(&self) -> BTreeMap<String, &Server> {
        let mut each = BTreeMap::new();
        for (name, server) in &self.servers {
            match server.count {
                None => drop(each.insert(name.clone(), server)),
                Some(count) => each.extend((1..=count).map(|number| (format!("{name}-{number}"), server))),
            }
        }
        each
    }

    /// One edit, in words; none if there was nothing to do it to.
    pub fn edit(&mut self, dice: &mut Dice) -> Option<String> {
        let before = format!("{self:?}");
        let said = match dice.below(10) {
            0..3 => self.edit_networks(dice),
            3..6 => self.edit_network(dice),
            6 => self.edit_sizes(dice),
            7 => self.edit_servers(dice),
            _ => self.edit_server(dice),
        }?;
        (before != format!("{self:?}")).then_some(said)
    }

    fn edit_networks(&mut self, dice: &mut Dice) -> Option<String> {
        let name = dice.pick(NETWORKS)?.to_owned();
        let other = dice.pick(self.networks.keys().cloned())?;
        match dice.below(5) {
            0 if !self.networks.contains_key(&name) => {
                let forward = dice.below(3);
                let subnets = vec![Subnet::random(dice, self)];
                self.networks.insert(name.clone(), Network { forward, subnets, ..Network::default() });
                Some(format!("add network {name}"))
            }
            1 => {
                self.networks.remove(&name)?;
                for server in self.servers.values_mut() {
                    server.networks.retain(|network| *network != name);
                }
                self.servers.retain(|_, server| !server.networks.is_empty());
                Some(format!("remove network {name}"))
            }
            2 if !self.networks.contains_key(&name) => {
                let network = self.networks.remove(&other)?;
                self.networks.insert(name.clone(), network);
                for network in self.servers.values_mut().flat_map(|server| &mut server.networks) {
                    if *network == other {
                        network.clone_from(&name);
                    }
                }
                Some(format!("rename network {other} to {name}"))
            }
            3 if self.networks.contains_key(&name) => {
                let bridge = self.networks.get(&other)?.bridge.clone();
                let network = self.networks.get_mut(&name)?;
                let mine = std::mem::replace(&mut network.bridge, bridge);
                self.networks.get_mut(&other)?.bridge = mine;
                Some(format!("swap the bridges of {other} and {name}"))
            }
            4 if self.networks.contains_key(&name) => {
                let subnets = std::mem::take(&mut self.networks.get_mut(&other)?.subnets);
                let mine = std::mem::replace(&mut self.networks.get_mut(&name)?.subnets, subnets);
                self.networks.get_mut(&other)?.subnets.extend(mine);
                Some(format!("swap the subnets of {other} and {name}"))
            }
            _ => None,
        }
    }

    fn edit_network(&mut self, dice: &mut Dice) -> Option<String> {
        let name = dice.pick(self.networks.keys().cloned())?;
        let fresh = Subnet::random(dice, self);
        let network = self.networks.get_mut(&name)?;
        let index = dice.below(network.subnets.len().max(1));
        let what = match dice.below(11) {
            0 => {
                network.forward = dice.below(3);
                "forward"
            }
            1 => {
                network.mtu = dice.pick([None, Some(1500), Some(1400), Some(9000), Some(1280)])?;
                "mtu"
            }
            2 => {
                network.bridge = dice.pick(BRIDGES).map(str::to_owned).filter(|_| !dice.once_in(3));
                "bridge"
            }
            3 => {
                network.domain = dice.pick([None, Some("lab.internal".to_owned()), Some("local".to_owned())])?;
                "domain"
            }
            4 if network.subnets.len() < 3 => {
                network.subnets.push(fresh);
                "another subnet"
            }
            5 => {
                network.subnets.remove(index.min(network.subnets.len().checked_sub(1)?));
                "a subnet less"
            }
            6 => {
                *network.subnets.get_mut(index)? = fresh;
                "another subnet in place"
            }
            7 => {
                let name = network.subnets.get(index)?.name.clone();
                *network.subnets.get_mut(index)? = Subnet { name, ..fresh };
                "cidr"
            }
            8 => {
                let subnet = network.subnets.get_mut(index)?;
                let at = subnet.host(dice.below(5));
                subnet.gateway = dice.pick([Gateway::Unsaid, Gateway::None, Gateway::At(at)])?;
                "gateway"
            }
            9 => {
                let subnet = network.subnets.get_mut(index)?;
                let first = dice.below(6);
                let ends = (subnet.host(first), subnet.host(first + dice.below(8)));
                subnet.pool = dice.pick([None, Some(ends)])?.filter(|(first, last)| first <= last);
                "pools"
            }
            _ => {
                network.subnets.get_mut(index)?.dns = dice.pick([None, Some(Ipv4Addr::new(192, 0, 2, 53))])?;
                "dns"
            }
        };
        Some(format!("{what} of network {name}"))
    }

    fn edit_sizes(&mut self, dice: &mut Dice) -> Option<String> {
        if dice.once_in(4) {
            let (name, image) = dice.pick(self.images.iter_mut())?;
            if dice.once_in(2) {
                image.initrd = image.kernel && !image.initrd;
            } else if image.kernel {
                image.cmdline = dice.pick([None, Some("quiet a=\\\"<b>&'c'\\\"".to_owned())])?;
            }
            return Some(format!("kernel of image {name}"));
        }
        let (name, flavor) = dice.pick(self.flavors.iter_mut())?;
        match dice.below(4) {
            0 => flavor.vcpus = 1 + u32::try_from(dice.below(3)).ok()?,
            1 => flavor.ram = dice.pick([64, 80, 128])?,
            2 => flavor.disk += dice.pick([1, 8])?,
            // Refused where a disk is there already.
            _ => flavor.disk = dice.pick([4, 12, 16])?,
        }
        Some(format!("flavor {name}"))
    }

    fn edit_servers(&mut self, dice: &mut Dice) -> Option<String> {
        let name = dice.pick(SERVERS)?.to_owned();
        match dice.below(3) {
            0 => {
                self.servers.remove(&name)?;
                Some(format!("remove server {name}"))
            }
            1 if self.servers.contains_key(&name) => {
                let other = dice.pick(SERVERS)?.to_owned();
                if self.servers.contains_key(&other) {
                    return None;
                }
                let server = self.servers.remove(&name)?;
                self.servers.insert(other.clone(), server);
                Some(format!("rename server {name} to {other}"))
            }
            _ if self.servers.contains_key(&name) => None,
            _ => {
                let server = Server {
                    image: dice.pick(self.images.keys().cloned())?,
                    flavor: dice.pick(self.flavors.keys().cloned())?,
                    networks: vec![dice.pick(self.networks.keys().cloned())?],
                    fixed: None,
                    on: false,
                    count: dice.pick([None, None, Some(1), Some(2), Some(3)])?,
                };
                self.servers.insert(name.clone(), server);
                Some(format!("add server {name}"))
            }
        }
    }

    fn edit_server(&mut self, dice: &mut Dice) -> Option<String> {
        let name = dice.pick(self.servers.keys().cloned())?;
        let other = dice.pick(self.servers.keys().cloned())?;
        let network = dice.pick(self.networks.keys().cloned())?;
        let on = self.servers.values().any(|server| server.on);
        let server = self.servers.get_mut(&name)?;
        let what = match dice.below(10) {
            0 => {
                server.image = dice.pick(self.images.keys().cloned())?;
                "image"
            }
            1 => {
                server.flavor = dice.pick(self.flavors.keys().cloned())?;
                "flavor"
            }
            2 => {
                server.networks.rotate_left(1);
                "order of networks"
            }
            3 if !server.networks.contains(&network) => {
                let at = dice.below(server.networks.len() + 1);
                server.networks.insert(at, network);
                "another network"
            }
            4 if server.networks.len() > 1 => {
                server.networks.remove(dice.below(server.networks.len()));
                "a network less"
            }
            5 if server.fixed.is_none() && server.count.is_none() => {
                let home = dice.pick(server.networks.iter().flat_map(|it| &self.networks[it].subnets))?;
                server.fixed = Some(home.host(dice.below(8)));
                "fixed_ip"
            }
            6 => {
                server.fixed = None;
                "no fixed_ip"
            }
            7 => {
                let fixed = std::mem::take(&mut server.fixed);
                let mine = std::mem::replace(&mut self.servers.get_mut(&other)?.fixed, fixed);
                self.servers.get_mut(&name)?.fixed = mine;
                "swapped fixed_ip"
            }
            8 => {
                server.count = dice.pick([None, Some(0), Some(1), Some(2), Some(4)])?;
                "count"
            }
            // One at a time, and none that would boot: a kernel of ours is no kernel.
            _ => {
                server.on = !on && server.image == "alpha" && server.count.is_none() && !server.on;
                "power"
            }
        };
        let server = self.servers.get_mut(&name)?;
        server.on &= server.image == "alpha" && server.count.is_none();
        Some(format!("{what} of server {name}"))
    }

    /// It as TOML, with its images in this directory.
    pub fn to_toml(&self, data: &Path, images: &Path) -> String {
        let mut text = format!(
            "novella = 1\n[project]\nname = \"{PROJECT}\"\n[host.local]\nvirt_type = \"qemu\"\ncpu_allocation_ratio = 1000\ntrash_ttl = \"0\"\n\
             data_dir = \"{}\"\n",
            data.display()
        );
        let mut subnets = Vec::new();
        for (name, network) in &self.networks {
            let _ = writeln!(text, "[network.{name}]\nforward = \"{}\"", FORWARD[network.forward]);
            let _ = network.mtu.map(|mtu| writeln!(text, "mtu = {mtu}"));
            let _ = network.bridge.as_ref().map(|bridge| writeln!(text, "bridge = \"{bridge}\""));
            let _ = network.domain.as_ref().map(|domain| writeln!(text, "domain = \"{domain}\""));
            subnets.extend(network.subnets.iter().map(|subnet| (name, subnet)));
        }
        for (network, subnet) in subnets {
            let _ = writeln!(text, "[subnet.{}]\nnetwork = \"{network}\"\ncidr = \"{}\"", subnet.name, subnet.cidr);
            match subnet.gateway {
                Gateway::Unsaid => {}
                Gateway::None => text.push_str("gateway = \"none\"\n"),
                Gateway::At(address) => drop(writeln!(text, "gateway = \"{address}\"")),
            }
            let _ = subnet.pool.map(|(first, last)| writeln!(text, "pools = [\"{first}-{last}\"]"));
            let _ = subnet.dns.map(|dns| writeln!(text, "dns = [\"{dns}\"]"));
        }
        for (name, image) in &self.images {
            let _ = writeln!(text, "[image.{name}]");
            if let Some(disk) = image.disk {
                let format = disk.rsplit('.').next().unwrap_or_default();
                let _ = writeln!(text, "source = \"{}\"\nformat = \"{format}\"", images.join(disk).display());
            }
            for (key, there) in [("kernel", image.kernel), ("initrd", image.kernel && image.initrd)] {
                if there {
                    let _ = writeln!(text, "{key} = \"{}\"", images.join(key).display());
                }
            }
            let _ = image.cmdline.as_ref().map(|cmdline| writeln!(text, "cmdline = \"{cmdline}\""));
        }
        for (name, Flavor { vcpus, ram, disk }) in &self.flavors {
            let _ = writeln!(text, "[flavor.{name}]\nvcpus = {vcpus}\nram = \"{ram} MiB\"\ndisk = \"{disk} MiB\"");
        }
        for (name, server) in &self.servers {
            let Server { image, flavor, networks, on, .. } = server;
            let power = if *on { "on" } else { "off" };
            let _ = writeln!(
                text,
                "[server.{name}]\nimage = \"{image}\"\nflavor = \"{flavor}\"\nnetworks = {networks:?}\npower = \"{power}\"\n\
                 shutdown_timeout = 0"
            );
            let _ = server.fixed.map(|fixed| writeln!(text, "fixed_ip = \"{fixed}\""));
            let _ = server.count.map(|count| writeln!(text, "count = {count}"));
        }
        text
    }
}
