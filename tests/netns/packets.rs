//! Real packets through bridges and rules: guests, the host and the world outside are network namespaces joined by veth.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use novella::blueprint::HostFacts;
use novella::blueprint::object::{Bridge, Firewall, Object, RuleChain, VirtType};
use novella::host::links::Links;
use novella::plan::world::Recorded;

use crate::firewall::{nft, rule};
use crate::{NetNs, advert, json, name, run, try_run};

const HOST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ALONE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ALONE_TOO: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

const HOST_OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GUEST_HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 2);
const ALONE_HOST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
const ALONE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 2);
const ALONE_TOO6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 3);

/// A host with a NAT network `brqnat` (10.0.0.0/24, fd00:1::/64) and an isolated one `brqiso` (10.9.0.0/24, fd00:9::/64),
/// and a world outside that knows the way to both.
struct World {
    host: NetNs,
    outside: NetNs,
    guest: NetNs,
    alone: NetNs,
    alone_too: NetNs,
}

impl World {
    fn new() -> Option<Self> {
        let [host, outside, guest, alone, alone_too] =
            [NetNs::new()?, NetNs::new()?, NetNs::new()?, NetNs::new()?, NetNs::new()?];
        host.run(|| {
            let links = Links::new(&name("default")).expect("netlink");
            for (network, device, addresses) in
                [("nat", "brqnat", ["10.0.0.1/24", "fd00:1::1/64"]), ("iso", "brqiso", ["10.9.0.1/24", "fd00:9::1/64"])]
            {
                let bridge = Bridge {
                    network: name(network),
                    device: device.into(),
                    mac: format!("fa:16:3e:00:00:{:02x}", network.as_bytes()[0]).parse().expect("mac"),
                    mtu: 1500,
                    addresses: addresses.map(|net| net.parse().expect("net")).into(),
                };
                links.ensure_bridge(&bridge).expect("ensure");
            }
            for (port, bridge, netns) in [
                ("veth-g", "brqnat", &guest),
                ("veth-a", "brqiso", &alone),
                ("veth-b", "brqiso", &alone_too),
                ("veth-o", "", &outside),
            ] {
                run(&format!("ip link add {port} type veth peer name eth0 netns {}", netns.path()));
                if !bridge.is_empty() {
                    run(&format!("ip link set {port} master {bridge}"));
                }
                run(&format!("sysctl -w net.ipv6.conf.{port}.accept_dad=0"));
                run(&format!("ip link set {port} up"));
            }
            run(&format!("ip addr add {HOST_OUTSIDE}/24 dev veth-o"));
            run(&format!("ip addr add {HOST_OUTSIDE6}/64 dev veth-o nodad"));
        });
        for (netns, address, gateway, address6, gateway6) in [
            (&guest, GUEST, Ipv4Addr::new(10, 0, 0, 1), GUEST6, GUEST_HOST6),
            (&alone, ALONE, Ipv4Addr::new(10, 9, 0, 1), ALONE6, ALONE_HOST6),
            (&alone_too, ALONE_TOO, Ipv4Addr::new(10, 9, 0, 1), ALONE_TOO6, ALONE_HOST6),
            (&outside, OUTSIDE, HOST_OUTSIDE, OUTSIDE6, HOST_OUTSIDE6),
        ] {
            netns.run(|| {
                run("sysctl -w net.ipv6.conf.eth0.accept_dad=0");
                run(&format!("ip addr add {address}/24 dev eth0"));
                run(&format!("ip addr add {address6}/64 dev eth0 nodad"));
                run("ip link set eth0 up");
                run(&format!("ip route add default via {gateway}"));
                run(&format!("ip route add default via {gateway6}"));
            });
        }
        Some(Self { host, outside, guest, alone, alone_too })
    }

    fn set(&self, firewall: &Firewall) {
        self.host.run(|| nft().ensure(firewall).expect("ensure"));
    }
}

fn firewall(rules: &[(RuleChain, &str)]) -> Firewall {
    Firewall {
        table: "novella-default".into(),
        ip_forward: true,
        ip6_forward: false,
        networks: Default::default(),
        rules: rules.iter().map(|(chain, text)| rule(*chain, text)).collect(),
    }
}

const RULES: [(RuleChain, &str); 7] = [
    (RuleChain::Forward, r#"iifname "brqiso" oifname "brqiso" accept"#),
    (RuleChain::Forward, r#"iifname "brqiso" drop"#),
    (RuleChain::Forward, r#"oifname "brqiso" drop"#),
    (RuleChain::Forward, r#"iifname "brqnat" accept"#),
    (RuleChain::Forward, r#"oifname "brqnat" ct state established,related accept"#),
    (RuleChain::Forward, r#"oifname "brqnat" drop"#),
    (RuleChain::Postrouting, r#"ip saddr 10.0.0.0/24 ip daddr != 10.0.0.0/24 oifname != "brqnat" masquerade"#),
];

fn reaches(from: &NetNs, to: impl Into<IpAddr>) -> bool {
    let to = to.into();
    from.run(|| try_run(&format!("ping -n -c 1 -W 1 {to}")).0)
}

/// The address under which `server` sees a TCP connection from `client`.
fn source_seen(server: &NetNs, address: impl Into<IpAddr>, client: &NetNs) -> IpAddr {
    let address = address.into();
    let listener = server.run(|| TcpListener::bind((address, 0)).expect("bind"));
    let to: SocketAddr = listener.local_addr().expect("address");
    let connection = client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connect"));
    let (mut accepted, from) = listener.accept().expect("accept");
    drop(connection);
    assert_eq!(accepted.read(&mut [0]).expect("end"), 0);
    from.ip()
}

#[test]
fn nat_hides_the_guest_and_lets_nobody_in() {
    let Some(world) = World::new() else { return };
    // Without rules all is open: what follows is the rules' work.
    world.set(&firewall(&[]));
    assert_eq!(source_seen(&world.outside, OUTSIDE, &world.guest), GUEST);
    assert!(reaches(&world.outside, GUEST));

    world.set(&firewall(&RULES));
    assert_eq!(source_seen(&world.outside, OUTSIDE, &world.guest), HOST_OUTSIDE);
    assert!(reaches(&world.guest, OUTSIDE));
    assert!(!reaches(&world.outside, GUEST));
    // The host itself is reached under the guest's own address.
    assert_eq!(source_seen(&world.host, Ipv4Addr::new(10, 0, 0, 1), &world.guest), GUEST);
}

#[test]
fn an_isolated_network_is_alone_and_together() {
    let Some(world) = World::new() else { return };
    world.set(&firewall(&[]));
    assert!(reaches(&world.alone, OUTSIDE) && reaches(&world.outside, ALONE) && reaches(&world.guest, ALONE));

    world.set(&firewall(&RULES));
    assert!(!reaches(&world.alone, OUTSIDE));
    assert!(!reaches(&world.outside, ALONE));
    assert!(!reaches(&world.guest, ALONE));
    assert!(!reaches(&world.alone, GUEST));
    assert!(reaches(&world.alone, ALONE_TOO), "neighbours reach each other");
    assert!(reaches(&world.alone, Ipv4Addr::new(10, 9, 0, 1)), "and the host, for DHCP and DNS");
    assert!(reaches(&world.alone_too, ALONE));
}

/// The rules that a spec is lowered to, not some that look like them.
#[test]
fn the_rules_of_a_spec_do_what_its_forward_modes_say() {
    let Some(world) = World::new() else { return };
    world.set(&firewall_of(
        r#"
        [network.nat]
        bridge = "brqnat"
        [subnet.nat]
        network = "nat"
        cidr = "10.0.0.0/24"
        [network.iso]
        bridge = "brqiso"
        forward = "isolated"
        [subnet.iso]
        network = "iso"
        cidr = "10.9.0.0/24"
        "#,
    ));
    let (nat_host, iso_host) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 9, 0, 1));
    assert_eq!(source_seen(&world.outside, OUTSIDE, &world.guest), HOST_OUTSIDE);
    assert!(!reaches(&world.outside, GUEST) && !reaches(&world.alone, GUEST));
    assert!(!reaches(&world.outside, ALONE) && !reaches(&world.guest, ALONE) && !reaches(&world.alone, OUTSIDE));
    assert!(reaches(&world.alone, ALONE_TOO) && reaches(&world.host, ALONE) && reaches(&world.host, GUEST));

    // Of the host, an isolated guest has DNS, DHCP and a ping, at whatever address of it.
    assert!(reaches(&world.alone, iso_host));
    assert!(connects(&world.host, iso_host, 53, &world.alone));
    assert!(
        !connects(&world.host, iso_host, 8080, &world.alone) && !connects(&world.host, nat_host, 8080, &world.alone)
    );
    assert!(connects(&world.host, nat_host, 8080, &world.guest));
}

/// A network of each forward mode with both families.
pub const SPEC: &str = r#"
    [network.first]
    bridge = "brqnat"
    forward = "FIRST"
    [subnet.first]
    network = "first"
    cidr = "10.0.0.0/24"
    [subnet.first6]
    network = "first"
    cidr = "fd00:1::/64"
    [network.iso]
    bridge = "brqiso"
    forward = "isolated"
    [subnet.iso]
    network = "iso"
    cidr = "10.9.0.0/24"
    [subnet.iso6]
    network = "iso"
    cidr = "fd00:9::/64"
"#;

#[test]
fn nat_over_ipv6_hides_the_guest_and_lets_nobody_in() {
    let Some(world) = World::new() else { return };
    let firewall = firewall_of(&SPEC.replace("FIRST", "nat"));
    assert!(firewall.ip_forward && firewall.ip6_forward);
    // Without rules all is open: what follows is the rules' work.
    world.set(&Firewall { rules: Vec::new(), ..firewall.clone() });
    assert_eq!(source_seen(&world.outside, OUTSIDE6, &world.guest), GUEST6);
    assert!(reaches(&world.outside, GUEST6));
    assert!(connects(&world.guest, GUEST6, 8080, &world.outside));

    world.set(&firewall);
    assert_eq!(source_seen(&world.outside, OUTSIDE6, &world.guest), HOST_OUTSIDE6);
    assert!(reaches(&world.guest, OUTSIDE6), "answers come");
    assert!(!reaches(&world.outside, GUEST6));
    assert!(!connects(&world.guest, GUEST6, 8080, &world.outside));
    // The host itself is reached under the guest's own address, and reaches the guest.
    assert_eq!(source_seen(&world.host, GUEST_HOST6, &world.guest), GUEST6);
    assert!(reaches(&world.host, GUEST6));
    // As over IPv4.
    assert_eq!(source_seen(&world.outside, OUTSIDE, &world.guest), HOST_OUTSIDE);
    assert!(!reaches(&world.outside, GUEST));
    // A guest hears that a packet was too big for the way ahead.
    world.host.run(|| run("ip link set veth-o mtu 1280"));
    let said = world.guest.run(|| try_run(&format!("ping -n -c 2 -W 1 -s 1400 -M do {OUTSIDE6}")).1);
    assert!(said.contains("Packet too big: mtu=1280") || said.contains("message too long, mtu: 1280"), "{said}");
}

#[test]
fn routed_over_ipv6_is_open_both_ways_under_ones_own_address() {
    let Some(world) = World::new() else { return };
    let firewall = firewall_of(&SPEC.replace("FIRST", "routed"));
    assert!(firewall.ip_forward && firewall.ip6_forward);
    world.set(&firewall);
    assert_eq!(source_seen(&world.outside, OUTSIDE6, &world.guest), GUEST6);
    assert_eq!(source_seen(&world.guest, GUEST6, &world.outside), OUTSIDE6);
    assert_eq!(source_seen(&world.outside, OUTSIDE, &world.guest), GUEST);
    assert_eq!(source_seen(&world.guest, GUEST, &world.outside), OUTSIDE);
    assert!(!reaches(&world.guest, ALONE6) && !reaches(&world.alone, GUEST6));
}

#[test]
fn an_isolated_network_has_of_the_host_its_services_over_ipv6() {
    let Some(world) = World::new() else { return };
    let firewall = firewall_of(&SPEC.replace("FIRST", "nat"));
    world.set(&Firewall { rules: Vec::new(), ..firewall.clone() });
    assert!(reaches(&world.alone, OUTSIDE6) && reaches(&world.outside, ALONE6) && reaches(&world.guest, ALONE6));

    world.set(&firewall);
    // No one has a neighbour in mind from before.
    for netns in [&world.host, &world.alone, &world.alone_too] {
        netns.run(|| run("ip neigh flush all"));
    }
    for from in [&world.outside, &world.guest] {
        assert!(!reaches(from, ALONE6) && !connects(&world.alone, ALONE6, 8080, from));
    }
    for (server, address) in [(&world.outside, OUTSIDE6), (&world.guest, GUEST6)] {
        assert!(!reaches(&world.alone, address) && !connects(server, address, 8080, &world.alone));
    }
    assert!(reaches(&world.alone, ALONE_TOO6) && reaches(&world.alone_too, ALONE6), "neighbours reach each other");
    assert!(connects(&world.alone_too, ALONE_TOO6, 22, &world.alone));

    // At whatever address of it, the host answers a ping and a question, and nothing else.
    assert!(reaches(&world.alone, ALONE_HOST6) && reaches(&world.host, ALONE6));
    for address in [ALONE_HOST6, GUEST_HOST6, HOST_OUTSIDE6] {
        assert!(!connects(&world.host, address, 22, &world.alone), "{address}");
        assert!(!connects(&world.host, address, 547, &world.alone), "{address}");
    }
    assert!(connects(&world.host, ALONE_HOST6, 53, &world.alone));
    assert!(answers(&world.host, ALONE_HOST6, 53, &world.alone));
    assert!(answers(&world.host, ALONE_HOST6, 547, &world.alone));
    assert!(!answers(&world.host, ALONE_HOST6, 5353, &world.alone));
    // What the host asks of a guest is answered.
    assert!(connects(&world.alone, ALONE6, 22, &world.host));
    // As over IPv4.
    assert!(reaches(&world.alone, ALONE_TOO) && reaches(&world.alone, Ipv4Addr::new(10, 9, 0, 1)));
    assert!(!reaches(&world.alone, OUTSIDE) && !reaches(&world.outside, ALONE));
    assert!(!connects(&world.host, Ipv4Addr::new(10, 9, 0, 1), 22, &world.alone));
}

/// Who is asked for, by whom, and under which address: each in a cache that knows nobody.
#[test]
fn neighbours_find_each_other_under_every_address_of_theirs() {
    let Some(world) = World::new() else { return };
    world.set(&firewall_of(&SPEC.replace("FIRST", "nat")));
    let local_of = |netns: &NetNs, interface: &str| {
        netns.run(|| {
            let addresses = json(&format!("ip -j -6 addr show dev {interface} scope link"));
            let mut found = addresses[0]["addr_info"].as_array().expect("addresses").iter();
            found.find_map(|it| it["local"].as_str()).expect("a link-local address").to_owned()
        })
    };
    let host = local_of(&world.host, "brqiso");
    let alone = local_of(&world.alone, "eth0");
    for (from, to) in [
        (&world.alone, format!("{host}%eth0")),
        (&world.alone, ALONE_HOST6.to_string()),
        (&world.host, format!("{alone}%brqiso")),
        (&world.host, ALONE6.to_string()),
    ] {
        for netns in [&world.host, &world.alone] {
            netns.run(|| run("ip neigh flush all"));
        }
        let (ok, said) = from.run(|| try_run(&format!("ping -n -c 1 -W 1 {to}")));
        assert!(ok, "{to}: {said}");
    }
}

/// A bridge passes multicast only to who asked for it as soon as somebody on it asks who wants what (a querier, RFC 3810).
/// A host that does not hear the question is then no longer found by its neighbours.
#[test]
fn a_guest_that_asks_for_listeners_does_not_make_the_host_unheard() {
    let Some(world) = World::new() else { return };
    world.set(&firewall_of(&SPEC.replace("FIRST", "nat")));
    world.host.run(|| {
        run("ip link set brqiso type bridge mcast_membership_interval 200 mcast_querier_interval 60000");
    });
    // The guest is a bridge that asks.
    world.alone.run(|| {
        run("ip link add asker type bridge mcast_querier 1 mcast_startup_query_interval 30 mcast_query_interval 50");
        run("ip addr flush dev eth0");
        run("ip link set eth0 master asker");
        run("sysctl -w net.ipv6.conf.asker.accept_dad=0");
        run("ip link set asker type bridge mcast_query_response_interval 20");
        run("ip link set asker up");
        run(&format!("ip addr add {ALONE6}/64 dev asker nodad"));
    });
    let known = || world.host.run(|| run("bridge -s mdb show dev brqiso"));
    advert::wait_for("neighbours to be known as listeners", || known().contains("port veth-b grp ff02::1:ff00:3"));
    // For longer than the bridge remembers who listens.
    std::thread::sleep(Duration::from_secs(4));
    world.alone_too.run(|| run("ip neigh flush all"));
    assert!(reaches(&world.alone_too, ALONE_HOST6), "{}", known());
    assert!(reaches(&world.alone_too, ALONE6), "{}", known());
}

/// The firewall that a spec asks for.
pub fn firewall_of(text: &str) -> Firewall {
    let loaded = novella::spec::load::load_texts([("spec.toml", text)]);
    let desired = novella::desired::resolve(&loaded.spec, &loaded.source).0.expect("a valid spec");
    let facts = HostFacts::unknown(VirtType::Qemu);
    let blueprint = novella::blueprint::lower(&desired, &Recorded::default(), &facts).expect("a blueprint");
    blueprint
        .objects
        .into_values()
        .find_map(|object| match object {
            Object::Firewall(firewall) => Some(firewall),
            _ => None,
        })
        .expect("a firewall")
}

/// Whether `client` gets a TCP connection to `server`.
fn connects(server: &NetNs, address: impl Into<IpAddr>, port: u16, client: &NetNs) -> bool {
    let address = address.into();
    let _listener = server.run(|| TcpListener::bind((address, port)).expect("bind"));
    client.run(|| TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(500)).is_ok())
}

/// Whether `client` gets an answer from `server` over UDP.
fn answers(server: &NetNs, address: Ipv6Addr, port: u16, client: &NetNs) -> bool {
    let wait = Some(Duration::from_millis(500));
    let here = server.run(|| UdpSocket::bind((address, port)).expect("bind"));
    let there = client.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind"));
    here.set_read_timeout(wait).expect("timeout");
    there.set_read_timeout(wait).expect("timeout");
    there.send_to(b"?", (address, port)).expect("send");
    let Ok((_, from)) = here.recv_from(&mut [0; 8]) else { return false };
    here.send_to(b"!", from).expect("send");
    there.recv_from(&mut [0; 8]).is_ok()
}

/// Where the kernel hands bridged frames to the packet filter (`br_netfilter`, which Docker loads), a rule that drops
/// what leaves by a bridge also drops what stays on it. So a rule that accepts that must come first.
#[test]
fn bridged_frames_meet_the_rules_where_the_kernel_filters_them() {
    let Some(world) = World::new() else { return };
    for (switch, neighbour) in [
        ("net.bridge.bridge-nf-call-iptables", IpAddr::from(ALONE_TOO)),
        ("net.bridge.bridge-nf-call-ip6tables", IpAddr::from(ALONE_TOO6)),
    ] {
        if !world.host.run(|| try_run(&format!("sysctl -w {switch}=1")).0) {
            return crate::skip("the kernel has no br_netfilter");
        }
        world.set(&firewall(&RULES[1..]));
        assert!(!reaches(&world.alone, neighbour), "{neighbour} is cut off without the accepting rule");
        world.set(&firewall(&RULES));
        // What IPv6 asked for in vain, it asks for again a second later, which is as long as a ping waits.
        world.alone.run(|| run("ip neigh flush all"));
        assert!(reaches(&world.alone, neighbour));
        world.host.run(|| run(&format!("sysctl -w {switch}=0")));
        world.set(&firewall(&RULES[1..]));
        assert!(reaches(&world.alone, neighbour));
    }
}

#[test]
fn a_connection_outlives_every_edit_of_rules_and_bridge() {
    let Some(world) = World::new() else { return };
    world.set(&firewall(&RULES));
    let other = firewall(&RULES[3..]);
    let said = std::thread::scope(|scope| {
        let ping = scope.spawn(|| world.guest.run(|| run(&format!("ping -n -q -i 0.01 -c 150 -W 1 {OUTSIDE}"))));
        world.host.run(|| {
            let links = Links::new(&name("default")).expect("netlink");
            let bridge = |mtu, second: &str| Bridge {
                network: name("nat"),
                device: "brqnat".into(),
                mac: "fa:16:3e:00:00:6e".parse().expect("mac"),
                mtu,
                addresses: vec!["10.0.0.1/24".parse().expect("net"), second.parse().expect("net")],
            };
            while !ping.is_finished() {
                nft().ensure(&other).expect("ensure");
                links.ensure_bridge(&bridge(1400, "10.0.1.1/24")).expect("ensure");
                nft().ensure(&firewall(&RULES)).expect("ensure");
                links.ensure_bridge(&bridge(1500, "10.0.2.1/24")).expect("ensure");
            }
        });
        ping.join().expect("ping")
    });
    assert!(said.contains(" 0% packet loss"), "{said}");
}
