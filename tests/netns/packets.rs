//! Real packets through bridges and rules: guests, the host and the world outside are network namespaces joined by veth.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use novella::blueprint::HostFacts;
use novella::blueprint::object::{Bridge, Firewall, Object, RuleChain, VirtType};
use novella::host::links::Links;
use novella::plan::world::Recorded;

use crate::firewall::{nft, rule};
use crate::{NetNs, name, run, try_run};

const HOST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ALONE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const ALONE_TOO: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

/// A host with a NAT network `brqnat` (10.0.0.0/24) and an isolated one `brqiso` (10.9.0.0/24), and a world outside
/// that knows the way to both.
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
            for (network, device, address) in [("nat", "brqnat", "10.0.0.1/24"), ("iso", "brqiso", "10.9.0.1/24")] {
                let bridge = Bridge {
                    network: name(network),
                    device: device.into(),
                    mac: format!("fa:16:3e:00:00:{:02x}", network.as_bytes()[0]).parse().expect("mac"),
                    mtu: 1500,
                    addresses: vec![address.parse().expect("net")],
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
                run(&format!("ip link set {port} up"));
            }
            run(&format!("ip addr add {HOST_OUTSIDE}/24 dev veth-o"));
        });
        for (netns, address, gateway) in [
            (&guest, GUEST, Ipv4Addr::new(10, 0, 0, 1)),
            (&alone, ALONE, Ipv4Addr::new(10, 9, 0, 1)),
            (&alone_too, ALONE_TOO, Ipv4Addr::new(10, 9, 0, 1)),
            (&outside, OUTSIDE, HOST_OUTSIDE),
        ] {
            netns.run(|| {
                run(&format!("ip addr add {address}/24 dev eth0"));
                run("ip link set eth0 up");
                run(&format!("ip route add default via {gateway}"));
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

fn reaches(from: &NetNs, to: Ipv4Addr) -> bool {
    from.run(|| try_run(&format!("ping -n -c 1 -W 1 {to}")).0)
}

/// The address under which `server` sees a TCP connection from `client`.
fn source_seen(server: &NetNs, address: Ipv4Addr, client: &NetNs) -> IpAddr {
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

/// The firewall that a spec asks for.
fn firewall_of(text: &str) -> Firewall {
    let loaded = novella::spec::load::load_texts([("spec.toml", text)]);
    let desired = novella::desired::resolve(&loaded.spec, &loaded.source).0.expect("a valid spec");
    let facts = HostFacts { virt_type: VirtType::Qemu, capacity: None };
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
fn connects(server: &NetNs, address: Ipv4Addr, port: u16, client: &NetNs) -> bool {
    let _listener = server.run(|| TcpListener::bind((address, port)).expect("bind"));
    client.run(|| TcpStream::connect_timeout(&(address, port).into(), Duration::from_millis(500)).is_ok())
}

/// Where the kernel hands bridged frames to the packet filter (`br_netfilter`, which Docker loads), a rule that drops
/// what leaves by a bridge also drops what stays on it. So a rule that accepts that must come first.
#[test]
fn bridged_frames_meet_the_rules_where_the_kernel_filters_them() {
    let Some(world) = World::new() else { return };
    const SWITCH: &str = "net.bridge.bridge-nf-call-iptables";
    if !world.host.run(|| try_run(&format!("sysctl -w {SWITCH}=1")).0) {
        return crate::skip("the kernel has no br_netfilter");
    }
    world.set(&firewall(&RULES[1..]));
    assert!(!reaches(&world.alone, ALONE_TOO), "the neighbour is cut off without the accepting rule");
    world.set(&firewall(&RULES));
    assert!(reaches(&world.alone, ALONE_TOO));
    world.host.run(|| run(&format!("sysctl -w {SWITCH}=0")));
    world.set(&firewall(&RULES[1..]));
    assert!(reaches(&world.alone, ALONE_TOO));
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
