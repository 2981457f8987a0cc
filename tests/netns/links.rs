//! `host::links` against the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use novella::blueprint::facts::Facts;
use novella::blueprint::key::bridge_key;
use novella::blueprint::object::{Bridge, Claim, Object};
use novella::host::links::{LinkMap, Links};
use novella::plan::world::Observed;

use crate::{differences, in_netns, json, name, run, try_run};

const DEVICE: &str = "brq0123456789a";

/// Set for a process that a test starts of itself.
const CHILD: &str = "NOVELLA_TEST_CHILD";

fn bridge() -> Bridge {
    Bridge {
        network: name("private"),
        device: DEVICE.into(),
        mac: "fa:16:3e:00:00:01".parse().expect("mac"),
        mtu: 1450,
        addresses: vec!["10.0.0.1/24".parse().expect("net"), "10.0.1.1/24".parse().expect("net")],
    }
}

fn links() -> Links {
    Links::new(&name("default")).expect("netlink")
}

fn observe(links: &Links) -> (Observed, LinkMap) {
    let mut seen = Observed::default();
    let map = links.observe(&mut seen).expect("observe");
    (seen, map)
}

fn seen(links: &Links, network: &str) -> Option<Facts> {
    observe(links).0.objects.remove(&bridge_key(&name(network)))
}

/// All that the kernel tells of the bridge but what runs by itself.
fn kernel_view(device: &str) -> serde_json::Value {
    let mut view = json(&format!("ip -j -d addr show dev {device}"));
    for timer in ["hello_timer", "tcn_timer", "topology_change_timer", "gc_timer"] {
        view[0]["linkinfo"]["info_data"][timer].take();
    }
    view
}

fn assert_settled(links: &Links, bridge: &Bridge) {
    let facts = seen(links, bridge.network.as_str()).expect("bridge is there");
    assert_eq!(facts, Object::Bridge(bridge.clone()).facts(), "observed and wanted facts are the same words");
}

#[test]
fn a_bridge_is_made_as_wanted() {
    in_netns(|| {
        let links = links();
        assert_eq!(seen(&links, "private"), None);
        links.ensure_bridge(&bridge()).expect("ensure");
        assert_settled(&links, &bridge());

        let link = &json(&format!("ip -j -d link show {DEVICE}"))[0];
        assert_eq!(link["linkinfo"]["info_kind"], "bridge");
        assert_eq!(link["linkinfo"]["info_data"]["stp_state"], 0);
        assert_eq!(link["linkinfo"]["info_data"]["forward_delay"], 0);
        assert_eq!(link["address"], "fa:16:3e:00:00:01");
        assert_eq!(link["mtu"], 1450);
        assert_eq!(link["ifalias"], "novella:default:network.private");
        assert!(link["flags"].as_array().expect("flags").contains(&"UP".into()));
        let addresses = json(&format!("ip -j addr show dev {DEVICE}"));
        let addresses: Vec<_> = addresses[0]["addr_info"]
            .as_array()
            .expect("addresses")
            .iter()
            .map(|it| format!("{}/{}", it["local"].as_str().expect("local"), it["prefixlen"]))
            .collect();
        assert_eq!(addresses, ["10.0.0.1/24", "10.0.1.1/24"], "and no IPv6 address");
        assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(1));

        let before = kernel_view(DEVICE);
        links.ensure_bridge(&bridge()).expect("ensure again");
        assert_eq!(kernel_view(DEVICE), before, "the second time changes nothing");
    });
}

#[test]
fn whatever_is_spoilt_is_seen_and_repaired_in_place() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        let index = json(&format!("ip -j link show {DEVICE}"))[0]["ifindex"].clone();
        for (fact, value, spoil) in [
            ("mtu", "1400", "ip link set DEV mtu 1400"),
            ("addresses", "10.0.1.1/24", "ip addr del 10.0.0.1/24 dev DEV"),
            ("addresses", "", "ip addr flush dev DEV"),
            ("addresses", "10.0.0.1/24, 10.0.0.9/24, 10.0.1.1/24", "ip addr add 10.0.0.9/24 dev DEV"),
            ("addresses", "10.0.0.1/16, 10.0.0.1/24, 10.0.1.1/24", "ip addr add 10.0.0.1/16 dev DEV"),
            ("state", "down", "ip link set DEV down"),
            ("stp", "on", "ip link set DEV type bridge stp_state 1"),
            ("forward_delay", "15", "ip link set DEV type bridge forward_delay 1500"),
            ("mac", "fa:16:3e:00:00:02", "ip link set DEV address fa:16:3e:00:00:02"),
        ] {
            run(&spoil.replace("DEV", DEVICE));
            let seen = seen(&links, "private").expect("still ours");
            let differ = differences(&Object::Bridge(bridge()), &seen);
            // With STP on, the kernel sets a delay of its own.
            let differing = differ.keys().filter(|it| fact != "stp" || *it != "forward_delay");
            assert_eq!(differing.collect::<Vec<_>>(), [fact], "{spoil}");
            assert_eq!(differ[fact].0, value, "{spoil}");
            links.ensure_bridge(&bridge()).expect(spoil);
            assert_settled(&links, &bridge());
            assert_eq!(json(&format!("ip -j link show {DEVICE}"))[0]["ifindex"], index, "the same bridge: {spoil}");
        }
        // All at once. With STP on the kernel takes no delay of 0.
        run(&format!(
            "ip link set {DEVICE} down mtu 1300 address fa:16:3e:00:00:03 type bridge stp_state 1 forward_delay 1500"
        ));
        run(&format!("ip addr flush dev {DEVICE}"));
        links.ensure_bridge(&bridge()).expect("ensure");
        assert_settled(&links, &bridge());
    });
}

#[test]
fn a_right_address_is_never_taken_away() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        let added = || json(&format!("ip -j addr show dev {DEVICE}"))[0]["addr_info"][0].to_string();
        let before = added();
        let mut edited = bridge();
        edited.addresses[1] = "10.0.2.1/24".parse().expect("net");
        links.ensure_bridge(&edited).expect("ensure");
        assert_settled(&links, &edited);
        assert_eq!(added(), before);

        // The new address is a secondary one of the old one's subnet: the kernel drops it together with the old one.
        let mut moved = bridge();
        moved.addresses = vec!["10.0.0.254/24".parse().expect("net")];
        links.ensure_bridge(&moved).expect("ensure");
        assert_settled(&links, &moved);
    });
}

#[test]
fn the_networks_of_other_interfaces_are_told() {
    in_netns(|| {
        run("ip link add other type bridge");
        run("ip addr add 10.9.8.7/20 dev other");
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        let mut observed = Observed::default();
        links.observe(&mut observed).expect("observe");
        assert!(observed.foreign_networks.contains(&("other".to_owned(), "10.9.8.7/20".parse().expect("a network"))));
        assert!(observed.foreign_networks.iter().all(|(interface, _)| interface != DEVICE));
    });
}

#[test]
fn the_mtu_does_not_follow_a_port() {
    in_netns(|| {
        for mtu in [1450, 1500, 9000] {
            let links = links();
            let bridge = Bridge { mtu, ..bridge() };
            links.ensure_bridge(&bridge).expect("ensure");
            run("ip tuntap add tap0 mode tap");
            run("ip link set tap0 mtu 1200");
            links.plug("tap0", DEVICE, 1200).expect("plug");
            assert_settled(&links, &bridge);
            run("ip link del tap0");
            assert_settled(&links, &bridge);
            links.remove_bridge("private").expect("remove");
        }
    });
}

#[test]
fn a_guest_cannot_configure_the_host_over_ipv6() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        let disabled = || run(&format!("cat /proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"));
        assert_eq!(disabled(), "1\n");
        run(&format!("sysctl -w net.ipv6.conf.{DEVICE}.disable_ipv6=0"));
        links.ensure_bridge(&bridge()).expect("ensure");
        assert_eq!(disabled(), "1\n");
    });
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    in_netns(|| {
        let links = links();
        for foreign in [
            "ip link add DEV type bridge",
            "ip link add DEV alias x type veth peer name peer0",
            "ip tuntap add DEV mode tap",
            "ip link add other0 type bridge",
        ] {
            run(&foreign.replace("DEV", DEVICE));
            if foreign.contains("other0") {
                run(&format!("ip link property add dev other0 altname {DEVICE}"));
            }
            let before = run("ip -d link show");
            let refused = links.ensure_bridge(&bridge()).expect_err(foreign);
            assert_eq!(refused.deed, format!("interface `{DEVICE}` exists and is not novella's"), "{foreign}");
            assert!(refused.help.is_some() && !refused.transient);
            links.remove_bridge("private").expect("nothing to remove");
            assert_eq!(run("ip -d link show"), before, "{foreign}");
            run(&format!("ip link del {}", if foreign.contains("other0") { "other0" } else { DEVICE }));
        }
    });
}

#[test]
fn foreign_names_are_told_and_taps_are_mapped() {
    in_netns(|| {
        let (mine, theirs) = (links(), Links::new(&name("other")).expect("netlink"));
        mine.ensure_bridge(&bridge()).expect("ensure");
        let their_bridge = Bridge { device: "brqtheirs".into(), ..bridge() };
        theirs.ensure_bridge(&their_bridge).expect("ensure");
        run("ip link add veth0 type veth peer name veth1");
        run("ip link property add dev veth0 altname uplink");
        // Aliases that look like ours but are not: another project's, no network's, not a bridge's.
        run("ip link add lookalike type bridge");
        run("ip link set lookalike alias novella:default2:network.private");
        run("ip link set veth1 alias novella:default:network.private");
        for tap in ["tapin", "tapout"] {
            run(&format!("ip tuntap add {tap} mode tap"));
        }
        run(&format!("ip link set tapin master {DEVICE}"));

        let (seen, map) = observe(&mine);
        assert_eq!(seen.objects.keys().collect::<Vec<_>>(), [&bridge_key(&name("private"))]);
        let foreign: Vec<String> = seen
            .foreign
            .iter()
            .map(|claim| match claim {
                Claim::Link(name) => name.clone(),
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(foreign, ["brqtheirs", "lo", "lookalike", "uplink", "veth0", "veth1"]);
        assert_eq!(map.taps().collect::<Vec<_>>(), ["tapin", "tapout"]);
        assert_eq!(map.master_of("tapin"), Some(Some(DEVICE)));
        assert_eq!(map.master_of("tapout"), Some(None));
        assert_eq!(map.master_of("tapgone"), None);

        mine.remove_bridge("private").expect("remove");
        assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(2), "theirs stay");
        assert_settled(&theirs, &their_bridge);
    });
}

#[test]
fn a_bridge_deleted_under_its_tap_is_remade_and_the_tap_put_back() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        run("ip tuntap add tap0 mode tap");
        links.plug("tap0", DEVICE, 1500).expect("plug");
        run(&format!("ip link del {DEVICE}"));
        assert_eq!(seen(&links, "private"), None);
        assert_eq!(observe(&links).1.master_of("tap0"), Some(None));

        links.ensure_bridge(&bridge()).expect("ensure");
        run("ip link set tap0 down");
        for _ in 0..2 {
            links.plug("tap0", DEVICE, 1500).expect("plug");
            let ports = json("bridge -j link show");
            assert_eq!(ports[0]["ifname"], "tap0");
            assert_eq!(ports[0]["master"], DEVICE);
            assert!(ports[0]["flags"].as_array().expect("flags").contains(&"UP".into()));
        }
        assert_settled(&links, &bridge());
    });
}

#[test]
fn only_taps_are_plugged_and_only_into_our_bridges() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        run("ip tuntap add tap0 mode tap");
        run("ip link add veth0 type veth peer name veth1");
        run("ip link add br0 type bridge");
        for (tap, bridge, why) in [
            ("tapgone", DEVICE, "there is no interface `tapgone`"),
            ("tap0", "brgone", "there is no interface `brgone`"),
            ("veth0", DEVICE, "`veth0` is not a tap"),
            ("tap0", "br0", "interface `br0` is not novella's"),
        ] {
            let refused = links.plug(tap, bridge, 1500).expect_err(why);
            assert_eq!(refused.deed, format!("cannot plug `{tap}` into bridge `{bridge}`"));
            assert_eq!(refused.source.expect("cause").to_string(), why);
        }
        assert_eq!(run("bridge link show"), "", "nothing was plugged");
    });
}

#[test]
fn names_that_mean_something_to_the_kernel_are_refused() {
    in_netns(|| {
        let links = links();
        for device in ["br%d", "sixteen-bytes-ab", "", "br/0", "br 0", "Br0", "br\n", "0br"] {
            let refused = links.ensure_bridge(&Bridge { device: device.into(), ..bridge() }).expect_err(device);
            assert!(refused.deed.contains("is not a name for an interface"), "{}", refused.deed);
        }
        assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn a_bridge_of_another_name_does_not_stand_in_the_way() {
    in_netns(|| {
        let links = links();
        let old = Bridge { device: "brqold".into(), ..bridge() };
        links.ensure_bridge(&old).expect("ensure");
        let differ = differences(&Object::Bridge(bridge()), &seen(&links, "private").expect("ours"));
        assert_eq!(differ.keys().collect::<Vec<_>>(), ["device"]);
        links.ensure_bridge(&bridge()).expect("ensure");
        let differ = differences(&Object::Bridge(bridge()), &seen(&links, "private").expect("ours"));
        assert_eq!(differ["device"].0, format!("brqold, {DEVICE}"), "two are one too many");
        links.remove_bridge("private").expect("remove");
        links.remove_bridge("private").expect("remove what is gone");
        assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn two_hundred_bridges_are_observed_in_bulk() {
    in_netns(|| {
        let links = links();
        let bridges: Vec<Bridge> = (0..200u8)
            .map(|i| Bridge {
                network: name(&format!("net-{i}")),
                device: format!("brq{i}"),
                mac: format!("fa:16:3e:00:01:{i:02x}").parse().expect("mac"),
                mtu: 1500,
                addresses: vec![format!("10.1.{i}.1/24").parse().expect("net")],
            })
            .collect();
        // By many threads at once, as an apply does.
        std::thread::scope(|scope| {
            for part in bridges.chunks(25) {
                let links = &links;
                scope.spawn(move || {
                    // The thread is in the test's namespace as its maker was.
                    part.iter().for_each(|bridge| links.ensure_bridge(bridge).expect("ensure"));
                });
            }
        });
        let (seen, _) = observe(&links);
        assert_eq!(seen.objects.len(), 200);
        for bridge in bridges {
            let facts = &seen.objects[&bridge_key(&bridge.network)];
            assert_eq!(*facts, Object::Bridge(bridge).facts());
        }
        assert_eq!(seen.foreign.into_iter().collect::<Vec<_>>(), [Claim::Link("lo".into())]);
    });
}

#[test]
fn without_the_right_to_it_the_error_says_what_is_needed() {
    in_netns(|| {
        let output = Command::new("setpriv")
            .args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(std::env::current_exe().expect("self"))
            .args(["--exact", "links::child_makes_a_bridge", "--ignored", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("start");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("run as root or with CAP_NET_ADMIN"), "{said}");
        assert!(said.contains("cannot create bridge `brq0123456789a`"), "{said}");
    });
}

/// What the tests around it run in a process of its own.
#[test]
#[ignore = "run by other tests"]
fn child_makes_a_bridge() {
    // Else this would make one on the host, when somebody runs the ignored tests too.
    if std::env::var_os(CHILD).is_some() {
        links().ensure_bridge(&bridge()).expect("ensure");
    }
}

/// Kills a process that makes a bridge before its first message to the kernel, its second, and so on until it gets
/// through. What stands then is known as ours and finished by the next run.
#[test]
fn a_kill_at_any_message_leaves_what_the_next_run_finishes() {
    if !try_run("strace -V").0 {
        return crate::skip("strace is not installed");
    }
    in_netns(|| {
        let links = links();
        let myself = std::env::current_exe().expect("self");
        let mut half_made = 0;
        for message in 1..50 {
            let killed = Command::new("strace")
                .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e"])
                .arg(format!("inject=sendto:signal=KILL:when={message}"))
                .arg(&myself)
                .args(["--exact", "links::child_makes_a_bridge", "--ignored", "--test-threads=1"])
                .env(CHILD, "1")
                .output()
                .expect("start");
            let (seen, _) = observe(&links);
            let foreign: Vec<_> = seen.foreign.into_iter().collect();
            assert_eq!(foreign, [Claim::Link("lo".into())], "nothing is left that nobody knows: message {message}");
            half_made += usize::from(
                seen.objects.values().any(|facts| !differences(&Object::Bridge(bridge()), facts).is_empty()),
            );
            links.ensure_bridge(&bridge()).expect("ensure");
            assert_settled(&links, &bridge());
            assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(1));
            links.remove_bridge("private").expect("remove");
            if killed.status.success() {
                assert!(half_made > 2, "the kills came between the messages: {half_made}");
                return;
            }
        }
        panic!("never got through");
    });
}

#[test]
fn a_half_made_bridge_goes_with_its_network() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        run(&format!("ip link set {DEVICE} down"));
        run(&format!("ip link set {DEVICE} name nv-0"));
        links.remove_bridge("private").expect("remove");
        assert_eq!(json("ip -j link show type bridge").as_array().map(Vec::len), Some(0));
    });
}

#[test]
fn a_link_that_cannot_be_read_hides_no_other() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        run("ip link add odd0 type bridge");
        // An alias may be any bytes; this one is not UTF-8.
        let odd = OsStr::from_bytes(&[0xff, 0xfe]);
        let done = Command::new("ip").args(["link", "set", "odd0", "alias"]).arg(odd).status().expect("ip");
        assert!(done.success());
        assert_settled(&links, &bridge());
        let refused = links.ensure_bridge(&Bridge { device: "odd0".into(), network: name("odd"), ..bridge() });
        assert!(refused.is_err(), "taken, though it cannot be read");
    });
}
