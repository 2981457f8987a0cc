//! dnsmasq: one process for each network, one file for each host entry (reference D5).
//!
//! The process is started with its configuration on its command line, made from the [`Dhcp`] object, and is known again by
//! that. What can change while it runs is in files that it watches: host entries, names, options. A new one is in force at
//! once, without a signal. What is removed or changed dnsmasq goes on believing until it gets a SIGHUP, which is the one
//! [`Dnsmasq::reload`] of an apply; and a lease that it has granted it believes longer than that, even across a restart.
//! So a stale lease is given back in the name of its guest (`release`).
//!
//! No deed needs another to have ended well: each looks at what there is, and a kill in its midst is made good by the
//! next one. The directory `networks/` of the project is our mark.

mod arguments;
mod checks;
mod files;
mod leases;
mod observe;
mod options;
mod process;
mod release;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::signal::Signal;

use crate::address::{Name, PortId};
use crate::blueprint::Layout;
use crate::blueprint::object::{Dhcp, HostEntry};
use crate::host::dhcp::arguments::{Service, arguments};
use crate::host::dhcp::files::{Files, Host, Started};
use crate::host::dhcp::leases::{Cache, Leases};
use crate::host::dhcp::process::Process;
use crate::host::{HostError, command};

pub use leases::{Client, Lease};

/// How long a dnsmasq may take to be seen once it has said that it is up.
const START: Duration = Duration::from_secs(5);

/// How long to wait for a dnsmasq that reads its files anew. A guest that asks before it has done so may be told something old.
const READ: Duration = Duration::from_secs(3);

/// How long a dnsmasq may take to heed a lease that is given back.
const RELEASE: Duration = Duration::from_millis(500);

/// The dnsmasq processes of one project.
#[derive(Debug)]
pub struct Dnsmasq {
    layout: Layout,
    service: Service,
    /// One lock a network: a process is started, stopped and told of changes by one thread at a time.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    leases: Cache,
}

impl Dnsmasq {
    /// The dnsmasq processes of the project with this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout, service: Service::find(), locks: Mutex::default(), leases: Cache::default() }
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
        checks::check(dhcp).map_err(|error| HostError::new(deed(), error))?;
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
            let runs_so = |it: &Started| {
                it.bridge_index == bridge_index && self.arguments(&it.dhcp) == self.arguments(dhcp) && files.are_there()
            };
            let alone = match process::leaders(&ours)[..] {
                [only] => only.arguments == self.arguments(dhcp),
                _ => false,
            };
            // Of options and host entries it can be told while it runs.
            if alone && started.as_ref().is_some_and(runs_so) {
                files.write_started(&wanted).map_err(failed)?;
                if files.write_options(dhcp).map_err(failed)? {
                    files.mark_reload().map_err(failed)?;
                }
                return self.tell(&files).map_err(failed);
            }
            process::stop(&ours, self.service.uid).map_err(failed)?;
            files.create(&self.layout)?;
            files.write_started(&wanted).map_err(failed)?;
            files.write_options(dhcp).map_err(failed)?;
            self.start(dhcp, &files)
        })
    }

    /// Makes dnsmasq forget what is no more, if there may be anything. Nothing happens where none runs.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn reload(&self, network: &str) -> Result<(), HostError> {
        let failed = |error: io::Error| {
            HostError::new(format!("cannot reload the DHCP server of network `{}`", network.escape_debug()), error)
        };
        check_name(network).map_err(failed)?;
        let files = self.files(network);
        self.locked(network, || self.tell(&files).map_err(failed))
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

    /// Makes the host entry stand as the object says. One that is new is in force when the guest next asks for its address,
    /// also where the address was leased to another before; one that is changed, after the next [`reload`](Self::reload).
    ///
    /// # Errors
    /// When the host name is none, when the network has no DHCP server, or when its files cannot be written.
    pub fn ensure_host(&self, entry: &HostEntry) -> Result<(), HostError> {
        let network = entry.network.as_str();
        let deed = || format!("cannot write the host entry of port `{}` on network `{network}`", entry.port);
        let failed = |error: io::Error| HostError::new(deed(), error);
        checks::check_entry(entry).map_err(|error| HostError::new(deed(), error))?;
        let files = self.files(network);
        self.locked(network, || {
            if !files.are_there() {
                let Some(started) = files.started() else {
                    return Err(HostError::new(deed(), "the network has no DHCP server")
                        .help("it was removed meanwhile: apply again, and it is made again"));
                };
                // A directory that is made anew is watched only from a start on.
                let ran = self.stop(&files).map_err(failed)?;
                files.create(&self.layout)?;
                files.write_options(&started.dhcp).map_err(failed)?;
                if ran {
                    self.start(&started.dhcp, &files)?;
                }
            }
            // Before the entry is there, for dnsmasq is busy with it then; a guest that asks at once finds its address free.
            let is_free = self.free(&Host::of(entry), &files).map_err(failed)?;
            // Marked before it is written, so that a kill in between is made good; and in vain only where nothing changed.
            let marked = files.must_reload();
            if files.has_host(&entry.port) {
                files.mark_reload().map_err(failed)?;
            }
            if !files.write_host(entry).map_err(failed)? && !marked {
                files.clear_reload().map_err(failed)?;
            }
            if is_free {
                return Ok(());
            }
            let started = files.started().ok_or_else(|| {
                HostError::new(deed(), "the DHCP server has lost its record")
                    .help("apply again, and it is started anew")
            })?;
            self.strike(&started, &files).map_err(|error| HostError::new(deed(), error))
        })
    }

    /// Removes the host entry of a port, on whichever network it is, and gives the leases back that it had granted. dnsmasq
    /// believes in it until the next [`reload`](Self::reload).
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn remove_host(&self, port: &PortId) -> Result<(), HostError> {
        let failed = |error: io::Error| HostError::new(format!("cannot remove the host entry of port `{port}`"), error);
        let networks = match port {
            PortId::Inline { network, .. } => BTreeSet::from([network.clone()]),
            PortId::Own(_) => self.networks(&[]).map_err(failed)?,
        };
        for network in networks {
            let files = self.files(network.as_str());
            self.locked(network.as_str(), || {
                if files.has_host(port) {
                    files.mark_reload()?;
                }
                if let Some(host) = files.read_host(port) {
                    self.give_back(&host, &files, |lease| host.may_hold(lease))?;
                }
                files.remove_host(port)
            })
            .map_err(failed)?;
        }
        Ok(())
    }

    /// Gives back the IPv6 leases of a port whose guest is off. When it comes up it may call itself something else, with
    /// another disk or its interfaces in another order, and dnsmasq keeps an address for whom it was leased to by that name
    /// (RFC 8415, 11). One that cannot be given back is only missed by such a guest.
    pub fn forget_guest(&self, port: &PortId, network: &Name) {
        let files = self.files(network.as_str());
        self.locked(network.as_str(), || {
            let Some(mut host) = files.read_host(port) else { return };
            host.served.retain(IpAddr::is_ipv6);
            if !host.served.is_empty()
                && let Err(error) = self.give_back(&host, &files, |_| true)
            {
                tracing::debug!(%port, %error, "its leases are not given back");
            }
        });
    }

    /// The leases that the dnsmasq of the network has granted, also ended ones. Empty where there is none.
    ///
    /// # Errors
    /// When the lease file cannot be read.
    pub fn leases(&self, network: &str) -> Result<Vec<Lease>, HostError> {
        let read = check_name(network).and_then(|()| self.read_leases(&self.files(network)));
        read.map(|leases| leases.by_address.values().cloned().collect()).map_err(|error| {
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
            if let Some(leader) = self.leader(files).map_err(failed)?.filter(|it| it.arguments == arguments) {
                // It reads its files only now.
                wait(&leader);
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

    /// The processes of the project that run, by their pid files.
    pub fn pids(&self) -> Vec<i32> {
        let networks = self.networks(&[]).unwrap_or_default();
        let pid = |network: &Name| {
            let files = self.files(network.as_str());
            let process = Process::read(files.read_pid()?, self.service.uid)?;
            (process.pid_file() == Some(&files.pid())).then_some(process.pid)
        };
        networks.iter().filter_map(pid).collect()
    }

    /// Sends the signal upon which dnsmasq reads its files anew, if it has to, and waits until it has.
    fn tell(&self, files: &Files) -> io::Result<()> {
        if !files.must_reload() {
            return Ok(());
        }
        if let Some(process) = self.leader(files)? {
            process.signal(Signal::SIGHUP)?;
            wait(&process);
        }
        files.clear_reload()
    }

    fn read_leases(&self, files: &Files) -> io::Result<Arc<Leases>> {
        self.leases.read(&files.leases(), || Ok(self.leader(files)?.is_none_or(|it| it.is_at_rest())))
    }

    /// Gives those leases of a host entry's addresses back. Where nobody listens, they are in nobody's way until the address
    /// is given to another, and then [`free`](Self::free) sees to it.
    fn give_back(&self, host: &Host, files: &Files, which: impl Fn(&Lease) -> bool) -> io::Result<()> {
        let Some(leader) = self.leader(files)? else { return Ok(()) };
        // One that it has granted this moment is not written down yet.
        wait(&leader);
        let leases = self.read_leases(files)?;
        let granted = host.served.iter().filter_map(|address| leases.by_address.get(address));
        release_all(granted.filter(|lease| which(lease)), &leases, files);
        Ok(())
    }

    /// Sees to it that the addresses of a host entry are leased to nobody else: gives such leases back. Tells whether dnsmasq
    /// has heeded it.
    fn free(&self, host: &Host, files: &Files) -> io::Result<bool> {
        let stale = || -> io::Result<(Arc<Leases>, Vec<Lease>)> {
            let leases = self.read_leases(files)?;
            let held = host.served.iter().filter_map(|address| leases.by_address.get(address));
            let stale = held.filter(|lease| !host.may_hold(lease)).cloned().collect();
            Ok((leases, stale))
        };
        let (leases, before) = stale()?;
        if before.is_empty() {
            return Ok(true);
        }
        release_all(before.iter(), &leases, files);
        let sent = Instant::now();
        while let Some(leader) = self.leader(files)? {
            if stale()?.1.is_empty() {
                return Ok(true);
            }
            // One that is busy has not looked yet.
            if sent.elapsed() > READ || sent.elapsed() > RELEASE && leader.is_at_rest() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Strikes stale leases out, for which dnsmasq is stopped.
    fn strike(&self, started: &Started, files: &Files) -> Result<(), HostError> {
        let network = &started.dhcp.network;
        let failed = |error: io::Error| HostError::new(format!("cannot free addresses of network `{network}`"), error);
        tracing::debug!(%network, "the DHCP server is started anew to free an address");
        let ran = self.stop(files).map_err(failed)?;
        files.strike_leases(network).map_err(failed)?;
        if ran { self.start(&started.dhcp, files) } else { Ok(()) }
    }
}

/// Waits until a dnsmasq has done what there was to do, but not for long.
fn wait(process: &Process) {
    let deadline = Instant::now() + READ;
    while !process.is_at_rest() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Gives leases back, as far as that can be.
fn release_all<'a>(which: impl Iterator<Item = &'a Lease>, leases: &Leases, files: &Files) {
    let Some(started) = files.started() else { return };
    for lease in which {
        if let Err(error) = release::send(lease, leases.server_duid.as_deref(), &started.dhcp.bridge) {
            tracing::debug!(address = %lease.address, %error, "the lease is not given back");
        }
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
