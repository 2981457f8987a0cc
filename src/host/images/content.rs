//! What may be a disk image at all. Nothing is guessed: a file must be what the spec says, and stand on its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::blueprint::object::{BaseRole, DiskFormat};
use crate::host::qcow2::{Hazard, Header, Invalid, MAGIC};

/// Why a file may not serve in its role.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is empty")]
    Empty,
    #[error("it is cut off")]
    CutOff,
    #[error("it is declared `{declared}` but looks like {found}")]
    Mismatch { declared: &'static str, found: &'static str },
    #[error(transparent)]
    Header(#[from] Invalid),
    #[error(transparent)]
    Hazard(#[from] Hazard),
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

impl Unfit {
    /// What the person can do about it.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::Mismatch { found, .. } if *found == QCOW2 => "set `format = \"qcow2\"` on the image",
            Self::Mismatch { found, .. } if PACKED.contains(found) => {
                "unpack the file first, and name the unpacked one"
            }
            Self::Mismatch { found, .. } if *found == HTML => "check the URL: the server sent a page, not an image",
            Self::Mismatch { found, .. } if *found == VMDK => "set `format = \"vmdk\"` on the image",
            Self::Mismatch { found, .. } if *found == VDI => "set `format = \"vdi\"` on the image",
            Self::Mismatch { found, .. } if *found == VHDX => "set `format = \"vhdx\"` on the image",
            Self::Mismatch { found, .. } if *found == VHD => "set `format = \"vpc\"` on the image",
            Self::Mismatch { found, .. } if *found == PLAIN => {
                "check the `format` of the image: nothing says what it is"
            }
            Self::Mismatch { .. } => "convert it with `qemu-img convert -O qcow2 OLD NEW`, and name the new file",
            Self::Hazard(Hazard::Backing(_) | Hazard::ExternalData) => {
                "make it stand on its own with `qemu-img convert -O qcow2 OLD NEW`, if you trust it"
            }
            Self::Header(Invalid::Magic) => "set `format = \"raw\"` on the image, if it is one",
            _ => "get a good copy of the image",
        }
    }
}

const QCOW2: &str = "a qcow2 image";
const VMDK: &str = "a VMDK image";
const VDI: &str = "a VDI image";
const VHDX: &str = "a VHDX image";
const VHD: &str = "a VHD image";
const HTML: &str = "a web page";
const PLAIN: &str = "plain bytes";
const PACKED: [&str; 6] = [
    "a compressed file (gzip)",
    "a compressed file (xz)",
    "a compressed file (zstd)",
    "a compressed file (bzip2)",
    "a zip archive",
    "a tar archive",
];

/// First bytes that a plain disk does not begin with.
const SIGNATURES: [(&[u8], &str); 19] = [
    (&MAGIC, QCOW2),
    (b"KDMV", VMDK),
    (b"COWD", VMDK),
    (b"# Disk DescriptorFile", VMDK),
    (b"<<< ", VDI),
    (b"vhdxfile", VHDX),
    (b"conectix", VHD),
    (b"QED\0", "a QED image"),
    (b"WithoutFreeSpace", "a Parallels image"),
    (b"WithouFreSpacExt", "a Parallels image"),
    (b"\x1f\x8b", PACKED[0]),
    (b"\xfd7zXZ\0", PACKED[1]),
    (b"\x28\xb5\x2f\xfd", PACKED[2]),
    (b"BZh", PACKED[3]),
    (b"PK\x03\x04", PACKED[4]),
    (b"<!DOCTYPE", HTML),
    (b"<!doctype", HTML),
    (b"<html", HTML),
    (b"<HTML", HTML),
];

/// What stands where: VirtualBox writes free text first, and tar the name of the first file.
const INNER: [(usize, &[u8], &str); 2] = [(64, &0xbeda_107f_u32.to_le_bytes(), VDI), (257, b"ustar", PACKED[5])];

/// Whether a file may serve in a role; gives the size of the disk in it, in bytes, for a disk.
///
/// # Errors
/// When it is not what it is declared to be, or would show a guest other files of the host (reference E4).
pub(super) fn check(file: &File, role: BaseRole) -> Result<Option<u64>, Unfit> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Err(Unfit::Empty);
    }
    let BaseRole::Disk(declared) = role else { return Ok(None) };
    let found = recognise(file)?;
    match (declared, found) {
        (DiskFormat::Raw, Some(found)) => Err(Unfit::Mismatch { declared: declared.as_str(), found }),
        (DiskFormat::Raw, None) => Ok(Some(length)),
        (DiskFormat::Qcow2, Some(found)) if found != QCOW2 => {
            Err(Unfit::Mismatch { declared: declared.as_str(), found })
        }
        (DiskFormat::Qcow2, _) => {
            let header = Header::read(file)?;
            header.check_standalone()?;
            Ok(Some(header.virtual_size))
        }
    }
}

fn recognise(file: &File) -> io::Result<Option<&'static str>> {
    let mut first = [0; 512];
    let got = file.read_at(&mut first, 0)?;
    let first = &first[..got];
    let inner = INNER.iter().find(|(at, magic, _)| first.get(*at..*at + magic.len()) == Some(*magic)).map(|it| it.2);
    let outer = || SIGNATURES.iter().find(|(signature, _)| first.starts_with(signature)).map(|(_, name)| *name);
    Ok(inner.or_else(outer))
}

impl Unfit {
    /// A file that is not in its declared format: what it looks like.
    pub(super) fn mismatch(file: &File, declared: &'static str) -> io::Result<Self> {
        Ok(Self::Mismatch { declared, found: recognise(file)?.unwrap_or(PLAIN) })
    }
}
