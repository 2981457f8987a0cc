//! A real libvirtd with QEMU, private to the test: namespaces of its own for mounts, network and processes, so that it
//! meets no other libvirtd, and all that it started ends with it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use novella::address::VolumeId;
use novella::blueprint::disk::{Attachment, Bus, Cache, Discard, DomainDisk};
use novella::blueprint::hardware::{CpuModel, Firmware, Hardware};
use novella::blueprint::object::{BaseRef, DiskFormat, Domain, Object, Power, VirtType};
use novella::desired::Desired;
use novella::host::domain_xml::compare::differences;
use novella::host::domain_xml::write;
use novella::plan::world::Recorded;
use novella::reconcile;
use novella::value::ByteSize;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::properties::domain;
use crate::{Bench, changed, common, settled, skip};

const PROGRAMS: [(&str, &str); 6] = [
    ("libvirtd", "libvirt-daemon"),
    ("virtlogd", "libvirt-daemon"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
];

/// Runs as the first process of the namespaces, and reaps what QEMU and libvirtd leave.
const SETUP: &str = r#"
set -e
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/libvirt /run/lock /var/lib/libvirt /var/cache/libvirt /var/log/libvirt
for directory in /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do mount -t tmpfs -o mode=755 none "$directory"; done
mkdir -p /var/lib/libvirt/qemu /var/log/libvirt/qemu
# Definitions go below /etc; what the packages put there must not be touched.
cp -a /etc/libvirt "$1/etc"; rm -rf "$1/etc/qemu"; mount --bind "$1/etc" /etc/libvirt
# As udev would make it. As long as only root can open it, libvirt probes QEMU anew at every define and start.
if [ -c /dev/kvm ]; then mknod -m 660 "$1/kvm" c 10 232; chown root:kvm "$1/kvm"; mount --bind "$1/kvm" /dev/kvm; fi
ip link set lo up
for bridge in brqprivate brqpublic; do ip link add "$bridge" type bridge; ip link set "$bridge" up; done
virtlogd -d
touch "$1/ready"
sleep infinity &
wait
"#;

struct Daemon {
    directory: TempDir,
    namespaces: Child,
}

impl Daemon {
    /// A running libvirtd; nothing, and the reason printed, where there cannot be one.
    fn start() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("a private libvirtd takes root");
            return None;
        }
        for (program, package) in PROGRAMS {
            if let Err(error) = novella::host::command::find(program, package) {
                skip(&error.to_string());
                return None;
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        // QEMU has a user of its own, who must be able to pass.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("made passable");
        let namespaces = Command::new("unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SETUP, "setup"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("stderr")).expect("a log"))
            .spawn()
            .expect("unshare starts");
        let mut daemon = Self { directory, namespaces };
        let ready = daemon.path("ready");
        if !eventually(Duration::from_secs(10), || ready.exists()) {
            let said = fs::read_to_string(daemon.path("stderr")).unwrap_or_default();
            if daemon.namespaces.try_wait().expect("waited").is_some() {
                skip(&format!("namespaces cannot be made here: {}", said.trim()));
                return None;
            }
            panic!("the namespaces are not ready: {said}");
        }
        let socket = daemon.path("libvirt-sock");
        let config = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\n",
            socket.parent().expect("a parent").display()
        );
        fs::write(daemon.path("libvirtd.conf"), config).expect("written");
        daemon.launch();
        Some(daemon)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Starts libvirtd, again if it was killed.
    fn launch(&self) {
        let started = self
            .inside("libvirtd")
            .arg("-d")
            .arg("-f")
            .arg(self.path("libvirtd.conf"))
            .arg("-p")
            .arg(self.path("pid"))
            .status()
            .expect("nsenter starts");
        assert!(started.success());
    }

    /// A command in the namespaces.
    fn inside(&self, program: &str) -> Command {
        let pid = self.namespaces.id();
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={pid}")).args(["--mount", "--net"]);
        command.arg(format!("--pid=/proc/{pid}/ns/pid_for_children")).arg(program);
        command
    }

    fn signal(&self, signal: &str) {
        let pid = fs::read_to_string(self.path("pid")).expect("a pid file");
        assert!(self.inside("kill").args([signal, pid.trim()]).status().expect("nsenter starts").success());
    }

    fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.inside(program).args(arguments).output().expect("nsenter starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A bench on this daemon whose files QEMU can reach.
    fn bench(&self, project: &'static str) -> Bench {
        let uri = format!("qemu+unix:///system?socket={}", self.path("libvirt-sock").display());
        let bench = Bench::at(&uri, project);
        fs::set_permissions(bench.directory.path(), fs::Permissions::from_mode(0o711)).expect("made passable");
        bench
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The first process of a process namespace takes all others with it.
        let _ = self.namespaces.kill();
        let _ = self.namespaces.wait();
    }
}

fn eventually(timeout: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < timeout {
        if is_so() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A domain with real disks: an overlay over a base that has nothing to boot.
fn with_disks(bench: &Bench, server: &str) -> Domain {
    let mut domain = bench.domain(server);
    let base = bench.directory.path().join("base.raw");
    fs::create_dir_all(domain.disk.parent().expect("a parent")).expect("made");
    fs::set_permissions(domain.disk.parent().expect("a parent"), fs::Permissions::from_mode(0o711)).expect("set");
    if !base.exists() {
        fs::write(&base, vec![0; 1 << 20]).expect("written");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o444)).expect("set");
    }
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .args([&base, &domain.disk])
        .status()
        .expect("qemu-img starts");
    assert!(made.success());
    domain.base = Some(BaseRef { id: "base.raw".into(), path: base, format: DiskFormat::Raw });
    domain.shutdown_timeout = 1;
    domain
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).expect("there");
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
}

#[test]
fn a_guest_runs_and_rests() {
    let Some(daemon) = Daemon::start() else { return };
    let bench = daemon.bench("real");
    let mut web = with_disks(&bench, "web");
    let base = web.base.clone().expect("a base").path;

    bench.hypervisor.ensure(&web).expect("started");
    assert_eq!(bench.differences(&web), settled());
    let first = bench.lookup(&web).id();
    bench.hypervisor.ensure(&web).expect("left alone");
    assert_eq!(bench.lookup(&web).id(), first);

    assert_eq!(owner(&base), (0, 0, 0o444), "the base is not given to QEMU while it runs");
    assert_ne!(owner(&web.disk).0, 0, "the disk is");
    let listening = daemon.output("ss", &["-Htln"]);
    assert!(listening.contains("127.0.0.1:5900"), "{listening}");
    assert!(!listening.contains("0.0.0.0:590") && !listening.contains("*:590"), "{listening}");
    for nic in &web.nics {
        let link = daemon.output("ip", &["-o", "link", "show", "dev", &nic.tap]);
        assert!(link.contains(&format!("master {}", nic.bridge)) && link.contains("mtu 1450"), "{link}");
    }
    let arguments = daemon.output("sh", &["-c", "cat /proc/*/cmdline | tr '\\0' '\\n' | grep blockdev -A1"]);
    assert!(
        arguments.contains(r#""driver":"raw","file":"libvirt-2-storage""#),
        "the base is opened as raw: {arguments}"
    );

    // The guest has no system that would heed the power button.
    web.memory = ByteSize::mib(128);
    let begun = Instant::now();
    bench.hypervisor.ensure(&web).expect("started again");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the guest had its time to shut down");
    assert_eq!(bench.differences(&web), settled());
    assert_ne!(bench.lookup(&web).id(), first);

    // A restart that was announced and cut off after the definition: the step is run again.
    let running = bench.lookup(&web).id();
    web.vcpus = 2;
    let xml = novella::host::domain_xml::write(&web).expect("XML");
    bench.by_hand().define_domain_xml(&xml).expect("defined");
    bench.hypervisor.ensure(&web).expect("finished");
    assert_ne!(bench.lookup(&web).id(), running);
    assert_eq!(bench.lookup(&web).info().expect("info").nr_virt_cpu, 2);

    bench.lookup(&web).undefine().expect("undefined");
    assert_eq!(bench.differences(&web), changed([("power", "on (undefined)")]));
    let running = bench.lookup(&web).id();
    bench.hypervisor.ensure(&web).expect("defined");
    assert_eq!(bench.differences(&web), settled());
    assert_eq!(bench.lookup(&web).id(), running);

    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("stopped");
    assert_eq!(bench.differences(&web), settled());
    for _ in 0..2 {
        bench.hypervisor.remove("web").expect("removed");
        assert_eq!(bench.facts(&web), None);
    }
    assert_eq!(owner(&base), (0, 0, 0o444));
    let about = bench.hypervisor.about().expect("told");
    assert!(about.hypervisor.starts_with("QEMU "), "{about:?}");
}

#[test]
fn a_start_that_fails_says_why_and_can_be_done_again() {
    let Some(daemon) = Daemon::start() else { return };
    let bench = daemon.bench("fails");
    let mut web = with_disks(&bench, "web");
    let bridge = std::mem::replace(&mut web.nics[0].bridge, "brqnone".into());
    let error = bench.hypervisor.ensure(&web).expect_err("there is no such bridge");
    assert_eq!(error.to_string(), "cannot start domain `fails.web`");
    assert!(!error.transient);
    assert!(error.source.expect("a cause").to_string().contains("brqnone"));
    web.nics[0].bridge = bridge;
    bench.hypervisor.ensure(&web).expect("started");
    assert_eq!(bench.differences(&web), settled());
    // A killed QEMU is seen and started again.
    daemon.output("sh", &["-c", "kill -9 $(cat /run/libvirt/qemu/fails.web.pid)"]);
    assert!(eventually(Duration::from_secs(5), || bench.differences(&web) == changed([("power", "off")])));
    bench.hypervisor.ensure(&web).expect("started again");
    assert_eq!(bench.differences(&web), settled());
}

#[test]
fn a_libvirtd_that_dies_or_hangs_is_survived() {
    let Some(daemon) = Daemon::start() else { return };
    let bench = daemon.bench("dies");
    let web = with_disks(&bench, "web");
    bench.hypervisor.ensure(&web).expect("started");

    daemon.signal("-KILL");
    daemon.launch();
    assert_eq!(bench.differences(&web), settled(), "a libvirtd that was started again is found again");

    daemon.signal("-KILL");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            daemon.launch();
        });
        bench.hypervisor.ensure(&web).expect("it comes back while we try");
    });
    assert_eq!(bench.differences(&web), settled());

    daemon.signal("-STOP");
    let begun = Instant::now();
    let error = bench.hypervisor.about().expect_err("it hangs");
    assert!(error.transient, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(40), "given up after {:?}", begun.elapsed());
    daemon.signal("-CONT");
    assert!(eventually(Duration::from_secs(5), || bench.hypervisor.about().is_ok()), "usable when it wakes up");
    bench.hypervisor.remove("web").expect("removed");
}

#[test]
fn the_xml_follows_libvirts_schema() {
    if !can_validate() {
        return;
    }
    let bench = Bench::new("schema");
    let mut web = bench.domain("web");
    let file = bench.directory.path().join("web.xml");
    let base = BaseRef { id: "b".into(), path: "/b".into(), format: DiskFormat::Qcow2 };
    web.max_vcpus = Some(2);
    web.max_memory = Some(ByteSize::mib(128));
    let hardware = |firmware, cpu| Hardware { firmware, nvram: Some("/nvram.fd".into()), tpm: true, cpu: Some(cpu) };
    let disk = |name: &str, target: &str, bus, cache, discard, base| DomainDisk {
        volume: VolumeId::Own(name.parse().expect("a name")),
        path: format!("/{name}").into(),
        format: if name == "raw" { DiskFormat::Raw } else { DiskFormat::Qcow2 },
        base,
        target: target.into(),
        attachment: Attachment { bus, cache, discard },
    };
    let disks = vec![
        disk("data", "vdb", Bus::Virtio, Cache::None, Discard::Unmap, Some(base.clone())),
        disk("raw", "sdc", Bus::Scsi, Cache::Writethrough, Discard::Ignore, None),
        disk("old", "sdd", Bus::Sata, Cache::Directsync, Discard::Unmap, None),
        disk("new", "vde", Bus::Virtio, Cache::Unsafe, Discard::Unmap, None),
    ];
    for (base, bus, disks, seed, hardware) in [
        (None, Bus::Virtio, Vec::new(), None, Hardware::default()),
        (
            Some(base.clone()),
            Bus::Scsi,
            disks.clone(),
            Some("/seed".into()),
            hardware(Firmware::Uefi, CpuModel::HostPassthrough),
        ),
        (Some(base), Bus::Sata, disks, None, hardware(Firmware::SecureBoot, CpuModel::Named("EPYC".into()))),
    ] {
        (web.base, web.disks, web.seed, web.hardware) = (base, disks, seed, hardware);
        web.root_disk = Attachment { bus, ..Attachment::default() };
        assert_valid(&web, &file, "all that a domain can have");
    }
}

#[test]
fn the_xml_of_the_examples_follows_libvirts_schema() {
    if !can_validate() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut servers = 0;
    for entry in fs::read_dir("examples").expect("the examples") {
        let example = entry.expect("an entry").path();
        // The domains that are taken over are on no other host.
        let desired = Desired { carried: Default::default(), ..common::desired_in(&example) };
        let host = novella::host::sim::SimHost::new();
        let (blueprint, _) = reconcile::blueprint(&desired, &Recorded::default(), &host).expect("a blueprint");
        let domains: Vec<&Domain> = blueprint.objects.values().filter_map(Object::as_domain).collect();
        assert_eq!(domains.len(), desired.servers.len(), "{}", example.display());
        for domain in domains {
            let case = format!("{}: server.{}", example.display(), domain.server);
            assert_valid(domain, &directory.path().join("domain.xml"), &case);
            servers += 1;
        }
    }
    assert!(servers > 10);
}

/// What an import compares: what libvirt adds to a domain that we wrote is no difference, and what a person does to it is one.
#[test]
fn what_libvirt_adds_by_itself_is_no_difference() {
    let Some(daemon) = Daemon::start() else { return };
    let bench = daemon.bench("compared");
    let connect = bench.by_hand();
    let defined = |domain: &Domain, xml: &str| {
        let defined = connect.define_domain_xml(xml).expect("defined");
        let xml = defined.xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE).expect("XML");
        defined.undefine_flags(virt::sys::VIR_DOMAIN_UNDEFINE_NVRAM).expect("undefined");
        let mut found = differences(&xml, &write(domain).expect("XML")).expect("XML");
        // Taken out of ours alone.
        found.retain(|it| it.field != "metadata/urn:novella:1:server");
        found.iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    proptest!(ProptestConfig::with_cases(60), |(domain in domain(&bench), cpu in 0..4usize)| {
        let cpu = match cpu {
            0 => None,
            1 => Some(CpuModel::Maximum),
            _ => Some(CpuModel::Named("EPYC".into())),
        };
        let domain = Domain { virt_type: VirtType::Qemu, hardware: Hardware { cpu, ..Hardware::default() }, ..domain };
        let xml = write(&domain).expect("XML");
        prop_assert_eq!(defined(&domain, &xml), Vec::<String>::new());
    });
    const BANDWIDTH: &str =
        "devices/interface[1]/bandwidth: `<bandwidth><inbound average='9'/></bandwidth>` there, none here";
    let web = bench.domain("web");
    let xml = write(&web).expect("XML");
    for (from, to, path) in [
        ("<acpi/>", "<acpi/><pae/>", "features/pae: `<pae/>` there, none here"),
        ("<link state=\"up\"/>", "<link state=\"up\"/><bandwidth><inbound average=\"9\"/></bandwidth>", BANDWIDTH),
        ("<on_crash>destroy", "<on_crash>restart", "on_crash: `restart` there, `destroy` here"),
    ] {
        let changed = xml.replacen(from, to, 1);
        assert_ne!(changed, xml, "{from}");
        let found = defined(&web, &changed);
        assert_eq!(found, [path]);
    }
}

/// Whether there is libvirt's own judge of XML. Says so where there is none.
fn can_validate() -> bool {
    let is_there = |program| Command::new(program).arg("--version").output().is_ok();
    let can = is_there("virt-xml-validate") && is_there("xmllint");
    if !can {
        skip("virt-xml-validate (apt install libvirt-clients libxml2-utils) is not installed");
    }
    can
}

/// Writes the XML of a domain into a file, and has it checked there.
fn assert_valid(domain: &Domain, file: &Path, case: &str) {
    fs::write(file, novella::host::domain_xml::write(domain).expect("XML")).expect("written");
    let output = Command::new("virt-xml-validate").arg(file).arg("domain").output().expect("it starts");
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
}
