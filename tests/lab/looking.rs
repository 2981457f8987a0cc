//! Looking changes nothing.

use std::path::Path;

use crate::lab::{Lab, NOVELLA, assert_same, base, server};

/// The verbs that look.
const LOOKS: [&[&str]; 13] = [
    &["plan"],
    &["plan", "--destroy"],
    &["plan", "--refresh=false"],
    &["plan", "--empty-state"],
    &["drift"],
    &["validate"],
    &["show"],
    &["show", "--json"],
    &["leases"],
    &["ip", "list", "private"],
    &["state", "list"],
    &["state", "export"],
    &["history"],
];

/// To look is no error. That there is drift is told by an exit code of its own.
fn assert_looked(verb: &[&str], code: Option<i32>, said: &str) {
    assert!(code == Some(0) || verb == ["drift"] && code == Some(2), "{verb:?}: {code:?}: {said}");
}

fn look(lab: &Lab, verb: &[&str]) {
    let run = lab.novella(verb);
    assert_looked(verb, run.code(), &run.err);
}

/// Everything in the directories: names, owners, modes, times, and content.
fn contents(lab: &Lab) -> String {
    let state = lab.state();
    let state = state.display();
    lab.sh(&format!(
        "for dir in {state} /var/lib/novella /etc/libvirt/qemu; do
             [ -e $dir ] || continue
             find $dir -printf '%p %y %U:%G %m %s %T@ %C@ %l\\n' | sort
             find $dir -type f -print0 | sort -z | xargs -r0 sha256sum
         done
         ls -d /tmp/novella-* 2>/dev/null
         ip -d addr | sed 's/gc_timer *[0-9.]*//'; nft list ruleset; ps -eo pid=,comm= | grep -E 'dnsmasq|qemu'; true"
    ))
}

#[test]
fn looking_changes_nothing() {
    let Some(lab) = Lab::without_guests("looking") else { return };
    // Nothing is pinned down here, so that KVM is probed too.
    let spec = [base().replace("virt_type = \"qemu\"", ""), server("web", "power = \"off\"")].concat();
    lab.spec(&spec);
    let look_at_all = |case: &str| {
        let before = contents(&lab);
        for verb in LOOKS {
            look(&lab, verb);
            assert_same(&contents(&lab), &before, &format!("{case}: {verb:?} changed something"));
        }
        assert_opens_nothing_for_writing(&lab, case);
        assert_same(&contents(&lab), &before, case);
    };

    look_at_all("before the first apply");
    assert!(!lab.state().exists(), "a state out of nothing");
    assert!(!Path::new(&lab.sh("ls -d /var/lib/novella/* 2>/dev/null || true")).exists());

    lab.apply();
    look_at_all("when all is made");

    lab.sh("nft delete table inet novella-default; rm /var/lib/novella/default/instances/web/disk.qcow2");
    look_at_all("with drift");

    // A run that was killed leaves a state that only the next run may mend.
    let mut run = lab.start(&["apply", "--auto-approve"]);
    run.wait_for("Creating...");
    run.signal(nix::sys::signal::Signal::SIGKILL);
    run.wait();
    look_at_all("after a kill");

    // Where nothing can be written at all.
    let state = lab.state();
    let state = state.display();
    lab.sh(&format!(
        "mount --bind {state} {state} && mount -o remount,bind,ro {state}
         mount --bind /var/lib/novella /var/lib/novella && mount -o remount,bind,ro /var/lib/novella"
    ));
    for verb in LOOKS {
        look(&lab, verb);
    }
    lab.sh(&format!("umount {state} && umount /var/lib/novella"));
    lab.apply();
    lab.assert_settled("after all");
}

/// Watches every system call with a path in it.
fn assert_opens_nothing_for_writing(lab: &Lab, case: &str) {
    if !lab.try_sh("command -v strace").status.success() {
        return;
    }
    let trace = lab.dir().join("trace");
    for verb in LOOKS {
        let mut strace = lab.command("strace");
        strace.args(["-f", "-qq", "-z", "-e", "trace=%file,ftruncate,fchmod,fchown", "-o"]).arg(&trace);
        let run = strace.arg(NOVELLA).args(lab.globals()).args(verb).output().expect("strace");
        assert_looked(verb, run.status.code(), &format!("{case}: {}", String::from_utf8_lossy(&run.stderr)));
        let calls = std::fs::read_to_string(&trace).expect("a trace");
        let writes: Vec<&str> = calls.lines().filter(|call| writes(call)).collect();
        assert!(writes.is_empty(), "{case}: {verb:?} writes: {writes:#?}");
        assert!(calls.lines().count() > 20, "nothing was traced: {calls}");
    }
}

/// Whether a traced call may change a file outside of /dev and /proc. The database of a run that was killed is read in a
/// private copy, for it cannot be opened without being changed; that the copy goes again is for [`contents`] to see.
fn writes(call: &str) -> bool {
    let opens = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| call.contains(flag));
    let changes = [
        "unlink",
        "rename",
        "mkdir",
        "rmdir",
        "link(",
        "linkat(",
        "symlink",
        "chmod",
        "chown",
        "truncate",
        "mknod",
        "utime",
        "setxattr",
        "mount",
        "pivot_root",
        "swapon",
    ];
    let name = call.split_whitespace().nth(1).unwrap_or_default();
    let harmless = ["\"/dev/", "\"/proc/", "\"/tmp/novella-"].iter().any(|path| call.contains(path)) || name.starts_with("readlink")
        // Below a directory that is open, which is that copy's.
        || name.starts_with("unlinkat(") && !name.starts_with("unlinkat(AT_FDCWD");
    !harmless && (opens || changes.iter().any(|change| name.starts_with(change)))
}
