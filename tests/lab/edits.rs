//! Edits of a spec whose guests run: what the plan announces is what happens, and only to those it names.

use crate::lab::{Lab, base, guest_dir, note, server};

const WEB: &str = "10.20.0.2";

/// A lab in which `web` runs through all edits, and `db` is edited.
struct Bench {
    lab: Lab,
    base: String,
    db: String,
    web_boot: String,
    db_boot: String,
    address: &'static str,
}

/// What becomes of the guest `db`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Db {
    GoesOn,
    IsBootedAnew,
}
use Db::{GoesOn, IsBootedAnew};

impl Bench {
    fn new() -> Option<Self> {
        let lab = Lab::with_guests("edits")?;
        let base = [
            &base(),
            "[flavor.big]\nram = \"128 MiB\"\ndisk = \"64 MiB\"\n",
            "[flavor.wide]\nram = \"128 MiB\"\ndisk = \"96 MiB\"\n",
        ]
        .concat();
        let db = server("db", "fixed_ip = \"10.20.0.50\"\nshutdown_timeout = 15");
        let address = "10.20.0.50";
        lab.spec(&[&base, &server("web", ""), &db].map(String::as_str).concat());
        lab.apply();
        let (web_boot, db_boot) = (lab.boot_of(WEB), lab.boot_of(address));
        Some(Self { lab, base, db, web_boot, db_boot, address })
    }

    /// Writes the spec, checks the plan and what it says of the guests, applies it, checks the steps, that nothing is left
    /// to do, and what became of the guests. Gives the plan.
    fn edit(&mut self, case: &str, plan: &[&str], steps: &[&str], db: Db) -> String {
        self.lab.spec(&self.spec());
        let text = self.lab.novella(&["plan"]).success().out;
        let reboots =
            text.contains("Will be rebooted: server.db") || text.contains("replaced, with its disk: server.db");
        assert_eq!(reboots, db == IsBootedAnew, "{case}: what is announced:\n{text}");
        let ping = self.lab.ping(WEB);
        let run = self.lab.assert_repaired(case, plan, steps);
        let (sent, lost) = ping.stop();
        note(format_args!("{case}: {:?}, {lost} of {sent} packets to web lost", run.took));
        assert!(lost <= 1, "{case}: {lost} of {sent} packets to web were lost");
        assert_eq!(self.lab.boot_of(WEB), self.web_boot, "{case}: web was booted anew");
        match db {
            GoesOn => assert_eq!(self.lab.boot_of(self.address), self.db_boot, "{case}: db was booted anew"),
            IsBootedAnew => self.db_boot = self.lab.boot_after(&self.db_boot, self.address),
        }
        text
    }

    fn spec(&self) -> String {
        [&self.base, &server("web", ""), &self.db].map(String::as_str).concat()
    }

    /// The last line on the console of `db` that begins so.
    fn said(&self, beginning: &str) -> String {
        let lines = self.lab.console("db");
        let line = lines.iter().rev().find(|line| line.starts_with(beginning));
        line.unwrap_or_else(|| panic!("db never says {beginning:?}: {lines:#?}")).clone()
    }
}

#[test]
fn what_an_edit_does_to_a_guest_is_what_was_announced() {
    let Some(mut bench) = Bench::new() else { return };

    // A server more, and one less again.
    let db = bench.db.clone();
    bench.db.push_str(&server("extra", ""));
    bench.edit(
        "a server more",
        &["server.extra + host entry extra/private", "server.extra + disk", "server.extra + domain"],
        &[
            "server.extra disk Creating",
            "server.extra domain Creating",
            "server.extra host entry extra/private Creating",
        ],
        GoesOn,
    );
    assert_eq!(bench.lab.guest("10.20.0.3").0, "extra");
    bench.db.clone_from(&db);
    bench.edit(
        "a server less",
        &["server.extra - host entry extra/private", "server.extra - disk", "server.extra - domain"],
        &[
            "server.extra disk Destroying",
            "server.extra domain Destroying",
            "server.extra host entry extra/private Destroying",
        ],
        GoesOn,
    );

    // The address goes to the next, though dnsmasq has leased it to the one before.
    bench.db.push_str(&server("later", ""));
    bench.lab.spec(&bench.spec());
    bench.lab.apply();
    assert_eq!(bench.lab.guest("10.20.0.3").0, "later");
    bench.db.clone_from(&db);
    bench.lab.spec(&bench.spec());
    bench.lab.apply();

    // More memory.
    bench.db = bench.db.replace("flavor = \"small\"", "flavor = \"big\"");
    bench.edit("more memory", &["server.db ~ domain # reboot"], &["server.db domain Modifying"], IsBootedAnew);

    // A larger disk.
    bench.db = bench.db.replace("flavor = \"big\"", "flavor = \"wide\"");
    let boots = boots(&bench.said("disk "));
    bench.edit("a larger disk", &["server.db ~ disk # live"], &["server.db disk Modifying"], GoesOn);

    // Another address.
    bench.db = bench.db.replace("10.20.0.50", "10.20.0.60");
    bench.address = "10.20.0.60";
    bench.edit(
        "another address",
        &[
            "server.db ~ host entry db/private # live",
            "server.db -/+ domain # taken down while its host entry is changed, reboot",
        ],
        &["server.db domain Replacing", "server.db domain Replacing", "server.db host entry db/private Modifying"],
        IsBootedAnew,
    );
    assert!(bench.said("eth0").starts_with("eth0 10.20.0.60/24 "), "{}", bench.said("eth0"));
    assert_eq!(bench.said("disk "), format!("disk /dev/vda {} novella-guest-disk boots {}", 96 << 20, boots + 1));

    // Another MTU, under both.
    bench.base = bench.base.replace("[network.private]", "[network.private]\nmtu = 1400");
    bench.edit(
        "another MTU",
        &[
            "network.private ~ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ domain # live",
            "server.web ~ domain # live",
        ],
        &[
            "network.private bridge Modifying",
            "network.private dhcp Modifying",
            "server.db domain Modifying",
            "server.web domain Modifying",
        ],
        GoesOn,
    );
    assert_eq!(bench.lab.sh("cat /sys/class/net/tap*/mtu | sort -u"), "1400");

    // A network more.
    bench.db = bench.db.replace("[\"private\"]", "[\"private\", \"back\"]");
    bench.edit(
        "a network more",
        &["server.db + host entry db/back", "server.db ~ domain # live"],
        &["server.db domain Modifying", "server.db host entry db/back Creating"],
        GoesOn,
    );

    // Off, gently, and on again.
    bench.db = bench.db.replace("shutdown_timeout", "power = \"off\"\nshutdown_timeout");
    bench.lab.spec(&bench.spec());
    let off = bench.lab.assert_repaired("off", &["server.db ~ domain # reboot"], &["server.db domain Modifying"]);
    assert!(off.took.as_secs() < 10, "it was not shut down but forced off, after {:?}", off.took);
    assert_eq!(bench.said("power button"), "power button");
    assert_eq!(bench.lab.sh("virsh -q domstate default.db"), "shut off");
    bench.db = bench.db.replace("power = \"off\"\n", "");
    bench.lab.spec(&bench.spec());
    bench.lab.assert_repaired("on", &["server.db ~ domain"], &["server.db domain Modifying"]);
    bench.db_boot = bench.lab.boot_after(&bench.db_boot, bench.address);
    assert_eq!(bench.lab.boot_of(WEB), bench.web_boot, "web was booted anew");
    assert!(bench.said("eth1").starts_with("eth1 10.30.0."), "{}", bench.said("eth1"));
    assert!(bench.said("eth0").contains(" mtu 1400 "), "{}", bench.said("eth0"));

    // Another image: another disk, with nothing of the old one on it.
    let copy = bench.lab.dir().join("other.qcow2");
    std::fs::copy(guest_dir().join("disk.qcow2"), &copy).expect("a copy");
    let tiny = bench.base.split("\n[image.tiny]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("an image");
    let other = tiny.replace(&guest_dir().join("disk.qcow2").display().to_string(), &copy.display().to_string());
    bench.base = format!("{}\n[image.other]{other}\n", bench.base);
    bench.db = bench.db.replace("image = \"tiny\"", "image = \"other\"");
    bench.edit(
        "another image",
        &[
            "image.other + base image (qcow2)",
            "server.db -/+ disk # replace",
            "server.db -/+ domain # taken down while its disk is changed, replace",
        ],
        &[
            "image.other base image (qcow2) Creating",
            "server.db disk Replacing",
            "server.db disk Replacing",
            "server.db domain Replacing",
            "server.db domain Replacing",
        ],
        IsBootedAnew,
    );
    assert!(bench.said("disk ").ends_with(" boots 1"), "{}", bench.said("disk "));
}

#[test]
fn addresses_are_exchanged_and_moved() {
    let Some(lab) = Lab::with_guests("addresses") else { return };
    let servers = |web: &str, db: &str| {
        let server = |name, address| server(name, &format!("fixed_ip = \"{address}\"\nshutdown_timeout = 10"));
        [server("web", web), server("db", db)].concat()
    };
    lab.spec(&[base(), servers("10.20.0.11", "10.20.0.12")].concat());
    lab.apply();
    let boots = ["10.20.0.11", "10.20.0.12"].map(|address| lab.boot_of(address));

    lab.spec(&[base(), servers("10.20.0.12", "10.20.0.11")].concat());
    let servers_plan = [
        "server.db ~ host entry db/private # live",
        "server.db -/+ domain # taken down while its host entry is changed, reboot",
        "server.web ~ host entry web/private # live",
        "server.web -/+ domain # taken down while its host entry is changed, reboot",
    ];
    let replaced = ["db", "web"].map(|name| {
        let domain = format!("server.{name} domain Replacing");
        let entry = format!("server.{name} host entry {name}/private Modifying");
        [domain.clone(), domain, entry]
    });
    let servers_steps: Vec<&str> = replaced.as_flattened().iter().map(String::as_str).collect();
    lab.assert_repaired("exchanged", &servers_plan, &servers_steps);
    for (address, name, before) in [("10.20.0.11", "db", &boots[0]), ("10.20.0.12", "web", &boots[1])] {
        lab.boot_after(before, address);
        assert_eq!(lab.guest(address).0, name, "who answers at {address}");
    }

    let spec = [base(), servers("10.21.0.12", "10.21.0.11")].concat().replace("10.20.0.0/24", "10.21.0.0/24");
    lab.spec(&spec);
    let network_plan =
        ["host.local ~ firewall # live", "network.private ~ bridge # live", "network.private ~ dhcp # live"];
    let network_steps =
        ["host.local firewall Modifying", "network.private bridge Modifying", "network.private dhcp Modifying"];
    let plan = [&network_plan[..], &servers_plan].concat();
    lab.assert_repaired("moved", &plan, &[&network_steps[..], &servers_steps].concat());
    assert_eq!(["10.21.0.11", "10.21.0.12"].map(|address| lab.guest(address).0), ["db", "web"]);
}

#[test]
fn a_bridge_is_renamed_under_its_guests() {
    let Some(lab) = Lab::with_guests("rename") else { return };
    let servers = [server("web", ""), server("db", "fixed_ip = \"10.20.0.50\"")].concat();
    lab.spec(&[base(), servers.clone()].concat());
    lab.apply();
    let boots = [WEB, "10.20.0.50"].map(|address| lab.boot_of(address));
    lab.spec(&[base().replace("[network.private]", "[network.private]\nbridge = \"br-lab\""), servers].concat());
    let ping = lab.ping(WEB);
    let run = lab.assert_repaired(
        "rename",
        &[
            "host.local ~ firewall # live",
            "network.private -/+ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ domain # live",
            "server.web ~ domain # live",
        ],
        &[
            "host.local firewall Modifying",
            "network.private bridge Replacing",
            "network.private bridge Replacing",
            "network.private dhcp Modifying",
            "server.db domain Modifying",
            "server.web domain Modifying",
        ],
    );
    let (sent, lost) = ping.stop();
    note(format_args!("{:?}, {lost} of {sent} packets lost", run.took));
    assert_eq!([WEB, "10.20.0.50"].map(|address| lab.boot_of(address)), boots);
    assert_eq!(lab.sh("ls /sys/class/net/br-lab/brif | wc -l"), "2");
    assert_eq!(lab.sh("ls /sys/class/net | grep -c '^br'"), "2", "the old bridge is gone");
}

/// The number of boots that a guest tells with its disk.
fn boots(line: &str) -> u32 {
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number of boots")
}
