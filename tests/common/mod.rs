//! What several test programs use.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod place;
pub mod save;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use novella::apply::{self, Options, Outcome, Retry, events::Silent};
use novella::blueprint::hardware::Hardware;
use novella::blueprint::object::{Attachment, DiskFormat, Domain, Nic, Power, VirtType};
use novella::desired::{self, Desired};
use novella::diagnostic::has_errors;
use novella::host::Host;
use novella::plan::Plan;
use novella::plan::world::Recorded;
use novella::store::Store;
use novella::value::{ByteSize, Mac};
use novella::wishes::Wishes;
use novella::{reconcile, report, spec};

/// Two networks, two images, five servers: every kind of object, and every way in which one uses another.
pub const BASE: &str = r#"
novella = 1

[host.local]
data_dir = "/data"

[network.private]
[subnet.private-v4]
network = "private"
cidr = "10.20.0.0/24"

[network.closed]
forward = "isolated"
[subnet.closed-v4]
network = "closed"
cidr = "10.30.0.0/24"

[image.debian]
source = "https://images.example/debian.qcow2"
format = "qcow2"

[image.tiny]
source = "/images/tiny.raw"
format = "raw"
kernel = "/images/vmlinuz"
initrd = "/images/initrd"

[flavor.small]
ram = "128 MiB"
disk = "1 GiB"

[server.web]
image = "debian"
flavor = "small"
networks = ["private"]
count = 2

[server.db]
image = "tiny"
flavor = "small"
networks = ["private", "closed"]
fixed_ip = "10.20.0.50"

[server.spare]
image = "tiny"
flavor = "small"
networks = ["closed"]
power = "off"
"#;

/// What [`BASE`] has not: volumes, and servers with several disks in each way. Without the servers of [`BASE`].
pub const DISKS: &str = r#"
[flavor.roomy]
ram = "128 MiB"
disk = "1 GiB"
ephemeral = "1 GiB"
swap = "64 MiB"

[volume.data]
size = "1 GiB"
[volume.logs]
size = "1 GiB"
format = "raw"
[volume.copy]
image = "debian"
size = "1 GiB"

[server.one]
image = "debian"
flavor = "roomy"
networks = ["private"]
volumes = ["data", { volume = "logs", bus = "scsi", cache = "none" }]
root_disk = { cache = "none" }

[server.two]
image = "tiny"
flavor = "roomy"
networks = ["private"]
# other
volumes = ["copy"]

[server.many]
image = "tiny"
flavor = "small"
networks = ["closed"]
disks = [{ name = "scratch", size = "1 GiB" }, { name = "raw", size = "1 GiB", format = "raw", image = "tiny" }]
count = 2

[server.off]
image = "tiny"
flavor = "small"
networks = ["closed"]
power = "off"
# off
"#;

/// What [`BASE`] has not: a network with both IP versions in each mode, ports of their own, routes, options, records.
pub const PORTS: &str = r#"
[network.lab]
domain = "lab.internal"
[subnet.lab-v4]
network = "lab"
cidr = "10.40.0.0/24"
host_routes = [{ destination = "10.99.0.0/16", nexthop = "10.40.0.254" }]
[subnet.lab-slaac]
network = "lab"
cidr = "fd40::/64"
[subnet.lab-v6]
network = "lab"
cidr = "fd41::/64"
ipv6_mode = "dhcpv6-stateful"
[dns_record.www]
network = "lab"
type = "CNAME"
records = ["db"]
[dns_record.db]
network = "lab"
type = "A"
records = ["10.40.0.200"]

[port.vip]
network = "lab"
fixed_ips = ["10.40.0.40", { subnet = "lab-v6" }]
extra_dhcp_opts = [{ name = "bootfile-name", value = "pxelinux.0" }]
[port.free]
network = "lab"

[server.app]
image = "tiny"
flavor = "small"
ports = ["vip", { network = "private" }]

[server.cache]
image = "tiny"
flavor = "small"
ports = [{ network = "lab", dns_name = "redis" }]
"#;

/// What [`BASE`] has not: servers whose guests are told something, each with another policy, and one that must be.
pub const SEEDS: &str = r#"
[keypair.me]
public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t me@here"

[network.told]
[subnet.told-v4]
network = "told"
cidr = "10.50.0.0/24"
dhcp = false

[server.many]
image = "debian"
flavor = "small"
networks = ["private"]
count = 3
key_pairs = ["me"]
metadata = { role = "web" }
config_drive = true

[server.fixed]
image = "tiny"
flavor = "small"
networks = ["told", "private"]
fixed_ip = "10.50.0.9"

[server.next]
image = "tiny"
flavor = "small"
networks = ["private"]
user_data = """
#cloud-config
password: hunter2
"""
files = [{ path = "/etc/secret", content = "hunter2", mode = "0600" }]

[server.same]
image = "tiny"
flavor = "small"
networks = ["private"]
user_data = "hunter2"
on_user_data_change = "ignore"

[server.anew]
image = "debian"
flavor = "small"
networks = ["private"]
user_data = "hunter2"
on_user_data_change = "rebuild"
"#;

/// A domain of others, which [`SimHost::define`](novella::host::sim::SimHost::define) takes.
pub fn old() -> Domain {
    let nic = |number: u8| Nic {
        network: "old".parse().expect("a name"),
        port: None,
        bridge: "br-old".into(),
        tap: format!("vnet{number}"),
        mac: Mac([0x52, 0x54, 0, 0, 0, number]),
        mtu: 1500,
        unplugged: false,
    };
    Domain {
        server: "old".parse().expect("a name"),
        project: "others".parse().expect("a name"),
        name: "old-web".into(),
        uuid: "6ba7b810-9dad-51d1-80b4-00c04fd430c8".parse().expect("a UUID"),
        imported: false,
        virt_type: VirtType::Kvm,
        vcpus: 2,
        max_vcpus: None,
        memory: ByteSize::mib(96),
        max_memory: None,
        hardware: Hardware::default(),
        disk: "/images/old.img".into(),
        disk_format: DiskFormat::Raw,
        base: None,
        root_disk: Attachment::default(),
        disks: Vec::new(),
        nics: vec![nic(1), nic(2)],
        boot: None,
        seed: None,
        console_log: "/var/log/old".into(),
        power: Power::On,
        depends_on: Vec::new(),
        shutdown_timeout: 60,
    }
}

/// The spec as novella understands it. Panics with the diagnostics if it is not valid.
pub fn desired(text: &str) -> Desired {
    let loaded = spec::load::load_texts([("test.toml", text)]);
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let diagnostics = [loaded.diagnostics, problems].concat();
    let said = report::diagnostics::to_text(&diagnostics, &loaded.source);
    assert!(!has_errors(&diagnostics), "{said}");
    desired.unwrap_or_else(|| panic!("{said}"))
}

/// The spec in a directory, which must be valid.
pub fn desired_in(directory: &std::path::Path) -> Desired {
    let loaded = spec::load(directory);
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let diagnostics = [loaded.diagnostics, problems].concat();
    desired.unwrap_or_else(|| panic!("{}", report::diagnostics::to_text(&diagnostics, &loaded.source)))
}

/// The spec's diagnostics as text.
pub fn diagnostics(texts: &[(&str, &str)]) -> String {
    let loaded = spec::load::load_texts(texts.iter().copied());
    let (_, problems) = desired::resolve(&loaded.spec, &loaded.source);
    report::diagnostics::to_text(&[loaded.diagnostics, problems].concat(), &loaded.source)
}

/// The plan of a spec.
pub fn plan(text: &str, recorded: Recorded, host: &dyn Host) -> Plan {
    if text.is_empty() {
        return reconcile::plan_destroy(&desired(BASE), recorded, host).expect("a plan");
    }
    reconcile::plan(&desired(text), recorded, host).expect("a plan")
}

/// The plan of a spec that makes some servers anew; whether it touches nothing else.
pub fn plan_anew(text: &str, replace: &[String], only_these: bool, recorded: Recorded, host: &dyn Host) -> Plan {
    let desired = desired(text);
    let wishes = Wishes { only_these, ..Wishes::new(replace, &[], &desired, &recorded).expect("addresses") };
    reconcile::plan_with(&desired, recorded, host, &wishes).expect("a plan")
}

/// Walks a plan without patience.
pub fn walk(plan: &Plan, host: &dyn Host, store: &dyn Store, parallelism: usize) -> Outcome {
    let retry = Retry { retries: 0, first: Duration::ZERO, most: Duration::ZERO };
    apply::apply(plan, host, store, Options { parallelism, retry }, &AtomicBool::new(false), &Silent)
}

/// Plans and applies, and expects every step to be done.
pub fn converge(text: &str, host: &dyn Host, store: &dyn Store) -> Plan {
    let plan = plan(text, store.load().expect("records"), host);
    assert!(plan.conflicts.is_empty(), "{:?}", plan.conflicts);
    let outcome = walk(&plan, host, store, 1);
    let failures: Vec<String> = outcome.failures().map(|(_, error)| report::error::chain(error)).collect();
    assert!(outcome.is_complete(), "{failures:#?}");
    plan
}

/// Compares a text with the file that holds what it should be. `NOVELLA_BLESS=1` writes the file anew.
pub fn assert_golden(path: &std::path::Path, actual: &str) {
    if std::env::var_os("NOVELLA_BLESS").is_some() {
        std::fs::write(path, actual).expect("the golden file");
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; look at the change, and if it is meant, run with NOVELLA_BLESS=1:\n{actual}",
        path.display()
    );
}

/// The folders in `tests/NAME`, in order.
pub fn folders(name: &str) -> Vec<std::path::PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let mut folders: Vec<_> =
        std::fs::read_dir(root).expect("the folder").map(|entry| entry.expect("entry").path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(!folders.is_empty());
    folders
}

/// A text without its colours.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}
