//! What may be given to `qemu-img convert`: images in formats that guests do not run from, which stand on their own.
//!
//! Each of these formats can name other files of the host, as a parent or, with VMDK, as an extent, and qemu-img would read
//! them (reference E4, GHSA-7h75-hwxx-qpgc). So what could do so is refused by what its header says, before qemu-img sees
//! it. The formats: `block/vmdk.c`, `block/vdi.c`, `block/vhdx.c` and `block/vpc.c` in QEMU.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::blueprint::object::ImageFormat;
use crate::host::images::content::Unfit;
use crate::host::qcow2::{Hazard, MAX_VIRTUAL_SIZE};

/// QEMU reads so much of a descriptor, from the second sector on.
const DESCRIPTOR: usize = 20 * SECTOR;
const SECTOR: usize = 512;

/// Whether a file may be converted from this format.
///
/// # Errors
/// When it is not what it is declared to be, is cut off, lies over another file, or keeps its data in one.
pub(super) fn check(file: &File, format: ImageFormat) -> Result<(), Unfit> {
    match format {
        ImageFormat::Vmdk => vmdk(file),
        ImageFormat::Vdi => vdi(file),
        ImageFormat::Vhdx => expect(read::<8>(file, 0)? == *b"vhdxfile", file, format),
        ImageFormat::Vpc => vpc(file),
        ImageFormat::Qcow2 | ImageFormat::Raw => Ok(()),
    }
}

/// Only files that hold their own data and descriptor: `monolithicSparse` and `streamOptimized`.
fn vmdk(file: &File) -> Result<(), Unfit> {
    // The text of a descriptor alone names the files that have the data.
    if read::<11>(file, 0)? == *b"# Disk Desc" {
        return Err(Hazard::ExternalData.into());
    }
    let head = read::<SECTOR>(file, 0)?;
    expect(head.starts_with(b"KDMV"), file, ImageFormat::Vmdk)?;
    let (capacity, descriptor_at) = (u64_at(&head, 12), u64_at(&head, 28));
    // Without a capacity QEMU takes the descriptor for one whose data are elsewhere.
    if capacity == 0 || descriptor_at != 1 {
        return Err(Hazard::ExternalData.into());
    }
    size_is_sane(capacity.saturating_mul(SECTOR as u64))?;
    let mut descriptor = vec![0; DESCRIPTOR];
    let got = file.read_at(&mut descriptor, SECTOR as u64)?;
    descriptor.truncate(got);
    let text = String::from_utf8_lossy(&descriptor);
    // QEMU looks for this anywhere in it, also behind its end.
    if let Some(parent) = text.split("parentFileNameHint").nth(1) {
        let parent = parent.split('"').nth(1).unwrap_or("unknown");
        return Err(Hazard::Backing(parent.escape_debug().to_string()).into());
    }
    let text = text.split('\0').next().unwrap_or_default();
    let kinds = values(text, "createType");
    let is_extent =
        |line: &&str| ["RW ", "RDONLY ", "NOACCESS "].iter().any(|access| line.trim_start().starts_with(access));
    let extents: Vec<&str> = text.lines().filter(is_extent).collect();
    let alone = matches!(kinds[..], ["monolithicSparse" | "streamOptimized"])
        && values(text, "parentCID").iter().all(|cid| cid.eq_ignore_ascii_case("ffffffff"))
        && matches!(extents[..], [extent] if extent.split_whitespace().nth(2) == Some("SPARSE"));
    if alone { Ok(()) } else { Err(Hazard::ExternalData.into()) }
}

/// The values of a key in a descriptor.
fn values<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    let lines = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case(key));
    lines.map(|(_, value)| value.trim().trim_matches('"')).collect()
}

/// Of the kinds of VDI, dynamic (1) and fixed (2); the others lie over a parent.
fn vdi(file: &File) -> Result<(), Unfit> {
    let head = read::<SECTOR>(file, 0)?;
    expect(u32_at(&head, 64) == 0xbeda_107f, file, ImageFormat::Vdi)?;
    // Its own id, that of its last snapshot, that of its parent and that of the parent's snapshot.
    let links = &head[0x1a8..0x1c8];
    if !matches!(u32_at(&head, 0x4c), 1 | 2) || links.iter().any(|byte| *byte != 0) {
        return Err(Hazard::Backing("of an id".into()).into());
    }
    size_is_sane(u64_at(&head, 0x170))?;
    // QEMU takes what is missing for zeros.
    let (data_at, block, blocks) = (u32_at(&head, 0x158), u32_at(&head, 0x178), u32_at(&head, 0x184));
    let end = u64::from(data_at).saturating_add(u64::from(block).saturating_mul(blocks.into()));
    if file.metadata()?.len() < end { Err(Unfit::CutOff) } else { Ok(()) }
}

/// Of the kinds of VHD, fixed (2) and dynamic (3); a differencing one (4) lies over a parent. Its footer is at its end, and
/// a copy of it at the beginning of a dynamic one.
fn vpc(file: &File) -> Result<(), Unfit> {
    let length = file.metadata()?.len();
    let footer_at = length.checked_sub(SECTOR as u64).ok_or(Unfit::CutOff)?;
    let mut kinds = 0;
    for at in [0, footer_at] {
        let footer = read::<SECTOR>(file, at)?;
        if footer.starts_with(b"conectix") {
            if !matches!(u32::from_be(u32_at(&footer, 60)), 2 | 3) {
                return Err(Hazard::Backing("of an id".into()).into());
            }
            size_is_sane(u64::from_be(u64_at(&footer, 48)))?;
            kinds += 1;
        }
    }
    expect(kinds > 0, file, ImageFormat::Vpc)
}

fn expect(is_it: bool, file: &File, format: ImageFormat) -> Result<(), Unfit> {
    if is_it { Ok(()) } else { Err(Unfit::mismatch(file, format.as_str())?) }
}

fn size_is_sane(size: u64) -> Result<(), Unfit> {
    if size > MAX_VIRTUAL_SIZE { Err(Hazard::TooLarge(size).into()) } else { Ok(()) }
}

fn read<const N: usize>(file: &File, at: u64) -> Result<[u8; N], Unfit> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unfit::CutOff,
        _ => Unfit::Io(error),
    })?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}
