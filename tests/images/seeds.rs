//! Seeds beside the disks.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use novella::blueprint::key::seed_key;
use novella::blueprint::object::{Datasource, Object, Seed};
use novella::blueprint::seed::volume::{Sealed, Volume};
use novella::report;

use crate::lab::Lab;

fn seed(lab: &Lab, server: &str, user_data: &[u8]) -> Seed {
    let files = vec![("meta-data".into(), b"{}".to_vec().into()), ("user-data".into(), user_data.to_vec().into())];
    let image = Sealed::new(Volume { label: Datasource::NoCloud.label(), files });
    let path = lab.layout.seed(server, image.digest());
    Seed { server: server.parse().expect("a name"), path, datasource: Datasource::NoCloud, image }
}

/// What a record has of it.
fn without_content(seed: &Seed) -> Seed {
    serde_json::from_str(&serde_json::to_string(seed).expect("writes")).expect("reads")
}

#[test]
fn a_seed_is_written_seen_mended_and_removed() {
    let lab = Lab::new();
    let seed = seed(&lab, "web", b"#cloud-config");
    lab.images().ensure_seed(&seed).expect("made");
    let found = fs::metadata(&seed.path).expect("there");
    assert_eq!(found.mode(), 0o100_600);
    let object = Object::Seed(seed.clone());
    assert_eq!(lab.observed().objects[&object.key()], object.facts());

    // What is right is left alone, with whatever owner libvirt gave it; its content need not be known for that.
    lab.images().ensure_seed(&without_content(&seed)).expect("as good as made");
    assert_eq!(fs::metadata(&seed.path).expect("there").ino(), found.ino());

    for damage in [&b""[..], b"something else"] {
        fs::write(&seed.path, damage).expect("writable");
        assert_eq!(lab.observed().objects[&object.key()]["content"], "damaged");
        let error = lab.images().ensure_seed(&without_content(&seed)).expect_err("not known");
        assert!(report::error::chain(&error).contains("never written down"), "{error}");
        lab.images().ensure_seed(&seed).expect("mended");
        assert_eq!(lab.observed().objects[&object.key()], object.facts());
    }
    fs::remove_file(&seed.path).expect("there");
    assert!(lab.observed().objects.is_empty());
    let victim = lab.outside("victim");
    fs::write(&victim, "precious").expect("writable");
    symlink(&victim, &seed.path).expect("planted");
    assert_eq!(lab.observed().objects[&object.key()]["content"], "damaged");
    lab.images().ensure_seed(&seed).expect("mended");
    assert_eq!(fs::read(&victim).expect("there"), b"precious");
    assert_eq!(lab.observed().objects[&object.key()], object.facts());

    fs::write(lab.layout.instance("web").join(".seed-0123456789abcdef.img.tmp"), "half").expect("writable");
    for _ in 0..2 {
        lab.images().remove_seed("web").expect("removed");
        assert!(!lab.layout.instance("web").exists());
    }
    lab.images().remove_seed("../web").expect_err("not a name");
}

#[test]
fn a_seed_is_only_written_where_it_belongs() {
    let lab = Lab::new();
    let mut seed = seed(&lab, "web", b"");
    seed.path = lab.outside("elsewhere.img");
    lab.images().ensure_seed(&seed).expect_err("not the place of a seed");
    assert!(!seed.path.exists());
}

#[test]
fn a_seed_is_not_looked_for_through_a_link() {
    let lab = Lab::new();
    let seed = seed(&lab, "web", b"");
    lab.images().ensure_seed(&seed).expect("made");
    symlink(lab.layout.instance("web"), lab.layout.instance("link")).expect("planted");
    fs::write(lab.layout.instance("file"), "x").expect("writable");
    let key = Object::Seed(seed.clone()).key();
    assert_eq!(lab.observed().objects.into_keys().collect::<Vec<_>>(), [key]);
    for other in ["link", "file"] {
        lab.images().remove_seed(other).expect("nothing to remove");
    }
    assert!(seed.path.exists());
}

#[test]
fn old_seeds_are_told_from_what_is_not_ours() {
    let lab = Lab::new();
    let (one, two) = (seed(&lab, "web", b"1"), seed(&lab, "web", b"2"));
    for seed in [&one, &two] {
        lab.images().ensure_seed(seed).expect("made");
    }
    for other in ["seed-.img", "seed-0123456789abcdeg.img", "seed-0123456789abcdef.img.bak", "disk.qcow2", "seed"] {
        fs::write(lab.layout.instance("web").join(other), "").expect("writable");
    }
    assert_eq!(lab.images().seeds_but(&one.server, Some(&one.path)).expect("read"), std::slice::from_ref(&two.path));
    let seen = lab.observed().objects.remove(&seed_key(&one.server)).expect("seen");
    assert!(seen["path"].contains(", "), "both are seen: {seen:?}");
    lab.images().remove_seeds(&[two.path]).expect("removed");
    assert_eq!(lab.observed().objects[&seed_key(&one.server)], Object::Seed(one).facts());
}
