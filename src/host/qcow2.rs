//! Reads the header of a qcow2 file, trusting nothing in it.
//!
//! An image can name other files of the host, and QEMU would open them for the guest (reference E4, CVE-2024-32498). So
//! no tool touches an image before its header was read here, and a disk that a guest could write is only ever read here.
//! The format: `docs/interop/qcow2.txt` in QEMU.

use std::io::{self, Read, Seek, SeekFrom};

use crate::host::files::read_up_to;

/// The largest disk that is accepted, in bytes. Beyond this the tables alone become a burden to the host.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

/// `QFI\xfb`, the first bytes of every qcow or qcow2 file.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

const BACKING_FORMAT: u32 = 0xe279_2aca;
const LENGTH_V2: usize = 72;
const LENGTH_V3: usize = 104;
/// The longest name of a backing file, in bytes.
const MAX_BACKING: u32 = 1023;
/// As many header extensions are looked at; five are defined.
const MAX_EXTENSIONS: u32 = 64;

/// What the header of a qcow2 file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// The size of the disk as the guest sees it, in bytes.
    pub virtual_size: u64,
    /// The file it lies over, byte for byte as it is written there.
    pub backing: Option<Vec<u8>>,
    /// The format of that file, if it is written there.
    pub backing_format: Option<Vec<u8>>,
    /// The encryption method; 0 is none.
    pub encryption: u32,
    /// The features without which it cannot be read, as a bit set.
    pub incompatible: u64,
}

/// Why a file is not a qcow2 file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The first bytes are others.
    #[error("it is not a qcow2 image")]
    Magic,
    /// It ends within its header.
    #[error("its qcow2 header is cut off")]
    Truncated,
    /// A version that nobody has defined, or qcow version 1.
    #[error("it has qcow2 version {0}; only 2 and 3 are known")]
    Version(u32),
    /// Clusters smaller than 512 bytes or larger than 2 MiB.
    #[error("its clusters of 2^{0} bytes are outside 2^9 to 2^21")]
    ClusterBits(u32),
    /// A header that is shorter than its version allows, or longer than a cluster.
    #[error("its header claims a length of {0} bytes")]
    HeaderLength(u32),
    /// A backing file name that is too long, or not in the first cluster.
    #[error("the name of its backing file lies outside its first cluster")]
    Backing,
    /// It could not be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// Why an image may not be given to a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hazard {
    /// The guest would read that file of the host.
    #[error("it lies over another file, `{0}`")]
    Backing(String),
    /// The guest would read that file of the host.
    #[error("its data is in another file")]
    ExternalData,
    /// Nobody here has the key.
    #[error("it is encrypted")]
    Encrypted,
    /// QEMU marked it so.
    #[error("it is marked as corrupt")]
    Corrupt,
    /// Made by a program that knows more than we do.
    #[error("it needs unknown features ({0:#x})")]
    Features(u64),
    /// A bomb, or a mistake.
    #[error("its disk of {0} bytes is larger than 64 TiB")]
    TooLarge(u64),
}

impl Header {
    /// Reads the header at the start of a file. Reads at most a few hundred bytes beyond it, whatever it claims.
    ///
    /// # Errors
    /// When it is not a qcow2 header that QEMU would accept.
    pub fn read(mut file: impl Read + Seek) -> Result<Self, Invalid> {
        file.rewind()?;
        let mut raw = [0; LENGTH_V3];
        let got = read_up_to(&mut file, &mut raw)?;
        if got < MAGIC.len() || raw[..4] != MAGIC {
            return Err(Invalid::Magic);
        }
        let version = u32_at(&raw, 4);
        let least = match version {
            _ if got < 8 => return Err(Invalid::Truncated),
            2 => LENGTH_V2,
            3 => LENGTH_V3,
            other => return Err(Invalid::Version(other)),
        };
        if got < least {
            return Err(Invalid::Truncated);
        }
        let cluster_bits = u32_at(&raw, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Invalid::ClusterBits(cluster_bits));
        }
        let cluster = 1_u64 << cluster_bits;
        let (incompatible, length) =
            if version == 2 { (0, LENGTH_V2 as u32) } else { (u64_at(&raw, 72), u32_at(&raw, 100)) };
        if (length as usize) < least || u64::from(length) > cluster {
            return Err(Invalid::HeaderLength(length));
        }
        let (offset, size) = (u64_at(&raw, 8), u32_at(&raw, 16));
        let backing = match offset {
            0 => None,
            _ if size > MAX_BACKING || offset.saturating_add(size.into()) > cluster => return Err(Invalid::Backing),
            _ => Some(read_exactly(&mut file, offset, size as usize)?),
        };
        // The extensions end where the name begins, or else with the cluster.
        let end = if offset == 0 { cluster } else { offset };
        Ok(Self {
            version,
            virtual_size: u64_at(&raw, 24),
            backing,
            backing_format: backing_format(&mut file, length.into(), end)?,
            encryption: u32_at(&raw, 32),
            incompatible,
        })
    }

    /// Whether the image stands on its own and a guest may be given it.
    ///
    /// # Errors
    /// The first hazard, the worst kinds first.
    pub fn check_standalone(&self) -> Result<(), Hazard> {
        match &self.backing {
            Some(backing) => Err(Hazard::Backing(String::from_utf8_lossy(backing).escape_debug().to_string())),
            None => self.check_features(),
        }
    }

    /// The same, whatever it lies over.
    ///
    /// # Errors
    /// The first hazard, the worst kinds first.
    pub fn check_features(&self) -> Result<(), Hazard> {
        if self.incompatible & EXTERNAL_DATA != 0 {
            return Err(Hazard::ExternalData);
        }
        if self.encryption != 0 {
            return Err(Hazard::Encrypted);
        }
        if self.incompatible & CORRUPT != 0 {
            return Err(Hazard::Corrupt);
        }
        if self.incompatible & !KNOWN != 0 {
            return Err(Hazard::Features(self.incompatible & !KNOWN));
        }
        if self.virtual_size > MAX_VIRTUAL_SIZE {
            return Err(Hazard::TooLarge(self.virtual_size));
        }
        Ok(())
    }
}

/// Walks the header extensions (type, length, data padded to 8 bytes) up to the one that names the backing format.
fn backing_format(file: &mut (impl Read + Seek), start: u64, end: u64) -> Result<Option<Vec<u8>>, Invalid> {
    let mut at = start;
    for _ in 0..MAX_EXTENSIONS {
        if at + 8 > end {
            break;
        }
        let mut head = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        if read_up_to(file, &mut head)? < head.len() {
            return Ok(None);
        }
        let (kind, length) = (u32_at(&head, 0), u32_at(&head, 4));
        at += 8;
        match kind {
            0 => return Ok(None),
            // QEMU's own limit is 15 bytes.
            BACKING_FORMAT if length < 16 => return read_exactly(file, at, length as usize).map(Some),
            _ => at += u64::from(length).next_multiple_of(8),
        }
    }
    Ok(None)
}

fn read_exactly(file: &mut (impl Read + Seek), offset: u64, length: usize) -> Result<Vec<u8>, Invalid> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset))?;
    if read_up_to(file, &mut bytes)? < length { Err(Invalid::Truncated) } else { Ok(bytes) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}
