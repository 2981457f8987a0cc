//! dnsmasq: one process for each network, one file for each host entry (reference D5).
//!
//! The process is started with all of its configuration on its command line, made from the [`Dhcp`] object, and is known
//! again by that. Host entries are files that it watches: a new one is in force at once, without a signal. What is
//! removed or changed dnsmasq goes on believing until it gets a SIGHUP, and a lease that it has granted it believes
//! longer than that, even across a restart; so a stale lease is struck out of its file while it does not run.
//!
//! No deed needs another to have ended well: each looks at what there is, and a kill in its midst is made good by the
//! next one. The directory `networks/` of the project is our mark.

mod arguments;
mod files;
mod observe;
mod process;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::object::{Dhcp, HostEntry};
use crate::host::dhcp::arguments::{Service, arguments};
use crate::host::dhcp::files::{Files, Host, Started};
use crate::host::dhcp::process::Process;
use crate::host::{HostError, command};

pub use files::Lease;

/// How long a dnsmasq may take to be seen once it has said that it is up.
const START: Duration = Duration::from_secs(5);

/// The dnsmasq processes of one project.
#[derive(Debug)]
pub struct Dnsmasq {
    layout: Layout,
    service: Service,
    /// One lock a network: a process is started, stopped and told of changes by one thread at a time.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
}

impl Dnsmasq {
    /// The dnsmasq processes of the project with this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout, service: Service::find(), locks: Mutex::default() }
    }

    /// The arguments that the dnsmasq of this object is run with, without the program: its whole configuration.
    pub fn arguments(&self, dhcp: &Dhcp) -> Vec<std::ffi::OsString> {
        arguments(dhcp, &self.service)
    }

    /// Makes the one dnsmasq of the network run as the object says, and no other. One that does so already is left
    /// alone; one that does not is stopped and started again, with its leases. The bridge must be there.
    ///
    /// # Errors
    /// When there is no such bridge, or when dnsmasq does not start: the cause is what it said. That another DNS server
    /// has its addresses already, a dnsmasq that is not ours as well, keeps it from starting.
    pub fn ensure_server(&self, dhcp: &Dhcp) -> Result<(), HostError> {
        let network = dhcp.network.as_str();
        let deed = || format!("cannot start the DHCP server of network `{network}`");
        let failed = |error: io::Error| HostError::new(deed(), error);
        arguments::check(dhcp).map_err(|error| HostError::new(deed(), error))?;
        let files = self.files(network);
        if dhcp.dir != files.dir() {
            let reason = format!("its directory is not `{}`", files.dir().display());
            return Err(HostError::new(deed(), reason));
        }
        self.locked(network, || {
            let bridge_index = if_nametoindex(dhcp.bridge.as_str())
                .map_err(|error| HostError::new(deed(), format!("bridge `{}`: {}", dhcp.bridge, error.desc())))?;
            let wanted = Started { dhcp: dhcp.clone(), bridge_index };
            let started = files.started();
            let processes = process::scan(self.service.uid).map_err(failed)?;
            // A process from before the data directory was moved is ours as well.
            let before = started.as_ref().map(|it| Files::new(it.dhcp.dir.clone()).pid());
            let same = |path: &Path| path == files.pid() || Some(path) == before.as_deref();
            let ours: Vec<&Process> = processes.iter().filter(|it| it.pid_file().is_some_and(same)).collect();
            if started.as_ref() == Some(&wanted) && self.state(&files, started.as_ref(), &ours) == "running" {
                return self.reload(&files).map_err(failed);
            }
            process::stop(&ours, self.service.uid).map_err(failed)?;
            files.create(&self.layout)?;
            files.write_started(&wanted).map_err(failed)?;
            self.start(dhcp, &files)
        })
    }

    /// Stops the dnsmasq of the network and removes its files, with what is left of host entries.
    ///
    /// # Errors
    /// When the process does not end or a file cannot be removed.
    pub fn remove_server(&self, network: &str) -> Result<(), HostError> {
        let failed = |error: io::Error| {
            HostError::new(format!("cannot remove the DHCP server of network `{}`", network.escape_debug()), error)
        };
        check_name(network).map_err(failed)?;
        let files = self.files(network);
        self.locked(network, || {
            self.stop(&files).map_err(failed)?;
            files.remove().map_err(failed)
        })
    }

    /// Makes the host entry stand as the object says. It is in force when the guest next asks for its address, also where
    /// the address was leased to another before.
    ///
    /// # Errors
    /// When the host name is none, when the network has no DHCP server, or when its files cannot be written.
    pub fn ensure_host(&self, entry: &HostEntry) -> Result<(), HostError> {
        let (server, network) = (entry.server.as_str(), entry.network.as_str());
        let deed = || format!("cannot write the host entry of server `{server}` on network `{network}`");
        let failed = |error: io::Error| HostError::new(deed(), error);
        if !files::is_label(&entry.hostname) {
            let reason = format!("`{}` is not a host name", entry.hostname.escape_debug());
            return Err(HostError::new(deed(), reason));
        }
        let files = self.files(network);
        self.locked(network, || {
            if !files.hosts().is_dir() {
                return Err(HostError::new(deed(), "the network has no DHCP server")
                    .help("it was removed meanwhile: apply again, and it is made again"));
            }
            let line = Host::of(entry).line();
            let before = files.read_host(server);
            if before.as_ref() != Some(&line) {
                if before.is_some() {
                    // dnsmasq refuses a line with an address that is still in the one before.
                    files.mark_reload().map_err(failed)?;
                }
                files.write_host(server, &line).map_err(failed)?;
            }
            let leases = files.read_leases().map_err(failed)?;
            if leases.iter().any(|lease| lease.address == entry.address && lease.mac != entry.mac) {
                return self.strike_leases(&files, &deed);
            }
            self.reload(&files).map_err(failed)
        })
    }

    /// Removes the host entry. The lease that goes with it is struck out when its address is given to another.
    ///
    /// # Errors
    /// When the file cannot be removed or dnsmasq cannot be told.
    pub fn remove_host(&self, server: &str, network: &str) -> Result<(), HostError> {
        let failed = |error: io::Error| {
            let (server, network) = (server.escape_debug(), network.escape_debug());
            HostError::new(format!("cannot remove the host entry of server `{server}` on network `{network}`"), error)
        };
        check_name(server).and(check_name(network)).map_err(failed)?;
        let files = self.files(network);
        self.locked(network, || {
            if files.read_host(server).is_some() {
                files.mark_reload().map_err(failed)?;
            }
            files.remove_host(server).map_err(failed)?;
            self.reload(&files).map_err(failed)
        })
    }

    /// The leases that the dnsmasq of the network has granted, also ended ones. Empty where there is none.
    ///
    /// # Errors
    /// When the lease file cannot be read.
    pub fn leases(&self, network: &str) -> Result<Vec<Lease>, HostError> {
        check_name(network).and_then(|()| self.files(network).read_leases()).map_err(|error| {
            HostError::new(format!("cannot read the leases of network `{}`", network.escape_debug()), error)
        })
    }

    fn files(&self, network: &str) -> Files {
        Files::new(self.layout.network(network))
    }

    /// Does something while no other thread does anything to this network's dnsmasq.
    fn locked<T>(&self, network: &str, deed: impl FnOnce() -> T) -> T {
        // What the locks guard is on disk and in processes: it is looked at anew each time, so that a panic elsewhere
        // leaves nothing bad behind.
        let lock = Arc::clone(
            self.locks.lock().unwrap_or_else(PoisonError::into_inner).entry(network.to_owned()).or_default(),
        );
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        deed()
    }

    /// All processes of this network, with their children.
    fn processes(&self, files: &Files) -> io::Result<Vec<Process>> {
        let pid_file = files.pid();
        Ok(process::scan(self.service.uid)?.into_iter().filter(|it| it.pid_file() == Some(&pid_file)).collect())
    }

    /// Stops all processes of this network. Tells whether there was any.
    fn stop(&self, files: &Files) -> io::Result<bool> {
        let processes = self.processes(files)?;
        process::stop(&processes.iter().collect::<Vec<_>>(), self.service.uid)?;
        Ok(!processes.is_empty())
    }

    /// Starts dnsmasq. It goes into the background by itself, once it has its sockets, so that what keeps it from that
    /// is known here; it closes all that it inherits.
    fn start(&self, dhcp: &Dhcp, files: &Files) -> Result<(), HostError> {
        let deed = || format!("cannot start the DHCP server of network `{}`", dhcp.network);
        let failed = |error: io::Error| HostError::new(deed(), error);
        files.trim_log().map_err(failed)?;
        let program = command::find("dnsmasq", "dnsmasq-base")?;
        let arguments = arguments(dhcp, &self.service);
        tracing::debug!(network = %dhcp.network, ?arguments, "start dnsmasq");
        // It lives long, and our environment may hold secrets.
        let mut dnsmasq = Command::new(program);
        dnsmasq.args(&arguments).env_clear().current_dir("/");
        command::run(&mut dnsmasq, None, deed).map_err(|error| match advice(&error) {
            Some(help) => error.help(help),
            None => error,
        })?;
        // All that it was told to read, it has read anew.
        files.clear_reload().map_err(failed)?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if self.leader(files).map_err(failed)?.is_some_and(|it| it.arguments == arguments) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(HostError::new(deed(), format!("it ended right after its start; its log says:\n{}", files.log_tail())))
    }

    /// The process of this network: by its pid file where that is right, else by looking at all.
    fn leader(&self, files: &Files) -> io::Result<Option<Process>> {
        let pid_file = files.pid();
        let by_file = files.read_pid().and_then(|pid| Process::read(pid, self.service.uid));
        if let Some(process) = by_file.filter(|it| it.pid_file() == Some(&pid_file)) {
            return Ok(Some(process));
        }
        let processes = self.processes(files)?;
        Ok(process::leaders(&processes.iter().collect::<Vec<_>>()).first().map(|it| (*it).clone()))
    }

    /// Makes dnsmasq forget the host entries that are no more, if there may be any.
    fn reload(&self, files: &Files) -> io::Result<()> {
        if !files.must_reload() {
            return Ok(());
        }
        if let Some(process) = self.leader(files)? {
            process.signal(Signal::SIGHUP)?;
        }
        files.clear_reload()
    }

    /// Strikes out all leases that are not as the host entries have it, with dnsmasq stopped meanwhile: all at once, so
    /// that many new entries take one restart.
    fn strike_leases(&self, files: &Files, deed: &dyn Fn() -> String) -> Result<(), HostError> {
        let failed = |error: io::Error| HostError::new(deed(), error);
        let Some(started) = files.started() else {
            return Err(HostError::new(deed(), "the DHCP server has lost its record")
                .help("apply again, and it is started anew"));
        };
        let ran = self.stop(files).map_err(failed)?;
        files.strike_leases().map_err(failed)?;
        if ran { self.start(&started.dhcp, files) } else { Ok(()) }
    }
}

/// What can be done about a start that failed.
fn advice(error: &HostError) -> Option<&'static str> {
    let said = error.source.as_ref()?.to_string();
    if said.contains("Address already in use") {
        Some(
            "another DNS server has that address, or listens on all of them: `ss -lnp sport = :53` names it; stop it, or \
             bind it to its own interfaces (dnsmasq: `bind-dynamic`)",
        )
    } else if said.contains("for resolv-file is missing") {
        Some("`/etc/resolv.conf` points to a place that is not there: make it a file, if need be an empty one")
    } else {
        None
    }
}

/// Refuses what is not a name, and so could lead out of our directory.
fn check_name(text: &str) -> io::Result<()> {
    text.parse::<Name>().map(drop).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
