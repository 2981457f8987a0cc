//! The real world: the clock, inotify(7), signals.
//!
//! Directories are watched and not files, for a file that is renamed into its place is another file. What makes a directory
//! another one is seen in the one above it; where not even that tells, [`Outside::listen`] looks for itself each time.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::desired::Desired;
use crate::spec::lock;
use crate::value::unix_now;
use crate::watch::asked::Asked;
use crate::watch::daemon::{Wake, World};
use crate::watch::events::{Events, Heard, Tell};
use crate::watch::pending::APPROVAL;
use crate::watch::settle::Sign;

/// The world as it is.
pub struct Outside {
    begun: Instant,
    /// Where the daemon writes.
    dir: PathBuf,
    sender: Sender<Wake>,
    receiver: Receiver<Wake>,
    watched: Option<Watched>,
    hears_host: bool,
    events: Option<Events>,
    /// Whether it was said that something happened on the host, and nobody has taken note of it yet: that is said once.
    is_told: Arc<AtomicBool>,
}

/// What is listened to.
struct Watched {
    places: BTreeSet<Place>,
    files: Vec<PathBuf>,
    /// Listens as long as it lives.
    _watcher: RecommendedWatcher,
}

/// A directory, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    path: PathBuf,
    identity: (u64, u64),
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
        Some(Self { path: path.to_owned(), identity: (found.dev(), found.ino()) })
    }
}

impl Outside {
    /// The world of a daemon that writes in `dir`.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        Ok(Self {
            begun: Instant::now(),
            dir: std::path::absolute(dir)?,
            sender,
            receiver,
            watched: None,
            hears_host: false,
            events: None,
            is_told: Arc::default(),
        })
    }

    /// Hears signals: SIGTERM and SIGINT set `stop` and end the daemon after the steps that run, a second one at once, with
    /// the code `at_once`; SIGHUP asks for a pass.
    ///
    /// # Errors
    /// When they cannot be heard.
    pub fn hear_signals(&self, stop: Arc<AtomicBool>, at_once: u8) -> io::Result<()> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let wake = if signal == SIGHUP { Wake::Now } else { Wake::End };
                if matches!(wake, Wake::End) && stop.swap(true, Ordering::SeqCst) {
                    std::process::exit(at_once.into());
                }
                // Who does not receive any more has come to its end.
                let _ = sender.send(wake);
            }
        });
        Ok(())
    }

    /// Takes what the daemon is asked to do.
    pub fn asks(&self) -> Box<dyn Fn(Asked) + Send + Sync> {
        let sender = self.sender.clone();
        // What comes too late is dropped, and its client told so.
        Box::new(move |asked| drop(sender.send(Wake::Asked(asked))))
    }

    /// Also hears what happens on this machine.
    pub const fn hear_host(&mut self) {
        self.hears_host = true;
    }

    fn tell(&self) -> Tell {
        let (sender, is_told) = (Mutex::new(self.sender.clone()), Arc::clone(&self.is_told));
        Arc::new(move |heard| {
            let wake = match heard {
                Heard::Something if is_told.swap(true, Ordering::SeqCst) => return,
                Heard::Something => Wake::Host,
                Heard::Libvirt => Wake::Now,
            };
            let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).send(wake);
        })
    }

    fn watch(&self, ears: Ears, places: &BTreeSet<Place>) -> notify::Result<RecommendedWatcher> {
        let sender = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            for wake in ears.hear(event) {
                let _ = sender.send(wake);
            }
        })?;
        for place in places {
            watcher.watch(&place.path, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

impl World for Outside {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn unix(&self) -> u64 {
        unix_now()
    }

    fn wait(&mut self, most: Duration) -> Option<Wake> {
        // This world has a sender itself, so that there is always one: nothing came in time.
        let wake = self.receiver.recv_timeout(most).ok();
        if matches!(wake, Some(Wake::Host)) {
            self.is_told.store(false, Ordering::SeqCst);
        }
        wake
    }

    fn listen(&mut self, directories: &[PathBuf], files: &[PathBuf]) -> Result<(), String> {
        let absolute = |paths: &[PathBuf]| paths.iter().map(std::path::absolute).collect::<io::Result<Vec<PathBuf>>>();
        let both = absolute(directories).and_then(|directories| Ok((directories, absolute(files)?)));
        let (directories, files) = both.map_err(|error| error.to_string())?;
        let above = directories.iter().chain(&files).filter_map(|path| path.parent());
        let inside = directories.iter().chain([&self.dir]).map(PathBuf::as_path);
        let places: BTreeSet<Place> = above.chain(inside).filter_map(Place::of).collect();
        if self.watched.as_ref().is_some_and(|it| it.places == places && it.files == files) {
            return Ok(());
        }
        // The old one goes first: what it holds is not without limit.
        self.watched = None;
        let ears = Ears { directories, files: files.clone(), approval: self.dir.join(APPROVAL) };
        let watcher = self.watch(ears, &places).map_err(|error| error.to_string())?;
        self.watched = Some(Watched { places, files, _watcher: watcher });
        // What happened between the two was not heard.
        let _ = self.sender.send(Wake::Spec(Sign::Changed));
        Ok(())
    }

    fn heed(&mut self, desired: &Desired) -> Result<(), String> {
        if !self.hears_host {
            return Ok(());
        }
        let mut events = match self.events.take().filter(|it| it.is_about(desired)) {
            Some(events) => events,
            None => Events::hear(desired, self.tell())?,
        };
        events.renew();
        self.events = Some(events);
        Ok(())
    }
}

/// Tells what concerns us from what does not.
struct Ears {
    /// The directories of the specs.
    directories: Vec<PathBuf>,
    /// The files that they name.
    files: Vec<PathBuf>,
    /// Where somebody says yes.
    approval: PathBuf,
}

impl Ears {
    fn hear(&self, event: notify::Result<Event>) -> Vec<Wake> {
        let event = match event {
            Ok(event) if event.need_rescan() => return vec![Wake::Spec(Sign::Changed)],
            Ok(event) => event,
            Err(_) => return vec![Wake::Spec(Sign::Changed)],
        };
        let sign: fn(PathBuf) -> Sign = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Sign::Closed,
            // Whoever reads the spec changes nothing, and so do we.
            EventKind::Access(_) => return Vec::new(),
            EventKind::Modify(ModifyKind::Data(_)) => Sign::Written,
            EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Sign::Closed,
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => |_| Sign::Changed,
        };
        let is_write = matches!(sign(PathBuf::new()), Sign::Written(_)) || matches!(event.kind, EventKind::Access(_));
        let wake = |path: PathBuf| match path {
            path if path == self.approval => Some(Wake::Now),
            path if self.is_of_spec(&path) => Some(Wake::Spec(sign(path))),
            // What is in the directory beside the spec may be where its files lead to.
            path if self.directories.contains(&path) || (self.is_inside(&path) && !is_write) => {
                Some(Wake::Spec(Sign::Changed))
            }
            _ => None,
        };
        event.paths.into_iter().filter_map(wake).collect()
    }

    fn is_of_spec(&self, path: &Path) -> bool {
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_lock = path.file_name().is_some_and(|name| name == lock::FILE);
        let is_file = is_lock || path.extension().is_some_and(|extension| extension == "toml");
        (self.is_inside(path) && is_file && !is_hidden) || self.files.iter().any(|file| file == path)
    }

    fn is_inside(&self, path: &Path) -> bool {
        self.directories.iter().any(|directory| path.parent() == Some(directory))
    }
}
