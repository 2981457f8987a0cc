//! How a dnsmasq is configured: its command line, and the files of options that it reads again when it is told to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use nix::unistd::{Gid, Group, User};

use crate::blueprint::dhcp::{Assignment, DhcpOption, IpVersion, OptionValue, Record, RecordData, Route};
use crate::blueprint::object::{Dhcp, DhcpRange, HostEntry};
use crate::host::HostError;
use crate::host::dhcp::files::Files;
use crate::value::Mac;

/// Who a dnsmasq becomes once it has its sockets: the user `dnsmasq` where there is one, else `nobody`.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub user: String,
    pub group: String,
    pub uid: u32,
}

impl Service {
    /// The user as this host knows it. Where it knows neither, dnsmasq says so when it is started.
    pub fn find() -> Self {
        let known = ["dnsmasq", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
        let (user, uid, gid) = known
            .map_or_else(|| ("nobody".into(), 65534, Gid::from_raw(65534)), |it| (it.name, it.uid.as_raw(), it.gid));
        let group = Group::from_gid(gid).ok().flatten().map_or_else(|| "nogroup".into(), |it| it.name);
        Self { user, group, uid }
    }
}

/// Refuses what dnsmasq would read as more than one value, or not at all. What an object says was looked at long before, but
/// it may come from an old state.
pub(super) fn check(dhcp: &Dhcp) -> Result<(), HostError> {
    let records = || dhcp.records.values().flatten();
    let named = records().flat_map(|record| match &record.data {
        RecordData::Cname(target) | RecordData::Srv { target, .. } => vec![&record.name, target],
        RecordData::Address(_) | RecordData::Txt(_) => vec![&record.name],
    });
    let domains = dhcp.ranges.iter().filter_map(|range| range.domain.as_ref());
    if let Some(bad) = domains.chain([&dhcp.domain]).chain(named).find(|name| !is_domain(name)) {
        return Err(HostError::refused(format!("`{}` is not a DNS domain", bad.escape_debug())));
    }
    for record in records() {
        if let RecordData::Txt(text) = &record.data
            && !is_text(text, 255)
        {
            return Err(HostError::refused(format!("`{}` is not the text of a DNS record", text.escape_debug())));
        }
    }
    let device = dhcp.bridge.as_str();
    if device.is_empty() || !device.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
        return Err(HostError::refused(format!("`{}` is not the name of a bridge", device.escape_debug())));
    }
    for range in &dhcp.ranges {
        let version = IpVersion::of(range.cidr.network());
        let told = [OptionValue::Addresses(range.dns.clone()), OptionValue::Routes(range.routes.clone())];
        let is_bad = |value: &&OptionValue| !is_empty(value) && !is_value(value, version);
        if let Some(bad) = told.iter().find(is_bad) {
            return Err(HostError::refused(format!("subnet `{}` cannot tell its guests `{bad}`", range.subnet)));
        }
    }
    Ok(())
}

/// The same for a host entry.
pub(super) fn check_entry(entry: &HostEntry) -> Result<(), HostError> {
    let hostname = entry.hostname.as_str();
    let domains = entry.addresses.iter().map(|it| it.domain.as_str());
    if let Some(bad) = domains.flat_map(|it| it.split('.')).chain([hostname]).find(|label| !is_label(label)) {
        return Err(HostError::refused(format!("`{}` is not a host name", bad.escape_debug())));
    }
    if let Some((_, bad)) = entry.names().find(|(_, name)| name.len() > MAX_NAME) {
        return Err(HostError::refused(format!("`{bad}` is not a host name: it is too long")));
    }
    for option in &entry.options {
        let (name, value) = (&option.name, option.value.to_string());
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'+');
        if name.is_empty() || !name.bytes().all(plain) || !is_value(&option.value, option.version) {
            let (name, value) = (name.escape_debug(), value.escape_debug());
            return Err(HostError::refused(format!("`{name} = {value}` is not an option of DHCP")));
        }
    }
    Ok(())
}

/// The most bytes of a name in DNS (RFC 1035, 2.3.4), less those at its ends.
const MAX_NAME: usize = 253;

/// The most bytes that an option of DHCPv4 has (RFC 2132, 2).
const MAX_OPTION: usize = 255;

/// Whether a text is one lowercase label of a host name (RFC 1123, 2.1).
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_domain(text: &str) -> bool {
    let label = |it: &str| {
        (1..=63).contains(&it.len()) && it.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= MAX_NAME && text.split('.').all(label)
}

/// Whether dnsmasq passes a text on as it is. It reads lines, and has some control characters for marks of its own.
fn is_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

fn is_empty(value: &OptionValue) -> bool {
    match value {
        OptionValue::Addresses(all) => all.is_empty(),
        OptionValue::Text(text) => text.is_empty(),
        OptionValue::Number(_) => false,
        OptionValue::Domains(all) => all.is_empty(),
        OptionValue::Routes(all) => all.is_empty(),
        OptionValue::Bytes(bytes) => bytes.is_empty(),
    }
}

fn is_value(value: &OptionValue, version: IpVersion) -> bool {
    // Text ends with a zero.
    let room = if version == IpVersion::V4 { MAX_OPTION } else { 2 * MAX_OPTION };
    let is_right = match value {
        OptionValue::Addresses(all) => {
            let size = if version == IpVersion::V4 { 4 } else { 16 };
            all.len() * size <= room && all.iter().all(|it| IpVersion::of(*it) == version)
        }
        OptionValue::Text(text) => is_text(text, MAX_OPTION - 1),
        OptionValue::Number(_) => true,
        OptionValue::Domains(all) => {
            all.iter().all(|it| is_domain(it)) && all.iter().map(|it| it.len() + 2).sum::<usize>() <= room
        }
        OptionValue::Routes(all) => {
            let size = |route: &Route| 5 + usize::from(route.destination.prefix_len().div_ceil(8));
            version == IpVersion::V4
                && all.iter().all(|it| it.destination.addr().is_ipv4() && it.nexthop.is_ipv4())
                && all.iter().map(size).sum::<usize>() <= room - 5
        }
        // One byte alone is a number.
        OptionValue::Bytes(bytes) => (2..=room).contains(&bytes.len()),
    };
    !is_empty(value) && is_right
}

/// The arguments of the dnsmasq that serves what `dhcp` says, without the program's own path (dnsmasq(8)).
///
/// They are all of its configuration that it cannot change while it runs, and they are how the process is known again: the
/// same object gives the same arguments.
pub(super) fn arguments(dhcp: &Dhcp, service: &Service) -> Vec<OsString> {
    let files = Files::new(dhcp.dir.clone());
    let mut all: Vec<OsString> = Vec::new();
    let mut put = |argument: String| all.push(argument.into());

    put(format!("--user={}", service.user));
    put(format!("--group={}", service.group));

    // This bridge and nothing else, also when its address comes after the start.
    put(format!("--interface={}", dhcp.bridge));
    put("--except-interface=lo".into());
    put("--bind-dynamic".into());

    // DNS: the guests' names from our files and from the leases, all else from the name servers of the host, in the host's
    // order. The host's own names are none of the guests' business.
    put("--no-hosts".into());
    put("--strict-order".into());
    put("--domain-needed".into());
    put(format!("--domain={}", dhcp.domain));
    put(format!("--local=/{}/", dhcp.domain));
    for range in &dhcp.ranges {
        // What address of ours has no name, nobody else knows either.
        put(format!("--rev-server={}", range.cidr.trunc()));
        if let Some(domain) = &range.domain {
            put(format!("--domain={domain},{}", range.cidr));
            put(format!("--local=/{domain}/"));
        }
    }
    // It does not start when an alias is there twice.
    dhcp.records.values().flatten().collect::<BTreeSet<_>>().into_iter().for_each(|it| put(record(it)));

    // DHCP: only to those with a host entry, known by MAC alone. Guests cloned from one image may send the same client
    // identifier. Requests of others are dropped without a word, or a guest could fill the disk with our log.
    put("--dhcp-authoritative".into());
    put("--dhcp-no-override".into());
    put("--dhcp-ignore-clid".into());
    // Who asks for anything but an address, with an entry that has only one of IPv4, it calls known elsewhere.
    let asks_for_the_rest = dhcp.ranges.iter().any(|range| range.assignment == Assignment::Stateless);
    put(format!("--dhcp-ignore=tag:!known{}", if asks_for_the_rest { ",tag:!known-othernet" } else { "" }));
    put("--quiet-dhcp".into());
    put(format!("--dhcp-lease-max={}", lease_max(dhcp)));
    for range in &dhcp.ranges {
        let (tag, cidr, lease) = (&range.subnet, range.cidr, range.lease_seconds);
        let network = cidr.network();
        match (range.assignment, IpVersion::of(network)) {
            (Assignment::Static, _) => {}
            (_, IpVersion::V4) => {
                put(format!("--dhcp-range=set:{tag},{network},static,{},{lease}s", cidr.netmask()));
            }
            (assignment, IpVersion::V6) => {
                let mode = match assignment {
                    Assignment::Slaac => "ra-only",
                    Assignment::Stateless => "ra-stateless",
                    Assignment::Dhcp | Assignment::Static => "static",
                };
                put(format!("--dhcp-range=set:{tag},{network},{mode},{},{lease}s", cidr.prefix_len()));
            }
        }
    }
    let announced: Vec<&DhcpRange> =
        (dhcp.ranges.iter()).filter(|it| it.assignment != Assignment::Static && it.cidr.addr().is_ipv6()).collect();
    if !announced.is_empty() {
        put("--enable-ra".into());
        put("--quiet-ra".into());
        put("--quiet-dhcp6".into());
        if announced.iter().all(|range| range.router.is_none()) {
            // As often as usual, for 0 seconds: it is no router (RFC 4861, 4.2).
            put(format!("--ra-param={},0,0", dhcp.bridge));
        }
    }
    // Many clients do not ask for the MTU, and take it when they are told. A file of options cannot insist.
    put(format!("--dhcp-option-force=option:mtu,{}", dhcp.mtu));

    let mut put_path = |name: &str, path: &Path| {
        let mut argument = OsString::from(name);
        argument.push(path);
        all.push(argument);
    };
    put_path("--conf-file=", &files.tags());
    put_path("--dhcp-hostsdir=", &files.hosts());
    put_path("--hostsdir=", &files.names());
    put_path("--dhcp-optsdir=", &files.options());
    put_path("--dhcp-leasefile=", &files.leases());
    put_path("--log-facility=", &files.log());
    put_path("--pid-file=", &files.pid());
    all
}

/// One lease for each address there is.
fn lease_max(dhcp: &Dhcp) -> u64 {
    // An IPv6 subnet has no such number; it has one for each of the most guests that a network has.
    let size = |range: &DhcpRange| 1_u64 << (range.cidr.max_prefix_len() - range.cidr.prefix_len()).min(24);
    let addresses: u64 = dhcp.ranges.iter().map(size).sum();
    // dnsmasq reads a C int.
    addresses.clamp(1, i32::MAX as u64)
}

fn record(record: &Record) -> String {
    let name = &record.name;
    match &record.data {
        RecordData::Address(address) => format!("--host-record={name},{address}"),
        RecordData::Cname(target) => format!("--cname={name},{target}"),
        RecordData::Srv { priority, weight, port, target } => {
            format!("--srv-host={name},{target},{port},{priority},{weight}")
        }
        RecordData::Txt(text) => {
            // The command line has no quotes. In hexadecimal digits, behind its length, text is just text (RFC 1035, 3.3.14).
            let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
            let hex = std::iter::once(length).chain(text.bytes()).fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            format!("--dns-rr={name},16,{hex}")
        }
    }
}

/// A file of configuration that gives each client six tags, one for each byte of its MAC. It is always the same.
///
/// With them a file of options can speak of one port. The usual way, a tag in the host entry, is closed: dnsmasq 2.90 is
/// killed by the next SIGHUP, for it frees a tag that is still linked to others (`dhcp_config_free`).
pub(super) fn tags() -> String {
    let mut text = String::new();
    for byte in 0..6 {
        for value in 0..=u8::MAX {
            let pattern: Vec<String> =
                (0..6).map(|at| if at == byte { format!("{value:02x}") } else { "*".into() }).collect();
            let _ = writeln!(text, "dhcp-mac=set:{byte}-{value:02x},{}", pattern.join(":"));
        }
    }
    text
}

/// The start of each line that is for one MAC alone.
fn only(mac: Mac) -> String {
    mac.0.iter().enumerate().fold(String::new(), |mut text, (byte, value)| {
        let _ = write!(text, "tag:{byte}-{value:02x},");
        text
    })
}

/// The options of one port, a line each.
pub(super) fn port_options(mac: Mac, options: &[DhcpOption]) -> String {
    options.iter().fold(String::new(), |mut text, option| {
        let kind = match (option.version, option.name.parse::<u8>()) {
            (IpVersion::V4, Err(_)) => "option:",
            // dnsmasq knows a number only without.
            (IpVersion::V4, Ok(_)) => "",
            (IpVersion::V6, _) => "option6:",
        };
        let _ = writeln!(text, "{}{kind}{},{}", only(mac), option.name, option.value);
        text
    })
}

/// The options in a text that [`port_options`] wrote: the fact and its value.
pub(super) fn read_port_options(mac: Mac, text: &str) -> Option<Vec<(String, String)>> {
    let read = |line: &str| {
        let (option, value) = line.strip_prefix(&only(mac))?.split_once(',')?;
        let fact = match option.split_once(':') {
            Some((version, name)) => format!("{version}.{name}"),
            None => format!("option.{option}"),
        };
        Some((fact, value.to_owned()))
    };
    text.lines().map(read).collect()
}

/// What the subnets of a network tell their guests, a line an option. dnsmasq reads it anew when it is told to, so that none
/// of it takes a restart.
pub(super) fn subnet_options(dhcp: &Dhcp) -> String {
    let mut text = String::new();
    let mut put = |tag: &str, option: &str, value: &str| {
        // An option without a value is not sent. Without that, dnsmasq would name itself as the router.
        let comma = if value.is_empty() { "" } else { "," };
        let _ = writeln!(text, "tag:{tag},{option}{comma}{value}");
    };
    let told = || dhcp.ranges.iter().filter(|range| range.assignment != Assignment::Static);
    for range in told().filter(|range| range.cidr.addr().is_ipv4()) {
        let tag = range.subnet.as_str();
        put(tag, "option:router", &range.router.map(|router| router.to_string()).unwrap_or_default());
        let dns: Vec<String> = range.dns.iter().map(ToString::to_string).collect();
        // 0.0.0.0 is dnsmasq's word for its own address on the guest's subnet.
        put(tag, "option:dns-server", if dns.is_empty() { "0.0.0.0".into() } else { dns.join(",") }.as_str());
        if !range.routes.is_empty() {
            // Who is told of these does not heed the router (RFC 3442), so the way to all the rest is among them.
            let all = range.router.map(|router| format!("0.0.0.0/0,{router}"));
            let routes = OptionValue::Routes(range.routes.clone()).to_string();
            put(tag, "option:classless-static-route", &[routes].into_iter().chain(all).collect::<Vec<_>>().join(","));
        }
    }
    let ipv6: Vec<&DhcpRange> = told().filter(|range| range.cidr.addr().is_ipv6()).collect();
    for range in &ipv6 {
        put(range.subnet.as_str(), "option6:domain-search", range.domain.as_ref().unwrap_or(&dhcp.domain));
    }
    // Without any of these, dnsmasq names itself. With one, it would name that alone to the guests of all subnets.
    if ipv6.iter().any(|range| !range.dns.is_empty()) {
        for range in ipv6 {
            let own: IpAddr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into();
            let dns = if range.dns.is_empty() { vec![own] } else { range.dns.clone() };
            put(range.subnet.as_str(), "option6:dns-server", &OptionValue::Addresses(dns).to_string());
        }
    }
    text
}
