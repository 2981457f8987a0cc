//! Refuses what dnsmasq would read as something else than it says.

use crate::blueprint::dhcp::{Dhcp, HostEntry, IpVersion, OptionValue, RecordData, Route};
use crate::host::HostError;

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
