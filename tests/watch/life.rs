//! Two daemons, kills, signals, others at work.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use novella::store::lock::StateLock;
use serde_json::Value;

use crate::common::BASE;
use crate::common::place::Place;
use crate::home::Home;

impl Home {
    /// Takes all objects of a kind away from the simulated host.
    pub fn lose(&self, kind: &str) {
        let file = self.place.path("state/sim/host.json");
        let host = std::fs::read_to_string(&file).expect("the host");
        let mut host: Value = serde_json::from_str(&host).expect("JSON");
        let objects = host["objects"].as_array_mut().expect("objects");
        let before = objects.len();
        objects.retain(|object| object["kind"] != kind);
        assert!(objects.len() < before, "nothing is lost: {objects:#?}");
        std::fs::write(&file, host.to_string()).expect("written");
    }
}

#[test]
fn a_second_daemon_is_told_of_the_first() {
    let mut home = Home::new(BASE);
    let pid = home.pid();
    let second = home.place.novella(&["watch"]);
    second.ends(1).err("is watched over by `novella watch` by ").err(&format!(", pid {pid}, since "));
    // The lock goes with its process.
    home.signal(Signal::SIGKILL);
    assert_eq!(home.end(), None);
    home.place.novella(&["status"]).ends(1).out("not running");
    home.again(&["--interval", "1h"]);
    home.place.novella(&["status"]).ends(0).out("healthy");
}

#[test]
fn others_work_between_its_passes_and_it_waits_for_them() {
    let home = Home::new(BASE);
    for verb in [&["plan"][..], &["drift"], &["show"], &["history"], &["state", "list"], &["apply", "--auto-approve"]] {
        let said = home.place.novella(verb).ends(0);
        assert_eq!(said.err, "", "{verb:?}");
    }
    let lock = StateLock::acquire(&home.place.path("state/sim"), "apply", Duration::ZERO).expect("nobody has it");
    std::fs::write(home.file(), BASE.replace("count = 2", "count = 3")).expect("saved");
    let status = home.until("it waits", |status| status["waiting_for"] != Value::Null);
    assert!(status["waiting_for"].to_string().contains("`novella apply` by "), "{status:#}");
    drop(lock);
    home.settled(&BASE.replace("count = 2", "count = 3"));
}

#[test]
fn signals_end_it_or_make_it_look() {
    let mut home = Home::new(BASE);
    let passes = home.until("it rests", |status| status["health"] == "healthy")["passes"].clone();
    home.lose("bridge");
    home.signal(Signal::SIGHUP);
    home.until("it has looked", |status| status["passes"] != passes);
    home.settled(BASE);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        home.signal(signal);
        assert_eq!(home.end(), Some(0), "{}", home.said());
        home.again(&["--interval", "1h"]);
    }
    assert!(home.said().contains("Ended."));
}

#[test]
fn it_mends_the_host_at_its_start_whatever_the_spec() {
    let mut home = Home::new(BASE);
    home.signal(Signal::SIGTERM);
    assert_eq!(home.end(), Some(0));
    // As after a reboot of the machine.
    for kind in ["firewall", "bridge", "dhcp", "domain"] {
        home.lose(kind);
    }
    home.again(&["--interval", "1h"]);
    home.settled(BASE);
}

#[test]
fn a_kill_in_the_midst_of_a_pass_is_mended_by_the_next_daemon() {
    // Of the simulated host, what was not saved is lost with the process: the bases of disks as if they had never been.
    let many = BASE.replace("count = 2", "count = 60");
    let mut home = Home::with(Place::new(BASE), &["--interval", "1h", "--parallelism", "1"]);
    home.settled(BASE);
    for round in 0..5_u32 {
        std::fs::write(home.file(), &many).expect("saved");
        let before = home.said().len();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !home.said()[before..].contains("web-10: disk: Creation complete") && Instant::now() < deadline {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(7) * round);
        home.signal(Signal::SIGKILL);
        assert_eq!(home.end(), None);
        home.again(&["--interval", "1h", "--parallelism", "1"]);
        // What was recorded as made and is not there are disks, which nobody makes anew unasked.
        let is_over = |status: &Value| status["pending"] != Value::Null || status["health"] == "healthy";
        let status = home.until("it has come to rest", is_over);
        if let Some(digest) = status["pending"]["digest"].as_str() {
            home.place.novella(&["approve", digest, "--allow-mass-delete"]).ends(0);
        }
        home.settled(&many);
        std::fs::write(home.file(), BASE).expect("saved");
        let pending = home.until("something waits", |status| status["pending"]["losses"] == 58)["pending"].clone();
        home.place.novella(&["approve", pending["digest"].as_str().expect("a digest"), "--allow-mass-delete"]).ends(0);
        home.settled(BASE);
    }
}

#[test]
fn the_service_manager_is_told() {
    let place = Place::new(BASE);
    let socket = std::os::unix::net::UnixDatagram::bind(place.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_novella"))
        .args(["watch", "--backend", "sim", "--interval", "1h"])
        .current_dir(place.0.path())
        .env("NOTIFY_SOCKET", place.path("notify"))
        .env("WATCHDOG_USEC", "400000")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("novella");
    let heard = |wanted: &str| loop {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{wanted} never comes: {error}"));
        if bytes[..count] == *wanted.as_bytes() {
            return;
        }
    };
    // A sign of life comes twice in the time that is given, though nothing happens for an hour.
    for wanted in ["READY=1", "STATUS=healthy", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"] {
        heard(wanted);
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("it runs");
    heard("STOPPING=1");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}
