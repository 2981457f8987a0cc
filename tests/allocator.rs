//! The allocator of addresses against a plain model of it, over random lives of a network.
//!
//! The model walks every address of every pool for every port, and knows no shortcuts. Both must give every port the same
//! addresses, or both refuse.

#![allow(clippy::print_stdout, reason = "it says how many sequences it tried")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use novella::blueprint::object::{Object, VirtType};
use novella::blueprint::{self, HostFacts};
use novella::plan::world::{Record, Recorded};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// The addresses of a subnet of the draft, from the first that a host may have to the last.
const V4: (u32, u32) = (1, 14);
const V6: (u32, u32) = (1, 15);

/// What is wanted of the network.
#[derive(Clone, Debug)]
struct Draft {
    /// Which ports there are, by number; those below [`OWN`] are ports of their own.
    ports: BTreeMap<usize, Pin>,
    pools_v4: Vec<(u32, u32)>,
    pools_v6: Vec<(u32, u32)>,
    has_v6: bool,
    has_slaac: bool,
}

/// What a port asks for, by the number of the address.
#[derive(Clone, Copy, Debug, Default)]
struct Pin {
    v4: Option<u32>,
    v6: Option<u32>,
}

const OWN: usize = 4;
const PORTS: usize = 10;

#[derive(Clone, Debug)]
enum Edit {
    Add(usize),
    Remove(usize),
    Pin(usize, Pin),
    ResizeV4(Vec<(u32, u32)>),
    ResizeV6(Vec<(u32, u32)>),
    ToggleV6,
    ToggleSlaac,
}

fn pools(limits: (u32, u32)) -> impl Strategy<Value = Vec<(u32, u32)>> {
    // Two pools at the most, apart from each other and from the gateway.
    (limits.0 + 1..=limits.1, limits.0 + 1..=limits.1, limits.0 + 1..=limits.1).prop_map(|(a, b, c)| {
        let mut ends = [a, b, c];
        ends.sort_unstable();
        let [a, b, c] = ends;
        if b + 1 < c && a < b { vec![(a, b), (b + 2, c.max(b + 2))] } else { vec![(a, c)] }
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let pin = (prop::option::weighted(0.5, V4.0 + 1..=V4.1), prop::option::weighted(0.3, V6.0 + 1..=V6.1));
    prop_oneof![
        5 => (0..PORTS).prop_map(Edit::Add),
        3 => (0..PORTS).prop_map(Edit::Remove),
        3 => (0..PORTS, pin).prop_map(|(port, (v4, v6))| Edit::Pin(port, Pin { v4, v6 })),
        2 => pools(V4).prop_map(Edit::ResizeV4),
        1 => pools(V6).prop_map(Edit::ResizeV6),
        1 => Just(Edit::ToggleV6),
        1 => Just(Edit::ToggleSlaac),
    ]
}

impl Draft {
    fn new() -> Self {
        Self {
            ports: BTreeMap::new(),
            pools_v4: vec![(2, 14)],
            pools_v6: vec![(2, 15)],
            has_v6: true,
            has_slaac: false,
        }
    }

    fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Add(port) => drop(self.ports.entry(*port).or_default()),
            Edit::Remove(port) => drop(self.ports.remove(port)),
            Edit::Pin(port, pin) => {
                if let Some(its) = self.ports.get_mut(port) {
                    *its = *pin;
                }
            }
            Edit::ResizeV4(pools) => self.pools_v4.clone_from(pools),
            Edit::ResizeV6(pools) => self.pools_v6.clone_from(pools),
            Edit::ToggleV6 => self.has_v6 = !self.has_v6,
            Edit::ToggleSlaac => self.has_slaac = !self.has_slaac,
        }
    }

    /// Whether no two ports ask for one address, which the spec itself would refuse.
    fn is_valid(&self) -> bool {
        let unique = |pins: Vec<u32>| pins.iter().collect::<BTreeSet<_>>().len() == pins.len();
        unique(self.ports.values().filter_map(|pin| pin.v4).collect())
            && unique(self.ports.values().filter_map(|pin| pin.v6).collect())
            && (self.has_v6 || self.ports.values().all(|pin| pin.v6.is_none()))
    }

    fn text(&self) -> String {
        let pools = |pools: &[(u32, u32)], address: fn(u32) -> IpAddr| -> Vec<String> {
            pools.iter().map(|(first, last)| format!("\"{}-{}\"", address(*first), address(*last))).collect()
        };
        let mut text = format!(
            "[network.n]\n[subnet.v4]\nnetwork = \"n\"\ncidr = \"10.0.0.0/28\"\npools = [{}]\n",
            pools(&self.pools_v4, v4).join(", ")
        );
        // Writing to a string cannot fail.
        if self.has_v6 {
            let _ = write!(
                text,
                "[subnet.v6]\nnetwork = \"n\"\ncidr = \"fd00::/124\"\nipv6_mode = \"dhcpv6-stateful\"\npools = [{}]\n",
                pools(&self.pools_v6, v6).join(", ")
            );
        }
        if self.has_slaac {
            text.push_str("[subnet.slaac]\nnetwork = \"n\"\ncidr = \"fd01::/64\"\n");
        }
        text.push_str("[image.i]\nsource = \"/i\"\nformat = \"raw\"\n[flavor.f]\nram = \"64 MiB\"\ndisk = \"1 GiB\"\n");
        for (port, pin) in &self.ports {
            let addresses: Vec<String> =
                (pin.v4.map(v4).into_iter().chain(pin.v6.map(v6))).map(|address| format!("\"{address}\"")).collect();
            // Of the version that is not pinned, it takes what the pool gives.
            let mut fixed = addresses;
            if !fixed.is_empty() {
                fixed.extend(pin.v4.is_none().then(|| "{ subnet = \"v4\" }".to_owned()));
                fixed.extend((pin.v6.is_none() && self.has_v6).then(|| "{ subnet = \"v6\" }".to_owned()));
            }
            let fixed = if fixed.is_empty() { String::new() } else { format!("fixed_ips = [{}]", fixed.join(", ")) };
            let _ = if *port < OWN {
                writeln!(text, "[port.p{port}]\nnetwork = \"n\"\n{fixed}")
            } else {
                let comma = if fixed.is_empty() { "" } else { ", " };
                writeln!(
                    text,
                    "[server.s{port}]\nimage = \"i\"\nflavor = \"f\"\nports = [{{ network = \"n\"{comma}{fixed} }}]"
                )
            };
        }
        text
    }
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number))
}

fn v6(number: u32) -> IpAddr {
    IpAddr::V6(std::net::Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(number)))
}

fn name(port: usize) -> String {
    if port < OWN { format!("p{port}") } else { format!("s{port}/n") }
}

/// What the model gives each port, by its number.
type Held = BTreeMap<usize, Numbers>;

/// An address of each version.
type Numbers = (Option<u32>, Option<u32>);

/// The model for one IP version: what each port gets; none where somebody gets nothing, or asks for what another has.
fn model(
    pins: &BTreeMap<usize, Option<u32>>,
    held: &BTreeMap<usize, u32>,
    pools: &[(u32, u32)],
) -> Option<BTreeMap<usize, u32>> {
    let gateway = 1;
    let mut given: BTreeMap<usize, u32> = BTreeMap::new();
    for (port, pin) in pins {
        given.extend(pin.map(|pin| (*port, pin)));
    }
    for (port, pin) in pins {
        let Some(before) = held.get(port).filter(|_| pin.is_none()) else { continue };
        if given.values().any(|taken| taken == before) {
            return None;
        }
        given.insert(*port, *before);
    }
    for port in pins.keys() {
        if !given.contains_key(port) {
            let all = pools.iter().flat_map(|(first, last)| *first..=*last);
            let free =
                all.into_iter().find(|number| *number != gateway && !given.values().any(|taken| taken == number))?;
            given.insert(*port, free);
        }
    }
    Some(given)
}

fn model_of(draft: &Draft, held: &Held) -> Option<Held> {
    let pins = |of: fn(&Pin) -> Option<u32>| draft.ports.iter().map(|(port, pin)| (*port, of(pin))).collect();
    let before =
        |of: fn(&Numbers) -> Option<u32>| held.iter().filter_map(|(port, it)| Some((*port, of(it)?))).collect();
    let four = model(&pins(|pin| pin.v4), &before(|it| it.0), &draft.pools_v4)?;
    let six = match draft.has_v6 {
        true => model(&pins(|pin| pin.v6), &before(|it| it.1), &draft.pools_v6)?,
        false => BTreeMap::new(),
    };
    Some(draft.ports.keys().map(|port| (*port, (four.get(port).copied(), six.get(port).copied()))).collect())
}

/// Plays one life, and tells how many edits of it there were to try.
fn life(edits: &[Edit]) -> Result<usize, TestCaseError> {
    let facts = HostFacts::unknown(VirtType::Qemu);
    let mut steps = 0;
    let (mut draft, mut held, mut recorded) = (Draft::new(), Held::new(), Recorded::default());
    for edit in edits {
        let mut next = draft.clone();
        next.edit(edit);
        if !next.is_valid() {
            continue;
        }
        steps += 1;
        let expected = model_of(&next, &held);
        let chosen = blueprint::lower(&common::desired(&next.text()), &recorded, &facts);
        match (chosen, expected) {
            (Err(_), None) => {}
            (Err(problems), Some(expected)) => panic!("refused: {problems:#?}\nthe model has {expected:?}"),
            (Ok(_), None) => panic!("the model refuses {next:?}"),
            (Ok(blueprint), Some(expected)) => {
                let mut addresses = BTreeSet::new();
                let mut macs = BTreeSet::new();
                for (port, (four, six)) in &expected {
                    let key = novella::blueprint::key::host_entry_key(&name(*port).parse().expect("a port"));
                    let Some(Object::HostEntry(entry)) = blueprint.objects.get(&key) else {
                        panic!("{key} is missing")
                    };
                    let mut wanted: Vec<IpAddr> = four.map(v4).into_iter().chain(six.map(v6)).collect();
                    if next.has_slaac {
                        wanted.push(entry.mac.eui64("fd01::/64".parse().expect("a network")).into());
                    }
                    let mut is: Vec<IpAddr> = entry.addresses.iter().map(|it| it.address).collect();
                    is.sort();
                    prop_assert_eq!(&is, &wanted, "{} after {:?}", key, edit);
                    prop_assert!(is.iter().all(|address| addresses.insert(*address)), "{} is there twice", key);
                    prop_assert!(macs.insert(entry.mac));
                    let inside = |number: &Option<u32>, (_, last)| number.is_none_or(|it| (2..=last).contains(&it));
                    prop_assert!(inside(four, V4) && inside(six, V6), "{:?} {:?}", four, six);
                }
                prop_assert_eq!(
                    blueprint.objects.values().filter(|it| matches!(it, Object::HostEntry(_))).count(),
                    expected.len(),
                    "nothing of a port that went is left"
                );
                let records = blueprint.objects.into_iter().map(|(key, object)| (key, Record::present(object)));
                (draft, held) = (next, expected);
                recorded = Recorded { serial: recorded.serial + 1, records: records.collect() };
            }
        }
    }
    Ok(steps)
}

#[test]
fn ten_thousand_lives_of_a_network() {
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() });
    let steps = std::cell::Cell::new(0);
    let lives = prop::collection::vec(edit(), 1..12);
    let done = runner.run(&lives, |edits| life(&edits).map(|of_it| steps.set(steps.get() + of_it)));
    done.unwrap_or_else(|error| panic!("{error}"));
    println!("measured: 10,000 lives of {} edits", steps.get());
}
