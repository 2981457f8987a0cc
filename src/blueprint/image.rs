//! Images become files in the cache.

use crate::address::Name;
use crate::blueprint::key::base_key;
use crate::blueprint::object::{Base, BaseRole, ImageFormat, Object};
use crate::blueprint::{Blueprint, Context};
use crate::desired::ImageFile;
use crate::value::Sha256;

pub(super) fn lower(context: &Context<'_>, blueprint: &mut Blueprint) {
    for image in context.desired.images.values() {
        if let Some((file, format)) = &image.disk {
            blueprint.add(Object::Base(disk_base(&image.name, file, *format, context)));
        }
        for (file, role) in [(&image.kernel, BaseRole::Kernel), (&image.initrd, BaseRole::Initrd)] {
            if let Some(file) = file {
                blueprint.add(Object::Base(base(&image.name, file, role, None, context)));
            }
        }
    }
}

/// The cached file of the disk of an image, in the format in which it is kept.
pub(super) fn disk_base(image: &Name, file: &ImageFile, format: ImageFormat, context: &Context<'_>) -> Base {
    base(image, file, BaseRole::Disk(format.kept_as()), format.converted(), context)
}

/// The cached file of an image. It is named by its content where that is known, else by its source: then what was first
/// fetched stays, whatever the source becomes.
///
/// What was fetched before it was locked keeps its name as long as it is what the lock file says, for disks lie over it
/// and guests boot from it.
pub(super) fn base(
    image: &Name,
    file: &ImageFile,
    role: BaseRole,
    converted_from: Option<ImageFormat>,
    context: &Context<'_>,
) -> Base {
    let named = |content: &str| context.layout.base(content, role, converted_from);
    let by_source = named(&format!("unpinned-{}", Sha256::of(file.source.to_string().as_bytes()).short()));
    let digest = file.sha256.as_ref().or(file.locked.as_ref().map(|locked| &locked.sha256));
    let by_content = digest.map(|digest| (digest, named(digest.as_str())));
    let is_cached = |id: &str, digest: &Sha256| {
        context.cache.and_then(|cache| cache.files.get(id)).is_some_and(|file| file.sha256 == *digest)
    };
    let was_first = |digest: &Sha256, id: &str| {
        file.sha256.is_none()
            && !context.recorded.records.contains_key(&base_key(id))
            && !is_cached(id, digest)
            && is_cached(&by_source.0, digest)
    };
    let ((id, path), sha256) = match by_content {
        Some((digest, (id, path))) if !was_first(digest, &id) => ((id, path), Some(digest.clone())),
        _ => (by_source, None),
    };
    Base {
        id,
        image: image.clone(),
        path,
        source: file.source.clone(),
        sha256,
        role,
        converted_from,
        sha256sums: file.sha256sums.clone(),
        locked: file.locked.clone().map(Box::new),
    }
}
