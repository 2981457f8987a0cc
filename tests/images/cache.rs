//! What is kept, what is dropped, and what may never be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use novella::blueprint::Layout;
use novella::blueprint::object::{Base, BaseRole, Source};
use novella::value::ByteSize;

use crate::lab::{Lab, RAW, beside, fails, has_qemu_img, images, noise, qemu_img};

const DAY: Duration = Duration::from_secs(86_400);

impl Lab {
    /// The ids of what is in the cache and of what lies over it.
    fn used(&self) -> Vec<(String, Vec<PathBuf>)> {
        self.images().cached().expect("readable").into_iter().map(|it| (it.id, it.disks)).collect()
    }

    /// Makes an image look as if it had not been of use for so long.
    fn age(&self, base: &Base, by: Duration) {
        let then = SystemTime::now() - by;
        for suffix in [".lock", ".json"] {
            let file = fs::File::options().append(true).open(beside(&base.path, suffix)).expect("there");
            file.set_modified(then).expect("changed");
        }
    }
}

#[test]
fn a_base_goes_when_nothing_lies_over_it_and_not_before() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let disk = lab.disk("web", Some(&base), ByteSize::gib(1));
    lab.images().ensure_disk(&disk).expect("made");
    let path = base.path.to_str().expect("utf-8");
    // Overlays that a person has made: elsewhere in the project, in another project, over another overlay, by a link, by a
    // relative name, and by words that only QEMU understands.
    let data = lab.layout.root.parent().expect("a directory");
    let other = data.join("other/instances/db");
    fs::create_dir_all(&other).expect("made");
    symlink(&base.path, other.join("link")).expect("made");
    let trash = data.join("test/trash/3/deep/er");
    fs::create_dir_all(&trash).expect("made");
    let json = format!("json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":\"{path}\"}}}}");
    let relative = format!("../../../test/base/{}", base.id);
    let by_hand = [
        (trash.join("disk.qcow2"), path),
        (lab.layout.instance("web").join("snapshot"), path),
        (other.join("disk.qcow2"), "link"),
        (other.join("relative"), relative.as_str()),
        (data.join("loose"), json.as_str()),
    ];
    for (overlay, over) in &by_hand {
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-F",
            "qcow2",
            "-b",
            over,
            overlay.to_str().expect("utf-8"),
            "1G",
        ]);
    }
    fs::write(data.join("not-a-disk"), "text").expect("writable");
    symlink("/", data.join("everything")).expect("made");
    lab.age(&base, 30 * DAY);
    let mut expected: Vec<PathBuf> = by_hand.iter().map(|(path, _)| path.clone()).chain([disk.path.clone()]).collect();
    expected.sort();
    assert_eq!(lab.used(), [(base.id.clone(), expected.clone())]);
    for gone in expected {
        assert!(!lab.images().prune(&base.id, Duration::ZERO).expect("looked at"), "{} lies over it", gone.display());
        assert!(base.path.exists());
        fs::remove_file(gone).expect("there");
    }
    assert!(!lab.images().prune(&base.id, 31 * DAY).expect("looked at"), "it is too young");
    assert!(lab.images().prune(&base.id, 29 * DAY).expect("dropped"));
    assert_eq!(lab.cache(), [""; 0]);
    assert!(!beside(&base.path, ".lock").exists());
}

#[test]
fn age_begins_with_the_last_use() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let base = lab.cached("1G");
    let unused_for = || lab.images().cached().expect("readable")[0].unused_for;
    lab.age(&base, 3 * DAY);
    assert!(unused_for() >= 3 * DAY);
    lab.images().ensure_disk(&lab.disk("web", Some(&base), ByteSize::gib(1))).expect("made");
    assert!(unused_for() < DAY, "a disk was made over it");
    lab.age(&base, 3 * DAY);
    lab.images().release_base(&base.id).expect("released");
    assert!(unused_for() < DAY, "it was needed until now");
    // The clock was wrong, and is put right.
    let file = fs::File::options().append(true).open(beside(&base.path, ".lock")).expect("there");
    file.set_modified(SystemTime::now() + 300 * DAY).expect("changed");
    assert_eq!(unused_for(), Duration::ZERO);
}

#[test]
fn a_part_counts_and_goes() {
    let lab = Lab::new();
    let base = lab.pinned(lab.file("image", b"bytes"), RAW, b"bytes");
    fs::create_dir_all(lab.layout.bases()).expect("made");
    for suffix in [".part", ".part.json", ".unpacked", ".converted"] {
        fs::write(beside(&base.path, suffix), noise(5000)).expect("writable");
    }
    let [part] = &lab.images().cached().expect("readable")[..] else { panic!("one image") };
    assert_eq!((&part.id, part.source.as_ref()), (&base.id, None));
    assert_eq!(part.room, 15_000);
    assert!(lab.images().prune(&base.id, Duration::ZERO).expect("dropped"));
    assert_eq!(lab.cache(), [""; 0]);
    for id in ["../../x", "", ".x"] {
        assert!(!lab.images().prune(id, Duration::ZERO).expect("nothing"));
    }
}

/// `NOVELLA_TEST_FULL` names a small file system: the rest of this runs in a mount namespace of its own.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    if let Some(directory) = std::env::var_os("NOVELLA_TEST_FULL") {
        on_a_small_file_system(&PathBuf::from(directory));
        return;
    }
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let this = std::env::current_exe().expect("this test");
    let script = "mount -t tmpfs -o size=8m tmpfs \"$1\" && exec \"$2\" cache::a_full_disk_leaves_nothing_behind --exact --nocapture";
    let mut inside = std::process::Command::new("unshare");
    inside.args(["-m", "sh", "-c", script, "sh"]).arg(dir.path()).arg(this).env("NOVELLA_TEST_FULL", dir.path());
    let output = inside.output().expect("unshare runs");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("all of it was tried"), "{}", String::from_utf8_lossy(&said));
}

#[expect(clippy::print_stdout, reason = "tells the parent that it came to its end")]
fn on_a_small_file_system(directory: &std::path::Path) {
    let lab = Lab::new();
    let layout = Layout::new(&directory.join("data"), &"test".parse().expect("a name"));
    let full = images(layout.clone());
    let at = |base: Base| Base { path: layout.bases().join(&base.id), ..base };
    let names = || {
        fs::read_dir(layout.bases()).map_or(0, |entries| {
            entries
                .filter(|entry| !entry.as_ref().expect("readable").file_name().to_string_lossy().ends_with(".lock"))
                .count()
        })
    };
    // It is known beforehand.
    let large = noise(12 << 20);
    let file = at(lab.pinned(lab.file("large", &large), RAW, &large));
    fails(full.ensure_base(&file), false, &["no room", "12 MiB needed", "free some space"]);
    assert_eq!(names(), 0);
    // It is found out on the way: the length was not told, and the server has more than it looked like.
    let body = large.clone();
    let server = crate::server::Server::start(move |_, _, stream| {
        use std::io::Write as _;
        crate::server::head(stream, "200 OK", &[("Transfer-Encoding", "chunked".into())]);
        for part in body.chunks(100_000) {
            let _ = write!(stream, "{:x}\r\n", part.len())
                .and_then(|()| stream.write_all(part))
                .and_then(|()| write!(stream, "\r\n"));
        }
        let _ = write!(stream, "0\r\n\r\n");
    });
    let chunked = at(lab.unpinned(Source::Url(server.url("/large")), RAW));
    fails(full.ensure_base(&chunked), false, &["cannot write image `debian`", "No space left", "free some space"]);
    assert_eq!(names(), 0);
    // It comes with unpacking.
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &[&noise(3 << 20)[..], &vec![7; 9 << 20]].concat()).expect("in memory");
    let packed = packer.finish().expect("in memory");
    let compressed = at(lab.pinned(lab.file("packed", &packed), BaseRole::Kernel, &packed));
    fails(full.ensure_base(&compressed), false, &["cannot write image `debian`", "No space left", "free some space"]);
    assert_eq!(names(), 0);
    // What fits, fits.
    let small = noise(6 << 20);
    let fits = at(lab.pinned(lab.file("small", &small), RAW, &small));
    full.ensure_base(&fits).expect("cached");
    assert_eq!(names(), 2);
    println!("all of it was tried");
}
