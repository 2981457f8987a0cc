//! Images become files in the cache.

use crate::address::Name;
use crate::blueprint::object::{Base, BaseRole, Object};
use crate::blueprint::{Blueprint, Layout};
use crate::desired::{Desired, ImageFile};
use crate::value::Sha256;

pub(super) fn lower(desired: &Desired, layout: &Layout, blueprint: &mut Blueprint) {
    for image in desired.images.values() {
        if let Some((file, format)) = &image.disk {
            blueprint.add(Object::Base(base(&image.name, file, BaseRole::Disk(*format), layout)));
        }
        for (file, role) in [(&image.kernel, BaseRole::Kernel), (&image.initrd, BaseRole::Initrd)] {
            if let Some(file) = file {
                blueprint.add(Object::Base(base(&image.name, file, role, layout)));
            }
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
