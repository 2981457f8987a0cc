//! `host::firewall` against nftables.

use novella::blueprint::dhcp::IpVersion;
use novella::blueprint::facts::Facts;
use novella::blueprint::key::firewall_key;
use novella::blueprint::object::{Firewall, Object, Rule, RuleChain};
use novella::host::firewall::{Nft, forwards};
use novella::plan::world::Observed;

use crate::{differences, in_netns, json, name, run};

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
            ("inet firewalld", "filter_FORWARD '{ type filter hook forward priority 10; policy drop; }'"),
            ("inet calm", "filter_FORWARD '{ type filter hook forward priority 10; policy accept; }'"),
            ("inet inward", "input '{ type filter hook input priority 0; policy drop; }'"),
        ] {
            run(&format!("nft add table {table}"));
            run(&format!("nft add chain {table} {chain}"));
        }
        let dropping = nft.foreign_forward_drop().expect("list");
        assert_eq!(dropping, ["ip filter FORWARD", "inet firewalld filter_FORWARD"]);
    });
}
