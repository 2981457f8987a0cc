//! The command line of a dnsmasq: all of its configuration that it cannot change while it runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use nix::unistd::{Gid, Group, User};

use crate::blueprint::dhcp::{Assignment, Dhcp, DhcpRange, IpVersion, Record, RecordData};
use crate::host::dhcp::files::Files;

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
