//! What libvirt keeps of a guest beside its definition: snapshots, saved memory, NVRAM, a TPM's state. It stops nothing, and
//! nothing of it is left.

use crate::lab::{Lab, base, server};

const DB: &str = "10.20.0.2";
const WEB: &str = "10.20.0.3";
const INSTANCES: &str = "/var/lib/novella/default/instances";

/// All that libvirt keeps of domains, but its logs.
const KEPT: &str = "virsh -q list --all --name; \
                    find /var/lib/libvirt/qemu /var/lib/libvirt/swtpm /etc/libvirt/qemu -type f 2>/dev/null \
                    | grep -v -e /networks/ -e /channel/ -e 'capabilities' || true";

/// Two guests, of which the first has what is said of it.
fn guests(name: &str, more: &str, web: &str) -> Option<(Lab, String)> {
    let lab = Lab::with_guests(name)?;
    let spec = [&base(), more, &server("db", "shutdown_timeout = 10")].concat();
    lab.spec(&[&*spec, &server("web", &format!("shutdown_timeout = 10\n{web}"))].concat());
    lab.apply();
    lab.boot_of(DB);
    lab.boot_of(WEB);
    Some((lab, spec))
}

/// Takes the first guest out of the spec. Nothing of it is left, and the other goes on; then nothing of that.
fn assert_goes(lab: &Lab, without: &str, case: &str) {
    let db = lab.boot_of(DB);
    lab.spec(without);
    lab.apply();
    lab.assert_settled(case);
    assert_eq!(lab.boot_of(DB), db, "{case}: the other guest was booted anew");
    let kept = lab.sh(KEPT);
    assert!(kept.contains("default.db") && !kept.contains("web"), "{case}: {kept}");
    let files = lab.sh(&format!("find {INSTANCES} /var/lib/novella/default/volumes 2>/dev/null || true"));
    assert!(files.contains("/db/") && !files.contains("/web"), "{case}: {files}");
    lab.destroy();
    assert_eq!(lab.sh(KEPT), "", "{case}");
    assert_eq!(lab.left(), [""; 0], "{case}");
}

#[test]
fn an_internal_snapshot_and_saved_memory_stop_nothing() {
    let Some((lab, without)) = guests("saved", "", "") else { return };
    let boot = lab.boot_of(WEB);
    lab.sh("virsh -q snapshot-create-as default.web inner");
    lab.assert_settled("a snapshot");
    // Saved by somebody, it goes on where it was, and its address with it.
    lab.sh("virsh -q managedsave default.web");
    let changes = ["server.web ~ domain # changed on the host"];
    lab.assert_repaired("saved", &changes, &["server.web domain Modifying"]);
    assert_eq!(lab.boot_of(WEB), boot, "it was booted anew");
    // A new disk has no snapshots.
    lab.novella(&["rebuild", "web", "--auto-approve"]).success();
    lab.boot_after(&boot, WEB);
    assert_eq!(lab.sh("virsh -q snapshot-list default.web"), "");
    lab.assert_settled("rebuilt");
    lab.sh("virsh -q snapshot-create-as default.web inner && virsh -q snapshot-create-as default.web second");
    lab.sh("virsh -q managedsave default.web");
    assert_goes(&lab, &without, "snapshots and saved memory");
}

#[test]
fn firmware_a_tpm_and_volumes_leave_nothing() {
    let more = "\n[volume.data]\nsize = \"16 MiB\"\n[flavor.roomy]\nram = \"256 MiB\"\ndisk = \"64 MiB\"\n[image.uefi]\n\
                extends = \"tiny\"\nfirmware = \"uefi\"\ntpm = \"2.0\"\n";
    let web = "volumes = [\"data\"]\ndisks = [{ name = \"own\", size = \"16 MiB\" }]";
    let Some(lab) = Lab::with_guests("firmware") else { return };
    let without = [&base(), more, &server("db", "shutdown_timeout = 10")].concat();
    let web = server("web", &format!("shutdown_timeout = 10\n{web}"));
    let web = web.replace("\"tiny\"", "\"uefi\"").replace("\"small\"", "\"roomy\"");
    lab.spec(&[without.as_str(), &web].concat());
    lab.apply();
    lab.boot_of(DB);
    lab.boot_of(WEB);
    let kept = lab.sh(&format!("find /var/lib/libvirt/swtpm -type f; ls {INSTANCES}/web"));
    assert!(kept.contains("tpm2") && kept.contains("nvram"), "{kept}");
    // The volume outlives its server.
    let without = without.replace("\n[volume.data]\nsize = \"16 MiB\"", "");
    assert_goes(&lab, &without, "firmware");
}

#[test]
fn what_was_written_since_an_external_snapshot_is_not_lost_unasked() {
    let more = "\n[volume.data]\nsize = \"16 MiB\"\n";
    let Some((lab, without)) = guests("external", more, "volumes = [\"data\"]") else { return };
    let boot = lab.boot_of(WEB);
    let write = |text: &str| {
        lab.until("it is written", || lab.page(WEB, &format!("/cgi-bin/disk?data={text}"), 10));
    };
    let reads = || lab.page(WEB, "/cgi-bin/disk?data", 10).unwrap_or_default();
    write("before");
    lab.sh("virsh -q snapshot-create-as default.web outer --disk-only --atomic");
    write("since");

    let spec = [&*without, &server("web", "shutdown_timeout = 10\nvolumes = [\"data\"]")].concat();
    for (case, spec, verb) in [
        ("as it is", &spec, &["apply", "--auto-approve"][..]),
        ("rebuilt", &spec, &["rebuild", "web", "--auto-approve"]),
        ("out of the spec", &without, &["apply", "--auto-approve"]),
        ("all", &spec, &["destroy", "--auto-approve"]),
    ] {
        lab.spec(spec);
        let refused = lab.novella(verb);
        assert_eq!(refused.code(), Some(1), "{case}: {refused:#?}");
        for said in [
            "error[external-snapshot]: `server.web`",
            &format!("it is in `{INSTANCES}/web/disk.outer`"),
            "it is in `/var/lib/novella/default/volumes/data.outer`",
            "--allow-destroy server.web",
        ] {
            assert!(refused.err.contains(said), "{case}: {said}: {}", refused.err);
        }
        assert_eq!(lab.boot_of(WEB), boot, "{case}: booted anew");
    }
    // The others need not wait.
    lab.spec(&spec.replace("[server.db]", "[server.db]\nmetadata = { a = \"b\" }"));
    lab.novella(&["apply", "--auto-approve", "--exclude", "server.web"]).success();
    lab.spec(&spec);

    // The way out that it tells, to the letter.
    let refused = lab.novella(&["apply", "--auto-approve"]);
    let commits: Vec<&str> = refused.err.lines().map(str::trim).filter(|line| line.starts_with("virsh ")).collect();
    assert_eq!(commits.len(), 2, "{}", refused.err);
    let digest = || lab.sh("sha256sum /var/lib/novella/default/base/*.qcow2");
    let base = digest();
    commits.iter().for_each(|commit| drop(lab.sh(commit)));
    assert_eq!(digest(), base, "the image was written to");
    lab.sh("virsh -q snapshot-delete default.web outer --metadata");
    lab.apply();
    lab.assert_settled("committed");
    assert_eq!(lab.boot_of(WEB), boot, "committed: booted anew");
    assert!(reads().contains("since"), "{}", reads());

    // Of one that is off, it is known as well; and it goes if that is said.
    lab.sh("virsh -q destroy default.web && virsh -q snapshot-create-as default.web third --disk-only");
    lab.sh("virsh -q start default.web && virsh -q snapshot-create-as default.web fourth --disk-only");
    lab.spec(&without);
    let refused = lab.novella(&["apply", "--auto-approve"]);
    assert!(refused.err.contains("disk.fourth") && !refused.err.contains("disk.third`"), "{refused:#?}");
    assert!(refused.err.contains(&format!("--base {INSTANCES}/web/disk.qcow2 ")), "{refused:#?}");
    lab.novella(&["apply", "--auto-approve", "--allow-destroy", "server.web"]).success();
    let without = without.replace(more, "");
    assert_goes(&lab, &without, "allowed");
}
