//! Which root disk a server is to have: the one it has, or one that is made anew.

use crate::blueprint::facts::Facts;
use crate::blueprint::image::held_base;
use crate::blueprint::key::{ObjectKind, disk_key, domain_key};
use crate::blueprint::layout::FIRST_DISK;
use crate::blueprint::object::{Disk, DiskFormat, Object};
use crate::blueprint::{Blueprint, Context, ignore, seed};
use crate::desired::lifecycle::Ignored;
use crate::desired::{Flavor, Image, Server};
use crate::plan::world::Record;
use crate::spec::values::OnUserDataChange;

/// The root disk that a server is to have, and its generation. Adds the base under it, if no image has that any more.
pub(super) fn choose(
    server: &Server,
    (image, flavor): (&Image, &Flavor),
    context: &Context<'_>,
    blueprint: &mut Blueprint,
) -> (Disk, u32) {
    let made = made(server, context);
    let generation_of = |disk: &Disk| context.layout.generation_of(server.name.as_str(), &disk.path);
    // A file of others has none: the first one that is made after it is the first.
    let held = made.map_or(FIRST_DISK, |disk| generation_of(disk).unwrap_or(FIRST_DISK - 1));
    // A run that was to replace it wrote that down first for the domain, and may not have come to the disk.
    let begun = begun(server, context).filter(|begun| made.is_some() && *begun > held);
    let is_anew = made.is_some() && (begun.is_some() || context.replace.contains(&server.name));
    let kept = made.filter(|disk| !is_anew && (disk.image == image.name || server.ignores(Ignored::Image)));
    let path = |generation| context.layout.disk_of(server.name.as_str(), generation);
    let imported = kept.filter(|disk| disk.imported);
    let base = match imported {
        Some(_) => None,
        None => held_base(kept.map(|disk| (&disk.image, disk.base.as_ref())), image, context, blueprint),
    };
    let mut disk = Disk {
        server: server.name.clone(),
        image: kept.filter(|disk| disk.base == base).map_or(&image.name, |disk| &disk.image).clone(),
        path: path(held.max(FIRST_DISK)),
        format: imported.map_or(DiskFormat::default(), |disk| disk.format),
        imported: imported.is_some(),
        base,
        size: made.filter(|_| server.ignores(Ignored::Flavor)).map_or(flavor.disk, |disk| disk.size),
        user_data: made_with(server, kept),
    };
    if disk.image != image.name {
        ignore::note(&mut blueprint.ignored, &server.name, Ignored::Image);
    }
    if disk.size != flavor.disk {
        ignore::note(&mut blueprint.ignored, &server.name, Ignored::Flavor);
    }
    if let Some(imported) = imported {
        disk.path.clone_from(&imported.path);
        return (disk, held);
    }
    let is_beside = |made: &Disk| server.is_made_beside() && differs(made, &disk);
    let generation = match begun {
        Some(begun) => begun,
        None if is_anew || made.is_some_and(is_beside) => held + 1,
        None => held.max(FIRST_DISK),
    };
    disk.path = path(generation);
    (disk, generation)
}

/// The disk that is recorded.
fn made<'a>(server: &Server, context: &Context<'a>) -> Option<&'a Disk> {
    match &context.recorded.records.get(&disk_key(&server.name))?.object {
        Object::Disk(disk) => Some(disk),
        _ => None,
    }
}

/// The generation of the disk that the server's domain has, or is to have since a run that did not end.
fn begun(server: &Server, context: &Context<'_>) -> Option<u32> {
    let record = context.recorded.records.get(&domain_key(&server.name))?;
    let generation = |object: &Object| match object {
        Object::Domain(domain) => context.layout.generation_of(server.name.as_str(), &domain.disk),
        _ => None,
    };
    record.traces().filter_map(generation).max()
}

/// Whether a server's guest is yet to be started from a disk other than before.
pub(super) fn is_new_to(record: Option<&Record>, disk: &Disk) -> bool {
    let is_other = |object: &Object| matches!(object, Object::Domain(domain) if domain.disk != disk.path);
    record.is_some_and(|record| record.traces().any(is_other))
}

/// Whether one disk cannot become the other where it stands.
fn differs(made: &Disk, wanted: &Disk) -> bool {
    let facts = |disk: &Disk| -> Facts {
        let mut facts = Object::Disk(disk.clone()).facts();
        facts.retain(|name, _| name != "path" && ObjectKind::Disk.replaces(name));
        facts
    };
    facts(made) != facts(wanted)
}

/// The user data that a server's disk is to have been made with. Only a server that is to be rebuilt asks for those of now;
/// any other keeps its disk.
fn made_with(server: &Server, kept: Option<&Disk>) -> Option<String> {
    match kept {
        Some(disk) if server.cloud_init.on_change != OnUserDataChange::Rebuild || server.ignores(Ignored::UserData) => {
            disk.user_data.clone()
        }
        _ => seed::user_data_digest(&server.cloud_init),
    }
}
