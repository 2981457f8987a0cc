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

#[cfg(test)]
mod tests {
    use crate::blueprint::cache::CachedFile;
    use crate::blueprint::key::{ObjectKind, domain_key};
    use crate::blueprint::object::{Locked, Object, VirtType};
    use crate::blueprint::{CacheFacts, HostFacts, lower};
    use crate::plan::world::{Record, Recorded};
    use crate::spec::load::load_texts;
    use crate::spec::lock::Part;
    use crate::value::Sha256;

    const SPEC: &str = "[network.n]\n[subnet.s]\nnetwork = \"n\"\ncidr = \"10.0.0.0/24\"\n[image.i]\n\
                        source = \"https://a.example/i?token=x\"\nformat = \"vdi\"\nkernel = \"https://a.example/k\"\n\
                        [flavor.f]\nram = \"1 GiB\"\ndisk = \"1 GiB\"\n[server.s]\nimage = \"i\"\nflavor = \"f\"\n\
                        networks = [\"n\"]\n";

    /// A host on which a spec was applied: the records, and what it has cached, by id.
    #[derive(Default)]
    struct Host {
        recorded: Recorded,
        files: CacheFacts,
    }

    impl Host {
        /// The ids of the bases, and those that the server stands on, where the disk and the kernel are locked to this.
        fn ids(&mut self, locked: Option<&[u8]>, apply: bool) -> (Vec<String>, Vec<String>) {
            let mut loaded = load_texts([("spec.toml", SPEC)]);
            for (part, source) in [(Part::Source, "https://a.example/i"), (Part::Kernel, "https://a.example/k")] {
                if let Some(bytes) = locked {
                    let locked = Locked { source: source.into(), sha256: Sha256::of(bytes), size: 1, etag: None };
                    loaded.source.lock.set(&"i".parse().expect("a name"), part, locked);
                }
            }
            let desired = crate::desired::resolve(&loaded.spec, &loaded.source).0.expect("a valid spec");
            let facts = HostFacts { virt_type: VirtType::Qemu, capacity: None, cache: Some(self.files.clone()) };
            let blueprint = lower(&desired, &self.recorded, &facts).expect("it fits");
            if apply {
                let records = blueprint.objects.iter().map(|(key, it)| (key.clone(), Record::present(it.clone())));
                self.recorded.records = records.collect();
            }
            let bases = blueprint.objects.keys().filter(|key| key.kind == ObjectKind::Base).map(|key| key.id.clone());
            let Object::Domain(domain) = &blueprint.objects[&domain_key(&"s".parse().expect("a name"))] else {
                panic!("a domain")
            };
            let disk = domain.base.iter().map(|base| base.id.clone());
            let kernel = domain.boot.iter().map(|boot| boot.kernel.0.clone());
            (bases.collect(), disk.chain(kernel).collect())
        }

        fn fetched(&mut self, ids: &[String], bytes: &[u8]) {
            let file = CachedFile { sha256: Sha256::of(bytes), room: 1 };
            self.files.files.extend(ids.iter().map(|id| (id.clone(), file.clone())));
        }
    }

    #[test]
    fn what_was_fetched_first_keeps_its_name_when_it_is_locked() {
        let mut host = Host::default();
        let (first, used) = host.ids(None, true);
        assert!(first.iter().all(|id| id.starts_with("unpinned-")) && first[0].ends_with(".vdi.qcow2"), "{first:?}");
        host.fetched(&first, b"one");
        assert_eq!(host.ids(Some(b"one"), true), (first.clone(), used.clone()), "locked to what it is");
        // It is locked to another by now: that is another image, and the server keeps its disk.
        let two = Sha256::of(b"two");
        let (all, of_server) = host.ids(Some(b"two"), true);
        assert!(all.contains(&format!("{two}.vdi.qcow2")) && all.contains(&format!("{two}.kernel")), "{all:?}");
        assert_eq!(of_server, [used[0].clone(), format!("{two}.kernel")]);
        // And back to the first: it is there still.
        host.fetched(&all, b"two");
        host.fetched(&first, b"one");
        assert_eq!(host.ids(Some(b"one"), false), (first, used));
    }

    #[test]
    fn a_host_that_comes_later_names_it_by_its_content() {
        let mut host = Host::default();
        let one = Sha256::of(b"one");
        let named = || vec![format!("{one}.kernel"), format!("{one}.vdi.qcow2")];
        let (ids, _) = host.ids(Some(b"one"), true);
        assert_eq!(ids, named());
        // Whatever else is in the cache, what was chosen stays.
        let by_source = Host::default().ids(None, false).0;
        host.fetched(&by_source, b"one");
        assert_eq!(host.ids(Some(b"one"), false).0, named());
    }
}
