//! What the daemon costs: the time from a save to the first step, against a raw loop that hears of the same saves and waits
//! as long; its memory, its wake-ups and its time of the processor at rest.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::{NOVELLA, measure, say};

/// How long it has to be quiet after a save; the default.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// How long it is quiet between the pass that has found all as it is to be and the next save.
const PAUSE: Duration = Duration::from_millis(100);

/// How long after its first rest a daemon has come to the end of what its own deeds have woken it for.
const SETTLED: Duration = Duration::from_secs(3);

/// How long a daemon at rest is looked at.
const REST: Duration = Duration::from_secs(30);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A daemon. It is ended when it is dropped.
pub struct Daemon {
    child: Child,
    specs: PathBuf,
    /// Where it says how things are.
    state: PathBuf,
    /// When it has begun a step.
    steps: Receiver<Instant>,
}

impl Daemon {
    /// One that has made what the spec in this directory asks for, and has come to rest.
    pub fn start(specs: &Path, state: &Path, backend: &str) -> Self {
        // So that nothing but what is measured wakes it.
        let arguments = ["--backend", backend, "watch", "--interval", "1h", "--debounce", "300ms"];
        let mut child = Command::new(NOVELLA)
            .arg("--specs")
            .arg(specs)
            .arg("--state")
            .arg(state)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("novella");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, steps) = mpsc::channel();
        thread::spawn(move || {
            let begun = out.lines().map_while(Result::ok).filter(|line| line.ends_with("..."));
            begun.map(|_| Instant::now()).all(|at| sender.send(at).is_ok())
        });
        let state = if backend == "sim" { state.join("sim") } else { state.to_owned() };
        let daemon = Self { child, specs: specs.to_owned(), state, steps };
        daemon.rest(0);
        thread::sleep(SETTLED);
        daemon.steps.try_iter().for_each(drop);
        daemon
    }

    /// Waits until its last pass has found that all is as it is to be, and is not the one with this number.
    fn rest(&self, before: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Between two of them there may be none.
            let told = fs::read(self.state.join("watch/status.json")).unwrap_or_default();
            let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
            let is_idle = told["health"] == "healthy" && told["last_pass"]["summary"].is_null();
            match told["passes"].as_u64() {
                Some(passes) if told["pid"] == self.child.id() && is_idle && passes > before => return passes,
                _ => assert!(Instant::now() < deadline, "the daemon does not come to rest: {told:#}"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Not with SIGKILL, so that who listens for it to libvirt ends as well.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Saves so many times, in place and by renaming in turns, and prints how long it took to the first step, and to where a raw
/// loop would have begun. `text` is what is saved for a number; each is another spec than the one before.
pub fn saves(name: &str, daemon: &Daemon, file: &str, times: usize, text: impl Fn(usize) -> String) {
    let file = daemon.specs.join(file);
    let (_watcher, raw) = raw_loop(&daemon.specs);
    let mut took: [Vec<Duration>; 2] = Default::default();
    let mut passes = 0;
    for number in 0..times {
        passes = daemon.rest(passes);
        thread::sleep(PAUSE);
        daemon.steps.try_iter().chain(raw.try_iter()).for_each(drop);
        let (text, other) = (text(number), file.with_extension("tmp"));
        let saved = if number % 2 == 0 {
            fs::write(&file, text).expect("saved");
            Instant::now()
        } else {
            fs::write(&other, text).expect("written");
            fs::rename(&other, &file).expect("renamed");
            Instant::now()
        };
        for (begun, took) in [&daemon.steps, &raw].into_iter().zip(&mut took) {
            took.push(begun.recv_timeout(PATIENCE).expect("it begins") - saved);
        }
    }
    let [ours, raw] = took;
    let more: Vec<Duration> = ours.iter().zip(&raw).map(|(ours, raw)| ours.saturating_sub(*raw)).collect();
    let title = format!("{name}, {times} saves");
    say(&format!("{title:<38}{:>12}{:>12}{:>12}", "median", "99th", "most"));
    for (name, times) in [("save to first step", &ours), ("raw loop", &raw), ("more than the raw loop", &more)] {
        let [median, high, most] = [measure::median(times), measure::part(times, 99), measure::part(times, 100)];
        say(&format!("  {name:<36}{:>12}{:>12}{:>12}", ms(median), ms(high), ms(most)));
    }
    say("");
}

/// Who only hears of saves and waits until it was quiet: inotify(7) and nothing else.
fn raw_loop(directory: &Path) -> (RecommendedWatcher, Receiver<Instant>) {
    let (sender, heard) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let kind = event.expect("an event").kind;
        let is_save = matches!(
            kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write)) | EventKind::Modify(ModifyKind::Name(_))
        );
        if is_save {
            let _ = sender.send(());
        }
    })
    .expect("inotify");
    watcher.watch(directory, RecursiveMode::NonRecursive).expect("inotify");
    let (sender, begun) = mpsc::channel();
    thread::spawn(move || {
        while heard.recv().is_ok() {
            while heard.recv_timeout(DEBOUNCE) != Err(RecvTimeoutError::Timeout) {}
            let _ = sender.send(Instant::now());
        }
    });
    (watcher, begun)
}

/// Prints the memory of a daemon at rest.
pub fn memory(name: &str, daemon: &Daemon) {
    let process = PathBuf::from(format!("/proc/{}", daemon.child.id()));
    let rollup = fs::read_to_string(process.join("smaps_rollup")).expect("it runs");
    let of = |key: &str| {
        let value = rollup.lines().find_map(|line| line.strip_prefix(key)?.strip_suffix("kB"));
        value.expect("a number").trim().parse::<f64>().expect("a number") / 1024.0
    };
    say(&format!("{name:<46}{:>8.1} MiB{:>8.1} MiB{:>8.1} MiB", of("Rss:"), of("Pss:"), of("Anonymous:")));
}

/// Prints what wakes a daemon at rest, and how long it runs.
pub fn rest(daemon: &Daemon) {
    let process = PathBuf::from(format!("/proc/{}", daemon.child.id()));
    let before = threads(&process);
    thread::sleep(REST);
    let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (id, (name, woken, ran)) in threads(&process) {
        let (_, woken_before, ran_before) = before.get(&id).cloned().unwrap_or_default();
        let sum = all.entry(name).or_default();
        *sum = (sum.0 + woken - woken_before, sum.1 + ran - ran_before);
    }
    let ran: u64 = all.values().map(|(_, ran)| ran).sum();
    say(&format!("at rest it runs for {:.1} ms in {REST:.0?}, and its threads are woken so often:", ran as f64 / 1e6));
    for (name, (woken, _)) in all {
        say(&format!("  {name:<36}{woken:>12}"));
    }
    say("");
}

/// The threads of a process: the name without its number, how often it was woken, and for how many nanoseconds it ran.
fn threads(process: &Path) -> BTreeMap<u64, (String, u64, u64)> {
    let tasks = fs::read_dir(process.join("task")).expect("it runs").filter_map(Result::ok);
    let thread = |task: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        let (status, ran) = (read("status")?, read("schedstat")?);
        let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let name = of("Name:")?.trim_end_matches(|it: char| it.is_ascii_digit() || it == '-').to_owned();
        let woken = of("voluntary_ctxt_switches:")?.parse().ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, (name, woken, ran.split(' ').next()?.parse().ok()?)))
    };
    tasks.filter_map(thread).collect()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
