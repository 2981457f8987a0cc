//! Disks beside root disks: the volumes, and which of them is what in a domain.

use std::collections::{BTreeMap, BTreeSet};

use crate::address::VolumeId;
use crate::blueprint::disk::{DomainDisk, LETTERS, Volume};
use crate::blueprint::image::held_base;
use crate::blueprint::key::{domain_key, volume_key};
use crate::blueprint::object::Object;
use crate::blueprint::{Blueprint, Context};
use crate::desired::Server;

pub(super) fn lower(context: &Context<'_>, blueprint: &mut Blueprint) {
    for wanted in context.desired.volumes.values() {
        let made = match context.recorded.records.get(&volume_key(&wanted.id)).map(|record| &record.object) {
            Some(Object::Volume(made)) => Some(made),
            _ => None,
        };
        let image = wanted.image.as_ref().and_then(|image| context.desired.images.get(image));
        let made = made.and_then(|made| Some((made.image.as_ref()?, made.base.as_ref())));
        let base = image.and_then(|image| {
            let kept = made.filter(|(of, _)| **of == image.name);
            held_base(kept, image, context, blueprint)
        });
        if wanted.prevent_destroy {
            blueprint.guarded.insert(volume_key(&wanted.id));
        }
        blueprint.add(Object::Volume(Volume {
            id: wanted.id.clone(),
            path: context.layout.volume(&wanted.id, wanted.format),
            format: wanted.format,
            size: wanted.size,
            image: wanted.image.clone(),
            base,
            content: wanted.content,
        }));
    }
}

/// The disks of a server beside its root disk, as its domain has them. One that it had keeps its letter, so that no other
/// becomes another when one goes.
pub(super) fn disks(server: &Server, context: &Context<'_>, blueprint: &Blueprint) -> Vec<DomainDisk> {
    let had = letters(server, context);
    let mut taken: BTreeSet<char> = server.volumes.iter().filter_map(|disk| had.get(&disk.id).copied()).collect();
    let mut disks = Vec::new();
    for attached in &server.volumes {
        let Some(Object::Volume(volume)) = blueprint.objects.get(&volume_key(&attached.id)) else { continue };
        // A valid spec has no more disks than there are letters.
        let free = || LETTERS.into_iter().find(|letter| !taken.contains(letter));
        let Some(letter) = had.get(&attached.id).copied().or_else(free) else { continue };
        taken.insert(letter);
        disks.push(DomainDisk {
            volume: volume.id.clone(),
            path: volume.path.clone(),
            format: volume.format,
            base: volume.backing().cloned(),
            target: attached.attachment.bus.target(letter),
            attachment: attached.attachment,
        });
    }
    disks
}

/// The letters that disks of a server have by its record: each is in one domain one letter.
fn letters(server: &Server, context: &Context<'_>) -> BTreeMap<VolumeId, char> {
    let mut letters = BTreeMap::new();
    let Some(record) = context.recorded.records.get(&domain_key(&server.name)) else { return letters };
    let mut taken = BTreeSet::new();
    // What it is now counts before what it was.
    for domain in [&record.object].into_iter().chain(record.previous.iter().rev()) {
        let Object::Domain(domain) = domain else { continue };
        for disk in &domain.disks {
            let Some(letter) = disk.target.chars().last().filter(|letter| LETTERS.contains(letter)) else { continue };
            if !letters.contains_key(&disk.volume) && taken.insert(letter) {
                letters.insert(disk.volume.clone(), letter);
            }
        }
    }
    letters
}
