//! Disks, as qemu-img sees them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::{Command, Stdio};
use std::thread;

use novella::blueprint::object::Disk;
use novella::value::ByteSize;
use serde_json::Value;

use crate::lab::{Lab, RAW, beside, fails, has_qemu_img, noise, qemu_img};

fn info(disk: &Disk) -> Value {
    let output = qemu_img(&["info", "--output=json", disk.path.to_str().expect("utf-8")]);
    serde_json::from_slice(&output).expect("JSON")
}

#[test]
fn an_overlay_is_what_qemu_thinks_it_is() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let disk = lab.disk("web", Some(&base), ByteSize::gib(20));
    lab.images().ensure_disk(&disk).expect("made");
    let seen = info(&disk);
    assert_eq!(seen["backing-filename"], base.path.to_str().expect("utf-8"));
    assert_eq!(seen["backing-filename-format"], "qcow2");
    assert_eq!(seen["format"], "qcow2");
    assert_eq!(seen["virtual-size"], 20_u64 << 30);
    assert!(fs::metadata(&disk.path).expect("made").blocks() * 512 < 1 << 20, "thin");
    for directory in [lab.layout.instances(), lab.layout.instance("web")] {
        assert_eq!(fs::metadata(directory).expect("made").mode() & 0o7777, 0o711);
    }
    let before = fs::metadata(&disk.path).expect("made");
    lab.images().ensure_disk(&disk).expect("there already");
    let after = fs::metadata(&disk.path).expect("made");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "untouched");
}

#[test]
fn raw_bases_and_no_base_at_all() {
    if !has_qemu_img() {
        return;
    }
    let (lab, bytes) = (Lab::new(), noise(1 << 20));
    let base = lab.pinned(lab.file("image", &bytes), RAW, &bytes);
    lab.images().ensure_base(&base).expect("cached");
    let over = lab.disk("over", Some(&base), ByteSize::mib(8));
    lab.images().ensure_disk(&over).expect("made");
    assert_eq!(info(&over)["backing-filename-format"], "raw");
    let empty = lab.disk("empty", None, ByteSize::mib(8));
    lab.images().ensure_disk(&empty).expect("made");
    assert_eq!(info(&empty)["backing-filename"], Value::Null);
    assert_eq!(info(&empty)["virtual-size"], 8 << 20);
    fails(lab.images().ensure_disk(&Disk { path: over.path.clone(), ..empty.clone() }), false, &["is not the disk of"]);
    let other = lab.disk("empty", Some(&base), ByteSize::mib(8));
    fails(lab.images().ensure_disk(&other), false, &["`server.empty` lies over no base, not", "replace the server"]);
}

#[test]
fn a_disk_grows_and_never_shrinks() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let small = lab.disk("web", Some(&base), ByteSize::mib(512));
    fails(lab.images().ensure_disk(&small), false, &["the disk is 512 MiB", "a disk of 1 GiB", "raise `disk`"]);
    assert!(!small.path.exists());
    for size in [2, 5] {
        let disk = lab.disk("web", Some(&base), ByteSize::gib(size));
        lab.images().ensure_disk(&disk).expect("grown");
        assert_eq!(info(&disk)["virtual-size"], size << 30);
    }
    let disk = lab.disk("web", Some(&base), ByteSize::gib(2));
    fails(lab.images().ensure_disk(&disk), false, &["from 5 GiB to 2 GiB", "cannot shrink", "5 GiB or more"]);
    assert_eq!(info(&disk)["virtual-size"], 5_u64 << 30);
}

#[test]
fn a_disk_in_use_does_not_grow() {
    if !has_qemu_img() || !std::path::Path::new("/usr/bin/qemu-io").exists() {
        println!("skipped: no qemu-io");
        return;
    }
    let lab = Lab::new();
    let disk = lab.disk("web", None, ByteSize::gib(1));
    lab.images().ensure_disk(&disk).expect("made");
    let mut user = Command::new("/usr/bin/qemu-io")
        .args(["-f", "qcow2"])
        .arg(&disk.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-io runs");
    // It answers once it has the disk open.
    let mut ask = user.stdin.take().expect("piped");
    ask.write_all(b"length\n").expect("it listens");
    let mut answer = String::new();
    BufReader::new(user.stdout.as_mut().expect("piped")).read_line(&mut answer).expect("it answers");
    let grown = lab.disk("web", None, ByteSize::gib(2));
    fails(lab.images().ensure_disk(&grown), false, &["cannot resize the disk of `server.web`", "shut it down first"]);
    drop(ask);
    user.wait().expect("it ends");
    lab.images().ensure_disk(&grown).expect("now it grows");
}

#[test]
fn a_base_in_use_stays() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    for server in ["web", "db"] {
        lab.images().ensure_disk(&lab.disk(server, Some(&base), ByteSize::gib(1))).expect("made");
    }
    fails(
        lab.images().remove_base(&base.id),
        false,
        &["over it lies `server.db`, `server.web`", "remove the servers or volumes first"],
    );
    lab.images().remove_disk("web", None).expect("removed");
    fails(lab.images().remove_base(&base.id), false, &["over it lies `server.db`"]);
    lab.images().remove_disk("db", None).expect("removed");
    lab.images().remove_base(&base.id).expect("nobody uses it");
    assert_eq!(lab.cache(), [""; 0]);
}

#[test]
fn other_bytes_are_never_put_under_a_disk() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let path = lab.outside("made.qcow2");
    let make = |size| qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().expect("utf-8"), size]);
    make("1G");
    let base = lab.unpinned(novella::blueprint::object::Source::File(path.clone()), crate::lab::QCOW2);
    lab.images().ensure_base(&base).expect("cached");
    lab.images().ensure_disk(&lab.disk("web", Some(&base), ByteSize::gib(1))).expect("made");
    let good = fs::read(&path).expect("made");
    make("2G");
    fs::remove_file(&base.path).expect("lost");
    fails(lab.images().ensure_base(&base), false, &["SHA-256", "changed since disks were made over it"]);
    assert!(!base.path.exists());
    fs::write(&path, &good).expect("writable");
    lab.images().ensure_base(&base).expect("the same bytes are welcome");
    for lost in [base.path.clone(), beside(&base.path, ".json")] {
        fs::remove_file(lost).expect("there");
    }
    fails(lab.images().ensure_base(&base), false, &["cannot fetch image `debian` again", "`server.web`"]);
}

#[test]
fn a_base_is_looked_at_before_each_disk() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let disk = lab.disk("web", Some(&base), ByteSize::gib(1));
    let good = fs::read(&base.path).expect("cached");
    let mut evil = good.clone();
    evil[79] |= 0b100;
    fs::write(&base.path, &evil).expect("writable");
    fails(lab.images().ensure_disk(&disk), false, &["cannot put the disk of `server.web`", "data is in another file"]);
    fs::write(&base.path, &good[..100]).expect("writable");
    fails(lab.images().ensure_disk(&disk), false, &["not in the image cache, or damaged"]);
    assert!(!disk.path.exists());
}

#[test]
fn leftovers_and_planted_links_are_no_trouble() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.disk("web", None, ByteSize::gib(1));
    fs::create_dir_all(lab.layout.instance("web")).expect("made");
    fs::write(lab.outside("victim"), "precious").expect("writable");
    symlink(lab.outside("victim"), beside(&disk.path, ".part")).expect("planted");
    lab.images().ensure_disk(&disk).expect("made");
    assert!(!beside(&disk.path, ".part").exists());
    fs::remove_file(&disk.path).expect("there");
    symlink(lab.outside("victim"), &disk.path).expect("planted");
    fails(lab.images().ensure_disk(&disk), false, &["cannot use what stands in place", "move `"]);
    fs::remove_file(&disk.path).expect("there");
    fs::write(&disk.path, "garbage").expect("writable");
    fails(lab.images().ensure_disk(&disk), false, &["not a qcow2 image", "move `"]);
    assert_eq!(fs::read(lab.outside("victim")).expect("there"), b"precious");
}

#[test]
fn a_disk_goes_with_its_directory() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let directory = lab.layout.instance("web");
    lab.images().ensure_disk(&lab.disk("web", None, ByteSize::gib(1))).expect("made");
    for name in ["console.log", "console.log.0", "disk.qcow2.part"] {
        fs::write(directory.join(name), "x").expect("writable");
    }
    for _ in 0..2 {
        lab.images().remove_disk("web", None).expect("removed");
        assert!(!directory.exists());
    }
    fs::create_dir(&directory).expect("made");
    fs::write(directory.join("notes"), "mine").expect("writable");
    lab.images().remove_disk("web", None).expect("what is not ours stays");
    assert!(directory.join("notes").exists());
    fs::create_dir(lab.outside("theirs")).expect("made");
    fs::write(lab.outside("theirs").join("disk.qcow2"), "mine").expect("writable");
    symlink(lab.outside("theirs"), lab.layout.instance("link")).expect("planted");
    lab.images().remove_disk("link", None).expect("the link goes");
    assert!(lab.outside("theirs").join("disk.qcow2").exists());
    for name in ["..", "../base", "", "/etc"] {
        assert!(lab.images().remove_disk(name, None).is_err(), "{name:?}");
    }
}

#[test]
fn a_hundred_disks_at_once() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let disks: Vec<Disk> =
        (0..100).map(|number| lab.disk(&format!("web-{number}"), Some(&base), ByteSize::gib(2))).collect();
    let adapter = lab.images();
    let begun = std::time::Instant::now();
    thread::scope(|scope| {
        for chunk in disks.chunks(10) {
            scope.spawn(|| chunk.iter().for_each(|disk| adapter.ensure_disk(disk).expect("made")));
        }
    });
    println!("100 disks: {:?}", begun.elapsed());
    let begun = std::time::Instant::now();
    assert_eq!(lab.observed().objects.len(), 101);
    println!("seen: {:?}", begun.elapsed());
}
