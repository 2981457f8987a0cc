//! `host::links` against the kernel.

use std::ffi::OsStr;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use novella::blueprint::facts::Facts;
use novella::blueprint::key::bridge_key;
use novella::blueprint::object::{Bridge, Claim, Object};
use novella::host::links::{LinkMap, Links};
use novella::plan::world::Observed;

use crate::{NetNs, advert, differences, in_netns, json, name, run, try_run};

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
fn of_the_ipv6_networks_of_others_those_that_every_link_has_are_not_told() {
    in_netns(|| {
        run("ip link add other type veth peer name peer");
        run("ip link set peer up");
        run("ip link set other up");
        run("ip addr add fd00:9::7/48 dev other");
        run("ip addr add fd00:8::7 peer fd00:8::8/64 dev peer");
        advert::wait_for("a link-local address", || run("ip -6 addr show dev other").contains("fe80::"));
        let links = links();
        links.ensure_bridge(&dual()).expect("ensure");
        let mut observed = Observed::default();
        links.observe(&mut observed).expect("observe");
        let mut told: Vec<String> = observed
            .foreign_networks
            .iter()
            .filter(|(_, net)| net.addr().is_ipv6())
            .map(|(interface, net)| format!("{interface} {net}"))
            .collect();
        told.sort();
        assert_eq!(told, ["other fd00:9::7/48", "peer fd00:8::7/64"]);
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
        run("ip link add veth0 type veth peer name veth1");
        run(&format!("ip link set veth0 master {DEVICE} up"));
        run("ip link set veth1 up");
        assert_settled(&links, &bridge());
        run(&format!("sysctl -w net.ipv6.conf.{DEVICE}.disable_ipv6=0"));
        advert::wait_for("a link-local address", || ipv6_addresses().contains("fe80::"));
        assert_eq!(seen(&links, "private").expect("ours")["state"], "up, with fe80::f816:3eff:fe00:1/64");
        links.ensure_bridge(&bridge()).expect("ensure");
        assert_eq!(disabled(), "1\n");
        assert_settled(&links, &bridge());
    });
}

/// A bridge with addresses of both families.
fn dual() -> Bridge {
    Bridge {
        addresses: ["10.0.0.1/24", "fd00:1::1/64", "fd00:2::1/80"].map(|net| net.parse().expect("net")).into(),
        ..bridge()
    }
}

fn setting(name: &str) -> String {
    run(&format!("cat /proc/sys/net/ipv6/conf/{DEVICE}/{name}")).trim().to_owned()
}

fn assert_closed() {
    for name in ["accept_ra", "autoconf", "accept_dad", "disable_ipv6"] {
        assert_eq!(setting(name), "0", "{name}");
    }
    assert_eq!(setting("addr_gen_mode"), "1");
}

/// All addresses of the bridge with their flags, one of a line.
fn ipv6_addresses() -> String {
    run(&format!("ip -o -6 addr show dev {DEVICE}"))
}

#[test]
fn a_bridge_with_ipv6_is_made_as_wanted() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&dual()).expect("ensure");
        // At once, with no port on the bridge yet.
        for address in ["fd00:1::1", "fd00:2::1"] {
            let address: Ipv6Addr = address.parse().expect("address");
            let server = TcpListener::bind((address, 0)).expect("bind");
            // The kernel makes the way to it a moment later.
            let to = server.local_addr().expect("address");
            advert::wait_for("a connection", || TcpStream::connect(to).is_ok());
            UdpSocket::bind((address, 53)).expect("bind");
        }
        assert_settled(&links, &dual());
        assert_closed();
        let routes = run("ip -6 route show");
        for route in ["fd00:1::/64", "fd00:2::/80"] {
            assert!(routes.contains(&format!("{route} dev {DEVICE} proto kernel")), "{routes}");
        }
        assert!(!ipv6_addresses().contains("tentative"), "{}", ipv6_addresses());
        let before = kernel_view(DEVICE);
        links.ensure_bridge(&dual()).expect("ensure again");
        assert_eq!(kernel_view(DEVICE), before, "the second time changes nothing");

        // From this it advertises, and can before there is a guest.
        let local = "inet6 fe80::f816:3eff:fe00:1/64 scope link";
        assert!(ipv6_addresses().contains(local), "{}", ipv6_addresses());
        run("ip link add veth0 type veth peer name veth1");
        run(&format!("ip link set veth0 master {DEVICE} up"));
        run("ip link set veth1 up");
        assert_eq!(ipv6_addresses().matches(local).count(), 1, "{}", ipv6_addresses());
        assert!(!ipv6_addresses().contains("tentative"), "{}", ipv6_addresses());
        let scope = json(&format!("ip -j link show {DEVICE}"))[0]["ifindex"].as_u64().expect("index");
        let local = "fe80::f816:3eff:fe00:1".parse().expect("address");
        let local = SocketAddrV6::new(local, 0, 0, scope.try_into().expect("index"));
        UdpSocket::bind(local).expect("bind at once");
        assert_settled(&links, &dual());
    });
}

#[test]
fn a_host_that_has_turned_ipv6_off_gets_it_on_the_bridge_alone() {
    in_netns(|| {
        run("sysctl -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        // And gives links a link-local address that does not show the MAC address.
        run("sysctl -w net.ipv6.conf.default.addr_gen_mode=3");
        let links = links();
        links.ensure_bridge(&dual()).expect("ensure");
        assert_settled(&links, &dual());
        assert!(ipv6_addresses().contains("inet6 fe80::f816:3eff:fe00:1/64"), "{}", ipv6_addresses());
        TcpListener::bind(("fd00:1::1", 53)).expect("bind");
        assert_eq!(run("cat /proc/sys/net/ipv6/conf/lo/disable_ipv6"), "1\n");
    });
}

#[test]
fn whatever_is_spoilt_of_ipv6_is_seen_and_repaired_in_place() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&dual()).expect("ensure");
        run("ip link add veth0 type veth peer name veth1");
        run(&format!("ip link set veth0 master {DEVICE} up"));
        run("ip link set veth1 up");
        let index = json(&format!("ip -j link show {DEVICE}"))[0]["ifindex"].clone();
        let all = "10.0.0.1/24, fd00:1::1/64, fd00:2::1/80";
        for (seen_as, spoil) in [
            ("10.0.0.1/24, fd00:2::1/80", "ip addr del fd00:1::1/64 dev DEV"),
            ("10.0.0.1/24", "ip -6 addr flush dev DEV"),
            ("", "ip addr flush dev DEV"),
            ("10.0.0.1/24, fd00:1::1/64, fd00:1::9/64, fd00:2::1/80", "ip addr add fd00:1::9/64 dev DEV nodad"),
            ("10.0.0.1/24, fd00:1::1/64, fd00:2::1/80, fd00:9::9/64", "ip addr add fd00:9::9/64 dev DEV"),
            ("10.0.0.1/24, fd00:1::1/64, fd00:2::1/80, fd00:9::9/128", "ip addr add fd00:9::9 peer fd00:9::8 dev DEV"),
            ("10.0.0.1/24", "sysctl -w net.ipv6.conf.DEV.disable_ipv6=1"),
            // The kernel takes the IPv6 addresses off with the state, and its IPv6 with an MTU that is too small for it.
            ("10.0.0.1/24", "ip link set DEV down"),
            ("10.0.0.1/24", "ip link set DEV mtu 1000"),
            (all, "sysctl -w net.ipv6.conf.DEV.accept_ra=1"),
            (all, "sysctl -w net.ipv6.conf.DEV.autoconf=1"),
            (all, "sysctl -w net.ipv6.conf.DEV.accept_dad=1"),
            (all, "sysctl -w net.ipv6.conf.DEV.addr_gen_mode=0"),
        ] {
            run(&spoil.replace("DEV", DEVICE));
            let facts = seen(&links, "private").expect("still ours");
            assert_eq!(facts["addresses"], seen_as, "{spoil}");
            links.ensure_bridge(&dual()).expect(spoil);
            assert_settled(&links, &dual());
            assert_closed();
            assert!(!ipv6_addresses().contains("tentative"), "{spoil}: {}", ipv6_addresses());
            TcpListener::bind(("fd00:1::1", 53)).expect(spoil);
            let routes = run(&format!("ip -6 route show dev {DEVICE}"));
            for route in ["fd00:1::/64", "fd00:2::/80", "fe80::/64"] {
                assert!(routes.contains(route), "{spoil}: {routes}");
            }
            assert!(ipv6_addresses().contains("inet6 fe80::f816:3eff:fe00:1/64"), "{spoil}: {}", ipv6_addresses());
            assert_eq!(json(&format!("ip -j link show {DEVICE}"))[0]["ifindex"], index, "the same bridge: {spoil}");
        }
        run(&format!("ip addr del fe80::f816:3eff:fe00:1/64 dev {DEVICE}"));
        assert_eq!(seen(&links, "private").expect("ours")["state"], "up, without fe80::f816:3eff:fe00:1/64");
        links.ensure_bridge(&dual()).expect("ensure");
        assert_settled(&links, &dual());
    });
}

#[test]
fn ipv6_of_a_bridge_comes_changes_and_goes() {
    in_netns(|| {
        let links = links();
        links.ensure_bridge(&bridge()).expect("ensure");
        assert_eq!(setting("disable_ipv6"), "1");
        links.ensure_bridge(&dual()).expect("ensure");
        assert_settled(&links, &dual());
        assert_closed();

        let mut moved = dual();
        moved.addresses[1] = "fd00:1::fe/64".parse().expect("net");
        links.ensure_bridge(&moved).expect("ensure");
        assert_settled(&links, &moved);
        // The same address with another prefix.
        moved.addresses[1] = "fd00:1::fe/72".parse().expect("net");
        links.ensure_bridge(&moved).expect("ensure");
        assert_settled(&links, &moved);

        links.ensure_bridge(&bridge()).expect("ensure");
        assert_settled(&links, &bridge());
        assert_eq!(setting("disable_ipv6"), "1");
        assert_eq!(ipv6_addresses(), "");

        let only_v6 = Bridge { addresses: vec!["fd00:1::1/64".parse().expect("net")], ..bridge() };
        links.ensure_bridge(&only_v6).expect("ensure");
        assert_settled(&links, &only_v6);
        let none = Bridge { addresses: Vec::new(), ..bridge() };
        links.ensure_bridge(&none).expect("ensure");
        assert_settled(&links, &none);
        assert_eq!(setting("disable_ipv6"), "1");
    });
}

/// An advertisement that the host heeds on another interface is lost on the bridge, whether that has IPv6 or not.
#[test]
fn no_guest_is_the_hosts_router() {
    let (Some(host), Some(guest)) = (NetNs::new(), NetNs::new()) else { return };
    let links = host.run(links);
    guest.run(|| run("sysctl -w net.ipv6.conf.default.accept_dad=0"));
    host.run(|| {
        links.ensure_bridge(&bridge()).expect("ensure");
        for (ours, theirs) in [("veth0", "eth0"), ("uplink", "eth1")] {
            run(&format!("ip link add {ours} type veth peer name {theirs} netns {}", guest.path()));
            run(&format!("ip link set {ours} up"));
        }
        run(&format!("ip link set veth0 master {DEVICE}"));
    });
    let advertise = || {
        guest.run(|| {
            for interface in ["eth0", "eth1"] {
                run(&format!("ip link set {interface} up"));
                advert::send(interface);
            }
        });
    };
    let learned = |interface: &str| {
        run(&format!("ip -6 route show dev {interface}")).contains("proto ra")
            || run(&format!("ip -6 addr show dev {interface}")).contains("2001:db8:bad:")
    };
    for bridge in [bridge(), dual()] {
        host.run(|| {
            links.ensure_bridge(&bridge).expect("ensure");
            run("ip -6 addr flush dev uplink scope global");
            run("ip -6 route flush proto ra");
            assert!(!learned("uplink"));
        });
        advertise();
        host.run(|| {
            advert::wait_for("the route on the uplink", || learned("uplink"));
            assert!(!learned(DEVICE), "{}", run(&format!("ip -6 route show dev {DEVICE}")));
            assert_settled(&links, &bridge);
        });
    }
    // What a guest got in when somebody had opened the way for it goes again.
    for spoil in ["sysctl -w net.ipv6.conf.DEV.accept_ra=1 net.ipv6.conf.DEV.autoconf=1", "ip link set DEV mtu 1000"] {
        host.run(|| {
            run(&spoil.replace("DEV", DEVICE));
            run(&format!("ip link set {DEVICE} mtu 1450"));
        });
        advertise();
        host.run(|| {
            advert::wait_for("the route on the bridge", || learned(DEVICE));
            links.ensure_bridge(&dual()).expect("ensure");
            assert!(!learned(DEVICE), "{}", run(&format!("ip -6 route show dev {DEVICE}")));
            assert!(learned("uplink"), "what is not ours is left alone");
            assert_settled(&links, &dual());
            assert_closed();
        });
    }
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
            let devices: Vec<_> = seen.objects.values().filter_map(|facts| facts.get("device")).collect();
            assert!(devices.iter().all(|device| *device == DEVICE), "one without its name is none yet: {devices:?}");
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
