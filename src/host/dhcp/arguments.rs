//! The command line of a dnsmasq, in full: there is no configuration file.

use std::ffi::OsString;
use std::path::Path;

use nix::unistd::{Gid, Group, User};

use crate::blueprint::object::Dhcp;
use crate::host::HostError;
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

/// Refuses what dnsmasq would read as more than one value.
pub(super) fn check(dhcp: &Dhcp) -> Result<(), HostError> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    if !plain(&dhcp.domain) {
        return Err(HostError::refused(format!("`{}` is not a DNS domain", dhcp.domain.escape_debug())));
    }
    if !plain(&dhcp.bridge) {
        return Err(HostError::refused(format!("`{}` is not the name of a bridge", dhcp.bridge.escape_debug())));
    }
    Ok(())
}

/// The arguments of the dnsmasq that serves what `dhcp` says, without the program's own path (dnsmasq(8)).
///
/// They are all of its configuration, and they are how the process is known again: the same object gives the same
/// arguments.
pub(super) fn arguments(dhcp: &Dhcp, service: &Service) -> Vec<OsString> {
    let files = Files::new(dhcp.dir.clone());
    let mut all: Vec<OsString> = Vec::new();
    let mut put = |argument: String| all.push(argument.into());

    put("--conf-file=/dev/null".into());
    put(format!("--user={}", service.user));
    put(format!("--group={}", service.group));

    // This bridge and nothing else, also when its address comes after the start.
    put(format!("--interface={}", dhcp.bridge));
    put("--except-interface=lo".into());
    put("--bind-dynamic".into());

    // DNS: the guests' names from the leases, all else from the name servers of the host, in the host's order. The
    // host's own names are none of the guests' business.
    put("--no-hosts".into());
    put("--strict-order".into());
    put("--domain-needed".into());
    put(format!("--domain={}", dhcp.domain));
    put(format!("--local=/{}/", dhcp.domain));

    // DHCP: only to those with a host entry, known by MAC alone. Guests cloned from one image may send the same client
    // identifier. Requests of others are dropped without a word, or a guest could fill the disk with our log.
    put("--dhcp-authoritative".into());
    put("--dhcp-no-override".into());
    put("--dhcp-ignore-clid".into());
    put("--dhcp-ignore=tag:!known".into());
    put("--quiet-dhcp".into());
    put(format!("--dhcp-lease-max={}", lease_max(dhcp)));
    for range in &dhcp.ranges {
        let (tag, cidr) = (&range.subnet, range.cidr);
        put(format!("--dhcp-range=set:{tag},{},static,{},{}s", cidr.network(), cidr.netmask(), dhcp.lease_seconds));
        // An option without a value is not sent. Without this dnsmasq would name itself as the router.
        put(range.router.map_or_else(
            || format!("--dhcp-option=tag:{tag},option:router"),
            |router| format!("--dhcp-option=tag:{tag},option:router,{router}"),
        ));
        let mut dns: Vec<String> = range.dns.iter().map(ToString::to_string).collect();
        if dns.is_empty() {
            // dnsmasq's word for its own address on the guest's subnet.
            dns.push("0.0.0.0".into());
        }
        put(format!("--dhcp-option=tag:{tag},option:dns-server,{}", dns.join(",")));
    }
    // Many clients do not ask for the MTU, and take it when they are told.
    put(format!("--dhcp-option-force=option:mtu,{}", dhcp.mtu));

    let mut put_path = |name: &str, path: &Path| {
        let mut argument = OsString::from(name);
        argument.push(path);
        all.push(argument);
    };
    put_path("--dhcp-hostsdir=", &files.hosts());
    put_path("--dhcp-leasefile=", &files.leases());
    put_path("--log-facility=", &files.log());
    put_path("--pid-file=", &files.pid());
    all
}

/// One lease for each address there is.
fn lease_max(dhcp: &Dhcp) -> u64 {
    let addresses: u64 = dhcp.ranges.iter().map(|range| 1_u64 << (32 - range.cidr.prefix_len())).sum();
    // dnsmasq reads a C int.
    addresses.clamp(1, i32::MAX as u64)
}
