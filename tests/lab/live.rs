//! Edits of a network under guests that run: the plan calls them live, and the guests do not notice.

use std::time::Instant;

use crate::lab::{Lab, base, note, server};
use crate::read;

/// What no edit here names, and each is checked on. It has no fixed address.
const WEB: &str = "10.20.0.3";
const DB: &str = "10.20.0.2";

/// A lab with two guests, and the spec as it is now.
struct Bench {
    lab: Lab,
    spec: String,
    boots: [String; 2],
}

impl Bench {
    fn new() -> Option<Self> {
        let lab = Lab::with_guests("live")?;
        let spec = [&base(), "# more\n", &server("web", ""), &server("db", "")].concat();
        lab.spec(&spec);
        lab.apply();
        let boots = [WEB, DB].map(|address| lab.boot_of(address));
        Some(Self { lab, spec, boots })
    }

    /// Puts one text in the place of another in the spec, and applies that. All of the plan is live; at most so many packets
    /// to a guest are lost, and both guests run on. Gives the plan.
    fn edit(&mut self, case: &str, (from, to): (&str, &str), plan: &[&str], loss: u32) -> String {
        assert_eq!(self.spec.matches(from).count(), 1, "{case}: {from}\n{}", self.spec);
        self.spec = self.spec.replace(from, to);
        self.lab.spec(&self.spec);
        let text = self.lab.novella(&["plan"]).success().out;
        assert!(!text.contains("Will be"), "{case}: {text}");
        let changes = read::changes(&text);
        assert_eq!(changes, plan, "{case}: {text}");
        assert!(changes.iter().all(|change| change.ends_with("# live")), "{case}: {changes:#?}");
        let ping = self.lab.ping(WEB);
        let run = self.lab.apply();
        self.lab.assert_settled(case);
        let (sent, lost) = ping.stop();
        note(format_args!("{case}: {:?}, {lost} of {sent} packets lost", run.took));
        assert!(lost <= loss, "{case}: {lost} of {sent} packets were lost");
        assert_eq!([WEB, DB].map(|address| self.lab.boot_of(address)), self.boots, "{case}: a guest was booted anew");
        text
    }

    /// Waits until the DNS of the network answers so.
    fn resolves(&self, case: &str, kind: &str, name: &str, values: &[&str]) {
        let router = self.lab.sh("sed -n 's/.*\"router\": \"\\(.*\\)\".*/\\1/p' \
             /var/lib/novella/default/networks/private/dhcp.json | head -n 1");
        assert_eq!(self.lab.resolve(kind, name, &router), values, "{case}: {name}");
    }
}

#[test]
fn edits_of_a_network_are_live() {
    let Some(mut bench) = Bench::new() else { return };
    const DHCP: &[&str] = &["network.private ~ dhcp # live"];
    const V4: &str = "cidr = \"10.20.0.0/24\"";
    let more = |more: &str| ["# more\n", more].concat();

    bench.edit(
        "the MTU",
        ("[network.private]", "[network.private]\nmtu = 1400"),
        &[
            "network.private ~ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ domain # live",
            "server.web ~ domain # live",
        ],
        1,
    );
    let options = format!("{V4}\ndns = [\"10.20.0.1\", \"192.0.2.53\"]");
    bench.edit("DNS servers", (V4, &options), DHCP, 1);
    let routes = format!("{V4}\nhost_routes = [{{ destination = \"10.99.0.0/16\", nexthop = \"10.20.0.9\" }}]");
    bench.edit("routes", (V4, &routes), DHCP, 1);
    bench.edit("the time of leases", (V4, &format!("{V4}\nlease_time = \"2h\"")), DHCP, 1);

    bench.edit(
        "the domain",
        ("mtu = 1400", "mtu = 1400\ndomain = \"lab.example\""),
        &[
            "network.private ~ dhcp # live",
            "server.db ~ host entry db/private # live",
            "server.web ~ host entry web/private # live",
        ],
        1,
    );
    bench.resolves("the domain", "a", "web.lab.example", &[WEB]);
    bench.resolves("the domain", "a", "web.novella.internal", &[]);

    // The guests hear of it, and give themselves the address that the plan named.
    let v6 = more("[subnet.private-v6]\nnetwork = \"private\"\ncidr = \"fd00:20::/64\"\n");
    let plan = bench.edit(
        "an IPv6 subnet more",
        ("# more\n", &v6),
        &[
            "host.local ~ firewall # live",
            "network.private ~ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ host entry db/private # live",
            "server.web ~ host entry web/private # live",
        ],
        1,
    );
    let changed = read::attributes(&plan, "server.web ~ host entry");
    let address = changed.iter().find_map(|line| line.strip_prefix(&format!("~ address = {WEB} -> {WEB}, ")));
    let address = address.and_then(|it| it.split(' ').next()).expect("an address").to_owned();
    let told = Instant::now();
    assert_eq!(bench.lab.guest(&address).1, bench.boots[0]);
    note(format_args!("the guest had {address} {:?} later", told.elapsed()));
    bench.resolves("IPv6", "aaaa", "web.lab.example", &[&address]);

    // From addresses that guests make to such that they are given, and back. They are the same.
    let entries = [
        "network.private ~ dhcp # live",
        "server.db ~ host entry db/private # live",
        "server.web ~ host entry web/private # live",
    ];
    let prefix = "cidr = \"fd00:20::/64\"";
    let stateful = format!("{prefix}\nipv6_mode = \"dhcpv6-stateful\"");
    bench.edit("IPv6 addresses that are given", (prefix, &stateful), &entries, 1);
    bench.lab.said("web", "eth0 inet6 dhcp6 host web.lab.example");
    assert_eq!(bench.lab.guest(&address).1, bench.boots[0]);
    bench.edit("IPv6 addresses that are made", (&stateful, prefix), &entries, 1);
    assert_eq!(bench.lab.guest(&address).1, bench.boots[0]);
    bench.resolves("made", "aaaa", "web.lab.example", &[&address]);

    let second = more("[subnet.more-v4]\nnetwork = \"private\"\ncidr = \"10.21.0.0/24\"\n");
    let with_subnets =
        ["host.local ~ firewall # live", "network.private ~ bridge # live", "network.private ~ dhcp # live"];
    bench.edit("an IPv4 subnet more", ("# more\n", &second), &with_subnets, 1);

    // Pools that leave out what is in use.
    let pools = format!("{V4}\npools = [\"10.20.0.100-10.20.0.199\"]");
    bench.edit("pools", (V4, &pools), &[], 1);
    let warned = bench.lab.novella(&["plan"]).success();
    let expected = format!("`{DB} of db/private`, `{WEB} of web/private` lie outside the pools, and stay in use");
    assert!([&warned.out, &warned.err].iter().any(|said| said.contains(&expected)), "{warned:#?}");

    // Records.
    let record =
        |value: &str| format!("[dns_record.api]\nnetwork = \"private\"\ntype = \"A\"\nrecords = [\"{value}\"]\n");
    bench.edit("a record more", ("# more\n", &more(&record("10.20.0.77"))), DHCP, 1);
    bench.resolves("a record more", "a", "api.lab.example", &["10.20.0.77"]);
    bench.edit("another record", (&record("10.20.0.77"), &record("10.20.0.78")), DHCP, 1);
    bench.resolves("another record", "a", "api.lab.example", &["10.20.0.78"]);
    bench.edit("a record less", (&record("10.20.0.78"), ""), DHCP, 1);
    bench.resolves("a record less", "a", "api.lab.example", &[]);

    // Options of one port.
    let (plain, web) = (server("web", ""), ["server.web ~ host entry web/private # live"]);
    let told = plain.replace(
        "networks = [\"private\"]",
        "ports = [{ network = \"private\", extra_dhcp_opts = [{ name = \"ntp-server\", value = \"10.20.0.9\" }] }]",
    );
    bench.edit("an option of one port", (&plain, &told), &web, 1);
    bench.edit("the option again", ("value = \"10.20.0.9\"", "value = \"10.20.0.8\""), &web, 1);

    bench.edit(
        "the gateway",
        (V4, &format!("{V4}\ngateway = \"10.20.0.254\"")),
        &["network.private ~ bridge # live", "network.private ~ dhcp # live"],
        1,
    );
    bench.resolves("the gateway", "a", "web.lab.example", &[WEB]);

    // The taps are without a bridge for as long as it takes to plug them into the new one.
    bench.edit(
        "the name of the bridge",
        ("mtu = 1400", "mtu = 1400\nbridge = \"br-lab\""),
        &[
            "host.local ~ firewall # live",
            "network.private -/+ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ domain # live",
            "server.web ~ domain # live",
        ],
        2,
    );
    assert_eq!(bench.lab.guest(&address).1, bench.boots[0]);
    assert_eq!(bench.lab.sh("ls /sys/class/net/br-lab/brif | wc -l"), "2");

    bench.edit("an IPv4 subnet less", (&second["# more\n".len()..], ""), &with_subnets, 1);
    bench.edit(
        "an IPv6 subnet less",
        (&v6["# more\n".len()..], ""),
        &[
            "host.local ~ firewall # live",
            "network.private ~ bridge # live",
            "network.private ~ dhcp # live",
            "server.db ~ host entry db/private # live",
            "server.web ~ host entry web/private # live",
        ],
        1,
    );

    // One that comes later is told all of it, and what its port says comes before what the network says.
    let late = server("late", "").replace(
        "networks = [\"private\"]",
        "ports = [{ network = \"private\", extra_dhcp_opts = [{ name = \"mtu\", value = \"1350\" }] }]",
    );
    bench.lab.spec(&[&*bench.spec, &late].concat());
    bench.lab.apply();
    assert_eq!(bench.lab.guest("10.20.0.100").0, "late");
    let said = bench.lab.said("late", "eth0 ");
    let told = " mtu 1350 host late via 10.20.0.254 dns 10.20.0.1 192.0.2.53 routes 10.99.0.0/16 10.20.0.9 0.0.0.0/0 10.20.0.254";
    assert!(said.ends_with(told), "{said}");
    assert_eq!([WEB, DB].map(|address| bench.lab.boot_of(address)), bench.boots);
}
