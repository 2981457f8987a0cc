//! What it tells monitoring, and those who would disturb it by that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use novella::store::lock::StateLock;
use serde_json::Value;

use crate::common::BASE;
use crate::common::place::Place;
use crate::home::Home;

const ARGUMENTS: [&str; 4] = ["--interval", "1h", "--metrics", "127.0.0.1:0"];

/// The value of each sample, by its name with its labels as they are written.
type Samples = BTreeMap<String, f64>;

/// Reads the text format of Prometheus, and takes nothing that is not in its description.
#[track_caller]
fn parse(text: &str) -> Samples {
    assert!(text.ends_with('\n'), "the last line has an end too");
    let (mut samples, mut done, mut types) = (Samples::new(), BTreeSet::new(), BTreeMap::new());
    let mut current: Option<(String, String)> = None;
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').expect("a text");
            assert!(done.insert(name.to_owned()), "{name} is told of twice");
            assert!(words.len() > 10 && words.ends_with('.'), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(help.as_deref(), Some(name), "its help stands before it");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(name.starts_with("novella_"), "{name}");
            types.insert(name.to_owned(), kind.to_owned());
            current = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            let name = key.split('{').next().expect("a name");
            let (of, kind) = current.as_ref().expect("a type");
            let base = match kind.as_str() {
                "histogram" => {
                    ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it)).expect("a part")
                }
                _ => name,
            };
            assert_eq!(base, of, "samples of one metric stand together");
            labels(&key[name.len()..]);
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(samples.insert(key.to_owned(), value), None, "{key} is told twice");
        }
    }
    for (name, _) in types.iter().filter(|(_, kind)| *kind == "histogram") {
        let prefix = format!("{name}_bucket{{le=\"");
        let end = |key: &str| key[prefix.len()..].trim_end_matches("\"}").replace("+Inf", "inf").parse::<f64>();
        let buckets = samples.iter().filter(|(key, _)| key.starts_with(&prefix));
        let mut buckets: Vec<(f64, f64)> = buckets.map(|(key, count)| (end(key).expect("an end"), *count)).collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.len() > 2 && buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1));
        assert_eq!(buckets.last().copied(), Some((f64::INFINITY, samples[&format!("{name}_count")])));
    }
    samples
}

/// `{a="b",c="d"}`, or nothing.
#[track_caller]
fn labels(text: &str) {
    let Some(mut rest) = text.strip_prefix('{') else { return assert_eq!(text, "") };
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{text}");
        let end = after.find('"').expect("its end");
        assert!(!after[..end].contains('\\'), "nothing here has to be escaped: {text}");
        match &after[end + 1..] {
            "}" => return,
            more => rest = more.strip_prefix(',').expect("another label"),
        }
    }
}

impl Home {
    fn address(&self) -> String {
        let address =
            self.said().split_once("Metrics are at http://").map(|(_, rest)| rest.to_owned()).expect("it says");
        address.split('/').next().expect("an address").to_owned()
    }

    fn scraper(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }

    /// What it answers to these bytes. One who is not answered has nothing.
    fn bytes(&self, bytes: &[u8]) -> String {
        let (mut stream, mut answer) = (self.scraper(), Vec::new());
        // It may have been refused already.
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).expect("UTF-8")
    }

    /// The head and the body of what it answers to a request.
    fn request(&self, line: &str) -> (String, String) {
        let answer = self.bytes(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {answer:?}"));
        assert!(
            head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())) || line.starts_with("HEAD"),
            "{head}"
        );
        (head.to_owned(), body.to_owned())
    }

    fn metrics(&self) -> Samples {
        let (head, body) = self.request("GET /metrics");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        parse(&body)
    }

    /// The code and the line.
    fn health(&self) -> (u16, String) {
        let (head, body) = self.request("GET /healthz");
        (head[9..12].parse().expect("a code"), body.trim_end().to_owned())
    }

    /// Waits until its health is so: what `status` tells is on the disk a moment before.
    #[track_caller]
    fn comes_to(&self, code: u16, line: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.health() != (code, line.into()) {
            assert!(Instant::now() < deadline, "{:?} and not {line}\n{}", self.health(), self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").count()
    }
}

fn monitored(spec: &str) -> Home {
    let home = Home::with(Place::new(spec), &ARGUMENTS);
    home.settled(spec);
    home
}

#[track_caller]
fn is(samples: &Samples, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(samples.get(*name), Some(value), "{name}\n{samples:#?}");
    }
}

#[test]
fn the_metrics_tell_what_happened() {
    let home = monitored(BASE);
    home.comes_to(200, "healthy");
    let status = home.until("it rests", |status| status["last_pass"]["summary"].is_null());
    let samples = home.metrics();
    let digest = status["spec"]["digest"].as_str().expect("a digest");
    is(
        &samples,
        &[
            (concat!("novella_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
            ("novella_health{state=\"healthy\"}", 1.0),
            ("novella_health{state=\"degraded\"}", 0.0),
            ("novella_passes_total{result=\"failed\"}", 0.0),
            ("novella_steps_total{kind=\"bridge\",result=\"done\"}", 2.0),
            ("novella_steps_total{kind=\"domain\",result=\"failed\"}", 0.0),
            (&format!("novella_spec_info{{digest=\"{digest}\"}}"), 1.0),
            ("novella_spec_since_timestamp_seconds", status["spec"]["since"].as_f64().expect("a time")),
            ("novella_start_time_seconds", status["started_at"].as_f64().expect("a time")),
            ("novella_spec_rejected", 0.0),
            ("novella_spec_rejections_total", 0.0),
            ("novella_pending_changes", 0.0),
            ("novella_resources_in_trouble", 0.0),
            ("novella_wakeups_total{cause=\"request\"}", 0.0),
            ("novella_spec_events_heard", 1.0),
        ],
    );
    assert!(samples["novella_steps_total{kind=\"domain\",result=\"done\"}"] >= 4.0, "{samples:#?}");
    assert!(!samples.keys().any(|it| it.starts_with("novella_spec_rejected_since")), "{samples:#?}");
    let counts = |samples: &Samples| samples["novella_passes_total{result=\"done\"}"];
    assert_eq!(counts(&samples), samples["novella_pass_duration_seconds_count"]);
    let last = samples["novella_last_successful_pass_timestamp_seconds"];
    assert!(last >= samples["novella_start_time_seconds"], "{samples:#?}");

    home.signal(nix::sys::signal::Signal::SIGHUP);
    home.until("it has looked", |status| status["passes"] != Value::Null && counts(&home.metrics()) > counts(&samples));
    std::fs::write(home.file(), "[").expect("saved");
    home.until("it is rejected", |status| status["rejected"] != Value::Null && home.health().0 == 503);
    let (code, line) = home.health();
    assert!(code == 503 && line.starts_with("degraded: the spec is not in force: specs/spec.toml:1: "), "{line}");
    let rejected = home.metrics();
    is(
        &rejected,
        &[
            ("novella_health{state=\"degraded\"}", 1.0),
            ("novella_health{state=\"healthy\"}", 0.0),
            ("novella_spec_rejected", 1.0),
            ("novella_spec_rejections_total", 1.0),
            ("novella_wakeups_total{cause=\"request\"}", 1.0),
            (&format!("novella_spec_info{{digest=\"{digest}\"}}"), 1.0),
        ],
    );
    assert!(rejected["novella_spec_rejected_since_timestamp_seconds"] >= last);
    for grows in ["novella_spec_reads_total", "novella_wakeups_total{cause=\"spec\"}"] {
        assert!(rejected[grows] > samples[grows], "{grows}");
    }

    std::fs::write(home.file(), BASE.replace("count = 2", "count = 1")).expect("saved");
    home.comes_to(200, "pending approval");
    let status = home.status();
    let pending = &status["pending"];
    let changes = pending["changes"].as_array().expect("changes").len();
    let samples = home.metrics();
    is(
        &samples,
        &[
            ("novella_health{state=\"pending_approval\"}", 1.0),
            ("novella_pending_changes", f64::from(u32::try_from(changes).expect("few"))),
            ("novella_pending_losses", 1.0),
            ("novella_pending_since_timestamp_seconds", pending["since"].as_f64().expect("a time")),
            ("novella_spec_rejected", 0.0),
        ],
    );
}

#[test]
fn the_health_is_a_code_and_a_line() {
    // Nobody knows how things are as long as another is at work.
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.write(&BASE.replace("128 MiB", "256 MiB"));
    place.novella(&["apply", "--auto-approve", "--defer-reboots"]).ends(0);
    let lock = StateLock::acquire(&place.path("state/sim"), "apply", Duration::ZERO).expect("nobody has it");
    let home = Home::with(place, &ARGUMENTS);
    assert_eq!(home.health(), (503, "starting".into()));
    assert!(home.metrics()["novella_passes_total{result=\"busy\"}"] >= 1.0);
    drop(lock);
    home.comes_to(200, "waiting for reboot");
    assert!(home.metrics()["novella_servers_waiting_for_reboot"] >= 3.0);
    assert_eq!(home.request("HEAD /healthz").1, "");
    for (line, status) in [
        ("GET /", "404 Not Found"),
        ("GET /metrics/more", "404 Not Found"),
        ("POST /metrics", "405 Method Not Allowed"),
        ("DELETE /healthz", "405 Method Not Allowed"),
        ("GET /metrics?name=a", "200 OK"),
        ("HEAD /metrics", "200 OK"),
    ] {
        let (head, body) = home.request(line);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{line}: {head}");
        assert_eq!(head.contains("\r\nAllow: GET, HEAD\r\n"), status.starts_with("405"), "{line}: {head}");
        assert_eq!(body.is_empty(), line.starts_with("HEAD"), "{line}: {body}");
    }
}

#[test]
fn it_listens_on_this_machine_or_not_at_all() {
    let place = Place::new(BASE);
    let refused = |address| place.novella(&["watch", "--metrics", address]).ends(2);
    refused("0.0.0.0:9464").err("so it may only be a loopback address");
    refused("9464").err("write it as `127.0.0.1:9464` or `[::1]:9464`");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = place.novella(&["watch", "--metrics", &address]).ends(1);
    let said = said.err(&format!("error: cannot serve metrics on `{address}`: Address already in use"));
    assert_eq!(said.out, "", "nothing was begun");
    assert!(!place.path("state/sim/watch/status.json").exists());
    // The port that was free again is had, also by the next daemon at once.
    drop(taken);
    let mut home = Home::with(place, &["--interval", "1h", "--metrics", &address]);
    for _ in 0..2 {
        home.comes_to(200, "healthy");
        home.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(home.end(), Some(0), "{}", home.said());
        assert!(TcpStream::connect(&address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        home.again(&["--interval", "1h", "--metrics", &address]);
    }
    if TcpListener::bind("[::1]:0").is_ok() {
        let home = Home::with(Place::new(BASE), &["--interval", "1h", "--metrics", "[::1]:0"]);
        home.comes_to(200, "healthy");
    }
}

#[test]
fn clients_do_not_disturb_it() {
    let home = monitored(BASE);
    home.comes_to(200, "healthy");
    let (handles, threads) = (home.handles(), home.threads());
    // Some say nothing, some half of it, one letter after the other, far too much, or nothing that is a request.
    let head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n";
    let silent: Vec<TcpStream> = (0..10).map(|_| home.scraper()).collect();
    let half: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = home.scraper();
            stream.write_all(head).expect("it reads");
            stream
        })
        .collect();
    let begun = Instant::now();
    let mut slow = home.scraper();
    while slow.write_all(b"G").is_ok() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "who is slow is not waited for");
    for mut stream in silent.into_iter().chain(half) {
        let mut answer = Vec::new();
        // They find their connection closed.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    for (bytes, status) in [
        (vec![b'a'; 10_000_000], "431"),
        ([&head[..], &b"a: b\r\n".repeat(100_000)].concat(), "431"),
        (vec![0xff; 100], "400"),
        (b"\r\n\r\nGET".to_vec(), ""),
        ([b"GET /".to_vec(), vec![b'a'; 1_000_000]].concat(), "431"),
    ] {
        let answer = home.bytes(&bytes);
        assert!(answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    // Who asks and does not take the answer, and far more of them than are served.
    let many: Vec<Option<TcpStream>> = (0..300)
        .map(|_| {
            let mut stream = home.scraper();
            stream.write_all(head).and_then(|()| stream.write_all(b"\r\n")).is_ok().then_some(stream)
        })
        .collect();
    let most = home.threads();
    assert!(most <= threads + 32, "{most} threads, {threads} before");
    let more = BASE.replace("count = 2", "count = 3");
    std::fs::write(home.file(), &more).expect("saved");
    home.settled(&more);
    drop(many);
    let deadline = Instant::now() + Duration::from_secs(30);
    while home.handles() > handles || home.threads() > threads {
        let now = (home.handles(), home.threads());
        assert!(Instant::now() < deadline, "{now:?} handles and threads, {:?} before", (handles, threads));
        std::thread::sleep(Duration::from_millis(50));
    }
    home.comes_to(200, "healthy");
    home.metrics();
}
