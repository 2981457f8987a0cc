//! Bridges, their addresses and their ports, over rtnetlink.
//!
//! A bridge is ours when its alias says so: `novella:<project>:network.<name>`. A link without it is never changed.

mod neighbours;
mod netlink;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv6Net};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
    Prop,
};
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec};

use self::netlink::Netlink;
use crate::address::Name;
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{bridge_key, link_mark};
use crate::blueprint::object::{Bridge, Claim};
use crate::host::HostError;
use crate::plan::world::Observed;
use crate::value::{Mac, Sha256};

// errno(3), as they are on Linux.
const EEXIST: i32 = 17;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;

/// The links of the host, and the bridges of one project among them.
pub struct Links {
    project: Name,
    netlink: Netlink,
}

/// What links there are, as far as others need to know: the taps of guests, and the bridges they are plugged into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkMap {
    taps: BTreeMap<String, Option<String>>,
}

impl LinkMap {
    /// The names of all tun and tap devices, whoever made them.
    pub fn taps(&self) -> impl Iterator<Item = &str> {
        self.taps.keys().map(String::as_str)
    }

    /// The bridge that a tap is plugged into: nothing if there is no such tap, `Some(None)` if it is in no bridge.
    pub fn master_of(&self, tap: &str) -> Option<Option<&str>> {
        self.taps.get(tap).map(Option::as_deref)
    }
}

impl Links {
    /// The links of the network namespace that the calling thread is in.
    ///
    /// # Errors
    /// When no netlink socket can be opened.
    pub fn new(project: &Name) -> Result<Self, HostError> {
        let netlink = Netlink::open().map_err(|error| failed("cannot open a netlink socket", error))?;
        Ok(Self { project: project.clone(), netlink })
    }

    /// Adds our bridges, and the names and networks that other links have taken. Taps are left to the caller, who knows
    /// which of them belong to our domains.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn observe(&self, into: &mut Observed) -> Result<LinkMap, HostError> {
        let links = self.links()?;
        let addresses = self.addresses()?;
        let names: BTreeMap<u32, &str> = links.iter().map(|link| (link.index, link.name.as_str())).collect();
        let mut map = LinkMap::default();
        for link in &links {
            if link.kind == Some(InfoKind::Tun) {
                let master = link.master.and_then(|index| names.get(&index)).map(|name| (*name).to_owned());
                map.taps.insert(link.name.clone(), master);
            } else if let Some(network) = self.network_of(link) {
                if link.name == self.unborn(&network) {
                    continue;
                }
                let facts = link.facts(&addresses);
                into.objects
                    .entry(bridge_key(&network))
                    // Two bridges of one network: neither is the one that is wanted, until all are gone but one.
                    .and_modify(|first| join_devices(first, &link.name))
                    .or_insert(facts);
            } else {
                let names = [&link.name].into_iter().chain(&link.other_names);
                into.foreign.extend(names.map(|name| Claim::Link(name.clone())));
                let theirs = addresses.iter().filter(|it| it.is_of(link.index) && !it.is_link_local());
                into.foreign_networks.extend(theirs.map(|it| (link.name.clone(), it.net)));
            }
        }
        Ok(map)
    }

    /// Makes the bridge of a network, or repairs what is not as it should be. A guest on the bridge does not notice: what
    /// is right is left alone, and what is new comes before what is old goes.
    ///
    /// # Errors
    /// When a link of that name is not ours, or the kernel refuses.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), HostError> {
        let device = valid(&bridge.device)?;
        let link = match self.link(device)? {
            Some(link) if link.name == device && self.is_bridge_of(&link, &bridge.network) => link,
            Some(_) => return Err(not_ours(device)),
            None => self.create(bridge)?,
        };
        self.repair(&link, bridge)
    }

    /// Removes every bridge of a network that carries our mark, whatever it is called.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_bridge(&self, network: &str) -> Result<(), HostError> {
        for link in self.links()? {
            if self.network_of(&link).is_some_and(|name| name.as_str() == network) {
                tracing::debug!(device = link.name, "removing bridge");
                self.delete(&link)?;
            }
        }
        Ok(())
    }

    /// Plugs a tap into a bridge of ours, gives it this MTU in bytes and sets it up. Nothing happens if it is so already.
    ///
    /// # Errors
    /// When there is no such tap or bridge, or the kernel refuses.
    pub fn plug(&self, tap: &str, bridge: &str, mtu: u32) -> Result<(), HostError> {
        let deed = || format!("cannot plug `{tap}` into bridge `{bridge}`");
        let missing = |name: &str| HostError::new(deed(), format!("there is no interface `{name}`"));
        let port = self.link(valid(tap)?)?.ok_or_else(|| missing(tap))?;
        let master = self.link(valid(bridge)?)?.ok_or_else(|| missing(bridge))?;
        if port.kind != Some(InfoKind::Tun) {
            return Err(HostError::new(deed(), format!("`{tap}` is not a tap")));
        }
        if self.network_of(&master).is_none() {
            return Err(HostError::new(deed(), format!("interface `{bridge}` is not novella's")));
        }
        if port.master == Some(master.index) && port.mtu == Some(mtu) && port.up {
            return Ok(());
        }
        tracing::debug!(tap, bridge, "plugging");
        let order = LinkUnspec::new_with_index(port.index).controller(master.index).mtu(mtu).up().build();
        self.netlink.change(RouteNetlinkMessage::SetLink(order)).map_err(|error| failed(deed(), error))
    }

    /// Makes a marked bridge with nothing else to it yet but its MAC address.
    ///
    /// The kernel takes no alias for a link that it is yet to make. So that no kill can leave a bridge that we would not
    /// know again, and no link of others can get our mark, the bridge is made and marked in one system call under a name
    /// that only it can have, and then renamed.
    fn create(&self, bridge: &Bridge) -> Result<Link, HostError> {
        let deed = || format!("cannot create bridge `{}`", bridge.device);
        tracing::debug!(device = bridge.device, network = %bridge.network, "creating bridge");
        let (mark, unborn) = (self.mark(&bridge.network), self.unborn(&bridge.network));
        let made = match self.link(&unborn)? {
            Some(left_over) => Some(left_over),
            None => {
                // The MTU is one off: a bridge stops following the MTU of its ports when its own is changed, and only then.
                let mtu = if bridge.mtu > 1280 { bridge.mtu - 1 } else { bridge.mtu + 1 };
                let new = LinkMessageBuilder::<LinkBridge>::new(&unborn)
                    .append_info_data(InfoBridge::StpState(BridgeStpState::Disabled))
                    .append_info_data(InfoBridge::ForwardDelay(0))
                    .address(bridge.mac.0.to_vec())
                    .mtu(mtu)
                    .build();
                let marked = LinkUnspec::new_with_name(&unborn).alias(mark).build();
                self.netlink
                    .create_and_change(RouteNetlinkMessage::NewLink(new), RouteNetlinkMessage::SetLink(marked))
                    .map_err(|error| failed(deed(), error))?;
                self.link(&unborn)?
            }
        };
        let Some(made) = made.filter(|link| self.is_bridge_of(link, &bridge.network)) else {
            return Err(not_ours(&unborn));
        };
        let renamed = LinkUnspec::new_with_index(made.index).name(bridge.device.clone()).build();
        match self.netlink.change(RouteNetlinkMessage::SetLink(renamed)) {
            Ok(()) => Ok(made),
            Err(error) => {
                self.delete(&made)?;
                Err(if error.raw_os_error() == Some(EEXIST) { not_ours(&bridge.device) } else { failed(deed(), error) })
            }
        }
    }

    /// The name of a bridge until it has its own. One that a kill has left there is no bridge yet: it is not observed, and
    /// made on from there.
    fn unborn(&self, network: &Name) -> String {
        format!("nv-{}", &Sha256::of(self.mark(network).as_bytes()).short()[..12])
    }

    /// Changes what differs, attribute by attribute.
    fn repair(&self, link: &Link, bridge: &Bridge) -> Result<(), HostError> {
        let set = |what: &str, order: LinkMessage| {
            tracing::debug!(device = bridge.device, "setting {what}");
            let order = if order.attributes.iter().any(|it| matches!(it, LinkAttribute::LinkInfo(_))) {
                RouteNetlinkMessage::NewLink(order)
            } else {
                RouteNetlinkMessage::SetLink(order)
            };
            self.netlink
                .change(order)
                .map_err(|error| failed(format!("cannot set {what} of bridge `{}`", bridge.device), error))
        };
        let attribute = || LinkUnspec::new_with_index(link.index);
        let option = |option| {
            let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(vec![option]))];
            attribute().append_extra_attribute(LinkAttribute::LinkInfo(info)).build()
        };
        // First, for the kernel takes no forward delay below 2 s while it runs STP.
        if link.stp != Some(false) {
            set("STP", option(InfoBridge::StpState(BridgeStpState::Disabled)))?;
        }
        if link.forward_delay != Some(0) {
            set("the forward delay", option(InfoBridge::ForwardDelay(0)))?;
        }
        if link.mac != Some(bridge.mac) {
            set("the MAC address", attribute().address(bridge.mac.0.to_vec()).build())?;
        }
        if link.mtu != Some(bridge.mtu) {
            set("the MTU", attribute().mtu(bridge.mtu).build())?;
        }
        let has_ipv6 = bridge.addresses.iter().any(|net| net.addr().is_ipv6());
        set_ipv6(&bridge.device, has_ipv6)?;
        self.repair_addresses(link.index, bridge)?;
        if !link.up {
            set("the state", attribute().up().build())?;
        }
        Ok(())
    }

    fn repair_addresses(&self, index: u32, bridge: &Bridge) -> Result<(), HostError> {
        let deed = |verb: &str, net: IpNet| format!("cannot {verb} address {net} of bridge `{}`", bridge.device);
        let mut wanted = bridge.addresses.clone();
        if wanted.iter().any(|net| net.addr().is_ipv6()) {
            wanted.push(link_local(bridge.mac));
        }
        let add = |present: &[HostAddress]| {
            for net in wanted.iter().filter(|net| !present.iter().any(|it| it.net == **net)) {
                let added = self.netlink.create(RouteNetlinkMessage::NewAddress(new_address(index, *net)));
                tolerate(added, EEXIST).map_err(|error| failed(deed("add", *net), error))?;
            }
            Ok(())
        };
        let present = self.addresses_of(index)?;
        add(&present)?;
        let mut removed = false;
        for surplus in present.into_iter().filter(|it| !wanted.contains(&it.net) && !it.is_link_local()) {
            let gone = self.netlink.change(RouteNetlinkMessage::DelAddress(surplus.message));
            tolerate(gone, EADDRNOTAVAIL).map_err(|error| failed(deed("remove", surplus.net), error))?;
            removed = true;
        }
        // With the first address of a subnet the kernel removes the others of it (`promote_secondaries`).
        if removed { add(&self.addresses_of(index)?) } else { Ok(()) }
    }

    fn delete(&self, link: &Link) -> Result<(), HostError> {
        let order = LinkUnspec::new_with_index(link.index).build();
        tolerate(self.netlink.change(RouteNetlinkMessage::DelLink(order)), ENODEV)
            .map_err(|error| failed(format!("cannot remove bridge `{}`", link.name), error))
    }

    fn link(&self, name: &str) -> Result<Option<Link>, HostError> {
        let question = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build());
        match self.netlink.get(question) {
            Ok(answer) => Ok(answer.into_iter().find_map(Link::read)),
            Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("cannot look up interface `{name}`"), error)),
        }
    }

    fn links(&self) -> Result<Vec<Link>, HostError> {
        let no_statistics = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
        let question = LinkMessageBuilder::<LinkUnspec>::new().append_extra_attribute(no_statistics).build();
        let answer = self
            .netlink
            .dump(RouteNetlinkMessage::GetLink(question))
            .map_err(|error| failed("cannot list the interfaces", error))?;
        Ok(answer.into_iter().filter_map(Link::read).collect())
    }

    fn addresses(&self) -> Result<Vec<HostAddress>, HostError> {
        // Of all families.
        let answer = self
            .netlink
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(|error| failed("cannot list the addresses", error))?;
        Ok(answer.into_iter().filter_map(HostAddress::read).collect())
    }

    fn addresses_of(&self, index: u32) -> Result<Vec<HostAddress>, HostError> {
        Ok(self.addresses()?.into_iter().filter(|it| it.is_of(index)).collect())
    }

    /// The alias of the bridge of a network.
    fn mark(&self, network: &Name) -> String {
        format!("{}network.{network}", link_mark(&self.project))
    }

    /// The network whose bridge a link is, if it carries our mark.
    fn network_of(&self, link: &Link) -> Option<Name> {
        let named = link.alias.as_deref()?.strip_prefix(&link_mark(&self.project))?;
        let network = named.strip_prefix("network.")?.parse().ok()?;
        (link.kind == Some(InfoKind::Bridge)).then_some(network)
    }

    fn is_bridge_of(&self, link: &Link, network: &Name) -> bool {
        self.network_of(link).as_ref() == Some(network)
    }
}

/// A link, as far as it matters here.
struct Link {
    index: u32,
    name: String,
    other_names: Vec<String>,
    alias: Option<String>,
    kind: Option<InfoKind>,
    master: Option<u32>,
    mac: Option<Mac>,
    mtu: Option<u32>,
    up: bool,
    stp: Option<bool>,
    /// In hundredths of a second.
    forward_delay: Option<u32>,
}

impl Link {
    fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else { return None };
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            other_names: Vec::new(),
            alias: None,
            kind: None,
            master: None,
            mac: None,
            mtu: None,
            up: message.header.flags.contains(LinkFlags::Up),
            stp: None,
            forward_delay: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::Address(octets) => link.mac = octets.try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = Some(mtu),
                LinkAttribute::PropList(properties) => {
                    link.other_names.extend(properties.into_iter().filter_map(|property| match property {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    }));
                }
                LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| link.read_info(info)),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind),
            LinkInfo::Data(InfoData::Bridge(options)) => {
                for option in options {
                    match option {
                        InfoBridge::StpState(state) => self.stp = Some(state != BridgeStpState::Disabled),
                        InfoBridge::ForwardDelay(delay) => self.forward_delay = Some(delay),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// What it is, in the words of [`Object::facts`](crate::blueprint::object::Object::facts).
    fn facts(&self, addresses: &[HostAddress]) -> Facts {
        let (own, given): (Vec<&HostAddress>, Vec<&HostAddress>) =
            addresses.iter().filter(|it| it.is_of(self.index)).partition(|it| it.is_link_local());
        let mut mine: Vec<IpNet> = given.iter().map(|it| it.net).collect();
        mine.sort();
        let has_ipv6 = mine.iter().any(|net| net.addr().is_ipv6());
        let needed = self.mac.map(link_local).filter(|_| has_ipv6);
        let missing = needed.filter(|net| own.iter().all(|it| it.net != *net));
        // Somebody has turned IPv6 on where the host has no part in it.
        let surplus = own.first().filter(|_| !has_ipv6);
        let state = match (missing, surplus) {
            _ if !self.up => "down".to_owned(),
            (Some(missing), _) => format!("up, without {missing}"),
            (None, Some(surplus)) => format!("up, with {}", surplus.net),
            (None, None) => "up".to_owned(),
        };
        let mine: Vec<String> = mine.iter().map(IpNet::to_string).collect();
        let facts = [
            ("device", Some(self.name.clone())),
            ("mac", self.mac.map(|mac| mac.to_string())),
            ("mtu", self.mtu.map(|mtu| mtu.to_string())),
            ("addresses", Some(mine.join(", "))),
            ("state", Some(state)),
            ("stp", self.stp.map(|on| if on { "on" } else { "off" }.to_owned())),
            ("forward_delay", self.forward_delay.map(seconds)),
        ];
        facts.into_iter().filter_map(|(name, value)| Some((Cow::Borrowed(name), value?))).collect()
    }
}

/// An IP address on a link other than loopback's own.
struct HostAddress {
    net: IpNet,
    message: AddressMessage,
}

impl HostAddress {
    fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        // IPv6 has a local address only where there is a peer; of IPv4, the other one is the peer's.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let only = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let address = local.or(only)?;
        if address == IpAddr::V6(Ipv6Addr::LOCALHOST) {
            return None;
        }
        let net = IpNet::new(address, message.header.prefix_len).ok()?;
        Some(Self { net, message })
    }

    fn is_of(&self, index: u32) -> bool {
        self.message.header.index == index
    }

    /// Whether every link has one like it, so that it tells nothing of where the link leads.
    fn is_link_local(&self) -> bool {
        matches!(self.net.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
    }
}

/// The address by which a bridge with IPv6 is known on itself, and from which it advertises: the one that the kernel would
/// make of the MAC address (RFC 4291, appendix A), but for the kernel waiting with it for the first guest, leaving it unusable
/// for a moment, and not making it again when it was taken away.
fn link_local(mac: Mac) -> IpNet {
    let [a, b, c, d, e, f] = mac.0;
    let address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    IpNet::from(Ipv6Net::new_assert(address.into(), 64))
}

/// The order to give a link an address. One of IPv6 is in use at once: on a bridge of ours nobody else has it, and while the
/// kernel asks (RFC 4862, 5.4), no server can listen on it.
fn new_address(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.addr(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            let order = AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.addr(), net.prefix_len());
            let mut order = order.build();
            order.header.flags |= AddressHeaderFlags::Nodad;
            order
        }
    }
}

/// Keeps the host off the network's IPv6 where it has no part in it, as libvirt and Neutron do on their bridges; where it has,
/// it has only the addresses that we give it. Else any guest could hand the host addresses and a default route by a router
/// advertisement. What guests speak among themselves is not touched. (`ip-sysctl.rst` of the kernel.)
fn set_ipv6(device: &str, on: bool) -> Result<(), HostError> {
    // With `addr_gen_mode` 1 the kernel makes no link-local address, for we do.
    const CLOSED: [(&str, &str); 4] =
        [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0"), ("addr_gen_mode", "1")];
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(device);
    let deed = |name: &str, wanted: &str| format!("cannot set the host's IPv6 on bridge `{device}`: {name} = {wanted}");
    let is = |name: &str, wanted: &str| match std::fs::read_to_string(directory.join(name)) {
        Ok(value) => Ok(value.trim() == wanted),
        // A kernel without IPv6, or a bridge that is too small for it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !on => Ok(true),
        Err(error) => Err(failed(deed(name, wanted), error)),
    };
    let set = |name: &str, wanted: &str| {
        if is(name, wanted)? {
            return Ok(());
        }
        std::fs::write(directory.join(name), format!("{wanted}\n")).map_err(|error| failed(deed(name, wanted), error))
    };
    if !on {
        return set("disable_ipv6", "1");
    }
    for (name, wanted) in CLOSED {
        if !is(name, wanted)? {
            // Was open, or is new: what came in goes, routes too, and nothing comes in until it is closed.
            set("disable_ipv6", "1")?;
            set(name, wanted)?;
        }
    }
    set("disable_ipv6", "0")
}

/// A link name that is one to the kernel too: it would make `br%d` into `br0`.
fn valid(name: &str) -> Result<&str, HostError> {
    let good = name.len() <= 15
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good { Ok(name) } else { Err(HostError::refused(format!("{name:?} is not a name for an interface"))) }
}

fn join_devices(facts: &mut Facts, device: &str) {
    facts.entry(Cow::Borrowed("device")).and_modify(|first| *first = format!("{first}, {device}"));
}

fn seconds(hundredths: u32) -> String {
    match (hundredths / 100, hundredths % 100) {
        (seconds, 0) => seconds.to_string(),
        (seconds, rest) => format!("{seconds}.{rest:02}"),
    }
}

/// Success also when it failed because it was so already.
fn tolerate(done: io::Result<()>, errno: i32) -> io::Result<()> {
    done.or_else(|error| if error.raw_os_error() == Some(errno) { Ok(()) } else { Err(error) })
}

fn not_ours(device: &str) -> HostError {
    HostError::refused(format!("interface `{device}` exists and is not novella's"))
        .help(format!("rename or remove `{device}`; `ip -details link show {device}` tells what it is"))
}

fn failed(deed: impl Into<String>, error: io::Error) -> HostError {
    let transient = matches!(error.raw_os_error(), Some(EBUSY | ENOBUFS))
        || matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::TimedOut);
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let error = HostError::new(deed, error).transient(transient);
    if denied { error.help("run as root or with CAP_NET_ADMIN") } else { error }
}
