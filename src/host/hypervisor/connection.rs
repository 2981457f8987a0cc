//! Connections to libvirt: opened when they are needed, watched, kept for the next deed, and opened anew when they break.
//!
//! A deed has a connection to itself. On one that is shared, keepalive frees only one of the threads that wait for a
//! libvirtd that hangs, and the others wait for ever (libvirt 9.0, `virNetClientIOEventLoop`); and libvirtd does not read
//! the signs of life of a client that has five calls running (`max_client_requests`). A libvirtd that hangs is found by
//! keepalive; one that hangs while a connection is opened, by a deadline.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::error::{Error, ErrorDomain, ErrorNumber};

use crate::host::HostError;

/// Seconds between two signs of life, and how many may be missing: a silent libvirtd is given up after 20 s.
const KEEPALIVE: (i32, u32) = (5, 3);

/// How long opening may take. Keepalive begins only after it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// The pauses before a broken deed is tried again. A libvirtd that is restarted is back within them.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// What libvirt said of a failure, without the numbers it adds.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message())]
pub struct LibvirtError(pub Error);

/// A deed that libvirt refused, or could not be asked for.
pub(super) fn failed(deed: impl Into<String>, error: Error) -> HostError {
    let passing = lost_in_transit(&error) || is(&error, &[ErrorNumber::OperationTimeout, ErrorNumber::ResourceBusy]);
    HostError::new(deed, LibvirtError(error)).transient(passing)
}

/// Whether the error is one of these.
pub(super) fn is(error: &Error, codes: &[ErrorNumber]) -> bool {
    error.code().known().is_some_and(|code| codes.contains(&code))
}

/// Whether the error tells of the way to libvirt and not of libvirt.
pub(super) fn lost_in_transit(error: &Error) -> bool {
    error.domain().is(ErrorDomain::Rpc)
}

/// The connections to one URI.
pub(super) struct Connection {
    uri: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that no deed uses.
    idle: Vec<Connect>,
    /// Since when one is being opened.
    opening: Option<Instant>,
    /// Why the last one was not opened.
    failed: Option<Error>,
}

/// Why there is no connection.
enum NotOpen {
    Refused(Error),
    Silent,
}

impl Connection {
    /// # Errors
    /// When the URI is one that must not or cannot be used.
    pub fn new(uri: &str) -> Result<Self, HostError> {
        let refused = |reason: &str| HostError::new(format!("cannot use libvirt at {uri:?}"), reason.to_owned());
        // The bindings panic on NUL.
        if uri.chars().any(char::is_control) {
            return Err(refused("the URI has a control character"));
        }
        let scheme = uri.split(':').next().unwrap_or_default();
        if scheme.split('+').any(|part| part == "tcp") {
            return Err(refused("TCP is not encrypted, and whoever listens controls the host")
                .help("use the local socket, `qemu:///system`"));
        }
        Ok(Self { uri: uri.to_owned(), shared: Arc::default() })
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Whether the driver is libvirt's mock, which knows less.
    pub fn is_test_driver(&self) -> bool {
        self.uri.starts_with("test:") || self.uri.starts_with("test+")
    }

    /// Does a deed, and does it again from its start if the connection broke under it. Handles do not outlive a
    /// connection: the deed looks up its domains itself.
    ///
    /// # Errors
    /// What the deed gives; when there is no connection, why.
    pub fn run<T>(&self, deed: impl Fn(&Connect) -> Result<T, HostError>) -> Result<T, HostError> {
        let mut pauses = PAUSES.iter();
        let mut broke = false;
        loop {
            let outcome = match self.open(&mut broke) {
                Ok(connect) => match deed(&connect) {
                    Err(error) if is_broken(&connect, &error) => {
                        broke = true;
                        Err(error.transient(true))
                    }
                    outcome => {
                        lock(&self.shared.state).idle.push(connect);
                        return outcome;
                    }
                },
                // One that worked a moment ago may be starting again. One that never did is said to be missing at once.
                Err(NotOpen::Refused(error)) if broke => Err(self.unreachable(error).transient(true)),
                Err(NotOpen::Refused(error)) => return Err(self.unreachable(error)),
                Err(NotOpen::Silent) => return Err(self.silent()),
            };
            let Some(pause) = pauses.next() else { return outcome };
            if let Err(error) = &outcome {
                tracing::debug!(uri = self.uri, %error, "the connection to libvirt broke, trying again");
            }
            thread::sleep(*pause);
        }
    }

    /// A connection that nobody else uses. `broke` is set if one was found that is broken.
    fn open(&self, broke: &mut bool) -> Result<Connect, NotOpen> {
        let mut waited = false;
        let mut state = lock(&self.shared.state);
        loop {
            while let Some(connect) = state.idle.pop() {
                // This is known without asking libvirtd.
                if connect.is_alive().unwrap_or(false) {
                    return Ok(connect);
                }
                *broke = true;
            }
            let since = match (state.opening, state.failed.take_if(|_| waited)) {
                (Some(since), _) => since,
                (None, Some(error)) => return Err(NotOpen::Refused(error)),
                (None, None) => {
                    let since = Instant::now();
                    (state.opening, state.failed) = (Some(since), None);
                    // The opener may wait for ever, so it has a thread of its own; there is never more than one.
                    let (uri, shared) = (self.uri.clone(), Arc::clone(&self.shared));
                    thread::spawn(move || {
                        let opened = open(&uri);
                        let mut state = lock(&shared.state);
                        state.opening = None;
                        match opened {
                            Ok(connect) => state.idle.push(connect),
                            Err(error) => state.failed = Some(error),
                        }
                        shared.changed.notify_all();
                    });
                    since
                }
            };
            // While that one hangs, who comes later need not wait as long again.
            let left = OPEN_TIMEOUT.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(NotOpen::Silent);
            }
            (state, _) = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            waited = true;
        }
    }

    fn silent(&self) -> HostError {
        HostError::new(self.deed(), format!("no answer within {} s", OPEN_TIMEOUT.as_secs()))
            .help("libvirtd hangs; look at its log and restart it: `systemctl restart libvirtd`. Guests go on running.")
            .transient(true)
    }

    fn unreachable(&self, error: Error) -> HostError {
        let said = error.message();
        let help = if said.contains("No such file or directory") || said.contains("Connection refused") {
            Some(
                "libvirtd is not running: `systemctl enable --now libvirtd` (apt install libvirt-daemon-system), or \
                 without systemd `virtlogd -d && libvirtd -d`",
            )
        } else if said.contains("Permission denied")
            || is(&error, &[ErrorNumber::AuthFailed, ErrorNumber::AuthUnavailable, ErrorNumber::AccessDenied])
        {
            Some("run as root, or join the group `libvirt` (`usermod -aG libvirt USER`) and log in again")
        } else if is(&error, &[ErrorNumber::NoConnect, ErrorNumber::ConfigUnsupported]) {
            Some("apt install libvirt-daemon-driver-qemu qemu-system-x86")
        } else {
            None
        };
        let error = failed(self.deed(), error);
        match help {
            Some(help) => error.help(help),
            None => error,
        }
    }

    fn deed(&self) -> String {
        format!("cannot connect to libvirt at `{}`", self.uri)
    }
}

fn open(uri: &str) -> Result<Connect, Error> {
    run_event_loop();
    let connect = Connect::open(Some(uri))?;
    if let Err(error) = connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
        // Drivers that live in this process have nothing to keep alive.
        tracing::debug!(uri, %error, "no keepalive");
    }
    Ok(connect)
}

/// Keepalive needs libvirt's event loop, registered before the first connection is opened, once in a process.
fn run_event_loop() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // It would print errors on standard error, besides returning them.
        virt::error::clear_error_callback();
        if let Err(error) = virt::event::event_register_default_impl() {
            tracing::warn!(%error, "libvirt has no event loop: a hanging libvirtd will not be noticed");
            return;
        }
        thread::spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::debug!(%error, "libvirt's event loop");
                    thread::sleep(Duration::from_secs(1));
                }
            }
        });
    });
}

/// Whether a deed failed because its connection did.
fn is_broken(connect: &Connect, error: &HostError) -> bool {
    let Some(LibvirtError(said)) = error.source.as_ref().and_then(|source| source.downcast_ref()) else { return false };
    lost_in_transit(said) || !connect.is_alive().unwrap_or(false)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
