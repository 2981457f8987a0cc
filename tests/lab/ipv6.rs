//! IPv4 and IPv6 side by side: what the plan names is what guests have, are told, and are known by.

use std::net::IpAddr;

use crate::lab::{Lab, answers, base, note};
use crate::read;

/// Beside the IPv4 of the base: addresses that guests make themselves, addresses that they are given, routes, and a name.
const MORE: &str = r#"
[subnet.private-v6]
network = "private"
cidr = "fd00:20::/64"

[subnet.back-v6]
network = "back"
cidr = "fd00:30::/64"
ipv6_mode = "dhcpv6-stateful"

[dns_record.www]
network = "private"
type = "CNAME"
records = ["web"]

[server.web]
image = "tiny"
flavor = "small"
networks = ["private", "back"]
shutdown_timeout = 10

[server.db]
image = "tiny"
flavor = "small"
ports = [{ network = "private", fixed_ips = ["10.20.0.50"], dns_name = "data" }]
shutdown_timeout = 10
"#;

const ROUTES: &str = r#"cidr = "10.20.0.0/24"
host_routes = [
    { destination = "10.99.0.0/16", nexthop = "10.20.0.9" },
    { destination = "192.0.2.0/24", nexthop = "10.20.0.50" },
]"#;

#[test]
fn a_guest_on_two_networks_has_all_addresses_that_the_plan_named() {
    let Some(lab) = Lab::with_guests("ipv6") else { return };
    lab.spec(&[base().replace("cidr = \"10.20.0.0/24\"", ROUTES), MORE.into()].concat());
    let plan = lab.novella(&["plan"]).success().out;
    let addresses = |entry: &str| -> Vec<String> {
        let named = read::planned(&plan, entry, "address");
        named.split(", ").map(str::to_owned).collect()
    };
    let (private, back) =
        (addresses("server.web + host entry web/private"), addresses("server.web + host entry web/back"));
    let db = addresses("server.db + host entry db/private");
    assert_eq!(private[0], "10.20.0.2");
    assert!(private[1].starts_with("fd00:20::") && private.len() == 2, "{private:?}");
    assert_eq!(back, ["10.30.0.2", "fd00:30::2"]);
    let hosts = read::planned(&plan, "network.private + bridge", "addresses");
    let host_v6 = hosts.split(", ").find_map(|it| it.strip_suffix("/64")).expect("the host's address").to_owned();
    note(format_args!("apply took {:?}", lab.apply().took));

    // They are on its interfaces, as it says itself.
    for (interface, address, prefix) in
        [("eth0", &private[0], 24), ("eth0", &private[1], 64), ("eth1", &back[0], 24), ("eth1", &back[1], 128)]
    {
        let inet6 = if address.contains(':') { "inet6 " } else { "" };
        lab.said("web", &format!("{interface} {inet6}{address}/{prefix}"));
    }
    lab.said("db", &format!("eth0 inet6 {}/64", db[1]));

    // It answers at each of them, and so do the routes and names that it was told of.
    let boots: Vec<_> = private.iter().chain(&back).map(|address| lab.guest(address)).collect();
    assert!(boots.iter().all(|it| *it == boots[0]) && boots[0].0 == "web", "{boots:?}");
    let routes = lab.page(&private[0], "/cgi-bin/routes", 10).expect("its routes");
    for route in [
        "default via 10.20.0.1 dev eth0",
        "10.99.0.0/16 via 10.20.0.9 dev eth0",
        "192.0.2.0/24 via 10.20.0.50 dev eth0",
        "default via fe80::",
    ] {
        assert!(routes.contains(route), "{route}: {routes}");
    }
    let defaults: Vec<&str> = routes.lines().filter(|line| line.starts_with("default")).collect();
    assert!(
        defaults.iter().all(|route| route.contains("dev eth0")),
        "the isolated network has no way out: {defaults:?}"
    );

    let told = |name: &str| {
        let said = lab.page(&db[0], &format!("/cgi-bin/resolve?{name}"), 20).expect("an answer");
        (answers(&said), said)
    };
    for name in ["web.novella.internal", "www.novella.internal", "web"] {
        let (values, said) = told(name);
        assert!(private.iter().all(|address| values.contains(address)), "{name}: {said}");
    }
    for address in &private {
        assert_eq!(told(address).0, ["web.novella.internal"], "{address}");
    }

    // The host hears the same from each of the server's addresses.
    for server in ["10.20.0.1", &host_v6] {
        for (name, addresses) in [("web.novella.internal", &private), ("data.novella.internal", &db)] {
            for (kind, address) in [("a", &addresses[0]), ("aaaa", &addresses[1])] {
                assert_eq!(lab.resolve(kind, name, server), [address.as_str()], "{kind} {name} at {server}");
            }
            for address in addresses {
                assert_eq!(lab.resolve("", address, server), [name], "{address} at {server}");
            }
        }
        assert_eq!(lab.resolve("cname", "www.novella.internal", server), ["web.novella.internal"]);
    }
    assert_eq!(lab.resolve("", "web.novella.internal", "10.30.0.1"), back);

    // From guest to guest over IPv6 on the bridge, which the host only carries.
    let from_db = lab.sh(&format!("ping -6 -c 2 -i 0.2 -W 2 {}", db[1].parse::<IpAddr>().expect("an address")));
    assert!(from_db.contains(" 0% packet loss"), "{from_db}");
    lab.assert_settled("when all is told");
    assert_eq!(lab.guest(&private[0]), boots[0]);

    // Found again by its mark alone, with the same addresses.
    std::fs::remove_dir_all(lab.state()).expect("a state");
    let plan = lab.plan();
    assert!(plan.iter().all(|change| change.ends_with("# found on the host with our mark")), "{plan:#?}");
    assert_eq!(read::steps(&lab.apply().out), [""; 0]);
    lab.destroy();
    assert_eq!(lab.left(), [""; 0]);
}
