//! `novella console`: this terminal becomes that of a guest.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::cli::servers::{Servers, machine};
use crate::cli::{Global, INTERRUPTED, Stop, candidates};
use crate::host::HostError;
use crate::host::hypervisor::Console;
use crate::report;
use crate::report::console::raw;

/// Ctrl-], as with telnet and virsh.
const ESCAPE: u8 = 0x1d;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server, as `web` or `server.web`
    #[arg(add = candidates::servers())]
    server: String,
    /// Take the console from whoever is at it
    #[arg(long)]
    force: bool,
}

/// Why it ended.
enum End {
    Escaped,
    /// This terminal is gone, or the program was told to end.
    Told,
    Closed(Result<(), HostError>),
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let server = &servers.one(&arguments.server)?.server;
    let target = servers.target(global)?;
    let machine = machine(&target, "sit at")?;
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Stop::from(
            HostError::refused("`console` needs a terminal to type at and to write to")
                .help(format!("`novella logs --follow {server}` only shows what the guest says")),
        ));
    }
    let console = machine.hypervisor().console(server, arguments.force)?;
    report::note(format_args!("note: this is the console of `server.{server}`; Ctrl-] leaves it, Enter wakes it"));
    let end = sit(Arc::new(console)).map_err(|error| Stop::from(HostError::new("cannot use this terminal", error)))?;
    // Wherever the guest left the cursor.
    report::note("");
    match end {
        End::Escaped => Ok(()),
        End::Told => Err(Stop(INTERRUPTED)),
        End::Closed(Ok(())) => {
            report::note(format_args!(
                "note: the console of `server.{server}` was closed: it was shut off, or somebody else took it"
            ));
            Ok(())
        }
        End::Closed(Err(error)) => Err(Stop::from(error)),
    }
}

/// Passes on what is typed and what is said, until one of the two ends.
fn sit(console: Arc<Console>) -> io::Result<End> {
    let (wake, woken) = UnixStream::pair()?;
    let (told, ended) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let terminal = Raw::enter()?;
    let (why, closed) = mpsc::channel();
    let listener = Arc::clone(&console);
    // It waits for the guest, and is left behind when the program ends.
    std::thread::spawn(move || {
        let _ = why.send(listen(&listener));
        drop(wake);
    });
    let end = loop {
        let stdin = io::stdin();
        let mut waiting = [stdin.as_fd(), woken.as_fd(), ended.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            polled => polled?,
        };
        let [typed, closed_now, told] = waiting.map(|fd| fd.any().unwrap_or(true));
        if told {
            break End::Told;
        }
        if closed_now {
            break End::Closed(closed.try_recv().unwrap_or(Ok(())));
        }
        if typed {
            let mut buffer = [0; 1024];
            // Past the buffer of the standard library, which `poll` does not know of.
            let read = match nix::unistd::read(&stdin, &mut buffer) {
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(Errno::EIO) => 0,
                read => read?,
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            let escape = bytes.iter().position(|byte| *byte == ESCAPE);
            if let Err(error) = console.write(&bytes[..escape.unwrap_or(bytes.len())]) {
                break End::Closed(Err(error));
            }
            if read == 0 {
                break End::Told;
            }
            if escape.is_some() {
                break End::Escaped;
            }
        }
    };
    drop(terminal);
    Ok(end)
}

/// Writes down what the guest says, until its console is closed.
fn listen(console: &Console) -> Result<(), HostError> {
    let mut buffer = [0; 4096];
    loop {
        let read = console.read(&mut buffer)?;
        let said = buffer.get(..read).unwrap_or_default();
        if said.is_empty() || raw(said).is_err() {
            return Ok(());
        }
    }
}

/// The terminal with every key passed on as it is, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0) {
            tracing::warn!(%error, "the terminal stays as it is; `reset` mends it");
        }
    }
}
