//! The addresses of a network: those in use, and those that are free.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::address::{Name, PortId};
use crate::blueprint::usage::{Free, Holder, How, Use};
use crate::report::leases::port_label;
use crate::report::{json, table};
use crate::spec::values::Pool;
use crate::value::Mac;

const FORMAT_VERSION: &str = "1.0";

/// The addresses in use, as a table.
pub fn used(network: &Name, used: &[Use]) -> String {
    if used.is_empty() {
        return format!("No address of `network.{network}` is in use.\n");
    }
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let line = |it: &Use| {
        let holder = match &it.holder {
            Holder::Port(port) => port_label(port),
            other => holder_word(other).into(),
        };
        vec![
            it.address.to_string(),
            or_none(it.subnet.as_ref().map(ToString::to_string)),
            holder,
            or_none(it.mac.map(|mac| mac.to_string())),
            or_none(it.how.map(|how| how.as_str().into())),
            it.state.as_str().into(),
        ]
    };
    let heading = ["ADDRESS", "SUBNET", "HOLDER", "MAC", "HOW", "STATE"];
    table::render(&heading, &used.iter().map(line).collect::<Vec<_>>())
}

const fn holder_word(holder: &Holder) -> &'static str {
    match holder {
        Holder::Host => "host",
        Holder::Router => "router",
        Holder::Port(_) => "port",
    }
}

#[derive(Serialize)]
struct UsedDocument<'a> {
    format_version: &'static str,
    network: &'a Name,
    addresses: Vec<UsedRow<'a>>,
}

#[derive(Serialize)]
struct UsedRow<'a> {
    address: IpAddr,
    subnet: Option<&'a Name>,
    /// `host`, `router` or `port`.
    holder: &'static str,
    port: Option<&'a PortId>,
    mac: Option<Mac>,
    how: Option<&'static str>,
    state: &'static str,
}

/// The same as JSON.
pub fn used_json(network: &Name, used: &[Use]) -> String {
    let rows = used.iter().map(|it| UsedRow {
        address: it.address,
        subnet: it.subnet.as_ref(),
        holder: holder_word(&it.holder),
        port: match &it.holder {
            Holder::Port(port) => Some(port),
            Holder::Host | Holder::Router => None,
        },
        mac: it.mac,
        how: it.how.map(How::as_str),
        state: it.state.as_str(),
    });
    json::document(&UsedDocument { format_version: FORMAT_VERSION, network, addresses: rows.collect() })
}

/// What is free, as a table with a line for each range.
pub fn free(network: &Name, subnets: &[Free]) -> String {
    if subnets.is_empty() {
        return format!("`network.{network}` has no subnet, and so no addresses.\n");
    }
    let mut lines: Vec<Vec<String>> = Vec::new();
    for it in subnets {
        let by_mac = it.assignment.is_by_mac();
        let next = it.next().map_or("-".into(), |next| next.to_string());
        let free = if by_mac { "-".into() } else { format!("{} of {}", count(it.free), count(it.total)) };
        let mut ranges = it.ranges.iter().map(range);
        let first = ranges.next().unwrap_or_else(|| {
            let why = if by_mac { "nothing is served: each guest makes its own address" } else { "all are in use" };
            why.into()
        });
        lines.push(vec![it.subnet.to_string(), it.cidr.to_string(), free, next, first]);
        lines.extend(ranges.map(|range| vec![String::new(), String::new(), String::new(), String::new(), range]));
    }
    table::render(&["SUBNET", "CIDR", "FREE", "NEXT", "RANGES"], &lines)
}

/// `10.20.0.3-10.20.0.49 (47)`.
fn range(range: &Pool) -> String {
    let ends = if range.first == range.last { range.first.to_string() } else { range.to_string() };
    format!("{ends} ({})", count(range.size()))
}

/// A number as far as people read it: of one with many digits, how many.
fn count(number: u128) -> String {
    if number < 1_000_000_000 { number.to_string() } else { format!("{number:.1e}") }
}

#[derive(Serialize)]
struct FreeDocument<'a> {
    format_version: &'static str,
    network: &'a Name,
    subnets: Vec<FreeRow<'a>>,
}

#[derive(Serialize)]
struct FreeRow<'a> {
    subnet: &'a Name,
    cidr: IpNet,
    assignment: &'static str,
    free: u128,
    total: u128,
    next: Option<IpAddr>,
    ranges: Vec<FreeRange>,
}

#[derive(Serialize)]
struct FreeRange {
    first: IpAddr,
    last: IpAddr,
    count: u128,
}

/// The same as JSON. Counts are whole numbers, also where they are beyond 64 bits.
pub fn free_json(network: &Name, subnets: &[Free]) -> String {
    let range = |it: &Pool| FreeRange { first: it.first, last: it.last, count: it.size() };
    let rows = subnets.iter().map(|it| FreeRow {
        subnet: &it.subnet,
        cidr: it.cidr,
        assignment: it.assignment.as_str(),
        free: it.free,
        total: it.total,
        next: it.next(),
        ranges: it.ranges.iter().map(range).collect(),
    });
    json::document(&FreeDocument { format_version: FORMAT_VERSION, network, subnets: rows.collect() })
}
