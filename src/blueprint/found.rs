//! What the host holds and no record tells of, as far as choices depend on it.
//!
//! If the state is lost, what stands there with our mark is found again. The choices that were made for it must be found as
//! well: else a server would get another address, or a disk another base, and with it another content.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::address::{Name, PortId};
use crate::blueprint::dhcp::Assignment;
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::{
    Base, BaseRef, BaseRole, Bridge, Datasource, Disk, DiskFormat, HostEntry, Object, PortAddress, Seed,
};
use crate::blueprint::seed::volume::Sealed;
use crate::desired::Desired;
use crate::plan::world::{Observed, Record, Recorded};

/// The records, and with them what was seen and is in none, and without seeds that are not there as they were made: these
/// can only be made from what the spec says now. For choosing only: what is compared are the records.
pub fn with_found<'r>(desired: &Desired, recorded: &'r Recorded, observed: &Observed) -> Cow<'r, Recorded> {
    let unknown = observed.objects.iter().filter(|(key, _)| !recorded.records.contains_key(*key));
    let found: Vec<Object> = unknown.flat_map(|(key, facts)| objects(desired, key, facts)).collect();
    let gone: Vec<&ObjectKey> =
        recorded.records.iter().filter(|(key, record)| is_lost(key, record, observed)).map(|(key, _)| key).collect();
    if found.is_empty() && gone.is_empty() {
        return Cow::Borrowed(recorded);
    }
    let mut all = recorded.clone();
    for key in gone {
        all.records.remove(key);
    }
    for object in found {
        all.records.entry(object.key()).or_insert_with(|| Record::present(object));
    }
    Cow::Owned(all)
}

/// The addresses of guests that the host has and neither the spec nor the records want to know of any more, or are about to
/// forget; each with its network. `chosen` is what [`with_found`] gives.
pub fn left_alone(desired: &Desired, recorded: &Recorded, chosen: &Recorded) -> Vec<(Name, IpAddr)> {
    let entries = chosen.records.iter().filter_map(|(key, record)| match &record.object {
        Object::HostEntry(entry) if !desired.ports.contains_key(&entry.port) => Some((key, entry)),
        _ => None,
    });
    let stays = |key: &ObjectKey, entry: &HostEntry| {
        !recorded.records.contains_key(key) || desired.carried.removed.contains(&entry.port.address())
    };
    entries
        .filter(|(key, entry)| stays(key, entry))
        .flat_map(|(_, entry)| entry.addresses.iter().map(|it| (entry.network.clone(), it.address)))
        .collect()
}

fn is_lost(key: &ObjectKey, record: &Record, observed: &Observed) -> bool {
    let Object::Seed(_) = record.object else { return false };
    let facts = record.object.facts();
    !observed.objects.get(key).is_some_and(|seen| ["path", "content"].iter().all(|it| seen.get(*it) == facts.get(*it)))
}

fn objects(desired: &Desired, key: &ObjectKey, facts: &Facts) -> Vec<Object> {
    match key.kind {
        ObjectKind::Bridge => bridge(key, facts).map(Object::Bridge).into_iter().collect(),
        ObjectKind::HostEntry => host_entry(key, facts).map(Object::HostEntry).into_iter().collect(),
        ObjectKind::Disk => disk(desired, key, facts).unwrap_or_default(),
        ObjectKind::Seed => seed(key, facts).map(Object::Seed).into_iter().collect(),
        ObjectKind::Firewall | ObjectKind::Dhcp | ObjectKind::Base | ObjectKind::Domain => Vec::new(),
    }
}

fn bridge(key: &ObjectKey, facts: &Facts) -> Option<Bridge> {
    Some(Bridge {
        network: key.id.parse().ok()?,
        device: facts.get("device")?.clone(),
        mac: facts.get("mac")?.parse().ok()?,
        mtu: facts.get("mtu")?.parse().ok()?,
        addresses: facts.get("addresses")?.split(", ").filter_map(|net| net.parse().ok()).collect(),
    })
}

fn host_entry(key: &ObjectKey, facts: &Facts) -> Option<HostEntry> {
    // What is chosen depends on the addresses alone.
    let address = |text: &str| {
        Some(PortAddress { address: text.parse().ok()?, assignment: Assignment::Dhcp, domain: String::new() })
    };
    let port: PortId = key.id.parse().ok()?;
    let network = match &port {
        PortId::Own(_) => facts.get("network")?.parse().ok()?,
        PortId::Inline { network, .. } => network.clone(),
    };
    Some(HostEntry {
        port,
        network,
        mac: facts.get("mac")?.parse().ok()?,
        addresses: facts.get("address")?.split(", ").filter_map(address).collect(),
        hostname: facts.get("hostname")?.clone(),
        options: Vec::new(),
    })
}

fn seed(key: &ObjectKey, facts: &Facts) -> Option<Seed> {
    let datasource = facts.get("datasource")?;
    Some(Seed {
        server: key.id.parse().ok()?,
        path: facts.get("path")?.into(),
        datasource: Datasource::ALL.into_iter().find(|it| it.as_str() == datasource)?,
        image: Sealed::known_by(facts.get("sha256")?.parse().ok()?),
    })
}

/// The disk of a server that is still wanted, taken to be of the image that the spec names, and the base that it lies over.
fn disk(desired: &Desired, key: &ObjectKey, facts: &Facts) -> Option<Vec<Object>> {
    let server = desired.servers.get(key.id.as_str())?;
    let mut disk = Disk {
        server: server.name.clone(),
        image: server.image.clone(),
        path: facts.get("path")?.into(),
        base: None,
        size: facts.get("size")?.clone().try_into().ok()?,
        user_data: None,
    };
    let path = PathBuf::from(facts.get("base")?);
    if !path.is_absolute() {
        return Some(vec![Object::Disk(disk)]);
    }
    let id = path.file_name()?.to_str()?.to_owned();
    // See `Layout::base`.
    let (content, format) = id.rsplit_once('.')?;
    let format = [DiskFormat::Qcow2, DiskFormat::Raw].into_iter().find(|it| it.as_str() == format)?;
    let (file, _) = desired.images.get(&server.image)?.disk.as_ref()?;
    let base = Base {
        image: server.image.clone(),
        path: path.clone(),
        source: file.source.clone(),
        sha256: content.parse().ok(),
        role: BaseRole::Disk(format),
        id: id.clone(),
    };
    disk.base = Some(BaseRef { id, path, format });
    Some(vec![Object::Base(base), Object::Disk(disk)])
}
