//! Images become files in the cache.

use crate::address::Name;
use crate::blueprint::key::base_key;
use crate::blueprint::object::{Base, BaseRole, Object};
use crate::blueprint::{Blueprint, Layout};
use crate::desired::{Desired, ImageFile};
use crate::value::Sha256;

pub(super) fn lower(desired: &Desired, layout: &Layout, blueprint: &mut Blueprint) {
    for image in desired.images.values() {
        let disk = image.disk.as_ref().map(|(file, format)| (file, BaseRole::Disk(*format)));
        let kernel = image.kernel.as_ref().map(|file| (file, BaseRole::Kernel));
        let initrd = image.initrd.as_ref().map(|file| (file, BaseRole::Initrd));
        for (file, role) in [disk, kernel, initrd].into_iter().flatten() {
            let base = base(&image.name, file, role, layout);
            if image.prevent_destroy {
                blueprint.guarded.insert(base_key(&base.id));
            }
            blueprint.add(Object::Base(base));
        }
    }
}

/// The cached file of an image. It is named by its content where that is known, else by its source: then what was first
/// fetched stays, whatever the source becomes.
pub(super) fn base(image: &Name, file: &ImageFile, role: BaseRole, layout: &Layout) -> Base {
    let content = match &file.sha256 {
        Some(sha256) => sha256.to_string(),
        None => format!("unpinned-{}", Sha256::of(file.source.to_string().as_bytes()).short()),
    };
    let (id, path) = layout.base(&content, role);
    Base { id, image: image.clone(), path, source: file.source.clone(), sha256: file.sha256.clone(), role }
}
