//! The servers that people name, and what is recorded of them: what the verbs begin with that do something with one guest.

use std::net::IpAddr;

use crate::address::Name;
use crate::blueprint::key::{bridge_key, domain_key, host_entry_key};
use crate::blueprint::object::{Bridge, Domain, HostEntry, Object};
use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, Stop};
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::host::HostError;
use crate::host::machine::Machine;
use crate::plan::world::Recorded;
use crate::report;
use crate::spec::Source;
use crate::value::Mac;

/// What the spec and the state say.
pub(super) struct Servers {
    pub desired: Desired,
    pub recorded: Recorded,
    source: Source,
}

impl Servers {
    /// Reads both. Nothing is written, and no lock is taken.
    pub(super) fn read(global: &Global) -> Result<Self, Stop> {
        let (desired, source) = session::spec(global)?;
        Ok(Self { desired, recorded: session::recorded(global)?, source })
    }

    /// The host of the spec.
    pub(super) fn target(&self, global: &Global) -> Result<Target, Stop> {
        Ok(Target::open(global, &self.desired, session::no_progress())?)
    }

    /// The servers of these names, `web` or `server.web`, each once. They are in the spec, in the state, or in both.
    pub(super) fn named(&self, written: &[String]) -> Result<Vec<Name>, Stop> {
        let known = self.known();
        let (mut names, mut problems): (Vec<Name>, _) = (Vec::new(), Vec::new());
        for written in written {
            let name = written.strip_prefix("server.").unwrap_or(written);
            match known.iter().find(|known| known.as_str() == name) {
                Some(name) if names.contains(name) => {}
                Some(name) => names.push((*name).clone()),
                None => {
                    let help = match did_you_mean(name, known.iter().map(|known| known.as_str())) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => "the spec has no servers".into(),
                        None => {
                            let names: Vec<String> = known.iter().take(8).map(|name| format!("`{name}`")).collect();
                            format!("use one of {}", names.join(", "))
                        }
                    };
                    let what = format!("there is no `server.{}`", name.escape_default());
                    problems.push(Diagnostic::error(what).help(help));
                }
            }
        }
        if problems.is_empty() {
            return Ok(names);
        }
        report::diagnostics::print(&problems, &self.source);
        Err(Stop(FAILED))
    }

    /// The servers of these names with their domains; it is an error if one was never made.
    pub(super) fn made(&self, written: &[String]) -> Result<Vec<&Domain>, Stop> {
        let names = self.named(written)?;
        let unmade = |name: &Name| {
            Diagnostic::error(format!("`server.{name}` has not been made yet")).help("`novella apply` makes it")
        };
        let (mut made, mut problems) = (Vec::new(), Vec::new());
        for name in &names {
            match domain(&self.recorded, name) {
                Some(domain) => made.push(domain),
                None => problems.push(unmade(name)),
            }
        }
        if problems.is_empty() {
            return Ok(made);
        }
        report::diagnostics::print(&problems, &self.source);
        Err(Stop(FAILED))
    }

    /// The server of this name with its domain; it is an error if it was never made.
    pub(super) fn one(&self, written: &str) -> Result<&Domain, Stop> {
        self.made(&[written.to_owned()])?.first().copied().ok_or(Stop(FAILED))
    }

    fn known(&self) -> Vec<&Name> {
        let recorded = self.recorded.records.values().filter_map(|record| match &record.object {
            Object::Domain(domain) => Some(&domain.server),
            _ => None,
        });
        let mut known: Vec<&Name> = self.desired.servers.keys().chain(recorded).collect();
        known.sort_unstable();
        known.dedup();
        known
    }
}

/// This machine: the simulated host has no guests to do `what` with.
pub(super) fn machine<'t>(target: &'t Target, what: &str) -> Result<&'t Machine, Stop> {
    match target {
        Target::Machine(machine) => Ok(machine),
        Target::Sim(_) => Err(Stop::from(
            HostError::refused(format!("the simulated host boots no guests: there is nothing to {what}"))
                .help("leave `--backend sim` away; `show`, `start`, `stop` and `wait --for running` work with it"),
        )),
    }
}

/// The domain that is recorded of a server.
pub(super) fn domain<'r>(recorded: &'r Recorded, server: &Name) -> Option<&'r Domain> {
    recorded.records.get(&domain_key(server))?.object.as_domain()
}

/// Where a guest is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub address: IpAddr,
    pub mac: Mac,
    pub bridge: String,
    /// Whether the host is on the same subnet.
    pub near: bool,
}

/// Every planned address of a guest, the best first: by its first port that the host can reach, and there by IPv4 first.
/// An address that DHCP hands out comes before those that the guest must set up itself. A port without its cable is no way.
pub(super) fn places(recorded: &Recorded, domain: &Domain) -> Vec<Place> {
    let mut places = Vec::new();
    for nic in domain.nics.iter().filter(|nic| !nic.unplugged) {
        let Some(entry) = entry(recorded, &host_entry_key(&nic.id(&domain.server))) else { continue };
        let served = entry.served();
        let mut addresses: Vec<IpAddr> = entry.addresses.iter().map(|it| it.address).collect();
        addresses.sort_by_key(|address| (address.is_ipv6(), !served.contains(address)));
        let bridge = bridge(recorded, &nic.network);
        places.extend(addresses.into_iter().map(|address| Place {
            near: bridge.is_some_and(|bridge| bridge.addresses.iter().any(|net| net.contains(&address))),
            address,
            mac: entry.mac,
            bridge: nic.bridge.clone(),
        }));
    }
    places.sort_by_key(|place| !place.near);
    places
}

fn entry<'r>(recorded: &'r Recorded, key: &crate::blueprint::key::ObjectKey) -> Option<&'r HostEntry> {
    match &recorded.records.get(key)?.object {
        Object::HostEntry(entry) => Some(entry),
        _ => None,
    }
}

fn bridge<'r>(recorded: &'r Recorded, network: &Name) -> Option<&'r Bridge> {
    match &recorded.records.get(&bridge_key(network))?.object {
        Object::Bridge(bridge) => Some(bridge),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PortId;
    use crate::blueprint::dhcp::Assignment;
    use crate::blueprint::object::{Nic, PortAddress, Power, VirtType};
    use crate::plan::world::Record;
    use crate::value::ByteSize;

    fn name(name: &str) -> Name {
        name.parse().expect("a name")
    }

    /// The addresses of the bridge, those of the port, and whether its cable is pulled out.
    type Port<'a> = (&'a [&'a str], &'a [(&'a str, Assignment)], bool);

    /// A guest with these ports, each on a network of its own.
    fn found(ports: &[Port<'_>]) -> Vec<String> {
        let (mut nics, mut objects) = (Vec::new(), Vec::new());
        for (number, (host, guest, unplugged)) in ports.iter().enumerate() {
            let network = name(&format!("net-{number}"));
            let mac = Mac([2, 0, 0, 0, 0, u8::try_from(number).expect("a few")]);
            objects.push(Object::Bridge(Bridge {
                network: network.clone(),
                device: format!("br{number}"),
                mac,
                mtu: 1500,
                addresses: host.iter().map(|net| net.parse().expect("a network")).collect(),
            }));
            let address = |(address, assignment): &(&str, Assignment)| PortAddress {
                address: address.parse().expect("an address"),
                assignment: *assignment,
                domain: "lab".into(),
            };
            objects.push(Object::HostEntry(HostEntry {
                port: PortId::inline(&name("web"), &network),
                network: network.clone(),
                mac,
                addresses: guest.iter().map(address).collect(),
                hostname: "web".into(),
                options: Vec::new(),
            }));
            let (bridge, tap) = (format!("br{number}"), format!("tap{number}"));
            nics.push(Nic { network, port: None, bridge, tap, mac, mtu: 1500, unplugged: *unplugged });
        }
        let domain = Domain {
            server: name("web"),
            project: Name::default_project(),
            name: "default.web".into(),
            uuid: uuid::Uuid::nil(),
            imported: false,
            virt_type: VirtType::Qemu,
            vcpus: 1,
            max_vcpus: None,
            memory: ByteSize::mib(64),
            max_memory: None,
            hardware: Default::default(),
            disk: "/disk".into(),
            disk_format: Default::default(),
            base: None,
            root_disk: Default::default(),
            disks: Vec::new(),
            nics,
            boot: None,
            console_log: "/log".into(),
            power: Power::On,
            shutdown_timeout: 60,
            depends_on: Default::default(),
            seed: None,
        };
        let records = objects.into_iter().map(|object| (object.key(), Record::present(object))).collect();
        let places = places(&Recorded { serial: 1, records }, &domain);
        places.iter().map(|it| format!("{}{}", it.address, if it.near { "" } else { " far" })).collect()
    }

    #[test]
    fn a_guest_is_found_at_the_nearest_address() {
        use Assignment::{Dhcp, Slaac, Static};
        let near = &["10.0.0.1/24", "fd00::1/64"][..];
        let both = &[("fd00::5", Slaac), ("10.0.0.5", Dhcp)][..];
        assert_eq!(found(&[(near, both, false)]), ["10.0.0.5", "fd00::5"], "IPv4 first");
        assert_eq!(found(&[(&["fd00::1/64"], both, false)]), ["fd00::5", "10.0.0.5 far"], "what can be reached first");
        assert_eq!(found(&[(near, both, true)]), [""; 0], "no cable, no way");
        let own = &[("10.0.0.9", Static), ("10.0.0.5", Dhcp)][..];
        assert_eq!(found(&[(near, own, false)]), ["10.0.0.5", "10.0.0.9"], "what the guest is told first");
        let second = &[("10.1.0.5", Dhcp)][..];
        let (away, back) = ((&[][..], both, false), (&["10.1.0.1/24"][..], second, false));
        assert_eq!(found(&[away, back]), ["10.1.0.5", "10.0.0.5 far", "fd00::5 far"], "the first port that is near");
        assert_eq!(found(&[(near, both, false), back])[0], "10.0.0.5", "the first port");
    }
}
