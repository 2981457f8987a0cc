//! Images become files in the cache.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::address::Name;
use crate::blueprint::key::{ObjectKey, base_key};
use crate::blueprint::object::{Base, BaseRef, BaseRole, ImageFormat, Object, Source};
use crate::blueprint::{Blueprint, Context};
use crate::desired::{Image, ImageFile};
use crate::value::Sha256;

pub(super) fn lower(context: &Context<'_>, blueprint: &mut Blueprint) {
    for image in context.desired.images.values() {
        let disk = image.disk.as_ref().map(|(file, format)| disk_base(&image.name, file, *format, context));
        let boot = [(&image.kernel, BaseRole::Kernel), (&image.initrd, BaseRole::Initrd)].into_iter();
        let boot = boot.filter_map(|(file, role)| Some(base(&image.name, file.as_ref()?, role, None, context)));
        for base in disk.into_iter().chain(boot) {
            blueprint.add(Object::Base(base));
        }
    }
}

/// Leaves the disks of images out that nothing is made from: all of their servers have a disk that was imported.
pub(super) fn leave_out(context: &Context<'_>, blueprint: &mut Blueprint) {
    let imported = blueprint.objects.values().filter_map(|object| match object {
        Object::Disk(disk) if disk.imported => Some(&disk.server),
        _ => None,
    });
    let imported: BTreeSet<Name> = imported.cloned().collect();
    if imported.is_empty() {
        return;
    }
    let needed: BTreeSet<ObjectKey> = blueprint.objects.values().flat_map(Object::needs).collect();
    for image in context.desired.images.values() {
        let Some((file, format)) = &image.disk else { continue };
        let key = base_key(&disk_base(&image.name, file, *format, context).id);
        let mut servers = context.desired.servers.values().filter(|server| server.image == image.name).peekable();
        if servers.peek().is_some() && servers.all(|server| imported.contains(&server.name)) && !needed.contains(&key) {
            blueprint.objects.remove(&key);
        }
    }
}

/// The cached file of the disk of an image, in the format in which it is kept.
pub(super) fn disk_base(image: &Name, file: &ImageFile, format: ImageFormat, context: &Context<'_>) -> Base {
    base(image, file, BaseRole::Disk(format.kept_as()), format.converted(), context)
}

/// What a disk lies over. One that is `kept`, by its image and base, stays over what the image was when it was made, as in
/// Nova: a new version of an image is for new disks.
pub(super) fn held_base(
    kept: Option<(&Name, Option<&BaseRef>)>,
    image: &Image,
    context: &Context<'_>,
    blueprint: &mut Blueprint,
) -> Option<BaseRef> {
    if let Some((of, held)) = kept {
        let held = held.map(|held| (held, context.recorded.records.get(&base_key(&held.id))));
        match held {
            None if image.disk.is_none() || *of != image.name => return None,
            Some((held, Some(record))) => {
                blueprint.add(record.object.clone());
                return Some(held.clone());
            }
            _ => {}
        }
    }
    let (file, format) = image.disk.as_ref()?;
    let base = disk_base(&image.name, file, *format, context);
    Some(BaseRef { id: base.id, path: base.path, format: format.kept_as() })
}

/// The cached file of an image. It is named by its content where that is known, else by its source: then what was first
/// fetched stays, whatever the source becomes.
pub(super) fn base(
    image: &Name,
    file: &ImageFile,
    role: BaseRole,
    converted_from: Option<ImageFormat>,
    context: &Context<'_>,
) -> Base {
    let named = |content: &str| context.layout.base(content, role, converted_from);
    let digest = file.sha256.as_ref().or(file.locked.as_ref().map(|locked| &locked.sha256));
    let by_source = || named(&format!("unpinned-{}", Sha256::of(file.source.to_string().as_bytes()).short()));
    let is_it = |base: &&Base| (&base.source, base.role, base.converted_from) == (&file.source, role, converted_from);
    let ((id, path), sha256) = match digest {
        Some(digest) => {
            let (by_content, by_source) = (named(digest.as_str()), by_source());
            // What was fetched before it was locked keeps its name, for disks lie over it and guests boot from it.
            let was_first = file.sha256.is_none()
                && !context.recorded.records.contains_key(&base_key(&by_content.0))
                && !is_cached(&by_content.0, digest, context)
                && is_cached(&by_source.0, digest, context);
            if was_first { (by_source, None) } else { (by_content, Some(digest.clone())) }
        }
        // Whatever it was made as before.
        None => match recorded(context).filter(is_it).max_by_key(|base| base.sha256.is_none()) {
            Some(base) => ((base.id.clone(), base.path.clone()), base.sha256.clone()),
            None => (if_fresh(by_source(), &file.source, context, named), None),
        },
    };
    Base {
        id,
        image: image.clone(),
        path,
        source: file.source.clone(),
        sha256,
        role,
        converted_from,
        sums: file.sums.clone(),
        locked: file.locked.clone().map(Box::new),
    }
}

/// The bases that were made.
fn recorded<'a>(context: &Context<'a>) -> impl Iterator<Item = &'a Base> {
    let records = context.recorded.records.range(base_key("")..);
    records.map_while(|(_, record)| if let Object::Base(base) = &record.object { Some(base) } else { None })
}

fn is_cached(id: &str, digest: &Sha256, context: &Context<'_>) -> bool {
    context.host.cache.as_ref().and_then(|cache| cache.files.get(id)).is_some_and(|file| file.sha256 == *digest)
}

/// The name and path of a cached file, unless it is a copy of a file of this host that is another by now: then one of its
/// own, for somebody's disk may lie over the old copy.
fn if_fresh(
    found: (String, PathBuf),
    source: &Source,
    context: &Context<'_>,
    named: impl Fn(&str) -> (String, PathBuf),
) -> (String, PathBuf) {
    match (&context.host.cache, source) {
        (Some(cache), Source::File(path)) if !cache.is_fresh(&found.0, path) => {
            let stamp = cache.sources.get(path).map_or("", |source| &source.stamp);
            named(&format!("unpinned-{}", Sha256::of(format!("{source} {stamp}").as_bytes()).short()))
        }
        _ => found,
    }
}

#[cfg(test)]
mod tests {
    use crate::blueprint::cache::{CachedFile, SourceFile};
    use crate::blueprint::key::{ObjectKind, domain_key};
    use crate::blueprint::object::{Locked, Object, VirtType};
    use crate::blueprint::{CacheFacts, HostFacts, lower};
    use crate::plan::world::{Record, Recorded};
    use crate::spec::load::load_texts;
    use crate::spec::lock::Part;
    use crate::value::Sha256;

    /// An image that comes from the web.
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
                    let locked =
                        Locked { source: source.into(), sha256: Sha256::of(bytes), sha512: None, size: 1, etag: None };
                    loaded.source.lock.set(&"i".parse().expect("a name"), part, locked);
                }
            }
            let desired = crate::desired::resolve(&loaded.spec, &loaded.source).0.expect("a valid spec");
            let facts = HostFacts { cache: Some(self.files.clone()), ..HostFacts::unknown(VirtType::Qemu) };
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
            let file = CachedFile { sha256: Sha256::of(bytes), stamp: None, room: 1 };
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
        // Also where the lock file is lost.
        assert_eq!(host.ids(None, false).0, named());
    }

    #[test]
    fn a_file_of_this_host_that_has_changed_is_copied_anew_when_it_comes_back() {
        let spec = "[image.i]\nsource = \"/images/i\"\nformat = \"raw\"\n";
        let loaded = load_texts([("spec.toml", spec)]);
        let desired = crate::desired::resolve(&loaded.spec, &loaded.source).0.expect("a valid spec");
        let id = |cached: &[(&String, &str)], recorded: &Recorded| {
            let file = |stamp: &str| CachedFile { sha256: Sha256::of(b""), stamp: Some(stamp.into()), room: 1 };
            let cache = CacheFacts {
                files: cached.iter().map(|(id, stamp)| ((*id).clone(), file(stamp))).collect(),
                sources: [("/images/i".into(), SourceFile { stamp: "now".into(), room: 1 })].into(),
                ..CacheFacts::default()
            };
            let facts = HostFacts { cache: Some(cache), ..HostFacts::unknown(VirtType::Qemu) };
            let objects = lower(&desired, recorded, &facts).expect("it fits").objects;
            let (key, base) = objects.into_iter().find(|(key, _)| key.kind == ObjectKind::Base).expect("a base");
            (key.id.clone(), Recorded { records: [(key, Record::present(base))].into(), ..Recorded::default() })
        };
        let (first, made) = id(&[], &Recorded::default());
        assert_eq!(id(&[(&first, "now")], &Recorded::default()).0, first, "it is what it was");
        assert_eq!(id(&[(&first, "then")], &made).0, first, "what was first copied stays as long as it is made");
        let (second, made) = id(&[(&first, "then")], &Recorded::default());
        assert_ne!(second, first);
        assert_eq!(id(&[(&first, "then"), (&second, "now")], &made).0, second);
        assert_eq!(id(&[(&first, "now"), (&second, "then")], &made).0, second);
    }
}
