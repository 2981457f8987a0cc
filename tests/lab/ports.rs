//! Ports with a life of their own: they go from server to server with all that they are, and their cables can be pulled.

use crate::lab::{Lab, base, note, server};
use crate::read;

const VIP: [&str; 2] = ["10.20.0.100", "fd00:20::100"];
const SPARE: [&str; 2] = ["10.20.0.101", "fd00:20::101"];
const THIRD: &str = "10.20.0.2";

/// Two ports, with addresses that their guests are given.
const PORTS: &str = r#"
[subnet.private-v6]
network = "private"
cidr = "fd00:20::/64"
ipv6_mode = "dhcpv6-stateful"

[port.vip]
network = "private"
fixed_ips = ["10.20.0.100", "fd00:20::100"]

[port.spare]
network = "private"
fixed_ips = ["10.20.0.101", "fd00:20::101"]
"#;

/// A server with ports of its own. Each has a place on the network `back`, by which it can be asked in any case.
fn with_ports(name: &str, ports: &str) -> String {
    let ports = if ports.is_empty() { String::new() } else { format!("{ports}, ") };
    format!(
        "\n[server.{name}]\nimage = \"tiny\"\nflavor = \"small\"\nports = [{ports}{{ network = \"back\" }}]\n\
         shutdown_timeout = 15\n"
    )
}

/// A lab in which ports go about, and a third guest minds its own business.
struct Bench {
    lab: Lab,
    third_boot: String,
}

impl Bench {
    fn new(name: &str, web: &str, db: &str) -> Option<Self> {
        let mut bench = Self { lab: Lab::with_guests(name)?, third_boot: String::new() };
        bench.spec(&[with_ports("web", web), with_ports("db", db)].concat());
        bench.lab.apply();
        bench.third_boot = bench.lab.boot_of(THIRD);
        Some(bench)
    }

    fn spec(&self, servers: &str) {
        self.lab.spec(&[&base(), PORTS, &server("third", "fixed_ip = \"10.20.0.2\""), servers].concat());
    }

    /// Applies an edit of which the plan says that just these guests are rebooted. The third guest does not notice.
    fn edit(&self, case: &str, servers: &str, plan: &[&str], rebooted: &[&str]) {
        self.spec(servers);
        let text = self.lab.novella(&["plan"]).success().out;
        let announced = text.lines().find_map(|line| line.strip_prefix("Will be rebooted: "));
        let announced: Vec<&str> = announced.map(|names| names.split(", ").collect()).unwrap_or_default();
        assert_eq!(announced, rebooted, "{case}: {text}");
        assert_eq!(read::changes(&text), plan, "{case}");
        let ping = self.lab.ping(THIRD);
        let run = self.lab.apply();
        self.lab.assert_settled(case);
        let (sent, lost) = ping.stop();
        note(format_args!("{case}: {:?}, {lost} of {sent} packets to the third guest lost", run.took));
        assert!(lost <= 1, "{case}: {lost} of {sent} packets to the third guest lost");
        assert_eq!(self.lab.boot_of(THIRD), self.third_boot, "{case}: the third guest was booted anew");
    }

    /// The guest at all of these addresses is this one. Gives its boot.
    fn assert_at(&self, case: &str, server: &str, addresses: &[&str]) -> String {
        let found: Vec<(String, String)> = addresses.iter().map(|address| self.lab.guest(address)).collect();
        let (name, boot) = &found[0];
        assert!(name == server && found.iter().all(|it| it == &found[0]), "{case}: {addresses:?}: {found:#?}");
        boot.clone()
    }

    /// The MAC addresses of a guest's interfaces, in its own order.
    fn interfaces(&self, address: &str) -> Vec<String> {
        let said = self.lab.page(address, "/cgi-bin/routes", 10).expect("its interfaces");
        let macs = said.lines().filter_map(|line| line.trim().strip_prefix("link/ether "));
        macs.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    }
}

#[test]
fn a_port_keeps_its_addresses_on_its_way_from_server_to_server() {
    let Some(bench) = Bench::new("ports", "\"vip\"", "\"spare\"") else { return };
    let lab = &bench.lab;
    let entry = |port: &str| lab.sh(&format!("cat /var/lib/novella/default/networks/private/hosts/port.{port}"));
    let mac = |port: &str| entry(port).split(',').next().unwrap_or_default().to_owned();
    let (vip, spare) = (mac("vip"), mac("spare"));
    let web = bench.assert_at("at first", "web", &VIP);
    let db = bench.assert_at("at first", "db", &SPARE[..1]);
    assert_eq!(bench.interfaces(VIP[0])[0], vip);

    bench.edit(
        "exchanged",
        &[with_ports("web", "\"spare\""), with_ports("db", "\"vip\"")].concat(),
        &[
            "port.spare ~ host entry spare # live",
            "port.vip ~ host entry vip # live",
            "server.db -/+ domain # reboot",
            "server.web -/+ domain # reboot",
        ],
        &["server.db", "server.web"],
    );
    let db_after = bench.assert_at("exchanged", "db", &VIP);
    let web_after = bench.assert_at("exchanged", "web", &SPARE);
    assert!(db_after != db && web_after != web);
    assert_eq!(bench.interfaces(VIP[0])[0], vip, "it takes its MAC along");
    assert_eq!(bench.interfaces(SPARE[0])[0], spare, "it takes its MAC along");
    assert_eq!(lab.resolve("", "db.novella.internal", "10.20.0.1"), VIP);
    assert_eq!(lab.resolve("", "web.novella.internal", "10.20.0.1"), SPARE);

    bench.edit(
        "given away",
        &[with_ports("web", "\"spare\", \"vip\""), with_ports("db", "")].concat(),
        &["port.vip ~ host entry vip # live", "server.db -/+ domain # reboot", "server.web ~ domain # reboot"],
        &["server.db", "server.web"],
    );
    bench.assert_at("given away", "web", &[VIP[0], VIP[1], SPARE[0], SPARE[1]]);
    assert_eq!(bench.interfaces(VIP[0])[..2], [spare.clone(), vip.clone()]);

    bench.edit(
        "in another order",
        &[with_ports("web", "\"vip\", \"spare\""), with_ports("db", "")].concat(),
        &["server.web ~ domain # reboot"],
        &["server.web"],
    );
    bench.assert_at("in another order", "web", &[VIP[0], VIP[1], SPARE[0], SPARE[1]]);
    assert_eq!(bench.interfaces(VIP[0])[..2], [vip.clone(), spare]);

    let held = entry("vip").replace("web.", "vip.");
    bench.edit(
        "without a server",
        &with_ports("db", ""),
        &[
            "port.spare ~ host entry spare # live",
            "port.vip ~ host entry vip # live",
            "server.web - host entry web/back",
            "server.web - disk",
            "server.web - domain",
        ],
        &[],
    );
    assert_eq!(entry("vip"), held, "its MAC and its addresses");
    assert_eq!(lab.resolve("", "vip.novella.internal", "10.20.0.1"), VIP);
    assert_eq!(lab.resolve("", "web.novella.internal", "10.20.0.1"), [""; 0]);

    bench.edit(
        "on a new server",
        &[with_ports("db", ""), with_ports("new", "\"vip\"")].concat(),
        &[
            "port.vip ~ host entry vip # live",
            "server.new + host entry new/back",
            "server.new + disk",
            "server.new + domain",
        ],
        &[],
    );
    bench.assert_at("on a new server", "new", &VIP);
    assert_eq!(bench.interfaces(VIP[0])[0], vip);

    std::fs::remove_dir_all(lab.state()).expect("a state");
    let plan = lab.plan();
    assert!(plan.iter().all(|change| change.ends_with("# found on the host with our mark")), "{plan:#?}");
    assert_eq!(read::steps(&lab.apply().out), [""; 0]);
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}

#[test]
fn a_cable_is_pulled_and_plugged_in_under_a_running_guest() {
    let Some(bench) = Bench::new("cable", "\"vip\"", "") else { return };
    let lab = &bench.lab;
    let boot = bench.assert_at("at first", "web", &VIP[..1]);
    let back = lab.sh("sed 's/.*,\\(10[.][0-9.]*\\),.*/\\1/' /var/lib/novella/default/networks/back/hosts/web");
    let tap = lab.sh("mac=$(cut -d, -f1 /var/lib/novella/default/networks/private/hosts/port.vip)
         virsh -q domiflist default.web | awk -v mac=$mac '$5 == mac { print $1 }'");
    let carrier = |up: bool| {
        let word = if up { "<BROADCAST,MULTICAST,UP,LOWER_UP>" } else { "<NO-CARRIER,BROADCAST,MULTICAST,UP>" };
        lab.until(&format!("the guest sees its cable {}", if up { "plugged in" } else { "pulled" }), || {
            let said = lab.page(&back, "/cgi-bin/routes", 10)?;
            said.lines().any(|line| line.contains(": eth0: ") && line.contains(word)).then_some(())
        });
    };
    let answers = || lab.try_sh(&format!("ping -c 1 -W 1 {}", VIP[0])).status.success();
    let servers = [with_ports("web", "\"vip\""), with_ports("db", "")].concat();
    let set = |up: bool, network: &str| {
        let ports = PORTS.replace("[port.vip]", &format!("[port.vip]\nadmin_state_up = {up}"));
        let base = base().replace("[network.private]", &format!("[network.private]\n{network}"));
        lab.spec(&[&base, &ports, &server("third", "fixed_ip = \"10.20.0.2\""), &servers].map(String::as_str).concat());
    };

    // The same on a bridge that has another MTU, and another name, than when the guest was started.
    for network in ["", "mtu = 1400", "mtu = 1400\nbridge = \"br-lab\""] {
        set(true, network);
        lab.apply();
        lab.assert_settled(network);
        set(false, network);
        let ping = lab.ping(THIRD);
        lab.assert_repaired("pulled", &["server.web ~ domain # live"], &["server.web domain Modifying"]);
        carrier(false);
        assert!(!answers(), "{network}: the cable is not pulled");

        // By hand, in the definition, in the guest, and in both.
        let set_up = format!("virsh -q domif-setlink default.web {tap} up");
        for by_hand in [format!("{set_up} --config"), set_up.clone(), format!("{set_up} --config && {set_up}")] {
            lab.sh(&by_hand);
            let plan = ["server.web ~ domain # changed on the host, live"];
            lab.assert_repaired(&by_hand, &plan, &["server.web domain Modifying"]);
            carrier(false);
        }

        set(true, network);
        lab.assert_repaired("plugged in", &["server.web ~ domain # live"], &["server.web domain Modifying"]);
        carrier(true);
        lab.until("it answers again", || answers().then_some(()));
        assert_eq!(bench.assert_at("plugged in", "web", &VIP), boot, "{network}: it was booted anew");
        let (sent, lost) = ping.stop();
        note(format_args!("{network}: {lost} of {sent} packets to the third guest lost"));
        assert!(lost <= 1, "{network}: {lost} of {sent} packets to the third guest lost");
    }
    assert_eq!(lab.boot_of(THIRD), bench.third_boot);

    // Pulled while it is off, it is pulled when it starts.
    lab.sh("virsh -q destroy default.web");
    set(false, "mtu = 1400");
    lab.apply();
    lab.assert_settled("started without a cable");
    carrier(false);
    assert!(!answers());
}
