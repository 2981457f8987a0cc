//! Images from files and web servers, good and bad, with kills in between.

use std::fs;
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use novella::blueprint::Layout;
use novella::blueprint::object::{Base, BaseRole, Object, Source, Sums};
use novella::host::images::Images;
use novella::value::{ByteSize, Sha256};

use crate::lab::{Lab, RAW, beside, fails, images, list_of, noise, sha512_of};
use crate::server::{Server, good, good_until, head, stall};

const SIZE: usize = 700_000;

#[track_caller]
fn assert_cached(lab: &Lab, base: &Base, bytes: &[u8]) {
    assert!(fs::read(&base.path).expect("cached") == bytes, "other bytes are cached");
    assert_eq!(fs::metadata(&base.path).expect("cached").mode() & 0o7777, 0o444);
    assert_eq!(lab.fact(&Object::Base(base.clone()), "content").as_deref(), Some("whole"));
    assert_eq!(lab.cache(), [base.id.clone(), format!("{}.json", base.id)], "nothing else is left");
}

#[test]
fn a_file_is_copied_once() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let base = lab.pinned(lab.file("image", &bytes), RAW, &bytes);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    for directory in [&lab.layout.root, &lab.layout.bases()] {
        assert_eq!(fs::metadata(directory).expect("made").mode() & 0o7777, 0o711);
    }
    fs::remove_file(lab.outside("image")).expect("there");
    lab.images().ensure_base(&base).expect("nothing is fetched again");
}

#[test]
fn zeros_take_no_room() {
    let lab = Lab::new();
    let mut bytes = noise(100_000);
    bytes.resize(8 << 20, 0);
    let base = lab.pinned(lab.file("image", &bytes), RAW, &bytes);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    assert!(fs::metadata(&base.path).expect("cached").blocks() * 512 < 1 << 20);
}

#[test]
fn only_a_regular_file_will_do() {
    let lab = Lab::new();
    let fifo = lab.outside("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    for path in [fifo, "/dev/zero".into(), lab.outside("").join(".")] {
        let base = lab.unpinned(Source::File(path), RAW);
        fails(lab.images().ensure_base(&base), false, &["cannot fetch image `debian`", "not a regular file"]);
    }
    let base = lab.unpinned(Source::File(lab.outside("absent")), RAW);
    fails(lab.images().ensure_base(&base), false, &["absent`", "help: check the path"]);
    let base = lab.unpinned(lab.file("empty", b""), BaseRole::Kernel);
    fails(lab.images().ensure_base(&base), false, &["it is empty"]);
    assert_eq!(lab.cache(), [""; 0]);
}

#[test]
fn an_id_cannot_leave_the_cache() {
    let lab = Lab::new();
    let good = lab.unpinned(lab.file("image", b"bytes"), RAW);
    for id in ["../x", "a/b", "", ".hidden", "x.part", "x.json", "x.lock"] {
        let base = Base { id: id.into(), path: lab.layout.bases().join(id), ..good.clone() };
        assert!(lab.images().ensure_base(&base).is_err(), "{id}");
        assert!(lab.images().remove_base(id).is_err(), "{id}");
    }
    let elsewhere = Base { path: lab.outside("x"), ..good };
    fails(lab.images().ensure_base(&elsewhere), false, &["not in the image cache"]);
}

#[test]
fn a_download_is_checked_and_its_progress_told() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    let base = lab.pinned(Source::Url(server.url("/image")), RAW, &bytes);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let progress = move |key: &_, done, total| log.lock().expect("no panic").push((format!("{key}"), done, total));
    Images::new(lab.layout.clone(), Arc::new(progress)).ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    let told = told.lock().expect("no panic");
    let last = (format!("base image {}", base.id), SIZE as u64, Some(SIZE as u64));
    assert_eq!(told.last(), Some(&last));
    assert!(told.windows(2).all(|pair| pair[0].1 <= pair[1].1) && told.len() < 20, "{told:?}");
}

#[test]
fn wrong_bytes_are_refused() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    let base = lab.pinned(Source::Url(server.url("/image?token=secret")), RAW, b"other");
    let (wanted, got) = (Sha256::of(b"other"), Sha256::of(&bytes));
    fails(lab.images().ensure_base(&base), false, &["SHA-256", wanted.as_str(), got.as_str(), "/image`"]);
    assert_eq!(server.seen().len(), 1);
    assert_eq!(lab.cache(), [""; 0]);
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        let end = if number == 0 { SIZE / 2 } else { SIZE };
        good_until(stream, request, "\"1\"", &body, end);
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    fails(lab.images().ensure_base(&base), true, &["cannot fetch image `debian`"]);
    assert_eq!(lab.fact(&Object::Base(base.clone()), "content"), None, "a part is not an image");
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    let [_, second] = &server.seen()[..] else { panic!("two requests") };
    assert_eq!((second.from, second.if_range.as_deref()), (Some(SIZE / 2), Some("\"1\"")));
}

#[test]
fn a_download_that_goes_on_is_hashed_from_its_first_byte_in_both_ways() {
    for rotten in [false, true] {
        let (lab, bytes) = (Lab::new(), noise(SIZE));
        let body = bytes.clone();
        let server = Server::start(move |number, request, stream| {
            let end = if number == 0 { SIZE / 2 } else { SIZE };
            good_until(stream, request, "\"1\"", &body, end);
        });
        lab.file("image", &bytes);
        let list = list_of("sha512sum", &[], &lab.outside("image"));
        let sums = Some(Sums::Sha512(lab.file("SHA512SUMS", list.as_bytes())));
        let base = Base { sums, ..lab.unpinned(Source::Url(server.url("/image")), RAW) };
        fails(lab.images().ensure_base(&base), true, &[]);
        if rotten {
            fs::write(beside(&base.path, ".part"), vec![7; SIZE / 2]).expect("there");
        }
        lab.images().ensure_base(&base).expect("cached");
        assert_cached(&lab, &base, &bytes);
        let from: Vec<Option<usize>> = server.seen().iter().map(|it| it.from).collect();
        assert_eq!(from[..2], [None, Some(SIZE / 2)]);
        assert_eq!(from.len(), if rotten { 3 } else { 2 }, "what had gone bad is fetched anew");
        let locked = lab.images().locked(&base).expect("cached");
        assert_eq!(locked.sha512.map(String::from), Some(sha512_of(&lab.outside("image"))));
    }
}

#[test]
fn a_server_that_cuts_its_connections_is_slow_and_not_broken() {
    let (lab, bytes) = (Lab::new(), noise(5 << 20));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        let end = request.from.unwrap_or(0) + (2 << 20);
        good_until(stream, request, "\"1\"", &body, end.min(body.len()));
    });
    let base = lab.pinned(Source::Url(server.url("/image")), RAW, &bytes);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen().iter().map(|it| it.from).collect::<Vec<_>>(), [None, Some(2 << 20), Some(4 << 20)]);
}

#[test]
fn a_time_of_change_will_do_where_a_digest_tells() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    const THEN: &str = "Mon, 01 Jun 2026 10:00:00 GMT";
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        let from = request.from.filter(|_| request.if_range.as_deref() == Some(THEN)).unwrap_or(0);
        let length = ("Content-Length", (SIZE - from).to_string());
        let changed = ("Last-Modified", THEN.to_owned());
        match from {
            0 => head(stream, "200 OK", &[length, changed]),
            _ => {
                let range = ("Content-Range", format!("bytes {from}-{}/{SIZE}", SIZE - 1));
                head(stream, "206 Partial Content", &[length, changed, range]);
            }
        }
        let _ = stream.write_all(&body[from..if number % 2 == 0 { SIZE / 2 } else { SIZE }]);
    });
    let source = || Source::Url(server.url("/image"));
    let (pinned, unpinned) = (lab.pinned(source(), RAW, &bytes), lab.unpinned(source(), RAW));
    for (base, from) in [(pinned, Some(SIZE / 2)), (unpinned, None)] {
        fails(lab.images().ensure_base(&base), true, &[]);
        lab.images().ensure_base(&base).expect("cached");
        assert!(fs::read(&base.path).expect("cached") == bytes);
        assert_eq!(lab.images().locked(&base).expect("cached").etag, None);
        assert_eq!(server.seen().last().expect("asked").from, from);
    }
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let (lab, old, new) = (Lab::new(), noise(SIZE), noise(SIZE + 77)[77..].to_vec());
    let (first, then) = (old.clone(), new.clone());
    let server = Server::start(move |number, request, stream| match number {
        0 => good_until(stream, request, "\"1\"", &first, SIZE / 2),
        _ => good(stream, request, "\"2\"", &then),
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    fails(lab.images().ensure_base(&base), true, &[]);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &new);
}

#[test]
fn a_partial_answer_must_fit_exactly() {
    let bytes = noise(SIZE);
    let half = SIZE / 2;
    let rest = |from: usize, total: usize| format!("bytes {from}-{}/{total}", total - 1);
    for (etag, range) in [
        ("\"2\"", rest(half, SIZE)),
        ("W/\"1\"", rest(half, SIZE)),
        ("\"1\"", rest(half - 1, SIZE)),
        ("\"1\"", rest(half, SIZE + 1)),
        ("\"1\"", "nonsense".into()),
    ] {
        let (lab, body) = (Lab::new(), bytes.clone());
        let server = Server::start(move |number, request, stream| match number {
            0 => good_until(stream, request, "\"1\"", &body, half),
            1 => {
                let length = ("Content-Length", (SIZE - half).to_string());
                let fields = [("ETag", etag.to_owned()), ("Content-Range", range.clone()), length];
                head(stream, "206 Partial Content", &fields);
                let _ = stream.write_all(&body[half..]);
            }
            _ => good(stream, request, "\"1\"", &body),
        });
        let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
        fails(lab.images().ensure_base(&base), true, &[]);
        lab.images().ensure_base(&base).expect("cached");
        assert_cached(&lab, &base, &bytes);
        assert_eq!(server.seen().len(), 3, "asked again from the start");
        assert_eq!(server.seen()[2].from, None);
    }
}

#[test]
fn a_weak_etag_vouches_for_nothing() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        let end = if number == 0 { SIZE / 2 } else { SIZE };
        good_until(stream, request, "W/\"1\"", &body, end);
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    fails(lab.images().ensure_base(&base), true, &[]);
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen()[1].from, None);
}

#[test]
fn a_rotten_part_is_fetched_anew() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        let end = if number == 0 { SIZE / 2 } else { SIZE };
        good_until(stream, request, "\"1\"", &body, end);
    });
    let base = lab.pinned(Source::Url(server.url("/image")), RAW, &bytes);
    fails(lab.images().ensure_base(&base), true, &[]);
    fs::write(beside(&base.path, ".part"), vec![7; SIZE / 2]).expect("there");
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
}

#[test]
fn a_part_without_a_note_is_fetched_anew() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    fs::create_dir_all(lab.layout.bases()).expect("made");
    fs::write(beside(&base.path, ".part"), &bytes[..1000]).expect("written");
    lab.images().ensure_base(&base).expect("cached");
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen()[0].from, None);
}

#[test]
fn a_part_from_before_a_reboot_needs_a_digest() {
    for pinned in [false, true] {
        let (lab, bytes) = (Lab::new(), noise(SIZE));
        let body = bytes.clone();
        let server = Server::start(move |number, request, stream| {
            let end = if number == 0 { SIZE / 2 } else { SIZE };
            good_until(stream, request, "\"1\"", &body, end);
        });
        let source = Source::Url(server.url("/image"));
        let base = if pinned { lab.pinned(source, RAW, &bytes) } else { lab.unpinned(source, RAW) };
        fails(lab.images().ensure_base(&base), true, &[]);
        let note = beside(&base.path, ".part.json");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
        let text = fs::read_to_string(&note).expect("a note").replace(boot.trim(), "another");
        fs::write(&note, text).expect("writable");
        lab.images().ensure_base(&base).expect("cached");
        assert_cached(&lab, &base, &bytes);
        assert_eq!(server.seen()[1].from.is_some(), pinned);
    }
}

#[test]
fn a_server_that_lies_about_the_length_is_not_believed() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        let length = if request.path == "/long" { SIZE + 5 } else { SIZE - 5 };
        head(stream, "200 OK", &[("Content-Length", length.to_string())]);
        let _ = stream.write_all(&body);
    });
    let long = lab.unpinned(Source::Url(server.url("/long")), RAW);
    fails(lab.images().ensure_base(&long), true, &[]);
    let short = lab.pinned(Source::Url(server.url("/short")), RAW, &bytes);
    fails(lab.images().ensure_base(&short), false, &["SHA-256"]);
}

#[test]
fn a_length_must_be_known_or_a_digest() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        if request.path == "/chunked" {
            head(stream, "200 OK", &[("Transfer-Encoding", "chunked".into())]);
            for chunk in body.chunks(9999) {
                let _ = stream.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
            }
            let _ = stream.write_all(b"0\r\n\r\n");
        } else {
            head(stream, "200 OK", &[]);
            let _ = stream.write_all(&body);
        }
    });
    let url = |path| Source::Url(server.url(path));
    fails(lab.images().ensure_base(&lab.unpinned(url("/open"), RAW)), false, &["does not say how long", "sha256"]);
    lab.images().ensure_base(&lab.unpinned(url("/chunked"), RAW)).expect("its end is marked");
    lab.images().ensure_base(&lab.pinned(url("/open"), RAW, &bytes)).expect("the digest tells");
}

#[test]
fn a_silent_server_is_given_up() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let server = Server::start(move |_, request, stream| {
        if request.path == "/midway" {
            good_until(stream, request, "\"1\"", &bytes, SIZE / 2);
        }
        stall(stream);
    });
    for path in ["/at-once", "/midway"] {
        let begun = Instant::now();
        let base = lab.unpinned(Source::Url(server.url(path)), RAW);
        fails(lab.images().ensure_base(&base), true, &["timeout"]);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}

#[test]
fn statuses_say_whether_another_try_helps() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| match request.path.as_str() {
        "/404" => head(stream, "404 Not Found", &[("Content-Length", "0".into())]),
        "/403" => head(stream, "403 Forbidden", &[("Content-Length", "0".into())]),
        "/429" => head(stream, "429 Too Many Requests", &[("Content-Length", "0".into())]),
        "/loop" => head(stream, "302 Found", &[("Location", "/loop".into()), ("Content-Length", "0".into())]),
        "/moved" => head(stream, "301 Moved", &[("Location", "/image".into()), ("Content-Length", "0".into())]),
        _ if number == 0 => head(stream, "503 Service Unavailable", &[("Content-Length", "0".into())]),
        _ => good(stream, request, "\"1\"", &body),
    });
    let try_it = |path: &str| lab.images().ensure_base(&lab.unpinned(Source::Url(server.url(path)), RAW));
    fails(try_it("/image"), true, &["503"]);
    try_it("/image").expect("the second time");
    fails(try_it("/404"), false, &["404", "check the URL"]);
    fails(try_it("/403"), false, &["403"]);
    fails(try_it("/429"), true, &["429"]);
    try_it("/moved").expect("a redirect is followed");
    let before = server.seen().len();
    fails(try_it("/loop"), false, &["too many redirects"]);
    assert!(server.seen().len() - before < 10);
    let gone = lab.unpinned(Source::Url("http://127.0.0.1:1/image".into()), RAW);
    fails(lab.images().ensure_base(&gone), true, &["refused"]);
}

#[test]
fn secrets_in_a_url_are_not_shown() {
    let lab = Lab::new();
    let base = lab.unpinned(Source::Url("http://me:pass@127.0.0.1:1/image?token=abc#x".into()), RAW);
    let error = lab.images().ensure_base(&base).expect_err("nobody listens");
    assert_eq!(error.to_string(), "cannot fetch image `debian` from `http://127.0.0.1:1/image`");
}

#[test]
fn a_full_disk_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let server = Server::start(move |_, _, stream| {
        head(stream, "200 OK", &[("Content-Length", (1_u64 << 60).to_string())]);
        stall(stream);
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    fails(lab.images().ensure_base(&base), false, &["no room", "1048576 TiB needed", " there", "free some space"]);
    let small = lab.unpinned(lab.file("small", b"bytes"), RAW);
    let careful = lab.images().with_reserve(ByteSize(1 << 60));
    fails(careful.ensure_base(&small), false, &["5 B needed and 1048576 TiB to be left free"]);
    assert_eq!(lab.cache(), [""; 0]);
}

#[test]
fn planted_links_are_not_followed() {
    for suffix in [".part", "", ".json", ".part.json"] {
        let (lab, bytes) = (Lab::new(), noise(SIZE));
        let body = bytes.clone();
        let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
        let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
        fs::create_dir_all(lab.layout.bases()).expect("made");
        fs::write(lab.outside("victim"), "precious").expect("writable");
        symlink(lab.outside("victim"), beside(&base.path, suffix)).expect("planted");
        lab.images().ensure_base(&base).expect("cached");
        assert_cached(&lab, &base, &bytes);
        assert_eq!(fs::read(lab.outside("victim")).expect("there"), b"precious");
    }
    let lab = Lab::new();
    let base = lab.unpinned(lab.file("image", b"bytes"), RAW);
    fs::create_dir_all(lab.layout.bases()).expect("made");
    symlink(lab.outside("created"), beside(&base.path, ".lock")).expect("planted");
    fails(lab.images().ensure_base(&base), false, &["cannot lock"]);
    assert!(!lab.outside("created").exists());
}

#[test]
fn a_damaged_image_is_fetched_anew() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let base = lab.pinned(lab.file("image", &bytes), RAW, &bytes);
    type Damage = fn(&Base);
    let damages: [(&str, Damage); 4] = [
        ("cut", |base| {
            fs::remove_file(&base.path).expect("there");
            fs::write(&base.path, "short").expect("writable");
        }),
        ("no sidecar", |base| fs::remove_file(beside(&base.path, ".json")).expect("there")),
        ("garbled sidecar", |base| fs::write(beside(&base.path, ".json"), "{").expect("writable")),
        ("not a file", |base| {
            fs::remove_file(&base.path).expect("there");
            symlink("/etc/passwd", &base.path).expect("made");
        }),
    ];
    for (name, damage) in damages {
        lab.images().ensure_base(&base).expect("cached");
        damage(&base);
        assert_eq!(lab.fact(&Object::Base(base.clone()), "content").as_deref(), Some("damaged"), "{name}");
        lab.images().ensure_base(&base).expect("cached again");
        assert_cached(&lab, &base, &bytes);
    }
}

#[test]
fn a_link_of_the_right_length_is_no_image() {
    let (lab, target) = (Lab::new(), "/etc/passwd");
    let base = lab.unpinned(lab.file("image", target.as_bytes()), RAW);
    lab.images().ensure_base(&base).expect("cached");
    fs::remove_file(&base.path).expect("there");
    symlink(target, &base.path).expect("made");
    assert_eq!(lab.fact(&Object::Base(base.clone()), "content").as_deref(), Some("damaged"));
}

#[test]
fn directories_let_qemu_through() {
    let lab = Lab::new();
    let base = lab.unpinned(lab.file("image", b"bytes"), RAW);
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
    let data_dir = lab.layout.root.parent().expect("a data directory").to_owned();
    for (found, left) in [(0o700, 0o711), (0o755, 0o755)] {
        fs::create_dir_all(lab.layout.bases()).expect("made");
        fs::set_permissions(&data_dir, Permissions::from_mode(found)).expect("ours");
        fs::set_permissions(lab.layout.bases(), Permissions::from_mode(0o777)).expect("ours");
        lab.images().ensure_base(&base).expect("cached");
        assert_eq!((mode(&data_dir), mode(&lab.layout.bases())), (left, 0o711));
        fs::remove_dir_all(&data_dir).expect("ours");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    if !Path::new("/usr/bin/openssl").exists() {
        println!("skipped: no openssl");
        return;
    }
    let lab = Lab::new();
    let (key, certificate) = (lab.outside("key"), lab.outside("certificate"));
    let made = Command::new("/usr/bin/openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl runs");
    assert!(made.status.success());
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let mut server = Command::new("/usr/bin/openssl")
        .args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    let mut said = BufReader::new(server.stdout.take().expect("piped")).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("ACCEPT"))).expect("it listens").expect("text");
    let base = lab.unpinned(Source::Url(format!("https://localhost:{port}/")), RAW);
    let result = lab.images().ensure_base(&base);
    server.kill().and_then(|()| server.wait()).expect("ended");
    fails(result, false, &["certificate"]);
}

#[test]
fn an_image_is_removed_with_all_that_belongs_to_it() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let base = lab.pinned(lab.file("image", &bytes), RAW, &bytes);
    lab.images().remove_base(&base.id).expect("nothing is there");
    lab.images().ensure_base(&base).expect("cached");
    fs::write(beside(&base.path, ".part"), "x").expect("writable");
    for _ in 0..2 {
        lab.images().remove_base(&base.id).expect("removed");
        assert_eq!(fs::read_dir(lab.layout.bases()).expect("there").count(), 0);
    }
}

#[test]
fn threads_that_want_one_image_fetch_it_once() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        thread::sleep(Duration::from_millis(100));
        good(stream, request, "\"1\"", &body);
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    let adapter = lab.images();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| adapter.ensure_base(&base).expect("cached"));
        }
    });
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen().len(), 1);
}

/// The body of a child process: caches the image that the environment names.
#[test]
fn child() {
    let Ok(task) = std::env::var("NOVELLA_TEST_FETCH") else { return };
    let (root, base): (PathBuf, Base) = serde_json::from_str(&task).expect("a task");
    let layout = Layout { project: "test".parse().expect("a name"), root };
    let before = peak_memory();
    images(layout).with_patience(Duration::from_secs(20)).ensure_base(&base).expect("cached");
    println!("grown by {} KiB", peak_memory() - before);
}

/// The most memory this process has had at once, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn child_command(program: &[&str], lab: &Lab, base: &Base) -> Command {
    let task = serde_json::to_string(&(&lab.layout.root, base)).expect("plain data");
    let this = std::env::current_exe().expect("this test");
    let mut command = match program {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args(["fetch::child", "--exact", "--nocapture", "--test-threads=1"]).env("NOVELLA_TEST_FETCH", task);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn spawn_child(lab: &Lab, base: &Base) -> Child {
    child_command(&[], lab, base).spawn().expect("this test runs")
}

#[test]
fn processes_that_want_one_image_fetch_it_once() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |_, request, stream| {
        thread::sleep(Duration::from_millis(300));
        good(stream, request, "\"1\"", &body);
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    for mut child in [spawn_child(&lab, &base), spawn_child(&lab, &base)] {
        assert!(child.wait().expect("a child").success());
    }
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_killed_download_is_gone_on_with() {
    let (lab, bytes) = (Lab::new(), noise(SIZE));
    let body = bytes.clone();
    let server = Server::start(move |number, request, stream| {
        good_until(stream, request, "\"1\"", &body, if number == 0 { SIZE / 2 } else { SIZE });
        if number == 0 {
            stall(stream);
        }
    });
    let base = lab.unpinned(Source::Url(server.url("/image")), RAW);
    let mut child = spawn_child(&lab, &base);
    let part = beside(&base.path, ".part");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::metadata(&part).map_or(0, |it| it.len()) < SIZE as u64 / 2 {
        assert!(Instant::now() < deadline, "no part comes");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("killed");
    child.wait().expect("a child");
    lab.images().ensure_base(&base).expect("the lock died with its holder");
    assert_cached(&lab, &base, &bytes);
    assert_eq!(server.seen()[1].from, Some(SIZE / 2));
}

#[test]
fn a_kill_at_any_instant_leaves_nothing_bad() {
    let (bytes, body) = (noise(SIZE / 3), noise(SIZE / 3));
    let server = Server::start(move |_, request, stream| good(stream, request, "\"1\"", &body));
    let calls = ["mkdir", "flock", "unlink", "openat", "pwrite64", "fchmod", "fsync", "rename"];
    let image = |lab: &Lab| lab.pinned(Source::Url(server.url("/image")), RAW, &bytes);
    let cuts = cut_at_each(&calls, &bytes, image);
    assert!(cuts > 20, "only {cuts} calls were cut");
}

#[test]
fn a_kill_while_it_is_unpacked_leaves_nothing_bad() {
    let bytes = [noise(SIZE / 3), vec![0; 1 << 20], noise(SIZE / 3)].concat();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&bytes).expect("in memory");
    let packed = packer.finish().expect("in memory");
    let image = |lab: &Lab| lab.pinned(lab.file("image", &packed), RAW, &packed);
    let cuts = cut_at_each(&["unlink", "openat", "pwrite64", "ftruncate", "fsync", "rename"], &bytes, image);
    assert!(cuts > 15, "only {cuts} calls were cut");
}

/// Caches an image in a process that is killed at each of these calls, again and again from the beginning, and looks each
/// time whether the next one mends it. Gives how often it was killed.
fn cut_at_each(calls: &[&str], bytes: &[u8], image: impl Fn(&Lab) -> Base) -> usize {
    if !Path::new("/usr/bin/strace").exists() {
        println!("skipped: no strace");
        return usize::MAX;
    }
    let mut cuts = 0;
    for call in calls {
        for count in 1.. {
            let lab = Lab::new();
            let base = image(&lab);
            // The hardest case: rotten bytes of the right length stand there already.
            fs::create_dir_all(lab.layout.bases()).expect("made");
            fs::write(&base.path, &noise(bytes.len() + 9)[9..]).expect("written");
            let inject = format!("inject={call}:signal=KILL:when={count}");
            // `-P` leaves out what the loader and the test harness open.
            let directory = lab.layout.bases();
            let beside = [".part", ".unpacked", ".json"].map(|suffix| beside(&base.path, suffix));
            let paths = [base.path.clone(), directory].into_iter().chain(beside);
            let paths: Vec<String> = paths.map(|path| path.into_os_string().into_string().expect("utf-8")).collect();
            let mut strace = vec!["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &inject];
            if *call == "openat" {
                strace.extend(paths.iter().flat_map(|path| ["-P", path.as_str()]));
            }
            let output = child_command(&strace, &lab, &base).output().expect("strace runs");
            if lab.fact(&Object::Base(base.clone()), "content").as_deref() == Some("whole") {
                assert!(fs::read(&base.path).expect("there") == bytes, "rotten bytes pass as whole: {call} {count}");
            }
            lab.images().ensure_base(&base).expect("repaired");
            assert_cached(&lab, &base, bytes);
            if output.status.success() {
                break;
            }
            assert!(
                !String::from_utf8_lossy(&output.stdout).contains("FAILED"),
                "the child was not killed, but failed"
            );
            cuts += 1;
        }
    }
    println!("cut at {cuts} calls");
    cuts
}

/// By how much the memory of a process grows, at most, while it caches an image, in KiB.
fn growth(lab: &Lab, base: &Base) -> u64 {
    let output = spawn_child(lab, base).wait_with_output().expect("a child");
    let said = String::from_utf8_lossy(&output.stdout);
    let grown = said.split("grown by ").nth(1).and_then(|rest| rest.split(' ').next());
    grown.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).parse().expect("a number")
}

#[test]
fn memory_does_not_grow_with_the_image() {
    let lab = Lab::new();
    let path = lab.outside("large");
    fs::File::create(&path).and_then(|file| file.set_len(96 << 20)).expect("a large file");
    let grown = growth(&lab, &lab.unpinned(Source::File(path), RAW));
    println!("96 MiB: grown by {grown} KiB");
    assert!(grown < 4096, "{grown} KiB");
}

/// Slow: `cargo test --test images -- --ignored --nocapture`.
#[test]
#[ignore = "2 GiB over the web, four times"]
fn memory_stays_small_with_a_large_image() {
    const PART: usize = 32 << 20;
    const PARTS: usize = 64;
    let plain = noise(PART);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&plain).expect("in memory");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&plain).expect("in memory");
    let zst = zstd::stream::encode_all(&plain[..], 3).expect("in memory");
    let kinds = [gz.finish().expect("in memory"), xz.finish().expect("in memory"), zst, plain];
    for (kind, part) in ["gz", "xz", "zst", "plain"].into_iter().zip(kinds) {
        let server = Server::start(move |_, _, stream| {
            head(stream, "200 OK", &[("Content-Length", (PARTS * part.len()).to_string())]);
            // Whoever hangs up has failed.
            let _ = (0..PARTS).try_for_each(|_| stream.write_all(&part));
        });
        let (lab, begun) = (Lab::new(), Instant::now());
        let grown = growth(&lab, &lab.unpinned(Source::Url(server.url("/image")), RAW));
        println!("2 GiB, {kind}: grown by {} MiB in {:.1} s", grown >> 10, begun.elapsed().as_secs_f32());
        assert!(grown < 64 << 10, "{kind}: {grown} KiB");
    }
}
