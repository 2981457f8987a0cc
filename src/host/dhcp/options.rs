//! The files of DHCP options, which a dnsmasq reads again when it is told to.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use crate::blueprint::dhcp::{Assignment, Dhcp, DhcpOption, DhcpRange, IpVersion, OptionValue};
use crate::value::Mac;

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
            let own: IpAddr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into();
            let dns = if range.dns.is_empty() { vec![own] } else { range.dns.clone() };
            put(range.subnet.as_str(), "option6:dns-server", &OptionValue::Addresses(dns).to_string());
        }
    }
    text
}
