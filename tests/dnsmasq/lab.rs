//! A bridge in a network namespace of the test's own thread, and guests in others.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
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

pub const BRIDGE: &str = "brq-test";

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
#[allow(clippy::print_stderr)]
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

impl Lab {
    pub fn make_bridge(&self) {
        // With a MAC of its own, as ours have: else it changes with its ports, and guests lose it.
        ip(&format!("link add {BRIDGE} address fa:16:3e:ff:00:01 type bridge forward_delay 0"));
        ip(&format!("addr add 10.9.0.1/24 dev {BRIDGE}"));
        ip(&format!("addr add 10.9.1.1/24 dev {BRIDGE}"));
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
        self.dnsmasq.ensure_server(&self.dhcp()).expect("dnsmasq starts");
    }

    pub fn host(&self, server: &str, mac: &str, address: [u8; 4]) -> HostEntry {
        let entry = entry(server, mac, address);
        self.put(&entry);
        entry
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

    pub fn assert_settled(&self, hosts: &[&HostEntry]) {
        let mut wanted = vec![Object::Dhcp(self.dhcp())];
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

    pub fn log(&self) -> String {
        fs::read_to_string(self.net("log")).expect("log")
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

pub fn ip(arguments: &str) {
    let output = Command::new("/usr/sbin/ip").args(arguments.split(' ')).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
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
    dir: PathBuf,
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
        let client = Self { jobs, dir: dir.join(format!("client{number}")), port };
        fs::create_dir(&client.dir).expect("directory");
        let script = client.dir.join("script");
        let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nenv > \"$OUT\"\nip addr flush dev $interface\n\
                    ip addr add $ip/$mask dev $interface\n";
        fs::write(&script, text).expect("script");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("mode");
        client.run("/usr/sbin/ip link set eth0 up");
        client
    }

    pub fn unplug(&self) {
        ip(&format!("link del {}", self.port));
    }

    /// Runs a command in the client's network and gives all that it says.
    pub fn run(&self, command: &str) -> String {
        let (say, said) = mpsc::channel();
        let mut words = command.split(' ').map(str::to_owned);
        let mut command = Command::new(words.next().expect("program"));
        command.args(words).env("OUT", self.dir.join("out")).stdin(Stdio::null());
        self.jobs
            .send(Box::new(move || {
                let output = command.output().expect("program runs");
                let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.push_str(&String::from_utf8_lossy(&output.stderr));
                say.send(text).expect("listener");
            }))
            .expect("thread");
        said.recv().expect("thread")
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

    pub fn resolve(&self, name: &str) -> String {
        self.run(&format!("/usr/bin/timeout 5 /usr/bin/busybox nslookup -type=a {name} 10.9.0.1"))
    }
}
