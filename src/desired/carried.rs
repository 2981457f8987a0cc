//! What becomes of records under names that the spec does not have any more: `[[moved]]` and `[[removed]]`.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, Name, ResourceKind};
use crate::desired::{Problems, Server};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::values::AddressSpec;

/// What becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What was recorded under the first name is that of the second.
    pub moved: Vec<(Address, Address)>,
    /// What is forgotten, and stays on the host.
    pub removed: BTreeSet<Address>,
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
    carried
}

/// A table without a name, by its number among its kind.
struct Block {
    word: &'static str,
    number: usize,
}

impl Block {
    fn error(&self, key: &str, message: String) -> Diagnostic {
        let place = Place::Key(format!("{}[{}].{key}", self.word, self.number));
        Diagnostic { place, ..Diagnostic::error(message) }
    }

    /// The value, or a problem that says it is needed. One that could not be read has its problem already.
    fn need<'a>(&self, key: &str, value: Option<&'a AddressSpec>, problems: &mut Problems<'_>) -> Option<&'a Address> {
        if value.is_none() && problems.source.key(&format!("{}[{}].{key}", self.word, self.number)).is_none() {
            let error = self.error(key, format!("`[[{}]]` needs `{key}`", self.word));
            problems.push(error.help(format!("add `{key} = \"image.debian-12\"`")));
        }
        value.map(|address| &address.0)
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
