//! The side of the daemon.

use std::fs;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, geteuid};
use serde::Deserialize;

use crate::spec::{self, Inputs};
use crate::store::who;
use crate::watch::asked::{Asked, Client, Handed, Signs, Word};
use crate::watch::clients::{self, Counted};
use crate::watch::socket::protocol::{Answer, Ask, InForce, Refusal, Request, Told, VERSION};
use crate::watch::socket::work::Work;
use crate::watch::socket::{GLANCE, PATIENCE, path, short, write};

/// The longest line that is read: a plan of very many resources.
const LONGEST: u64 = 64 << 20;

/// From this length on, a line may take as long as [`PATIENCE_WITH_MUCH`].
const MUCH: usize = 64 << 10;

/// How long a client may take for a long line.
const PATIENCE_WITH_MUCH: Duration = Duration::from_secs(30);

/// How long a client that is told how a plan goes may read nothing, when there is no room for more.
const PATIENCE_WITH_READERS: Duration = Duration::from_secs(60);

/// How many clients are served at once.
const MOST: usize = 64;

/// How many steps of a handed plan run at once, at most.
const MOST_THREADS: usize = 256;

/// What clients are answered from.
pub struct Inside {
    /// What is done just now.
    pub work: Arc<Work>,
    /// Where the spec is.
    pub inputs: Inputs,
    /// Takes what the daemon is asked to do.
    pub ask: Box<dyn Fn(Asked) + Send + Sync>,
}

/// Serves, until it is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    ends: Arc<AtomicBool>,
    /// How many clients are told of what they asked for.
    followed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads of the server share.
struct Shared {
    inside: Inside,
    ends: Arc<AtomicBool>,
    followed: Arc<AtomicUsize>,
}

impl Server {
    /// Begins to serve. Only who has the lock of the daemon may: what is there is taken for left by a dead one.
    ///
    /// # Errors
    /// When there is something else in its place, or no socket can be made.
    pub fn begin(state: &Path, inside: Inside) -> io::Result<Self> {
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
        let (ends, followed) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let is_over = Arc::clone(&ends);
        let shared = Arc::new(Shared { inside, ends: Arc::clone(&ends), followed: Arc::clone(&followed) });
        let thread = thread::Builder::new().name("socket".into()).spawn(move || {
            let answers = move |client: UnixStream| answer(&client, &shared);
            clients::serve("client", MOST, &is_over, || listener.accept().map(|(client, _)| client), answers);
        })?;
        Ok(Self { path, ends, followed, thread: Some(thread) })
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
        // Those who wait for what comes of something are told, if they read.
        let deadline = Instant::now() + PATIENCE;
        while self.followed.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(GLANCE / 10);
        }
    }
}

fn answer(stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let uid = Uid::from_raw(getsockopt(stream, PeerCredentials)?.uid());
    let ask = match is_one_of_us(uid) {
        true => understand(&read_line(stream)?),
        false => Err("this daemon is another user's".into()),
    };
    let (client, told) = Client::new();
    let signs = Arc::clone(&client.signs);
    let inside = &shared.inside;
    let asked = match ask {
        Err(error) => return say(stream, Told::Error(error)),
        Ok(Ask::Now) => return say(stream, Told::Now(inside.work.now())),
        Ok(Ask::Spec) => return say(stream, spec_in_force(&inside.inputs)),
        Ok(Ask::Stop) => return say(stream, Told::Error("there is nothing to stop".into())),
        Ok(Ask::Approve { digest, allow_mass_delete, by }) => {
            Asked::Approve(Word { digest, allow_mass_delete, by: who::named(uid, by), client })
        }
        Ok(Ask::Apply { plan, parallelism, by }) => {
            let parallelism = parallelism.clamp(1, MOST_THREADS);
            Asked::Apply(Box::new(Handed { plan: *plan, parallelism, by: who::named(uid, by), client }))
        }
    };
    let _followed = Counted::new(&shared.followed);
    // One that has left by now is not there when it is judged.
    hear(stream, &mut Vec::new(), &signs);
    (inside.ask)(asked);
    follow(stream, &told, &signs, &shared.ends)
}

fn is_one_of_us(uid: Uid) -> bool {
    uid.is_root() || uid == geteuid()
}

fn say(stream: &UnixStream, told: Told) -> io::Result<()> {
    write(stream, &Answer { version: VERSION, told })
}

fn spec_in_force(inputs: &Inputs) -> Told {
    let directory = std::path::absolute(&inputs.directory).unwrap_or_else(|_| inputs.directory.clone());
    Told::Spec(InForce {
        digest: spec::load_with(inputs).source.digest(),
        directory: directory.display().to_string(),
        novella: env!("CARGO_PKG_VERSION").into(),
    })
}

/// Tells a client what comes of what it has asked for, and hears whether it has something to say.
fn follow(stream: &UnixStream, told: &Receiver<Told>, signs: &Signs, ends: &AtomicBool) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE_WITH_READERS))?;
    let mut heard = Vec::new();
    let mut is_begun = false;
    loop {
        match told.recv_timeout(GLANCE) {
            Ok(told) => {
                is_begun = true;
                let is_last = told.is_last();
                let told = say(stream, told);
                if is_last || told.is_err() {
                    return told;
                }
            }
            Err(RecvTimeoutError::Timeout) if signs.lost.load(Ordering::SeqCst) => return Ok(()),
            Err(RecvTimeoutError::Timeout) if is_begun || !ends.load(Ordering::SeqCst) => {}
            Err(RecvTimeoutError::Disconnected) if is_begun => return Ok(()),
            // What nobody has begun, nobody will.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return say(stream, Told::Refused(Refusal::new("the daemon ends; nothing was done")));
            }
        }
        hear(stream, &mut heard, signs);
    }
}

/// Takes what a client says meanwhile, without waiting for it.
fn hear(stream: &UnixStream, heard: &mut Vec<u8>, signs: &Signs) {
    if signs.gone.load(Ordering::SeqCst) {
        return;
    }
    let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::ZERO).is_err() {
        return;
    }
    let signals = ready[0].revents().unwrap_or_else(PollFlags::empty);
    if signals.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
        signs.gone.store(true, Ordering::SeqCst);
    } else if signals.contains(PollFlags::POLLIN) {
        let mut bytes = [0; 1024];
        let count = recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
        heard.extend_from_slice(&bytes[..count]);
        let stops = |line: &[u8]| serde_json::from_slice::<Request>(line).is_ok_and(|it| matches!(it.ask, Ask::Stop));
        if heard.split(|byte| *byte == b'\n').any(stops) {
            signs.stop.store(true, Ordering::SeqCst);
        }
        // Whoever says so much says nothing that we understand.
        heard.truncate(bytes.len());
    }
}

/// What a line asks for, or why it is not answered.
fn understand(line: &[u8]) -> Result<Ask, String> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
        ask: String,
    }
    let no_request = |error| format!("this is no request: {error}");
    let Head { version, ask } = serde_json::from_slice(line).map_err(no_request)?;
    if version != VERSION {
        return Err(format!("version {version} is not spoken here, but {VERSION}"));
    }
    if !Ask::WORDS.contains(&ask.as_str()) {
        return Err(format!("`{}` cannot be asked", ask.escape_default()));
    }
    serde_json::from_slice::<Request>(line).map(|request| request.ask).map_err(no_request)
}

/// Reads a line, or what there is of it when it is too long. One who writes slowly has no more time for that.
fn read_line(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let begun = Instant::now();
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream).take(LONGEST);
    loop {
        let patience = if line.len() < MUCH { PATIENCE } else { PATIENCE_WITH_MUCH };
        let left = patience.saturating_sub(begun.elapsed());
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
