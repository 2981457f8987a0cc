//! The lock file of the images, beside the specs: what each file was when it was first fetched.
//!
//! It is a file of its own, sorted and without times, so that it is the same wherever it is written and can be kept in
//! version control:
//!
//! ```toml
//! [image.debian-12.source]
//! source = "https://images.example/debian-12.qcow2"
//! sha256 = "…"
//! size = 338690048
//! etag = "\"142fd000\""
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::address::Name;
use crate::blueprint::object::Locked;

/// The name of the file in the directory of the specs.
pub const FILE: &str = "images.lock";

/// The version of the file that this novella reads and writes.
const VERSION: i64 = 1;

const HEADING: &str = "# What each image was when it was first fetched. Written by novella: keep it in version control, \
                       and renew it\n# with `novella image update`.\n";

/// Which file of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Its disk.
    Source,
    /// Its kernel.
    Kernel,
    /// Its initial ramdisk.
    Initrd,
}

impl Part {
    /// Every one, in order.
    pub const ALL: [Self; 3] = [Self::Source, Self::Kernel, Self::Initrd];

    /// The key of an image that names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        }
    }
}

/// What is locked, by image and file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageLock {
    /// The files of each image.
    pub images: BTreeMap<Name, BTreeMap<Part, Locked>>,
}

/// The file as it stands on the disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: i64,
    #[serde(default)]
    image: BTreeMap<Name, BTreeMap<Part, Locked>>,
}

impl ImageLock {
    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        match written.version {
            VERSION => Ok(Self { images: written.image }),
            other => Err(format!("it has version {other}, and this novella knows {VERSION}")),
        }
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let written = Written { version: VERSION, image: self.images.clone() };
        // Plain data with text as keys: serialising it cannot fail.
        format!("{HEADING}{}", toml::to_string(&written).unwrap_or_default())
    }

    /// What is locked of a file of an image.
    pub fn get(&self, image: &Name, part: Part) -> Option<&Locked> {
        self.images.get(image)?.get(&part)
    }

    /// Locks a file of an image.
    pub fn set(&mut self, image: &Name, part: Part, locked: Locked) {
        self.images.entry(image.clone()).or_default().insert(part, locked);
    }
}

/// Reads the lock file of a directory; an empty one where there is none.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn read(directory: &Path) -> Result<ImageLock, String> {
    let path = directory.join(FILE);
    if !path.exists() {
        return Ok(ImageLock::default());
    }
    let bytes = super::load::read_bytes(&path)?;
    ImageLock::parse(&String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_reads_the_same_everywhere() {
        let mut lock = ImageLock::default();
        let locked = |source: &str, etag: Option<&str>| Locked {
            source: source.into(),
            sha256: crate::value::Sha256::of(source.as_bytes()),
            sha512: None,
            size: 7,
            etag: etag.map(str::to_owned),
        };
        let name = |text: &str| text.parse().expect("a name");
        lock.set(&name("tiny"), Part::Initrd, locked("https://a.example/initrd", None));
        lock.set(&name("tiny"), Part::Kernel, locked("https://a.example/vmlinuz", None));
        lock.set(&name("debian-12"), Part::Source, locked("https://a.example/d.qcow2", Some("\"1\"")));
        let text = lock.text();
        assert_eq!(ImageLock::parse(&text).as_ref(), Ok(&lock));
        assert_eq!(
            text,
            "# What each image was when it was first fetched. Written by novella: keep it in version control, and renew it\n\
             # with `novella image update`.\n\
             version = 1\n\n\
             [image.debian-12.source]\n\
             source = \"https://a.example/d.qcow2\"\n\
             sha256 = \"a4af0c0cc8f75d92b24dbf28b1841801e7d1a815bbc1470b25b5d300c589d146\"\n\
             size = 7\n\
             etag = '\"1\"'\n\n\
             [image.tiny.kernel]\n\
             source = \"https://a.example/vmlinuz\"\n\
             sha256 = \"9fe23b27d90babeb216c2e916c7e18efbd45cfce9782218d4594f9238d67816f\"\n\
             size = 7\n\n\
             [image.tiny.initrd]\n\
             source = \"https://a.example/initrd\"\n\
             sha256 = \"36c37ae024d5eb1dca8c5d32b5aff26124eef2fb3df4b11a496aa616cb74933c\"\n\
             size = 7\n"
        );
        // Where a list of SHA-512 vouched for it, that is kept beside.
        let digest = "ab".repeat(64);
        let kernel = Locked { sha512: digest.parse().ok(), ..locked("https://a.example/vmlinuz", None) };
        lock.set(&name("tiny"), Part::Kernel, kernel);
        assert!(lock.text().contains(&format!("\nsha512 = \"{digest}\"\nsize = 7\n")), "{}", lock.text());
        assert_eq!(ImageLock::parse(&lock.text()), Ok(lock));
    }

    #[test]
    fn what_is_not_ours_is_not_guessed_at() {
        for (text, word) in [
            ("version = 2\n", "version 2"),
            ("[image.a.source]\n", "missing field"),
            ("version = 1\nimages = 3\n", "unknown field"),
            ("version = 1\n[image.A.source]\n", "name"),
            ("nonsense", ""),
        ] {
            let error = ImageLock::parse(text).expect_err("refused");
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
