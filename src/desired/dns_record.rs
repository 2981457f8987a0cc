//! Names in the DNS of a network, beside those of its ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::dhcp::{Record, RecordData};
use crate::desired::{Network, Problems};
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::values::RecordType;

/// The records of one `[dns_record.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsRecord {
    /// The name of the table.
    pub name: Name,
    /// What is answered.
    pub records: Vec<Record>,
}

pub(super) fn resolve(spec: &Spec, networks: &mut BTreeMap<Name, Network>, problems: &mut Problems<'_>) {
    for (name, written) in &spec.dns_records {
        let address = Address::new(ResourceKind::DnsRecord, name.clone());
        let network = problems.need(&address, "network", &written.network, "\"NETWORK\"");
        let network =
            network.and_then(|network| problems.refer(&address, "network", ResourceKind::Network, network, networks));
        let network = network.map(|network| network.name.clone());
        let kind = problems.need(&address, "type", &written.r#type, "\"A\"").copied();
        let texts = problems.need(&address, "records", &written.records, "[\"10.20.0.5\"]");
        let (Some(kind), Some(texts), Some(network)) = (kind, texts, network.and_then(|it| networks.get_mut(&it)))
        else {
            continue;
        };
        let domain = network.domain.clone();
        let label = written.name.as_deref().unwrap_or(name.as_str());
        if !is_name(label, kind == RecordType::Srv || kind == RecordType::Txt) {
            problems.push(
                Diagnostic::error(format!("`{}` is not a name", label.escape_default()))
                    .code("dns-record")
                    .on(&address, "name")
                    .help(format!("write it without the domain `{domain}`: `db`, or `_http._tcp` for a service")),
            );
            continue;
        }
        if texts.is_empty() || (kind == RecordType::Cname && texts.len() > 1) {
            problems.push(
                Diagnostic::error(format!("a {} record cannot have {} values", kind.as_str(), texts.len()))
                    .code("dns-record")
                    .on(&address, "records")
                    .help("write one, as `records = [\"…\"]`"),
            );
        }
        let mut records = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match data(kind, text, &domain) {
                Some(data) => records.push(Record { name: format!("{label}.{domain}"), data }),
                None => problems.push(
                    Diagnostic::error(format!(
                        "`{}` is not what a {} record says",
                        text.escape_default(),
                        kind.as_str()
                    ))
                    .code("dns-record")
                    .on(&address, &format!("records[{index}]"))
                    .help(form(kind)),
                ),
            }
        }
        network.records.push(DnsRecord { name: name.clone(), records });
    }
}

/// How the value of a record is written.
fn form(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "write an IPv4 address, such as `10.20.0.5`",
        RecordType::Aaaa => "write an IPv6 address, such as `fd00:20::5`",
        RecordType::Cname => "write a name in the network's domain, such as `web`",
        RecordType::Srv => "write priority, weight, port and target: `0 5 5432 db`",
        RecordType::Txt => "write at most 255 printable characters of ASCII, without `\"` and `\\`",
    }
}

fn data(kind: RecordType, text: &str, domain: &str) -> Option<RecordData> {
    match kind {
        RecordType::A => text.parse().ok().map(|address| RecordData::Address(IpAddr::V4(address))),
        RecordType::Aaaa => text.parse().ok().map(|address| RecordData::Address(IpAddr::V6(address))),
        RecordType::Cname => is_name(text, false).then(|| RecordData::Cname(format!("{text}.{domain}"))),
        RecordType::Srv => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let [priority, weight, port, target] = words.try_into().ok()?;
            // A target with a dot at its end is a full name, as in a zone file.
            let target = match target.strip_suffix('.') {
                Some(full) => is_name(full, false).then(|| full.to_owned()),
                None => is_name(target, false).then(|| format!("{target}.{domain}")),
            };
            Some(RecordData::Srv {
                priority: priority.parse().ok()?,
                weight: weight.parse().ok()?,
                port: port.parse().ok()?,
                target: target?,
            })
        }
        RecordType::Txt => {
            let plain = text.chars().all(|c| (' '..='~').contains(&c) && !matches!(c, '"' | '\\'));
            (plain && (1..=255).contains(&text.len())).then(|| RecordData::Txt(text.to_owned()))
        }
    }
}

/// Whether a text is a name of a few labels; those of services begin with `_` (RFC 2782).
fn is_name(text: &str, service: bool) -> bool {
    let label = |label: &str| {
        let bare = label.strip_prefix('_').filter(|_| service).unwrap_or(label);
        // Unlike the name of a resource, a label may begin with a digit (RFC 1123, 2.1).
        bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && (1..=63).contains(&label.len())
            && !bare.starts_with('-')
            && !bare.ends_with('-')
            && !bare.is_empty()
    };
    text.len() <= 128 && text.split('.').all(label)
}

/// Rules that need the ports: a name has one kind of owner, and dnsmasq answers for an alias only what it knows itself.
pub(super) fn check(networks: &BTreeMap<Name, Network>, ports: &super::Ports, problems: &mut Problems<'_>) {
    for network in networks.values().filter(|network| !network.records.is_empty()) {
        let domain_of = |port: &super::Port| -> Vec<String> {
            let domains = network.subnets.iter().map(|subnet| subnet.domain.as_ref().unwrap_or(&network.domain));
            domains.map(|domain| format!("{}.{domain}", port.hostname())).collect()
        };
        let of_ports: std::collections::HashSet<String> =
            ports.values().filter(|port| port.network == network.name).flat_map(domain_of).collect();
        let all = || network.records.iter().flat_map(|it| it.records.iter().map(move |record| (&it.name, record)));
        for (table, record) in all() {
            let address = Address::new(ResourceKind::DnsRecord, table.clone());
            let is_alias = matches!(record.data, RecordData::Cname(_));
            let clash = |other: &Record| other != record && other.name == record.name;
            if of_ports.contains(&record.name) && matches!(record.data, RecordData::Cname(_) | RecordData::Address(_))
                || is_alias && all().any(|(_, other)| clash(other))
            {
                problems.push(
                    Diagnostic::error(format!(
                        "`{}` is the name of something else on `network.{}`",
                        record.name, network.name
                    ))
                    .code("dns-name-taken")
                    .on(&address, "")
                    .help("give the record another `name`"),
                );
            }
            if let RecordData::Cname(target) = &record.data
                && !of_ports.contains(target)
                && !all().any(|(_, other)| other.name == *target && !matches!(other.data, RecordData::Cname(_)))
            {
                problems.push(
                    Diagnostic::error(format!("no port and no record of `network.{}` is called `{target}`", network.name))
                        .code("dns-record")
                        .on(&address, "records[0]")
                        .help("an alias stands for a name of the same network that is no alias itself; for one elsewhere, write an `A` \
                               record"),
                );
            }
        }
    }
}
