//! What is not novella's is not touched.

use crate::lab::{Lab, assert_same, base, server};

const FOREIGN: &str = "<domain type='qemu'><name>NAME</name><memory unit='MiB'>64</memory>\
                       <os><type arch='x86_64' machine='q35'>hvm</type></os></domain>";

/// All that is there of others, to the letter.
const LOOK: &str = "virsh -q dumpxml foreign; virsh -q domstate foreign; ip -d addr show br-foreign | sed 's/gc_timer *[0-9.]*//'; \
                    nft list table inet foreign; nft list table inet novella-other; \
                    find /var/lib/novella/other -printf '%p %m %T@ %s\\n'; ps -o pid=,args= -C dnsmasq | grep foreign";

#[test]
fn what_is_not_ours_is_never_touched() {
    let Some(lab) = Lab::without_guests("foreign") else { return };
    let foreign = FOREIGN.replace("NAME", "foreign");
    lab.sh(&format!(
        "echo \"{foreign}\" >/run/foreign.xml && virsh -q define /run/foreign.xml && virsh -q start foreign
         ip link add br-foreign address 02:00:00:00:00:01 type bridge
         ip addr add 192.0.2.1/24 dev br-foreign && ip link set br-foreign up
         nft add table inet foreign && nft add chain inet foreign c && nft add table inet novella-other
         mkdir -p /var/lib/novella/other/instances/web && touch /var/lib/novella/other/instances/web/disk.qcow2
         dnsmasq --conf-file=/dev/null --no-resolv --interface=br-foreign --except-interface=lo --bind-interfaces \\
             --pid-file=/run/foreign.pid --dhcp-leasefile=/run/foreign.leases"
    ));
    let before = lab.sh(LOOK);
    let there = lab.left();

    lab.spec(&[base(), server("web", "power = \"off\""), server("db", "power = \"off\"")].concat());
    lab.apply();
    assert_same(&lab.sh(LOOK), &before, "touched by apply");
    // Repairs, and an edit with a removal.
    lab.sh("nft delete table inet novella-default; virsh -q undefine default.web");
    lab.spec(&[base(), server("web", "power = \"off\"")].concat());
    lab.apply();
    assert_same(&lab.sh(LOOK), &before, "touched by a repair");
    lab.destroy();
    assert_same(&lab.sh(LOOK), &before, "touched by destroy");
    assert_eq!(lab.left(), there);
}

#[test]
fn what_stands_in_the_way_is_a_conflict() {
    let Some(lab) = Lab::without_guests("conflict") else { return };
    let spec = base().replace("[network.private]", "[network.private]\nbridge = \"br-taken\"");
    lab.spec(&[spec, server("web", "power = \"off\""), server("db", "power = \"off\"")].concat());
    let foreign = FOREIGN.replace("NAME", "default.web");
    lab.sh(&format!(
        "echo \"{foreign}\" >/run/foreign.xml && virsh -q define /run/foreign.xml
         ip link add br-taken type bridge"
    ));
    let there = lab.inventory();
    let look = "virsh -q dumpxml default.web; ip -d addr show br-taken | sed 's/gc_timer *[0-9.]*//'";
    let before = lab.sh(look);
    for verb in [&["plan"][..], &["apply", "--auto-approve"]] {
        let run = lab.novella(verb);
        assert_eq!(run.code(), Some(1), "{run:#?}");
        for (address, what) in
            [("server.web", "libvirt domain `default.web`"), ("network.private", "interface `br-taken`")]
        {
            let said = format!("error: `{address}` cannot be made: {what} exists and is not novella's");
            assert!(run.err.contains(&said), "{}", run.err);
        }
        assert!(run.err.contains("help: remove or rename it"), "{}", run.err);
        assert_eq!(lab.inventory(), there, "nothing was made");
    }
    // Nor is it destroyed as if it were ours.
    lab.destroy();
    assert_eq!(lab.sh(look), before);

    // Out of the way, it can go on.
    lab.sh("virsh -q undefine default.web; ip link del br-taken");
    lab.apply();
    // One that came later, in place of ours.
    lab.sh("virsh -q undefine default.web && virsh -q define /run/foreign.xml");
    let run = lab.novella(&["apply", "--auto-approve"]);
    assert_eq!(run.code(), Some(1), "{run:#?}");
    let uuid = lab.sh("virsh -q domuuid default.web");
    lab.destroy();
    assert_eq!(lab.sh("virsh -q domuuid default.web"), uuid, "destroyed, and not ours");
}
