//! A domain that others defined, told as a spec.

use std::path::Path;

use crate::lab::{Lab, NOVELLA, assert_same, base, server};

const OLD: &str = "<domain type='qemu'><name>old-web</name><memory unit='MiB'>96</memory><vcpu current='1'>2</vcpu>\
    <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/run/old.img'/>\
    <target dev='vda' bus='virtio'/></disk>\
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/><source file='/run/more.img'/>\
    <target dev='hdb' bus='ide'/></disk>\
    <interface type='bridge'><source bridge='br-old'/><mac address='52:54:00:01:02:03'/><model type='e1000'/></interface>\
    <watchdog model='i6300esb'/></devices></domain>";

/// All that there is of the domain, to the letter; and the process that it runs as.
const LOOK: &str = "virsh -q dumpxml old-web; virsh -q dumpxml --inactive old-web; virsh -q domstate old-web; \
    sha256sum /run/old.img /run/more.img; stat -c '%Y %U %a' /run/old.img /run/more.img; \
    pgrep -f 'guest=[o]ld-web'; ls -R /var/lib/novella 2>/dev/null; true";

#[test]
fn a_running_domain_is_told_as_a_spec_and_not_touched() {
    let Some(lab) = Lab::without_guests("import") else { return };
    lab.sh(&format!(
        "truncate -s 64M /run/old.img; truncate -s 1003520 /run/more.img
         ip link add br-old type bridge && ip link set br-old up
         echo \"{OLD}\" >/run/old.xml && virsh -q define /run/old.xml && virsh -q start old-web"
    ));
    lab.spec(&base());
    let before = lab.sh(LOOK);
    let run = lab.novella(&["import", "server.web", "old-web"]).success();
    for part in [
        "# The libvirt domain `old-web` as `server.web`. It cannot be taken over: it has 2 disks.",
        "source = \"/run/old.img\"\nformat = \"raw\"",
        "vcpus = 1\nmax_vcpus = 2\nram = \"96 MiB\"\ndisk = \"64 MiB\"",
        "# differs: os/type@machine: `pc` there, `q35` here",
        "# differs: devices/interface[1]/source: `bridge br-old` there, `bridge brq",
        "# differs: devices/interface[1]/model@type: `e1000` there, `virtio` here",
        "mac_address = \"52:54:00:01:02:03\"",
        "# differs: subnet br-old: what addresses `br-old` has is not known",
        "# differs: devices/disk[2]/target@bus: `ide` there, `sata` here",
        "{ volume = \"web-hdb\", bus = \"sata\", cache = \"none\", discard = \"ignore\" }",
        "# differs: disk hdb: `980 KiB` there, `1 MiB` here\nsize = \"1 MiB\"",
        "# differs: devices/watchdog: `<watchdog action='reset' model='i6300esb'/>` there, none here",
    ] {
        assert!(run.out.contains(part), "{part:?} is not in\n{}", run.out);
    }
    let named = run.out.lines().filter(|line| line.starts_with("# differs: ")).count();
    assert!(run.err.contains(&format!("note: {named} fields of `old-web` would differ")), "{}", run.err);

    // What it writes is a spec that can be planned as it is, and nothing is written over.
    let file = lab.dir().join("specs/web.toml");
    let out = file.display().to_string();
    lab.novella(&["import", "web", "old-web", "--out", &out]).success();
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), run.out);
    let again = lab.novella(&["import", "web", "old-web", "--out", &out]);
    assert!(again.code() == Some(1) && again.err.contains("writes over nothing"), "{again:#?}");
    lab.novella(&["validate"]).success();
    let plan = lab.novella(&["plan"]).success();
    assert!(plan.out.contains("server.web") && plan.out.contains("52:54:00:01:02:03"), "{}", plan.out);
    assert_same(&lab.sh(LOOK), &before, "touched by import or plan");
}

/// One that is off, and one that runs; and one that no server can be.
const MANY: &str = r#"
for disk in one busy; do truncate -s 64M /run/$disk.img; done
ip link add br-old type bridge && ip addr add 10.77.0.1/24 dev br-old && ip link set br-old up
cat >/run/net.xml <<'EOF'
<network><name>office</name><forward mode='route'/><domain name='office.internal'/>
  <ip address='192.168.77.254' netmask='255.255.255.0'><dhcp><range start='192.168.77.100' end='192.168.77.200'/>
    <host mac='52:54:00:00:00:01' ip='192.168.77.50'/></dhcp></ip></network>
EOF
virsh -q net-define /run/net.xml
cat >/run/one.xml <<'EOF'
<domain type='qemu'><name>Old_Web.1</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/><apic/><hyperv><relaxed state='on'/></hyperv></features><cpu mode='maximum'/><devices>
  <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/run/one.img'/><target dev='vda' bus='virtio'/>
    <iotune><read_iops_sec>100</read_iops_sec></iotune></disk>
  <interface type='network'><mac address='52:54:00:00:00:01'/><source network='office'/><model type='virtio'/></interface>
  <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br-old'/><vlan><tag id='42'/></vlan>
    <virtualport type='openvswitch'/><model type='virtio'/></interface>
  <graphics type='vnc' autoport='yes' passwd='geheim'/></devices></domain>
EOF
cat >/run/busy.xml <<'EOF'
<domain type='qemu'><name>busy</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/><apic/></features><cpu mode='maximum'/><devices>
  <disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/><source file='/run/busy.img'/>
    <target dev='vda' bus='virtio'/></disk>
  <interface type='bridge'><mac address='52:54:00:00:00:03'/><source bridge='br-old'/><model type='virtio'/></interface>
  </devices></domain>
EOF
cat >/run/lost.xml <<'EOF'
<domain type='qemu'><name>lost</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
  <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/null'/><target dev='vda' bus='virtio'/></disk>
  </devices></domain>
EOF
for domain in one busy lost; do virsh -q define /run/$domain.xml; done
virsh -q start busy
"#;

const LOOK_AT_MANY: &str = "for domain in Old_Web.1 busy lost; do virsh -q dumpxml $domain; virsh -q dumpxml --inactive $domain; \
    virsh -q domstate $domain; done; sha256sum /run/*.img; stat -c '%Y %U %a' /run/*.img; pgrep -f 'guest=[b]usy'; \
    virsh -q net-dumpxml office; ls -R /var/lib/novella 2>/dev/null; true";

#[test]
fn every_domain_of_others_is_told_and_none_is_touched() {
    let Some(lab) = Lab::without_guests("import-all") else { return };
    lab.sh(MANY);
    let before = lab.sh(LOOK_AT_MANY);
    // There is no spec yet.
    let run = lab.novella(&["import", "--all"]).success();
    for part in [
        "[server.old-web-1]",
        "[server.busy]",
        "[[import]]\nto = \"server.busy\"\nid = \"busy\"",
        "[[import]]\nto = \"server.old-web-1\"\nid = \"Old_Web.1\"",
        "[network.office]\nforward = \"routed\"\ndomain = \"office.internal\"\n[subnet.office]\nnetwork = \"office\"\n\
         cidr = \"192.168.77.0/24\"\ngateway = \"192.168.77.254\"\npools = [\"192.168.77.100-192.168.77.200\"]\n",
        "mac_address = \"52:54:00:00:00:01\", fixed_ips = [\"192.168.77.50\"]",
        "# In use on this host by `br-old`",
        "cidr = \"10.77.0.0/24\"",
        "# differs: features/hyperv/relaxed: `<relaxed state='on'/>` there, none here",
        "# differs: devices/interface[2]/vlan: `<vlan><tag id='42'/></vlan>` there, none here",
        "# differs: devices/disk[1]/iotune: ",
        "# differs: devices/graphics@passwd: `(not shown)` there, none here",
        "# differs: os/type@machine: `pc` there, `q35` here",
    ] {
        assert!(run.out.contains(part), "{part:?} is not in\n{}", run.out);
    }
    assert!(!run.out.contains("geheim"), "{}", run.out);
    assert!(run.err.contains("cannot tell domain `lost` as a server: `disk vda`: it is not a file"), "{}", run.err);

    let verified = lab.novella(&["import", "--all", "--verify"]);
    assert_eq!(verified.code(), Some(2), "{verified:#?}");
    for part in
        ["busy as server.busy: ", "Old_Web.1 as server.old-web-1: ", "  os/type@machine: `pc` there, `q35` here"]
    {
        assert!(verified.out.contains(part), "{part:?} is not in\n{}", verified.out);
    }
    // Written as a spec of its own it is planned as what is there.
    let specs = lab.dir().join("specs").display().to_string();
    lab.novella(&["import", "--all", "--out", &specs]).success();
    assert_eq!(lab.sh(&format!("ls {specs}")), "busy.toml\nnetworks.toml\nold-web-1.toml");
    let again = lab.novella(&["import", "--all", "--out", &specs]);
    assert!(again.code() == Some(1) && again.err.contains("writes over nothing"), "{again:#?}");
    lab.novella(&["validate"]).success();
    let plan = lab.novella(&["plan"]);
    assert!(plan.code() == Some(1) && plan.err.contains("10.77.0.0/24 is in use on this host"), "{plan:#?}");
    assert_same(&lab.sh(LOOK_AT_MANY), &before, "touched by import or plan");
    lab.sh("ip addr flush dev br-old");
    let plan = lab.novella(&["plan"]).success();
    for part in ["server.busy will be imported", "server.old-web-1 will be imported"] {
        assert!(plan.out.contains(part), "{part:?} is not in\n{}", plan.out);
    }
}

#[test]
fn a_domain_that_is_as_the_spec_says_has_zero_changes() {
    let Some(lab) = Lab::without_guests("import-zero") else { return };
    let spec = [base(), server("ours", "power = \"off\"")].concat();
    lab.spec(&spec);
    lab.apply();
    lab.sh("virsh -q metadata default.ours urn:novella:1 --remove --config");
    let verify = ["import", "server.ours", "default.ours", "--verify"];
    let run = lab.novella(&verify).success();
    assert_eq!(run.out, "default.ours as server.ours: zero changes\n");
    lab.sh("virsh -q setvcpus default.ours 3 --config --maximum");
    let run = lab.novella(&verify);
    assert_eq!(run.code(), Some(2), "{run:#?}");
    assert!(run.out.contains("\n  vcpu: `3` there, `1` here\n"), "{}", run.out);
}

/// The commands of the example's README, one after the other.
#[test]
fn the_example_does_what_its_readme_says() {
    let Some(lab) = Lab::with_guests("import-example") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("examples/import/README.md")).expect("the README");
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    let mut ran = 0;
    for command in commands.iter().map(|it| it.trim_start_matches("sudo ")).filter(|it| *it != "scripts/guest") {
        let (root, state) = (root.display(), lab.state());
        let script = format!(
            "cd {root} && export NOVELLA_STATE={} && novella() {{ {NOVELLA} \"$@\"; }} && {command}",
            state.display()
        );
        let output = lab.try_sh(&script);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        let (code, parts) = match command {
            it if it.contains("old-web --verify") => (1, vec!["is novella's already: `server.web`"]),
            it if it.contains("--verify") => (2, vec!["old-web as server.old-web: ", "  devices/watchdog: "]),
            it if it.ends_with("import server.web old-web") => (0, vec!["[[import]]\nto = \"server.web\""]),
            it if it.ends_with(" plan") => {
                (0, vec!["# server.web will be imported from \"old-web\"", "devices/watchdog"])
            }
            it if it.contains(" apply") => (0, vec!["Resources: 1 imported, "]),
            it if it.contains("detailed") => (0, vec!["No changes."]),
            _ => (0, Vec::new()),
        };
        assert_eq!(output.status.code(), Some(code), "{command}: {said:#?}");
        for part in parts {
            assert!(said.concat().contains(part), "{command}: {part:?} is not in {said:#?}");
        }
        if command.contains(" apply") {
            assert_eq!(lab.guest("10.90.0.10").0, "web");
            assert!(lab.sh("virsh -q list --name").lines().any(|name| name == "old-web"));
        }
        ran += 1;
    }
    assert_eq!(ran, 9);
}

#[test]
fn what_cannot_be_told_is_refused_with_the_field() {
    let Some(lab) = Lab::without_guests("import-refused") else { return };
    let without = OLD.replace("/run/old.img", "/run/gone.img").replace("/run/more.img", "/run/gone.img");
    let block =
        OLD.replace("type='file' device='disk'", "type='block' device='disk'").replace("source file=", "source dev=");
    let define = |xml: &str| lab.sh(&format!("echo \"{xml}\" >/run/old.xml && virsh -q define /run/old.xml"));
    lab.spec(&[base(), server("ours", "power = \"off\"")].concat());
    lab.apply();
    for (xml, said) in [(without, "libvirt does not tell its size"), (block, "`disk vda`: it is not a file")] {
        define(&xml);
        let run = lab.novella(&["import", "web", "old-web"]);
        assert!(run.code() == Some(1) && run.out.is_empty() && run.err.contains(said), "{run:#?}");
        assert!(run.err.contains("help:"), "{}", run.err);
        lab.sh("virsh -q undefine old-web");
    }
    for (name, said) in
        [("nowhere", "there is no domain `nowhere`"), ("default.ours", "is novella's already: `server.ours`")]
    {
        let run = lab.novella(&["import", "web", name]);
        assert!(run.code() == Some(1) && run.err.contains(said), "{run:#?}");
    }
    lab.destroy();
}
