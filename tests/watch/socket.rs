//! Who asks it what it does, well or badly.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use novella::spec::Inputs;
use novella::store::lock::StateLock;
use novella::watch::socket::server::{Inside, Server};
use novella::watch::socket::work::Now;
use novella::watch::socket::{self, client};
use serde_json::{Value, json};

use crate::common::BASE;
use crate::common::place::Place;
use crate::home::Home;

const ASK: &str = "{\"version\":1,\"ask\":\"now\"}\n";

impl Home {
    fn socket(&self) -> PathBuf {
        self.place.path("state/sim/novella.sock")
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).expect("it listens")
    }

    /// What it answers to this.
    fn answer(&self, text: &[u8]) -> Value {
        let mut stream = self.connect();
        stream.write_all(text).expect("it reads");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Waits until it does nothing just now.
    pub fn rests(&self) {
        let rest = json!({ "version": 1, "now": { "pass_since": null, "steps": [] } });
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.answer(ASK.as_bytes()) != rest {
            assert!(Instant::now() < deadline, "{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn it_is_there_for_its_owner_as_long_as_the_daemon() {
    let mut home = Home::new(BASE);
    home.rests();
    let mode = fs::metadata(home.socket()).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    // A second daemon leaves it alone.
    home.place.novella(&["watch"]).ends(1).err("is watched over by");
    home.rests();
    // A dead one leaves it behind, and the next one replaces it.
    home.signal(Signal::SIGKILL);
    home.end();
    assert!(home.socket().exists());
    home.place.novella(&["status"]).ends(1).out("not running");
    home.again(&["--interval", "1h"]);
    home.rests();
    home.signal(Signal::SIGTERM);
    assert_eq!(home.end(), Some(0), "{}", home.said());
    assert!(!home.socket().exists());
}

#[test]
fn what_is_no_socket_stays_and_the_daemon_works_without() {
    let place = Place::new(BASE);
    fs::create_dir_all(place.path("state/sim")).expect("a directory");
    fs::write(place.path("state/sim/novella.sock"), "mine").expect("a file");
    let home = Home::with(place, &["--interval", "1h"]);
    home.settled(BASE);
    assert!(home.said().contains("there is something else in its place"), "{}", home.said());
    assert_eq!(fs::read_to_string(home.socket()).expect("a file"), "mine");
    home.place.novella(&["status"]).ends(0).out("healthy");
}

#[test]
fn bad_clients_do_not_disturb_it() {
    let home = Home::new(BASE);
    home.rests();
    let error = |text: &[u8]| home.answer(text)["error"].as_str().expect("an error").to_owned();
    assert!(error(b"\n").contains("no request"));
    assert!(error(b"\xff\0{{{\n").contains("no request"));
    assert!(error(b"{\"version\":2,\"ask\":\"now\"}\n").contains("version 2 is not spoken"));
    assert!(error(b"{\"version\":1,\"ask\":\"\\u001bapply\"}\n").contains("cannot be asked"));
    // A line without end: it may close the connection before all is written.
    let mut huge = home.connect();
    let _ = huge.write_all(&vec![b'['; 4 << 20]);
    // Those who leave, before and in the midst of a line, and with the answer under way.
    for text in ["", "{\"vers", ASK] {
        let _ = home.connect().write_all(text.as_bytes());
    }
    // One who says no more than half of it is not waited for.
    let mut half = home.connect();
    half.write_all(b"{").expect("it reads");
    home.rests();
    half.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    assert_eq!(half.read(&mut [0]).expect("closed in time"), 0);
    fs::write(home.file(), BASE.replace("count = 2", "count = 3")).expect("saved");
    home.settled(&BASE.replace("count = 2", "count = 3"));
}

#[test]
fn fifty_ask_at_once() {
    let home = Home::new(BASE);
    home.rests();
    let before = home.handles();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(|| home.answer(ASK.as_bytes()))).collect();
        for client in clients {
            assert_eq!(client.join().expect("an answer")["version"], 1);
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while home.handles() > before {
        assert!(Instant::now() < deadline, "{} handles, {before} before", home.handles());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn it_answers_in_the_midst_of_a_pass() {
    let home = Home::new(BASE);
    home.rests();
    let more = BASE.replace("count = 2", "count = 40");
    fs::write(home.file(), &more).expect("saved");
    let deadline = Instant::now() + Duration::from_secs(30);
    let step = loop {
        let now = home.answer(ASK.as_bytes())["now"].take();
        if let Some(step) = now["steps"].get(0) {
            assert!(now["pass_since"].is_u64(), "{now}");
            break step.clone();
        }
        assert!(Instant::now() < deadline, "{}", home.said());
    };
    assert!(step["address"].as_str().is_some_and(|it| it.contains('.')), "{step}");
    assert!(step["since"].is_u64(), "{step}");
    home.settled(&more);
    home.rests();
}

#[test]
fn a_path_too_long_for_a_socket_is_no_hindrance() {
    let place = Place::new(BASE);
    let state = place.path(&["a-directory-with-a-long-name"; 5].join("/"));
    fs::create_dir_all(&state).expect("a directory");
    assert!(socket::path(&state).as_os_str().len() > 107);
    let inside = Inside { work: Arc::default(), inputs: Inputs::default(), ask: Box::new(drop) };
    let server = Server::begin(&state, inside).expect("a socket");
    assert_eq!(client::now(&state).expect("an answer"), Now::default());
    drop(server);
    assert!(!socket::path(&state).exists());
}

#[test]
fn status_tells_of_the_steps_that_run() {
    // Another one answers in its place, for a step on the simulated host is over at once.
    let home = Home::new(BASE);
    fs::remove_file(home.socket()).expect("removed");
    let listener = UnixListener::bind(home.socket()).expect("a socket");
    let step = json!({ "address": "server.web-1", "object": "web-1", "deed": "ensure", "since": 2 });
    let answer = json!({ "version": 1, "now": { "pass_since": 1, "steps": [step] } });
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                let (stream, _) = listener.accept().expect("a client");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("a question");
                assert_eq!(serde_json::from_str::<Value>(&line).ok(), serde_json::from_str(ASK).ok());
                writeln!(&stream, "{answer}").expect("it reads");
            }
        });
        home.place.novella(&["status"]).ends(0).out("A pass runs").out("server.web-1");
        assert_eq!(home.place.json(&["status", "--json"])["now"], answer["now"]);
    });
}

#[test]
fn apply_waits_for_a_pass_that_runs() {
    let home = Home::new(BASE);
    let lock = StateLock::acquire(&home.place.path("state/sim"), "watch", Duration::ZERO).expect("nobody has it");
    thread::scope(|scope| {
        let apply = scope.spawn(|| home.place.novella(&["apply", "--auto-approve"]));
        // It tries again and again; one that does not wait has ended by then, and also a slow machine has started it.
        thread::sleep(Duration::from_secs(3));
        assert!(!apply.is_finished());
        drop(lock);
        apply.join().expect("it ends").ends(0).err("waiting for");
    });
    // For others it does not.
    let _lock = StateLock::acquire(&home.place.path("state/sim"), "apply", Duration::ZERO).expect("nobody has it");
    home.place.novella(&["apply", "--auto-approve"]).ends(1);
}
