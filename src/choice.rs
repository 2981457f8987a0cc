//! Which resources somebody means who names them on the command line.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, ResourceKind};
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::plan::world::Recorded;

/// The resources with objects on a host that these addresses, as people write them, stand for. A table with a `count` stands
/// for all servers that it makes, a subnet or a record for its network.
///
/// # Errors
/// All addresses of which there is nothing, or nothing on a host.
pub fn choose(
    written: &[String],
    desired: &Desired,
    recorded: &Recorded,
) -> Result<BTreeSet<Address>, Vec<Diagnostic>> {
    let known = known(desired, recorded);
    let (mut chosen, mut problems) = (BTreeSet::new(), Vec::new());
    for written in written {
        match known.get(written) {
            Some(addresses) => chosen.extend(addresses.iter().cloned()),
            None => problems.push(unknown(written, &known)),
        }
    }
    if problems.is_empty() { Ok(chosen) } else { Err(problems) }
}

/// What the spec has, and the state, by what people write.
type Known = BTreeMap<String, BTreeSet<Address>>;

fn known(desired: &Desired, recorded: &Recorded) -> Known {
    let mut known = Known::new();
    let mut add = |written: &Address, address: &Address| {
        known.entry(written.to_string()).or_default().insert(address.clone());
    };
    for server in desired.servers.values() {
        let address = Address::new(ResourceKind::Server, server.name.clone());
        add(&server.declared, &address);
        add(&address, &address);
    }
    for network in desired.networks.values() {
        let address = Address::new(ResourceKind::Network, network.name.clone());
        add(&address, &address);
        for subnet in &network.subnets {
            add(&Address::new(ResourceKind::Subnet, subnet.name.clone()), &address);
        }
        for record in &network.records {
            add(&Address::new(ResourceKind::DnsRecord, record.name.clone()), &address);
        }
    }
    let images = desired.images.keys().map(|name| Address::new(ResourceKind::Image, name.clone()));
    let ports = desired.ports.keys().map(|port| port.address());
    let volumes = desired.volumes.keys().map(|volume| volume.address());
    let records = recorded.records.values().map(|record| record.object.address());
    for address in images.chain(ports).chain(volumes).chain(records).chain([Address::local_host()]) {
        add(&address, &address);
    }
    known
}

fn unknown(written: &str, known: &Known) -> Diagnostic {
    for kind in [ResourceKind::Flavor, ResourceKind::Keypair] {
        if written.strip_prefix(kind.as_str()).is_some_and(|rest| rest.starts_with('.')) {
            return Diagnostic::error(format!("`{}` is nothing on the host by itself", written.escape_default()))
                .code("not-on-host")
                .help("name the servers that have it");
        }
    }
    let by_name = |text: &&String| text.split_once('.').is_some_and(|(_, name)| name == written);
    let near = known.keys().find(by_name).map(String::as_str);
    let help = match near.or_else(|| did_you_mean(written, known.keys().map(String::as_str))) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write it as the header of its table, like `server.web`; `novella plan` shows what there is".to_owned(),
    };
    Diagnostic::error(format!("there is no `{}`", written.escape_default())).code("unknown-address").help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::load_texts;

    #[test]
    fn addresses_stand_for_what_is_on_a_host() {
        let spec = "[network.n]\n[subnet.s]\nnetwork = \"n\"\ncidr = \"10.0.0.0/24\"\n[dns_record.r]\nnetwork = \"n\"\n\
                    type = \"A\"\nrecords = [\"10.0.0.9\"]\n[image.i]\nsource = \"/i\"\nformat = \"raw\"\n[flavor.f]\n\
                    ram = \"1 GiB\"\ndisk = \"1 GiB\"\n[port.p]\nnetwork = \"n\"\n[server.a]\nimage = \"i\"\nflavor = \"f\"\n\
                    networks = [\"n\"]\ncount = 2\n[server.web]\nimage = \"i\"\nflavor = \"f\"\nports = [\"p\"]\n";
        let loaded = load_texts([("spec.toml", spec)]);
        let (desired, problems) = crate::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?}"));
        let ask = |written: &str| choose(&[written.to_owned()], &desired, &Recorded::default());
        for (written, meant) in [
            ("server.a", "server.a-1 server.a-2"),
            ("server.a-2", "server.a-2"),
            ("server.web", "server.web"),
            ("subnet.s", "network.n"),
            ("dns_record.r", "network.n"),
            ("port.p", "port.p"),
            ("image.i", "image.i"),
            ("host.local", "host.local"),
        ] {
            let chosen: Vec<String> = ask(written).expect(written).iter().map(ToString::to_string).collect();
            assert_eq!(chosen.join(" "), meant);
        }
        for (written, code, help) in [
            ("server.wbe", "unknown-address", "did you mean `server.web`?"),
            ("web", "unknown-address", "did you mean `server.web`?"),
            ("flavor.f", "not-on-host", "name the servers that have it"),
        ] {
            let problems = ask(written).expect_err(written);
            let said = |text: &Option<String>| text.clone().unwrap_or_default();
            assert_eq!((said(&problems[0].code), said(&problems[0].help)), (code.to_owned(), help.to_owned()));
        }
    }
}
