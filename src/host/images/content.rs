//! What may be a disk image at all. Nothing is guessed: a file must be what the spec says, and stand on its own.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use crate::blueprint::object::{BaseRole, DiskFormat};
use crate::host::qcow2::{Hazard, Header, Invalid, MAGIC};

/// Why a file may not serve in its role.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("it is empty")]
    Empty,
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
            Self::Mismatch { found, .. } if found.starts_with("a compressed") => {
                "unpack the file first, and name the unpacked one"
            }
            Self::Mismatch { found, .. } if *found == HTML => "check the URL: the server sent a page, not an image",
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
const HTML: &str = "a web page";

/// First bytes that a plain disk does not begin with.
const SIGNATURES: [(&[u8], &str); 17] = [
    (&MAGIC, QCOW2),
    (b"KDMV", "a VMDK image"),
    (b"COWD", "a VMDK image"),
    (b"# Disk DescriptorFile", "a VMDK image"),
    (b"<<< ", "a VDI image"),
    (b"vhdxfile", "a VHDX image"),
    (b"conectix", "a VHD image"),
    (b"QED\0", "a QED image"),
    (b"WithoutFreeSpace", "a Parallels image"),
    (b"WithouFreSpacExt", "a Parallels image"),
    (b"\x1f\x8b", "a compressed file (gzip)"),
    (b"\xfd7zXZ\0", "a compressed file (xz)"),
    (b"\x28\xb5\x2f\xfd", "a compressed file (zstd)"),
    (b"<!DOCTYPE", HTML),
    (b"<!doctype", HTML),
    (b"<html", HTML),
    (b"<HTML", HTML),
];

/// VirtualBox writes free text first, then this at byte 64.
const VDI: [u8; 4] = 0xbeda_107f_u32.to_le_bytes();

/// Whether a file may serve in a role; gives the size of the disk in it, in bytes, for a disk.
///
/// # Errors
/// When it is not what it is declared to be, or would show a guest other files of the host (reference E4).
pub(super) fn check(mut file: &File, role: BaseRole) -> Result<Option<u64>, Unfit> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Err(Unfit::Empty);
    }
    let BaseRole::Disk(declared) = role else { return Ok(None) };
    file.rewind()?;
    let mut first = Vec::with_capacity(68);
    file.take(68).read_to_end(&mut first)?;
    match (declared, recognise(&first)) {
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

fn recognise(first: &[u8]) -> Option<&'static str> {
    if first.get(64..68) == Some(&VDI) {
        return Some("a VDI image");
    }
    SIGNATURES.iter().find(|(signature, _)| first.starts_with(signature)).map(|(_, name)| *name)
}
