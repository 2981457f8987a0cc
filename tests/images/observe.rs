//! What is there is seen in the words in which it was wanted.

use std::fs;
use std::os::unix::fs::symlink;

use novella::blueprint::facts::Facts;
use novella::blueprint::object::{Disk, Object};
use novella::value::ByteSize;

use crate::lab::{Lab, has_qemu_img};

fn only(facts: &Facts, names: &[&str]) -> Facts {
    facts.iter().filter(|(name, _)| names.contains(&name.as_ref())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A disk does not tell of which image it was made.
const SEEN_OF_A_DISK: [&str; 4] = ["path", "format", "size", "base"];

#[test]
fn what_was_made_is_what_is_seen() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    assert!(lab.observed().objects.is_empty(), "nothing is there, not even a directory");
    let base = lab.cached("1G");
    let over = lab.disk("over", Some(&base), ByteSize::mib(1536));
    let empty = lab.disk("empty", None, ByteSize::gib(3));
    for disk in [&over, &empty] {
        lab.images().ensure_disk(disk).expect("made");
    }
    let seen = lab.observed().objects;
    let (base, over, empty) = (Object::Base(base), Object::Disk(over), Object::Disk(empty));
    assert_eq!(seen.len(), 3);
    let mut cached = only(&base.facts(), &["path", "content"]);
    cached.insert("virtual_size".into(), "1 GiB".into());
    assert_eq!(seen[&base.key()], cached);
    assert_eq!(seen[&over.key()], only(&over.facts(), &SEEN_OF_A_DISK));
    assert_eq!(seen[&empty.key()], only(&empty.facts(), &SEEN_OF_A_DISK));
}

#[test]
fn damage_is_seen_and_strangers_are_not() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let disk = lab.disk("web", Some(&base), ByteSize::gib(1));
    lab.images().ensure_disk(&disk).expect("made");
    fs::remove_file(&base.path).expect("there");
    fs::write(lab.layout.instances().join("file"), "x").expect("writable");
    fs::create_dir(lab.layout.instances().join("Not-A-Server")).expect("made");
    fs::create_dir(lab.layout.instances().join("no-disk")).expect("made");
    fs::write(lab.layout.bases().join(".x.json.tmp"), "x").expect("writable");
    let seen = lab.observed().objects;
    let over = Object::Disk(disk.clone());
    assert_eq!(seen.keys().collect::<Vec<_>>(), [&over.key()], "the base has vanished");
    assert_eq!(seen[&over.key()], only(&over.facts(), &SEEN_OF_A_DISK));
    fs::write(&disk.path, "garbage").expect("writable");
    assert_eq!(lab.fact(&over, "format").as_deref(), Some("unknown"));
    assert_eq!(lab.fact(&over, "size"), None);
    fs::remove_file(&disk.path).expect("there");
    symlink("/etc/passwd", &disk.path).expect("made");
    assert_eq!(lab.fact(&over, "format").as_deref(), Some("unknown"));
}

#[test]
fn a_disk_beside_another_is_the_one_that_is_seen_until_the_other_goes() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let first = lab.disk("web", None, ByteSize::gib(1));
    let second = Disk { path: lab.layout.disk_of("web", 2), ..first.clone() };
    let web = "web".parse().expect("a name");
    let seen = || lab.observed().objects[&Object::Disk(first.clone()).key()]["path"].clone();
    for disk in [&first, &second] {
        lab.images().ensure_disk(disk).expect("made");
        assert_eq!(seen(), disk.path.display().to_string());
    }
    assert_eq!(lab.images().disks_but(&web, &second.path).expect("a list"), std::slice::from_ref(&first.path));
    lab.images().remove_disks(&first.server, std::slice::from_ref(&first.path), None).expect("removed");
    assert!(lab.images().disks_but(&web, &second.path).expect("a list").is_empty());
    // One that is not of the server, or has no such name, is refused.
    for path in [lab.layout.disk_of("db", 2), lab.layout.instance("web").join("disk-02.qcow2")] {
        lab.images().ensure_disk(&Disk { path, ..first.clone() }).expect_err("refused");
    }
    lab.images().ensure_disk(&first).expect("made");
    lab.images().remove_disk("web", None).expect("removed");
    assert!(!lab.layout.instance("web").exists(), "both go with their server");
}
