//! What the image cache holds, what a blueprint will fetch into it, and whether there is room.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::address::{Address, ResourceKind};
use crate::blueprint::Blueprint;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::blueprint::object::{Base, Object, Source};
use crate::diagnostic::Diagnostic;
use crate::plan::world::{Observed, Recorded};
use crate::value::{ByteSize, Sha256};

/// The image cache as it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheFacts {
    /// Where it is.
    pub directory: PathBuf,
    /// What is free on its file system.
    pub free: ByteSize,
    /// What of that is to stay free.
    pub reserve: ByteSize,
    /// What is in it, by [`Base::id`].
    pub files: BTreeMap<String, CachedFile>,
    /// The ids of those that disks in the trash lie over.
    pub in_trash: BTreeSet<String>,
    /// The files of this host that images come from.
    pub sources: BTreeMap<PathBuf, SourceFile>,
}

impl CacheFacts {
    /// Whether what was cached of a file of this host is what the file is now, as far as can be told.
    pub fn is_fresh(&self, id: &str, source: &Path) -> bool {
        match (self.files.get(id), self.sources.get(source)) {
            (Some(cached), Some(source)) => cached.stamp.as_ref() == Some(&source.stamp),
            _ => true,
        }
    }
}

/// A file of this host that an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Changes when it is changed.
    pub stamp: String,
    /// How much there is to be copied, in bytes.
    pub room: u64,
}

/// One file in the cache, or one that was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// What it hashed to as it was published.
    pub sha256: Sha256,
    /// The stamp of the file of this host that it was copied from, where it was.
    pub stamp: Option<String>,
    /// The room it takes, in bytes; 0 where only what is known of it is left.
    pub room: u64,
}

/// What a plan means for the image cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Where it is.
    pub directory: PathBuf,
    /// What will be fetched: the image, and how much, where that is known without asking a server. What is compressed or
    /// converted needs more than that.
    pub fetches: Vec<(Address, Option<ByteSize>)>,
    /// The images that the lock file gains.
    pub locks: BTreeSet<Address>,
    /// What is free on its file system.
    pub free: ByteSize,
    /// What of that is to stay free.
    pub reserve: ByteSize,
    /// What `novella image prune --all` would free once the plan is carried out.
    pub prunable: ByteSize,
}

impl CacheUse {
    /// What a blueprint means for a cache.
    pub fn new(want: &Blueprint, made: &Recorded, seen: &Observed, cache: &CacheFacts) -> Self {
        let is_whole =
            |key: &ObjectKey| seen.objects.get(key).and_then(|it| it.get("content")).is_some_and(|it| it == "whole");
        let wanted = || want.objects.iter().filter_map(|(key, object)| base(object).map(|base| (key, base)));
        let missing = wanted().filter(|(key, _)| !is_whole(key)).map(|(_, base)| base);
        let address = |base: &Base| Address::new(ResourceKind::Image, base.image.clone());
        let fetches = missing.map(|base| (address(base), size(base, cache)));
        // An older version that disks lie over is not what the lock file tells of.
        let is_locked = |base: &Base| {
            let same = |other: &Base| (&other.source, other.role) == (&base.source, base.role);
            wanted().any(|(_, other)| other.locked.is_some() && same(other))
        };
        let unlocked = wanted().map(|(_, base)| base).filter(|base| base.sha256.is_none());
        let unlocked = unlocked.filter(|base| matches!(base.source, Source::Url(_)) && !is_locked(base));
        // What a wanted disk lies over is wanted. Of disks that no record knows, nothing more is known.
        let is_disk = |kind| matches!(kind, ObjectKind::Disk | ObjectKind::Volume);
        let strays = seen.objects.iter().filter(|(key, _)| is_disk(key.kind));
        let strays = strays.filter(|(key, _)| !made.records.contains_key(*key) && !want.objects.contains_key(*key));
        let strays = strays.filter_map(|(_, facts)| facts.get("base")?.rsplit('/').next());
        let in_trash = cache.in_trash.iter().map(String::as_str);
        let used: BTreeSet<&str> = wanted().map(|(_, base)| base.id.as_str()).chain(strays).chain(in_trash).collect();
        let unused = cache.files.iter().filter(|(id, _)| !used.contains(id.as_str()));
        Self {
            directory: cache.directory.clone(),
            fetches: fetches.collect(),
            locks: unlocked.map(address).collect(),
            free: cache.free,
            reserve: cache.reserve,
            prunable: ByteSize(unused.map(|(_, file)| file.room).sum()),
        }
    }

    /// What is known of what will be fetched, in all.
    pub fn needed(&self) -> ByteSize {
        ByteSize(
            self.fetches.iter().filter_map(|(_, size)| *size).fold(0, |sum, size| sum.saturating_add(size.bytes())),
        )
    }

    /// The images of which nobody can say how much there is to fetch without asking a server.
    pub fn unknown(&self) -> impl Iterator<Item = &Address> {
        self.fetches.iter().filter(|(_, size)| size.is_none()).map(|(image, _)| image)
    }

    /// Proves that what is to be fetched has room, as far as its size is known.
    pub fn check(&self) -> Option<Diagnostic> {
        let (needed, limit) = (self.needed(), self.free.bytes().saturating_sub(self.reserve.bytes()));
        if self.fetches.is_empty() || needed.bytes() <= limit {
            return None;
        }
        let parts = self.fetches.iter().filter_map(|(image, size)| Some(format!("{} of {image}", (*size)?.about())));
        let parts: Vec<String> = parts.collect();
        let (free, reserve) = (self.free.about(), self.reserve.about());
        let problem = Diagnostic::error(format!(
            "the images to be fetched need {}, and `{}` has room for {}: {}; {free} free, less {reserve} that stay free",
            needed.about(),
            self.directory.display(),
            ByteSize(limit).about(),
            parts.join(", "),
        ));
        let help = match self.prunable {
            ByteSize(0) => "free some space, or choose another `data_dir` in `[host.local]`".to_owned(),
            prunable => {
                format!("`novella image prune --all` frees {} now, of images that nothing needs", prunable.about())
            }
        };
        Some(problem.code("image-cache-full").on(&Address::local_host(), "data_dir").help(help))
    }
}

fn base(object: &Object) -> Option<&Base> {
    match object {
        Object::Base(base) => Some(base),
        _ => None,
    }
}

/// How much is to be fetched of an image, in bytes, as far as it is known.
fn size(base: &Base, cache: &CacheFacts) -> Option<ByteSize> {
    match (&base.locked, &base.source) {
        (Some(locked), _) => Some(ByteSize(locked.size)),
        (None, Source::File(path)) => cache.sources.get(path).map(|source| ByteSize(source.room)),
        (None, Source::Url(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::facts::Facts;
    use crate::blueprint::key::{base_key, disk_key};
    use crate::blueprint::object::{BaseRole, Locked};

    fn base(image: &str, source: Source, locked: Option<u64>) -> Base {
        let locked = locked.map(|size| Locked {
            source: String::new(),
            sha256: Sha256::of(b""),
            sha512: None,
            size,
            etag: None,
        });
        Base {
            id: format!("{image}.raw"),
            image: image.parse().expect("a name"),
            path: format!("/base/{image}.raw").into(),
            source,
            sha256: None,
            role: BaseRole::Kernel,
            converted_from: None,
            sums: None,
            locked: locked.map(Box::new),
        }
    }

    fn use_of(bases: Vec<Base>, seen: &Observed, free: u64) -> CacheUse {
        let mut want = Blueprint::default();
        bases.into_iter().for_each(|base| want.add(Object::Base(base)));
        let file = |id: &str, room| (id.to_owned(), CachedFile { sha256: Sha256::of(b""), stamp: None, room });
        let cache = CacheFacts {
            directory: "/base".into(),
            free: ByteSize::mib(free),
            reserve: ByteSize::mib(256),
            files: [file("old.raw", 7 << 20), file("web.raw", 9 << 20), file("held.raw", 11 << 20)].into(),
            in_trash: BTreeSet::new(),
            sources: [("/images/local".into(), SourceFile { stamp: String::new(), room: 100 << 20 })].into(),
        };
        CacheUse::new(&want, &Recorded::default(), seen, &cache)
    }

    #[test]
    fn what_is_fetched_is_counted_and_what_is_there_is_not() {
        let web = || Source::Url("https://a.example/d".into());
        let other = || Source::Url("https://a.example/o".into());
        let local = Source::File("/images/local".into());
        let bases = || {
            vec![base("web", web(), None), base("locked", other(), Some(200 << 20)), base("file", local.clone(), None)]
        };
        let address = |name: &str| Address::new(ResourceKind::Image, name.parse().expect("a name"));
        let mut seen = Observed::default();
        let disk = Facts::from([("base".into(), "/base/held.raw".into())]);
        seen.objects.insert(disk_key(&"stray".parse().expect("a name")), disk);
        let plan = use_of(bases(), &seen, 556);
        assert_eq!(plan.needed(), ByteSize::mib(300));
        assert_eq!(plan.unknown().collect::<Vec<_>>(), [&address("web")]);
        assert_eq!(plan.locks, [address("web")].into());
        assert_eq!(plan.prunable, ByteSize::mib(7), "one is wanted, and a disk that nobody knows lies over another");
        assert_eq!(plan.check(), None, "just enough");
        let refused = use_of(bases(), &seen, 555).check().expect("too little");
        assert_eq!(refused.code.as_deref(), Some("image-cache-full"));
        assert_eq!(
            refused.message,
            "the images to be fetched need 300 MiB, and `/base` has room for 299 MiB: 100 MiB of image.file, 200 MiB of \
             image.locked; 555 MiB free, less 256 MiB that stay free"
        );
        assert!(refused.help.expect("a way out").contains("`novella image prune --all` frees 7 MiB"));
        for (name, content) in [("web", "whole"), ("locked", "whole"), ("file", "damaged")] {
            seen.objects.insert(base_key(&format!("{name}.raw")), Facts::from([("content".into(), content.into())]));
        }
        let older = Base { id: "older.raw".into(), ..base("locked", other(), None) };
        let newer = base("locked", other(), Some(1));
        assert_eq!(use_of(vec![older, newer], &seen, 0).locks, BTreeSet::new(), "an older version is none to lock");
        let plan = use_of(bases(), &seen, 0);
        assert_eq!(plan.fetches, [(address("file"), Some(ByteSize::mib(100)))], "what is damaged is fetched again");
        assert_eq!(use_of(Vec::new(), &seen, 0).check(), None, "nothing to fetch needs no room");
    }
}
