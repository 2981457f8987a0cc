//! A domain that others defined, taken over by an `[[import]]`: it stays what it is, and becomes what the spec says.

use crate::lab::{Lab, base, guest_dir, note};

const OLD: &str = "10.20.0.50";
const MAC: &str = "52:54:00:0a:0b:0c";
const DISK: &str = "/var/lib/old/old.img";

/// A domain with the system of a guest, off. Its disk has been written to.
fn foreign(lab: &Lab, disk_format: &str) {
    let guest = guest_dir();
    let guest = guest.display();
    let cmdline = std::fs::read_to_string(guest_dir().join("cmdline")).expect("a command line");
    let xml = format!(
        "<domain type='qemu'><name>old-web</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{guest}/vmlinuz</kernel>\
         <initrd>{guest}/initramfs.gz</initrd><cmdline>{}</cmdline></os><features><acpi/><apic/></features><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='{disk_format}'/><source file='{DISK}'/>\
         <target dev='vda' bus='virtio'/></disk>\
         <interface type='bridge'><source bridge='br-old'/><mac address='{MAC}'/><model type='virtio'/></interface>\
         <serial type='pty'/><console type='pty'/><graphics type='spice' autoport='yes'/><watchdog model='i6300esb'/>\
         </devices></domain>",
        cmdline.trim()
    );
    let xml = xml.replace("<graphics type='spice' autoport='yes'/>", "");
    lab.sh(&format!(
        "mkdir -p /var/lib/old && chmod 755 /var/lib/old
         qemu-img convert -f qcow2 -O {disk_format} {guest}/disk.qcow2 {DISK}
         ip link add br-old type bridge && ip link set br-old up
         echo \"{xml}\" >/run/old.xml && virsh -q define /run/old.xml"
    ));
}

fn spec(more: &str) -> String {
    let server = "[server.web]\nimage = \"tiny\"\nflavor = \"small\"\nports = [{ network = \"private\", \
                  fixed_ips = [\"10.20.0.50\"] }]\nshutdown_timeout = 20\n";
    format!("{}{server}{more}[[import]]\nto = \"server.web\"\nid = \"old-web\"\n", base())
}

/// What stays: its UUID, its name, its MAC address and its disk.
fn identity(lab: &Lab) -> String {
    lab.sh(&format!(
        "virsh -q list --all --name; virsh -q domuuid old-web; virsh -q domiflist old-web | awk '{{ print $5 }}'; \
         virsh -q domblklist old-web | awk '{{ print $2 }}'; stat -c %i {DISK}"
    ))
}

#[test]
fn a_domain_that_is_off_is_taken_over_as_it_is() {
    let Some(lab) = Lab::with_guests("takeover") else { return };
    foreign(&lab, "raw");
    let before = identity(&lab);
    lab.spec(&spec(""));
    let plan = lab.novella(&["plan"]).success().out;
    note(&plan);
    for part in
        ["# server.web will be imported from \"old-web\"", "Plan: 1 to import, ", "- devices/watchdog", "~ machine"]
    {
        assert!(plan.contains(part), "{part:?} is not in\n{plan}");
    }
    let run = lab.novella(&["apply", "--auto-approve"]).success();
    note(&run.out);
    assert!(run.out.contains("Resources: 1 imported, "), "{}", run.out);
    assert_eq!(identity(&lab), before);
    let boot = lab.boot_of(OLD);
    lab.assert_settled("taken over");
    assert_eq!(lab.boot_of(OLD), boot);
}
