//! Edits of the records by hand: to forget, to rename, to write down what was found. The host is not touched by any of it.

use std::collections::BTreeSet;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::blueprint::key::{ObjectKey, ObjectKind, host_entry_key};
use crate::blueprint::object::{Base, Disk, HostEntry, Object, Volume};
use crate::plan::Plan;
use crate::plan::diff::Reason;
use crate::plan::world::{Record, Recorded};

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is recorded of it.
    #[error("nothing is recorded of `{0}`")]
    Unrecorded(Address),
    /// The other has records of its own.
    #[error("`{0}` is recorded already")]
    Taken(Address),
    /// They are not of one kind.
    #[error("`{0}` cannot become `{1}`: they are of different kinds")]
    Kinds(Address, Address),
    /// What it is on the host is known by its name.
    #[error("`{address}` cannot be renamed: {why}")]
    Named {
        /// The resource.
        address: Address,
        /// What stands against it.
        why: &'static str,
    },
}

impl Refusal {
    /// What can be done about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Unrecorded(address) => Some(match address.kind {
                ResourceKind::Flavor
                | ResourceKind::Keypair
                | ResourceKind::Subnet
                | ResourceKind::DnsRecord
                | ResourceKind::Host => {
                    "no record goes by the name of such a resource: rename it in the spec, and nothing else is needed"
                }
                _ => "`novella state list` shows what is recorded",
            }),
            Self::Taken(_) => Some("remove that from the records first, with `novella state rm`"),
            Self::Kinds(..) => None,
            Self::Named { address, .. } => Some(match address.kind {
                ResourceKind::Server => {
                    "keep the name; or move what matters off its disk, and give the address to a `[port.N]`, which \
                     outlives the server"
                }
                _ => "keep the name",
            }),
        }
    }
}

/// The keys of all that is recorded for a resource.
pub fn keys_of(recorded: &Recorded, address: &Address) -> Vec<ObjectKey> {
    let its = recorded.records.iter().filter(|(_, record)| record.object.address() == *address);
    its.map(|(key, _)| key.clone()).collect()
}

/// Takes the records of these resources away, and with them those of the images that nothing else stands on: else these
/// would be removed from under what stays. Gives the keys.
///
/// # Errors
/// When nothing is recorded of one of them.
pub fn forget(recorded: &mut Recorded, addresses: &[Address]) -> Result<Vec<ObjectKey>, Refusal> {
    let mut forgotten = Vec::new();
    for address in addresses.iter().collect::<BTreeSet<_>>() {
        let keys = keys_of(recorded, address);
        if keys.is_empty() {
            return Err(Refusal::Unrecorded(address.clone()));
        }
        forgotten.extend(keys);
    }
    let (gone, left): (Vec<_>, Vec<_>) = recorded.records.iter().partition(|(key, _)| forgotten.contains(*key));
    let needs = |records: Vec<(&ObjectKey, &Record)>| -> BTreeSet<ObjectKey> {
        records.into_iter().flat_map(|(_, record)| record.needs()).collect()
    };
    let (needed, still_needed) = (needs(gone), needs(left));
    let under = needed.into_iter().filter(|key| key.kind == ObjectKind::Base && recorded.records.contains_key(key));
    forgotten.extend(under.filter(|key| !still_needed.contains(key)).collect::<Vec<_>>());
    forgotten.sort();
    forgotten.dedup();
    recorded.records.retain(|key, _| !forgotten.contains(key));
    Ok(forgotten)
}

/// Gives what is recorded of a resource to one of another name, as far as the host lets it keep anything. Tells what the
/// next `apply` has to do with it.
///
/// # Errors
/// Where the thing on the host is known by the old name, so that nothing could be kept that matters.
pub fn rename(recorded: &mut Recorded, from: &Address, to: &Address) -> Result<&'static str, Refusal> {
    if from.kind != to.kind {
        return Err(Refusal::Kinds(from.clone(), to.clone()));
    }
    if !is_recorded(recorded, from) {
        return Err(Refusal::Unrecorded(from.clone()));
    }
    if is_recorded(recorded, to) {
        return Err(Refusal::Taken(to.clone()));
    }
    if let Some(why) = from.kind.bound_to_name() {
        return Err(Refusal::Named { address: from.clone(), why });
    }
    match from.kind {
        ResourceKind::Image => {
            rename_image(recorded, &from.name, &to.name);
            Ok("the files in the cache and the disks go by content, and stay as they are")
        }
        ResourceKind::Port => {
            rename_port(recorded, &from.name, &to.name);
            Ok("its addresses and its MAC stay; its guest gets a new interface with them, and is rebooted for it")
        }
        ResourceKind::Host
        | ResourceKind::Network
        | ResourceKind::Subnet
        | ResourceKind::DnsRecord
        | ResourceKind::Flavor
        | ResourceKind::Keypair
        | ResourceKind::Volume
        | ResourceKind::Server => Err(Refusal::Unrecorded(from.clone())),
    }
}

/// The same as [`rename`] for what a spec says was moved, as far as that was not done yet. Gives the keys of the records that
/// are others now.
pub fn carry_over(recorded: &mut Recorded, moved: &[(Address, Address)]) -> BTreeSet<ObjectKey> {
    let mut touched = BTreeSet::new();
    for (from, to) in moved {
        match from.kind {
            ResourceKind::Image => touched.extend(rename_image(recorded, &from.name, &to.name)),
            ResourceKind::Port if !is_recorded(recorded, to) => {
                touched.extend(rename_port(recorded, &from.name, &to.name));
            }
            _ => {}
        }
    }
    touched
}

/// Whether anything is recorded under a name. A disk is of an image long after the image has left the cache.
fn is_recorded(recorded: &Recorded, address: &Address) -> bool {
    let of_image = |object: &Object| match object {
        Object::Disk(disk) => disk.image == address.name,
        Object::Volume(volume) => volume.image.as_ref() == Some(&address.name),
        _ => false,
    };
    recorded.records.values().any(|record| {
        record.object.address() == *address || address.kind == ResourceKind::Image && record.traces().any(of_image)
    })
}

fn rename_image(recorded: &mut Recorded, from: &Name, to: &Name) -> Vec<ObjectKey> {
    let mut touched = Vec::new();
    for (key, record) in &mut recorded.records {
        for object in record.previous.iter_mut().chain([&mut record.object]) {
            match object {
                Object::Base(Base { image, .. })
                | Object::Disk(Disk { image, .. })
                | Object::Volume(Volume { image: Some(image), .. })
                    if image == from =>
                {
                    image.clone_from(to);
                    touched.push(key.clone());
                }
                _ => {}
            }
        }
    }
    touched
}

/// The choices for the old port become those for the new one. Nothing of the new one is there yet, and the old one goes when
/// the spec does not have it any more.
fn rename_port(recorded: &mut Recorded, from: &Name, to: &Name) -> Option<ObjectKey> {
    let old = host_entry_key(&PortId::Own(from.clone()));
    let Object::HostEntry(entry) = &recorded.records.get(&old)?.object else { return None };
    let new = Object::HostEntry(HostEntry { port: PortId::Own(to.clone()), ..entry.clone() });
    let key = new.key();
    recorded.records.insert(key.clone(), Record::intended(new, None));
    Some(key)
}

/// Writes down all that a plan has found with our mark and in no record. Gives the keys.
pub fn record_found(recorded: &mut Recorded, plan: &Plan) -> Vec<ObjectKey> {
    let mut found = Vec::new();
    for change in plan.changes.iter().filter(|change| change.made.is_none()) {
        let is_there = matches!(change.reason, Reason::Found | Reason::Follows(_));
        if let Some(want) = change.want.as_ref().filter(|_| is_there) {
            recorded.records.insert(change.key.clone(), Record::present(want.clone()));
            found.push(change.key.clone());
        }
    }
    found
}
