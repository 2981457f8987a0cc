//! A data directory for one test, and what is put in it.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use novella::blueprint::Layout;
use novella::blueprint::object::{Base, BaseRef, BaseRole, Disk, DiskFormat, Object, Source};
use novella::host::HostError;
use novella::host::images::Images;
use novella::plan::world::Observed;
use novella::value::{ByteSize, Sha256};

pub const QCOW2: BaseRole = BaseRole::Disk(DiskFormat::Qcow2);
pub const RAW: BaseRole = BaseRole::Disk(DiskFormat::Raw);

pub struct Lab {
    pub layout: Layout,
    dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout::new(&dir.path().join("data"), &"test".parse().expect("a name"));
        Self { layout, dir }
    }

    pub fn images(&self) -> Images {
        images(self.layout.clone())
    }

    /// A path outside the data directory.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file outside the data directory.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Source {
        fs::write(self.outside(name), bytes).expect("writable");
        Source::File(self.outside(name))
    }

    /// An image of this content, pinned.
    pub fn pinned(&self, source: Source, role: BaseRole, bytes: &[u8]) -> Base {
        let digest = Sha256::of(bytes);
        Base { sha256: Some(digest.clone()), ..self.base(digest.as_str(), source, role) }
    }

    /// An image that is known by its source alone.
    pub fn unpinned(&self, source: Source, role: BaseRole) -> Base {
        self.base(Sha256::of(source.to_string().as_bytes()).as_str(), source, role)
    }

    fn base(&self, content: &str, source: Source, role: BaseRole) -> Base {
        let (id, path) = self.layout.base(content, role, None);
        let image = "debian".parse().expect("a name");
        Base { id, path, source, role, image, sha256: None, converted_from: None, sums: None, locked: None }
    }

    /// A cached qcow2 image with a disk of this size.
    pub fn cached(&self, size: &str) -> Base {
        let path = self.outside("made.qcow2");
        qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().expect("utf-8"), size]);
        let bytes = fs::read(&path).expect("made");
        let base = self.pinned(Source::File(path), QCOW2, &bytes);
        self.images().ensure_base(&base).expect("a good image");
        base
    }

    pub fn disk(&self, server: &str, base: Option<&Base>, size: ByteSize) -> Disk {
        Disk {
            image: "debian".parse().expect("a name"),
            server: server.parse().expect("a name"),
            path: self.layout.disk(server),
            format: DiskFormat::Qcow2,
            imported: false,
            base: base.map(|base| BaseRef {
                id: base.id.clone(),
                path: base.path.clone(),
                format: match base.role {
                    BaseRole::Disk(format) => format,
                    other => panic!("{other} is no disk"),
                },
            }),
            size,
            user_data: None,
        }
    }

    pub fn observed(&self) -> Observed {
        let mut observed = Observed::default();
        self.images().observe(&mut observed).expect("readable");
        observed
    }

    /// What was seen of an attribute of an object.
    pub fn fact(&self, object: &Object, name: &str) -> Option<String> {
        self.observed().objects.get(&object.key())?.get(name).cloned()
    }

    /// The names in the image cache, without lock files.
    pub fn cache(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.layout.bases()) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("readable").file_name().into_string().expect("utf-8"));
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }
}

/// The adapter with little patience.
pub fn images(layout: Layout) -> Images {
    Images::new(layout, Arc::new(|_, _, _| {})).with_patience(Duration::from_millis(400)).with_reserve(ByteSize(0))
}

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Bytes that do not repeat, and are no disk image of any format.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The list of a file's digests that a tool of coreutils writes, as `sha512sum`.
pub fn list_of(tool: &str, arguments: &[&str], file: &Path) -> String {
    let (directory, name) = (file.parent().expect("a directory"), file.file_name().expect("a name"));
    let output = Command::new(tool).args(arguments).arg(name).current_dir(directory).output().expect("coreutils");
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

/// The SHA-512 of a file by `sha512sum`.
pub fn sha512_of(file: &Path) -> String {
    list_of("sha512sum", &[], file).split(' ').next().expect("a digest").to_owned()
}

/// An error with its causes and its help, as a person sees it.
pub fn told(error: &HostError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    if let Some(help) = &error.help {
        let _ = write!(text, "; help: {help}");
    }
    text
}

/// Asserts that something failed, for a reason with these words in it.
#[track_caller]
pub fn fails<T>(result: Result<T, HostError>, transient: bool, words: &[&str]) {
    let error = result.err().expect("an error");
    let text = told(&error);
    assert_eq!(error.transient, transient, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// Whether qemu-img is there; says so if not.
pub fn has_qemu_img() -> bool {
    let there = Path::new("/usr/bin/qemu-img").exists();
    if !there {
        println!("skipped: no qemu-img");
    }
    there
}

pub fn qemu_img(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("/usr/bin/qemu-img").args(arguments).output().expect("qemu-img runs");
    assert!(output.status.success(), "qemu-img {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
