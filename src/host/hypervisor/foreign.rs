//! Looking at domains of others. They are never touched.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use roxmltree::Document;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::connection::{failed, is};
use super::{Hypervisor, read};
use crate::host::HostError;
use crate::host::domain_xml::foreign::{Foreign, places, targets};
use crate::value::{ByteSize, Mac};

impl Hypervisor {
    /// A domain that is not ours, by its name in libvirt.
    ///
    /// # Errors
    /// When there is none of this name, or it carries our mark.
    pub fn foreign(&self, name: &str) -> Result<Foreign, HostError> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(HostError::refused(format!("{name:?} is not the name of a domain")));
        }
        self.connection.run(|connect| {
            let cannot = |error: Error| match is(&error, &[ErrorNumber::NoDomain]) {
                true => HostError::refused(format!("there is no domain `{name}`")).help("see `virsh list --all`"),
                false => cannot_look(name, error),
            };
            let domain = connect.lookup_domain_by_name(name).map_err(cannot)?;
            if let Some(marked) = read(&domain, sys::VIR_DOMAIN_XML_INACTIVE).map_err(cannot)?.marked {
                let (project, server) = (marked.project, marked.server);
                return Err(HostError::refused(format!(
                    "domain `{name}` is novella's already: `server.{server}` of project `{project}`"
                )));
            }
            look(connect, &domain, name).map_err(cannot)
        })
    }

    /// All domains that do not carry our mark, of any project, by name.
    ///
    /// # Errors
    /// When libvirt cannot be asked.
    pub fn all_foreign(&self) -> Result<Vec<Foreign>, HostError> {
        self.connection.run(|connect| {
            let all =
                connect.list_all_domains(0).map_err(|error| failed("cannot list the domains of libvirt", error))?;
            let mut foreign = Vec::new();
            for domain in all {
                let Ok(name) = domain.name() else { continue };
                let looked = read(&domain, sys::VIR_DOMAIN_XML_INACTIVE).and_then(|read| match read.marked {
                    Some(_) => Ok(None),
                    None => look(connect, &domain, &name).map(Some),
                });
                match looked {
                    Ok(looked) => foreign.extend(looked),
                    // It went away while we looked.
                    Err(error) if is(&error, &[ErrorNumber::NoDomain]) => {}
                    Err(error) => return Err(cannot_look(&name, error)),
                }
            }
            foreign.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(foreign)
        })
    }
}

/// The networks that this host is on: interface, address and length of the prefix.
pub fn on_host() -> Vec<(String, IpNet)> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let net = |address: &nix::ifaddrs::InterfaceAddress| -> Option<IpNet> {
        let ip = |address: &Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let address = address.as_ref()?;
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        };
        IpNet::with_netmask(ip(&address.address)?, ip(&address.netmask)?).ok()
    };
    all.filter_map(|address| Some((address.interface_name.clone(), net(&address)?))).collect()
}

fn cannot_look(name: &str, error: Error) -> HostError {
    failed(format!("cannot look at domain `{name}`"), error)
}

fn look(connect: &Connect, domain: &Domain, name: &str) -> Result<Foreign, Error> {
    // Without its secrets, a password for the screen would be left out in silence.
    let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)?;
    let capacities = targets(&xml).into_iter().filter_map(|target| Some((capacity(domain, &target)?, target)));
    let running = domain.is_active()?;
    Ok(Foreign {
        name: name.to_owned(),
        capacities: capacities.map(|(size, target)| (target, size)).collect(),
        // One that is not defined cannot be started with the host.
        autostart: domain.autostart().unwrap_or(false),
        running,
        networks: networks(connect, &xml),
        addresses: if running { addresses(domain) } else { BTreeMap::new() },
        xml,
    })
}

/// How much a disk holds; nothing where libvirt cannot tell, as of a file that is missing.
fn capacity(domain: &Domain, target: &str) -> Option<ByteSize> {
    // Of a file that is missing it says 0.
    domain.block_info(target, 0).ok().map(|info| ByteSize(info.capacity)).filter(|size| size.bytes() > 0)
}

/// The definitions of the networks that a domain is on; of one that is not there, none.
fn networks(connect: &Connect, xml: &str) -> BTreeMap<String, String> {
    let Ok(document) = Document::parse(xml) else { return BTreeMap::new() };
    let names = places(document.root_element()).into_iter().filter(|(kind, _)| kind == "network");
    let told = |(_, name): (String, String)| {
        let xml = connect.lookup_network_by_name(&name).ok()?.xml_desc(0).ok()?;
        Some((name, xml))
    };
    names.filter_map(told).collect()
}

/// The addresses that a running domain has by leases of libvirt's, else by what the host has heard of it.
fn addresses(domain: &Domain) -> BTreeMap<Mac, Vec<IpAddr>> {
    let mut found = BTreeMap::new();
    for source in [sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP] {
        for interface in domain.interface_addresses(source, 0).unwrap_or_default() {
            let Some(mac) = interface.hwaddr.and_then(|mac| mac.parse().ok()) else { continue };
            let addresses: Vec<IpAddr> = interface.addrs.iter().filter_map(|it| it.addr.parse().ok()).collect();
            if !addresses.is_empty() {
                found.entry(mac).or_insert(addresses);
            }
        }
    }
    found
}
