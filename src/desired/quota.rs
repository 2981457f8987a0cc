//! How much a spec may ask for: quotas in the names of Nova, Neutron and Cinder (reference A2).

use std::collections::BTreeMap;

use crate::address::{Address, Name, PortId, ResourceKind, VolumeId};
use crate::desired::sum::{self, Part};
use crate::desired::volume::Volume;
use crate::desired::{Flavor, Network, Ports, Problems, Server};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::values::Limit;
use crate::value::ByteSize;

/// What a spec asks for, as far as it is limited.
pub(super) struct Asked<'a> {
    pub networks: &'a BTreeMap<Name, Network>,
    pub flavors: &'a BTreeMap<Name, Flavor>,
    pub ports: &'a Ports,
    pub volumes: &'a BTreeMap<VolumeId, Volume>,
    pub servers: &'a BTreeMap<Name, Server>,
}

/// Checks the whole spec: what is off counts as what runs.
pub(super) fn check(spec: &Spec, asked: &Asked<'_>, problems: &mut Problems<'_>) {
    let quota = &spec.quota;
    let of_flavor = |amount: fn(&Flavor) -> u64| {
        sum::by_table(asked.servers.values(), |server| asked.flavors.get(&server.flavor).map_or(0, amount))
    };
    let number: &dyn Fn(u64) -> String = &|number| number.to_string();
    let size: &dyn Fn(u64) -> String = &|bytes| ByteSize(bytes).to_string();
    let bytes = |limit: Option<Limit<ByteSize>>| limit.and_then(|limit| limit.0).map(ByteSize::bytes);
    let count = |limit: Option<Limit<u64>>| limit.and_then(|limit| limit.0);
    let each = |kind, names: Vec<&Name>| {
        let table = |name: &&Name| Part { table: Address::new(kind, (*name).clone()), count: 1, each: 1 };
        sum::largest_first(names.iter().map(table))
    };
    let totals = [
        ("instances", "count", count(quota.instances), sum::by_table(asked.servers.values(), |_| 1), number),
        ("cores", "flavor", count(quota.cores), of_flavor(|flavor| flavor.vcpus.into()), number),
        ("ram", "flavor", bytes(quota.ram), of_flavor(|flavor| flavor.ram.bytes()), size),
        ("disk", "flavor", bytes(quota.disk), of_flavor(|flavor| flavor.disk.bytes()), size),
        ("networks", "", count(quota.networks), each(ResourceKind::Network, asked.networks.keys().collect()), number),
        ("subnets", "", count(quota.subnets), each(ResourceKind::Subnet, spec.subnets.keys().collect()), number),
        ("ports", "networks", count(quota.ports), ports(asked), number),
        ("volumes", "", count(quota.volumes), volumes(asked), number),
        ("key_pairs", "", count(quota.key_pairs), each(ResourceKind::Keypair, spec.keypairs.keys().collect()), number),
    ];
    for (key, at, limit, parts, show) in totals {
        let asks = sum::total(&parts);
        if let Some(limit) = limit.filter(|limit| asks > *limit) {
            let what = format!("the spec asks for {} of `{key}`", show(asks));
            let over = sum::named(&parts).iter().map(|part| (Place::of(&part.table, at), show(part.total())));
            let error = exceeded(key, &what, (asks, limit), show, over);
            problems.push(error.label(format!("{} = {}", sum::arithmetic(&parts, show), show(asks))));
        }
    }
    for server in first_of_each_table(asked.servers) {
        let told = &server.cloud_init;
        let mut check = |key: &str, at: &str, limit: Option<Limit<u64>>, asks: usize| {
            let (limit, asks) = (count(limit), asks as u64);
            if let Some(limit) = limit.filter(|limit| asks > *limit) {
                let what = format!("`{}` asks for {asks} of `{key}`", server.declared);
                let over = [(Place::of(&server.declared, at), number(asks))];
                problems.push(exceeded(key, &what, (asks, limit), number, over));
            }
        };
        check("metadata_items", "metadata", quota.metadata_items, told.metadata.len());
        check("injected_files", "files", quota.injected_files, told.files.len());
        for (index, file) in told.files.iter().enumerate() {
            let at = format!("files[{index}]");
            check("injected_file_content_bytes", &at, quota.injected_file_content_bytes, file.content.bytes().len());
        }
    }
}

fn exceeded(
    key: &str,
    what: &str,
    (asks, limit): (u64, u64),
    show: &dyn Fn(u64) -> String,
    over: impl IntoIterator<Item = (Place, String)>,
) -> Diagnostic {
    let error = Diagnostic::error(format!("{what}, and there may be {}: {} too much", show(limit), show(asks - limit)))
        .code("quota-exceeded")
        .placed(Place::Key(format!("quota.{key}")))
        .help(format!("ask for less, or raise `{key}` in `[quota]`; `-1` is no limit"));
    over.into_iter().fold(error, |error, (place, amount)| error.related(place, format!("{amount} here")))
}

/// The ports, by the table that they are declared in.
fn ports(asked: &Asked<'_>) -> Vec<Part> {
    let inline = |server: &Server| server.ports.iter().filter(|id| matches!(id, PortId::Inline { .. })).count() as u64;
    let own = asked.ports.keys().filter(|id| matches!(id, PortId::Own(_)));
    let own = own.map(|id| Part { table: id.address(), count: 1, each: 1 });
    sum::largest_first(sum::by_table(asked.servers.values(), inline).into_iter().chain(own))
}

/// The volumes of their own.
fn volumes(asked: &Asked<'_>) -> Vec<Part> {
    let own = asked.volumes.keys().filter(|id| matches!(id, VolumeId::Own(_)));
    sum::largest_first(own.map(|id| Part { table: id.address(), count: 1, each: 1 }))
}

/// One server of each table: all of a table ask for the same.
fn first_of_each_table(servers: &BTreeMap<Name, Server>) -> impl Iterator<Item = &Server> {
    let tables: BTreeMap<&Address, &Server> = servers.values().rev().map(|server| (&server.declared, server)).collect();
    tables.into_values()
}
