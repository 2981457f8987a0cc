//! The reader of qcow2 headers, and images that want more than they should have.

use std::fs;
use std::io::Cursor;

use novella::blueprint::object::BaseRole;
use novella::host::qcow2::{Hazard, Header, Invalid};
use proptest::prelude::*;

use crate::lab::{Lab, QCOW2, RAW, fails, has_qemu_img, qemu_img};

/// A plain header of version 3, with this change.
fn header(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    put(&mut bytes, 0, b"QFI\xfb");
    put(&mut bytes, 4, &3_u32.to_be_bytes());
    put(&mut bytes, 20, &16_u32.to_be_bytes());
    put(&mut bytes, 24, &(1_u64 << 30).to_be_bytes());
    put(&mut bytes, 100, &104_u32.to_be_bytes());
    change(&mut bytes);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn backing(bytes: &mut [u8], name: &[u8]) {
    put(bytes, 8, &512_u64.to_be_bytes());
    put(bytes, 16, &(name.len() as u32).to_be_bytes());
    put(bytes, 512, name);
}

fn hazard(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Hazard> {
    Header::read(Cursor::new(header(change))).expect("a header").check_standalone()
}

#[test]
fn hazards_are_seen() {
    assert_eq!(hazard(|_| {}), Ok(()));
    assert_eq!(hazard(|it| backing(it, b"/etc/passwd")), Err(Hazard::Backing("/etc/passwd".into())));
    assert_eq!(hazard(|it| backing(it, b"a\x1b[2J")), Err(Hazard::Backing("a\\u{1b}[2J".into())));
    assert_eq!(hazard(|it| put(it, 79, &[0b100])), Err(Hazard::ExternalData));
    assert_eq!(hazard(|it| put(it, 35, &[2])), Err(Hazard::Encrypted));
    assert_eq!(hazard(|it| put(it, 79, &[0b10])), Err(Hazard::Corrupt));
    assert_eq!(hazard(|it| put(it, 72, &[0x80])), Err(Hazard::Features(1 << 63)));
    assert_eq!(hazard(|it| put(it, 24, &[0x7f])), Err(Hazard::TooLarge((0x7f << 56) + (1 << 30))));
    assert_eq!(hazard(|it| put(it, 79, &[0b11001])), Ok(()), "dirty, zstd, extended L2");
}

#[test]
fn nonsense_is_refused() {
    let read = |bytes: Vec<u8>| Header::read(Cursor::new(bytes)).expect_err("nonsense");
    assert!(matches!(read(Vec::new()), Invalid::Magic));
    assert!(matches!(read(vec![0; 4096]), Invalid::Magic));
    assert!(matches!(read(header(|it| it.truncate(7))), Invalid::Truncated));
    assert!(matches!(read(header(|it| it.truncate(103))), Invalid::Truncated));
    assert!(matches!(read(header(|it| put(it, 7, &[9]))), Invalid::Version(9)));
    assert!(matches!(read(header(|it| put(it, 7, &[1]))), Invalid::Version(1)));
    assert!(matches!(read(header(|it| put(it, 23, &[8]))), Invalid::ClusterBits(8)));
    assert!(matches!(read(header(|it| put(it, 20, &[255]))), Invalid::ClusterBits(_)));
    assert!(matches!(read(header(|it| put(it, 103, &[8]))), Invalid::HeaderLength(8)));
    assert!(matches!(read(header(|it| put(it, 8, &[1]))), Invalid::Backing));
    assert!(matches!(
        read(header(|it| {
            put(it, 8, &512_u64.to_be_bytes());
            put(it, 16, &1024_u32.to_be_bytes());
        })),
        Invalid::Backing
    ));
    assert!(matches!(
        read(header(|it| {
            backing(it, &[b'a'; 500]);
            it.truncate(600);
        })),
        Invalid::Truncated
    ));
}

proptest! {
    /// Whatever a file begins with, it is read or refused, and what is read was there.
    #[test]
    fn any_bytes_are_read_or_refused(
        tail in prop::collection::vec(any::<u8>(), 0..600),
        version in 0_u32..5,
        bits in 0_u32..24,
        small in any::<bool>(),
    ) {
        let mut bytes = b"QFI\xfb".to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(&tail);
        if bytes.len() >= 104 {
            put(&mut bytes, 20, &bits.to_be_bytes());
            if small {
                // Offsets and lengths that mostly hit the file.
                for at in [8, 9, 10, 11, 12, 13, 16, 17, 18, 100, 101, 102] {
                    bytes[at] = 0;
                }
            }
        }
        let length = bytes.len();
        if let Ok(header) = Header::read(Cursor::new(bytes)) {
            prop_assert!(header.version == 2 || header.version == 3);
            prop_assert!(header.backing.as_ref().is_none_or(|name| name.len() <= length.min(1023)));
            let _ = header.check_standalone();
        }
    }

    #[test]
    fn any_bytes_at_all_are_no_trouble(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::read(Cursor::new(bytes));
    }
}

#[test]
fn qemu_and_the_reader_agree() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let path = lab.outside("image");
    let name = path.to_str().expect("utf-8");
    for options in [
        &["-o", "compat=0.10"][..],
        &["-o", "compat=0.10", "-u", "-F", "raw", "-b", "/base"],
        &["-o", "cluster_size=512", "-u", "-F", "qcow2", "-b", "/some/base"],
        &["-o", "compression_type=zstd,extended_l2=on,cluster_size=2M", "-u", "-F", "qcow2", "-b", "/b"],
        &["-u", "-b", "json:{\"driver\":\"null-co\"}", "-F", "raw"],
    ] {
        qemu_img(&[&["create", "-q", "-f", "qcow2"], options, &[name, "3G"]].concat());
        let header = Header::read(fs::File::open(&path).expect("made")).expect("a header");
        let value = |flag| options.iter().skip_while(|it| **it != flag).nth(1).map(|it| it.as_bytes().to_vec());
        assert_eq!(header.virtual_size, 3 << 30);
        assert_eq!(header.backing, value("-b"), "{options:?}");
        assert_eq!(header.backing_format, value("-F"), "{options:?}");
        assert_eq!(header.version, if options[1] == "compat=0.10" { 2 } else { 3 });
    }
}

#[test]
fn hostile_images_are_not_cached() {
    let lab = Lab::new();
    let refused = |name: &str, role: BaseRole, bytes: &[u8], words: &[&str]| {
        let base = lab.pinned(lab.file(name, bytes), role, bytes);
        fails(lab.images().ensure_base(&base), false, &[&["cannot use image `debian`"], words].concat());
        assert_eq!(lab.cache(), [""; 0], "{name}");
    };
    refused("backing", QCOW2, &header(|it| backing(it, b"/etc/passwd")), &["lies over another file, `/etc/passwd`"]);
    refused("external", QCOW2, &header(|it| put(it, 79, &[0b100])), &["data is in another file", "qemu-img convert"]);
    refused("crypt", QCOW2, &header(|it| put(it, 35, &[1])), &["encrypted"]);
    refused("v9", QCOW2, &header(|it| put(it, 7, &[9])), &["version 9"]);
    refused("cut", QCOW2, &header(|it| it.truncate(50)), &["cut off"]);
    refused("huge", QCOW2, &header(|it| put(it, 24, &[0x7f])), &["64 TiB"]);
    refused("raw", QCOW2, b"no magic", &["not a qcow2 image", "format = \"raw\""]);
    refused("page", QCOW2, b"<!DOCTYPE html>", &["a web page", "check the URL"]);
    refused("bzip2", RAW, b"BZh91AY", &["compressed", "unpack"]);
    refused("not-raw", RAW, &header(|_| {}), &["a qcow2 image", "format = \"qcow2\""]);
    for format in ["vmdk", "vdi", "vhdx"] {
        if !has_qemu_img() {
            return;
        }
        let path = lab.outside(format);
        qemu_img(&["create", "-q", "-f", format, path.to_str().expect("utf-8"), "1M"]);
        let bytes = fs::read(&path).expect("made");
        let found = format!("looks like a {} image", format.to_uppercase());
        let help = format!("set `format = \"{format}\"`");
        for role in [RAW, QCOW2] {
            refused(format, role, &bytes, &[&found, &help]);
        }
    }
    // Real hostile ones, made by qemu-img itself.
    let (path, victim) = (lab.outside("evil"), lab.outside("victim.raw"));
    let (path_text, victim_text) = (path.to_str().expect("utf-8"), victim.to_str().expect("utf-8"));
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &format!("data_file={victim_text}"), path_text, "1M"]);
    refused("evil", QCOW2, &fs::read(&path).expect("made"), &["data is in another file"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", victim_text, path_text]);
    refused("evil", QCOW2, &fs::read(&path).expect("made"), &["lies over another file"]);
}
