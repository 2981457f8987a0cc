//! The socket of the daemon: what it does just now, in the midst of a pass too.
//!
//! `novella.sock` in the directory of the state is for the owner of the daemon and root. A client writes one request, a JSON
//! object on a line, and gets one answer of that form:
//!
//! ```text
//! → {"version":1,"ask":"now"}
//! ← {"version":1,"now":{"pass_since":1790000000,"steps":[{"address":"server.web","object":"…","deed":"ensure","since":…}]}}
//! ← {"version":1,"error":"…"}
//! ```
//!
//! Clients do not disturb the daemon: each has a thread of its own for a moment, there are so many at most, and a line has so
//! many bytes at most. What they ask changes nothing. Who is alive says the lock of the daemon, so that who has it may replace
//! a socket that another has left.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::apply::Event;
use crate::plan::Deed;
use crate::plan::diff::Change;
use crate::value::unix_now;

const VERSION: u32 = 1;

/// The longest line that is read.
const LONGEST: u64 = 64 * 1024;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many clients are served at once.
const MOST: usize = 64;

/// The longest path that a socket can have, in bytes.
const LONGEST_PATH: usize = 107;

/// What a daemon does just now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Since when a pass runs, in seconds since 1970 (UTC); none if none does.
    pub pass_since: Option<u64>,
    /// The steps that run.
    pub steps: Vec<Running>,
}

/// A step that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The resource.
    pub address: String,
    /// The object.
    pub object: String,
    /// What is done to it.
    pub deed: String,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
}

/// Keeps account of what is done.
#[derive(Debug, Default)]
pub struct Work(Mutex<Now>);

impl Work {
    /// A pass begins. It has ended when what is given back is dropped.
    pub fn pass(&self) -> InPass<'_> {
        self.change(|now| now.pass_since = Some(unix_now()));
        InPass(self)
    }

    /// Something happened to a step.
    pub fn event(&self, change: &Change, deed: Deed, event: &Event<'_>) {
        let object = change.key.to_string();
        let deed = deed.as_str();
        self.change(|now| match event {
            Event::Started => {
                now.steps.push(Running {
                    address: change.address.to_string(),
                    object,
                    deed: deed.into(),
                    since: unix_now(),
                });
            }
            Event::Retrying { .. } => {}
            Event::Done { .. } | Event::Failed { .. } | Event::Skipped => {
                now.steps.retain(|step| (step.object.as_str(), step.deed.as_str()) != (object.as_str(), deed));
            }
        });
    }

    fn now(&self) -> Now {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A pass that runs.
#[derive(Debug)]
pub struct InPass<'a>(&'a Work);

impl Drop for InPass<'_> {
    fn drop(&mut self) {
        self.0.change(|now| *now = Now::default());
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    version: u32,
    ask: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Answer {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<Now>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Where the socket of the daemon of the state in `state` is.
pub fn path(state: &Path) -> PathBuf {
    state.join("novella.sock")
}

/// Serves, until it is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to serve. Only who has the lock of the daemon may: what is there is taken for left by a dead one.
    ///
    /// # Errors
    /// When there is something else in its place, or no socket can be made.
    pub fn begin(state: &Path, work: Arc<Work>) -> io::Result<Self> {
        let path = path(state);
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.file_type().is_socket() => fs::remove_file(&path)?,
            Ok(_) => return Err(io::Error::other("there is something else in its place")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = short(&path, |path| {
            // Nobody else may connect at any time, not even before its mode could be changed.
            let before = umask(Mode::from_bits_truncate(0o177));
            let listener = UnixListener::bind(path);
            umask(before);
            listener
        })?;
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let thread = thread::Builder::new().name("socket".into()).spawn(move || serve(&listener, &work, &is_over))?;
        Ok(Self { path, ends, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // It wakes up, and sees that it is over. Where it cannot be woken up, it goes with the process.
        if short(&self.path, |path| UnixStream::connect(path)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Does something with a path that is short enough for a socket.
fn short<T>(path: &Path, deed: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.as_os_str().len() > LONGEST_PATH => {
            let parent = File::open(parent)?;
            deed(&Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name))
        }
        _ => deed(path),
    }
}

fn serve(listener: &UnixListener, work: &Arc<Work>, ends: &AtomicBool) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = listener.accept();
        if ends.load(Ordering::SeqCst) {
            return;
        }
        let Ok((client, _)) = client else {
            // No file handles are left, perhaps.
            thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Those who come when there are too many find their connection closed.
        if clients.load(Ordering::SeqCst) >= MOST {
            continue;
        }
        clients.fetch_add(1, Ordering::SeqCst);
        let (work, counted) = (Arc::clone(work), Arc::clone(&clients));
        let spawned = thread::Builder::new().name("client".into()).spawn(move || {
            // A client that has left, or takes too long, gets no answer.
            let _ = answer(&client, &work);
            counted.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn answer(client: &UnixStream, work: &Work) -> io::Result<()> {
    client.set_write_timeout(Some(PATIENCE))?;
    let answer = match ask_of(client)? {
        Ok(()) => Answer { version: VERSION, now: Some(work.now()), error: None },
        Err(error) => Answer { version: VERSION, now: None, error: Some(error) },
    };
    write(client, &answer)
}

/// Whether it asks something that is answered.
fn ask_of(client: &UnixStream) -> io::Result<Result<(), String>> {
    let peer = getsockopt(client, PeerCredentials)?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Ok(Err("this daemon is another user's".into()));
    }
    let line = read_line(client)?;
    Ok(match serde_json::from_slice::<Request>(&line) {
        Err(error) => Err(format!("this is no request: {error}")),
        Ok(Request { version, .. }) if version != VERSION => {
            Err(format!("version {version} is not spoken here, but {VERSION}"))
        }
        Ok(Request { ask, .. }) if ask == "now" => Ok(()),
        Ok(Request { ask, .. }) => Err(format!("`{}` cannot be asked", ask.escape_default())),
    })
}

/// Reads a line, or what there is of it when it is too long. One who writes slowly has no more time for that.
fn read_line(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(LONGEST);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let there = reader.fill_buf()?;
        let end = there.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&there[..end.unwrap_or(there.len())]);
        let used = end.map_or(there.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() || used == 0 {
            return Ok(line);
        }
    }
}

fn write(mut stream: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Asks the daemon of the state in `state` what it does just now.
///
/// # Errors
/// When it does not answer.
pub fn ask(state: &Path) -> io::Result<Now> {
    let stream = short(&path(state), |path| UnixStream::connect(path))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write(&stream, &Request { version: VERSION, ask: "now".into() })?;
    let answer: Answer = serde_json::from_slice(&read_line(&stream)?)?;
    answer.now.ok_or_else(|| io::Error::other(answer.error.unwrap_or_default()))
}
