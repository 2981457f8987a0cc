//! The example of the README, from nothing to nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::lab::{Lab, note};
use crate::read;

#[test]
fn two_guests_have_the_addresses_that_the_plan_promised() {
    let Some(lab) = Lab::with_guests("quickstart") else { return };
    // As it stands there, but for the paths, which start at the file.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("examples/quickstart/quickstart.toml")).expect("the example");
    lab.spec(&example.replace("../../target", &root.join("target").display().to_string()));

    let plan = lab.novella(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code(), Some(2), "{plan:#?}");
    let promised: BTreeMap<&str, (String, String)> = ["web", "db"]
        .into_iter()
        .map(|server| {
            let entry = format!("server.{server} + host entry");
            (server, (read::planned(&plan.out, &entry, "address"), read::planned(&plan.out, &entry, "mac")))
        })
        .collect();
    assert_eq!(promised["web"].0, "10.20.0.2");
    assert_eq!(promised["db"].0, "10.20.0.50");

    let first = lab.apply();
    assert!(first.out.contains("Apply complete! Resources: 5 added, 0 changed, 0 destroyed."), "{}", first.out);
    note(format_args!("apply took {:?}", first.took));

    let shown: Value = serde_json::from_str(&lab.novella(&["show", "--json"]).success().out).expect("JSON");
    let mut boots = BTreeMap::new();
    for (server, (address, mac)) in &promised {
        let (name, boot) = lab.guest(address);
        assert_eq!(&name, server, "who answers at {address}");
        boots.insert(*server, boot);
        lab.sh(&format!("ping -c 3 -i 0.2 -W 2 {address}"));

        let rows = shown["servers"].as_array().expect("servers");
        let row = rows.iter().find(|row| row["server"] == *server).expect("the server");
        assert_eq!(row["state"], "running");
        assert_eq!(row["ports"][0]["addresses"], serde_json::json!([address]));
        assert_eq!(row["ports"][0]["mac"], mac.as_str());

        let said = lab.console(server);
        let line = format!("eth0 {address}/24 mac {mac} mtu 1500 host {server} via 10.20.0.1 dns 10.20.0.1");
        assert!(said.contains(&line), "{server} does not say {line:?} but {said:#?}");
        assert!(said.contains(&"ready".into()), "{said:#?}");

        let leases = lab.sh("cat /var/lib/novella/default/networks/private/leases");
        let lease = format!("{mac} {address} {server} ");
        assert_eq!(leases.matches(&lease).count(), 1, "{leases}");
    }

    // Nothing to do, and nothing done.
    lab.assert_settled("after the first apply");
    let before = lab.inventory();
    let second = lab.apply();
    assert!(second.out.contains("0 added, 0 changed, 0 destroyed"), "{}", second.out);
    assert_eq!(read::steps(&second.out), [""; 0]);
    assert_eq!(lab.inventory(), before);
    for (server, (address, _)) in &promised {
        assert_eq!(lab.boot_of(address), boots[server], "{server} was booted anew by an apply with nothing to do");
    }

    let end = lab.destroy();
    note(format_args!("destroy took {:?}", end.took));
    assert!(end.out.contains("Destroy complete! Resources: 0 added, 0 changed, 4 destroyed."), "{}", end.out);
    // Their disks are in the trash.
    lab.novella(&["trash", "empty", "--all", "--auto-approve"]).success();
    assert_eq!(lab.left(), [""; 0], "left after destroy");
    assert_eq!(lab.plan().len(), plan_changes(&plan.out), "all is to be made again");
    // Shut down, not switched off.
    for server in ["web", "db"] {
        let log = lab.sh(&format!("cat /var/log/libvirt/qemu/default.{server}.log"));
        assert!(!log.contains("forced"), "{log}");
    }
}

fn plan_changes(plan: &str) -> usize {
    read::changes(plan).len()
}
