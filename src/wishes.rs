//! What is asked for on the command line beside the spec: servers to be made anew, things that may be destroyed.

use std::collections::BTreeSet;

use crate::address::{Address, Name, ResourceKind, VolumeId};
use crate::blueprint::key::domain_key;
use crate::choice;
use crate::desired::Desired;
use crate::diagnostic::Diagnostic;
use crate::plan::world::Recorded;

/// What is asked for beside the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The servers that get a new root disk, from what the spec says now.
    pub replace: BTreeSet<Name>,
    /// Whether nothing but these servers, and what they need, is touched.
    pub only_these: bool,
    /// What may be taken away although `prevent_destroy` says no.
    pub allow_destroy: BTreeSet<Address>,
}

impl Wishes {
    /// What these addresses, as people write them, ask for.
    ///
    /// # Errors
    /// All addresses that are none, or of what cannot be replaced.
    pub fn new(
        replace: &[String],
        allow_destroy: &[String],
        desired: &Desired,
        recorded: &Recorded,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let mut choose = |written: &[String]| {
            let chosen = choice::choose(written, desired, recorded);
            chosen.unwrap_or_else(|found| {
                problems.extend(found);
                BTreeSet::new()
            })
        };
        let (replace, allow_destroy) = (choose(replace), choose(allow_destroy));
        let mut names = BTreeSet::new();
        for address in replace {
            match replaceable(address) {
                Ok(name) => drop(names.insert(name)),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() { Ok(Self { replace: names, only_these: false, allow_destroy }) } else { Err(problems) }
    }

    /// The same, where nothing but the servers that are to be made anew is touched.
    ///
    /// # Errors
    /// When one of them was not made yet.
    pub fn only_these(self, recorded: &Recorded) -> Result<Self, Vec<Diagnostic>> {
        let unmade = self.replace.iter().filter(|name| !recorded.records.contains_key(&domain_key(name)));
        let problem = |name| Diagnostic::error(format!("`server.{name}` has not been made yet"));
        let problems: Vec<Diagnostic> = unmade.map(|name| problem(name).help("`novella apply` makes it")).collect();
        if problems.is_empty() { Ok(Self { only_these: true, ..self }) } else { Err(problems) }
    }

    /// What may not be taken away. Of what the spec has, its word counts; of what it has no more, that of the record.
    pub fn guarded(&self, desired: &Desired, recorded: &Recorded) -> BTreeSet<Address> {
        let servers = desired.servers.values().map(|it| (ResourceKind::Server, &it.name, it.lifecycle.prevent_destroy));
        let networks = desired.networks.values().map(|it| (ResourceKind::Network, &it.name, it.prevent_destroy));
        let written = servers.chain(networks).filter(|(.., is_guarded)| *is_guarded);
        let written = written.map(|(kind, name, _)| Address::new(kind, name.clone()));
        let volumes = desired.volumes.values().filter(|it| it.prevent_destroy).map(|it| it.id.address());
        let written = written.chain(volumes);
        let records = recorded.records.values().filter(|record| record.prevent_destroy);
        let recorded = records.map(|record| record.object.address()).filter(|address| !is_written(address, desired));
        written.chain(recorded).filter(|address| !self.allow_destroy.contains(address)).collect()
    }
}

/// Whether the spec has a resource that can be guarded.
fn is_written(address: &Address, desired: &Desired) -> bool {
    match address.kind {
        ResourceKind::Server => desired.servers.contains_key(&address.name),
        ResourceKind::Network => desired.networks.contains_key(&address.name),
        ResourceKind::Volume => desired.volumes.contains_key(&VolumeId::Own(address.name.clone())),
        _ => false,
    }
}

/// The server with this address; an error for what is no server, with what one does instead.
fn replaceable(address: Address) -> Result<Name, Box<Diagnostic>> {
    let help = match address.kind {
        ResourceKind::Server => return Ok(address.name),
        ResourceKind::Network => {
            "`apply` mends what was changed by hand; to have its bridge made anew, give it another name with `bridge`"
        }
        ResourceKind::Image => {
            "disks lie over what was fetched. Write the `sha256` of the new version, or another `source`, and replace the \
             servers that are to have it"
        }
        ResourceKind::Flavor => "it is a size, and nothing on the host; replace the servers that have it",
        ResourceKind::Keypair => "guests are told of it when they are made; replace the servers that name it",
        ResourceKind::Volume => {
            "what is on it would be lost: to have it empty, take it out of the spec, apply, and put it back; it is in the trash then"
        }
        ResourceKind::Host | ResourceKind::Subnet | ResourceKind::DnsRecord | ResourceKind::Port => {
            "it holds no data that could be made anew; `apply` mends what was changed by hand"
        }
    };
    Err(Diagnostic::error(format!("`{address}` cannot be replaced")).code("not-replaceable").help(help).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::load_texts;

    #[test]
    fn only_servers_are_made_anew() {
        let spec = "[network.n]\n[subnet.s]\nnetwork = \"n\"\ncidr = \"10.0.0.0/24\"\n[image.i]\nsource = \"/i\"\n\
                    format = \"raw\"\n[volume.v]\nsize = \"1 GiB\"\n[flavor.f]\nram = \"1 GiB\"\ndisk = \"1 GiB\"\n\
                    [server.a]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"n\"]\ncount = 2\n";
        let loaded = load_texts([("spec.toml", spec)]);
        let (desired, problems) = crate::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?}"));
        let ask = |written: &str| Wishes::new(&[written.to_owned()], &[], &desired, &Recorded::default());
        assert_eq!(ask("server.a-2").expect("known").replace.len(), 1);
        assert_eq!(ask("server.a").expect("known").replace.len(), 2);
        for (other, code) in [
            ("network.n", "not-replaceable"),
            ("subnet.s", "not-replaceable"),
            ("image.i", "not-replaceable"),
            ("volume.v", "not-replaceable"),
            ("flavor.f", "not-on-host"),
            ("server.b", "unknown-address"),
        ] {
            assert_eq!(ask(other).expect_err(other)[0].code.as_deref(), Some(code), "{other}");
        }
    }
}
