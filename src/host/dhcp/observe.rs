//! What there is of dnsmasq processes and their host entries. Changes nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;

use nix::net::if_::if_nametoindex;

use crate::address::{Name, PortId};
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{dhcp_key, host_entry_key};
use crate::blueprint::object::Object;
use crate::host::HostError;
use crate::host::dhcp::Dnsmasq;
use crate::host::dhcp::arguments::arguments;
use crate::host::dhcp::files::{Files, Known, Started};
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
            for (port, known) in files.read_hosts(&network).map_err(failed)? {
                into.objects.insert(host_entry_key(&port), host_facts(&port, &network, known));
            }
        }
        Ok(())
    }

    /// The networks of which there is a directory or a process.
    pub(super) fn networks(&self, processes: &[Process]) -> io::Result<BTreeSet<Name>> {
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
        } else if !files.are_there() {
            "running without host entries"
        } else if !files.has_options(&started.dhcp) {
            "running with other options"
        } else if files.must_reload() {
            "running on old host entries"
        } else {
            "running"
        }
    }
}

fn host_facts(port: &PortId, network: &Name, known: Option<Known>) -> Facts {
    let mut facts = Facts::new();
    let mut put = |name: String, value: String| facts.insert(Cow::Owned(name), value);
    if matches!(port, PortId::Own(_)) {
        put("network".into(), network.to_string());
    }
    let Some(Known { host, names, options }) = known else {
        put("hostname".into(), UNREADABLE.into());
        return facts;
    };
    let join = |items: &mut dyn Iterator<Item = IpAddr>| items.map(|it| it.to_string()).collect::<Vec<_>>().join(", ");
    let served = join(&mut host.served.iter().copied());
    // Without names they are at least known to DHCP.
    put("address".into(), if names.is_empty() { served.clone() } else { join(&mut names.iter().map(|it| it.0)) });
    put("dhcp".into(), if served.is_empty() { "none".into() } else { served });
    put("mac".into(), host.mac.to_string());
    put("hostname".into(), host.hostname);
    let names: BTreeSet<String> = names.into_iter().map(|(_, name)| name).collect();
    put("dns_name".into(), names.into_iter().collect::<Vec<_>>().join(", "));
    put("options".into(), options.len().to_string());
    for (option, value) in options {
        put(option, value);
    }
    facts
}
