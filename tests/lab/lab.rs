//! A lab of a test's own, and novella run in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use crate::read;

pub const NOVELLA: &str = env!("CARGO_BIN_EXE_novella");
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAMS: [&str; 14] = [
    "libvirtd",
    "virtlogd",
    "virsh",
    "qemu-system-x86_64",
    "qemu-img",
    "dnsmasq",
    "nft",
    "ip",
    "ping",
    "busybox",
    "cpio",
    "nsenter",
    "unshare",
    "pgrep",
];

/// Two guests at once are all that two processors bear without missing every deadline.
static GUESTS: Mutex<()> = Mutex::new(());

/// A lab. It is taken down when it is dropped.
pub struct Lab {
    name: String,
    dir: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
    pub took: Duration,
}

/// A novella that runs.
pub struct Running {
    child: Child,
    /// The process itself, not those that brought it into the lab; none if it had ended before it was found.
    pub pid: Option<Pid>,
    begun: Instant,
    out: PathBuf,
    err: PathBuf,
}

impl Lab {
    /// A lab for a test that boots guests. One at a time.
    pub fn with_guests(name: &str) -> Option<Self> {
        Self::up(name, None, Some(GUESTS.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A lab that is another system, with the files of a directory and with its systemd, for a test that boots guests.
    pub fn of(name: &str, root: &Path) -> Option<Self> {
        Self::up(name, Some(root), Some(GUESTS.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// A lab for a test that boots none, or does not care when they are up.
    pub fn without_guests(name: &str) -> Option<Self> {
        Self::up(name, None, None)
    }

    fn up(name: &str, root: Option<&Path>, turn: Option<MutexGuard<'static, ()>>) -> Option<Self> {
        static READY: OnceLock<Result<(), String>> = OnceLock::new();
        if let Err(reason) = READY.get_or_init(prepare) {
            skip(reason);
            return None;
        }
        let lab = Self {
            name: format!("test-{}-{name}", std::process::id()),
            dir: tempfile::tempdir().expect("a directory"),
            _turn: turn,
        };
        fs::create_dir(lab.specs()).expect("a directory");
        let mut up = script("lab");
        up.args(["up", "--name", &lab.name]);
        if let Some(root) = root {
            up.arg("--root").arg(root);
        }
        let up = up.output().expect("scripts/lab");
        let said = String::from_utf8_lossy(&up.stderr);
        if said.contains("Operation not permitted") {
            skip(&format!("a lab cannot be made here: {said}"));
            return None;
        }
        assert!(up.status.success(), "no lab: {said}");
        Some(lab)
    }

    /// Where the test may keep what it likes.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn specs(&self) -> PathBuf {
        self.dir.path().join("specs")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Makes this the whole spec.
    pub fn spec(&self, text: &str) {
        fs::write(self.specs().join("spec.toml"), text).expect("a spec");
    }

    /// A command in the lab.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = script("lab");
        command.args(["exec", "--name", &self.name, "--"]).arg(program).stdin(Stdio::null());
        for variable in ["RUST_LOG", "NOVELLA_SPECS", "NOVELLA_STATE", "NOVELLA_BACKEND"] {
            command.env_remove(variable);
        }
        command
    }

    /// What a shell script says in the lab. It must succeed.
    pub fn sh(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.try_sh(script);
        let (said, cried) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{script}\n{status}\n{said}{cried}");
        said.trim_end().to_owned()
    }

    /// A shell script in the lab, with whatever comes of it.
    pub fn try_sh(&self, script: &str) -> Output {
        self.command("sh").args(["-c", script]).output().expect("scripts/lab")
    }

    /// The arguments that every run of novella here has.
    pub fn globals(&self) -> [PathBuf; 4] {
        ["--specs".into(), self.specs(), "--state".into(), self.state()]
    }

    /// Runs novella to its end.
    pub fn novella(&self, arguments: &[&str]) -> Run {
        self.start(arguments).wait()
    }

    /// Starts novella.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(NOVELLA);
        command.args(self.globals()).args(arguments);
        // Files, for a pipe would be held open by whatever a killed run leaves behind.
        let output = |name: &str| {
            let named = tempfile::Builder::new().prefix(name).tempfile_in(self.dir()).expect("a file");
            named.keep().expect("a file")
        };
        let ((out, out_path), (err, err_path)): ((File, PathBuf), (File, PathBuf)) = (output("out."), output("err."));
        let begun = Instant::now();
        let mut child = command.stdout(out).stderr(err).spawn().expect("scripts/lab");
        let mut pid = None;
        while pid.is_none() && child.try_wait().expect("a child").is_none() {
            pid = descendant(Pid::from_raw(child.id().cast_signed()), NOVELLA);
        }
        Running { child, pid, begun, out: out_path, err: err_path }
    }

    /// Applies, and expects it to come to its end.
    pub fn apply(&self) -> Run {
        self.novella(&["apply", "--auto-approve"]).success()
    }

    /// Destroys, and expects it to come to its end.
    pub fn destroy(&self) -> Run {
        self.novella(&["destroy", "--auto-approve"]).success()
    }

    /// The changes of the plan, as [`read::changes`] gives them. The exit code must agree.
    pub fn plan(&self) -> Vec<String> {
        let run = self.novella(&["plan", "--detailed-exitcode"]);
        let changes = read::changes(&run.out);
        let expected = if changes.is_empty() { 0 } else { 2 };
        assert_eq!(run.status.code(), Some(expected), "{run:#?}");
        changes
    }

    pub fn assert_settled(&self, case: &str) {
        let changes = self.plan();
        assert!(changes.is_empty(), "{case}: the plan is not empty: {changes:#?}");
    }

    /// Checks that the plan has just these changes, applies it, checks that just these steps were done and that nothing
    /// is left to do. Gives the run that applied.
    pub fn assert_repaired(&self, case: &str, planned: &[&str], done: &[&str]) -> Run {
        assert_eq!(self.plan(), planned, "{case}: the plan");
        let run = self.apply();
        let mut done: Vec<&str> = done.to_vec();
        done.sort_unstable();
        assert_eq!(read::steps(&run.out), done, "{case}: the steps");
        self.assert_settled(case);
        run
    }

    /// Waits until the guest at an address answers, and gives its name and boot id.
    pub fn guest(&self, address: &str) -> (String, String) {
        self.until(&format!("the guest at {address} answers"), || {
            let said = self.page(address, "/", 2)?;
            let (name, boot) = said.trim_end().split_once(' ')?;
            boot.contains('-').then(|| (name.to_owned(), boot.to_owned()))
        })
    }

    /// What the guest at an address serves; none if it does not answer in so many seconds.
    pub fn page(&self, address: &str, path: &str, seconds: u32) -> Option<String> {
        // No client of HTTP is everywhere, but bash is.
        let ask = format!("exec 3<>/dev/tcp/{address}/80 && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
        let mut command = self.command("timeout");
        let answer = command.args([&seconds.to_string(), "bash", "-c", &ask]).output().expect("scripts/lab");
        let answer = String::from_utf8_lossy(&answer.stdout).replace('\r', "");
        answer.split_once("\n\n").filter(|_| answer.contains(" 200 ")).map(|(_, page)| page.to_owned())
    }

    /// Looks until there is something to see, and panics with all that may tell why there is not.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            if Instant::now() >= deadline {
                let state = self.sh(
                    "virsh -q list --all; ip -br link; ip -br addr; bridge link; tail -n 5 /var/log/libvirt/*.log \
                         /var/log/libvirt/qemu/*.log; tail -n 20 /var/lib/novella/*/instances/*/console.log \
                         /var/lib/novella/*/networks/*/log /var/lib/novella/*/networks/*/leases \
                         /var/lib/novella/*/networks/*/hosts/* 2>&1; \
                         journalctl --no-pager -n 40 -u novella 2>&1; true",
                );
                panic!("it never comes to be that {what}:\n{state}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a guest has said a line on its console that begins so, in its last boot. Gives the last such line.
    pub fn said(&self, server: &str, beginning: &str) -> String {
        self.until(&format!("{server} says {beginning:?}"), || {
            self.console(server).into_iter().rev().find(|line| line.starts_with(beginning))
        })
    }

    /// Asks the DNS server at an address, as a program on the host does: with an empty `kind` for the addresses of a name, or
    /// the name of an address. Gives the values of the answer, sorted.
    pub fn resolve(&self, kind: &str, name: &str, server: &str) -> Vec<String> {
        let kind = if kind.is_empty() { String::new() } else { format!("-type={kind}") };
        let said = self.try_sh(&format!("timeout 5 busybox nslookup {kind} {name} {server} 2>&1"));
        answers(&String::from_utf8_lossy(&said.stdout))
    }

    /// Waits until the guest at an address answers, and gives the id of its boot.
    pub fn boot_of(&self, address: &str) -> String {
        self.guest(address).1
    }

    /// Waits until the guest at an address answers from another boot than this, and gives its id.
    pub fn boot_after(&self, before: &str, address: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let boot = self.boot_of(address);
            if boot != before {
                return boot;
            }
            assert!(Instant::now() < deadline, "{address} was not booted anew");
        }
    }

    /// The lines that a guest has said on its console about itself, since it was first started.
    pub fn console(&self, server: &str) -> Vec<String> {
        let said = self.sh(&format!("cat /var/lib/novella/default/instances/{server}/console.log"));
        said.lines().filter_map(|line| Some(line.trim().strip_prefix("novella-guest: ")?.to_owned())).collect()
    }

    /// The processes in the lab with this name.
    pub fn count(&self, process: &str) -> usize {
        self.sh(&format!("pgrep -c -x {process} || true")).parse().expect("a number")
    }

    /// All that novella could leave behind, one thing a line: domains, links, nft tables, processes, files.
    pub fn inventory(&self) -> Vec<String> {
        let all = self.sh("virsh -q list --all --name | sed '/^$/d; s/^/domain /'
             ls -1 /sys/class/net | sed '/^lo$/d; s/^/link /'
             nft list tables | sed 's/^/nft /'
             ps -eo comm= | grep -E '^(dnsmasq|qemu|novella)' | sed 's/^/process /'
             find /var/lib/novella -mindepth 1 2>/dev/null | sed 's/^/file /'");
        let mut all: Vec<String> = all.lines().map(str::to_owned).collect();
        all.sort();
        all
    }

    /// What is left of that when all was destroyed: whole images stay in the cache.
    pub fn left(&self) -> Vec<String> {
        let is_kept = |line: &String| {
            let rest = line.strip_prefix("file /var/lib/novella/").unwrap_or("none");
            let cached = rest.split_once('/').map_or("base", |(_, rest)| rest);
            let is_part = [".part", ".unpacked", ".converted", ".tmp"].iter().any(|part| cached.contains(part));
            (cached == "base" || cached.starts_with("base/")) && !is_part
        };
        self.inventory().into_iter().filter(|line| !is_kept(line)).collect()
    }

    /// Pings an address until it is told to stop.
    pub fn ping(&self, address: &str) -> Ping {
        let mut command = self.command("ping");
        command.args(["-n", "-i", "0.1", address]).stdout(Stdio::piped());
        let child = command.spawn().expect("scripts/lab");
        let mut ping = Ping { child, pid: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        while ping.pid.is_none() {
            assert!(Instant::now() < deadline, "ping does not start");
            ping.pid = descendant(Pid::from_raw(ping.child.id().cast_signed()), "ping");
        }
        // It is seen a moment before it is ready for the signal that stops it.
        thread::sleep(Duration::from_millis(150));
        ping
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = script("lab").args(["down", "--name", &self.name]).status();
        if !thread::panicking() {
            assert!(down.expect("scripts/lab").success(), "the lab is still up");
        }
    }
}

/// A ping that goes on.
pub struct Ping {
    child: Child,
    pid: Option<Pid>,
}

impl Ping {
    /// Stops it, and tells how many packets were sent and how many of them were lost.
    pub fn stop(self) -> (u32, u32) {
        // The answer to the last one is on its way.
        thread::sleep(Duration::from_millis(50));
        signal::kill(self.pid.expect("a ping"), Signal::SIGINT).expect("ping runs");
        let said = self.child.wait_with_output().expect("ping ends");
        let said = String::from_utf8_lossy(&said.stdout);
        let line = said.lines().find(|line| line.contains("packets transmitted")).expect("a summary");
        let numbers: Vec<u32> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).take(2).collect();
        (numbers[0], numbers[0] - numbers[1])
    }
}

impl Run {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn success(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }
}

impl Running {
    /// Sends a signal to novella itself. Tells whether it was there to get it.
    pub fn signal(&self, signal: Signal) -> bool {
        self.pid.is_some_and(|pid| descendant(self.top(), NOVELLA) == Some(pid) && signal::kill(pid, signal).is_ok())
    }

    /// Lets novella go on that was stopped by a signal, and with it who brought it into the lab: `nsenter` stops as its child does.
    pub fn resume(&self) {
        for pid in self.pid.into_iter().chain([self.top()]) {
            signal::kill(pid, Signal::SIGCONT).expect("it is there");
        }
    }

    fn top(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it has not ended yet.
    pub fn is_going_on(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// What it has said so far.
    pub fn so_far(&self) -> String {
        fs::read_to_string(&self.out).expect("its output")
    }

    /// What it has said so far on standard error.
    pub fn err_so_far(&self) -> String {
        fs::read_to_string(&self.err).expect("its output")
    }

    /// Waits until it has said something.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.so_far().contains(text) {
            assert!(Instant::now() < deadline, "it never says {text:?}:\n{}", self.so_far());
            assert!(self.is_going_on() || self.so_far().contains(text), "it never said {text:?}:\n{}", self.so_far());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn wait(mut self) -> Run {
        let status = self.child.wait().expect("a child");
        let took = self.begun.elapsed();
        let read = |path| {
            let text = fs::read_to_string(path).expect("its output");
            fs::remove_file(path).expect("its output");
            text
        };
        Run { status, out: read(&self.out), err: read(&self.err), took }
    }
}

/// Compares two texts by line, and panics with the lines that differ.
#[track_caller]
pub fn assert_same(is: &str, was: &str, case: &str) {
    let only = |one: &str, other: &str| -> Vec<String> {
        let other: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect()
    };
    let first = is.lines().zip(was.lines()).find(|(is, was)| is != was);
    assert!(is == was, "{case}\nis:  {:#?}\nwas: {:#?}\nfirst: {first:#?}", only(is, was), only(was, is));
}

/// The values in what `nslookup` says, sorted.
pub fn answers(said: &str) -> Vec<String> {
    // The server tells its own address first, with a port.
    let value = |line: &str| {
        let address = || line.strip_prefix("Address: ").filter(|address| address.parse::<std::net::IpAddr>().is_ok());
        line.split_once(" = ").map(|(_, value)| value).or_else(address).map(str::to_owned)
    };
    let mut values: Vec<String> = said.lines().filter_map(value).collect();
    values.sort();
    values
}

/// Says why a test is not run.
#[allow(clippy::print_stderr, reason = "as other tests do it")]
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Says something that helps to find out why a test failed; shown when it does.
#[allow(clippy::print_stdout, reason = "what a test prints is kept until it fails")]
pub fn note(text: impl std::fmt::Display) {
    println!("{text}");
}

/// The directory of the guest's files.
pub fn guest_dir() -> PathBuf {
    Path::new(ROOT).join("target/guest")
}

/// A script of this repository.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(Path::new(ROOT).join("scripts").join(name));
    command.current_dir(ROOT);
    command
}

/// Sees to it that labs can be made, and builds the guest.
fn prepare() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("only root may make labs".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if let Some(missing) = PROGRAMS.iter().find(|program| !there(program)) {
        return Err(format!("`{missing}` is not installed"));
    }
    let guest = script("guest").output().map_err(|error| format!("scripts/guest: {error}"))?;
    if !guest.status.success() {
        return Err(format!("no guest: {}", String::from_utf8_lossy(&guest.stderr)));
    }
    sweep();
    Ok(())
}

/// Takes down the labs of test programs that were killed.
fn sweep() {
    let labs = script("lab").arg("list").output().expect("scripts/lab");
    for name in String::from_utf8_lossy(&labs.stdout).lines() {
        let pid = name.strip_prefix("test-").and_then(|rest| rest.split('-').next()?.parse::<i32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = script("lab").args(["down", "--name", name]).status();
        }
    }
}

/// The process below another that runs this program.
fn descendant(top: Pid, program: &str) -> Option<Pid> {
    let mut waiting = vec![top];
    while let Some(pid) = waiting.pop() {
        let runs = fs::read_link(format!("/proc/{pid}/exe")).ok();
        if runs.is_some_and(|exe| exe == Path::new(program) || exe.file_name() == Some(OsStr::new(program))) {
            return Some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        waiting.extend(children.split_whitespace().filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?))));
    }
    None
}

/// The beginning of every spec here: a network with NAT, a network without a way out, an image, and flavors.
///
/// Emulation is asked for, so that a test does the same on every machine.
pub fn base() -> String {
    let guest = guest_dir();
    let guest = guest.display();
    format!(
        r#"
novella = 1

[host.local]
virt_type = "qemu"
cpu_allocation_ratio = 64.0
disk_allocation_ratio = 64.0
trash_ttl = "0"

[network.private]
[subnet.private-v4]
network = "private"
cidr = "10.20.0.0/24"

[network.back]
forward = "isolated"
[subnet.back-v4]
network = "back"
cidr = "10.30.0.0/24"

[image.tiny]
source = "{guest}/disk.qcow2"
format = "qcow2"
kernel = "{guest}/vmlinuz"
initrd = "{guest}/initramfs.gz"
cmdline = "{cmdline}"

[flavor.small]
ram = "96 MiB"
disk = "64 MiB"
"#,
        cmdline = fs::read_to_string(guest_dir().join("cmdline")).expect("a command line").trim(),
    )
}

/// A server on the network `private`, with more said of it.
pub fn server(name: &str, more: &str) -> String {
    format!("\n[server.{name}]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\n{more}\n")
}
