//! Disks beside root disks under guests that run, and the trash, as guests see them.

use crate::lab::{Lab, base, note, server};
use crate::read;

const WEB: &str = "10.20.0.3";
const DB: &str = "10.20.0.2";

/// A lab with two guests, and the spec as it is now.
struct Bench {
    lab: Lab,
    spec: String,
    boots: [String; 2],
}

impl Bench {
    fn new(name: &str, more: &str, [web, db]: [&str; 2]) -> Option<Self> {
        let lab = Lab::with_guests(name)?;
        let spec = [&base(), "# more\n", more, &server("web", web), &server("db", db)].concat();
        lab.spec(&spec);
        lab.apply();
        let boots = [WEB, DB].map(|address| lab.boot_of(address));
        Some(Self { lab, spec, boots })
    }

    /// Puts one text in the place of another in the spec, and applies that. The plan has just these changes, and is empty
    /// afterwards.
    fn edit(&mut self, case: &str, edits: &[(&str, &str)], plan: &[&str]) -> String {
        for (from, to) in edits {
            assert_eq!(self.spec.matches(from).count(), 1, "{case}: {from}\n{}", self.spec);
            self.spec = self.spec.replace(from, to);
        }
        self.lab.spec(&self.spec);
        let text = self.lab.novella(&["plan"]).success().out;
        assert_eq!(read::changes(&text), plan, "{case}: {text}");
        let run = self.lab.apply();
        note(format_args!("{case}: {:?}", run.took));
        self.lab.assert_settled(case);
        text
    }

    /// The same, where all of it is live and nobody is booted anew.
    fn live(&mut self, case: &str, edits: &[(&str, &str)], plan: &[&str]) {
        self.edit(case, edits, plan);
        assert!(plan.iter().all(|change| !change.contains("reboot")), "{case}");
        assert_eq!([WEB, DB].map(|address| self.lab.boot_of(address)), self.boots, "{case}: a guest was booted anew");
    }

    /// The same, where this guest is booted anew, and the other is not.
    fn reboots(&mut self, case: &str, edits: &[(&str, &str)], plan: &[&str], which: usize) {
        self.edit(case, edits, plan);
        let address = [WEB, DB][which];
        let boot = self.lab.boot_after(&self.boots[which], address);
        self.boots[which] = boot;
        assert_eq!([WEB, DB].map(|address| self.lab.boot_of(address)), self.boots, "{case}: the other went on");
    }

    /// What a guest says of the disk with a serial number, but where it is; as soon as it is so.
    fn has(&self, address: &str, query: &str, expected: &str) {
        let path = format!("/cgi-bin/disk?{query}");
        self.lab.until(&format!("{address} says {expected:?} of {query}"), || {
            let said = self.lab.page(address, &path, 10)?;
            let said = said.trim_end().split_once(' ').map_or(said.trim_end(), |(_, said)| said).trim_end();
            (said == expected).then_some(())
        });
    }

    /// Checks a file with qemu-img, without asking for the lock that a guest has.
    fn check(&self, path: &str, format: &str, base: Option<&str>) {
        let said = self.lab.sh(&format!("qemu-img info -U -f {format} /var/lib/novella/default/{path}"));
        assert!(said.contains(&format!("file format: {format}")), "{said}");
        match base {
            Some(base) => assert!(said.contains("backing file: ") && said.contains(base), "{said}"),
            None => assert!(!said.contains("backing file"), "{said}"),
        }
        if format == "qcow2" {
            self.lab.sh(&format!("qemu-img check -U -f qcow2 /var/lib/novella/default/{path}"));
        }
    }
}

const DATA: &str = "[volume.data]\nsize = \"8 MiB\"\n";

#[test]
fn a_volume_moves_between_running_guests_and_takes_what_is_on_it_along() {
    let Some(mut bench) = Bench::new("volumes", "", ["# web", "# db"]) else { return };
    bench.live(
        "a volume is made and attached",
        &[("# more\n", &format!("# more\n{DATA}")), ("# web", "volumes = [\"data\"] # web")],
        &["volume.data + volume", "server.web ~ domain # live"],
    );
    bench.has(WEB, "data=precious", "8388608 precious");
    bench.check("volumes/data.qcow2", "qcow2", None);
    bench.live("it grows", &[("size = \"8 MiB\"", "size = \"16 MiB\"")], &["volume.data ~ volume # live"]);
    bench.has(WEB, "data", "16777216 precious");
    bench.live(
        "it goes to another guest",
        &[("volumes = [\"data\"] # web", "# web"), ("# db", "volumes = [\"data\"] # db")],
        &["server.db ~ domain # live", "server.web ~ domain # live"],
    );
    bench.has(DB, "data", "16777216 precious");
    bench.has(WEB, "data", "none");
    bench.live(
        "it comes back, and grows on the way",
        &[
            ("volumes = [\"data\"] # db", "# db"),
            ("# web", "volumes = [\"data\"] # web"),
            ("size = \"16 MiB\"", "size = \"24 MiB\""),
        ],
        &["volume.data ~ volume # live", "server.db ~ domain # live", "server.web ~ domain # live"],
    );
    bench.has(WEB, "data=more", "25165824 more");
    bench.live(
        "a disk on SCSI beside it, whose controller comes along",
        &[(
            "volumes = [\"data\"] # web",
            "volumes = [\"data\"]\ndisks = [{ name = \"scratch\", size = \"8 MiB\", bus = \"scsi\" }] # web",
        )],
        &["server.web + volume web/scratch", "server.web ~ domain # live"],
    );
    bench.has(WEB, "scratch=own", "8388608 own");
    bench.live("the volume is detached", &[("volumes = [\"data\"]\n", "")], &["server.web ~ domain # live"]);
    bench.has(WEB, "data", "none");
    bench.has(WEB, "scratch", "8388608 own");
    bench.live(
        "it is of another format, and what was on it is gone",
        &[("size = \"24 MiB\"", "size = \"24 MiB\"\nformat = \"raw\""), ("# db", "volumes = [\"data\"] # db")],
        &["volume.data -/+ volume # replace", "server.db ~ domain # live"],
    );
    bench.has(DB, "data", "25165824");
    bench.has(DB, "data=kept", "25165824 kept");
    bench.check("volumes/data.raw", "raw", None);
    bench.live(
        "it is made anew under its guest",
        &[
            ("\nformat = \"raw\"", ""),
            ("[volume.data]\n", "[volume.data]\nimage = \"tiny\"\n"),
            ("size = \"24 MiB\"", "size = \"96 MiB\""),
        ],
        &["volume.data -/+ volume # replace", "server.db ~ domain # live"],
    );
    bench.has(DB, "data=kept", "100663296 kept");
    bench.check("volumes/data.qcow2", "qcow2", Some("/var/lib/novella/default/base/"));

    // Its server goes, and it does not.
    let db = server("db", "volumes = [\"data\"] # db");
    bench.edit(
        "its server goes",
        &[(&db, "")],
        &["server.db - host entry db/private", "server.db - disk", "server.db - domain"],
    );
    bench.edit(
        "it is given to the other",
        &[(" # web", "\nvolumes = [\"data\"] # web")],
        &["server.web ~ domain # live"],
    );
    bench.has(WEB, "data", "100663296 kept");
    assert_eq!(bench.lab.boot_of(WEB), bench.boots[0]);
    bench.check("volumes/data.qcow2", "qcow2", Some("/var/lib/novella/default/base/"));
    bench.check("volumes/web/scratch.qcow2", "qcow2", None);
    bench.lab.destroy();
    assert_eq!(bench.lab.left(), [""; 0]);
}

#[test]
fn each_field_of_a_disk_does_what_the_plan_says() {
    let spec = "[volume.data]\nsize = \"8 MiB\"\n[flavor.roomy]\nram = \"96 MiB\"\ndisk = \"64 MiB\"\nephemeral = \"16 MiB\"\nswap = \"8 MiB\"\n";
    let attached = "volumes = [{ volume = \"data\" }] # web";
    let Some(mut bench) = Bench::new("fields", spec, [attached, "# db"]) else { return };
    const DOMAIN: &str = "server.web ~ domain # reboot";
    bench.has(WEB, "data=kept", "8388608 kept");
    let from = |what: &'static str| ("{ volume = \"data\"", format!("{{ volume = \"data\", {what}"));
    for (case, what) in [("cache", "cache = \"none\""), ("discard", "discard = \"ignore\""), ("bus", "bus = \"scsi\"")]
    {
        let (old, new) = from(what);
        bench.reboots(case, &[(old, &new)], &[DOMAIN], 0);
        bench.has(WEB, "data", "8388608 kept");
    }
    let xml = bench.lab.sh("virsh dumpxml default.web");
    for part in ["cache='none' discard='ignore'", "<serial>data</serial>", "bus='scsi'"] {
        assert!(xml.contains(part), "{part}\n{xml}");
    }
    bench.reboots(
        "the cache of the root disk",
        &[(" # web", "\nroot_disk = { cache = \"unsafe\" } # web")],
        &[DOMAIN],
        0,
    );
    bench.live(
        "a volume less",
        &[("volumes = [{ volume = \"data\", bus = \"scsi\", discard = \"ignore\", cache = \"none\" }]\n", "")],
        &["server.web ~ domain # live"],
    );

    // A disk that cannot be plugged in under a guest.
    bench.reboots(
        "a disk on SATA",
        &[(" # web", "\nvolumes = [{ volume = \"data\", bus = \"sata\" }] # web")],
        &[DOMAIN],
        0,
    );
    assert!(bench.lab.sh("virsh domblklist default.web").contains("/volumes/data.qcow2"));
    let plan = bench.edit(
        "it goes to the other",
        &[("\nvolumes = [{ volume = \"data\", bus = \"sata\" }]", ""), ("# db", "volumes = [\"data\"] # db")],
        &["server.db ~ domain # live", "server.web -/+ domain # reboot"],
    );
    assert!(plan.contains("Will be rebooted: server.web"), "{plan}");
    bench.boots[0] = bench.lab.boot_after(&bench.boots[0].clone(), WEB);
    assert_eq!(bench.lab.boot_of(DB), bench.boots[1]);
    bench.has(DB, "data", "8388608 kept");

    // Another bus of the root disk, beside a drive on the controller.
    bench.reboots(
        "the bus of the root disk",
        &[(
            "root_disk = { cache = \"unsafe\" } # web",
            "root_disk = { bus = \"scsi\" }\nmetadata = { role = \"web\" } # web",
        )],
        &["server.web + seed", "server.web ~ domain # reboot"],
        0,
    );
    bench.lab.said("web", "seed nocloud ");
    let disks = bench.lab.sh("virsh domblklist default.web");
    assert!(disks.contains(" sda ") && disks.contains(" sdz "), "{disks}");

    // Disks and interfaces share the free slots of a guest.
    let more = |count: u32| {
        let disk = |number| format!("{{ name = \"d{number}\", size = \"8 MiB\" }}");
        format!("disks = [{}] # web", (1..=count).map(disk).collect::<Vec<_>>().join(", "))
    };
    let one = format!("\n{}", more(1));
    bench.live(
        "a disk and an interface more",
        &[(" # web", &one), ("networks = [\"private\"]\nroot_disk", "networks = [\"private\", \"back\"]\nroot_disk")],
        &["server.web + host entry web/back", "server.web + volume web/d1", "server.web ~ domain # live"],
    );
    bench.has(WEB, "d1", "8388608");
    let volumes: Vec<String> = (2..=9).map(|number| format!("server.web + volume web/d{number}")).collect();
    let mut plan: Vec<&str> = volumes.iter().map(String::as_str).collect();
    plan.push("server.web ~ domain # reboot");
    bench.reboots("more disks than there are slots", &[(&one[1..], &more(9))], &plan, 0);
    bench.has(WEB, "d9", "8388608");

    // What the flavor has.
    let small = server("db", "volumes = [\"data\"] # db");
    bench.live(
        "a flavor with more disks",
        &[(&small, &small.replace("small", "roomy"))],
        &["server.db + volume db/ephemeral0", "server.db + volume db/swap", "server.db ~ domain # live"],
    );
    bench.has(DB, "ephemeral0", "16777216");
    bench.has(DB, "swap", "8388608");
    let files = "/var/lib/novella/default/volumes/db";
    let labels = bench.lab.sh(&format!("blkid -o value -s LABEL -s TYPE {files}/ephemeral0.raw {files}/swap.raw"));
    assert_eq!(labels.lines().collect::<Vec<_>>(), ["ephemeral0", "ext4", "swap", "swap"]);
    bench.live(
        "its file system has more room",
        &[("ephemeral = \"16 MiB\"", "ephemeral = \"32 MiB\"")],
        &["server.db ~ volume db/ephemeral0 # live"],
    );
    bench.has(DB, "ephemeral0", "33554432");
    bench.reboots(
        "another size to swap to is another disk",
        &[("swap = \"8 MiB\"", "swap = \"4 MiB\"")],
        &[
            "server.db -/+ volume db/swap # live",
            "server.db -/+ domain # taken down while its volume is changed, reboot",
        ],
        1,
    );
    bench.has(DB, "swap", "4194304");
    for (from, to, said) in [
        (
            "ephemeral = \"32 MiB\"",
            "ephemeral = \"16 MiB\"",
            "`server.db/ephemeral0` has 32 MiB and cannot shrink to 16 MiB",
        ),
        (
            "[volume.data]\nsize = \"8 MiB\"",
            "[volume.data]\nsize = \"4 MiB\"",
            "`volume.data` has 8 MiB and cannot shrink",
        ),
        ("disk = \"64 MiB\"\nephemeral", "disk = \"32 MiB\"\nephemeral", "the disk of `server.db` has 64 MiB"),
    ] {
        assert!(bench.spec.contains(from), "{from}");
        bench.lab.spec(&bench.spec.replace(from, to));
        let refused = bench.lab.novella(&["plan"]);
        assert!(refused.code() == Some(1) && refused.err.contains(said), "{refused:#?}");
    }
    bench.lab.spec(&bench.spec);
    bench.lab.assert_settled("nothing was begun");
    bench.lab.destroy();
    assert_eq!(bench.lab.left(), [""; 0]);
}

#[test]
fn what_was_destroyed_comes_back_from_the_trash() {
    let Some(lab) = Lab::with_guests("trash") else { return };
    let kept = base().replace("trash_ttl = \"0\"", "trash_ttl = \"7d\"");
    let spec = [&kept, DATA, &server("web", "volumes = [\"data\"]")].concat();
    lab.spec(&spec);
    lab.apply();
    let address = "10.20.0.2";
    lab.boot_of(address);
    let mut bench = Bench { lab, spec, boots: [String::new(), String::new()] };
    bench.has(address, "data=precious", "8388608 precious");
    bench.lab.said("web", "disk /dev/vda 67108864 novella-guest-disk boots 1");
    bench.lab.novella(&["plan", "--destroy"]).success();
    let out = bench.lab.destroy().out;
    assert!(out.contains("into the trash for 7d"), "{out}");

    let listed = bench.lab.novella(&["trash", "list"]).success().out;
    note(&listed);
    let json: serde_json::Value =
        serde_json::from_str(&bench.lab.novella(&["trash", "list", "--json"]).success().out).expect("JSON");
    let entries: Vec<(String, String)> = json["trash"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (it["address"].as_str().expect("text").to_owned(), it["id"].as_str().expect("text").to_owned()))
        .collect();
    let id = |address: &str| entries.iter().find(|it| it.0 == address).expect("an entry").1.clone();
    assert_eq!(entries.len(), 2, "{json:#}");
    let (root, data) = (id("server.web"), id("volume.data"));
    for id in [&root, &data] {
        bench.lab.sh(&format!("qemu-img check -f qcow2 /var/lib/novella/default/trash/{id}"));
    }
    // The base that it lies over is there yet.
    assert!(bench.lab.sh("ls /var/lib/novella/default/base").contains(".qcow2"));

    bench.lab.novella(&["trash", "restore", &root]).success();
    bench.lab.novella(&["trash", "restore", &data, "--as", "volume.other"]).success();
    let nothing = bench.lab.novella(&["trash", "restore", &data]);
    assert!(nothing.code() == Some(1) && nothing.err.contains("there is no `"), "{nothing:?}");
    bench.spec = bench.spec.replace("volume.data", "volume.other").replace("[\"data\"]", "[\"other\"]");
    bench.lab.spec(&bench.spec);
    let run = bench.lab.apply();
    assert!(run.out.contains("= disk  # found on the host with our mark"), "{}", run.out);
    bench.lab.assert_settled("restored");
    bench.lab.said("web", "disk /dev/vda 67108864 novella-guest-disk boots 2");
    bench.has(address, "other", "8388608 precious");

    // What stands in the place is not put away.
    bench.lab.spec(&bench.spec.replace("[volume.other]\n", "[volume.other]\nformat = \"raw\"\n"));
    bench.lab.apply();
    let json = bench.lab.novella(&["trash", "list", "--json"]).success().out;
    let id = json.lines().find_map(|line| line.trim().strip_prefix("\"id\": \"")?.strip_suffix("\",")).expect("an id");
    let refused = bench.lab.novella(&["trash", "restore", id]);
    assert!(refused.code() == Some(1) && refused.err.contains("there is a disk already"), "{refused:?}");
    bench.lab.novella(&["trash", "empty", "--older-than", "1d"]).success();
    assert!(bench.lab.novella(&["trash", "list"]).success().out.contains(id));

    // What has been there for its time goes with the next run.
    bench.lab.spec(&kept.replace("\"7d\"", "\"1s\""));
    bench.lab.destroy();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let out = bench.lab.destroy().out;
    assert!(out.contains("Gone from the trash, for their time is over: server.web-"), "{out}");
    assert!(bench.lab.novella(&["trash", "list"]).success().out.contains(id), "it is kept for longer");
    bench.lab.novella(&["trash", "empty", "--all", "--auto-approve"]).success();
    bench.lab.destroy();
    assert_eq!(bench.lab.left(), [""; 0]);
}
