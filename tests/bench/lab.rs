//! What novella costs: the time and memory of a plan of many servers, of an apply on a real host against a plain loop
//! that makes the same system calls, runs the same programs and makes the same libvirt calls one after the other, and of the
//! daemon.
//!
//! `cargo bench --bench lab -- daemon` measures the daemon alone.
//!
//! `scripts/bench` runs it in a lab. It prints a table and judges only that the work was done: how fast a machine is, is not
//! for a program to say.

mod daemon;
mod measure;
mod raw;
mod specs;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use daemon::Daemon;
use measure::{Run, median};
use novella::blueprint::identity::Identity;
use novella::blueprint::ipam::Ipam;
use novella::blueprint::object::VirtType;
use novella::blueprint::{self, HostFacts};
use novella::desired::Desired;
use novella::plan::world::{Record, Recorded};
use raw::Raw;

const NOVELLA: &str = env!("CARGO_BIN_EXE_novella");

/// How often everything is done. The middle result counts.
const ROUNDS: usize = 7;

/// The size of the lab's part.
const NETWORKS: usize = 5;
const SERVERS: usize = 100;

/// How many saves are measured.
const SAVES: usize = 200;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == measure::PARENT) {
        return measure::parent(arguments);
    }
    let has = |word: &str| std::env::args_os().any(|argument| argument == word);
    // What `cargo bench` says, behind all else. `cargo test --benches` has no time for this.
    if !has("--bench") {
        return ExitCode::SUCCESS;
    }
    let is_whole = !has("daemon");
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let is_lab = std::env::var_os("NOVELLA_LAB").is_some();
    if is_whole {
        plans(scratch.path());
        addresses();
    }
    if is_whole && is_lab {
        applies(scratch.path());
    }
    watches_simulated(scratch.path());
    match is_lab {
        true => watches(scratch.path()),
        false => say("skipped: what takes a real host runs in a lab only; `scripts/bench` sees to that"),
    }
    ExitCode::SUCCESS
}

/// The daemon at rest with many objects, on the simulated host.
fn watches_simulated(scratch: &Path) {
    say("\nmemory of the daemon at rest                       RSS         PSS    anonymous");
    for (servers, networks) in [(319, 20), (1000, 20)] {
        let specs =
            specs::write(scratch, &format!("watch-{servers}"), networks, servers, specs::NO_IMAGE, Path::new("/data"));
        let state = scratch.join(format!("watch-{servers}-state"));
        let objects = 3 * servers + 2 * networks + 2;
        for when in ["made", "found"] {
            let daemon = Daemon::start(&specs, &state, "sim");
            daemon::memory(&format!("{objects} objects, {when}, simulated host"), &daemon);
        }
    }
}

/// The daemon on a real host: memory and wake-ups at rest, and the time from a save to the first step.
fn watches(scratch: &Path) {
    let image = image(scratch);
    let data = PathBuf::from("/var/lib/novella/bench");
    let specs = specs::write(scratch, "watched", NETWORKS, SERVERS, &image, &data);
    let edge = |number: usize| specs::edge(1400 + number % 2);
    std::fs::write(specs.join(specs::EDGE), edge(1)).expect("a file");
    let state = scratch.join("watched-state");
    drop(Daemon::start(&specs, &state, "libvirt"));
    let daemon = Daemon::start(&specs, &state, "libvirt");
    daemon::memory(&format!("{NETWORKS} networks, {SERVERS} servers, real host"), &daemon);
    say("");
    daemon::rest(&daemon);
    daemon::saves(&format!("{SERVERS} servers"), &daemon, specs::EDGE, SAVES, edge);
    drop(daemon);
    novella(&specs, &state, &["destroy", "--auto-approve"], scratch);
}

/// An image with nothing in it.
fn image(scratch: &Path) -> String {
    let image = scratch.join("base.qcow2");
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("64M").status();
    assert!(made.expect("qemu-img").success());
    image.to_str().expect("a plain path").to_owned()
}

/// Plans from nothing, on the simulated host.
fn plans(scratch: &Path) {
    say("plan from nothing, simulated host         median   peak memory");
    let mut medians = Vec::new();
    for (servers, networks) in [(1000, 20), (10_000, 100)] {
        let project = format!("plan-{servers}");
        let specs = specs::write(scratch, &project, networks, servers, specs::NO_IMAGE, Path::new("/data"));
        let state = scratch.join("none");
        let runs: Vec<Run> =
            (0..ROUNDS).map(|_| novella(&specs, &state, &["--backend", "sim", "plan"], scratch)).collect();
        let objects = servers + networks;
        assert!(
            runs.iter().all(|run| run.output.contains(&format!("Plan: {} to add", objects + 2))),
            "{}",
            runs[0].output
        );
        let (time, memory) = (middle(&runs), peak(&runs));
        row(&format!("{servers} servers, {networks} networks"), time, Some(memory), None);
        medians.push(time);
    }
    say(&format!("ten times the servers take {:.1} times as long\n", ratio(medians[1], medians[0])));
}

/// The choice of addresses and MACs alone, in one /16: from nothing, and for one port more when the others have theirs.
fn addresses() {
    say("addresses in a /16 chosen                 median");
    let facts = HostFacts::unknown(VirtType::Qemu);
    for ports in [600, 6_000, 60_000] {
        let (desired, more) = (specs::of_ports(ports), specs::of_ports(ports + 1));
        let identity = Identity::new(&desired.project);
        let choose = |desired: &Desired, recorded: &Recorded| {
            let mut problems = Vec::new();
            let begun = Instant::now();
            let chosen = Ipam::allocate(desired, recorded, &identity, &mut problems);
            let took = begun.elapsed();
            assert!(problems.is_empty() && chosen.ports.len() == desired.ports.len(), "{problems:#?}");
            took
        };
        let nothing = Recorded::default();
        let made = blueprint::lower(&desired, &nothing, &facts).expect("a blueprint").objects;
        let records = made.into_iter().map(|(key, object)| (key, Record::present(object))).collect();
        let held = Recorded { serial: 1, records };
        let anew: Vec<Duration> = (0..ROUNDS).map(|_| choose(&desired, &nothing)).collect();
        let again: Vec<Duration> = (0..ROUNDS).map(|_| choose(&more, &held)).collect();
        row(&format!("{ports} ports, from nothing"), median(&anew), None, None);
        row(&format!("{ports} ports that have theirs, and one"), median(&again), None, None);
    }
    say("");
}

/// Applies, and the same by a plain loop, in turns.
fn applies(scratch: &Path) {
    let image = image(scratch);
    let data = PathBuf::from("/var/lib/novella/bench");
    let write = |project: &str| specs::write(scratch, project, NETWORKS, SERVERS, &image, &data);
    let (ours, plain) = (write("ours"), Raw::new(&write("raw")));
    // To damage and to judge what novella makes.
    let witness = Raw::new(&ours);
    let state = scratch.join("state");
    let apply = || novella(&ours, &state, &["apply", "--auto-approve"], scratch);

    let mut runs: [Vec<Run>; 4] = Default::default();
    let mut loops: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        loops[0].push(timed(|| plain.make()));
        loops[1].push(timed(|| assert_eq!(plain.look(), SERVERS)));
        plain.lose_one();
        loops[2].push(timed(|| plain.repair()));
        assert_eq!(plain.look(), SERVERS);
        plain.clear();

        runs[0].push(apply());
        assert_eq!(witness.look(), SERVERS);
        let idle = apply();
        assert!(idle.output.contains("No changes."), "{}", idle.output);
        runs[1].push(idle);
        witness.lose_one();
        let repair = apply();
        assert!(repair.output.contains("1 changed"), "{}", repair.output);
        runs[2].push(repair);
        assert_eq!(witness.look(), SERVERS);
        runs[3].push(novella(&ours, &state, &["destroy", "--auto-approve"], scratch));
        std::fs::remove_dir_all(&state).expect("the state");
    }
    say(&format!("{NETWORKS} networks, {SERVERS} servers, shut off      median   peak memory   plain loop   ratio"));
    let names = ["apply from nothing", "apply with nothing to do", "repair of one lost domain", "destroy"];
    for (number, name) in names.into_iter().enumerate() {
        let plain = loops.get(number).map(|times| median(times));
        row(name, middle(&runs[number]), Some(peak(&runs[number])), plain);
    }
}

fn novella(specs: &Path, state: &Path, arguments: &[&str], scratch: &Path) -> Run {
    let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
    let (specs, state) = (text(specs), text(state));
    let mut all = vec!["--specs", &specs, "--state", &state];
    all.extend(arguments);
    measure::run(Path::new(NOVELLA), &all, &scratch.join("output"))
}

fn timed(deed: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    deed();
    begun.elapsed()
}

fn middle(runs: &[Run]) -> Duration {
    median(&runs.iter().map(|run| run.time).collect::<Vec<_>>())
}

fn peak(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.memory).max().unwrap_or_default()
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn row(name: &str, time: Duration, memory: Option<u64>, plain: Option<Duration>) {
    let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1000.0);
    let memory = memory.map_or_else(String::new, |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)));
    let against = plain.map_or_else(String::new, |plain| format!("{:>13}{:>8.2}", ms(plain), ratio(time, plain)));
    say(&format!("{name:<36}{:>12}{memory:>14}{against}", ms(time)));
}

fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output");
}
