//! `host::firewall` against nftables.

use novella::blueprint::dhcp::IpVersion;
use novella::blueprint::facts::Facts;
use novella::blueprint::key::firewall_key;
use novella::blueprint::object::{Firewall, Object, Rule, RuleChain};
use novella::host::firewall::{Nft, forwards, loses_its_route};
use novella::plan::world::Observed;

use crate::packets::{SPEC, firewall_of};
use crate::{NetNs, advert, differences, in_netns, json, name, run};

const TABLE: &str = "inet novella-default";

pub fn rule(chain: RuleChain, text: &str) -> Rule {
    Rule { chain, text: text.into() }
}

/// A NAT network and an isolated one, the rules of each together: the chains take turns.
fn firewall() -> Firewall {
    Firewall {
        table: "novella-default".into(),
        ip_forward: true,
        ip6_forward: false,
        networks: [(name("private"), "nat".to_owned())].into(),
        rules: vec![
            rule(RuleChain::Forward, r#"iifname "brq1" accept"#),
            rule(
                RuleChain::Postrouting,
                r#"ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 oifname != "brq1" masquerade"#,
            ),
            rule(RuleChain::Forward, r#"oifname "brq1" ct state established,related accept"#),
            rule(RuleChain::Forward, r#"oifname "brq2" drop"#),
        ],
    }
}

pub fn nft() -> Nft {
    Nft::new(&name("default"))
}

fn seen(nft: &Nft) -> Option<Facts> {
    let mut seen = Observed::default();
    nft.observe(&mut seen).expect("observe");
    assert!(seen.objects.len() < 2 && seen.foreign.is_empty());
    seen.objects.remove(&firewall_key(&name("default")))
}

fn differing(nft: &Nft) -> Vec<String> {
    differences(&Object::Firewall(firewall()), &seen(nft).expect("table is there")).into_keys().collect()
}

#[test]
fn the_table_is_written_and_known_again() {
    in_netns(|| {
        let nft = nft();
        assert_eq!(seen(&nft), None);
        assert_eq!(forwards(IpVersion::V4), Some(false));
        for _ in 0..2 {
            nft.ensure(&firewall()).expect("ensure");
            let facts = seen(&nft).expect("table is there");
            let wanted = Object::Firewall(firewall()).facts();
            for fact in ["table", "rules", "ruleset"] {
                assert_eq!(facts[fact], wanted[fact], "{fact}");
            }
            assert_eq!(facts.len(), 4, "that forwarding is on is no fact: {facts:?}");
            assert_eq!(facts["ip6_forward"], "off");
            assert_eq!(forwards(IpVersion::V4), Some(true));
        }
        let listed = run(&format!("nft list table {TABLE}"));
        for line in [
            "comment \"novella:default\"",
            "type filter hook input priority filter; policy accept;",
            "type filter hook forward priority filter; policy accept;",
            "type nat hook postrouting priority srcnat; policy accept;",
            "iifname \"brq1\" accept comment \"",
            "oifname \"brq2\" drop comment \"",
        ] {
            assert_eq!(listed.matches(line).count(), 1, "{line} in {listed}");
        }
        assert_eq!(json(&format!("nft -j list table {TABLE}"))["nftables"].as_array().map(Vec::len), Some(9));
    });
}

#[test]
fn forwarding_is_turned_on_where_needed_and_never_off() {
    in_netns(|| {
        let nft = nft();
        let without = Firewall { ip_forward: false, ..firewall() };
        nft.ensure(&without).expect("ensure");
        assert_eq!(forwards(IpVersion::V4), Some(false));
        assert_eq!(differing(&nft), ["ip_forward"], "wanted on, seen off");
        assert!(differences(&Object::Firewall(without.clone()), &seen(&nft).expect("table")).is_empty());
        nft.ensure(&firewall()).expect("ensure");
        nft.ensure(&without).expect("ensure");
        assert_eq!(forwards(IpVersion::V4), Some(true), "others may need it");
        assert!(differences(&Object::Firewall(without), &seen(&nft).expect("table")).is_empty());
        nft.remove().expect("remove");
        assert_eq!(forwards(IpVersion::V4), Some(true));
    });
}

#[test]
fn the_rules_of_ipv6_are_known_again() {
    for forward in ["nat", "routed", "isolated"] {
        let firewall = firewall_of(&SPEC.replace("FIRST", forward));
        in_netns(|| {
            let nft = nft();
            for _ in 0..2 {
                nft.ensure(&firewall).expect("ensure");
                let facts = seen(&nft).expect("table is there");
                let wanted = Object::Firewall(firewall.clone()).facts();
                for fact in ["table", "rules", "ruleset"] {
                    assert_eq!(facts[fact], wanted[fact], "{forward}: {fact}");
                }
                assert!(differences(&Object::Firewall(firewall.clone()), &facts).is_empty());
            }
            assert_eq!(forwards(IpVersion::V6), Some(forward != "isolated"), "{forward}");
            let listed = run(&format!("nft list table {TABLE}"));
            let masquerade = "ip6 saddr fd00:1::/64 ip6 daddr != fd00:1::/64 oifname != \"brqnat\" masquerade";
            assert_eq!(listed.contains(masquerade), forward == "nat", "{listed}");
        });
    }
}

#[test]
fn each_version_is_forwarded_where_a_network_needs_it() {
    let network = |forward: &str, cidrs: &[&str]| {
        let subnets: String = cidrs
            .iter()
            .enumerate()
            .map(|(index, cidr)| format!("[subnet.s{index}]\nnetwork = \"net\"\ncidr = \"{cidr}\"\n"))
            .collect();
        firewall_of(&format!("[network.net]\nforward = \"{forward}\"\n{subnets}"))
    };
    for (forward, cidrs, needed) in [
        ("nat", &["10.0.0.0/24"][..], [true, false]),
        ("nat", &["fd00:1::/64"], [false, true]),
        ("nat", &["10.0.0.0/24", "fd00:1::/64"], [true, true]),
        ("routed", &["fd00:1::/64"], [false, true]),
        ("isolated", &["10.0.0.0/24", "fd00:1::/64"], [false, false]),
    ] {
        in_netns(|| {
            let (nft, firewall) = (nft(), network(forward, cidrs));
            nft.ensure(&firewall).expect("ensure");
            let now = [IpVersion::V4, IpVersion::V6].map(|version| forwards(version) == Some(true));
            assert_eq!(now, needed, "{forward} {cidrs:?}");
            assert!(differences(&Object::Firewall(firewall), &seen(&nft).expect("table")).is_empty());
        });
    }
    in_netns(|| {
        let (nft, firewall) = (nft(), network("nat", &["fd00:1::/64"]));
        nft.ensure(&firewall).expect("ensure");
        run("sysctl -w net.ipv6.conf.all.forwarding=0");
        let differ = differences(&Object::Firewall(firewall.clone()), &seen(&nft).expect("table"));
        assert_eq!(differ.into_keys().collect::<Vec<_>>(), ["ip6_forward"]);
        nft.ensure(&firewall).expect("ensure");
        assert_eq!(forwards(IpVersion::V6), Some(true));
        nft.remove().expect("remove");
        assert_eq!(forwards(IpVersion::V6), Some(true), "others may need it");
    });
}

/// A host that has its own way into the world from a router's advertisement would throw it away when it becomes a router.
#[test]
fn forwarding_of_ipv6_does_not_cost_the_host_its_own_route() {
    let (Some(host), Some(router)) = (NetNs::new(), NetNs::new()) else { return };
    host.run(|| {
        run(&format!("ip link add uplink type veth peer name eth0 netns {}", router.path()));
        run("ip link set uplink up");
    });
    let has_route = || run("ip -6 route show default").contains("dev uplink proto ra");
    let advertise = || {
        router.run(|| {
            run("sysctl -w net.ipv6.conf.eth0.accept_dad=0");
            run("ip link set eth0 up");
            advert::send("eth0");
        });
        host.run(|| advert::wait_for("the default route", has_route));
    };
    let without = firewall_of(&SPEC.replace("FIRST", "isolated"));
    let with = firewall_of(&SPEC.replace("FIRST", "nat"));
    advertise();
    host.run(|| {
        assert_eq!(loses_its_route().as_deref(), Some("uplink"));
        nft().ensure(&without).expect("nothing to forward");
        let refused = nft().ensure(&with).expect_err("refused");
        assert_eq!(refused.deed, "cannot turn on IPv6 forwarding");
        assert!(refused.source.expect("cause").to_string().ends_with("lose its own default route on `uplink`"));
        assert!(refused.help.expect("help").contains("`sysctl net.ipv6.conf.uplink.accept_ra=2`"));
        assert_eq!(forwards(IpVersion::V6), Some(false));
        assert!(has_route(), "nothing was lost");

        // Also when it heeds no new ones: the one it has goes all the same.
        run("sysctl -w net.ipv6.conf.uplink.accept_ra=0");
        assert!(nft().ensure(&with).is_err() && has_route());
        run("sysctl -w net.ipv6.conf.all.forwarding=1");
        assert!(!has_route(), "what is refused is a real loss");
        run("sysctl -w net.ipv6.conf.all.forwarding=0 net.ipv6.conf.uplink.accept_ra=1");
    });
    advertise();
    host.run(|| {
        run("sysctl -w net.ipv6.conf.uplink.accept_ra=2");
        assert_eq!(loses_its_route(), None);
        nft().ensure(&with).expect("ensure");
        assert_eq!(forwards(IpVersion::V6), Some(true));
        assert!(has_route());
        // And it still heeds new ones.
        run("ip -6 route flush proto ra");
    });
    advertise();
    host.run(|| {
        run("ip -6 route flush proto ra");
        run("sysctl -w net.ipv6.conf.all.forwarding=0");
        run("sysctl -w net.ipv6.conf.uplink.accept_ra=1");
        run("ip -6 route add default via fe80::1 dev uplink");
        nft().ensure(&with).expect("a route by hand stays");
        assert!(run("ip -6 route show default").contains("via fe80::1"));
    });
}

#[test]
fn whatever_is_spoilt_is_seen_and_repaired() {
    in_netns(|| {
        let nft = nft();
        nft.ensure(&firewall()).expect("ensure");
        let handle_of = |text: &str| {
            let listed = run(&format!("nft -a list table {TABLE}"));
            let line = listed.lines().find(|line| line.contains(text)).expect("rule");
            line.rsplit(' ').next().expect("handle").to_owned()
        };
        for spoil in [
            "flush table TABLE",
            "flush chain TABLE forward",
            "delete rule TABLE forward handle HANDLE",
            "add rule TABLE forward iifname brq9 accept",
            "insert rule TABLE forward accept",
            "replace rule TABLE forward handle HANDLE accept",
            "add chain TABLE forward '{ policy drop; }'",
            "add chain TABLE extra",
            "add chain TABLE early '{ type filter hook forward priority -10; policy drop; }'",
            "add set TABLE those '{ type ipv4_addr; }'",
            "add table TABLE '{ flags dormant; }'",
        ] {
            let command = spoil.replace("TABLE", TABLE).replace("HANDLE", &handle_of("brq2"));
            run(&format!("nft {command}"));
            assert!(differing(&nft).contains(&"ruleset".to_owned()), "{spoil} is seen");
            nft.ensure(&firewall()).expect(spoil);
            assert_eq!(differing(&nft), [""; 0], "{spoil} is repaired");
        }
        // Two rules that changed places.
        let moved = handle_of("brq2");
        run(&format!("nft delete rule {TABLE} forward handle {moved}"));
        let mark = Firewall::rule_mark(&firewall().rules[3]);
        run(&format!("nft insert rule {TABLE} forward oifname brq2 drop comment '\"{mark}\"'"));
        assert_eq!(differing(&nft), ["ruleset"]);
        run(&format!("nft delete table {TABLE}"));
        assert_eq!(seen(&nft), None);
        nft.ensure(&firewall()).expect("ensure");
        assert_eq!(differing(&nft), [""; 0]);
    });
}

#[test]
fn an_empty_chain_that_is_gone_is_missed() {
    in_netns(|| {
        let nft = nft();
        let empty = Firewall { rules: Vec::new(), ..firewall() };
        nft.ensure(&empty).expect("ensure");
        assert!(differences(&Object::Firewall(empty.clone()), &seen(&nft).expect("table")).is_empty());
        run(&format!("nft delete chain {TABLE} postrouting"));
        assert!(!differences(&Object::Firewall(empty), &seen(&nft).expect("table")).is_empty());
    });
}

#[test]
fn other_tables_are_not_touched() {
    in_netns(|| {
        let nft = nft();
        run("nft add table inet novella-other");
        run("nft add chain inet novella-other forward '{ type filter hook forward priority 0; policy accept; }'");
        run("nft add table ip novella-default");
        run("nft add table inet filter");
        run("nft add chain inet filter forward '{ type filter hook forward priority 0; policy drop; }'");
        let before = run("nft list ruleset");
        nft.remove().expect("nothing to remove");
        assert_eq!(run("nft list ruleset"), before);
        nft.ensure(&firewall()).expect("ensure");
        assert!(run("nft list ruleset").starts_with(&before));
        nft.remove().expect("remove");
        nft.remove().expect("remove what is gone");
        assert_eq!(run("nft list ruleset"), before);
        assert_eq!(seen(&nft), None);

        let foreign = Firewall { table: "filter".into(), ..firewall() };
        assert!(nft.ensure(&foreign).is_err());
        assert_eq!(run("nft list ruleset"), before);
    });
}

#[test]
fn a_text_that_is_more_than_a_rule_is_refused() {
    in_netns(|| {
        let nft = nft();
        nft.ensure(&firewall()).expect("ensure");
        let before = run("nft list ruleset");
        for text in [
            "accept\nadd table inet evil",
            "accept; drop",
            "accept } chain evil { accept",
            "accept # no mark",
            "iifname \"a accept",
            "this is no rule",
            "",
        ] {
            let firewall = Firewall { rules: vec![rule(RuleChain::Forward, text)], ..firewall() };
            assert!(nft.ensure(&firewall).is_err(), "{text:?}");
            assert_eq!(run("nft list ruleset"), before, "{text:?} changed nothing");
        }
    });
}

#[test]
fn chains_of_others_that_drop_are_named() {
    in_netns(|| {
        let nft = nft();
        nft.ensure(&firewall()).expect("ensure");
        assert_eq!(nft.foreign_forward_drop().expect("list"), [""; 0]);
        for (table, chain) in [
            ("ip filter", "FORWARD '{ type filter hook forward priority 0; policy drop; }'"),
            ("ip6 filter", "FORWARD '{ type filter hook forward priority 0; policy drop; }'"),
            ("arp filter", "odd '{ type filter hook input priority 0; policy drop; }'"),
            ("inet firewalld", "filter_FORWARD '{ type filter hook forward priority 10; policy drop; }'"),
            ("inet calm", "filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'"),
            ("inet inward", "input '{ type filter hook input priority 0; policy drop; }'"),
        ] {
            run(&format!("nft add table {table}"));
            run(&format!("nft add chain {table} {chain}"));
        }
        let dropping = nft.foreign_forward_drop().expect("list");
        assert_eq!(dropping, ["ip filter FORWARD", "ip6 filter FORWARD", "inet firewalld filter_FORWARD"]);
    });
}
