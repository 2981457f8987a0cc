//! A small FAT file system in memory, and the seal on it.

use std::fmt;
use std::io::{self, Cursor, Write as _};
use std::sync::Arc;

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::{Secret, Sha256};

/// The sector of a CD-ROM. A drive has no smaller ones, so the file system may not either.
const SECTOR: u16 = 2048;

/// The least size: what is usual fits into it.
const LEAST: usize = 32 << 10;

/// Where a FAT file system keeps its label, in the boot sector of FAT12 and FAT16.
const LABEL: std::ops::Range<usize> = 43..54;

/// What is on a medium: a label, and files with their paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// At most 11 characters.
    pub label: &'static str,
    /// The files, in the order in which they are written.
    pub files: Vec<(String, Secret)>,
}

impl Volume {
    /// The file system as bytes, the same whenever and wherever it is made.
    pub fn image(&self) -> Vec<u8> {
        let sectors = |file: &(String, Secret)| file.1.bytes().len().div_ceil(SECTOR.into()) + 1;
        let needed = (self.files.iter().map(sectors).sum::<usize>() + 8) * usize::from(SECTOR);
        let mut size = needed.max(LEAST).next_power_of_two();
        // What can go wrong in memory is that it does not fit; the names are ours.
        for _ in 0..4 {
            if let Ok(image) = self.image_of(size) {
                return image;
            }
            size *= 2;
        }
        Vec::new()
    }

    fn image_of(&self, size: usize) -> io::Result<Vec<u8>> {
        let mut image = Cursor::new(vec![0; size]);
        let mut label = [b' '; 11];
        for (to, from) in label.iter_mut().zip(self.label.bytes()) {
            *to = from;
        }
        let options = FormatVolumeOptions::new()
            .bytes_per_sector(SECTOR)
            .bytes_per_cluster(SECTOR.into())
            .max_root_dir_entries(64)
            .volume_label(label);
        fatfs::format_volume(&mut image, options)?;
        let system = FileSystem::new(&mut image, FsOptions::new())?;
        for (path, content) in &self.files {
            let root = system.root_dir();
            for (slash, _) in path.match_indices('/') {
                root.create_dir(&path[..slash])?;
            }
            let mut file = root.create_file(path)?;
            file.write_all(content.bytes())?;
            file.flush()?;
        }
        system.unmount()?;
        Ok(image.into_inner())
    }

    /// What is told of a medium's content before it is known by whom: all of it, with nothing left out.
    pub fn digest(&self) -> Sha256 {
        let mut all = self.label.as_bytes().to_vec();
        for (path, content) in &self.files {
            all.extend(format!("\n{path} {}\n", content.bytes().len()).bytes());
            all.extend(content.bytes());
        }
        Sha256::of(&all)
    }
}

/// The label in the first bytes of an image.
pub fn label_of(image: &[u8]) -> Option<&str> {
    std::str::from_utf8(image.get(LABEL)?).ok().map(str::trim_end)
}

/// A volume, of which nothing but the digest of its image is shown, written down or compared.
///
/// What is read back from a record has only the digest. It is good enough to know the image by, and not to make it.
#[derive(Clone)]
pub struct Sealed {
    digest: Sha256,
    volume: Option<Arc<Volume>>,
}

impl Sealed {
    /// The volume under seal.
    pub fn new(volume: Volume) -> Self {
        Self { digest: Sha256::of(&volume.image()), volume: Some(Arc::new(volume)) }
    }

    /// The seal of a volume that is somewhere else.
    pub fn known_by(digest: Sha256) -> Self {
        Self { digest, volume: None }
    }

    /// The digest of the image.
    pub fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// The volume itself, for whoever has to write it where it belongs.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_deref()
    }
}

impl PartialEq for Sealed {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Sealed {}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.digest)
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.digest.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Sha256::deserialize(deserializer).map(Self::known_by)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn volume(files: &[(&str, &[u8])]) -> Volume {
        let file = |(path, content): &(&str, &[u8])| ((*path).to_owned(), content.to_vec().into());
        Volume { label: "cidata", files: files.iter().map(file).collect() }
    }

    fn read(image: Vec<u8>, path: &str) -> Vec<u8> {
        let system = FileSystem::new(Cursor::new(image), FsOptions::new()).expect("a file system");
        let mut bytes = Vec::new();
        system.root_dir().open_file(path).expect(path).read_to_end(&mut bytes).expect("its bytes");
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_and_the_same_each_time() {
        let long = vec![7; 3 << 20];
        for files in [
            vec![],
            vec![("meta-data", &b"{}"[..]), ("user-data", b""), ("network-config", b"x")],
            vec![("openstack/latest/meta_data.json", b"{}"), ("openstack/content/0000", &long)],
        ] {
            let volume = volume(&files);
            let image = volume.image();
            assert_eq!(image, volume.image());
            assert_eq!(label_of(&image), Some("cidata"));
            assert!(image.len().is_power_of_two());
            for (path, content) in &files {
                assert_eq!(read(image.clone(), path), *content, "{path}");
            }
        }
    }

    #[test]
    fn all_sizes_fit() {
        for size in (0..40).map(|step| step * 2048).chain((20..24).flat_map(|bit| [(1 << bit) - 4096, 1 << bit])) {
            let content = vec![1; size];
            let image = volume(&[("meta-data", b"x"), ("user-data", &content)]).image();
            assert_eq!(read(image, "user-data").len(), size);
        }
        let many: Vec<(String, Secret)> =
            (0..64).map(|n| (format!("openstack/content/{n:04}"), vec![0; 131_072].into())).collect();
        assert!(!Volume { label: "config-2", files: many }.image().is_empty());
    }

    #[test]
    fn a_seal_shows_nothing() {
        let sealed = Sealed::new(volume(&[("user-data", b"hunter2")]));
        let said = format!("{sealed:?} {sealed:#?} {}", serde_json::to_string(&sealed).expect("writes"));
        assert!(!said.contains("hunter2") && said.contains(sealed.digest().as_str()), "{said}");
        let read: Sealed = serde_json::from_str(&format!("\"{}\"", sealed.digest())).expect("reads");
        assert_eq!(read, sealed);
        assert!(read.volume().is_none());
        assert_ne!(read, Sealed::new(volume(&[("user-data", b"hunter3")])));
        let shown = format!("{:?}", sealed.volume());
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
}
