//! Disks beside root disks: volumes of their own, and those that servers have alone.

use std::collections::BTreeMap;

use crate::address::{Address, Name, ResourceKind, VolumeId};
use crate::blueprint::disk::{Attachment, Bus, Content, EPHEMERAL, LETTERS, MAX_SERIAL, SWAP};
use crate::blueprint::object::DiskFormat;
use crate::desired::server::one_only;
use crate::desired::{Flavor, Image, Problems, Volumes};
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::Spec;
use crate::spec::schema::ServerSpec;
use crate::spec::values::AttachmentSpec;
use crate::value::ByteSize;

/// A disk beside root disks.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Which one it is.
    pub id: VolumeId,
    /// Where its size is written.
    pub sized: Place,
    /// Its size.
    pub size: ByteSize,
    /// Its format.
    pub format: DiskFormat,
    /// The image that it begins as.
    pub image: Option<Name>,
    /// What it holds when it is made.
    pub content: Content,
    /// The place in the spec of the server that has it.
    pub server: Option<Place>,
    /// Whether no plan may take it away.
    pub prevent_destroy: bool,
}

/// A disk of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Which one it is.
    pub id: VolumeId,
    /// How it is attached.
    pub attachment: Attachment,
}

/// How a disk is attached; where it is not said to what, to this bus.
pub(super) fn attachment(written: AttachmentSpec, bus: Bus) -> Attachment {
    Attachment {
        bus: written.bus.unwrap_or(bus),
        cache: written.cache.unwrap_or_default(),
        discard: written.discard.unwrap_or_default(),
    }
}

/// The volumes of their own.
pub(super) fn resolve(spec: &Spec, images: &BTreeMap<Name, Image>, problems: &mut Problems<'_>) -> Volumes {
    let mut volumes = Volumes::new();
    for (name, written) in &spec.volumes {
        let address = Address::new(ResourceKind::Volume, name.clone());
        let place = |key: &str| Place::of(&address, key);
        name_fits(name, place(""), problems);
        let Some(size) = problems.need(&address, "size", &written.size, "\"10 GiB\"") else { continue };
        size_is_some(size.0, place("size"), problems);
        if let Some(image) = &written.image {
            image_has_disk(image, &address, "image", images, problems);
        }
        let id = VolumeId::Own(name.clone());
        let volume = Volume {
            id: id.clone(),
            sized: place("size"),
            size: size.0,
            format: written.format.unwrap_or(DiskFormat::Qcow2),
            image: written.image.clone(),
            content: Content::Plain,
            server: None,
            prevent_destroy: written.lifecycle.unwrap_or_default().prevent_destroy.unwrap_or(false),
        };
        volumes.insert(id, volume);
    }
    volumes
}

/// The servers of one table, and what their disks depend on.
pub(super) struct Of<'a> {
    /// The table.
    pub address: &'a Address,
    /// The servers that it makes.
    pub names: &'a [Name],
    pub flavor: Option<&'a Flavor>,
    pub spec: &'a Spec,
    pub images: &'a BTreeMap<Name, Image>,
    /// What disks are plugged into that do not say.
    pub bus: Bus,
}

/// The disks of each server of a table: those of its flavor, its own, and volumes. All but the latter are noted in `all`.
pub(super) fn of_server(
    of: &Of<'_>,
    written: &ServerSpec,
    all: &mut Volumes,
    problems: &mut Problems<'_>,
) -> Vec<Vec<Attached>> {
    let mut disks: Vec<(Place, Volume, Attachment)> = Vec::new();
    let inline = |name: Name| VolumeId::Inline { server: of.address.name.clone(), disk: name };
    let place = |key: &str| Place::of(of.address, key);
    for (key, name, size, content) in of.flavor.into_iter().flat_map(|flavor| {
        [("ephemeral", EPHEMERAL, flavor.ephemeral, Content::Ephemeral), ("swap", SWAP, flavor.swap, Content::Swap)]
            .map(|(key, name, size, content)| (Place::of(&flavor_address(flavor), key), name, size, content))
    }) {
        // Both names are names.
        let (Some(size), Ok(name)) = (size, name.parse()) else { continue };
        let id = inline(name);
        let volume = Volume {
            id,
            sized: key,
            size,
            format: DiskFormat::Raw,
            image: None,
            content,
            server: None,
            prevent_destroy: false,
        };
        disks.push((place("flavor"), volume, attachment(AttachmentSpec::default(), of.bus)));
    }
    for (number, disk) in written.disks.iter().flatten().enumerate() {
        let key = format!("disks[{number}]");
        name_fits(&disk.name, place(&key), problems);
        size_is_some(disk.size.0, place(&key), problems);
        if [EPHEMERAL, SWAP].contains(&disk.name.as_str()) {
            let error = Diagnostic::error(format!("`{}` is the name of a disk of the flavor", disk.name));
            problems.push(error.placed(place(&key)).code("disk-name-taken").help("give it another `name`"));
            continue;
        }
        if let Some(image) = &disk.image {
            image_has_disk(image, of.address, &key, of.images, problems);
        }
        let volume = Volume {
            id: inline(disk.name.clone()),
            sized: place(&key),
            size: disk.size.0,
            format: disk.format.unwrap_or(DiskFormat::Qcow2),
            image: disk.image.clone(),
            content: Content::Plain,
            server: None,
            prevent_destroy: false,
        };
        disks.push((place(&key), volume, attachment(disk.attachment(), of.bus)));
    }
    for (number, volume) in written.volumes.iter().flatten().enumerate() {
        let key = format!("volumes[{number}]");
        if let Some(found) = own_volume(of, &volume.volume, &key, all, problems) {
            disks.push((place(&key), found, attachment(volume.attachment, of.bus)));
        }
    }
    names_are_unique(&disks, problems);
    let most = LETTERS.count();
    if disks.len() > most {
        problems.push(
            Diagnostic::error(format!("`{}` has {} disks beside its root disk", of.address, disks.len()))
                .on(of.address, if written.disks.is_some() { "disks" } else { "volumes" })
                .code("too-many-disks")
                .help(format!("{most} is the most")),
        );
    }
    let of_one = |name: &Name| {
        let mut its = Vec::new();
        for (_, volume, attachment) in &disks {
            let id = match &volume.id {
                VolumeId::Own(_) => volume.id.clone(),
                VolumeId::Inline { disk, .. } => VolumeId::Inline { server: name.clone(), disk: disk.clone() },
            };
            if let VolumeId::Inline { .. } = &id {
                all.insert(id.clone(), Volume { id: id.clone(), ..volume.clone() });
            }
            its.push(Attached { id, attachment: *attachment });
        }
        its
    };
    of.names.iter().map(of_one).collect()
}

/// A volume of its own belongs to one server.
fn own_volume(of: &Of<'_>, name: &Name, key: &str, all: &mut Volumes, problems: &mut Problems<'_>) -> Option<Volume> {
    problems.refer(of.address, key, ResourceKind::Volume, name, &of.spec.volumes)?;
    let place = Place::of(of.address, key);
    if of.names.len() > 1 {
        one_only(&place, &format!("`volume.{name}`"), problems);
        return None;
    }
    // One with mistakes in it is not there.
    let volume = all.get_mut(&VolumeId::Own(name.clone()))?;
    if let Some(other) = &volume.server {
        problems.push(
            Diagnostic::error(format!("`volume.{name}` is attached already"))
                .placed(place.clone())
                .code("volume-in-use")
                .related(other.clone(), "in use here")
                .help("take it out of one of them, or declare another volume"),
        );
        return None;
    }
    volume.server = Some(place);
    Some(volume.clone())
}

fn flavor_address(flavor: &Flavor) -> Address {
    Address::new(ResourceKind::Flavor, flavor.name.clone())
}

/// The guest is told the name, and there is little room for it.
fn name_fits(name: &Name, place: Place, problems: &mut Problems<'_>) {
    if name.as_str().len() > MAX_SERIAL {
        problems.push(
            Diagnostic::error(format!(
                "the guest could not be told the name `{name}`: a disk tells {MAX_SERIAL} bytes"
            ))
            .placed(place)
            .code("disk-name-too-long")
            .help(format!("it finds the disk as `/dev/disk/by-id/virtio-NAME`; use at most {MAX_SERIAL} characters")),
        );
    }
}

fn size_is_some(size: ByteSize, place: Place, problems: &mut Problems<'_>) {
    if size.bytes() == 0 {
        problems.push(Diagnostic::error("`size` may not be nothing").placed(place).help("write `size = \"10 GiB\"`"));
    }
}

fn image_has_disk(
    image: &Name,
    address: &Address,
    key: &str,
    images: &BTreeMap<Name, Image>,
    problems: &mut Problems<'_>,
) {
    let found = problems.refer(address, key, ResourceKind::Image, image, images);
    if found.is_some_and(|image| image.disk.is_none() && image.kernel.is_some()) {
        problems.push(
            Diagnostic::error(format!("`image.{image}` has no disk"))
                .on(address, key)
                .code("image-without-disk")
                .help("use an image with a `source`, or leave it out for an empty disk"),
        );
    }
}

/// A guest knows its disks by their names.
fn names_are_unique(disks: &[(Place, Volume, Attachment)], problems: &mut Problems<'_>) {
    let mut seen: BTreeMap<&Name, &Place> = BTreeMap::new();
    for (place, volume, _) in disks {
        let label = volume.id.label();
        if let Some(other) = seen.insert(label, place) {
            problems.push(
                Diagnostic::error(format!("two disks of a server cannot both be called `{label}`"))
                    .placed(place.clone())
                    .code("disk-name-taken")
                    .related(other.clone(), "the other one")
                    .help("the guest finds them by their names; give one of them another"),
            );
        }
    }
}
