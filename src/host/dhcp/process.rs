//! Running dnsmasq processes, as `/proc` tells of them.
//!
//! A pid alone names nobody: a pid file outlives its process, and the number is given to another. A process is one of
//! ours when it is a dnsmasq of root or of the service user, in our network namespace, whose command line names our pid
//! file.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end when it is asked to, and again when it is killed.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running dnsmasq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    parent: i32,
    /// The command line without the program.
    pub arguments: Vec<OsString>,
}

impl Process {
    /// The dnsmasq with this pid, of root or of this user. None where there is no such process, or it is something else.
    pub fn read(pid: i32, uid: u32) -> Option<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // A zombie has no command line.
        let line = fs::read(proc.join("cmdline")).ok()?;
        let mut words = line.strip_suffix(b"\0")?.split(|byte| *byte == 0);
        if Path::new(OsStr::from_bytes(words.next()?)).file_name()? != "dnsmasq" {
            return None;
        }
        let arguments = words.map(|word| OsString::from_vec(word.to_vec())).collect();
        let status = fs::read_to_string(proc.join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next();
        // Anybody may run a dnsmasq with our arguments, but only root becomes the service user.
        let owner: u32 = field("Uid:")?.parse().ok()?;
        let parent = field("PPid:")?.parse().ok()?;
        ((owner == 0 || owner == uid) && same_network(&proc)).then_some(Self { pid, parent, arguments })
    }

    /// The file that its pid is written to.
    pub fn pid_file(&self) -> Option<&Path> {
        self.arguments.iter().find_map(|argument| argument.as_bytes().strip_prefix(b"--pid-file=")).map(as_path)
    }

    /// Whether it waits for something to do, and so has done all that there was: a signal, or a file that it watches, wakes
    /// it up at once. A process that has ended rests as well.
    pub fn is_at_rest(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // What waits for a disk is not `S`, but `D`. The name before it is in parentheses, and may have some in it.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['S', 'Z', 'X']))
    }

    /// Sends it a signal. That it has ended by now is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// All dnsmasq processes of root or of this user in our network namespace.
pub(super) fn scan(uid: u32) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(pid.and_then(|pid| Process::read(pid, uid)));
    }
    Ok(found)
}

/// Those that are not the child of another: for each DNS connection over TCP, dnsmasq forks a child that looks like it.
pub(super) fn leaders<'a>(processes: &[&'a Process]) -> Vec<&'a Process> {
    processes.iter().copied().filter(|it| !processes.iter().any(|other| other.pid == it.parent)).collect()
}

/// Ends these processes, gently at first. Returns once they are gone, with their sockets.
pub(super) fn stop(processes: &[&Process], uid: u32) -> io::Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in processes {
            // Looked at once more, for its number may be another's by now.
            if Process::read(process.pid, uid).is_some_and(|now| now.arguments == process.arguments) {
                process.signal(signal)?;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if processes.iter().all(|it| ended(it.pid)) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    let pids: Vec<String> = processes.iter().map(|it| it.pid.to_string()).collect();
    Err(io::Error::other(format!("process {} does not end, not even when killed", pids.join(", "))))
}

/// Whether a dnsmasq has ended. The command line is no sign: it goes first, the sockets only after it.
fn ended(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let dead = |line: &str| line.strip_prefix("State:").is_some_and(|it| it.trim_start().starts_with(['Z', 'X']));
    !status.starts_with("Name:\tdnsmasq\n") || status.lines().any(dead)
}

/// Whether a process is in the network namespace of this thread. Where that cannot be told, it is taken to be.
fn same_network(proc: &Path) -> bool {
    match (fs::read_link(proc.join("ns/net")), fs::read_link("/proc/thread-self/ns/net")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
