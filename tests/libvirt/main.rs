//! Domains, against libvirt's own test driver and against real daemons.
//!
//! - here and [`properties`]: `test:///default`, which needs neither daemon nor root. Its state belongs to the process, so
//!   each test has a project of its own.
//! - [`daemon`]: a private libvirtd with QEMU in namespaces of its own.

#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod properties;

use std::path::{Path, PathBuf};

use novella::blueprint::Layout;
use novella::blueprint::facts::{Disruption, Facts};
use novella::blueprint::key::domain_key;
use novella::blueprint::object::{
    Attachment, BaseRef, Claim, DirectBoot, DiskFormat, Domain, Nic, Object, Power, VirtType,
};
use novella::host::hypervisor::Hypervisor;
use novella::plan::world::Observed;
use novella::value::ByteSize;
use tempfile::TempDir;
use uuid::Uuid;
use virt::connect::Connect;

const TEST: &str = "test:///default";

/// A hypervisor with a project and a directory of its own.
struct Bench {
    hypervisor: Hypervisor,
    project: &'static str,
    directory: TempDir,
    uri: String,
}

impl Bench {
    fn new(project: &'static str) -> Self {
        Self::at(TEST, project)
    }

    fn at(uri: &str, project: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path(), &project.parse().expect("a name"));
        let hypervisor = Hypervisor::new(uri, layout).expect("a good URI");
        Self { hypervisor, project, directory, uri: uri.into() }
    }

    /// A server with two interfaces.
    fn domain(&self, server: &str) -> Domain {
        let dir = self.directory.path();
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}/{server}", self.project).as_bytes());
        let hex = id.simple().to_string();
        let nic = |network: &str, number: u8| Nic {
            port: None,
            unplugged: false,
            network: network.parse().expect("a name"),
            bridge: format!("brq{network}"),
            tap: format!("tap{}{number}", &hex[..10]),
            mac: format!("fa:16:3e:{}:{}:0{number}", &hex[..2], &hex[2..4]).parse().expect("a MAC"),
            mtu: 1450,
        };
        Domain {
            server: server.parse().expect("a name"),
            project: self.project.parse().expect("a name"),
            name: format!("{}.{server}", self.project),
            uuid: id,
            imported: false,
            virt_type: VirtType::Qemu,
            vcpus: 1,
            max_vcpus: None,
            memory: ByteSize::mib(64),
            max_memory: None,
            hardware: Default::default(),
            disk: dir.join(server).join("disk.qcow2"),
            disk_format: DiskFormat::Qcow2,
            base: None,
            root_disk: Attachment::default(),
            disks: Vec::new(),
            nics: vec![nic("private", 1), nic("public", 2)],
            boot: None,
            console_log: dir.join(self.project).join("instances").join(server).join("console.log"),
            power: Power::On,
            depends_on: Vec::new(),
            shutdown_timeout: 5,
            seed: None,
        }
    }

    /// What is there, where each tap is plugged into the bridge that `bridge_of` tells.
    fn observe_with(&self, bridge_of: impl Fn(&str) -> Option<String>) -> Observed {
        let mut observed = Observed::default();
        self.hypervisor.observe(&mut observed, bridge_of).expect("observed");
        observed
    }

    /// What is there of a server, where each tap is plugged in as `wanted`.
    fn facts(&self, wanted: &Domain) -> Option<Facts> {
        let bridge_of = |tap: &str| wanted.nics.iter().find(|nic| nic.tap == tap).map(|nic| nic.bridge.clone());
        self.observe_with(bridge_of).objects.remove(&domain_key(&wanted.server))
    }

    /// The facts that are not as wanted, as a plan would show them.
    fn differences(&self, wanted: &Domain) -> Facts {
        let seen = self.facts(wanted).expect("the domain is there");
        let facts = Object::Domain(wanted.clone()).facts();
        for fact in facts.keys() {
            assert!(seen.contains_key(fact), "`{fact}` is not observed");
        }
        seen.into_iter().filter(|(fact, value)| facts.get(fact).is_some_and(|wanted| wanted != value)).collect()
    }

    /// Another client, as a person with virsh is.
    fn by_hand(&self) -> Connect {
        Connect::open(Some(&self.uri)).expect("a connection")
    }

    fn lookup(&self, domain: &Domain) -> virt::domain::Domain {
        self.by_hand().lookup_domain_by_uuid(domain.uuid).expect("the domain is there")
    }
}

fn settled() -> Facts {
    Facts::new()
}

fn changed<const N: usize>(facts: [(&'static str, &str); N]) -> Facts {
    facts.into_iter().map(|(fact, value)| (fact.into(), value.to_owned())).collect()
}

#[test]
fn what_was_made_is_what_is_seen() {
    let bench = Bench::new("seen");
    let mut web = bench.domain("web");
    web.base = Some(BaseRef { id: "abc.raw".into(), path: "/base/abc.raw".into(), format: DiskFormat::Raw });
    web.boot = Some(DirectBoot {
        kernel: ("k".into(), "/base/k.kernel".into()),
        initrd: Some(("i".into(), "/base/i.initrd".into())),
        cmdline: r#"console=ttyS0 a=<b> "c" & 'd' ]]> &amp;"#.into(),
    });
    bench.hypervisor.ensure(&web).expect("made");
    assert_eq!(bench.facts(&web), Some(Object::Domain(web.clone()).facts()));
    let first = bench.lookup(&web).id();
    bench.hypervisor.ensure(&web).expect("made again");
    assert_eq!(bench.lookup(&web).id(), first, "nothing is restarted without need");

    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(web.console_log.parent().expect("a parent")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o711, "QEMU's user must be able to pass");
}

#[test]
fn a_domain_that_is_to_be_off_is_defined_and_not_started() {
    let bench = Bench::new("off");
    let mut web = bench.domain("web");
    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("made");
    assert_eq!(bench.differences(&web), settled());
    assert_eq!(bench.lookup(&web).id(), None);
    web.power = Power::On;
    assert_eq!(bench.differences(&web), changed([("power", "off")]));
    bench.hypervisor.ensure(&web).expect("started");
    assert_eq!(bench.differences(&web), settled());
    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("stopped");
    assert_eq!(bench.differences(&web), settled());
}

#[test]
fn an_edit_by_hand_is_seen_and_mended() {
    let bench = Bench::new("edit");
    let web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let xml = bench.lookup(&web).xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE).expect("XML");
    let edited = xml
        .replace("<memory unit='KiB'>65536<", "<memory unit='KiB'>131072<")
        .replace("bridge='brqpublic'", "bridge='virbr0'")
        .replace(&web.nics[0].mac.to_string(), "fa:16:3e:99:99:99");
    // The mark goes on to tell the MAC address that was.
    let edited = edited.replacen("mac=\"fa:16:3e:99:99:99\"", &format!("mac=\"{}\"", web.nics[0].mac), 1);
    bench.by_hand().define_domain_xml(&edited).expect("edited");

    let seen = bench.facts(&web).expect("there");
    assert_eq!(seen["memory"], "128 MiB");
    assert_eq!(seen["nic.private"], "none");
    bench.hypervisor.ensure(&web).expect("mended");
    assert_eq!(bench.differences(&web), settled());
}

#[test]
fn only_what_a_guest_cannot_take_live_restarts_it() {
    let bench = Bench::new("restart");
    let mut web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let first = bench.lookup(&web).id();

    web.shutdown_timeout = 7;
    web.nics[0].bridge = "brqother".into();
    assert_eq!(bench.differences(&web), changed([("shutdown_timeout", "5 s")]));
    bench.hypervisor.ensure(&web).expect("changed live");
    assert_eq!(bench.differences(&web), settled());
    assert_eq!(bench.lookup(&web).id(), first);
    assert!(bench.lookup(&web).xml_desc(virt::sys::VIR_DOMAIN_XML_INACTIVE).expect("XML").contains("brqother"));

    web.memory = ByteSize::mib(128);
    bench.hypervisor.ensure(&web).expect("changed");
    assert_eq!(bench.differences(&web), settled());
    assert_ne!(bench.lookup(&web).id(), first, "more memory takes a restart");
    assert_eq!(bench.lookup(&web).info().expect("info").max_mem, 128 << 10);
}

#[test]
fn a_guest_that_may_not_be_restarted_goes_on_and_waits() {
    let bench = Bench::new("wait");
    let mut web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let pending = |bench: &Bench| {
        let guests = bench.observe_with(|_| None).guests;
        guests.get(&domain_key(&"web".parse().expect("a name"))).map(|guest| guest.pending.clone())
    };
    let first = bench.lookup(&web).id();
    assert_eq!(pending(&bench), Some(Vec::new()));
    web.memory = ByteSize::mib(128);
    web.nics.swap(0, 1);
    bench.hypervisor.ensure_within(&web, Disruption::Live, &|| {}).expect("defined");
    assert_eq!(bench.differences(&web), settled());
    assert_eq!(bench.lookup(&web).id(), first, "it was restarted");
    assert_eq!(pending(&bench), Some(vec!["memory".to_owned(), "interfaces".to_owned()]));
    bench.hypervisor.reboot(&web, &|| {}).expect("rebooted");
    assert_ne!(bench.lookup(&web).id(), first);
    assert_eq!(pending(&bench), Some(Vec::new()));

    // Started by somebody else.
    web.memory = ByteSize::mib(64);
    bench.hypervisor.ensure_within(&web, Disruption::Live, &|| {}).expect("defined");
    assert_eq!(pending(&bench), Some(vec!["memory".to_owned()]));
    bench.lookup(&web).destroy().expect("off");
    assert_eq!(pending(&bench), None);
    let error = bench.hypervisor.reboot(&web, &|| {}).expect_err("it is off");
    assert_eq!(error.to_string(), "cannot reboot server.web: it does not run");
    bench.lookup(&web).create().expect("on");
    assert_eq!(pending(&bench), Some(Vec::new()));
}

#[test]
fn what_is_unmanaged_is_defined_and_left_alone() {
    let bench = Bench::new("unmanaged");
    let mut web = bench.domain("web");
    web.power = Power::Unmanaged;
    bench.hypervisor.ensure(&web).expect("defined");
    assert_eq!(bench.lookup(&web).id(), None);
    bench.lookup(&web).create().expect("started by hand");
    let first = bench.lookup(&web).id();
    web.memory = ByteSize::mib(128);
    bench.hypervisor.ensure(&web).expect("defined");
    assert_eq!(bench.lookup(&web).id(), first);
    bench.lookup(&web).suspend().expect("paused by hand");
    bench.hypervisor.ensure(&web).expect("left alone");
    assert_eq!(bench.facts(&web).expect("there")["power"], "paused");
}

#[test]
fn a_running_guest_is_where_its_tap_is_plugged_in() {
    let bench = Bench::new("plug");
    let mut web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let first = web.nics[0].tap.clone();
    let seen = bench.observe_with(|tap| (tap == first).then(|| "br-strange".to_owned()));
    let facts = &seen.objects[&domain_key(&web.server)];
    assert_eq!(facts["nic.private.bridge"], "br-strange");
    assert_eq!(facts["nic.public.bridge"], "none");
    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("stopped");
    let seen = bench.observe_with(|_| None);
    assert_eq!(seen.objects[&domain_key(&web.server)]["nic.private.bridge"], "brqprivate");
}

#[test]
fn a_paused_guest_is_resumed_and_not_restarted() {
    let bench = Bench::new("pause");
    let web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let first = bench.lookup(&web).id();
    bench.lookup(&web).suspend().expect("paused");
    assert_eq!(bench.differences(&web), changed([("power", "paused")]));
    bench.hypervisor.ensure(&web).expect("resumed");
    assert_eq!(bench.differences(&web), settled());
    assert_eq!(bench.lookup(&web).id(), first);
}

#[test]
fn a_guest_undefined_while_it_runs_is_defined_again() {
    let bench = Bench::new("undefined");
    let web = bench.domain("web");
    bench.hypervisor.ensure(&web).expect("made");
    let first = bench.lookup(&web).id();
    bench.lookup(&web).undefine().expect("undefined");
    assert_eq!(bench.differences(&web), changed([("power", "on (undefined)")]));
    bench.hypervisor.ensure(&web).expect("defined");
    assert_eq!(bench.differences(&web), settled());
    assert!(bench.lookup(&web).is_persistent().expect("told"));
    assert_eq!(bench.lookup(&web).id(), first);

    bench.lookup(&web).undefine().expect("undefined");
    bench.hypervisor.remove("web").expect("removed");
    assert_eq!(bench.facts(&web), None);
}

#[test]
fn what_is_not_ours_is_claimed_and_not_touched() {
    let bench = Bench::new("foreign");
    let web = bench.domain("web");
    let foreign = |name: &str, uuid: Uuid| {
        let xml = format!(
            "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>8192</memory><os><type>hvm</type></os>
             <devices><interface type='bridge'><source bridge='br0'/><target dev='tapforeign'/></interface></devices>
             </domain>"
        );
        bench.by_hand().define_domain_xml(&xml).expect("defined")
    };
    let untouched = |domain: &virt::domain::Domain, act: &dyn Fn()| {
        let before = domain.xml_desc(0).expect("XML");
        act();
        assert_eq!(domain.xml_desc(0).expect("XML"), before);
    };

    let uuid = Uuid::from_u128(7);
    let same_name = foreign(&web.name, uuid);
    let seen = bench.observe_with(|_| None);
    assert!(seen.objects.is_empty());
    for claim in [Claim::DomainName(web.name.clone()), Claim::DomainUuid(uuid), Claim::Link("tapforeign".into())] {
        assert!(seen.foreign.contains(&claim), "{claim}");
    }
    untouched(&same_name, &|| {
        let error = bench.hypervisor.ensure(&web).expect_err("not ours");
        assert_eq!(error.to_string(), "domain `foreign.web` is there already, and is not ours");
        bench.hypervisor.remove("web").expect("nothing of ours is there");
    });
    same_name.undefine().expect("undefined");

    let same_uuid = foreign("somebody", web.uuid);
    untouched(&same_uuid, &|| {
        bench.hypervisor.ensure(&web).expect_err("not ours");
        bench.hypervisor.remove("web").expect("nothing of ours is there");
    });
    same_uuid.undefine().expect("undefined");
}

#[test]
fn a_clone_with_our_mark_is_not_ours() {
    let bench = Bench::new("clone");
    let mut web = bench.domain("web");
    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("made");
    let xml = bench.lookup(&web).xml_desc(0).expect("XML");
    let uuid = Uuid::from_u128(9);
    // As virt-clone does it: the metadata are copied as they are.
    let clone = xml
        .replace("<name>clone.web</name>", "<name>copy</name>")
        .replace(&format!("<uuid>{}</uuid>", web.uuid), &format!("<uuid>{uuid}</uuid>"));
    let clone = bench.by_hand().define_domain_xml(&clone).expect("cloned");
    let seen = bench.observe_with(|_| None);
    assert_eq!(seen.objects.len(), 1);
    assert!(seen.foreign.contains(&Claim::DomainName("copy".into())));
    bench.hypervisor.remove("web").expect("removed");
    assert_eq!(clone.name().as_deref(), Ok("copy"));
    clone.undefine().expect("the clone is still there");
}

#[test]
fn removing_twice_is_as_good_as_once() {
    let bench = Bench::new("remove");
    let (web, db) = (bench.domain("web"), bench.domain("db"));
    bench.hypervisor.ensure(&web).expect("made");
    bench.hypervisor.ensure(&db).expect("made");
    for _ in 0..2 {
        bench.hypervisor.remove("web").expect("removed");
        assert_eq!(bench.facts(&web), None);
    }
    assert_eq!(bench.differences(&db), settled(), "only the server named is removed");
}

#[test]
fn many_threads_share_one_connection() {
    let bench = Bench::new("threads");
    let domains: Vec<Domain> = (0..20).map(|number| bench.domain(&format!("web-{number}"))).collect();
    std::thread::scope(|scope| {
        for domains in domains.chunks(2) {
            let bench = &bench;
            scope.spawn(move || {
                for domain in domains {
                    bench.hypervisor.ensure(domain).expect("made");
                    assert_eq!(bench.differences(domain), settled());
                }
            });
        }
    });
    assert_eq!(bench.observe_with(|_| None).objects.len(), 20);
    std::thread::scope(|scope| {
        for domain in &domains {
            let hypervisor = &bench.hypervisor;
            scope.spawn(move || hypervisor.remove(domain.server.as_str()).expect("removed"));
        }
    });
    assert!(bench.observe_with(|_| None).objects.is_empty());
}

#[test]
fn a_domain_renamed_by_hand_is_still_ours() {
    let bench = Bench::new("rename");
    let mut web = bench.domain("web");
    web.power = Power::Off;
    bench.hypervisor.ensure(&web).expect("made");
    let xml = bench.lookup(&web).xml_desc(0).expect("XML").replace("<name>rename.web</name>", "<name>shop</name>");
    bench.lookup(&web).undefine().expect("undefined");
    bench.by_hand().define_domain_xml(&xml).expect("renamed");
    assert_eq!(bench.differences(&web), changed([("name", "shop")]));
    bench.hypervisor.remove("web").expect("removed");
    assert_eq!(bench.facts(&web), None);
}

#[test]
fn what_xml_cannot_carry_is_refused() {
    let bench = Bench::new("control");
    for bad in ["\0", "\u{1}", "\n", "\u{1b}[2J", "\u{85}", "\u{ffff}"] {
        let mut web = bench.domain("web");
        web.boot =
            Some(DirectBoot { kernel: ("k".into(), "/k".into()), initrd: None, cmdline: format!("console={bad}") });
        let error = bench.hypervisor.ensure(&web).expect_err("refused");
        assert_eq!(error.to_string(), "cannot define domain `control.web`");
        let cause = error.source.expect("a cause").to_string();
        assert!(cause.ends_with("has a character that XML cannot carry"), "{cause}");
        assert!(!cause.contains(bad), "what is refused is not passed on to the terminal");
        assert_eq!(bench.facts(&web), None);
    }
    use std::os::unix::ffi::OsStringExt as _;
    let mut web = bench.domain("web");
    web.disk = PathBuf::from(std::ffi::OsString::from_vec(vec![b'/', 0xff]));
    bench.hypervisor.ensure(&web).expect_err("not UTF-8");
    let mut web = bench.domain("web");
    web.memory = ByteSize(ByteSize::mib(64).bytes() + 1024);
    bench.hypervisor.ensure(&web).expect_err("libvirt would round it up");
}

#[test]
fn a_uri_that_must_not_be_used_is_refused() {
    let layout = Layout::new(Path::new("/nonexistent"), &"uri".parse().expect("a name"));
    for bad in ["qemu+tcp://host/system", "test+tcp:///default", "qemu:///sys\0tem", "qemu:///\n"] {
        assert!(Hypervisor::new(bad, layout.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_libvirt_that_is_not_there_is_said_to_be_missing() {
    let bench = Bench::at("qemu+unix:///system?socket=/nonexistent/libvirt-sock", "missing");
    let begun = std::time::Instant::now();
    let error = bench.hypervisor.about().expect_err("nobody listens");
    assert!(begun.elapsed().as_secs() < 2, "one that never was there is not waited for");
    assert!(error.to_string().starts_with("cannot connect to libvirt at `qemu+unix"), "{error}");
    assert!(error.help.expect("help").starts_with("libvirtd is not running"));
}

#[test]
fn the_host_has_a_size() {
    let bench = Bench::new("size");
    let capacity = bench.hypervisor.facts().expect("told");
    assert!(capacity.vcpus > 0 && capacity.memory > ByteSize::mib(1) && capacity.disk > ByteSize::mib(1));
    let about = bench.hypervisor.about().expect("told");
    assert!(about.hypervisor.starts_with("TEST "), "{about:?}");
    assert!(about.libvirt.split('.').count() == 3, "{about:?}");
}

/// Prints why a test cannot be run here.
fn skip(reason: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}
