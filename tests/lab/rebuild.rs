//! Root disks that are made anew under servers that stay what they are.

use crate::disruption::{DB, Guest};
use crate::lab::{base, guest_dir, note, server};
use crate::read;

/// What a server keeps: its UUID, name, MAC, and what answers at its address.
fn identity(guest: &Guest) -> [String; 4] {
    let mac = guest.virsh("domiflist default.db | awk '/tap/ { print $5 }'");
    [guest.virsh("domuuid default.db"), guest.virsh("list --all --name"), mac, guest.lab.guest(DB).0]
}

/// The root disks that lie in the directory of a server.
fn disks(guest: &Guest, server: &str) -> Vec<String> {
    let listed = guest.lab.sh(&format!("cd /var/lib/novella/default/instances/{server} && ls disk*"));
    let mut disks: Vec<String> = listed.lines().map(str::to_owned).collect();
    disks.sort();
    disks
}

#[test]
fn a_rebuilt_guest_is_the_same_server_with_a_new_disk() {
    let Some(mut guest) = Guest::new("rebuild") else { return };
    // It has written to its disk more than once.
    guest.lab.novella(&["reboot", "db"]).success();
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert_eq!(guest.boots(), 2);
    let before = identity(&guest);

    // Nothing happens without a yes, or to a server that there is not.
    let asked = guest.lab.novella(&["rebuild", "db"]);
    assert_eq!(asked.code(), Some(1), "{asked:#?}");
    assert!(asked.out.contains("-/+ disk  # requested, replace") && asked.err.contains("Cancelled"), "{asked:#?}");
    let wrong = guest.lab.novella(&["rebuild", "dbb"]);
    assert!(
        wrong.err.contains("there is no `server.dbb`") && wrong.err.contains("did you mean `server.db`?"),
        "{wrong:#?}"
    );
    assert_eq!(guest.lab.boot_of(DB), guest.boot);
    guest.lab.assert_settled("not rebuilt");

    // An edit of something else waits.
    guest
        .base
        .push_str("[server.other]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"back\"]\npower = \"off\"\n");
    guest.spec();
    let run = guest.lab.novella(&["rebuild", "server.db", "--auto-approve"]).success();
    note(format_args!("measured: a rebuild took {:.1} s", run.took.as_secs_f32()));
    assert!(run.out.contains("Rebuild complete!") && !run.out.contains("server.other"), "{run:#?}");
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert_eq!(guest.boots(), 1, "what the old disk had is on the new one");
    assert_eq!(identity(&guest), before);
    assert_eq!(disks(&guest, "db"), ["disk-2.qcow2"]);
    assert!(read::changes(&guest.lab.novella(&["plan"]).success().out).iter().all(|it| it.starts_with("server.other")));
    guest.lab.apply();
    guest.lab.assert_settled("rebuilt");
    assert_eq!(guest.lab.boot_of(DB), guest.boot);

    // `apply --replace` does the same with all else, and `plan` shows it.
    let plan = guest.lab.novella(&["plan", "--replace", "server.db"]).success().out;
    assert_eq!(
        read::changes(&plan),
        [
            "server.db -/+ disk # requested, replace",
            "server.db -/+ domain # taken down while its disk is changed, replace"
        ]
    );
    guest.apply(&["--replace", "server.db"]);
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert_eq!((guest.boots(), disks(&guest, "db")), (1, vec!["disk-3.qcow2".to_owned()]));
    guest.lab.assert_settled("replaced");
    guest.lab.destroy();
    assert_eq!(guest.lab.sh("find /var/lib/novella -name 'disk*'"), "");
}

#[test]
fn a_guest_grows_where_it_stands_and_shrinks_only_onto_a_new_disk() {
    let Some(mut guest) = Guest::new("resize") else { return };
    guest.base.push_str("[flavor.tiny]\nram = \"96 MiB\"\ndisk = \"32 MiB\"\n");
    guest.edit("flavor = \"small\"", "flavor = \"disk\"");
    guest.apply(&["--max-disruption", "reboot"]);
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    guest.lab.assert_settled("grown");

    // Back: the plan refuses it, at its place, and nothing happens.
    guest.edit("flavor = \"disk\"", "flavor = \"small\"");
    for verb in [&["plan"][..], &["apply", "--auto-approve"]] {
        let refused = guest.lab.novella(verb);
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        let said = &refused.err;
        assert!(
            said.contains("error[disk-would-shrink]: the disk of `server.db` has 96 MiB and cannot shrink to 64 MiB"),
            "{said}"
        );
        assert!(said.contains("flavor = \"small\"") && said.contains("novella rebuild db"), "{said}");
    }
    assert_eq!(guest.lab.boot_of(DB), guest.boot);
    guest.lab.novella(&["rebuild", "db", "--auto-approve"]).success();
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert_eq!(guest.boots(), 1);
    let capacity = guest.virsh("domblkinfo default.db vda | grep Capacity");
    assert!(capacity.ends_with(&(64 << 20).to_string()), "{capacity}");
    guest.lab.assert_settled("rebuilt onto a smaller disk");

    // Smaller than its image it cannot be.
    guest.edit("flavor = \"small\"", "flavor = \"tiny\"");
    let refused = guest.lab.novella(&["rebuild", "db", "--auto-approve"]);
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.err.contains("error[image-too-large]: `image.tiny` is a disk of 64 MiB"), "{refused:#?}");
    assert_eq!(guest.lab.boot_of(DB), guest.boot);
}

#[test]
fn a_guest_answers_while_its_next_disk_is_made() {
    let Some(mut guest) = Guest::new("beside") else { return };
    guest.lab.sh(&format!("cp {}/disk.qcow2 {}/next.qcow2", guest_dir().display(), guest.lab.dir().display()));
    let tiny = guest.base.split("[image.tiny]").nth(1).and_then(|rest| rest.split('[').next()).expect("an image");
    let next = tiny.replace(&format!("{}/disk", guest_dir().display()), &format!("{}/next", guest.lab.dir().display()));
    guest.base.push_str(&format!("[image.next]{next}"));
    guest.edit("shutdown_timeout", "lifecycle = { create_before_destroy = true }\nshutdown_timeout");
    guest.edit("image = \"tiny\"", "image = \"next\"");
    let plan = guest.lab.novella(&["plan"]).success().out;
    assert!(plan.contains("+/- disk  # replace") && plan.contains("Disruption: 1 replace."), "{plan}");

    let before = identity(&guest);
    // Disks take their time: in the mounts of the lab alone, qemu-img sleeps before it works.
    let slow = format!(
        "cd {} && cp \"$(command -v qemu-img)\" real && printf '#!/bin/sh\\nsleep 3\\nexec %s/real \"$@\"\\n' \"$PWD\" > slow && \
         chmod 755 slow && mount --bind slow \"$(command -v qemu-img)\"",
        guest.lab.dir().display()
    );
    guest.lab.sh(&slow);
    let mut run = guest.lab.start(&["apply", "--auto-approve"]);
    run.wait_for("disk: Creating beside the old one...");
    let answers = guest.lab.boot_of(DB);
    assert!(!run.so_far().contains("disk: Creation complete"), "it was made before anybody could look");
    assert_eq!(answers, guest.boot, "the guest is down while its disk is made");
    assert_eq!(disks(&guest, "db"), ["disk-2.qcow2.part", "disk.qcow2"], "the old one went first");
    let run = run.wait().success();
    let at = |what: &str| run.out.find(what).unwrap_or_else(|| panic!("{what} is not in {}", run.out));
    assert!(at("disk: Creation complete") < at("domain: Modifying"), "{}", run.out);
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert_eq!(guest.boots(), 1);
    assert_eq!(identity(&guest), before);
    assert_eq!(disks(&guest, "db"), ["disk-2.qcow2"], "the old one goes after");
    guest.lab.assert_settled("beside");

    // How long it is away, either way.
    for (policy, how) in
        [("create_before_destroy = true", "beside"), ("create_before_destroy = false", "after the old one")]
    {
        guest.edit("create_before_destroy = true", policy);
        let ping = guest.lab.ping(DB);
        guest.lab.novella(&["rebuild", "db", "--auto-approve"]).success();
        guest.boot = guest.lab.boot_after(&guest.boot, DB);
        let (sent, lost) = ping.stop();
        note(format_args!("measured: made {how}, {lost} of {sent} pings, ten a second, are lost"));
        assert_eq!(guest.boots(), 1);
        guest.lab.assert_settled(how);
    }
}

#[test]
fn a_guarded_guest_outlives_its_block_and_a_destroy() {
    let Some(mut guest) = Guest::new("guard") else { return };
    guest.edit("shutdown_timeout", "lifecycle = { prevent_destroy = true }\nshutdown_timeout");
    let recorded = guest.apply(&["--max-disruption", "none"]);
    assert!(recorded.out.contains("+ prevent_destroy = true"), "{recorded:#?}");
    guest.lab.assert_settled("guarded");

    let whole = guest.base.clone();
    let refused = |guest: &Guest, arguments: &[&str]| {
        let run = guest.lab.novella(arguments);
        assert_eq!(run.code(), Some(1), "{run:#?}");
        assert!(run.err.contains("`server.db` has `prevent_destroy`"), "{run:#?}");
        assert!(run.err.contains("--allow-destroy server.db"), "{run:#?}");
        assert_eq!(guest.lab.boot_of(DB), guest.boot);
    };
    refused(&guest, &["destroy", "--auto-approve"]);
    refused(&guest, &["plan", "--destroy"]);
    refused(&guest, &["rebuild", "db", "--auto-approve"]);
    guest.lab.spec(&whole);
    refused(&guest, &["apply", "--auto-approve"]);
    // Another server comes and goes meanwhile.
    guest.lab.spec(&[base(), server("db", "lifecycle = { prevent_destroy = true }\ncount = 1")].concat());
    refused(&guest, &["apply", "--auto-approve"]);
    guest.lab.spec(&whole);
    guest.lab.novella(&["apply", "--auto-approve", "--allow-destroy", "server.db"]).success();
    assert_eq!(guest.virsh("list --all --name"), "");
    guest.lab.assert_settled("gone");
}
