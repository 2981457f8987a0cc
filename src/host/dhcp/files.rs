//! The files of one network's dnsmasq, and what is written in them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::object::{Dhcp, HostEntry};
use crate::host::HostError;
use crate::host::files::{PASSABLE, make_dir, make_project_dir};
use crate::value::Mac;

/// How old the lease file must be to be read. dnsmasq empties it and writes it again, so that one that changes right now
/// may be found half written.
const REST: Duration = Duration::from_millis(20);
/// How often to look whether the lease file rests, before it is read as it is.
const LOOKS: u32 = 50;
/// From what size on a log is thrown away at the next start, in bytes.
const LOG_MAX: u64 = 1 << 20;

/// Where the files of one network's dnsmasq are.
///
/// | file | |
/// |---|---|
/// | `dhcp.json` | what the process was started with: [`Started`] |
/// | `hosts/<server>` | one host entry; dnsmasq reads every file in there, so nothing else may be put there |
/// | `<server>.host.new` | a host entry not yet in its place |
/// | `reload` | dnsmasq may still know host entries that are no more, and is to be told |
/// | `leases`, `pid`, `log` | dnsmasq's own |
#[derive(Clone, Debug)]
pub(super) struct Files {
    dir: PathBuf,
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

/// A lease that dnsmasq has granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it ends, in seconds since 1970; 0 stands for never.
    pub expires: u64,
    /// Whom it was granted to.
    pub mac: Mac,
    /// The address.
    pub address: Ipv4Addr,
    /// The name of the guest, where it has one.
    pub hostname: Option<String>,
}

impl Lease {
    /// One line of dnsmasq's lease file: expiry, MAC, address, name or `*`, client id or `*`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let lease = Self {
            expires: words.next()?.parse().ok()?,
            mac: words.next()?.parse().ok()?,
            address: words.next()?.parse().ok()?,
            hostname: words.next().filter(|name| *name != "*").map(str::to_owned),
        };
        Some(lease)
    }
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

    pub fn host(&self, server: &str) -> PathBuf {
        self.hosts().join(server)
    }

    fn host_new(&self, server: &str) -> PathBuf {
        self.dir.join(format!("{server}{HOST_NEW}"))
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
    /// umask. Only while dnsmasq does not run: it would not watch a new `hosts/`.
    pub fn create(&self, layout: &Layout) -> Result<(), HostError> {
        make_project_dir(layout)?;
        make_dir(&layout.networks(), PASSABLE)?;
        make_dir(&self.dir, PASSABLE)?;
        make_dir(&self.hosts(), 0o755)
    }

    /// Removes our files, then the directory. What else is in there stays, and so does then the directory.
    pub fn remove(&self) -> io::Result<()> {
        for path in entries(&self.hosts())? {
            if name_of(&path).is_some_and(|name| name.parse::<Name>().is_ok()) {
                gone(fs::remove_file(path))?;
            }
        }
        for path in entries(&self.dir)? {
            if name_of(&path).is_some_and(|name| OURS.contains(&name) || name.ends_with(HOST_NEW)) {
                gone(fs::remove_file(path))?;
            }
        }
        for dir in [self.hosts(), self.dir.clone()] {
            match gone(fs::remove_dir(&dir)) {
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

    /// Puts a host entry in its place at once, whole and readable. Not forced to disk: one lost with the power is seen
    /// as different, and written again.
    pub fn write_host(&self, server: &str, line: &str) -> io::Result<()> {
        let new = self.host_new(server);
        write(&new, line.as_bytes())?;
        fs::rename(new, self.host(server))
    }

    /// Removes a host entry and what was to be one.
    pub fn remove_host(&self, server: &str) -> io::Result<()> {
        gone(fs::remove_file(self.host(server)))?;
        gone(fs::remove_file(self.host_new(server)))
    }

    /// The text of a host entry; none where there is nothing, and empty where dnsmasq cannot read it.
    pub fn read_host(&self, server: &str) -> Option<String> {
        let path = self.host(server);
        let mode = fs::symlink_metadata(&path).ok()?.permissions().mode();
        let text = if mode & 0o004 == 0 { Vec::new() } else { fs::read(&path).unwrap_or_default() };
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// All host entries by server. One whose text is not ours is there, with nothing in it.
    pub fn read_hosts(&self) -> io::Result<BTreeMap<Name, Option<Host>>> {
        let mut hosts = BTreeMap::new();
        for path in entries(&self.hosts())? {
            let Some(server) = name_of(&path).and_then(|name| name.parse::<Name>().ok()) else { continue };
            if let Some(text) = self.read_host(server.as_str()) {
                hosts.insert(server, Host::parse(&text));
            }
        }
        Ok(hosts)
    }

    /// The leases as dnsmasq wrote them down, read while it is not at it.
    pub fn read_leases(&self) -> io::Result<Vec<Lease>> {
        let path = self.leases();
        for _ in 0..LOOKS {
            match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                // A time in the future is no sign of a write that goes on.
                found => match found?.modified()?.elapsed() {
                    Ok(age) if age < REST => thread::sleep(REST - age),
                    _ => break,
                },
            }
        }
        let text = fs::read(&path)?;
        Ok(String::from_utf8_lossy(&text).lines().filter_map(Lease::parse).collect())
    }

    /// Strikes all leases out that are not as the host entries have it. Only while dnsmasq does not run: it keeps its
    /// leases in memory.
    pub fn strike_leases(&self) -> io::Result<()> {
        let hosts: Vec<Host> = self.read_hosts()?.into_values().flatten().collect();
        let text = fs::read(self.leases())?;
        let mut kept = String::new();
        for line in String::from_utf8_lossy(&text).lines() {
            let lease = Lease::parse(line);
            if lease.is_some_and(|it| hosts.iter().any(|host| host.mac == it.mac && host.address == it.address)) {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        let new = self.dir.join(LEASES_NEW);
        write(&new, kept.as_bytes())?.sync_all()?;
        fs::rename(new, self.leases())
    }
}

const HOST_NEW: &str = ".host.new";
const RECORD_NEW: &str = "dhcp.json.new";
const LEASES_NEW: &str = "leases.new";
const OURS: [&str; 7] = ["dhcp.json", RECORD_NEW, "leases", LEASES_NEW, "log", "pid", "reload"];

/// What a host entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub hostname: String,
}

impl Host {
    pub fn of(entry: &HostEntry) -> Self {
        Self { mac: entry.mac, address: entry.address, hostname: entry.hostname.clone() }
    }

    /// The line for dnsmasq's hosts directory. The name ends with a dot, for without one dnsmasq takes a host by the
    /// name of `ignore` as one to be ignored, `infinite` as a lease time, and `1h` as well.
    pub fn line(&self) -> String {
        format!("{},{},{}.\n", self.mac, self.address, self.hostname)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix(".\n")?.split(',');
        let host = Self {
            mac: words.next()?.parse().ok()?,
            address: words.next()?.parse().ok()?,
            hostname: words.next().filter(|name| is_label(name))?.to_owned(),
        };
        words.next().is_none().then_some(host)
    }
}

/// Whether a text is one lowercase label of a host name (RFC 1123, 2.1).
pub(super) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
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
            address: Ipv4Addr::new(10, 0, 0, 5),
            hostname: "web-1".into(),
        };
        let line = host.line();
        assert_eq!(line, "fa:16:3e:00:00:01,10.0.0.5,web-1.\n");
        assert_eq!(Host::parse(&line), Some(host));
        for end in 0..line.len() {
            assert_eq!(Host::parse(&line[..end]), None, "{:?}", &line[..end]);
        }
        for bad in ["\n", &format!("{line}{line}"), &line.replace("web-1", "a,b"), &line.replace("web-1", "Web")] {
            assert_eq!(Host::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn leases_are_read_once_they_rest() {
        let dir = tempfile::tempdir().expect("directory");
        let files = Files::new(dir.path().to_owned());
        assert_eq!(files.read_leases().expect("none yet"), []);
        let line = "1795239795 fa:16:3e:00:00:01 10.9.0.11 web *\n";
        thread::scope(|scope| {
            // As dnsmasq does it: emptied, then written.
            fs::write(files.leases(), "").expect("emptied");
            scope.spawn(|| {
                thread::sleep(REST / 4);
                fs::write(files.leases(), format!("duid 00:01\n{line}0 fa:16:3e:00:00:02 10.9.0.12 * 01:02\n17952"))
                    .expect("written");
            });
            let leases = files.read_leases().expect("leases");
            let seen: Vec<_> =
                leases.iter().map(|it| (it.expires, it.address.octets()[3], it.hostname.as_deref())).collect();
            assert_eq!(seen, [(1_795_239_795, 11, Some("web")), (0, 12, None)]);
        });
        fs::create_dir(files.hosts()).expect("hosts");
        files.write_host("web", "fa:16:3e:00:00:01,10.9.0.11,web.\n").expect("host");
        files.write_host("db", "fa:16:3e:00:00:02,10.9.0.13,db.\n").expect("host");
        files.strike_leases().expect("struck");
        assert_eq!(fs::read_to_string(files.leases()).expect("leases"), line);
    }
}
