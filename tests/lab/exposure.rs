//! What others on the host can reach.

use crate::lab::{Lab, base, server};

const DATA: &str = "/var/lib/novella/default";

#[test]
fn guests_and_files_are_open_to_nobody_else() {
    let Some(lab) = Lab::with_guests("exposure") else { return };
    lab.spec(&[base(), server("web", "shutdown_timeout = 10")].concat());
    // One by one, dnsmasq's directories are the first that are made; it must get through to them all the same.
    lab.novella(&["apply", "--auto-approve", "--parallelism", "1"]).success();
    lab.boot_of("10.20.0.2");

    // VNC on loopback and nothing else; all other listeners are dnsmasq's, on its bridge.
    let listening = lab.sh("ss -Hlntp | awk '{ print $4, $6 }' | sed 's/users:((\"\\([^\"]*\\)\".*/\\1/' | sort -u");
    let qemu: Vec<&str> = listening.lines().filter(|line| line.contains("qemu")).collect();
    assert_eq!(qemu, ["127.0.0.1:5900 qemu-system-x86"], "{listening}");
    let others: Vec<&str> = listening.lines().filter(|line| !line.contains("qemu")).collect();
    assert!(others.iter().all(|line| ["10.20.0.1:53 dnsmasq", "10.30.0.1:53 dnsmasq"].contains(line)), "{listening}");

    // Bases are root's and read-only, also for the guests. Kernels libvirt gives to QEMU's user for as long as a guest runs,
    // and has no setting not to.
    let expect_bases = |case: &str, running: bool| {
        let found =
            lab.sh(&format!("find {DATA}/base -type f ! -name '*.json' ! -name '*.lock' -printf '%u %m %f\\n' | sort"));
        assert_eq!(found.lines().count(), 3, "{found}");
        for line in found.lines() {
            let as_root = line.starts_with("root 444 ");
            let lent = running && !line.ends_with(".qcow2") && line.starts_with("libvirt-qemu 444 ");
            assert!(as_root || lent, "{case}: {line}");
        }
    };
    expect_bases("while it runs", true);
    let digests = lab.sh(&format!("sha256sum {DATA}/base/*"));

    assert_eq!(lab.sh(&format!("stat -c '%a %U' {DATA}/instances/web/console.log")), "600 root");
    assert!(lab.console("web").contains(&"ready".into()));
    // Others may pass, and neither list nor read.
    for dir in ["", "/base", "/instances", "/instances/web", "/networks"] {
        assert_eq!(lab.sh(&format!("stat -c '%a %U' {DATA}{dir}")), "711 root", "{dir}");
    }
    let state = lab.state();
    let modes = lab.sh(&format!("find {} -printf '%y %m\\n' | sort -u", state.display()));
    assert_eq!(modes, "d 700\nf 600");

    // Off, the disk is nobody's but root's again.
    lab.spec(&[base(), server("web", "shutdown_timeout = 10\npower = \"off\"")].concat());
    lab.apply();
    expect_bases("when it is off", false);
    assert_eq!(lab.sh(&format!("sha256sum {DATA}/base/*")), digests);

    // Nobody's, they stay until the image goes from the spec.
    lab.spec(&base());
    lab.apply();
    expect_bases("when the server is gone", false);
    assert_eq!(lab.sh(&format!("ls {DATA}/instances")), "");
}
