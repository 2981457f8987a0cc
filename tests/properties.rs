//! What holds for every spec: checked on random ones, edited at random.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use common::{converge, plan};
use novella::address::PortId;
use novella::blueprint::key::ObjectKind;
use novella::blueprint::object::Object;
use novella::desired::port::Wanted;
use novella::host::Host as _;
use novella::host::recorded::RecordedHost;
use novella::host::sim::SimHost;
use novella::plan::drift::Drift;
use novella::report;
use novella::store::Store as _;
use novella::store::format::{self, Snapshot};
use novella::store::memory::MemoryStore;
use novella::store::sled::SledStore;
use proptest::prelude::*;

/// A spec that is valid by its making.
#[derive(Clone, Debug)]
struct Draft {
    networks: Vec<NetworkDraft>,
    servers: Vec<ServerDraft>,
    ram: u8,
}

#[derive(Clone, Debug)]
struct NetworkDraft {
    forward: &'static str,
    /// How many subnets of 14 hosts it has.
    subnets: u8,
    mtu: u32,
}

#[derive(Clone, Debug)]
struct ServerDraft {
    present: bool,
    networks: BTreeSet<usize>,
    /// The host part of a fixed address in the first subnet of its first network.
    fixed: Option<u8>,
    image: bool,
    on: bool,
}

fn network() -> impl Strategy<Value = NetworkDraft> {
    (prop::sample::select(vec!["nat", "routed", "isolated"]), 1..3u8, prop::sample::select(vec![1400u32, 1500, 9000]))
        .prop_map(|(forward, subnets, mtu)| NetworkDraft { forward, subnets, mtu })
}

fn server() -> impl Strategy<Value = ServerDraft> {
    (
        prop::bool::weighted(0.8),
        prop::collection::btree_set(0..3usize, 1..3),
        prop::option::weighted(0.4, 2..15u8),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(present, networks, fixed, image, on)| ServerDraft { present, networks, fixed, image, on })
}

fn draft() -> impl Strategy<Value = Draft> {
    (prop::collection::vec(network(), 3), prop::collection::vec(server(), 1..9), 1..4u8)
        .prop_map(|(networks, servers, ram)| Draft { networks, servers, ram })
}

impl Draft {
    fn text(&self) -> String {
        let mut text =
            String::from("[host.local]\ndata_dir = \"/data\"\n[image.a]\nsource = \"/a\"\nformat = \"raw\"\n");
        text.push_str("[image.b]\nsource = \"/b\"\nformat = \"qcow2\"\nkernel = \"/k\"\n");
        let _ = write!(text, "[flavor.f]\nram = \"{} MiB\"\ndisk = \"1 GiB\"\n", u32::from(self.ram) * 64);
        for (n, network) in self.networks.iter().enumerate() {
            let _ = write!(text, "[network.n{n}]\nforward = \"{}\"\nmtu = {}\n", network.forward, network.mtu);
            for s in 0..network.subnets {
                let _ = write!(text, "[subnet.n{n}-{s}]\nnetwork = \"n{n}\"\ncidr = \"10.{n}.{s}.0/28\"\n");
            }
        }
        let mut taken = BTreeSet::new();
        for (number, server) in self.servers.iter().enumerate().filter(|(_, server)| server.present) {
            let names: Vec<String> = server.networks.iter().map(|n| format!("\"n{n}\"")).collect();
            let (image, power) = (if server.image { "a" } else { "b" }, if server.on { "on" } else { "off" });
            let _ = write!(
                text,
                "[server.s{number}]\nimage = \"{image}\"\nflavor = \"f\"\npower = \"{power}\"\nnetworks = [{}]\n",
                names.join(", ")
            );
            if let (Some(host), Some(network)) = (server.fixed, server.networks.first())
                && taken.insert((*network, host))
            {
                let _ = writeln!(text, "fixed_ip = \"10.{network}.0.{host}\"");
            }
        }
        text
    }
}

/// The addresses and MACs of all ports, as made.
fn ports(host: &SimHost) -> Vec<(String, Ipv4Addr, String)> {
    let objects = host.objects().into_values();
    objects
        .filter_map(|object| match object {
            Object::HostEntry(entry) => {
                let [only] = &entry.addresses[..] else { panic!("{entry:?}") };
                let IpAddr::V4(address) = only.address else { panic!("{entry:?}") };
                Some((entry.port.to_string(), address, entry.mac.to_string()))
            }
            _ => None,
        })
        .collect()
}

/// Whether novella takes the spec on this host; addresses may be refused to those who want what another has.
fn is_possible(text: &str, store: &MemoryStore, host: &SimHost) -> bool {
    novella::reconcile::plan(&common::desired(text), store.snapshot(), host).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_edits_converges_and_keeps_what_it_can(drafts in prop::collection::vec(draft(), 1..4)) {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        let mut before: Vec<(String, Ipv4Addr, String)> = Vec::new();
        let mut earlier: Option<Draft> = None;
        for draft in drafts {
            let text = draft.text();
            if !is_possible(&text, &store, &host) {
                continue;
            }
            let first = report::plan::render(&plan(&text, store.snapshot(), &host));
            prop_assert_eq!(&first, &report::plan::render(&plan(&text, store.snapshot(), &host)), "plans are stable");
            converge(&text, &host, &store);
            let again = plan(&text, store.snapshot(), &host);
            prop_assert!(again.is_empty(), "{}", report::plan::render(&again));

            let now = ports(&host);
            let addresses: BTreeSet<Ipv4Addr> = now.iter().map(|port| port.1).collect();
            prop_assert_eq!(addresses.len(), now.len(), "addresses are unique: {:?}", now);
            let macs: BTreeSet<(&str, &str)> =
                now.iter().map(|port| (port.0.split('/').nth(1).unwrap_or(""), port.2.as_str())).collect();
            prop_assert_eq!(macs.len(), now.len(), "MACs are unique on a network: {:?}", now);
            for (port, address, _) in &now {
                let [_, network, subnet, last] = address.octets();
                let name = port.split('/').nth(1).unwrap_or("");
                prop_assert_eq!(format!("n{network}"), name, "{} lies in its network", port);
                prop_assert!(subnet < draft.networks[usize::from(network)].subnets && (1..15).contains(&last), "{}", address);
            }
            let desired = common::desired(&text);
            for (port, address, mac) in &now {
                let (server, network) = port.split_once('/').unwrap_or_default();
                let port = PortId::inline(&server.parse().expect("a name"), &network.parse().expect("a name"));
                let fixed = desired.ports[&port].requests.iter().find_map(|request| match request.wanted {
                    Wanted::Address(address) => Some(address),
                    _ => None,
                });
                let port = port.to_string();
                if let Some(fixed) = fixed {
                    prop_assert_eq!(IpAddr::V4(*address), fixed, "a pinned address is given");
                } else if let Some(held) = before.iter().find(|held| held.0 == port)
                    && earlier.as_ref().is_some_and(|earlier| {
                        let [_, network, subnet, _] = held.1.octets();
                        let number = usize::from(network);
                        earlier.networks[number].forward == draft.networks[number].forward
                            && subnet < draft.networks[number].subnets
                    })
                {
                    prop_assert_eq!(*address, held.1, "an address stays with its port");
                    prop_assert_eq!(mac, &held.2, "a MAC stays with its port");
                }
            }
            before = now;
            earlier = Some(draft);
        }
        converge("", &host, &store);
        let left = host.objects().into_keys().filter(|key| key.kind != ObjectKind::Base);
        prop_assert_eq!(left.count(), 0, "destroy leaves nothing but what is cached");
        prop_assert_eq!(store.snapshot().records.len(), 0);
    }

    #[test]
    fn whatever_is_lost_is_made_again_and_nothing_else_is_touched(
        draft in draft(),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        let text = draft.text();
        prop_assume!(is_possible(&text, &store, &host));
        converge(&text, &host, &store);
        let whole = host.objects();
        let keys: Vec<_> = whole.keys().cloned().collect();
        let lost: BTreeSet<_> = lost.iter().map(|index| index.get(&keys).clone()).collect();
        for key in &lost {
            host.lose(key);
        }
        let mend = converge(&text, &host, &store);
        for change in &mend.changes {
            // A domain is touched when its disk or its cable is gone.
            prop_assert!(lost.contains(&change.key) || change.key.kind == ObjectKind::Domain, "{:?}", change);
        }
        prop_assert_eq!(host.objects(), whole);
        prop_assert!(host.broken().is_empty());
    }

    #[test]
    fn a_plan_from_the_records_is_the_plan_from_the_host(before in draft(), after in draft()) {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        prop_assume!(is_possible(&before.text(), &store, &host));
        converge(&before.text(), &host, &store);
        let facts = Some(host.facts().expect("facts"));
        let snapshot = Snapshot { project: None, host: facts.clone(), recorded: store.snapshot() };
        let snapshot = format::decode_snapshot(&format::encode_snapshot(&snapshot).expect("bytes")).expect("a snapshot");
        prop_assert_eq!(&snapshot.recorded, &store.snapshot());
        prop_assert_eq!(&snapshot.host, &facts);
        let text = after.text();
        prop_assume!(is_possible(&text, &store, &host));
        let recorded = RecordedHost::new(&snapshot.recorded, snapshot.host, &common::desired(&text).host);
        let offline = plan(&text, snapshot.recorded.clone(), &recorded);
        let live = plan(&text, store.snapshot(), &host);
        prop_assert_eq!(report::plan::render(&offline), report::plan::render(&live));
        prop_assert!(Drift::new(&snapshot.recorded, &host.observe().expect("observed")).is_none());
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}|(\\[[a-z.\"\\\\]{0,12}\\]\n|[a-z_]{1,8} = [^\n]{0,20}\n){0,12}") {
        let loaded = novella::spec::load::load_texts([("a.toml", text.as_str())]);
        let (_, problems) = novella::desired::resolve(&loaded.spec, &loaded.source);
        let said = report::diagnostics::to_text(&[loaded.diagnostics, problems].concat(), &loaded.source);
        prop_assert!(!said.contains('\x1b'), "an escape got through");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_imported_is_what_was_exported(before in draft(), after in draft()) {
        let worlds = [before, after].map(|draft| {
            let (host, store) = (SimHost::new(), MemoryStore::default());
            if is_possible(&draft.text(), &store, &host) {
                converge(&draft.text(), &host, &store);
            }
            store.snapshot()
        });
        let dir = tempfile::tempdir().expect("a directory");
        let store = SledStore::open(dir.path(), "import").expect("a state");
        let mut serial = 0;
        for world in worlds.iter().chain(&worlds) {
            let bytes = format::encode_export(world).expect("bytes");
            let imported = format::decode_export(&bytes).expect("an export");
            store.replace(&imported).expect("written");
            let loaded = store.load().expect("read");
            prop_assert_eq!(&loaded.records, &world.records);
            prop_assert!(loaded.serial > world.serial.max(serial), "the serial never goes back");
            serial = loaded.serial;
        }
        drop(store);
        let loaded = SledStore::open(dir.path(), "import").expect("a state").load().expect("read");
        prop_assert_eq!((&loaded.records, loaded.serial), (&worlds[1].records, serial));
    }
}
