//! What is there under another name than that of the spec: `[[moved]]` and `[[removed]]` tell what becomes of records,
//! `[[import]]` which domain of others a server is.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, Name, ResourceKind};
use crate::desired::{Problems, Server};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::values::{AddressSpec, DomainId};

/// What becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What was recorded under the first name is that of the second.
    pub moved: Vec<(Address, Address)>,
    /// What is forgotten, and stays on the host.
    pub removed: BTreeSet<Address>,
    /// The servers that are domains of others, until they are taken over.
    pub imports: Vec<Import>,
}

/// A server that is a libvirt domain of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The server.
    pub server: Name,
    /// The name or the UUID of the domain.
    pub id: String,
    /// Where that is written.
    pub place: Place,
}

pub(super) fn resolve(spec: &Spec, servers: &BTreeMap<Name, Server>, problems: &mut Problems<'_>) -> Carried {
    let mut carried = Carried::default();
    for (number, moved) in spec.moved.iter().enumerate() {
        let block = Block { word: "moved", number };
        let from = block.need("from", moved.from.as_ref(), problems);
        let to = block.need("to", moved.to.as_ref(), problems);
        if let (Some(from), Some(to)) = (from, to) {
            let declared = |address: &Address| is_declared(address, spec, servers);
            block.check_move(from, to, declared, problems);
            carried.moved.push((from.clone(), to.clone()));
        }
    }
    for (number, removed) in spec.removed.iter().enumerate() {
        let block = Block { word: "removed", number };
        let Some(from) = block.need("from", removed.from.as_ref(), problems) else { continue };
        if is_declared(from, spec, servers) {
            problems.push(
                block
                    .error("from", format!("`{from}` is to be forgotten, and the spec has it"))
                    .help("take it out of the spec, or this block"),
            );
        }
        carried.removed.insert(from.clone());
    }
    carried.imports = imports(spec, servers, problems);
    carried
}

fn imports(spec: &Spec, servers: &BTreeMap<Name, Server>, problems: &mut Problems<'_>) -> Vec<Import> {
    let mut imports: Vec<Import> = Vec::new();
    for (number, written) in spec.imports.iter().enumerate() {
        let block = Block { word: "import", number };
        let to = block.need_as("to", written.to.as_ref(), "\"server.web\"", problems);
        let id = block.need_as("id", written.id.as_ref(), "\"DOMAIN\"", problems);
        let (Some(AddressSpec(to)), Some(DomainId(id))) = (to, id) else { continue };
        if to.kind != ResourceKind::Server {
            let error = block.error("to", format!("`{to}` cannot be a domain"));
            problems.push(error.help("name a server; what it stands on is found by itself"));
        } else if !servers.contains_key(&to.name) {
            let error = block.error("to", format!("there is no `{to}`"));
            problems.push(error.help(match spec.servers.get(&to.name) {
                Some(table) if table.count.is_some() => format!("it has a `count`: name one of it, as `\"{to}-1\"`"),
                Some(_) => "it is `abstract`: name one that is made".into(),
                None => format!("declare it: `[{to}]`; `novella import {to} {id}` tells what to write"),
            }));
        } else if let Some(other) = imports.iter().find(|other| other.server == to.name || other.id == *id) {
            let (key, error) = match other.server == to.name {
                true => ("to", format!("`{to}` is one domain, and another block says which")),
                false => ("id", format!("domain `{id}` is `server.{}` already", other.server)),
            };
            let error = block.error(key, error).related(other.place.clone(), "the other one");
            problems.push(error.help("take one of the blocks out"));
        } else {
            imports.push(Import { server: to.name.clone(), id: id.clone(), place: block.place("id") });
        }
    }
    imports
}

/// A table without a name, by its number among its kind.
struct Block {
    word: &'static str,
    number: usize,
}

impl Block {
    fn place(&self, key: &str) -> Place {
        Place::Key(format!("{}[{}].{key}", self.word, self.number))
    }

    fn error(&self, key: &str, message: String) -> Diagnostic {
        Diagnostic { place: self.place(key), ..Diagnostic::error(message) }
    }

    fn need<'a>(&self, key: &str, value: Option<&'a AddressSpec>, problems: &mut Problems<'_>) -> Option<&'a Address> {
        self.need_as(key, value, "\"image.debian-12\"", problems).map(|address| &address.0)
    }

    /// The value, or a problem that says it is needed. One that could not be read has its problem already.
    fn need_as<'a, T>(
        &self,
        key: &str,
        value: Option<&'a T>,
        example: &str,
        problems: &mut Problems<'_>,
    ) -> Option<&'a T> {
        if value.is_none() && problems.source.key(&format!("{}[{}].{key}", self.word, self.number)).is_none() {
            let error = self.error(key, format!("`[[{}]]` needs `{key}`", self.word));
            problems.push(error.help(format!("add `{key} = {example}`")));
        }
        value
    }

    fn check_move(
        &self,
        from: &Address,
        to: &Address,
        is_declared: impl Fn(&Address) -> bool,
        problems: &mut Problems<'_>,
    ) {
        if from.kind != to.kind {
            problems.push(self.error("to", format!("`{from}` cannot become `{to}`: they are of different kinds")));
        } else if let Some(why) = from.kind.bound_to_name() {
            problems
                .push(self.error("from", format!("`{from}` cannot be renamed")).help(format!("keep the name: {why}")));
        } else if is_declared(from) {
            let error = self.error("from", format!("`{from}` was moved, and the spec has it"));
            problems.push(error.help(format!("give that one another name, or take the block out: it is not `{to}`")));
        } else if !is_declared(to) {
            problems.push(self.error("to", format!("there is no `{to}`")).help("name what it is in this spec"));
        }
    }
}

fn is_declared(address: &Address, spec: &Spec, servers: &BTreeMap<Name, Server>) -> bool {
    let name = &address.name;
    match address.kind {
        ResourceKind::Host => true,
        ResourceKind::Network => spec.networks.contains_key(name),
        ResourceKind::Subnet => spec.subnets.contains_key(name),
        ResourceKind::DnsRecord => spec.dns_records.contains_key(name),
        ResourceKind::Port => spec.ports.contains_key(name),
        ResourceKind::Image => spec.images.contains_key(name),
        ResourceKind::Flavor => spec.flavors.contains_key(name),
        ResourceKind::Keypair => spec.keypairs.contains_key(name),
        ResourceKind::Volume => spec.volumes.contains_key(name),
        ResourceKind::Server => spec.servers.contains_key(name) || servers.contains_key(name),
    }
}
