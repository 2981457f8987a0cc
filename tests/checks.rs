//! Each rule for networks, subnets, ports and records, broken alone: what it is called, and where it points.
//!
//! A row names the diagnostic, the text it points at, and what is written beside the base spec, which is valid. The rules are
//! those of reference C5 to C10, and those that IPv6, routes, options and names bring along.

#![allow(clippy::print_stdout, reason = "it says how many rows there are")]

mod common;

use common::converge;
use novella::address::PortId;
use novella::blueprint::facts::Disruption;
use novella::blueprint::identity::{Identity, MAC_GENERATION_RETRIES};
use novella::blueprint::key::bridge_key;
use novella::blueprint::object::Object;
use novella::diagnostic::{Diagnostic, Place, Severity};
use novella::host::sim::SimHost;
use novella::reconcile::{self, PlanError};
use novella::spec::{Loaded, load::load_texts};
use novella::store::memory::MemoryStore;
use novella::{desired, report};

const BASE: &str = r#"
[network.net]
[subnet.v4]
network = "net"
cidr = "10.1.0.0/24"
[subnet.slaac]
network = "net"
cidr = "fd01::/64"
[subnet.v6]
network = "net"
cidr = "fd02::/64"
ipv6_mode = "dhcpv6-stateful"
[network.other]
[subnet.other-v4]
network = "other"
cidr = "10.2.0.0/24"
[image.tiny]
source = "/tiny.raw"
format = "raw"
[flavor.small]
ram = "128 MiB"
disk = "1 GiB"
"#;

/// The head of a server, whose ports are still to be said.
const SERVER: &str = "image = \"tiny\"\nflavor = \"small\"\n";

/// The named problems of a spec, each with the text that it points at.
fn problems(loaded: &Loaded, more: &[Diagnostic]) -> Vec<(String, String)> {
    let all = loaded.diagnostics.iter().chain(more);
    let named = all.map(|problem| {
        let text =
            loaded.source.locate(&problem.place).map_or("", |span| &loaded.source.files[span.file].text[span.bytes]);
        let said = report::diagnostics::to_text(std::slice::from_ref(problem), &loaded.source);
        let code = problem.code.clone().unwrap_or_else(|| panic!("it has no name:\n{said}"));
        assert!(said.contains(&format!("[{code}]")), "{said}");
        assert!(problem.help.is_some(), "it shows no way out:\n{said}");
        assert!(problem.severity == Severity::Error, "{said}");
        (code, text.lines().next().unwrap_or("").to_owned())
    });
    named.collect()
}

/// The problems of the base with something more, which stands below it or in place of a part of it.
fn resolved(more: &str) -> Vec<(String, String)> {
    let text = match more.split_once(" => ") {
        Some((old, new)) => {
            assert!(BASE.contains(old), "{old}");
            BASE.replacen(old, new, 1)
        }
        None => format!("{BASE}{more}"),
    }
    .replace("$SERVER", SERVER);
    let loaded = load_texts([("spec.toml", text.as_str())]);
    let (_, found) = desired::resolve(&loaded.spec, &loaded.source);
    problems(&loaded, &found)
}

#[test]
fn the_base_is_valid() {
    assert_eq!(resolved(""), []);
    let server = "[server.a]\n$SERVERports = [\"vip\", { network = \"other\" }]\n[port.vip]\nnetwork = \"net\"\n";
    assert_eq!(resolved(server), []);
}

#[test]
fn each_rule_of_a_spec_has_a_name_and_a_place() {
    let rows: &[(&str, &str, &str)] = &[
        // C5: a network with ports has a subnet.
        ("network-without-subnet", "\"bare\"", "[network.bare]\n[server.a]\n$SERVERnetworks = [\"bare\"]"),
        ("network-without-subnet", "\"bare\"", "[network.bare]\n[port.a]\nnetwork = \"bare\""),
        // C6: MAC addresses.
        (
            "mac-in-use",
            "\"FA:16:3E:00:00:01\"",
            "[port.a]\nnetwork = \"net\"\nmac_address = \"fa:16:3e:00:00:01\"\n\
             [port.b]\nnetwork = \"net\"\nmac_address = \"FA:16:3E:00:00:01\"",
        ),
        ("mac-not-usable", "\"00:00:00:00:00:00\"", "[port.a]\nnetwork = \"net\"\nmac_address = \"00:00:00:00:00:00\""),
        ("mac-not-usable", "\"fe:16:3e:00:00:01\"", "[port.a]\nnetwork = \"net\"\nmac_address = \"fe:16:3e:00:00:01\""),
        // C7, the four checks of a fixed address.
        ("fixed-ip-says-nothing", "{}", "[port.a]\nnetwork = \"net\"\nfixed_ips = [{}]"),
        ("address-outside-network", "\"10.9.0.5\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"10.9.0.5\"]"),
        ("address-outside-network", "\"10.2.0.5\"", "[server.a]\n$SERVERnetworks = [\"net\"]\nfixed_ip = \"10.2.0.5\""),
        (
            "address-in-use",
            "\"10.1.0.5\"",
            "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"10.1.0.5\"]\n\
             [server.b]\n$SERVERnetworks = [\"net\"]\nfixed_ip = \"10.1.0.5\"",
        ),
        (
            "subnet-not-on-network",
            "{ subnet = \"other-v4\" }",
            "[port.a]\nnetwork = \"net\"\nfixed_ips = [{ subnet = \"other-v4\" }]",
        ),
        (
            "subnet-not-on-network",
            "{ subnet = \"nowhere\" }",
            "[port.a]\nnetwork = \"net\"\nfixed_ips = [{ subnet = \"nowhere\" }]",
        ),
        (
            "address-outside-subnet",
            "{ subnet = \"v4\", ip_address = \"fd02::5\" }",
            "[port.a]\nnetwork = \"net\"\nfixed_ips = [{ subnet = \"v4\", ip_address = \"fd02::5\" }]",
        ),
        // C7, and also.
        ("address-of-subnet", "\"10.1.0.0\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"10.1.0.0\"]"),
        ("address-of-subnet", "\"10.1.0.255\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"10.1.0.255\"]"),
        ("address-of-subnet", "\"fd02::\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"fd02::\"]"),
        ("address-of-gateway", "\"10.1.0.1\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"10.1.0.1\"]"),
        (
            "too-many-fixed-ips",
            "[{ subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }]",
            "[port.a]\nnetwork = \"net\"\nfixed_ips = [{ subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }, { subnet = \"v6\" }]",
        ),
        ("address-on-slaac-subnet", "\"fd01::5\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"fd01::5\"]"),
        ("address-twice", "\"fd02::5\"", "[port.a]\nnetwork = \"net\"\nfixed_ips = [\"fd02::5\", \"fd02::5\"]"),
        // Disks: what a guest can be told, who has them, what they begin as.
        ("disk-name-too-long", "a-name-of-21-letters1", "[volume.a-name-of-21-letters1]\nsize = \"1 GiB\""),
        (
            "disk-name-too-long",
            "{ name = \"a-name-of-21-letters1\", size = \"1 GiB\" }",
            "[server.a]\n$SERVERnetworks = [\"net\"]\ndisks = [{ name = \"a-name-of-21-letters1\", size = \"1 GiB\" }]",
        ),
        (
            "disk-name-taken",
            "{ name = \"swap\", size = \"1 GiB\" }",
            "[server.a]\n$SERVERnetworks = [\"net\"]\ndisks = [{ name = \"swap\", size = \"1 GiB\" }]",
        ),
        (
            "disk-name-taken",
            "\"x\"",
            "[volume.x]\nsize = \"1 GiB\"\n[server.a]\n$SERVERnetworks = [\"net\"]\nvolumes = [\"x\"]\n\
             disks = [{ name = \"x\", size = \"1 GiB\" }]",
        ),
        (
            "volume-in-use",
            "{ volume = \"x\" }",
            "[volume.x]\nsize = \"1 GiB\"\n[server.a]\n$SERVERnetworks = [\"net\"]\nvolumes = [\"x\"]\n\
             [server.b]\n$SERVERnetworks = [\"net\"]\nvolumes = [{ volume = \"x\" }]",
        ),
        (
            "one-server-only",
            "\"x\"",
            "[volume.x]\nsize = \"1 GiB\"\n[server.a]\n$SERVERnetworks = [\"net\"]\nvolumes = [\"x\"]\ncount = 2",
        ),
        (
            "image-without-disk",
            "\"bare\"",
            "[image.bare]\nkernel = \"/vmlinuz\"\n[volume.x]\nsize = \"1 GiB\"\nimage = \"bare\"",
        ),
        // C10: pools.
        (
            "pool-outside-subnet",
            "\"10.1.1.1-10.1.1.9\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\npools = [\"10.1.1.1-10.1.1.9\"]",
        ),
        (
            "pool-outside-subnet",
            "\"10.1.0.9-10.1.0.255\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\npools = [\"10.1.0.9-10.1.0.255\"]",
        ),
        (
            "pool-over-gateway",
            "\"10.1.0.1-10.1.0.9\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\npools = [\"10.1.0.1-10.1.0.9\"]",
        ),
        (
            "overlapping-pools",
            "\"10.1.0.9-10.1.0.20\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\npools = [\"10.1.0.5-10.1.0.9\", \"10.1.0.9-10.1.0.20\"]",
        ),
        (
            "pool-on-slaac-subnet",
            "[\"fd01::5-fd01::9\"]",
            "cidr = \"fd01::/64\" => cidr = \"fd01::/64\"\npools = [\"fd01::5-fd01::9\"]",
        ),
        // C11: what belongs to a port.
        (
            "dhcp-option",
            "\"bootfile\"",
            "[port.a]\nnetwork = \"net\"\nextra_dhcp_opts = [{ name = \"bootfile\", value = \"x\" }]",
        ),
        (
            "dhcp-option",
            "\"a\\nb\"",
            "[port.a]\nnetwork = \"net\"\nextra_dhcp_opts = [{ name = \"bootfile-name\", value = \"a\\nb\" }]",
        ),
        (
            "dhcp-option",
            "5",
            "[port.a]\nnetwork = \"net\"\nextra_dhcp_opts = [{ name = \"mtu\", value = \"1400\", ip_version = 5 }]",
        ),
        (
            "dhcp-option",
            "{ name = \"mtu\", value = \"1300\" }",
            "[port.a]\nnetwork = \"net\"\nextra_dhcp_opts = [{ name = \"mtu\", value = \"1400\" }, { name = \"mtu\", value = \"1300\" }]",
        ),
        ("not-enforced", "[\"web\"]", "[port.a]\nnetwork = \"net\"\nsecurity_groups = [\"web\"]"),
        ("not-enforced", "[]", "[port.a]\nnetwork = \"net\"\nallowed_address_pairs = []"),
        ("not-enforced", "false", "[server.a]\n$SERVERports = [{ network = \"net\", port_security_enabled = false }]"),
        // Subnets.
        ("host-bits", "\"10.1.0.5/24\"", "\"10.1.0.0/24\" => \"10.1.0.5/24\""),
        ("host-bits", "\"fd02::1/64\"", "\"fd02::/64\" => \"fd02::1/64\""),
        ("subnet-size", "\"10.1.0.0/31\"", "\"10.1.0.0/24\" => \"10.1.0.0/31\""),
        ("subnet-size", "\"fd02::/127\"", "\"fd02::/64\" => \"fd02::/127\""),
        ("overlapping-subnets", "\"10.2.0.0/25\"", "[subnet.more]\nnetwork = \"other\"\ncidr = \"10.2.0.0/25\""),
        ("overlapping-subnets", "\"fd01::/64\"", "[subnet.more]\nnetwork = \"other\"\ncidr = \"fd01::/64\""),
        (
            "gateway-outside-subnet",
            "\"10.9.0.1\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\ngateway = \"10.9.0.1\"",
        ),
        (
            "gateway-outside-subnet",
            "\"10.1.0.255\"",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\ngateway = \"10.1.0.255\"",
        ),
        (
            "gateway-outside-subnet",
            "\"10.1.0.1\"",
            "cidr = \"fd02::/64\" => cidr = \"fd02::/64\"\ngateway = \"10.1.0.1\"",
        ),
        ("ipv6-mode", "\"slaac\"", "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\nipv6_mode = \"slaac\""),
        ("ipv6-mode", "\"dhcpv6-stateful\"", "cidr = \"fd02::/64\" => cidr = \"fd02::/64\"\ndhcp = false"),
        ("ipv6-prefix", "\"fd01::/80\"", "\"fd01::/64\" => \"fd01::/80\""),
        ("ipv6-prefix", "\"fd02::/48\"", "\"fd02::/64\" => \"fd02::/48\""),
        ("ip-version", "\"9.9.9.9\"", "cidr = \"fd02::/64\" => cidr = \"fd02::/64\"\ndns = [\"9.9.9.9\"]"),
        ("mtu-too-small", "1000", "[network.net] => [network.net]\nmtu = 1000"),
        ("domain", "\"a b\"", "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\ndomain = \"a b\""),
        ("domain", "\"x\\ny\"", "[network.net] => [network.net]\ndomain = \"x\\ny\""),
        (
            "host-route",
            "{ destination = \"10.9.0.0/16\", nexthop = \"10.2.0.9\" }",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\nhost_routes = [{ destination = \"10.9.0.0/16\", nexthop = \"10.2.0.9\" }]",
        ),
        (
            "host-route",
            "{ destination = \"fd09::/64\", nexthop = \"10.1.0.9\" }",
            "cidr = \"10.1.0.0/24\" => cidr = \"10.1.0.0/24\"\nhost_routes = [{ destination = \"fd09::/64\", nexthop = \"10.1.0.9\" }]",
        ),
        (
            "host-route",
            "{ destination = \"fd09::/64\", nexthop = \"fd02::9\" }",
            "cidr = \"fd02::/64\" => cidr = \"fd02::/64\"\nhost_routes = [{ destination = \"fd09::/64\", nexthop = \"fd02::9\" }]",
        ),
        (
            "host-route",
            "{ destination = \"10.9.0.0/16\", nexthop = \"fd02::9\" }",
            "ipv6_mode = \"dhcpv6-stateful\" => dhcp = false\nhost_routes = [{ destination = \"fd09::/64\", nexthop = \"fd02::9\" }, { destination = \"10.9.0.0/16\", nexthop = \"fd02::9\" }]",
        ),
        // Ports and servers.
        (
            "port-in-use",
            "\"vip\"",
            "[port.vip]\nnetwork = \"net\"\n[server.a]\n$SERVERports = [\"vip\"]\n[server.b]\n$SERVERports = [\"vip\"]",
        ),
        (
            "one-server-only",
            "\"vip\"",
            "[port.vip]\nnetwork = \"net\"\n[server.a]\n$SERVERports = [\"vip\"]\ncount = 2",
        ),
        (
            "one-server-only",
            "\"10.1.0.5\"",
            "[server.a]\n$SERVERnetworks = [\"net\"]\ncount = 2\nfixed_ip = \"10.1.0.5\"",
        ),
        (
            "one-server-only",
            "\"fa:16:3e:00:00:01\"",
            "[server.a]\n$SERVERports = [{ network = \"net\", mac_address = \"fa:16:3e:00:00:01\" }]\ncount = 1",
        ),
        (
            "networks-and-ports",
            "[\"net\"]",
            "[server.a]\n$SERVERnetworks = [\"net\"]\nports = [{ network = \"other\" }]",
        ),
        (
            "fixed-ip-and-ports",
            "\"10.1.0.5\"",
            "[server.a]\n$SERVERports = [{ network = \"net\" }]\nfixed_ip = \"10.1.0.5\"",
        ),
        ("network-twice", "\"net\"", "[server.a]\n$SERVERnetworks = [\"net\", \"net\"]"),
        (
            "dns-name-taken",
            "\"web\"",
            "[server.web]\n$SERVERnetworks = [\"net\"]\n[server.a]\n$SERVERports = [{ network = \"net\", dns_name = \"web\" }]",
        ),
        // Records.
        (
            "dns-name-taken",
            "a",
            "[server.web]\n$SERVERnetworks = [\"net\"]\n[dns_record.a]\nnetwork = \"net\"\ntype = \"A\"\nname = \"web\"\nrecords = [\"10.1.0.9\"]",
        ),
        (
            "dns-record",
            "\"a b\"",
            "[dns_record.a]\nnetwork = \"net\"\ntype = \"A\"\nname = \"a b\"\nrecords = [\"10.1.0.9\"]",
        ),
        ("dns-record", "\"fd02::9\"", "[dns_record.a]\nnetwork = \"net\"\ntype = \"A\"\nrecords = [\"fd02::9\"]"),
        ("dns-record", "\"10.1.0.9\"", "[dns_record.a]\nnetwork = \"net\"\ntype = \"AAAA\"\nrecords = [\"10.1.0.9\"]"),
        ("dns-record", "\"0 5 db\"", "[dns_record.a]\nnetwork = \"net\"\ntype = \"SRV\"\nrecords = [\"0 5 db\"]"),
        ("dns-record", "\"a\\nb\"", "[dns_record.a]\nnetwork = \"net\"\ntype = \"TXT\"\nrecords = [\"a\\nb\"]"),
        ("dns-record", "\"nobody\"", "[dns_record.a]\nnetwork = \"net\"\ntype = \"CNAME\"\nrecords = [\"nobody\"]"),
        ("dns-record", "[]", "[dns_record.a]\nnetwork = \"net\"\ntype = \"A\"\nrecords = []"),
    ];
    for (code, place, more) in rows {
        let found = resolved(more);
        assert_eq!(found, [((*code).to_owned(), (*place).to_owned())], "{more}");
    }
    println!("measured: {} rows of broken rules", rows.len());
}

/// Reference A1.
#[test]
fn what_a_guest_is_told_is_checked() {
    let large = format!("\"{}\"", "x".repeat((64 << 10) + 1));
    let rows: &[(&str, &str, &str)] = &[
        ("user-data-twice", "\"/etc/passwd\"", "user_data = \"a\"\nuser_data_file = \"/etc/passwd\""),
        ("user-data-size", &large, &format!("user_data = {large}")),
        ("unreadable-file", "\"no/such\"", "user_data_file = \"no/such\""),
        ("unreadable-file", "\"/etc\"", "files = [{ path = \"/a\", source = \"/etc\" }]"),
        ("unreadable-file", "\"/dev/zero\"", "files = [{ path = \"/a\", source = \"/dev/zero\" }]"),
        ("metadata", "\"x\"", "metadata = { \"a\\u001b\" = \"x\" }"),
        ("metadata", "\"a\\nb\"", "metadata = { a = \"a\\nb\" }"),
        ("metadata", "\"\\ufeff\"", "metadata = { a = \"\\ufeff\" }"),
        ("injected-file", "\"etc/motd\"", "files = [{ path = \"etc/motd\", content = \"\" }]"),
        ("injected-file", "\"/etc/../motd\"", "files = [{ path = \"/etc/../motd\", content = \"\" }]"),
        ("injected-file", "\"/etc//motd\"", "files = [{ path = \"/etc//motd\", content = \"\" }]"),
        ("injected-file", "\"/\"", "files = [{ path = \"/\", content = \"\" }]"),
        ("injected-file", "\"/a\\u0000\"", "files = [{ path = \"/a\\u0000\", content = \"\" }]"),
        ("injected-file", "\"u+x\"", "files = [{ path = \"/a\", content = \"\", mode = \"u+x\" }]"),
        ("injected-file", "\"00644\"", "files = [{ path = \"/a\", content = \"\", mode = \"00644\" }]"),
        ("injected-file", "\"a b\"", "files = [{ path = \"/a\", content = \"\", owner = \"a b\" }]"),
        ("injected-file", "\"/etc/passwd\"", "files = [{ path = \"/a\", content = \"\", source = \"/etc/passwd\" }]"),
        ("injected-file", "{ path = \"/a\" }", "files = [{ path = \"/a\" }]"),
        ("injected-file", "\"/a\"", "files = [{ path = \"/a\", content = \"1\" }, { path = \"/a\", content = \"2\" }]"),
        ("public-key", "\"ssh-ed25519 AAAA\"", "[keypair.me]\npublic_key = \"ssh-ed25519 AAAA\""),
    ];
    for (code, place, more) in rows {
        let found = resolved(&format!("[server.a]\n$SERVERnetworks = [\"net\"]\n{more}"));
        assert_eq!(found, [((*code).to_owned(), (*place).to_owned())], "{more}");
    }
}

#[test]
fn machines_are_possible() {
    let flavor = |more: &str| resolved(&format!("[flavor.f]\nvcpus = 2\nram = \"128 MiB\"\ndisk = \"1 GiB\"\n{more}"));
    assert_eq!(flavor("max_vcpus = 2\nmax_ram = \"128 MiB\""), []);
    for (code, place, more) in [
        ("cpu-model", "\"EPYC\"", "cpu_mode = \"maximum\"\ncpu_model = \"EPYC\""),
        ("cpu-model", "\"<EPYC>\"", "cpu_model = \"<EPYC>\""),
        ("maximum-below-size", "1", "max_vcpus = 1"),
        ("maximum-below-size", "\"64 MiB\"", "max_ram = \"64 MiB\""),
    ] {
        assert_eq!(flavor(more), [(code.to_owned(), place.to_owned())]);
    }
    let image = "[image.i]\nsource = \"/i\"\nformat = \"raw\"\nsecure_boot = true";
    assert_eq!(resolved(image), [("secure-boot-without-uefi".to_owned(), "true".to_owned())]);
}

/// Reference A2: each quota alone, in what it counts and where it is shown.
#[test]
fn each_quota_is_kept() {
    let spec = "[keypair.me]\npublic_key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t\"\n\
                [volume.data]\nsize = \"1 GiB\"\n[port.vip]\nnetwork = \"other\"\n[server.b]\n$SERVERports = [\"vip\", { network = \"net\" }]\n\
                [server.a]\n$SERVERnetworks = [\"net\"]\ncount = 3\nmetadata = { a = \"1\", b = \"2\" }\n\
                files = [{ path = \"/a\", content = \"12345\" }, { path = \"/b\", content = \"1\" }]\n";
    // The key, what is asked for, what is a little less, the message, the sum.
    let rows = [
        (
            "instances",
            "4",
            "3",
            "the spec asks for 4 of `instances`, and there may be 3: 1 too much",
            "server.a 3 + server.b 1 = 4",
        ),
        (
            "cores",
            "4",
            "1",
            "the spec asks for 4 of `cores`, and there may be 1: 3 too much",
            "server.a 3 + server.b 1 = 4",
        ),
        (
            "ram",
            "\"512 MiB\"",
            "\"500 MiB\"",
            "the spec asks for 512 MiB of `ram`, and there may be 500 MiB: 12 MiB too much",
            "server.a 3 × 128 MiB + server.b 128 MiB = 512 MiB",
        ),
        (
            "disk",
            "\"4 GiB\"",
            "\"3 GiB\"",
            "the spec asks for 4 GiB of `disk`, and there may be 3 GiB: 1 GiB too much",
            "server.a 3 × 1 GiB + server.b 1 GiB = 4 GiB",
        ),
        (
            "networks",
            "2",
            "0",
            "the spec asks for 2 of `networks`, and there may be 0: 2 too much",
            "network.net 1 + network.other 1 = 2",
        ),
        ("subnets", "4", "3", "the spec asks for 4 of `subnets`, and there may be 3: 1 too much", "1 more 1 = 4"),
        (
            "ports",
            "5",
            "4",
            "the spec asks for 5 of `ports`, and there may be 4: 1 too much",
            "server.a 3 + port.vip 1 + server.b 1 = 5",
        ),
        (
            "key_pairs",
            "1",
            "0",
            "the spec asks for 1 of `key_pairs`, and there may be 0: 1 too much",
            "keypair.me 1 = 1",
        ),
        ("volumes", "1", "0", "the spec asks for 1 of `volumes`, and there may be 0: 1 too much", "volume.data 1 = 1"),
        ("metadata_items", "2", "1", "`server.a` asks for 2 of `metadata_items`, and there may be 1: 1 too much", ""),
        ("injected_files", "2", "1", "`server.a` asks for 2 of `injected_files`, and there may be 1: 1 too much", ""),
        (
            "injected_file_content_bytes",
            "5",
            "4",
            "`server.a` asks for 5 of `injected_file_content_bytes`, and there may be 4: 1 too much",
            "",
        ),
    ];
    let resolve = |quota: &str| {
        let text = format!("{BASE}{spec}[quota]\n{quota}\n").replace("$SERVER", SERVER);
        let loaded = load_texts([("spec.toml", text.as_str())]);
        let (_, found) = desired::resolve(&loaded.spec, &loaded.source);
        (problems(&loaded, &found), found)
    };
    for (key, asked, less, message, sum) in rows {
        for enough in [asked, "-1"] {
            assert_eq!(resolve(&format!("{key} = {enough}")).0, [], "{key} = {enough}");
        }
        let (named, found) = resolve(&format!("{key} = {less}"));
        assert_eq!(named, [("quota-exceeded".to_owned(), less.to_owned())], "{key}");
        assert_eq!(found[0].message, message);
        assert!(found[0].label.as_deref().unwrap_or_default().ends_with(sum), "{:?}", found[0].label);
        assert!(!found[0].related.is_empty(), "{key}: nothing is shown of what asks for it");
    }
    let all: Vec<String> = rows.iter().map(|(key, _, less, ..)| format!("{key} = {less}")).collect();
    assert_eq!(resolve(&all.join("\n")).0.len(), rows.len(), "one hides another");
    for wrong in ["instances = -2", "instances = \"many\"", "ram = 512", "ram = -2", "gigabytes = 5"] {
        let text = format!("[quota]\n{wrong}\n");
        let loaded = load_texts([("spec.toml", text.as_str())]);
        assert_eq!(loaded.diagnostics.len(), 1, "{wrong}");
    }
}

/// What a plan says of the spec where one has been applied before.
fn planned(before: &str, after: &str) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let text = |more: &str| format!("{BASE}{more}").replace("$SERVER", SERVER);
    if !before.is_empty() {
        converge(&text(before), &host, &store);
    }
    match reconcile::plan(&common::desired(&text(after)), store.snapshot(), &host) {
        Ok(plan) => Ok(plan.warnings),
        Err(PlanError::Spec(problems)) => Err(problems),
        Err(other) => panic!("{other}"),
    }
}

/// The one problem that a plan has, by name and words.
fn refused(before: &str, after: &str) -> (String, String) {
    let problems = planned(before, after).expect_err(after);
    let [problem] = &problems[..] else { panic!("{problems:#?}") };
    assert!(problem.help.is_some(), "it shows no way out: {problem:?}");
    (problem.code.clone().unwrap_or_default(), problem.message.clone())
}

#[test]
fn what_is_in_use_stays_with_its_holder() {
    let holder = "[server.a]\n$SERVERnetworks = [\"net\"]\n";
    let taker = format!("{holder}[server.b]\n$SERVERnetworks = [\"net\"]\nfixed_ip = \"10.1.0.2\"\n");
    assert_eq!(refused(holder, &taker), ("address-in-use".into(), "10.1.0.2 is in use by `server.a`".into()));
    // IPv6 is no different.
    let taker = taker.replace("10.1.0.2", "fd02::2");
    assert_eq!(refused(holder, &taker), ("address-in-use".into(), "fd02::2 is in use by `server.a`".into()));
    // From nothing, whoever names an address is served first (C8).
    assert_eq!(planned("", &taker), Ok(vec![]));

    let desired = common::desired(&format!("{BASE}{holder}").replace("$SERVER", SERVER));
    let identity = Identity::new(&desired.project);
    let id: PortId = "a/net".parse().expect("a port");
    let mac = Identity::mac(identity.port(&id), 0);
    let taker = format!("{holder}[port.b]\nnetwork = \"net\"\nmac_address = \"{mac}\"\n");
    assert_eq!(refused(holder, &taker), ("mac-in-use".into(), format!("{mac} is in use by `server.a`")));
    assert_eq!(planned("", &taker), Ok(vec![]), "another is drawn");

    // C6: after so many tries, it is given up.
    let all: String = (0..MAC_GENERATION_RETRIES)
        .map(|n| (n, Identity::mac(identity.port(&id), n)))
        .map(|(n, mac)| format!("[port.p{n}]\nnetwork = \"net\"\nmac_address = \"{mac}\"\n"))
        .collect();
    let (code, message) = refused("", &format!("{holder}{all}"));
    assert_eq!(code, "mac-exhausted");
    assert!(message.contains("`server.a` on `network.net` after 16 tries"), "{message}");
}

#[test]
fn an_empty_pool_says_which_how_many_and_who_holds_it() {
    let net = "[network.small]\n[subnet.small]\nnetwork = \"small\"\ncidr = \"10.3.0.0/24\"\npools = [\"10.3.0.10-10.3.0.12\"]\n";
    let servers = |count: u32| format!("{net}[server.s]\n$SERVERnetworks = [\"small\"]\ncount = {count}\n");
    assert_eq!(planned("", &servers(3)), Ok(vec![]));
    let (code, message) = refused("", &servers(5));
    assert_eq!(code, "pool-exhausted");
    assert_eq!(
        message,
        "`network.small` has no IPv4 address left for `server.s-4` and 1 more: 3 of the 3 in 10.3.0.10-10.3.0.12 are held by \
         `s-1/small`, `s-2/small`, `s-3/small`"
    );
    // Of a named subnet.
    let port = "[port.p]\nnetwork = \"small\"\nfixed_ips = [{ subnet = \"small\" }]\n";
    let (code, message) = refused("", &format!("{}{port}", servers(3)));
    assert_eq!(code, "pool-exhausted");
    assert!(
        message.starts_with("`network.small` has no IPv4 address left for `server.s-3`"),
        "ports come first: {message}"
    );
    let four = "[port.p]\nnetwork = \"small\"\nfixed_ips = [{ subnet = \"small\" }, { subnet = \"small\" }, { subnet = \"small\" }, { subnet = \"small\" }]\n";
    let (code, message) = refused("", &format!("{net}{four}"));
    assert_eq!(code, "pool-exhausted");
    assert!(message.starts_with("`subnet.small` has no address left for `port.p`: "), "{message}");

    // Nor is there one for the host, whose address is none of the pool's.
    let tight = "[network.t]\nforward = \"isolated\"\n[subnet.t]\nnetwork = \"t\"\ncidr = \"10.4.0.0/30\"\n\
                 [port.a]\nnetwork = \"t\"\nfixed_ips = [\"10.4.0.1\"]\n[port.b]\nnetwork = \"t\"\nfixed_ips = [\"10.4.0.2\"]\n";
    assert_eq!(
        refused("", tight),
        ("no-address-for-host".into(), "no address is left in 10.4.0.0/30 for the DHCP server".into())
    );
}

#[test]
fn an_address_outside_a_smaller_pool_stays_and_is_told() {
    let net = |pools: &str| {
        format!(
            "[network.small]\n[subnet.small]\nnetwork = \"small\"\ncidr = \"10.3.0.0/24\"\npools = [\"{pools}\"]\n\
             [server.s]\n$SERVERnetworks = [\"small\"]\ncount = 2\n[server.pinned]\n$SERVERnetworks = [\"small\"]\n\
             fixed_ip = \"10.3.0.90\"\n"
        )
    };
    let (before, after) = (net("10.3.0.10-10.3.0.20"), net("10.3.0.11-10.3.0.30"));
    assert_eq!(planned("", &before), Ok(vec![]), "one that is asked for may lie where it likes");
    let warnings = planned(&before, &after).expect("a plan");
    let [warning] = &warnings[..] else { panic!("{warnings:#?}") };
    assert_eq!(warning.code.as_deref(), Some("outside-pools"));
    assert_eq!(warning.severity, Severity::Warning);
    assert_eq!(warning.message, "`10.3.0.10 of s-1/small` lies outside the pools, and stays in use");
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let text = |more: &str| format!("{BASE}{more}").replace("$SERVER", SERVER);
    converge(&text(&before), &host, &store);
    assert!(common::plan(&text(&after), store.snapshot(), &host).changes.is_empty(), "a pool is nothing on the host");
}

#[test]
fn a_subnet_that_the_host_is_on_already_is_refused() {
    for (subnet, theirs) in [("10.1.0.0/24", "10.1.0.77/16"), ("fd02::/64", "fd02::77/48")] {
        let host = SimHost::new();
        host.join("eth0", theirs.parse().expect("a network"));
        let problems = reconcile::plan(&common::desired(BASE), MemoryStore::default().snapshot(), &host);
        let Err(PlanError::Spec(problems)) = problems else { panic!("{theirs} is not refused") };
        let [problem] = &problems[..] else { panic!("{problems:#?}") };
        assert_eq!(problem.code.as_deref(), Some("subnet-on-host"));
        assert_eq!(problem.message, format!("{subnet} is in use on this host: `eth0` has {theirs}"));
    }
}

#[test]
fn the_host_keeps_a_former_gateway_until_a_port_needs_it() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = |gateway: &str, more: &str| {
        format!(
            "{BASE}[network.small]\n[subnet.small]\nnetwork = \"small\"\ncidr = \"10.3.0.0/29\"\ngateway = \"{gateway}\"\n\
             [server.s]\n$SERVERnetworks = [\"small\"]\ncount = 2\n{more}"
        )
        .replace("$SERVER", SERVER)
    };
    let apply = |gateway: &str, more: &str| -> Vec<String> {
        let plan = converge(&spec(gateway, more), &host, &store);
        assert!(plan.changes.iter().all(|change| change.disruption < Disruption::Reboot), "a guest is booted anew");
        assert!(common::plan(&spec(gateway, more), store.snapshot(), &host).is_empty());
        let bridge = &host.objects()[&bridge_key(&"small".parse().expect("a name"))];
        let Object::Bridge(bridge) = bridge else { panic!("{bridge:?}") };
        bridge.addresses.iter().map(|net| net.addr().to_string()).collect()
    };
    assert_eq!(apply("10.3.0.1", ""), ["10.3.0.1"]);
    assert_eq!(apply("10.3.0.6", ""), ["10.3.0.1", "10.3.0.6"], "guests go by the old one until they renew");
    let port = |more: &str| format!("[port.p]\nnetwork = \"small\"\n{more}");
    assert_eq!(apply("10.3.0.6", &port("")), ["10.3.0.1", "10.3.0.6"], "the third port gets another");
    assert_eq!(apply("10.3.0.6", &port("fixed_ips = [\"10.3.0.1\"]")), ["10.3.0.6"], "a port asks for it");
    assert_eq!(apply("10.3.0.6", ""), ["10.3.0.6"], "what was given up does not come back");
    assert_eq!(apply("10.3.0.5", ""), ["10.3.0.5", "10.3.0.6"]);
    let many = "[server.t]\n$SERVERnetworks = [\"small\"]\ncount = 3\n".replace("$SERVER", SERVER);
    assert_eq!(apply("10.3.0.5", &many), ["10.3.0.5"], "the pool is empty but for that");
}

#[test]
fn what_dhcp_does_not_hand_out_is_told() {
    let text = format!(
        "{BASE}[port.p]\nnetwork = \"net\"\nfixed_ips = [\"10.1.0.5\", \"10.1.0.6\", \"fd02::5\", \"fd02::6\"]\n"
    );
    let loaded = load_texts([("spec.toml", text.as_str())]);
    let (desired, found) = desired::resolve(&loaded.spec, &loaded.source);
    assert!(desired.is_some());
    let told: Vec<_> = found.iter().map(|it| (it.severity, it.code.as_deref(), it.place.clone())).collect();
    let place = Place::Key("port.p.fixed_ips[1]".into());
    assert_eq!(told, [(Severity::Warning, Some("not-handed-out"), place)]);
}
