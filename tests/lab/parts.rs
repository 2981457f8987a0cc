//! Parts of a plan on a real host, and what tools are told of them.

use std::collections::BTreeSet;

use crate::lab::{Lab, base, server};

/// The resources of which a walk said this to tools.
fn told(out: &str, kind: &str) -> BTreeSet<String> {
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    let lines: Vec<serde_json::Value> = lines.collect();
    let of_kind = lines.iter().filter(|line| line["type"] == kind);
    of_kind.filter_map(|line| line["hook"]["resource"]["addr"].as_str()).map(str::to_owned).collect()
}

fn resources(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_part_is_made_with_what_it_needs_and_the_rest_comes_later() {
    let Some(lab) = Lab::with_guests("parts") else { return };
    let spec = |web: &str, db: &str| {
        let more = |address: &str| format!("fixed_ip = \"{address}\"\nshutdown_timeout = 1");
        format!("{}{}{}", base(), server("web", &more(web)), server("db", &more(db)))
    };
    lab.spec(&spec("10.20.0.10", "10.20.0.11"));
    let walk = |arguments: &[&str]| lab.novella(&[arguments, &["--auto-approve", "--json"]].concat()).success().out;
    let out = walk(&["apply", "--target", "server.web"]);
    let made = resources(&["host.local", "image.tiny", "network.private", "server.web"]);
    assert_eq!(told(&out, "apply_start"), made);
    assert_eq!(told(&out, "apply_complete"), made);
    let (name, boot) = lab.guest("10.20.0.10");
    assert_eq!(name, "web");
    assert_eq!(lab.sh("virsh -q list --all --name"), "default.web");
    assert_eq!(lab.count("dnsmasq"), 1);

    assert_eq!(told(&walk(&["apply"]), "apply_complete"), resources(&["network.back", "server.db"]));
    lab.assert_settled("the whole after a part");
    assert_eq!(lab.guest("10.20.0.11").0, "db");
    assert_eq!(lab.boot_of("10.20.0.10"), boot, "what was made before goes on");

    // An address changes hands: who has it comes along, and without that nobody can have it.
    lab.spec(&spec("10.20.0.11", "10.20.0.12"));
    let out = lab.novella(&["plan", "--exclude", "server.db"]).success().out;
    assert!(out.contains("No changes. What was chosen matches the configuration."), "{out}");
    let out = walk(&["apply", "--target", "server.web"]);
    assert_eq!(told(&out, "apply_complete"), resources(&["server.db", "server.web"]));
    assert_eq!((lab.guest("10.20.0.11").0, lab.guest("10.20.0.12").0), ("web".into(), "db".into()));
    lab.assert_settled("an address that changed hands");

    let boot = lab.boot_of("10.20.0.11");
    assert_eq!(told(&walk(&["destroy", "--target", "server.db"]), "apply_complete"), resources(&["server.db"]));
    assert_eq!(lab.boot_of("10.20.0.11"), boot);
    assert_eq!(lab.sh("virsh -q list --all --name"), "default.web");
}
