//! Images as they are published: compressed, in foreign formats, with lists of digests.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use novella::blueprint::object::{Base, BaseRole, ImageFormat, Locked, Object, Source, Sums};
use novella::value::{ByteSize, Sha256};

use crate::lab::{Lab, QCOW2, RAW, fails, has_qemu_img, list_of, noise, qemu_img, sha512_of};
use crate::server::{Server, good, head};

type Pack = fn(&[u8]) -> Vec<u8>;

const PACKS: [(&str, Pack); 3] = [("gz", gzip), ("xz", xz), ("zst", zstd)];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).expect("in memory");
    packer.finish().expect("in memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 1);
    packer.write_all(bytes).expect("in memory");
    packer.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 1).expect("in memory")
}

/// Noise, and zeros after it.
fn plain() -> Vec<u8> {
    let mut bytes = noise(700_000);
    bytes.resize(6 << 20, 0);
    bytes
}

/// That a disk has these bytes, by qemu-img's own account; and nothing else is left in the cache.
#[track_caller]
fn assert_cached(lab: &Lab, base: &Base, bytes: &[u8]) {
    assert_eq!(lab.fact(&Object::Base(base.clone()), "content").as_deref(), Some("whole"));
    assert_eq!(lab.cache(), [base.id.clone(), format!("{}.json", base.id)], "nothing else is left");
    let BaseRole::Disk(format) = base.role else {
        assert!(fs::read(&base.path).expect("cached") == bytes, "other bytes are cached");
        return;
    };
    let raw = lab.outside("raw");
    let [from, to] = [&base.path, &raw].map(|path| path.to_str().expect("utf-8"));
    qemu_img(&["convert", "-f", format.as_str(), "-O", "raw", from, to]);
    assert!(fs::read(&raw).expect("made") == bytes, "another disk is cached");
}

#[test]
fn what_is_compressed_is_unpacked_and_pinned_as_it_is_published() {
    if !has_qemu_img() {
        return;
    }
    for (name, pack) in PACKS {
        let packed = pack(&plain());
        let lab = Lab::new();
        let base = lab.pinned(lab.file(&format!("disk.{name}"), &packed), RAW, &packed);
        lab.images().ensure_base(&base).expect(name);
        assert_cached(&lab, &base, &plain());
        assert!(
            fs::metadata(&base.path).expect("there").len()
                > fs::metadata(lab.outside(&format!("disk.{name}"))).expect("there").len()
        );
        // Over the web, one part behind the other as parallel packers write them, with a name that tells nothing.
        let (lab, half) = (Lab::new(), plain().len() / 2);
        let packed = [pack(&plain()[..half]), pack(&plain()[half..])].concat();
        let body = packed.clone();
        let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
        let base = lab.unpinned(Source::Url(server.url("/kernel")), BaseRole::Kernel);
        lab.images().ensure_base(&base).expect(name);
        assert_cached(&lab, &base, &plain());
        let known = lab.images().locked(&base).expect("cached");
        assert_eq!((known.sha256, known.size), (Sha256::of(&packed), packed.len() as u64), "as it is published");
        assert_eq!(known.etag.as_deref(), Some("\"1\""));
    }
}

#[test]
fn a_kernel_unpacks_its_initial_ramdisk_itself() {
    let (lab, packed) = (Lab::new(), gzip(&plain()));
    let base = lab.pinned(lab.file("initrd.gz", &packed), BaseRole::Initrd, &packed);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &packed);
}

#[test]
fn what_is_unpacked_is_looked_at_like_all_else() {
    let lab = Lab::new();
    for (name, pack) in PACKS {
        let mut evil = b"QFI\xfb\0\0\0\x03".to_vec();
        evil.resize(4096, 0);
        for (inside, role, word) in [
            (gzip(b"x"), RAW, "a compressed file (gzip)"),
            (b"<!DOCTYPE html>".to_vec(), RAW, "a web page"),
            (evil, QCOW2, "clusters"),
            (Vec::new(), RAW, "it is empty"),
        ] {
            let packed = pack(&inside);
            let base = lab.pinned(lab.file("evil", &packed), role, &packed);
            fails(lab.images().ensure_base(&base), false, &["cannot use image `debian`", word]);
        }
        let whole = pack(&noise(100_000));
        for packed in [&whole[..whole.len() - 9], &[&whole[..200], &noise(99_000)].concat()] {
            let base = lab.pinned(lab.file("broken", packed), RAW, packed);
            fails(lab.images().ensure_base(&base), false, &["cannot unpack image `debian`", "get a good copy"]);
        }
        assert_eq!(lab.cache(), [""; 0], "{name}");
    }
}

#[test]
fn a_bomb_does_not_go_off() {
    let lab = Lab::new();
    for (_, pack) in PACKS {
        let packed = pack(&vec![0; 8 << 20]);
        let base = lab.pinned(lab.file("bomb", &packed), RAW, &packed);
        let careful = lab.images().with_most_unpacked(ByteSize::mib(4));
        fails(careful.ensure_base(&base), false, &["larger than 4 MiB unpacked", "made to fill a disk"]);
        assert_eq!(lab.cache(), [""; 0]);
    }
    // What asks for more memory than a host should give: a dictionary of 1.5 GiB, in one byte of the header.
    let options = liblzma::stream::LzmaOptions::new_preset(0).expect("a preset");
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let mut greedy = xz(&noise(1000));
    // Stream header (12), block header size, flags, filter id, size of properties, properties.
    assert_eq!(greedy[14], 0x21, "LZMA2");
    greedy[16] = 39;
    let sum = crc32(&greedy[12..20]);
    greedy[20..24].copy_from_slice(&sum.to_le_bytes());
    let base = lab.pinned(lab.file("greedy", &greedy), RAW, &greedy);
    fails(lab.images().ensure_base(&base), false, &["cannot unpack image", "memory"]);
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

impl Lab {
    /// A disk image in a foreign format, pinned.
    fn foreign(&self, source: Source, format: ImageFormat, bytes: &[u8]) -> Base {
        let digest = Sha256::of(bytes);
        let (id, path) = self.layout.base(digest.as_str(), QCOW2, Some(format));
        Base { id, path, converted_from: Some(format), ..self.pinned(source, QCOW2, bytes) }
    }

    /// The plain disk, as qemu-img makes it in another format.
    fn made_by_qemu(&self, format: &str, options: &[&str]) -> Vec<u8> {
        let (raw, made) = (self.outside("plain"), self.outside("made"));
        fs::write(&raw, plain()).expect("writable");
        let [raw, to] = [&raw, &made].map(|path| path.to_str().expect("utf-8"));
        qemu_img(&[&["convert", "-f", "raw", "-O", format], options, &[raw, to]].concat());
        fs::read(made).expect("made")
    }
}

#[test]
fn what_guests_do_not_run_from_is_converted_once() {
    if !has_qemu_img() {
        return;
    }
    let cases: [(ImageFormat, &[&str]); 6] = [
        (ImageFormat::Vmdk, &["-o", "subformat=monolithicSparse"]),
        (ImageFormat::Vmdk, &["-o", "subformat=streamOptimized"]),
        (ImageFormat::Vdi, &[]),
        (ImageFormat::Vhdx, &[]),
        (ImageFormat::Vpc, &["-o", "subformat=dynamic,force_size=on"]),
        (ImageFormat::Vpc, &["-o", "subformat=fixed,force_size=on"]),
    ];
    for (format, options) in cases {
        let lab = Lab::new();
        let bytes = lab.made_by_qemu(format.as_str(), options);
        let packed = xz(&bytes);
        for published in [&bytes, &packed] {
            let base = lab.foreign(lab.file("published", published), format, published);
            lab.images().ensure_base(&base).unwrap_or_else(|error| panic!("{options:?}: {}", crate::lab::told(&error)));
            assert_cached(&lab, &base, &plain());
            lab.images().ensure_base(&base).expect("nothing is done again");
            lab.images().remove_base(&base.id).expect("removed");
        }
        // It is not taken for what it is not.
        for other in ImageFormat::ALL.into_iter().filter(|other| other.converted().is_some() && *other != format) {
            let base = lab.foreign(lab.file("published", &bytes), other, &bytes);
            fails(lab.images().ensure_base(&base), false, &["cannot use image `debian`"]);
        }
        for length in [0, 1, 100, 511, 512, 600] {
            let cut = &bytes[..length];
            let base = lab.foreign(lab.file("cut", cut), format, cut);
            assert!(lab.images().ensure_base(&base).is_err(), "{format:?} cut to {length}");
        }
        assert_eq!(lab.cache(), [""; 0]);
    }
}

/// GHSA-7h75-hwxx-qpgc: a VMDK that names a file of the host as its data or as its parent.
#[test]
fn a_foreign_image_shows_no_other_file_of_the_host() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let refused = |what: &str, format: ImageFormat, bytes: &[u8], word: &str| {
        let base = lab.foreign(lab.file("evil", bytes), format, bytes);
        let error = lab.images().ensure_base(&base).err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(crate::lab::told(&error).contains(word), "{what}: {}", crate::lab::told(&error));
        assert_eq!(lab.cache(), [""; 0], "{what}");
    };
    let secret = lab.outside("secret");
    fs::write(&secret, noise(65536)).expect("writable");
    let extent = |kind: &str| format!("RW 128 {kind} \"{}\" 0", secret.display());
    let text = |create: &str, extent: &str, more: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"{create}\"\n{more}{extent}\n\
             ddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"16\"\n\
             ddb.geometry.sectors = \"63\"\n"
        )
    };
    // The descriptor alone, which qemu-img does take.
    let flat = text("monolithicFlat", &extent("FLAT"), "");
    fs::write(lab.outside("flat.vmdk"), &flat).expect("writable");
    let to = lab.outside("stolen");
    let [from, to] = [lab.outside("flat.vmdk"), to].map(|path| path.into_os_string().into_string().expect("utf-8"));
    qemu_img(&["convert", "-f", "vmdk", "-O", "raw", &from, &to]);
    assert!(fs::read(&to).expect("made") == fs::read(&secret).expect("there"), "the attack works on qemu-img");
    refused("a descriptor", ImageFormat::Vmdk, flat.as_bytes(), "data is in another file");
    // The same, in a file that looks as if it had its own data.
    let good = lab.made_by_qemu("vmdk", &["-o", "subformat=monolithicSparse"]);
    let with = |text: &str, edit: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        bytes[512..512 + 20 * 512].fill(0);
        bytes[512..512 + text.len()].copy_from_slice(text.as_bytes());
        edit(&mut bytes);
        bytes
    };
    let no_capacity: fn(&mut Vec<u8>) = |bytes| bytes[12..20].fill(0);
    let nothing: fn(&mut Vec<u8>) = |_| {};
    let own = "RW 12288 SPARSE \"x.vmdk\"";
    let hint = "parentFileNameHint=\"/etc/passwd\"\n";
    for (what, bytes, word) in [
        ("no capacity", with(&flat, no_capacity), "data is in another file"),
        (
            "no capacity, and an innocent text",
            with(&text("monolithicSparse", own, ""), no_capacity),
            "data is in another",
        ),
        ("a flat extent", with(&text("monolithicSparse", &extent("FLAT"), ""), nothing), "data is in another file"),
        (
            "two extents",
            with(&text("monolithicSparse", &format!("{own}\n{own}"), ""), nothing),
            "data is in another file",
        ),
        ("another type", with(&text("twoGbMaxExtentSparse", own, ""), nothing), "data is in another file"),
        ("a parent", with(&text("monolithicSparse", own, hint), nothing), "lies over another file, `/etc/passwd`"),
        (
            "a parent behind the end",
            with(&format!("{}\0{hint}", text("monolithicSparse", own, "")), nothing),
            "lies over another file, `/etc/passwd`",
        ),
        (
            "a descriptor elsewhere",
            with(&text("monolithicSparse", own, ""), |bytes| bytes[28] = 3),
            "data is in another",
        ),
        ("too large", with(&text("monolithicSparse", own, ""), |bytes| bytes[19] = 0x7f), "larger than 64 TiB"),
    ] {
        refused(what, ImageFormat::Vmdk, &bytes, word);
        refused(what, ImageFormat::Vmdk, &gzip(&bytes), word);
    }
    // One that qemu-img makes.
    let parent = lab.outside("parent.vmdk");
    let child = lab.outside("child.vmdk");
    let [parent, child] = [parent, child].map(|path| path.into_os_string().into_string().expect("utf-8"));
    qemu_img(&["create", "-q", "-f", "vmdk", &parent, "1M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", &parent, &child]);
    refused("a child", ImageFormat::Vmdk, &fs::read(&child).expect("made"), "lies over another file");
    let mut linked = lab.made_by_qemu("vdi", &[]);
    linked[0x1a8] = 1;
    refused("a linked VDI", ImageFormat::Vdi, &linked, "lies over another file");
    let mut differencing = lab.made_by_qemu("vpc", &[]);
    let last = differencing.len() - 512;
    for at in [0, last] {
        differencing[at + 63] = 4;
    }
    refused("a differencing VHD", ImageFormat::Vpc, &differencing, "lies over another file");
}

#[test]
fn a_list_of_digests_vouches_for_an_image() {
    let (lab, bytes) = (Lab::new(), noise(100_000));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    let with_sums = |text: String| {
        let sums = Some(Sums::Sha256(lab.file("SHA256SUMS", text.as_bytes())));
        Base { sums, ..lab.unpinned(Source::Url(server.url("/pool/disk.img?x=1")), RAW) }
    };
    let (right, wrong) = (Sha256::of(&bytes), Sha256::of(b"other"));
    let fetch = |text: String| lab.images().ensure_base(&with_sums(text));
    fails(fetch(format!("{wrong}  disk.img\n")), false, &[wrong.as_str(), right.as_str(), "SHA256SUMS` says so"]);
    fails(
        fetch(format!("{right}  disk.iso\n")),
        false,
        &["no SHA-256 of `disk.img`", "SHA256SUMS", "belongs to the image"],
    );
    fails(fetch(format!("{right} disk.img\n")), false, &["no SHA-256 of `disk.img`"]);
    fails(fetch(format!("{right}  disk.img\n{wrong}  disk.img\n")), false, &["two digests of `disk.img`"]);
    fails(fetch("x".repeat(2 << 20)), false, &["larger than 1 MiB"]);
    assert_eq!(server.seen().len(), 1, "nothing is fetched that could not be told from another");
    assert_eq!(lab.cache(), [""; 0]);
    fetch(format!("SHA256 (disk.img) = {right}\n")).expect("cached");
    assert!(fs::read(&with_sums(String::new()).path).expect("cached") == bytes);
}

#[test]
fn a_list_of_sha_512_vouches_for_an_image_that_is_known_by_its_sha_256() {
    let (lab, bytes) = (Lab::new(), noise(100_000));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    lab.file("disk.img", &bytes);
    lab.file("other.img", b"other");
    let (file, other) = (lab.outside("disk.img"), lab.outside("other.img"));
    let (right, wrong) = (sha512_of(&file), sha512_of(&other));
    let base = |list: &str| {
        let sums = Some(Sums::Sha512(lab.file("SHA512SUMS", list.as_bytes())));
        Base { sums, ..lab.unpinned(Source::Url(server.url("/pool/disk.img?x=1")), RAW) }
    };
    let fetch = |list: &str| lab.images().ensure_base(&base(list));
    let gnu = list_of("sha512sum", &[], &file);
    let unlike = format!("its SHA-512 is {right}, wanted is {wrong}");
    fails(fetch(&gnu.replace(&right, &wrong)), false, &[&unlike, "SHA512SUMS` says so"]);
    let absent = ["no SHA-512 of `disk.img`", "check that `sha512sums` belongs to the image"];
    fails(fetch(&list_of("sha512sum", &[], &other)), false, &absent);
    fails(fetch(&list_of("sha256sum", &[], &file)), false, &absent);
    fails(fetch(&list_of("sha256sum", &["--tag"], &file)), false, &absent);
    fails(fetch(&format!("{gnu}{}", gnu.replace(&right, &wrong))), false, &["two digests of `disk.img`"]);
    assert_eq!(server.seen().len(), 1, "nothing is fetched that could not be told from another");
    assert_eq!(lab.cache(), [""; 0]);
    for list in [gnu, list_of("sha512sum", &["--binary"], &file), list_of("sha512sum", &["--tag"], &file)] {
        let base = base(&list);
        lab.images().ensure_base(&base).expect("cached");
        assert!(fs::read(&base.path).expect("cached") == bytes);
        let locked = lab.images().locked(&base).expect("cached");
        assert_eq!((locked.sha256, locked.sha512.map(String::from)), (Sha256::of(&bytes), Some(right.clone())));
        lab.images().remove_base(&base.id).expect("removed");
    }
}

#[test]
fn a_locked_image_that_has_changed_is_refused_with_a_way_out() {
    let (lab, old, new) = (Lab::new(), noise(100_000), noise(100_001));
    let server = Server::start(move |_, request, stream| good(stream, request, "\"2\"", &new));
    let source = Source::Url(server.url("/disk.img"));
    let locked =
        Locked { source: source.shown(), sha256: Sha256::of(&old), sha512: None, size: old.len() as u64, etag: None };
    let by_content = lab.pinned(source.clone(), RAW, &old);
    for base in [lab.unpinned(source, RAW), by_content] {
        let base = Base { locked: Some(Box::new(locked.clone())), ..base };
        let error = lab.images().ensure_base(&base).expect_err("it has changed");
        assert_eq!(error.code.as_deref(), Some("image-changed"));
        fails::<()>(Err(error), false, &["`images.lock`", "run `novella image update debian`"]);
        assert_eq!(lab.cache(), [""; 0]);
    }
}

#[test]
fn what_an_image_is_by_now_is_told_with_as_little_as_can_be() {
    let (lab, bytes) = (Lab::new(), noise(100_000));
    let (body, image) = (bytes.clone(), "debian".parse().expect("a name"));
    let server = Server::start(move |_, request, stream| match request.path.as_str() {
        "/no-head" if request.method == "HEAD" => head(stream, "405 Method Not Allowed", &[]),
        "/gone" => head(stream, "404 Not Found", &[]),
        "/short" if request.method == "GET" => {
            head(stream, "200 OK", &[("Content-Length", "100000".into())]);
            let _ = stream.write_all(&body[..500]);
        }
        _ if request.method == "HEAD" => {
            head(stream, "200 OK", &[("ETag", "\"1\"".into()), ("Content-Length", body.len().to_string())]);
        }
        _ => good(stream, request, "\"1\"", &body),
    });
    let source = |path: &str| server.url(path);
    let asked = || server.seen().iter().map(|it| it.method.clone()).collect::<Vec<_>>();
    let now = lab.images().look_at(&image, &source("/disk"), None, None).expect("read");
    assert_eq!((&now.sha256, now.size, now.etag.as_deref()), (&Sha256::of(&bytes), bytes.len() as u64, Some("\"1\"")));
    assert_eq!(asked(), ["HEAD", "GET"]);
    assert_eq!(lab.images().look_at(&image, &source("/disk"), None, Some(&now)).expect("looked at"), now);
    assert_eq!(asked(), ["HEAD", "GET", "HEAD"], "the server says that it is the same");
    let stale = Locked { etag: Some("\"0\"".into()), sha256: Sha256::of(b"old"), ..now.clone() };
    assert_eq!(lab.images().look_at(&image, &source("/disk"), None, Some(&stale)).expect("read"), now);
    let sums = Sums::Sha256(lab.file("SHA256SUMS", format!("{}  disk\n", Sha256::of(b"listed")).as_bytes()));
    let before = asked().len();
    let listed = lab.images().look_at(&image, &source("/disk"), Some(&sums), Some(&now)).expect("looked at");
    assert_eq!((listed.sha256, listed.size), (Sha256::of(b"listed"), now.size));
    assert_eq!(asked()[before..], ["HEAD"], "the list says what it is");
    assert_eq!(lab.images().look_at(&image, &source("/no-head"), None, None).expect("read").sha256, now.sha256);
    fails(lab.images().look_at(&image, &source("/gone"), None, None), false, &["404", "check the URL"]);
    assert!(lab.images().look_at(&image, &source("/short"), None, None).is_err());
    assert!(!Path::new(&lab.layout.root).exists(), "nothing is kept");
}

#[test]
fn a_list_of_sha_512_tells_what_an_image_is_where_that_is_locked_beside() {
    let (lab, bytes) = (Lab::new(), noise(100_000));
    let (body, image) = (bytes.clone(), "debian".parse().expect("a name"));
    let server = Server::start(move |_, request, stream| match request.method.as_str() {
        "HEAD" => head(stream, "200 OK", &[("ETag", "\"1\"".into()), ("Content-Length", body.len().to_string())]),
        _ => good(stream, request, "\"1\"", &body),
    });
    lab.file("disk", &bytes);
    let sums = Sums::Sha512(lab.file("SHA512SUMS", list_of("sha512sum", &[], &lab.outside("disk")).as_bytes()));
    let look = |known: Option<&Locked>| lab.images().look_at(&image, &server.url("/disk"), Some(&sums), known);
    let asked = |known: Option<&Locked>| {
        let before = server.seen().len();
        let now = look(known).expect("looked at");
        (now, server.seen()[before..].iter().map(|it| it.method.clone()).collect::<Vec<_>>())
    };
    let (now, of_server) = asked(None);
    assert_eq!(of_server, ["HEAD", "GET"], "a SHA-512 tells no SHA-256");
    assert_eq!(now.sha256, Sha256::of(&bytes));
    assert_eq!(now.sha512.clone().map(String::from), Some(sha512_of(&lab.outside("disk"))));
    assert_eq!(asked(Some(&now)), (now.clone(), vec!["HEAD".into()]));
    let stale = Locked { etag: Some("\"0\"".into()), ..now.clone() };
    assert_eq!(asked(Some(&stale)), (now.clone(), vec!["HEAD".into()]), "the list says that it is the same");
    // The server says that it is the same; whether the list says so is not known before it is read.
    let unlisted = Locked { sha512: None, ..now.clone() };
    assert_eq!(asked(Some(&unlisted)), (now.clone(), vec!["HEAD".into(), "GET".into()]));
    // The list is ahead of the server, or somebody has changed the file.
    lab.file("disk", b"newer");
    lab.file("SHA512SUMS", list_of("sha512sum", &[], &lab.outside("disk")).as_bytes());
    fails(look(Some(&now)), false, &["its SHA-512 is ", "listed is ", &sha512_of(&lab.outside("disk"))]);
}
