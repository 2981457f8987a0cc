//! Old states stay readable: each version of the record format has a file for each kind of object, and they are read back.
//!
//! `tests/formats/v<N>/` is what format N wrote. A file is never changed once its format was released; a change of the
//! structs that these tests catch is a new format, with a new folder and a reader for the old one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use novella::address::{Name, PortId, VolumeId};
use novella::blueprint::dhcp::{
    Assignment, DhcpOption, IpVersion, OptionValue, Record as DnsRecord, RecordData, Route,
};
use novella::blueprint::disk::{Attachment, Bus, Cache, Content, Discard, DomainDisk, Volume};
use novella::blueprint::hardware::{CpuModel, Firmware, Hardware};
use novella::blueprint::key::{ObjectKey, ObjectKind};
use novella::blueprint::object::{
    Base, BaseRef, BaseRole, Bridge, Datasource, Dhcp, DhcpRange, DirectBoot, Disk, DiskFormat, Domain, Firewall,
    HostEntry, ImageFormat, Locked, Nic, Object, PortAddress, Power, Rule, RuleChain, Seed, Source, Sums, VirtType,
};
use novella::blueprint::seed::volume::Sealed;
use novella::plan::world::{Record, Recorded};
use novella::store::format::{self, FormatError};
use novella::value::{ByteSize, Sha256};

fn name(text: &str) -> Name {
    text.parse().expect(text)
}

fn base_ref() -> BaseRef {
    BaseRef {
        id: "2c26b46b.qcow2".into(),
        path: "/var/lib/novella/default/base/2c26b46b.qcow2".into(),
        format: DiskFormat::Qcow2,
    }
}

fn bridge(mtu: u32) -> Object {
    Object::Bridge(Bridge {
        network: name("private"),
        device: "nvb0123456789".into(),
        mac: "fa:16:3e:00:00:01".parse().expect("a MAC address"),
        mtu,
        addresses: vec!["10.0.0.1/24".parse().expect("a network"), "10.0.1.1/24".parse().expect("a network")],
    })
}

fn base(role: BaseRole, source: Source, sha256: Option<Sha256>) -> Object {
    Object::Base(Base {
        id: "2c26b46b.qcow2".into(),
        image: name("debian-12"),
        path: "/var/lib/novella/default/base/2c26b46b.qcow2".into(),
        source,
        sha256,
        role,
        converted_from: None,
        sums: None,
        locked: None,
    })
}

fn domain(power: Power, virt_type: VirtType) -> Object {
    Object::Domain(Domain {
        server: name("web"),
        project: name("default"),
        name: "default.web".into(),
        uuid: "6ba7b810-9dad-51d1-80b4-00c04fd430c8".parse().expect("a UUID"),
        imported: false,
        virt_type,
        vcpus: 2,
        max_vcpus: None,
        memory: ByteSize::mib(512),
        max_memory: None,
        hardware: Default::default(),
        disk: "/var/lib/novella/default/instances/web/disk.qcow2".into(),
        disk_format: DiskFormat::Qcow2,
        base: Some(base_ref()),
        root_disk: Attachment::default(),
        disks: Vec::new(),
        nics: vec![Nic {
            network: name("private"),
            bridge: "nvb0123456789".into(),
            tap: "tap01234567-89".into(),
            mac: "fa:16:3e:00:00:02".parse().expect("a MAC address"),
            mtu: 1500,
            port: None,
            unplugged: false,
        }],
        boot: Some(DirectBoot {
            kernel: ("aa.kernel".into(), "/var/lib/novella/default/base/aa.kernel".into()),
            initrd: Some(("bb.initrd".into(), "/var/lib/novella/default/base/bb.initrd".into())),
            cmdline: "console=ttyS0 \"quoted\" <&>".into(),
        }),
        console_log: "/var/lib/novella/default/instances/web/console.log".into(),
        power,
        depends_on: Vec::new(),
        shutdown_timeout: 60,
        seed: None,
    })
}

/// A record of each kind, with every field used, and every variant of the enums in one of them, as far as this version of
/// the format knew them.
fn samples_of(version: u32) -> Vec<Record> {
    let mut samples = samples_of_version_1(version);
    if version == 1 {
        return samples;
    }
    for record in &mut samples {
        match &mut record.object {
            Object::Firewall(it) => it.ip6_forward = true,
            Object::Bridge(it) => it.addresses.push("fd00::1/64".parse().expect("a network")),
            Object::Dhcp(it) => use_all_of_dhcp(it),
            Object::HostEntry(it) => use_all_of_entry(it),
            Object::Disk(it) => it.user_data = Some("f52fbd32b2b3b86f".into()),
            Object::Domain(it) => {
                it.nics.push(Nic { port: Some(name("vip")), unplugged: true, ..it.nics[0].clone() });
                it.seed = Some("/var/lib/novella/default/instances/web/seed-2c26b46b68ffc68f.img".into());
            }
            Object::Base(_) | Object::Volume(_) | Object::Seed(_) => {}
        }
    }
    let seed = Record::intended(seed(Datasource::NoCloud), Some(&Record::present(seed(Datasource::ConfigDrive))));
    samples.insert(samples.len() - 1, seed);
    if version == 2 {
        return samples;
    }
    for record in &mut samples {
        record.prevent_destroy = record.object.kind() == ObjectKind::Bridge;
        if let Object::Base(base) = &mut record.object {
            base.converted_from = Some(ImageFormat::Vmdk);
            base.sums = Some(Sums::Sha256(Source::Url("https://example.org/SHA256SUMS".into())));
        }
    }
    use_all_of_machines(&mut samples);
    samples.insert(samples.len() - 2, volumes());
    if version == 3 {
        return samples;
    }
    for record in &mut samples {
        let mut was = record.object.clone();
        match (&mut record.object, &mut was) {
            (Object::Base(base), _) => {
                base.sums = Some(Sums::Sha512(Source::Url("https://example.org/SHA512SUMS".into())));
                continue;
            }
            (_, Object::Disk(it)) => {
                (it.path, it.base, it.user_data) = ("/var/lib/libvirt/images/old-web.img".into(), None, None);
                (it.format, it.imported) = (DiskFormat::Raw, true);
            }
            (_, Object::Domain(it)) => {
                (it.name, it.imported, it.disk_format) = ("old-web".into(), true, DiskFormat::Raw);
            }
            _ => continue,
        }
        record.previous.push(was);
    }
    samples
}

/// A volume that was a disk of a server before.
fn volumes() -> Record {
    let mut volume = Record::present(volume(VolumeId::Own(name("data")), DiskFormat::Qcow2, Content::Plain));
    let scratch =
        |disk, content| volume_of(VolumeId::Inline { server: name("web"), disk: name(disk) }, DiskFormat::Raw, content);
    volume.previous = vec![scratch("ephemeral0", Content::Ephemeral), scratch("swap", Content::Swap)];
    volume
}

/// A domain that was another machine before.
fn use_all_of_machines(samples: &mut [Record]) {
    let machines = [
        (Firmware::Uefi, CpuModel::HostPassthrough),
        (Firmware::Bios, CpuModel::HostModel),
        (Firmware::Bios, CpuModel::Maximum),
        (Firmware::SecureBoot, CpuModel::Named("EPYC".into())),
    ];
    for record in samples {
        let Object::Domain(domain) = &mut record.object else { continue };
        domain.max_vcpus = Some(4);
        domain.max_memory = Some(ByteSize::gib(1));
        domain.root_disk = Attachment { bus: Bus::Scsi, cache: Cache::Unsafe, discard: Discard::Ignore };
        domain.disks = disks();
        let machine = |(firmware, cpu)| Hardware {
            firmware,
            nvram: Some("/var/lib/novella/default/instances/web/nvram-uefi.fd".into()),
            tpm: firmware == Firmware::SecureBoot,
            cpu: Some(cpu),
        };
        let [first, others @ ..] = machines.clone().map(machine);
        domain.hardware = first;
        let was = domain.clone();
        record.previous.extend(others.map(|hardware| Object::Domain(Domain { hardware, ..was.clone() })));
    }
}

fn volume(id: VolumeId, format: DiskFormat, content: Content) -> Object {
    let Object::Volume(volume) = volume_of(id, format, content) else { panic!("a volume") };
    Object::Volume(Volume { image: Some(name("debian")), base: Some(base_ref()), ..volume })
}

fn volume_of(id: VolumeId, format: DiskFormat, content: Content) -> Object {
    let path = format!("/var/lib/novella/default/volumes/{id}.{}", format.as_str()).into();
    Object::Volume(Volume { id, path, format, size: ByteSize::gib(5), image: None, base: None, content })
}

/// A disk attached in each way.
fn disks() -> Vec<DomainDisk> {
    let disk = |label: &str, base, bus, cache| DomainDisk {
        volume: VolumeId::Own(name(label)),
        path: format!("/var/lib/novella/default/volumes/{label}.qcow2").into(),
        format: DiskFormat::Qcow2,
        base,
        target: Bus::target(bus, 'b'),
        attachment: Attachment { bus, cache, discard: Discard::Unmap },
    };
    vec![
        disk("data", Some(base_ref()), Bus::Virtio, Cache::None),
        disk("logs", None, Bus::Scsi, Cache::Writethrough),
        disk("old", None, Bus::Sata, Cache::Directsync),
        disk("new", None, Bus::Virtio, Cache::Writeback),
    ]
}

fn seed(datasource: Datasource) -> Object {
    Object::Seed(Seed {
        server: name("web"),
        path: "/var/lib/novella/default/instances/web/seed-2c26b46b68ffc68f.img".into(),
        datasource,
        image: Sealed::known_by(Sha256::of(b"foo")),
    })
}

fn use_all_of_dhcp(dhcp: &mut Dhcp) {
    let first = dhcp.ranges[0].clone();
    dhcp.ranges[0]
        .routes
        .push(Route { destination: "10.9.0.0/16".parse().expect("a network"), nexthop: [10, 0, 0, 254].into() });
    dhcp.ranges[0].domain = Some("lab.internal".into());
    for (number, assignment) in [Assignment::Slaac, Assignment::Stateless, Assignment::Static].into_iter().enumerate() {
        let cidr = format!("fd00:{number}::/64").parse().expect("a network");
        dhcp.ranges.push(DhcpRange { cidr, assignment, router: None, dns: Vec::new(), ..first.clone() });
    }
    let record = |data| DnsRecord { name: "db.novella.internal".into(), data };
    let target = || "web.novella.internal".to_owned();
    let data = [
        RecordData::Address([10, 0, 0, 9].into()),
        RecordData::Cname(target()),
        RecordData::Srv { priority: 1, weight: 2, port: 3, target: target() },
        RecordData::Txt("a \"b\"".into()),
    ];
    dhcp.records.insert(name("db"), data.map(record).to_vec());
}

fn use_all_of_entry(entry: &mut HostEntry) {
    let address = PortAddress {
        address: "fd00::7".parse().expect("an address"),
        assignment: Assignment::Slaac,
        domain: "lab.internal".into(),
    };
    entry.addresses.push(address);
    let option = |version, value| DhcpOption { version, name: "224".into(), value };
    entry.options = vec![
        option(IpVersion::V4, OptionValue::Text("pxe \"x\"".into())),
        option(IpVersion::V6, OptionValue::Addresses(vec!["fd00::1".parse().expect("an address")])),
        option(IpVersion::V4, OptionValue::Number(7)),
        option(IpVersion::V4, OptionValue::Domains(vec!["a.b".into()])),
        option(IpVersion::V4, OptionValue::Bytes(vec![1, 255])),
        option(
            IpVersion::V4,
            OptionValue::Routes(vec![Route {
                destination: "10.9.0.0/16".parse().expect("a network"),
                nexthop: [10, 0, 0, 1].into(),
            }]),
        ),
    ];
}

/// The newest samples.
fn samples() -> Vec<Record> {
    samples_of(format::VERSION)
}

/// What version 1 knew.
fn samples_of_version_1(version: u32) -> Vec<Record> {
    let rule = |chain, text: &str| Rule { chain, text: text.into() };
    let url = Source::Url("https://example.org/debian.qcow2".into());
    vec![
        Record::present(Object::Firewall(Firewall {
            table: "novella-default".into(),
            ip_forward: true,
            ip6_forward: false,
            networks: BTreeMap::from([(name("private"), "nat".into())]),
            rules: vec![
                rule(RuleChain::Forward, "iifname \"nvb0123456789\" accept"),
                rule(RuleChain::Postrouting, "ip saddr 10.0.0.0/24 masquerade"),
            ],
        })),
        Record::intended(bridge(9000), Some(&Record::present(bridge(1500)))),
        Record::present(Object::Dhcp(Dhcp {
            network: name("private"),
            bridge: "nvb0123456789".into(),
            dir: "/var/lib/novella/default/networks/private".into(),
            ranges: vec![DhcpRange {
                subnet: name("private-v4"),
                cidr: "10.0.0.0/24".parse().expect("a network"),
                assignment: Assignment::Dhcp,
                router: Some([10, 0, 0, 1].into()),
                dns: vec![[9, 9, 9, 9].into()],
                routes: Vec::new(),
                domain: None,
                lease_seconds: 86400,
            }],
            mtu: 1500,
            domain: "novella.internal".into(),
            records: BTreeMap::new(),
        })),
        Record::present(Object::HostEntry(HostEntry {
            port: PortId::inline(&name("web"), &name("private")),
            network: name("private"),
            mac: "fa:16:3e:00:00:02".parse().expect("a MAC address"),
            addresses: vec![PortAddress {
                address: [10, 0, 0, 7].into(),
                assignment: Assignment::Dhcp,
                domain: if version == 1 { String::new() } else { "novella.internal".into() },
            }],
            hostname: "web".into(),
            options: Vec::new(),
        })),
        Record {
            previous: vec![
                base(BaseRole::Kernel, Source::File("/images/vmlinuz".into()), None),
                base(BaseRole::Initrd, Source::File("/images/initrd".into()), None),
                base(BaseRole::Disk(DiskFormat::Raw), Source::File("/images/a b.raw".into()), None),
            ],
            ..Record::intended(base(BaseRole::Disk(DiskFormat::Qcow2), url, Some(Sha256::of(b"foo"))), None)
        },
        Record::present(Object::Disk(Disk {
            image: "debian".parse().expect("a name"),
            server: name("web"),
            path: "/var/lib/novella/default/instances/web/disk.qcow2".into(),
            format: DiskFormat::Qcow2,
            imported: false,
            base: Some(base_ref()),
            size: ByteSize::gib(20),
            user_data: None,
        })),
        Record::intended(domain(Power::On, VirtType::Kvm), Some(&Record::present(domain(Power::Off, VirtType::Qemu)))),
    ]
}

fn everything() -> Recorded {
    let records = samples().into_iter().map(|record| (record.object.key(), record)).collect();
    Recorded { serial: 42, records }
}

fn file(version: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/v{version}/{name}.json"))
}

/// The name of a kind's file.
fn word(kind: ObjectKind) -> String {
    kind.as_str().replace(' ', "_")
}

/// What format `version` wrote; `written_now` helps whoever adds a kind or a format.
#[track_caller]
fn golden(version: u32, name: &str, written_now: &[u8]) -> Vec<u8> {
    let path = file(version, name);
    if std::env::var_os("NOVELLA_BLESS").is_some() && version == format::VERSION {
        std::fs::write(&path, written_now).expect("the file");
    }
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; put this there:\n{}", path.display(), String::from_utf8_lossy(written_now))
    })
}

#[test]
fn there_is_a_sample_of_each_kind() {
    let kinds: Vec<ObjectKind> = samples().iter().map(|record| record.object.kind()).collect();
    assert_eq!(kinds, ObjectKind::ALL);
}

/// Every domain carries this digest of its definition. A field that is added to it later must not change the digest of a
/// domain that has no use for it (`skip_serializing_if`): else an upgrade of novella would restart every guest.
#[test]
fn the_digest_of_a_definition_stays() {
    let Object::Domain(domain) = domain(Power::On, VirtType::Kvm) else { panic!("a domain") };
    assert_eq!(domain.definition(), "b174359dead376bc");
}

#[test]
fn each_kind_is_read_from_each_format() {
    for version in 1..=format::VERSION {
        for record in samples_of(version) {
            let bytes = golden(version, &word(record.object.kind()), &format::encode(&record).expect("encodes"));
            assert_eq!(format::decode(&bytes).expect("decodes"), record, "format {version}");
        }
    }
}

#[test]
fn each_kind_is_written_as_in_the_newest_format() {
    for record in samples() {
        let bytes = format::encode(&record).expect("encodes");
        let kept = golden(format::VERSION, &word(record.object.kind()), &bytes);
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            String::from_utf8_lossy(&kept).trim_end(),
            "another shape is another format: raise `format::VERSION`"
        );
    }
}

#[test]
fn each_format_of_the_export_is_read_and_the_newest_written() {
    let bytes = format::encode_export(&everything()).expect("encodes");
    // What is around the records has kept its version; the records in it have theirs.
    for version in 1..=format::VERSION {
        let kept = golden(version, "export", &bytes);
        let records = samples_of(version).into_iter().map(|record| (record.object.key(), record)).collect();
        let expected = Recorded { serial: 42, records };
        assert_eq!(format::decode_export(&kept).expect("decodes"), expected, "format {version}");
    }
    let kept = golden(format::VERSION, "export", &bytes);
    assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&kept));
}

#[test]
fn what_only_the_lock_file_says_is_not_written() {
    let url = Source::Url("https://a.example/d".into());
    let Object::Base(full) = base(BaseRole::Disk(DiskFormat::Qcow2), url, None) else { panic!("a base") };
    let locked =
        Locked { source: "https://a.example/d".into(), sha256: Sha256::of(b"d"), sha512: None, size: 1, etag: None };
    let locked = Base { locked: Some(Box::new(locked)), ..full.clone() };
    let bytes = format::encode(&Record::present(Object::Base(locked))).expect("encodes");
    assert_eq!(format::decode(&bytes).expect("decodes"), Record::present(Object::Base(full)));
}

#[test]
fn an_empty_export_survives() {
    let bytes = format::encode_export(&Recorded::default()).expect("encodes");
    assert_eq!(format::decode_export(&bytes).expect("decodes"), Recorded::default());
}

#[test]
fn a_newer_format_is_told_from_a_broken_one() {
    let newer = br#"{"version":99,"secret":{"of":"the future"}}"#;
    for error in [format::decode(newer).map(drop), format::decode_export(newer).map(drop)] {
        let error = error.expect_err("refused");
        assert!(matches!(error, FormatError::Newer { found: 99, .. }), "{error:?}");
        let error = error.during("cannot read the state");
        assert!(error.source.expect("a cause").to_string().contains("written by a newer novella"));
        assert!(error.help.expect("a way out").contains("newer"));
    }
    for broken in [&b""[..], b"{", b"null", br#"{"version":1}"#, br#"{"version":"1","record":null}"#] {
        assert!(matches!(format::decode(broken), Err(FormatError::Shape(_))));
        assert!(matches!(format::decode_export(broken), Err(FormatError::Shape(_))));
    }
}

#[test]
fn a_damaged_export_never_reads_as_another_state() {
    let bytes = format::encode_export(&everything()).expect("encodes");
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        if let Ok(read) = format::decode_export(&other) {
            // The case of a digit in the digest.
            assert_eq!(read, everything(), "byte {at}");
        }
        assert!(format::decode_export(&bytes[..at]).is_err(), "cut off at byte {at}");
    }
}

#[test]
fn keys_are_read_back() {
    for kind in ObjectKind::ALL {
        for id in ["web", "web/private", "a:b", "", "ü"] {
            let key = ObjectKey::new(kind, id);
            assert_eq!(format::decode_key(&format::encode_key(&key)).expect("decodes"), key);
        }
    }
    assert!(matches!(format::decode_key("bridge"), Err(FormatError::Key(_))));
    assert!(matches!(format::decode_key("moat:web"), Err(FormatError::Key(_))));
}
