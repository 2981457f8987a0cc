//! DHCP options of single ports.

use std::net::IpAddr;

use crate::address::Name;
use crate::blueprint::dhcp::{DhcpOption, IpVersion, OptionValue, Route};
use crate::diagnostic::did_you_mean;
use crate::spec::values::{Cidr, DhcpOptSpec, Ip};

/// What kind of value an option has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Addresses,
    Text,
    /// A number below this.
    Number(u64),
    Domains,
    Routes,
}

use Kind::{Addresses, Domains, Number, Routes, Text};

/// A width of one byte, two and four.
const BYTE: Kind = Number(1 << 8);
const SHORT: Kind = Number(1 << 16);
const LONG: Kind = Number(1 << 32);

/// The options of DHCPv4 that dnsmasq knows by name (`dnsmasq --help dhcp`; RFC 2132), less those that the server decides by
/// itself, those that only clients send, and those whose form nobody writes by hand.
const V4: [(&str, u8, Kind); 39] = [
    ("time-offset", 2, LONG),
    ("router", 3, Addresses),
    ("dns-server", 6, Addresses),
    ("log-server", 7, Addresses),
    ("lpr-server", 9, Addresses),
    ("boot-file-size", 13, SHORT),
    ("domain-name", 15, Text),
    ("swap-server", 16, Addresses),
    ("root-path", 17, Text),
    ("extension-path", 18, Text),
    ("default-ttl", 23, BYTE),
    ("mtu", 26, SHORT),
    ("arp-timeout", 35, LONG),
    ("tcp-ttl", 37, BYTE),
    ("tcp-keepalive", 38, LONG),
    ("nis-domain", 40, Text),
    ("nis-server", 41, Addresses),
    ("ntp-server", 42, Addresses),
    ("netbios-ns", 44, Addresses),
    ("netbios-dd", 45, Addresses),
    ("netbios-nodetype", 46, BYTE),
    ("netbios-scope", 47, Text),
    ("x-windows-fs", 48, Addresses),
    ("x-windows-dm", 49, Addresses),
    ("nis+-domain", 64, Text),
    ("nis+-server", 65, Addresses),
    ("tftp-server", 66, Text),
    ("bootfile-name", 67, Text),
    ("mobile-ip-home", 68, Addresses),
    ("smtp-server", 69, Addresses),
    ("pop3-server", 70, Addresses),
    ("nntp-server", 71, Addresses),
    ("irc-server", 74, Addresses),
    ("posix-timezone", 100, Text),
    ("tzdb-timezone", 101, Text),
    ("domain-search", 119, Domains),
    ("classless-static-route", 121, Routes),
    ("tftp-server-address", 150, Addresses),
    // No option but the field `siaddr` of each answer, where PXE looks for its next server.
    ("server-ip-address", 255, Addresses),
];

/// The same for DHCPv6 (`dnsmasq --help dhcp6`).
const V6: [(&str, u8, Kind); 7] = [
    ("dns-server", 23, Addresses),
    ("domain-search", 24, Domains),
    ("sntp-server", 31, Addresses),
    ("information-refresh-time", 32, LONG),
    ("posix-timezone", 41, Text),
    ("tzdb-timezone", 42, Text),
    ("bootfile-url", 59, Text),
];

/// What the server itself writes into its answers (RFC 2132, 9; RFC 8415, 21).
const SERVERS_OWN_V4: [u8; 17] = [0, 1, 12, 28, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 61, 81, 82];
const SERVERS_OWN_V6: std::ops::RangeInclusive<u8> = 0..=20;

/// The most bytes that one option of DHCPv4 carries (RFC 2132, 2), less the zero at the end that some clients want.
const MAX_TEXT: usize = 254;

/// Why an option cannot be: what is wrong with which of its keys, and the way out.
pub(super) struct Wrong {
    pub key: &'static str,
    pub message: String,
    pub help: String,
}

pub(super) fn read(written: &DhcpOptSpec) -> Result<DhcpOption, Wrong> {
    let wrong = |key, message: String, help: String| Wrong { key, message, help };
    let version = match written.ip_version {
        None | Some(4) => IpVersion::V4,
        Some(6) => IpVersion::V6,
        Some(other) => {
            return Err(wrong("ip_version", format!("there is no IP version {other}"), "write 4 or 6".into()));
        }
    };
    let known: &[(&str, u8, Kind)] = if version == IpVersion::V4 { &V4 } else { &V6 };
    let name = written.name.as_str();
    let by_name = known.iter().find(|(known, ..)| *known == name);
    let by_number = name.parse::<u8>().ok().filter(|number| number.to_string() == name);
    let kind = match (by_name, by_number) {
        (Some((.., kind)), _) => Some(*kind),
        (None, Some(number)) => {
            let owned = match version {
                IpVersion::V4 => SERVERS_OWN_V4.contains(&number) || number == 255,
                IpVersion::V6 => SERVERS_OWN_V6.contains(&number),
            };
            if owned {
                let message = format!("option {number} is the DHCP server's own to write");
                return Err(wrong("name", message, "leave it out".into()));
            }
            known.iter().find(|(_, known, _)| *known == number).map(|(.., kind)| *kind)
        }
        (None, None) => {
            let near = did_you_mean(name, known.iter().map(|(name, ..)| *name));
            let help = near.map_or_else(
                || "use a name that `dnsmasq --help dhcp` lists, or the number of the option".into(),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(wrong("name", format!("`{}` is no option of DHCP", name.escape_default()), help));
        }
    };
    let value = value(&written.value, kind, version).map_err(|(message, help)| wrong("value", message, help))?;
    Ok(DhcpOption { version, name: name.to_owned(), value })
}

/// The value as the option's kind has it. An option that has only a number takes addresses, bytes such as `01:0a:ff`, or any
/// text.
fn value(text: &str, kind: Option<Kind>, version: IpVersion) -> Result<OptionValue, (String, String)> {
    let shown = text.escape_default();
    let items = || text.split(',').map(str::trim);
    let addresses = || -> Option<Vec<IpAddr>> {
        items().map(|item| item.parse().ok().filter(|address| IpVersion::of(*address) == version)).collect()
    };
    match kind {
        Some(Addresses) => addresses().map(OptionValue::Addresses).ok_or_else(|| {
            (format!("`{shown}` is not a list of {version} addresses"), "write them with commas between".into())
        }),
        Some(Text) => plain_text(text),
        Some(Number(limit)) => text
            .parse::<u32>()
            .ok()
            .filter(|number| u64::from(*number) < limit)
            .map(OptionValue::Number)
            .ok_or_else(|| (format!("`{shown}` is not a number below {limit}"), "write digits alone".into())),
        Some(Domains) => {
            let is_domain =
                |item: &str| item.len() <= 253 && item.split('.').all(|label| label.parse::<Name>().is_ok());
            let domains: Vec<String> = items().map(str::to_owned).collect();
            if domains.iter().all(|domain| is_domain(domain)) && text.len() <= MAX_TEXT {
                return Ok(OptionValue::Domains(domains));
            }
            Err((format!("`{shown}` is not a list of DNS domains"), "write them with commas between".into()))
        }
        Some(Routes) => {
            let items: Vec<&str> = items().collect();
            let route = |pair: &[&str]| match pair {
                [destination, nexthop] => Some(Route {
                    destination: destination.parse::<Cidr>().ok()?.0,
                    nexthop: nexthop.parse::<Ip>().ok()?.0,
                })
                .filter(|route| route.destination.addr().is_ipv4() && route.nexthop.is_ipv4()),
                _ => None,
            };
            items.chunks(2).map(route).collect::<Option<_>>().map(OptionValue::Routes).ok_or_else(|| {
                let help = "write networks and next hops by turns: `10.9.0.0/16,10.20.0.254`";
                (format!("`{shown}` is not a list of routes"), help.into())
            })
        }
        None => {
            let bytes: Option<Vec<u8>> = text
                .split(':')
                .map(|pair| Some(pair).filter(|it| it.len() == 2).and_then(|it| u8::from_str_radix(it, 16).ok()))
                .collect();
            match (bytes, addresses()) {
                (Some(bytes), _) if (2..=MAX_TEXT).contains(&bytes.len()) => Ok(OptionValue::Bytes(bytes)),
                (_, Some(addresses)) => Ok(OptionValue::Addresses(addresses)),
                _ => plain_text(text),
            }
        }
    }
}

/// Text that fits into an option, and into a line of a configuration in quotes.
fn plain_text(text: &str) -> Result<OptionValue, (String, String)> {
    let shown = text.escape_default();
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err((format!("a text of {} bytes is not possible", text.len()), format!("use 1 to {MAX_TEXT}")));
    }
    if text.chars().any(|c| !(' '..='~').contains(&c)) {
        let help =
            "use the printable characters of ASCII; with the number of an option, bytes can be written as `c3:a4`";
        return Err((
            format!("`{shown}` has characters that a DHCP server would not pass on as they are"),
            help.into(),
        ));
    }
    Ok(OptionValue::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str, ip_version: Option<u8>) -> Result<OptionValue, String> {
        let written = DhcpOptSpec { name: name.into(), value: value.into(), ip_version };
        super::read(&written).map(|option| option.value).map_err(|wrong| wrong.message)
    }

    #[test]
    fn an_option_is_read_by_its_kind() {
        let text = |text: &str| Ok(OptionValue::Text(text.into()));
        assert_eq!(read("bootfile-name", "pxe/linux.0, #1", None), text("pxe/linux.0, #1"));
        assert_eq!(read("67", "01:02", None), text("01:02"), "the number of a known option is its name");
        assert_eq!(read("224", "01:0A", None), Ok(OptionValue::Bytes(vec![1, 10])));
        assert_eq!(read("224", "a:b", None), text("a:b"));
        assert_eq!(read("224", "0a", None), text("0a"));
        assert_eq!(read("67", "a \"b\" \\", None).map(|it| it.to_string()), Ok(r#""a \"b\" \\""#.into()));
        let addresses = |all: &[&str]| all.iter().map(|it| it.parse().expect("an address")).collect();
        assert_eq!(
            read("ntp-server", "10.0.0.1, 10.0.0.2", None),
            Ok(OptionValue::Addresses(addresses(&["10.0.0.1", "10.0.0.2"])))
        );
        assert_eq!(read("dns-server", "fd00::1", Some(6)), Ok(OptionValue::Addresses(addresses(&["fd00::1"]))));
        assert_eq!(read("mtu", "9000", None), Ok(OptionValue::Number(9000)));
        assert_eq!(
            read("classless-static-route", "10.9.0.0/16,10.0.0.1", None).map(|value| value.to_string()),
            Ok("10.9.0.0/16,10.0.0.1".into())
        );
        assert_eq!(read("domain-search", "a.b,c", None), Ok(OptionValue::Domains(vec!["a.b".into(), "c".into()])));
    }

    #[test]
    fn what_would_be_something_else_to_dnsmasq_is_refused() {
        let long = "x".repeat(255);
        for (name, value, version) in [
            ("bootfile-name", "a\nb", None),
            ("bootfile-name", "ä", None),
            ("bootfile-name", "", None),
            ("bootfile-name", long.as_str(), None),
            ("bootfile-name,x", "a", None),
            ("bootfile", "a", None),
            ("67 ", "a", None),
            ("067", "a", None),
            ("53", "a", None),
            ("255", "10.0.0.1", None),
            ("300", "a", None),
            ("mtu", "65536", None),
            ("mtu", "-1", None),
            ("dns-server", "fd00::1", None),
            ("dns-server", "10.0.0.1", Some(6)),
            ("dns-server", "10.0.0.1,", None),
            ("dns-server", "10.0.0.1", Some(5)),
            ("domain-search", "a,,b", None),
            ("classless-static-route", "10.9.0.0/16", None),
            ("classless-static-route", "10.9.0.1/16,10.0.0.1", None),
        ] {
            read(name, value, version).expect_err(&format!("{name} = {value:?}"));
        }
    }
}
