//! What there is of dnsmasq processes and their host entries. Changes nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::net::if_::if_nametoindex;

use crate::address::Name;
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{dhcp_key, host_entry_key};
use crate::blueprint::object::Object;
use crate::host::HostError;
use crate::host::dhcp::Dnsmasq;
use crate::host::dhcp::arguments::arguments;
use crate::host::dhcp::files::{Files, Host, Started};
use crate::host::dhcp::process::{self, Process};
use crate::plan::world::Observed;

/// What stands for a host entry that nobody can read: a name that no host has.
const UNREADABLE: &str = "(unreadable)";

impl Dnsmasq {
    /// Adds all dnsmasq processes of the project and all their host entries, also what is left of them: a directory
    /// without a process, a process without a directory.
    ///
    /// # Errors
    /// When `/proc` or our directory cannot be read. What stands in the files is never an error.
    pub fn observe(&self, into: &mut Observed) -> Result<(), HostError> {
        let failed = |error: io::Error| HostError::new("cannot look at the DHCP servers", error);
        let processes = process::scan(self.service.uid).map_err(failed)?;
        for network in self.networks(&processes).map_err(failed)? {
            let files = self.files(network.as_str());
            let ours: Vec<&Process> = processes.iter().filter(|it| it.pid_file() == Some(&files.pid())).collect();
            let started = files.started().filter(|it| it.dhcp.network == network);
            let mut facts = started.as_ref().map_or_else(Facts::new, |it| Object::Dhcp(it.dhcp.clone()).facts());
            facts.insert(Cow::Borrowed("process"), self.state(&files, started.as_ref(), &ours).into());
            into.objects.insert(dhcp_key(&network), facts);
            for (server, host) in files.read_hosts().map_err(failed)? {
                into.objects.insert(host_entry_key(&server, &network), host_facts(host));
            }
        }
        Ok(())
    }

    /// The networks of which there is a directory or a process.
    fn networks(&self, processes: &[Process]) -> io::Result<BTreeSet<Name>> {
        let mut networks = BTreeSet::new();
        match fs::read_dir(self.layout.networks()) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        networks.extend(entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok()));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for process in processes {
            let inside = process.pid_file().and_then(|path| path.strip_prefix(self.layout.networks()).ok());
            let network = inside.and_then(|path| path.to_str()?.strip_suffix("/pid")?.parse::<Name>().ok());
            networks.extend(network);
        }
        Ok(networks)
    }

    /// `running` for the one process that does what is written down, on the bridge that is there now.
    pub(super) fn state(&self, files: &Files, started: Option<&Started>, ours: &[&Process]) -> &'static str {
        let leaders = process::leaders(ours);
        let Some(first) = leaders.first() else { return "stopped" };
        let Some(started) = started else { return "running without a record" };
        if leaders.len() > 1 {
            "running more than once"
        } else if first.arguments != arguments(&started.dhcp, &self.service) {
            "running with other options"
        } else if if_nametoindex(started.dhcp.bridge.as_str()) != Ok(started.bridge_index) {
            "running on a bridge that is gone"
        } else if !files.hosts().is_dir() {
            "running without host entries"
        } else {
            "running"
        }
    }
}

fn host_facts(host: Option<Host>) -> Facts {
    let mut facts = Facts::new();
    match host {
        Some(host) => {
            facts.insert(Cow::Borrowed("address"), host.address.to_string());
            facts.insert(Cow::Borrowed("mac"), host.mac.to_string());
            facts.insert(Cow::Borrowed("hostname"), host.hostname);
        }
        None => {
            facts.insert(Cow::Borrowed("hostname"), UNREADABLE.into());
        }
    }
    facts
}
