//! Whatever is changed on the host by hand is found, named, and mended, and nothing else is touched.

use std::time::{Duration, Instant};

use crate::lab::{Lab, base, note, server};
use crate::read;

pub(crate) const WEB: &str = "10.20.0.2";
pub(crate) const DB: &str = "10.20.0.50";

/// What the guest `web`, which is nobody's target, notices.
#[derive(Clone, Copy, PartialEq)]
enum Web {
    /// Nothing.
    Unharmed,
    /// Its network is cut from the damage to the repair.
    Cut,
}
use Web::{Cut, Unharmed};

/// What becomes of the guest `db`.
#[derive(Clone, Copy, PartialEq)]
enum Db {
    GoesOn,
    IsStarted,
}
use Db::{GoesOn, IsStarted};

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What is done by hand, in shell. `$bridge` is the bridge of both guests, `$tap` the tap of `db`, `$data` the
    /// directory of the project.
    pub(crate) damage: &'static str,
    plan: &'static [&'static str],
    steps: &'static [&'static str],
    web: Web,
    db: Db,
}

pub(crate) static CASES: [Case; 20] = [
    Case {
        name: "the bridge is gone",
        damage: "ip link del $bridge",
        plan: &[
            "network.private + bridge # vanished from the host",
            "network.private ~ dhcp # changed on the host, live",
            "server.db ~ domain # changed on the host, live",
            "server.web ~ domain # changed on the host, live",
        ],
        steps: &[
            "network.private bridge Creating",
            "network.private dhcp Modifying",
            "server.db domain Modifying",
            "server.web domain Modifying",
        ],
        web: Cut,
        db: GoesOn,
    },
    Case {
        name: "the bridge has another MTU",
        damage: "ip link set $bridge mtu 1400",
        plan: &["network.private ~ bridge # changed on the host, live"],
        steps: &["network.private bridge Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "the bridge has another address",
        damage: "ip addr del 10.20.0.1/24 dev $bridge; ip addr add 10.99.0.1/24 dev $bridge",
        plan: &["network.private ~ bridge # changed on the host, live"],
        steps: &["network.private bridge Modifying"],
        web: Cut,
        db: GoesOn,
    },
    Case {
        name: "the bridge is down",
        damage: "ip link set $bridge down",
        plan: &["network.private ~ bridge # changed on the host, live"],
        steps: &["network.private bridge Modifying"],
        web: Cut,
        db: GoesOn,
    },
    Case {
        name: "a tap is unplugged",
        damage: "ip link set $tap nomaster",
        plan: &["server.db ~ domain # changed on the host, live"],
        steps: &["server.db domain Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "dnsmasq is killed",
        damage: "kill -9 $(cat $data/networks/private/pid)",
        plan: &["network.private ~ dhcp # changed on the host, live"],
        steps: &["network.private dhcp Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a host entry is gone",
        damage: "rm $data/networks/private/hosts/db",
        plan: &["server.db + host entry db/private # vanished from the host"],
        steps: &["server.db host entry db/private Creating"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a host entry has another address",
        damage: "sed -i s/10.20.0.50/10.20.0.99/ $data/networks/private/hosts/db",
        plan: &["server.db ~ host entry db/private # changed on the host, live"],
        steps: &["server.db host entry db/private Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a name has another address",
        damage: "sed -i s/10.20.0.50/10.20.0.99/ $data/networks/private/names/db",
        plan: &["server.db ~ host entry db/private # changed on the host, live"],
        steps: &["server.db host entry db/private Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a name is gone",
        damage: "rm $data/networks/private/names/db",
        plan: &["server.db ~ host entry db/private # changed on the host, live"],
        steps: &["server.db host entry db/private Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "the nft table is gone",
        damage: "nft delete table inet novella-default",
        plan: &["host.local + firewall # vanished from the host"],
        steps: &["host.local firewall Creating"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a rule is gone",
        damage: "nft delete rule inet novella-default forward handle \
                 $(nft -a list chain inet novella-default forward | sed -n 's/.* handle //p' | tail -n 1)",
        plan: &["host.local ~ firewall # changed on the host, live"],
        steps: &["host.local firewall Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "forwarding is off",
        damage: "echo 0 >/proc/sys/net/ipv4/ip_forward",
        plan: &["host.local ~ firewall # changed on the host, live"],
        steps: &["host.local firewall Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a base is gone, under guests that run",
        damage: "rm $data/base/*.qcow2",
        plan: &["image.tiny + base image (qcow2) # vanished from the host"],
        steps: &["image.tiny base image (qcow2) Creating"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a kernel is cut short",
        damage: "truncate -s 1000 $data/base/*.kernel",
        plan: &["image.tiny ~ base image (kernel) # changed on the host, live"],
        steps: &["image.tiny base image (kernel) Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a disk is gone, under a guest that runs",
        damage: "rm $data/instances/db/disk.qcow2",
        plan: &[
            "server.db + disk # vanished from the host",
            "server.db -/+ domain # taken down while its disk is changed, replace",
        ],
        steps: &["server.db disk Creating", "server.db domain Replacing", "server.db domain Replacing"],
        web: Unharmed,
        db: IsStarted,
    },
    Case {
        name: "a domain is gone",
        damage: "virsh -q destroy default.db && virsh -q undefine default.db",
        plan: &["server.db + domain # vanished from the host"],
        steps: &["server.db domain Creating"],
        web: Unharmed,
        db: IsStarted,
    },
    Case {
        name: "a guest is switched off",
        damage: "virsh -q destroy default.db",
        plan: &["server.db ~ domain # changed on the host"],
        steps: &["server.db domain Modifying"],
        web: Unharmed,
        db: IsStarted,
    },
    Case {
        name: "a guest is paused",
        damage: "virsh -q suspend default.db",
        plan: &["server.db ~ domain # changed on the host, live"],
        steps: &["server.db domain Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
    Case {
        name: "a domain is undefined while its guest runs",
        damage: "virsh -q undefine default.db",
        plan: &["server.db ~ domain # changed on the host, live"],
        steps: &["server.db domain Modifying"],
        web: Unharmed,
        db: GoesOn,
    },
];

/// What the shell of the damages is to know.
pub(crate) struct Devices {
    bridge: String,
    tap: String,
}

impl Devices {
    /// From a plan that makes them.
    pub(crate) fn of(plan: &str) -> Self {
        let bridge = read::planned(plan, "network.private + bridge", "device");
        let nic = read::planned(plan, "server.db + domain", "nic.private");
        Self { bridge, tap: nic.split(' ').nth(1).expect("a tap").to_owned() }
    }

    /// A damage as a whole script.
    pub(crate) fn damage(&self, damage: &str) -> String {
        format!("bridge={} tap={} data=/var/lib/novella/default; {damage}", self.bridge, self.tap)
    }
}

#[test]
fn what_is_changed_by_hand_is_mended_alone() {
    let Some(lab) = Lab::with_guests("drift") else { return };
    lab.spec(&[base(), server("web", ""), server("db", "fixed_ip = \"10.20.0.50\"\nshutdown_timeout = 10")].concat());
    let plan = lab.novella(&["plan"]).success().out;
    assert_eq!(read::planned(&plan, "server.web + host entry", "address"), WEB);
    let devices = Devices::of(&plan);
    lab.apply();
    let web = lab.boot_of(WEB);
    let mut db = lab.boot_of(DB);
    let before = lab.inventory();

    for Case { name, damage, plan, steps, web: web_is, db: db_is } in &CASES {
        let ping = lab.ping(WEB);
        let damaged = Instant::now();
        lab.sh(&devices.damage(damage));
        lab.assert_repaired(name, plan, steps);
        let cut = damaged.elapsed();
        let (sent, lost) = ping.stop();
        note(format_args!("{name}: mended {cut:?} after, {lost} of {sent} packets lost"));
        // One may be on its way when ping stops.
        let most = if *web_is == Cut { 2 + cut.as_millis() / Duration::from_millis(100).as_millis() } else { 1 };
        assert!(u128::from(lost) <= most, "{name}: {lost} of {sent} packets lost in {cut:?}");

        assert_eq!(lab.boot_of(WEB), web, "{name}: web was booted anew");
        let now = lab.boot_of(DB);
        assert_eq!(now != db, *db_is == IsStarted, "{name}: whether db was booted anew");
        db = now;
        assert_eq!(lab.inventory(), before, "{name}: what there is");
    }
    lab.sh("test $(virsh -q list --all --persistent --state-running --name | grep -c .) = 2");
}

#[test]
fn a_host_that_was_started_anew_and_a_state_that_was_lost_are_made_good() {
    let Some(lab) = Lab::with_guests("reboot") else { return };
    lab.spec(&[base(), server("web", ""), server("db", "shutdown_timeout = 10")].concat());
    lab.apply();
    let addresses = ["10.20.0.3", "10.20.0.2"];
    let boots = addresses.map(|address| lab.boot_of(address));
    let before = lab.inventory();

    std::fs::remove_dir_all(lab.state()).expect("a state");
    let plan = lab.plan();
    let found = |change: &String| change.contains(" = ") && change.ends_with("# found on the host with our mark");
    assert!(plan.len() == 14 && plan.iter().all(found), "{plan:#?}");
    assert_eq!(read::steps(&lab.apply().out), [""; 0]);
    lab.assert_settled("the state is lost");
    assert_eq!(addresses.map(|address| lab.boot_of(address)), boots);
    assert_eq!(lab.inventory(), before);

    lab.sh("pkill -9 -x qemu-system-x86; pkill -9 -x dnsmasq; nft flush ruleset; echo 0 >/proc/sys/net/ipv4/ip_forward
         for link in /sys/class/net/brq*; do ip link del ${link##*/}; done; sleep 0.5");
    let plan = [
        "host.local + firewall # vanished from the host",
        "network.back + bridge # vanished from the host",
        "network.back ~ dhcp # changed on the host, live",
        "network.private + bridge # vanished from the host",
        "network.private ~ dhcp # changed on the host, live",
        "server.db ~ domain # changed on the host",
        "server.web ~ domain # changed on the host",
    ];
    let steps = [
        "host.local firewall Creating",
        "network.back bridge Creating",
        "network.back dhcp Modifying",
        "network.private bridge Creating",
        "network.private dhcp Modifying",
        "server.db domain Modifying",
        "server.web domain Modifying",
    ];
    lab.assert_repaired("the host was started anew", &plan, &steps);
    for (address, boot) in addresses.iter().zip(&boots) {
        lab.boot_after(boot, address);
    }
    assert_eq!(lab.inventory(), before);
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn drift_is_told_apart_from_edits() {
    let Some(lab) = Lab::with_guests("drift-verb") else { return };
    let spec = [base(), server("web", ""), server("db", "")].concat();
    lab.spec(&spec);
    let bridge = read::planned(&lab.novella(&["plan"]).success().out, "network.private + bridge", "device");
    lab.apply();
    lab.boot_of("10.20.0.3");
    let drift = || lab.novella(&["drift"]);
    assert_eq!(drift().success().out, "No drift. The host is as it was made.\n");

    // Edits of all kinds that were not applied yet.
    let edited = spec.replace("[network.private]", "[network.private]\nmtu = 1400").replace("96 MiB", "128 MiB");
    lab.spec(&[edited.replace("[server.db]", "[server.sql]"), server("more", "")].concat());
    assert!(lab.plan().len() > 10);
    drift().success();

    lab.sh(&format!("ip link del {bridge}; virsh -q destroy default.db"));
    let said = drift();
    assert_eq!(said.code(), Some(2), "{said:#?}");
    let expected = [
        "network.private - bridge # gone from the host",
        "network.private ~ dhcp",
        "server.db ~ domain",
        "server.web ~ domain",
    ];
    assert_eq!(read::changes(&said.out), expected, "{}", said.out);
    assert_eq!(read::attributes(&said.out, "server.db ~ domain"), ["~ power = on -> off"]);
    let unplugged = format!("~ nic.private.bridge = {bridge} -> none");
    assert_eq!(read::attributes(&said.out, "server.web ~ domain"), [unplugged]);

    lab.spec(&spec);
    lab.apply();
    lab.spec(&edited);
    drift().success();
}

/// From a state that was lost to one that plans nothing.
#[test]
fn a_lost_state_is_rebuilt_and_nothing_is_touched() {
    let Some(lab) = Lab::without_guests("rebuild") else { return };
    lab.spec(&[base(), server("web", "power = \"off\""), server("db", "power = \"off\"")].concat());
    lab.apply();
    let (before, listed) = (lab.inventory(), lab.novella(&["state", "list"]).success().out);
    std::fs::remove_dir_all(lab.state()).expect("a state");
    lab.spec(&[base(), server("web", "power = \"off\"")].concat());
    let said = lab.novella(&["state", "rebuild"]).success().out;
    assert!(said.contains("Left alone: host entry db/private, disk db, domain db."), "{said}");
    lab.assert_settled("the state is rebuilt");
    lab.spec(&[base(), server("web", "power = \"off\""), server("db", "power = \"off\"")].concat());
    lab.novella(&["state", "rebuild"]).success();
    lab.assert_settled("all of it");
    assert_eq!(lab.novella(&["state", "list"]).success().out, listed);
    assert_eq!(lab.inventory(), before);

    // A server that is renamed by way of the records keeps nothing, so it is not; an image is, and nothing is made anew.
    assert_eq!(lab.novella(&["state", "mv", "server.web", "server.www"]).code(), Some(1));
    lab.novella(&["state", "mv", "image.tiny", "image.small"]).success();
    let spec = [base(), server("web", "power = \"off\""), server("db", "power = \"off\"")].concat();
    let spec = spec.replace("image.tiny", "image.small").replace("\"tiny\"", "\"small\"");
    lab.spec(&spec);
    lab.assert_settled("the image has another name");
    assert_eq!(lab.inventory(), before);

    // What is forgotten stays with all that it stands on, and is taken over again.
    let forgotten = "[[removed]]\nfrom = \"server.web\"\n[[removed]]\nfrom = \"server.db\"\n";
    lab.spec(&[&spec[..spec.find("[image.small]").expect("an image")], forgotten].concat());
    let said = lab.apply().out;
    assert!(said.contains("# server.web will be forgotten, and stays as it is"), "{said}");
    assert_eq!(lab.inventory(), before);
    lab.assert_settled("they are forgotten");
    lab.spec(&spec);
    lab.apply();
    lab.assert_settled("they are taken over");
    assert_eq!(lab.inventory(), before);
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}
