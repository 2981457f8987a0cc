//! A domain that others defined, told as a spec.

use crate::lab::{Lab, assert_same, base, server};

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
        "source = \"/run/old.img\"\nformat = \"raw\"",
        "vcpus = 1\nmax_vcpus = 2\nram = \"96 MiB\"\ndisk = \"64 MiB\"",
        "# differs: machine: `pc",
        "# differs: network: bridge `br-old` there",
        "# differs: interface 1: `e1000` there, `virtio` here",
        "mac_address = \"52:54:00:01:02:03\"",
        "# differs: disk hdb: on `ide` there, on `sata` here",
        "# differs: disk hdb: cache `none` there",
        "[volume.web-hdb]\nsize = \"1 MiB\"",
        "# differs: devices/watchdog: a server has none",
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
