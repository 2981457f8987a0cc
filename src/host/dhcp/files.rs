//! The files of one network's dnsmasq, and what is written in them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::{Name, PortId};
use crate::blueprint::Layout;
use crate::blueprint::object::{Dhcp, HostEntry};
use crate::host::HostError;
use crate::host::dhcp::checks::is_label;
use crate::host::dhcp::leases::{Client, Lease};
use crate::host::dhcp::options::{port_options, read_port_options, subnet_options, tags};
use crate::host::files::{PASSABLE, make_dir, make_project_dir};
use crate::value::Mac;

/// From what size on a log is thrown away at the next start, in bytes.
const LOG_MAX: u64 = 1 << 20;

/// Where the files of one network's dnsmasq are.
///
/// | file | |
/// |---|---|
/// | `dhcp.json` | what the process was started with: [`Started`] |
/// | `hosts/<port>` | MAC, addresses and name of a port, for DHCP |
/// | `names/<port>` | its names, for DNS |
/// | `options/<port>` | what it alone is told, if anything |
/// | `options/network.options` | what the guests of each subnet are told |
/// | `<port>.<directory>.new` | a file not yet in its place |
/// | `macs.conf` | the tags by which options speak of one port: [`tags`] |
/// | `reload` | dnsmasq may still know what is no more, and is to be told |
/// | `leases`, `pid`, `log` | dnsmasq's own |
///
/// dnsmasq reads every file in the three directories, so nothing else may be put there. A port of a server has the server's
/// name, one of its own `port.<name>`.
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
}

/// The directories whose files dnsmasq takes as they come.
const DIRECTORIES: [&str; 3] = ["hosts", "names", "options"];

/// The options of the subnets, in the directory of those of ports. No port has a dot there but behind `port`.
const SUBNET_OPTIONS: &str = "network.options";

/// The name of a port's files. Those of a server on other networks are in other directories.
pub(super) fn file_name(port: &PortId) -> String {
    match port {
        PortId::Own(name) => format!("port.{name}"),
        PortId::Inline { server, .. } => server.to_string(),
    }
}

/// The port whose files on a network have this name.
fn port_of(name: &str, network: &Name) -> Option<PortId> {
    match name.strip_prefix("port.") {
        Some(own) => own.parse().ok().map(PortId::Own),
        None => Some(PortId::Inline { server: name.parse().ok()?, network: network.clone() }),
    }
}

/// What a dnsmasq was started with. Read as a [`Dhcp`], it is just that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    #[serde(flatten)]
    pub dhcp: Dhcp,
    /// The kernel's index of the bridge. A bridge that was removed and made again has another, and dnsmasq is deaf to
    /// it: it has no right any more to bind its DHCP socket anew.
    pub bridge_index: u32,
}

impl Files {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    pub fn names(&self) -> PathBuf {
        self.dir.join("names")
    }

    pub fn options(&self) -> PathBuf {
        self.dir.join("options")
    }

    pub fn tags(&self) -> PathBuf {
        self.dir.join("macs.conf")
    }

    pub fn leases(&self) -> PathBuf {
        self.dir.join("leases")
    }

    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn record(&self) -> PathBuf {
        self.dir.join("dhcp.json")
    }

    fn reload(&self) -> PathBuf {
        self.dir.join("reload")
    }

    /// Makes the directories, and those above them: dnsmasq must get through all of them as its own user, whatever our
    /// umask. Only while dnsmasq does not run: it would not watch a new directory.
    pub fn create(&self, layout: &Layout) -> Result<(), HostError> {
        make_project_dir(layout)?;
        make_dir(&layout.networks(), PASSABLE)?;
        make_dir(&self.dir, PASSABLE)?;
        DIRECTORIES.iter().try_for_each(|dir| make_dir(&self.dir.join(dir), 0o755))
    }

    /// Whether the directories are there that dnsmasq watches.
    pub fn are_there(&self) -> bool {
        DIRECTORIES.iter().all(|dir| self.dir.join(dir).is_dir())
    }

    /// Removes our files, then the directory. What else is in there stays, and so does then the directory.
    pub fn remove(&self) -> io::Result<()> {
        let dirs = DIRECTORIES.map(|dir| self.dir.join(dir));
        for dir in &dirs {
            for path in entries(dir)? {
                let ours = |name: &str| {
                    name == SUBNET_OPTIONS || name.strip_prefix("port.").unwrap_or(name).parse::<Name>().is_ok()
                };
                if name_of(&path).is_some_and(ours) {
                    gone(fs::remove_file(path))?;
                }
            }
        }
        for path in entries(&self.dir)? {
            if name_of(&path).is_some_and(|name| OURS.contains(&name) || name.ends_with(NEW)) {
                gone(fs::remove_file(path))?;
            }
        }
        for dir in dirs.iter().chain([&self.dir]) {
            match gone(fs::remove_dir(dir)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    tracing::warn!(directory = %dir.display(), "kept, for it holds files that are not ours");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// What the process was started with; none where nothing readable says so.
    pub fn started(&self) -> Option<Started> {
        serde_json::from_slice(&fs::read(self.record()).ok()?).ok()
    }

    /// Writes down what the process is about to be started with.
    pub fn write_started(&self, started: &Started) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(started).map_err(io::Error::other)?;
        let new = self.dir.join(RECORD_NEW);
        write(&new, &json)?.sync_all()?;
        fs::rename(new, self.record())
    }

    /// The pid in dnsmasq's pid file, whoever has it now.
    pub fn read_pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid()).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
    }

    /// Throws an overgrown log away.
    pub fn trim_log(&self) -> io::Result<()> {
        match fs::metadata(self.log()) {
            Ok(log) if log.len() > LOG_MAX => gone(fs::remove_file(self.log())),
            _ => Ok(()),
        }
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Whether dnsmasq may still know host entries that are no more.
    pub fn must_reload(&self) -> bool {
        self.reload().exists()
    }

    /// Writes down that dnsmasq is to read its host entries anew. Before the deed, so that a kill in between is made
    /// good by the next deed.
    pub fn mark_reload(&self) -> io::Result<()> {
        write(&self.reload(), b"").map(drop)
    }

    pub fn clear_reload(&self) -> io::Result<()> {
        gone(fs::remove_file(self.reload()))
    }

    /// Writes the file that gives tags to MACs, and what the subnets tell. Tells whether the latter has changed.
    pub fn write_options(&self, dhcp: &Dhcp) -> io::Result<bool> {
        let new = self.dir.join("macs.conf.new");
        write(&new, tags().as_bytes())?;
        fs::rename(new, self.tags())?;
        self.put("options", SUBNET_OPTIONS, &subnet_options(dhcp)).map(|before| before.is_some())
    }

    /// Whether the subnets tell their guests what `dhcp` says.
    pub fn has_options(&self, dhcp: &Dhcp) -> bool {
        self.read("options", SUBNET_OPTIONS).is_some_and(|text| text == subnet_options(dhcp))
    }

    /// Puts the files of a port in their places. Tells whether dnsmasq has to be told, as it has of a changed entry and of an
    /// option that is no more; new things, and new names, it takes as they come.
    ///
    /// The options come first: a guest may ask as soon as the entry is there.
    pub fn write_host(&self, entry: &HostEntry) -> io::Result<bool> {
        let name = file_name(&entry.port);
        let options = port_options(entry.mac, &entry.options);
        let before =
            if options.is_empty() { self.take("options", &name)? } else { self.put("options", &name, &options)? };
        let names = entry.names().map(|(address, name)| format!("{address} {name}\n")).collect::<String>();
        // A file without a line is no file.
        if names.is_empty() { self.take("names", &name) } else { self.put("names", &name, &names) }?;
        let host = self.put("hosts", &name, &Host::of(entry).line())?;
        Ok(before.is_some() || host.is_some())
    }

    /// Removes the files of a port.
    pub fn remove_host(&self, port: &PortId) -> io::Result<()> {
        let name = file_name(port);
        for dir in DIRECTORIES {
            self.take(dir, &name)?;
            gone(fs::remove_file(self.new_of(dir, &name)))?;
        }
        Ok(())
    }

    /// Whether there is anything of a port, readable or not.
    pub fn has_host(&self, port: &PortId) -> bool {
        let name = file_name(port);
        DIRECTORIES.iter().any(|dir| self.read(dir, &name).is_some())
    }

    /// The entry of a port; none where it is not ours, or not there.
    pub fn read_host(&self, port: &PortId) -> Option<Host> {
        Host::parse(&self.read("hosts", &file_name(port))?)
    }

    /// All that is known of the ports of a network. One whose entry is not ours is there, with nothing in it.
    pub fn read_hosts(&self, network: &Name) -> io::Result<BTreeMap<PortId, Option<Known>>> {
        let mut hosts = BTreeMap::new();
        for path in entries(&self.hosts())? {
            let Some(name) = name_of(&path) else { continue };
            if let (Some(port), Some(text)) = (port_of(name, network), self.read("hosts", name)) {
                hosts.insert(port, Host::parse(&text).and_then(|host| self.read_known(host, name)));
            }
        }
        Ok(hosts)
    }

    fn read_known(&self, host: Host, name: &str) -> Option<Known> {
        let names = self.read("names", name).unwrap_or_default();
        let names = names.lines().map(|line| {
            let (address, name) = line.split_once(' ')?;
            Some((address.parse().ok()?, name.to_owned()))
        });
        let options = read_port_options(host.mac, &self.read("options", name).unwrap_or_default());
        Some(Known { names: names.collect::<Option<_>>()?, options: options?, host })
    }

    /// Strikes all leases out that are not as the host entries have it. Only while dnsmasq does not run: it keeps its
    /// leases in memory.
    pub fn strike_leases(&self, network: &Name) -> io::Result<()> {
        let hosts: Vec<Host> = self.read_hosts(network)?.into_values().flatten().map(|it| it.host).collect();
        let right: HashMap<IpAddr, &Host> =
            hosts.iter().flat_map(|host| host.served.iter().map(move |address| (*address, host))).collect();
        let text = fs::read(self.leases())?;
        let mut kept = String::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let lease = Lease::parse(line);
            let stays = |lease: &Lease| right.get(&lease.address).is_some_and(|host| host.may_hold(lease));
            // What is no lease is the name of the server.
            if lease.as_ref().map_or(line.starts_with("duid "), stays) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        let new = self.dir.join(LEASES_NEW);
        write(&new, kept.as_bytes())?.sync_all()?;
        fs::rename(new, self.leases())
    }

    fn new_of(&self, dir: &str, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{dir}{NEW}"))
    }

    /// Puts a file into a directory at once, whole and readable, unless it is there with this text. Gives the text that it
    /// replaced. Not forced to disk: one lost with the power is seen as different, and written again.
    fn put(&self, dir: &str, name: &str, text: &str) -> io::Result<Option<String>> {
        let before = self.read(dir, name);
        if before.as_deref() == Some(text) {
            return Ok(None);
        }
        let new = self.new_of(dir, name);
        write(&new, text.as_bytes())?;
        fs::rename(new, self.dir.join(dir).join(name))?;
        Ok(before)
    }

    /// Unlinks a file: one that is moved away dnsmasq does not see go. Gives the text it had.
    fn take(&self, dir: &str, name: &str) -> io::Result<Option<String>> {
        let before = self.read(dir, name);
        gone(fs::remove_file(self.dir.join(dir).join(name)))?;
        Ok(before)
    }

    /// The text of a file; none where there is nothing, and empty where dnsmasq cannot read it.
    fn read(&self, dir: &str, name: &str) -> Option<String> {
        let path = self.dir.join(dir).join(name);
        let mode = fs::symlink_metadata(&path).ok()?.permissions().mode();
        let text = if mode & 0o004 == 0 { Vec::new() } else { fs::read(&path).unwrap_or_default() };
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

const NEW: &str = ".new";
const RECORD_NEW: &str = "dhcp.json.new";
const LEASES_NEW: &str = "leases.new";
const OURS: [&str; 6] = ["dhcp.json", "leases", "log", "macs.conf", "pid", "reload"];

/// What a host entry says to DHCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub mac: Mac,
    pub served: Vec<IpAddr>,
    pub hostname: String,
}

/// What is known of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub host: Host,
    /// Addresses with their full names.
    pub names: Vec<(IpAddr, String)>,
    /// Options by fact, with their values.
    pub options: Vec<(String, String)>,
}

impl Host {
    pub fn of(entry: &HostEntry) -> Self {
        Self { mac: entry.mac, served: entry.served(), hostname: entry.hostname.clone() }
    }

    /// The line for dnsmasq's hosts directory. The name ends with a dot, for without one dnsmasq takes a host by the
    /// name of `ignore` as one to be ignored, `infinite` as a lease time, and `1h` as well.
    pub fn line(&self) -> String {
        let addresses = self.served.iter().map(|address| match address {
            IpAddr::V4(address) => format!("{address},"),
            IpAddr::V6(address) => format!("[{address}],"),
        });
        format!("{},{}{}.\n", self.mac, addresses.collect::<String>(), self.hostname)
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.strip_suffix(".\n")?.split(',').collect();
        let [mac, addresses @ .., hostname] = &words[..] else { return None };
        let address = |word: &&str| match word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            Some(word) => word.parse().ok().map(IpAddr::V6),
            None => word.parse().ok().map(IpAddr::V4),
        };
        Some(Self {
            mac: mac.parse().ok()?,
            served: addresses.iter().map(address).collect::<Option<_>>()?,
            hostname: Some(*hostname).filter(|name| is_label(name))?.to_owned(),
        })
    }

    /// Whether a lease of one of its addresses may be its own. On DHCPv6 a guest has one identifier for all its interfaces,
    /// which may tell the MAC of another one, or none at all. But it is given its name with the address, and dnsmasq gives
    /// the IPv6 leases of one that is renamed no other.
    pub fn may_hold(&self, lease: &Lease) -> bool {
        match &lease.client {
            Client::Mac(mac) => *mac == self.mac,
            Client::Duid { .. } => lease.hostname.as_deref().is_none_or(|name| name == self.hostname),
        }
    }
}

/// Writes a file that all may read, whatever our umask.
fn write(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)?;
    Ok(file)
}

/// The paths in a directory; none where there is no directory.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// What is gone already is gone.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_line_is_read_back_and_nothing_else_is() {
        let host = Host {
            mac: "fa:16:3e:00:00:01".parse().expect("mac"),
            served: vec![[10, 0, 0, 5].into(), "fd00::5".parse().expect("address")],
            hostname: "web-1".into(),
        };
        let line = host.line();
        assert_eq!(line, "fa:16:3e:00:00:01,10.0.0.5,[fd00::5],web-1.\n");
        assert_eq!(Host::parse(&line), Some(host.clone()));
        for end in 0..line.len() {
            assert_eq!(Host::parse(&line[..end]), None, "{:?}", &line[..end]);
        }
        for bad in ["\n", &format!("{line}{line}"), &line.replace("web-1", "a,b"), &line.replace("web-1", "Web")] {
            assert_eq!(Host::parse(bad), None, "{bad:?}");
        }
        let bare = Host { served: Vec::new(), ..host };
        assert_eq!(Host::parse(&bare.line()), Some(bare));
    }

    #[test]
    fn leases_that_are_not_as_the_entries_have_it_are_struck_out() {
        let dir = tempfile::tempdir().expect("directory");
        let (files, network) = (Files::new(dir.path().to_owned()), "private".parse().expect("name"));
        for dir in DIRECTORIES {
            fs::create_dir(files.dir.join(dir)).expect("directory");
        }
        files.put("hosts", "web", "fa:16:3e:00:00:01,10.9.0.11,[fd00::11],web.\n").expect("host");
        files.put("hosts", "port.db", "fa:16:3e:00:00:02,10.9.0.13,db.\n").expect("host");
        let right =
            "1795239795 fa:16:3e:00:00:01 10.9.0.11 web *\nduid 00:01:aa\n1795239795 7 fd00::11 web 00:02:00:01\n";
        let wrong = "1795239795 fa:16:3e:00:00:02 10.9.0.12 db *\n1795239795 8 fd00::12 db 00:02:00:02\n17952";
        fs::write(files.leases(), format!("{right}{wrong}")).expect("leases");
        files.strike_leases(&network).expect("struck");
        assert_eq!(fs::read_to_string(files.leases()).expect("leases"), right);
    }
}
