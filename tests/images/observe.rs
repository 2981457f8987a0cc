//! What is there is seen in the words in which it was wanted.

use std::fs;
use std::os::unix::fs::symlink;

use novella::blueprint::facts::Facts;
use novella::blueprint::object::Object;
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
    assert_eq!(seen[&base.key()], only(&base.facts(), &["path", "content"]));
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
