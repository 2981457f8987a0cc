//! What guests are told, as they read it: by a NoCloud seed and by a config drive.

use std::time::{Duration, Instant};

use crate::lab::{Lab, base, server};
use crate::read;

const WEB: &str = "10.20.0.2";
const DB: &str = "10.20.0.50";
const SECRET: &str = "correct-horse-battery";

/// The first lines of the user data of both.
fn spec(web: &str, db: &str) -> String {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t me@here";
    [
        &base(),
        &format!("[keypair.me]\npublic_key = \"{key}\"\n"),
        &server("web", web),
        &server("db", &format!("fixed_ip = \"{DB}\"\n{db}")),
    ]
    .map(String::as_str)
    .concat()
}

/// What a guest has said of its seed, boot by boot: in which way, instance, host, first line.
fn told(lab: &Lab, server: &str) -> Vec<Vec<String>> {
    let lines = lab.console(server);
    let told = lines.iter().filter_map(|line| line.strip_prefix("seed "));
    told.map(|line| line.splitn(4, ' ').map(str::to_owned).collect()).collect()
}

/// The seeds in the directory of a server.
fn seeds(lab: &Lab, server: &str) -> Vec<String> {
    let all = lab.sh(&format!("ls /var/lib/novella/default/instances/{server}/seed-*.img 2>/dev/null || true"));
    all.lines().map(str::to_owned).collect()
}

/// What is in the drive of a guest as it runs, and as it is defined.
fn media(lab: &Lab, server: &str) -> [String; 2] {
    ["", "--inactive"].map(|how| {
        let list = lab.sh(&format!("virsh -q domblklist default.{server} {how}"));
        let drive = list.lines().find_map(|line| line.trim().strip_prefix("sda ")).unwrap_or("none");
        drive.trim().to_owned()
    })
}

#[test]
fn guests_read_what_they_are_told() {
    let Some(lab) = Lab::with_guests("seeds") else { return };
    let web = format!("key_pairs = [\"me\"]\nuser_data = \"\"\"#one\npassword: {SECRET}\n\"\"\"");
    let db = format!(
        "config_drive = true\nuser_data = \"#drive {SECRET}\"\nmetadata = {{ role = \"db\" }}\n\
         on_user_data_change = \"ignore\"\nfiles = []"
    );
    lab.spec(&spec(&web, &db));
    lab.apply();
    let (web_boot, db_boot) = (lab.boot_of(WEB), lab.boot_of(DB));
    lab.assert_settled("just made");
    let (first, drive) = (told(&lab, "web"), told(&lab, "db"));
    assert_eq!((first.len(), drive.len()), (1, 1), "{first:?} {drive:?}");
    assert_eq!([&first[0][0], &first[0][2], &first[0][3]], ["nocloud", "web", "#one"]);
    assert_eq!([&drive[0][0], &drive[0][2]], ["config-drive", "db"]);
    assert_ne!(first[0][1], drive[0][1]);
    let seed = seeds(&lab, "web");
    assert_eq!(seed.len(), 1);
    assert_eq!(lab.sh(&format!("stat -c %a {}", seed[0])), "600");
    assert_eq!(media(&lab, "web"), [seed[0].clone(), seed[0].clone()]);
    shown_nowhere(&lab);

    // From the next boot on. Also when it boots by itself, and QEMU goes on.
    lab.spec(&spec(&web.replace("#one", "#two"), &db.replace("#drive", "#other")));
    let plan = lab.novella(&["plan", "--log", "trace"]).success();
    assert!(plan.out.contains("takes effect at its next boot"), "{}", plan.out);
    assert!(!plan.out.contains("Will be"), "{}", plan.out);
    assert!(!plan.out.contains(SECRET) && !plan.err.contains(SECRET));
    let run = lab.assert_repaired(
        "other user data",
        &["server.web ~ seed # live", "server.web ~ domain # live"],
        &["server.web domain Modifying", "server.web seed Modifying"],
    );
    assert!(run.took < Duration::from_secs(10), "{:?}", run.took);
    assert_eq!((lab.boot_of(WEB), lab.boot_of(DB)), (web_boot.clone(), db_boot.clone()), "both go on");
    let next = seeds(&lab, "web");
    assert_eq!(next.len(), 1, "the old one is gone: {next:?}");
    assert_ne!(next, seed);
    assert_eq!(media(&lab, "web"), [next[0].clone(), next[0].clone()]);
    lab.sh("virsh -q reset default.web");
    let web_boot = lab.boot_after(&web_boot, WEB);
    let second = told(&lab, "web");
    assert_eq!(second.len(), 2, "{second:?}");
    assert_eq!(second[1][3], "#two");
    assert_ne!(second[1][1], first[0][1], "to cloud-init, it is another instance");
    lab.assert_settled("after its reboot");

    // What was changed by hand comes back, and nobody notices.
    let seed = seeds(&lab, "db");
    for (case, damage, plan, step) in [
        ("damaged", "printf x >$seed", "server.web ~ seed # changed on the host, live", "Modifying"),
        ("gone", "rm $seed", "server.web + seed # vanished from the host", "Creating"),
        (
            "not alone",
            "cp $seed ${seed%/*}/seed-0123456789abcdef.img",
            "server.web ~ seed # changed on the host, live",
            "Modifying",
        ),
    ] {
        lab.sh(&format!("seed={} && {damage}", next[0]));
        lab.assert_repaired(case, &[plan], &[&format!("server.web seed {step}")]);
        assert_eq!(seeds(&lab, "web"), next, "{case}");
    }
    assert_eq!(lab.boot_of(WEB), web_boot);

    // It was to keep what it was told. Where that is lost, it is told what the spec says now.
    assert_eq!(seeds(&lab, "db"), seed);
    lab.sh(&format!("rm {}", seed[0]));
    let changes = ["server.db + seed # vanished from the host", "server.db ~ domain # live"];
    lab.assert_repaired("not known any more", &changes, &["server.db domain Modifying", "server.db seed Creating"]);
    assert_eq!(lab.boot_of(DB), db_boot);

    // To be rebuilt asks for a disk that was made with the user data of now.
    lab.spec(&spec(&web.replace("#one", "#two"), &db.replace("ignore", "rebuild")));
    lab.assert_repaired(
        "made with what it says, if told something else since",
        &["server.db ~ seed # live", "server.db ~ domain # live"],
        &["server.db domain Modifying", "server.db seed Modifying"],
    );
    assert_eq!(lab.boot_of(DB), db_boot);
    lab.spec(&spec(&web.replace("#one", "#two"), &db.replace("ignore", "rebuild").replace("#drive", "#anew")));
    let run = lab.novella(&["plan"]).success();
    assert_eq!(read::attributes(&run.out, "server.db -/+ disk").len(), 1, "{}", run.out);
    assert!(run.out.contains("Will be replaced, with its disk: server.db"), "{}", run.out);
    lab.apply();
    lab.boot_after(&db_boot, DB);
    lab.assert_settled("rebuilt");
    let rebuilt = told(&lab, "db");
    assert!(rebuilt.last().expect("told").last().expect("a line").starts_with("#anew"), "{rebuilt:?}");
    let disks: Vec<String> = lab.console("db").into_iter().filter(|line| line.starts_with("disk ")).collect();
    assert!(disks.last().expect("a disk").ends_with(" boots 1"), "{disks:?}");

    // Told nothing any more.
    lab.spec(&spec("", &db.replace("ignore", "rebuild").replace("#drive", "#anew")));
    lab.assert_repaired(
        "told nothing",
        &["server.web - seed", "server.web ~ domain # live"],
        &["server.web domain Modifying", "server.web seed Destroying"],
    );
    assert_eq!(lab.boot_of(WEB), web_boot);
    assert_eq!(seeds(&lab, "web"), Vec::<String>::new());
    assert_eq!(media(&lab, "web"), ["-", "none"]);

    // And again: a guest without a drive has it at its next start.
    lab.sh("virsh -q destroy default.web");
    lab.apply();
    let web_boot = lab.boot_after(&web_boot, WEB);
    lab.spec(&spec(&web, &db.replace("ignore", "rebuild").replace("#drive", "#anew")));
    lab.assert_repaired(
        "told again",
        &["server.web + seed", "server.web ~ domain # live"],
        &["server.web domain Modifying", "server.web seed Creating"],
    );
    assert_eq!(lab.boot_of(WEB), web_boot);
    lab.sh("virsh -q destroy default.web");
    lab.apply();
    lab.boot_after(&web_boot, WEB);
    let deadline = Instant::now() + Duration::from_secs(30);
    while told(&lab, "web").last().is_none_or(|last| last[3] != "#one") {
        assert!(Instant::now() < deadline, "{:?}", told(&lab, "web"));
    }
    shown_nowhere(&lab);
    lab.destroy();
    assert_eq!(lab.left(), Vec::<String>::new());
}

/// What is secret is in the seeds, and in nothing else that novella, libvirt, dnsmasq or QEMU keep, say or are started with.
fn shown_nowhere(lab: &Lab) {
    let found = lab.sh(&format!(
        "grep -rl {SECRET} {} /var/lib/novella /var/lib/libvirt /var/log/libvirt /etc/libvirt /run/libvirt 2>/dev/null \
         | grep -v '/seed-[0-9a-f]*\\.img$' | grep -v console.log; \
         for pid in $(pgrep -x 'qemu-system-x86|dnsmasq|libvirtd'); do tr '\\0' ' ' </proc/$pid/cmdline; done | grep {SECRET}; \
         true",
        lab.state().display()
    ));
    assert_eq!(found, "", "it is found");
    // It is there at all.
    lab.sh(&format!("grep -q {SECRET} /var/lib/novella/default/instances/web/seed-*.img"));
}
