//! The trash: disks come and go back, for as long as they are kept, and a kill loses none.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use novella::address::VolumeId;
use novella::blueprint::disk::{Content, Volume};
use novella::blueprint::key::{disk_key, volume_key};
use novella::blueprint::object::{BaseRef, DiskFormat};
use novella::host::images::Images;
use novella::host::images::trash::{Entry, Trashed};
use novella::host::{Keep, Why};
use novella::value::{ByteSize, unix_now};

use crate::lab::{Lab, fails, has_qemu_img, images, qemu_img};

const KEEP: Option<Keep> = Some(Keep { seconds: 3600, why: Why::Removed });

fn volume(lab: &Lab, id: &str, format: DiskFormat, base: Option<&BaseRef>, content: Content) -> Volume {
    let id: VolumeId = id.parse().expect("an id");
    let path = lab.layout.volume(&id, format);
    let image = base.map(|_| "debian".parse().expect("a name"));
    Volume { id, path, format, size: ByteSize::mib(2), image, base: base.cloned(), content }
}

fn make(lab: &Lab, volume: &Volume) {
    lab.images().ensure_volume_under(volume, &|_, _| Ok(false)).expect("made");
}

fn place(text: &str) -> Trashed {
    text.parse().expect("a disk")
}

fn addresses(images: &Images) -> Vec<String> {
    images.trash().expect("readable").iter().map(|entry| entry.address.to_string()).collect()
}

#[test]
fn disks_are_made_in_each_way() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1M");
    let base = lab.disk("web", Some(&base), ByteSize::mib(2)).base.expect("a base");
    for (id, format, base, content) in [
        ("empty", DiskFormat::Qcow2, None, Content::Plain),
        ("over", DiskFormat::Qcow2, Some(&base), Content::Plain),
        ("raw", DiskFormat::Raw, None, Content::Plain),
        ("copy", DiskFormat::Raw, Some(&base), Content::Plain),
        ("web/ephemeral0", DiskFormat::Raw, None, Content::Ephemeral),
        ("web/swap", DiskFormat::Raw, None, Content::Swap),
    ] {
        let made = volume(&lab, id, format, base, content);
        for _ in 0..2 {
            make(&lab, &made);
        }
        let observed = lab.observed();
        let seen = &observed.objects[&volume_key(&made.id)];
        let wanted = novella::blueprint::object::Object::Volume(made.clone()).facts();
        for (name, value) in seen {
            assert_eq!(wanted.get(name), Some(value), "{id}: {name}");
        }
        let path = made.path.to_str().expect("utf-8");
        let info = String::from_utf8(qemu_img(&["info", "-f", format.as_str(), path])).expect("utf-8");
        assert!(info.contains("virtual size: 2 MiB"), "{info}");
        assert_eq!(info.contains("backing file:"), id == "over", "{info}");
        // It grows, and does not shrink.
        let larger = Volume { size: ByteSize::mib(4), ..made.clone() };
        make(&lab, &larger);
        fails(lab.images().ensure_volume_under(&made, &|_, _| Ok(false)), false, &["cannot shrink without loss"]);
        lab.images().ensure_volume_under(&Volume { size: ByteSize::mib(8), ..made }, &|_, _| Ok(true)).expect("grown");
    }
    let page = fs::read(lab.layout.volume(&"web/swap".parse().expect("an id"), DiskFormat::Raw)).expect("there");
    assert_eq!(&page[4086..4096], b"SWAPSPACE2");
    fails(lab.images().remove_base(&base.id), false, &["volumes/over.qcow2`"]);
}

#[test]
fn a_disk_goes_to_the_trash_and_comes_back() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1M");
    let disk = lab.disk("web", Some(&base), ByteSize::mib(2));
    lab.images().ensure_disk(&disk).expect("made");
    let data = volume(&lab, "data", DiskFormat::Raw, None, Content::Plain);
    make(&lab, &data);
    let swap = volume(&lab, "web/swap", DiskFormat::Raw, None, Content::Swap);
    make(&lab, &swap);
    fs::write(&data.path, vec![7; 2 << 20]).expect("written");
    let images = lab.images();
    for _ in 0..2 {
        images.remove_disk("web", KEEP).expect("removed");
        images.remove_volume(&data.id, KEEP).expect("removed");
        images.remove_volume(&swap.id, KEEP).expect("removed");
    }
    let entries = images.trash().expect("readable");
    let [root, data_entry] = entries.as_slice() else { panic!("{entries:#?}") };
    assert_eq!(root.address, place("server.web"));
    assert_eq!((root.size, root.base.as_ref(), root.why), (Some(ByteSize::mib(2)), Some(&base.path), Why::Removed));
    assert_eq!(root.until - root.since, 3600);
    assert_eq!((data_entry.format, data_entry.size), (DiskFormat::Raw, Some(ByteSize::mib(2))));
    assert_eq!(fs::metadata(lab.layout.trash()).expect("there").mode() & 0o777, 0o700);

    // The base is in use.
    assert_eq!(images.bases_in_trash().expect("readable"), BTreeSet::from([base.id.clone()]));
    fails(images.remove_base(&base.id), false, &["/trash/server.web-", "novella trash empty"]);

    // Back where it was, elsewhere, and not where something is or what cannot be.
    assert_eq!(images.restore(&root.id, None).expect("restored"), root.address);
    assert_eq!(lab.observed().objects[&disk_key(&disk.server)]["size"], "2 MiB");
    images.ensure_disk(&disk).expect("as it was");
    fails(images.restore(&data_entry.id, Some(&place("server.web"))), false, &["a root disk is qcow2", "--as volume"]);
    make(&lab, &volume(&lab, "data", DiskFormat::Qcow2, None, Content::Plain));
    fails(images.restore(&data_entry.id, None), false, &["there is a disk already"]);
    images.restore(&data_entry.id, Some(&place("server.db/scratch"))).expect("restored");
    let scratch = lab.layout.volume(&"db/scratch".parse().expect("an id"), DiskFormat::Raw);
    assert_eq!(fs::read(scratch).expect("there"), vec![7; 2 << 20]);
    fails(images.restore("../../etc/passwd", None), false, &["there is no", "novella trash list"]);
    assert_eq!(addresses(&images), [""; 0]);

    // Twice within a second, and for good.
    for _ in 0..3 {
        images.ensure_disk(&disk).expect("made");
        images.remove_disk("web", KEEP).expect("removed");
    }
    assert_eq!(addresses(&images), ["server.web"; 3]);
    let expired = |entry: &Entry| entry.is_expired(unix_now() + 3599);
    assert_eq!(images.empty_trash(expired).expect("swept").len(), 0);
    assert_eq!(images.empty_trash(|entry| entry.is_expired(unix_now() + 3600)).expect("swept").len(), 3);
    assert!(!lab.layout.trash().exists());
    images.remove_base(&base.id).expect("nothing needs it");
    images.ensure_disk(&lab.disk("db", None, ByteSize::mib(2))).expect("made");
    images.remove_disk("db", None).expect("removed");
    assert!(!lab.layout.trash().exists(), "it was not to be kept");
}

#[test]
fn what_expired_needs_nothing_any_more() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1M");
    lab.images().ensure_disk(&lab.disk("web", Some(&base), ByteSize::mib(2))).expect("made");
    lab.images().remove_disk("web", Some(Keep { seconds: 0, why: Why::Replaced })).expect("removed");
    assert_eq!(lab.images().bases_in_trash().expect("readable").len(), 1, "until it is gone");
}

/// What runs in a process of its own; nothing by itself.
#[test]
fn child() {
    let Ok(data_dir) = env::var("NOVELLA_TEST_TRASH") else { return };
    let layout = novella::blueprint::Layout::new(Path::new(&data_dir), &"test".parse().expect("a name"));
    let images = images(layout);
    match env::var("NOVELLA_TEST_DEED").expect("a deed").as_str() {
        "discard" => images.remove_disk("web", KEEP).expect("removed"),
        "restore" => {
            let id = images.trash().expect("readable").remove(0).id;
            images.restore(&id, None).expect("restored");
        }
        _ => drop(images.empty_trash(|_| true).expect("emptied")),
    }
}

#[test]
fn a_kill_at_any_instant_loses_no_disk() {
    if !has_qemu_img() || !Path::new("/usr/bin/strace").exists() {
        println!("skipped: no strace");
        return;
    }
    let mut cuts = 0;
    for deed in ["discard", "restore", "empty"] {
        for call in ["mkdir", "openat", "write", "fchmod", "fsync", "rename", "unlink", "rmdir"] {
            for count in 1.. {
                let lab = Lab::new();
                let disk = lab.disk("web", None, ByteSize::mib(2));
                lab.images().ensure_disk(&disk).expect("made");
                let inode = fs::metadata(&disk.path).expect("there").ino();
                if deed != "discard" {
                    lab.images().remove_disk("web", KEEP).expect("removed");
                }
                let status = cut(&lab, deed, call, count);
                // Wherever it was cut: what is there can be seen, and the deed can be done again.
                let entries = lab.images().trash().expect("readable");
                let there = disk.path.exists();
                let case = format!("{deed}, cut at {call} {count}");
                assert!(entries.len() + usize::from(there) <= 1, "{case}: it is there twice");
                assert!(deed == "empty" || entries.len() == 1 || there, "{case}: it is lost");
                match deed {
                    "discard" => lab.images().remove_disk("web", KEEP).expect("removed"),
                    "restore" if !there => drop(lab.images().restore(&entries[0].id, None).expect("restored")),
                    _ => {}
                }
                let gone = lab.images().empty_trash(|_| deed == "empty").expect("swept");
                assert!(gone.len() <= 1);
                let names: Vec<_> = fs::read_dir(lab.layout.trash()).into_iter().flatten().collect();
                match deed {
                    "discard" => {
                        let [entry] = &lab.images().trash().expect("readable")[..] else { panic!("{case}") };
                        let file = lab.layout.trash().join(&entry.id);
                        assert_eq!(fs::metadata(file).expect("there").ino(), inode, "{case}");
                        assert_eq!(names.len(), 2, "{case}: {names:?}");
                    }
                    "restore" => {
                        assert_eq!(fs::metadata(&disk.path).expect("there").ino(), inode, "{case}");
                        assert_eq!(names.len(), 0, "{case}: {names:?}");
                    }
                    _ => assert_eq!(names.len(), 0, "{case}: {names:?}"),
                }
                if status {
                    break;
                }
                cuts += 1;
            }
        }
    }
    println!("cut at {cuts} calls");
    assert!(cuts > 15, "only {cuts} calls were cut");
}

/// Does a deed in a process that is killed when it makes a call for the n-th time on what is ours. Tells whether it came to
/// its end.
fn cut(lab: &Lab, deed: &str, call: &str, count: u32) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={count}");
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &inject]);
    // `-P` leaves out what the loader and the test harness do.
    let (root, trash) = (&lab.layout.root, lab.layout.trash());
    let mut paths = vec![root.clone(), trash.clone(), lab.layout.instance("web"), lab.layout.disk("web")];
    for entry in lab.images().trash().expect("readable") {
        paths.extend([trash.join(&entry.id), trash.join(format!("{}.json", entry.id))]);
    }
    if matches!(call, "openat" | "write") {
        command.args(paths.iter().flat_map(|path| ["-P".into(), path.clone().into_os_string()]));
    }
    command.arg(env::current_exe().expect("this program")).args(["--exact", "trash::child", "--test-threads=1"]);
    command.env("NOVELLA_TEST_TRASH", root.parent().expect("a directory")).env("NOVELLA_TEST_DEED", deed);
    let output = command.output().expect("strace runs");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("FAILED"), "{}", String::from_utf8_lossy(&output.stdout));
    output.status.success()
}
