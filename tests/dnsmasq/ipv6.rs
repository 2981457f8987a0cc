//! IPv6: router advertisements to the kernel, and DHCPv6 to a real client.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use novella::blueprint::dhcp::{Assignment, DhcpOption, IpVersion, OptionValue};
use novella::blueprint::object::{Dhcp, DhcpRange, HostEntry, PortAddress};

use crate::lab::{BRIDGE, Client, Lab, entry, ip, lab, range, skip};

const MACS: [&str; 3] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03"];

/// A network with an IPv4 subnet, and one of IPv6 whose router is the host.
fn network(lab: &Lab, assignment: Assignment) -> Dhcp {
    let mut dhcp = lab.dhcp();
    dhcp.ranges.truncate(1);
    let router = Some("fd00:9::1".parse().expect("address"));
    dhcp.ranges.push(DhcpRange { assignment, ..range("six", "fd00:9::/64", router) });
    dhcp
}

/// A port with an address of both versions.
fn both(server: &str, mac: &str, v4: [u8; 4], v6: &str, assignment: Assignment) -> HostEntry {
    let mut entry = entry(server, mac, v4);
    let address = v6.parse().expect("address");
    entry.addresses.push(PortAddress { address, assignment, domain: "lab.example".into() });
    entry
}

/// Runs a test with a DHCPv6 client, on a bridge with the MTU that is told.
fn lab6(test: impl FnOnce(&Lab) + Send + 'static) {
    if !Path::new("/usr/sbin/dhcpcd").exists() {
        return skip("there is no /usr/sbin/dhcpcd");
    }
    lab(|lab| {
        ip(&format!("link set {BRIDGE} mtu 1400"));
        test(lab);
    });
}

/// What the kernel of a guest has within some seconds, by advertisements alone.
fn kernel(client: &Client, what: &str, has: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        let said = client.run(&format!("/usr/sbin/ip -6 {what}"));
        if said.contains(has) || Instant::now() > deadline {
            return said;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn guests_make_their_own_addresses_of_what_is_announced() {
    lab6(|lab| {
        for assignment in [Assignment::Slaac, Assignment::Stateless] {
            let mut dhcp = network(lab, assignment);
            lab.serve(&dhcp);
            let own = "fd00:9::f816:3eff:fe00:1";
            let web = both("web", MACS[0], [10, 9, 0, 11], own, assignment);
            lab.put(&web);
            lab.assert_settled_as(&dhcp, &[&web]);
            let guest = lab.client(MACS[0]);
            let addresses = kernel(&guest, "addr show dev eth0 scope global", own);
            assert!(addresses.contains(&format!("{own}/64")), "{addresses}");
            let routes = kernel(&guest, "route show default", "via");
            assert!(routes.contains("via fe80::f816:3eff:feff:1"), "{routes}");
            let mtu = || guest.within(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/mtu").expect("mtu"));
            assert_eq!(mtu().trim(), "1400");
            assert_eq!(lab.lookup("AAAA", "web.lab.example"), [format!("AAAA {own}")]);
            guest.unplug();

            // A client that heeds all of it.
            let guest = lab.client(MACS[1]);
            let told = guest.dhcp6("");
            assert_eq!(told["nd1_mtu"], "1400");
            assert_eq!(told["nd1_prefix_information1_prefix"], "fd00:9::");
            assert_eq!(told["nd1_lifetime"], "1800");
            assert!(told["nd1_rdnss1_servers"].starts_with("fe80::f816:3eff:feff:1"), "{told:?}");
            assert_eq!(told.get("nd1_dnssl1_search").map(String::as_str), Some("lab.example"));
            let flags = told.get("nd1_flags").map_or("", String::as_str);
            assert_eq!(flags, if assignment == Assignment::Stateless { "O" } else { "" });
            assert!(!told.contains_key("new_dhcp6_ia_na1_ia_addr1"), "no address from DHCPv6");
            guest.unplug();

            // Other servers and another domain, by a signal; and no router, which takes a restart.
            let pid = lab.pid();
            dhcp.ranges[1].dns = vec!["fd00:9::53".parse().expect("address")];
            lab.serve(&dhcp);
            assert_eq!(lab.pid(), pid);
            let guest = lab.client(MACS[1]);
            assert_eq!(guest.dhcp6("")["nd1_rdnss1_servers"], "fd00:9::53");
            guest.unplug();
            dhcp.ranges[1].router = None;
            dhcp.ranges[1].domain = Some("six.example".into());
            lab.serve(&dhcp);
            lab.assert_settled_as(&dhcp, &[&web]);
            let guest = lab.client(MACS[0]);
            let addresses = kernel(&guest, "addr show dev eth0 scope global", own);
            assert!(addresses.contains(&format!("{own}/64")), "{addresses}");
            assert_eq!(guest.run("/usr/sbin/ip -6 route show default"), "");
            let told = guest.dhcp6("");
            assert_eq!((told["nd1_lifetime"].as_str(), told["nd1_dnssl1_search"].as_str()), ("0", "six.example"));
            guest.unplug();
        }
    });
}

#[test]
fn stateless_guests_are_told_the_rest_by_dhcpv6() {
    lab6(|lab| {
        let mut dhcp = network(lab, Assignment::Stateless);
        dhcp.ranges[1].dns = vec!["fd00:9::53".parse().expect("address"), "fd00:9::54".parse().expect("address")];
        lab.serve(&dhcp);
        let web = both("web", MACS[0], [10, 9, 0, 11], "fd00:9::f816:3eff:fe00:1", Assignment::Stateless);
        lab.put(&web);
        let told = lab.client(MACS[0]).dhcp6_to_the_end();
        assert_eq!(told["new_dhcp6_name_servers"], "fd00:9::53 fd00:9::54", "{told:?}");
        assert_eq!(told["new_dhcp6_domain_search"], "lab.example");
        assert!(!told.contains_key("new_dhcp6_ia_na1_ia_addr1"));
        let told = lab.client(MACS[1]).dhcp6_to_the_end();
        assert!(!told.contains_key("new_dhcp6_name_servers"), "a stranger is told nothing");
        assert_eq!(lab.client(MACS[1]).dhcp(2, ""), None);
        assert_eq!(lab.leases(), []);
    });
}

fn address(client: &Client) -> Option<String> {
    client.dhcp6("duid ll").remove("new_dhcp6_ia_na1_ia_addr1")
}

#[test]
fn dhcpv6_gives_a_port_its_address_and_its_options() {
    lab6(|lab| {
        let mut dhcp = network(lab, Assignment::Dhcp);
        lab.serve(&dhcp);
        let option = |name: &str, value| DhcpOption { version: IpVersion::V6, name: name.into(), value };
        let mut web = both("web", MACS[0], [10, 9, 0, 11], "fd00:9::11", Assignment::Dhcp);
        web.options = vec![
            option("bootfile-url", OptionValue::Text("http://[fd00:9::1]/a, b".into())),
            option("31", OptionValue::Addresses(vec!["fd00:9::31".parse().expect("address")])),
        ];
        let db = both("db", MACS[1], [10, 9, 0, 12], "fd00:9::12", Assignment::Dhcp);
        lab.put(&web);
        lab.put(&db);
        lab.assert_settled_as(&dhcp, &[&web, &db]);

        let (guest, other, stranger) = (lab.client(MACS[0]), lab.client(MACS[1]), lab.client(MACS[2]));
        let more = "duid ll\noption dhcp6_bootfile_url\noption dhcp6_sntp_servers";
        let told = guest.dhcp6(more);
        let get = |name: &str| told.get(name).map(String::as_str);
        assert_eq!(get("new_dhcp6_ia_na1_ia_addr1"), Some("fd00:9::11"), "{told:?}");
        assert_eq!(get("new_dhcp6_bootfile_url"), Some("http://[fd00:9::1]/a, b"));
        assert_eq!(get("new_dhcp6_sntp_servers"), Some("fd00:9::31"));
        assert_eq!(get("new_dhcp6_name_servers"), Some("fd00:9::1"));
        assert_eq!(get("new_dhcp6_domain_search"), Some("lab.example"));
        assert_eq!((get("nd1_mtu"), get("nd1_lifetime")), (Some("1400"), Some("1800")));
        assert!(get("nd1_flags").is_some_and(|it| it.contains('M')), "{told:?}");
        let told = other.dhcp6(more);
        assert_eq!(told["new_dhcp6_ia_na1_ia_addr1"], "fd00:9::12");
        assert!(!told.contains_key("new_dhcp6_bootfile_url") && !told.contains_key("new_dhcp6_sntp_servers"));
        assert_eq!(address(&stranger), None, "a stranger gets nothing");
        // IPv4 goes its own way.
        assert_eq!(guest.address().as_deref(), Some("10.9.0.11"));
        let lease = |mac: &str, address: &str| (Some(mac.to_owned()), address.to_owned());
        let leases = [lease(MACS[0], "10.9.0.11"), lease(MACS[0], "fd00:9::11"), lease(MACS[1], "fd00:9::12")];
        assert_eq!(lab.leases(), leases);

        // Name servers by a signal, the router by a restart; leases stay.
        let pid = lab.pid();
        dhcp.ranges[1].dns = vec!["fd00:9::53".parse().expect("address")];
        lab.serve(&dhcp);
        web.options.clear();
        lab.put(&web);
        assert_eq!(lab.pid(), pid);
        let told = guest.dhcp6(more);
        assert_eq!(told["new_dhcp6_name_servers"], "fd00:9::53");
        assert!(!told.contains_key("new_dhcp6_bootfile_url"));
        dhcp.ranges[1].router = None;
        lab.serve(&dhcp);
        assert_ne!(lab.pid(), pid);
        let told = guest.dhcp6(more);
        assert_eq!((told["new_dhcp6_ia_na1_ia_addr1"].as_str(), told["nd1_lifetime"].as_str()), ("fd00:9::11", "0"));
        assert_eq!(lab.leases(), leases);
        lab.assert_settled_as(&dhcp, &[&web, &db]);
        lab.assert_no_complaint();
    });
}

#[test]
fn a_recycled_ipv6_address_is_given_out_at_the_first_try() {
    lab6(|lab| {
        let dhcp = network(lab, Assignment::Dhcp);
        lab.serve(&dhcp);
        let keep = both("keep", MACS[2], [10, 9, 0, 13], "fd00:9::13", Assignment::Dhcp);
        lab.put(&keep);
        let kept = lab.client(MACS[2]);
        assert_eq!((kept.address().as_deref(), address(&kept).as_deref()), (Some("10.9.0.13"), Some("fd00:9::13")));
        let pid = lab.pid();
        // One is known by an identifier that is made of its MAC, the other by one that is not.
        for (n, duid) in ["duid ll", "duid 00:02:00:00:ab:11:01:02:03"].into_iter().enumerate() {
            let web = both("web", MACS[0], [10, 9, 0, 11], "fd00:9::11", Assignment::Dhcp);
            lab.replace(&["web", "db"], &[&web]);
            let old = lab.client(MACS[0]);
            let got = old.dhcp6(duid);
            assert_eq!(got.get("new_dhcp6_ia_na1_ia_addr1").map(String::as_str), Some("fd00:9::11"), "{duid}");
            assert_eq!(old.address().as_deref(), Some("10.9.0.11"));
            old.unplug();
            let begin = Instant::now();
            lab.remove("web");
            assert!(begin.elapsed() < Duration::from_millis(400), "{:?}", begin.elapsed());
            let server = ["db", "web"][n];
            let next = both(server, MACS[1], [10, 9, 0, 11], "fd00:9::11", Assignment::Dhcp);
            lab.replace(&["web"], &[&next]);
            assert_eq!(lab.leases().len(), 2, "both are given back: {:?}", lab.leases());
            let new = lab.client(MACS[1]);
            assert_eq!(address(&new).as_deref(), Some("fd00:9::11"), "{duid}");
            assert_eq!(new.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
            lab.assert_settled_as(&dhcp, &[&keep, &next]);
            new.unplug();
        }
        assert_eq!(lab.pid(), pid, "no restart");
        let of_kept = lab.leases().into_iter().filter(|it| it.0.as_deref() == Some(MACS[2])).count();
        assert_eq!(of_kept, 2, "the leases of another are kept");
    });
}
