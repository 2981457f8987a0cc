//! What libvirt tells.
//!
//! The bindings have no safe way to its events, and novella has no unsafe code; so `virsh event` is run, which libvirt keeps
//! the same for scripts. It writes each event as soon as it comes, ends when the connection breaks, and is started anew until
//! libvirtd is back. It can only look: its connection is read-only. It never outlives us: the kernel ends it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::address::Name;
use crate::host::command;
use crate::report::error;
use crate::watch::backoff;
use crate::watch::events::{Heard, Tell};

/// The longest pause before it is tried again. Nothing else tells that libvirtd is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The events that tell of a change that may be undone. Those that a guest at work causes each second are not among them.
const EVENTS: [&str; 4] = ["lifecycle", "device-added", "device-removed", "metadata-change"];

/// Hears libvirt, as long as it lives.
pub(super) struct Libvirt {
    ear: Arc<Mutex<Ear>>,
}

#[derive(Default)]
struct Ear {
    virsh: Option<Child>,
    /// Nobody is told any more.
    is_over: bool,
}

impl Libvirt {
    /// Hears of the domains of a project.
    ///
    /// # Errors
    /// When there is no `virsh`, as a phrase.
    pub(super) fn hear(uri: &str, project: &Name, tell: Tell) -> Result<Self, String> {
        let found = |program, package| command::find(program, package).map_err(|error| error::chain(&error));
        let programs = [found("setpriv", "util-linux")?, found("virsh", "libvirt-clients")?];
        let ear = Arc::new(Mutex::new(Ear::default()));
        let (its, uri, domains) = (Arc::clone(&ear), uri.to_owned(), format!("for domain '{project}."));
        // The kernel ends what a thread has started when that thread ends, so that this one waits for it.
        let work = move || hear_on(&its, &programs, &uri, &domains, &tell);
        thread::Builder::new().name("libvirt".into()).spawn(work).map_err(|error| error.to_string())?;
        Ok(Self { ear })
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let mut ear = self.ear.lock().unwrap_or_else(PoisonError::into_inner);
        ear.is_over = true;
        if let Some(virsh) = &mut ear.virsh {
            // One that has ended by itself is what was asked for.
            let _ = virsh.kill();
        }
    }
}

fn hear_on(ear: &Mutex<Ear>, programs: &[PathBuf; 2], uri: &str, domains: &str, tell: &Tell) {
    let lock = || ear.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failures = 0;
    loop {
        let started = {
            let mut ear = lock();
            if ear.is_over {
                return;
            }
            let started = start(programs, uri);
            started.map(|mut virsh| {
                let said = virsh.stdout.take();
                ear.virsh = Some(virsh);
                said
            })
        };
        let was_there = match started {
            Ok(said) => said.is_some_and(|said| follow(BufReader::new(said), domains, tell)),
            Err(error) => {
                tracing::warn!(%error, "cannot run virsh");
                false
            }
        };
        let ended = lock().virsh.take();
        if let Some(mut virsh) = ended {
            // It is ours, so that it can be waited for.
            let _ = virsh.wait();
        }
        if lock().is_over {
            return;
        }
        if was_there {
            failures = 0;
            tell(Heard::Something);
        }
        failures += 1;
        thread::sleep(backoff::wait(failures).min(LONGEST_PAUSE));
    }
}

fn start([setpriv, virsh]: &[PathBuf; 2], uri: &str) -> std::io::Result<Child> {
    let words: [&Path; 4] = ["--pdeathsig".as_ref(), "KILL".as_ref(), "--".as_ref(), virsh];
    Command::new(setpriv)
        .args(words)
        // It says its URI when it is connected; and keepalive would wake libvirtd and it up at rest.
        .args(["--readonly", "--keepalive-interval", "0", "--connect", uri, "uri; event --all --loop"])
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Tells what `virsh` says, to its end. Gives whether it was connected.
fn follow(said: impl BufRead, domains: &str, tell: &Tell) -> bool {
    let mut was_there = false;
    for line in said.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if !was_there {
            was_there = true;
            tell(Heard::Libvirt);
        } else if concerns(&line, domains) {
            tell(Heard::Something);
        }
    }
    was_there
}

fn concerns(line: &str, domains: &str) -> bool {
    let kind = line.strip_prefix("event '").and_then(|rest| rest.split_once("' "));
    kind.is_some_and(|(kind, rest)| EVENTS.contains(&kind) && rest.starts_with(domains))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_damage_to_ours_is_told() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        let tell: Tell = Arc::new(move |what| ears.lock().expect("heard").push(what));
        let said = "qemu:///system\n\n\
                    event 'lifecycle' for domain 'default.web': Stopped Destroyed\n\
                    event 'lifecycle' for domain 'default-web': Stopped Destroyed\n\
                    event 'lifecycle' for domain 'other.default.web': Started Booted\n\
                    event 'balloon-change' for domain 'default.web': 98304KiB\n\
                    event 'device-removed' for domain 'default.web': net1\n\
                    event 'lifecycle' for domain 'def\u{fffd}\n";
        assert!(follow(said.as_bytes(), "for domain 'default.", &tell));
        assert_eq!(*heard.lock().expect("heard"), [Heard::Libvirt, Heard::Something, Heard::Something]);
        assert!(!follow(&b""[..], "for domain 'default.", &tell));
    }
}
