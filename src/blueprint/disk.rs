//! The disks that a server has beside its root disk, and how any disk is attached to a guest.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{Name, VolumeId};
use crate::blueprint::object::{BaseRef, DiskFormat};
use crate::value::ByteSize;

/// The most bytes that a virtio disk can tell as its serial number (`VIRTIO_BLK_ID_BYTES`). A guest finds a disk by it:
/// `/dev/disk/by-id/virtio-<name>`.
pub const MAX_SERIAL: usize = 20;

/// The letters behind `vd` or `sd` that disks beside the root disk can have. That has `a`, and a CD-ROM drive may have `z`.
pub const LETTERS: std::ops::RangeInclusive<char> = 'b'..='y';

/// The name of the disk for Nova's `swap` of a flavor.
pub const SWAP: &str = "swap";

/// The name of the disk for Nova's `ephemeral` of a flavor, and the label of the file system on it.
pub const EPHEMERAL: &str = "ephemeral0";

/// What a disk is plugged into (Nova's `hw_disk_bus`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bus {
    /// virtio-blk: a PCI device of its own.
    #[default]
    Virtio,
    /// A disk on a virtio-scsi controller.
    Scsi,
    /// A disk on an AHCI controller, for systems without virtio. It cannot come or go while the guest runs.
    Sata,
}

impl Bus {
    /// The word in specs and in libvirt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
        }
    }

    /// The name of a disk on it with this letter.
    pub fn target(self, letter: char) -> String {
        match self {
            Self::Virtio => format!("vd{letter}"),
            Self::Scsi | Self::Sata => format!("sd{letter}"),
        }
    }

    /// Whether a disk can come and go while the guest runs.
    pub const fn is_hot_pluggable(self) -> bool {
        match self {
            Self::Virtio | Self::Scsi => true,
            Self::Sata => false,
        }
    }
}

/// How QEMU caches a disk (Nova's `disk_cachemodes`, libvirt's `cache`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cache {
    /// Past the host's cache; what the guest flushes is on the disk.
    None,
    /// Through the host's cache; what the guest flushes is on the disk.
    #[default]
    Writeback,
    /// Every write is on the disk before it counts as done.
    Writethrough,
    /// What the guest flushes may be lost if the host fails.
    Unsafe,
    /// Past the host's cache, and every write is on the disk before it counts as done.
    Directsync,
}

impl Cache {
    /// The word in specs and in libvirt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Writeback => "writeback",
            Self::Writethrough => "writethrough",
            Self::Unsafe => "unsafe",
            Self::Directsync => "directsync",
        }
    }
}

/// What becomes of blocks that the guest says it does not need any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discard {
    /// The host gets their room back.
    #[default]
    Unmap,
    /// They stay.
    Ignore,
}

impl Discard {
    /// The word in specs and in libvirt.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmap => "unmap",
            Self::Ignore => "ignore",
        }
    }
}

/// How a disk is attached to a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it is plugged into.
    pub bus: Bus,
    /// How it is cached.
    pub cache: Cache,
    /// What becomes of blocks that are not needed any more.
    pub discard: Discard,
}

impl Attachment {
    /// Whether it is what nobody needs to say.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// It as a fact of a disk that is called so in its domain.
    pub fn fact(self, target: &str) -> String {
        attachment_fact(target, self.bus.as_str(), self.cache.as_str(), self.discard.as_str())
    }
}

/// How a disk is attached, in the words of a fact.
pub fn attachment_fact(target: &str, bus: &str, cache: &str, discard: &str) -> String {
    format!("{target} on {bus}, cache {cache}, discard {discard}")
}

/// What a disk is over what base, each with its format, in the words of a fact.
pub fn source_fact(file: (&str, &str), base: Option<(&str, &str)>) -> String {
    let named = |(path, format): (&str, &str)| format!("{path} ({format})");
    let over = base.map(|base| format!(" over {}", named(base))).unwrap_or_default();
    format!("{}{over}", named(file))
}

/// A disk of a domain beside its root disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainDisk {
    /// Which volume it is.
    pub volume: VolumeId,
    /// Where that is kept.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// What it lies over: written into the domain, so that QEMU never reads a chain from a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRef>,
    /// Its name in the domain, `vdb`. It is kept for as long as the disk is attached.
    pub target: String,
    /// How it is attached.
    pub attachment: Attachment,
}

impl DomainDisk {
    /// How it is attached, as a fact.
    pub fn fact(&self) -> String {
        self.attachment.fact(&self.target)
    }

    /// What it is, as a fact.
    pub fn source(&self) -> String {
        let base = self.base.as_ref().map(|base| (base.path.to_string_lossy(), base.format.as_str()));
        let base = base.as_ref().map(|(path, format)| (path.as_ref(), *format));
        source_fact((&self.path.to_string_lossy(), self.format.as_str()), base)
    }

    /// Whether a running guest can be made to let go of it. One that swaps to it would be killed by that.
    pub fn is_detachable(&self) -> bool {
        self.attachment.bus.is_hot_pluggable() && self.volume.label().as_str() != SWAP
    }
}

/// What a volume holds when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// What its image has, or nothing.
    #[default]
    Plain,
    /// An ext4 file system with the label [`EPHEMERAL`].
    Ephemeral,
    /// The signature of a swap area (`mkswap`). What else is on it is worth nothing.
    Swap,
}

/// A disk that a server has beside its root disk, or can have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Which one it is.
    pub id: VolumeId,
    /// Where it is kept.
    pub path: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// Its virtual size.
    pub size: ByteSize,
    /// The image it was made from, where it was. What the image becomes later does not concern it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Name>,
    /// What it lies over; of a raw one, what it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseRef>,
    /// What it holds when it is made.
    #[serde(default)]
    pub content: Content,
}

impl Volume {
    /// What it lies over. A raw file cannot lie over another.
    pub fn backing(&self) -> Option<&BaseRef> {
        self.base.as_ref().filter(|_| self.format == DiskFormat::Qcow2)
    }
}
