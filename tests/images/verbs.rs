//! `novella image`, and what the lock file of the images does to the other verbs.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use novella::blueprint::object::{BaseRole, Source};
use novella::value::{ByteSize, Sha256};
use serde_json::Value;

use crate::lab::{Lab, RAW, has_qemu_img, list_of, noise, sha512_of};
use crate::server::{Server, good, head};

/// What a run wrote, and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Lab {
    fn specs(&self) -> PathBuf {
        self.outside("specs")
    }

    /// Makes this the spec, with the data of this lab.
    fn spec(&self, text: &str) {
        fs::create_dir_all(self.specs()).expect("made");
        let data = self.layout.root.parent().expect("a directory").display();
        let text = format!("[project]\nname = \"test\"\n[host.local]\ndata_dir = \"{data}\"\n{text}");
        fs::write(self.specs().join("spec.toml"), text).expect("writable");
    }

    fn novella(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_novella"));
        command.args(arguments).arg("--specs").arg(self.specs()).arg("--state").arg(self.outside("state"));
        let output = command.env_remove("RUST_LOG").output().expect("novella runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let said = self.novella(arguments);
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, Some(code), "{arguments:?}: {all}");
        for word in words {
            assert!(all.contains(word), "{arguments:?}: {word:?} is missing in {all}");
        }
        all
    }

    fn lock_file(&self) -> PathBuf {
        self.specs().join("images.lock")
    }

    fn lists(&self) -> Value {
        let said = self.novella(&["image", "list", "--json"]);
        let mut rows: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
        for row in rows["images"].as_array_mut().expect("a list") {
            let age = row.as_object_mut().and_then(|row| row.remove("unused_for_seconds"));
            assert!(age.expect("an age").as_u64().expect("a number") < 3600);
        }
        rows
    }
}

/// A server that has a disk and a kernel, and lists of the digests of them in the lab.
fn published(lab: &Lab, disk: &'static [u8]) -> Server {
    let kernel = b"kernel";
    let sums = format!("{}  disk.raw\n{}  vmlinuz\n", Sha256::of(disk), Sha256::of(kernel));
    lab.file("SHA256SUMS", sums.as_bytes());
    Server::start(move |_, request, stream| {
        let bytes = if request.path.contains("disk.raw") { disk } else { kernel };
        match request.method.as_str() {
            "HEAD" => head(stream, "200 OK", &[("Content-Length", bytes.len().to_string())]),
            _ => good(stream, request, "\"1\"", bytes),
        }
    })
}

fn image(lab: &Lab, server: &Server) -> String {
    let sums = lab.outside("SHA256SUMS");
    format!(
        "[image.debian]\nsource = \"{}?token=secret\"\nformat = \"raw\"\nkernel = \"{}\"\nsha256sums = \"{}\"\n",
        server.url("/disk.raw"),
        server.url("/vmlinuz"),
        sums.display()
    )
}

#[test]
fn a_lock_file_is_written_when_asked_and_renewed_when_asked() {
    let lab = Lab::new();
    let server = published(&lab, b"one");
    lab.spec(&image(&lab, &server));
    lab.says(
        &["apply", "--locked", "--auto-approve"],
        1,
        &["error[not-locked]: `image.debian` is not locked", "novella image lock", "2 errors"],
    );
    lab.says(&["image", "lock"], 0, &["image.debian: ", "image.debian (kernel): ", "2 entries written"]);
    let url = |path| server.url(path);
    let written = format!(
        "# What each image was when it was first fetched. Written by novella: keep it in version control, and renew it\n\
         # with `novella image update`.\nversion = 1\n\n\
         [image.debian.source]\nsource = \"{}\"\nsha256 = \"{}\"\nsize = 3\n\n\
         [image.debian.kernel]\nsource = \"{}\"\nsha256 = \"{}\"\nsize = 6\n",
        url("/disk.raw"),
        Sha256::of(b"one"),
        url("/vmlinuz"),
        Sha256::of(b"kernel"),
    );
    let read = || fs::read_to_string(lab.lock_file()).expect("written");
    assert_eq!(read(), written);
    assert!(server.seen().iter().all(|it| it.method == "HEAD"), "the list says what they are");
    assert!(!lab.layout.root.exists(), "nothing is cached by it");
    lab.says(&["image", "lock"], 0, &["is up to date"]);
    lab.says(&["image", "update"], 0, &["image.debian: unchanged", "is up to date"]);
    // It is another by now; the list says so.
    let sums = fs::read_to_string(lab.outside("SHA256SUMS")).expect("there");
    fs::write(lab.outside("SHA256SUMS"), sums.replace(Sha256::of(b"one").as_str(), Sha256::of(b"two").as_str()))
        .expect("written");
    lab.says(&["image", "lock"], 0, &["is up to date"]);
    assert_eq!(read(), written, "lock does not renew");
    let change = format!("image.debian: {} (3 B) -> {} (3 B)", Sha256::of(b"one"), Sha256::of(b"two"));
    lab.says(&["image", "update", "image.debian"], 0, &[&change, "1 entry written", "keep their disks"]);
    assert_eq!(read(), written.replace(Sha256::of(b"one").as_str(), Sha256::of(b"two").as_str()));
    lab.says(&["image", "update", "debain"], 1, &["there is no `image.debain`", "did you mean `debian`?"]);
    // Another source is another image, and what the spec does not have is dropped.
    lab.spec(&image(&lab, &server).replace("kernel =", "#kernel =").replace("?token=secret", "?token=other"));
    lab.says(&["image", "lock"], 0, &["is up to date"]);
    assert!(!read().contains("kernel"), "{}", read());
    lab.spec(&image(&lab, &server).replace("/disk.raw", "/old/disk.raw"));
    lab.says(&["plan", "--locked"], 1, &["error[not-locked]", "2 errors"]);
    lab.says(&["image", "lock"], 0, &["2 entries written"]);
    assert!(read().contains("/old/disk.raw") && !read().contains("secret"), "{}", read());
}

#[test]
fn a_list_of_sha_512_is_asked_and_the_lock_file_goes_on_naming_the_sha_256() {
    let lab = Lab::new();
    let file = lab.outside("disk.raw");
    let served = Arc::new(Mutex::new(b"one".to_vec()));
    let body = Arc::clone(&served);
    let server = Server::start(move |_, request, stream| {
        let bytes = body.lock().expect("no panic").clone();
        let etag = format!("\"{}\"", Sha256::of(&bytes).short());
        match request.method.as_str() {
            "HEAD" => head(stream, "200 OK", &[("ETag", etag), ("Content-Length", bytes.len().to_string())]),
            _ => good(stream, request, &etag, &bytes),
        }
    });
    // What a publisher does: the file, and the list by coreutils.
    let list = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("writable");
        lab.file("SHA512SUMS", list_of("sha512sum", &["--tag"], &file).as_bytes());
        sha512_of(&file)
    };
    let read = || fs::read_to_string(lab.lock_file()).expect("written");
    let locks = |bytes: &[u8], sha512: &str| format!("sha256 = \"{}\"\nsha512 = \"{sha512}\"\n", Sha256::of(bytes));
    let sums = lab.outside("SHA512SUMS");
    let source = server.url("/disk.raw");
    lab.spec(&format!(
        "[image.debian]\nsource = \"{source}\"\nformat = \"raw\"\nsha512sums = \"{}\"\n",
        sums.display()
    ));
    let one = list(b"one");
    lab.says(&["image", "lock"], 0, &[&format!("image.debian: {} (3 B)", Sha256::of(b"one")), "1 entry written"]);
    assert!(read().contains(&locks(b"one", &one)), "{}", read());
    lab.says(&["image", "update"], 0, &["image.debian: unchanged", "is up to date"]);
    assert_eq!(server.seen().last().expect("asked").method, "HEAD", "the list says that it is the same");
    // The list is ahead of the server.
    let three = list(b"three");
    let before = read();
    lab.says(&["image", "update"], 1, &[&format!("its SHA-512 is {one}, listed is {three}")]);
    assert_eq!(read(), before, "what is not known is not written");
    *served.lock().expect("no panic") = b"three".to_vec();
    let change = format!("image.debian: {} (3 B) -> {} (5 B)", Sha256::of(b"one"), Sha256::of(b"three"));
    lab.says(&["image", "update"], 0, &[&change, "1 entry written"]);
    assert!(read().contains(&locks(b"three", &three)), "{}", read());
    assert!(!lab.layout.root.exists(), "nothing is cached by it");
}

#[test]
fn a_lock_file_belongs_to_whoever_the_specs_belong_to() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let lab = Lab::new();
    let server = published(&lab, b"one");
    lab.spec(&image(&lab, &server));
    chown(lab.specs(), Some(12345), Some(23456)).expect("root");
    lab.says(&["image", "lock"], 0, &[]);
    let found = fs::metadata(lab.lock_file()).expect("written");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12345, 23456, 0o644));
}

#[test]
fn a_lock_file_that_makes_no_sense_is_not_passed_over() {
    let lab = Lab::new();
    lab.spec("");
    for (text, word) in
        [("version = 7\n", "it has version 7"), ("version = 1\n[image.x]\nsource = 3\n", "invalid type")]
    {
        fs::write(lab.lock_file(), text).expect("written");
        lab.says(&["validate"], 1, &["error[image-lock]", word, "from version control"]);
    }
    fs::remove_file(lab.lock_file()).expect("there");
    lab.says(&["validate"], 0, &[]);
}

#[test]
fn what_the_spec_says_of_digests_must_make_sense() {
    let lab = Lab::new();
    let image = |more: &str| lab.spec(&format!("[image.a]\nformat = \"raw\"\n{more}"));
    image("source = \"http://a.example/a\"\n");
    lab.says(&["validate"], 1, &["neither encrypted nor pinned", "`sha256sums` or `sha512sums`"]);
    image("source = \"http://a.example/a\"\nsha256sums = \"http://a.example/SHA256SUMS\"\n");
    lab.says(&["validate"], 1, &["vouches for nothing"]);
    image("source = \"http://a.example/a\"\nsha256sums = \"https://a.example/SHA256SUMS\"\n");
    lab.says(&["validate"], 0, &[]);
    image("source = \"https://a.example/a\"\nsha256sums = \"ftp://a.example/SHA256SUMS\"\n");
    lab.says(&["validate"], 1, &["`ftp://` is not supported"]);
    let digest = Sha256::of(b"a");
    image(&format!("source = \"https://a.example/a\"\nsha256 = \"{digest}\"\nsha256sums = \"https://a.example/S\"\n"));
    lab.says(&["validate"], 1, &["`sha256sums` has nothing to say"]);
    image(&format!("source = \"https://a.example/a\"\nsha256 = \"{digest}\"\nsha512sums = \"https://a.example/S\"\n"));
    lab.says(&["validate"], 1, &["`sha512sums` has nothing to say"]);
    image("source = \"http://a.example/a\"\nsha512sums = \"https://a.example/SHA512SUMS\"\n");
    lab.says(&["validate"], 0, &[]);
    image("source = \"http://a.example/a\"\nsha512sums = \"http://a.example/SHA512SUMS\"\n");
    lab.says(&["validate"], 1, &["vouches for nothing", "spec.toml:8:14"]);
    image("source = \"http://a.example/a\"\nsha512sums = \"https://a.example/S\"\nsha256sums = \"S\"\n");
    lab.says(&["validate"], 1, &["both say what", "spec.toml:8:14", "leave one of them out", "1 error"]);
    image("source = \"https://a.example/a\"\nsha512 = \"abc\"\n");
    lab.says(&["validate"], 1, &["did you mean `sha512sums`?"]);
}

#[test]
fn the_cache_is_listed_and_pruned() {
    if !has_qemu_img() {
        return;
    }
    let lab = Lab::new();
    let server = published(&lab, b"one");
    lab.spec(&image(&lab, &server));
    lab.says(&["image", "list"], 0, &["The cache is empty"]);
    lab.says(&["image", "prune", "--all"], 0, &["0 images dropped"]);
    lab.says(&["image", "lock"], 0, &[]);
    let used = lab.cached("1G");
    lab.images().ensure_disk(&lab.disk("web", Some(&used), ByteSize::gib(1))).expect("made");
    let locked = lab.pinned(Source::Url(server.url("/disk.raw")), RAW, b"one");
    let bytes = noise(2 << 20);
    let loose = lab.pinned(lab.file("loose", &bytes), RAW, &bytes);
    let kernel = lab.pinned(lab.file("kernel", b"k"), BaseRole::Kernel, b"k");
    for base in [&locked, &loose, &kernel] {
        lab.images().ensure_base(base).expect("cached");
    }
    let rows = lab.lists();
    let row = |id: &str| {
        let rows = rows["images"].as_array().expect("a list");
        rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{id} is not in {rows:?}")).clone()
    };
    assert_eq!(rows["images"].as_array().expect("a list").len(), 4);
    assert_eq!(row(&used.id)["users"], serde_json::json!([lab.layout.disk("web")]), "no record knows the server");
    assert_eq!((&row(&locked.id)["image"], &row(&locked.id)["locked"]), (&"debian".into(), &true.into()));
    assert_eq!((&row(&loose.id)["image"], &row(&loose.id)["users"]), (&Value::Null, &serde_json::json!([])));
    assert!(row(&loose.id)["size_bytes"].as_u64().expect("a number") >= 2 << 20);
    lab.says(&["image", "list"], 0, &["debian", "locked", "2 MiB", "disk.qcow2"]);
    lab.says(&["image", "prune"], 0, &["0 images dropped"]);
    lab.says(&["image", "prune", "--all", "--older-than", "1h"], 2, &["cannot be used with"]);
    let would = lab.says(&["image", "prune", "--all", "--dry-run"], 0, &["2 images would be dropped, 2 MiB free"]);
    assert!(would.contains("would drop") && !would.contains("kernel"), "{would}");
    assert_eq!(lab.lists(), rows, "nothing was touched");
    lab.says(&["image", "prune", "--all"], 0, &["dropped image.debian, raw", "2 images dropped"]);
    assert!(used.path.exists(), "a disk lies over it");
    assert!(kernel.path.exists(), "a server of which no record tells may boot it");
    fs::remove_dir_all(lab.layout.instances()).expect("there");
    lab.says(&["image", "prune", "--older-than", "0s"], 0, &["2 images dropped"]);
    assert_eq!(lab.cache(), [""; 0]);
    lab.says(&["image", "list", "--backend", "sim"], 1, &["a simulated host has no image cache"]);
}
