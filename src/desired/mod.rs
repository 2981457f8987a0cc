//! What the user meant: defaults filled in, names resolved, every rule of the language checked.
//!
//! Whoever holds a [`Desired`] holds the proof that the spec is valid. There is one file a resource; [`checks`] has what
//! concerns several, and [`quota`] what all of them may be together.

pub mod carried;
pub mod checks;
pub mod cloud_init;
pub mod dhcp_option;
pub mod dns_record;
pub mod flavor;
pub mod host;
pub mod image;
pub mod keypair;
pub mod lifecycle;
pub mod network;
pub mod port;
pub mod quota;
pub mod server;
pub mod subnet;
pub mod sum;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, Name, PortId, ResourceKind, VolumeId};
use crate::diagnostic::{Diagnostic, did_you_mean, has_errors};
use crate::spec::{Source, Spec};

pub use carried::Carried;
pub use cloud_init::CloudInit;
pub use dns_record::DnsRecord;
pub use flavor::Flavor;
pub use host::HostConfig;
pub use image::{Image, ImageFile};
pub use lifecycle::Lifecycle;
pub use network::Network;
pub use port::Port;
pub use server::Server;
pub use subnet::Subnet;
pub use volume::Volume;

/// A valid spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// What keeps this spec apart from others on the host.
    pub project: Name,
    /// The host.
    pub host: HostConfig,
    /// The networks with their subnets.
    pub networks: BTreeMap<Name, Network>,
    /// The images.
    pub images: BTreeMap<Name, Image>,
    /// The flavors.
    pub flavors: BTreeMap<Name, Flavor>,
    /// The ports, those of servers and those of their own.
    pub ports: Ports,
    /// The disks beside root disks: volumes of their own, and those of servers.
    pub volumes: Volumes,
    /// The servers, one for each that is to exist.
    pub servers: BTreeMap<Name, Server>,
    /// What is there under another name than that of the spec.
    pub carried: Carried,
    /// Which table names which other, and by which key.
    pub references: BTreeSet<Reference>,
}

/// A key of one table that names another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The table.
    pub from: Address,
    /// Its key, as `networks[0]`.
    pub key: String,
    /// What is named.
    pub to: Address,
}

/// All ports.
pub type Ports = BTreeMap<PortId, Port>;

/// All disks beside root disks.
pub type Volumes = BTreeMap<VolumeId, Volume>;

/// Resolves a spec: the valid spec, unless something is wrong, and all that is wrong or worth knowing.
///
/// The source tells where relative paths start, and which keys were written but could not be read: those are not missing.
pub fn resolve(spec: &Spec, source: &Source) -> (Option<Desired>, Vec<Diagnostic>) {
    let mut problems = Problems { source, list: Vec::new(), references: BTreeSet::new() };
    let project = project(spec);
    let host = host::resolve(spec, &mut problems);
    let mut networks = network::resolve(spec, &mut problems);
    subnet::resolve(spec, &mut networks, &mut problems);
    let images = image::resolve(spec, &mut problems);
    let flavors = flavor::resolve(spec, &mut problems);
    dns_record::resolve(spec, &mut networks, &mut problems);
    let mut ports = port::resolve(spec, &networks, &mut problems);
    let keypairs = keypair::resolve(spec, &mut problems);
    let mut volumes = volume::resolve(spec, &images, &mut problems);
    let known =
        server::Known { host: &host, networks: &networks, images: &images, flavors: &flavors, keypairs: &keypairs };
    let servers = server::resolve(spec, &known, &mut ports, &mut volumes, &mut problems);
    checks::subnets_do_not_overlap(&networks, &mut problems);
    checks::bridges_are_unique(&networks, &mut problems);
    checks::mtu_suits_ipv6(&networks, &mut problems);
    checks::addresses_and_macs_are_unique(&ports, &mut problems);
    checks::names_are_unique(&ports, &mut problems);
    dns_record::check(&networks, &ports, &mut problems);
    let carried = carried::resolve(spec, &servers, &mut problems);
    let asked =
        quota::Asked { networks: &networks, flavors: &flavors, ports: &ports, volumes: &volumes, servers: &servers };
    quota::check(spec, &asked, &mut problems);
    let references = std::mem::take(&mut problems.references);
    let desired = Desired { project, host, networks, images, flavors, ports, volumes, servers, carried, references };
    (Some(desired).filter(|_| !has_errors(&problems.list)), problems.list)
}

impl Desired {
    /// The table that declares a resource: several servers may have one.
    pub fn declared(&self, address: &Address) -> Address {
        match address.kind {
            ResourceKind::Server => self.servers.get(&address.name).map(|server| server.declared.clone()),
            _ => None,
        }
        .unwrap_or_else(|| address.clone())
    }
}

/// The project that a spec belongs to.
pub fn project(spec: &Spec) -> Name {
    spec.project.name.clone().unwrap_or_else(Name::default_project)
}

/// Collects what is wrong.
#[derive(Debug)]
pub struct Problems<'s> {
    source: &'s Source,
    list: Vec<Diagnostic>,
    references: BTreeSet<Reference>,
}

impl Problems<'_> {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// The value, or a problem that says it is needed. A value that could not be read has its problem already.
    fn need<'v, T>(&mut self, resource: &Address, key: &str, value: &'v Option<T>, example: &str) -> Option<&'v T> {
        let is_told = || {
            self.source.key(&format!("{resource}.{key}")).is_some()
                || self.source.incomplete.contains(&resource.to_string())
        };
        if value.is_none() && !is_told() {
            self.push(
                Diagnostic::error(format!("`{resource}` needs `{key}`"))
                    .on(resource, "")
                    .help(format!("add `{key} = {example}`")),
            );
        }
        value.as_ref()
    }

    /// Whether a name that a resource refers to is declared; a problem if not.
    fn refer<'n, T: 'n>(
        &mut self,
        resource: &Address,
        key: &str,
        kind: ResourceKind,
        name: &Name,
        declared: &'n BTreeMap<Name, T>,
    ) -> Option<&'n T> {
        let to = Address::new(kind, name.clone());
        self.references.insert(Reference { from: resource.clone(), key: key.to_owned(), to });
        let found = declared.get(name);
        if found.is_none() {
            let error = Diagnostic::error(format!("there is no `{kind}.{name}`")).on(resource, key);
            let help = match did_you_mean(name.as_str(), declared.keys().map(Name::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if declared.is_empty() => format!("declare it: `[{kind}.{name}]`"),
                None => {
                    let names: Vec<String> = declared.keys().take(8).map(|name| format!("`{name}`")).collect();
                    format!("declare it, `[{kind}.{name}]`, or use one of {}", names.join(", "))
                }
            };
            self.push(error.help(help));
        }
        found
    }
}
