//! Domains of others as specs: those that other programs define, and those that novella itself would, made strangers.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use novella::address::Name;
use novella::blueprint::key::domain_key;
use novella::blueprint::object::{Domain, Object, VirtType};
use novella::blueprint::{self, HostFacts};
use novella::desired;
use novella::host::domain_xml::foreign::{Described, Foreign, Unsayable, targets};
use novella::host::domain_xml::foreign_network::Networks;
use novella::host::domain_xml::write;
use novella::import::{self, Place};
use novella::plan::world::Recorded;
use novella::spec::{self, load::load_texts};
use novella::value::ByteSize;
use proptest::prelude::*;
use roxmltree::{Document, Node};

/// Domains in the manner of the programs that define most of them.
const KINDS: [(&str, &str); 6] = [
    ("virt-install", include_str!("import/virt-install.xml")),
    ("virt-manager", include_str!("import/windows.xml")),
    ("cockpit", include_str!("import/cockpit.xml")),
    ("terraform", include_str!("import/terraform.xml")),
    ("vagrant-libvirt", include_str!("import/vagrant.xml")),
    ("kcli", include_str!("import/kcli.xml")),
];

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn place() -> Place {
    let nothing = load_texts([]);
    let (desired, _) = desired::resolve(&nothing.spec, &nothing.source);
    Place { project: name("default"), host: desired.expect("a spec").host, virt_type: VirtType::Kvm }
}

fn foreign(xml: &str) -> Foreign {
    let capacities: BTreeMap<String, ByteSize> =
        targets(xml).into_iter().map(|target| (target, ByteSize::mib(10 << 10))).collect();
    Foreign { name: "old".into(), xml: xml.into(), capacities, running: true, ..Foreign::default() }
}

fn describe(foreign: &Foreign) -> Result<Described, Unsayable> {
    import::describe(&name("web"), foreign, &Networks::of([foreign], &[]), &place())
}

/// All of the file, which must be a valid spec in its canonical form.
fn text(foreign: &Foreign, described: &Described) -> String {
    let (networks, _) = Networks::of([foreign], &[]).toml();
    let text = format!("{}\nnovella = 1\n{networks}{}", described.head, described.toml);
    common::desired(&text);
    assert_eq!(spec::fmt::format(0, &text).expect("TOML"), text);
    text
}

#[track_caller]
fn assert_tells(kind: &str, parts: &[&str]) {
    let xml = KINDS.iter().find(|(name, _)| *name == kind).expect("a kind").1;
    let foreign = foreign(xml);
    let described = describe(&foreign).expect("a server");
    let text = text(&foreign, &described);
    for part in parts {
        let is_absent = part.starts_with('!') && !text.contains(&part[1..]);
        assert!(is_absent || text.contains(part), "{kind}: {part:?} in\n{text}");
    }
    let comments = text.lines().filter(|line| line.starts_with("# differs: ")).count();
    let (_, unknown) = Networks::of([&foreign], &[]).toml();
    assert_eq!(comments, described.differing.len() + unknown.len(), "{text}");
}

#[test]
fn what_the_spec_has_words_for_is_in_it_and_the_rest_is_named() {
    assert_tells(
        "virt-install",
        &[
            "[[import]]\nto = \"server.web\"\nid = \"old\"",
            "vcpus = 2\nram = \"2 GiB\"\ndisk = \"10 GiB\"\ncpu_mode = \"host-passthrough\"",
            "# differs: clock/timer[rtc]: `<timer name='rtc' tickpolicy='catchup'/>` there, none here",
            "# differs: pm/suspend-to-mem: `<suspend-to-mem enabled='no'/>` there, none here",
            "# differs: devices/channel: `<channel type='unix'>",
            "# differs: metadata/libosinfo:libosinfo: ",
            "!differs: name",
            "!differs: os",
            "!differs: devices/disk",
            "!differs: devices/controller",
            "!root_disk",
            "!power",
        ],
    );
    assert_tells(
        "virt-manager",
        &[
            "secure_boot = true",
            "tpm = \"2.0\"",
            "root_disk = { bus = \"sata\", discard = \"ignore\" }",
            "# differs: features/hyperv/relaxed: `<relaxed state='on'/>` there, none here",
            "# differs: features/hyperv/spinlocks: `<spinlocks retries='8191' state='on'/>` there, none here",
            "# differs: clock@offset: `localtime` there, `utc` here",
            "# differs: devices/graphics: `<graphics autoport='yes' type='spice'>",
            "# differs: devices/interface[1]/model@type: `e1000e` there, `virtio` here",
            "# differs: devices/interface[1]/source@portgroup: `office` there, none here",
            "# differs: cpu/topology: ",
            "!differs: devices/tpm",
            "!differs: os/loader",
            "!differs: nvram",
        ],
    );
    assert_tells(
        "cockpit",
        &[
            "# differs: devices/graphics[1]@passwd: `(not shown)` there, none here",
            "!geheim",
            "cpu_mode = \"host-model\"",
            "root_disk = { cache = \"none\" }",
            "# differs: devices/disk[1]/driver@io: `native` there, none here",
            "# differs: devices/interface[1]/filterref: ",
            "# differs: devices/filesystem: ",
        ],
    );
    assert_tells(
        "terraform",
        &[
            "cpu_model = \"qemu64\"",
            "# differs: os/type@machine: `pc` there, `q35` here",
            "# differs: devices/disk[cdrom]: `<disk device='cdrom' type='file'>",
            "# differs: devices/rng/rate: `<rate bytes='1024'/>` there, none here",
        ],
    );
    assert_tells(
        "vagrant-libvirt",
        &[
            "It cannot be taken over: it has 2 disks.",
            "# differs: name: `old` there, `default.web` here",
            "[volume.web-vdb]",
            "power = \"off\"",
            "# differs: devices/interface[2]/vlan: `<vlan><tag id='42'/></vlan>` there, none here",
            "# differs: devices/disk[2]/iotune: ",
            "# differs: os/loader: `<loader>/usr/share/OVMF/OVMF_CODE.fd</loader>` there, none here",
            "# differs: nvram: the firmware's variables are not carried over",
            "![[import]]",
        ],
    );
    assert_tells("kcli", &["max_ram = ", "ports = [{ network = \"default\", mac_address = ", "[port.web-2]"]);
}

/// Where in a text of XML something can be put in: an attribute behind the name of an element, and a child at its end.
fn places(xml: &str) -> Vec<(usize, bool)> {
    let document = Document::parse(xml).expect("XML");
    let elements = document.descendants().filter(Node::is_element);
    let both = |element: Node| {
        let range = element.range();
        let name = xml[range.start + 1..].find([' ', '>', '/', '\n']).expect("a name ends") + range.start + 1;
        [(name, false), (range.end, true)]
    };
    elements.flat_map(both).collect()
}

/// The XML with something unknown at a place.
fn with_unknown(xml: &str, (at, is_child): (usize, bool), what: &str) -> String {
    if !is_child {
        return format!("{} {what}='1'{}", &xml[..at], &xml[at..]);
    }
    let element = &xml[..at];
    match element.strip_suffix("/>") {
        Some(start) => {
            let tag = start.rfind('<').expect("it starts");
            let name: String = start[tag + 1..].chars().take_while(|c| !c.is_whitespace()).collect();
            format!("{start}><{what}/></{name}>{}", &xml[at..])
        }
        None => {
            let end = element.rfind("</").expect("it ends");
            format!("{}<{what}/>{}", &xml[..end], &xml[end..])
        }
    }
}

#[test]
fn nothing_that_is_unknown_passes_in_silence() {
    for (kind, xml) in KINDS {
        for (number, at) in places(xml).into_iter().enumerate() {
            let what = format!("unknown-{number}");
            let changed = with_unknown(xml, at, &what);
            let described = describe(&foreign(&changed)).unwrap_or_else(|error| panic!("{kind}: {error}\n{changed}"));
            let told = described.differing.iter().any(|said| said.contains(&what));
            assert!(told, "{kind}: {what} is not told of\n{changed}\n{:#?}", described.differing);
        }
    }
}

/// Every value that a domain has, changed: it is told of, or the spec says it; but for those that are libvirt's own choice,
/// or of a file whose content is told apart.
#[test]
fn no_value_passes_in_silence() {
    let own = ["controller", "address", "alias", "nvram", "backingStore"];
    let own_values = [
        ("target", "dev"),
        ("cpu", "check"),
        ("model", "fallback"),
        ("seclabel", "model"),
        // Where libvirt chooses the port; where there is only one; where the firmware is named; what is not shown.
        ("graphics", "port"),
        ("graphics", "autoport"),
        ("boot", "order"),
        ("loader", "secure"),
        ("graphics", "passwd"),
    ];
    let mut silent = Vec::new();
    for (kind, xml) in KINDS {
        let before = foreign(xml);
        let before = text(&before, &describe(&before).expect("a server"));
        let document = Document::parse(xml).expect("XML");
        let is_own = |node: &Node| node.ancestors().any(|node| own.iter().any(|name| node.has_tag_name(*name)));
        let (mut changed, mut refused) = (0, 0);
        for node in document.descendants().filter(|node| !is_own(node)) {
            let values = node.attributes().filter(|it| !own_values.contains(&(node.tag_name().name(), it.name())));
            for attribute in values {
                let range = attribute.range_value();
                let other = foreign(&format!("{}other{}", &xml[..range.start], &xml[range.end..]));
                // What no server can be is told by the refusal.
                let Ok(described) = describe(&other) else {
                    refused += 1;
                    continue;
                };
                changed += 1;
                if before == text(&other, &described) {
                    silent.push(format!("{kind}: {}", &xml[node.range().start..range.end]));
                }
            }
        }
        assert!(changed > 20 && refused < 10, "{kind}: {changed} told of, {refused} refused");
    }
    assert!(silent.is_empty(), "{silent:#?}");
}

/// A server that is valid by its making.
#[derive(Clone, Debug)]
struct Draft {
    networks: u8,
    mtu: u32,
    up: bool,
    hardware: (bool, bool, bool, usize),
    sizes: (u32, Option<u32>, u32, Option<u32>),
    root: (usize, usize, usize),
    volumes: Vec<(usize, usize, bool)>,
    kernel: bool,
    told: bool,
    on: bool,
}

const BUSES: [&str; 3] = ["virtio", "scsi", "sata"];
const CACHES: [&str; 5] = ["none", "writeback", "writethrough", "unsafe", "directsync"];
const DISCARDS: [&str; 2] = ["unmap", "ignore"];
const CPUS: [&str; 5] = [
    "",
    "cpu_mode = \"host-model\"\n",
    "cpu_mode = \"host-passthrough\"\n",
    "cpu_mode = \"maximum\"\n",
    "cpu_model = \"EPYC\"\n",
];

fn draft() -> impl Strategy<Value = Draft> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0..CPUS.len());
    let sizes = (1..9u32, prop::option::of(0..9u32), 1..64u32, prop::option::of(0..64u32));
    let root = (0..BUSES.len(), 0..CACHES.len(), 0..DISCARDS.len());
    let volumes = prop::collection::vec((0..BUSES.len(), 0..CACHES.len(), any::<bool>()), 0..3);
    let mtu = prop::sample::select(vec![1400u32, 1500, 9000]);
    (1..4u8, mtu, any::<bool>(), flags, sizes, root, volumes, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(networks, mtu, up, hardware, sizes, root, volumes, kernel, told, on)| Draft {
            networks,
            mtu,
            up,
            hardware,
            sizes,
            root,
            volumes,
            kernel,
            told,
            on,
        },
    )
}

impl Draft {
    fn text(&self) -> String {
        let mut text = String::from("[image.i]\nsource = \"/i.qcow2\"\nformat = \"qcow2\"\n");
        let (uefi, secure, tpm, cpu) = self.hardware;
        if self.kernel {
            text.push_str("kernel = \"/k\"\ninitrd = \"/r\"\ncmdline = \"quiet  a=<b>\"\n");
        }
        if uefi {
            let _ = write!(text, "firmware = \"uefi\"\nsecure_boot = {secure}\n");
        }
        if tpm {
            text.push_str("tpm = \"2.0\"\n");
        }
        let (vcpus, more_vcpus, ram, more_ram) = self.sizes;
        let _ =
            write!(text, "[flavor.f]\nvcpus = {vcpus}\nram = \"{} MiB\"\ndisk = \"10 GiB\"\n{}", ram * 64, CPUS[cpu]);
        if let Some(more) = more_vcpus {
            let _ = writeln!(text, "max_vcpus = {}", vcpus + more);
        }
        if let Some(more) = more_ram {
            let _ = writeln!(text, "max_ram = \"{} MiB\"", (ram + more) * 64);
        }
        let mut ports = Vec::new();
        for n in 0..self.networks {
            let _ = write!(
                text,
                "[network.n{n}]\nmtu = {}\n[subnet.n{n}]\nnetwork = \"n{n}\"\ncidr = \"10.{n}.0.0/24\"\n",
                self.mtu
            );
            ports.push(format!("{{ network = \"n{n}\", admin_state_up = {} }}", self.up));
        }
        let mut volumes = Vec::new();
        for (n, (bus, cache, raw)) in self.volumes.iter().enumerate() {
            let format = if *raw { "raw" } else { "qcow2" };
            let _ = write!(text, "[volume.v{n}]\nsize = \"10 GiB\"\nformat = \"{format}\"\n");
            volumes.push(format!("{{ volume = \"v{n}\", bus = \"{}\", cache = \"{}\" }}", BUSES[*bus], CACHES[*cache]));
        }
        let (bus, cache, discard) = self.root;
        let _ = write!(
            text,
            "[server.web]\nimage = \"i\"\nflavor = \"f\"\nports = [{}]\nvolumes = [{}]\npower = \"{}\"\n\
             root_disk = {{ bus = \"{}\", cache = \"{}\", discard = \"{}\" }}\n",
            ports.join(", "),
            volumes.join(", "),
            if self.on { "on" } else { "off" },
            BUSES[bus],
            CACHES[cache],
            DISCARDS[discard],
        );
        if self.told {
            text.push_str("user_data = \"#cloud-config\"\n");
        }
        text
    }

    fn domain(&self) -> Domain {
        let desired = common::desired(&self.text());
        let facts = HostFacts::unknown(VirtType::Kvm);
        let blueprint = blueprint::lower(&desired, &Recorded::default(), &facts).expect("a blueprint");
        let domain = blueprint.objects.get(&domain_key(&name("web"))).and_then(Object::as_domain).expect("a domain");
        // One of others: another name, and a disk of its own.
        let disk = "/var/lib/libvirt/images/old.qcow2".into();
        Domain { name: "old".into(), uuid: uuid::Uuid::from_u128(7), disk, base: None, ..domain.clone() }
    }
}

/// Without our mark and our log.
fn stripped(xml: &str) -> String {
    let cut = |xml: &str, from: &str, to: &str| match (xml.find(from), xml.find(to)) {
        (Some(from), Some(at)) => format!("{}{}", &xml[..from], &xml[at + to.len()..]),
        _ => xml.to_owned(),
    };
    let xml = cut(xml, "<metadata>", "</metadata>");
    match xml.find("<log ") {
        Some(log) => {
            let end = xml[log..].find("/>").expect("it ends") + log + 2;
            format!("{}{}", &xml[..log], &xml[end..])
        }
        None => xml,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_server_made_a_stranger_comes_back_as_it_was(draft in draft()) {
        let xml = stripped(&write(&draft.domain()).expect("XML"));
        let foreign = Foreign { running: draft.on, ..foreign(&xml) };
        let described = describe(&foreign).expect("a server");
        let text = text(&foreign, &described);
        // Where it is plugged in, and what is copied or made anew, is another place; nothing else is another thing.
        let is_place = |said: &&String| {
            let path = said.split(": ").next().unwrap_or_default();
            path.starts_with("devices/interface[") && path.ends_with("]/source")
                || ["os/kernel", "os/initrd"].contains(&path)
                || draft.told && ["devices/disk[cdrom]", "devices/controller[scsi]"].contains(&path)
                || !draft.volumes.is_empty()
                    && (["name", "uuid", "nvram", "tpm"].contains(&path) || path.ends_with("/source@file"))
        };
        let other: Vec<&String> = described.differing.iter().filter(|said| !is_place(said)).collect();
        prop_assert!(other.is_empty(), "{other:#?}\n{xml}\n{text}");
        prop_assert_eq!(text.contains("[[import]]"), draft.volumes.is_empty());
    }
}
