//! A bridge in a network namespace of the test's own thread, and guests in others.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, geteuid, gettid};
use novella::address::PortId;
use novella::blueprint::Layout;
use novella::blueprint::dhcp::Assignment;
use novella::blueprint::facts::Facts;
use novella::blueprint::key::{ObjectKey, dhcp_key};
use novella::blueprint::object::{Dhcp, DhcpRange, HostEntry, Object, PortAddress};
use novella::host::HostError;
use novella::host::dhcp::Dnsmasq;
use novella::plan::world::Observed;
use novella::value::Mac;

use crate::wire::{self, Told};

pub const BRIDGE: &str = "brq-test";

/// Where the host is to be found.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// A bridge with a dnsmasq's directory, in a network namespace of its own. All of it goes when it is dropped.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub dnsmasq: Dnsmasq,
    layout: Layout,
    clients: Cell<u32>,
}

/// Runs a test in a thread with its own network, or says why it cannot.
pub fn lab(test: impl FnOnce(&Lab) + Send + 'static) {
    let missing =
        ["/usr/sbin/dnsmasq", "/usr/bin/busybox", "/usr/sbin/ip"].into_iter().find(|it| !Path::new(it).exists());
    if let Some(missing) = missing {
        return skip(&format!("there is no {missing}"));
    }
    if !geteuid().is_root() {
        return skip("only root may make networks and be dnsmasq's");
    }
    let ran = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("own network");
        // As the program runs: dnsmasq must still be able to read what is meant for it.
        umask(Mode::from_bits_truncate(0o077));
        let dir = tempfile::tempdir().expect("directory");
        let layout = Layout::new(dir.path(), &"default".parse().expect("name"));
        let dnsmasq = Dnsmasq::new(layout.clone());
        let lab = Lab { dir, dnsmasq, layout, clients: Cell::new(0) };
        ip("link set lo up");
        lab.make_bridge();
        test(&lab);
    })
    .join();
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

/// Says why a test, or the rest of it, is not run.
pub fn skip(reason: &str) {
    say(&format!("skipped: {reason}"));
}

pub fn say(text: &str) {
    // Where nobody listens, nothing is lost.
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Lab {
    pub fn make_bridge(&self) {
        // As ours are: with a MAC of its own, else it changes with its ports, and guests lose it; and with IPv6 at once.
        ip(&format!("link add {BRIDGE} address fa:16:3e:ff:00:01 type bridge forward_delay 0"));
        fs::write(format!("/proc/sys/net/ipv6/conf/{BRIDGE}/accept_dad"), "0").expect("setting");
        for address in ["10.9.0.1/24", "10.9.1.1/24", "fd00:9::1/64"] {
            ip(&format!("addr add {address} dev {BRIDGE}"));
        }
        ip(&format!("link set {BRIDGE} up"));
    }

    pub fn dhcp(&self) -> Dhcp {
        Dhcp {
            network: "private".parse().expect("name"),
            bridge: BRIDGE.into(),
            dir: self.net(""),
            ranges: vec![
                range("one", "10.9.0.0/24", Some([10, 9, 0, 1].into())),
                DhcpRange {
                    dns: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
                    ..range("two", "10.9.1.0/24", None)
                },
            ],
            mtu: 1400,
            domain: "lab.example".into(),
            records: BTreeMap::new(),
        }
    }

    /// A file of the network; its directory for none.
    pub fn net(&self, file: &str) -> PathBuf {
        let dir = self.layout.network("private");
        if file.is_empty() { dir } else { dir.join(file) }
    }

    pub fn start(&self) {
        self.serve(&self.dhcp());
    }

    pub fn serve(&self, dhcp: &Dhcp) {
        self.dnsmasq.ensure_server(dhcp).expect("dnsmasq starts");
    }

    pub fn host(&self, server: &str, mac: &str, address: [u8; 4]) -> HostEntry {
        let entry = entry(server, mac, address);
        self.put(&entry);
        entry
    }

    /// Puts a new host entry in the place of one with other addresses or another MAC, as a plan does it: all that goes, goes
    /// first.
    pub fn replace(&self, old: &[&str], new: &[&HostEntry]) {
        old.iter().for_each(|server| self.dnsmasq.remove_host(&port(server)).expect("removed"));
        self.dnsmasq.reload("private").expect("reloaded");
        new.iter().for_each(|entry| self.dnsmasq.ensure_host(entry).expect("host entry"));
    }

    /// Puts a host entry in force.
    pub fn put(&self, entry: &HostEntry) {
        self.dnsmasq.ensure_host(entry).expect("host entry");
        self.dnsmasq.reload("private").expect("reloaded");
    }

    /// Removes the host entry of a server.
    pub fn remove(&self, server: &str) {
        self.dnsmasq.remove_host(&port(server)).expect("removed");
        self.dnsmasq.reload("private").expect("reloaded");
    }

    pub fn observe(&self) -> BTreeMap<ObjectKey, Facts> {
        let mut observed = Observed::default();
        self.dnsmasq.observe(&mut observed).expect("observe");
        observed.objects
    }

    pub fn process_state(&self) -> String {
        self.observe()[&dhcp_key(&self.dhcp().network)]["process"].clone()
    }

    /// Whether the host shows just what these objects say.
    pub fn assert_settled(&self, hosts: &[&HostEntry]) {
        self.assert_settled_as(&self.dhcp(), hosts);
    }

    pub fn assert_settled_as(&self, dhcp: &Dhcp, hosts: &[&HostEntry]) {
        let mut wanted = vec![Object::Dhcp(dhcp.clone())];
        wanted.extend(hosts.iter().map(|it| Object::HostEntry((*it).clone())));
        let wanted: BTreeMap<ObjectKey, Facts> = wanted.iter().map(|it| (it.key(), it.facts())).collect();
        assert_eq!(self.observe(), wanted);
        assert!(!self.net("reload").exists(), "dnsmasq was told of all");
    }

    /// All processes that were started with a file in our directory.
    pub fn pids(&self) -> Vec<i32> {
        let mark = self.dir.path().to_str().expect("text").to_owned();
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if let (Some(Ok(pid)), true) =
                (entry.file_name().to_str().map(str::parse), line.contains("dnsmasq\0") && line.contains(&mark))
            {
                pids.push(pid);
            }
        }
        pids
    }

    pub fn pid(&self) -> i32 {
        let pids = self.pids();
        assert_eq!(pids.len(), 1, "one dnsmasq");
        pids[0]
    }

    /// Waits until dnsmasq has nothing to do.
    pub fn rest(&self) {
        let stat = format!("/proc/{}/stat", self.pid());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(&stat).expect("process").contains(") S ") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.net("log")).expect("log")
    }

    /// What the DNS says to the host: each answer as its type and its value.
    pub fn lookup(&self, kind: &str, name: &str) -> Vec<String> {
        wire::lookup(SERVER.into(), kind, name)
    }

    pub fn leases(&self) -> Vec<(Option<String>, String)> {
        let leases = self.dnsmasq.leases("private").expect("leases");
        leases.iter().map(|it| (it.client.mac().map(|mac| mac.to_string()), it.address.to_string())).collect()
    }

    /// Whether dnsmasq took all that it was given to read.
    pub fn assert_no_complaint(&self) {
        self.rest();
        let log = self.log();
        let words =
            ["bad", "error", "ignoring", "duplicate", "too long", "invalid", "missing", "cannot", "fail", "illegal"];
        let told_of =
            |file: &str| log.lines().filter(|it| it.ends_with(&format!("inotify: {file} new or modified"))).count();
        let is_complaint = |line: &&str| {
            // It looks for a file whose removal it was told of. And it is told of a file twice when a program that starts right
            // then has inherited it: the second time it is a duplicate of itself.
            let twice = line.contains("duplicate") && line.rsplit(' ').next().is_some_and(|file| told_of(file) > 1);
            !twice
                && !line.ends_with("No such file or directory")
                && words.iter().any(|it| line.to_lowercase().contains(it))
        };
        let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    pub fn client(&self, mac: &str) -> Client {
        let number = self.clients.get();
        self.clients.set(number + 1);
        Client::new(number, mac, self.dir.path())
    }

    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.layout.networks(), &mut files);
        files
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pid in self.pids() {
            kill_and_wait(pid);
        }
    }
}

fn walk(dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        files.push(entry.path().display().to_string());
        walk(&entry.path(), files);
    }
}

pub fn kill_and_wait(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let gone = || matches!(status().split("State:\t").nth(1).and_then(|it| it.chars().next()), None | Some('Z' | 'X'));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gone() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(gone(), "process {pid} ends");
}

pub fn ip(arguments: &str) -> String {
    let output = Command::new("/usr/sbin/ip").args(arguments.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The port of a server.
pub fn port(server: &str) -> PortId {
    PortId::Inline { server: server.parse().expect("name"), network: "private".parse().expect("name") }
}

pub fn range(subnet: &str, cidr: &str, router: Option<IpAddr>) -> DhcpRange {
    DhcpRange {
        subnet: subnet.parse().expect("name"),
        cidr: cidr.parse().expect("cidr"),
        assignment: Assignment::Dhcp,
        router,
        dns: Vec::new(),
        routes: Vec::new(),
        domain: None,
        lease_seconds: 3600,
    }
}

pub fn entry(server: &str, mac: &str, address: impl Into<IpAddr>) -> HostEntry {
    HostEntry {
        port: port(server),
        network: "private".parse().expect("name"),
        mac: mac.parse().expect("mac"),
        addresses: vec![PortAddress {
            address: address.into(),
            assignment: Assignment::Dhcp,
            domain: "lab.example".into(),
        }],
        hostname: server.into(),
        options: Vec::new(),
    }
}

pub fn chain(error: &HostError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

type Job = Box<dyn FnOnce() + Send>;

/// A guest: a thread in its own network, with one port on the bridge.
pub struct Client {
    jobs: mpsc::Sender<Job>,
    pub mac: Mac,
    pub dir: PathBuf,
    port: String,
}

impl Client {
    fn new(number: u32, mac: &str, dir: &Path) -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("own network");
            say.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid())).expect("listener");
            for job in todo {
                job();
            }
        });
        let network = said.recv().expect("thread");
        let port = format!("port{number}");
        ip(&format!("link add {port} type veth peer name eth0 address {mac} netns {network}"));
        ip(&format!("link set {port} master {BRIDGE} up"));
        let mac = mac.parse().expect("mac");
        let client = Self { jobs, mac, dir: dir.join(format!("client{number}")), port };
        fs::create_dir(&client.dir).expect("directory");
        let script = client.dir.join("script");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nenv > \"$OUT\"\nip addr flush dev $interface\n\
                    ip addr add $ip/$mask dev $interface\n";
        fs::write(&script, text).expect("script");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("mode");
        client.within(|| fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").expect("setting"));
        client.run("/usr/sbin/ip link set eth0 up");
        // What is sent before that is lost.
        let deadline = Instant::now() + Duration::from_secs(5);
        while !ip(&format!("-details link show {}", client.port)).contains("state forwarding") {
            assert!(Instant::now() < deadline, "the bridge forwards what the guest sends");
            thread::sleep(Duration::from_millis(5));
        }
        client
    }

    pub fn unplug(&self) {
        ip(&format!("link del {}", self.port));
    }

    /// Does something in the client's network.
    pub fn within<T: Send + 'static>(&self, deed: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, said) = mpsc::channel();
        self.jobs.send(Box::new(move || say.send(deed()).expect("listener"))).expect("thread");
        said.recv().expect("thread")
    }

    /// Runs a command in the client's network and gives all that it says.
    pub fn run(&self, command: &str) -> String {
        let mut words = command.split(' ').map(str::to_owned);
        let mut command = Command::new(words.next().expect("program"));
        command.args(words).env("OUT", self.dir.join("out")).stdin(Stdio::null());
        let output = self.within(move || command.output().expect("program runs"));
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Asks for an address, at most `tries` times. What it was told, if anything.
    pub fn dhcp(&self, tries: u32, more: &str) -> Option<BTreeMap<String, String>> {
        let out = self.dir.join("out");
        let _ = fs::remove_file(&out);
        let script = self.dir.join("script");
        self.run(
            format!(
                "/usr/bin/busybox udhcpc -f -q -n -t {tries} -T 1 -A 0 -i eth0 -O mtu -O hostname -s {} {more}",
                script.display()
            )
            .trim(),
        );
        let text = fs::read_to_string(out).ok()?;
        Some(text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// Asks for an address; the one that it gets.
    pub fn address(&self) -> Option<String> {
        self.dhcp(2, "").map(|told| told["ip"].clone())
    }

    /// Gets a lease, and all options that it asks for, byte by byte.
    pub fn ask(&self, wanted: &[u8]) -> Option<Told> {
        let (mac, wanted) = (self.mac, wanted.to_vec());
        self.within(move || wire::lease(mac, &wanted))
    }

    /// Lets dhcpcd do IPv6 as the router says, with more lines of its configuration. All that it was told, by the names that
    /// dhcpcd has for it, once it has an address or none within 4 seconds.
    pub fn dhcp6(&self, more: &str) -> BTreeMap<String, String> {
        self.dhcpcd(&["-1"], more)
    }

    /// The same for 4 seconds, whether it has an address or not.
    pub fn dhcp6_to_the_end(&self) -> BTreeMap<String, String> {
        self.dhcpcd(&[], "")
    }

    fn dhcpcd(&self, arguments: &[&str], more: &str) -> BTreeMap<String, String> {
        let (out, script) = (self.dir.join("out6"), self.dir.join("script6"));
        let _ = fs::remove_file(&out);
        fs::write(&script, "#!/bin/sh\nenv >> \"$OUT6\"\n").expect("script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
        let conf = self.dir.join("dhcpcd.conf");
        // It crashes when it looks for udev in vain.
        let asks = "option dhcp6_name_servers,dhcp6_domain_search";
        let text = format!("nodev\nipv6only\nslaac hwaddr\n{asks}\nenv OUT6={}\n{more}\n", out.display());
        fs::write(&conf, text).expect("configuration");
        // Each guest has its own memory of its leases and of who it is.
        let mut command = Command::new("/usr/bin/unshare");
        let then = "mount -t tmpfs none /var/lib/dhcpcd; mount -t tmpfs none /run; exec \"$@\"";
        command.args(["--mount", "/bin/sh", "-c", then, "sh", "/usr/bin/timeout", "4", "/usr/sbin/dhcpcd", "-6", "-B"]);
        command.args(arguments);
        command.arg("-f").arg(conf).arg("-c").arg(script).arg("eth0").stdin(Stdio::null());
        let output = self.within(move || command.output().expect("dhcpcd runs"));
        fs::write(self.dir.join("said6"), [output.stdout, output.stderr].concat()).expect("file");
        let text = fs::read_to_string(out).unwrap_or_default();
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    pub fn resolve(&self, name: &str) -> String {
        self.run(&format!("/usr/bin/timeout 5 /usr/bin/busybox nslookup -type=a {name} 10.9.0.1"))
    }

    /// What the DNS says to the guest.
    pub fn lookup(&self, kind: &str, name: &str) -> Vec<String> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.within(move || wire::lookup(SERVER.into(), &kind, &name))
    }
}
