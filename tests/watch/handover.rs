//! Plans that are handed over to it, and what becomes of clients, plans and daemons meanwhile.
//!
//! Daemons here read a save only after an hour, so that what is done at once was handed over.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use novella::plan::saved::Saved;
use novella::watch::socket::client::Conversation;
use novella::watch::socket::protocol::{Ask, Told};
use serde_json::Value;

use crate::common::BASE;
use crate::common::place::{Place, Said};
use crate::home::Home;

const ALONE: &[&str] = &["--interval", "1h", "--debounce", "1h"];

const APPLY: &[&str] = &["apply", "--auto-approve", "--parallelism", "1"];

/// A daemon on [`BASE`], and then another spec in its directory.
fn home(edit: &str) -> Home {
    let home = Home::with(Place::new(BASE), ALONE);
    home.settled(BASE);
    home.until("it rests", |status| status["health"] == "healthy");
    home.place.write(edit);
    home
}

fn more(count: usize) -> String {
    BASE.replace("count = 2", &format!("count = {count}"))
}

/// The runs of this verb, the newest last.
fn runs(place: &Place, operation: &str) -> Vec<Value> {
    let history = place.json(&["history", "--json"]);
    let all = history["runs"].as_array().expect("runs").clone();
    let mut runs: Vec<Value> = all.into_iter().filter(|run| run["operation"] == operation).collect();
    runs.sort_by_key(|run| run["number"].as_u64());
    runs
}

#[track_caller]
fn last_apply(home: &Home, outcome: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let run = runs(&home.place, "apply").pop().expect("a run");
        assert!(run["summary"].as_str().is_some_and(|it| it.ends_with(", through the daemon")), "{run:#}");
        assert_eq!(run["pid"], home.pid(), "{run:#}");
        if run["outcome"] == outcome {
            return;
        }
        assert!(Instant::now() < deadline && run["outcome"] == "under_way", "{run:#}\n{}", home.said());
        thread::sleep(Duration::from_millis(20));
    }
}

/// Without the times that things took.
fn timeless(text: &str) -> Vec<String> {
    let word = |word: &str| match word.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok()) {
        true => "TIME".to_owned(),
        false => word.to_owned(),
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

fn lines(said: &Said) -> Vec<Value> {
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        line.as_object_mut().expect("an object").remove("@timestamp");
        if let Some(hook) = line.get_mut("hook").and_then(Value::as_object_mut) {
            hook.remove("elapsed_seconds");
        }
        line["@message"] = timeless(line["@message"].as_str().expect("a message")).remove(0).into();
        line
    };
    said.out.lines().map(line).collect()
}

/// A verb that runs.
struct Verb {
    child: Child,
    out: BufReader<ChildStdout>,
    so_far: String,
}

impl Verb {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_novella"))
            .args(arguments)
            .args(["--backend", "sim"])
            .current_dir(home.place.0.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("novella");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out, so_far: String::new() }
    }

    /// Waits until it has said this.
    fn wait_for(&mut self, text: &str) {
        while !self.so_far.contains(text) {
            let mut bytes = [0; 1024];
            let count = self.out.read(&mut bytes).expect("a pipe");
            assert!(count > 0, "it never says {text:?}: {}", self.so_far);
            self.so_far.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn signal(&self, signal: Signal) {
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    fn end(mut self) -> Said {
        self.out.read_to_string(&mut self.so_far).expect("a pipe");
        let output = self.child.wait_with_output().expect("an end");
        let said = Said::from(output);
        Said { out: self.so_far, ..said }
    }
}

fn state(home: &Home) -> std::path::PathBuf {
    home.place.path("state/sim")
}

/// Hands over a plan that `plan --out` has saved.
fn hand_over(home: &Home, plan: &[u8]) -> Conversation {
    let plan = Box::new(Saved::decode(plan).expect("a plan"));
    Conversation::begin(&state(home), Ask::Apply { plan, parallelism: 4, by: None }).expect("it listens")
}

/// What it says last.
fn last(mut conversation: Conversation) -> Told {
    loop {
        let told = conversation.next(Duration::from_secs(60)).expect("it speaks").expect("in time");
        if told.is_last() {
            return told;
        }
    }
}

fn saved(home: &Home, options: &[&str]) -> Vec<u8> {
    home.place.novella(&[&["plan", "--out", "p"], options].concat()).ends(0);
    std::fs::read(home.place.path("p")).expect("a plan")
}

#[track_caller]
fn is_stale(home: &Home, plan: &[u8], words: &str) {
    match last(hand_over(home, plan)) {
        Told::Refused(refusal) => {
            assert_eq!(refusal.code.as_deref(), Some("stale-plan"), "{refusal:?}");
            assert!(refusal.summary.contains(words), "{refusal:?}");
        }
        told => panic!("{told:?}"),
    }
}

#[test]
fn it_is_told_as_if_it_was_done_here() {
    let edit = more(5).replace("128 MiB", "256 MiB");
    for options in [&[][..], &["--json"]] {
        let arguments = [APPLY, options].concat();
        let alone = Place::new(BASE);
        alone.novella(APPLY).ends(0);
        alone.write(&edit);
        let here = alone.novella(&arguments).ends(0);

        let home = home(&edit);
        let there = home.place.novella(&arguments).ends(0);
        assert_eq!(there.err, here.err);
        match options.is_empty() {
            true => {
                assert_eq!(timeless(&there.out), timeless(&here.out));
                assert!(
                    there.out.contains("Apply complete! Resources: 3 added, 4 changed, 0 destroyed."),
                    "{there:#?}"
                );
            }
            false => assert_eq!(lines(&there), lines(&here)),
        }
        last_apply(&home, "complete");
        home.settled(&edit);
        assert!(home.said().contains("handed over by "), "{}", home.said());
        home.until("all is well", |status| status["health"] == "healthy");
        // There is nothing to it, and that is told in the same words.
        let (here, there) = (alone.novella(APPLY).ends(0), home.place.novella(APPLY).ends(0));
        assert_eq!((there.out, there.err), (here.out, here.err));
    }
}

#[test]
fn what_a_person_said_yes_to_is_done_though_the_daemon_would_wait() {
    // A server goes: that waits for a word, and `apply` is one.
    let edit = BASE[..BASE.find("[server.spare]").expect("it")].to_owned();
    let home = home(&edit);
    home.place.answer(&["apply"], "no\n").ends(1).err("Cancelled");
    home.place.answer(&["apply"], "yes\n").ends(0).out("Resources: 0 added, 0 changed, 1 destroyed.");
    last_apply(&home, "complete");
    home.settled(&edit);
    assert!(!home.said().contains("Waiting for approval"), "{}", home.said());

    // As a saved plan, with options.
    home.place.write(&more(4));
    saved(&home, &["--target", "server.web-3"]);
    home.place.novella(&["apply", "p"]).ends(0).out("Resources: 1 added");
    last_apply(&home, "complete");
}

#[test]
fn another_spec_is_refused() {
    let home = home(BASE);
    let (other, before) = (home.place.path("other"), runs(&home.place, "apply").len());
    std::fs::create_dir(&other).expect("a directory");
    std::fs::write(other.join("spec.toml"), more(3)).expect("a spec");
    let said = home.place.novella(&["apply", "--auto-approve", "--specs", "other"]).ends(1);
    let said =
        said.err("error[other-spec]: the daemon goes by another spec, the one in `").err("/specs`; nothing was done");
    assert_eq!(said.err("help: save this one there").out, "", "no plan is shown");
    home.place
        .novella(&["apply", "--auto-approve", "--specs", "other", "--json"])
        .ends(1)
        .out("\"code\":\"other-spec\"");
    // A plan of it that comes all the same.
    home.place.novella(&["plan", "--out", "p", "--specs", "other"]).ends(0);
    let plan = std::fs::read(home.place.path("p")).expect("a plan");
    match last(hand_over(&home, &plan)) {
        Told::Refused(refusal) => assert_eq!(refusal.code.as_deref(), Some("other-spec")),
        told => panic!("{told:?}"),
    }
    assert_eq!(runs(&home.place, "apply").len(), before);
    home.settled(BASE);
    // A copy of its own is as good.
    std::fs::write(other.join("spec.toml"), BASE).expect("a spec");
    home.place.novella(&["apply", "--auto-approve", "--specs", "other"]).ends(0);
}

#[test]
fn what_has_moved_on_is_refused() {
    let home = home(&more(3));
    let plan = saved(&home, &[]);
    home.place.novella(APPLY).ends(0);
    is_stale(&home, &plan, "the state has changed since (serial ");
    home.place.write(&more(4));
    let plan = saved(&home, &[]);
    home.lose("bridge");
    is_stale(&home, &plan, "the host has changed since: `network.");
    home.settled(&more(4));
}

#[test]
fn a_client_that_is_killed_leaves_a_plan_that_goes_on() {
    let home = home(&more(60));
    let mut apply = Verb::start(&home, APPLY);
    apply.wait_for("Creation complete");
    apply.signal(Signal::SIGKILL);
    assert_eq!(apply.end().code, None);
    last_apply(&home, "complete");
    home.settled(&more(60));
}

#[test]
fn a_daemon_that_is_killed_is_told_and_the_next_one_goes_on() {
    let mut home = home(&more(60));
    let mut apply = Verb::start(&home, APPLY);
    apply.wait_for("Creation complete");
    home.signal(Signal::SIGKILL);
    let said =
        apply.end().ends(1).err("error: the daemon has ended in the midst of it").err("Not complete. Resources: ");
    assert!(said.err.contains("steps are left; the next run goes on from here."), "{said:#?}");
    home.end();
    home.again(ALONE);
    // Of the simulated host, what was not saved is lost with the process.
    let is_over = |status: &Value| status["pending"] != Value::Null || status["health"] == "healthy";
    let status = home.until("it has come to rest", is_over);
    if let Some(digest) = status["pending"]["digest"].as_str() {
        home.place.novella(&["approve", digest, "--allow-mass-delete"]).ends(0);
    }
    home.settled(&more(60));
}

#[test]
fn an_interrupt_ends_it_after_the_steps_that_run() {
    let home = home(&more(60));
    let mut apply = Verb::start(&home, APPLY);
    apply.wait_for("Creation complete");
    apply.signal(Signal::SIGINT);
    let said =
        apply.end().ends(130).err("Interrupt received: finishing the steps that run.").err("Interrupted. Resources: ");
    assert!(said.err.contains("note: the daemon goes on by itself"), "{said:#?}");
    last_apply(&home, "stopped");
    home.settled(&more(60));
}

#[test]
fn a_daemon_that_is_to_end_finishes_what_runs_and_tells_so() {
    let mut home = home(&more(60));
    let mut apply = Verb::start(&home, APPLY);
    apply.wait_for("Creation complete");
    home.signal(Signal::SIGTERM);
    let said = apply.end().ends(130).err("note: the daemon was told to end").err("Interrupted. Resources: ");
    assert!(said.err.contains("steps are left"), "{said:#?}");
    assert_eq!(home.end(), Some(0), "{}", home.said());
    home.place.novella(APPLY).ends(0);
    home.settled(&more(60));
}

#[test]
fn a_client_that_does_not_read_is_not_waited_for() {
    let home = home(&more(60));
    let plan = saved(&home, &[]);
    let conversation = hand_over(&home, &plan);
    let half = &serde_json::to_vec(&serde_json::json!({ "version": 1, "ask": "apply" })).expect("JSON")[..20];
    let mut others: Vec<UnixStream> = (0..8).map(|_| home.connect()).collect();
    others.iter_mut().for_each(|other| other.write_all(half).expect("it reads"));
    home.settled(&more(60));
    last_apply(&home, "complete");
    assert!(matches!(last(conversation), Told::Ended { interrupted: false, error: None }));
}

#[test]
fn two_at_once_are_one_after_the_other() {
    let home = home(&more(60));
    // While a person thinks about it, the daemon and everybody else wait.
    let mut first = Verb::start(&home, &["apply", "--parallelism", "1"]);
    first.wait_for("Enter a value:");
    home.place.novella(APPLY).ends(1).err("`novella apply` by ");
    first.child.stdin.take().expect("a pipe").write_all(b"yes\n").expect("it reads");
    first.wait_for("Creation complete");
    let second = home.place.novella(APPLY).ends(0).err("note: waiting for `novella watch` by ");
    assert!(second.out.contains("Resources: 0 added"), "{second:#?}");
    first.end().ends(0).out("Apply complete!");
    home.settled(&more(60));
}

#[test]
fn one_that_cannot_be_asked_is_done_without() {
    let home = home(&more(3));
    std::fs::remove_file(home.place.path("state/sim/novella.sock")).expect("it was there");
    home.place.novella(APPLY).ends(0).err("note: the daemon cannot be asked (").out("Resources: 1 added");
    let run = runs(&home.place, "apply").pop().expect("a run");
    assert!(!run["summary"].to_string().contains("through the daemon"), "{run:#}");
    // It stands still. Whoever reads does not notice, and whoever writes says that it does not answer.
    home.place.write(&more(4));
    home.signal(Signal::SIGSTOP);
    for verb in [&["plan"][..], &["show"], &["drift"]] {
        home.place.novella(verb);
    }
    home.signal(Signal::SIGCONT);
    home.settled(&more(3));
}

#[test]
fn what_it_would_make_again_is_not_destroyed() {
    let mut home = home(BASE);
    let said = home.place.novella(&["destroy", "--auto-approve"]).ends(1);
    said.err("is watched over by `novella watch` by ").err("nothing was done").err("`systemctl stop novella`");
    saved(&home, &["--destroy"]);
    home.place.novella(&["apply", "p"]).ends(1).err("is watched over by `novella watch` by ");
    home.settled(BASE);
    home.place.novella(&["rebuild", "web-1", "--auto-approve"]).ends(0);
    home.settled(BASE);
    home.signal(Signal::SIGTERM);
    assert_eq!(home.end(), Some(0));
    home.place.novella(&["destroy", "--auto-approve"]).ends(0);
}

/// What it says to a yes to this.
fn ask(home: &Home, digest: &str) -> Told {
    let ask = Ask::Approve { digest: digest.into(), allow_mass_delete: false, by: None };
    last(Conversation::begin(&state(home), ask).expect("it listens"))
}

#[test]
fn an_approval_is_judged_at_once() {
    let home = home(&more(1));
    home.signal(Signal::SIGHUP);
    // The save has not been read yet, and nothing waits; to ask is enough to have it read.
    home.place.novella(&["approve", "0123456789abcdef"]).ends(1).err("no plan waits that has the digest");
    let first = home.until("it waits", |status| status["pending"] != Value::Null)["pending"]["digest"].clone();
    let first = first.as_str().expect("a digest");
    // Another save that it has not read: what was approved is not what waits.
    home.place.write(&more(0));
    let said =
        home.place.novella(&["approve", first]).ends(1).err("no plan waits that has the digest").err("what waits is ");
    let second = home.status()["pending"]["digest"].as_str().expect("a digest").to_owned();
    assert!(said.err.contains(&second[..16]), "{said:#?}");
    assert!(matches!(ask(&home, "12"), Told::Refused(_)));
    assert!(matches!(ask(&home, "\u{1b}\n"), Told::Refused(_)));
    match ask(&home, &second) {
        Told::Approved { summary } => assert_eq!(summary, "0 to add, 0 to change, 2 to destroy"),
        told => panic!("{told:?}"),
    }
    home.settled(&more(0));
    home.place.novella(&["approve", &second]).ends(1).err("nothing waits for approval");
    // One that has left has said nothing.
    home.place.write(&BASE[..BASE.find("[server.spare]").expect("it")].replace("count = 2", "count = 0"));
    home.place.novella(&["approve", "0123456789abcdef"]).ends(1);
    let third = home.status()["pending"]["digest"].as_str().expect("a digest").to_owned();
    home.signal(Signal::SIGSTOP);
    let ask = Ask::Approve { digest: third.clone(), allow_mass_delete: false, by: None };
    drop(Conversation::begin(&state(&home), ask).expect("it listens"));
    home.signal(Signal::SIGCONT);
    home.rests();
    assert_eq!(home.status()["pending"]["digest"], third);
    assert!(matches!(self::ask(&home, &third), Told::Approved { .. }));
}

#[test]
fn a_line_without_end_is_cut_off() {
    let home = home(BASE);
    let mut stream = home.connect();
    stream.set_write_timeout(Some(Duration::from_secs(60))).expect("set");
    let piece = vec![b'['; 1 << 20];
    // It may close the connection before all is written.
    let written = (0..80).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(written < 80, "it has read {written} MiB");
    let mut line = String::new();
    let _ = BufReader::new(&stream).read_line(&mut line);
    assert!(line.is_empty() || line.contains("no request"), "{line}");
    home.rests();
}
