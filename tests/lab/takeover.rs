//! Domains that others defined, taken over by an `[[import]]`: they stay what they are, and become what the spec says.

use std::time::Duration;

use crate::kill::{Random, kill_after};
use crate::lab::{Lab, base, guest_dir, note};
use crate::read;

const AT: &str = "10.20.0.50";
const MAC: &str = "52:54:00:0a:0b:0c";
const DISK: &str = "/run/old/old.img";

/// A domain with the system of a guest, off, in place of the one that is there.
fn foreign(lab: &Lab, disk_format: &str, more: &str) {
    let guest = guest_dir();
    let guest = guest.display();
    let cmdline = std::fs::read_to_string(guest_dir().join("cmdline")).expect("a command line");
    let xml = format!(
        "<domain type='qemu'><name>old-web</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{guest}/vmlinuz</kernel>\
         <initrd>{guest}/initramfs.gz</initrd><cmdline>{}</cmdline></os><features><acpi/><apic/></features><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='{disk_format}'/><source file='{DISK}'/>\
         <target dev='vda' bus='virtio'/></disk>{more}\
         <interface type='bridge'><source bridge='br-old'/><mac address='{MAC}'/><model type='virtio'/></interface>\
         <serial type='pty'><log file='/run/old.log' append='on'/></serial><console type='pty'/>\
         <watchdog model='i6300esb'/></devices></domain>",
        cmdline.trim()
    );
    lab.sh(&format!(
        "virsh -q destroy old-web 2>/dev/null; virsh -q undefine old-web --snapshots-metadata --managed-save 2>/dev/null
         mkdir -p /run/old && chmod 755 /run/old
         qemu-img convert -f qcow2 -O {disk_format} {guest}/disk.qcow2 {DISK}
         ip link show br-old >/dev/null 2>&1 || {{ ip link add br-old type bridge && ip link set br-old up; }}
         echo \"{xml}\" >/run/old.xml && virsh -q define /run/old.xml"
    ));
}

fn spec(flavor: &str, more: &str) -> String {
    let server = format!(
        "[server.web]\nimage = \"tiny\"\nflavor = \"{flavor}\"\nports = [{{ network = \"private\", fixed_ips = [\"{AT}\"] }}]\n\
         shutdown_timeout = 20\n{more}"
    );
    [base(), "[flavor.large]\nram = \"128 MiB\"\ndisk = \"96 MiB\"\n".into(), server].concat()
}

fn block(id: &str) -> String {
    format!("[[import]]\nto = \"server.web\"\nid = \"{id}\"\n")
}

/// What stays: its name, its UUID, its MAC address, its disk and the file of that.
fn identity(lab: &Lab) -> String {
    lab.sh(&format!(
        "virsh -q list --all --name; virsh -q domuuid old-web; virsh -q domiflist old-web | awk '{{ print $5 }}'; \
         virsh -q domblklist old-web | awk '{{ print $2 }}'; stat -c %i {DISK}"
    ))
}

/// How often the guest has counted a boot on its disk, by its last word.
fn boots(lab: &Lab, log: &str) -> u32 {
    let said = lab.until("it counts a boot", || {
        let said = lab.sh(&format!("grep -a 'novella-guest: disk' {log} 2>/dev/null | tail -n 1"));
        (!said.is_empty()).then_some(said)
    });
    said.trim().rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

const CONSOLE: &str = "/var/lib/novella/default/instances/web/console.log";

/// Starts the domain as others do, until its guest is up.
fn start(lab: &Lab) {
    lab.sh("virsh -q start old-web");
    assert_eq!(boots(lab, "/run/old.log"), 1);
}

#[test]
fn a_domain_that_is_off_is_taken_over_as_it_is() {
    let Some(lab) = Lab::with_guests("takeover-off") else { return };
    foreign(&lab, "raw", "");
    start(&lab);
    lab.sh("virsh -q destroy old-web; virsh -q autostart old-web");
    let before = identity(&lab);
    let uuid = lab.sh("virsh -q domuuid old-web");
    lab.spec(&[spec("small", ""), block(uuid.trim())].concat());
    let look = "virsh -q dumpxml old-web; virsh -q dominfo old-web | grep Autostart; sha256sum /run/old/old.img";
    let untouched = lab.sh(look);
    let plan = lab.novella(&["plan"]).success().out;
    note(&plan);
    let words = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!words.contains("devices/interface") && !words.contains("log@file"), "facts tell of that:\n{plan}");
    for part in [
        &format!("# server.web will be imported from \"{}\"", uuid.trim()),
        "Plan: 1 to import, ",
        "- devices/watchdog",
        "~ os/type@machine = pc -> q35",
        "~ autostart = on -> off",
        "~ cpu@mode = custom -> maximum",
        "+ devices/graphics = <graphics",
        &format!("nic.private = {MAC} none -> {MAC} tap"),
    ] {
        assert!(words.contains(part), "{part:?} is not in\n{plan}");
    }
    assert!(!plan.contains("base image (qcow2)") && !plan.contains("Disruption:"), "{plan}");
    assert_eq!(lab.sh(look), untouched, "touched by a plan");
    let run = lab.novella(&["apply", "--auto-approve", "--max-disruption", "none"]).success();
    assert!(run.out.contains("Resources: 1 imported, "), "{}", run.out);
    let boot = lab.boot_of(AT);
    assert_eq!((identity(&lab), boots(&lab, CONSOLE)), (before.clone(), 2));
    assert_eq!(lab.sh("virsh -q dominfo old-web | awk '/Autostart/ { print $2 }'").trim(), "disable");
    lab.assert_settled("taken over");
    // The block does nothing any more, and may go.
    lab.spec(&spec("small", ""));
    lab.assert_settled("without the block");

    // What is lost is found again by the marks.
    lab.sh(&format!("rm -r {}", lab.state().display()));
    let found = read::changes(&lab.novella(&["plan"]).success().out);
    assert!(found.iter().any(|it| it.starts_with("server.web = disk")), "{found:?}");
    lab.novella(&["state", "rebuild"]).success();
    lab.assert_settled("rebuilt");
    assert_eq!(lab.boot_of(AT), boot);

    // It grows as any other.
    lab.spec(&spec("large", ""));
    lab.apply();
    lab.boot_after(&boot, AT);
    lab.assert_settled("grown");
    assert_eq!((identity(&lab), boots(&lab, CONSOLE)), (before.clone(), 3));
    assert_eq!(lab.sh(&format!("stat -c %s {DISK}")).trim(), (96 << 20).to_string());

    // Made anew: the new disk is ours, and the other stays.
    let inode = |lab: &Lab| lab.sh(&format!("stat -c %i {DISK}"));
    let kept = inode(&lab);
    let plan = lab.novella(&["plan", "--replace", "server.web"]).success().out;
    assert!(plan.contains(&format!("its file stays: {DISK}")) && !plan.contains("into the trash"), "{plan}");
    lab.novella(&["apply", "--auto-approve", "--replace", "server.web"]).success();
    lab.until("it counts from one again", || (boots(&lab, CONSOLE) == 1).then_some(()));
    lab.assert_settled("replaced");
    assert_eq!(lab.sh("virsh -q domuuid old-web"), uuid);
    lab.destroy();
    assert_eq!((inode(&lab), lab.left()), (kept, Vec::new()));
}

#[test]
fn a_running_domain_goes_on_until_its_reboot() {
    let Some(lab) = Lab::with_guests("takeover-on") else { return };
    foreign(&lab, "qcow2", "");
    start(&lab);
    let before = identity(&lab);
    lab.spec(&[spec("small", ""), block("old-web")].concat());
    let plan = lab.novella(&["plan"]).success().out;
    note(&plan);
    assert!(plan.contains("# imported from \"old-web\", reboot") && plan.contains("Disruption: 1 reboot."), "{plan}");
    let refused = lab.novella(&["apply", "--auto-approve", "--max-disruption", "live"]);
    assert!(refused.code() == Some(1) && refused.err.contains("server.web: reboot"), "{refused:#?}");

    // Deferred: it is ours, and runs on as it was, in every part.
    let runs = "pgrep -f 'guest=[o]ld-web'; virsh -q domiflist old-web; virsh -q dumpxml old-web | \
                sed -n '/<devices>/,/<.devices>/p'";
    let process = lab.sh(runs);
    lab.novella(&["apply", "--auto-approve", "--max-disruption", "live", "--defer-reboots"]).success();
    assert_eq!(lab.sh(runs), process, "touched while it runs");
    let waits = lab.novella(&["plan"]).success().out;
    assert!(waits.contains("No changes.") && waits.contains("1 server waits for a reboot: server.web"), "{waits}");
    // Nor by what is applied after that.
    lab.novella(&["apply", "--auto-approve", "--defer-reboots"]).success();
    lab.spec(
        &[
            spec(
                "small",
                "depends_on = [\"db\"]\n[server.db]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"back\"]\n\
                              power = \"off\"\n",
            ),
            block("old-web"),
        ]
        .concat(),
    );
    lab.novella(&["apply", "--auto-approve", "--max-disruption", "live"]).success();
    assert_eq!(lab.sh(runs), process, "touched while it runs");

    lab.novella(&["reboot", "--pending"]).success();
    let boot = lab.boot_of(AT);
    assert_eq!((boots(&lab, CONSOLE), lab.sh("virsh -q list --all --name | grep -v db")), (2, "old-web".into()));
    lab.assert_settled("rebooted");
    assert_eq!(lab.boot_of(AT), boot);

    // A snapshot over its disk is no reason to lose what was written since.
    lab.sh("virsh -q snapshot-create-as old-web over --disk-only --atomic");
    let refused = lab.novella(&["apply", "--auto-approve"]);
    assert!(refused.code() == Some(1) && refused.err.contains("error[external-snapshot]"), "{refused:#?}");
    lab.sh(&format!(
        "virsh -q blockcommit old-web vda --base {DISK} --active --pivot --wait && virsh -q snapshot-delete old-web over --metadata"
    ));
    lab.assert_settled("committed");
    lab.destroy();
    assert_eq!(lab.sh("virsh -q list --all --name"), "");
    assert!(before.contains(lab.sh(&format!("stat -c %i {DISK}")).trim()));
}

#[test]
fn a_takeover_that_is_killed_is_finished_by_the_next() {
    let Some(lab) = Lab::with_guests("takeover-kill") else { return };
    let mut random = Random::from_environment();
    lab.spec(&[spec("small", ""), block("old-web")].concat());
    foreign(&lab, "qcow2", "");
    start(&lab);
    let mut time = lab.apply().took;
    lab.boot_of(AT);
    let mut killed = 0;
    for round in 0..6 {
        lab.destroy();
        lab.sh("rm -f /run/old.log");
        foreign(&lab, "qcow2", "");
        start(&lab);
        let before = identity(&lab);
        match kill_after(&lab, "apply", random.moment(time.max(Duration::from_millis(200)), round, 6)) {
            None => killed += 1,
            Some(took) => time = time.min(took),
        }
        lab.apply();
        lab.boot_of(AT);
        assert_eq!(identity(&lab), before);
        lab.assert_settled("after a kill");
    }
    assert!(killed >= 3, "only {killed} of 6 were killed in time");
    // Marked, and cut off before it was defined: also where the state is lost with that.
    lab.destroy();
    foreign(&lab, "qcow2", "");
    let uuid = lab.sh("virsh -q domuuid old-web");
    lab.sh(&format!(
        "virsh -q metadata old-web urn:novella:1 --key novella --config --set '<server project=\"default\" name=\"web\" \
         uuid=\"{}\" definition=\"foreign\" imported=\"true\" shutdown_timeout=\"20\"><nic network=\"private\" mac=\"{MAC}\"/>\
         </server>'; rm -r {}",
        uuid.trim(),
        lab.state().display()
    ));
    lab.apply();
    lab.boot_of(AT);
    lab.assert_settled("marked by half");
}

#[test]
fn what_would_lose_something_is_refused_at_its_place() {
    let Some(lab) = Lab::without_guests("takeover-refused") else { return };
    let more = "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/run/old/more.img'/>\
                <target dev='vdb' bus='virtio'/></disk>";
    let look = "virsh -q dumpxml old-web; sha256sum /run/old/*";
    let refused = |case: &str, flavor: &str, said: &[&str]| {
        lab.spec(&[spec(flavor, "power = \"off\"\n"), block("old-web")].concat());
        let before = lab.sh(look);
        for verb in [&["plan"][..], &["apply", "--auto-approve"]] {
            let run = lab.novella(verb);
            assert_eq!(run.code(), Some(1), "{case}: {run:#?}");
            for said in said.iter().chain(&["help: "]) {
                assert!(run.err.contains(said), "{case}: {said:?} is not in\n{}", run.err);
            }
        }
        assert_eq!(lab.sh(look), before, "{case}: touched");
        assert!(!lab.sh("ls -R /var/lib/novella 2>/dev/null; true").contains("web"), "{case}");
    };
    foreign(&lab, "qcow2", more);
    lab.sh("truncate -s 1M /run/old/more.img");
    refused(
        "disks",
        "small",
        &["error[not-importable]: domain `old-web` cannot be taken over: it has 2 disks", "id = \"old-web\""],
    );
    foreign(&lab, "qcow2", "");
    lab.sh("virsh -q start old-web && virsh -q managedsave old-web");
    refused("saved", "small", &["its guest is saved, as it ran", "virsh managedsave-remove old-web"]);
    lab.sh("virsh -q managedsave-remove old-web; virsh -q start old-web");
    refused("growing while it runs", "large", &["cannot grow to 96 MiB while it runs", "flavor = \"large\""]);
    lab.sh("virsh -q undefine old-web");
    refused("transient", "small", &["it is transient", "virsh define"]);
    foreign(&lab, "qcow2", "");
    lab.sh("virsh -q snapshot-create-as old-web over --disk-only");
    refused("snapshot", "small", &["lies over another file, `/run/old/old.img`", "virsh blockpull"]);
    lab.sh("rm /run/old/old.over");
    foreign(&lab, "qcow2", "");
    lab.sh(&format!("rm {DISK}; touch /run/old/none"));
    refused("gone", "small", &["its disk `/run/old/old.img` cannot be used"]);

    lab.spec(&[spec("small", "power = \"off\"\n"), block("nowhere")].concat());
    let run = lab.novella(&["plan"]);
    assert!(
        run.code() == Some(1) && run.err.contains("error[not-importable]: there is no domain `nowhere`"),
        "{run:#?}"
    );

    // An imported disk that is gone is not made anew by itself.
    foreign(&lab, "qcow2", "");
    lab.spec(&[spec("small", "power = \"off\"\n"), block("old-web")].concat());
    lab.apply();
    lab.sh(&format!("mv {DISK} {DISK}.away"));
    let run = lab.novella(&["apply", "--auto-approve"]);
    assert!(run.code() == Some(1) && run.err.contains("error[imported-disk-gone]"), "{run:#?}");
    lab.sh(&format!("mv {DISK}.away {DISK}"));
    lab.assert_settled("put back");
    // Another project's.
    lab.sh(&format!("rm -r {}", lab.state().display()));
    let other = spec("small", "power = \"off\"\n").replace("novella = 1", "novella = 1\n[project]\nname = \"other\"");
    lab.spec(&[other.replace("10.20.0", "10.40.0").replace("10.30.0", "10.50.0"), block("old-web")].concat());
    let run = lab.novella(&["plan"]);
    assert!(run.err.contains("domain `old-web` is novella's already: `server.web` of project `default`"), "{run:#?}");
}
