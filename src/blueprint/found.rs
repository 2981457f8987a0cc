//! What the host holds and no record tells of, as far as choices depend on it.
//!
//! If the state is lost, what stands there with our mark is found again. The choices that were made for it must be found as
//! well: else a server would get another address, or a disk another base, and with it another content.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::address::{Name, PortId, VolumeId};
use crate::blueprint::dhcp::Assignment;
use crate::blueprint::facts::Facts;
use crate::blueprint::hardware::{Firmware, Hardware};
use crate::blueprint::import;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::{
    Attachment, Base, BaseRef, BaseRole, Bridge, Datasource, Disk, DiskFormat, Domain, DomainDisk, HostEntry,
    ImageFormat, Object, PortAddress, Seed, VirtType, Volume,
};
use crate::blueprint::seed::volume::Sealed;
use crate::desired::Desired;
use crate::plan::world::{Observed, Record, Recorded};
use crate::value::ByteSize;

/// The records, and with them what was seen and is in none, and without seeds that are not there as they were made: these
/// can only be made from what the spec says now. For choosing only: what is compared are the records.
pub fn with_found<'r>(desired: &Desired, recorded: &'r Recorded, observed: &Observed) -> Cow<'r, Recorded> {
    let unknown = observed.objects.iter().filter(|(key, _)| !recorded.records.contains_key(*key));
    let found: Vec<Object> = unknown.flat_map(|(key, facts)| objects(desired, key, facts)).collect();
    let gone: Vec<&ObjectKey> =
        recorded.records.iter().filter(|(key, record)| is_lost(key, record, observed)).map(|(key, _)| key).collect();
    let imported = import::choices(desired, observed);
    if found.is_empty() && gone.is_empty() && imported.is_empty() {
        return Cow::Borrowed(recorded);
    }
    let mut all = recorded.clone();
    for key in gone {
        all.records.remove(key);
    }
    for object in found {
        all.records.entry(object.key()).or_insert_with(|| Record::present(object));
    }
    for (key, record) in imported {
        all.records.entry(key).or_insert(record);
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
        ObjectKind::Volume => volume(desired, key, facts).unwrap_or_default(),
        ObjectKind::Seed => seed(key, facts).map(Object::Seed).into_iter().collect(),
        ObjectKind::Domain => domain(desired, key, facts).map(Object::Domain).into_iter().collect(),
        ObjectKind::Firewall | ObjectKind::Dhcp | ObjectKind::Base => Vec::new(),
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
    let mut found = Vec::new();
    let disk = Disk {
        server: server.name.clone(),
        image: server.image.clone(),
        path: facts.get("path")?.into(),
        format: format(facts.get("format")),
        imported: is_true(facts.get("imported")),
        base: base(desired, &server.image, facts, &mut found)?,
        size: facts.get("size")?.clone().try_into().ok()?,
        user_data: None,
    };
    found.push(Object::Disk(disk));
    Some(found)
}

/// The same of a disk beside root disks.
fn volume(desired: &Desired, key: &ObjectKey, facts: &Facts) -> Option<Vec<Object>> {
    let id: VolumeId = key.id.parse().ok()?;
    let wanted = desired.volumes.get(&id)?;
    let mut found = Vec::new();
    let base = wanted.image.as_ref().map(|image| base(desired, image, facts, &mut found));
    let volume = Volume {
        id,
        path: facts.get("path")?.into(),
        format: wanted.format,
        size: facts.get("size").or(facts.get("swap"))?.clone().try_into().ok()?,
        image: wanted.image.clone(),
        base: base.unwrap_or(Some(None))?,
        content: wanted.content,
    };
    found.push(Object::Volume(volume));
    Some(found)
}

/// The domain of a server that is still wanted, as far as choices depend on it: how it is run, and what its disks are called.
fn domain(desired: &Desired, key: &ObjectKey, facts: &Facts) -> Option<Domain> {
    let server = desired.servers.get(key.id.as_str())?;
    let disk = |id: &VolumeId| {
        let label = id.label();
        let target = facts.get(format!("disk.{label}").as_str())?.split(' ').next()?;
        Some(DomainDisk {
            volume: id.clone(),
            path: PathBuf::new(),
            format: DiskFormat::Raw,
            base: None,
            target: target.to_owned(),
            attachment: Attachment::default(),
        })
    };
    let imported = is_true(facts.get("imported"));
    let firmware = facts.get("firmware").map_or(Firmware::Bios.as_str(), String::as_str);
    let firmware = Firmware::ALL.into_iter().find(|it| it.as_str() == firmware).unwrap_or_default();
    Some(Domain {
        server: server.name.clone(),
        project: desired.project.clone(),
        name: facts.get("name")?.clone(),
        uuid: facts.get("uuid")?.parse().ok()?,
        imported,
        virt_type: VirtType::ALL.into_iter().find(|it| facts.get("type").is_some_and(|is| is == it.as_str()))?,
        vcpus: 0,
        max_vcpus: None,
        memory: ByteSize(0),
        max_memory: None,
        hardware: Hardware { firmware, nvram: facts.get("nvram").map(PathBuf::from), ..Hardware::default() },
        disk: facts.get("disk").filter(|_| imported).map(PathBuf::from).unwrap_or_default(),
        disk_format: format(facts.get("disk_format")),
        base: None,
        root_disk: Attachment::default(),
        disks: server.volumes.iter().filter_map(|attached| disk(&attached.id)).collect(),
        nics: Vec::new(),
        boot: None,
        seed: None,
        console_log: PathBuf::new(),
        power: server.power,
        depends_on: Vec::new(),
        shutdown_timeout: server.shutdown_timeout,
    })
}

fn is_true(fact: Option<&String>) -> bool {
    fact.is_some_and(|value| value == "true")
}

fn format(fact: Option<&String>) -> DiskFormat {
    DiskFormat::ALL.into_iter().find(|it| fact.is_some_and(|is| is == it.as_str())).unwrap_or_default()
}

/// The base that a disk lies over which was found, if it does; it is added to what was found. None where it makes no sense.
fn base(desired: &Desired, image: &Name, facts: &Facts, found: &mut Vec<Object>) -> Option<Option<BaseRef>> {
    let path = PathBuf::from(facts.get("base").map_or("none", String::as_str));
    if !path.is_absolute() {
        return Some(None);
    }
    let id = path.file_name()?.to_str()?.to_owned();
    // See `Layout::base`.
    let (content, format) = id.rsplit_once('.')?;
    let format = DiskFormat::ALL.into_iter().find(|it| it.as_str() == format)?;
    let converted_from = ImageFormat::ALL.into_iter().find(|it| content.ends_with(&format!(".{}", it.as_str())));
    let content = content.split_once('.').map_or(content, |(content, _)| content);
    let (file, _) = desired.images.get(image)?.disk.as_ref()?;
    found.push(Object::Base(Base {
        image: image.clone(),
        path: path.clone(),
        source: file.source.clone(),
        sha256: content.parse().ok(),
        role: BaseRole::Disk(format),
        id: id.clone(),
        converted_from,
        sums: None,
        locked: None,
    }));
    Some(Some(BaseRef { id, path, format }))
}
