//! After a kill at any instant, the next apply converges, with nothing twice and nothing lost.
//!
//! Every edit below is walked on the strict simulated host. At each deed in turn, on the host and in the store, before its
//! effect and after it, the run is cut off as by `kill -9`; the next run must come to the end, and the plan after it be
//! empty. The simulated host itself refuses whatever breaks an order rule.

#![allow(clippy::print_stdout, reason = "it says how many cuts it tried")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{BASE, DISKS, PORTS, SEEDS, converge, old, plan, plan_anew, walk};
use novella::address::{Address, ResourceKind};
use novella::apply;
use novella::blueprint::HostFacts;
use novella::blueprint::facts::Disruption;
use novella::blueprint::key::{ObjectKey, ObjectKind, base_key};
use novella::blueprint::object::{Claim, Domain, Object, Power};
use novella::host::sim::{Fuse, SimHost, When};
use novella::host::{Host, HostError, Keep};
use novella::plan::diff::{Action, Reason};
use novella::plan::world::{Observed, Record, Recorded};
use novella::plan::{Deed, Plan, Scope};
use novella::reconcile::{self, PlanError};
use novella::report;
use novella::store::memory::MemoryStore;
use novella::store::{Store, StoreError};
use novella::value::{ByteSize, Mac};

/// A host and a store on one fuse.
struct Fused<'a, T: ?Sized>(&'a T, Arc<Fuse>);

impl Host for Fused<'_, dyn Host> {
    fn facts(&self) -> Result<HostFacts, HostError> {
        self.0.facts()
    }
    fn observe(&self) -> Result<Observed, HostError> {
        self.0.observe()
    }
    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        self.1.guard(|| self.0.ensure(object)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn ensure_within(&self, object: &Object, most: Disruption) -> Result<(), HostError> {
        self.1.guard(|| self.0.ensure_within(object, most)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        self.1.guard(|| self.0.remove(key)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn discard(&self, key: &ObjectKey, keep: Option<Keep>) -> Result<(), HostError> {
        self.1.guard(|| self.0.discard(key, keep)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        self.1.guard(|| self.0.release(domain, volumes)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn retire(&self, key: &ObjectKey) -> Result<(), HostError> {
        self.1.guard(|| self.0.retire(key)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        self.1.guard(|| self.0.reload(server)).unwrap_or_else(|| Err(HostError::refused("cut off")))
    }
}

impl Store for Fused<'_, dyn Store> {
    fn load(&self) -> Result<Recorded, StoreError> {
        self.0.load()
    }
    fn put(&self, key: &ObjectKey, record: &Record) -> Result<(), StoreError> {
        self.1.guard(|| self.0.put(key, record)).unwrap_or_else(|| Err(StoreError::refused("cut off")))
    }
    fn forget(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.1.guard(|| self.0.forget(key)).unwrap_or_else(|| Err(StoreError::refused("cut off")))
    }
}

/// What happens between two runs.
enum Change {
    /// The spec is edited: each pair is replaced.
    Edit(&'static [(&'static str, &'static str)]),
    /// Something is taken away on the host.
    Lose(ObjectKind, &'static str),
    /// Something is changed on the host.
    Alter(ObjectKind, &'static str, fn(&mut Object)),
    /// The state is lost, and the host still has everything.
    LoseState,
    /// Everything is to go.
    Destroy,
    /// The last run is asked to make this server anew.
    Replace(&'static str),
    /// Others define a domain, which runs or does not.
    Define(bool),
}

const RENAME: [(&str, &str); 3] = [
    ("[network.private]", "[network.public]"),
    ("network = \"private\"", "network = \"public\""),
    ("[\"private\"", "[\"public\""),
];

const MOVED: [(&str, &str); 2] = [
    ("[image.debian]", "[[moved]]\nfrom = \"image.debian\"\nto = \"image.bookworm\"\n[image.bookworm]"),
    ("image = \"debian\"", "image = \"bookworm\""),
];

fn cases() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Alter, Destroy, Edit, Lose, LoseState};
    use ObjectKind::{Base, Bridge, Dhcp, Disk, Domain, Firewall, HostEntry};
    vec![
        ("from nothing", vec![]),
        ("a server more", vec![Edit(&[("count = 2", "count = 4")])]),
        ("servers less", vec![Edit(&[("count = 2", "count = 0")])]),
        ("more memory", vec![Edit(&[("128 MiB", "256 MiB")])]),
        (
            "a size that running guests can take",
            vec![
                Edit(&[("ram = \"128 MiB\"", "vcpus = 1\nmax_vcpus = 4\nmax_ram = \"1 GiB\"\nram = \"128 MiB\"")]),
                Edit(&[("vcpus = 1", "vcpus = 3"), ("ram = \"128 MiB\"", "ram = \"96 MiB\"")]),
            ],
        ),
        (
            "a size that running guests can take, and what they cannot",
            vec![
                Edit(&[("ram = \"128 MiB\"", "vcpus = 1\nmax_vcpus = 4\nmax_ram = \"1 GiB\"\nram = \"128 MiB\"")]),
                Edit(&[("vcpus = 1", "vcpus = 3"), ("ram = \"128 MiB\"", "ram = \"256 MiB\"")]),
                Edit(&[("vcpus = 3", "vcpus = 2"), ("ram = \"256 MiB\"", "ram = \"128 MiB\"")]),
                Edit(&[("max_vcpus = 4", "max_vcpus = 8"), ("vcpus = 2", "vcpus = 5")]),
            ],
        ),
        (
            "another machine",
            vec![
                Edit(&[("[image.debian]", "[image.debian]\nfirmware = \"uefi\"\ntpm = \"2.0\"")]),
                Edit(&[("firmware = \"uefi\"", "firmware = \"uefi\"\nsecure_boot = true"), ("tpm = \"2.0\"", "")]),
            ],
        ),
        ("a larger disk", vec![Edit(&[("disk = \"1 GiB\"", "disk = \"2 GiB\"")])]),
        ("another image", vec![Edit(&[("image = \"debian\"", "image = \"tiny\"")])]),
        ("a new kernel", vec![Edit(&[("/images/vmlinuz", "/images/vmlinuz-2")])]),
        ("a new version of the image in use", vec![Edit(&[("debian.qcow2", "debian-2.qcow2")])]),
        ("another fixed address", vec![Edit(&[("10.20.0.50", "10.20.0.51")])]),
        (
            "two servers exchange their addresses",
            vec![
                Edit(&[(
                    "[server.spare]",
                    "[server.other]\nimage=\"tiny\"\nflavor=\"small\"\nnetworks=[\"private\"]\n\
                                           fixed_ip=\"10.20.0.51\"\n[server.spare]",
                )]),
                Edit(&[("10.20.0.50", "swap"), ("10.20.0.51", "10.20.0.50"), ("swap", "10.20.0.51")]),
            ],
        ),
        (
            "an address goes from a server that leaves to one that comes",
            vec![Edit(&[("[server.db]", "[server.db-2]")])],
        ),
        (
            "a network more",
            vec![Edit(&[("networks = [\"private\"]\ncount", "networks = [\"private\", \"closed\"]\ncount")])],
        ),
        ("a network less", vec![Edit(&[("\"private\", \"closed\"", "\"private\"")])]),
        ("networks in another order", vec![Edit(&[("\"private\", \"closed\"", "\"closed\", \"private\"")])]),
        ("a bridge is renamed", vec![Edit(&[("[network.private]", "[network.private]\nbridge = \"br-lab\"")])]),
        (
            "two bridges exchange their names",
            vec![
                Edit(&[
                    ("[network.private]", "[network.private]\nbridge = \"br-a\""),
                    ("[network.closed]", "[network.closed]\nbridge = \"br-b\""),
                ]),
                Edit(&[("br-a", "br-c"), ("br-b", "br-a"), ("br-c", "br-b")]),
            ],
        ),
        ("an image is moved", vec![Edit(&MOVED)]),
        (
            "an image is moved, and its disks become larger",
            vec![Edit(&[MOVED[0], MOVED[1], ("\"1 GiB\"", "\"2 GiB\"")])],
        ),
        ("a network is renamed", vec![Edit(&[RENAME[0], RENAME[1], RENAME[2]])]),
        (
            "a network is renamed and keeps its bridge",
            vec![
                Edit(&[("[network.private]", "[network.private]\nbridge = \"br-lab\"")]),
                Edit(&[RENAME[0], RENAME[1], RENAME[2]]),
            ],
        ),
        (
            "two networks exchange their ranges",
            vec![Edit(&[
                ("10.20.0.0/24", "swap"),
                ("10.30.0.0/24", "10.20.0.0/24"),
                ("swap", "10.30.0.0/24"),
                ("fixed_ip", "# "),
            ])],
        ),
        (
            "a range goes from a network to another",
            vec![Edit(&[("10.20.0.0/24", "10.21.0.0/24"), ("10.30.0.0/24", "10.20.0.0/24"), ("fixed_ip", "# ")])],
        ),
        ("another mtu", vec![Edit(&[("[network.private]", "[network.private]\nmtu = 1400")])]),
        ("another forward mode", vec![Edit(&[("\"isolated\"", "\"routed\"")])]),
        ("another range", vec![Edit(&[("10.20.0.0/24", "10.21.0.0/24"), ("10.20.0.50", "10.21.0.50")])]),
        (
            "a network and its server go",
            vec![Edit(&[("\"private\", \"closed\"", "\"private\""), ("[server.spare]", "[server.spare]\ncount = 0")])],
        ),
        (
            "more memory, and a network more",
            vec![Edit(&[
                ("128 MiB", "256 MiB"),
                ("networks = [\"private\"]\ncount", "networks = [\"private\", \"closed\"]\ncount"),
            ])],
        ),
        (
            "unmanaged",
            vec![Edit(&[
                ("count = 2", "count = 2\npower = \"unmanaged\""),
                ("power = \"off\"", "power = \"unmanaged\""),
            ])],
        ),
        (
            "everything about what is unmanaged",
            vec![
                Edit(&[
                    ("count = 2", "count = 2\npower = \"unmanaged\""),
                    ("power = \"off\"", "power = \"unmanaged\""),
                ]),
                Edit(&[
                    ("128 MiB", "256 MiB"),
                    ("disk = \"1 GiB\"", "disk = \"2 GiB\""),
                    ("networks = [\"private\"]\ncount", "networks = [\"closed\", \"private\"]\ncount"),
                ]),
            ],
        ),
        (
            "managed again",
            vec![
                Edit(&[
                    ("count = 2", "count = 2\npower = \"unmanaged\""),
                    ("power = \"off\"", "power = \"unmanaged\""),
                ]),
                Edit(&[("power = \"unmanaged\"", "")]),
            ],
        ),
        ("power off", vec![Edit(&[("count = 2", "count = 2\npower = \"off\"")])]),
        (
            "servers depend on each other",
            vec![
                Edit(&[
                    ("[server.db]", "[server.db]\ndepends_on = [\"spare\"]"),
                    ("count = 2", "count = 2\ndepends_on = [\"db\"]"),
                ]),
                Edit(&[("128 MiB", "256 MiB"), ("10.20.0.50", "10.20.0.51")]),
            ],
        ),
        (
            "servers depend on each other the other way, and go",
            vec![
                Edit(&[("[server.db]", "[server.db]\ndepends_on = [\"web\"]")]),
                Edit(&[("depends_on = [\"web\"]", ""), ("count = 2", "count = 2\ndepends_on = [\"db\"]")]),
                Edit(&[("image = \"debian\"", "image = \"tiny\"")]),
                Destroy,
            ],
        ),
        ("everything goes", vec![Destroy]),
        ("everything goes after a change by hand", vec![Lose(Disk, "web-1"), Lose(Bridge, "private"), Destroy]),
        ("a bridge vanishes", vec![Lose(Bridge, "private")]),
        ("a dnsmasq vanishes", vec![Lose(Dhcp, "private")]),
        ("a host entry vanishes", vec![Lose(HostEntry, "db/closed")]),
        ("a domain vanishes", vec![Lose(Domain, "web-1")]),
        ("a disk vanishes", vec![Lose(Disk, "web-1")]),
        ("a base vanishes", vec![Lose(Base, "")]),
        ("the firewall vanishes", vec![Lose(Firewall, "novella-default")]),
        (
            "a domain is switched off",
            vec![Alter(Domain, "web-1", |object| {
                if let Object::Domain(domain) = object {
                    domain.power = Power::Off;
                }
            })],
        ),
        (
            "a bridge is changed",
            vec![Alter(Bridge, "private", |object| {
                if let Object::Bridge(bridge) = object {
                    bridge.mtu = 9000;
                    bridge.addresses.clear();
                }
            })],
        ),
        ("the state is lost", vec![LoseState]),
        (
            "the state is lost and the spec edited",
            vec![LoseState, Edit(&[("128 MiB", "256 MiB"), ("count = 2", "count = 3")])],
        ),
        (
            "much at once",
            vec![
                Lose(Bridge, "closed"),
                Lose(Domain, "db"),
                Edit(&[
                    ("image = \"debian\"", "image = \"tiny\""),
                    ("count = 2", "count = 3"),
                    ("10.20.0.50", "10.20.0.60"),
                    ("[network.private]", "[network.private]\nbridge = \"br-lab\"\nmtu = 1400"),
                    ("[server.spare]", "[server.extra]"),
                ]),
            ],
        ),
    ]
}

/// Cases in which root disks are made anew, and servers say what may become of them.
fn cases_of_lifecycle() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Alter, Destroy, Edit, Lose, LoseState, Replace};
    use ObjectKind::{Disk, Domain};
    const BESIDE: (&str, &str) = ("count = 2", "count = 2\nlifecycle = { create_before_destroy = true }");
    const IGNORE: (&str, &str) = ("count = 2", "count = 2\nlifecycle = { ignore_changes = [\"all\"] }");
    const TINY: (&str, &str) = ("image = \"debian\"", "image = \"tiny\"");
    vec![
        ("a server is rebuilt", vec![Replace("web-1")]),
        ("a server that is off is rebuilt", vec![Replace("spare")]),
        ("two servers are rebuilt, one of them with a fixed address", vec![Replace("web-2"), Replace("db")]),
        ("rebuilt from a new version", vec![Edit(&[("debian.qcow2", "debian-2.qcow2")]), Replace("web-1")]),
        (
            "rebuilt with all else",
            vec![Edit(&[TINY, ("10.20.0.50", "10.20.0.51"), ("128 MiB", "256 MiB")]), Replace("db")],
        ),
        (
            "rebuilt onto a smaller disk",
            vec![
                Edit(&[("disk = \"1 GiB\"", "disk = \"512 MiB\"")]),
                Replace("web-1"),
                Replace("web-2"),
                Replace("db"),
                Replace("spare"),
            ],
        ),
        ("rebuilt after its disk vanished", vec![Lose(Disk, "web-1"), Replace("web-1")]),
        ("rebuilt after its domain vanished", vec![Lose(Domain, "web-1"), Replace("web-1")]),
        ("rebuilt after the state was lost", vec![LoseState, Replace("web-1")]),
        ("a new server is asked for anew", vec![Edit(&[("count = 2", "count = 3")]), Replace("web-3")]),
        ("beside from nothing", vec![Edit(&[BESIDE])]),
        ("beside, another image", vec![Edit(&[BESIDE]), Edit(&[TINY])]),
        ("beside, another image at once", vec![Edit(&[BESIDE, TINY])]),
        (
            "beside, another image and back",
            vec![
                Edit(&[BESIDE]),
                Edit(&[TINY]),
                Edit(&[(
                    "image = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount",
                    "image = \"debian\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount",
                )]),
            ],
        ),
        (
            "beside, and then not",
            vec![
                Edit(&[BESIDE]),
                Edit(&[TINY]),
                Edit(&[
                    ("create_before_destroy = true", ""),
                    (
                        "image = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount",
                        "image = \"debian\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount",
                    ),
                ]),
            ],
        ),
        ("beside, rebuilt", vec![Edit(&[BESIDE]), Replace("web-1")]),
        (
            "beside, rebuilt with another image and a larger disk",
            vec![Edit(&[BESIDE]), Edit(&[TINY, ("disk = \"1 GiB\"", "disk = \"2 GiB\"")]), Replace("web-1")],
        ),
        ("beside, off", vec![Edit(&[BESIDE, ("count = 2", "count = 2\npower = \"off\"")]), Edit(&[TINY])]),
        (
            "beside, where others start and stop it",
            vec![Edit(&[BESIDE, ("count = 2", "count = 2\npower = \"unmanaged\"")]), Edit(&[TINY])],
        ),
        ("beside, and its disk vanished", vec![Edit(&[BESIDE]), Lose(Disk, "web-1"), Edit(&[TINY])]),
        (
            "beside, and much at once",
            vec![
                Edit(&[BESIDE]),
                Edit(&[
                    TINY,
                    ("128 MiB", "256 MiB"),
                    ("networks = [\"private\"]\ncount", "networks = [\"private\", \"closed\"]\ncount"),
                    ("[network.private]", "[network.private]\nbridge = \"br-lab\""),
                ]),
            ],
        ),
        ("beside, and the state is lost", vec![Edit(&[BESIDE]), Edit(&[TINY]), LoseState]),
        ("beside, another image, and everything goes", vec![Edit(&[BESIDE]), Edit(&[TINY]), Destroy]),
        (
            "a disk is put over another base by hand, beside",
            vec![
                Edit(&[BESIDE]),
                Alter(Disk, "web-1", |object| {
                    if let Object::Disk(disk) = object {
                        disk.base = None;
                    }
                }),
            ],
        ),
        (
            "guarded",
            vec![Edit(&[
                ("count = 2", "count = 2\nlifecycle = { prevent_destroy = true }"),
                ("[network.private]", "[network.private]\nlifecycle = { prevent_destroy = true }"),
            ])],
        ),
        (
            "guarded, changed and no more",
            vec![
                Edit(&[("count = 2", "count = 2\nlifecycle = { prevent_destroy = true }")]),
                Edit(&[("128 MiB", "256 MiB")]),
                Edit(&[("prevent_destroy = true", "prevent_destroy = false"), TINY]),
            ],
        ),
        (
            "guarded, and the state is lost",
            vec![Edit(&[("count = 2", "count = 2\nlifecycle = { prevent_destroy = true }")]), LoseState],
        ),
        ("all is ignored", vec![Edit(&[IGNORE])]),
        (
            "all is ignored, and all changes",
            vec![
                Edit(&[IGNORE]),
                Edit(&[
                    TINY,
                    ("[flavor.small]", "[flavor.more]\nvcpus = 2\nram = \"1 GiB\"\ndisk = \"3 GiB\"\n[flavor.small]"),
                    (
                        "networks = [\"private\"]\ncount",
                        "networks = [\"closed\"]\nuser_data = \"x\"\npower = \"off\"\nshutdown_timeout = 5\ndepends_on = [\"db\"]\ncount",
                    ),
                    (
                        "flavor = \"small\"\nnetworks = [\"closed\"]\nuser",
                        "flavor = \"more\"\nnetworks = [\"closed\"]\nuser",
                    ),
                ]),
            ],
        ),
        (
            "what was ignored is not any more",
            vec![
                Edit(&[IGNORE]),
                Edit(&[TINY, ("networks = [\"private\"]\ncount", "networks = [\"closed\"]\nuser_data = \"x\"\ncount")]),
                Edit(&[("[\"all\"]", "[]")]),
            ],
        ),
        (
            "all is ignored, and rebuilt",
            vec![
                Edit(&[IGNORE]),
                Edit(&[TINY, ("networks = [\"private\"]\ncount", "networks = [\"closed\"]\nuser_data = \"x\"\ncount")]),
                Replace("web-1"),
            ],
        ),
    ]
}

/// Cases of what [`PORTS`] adds.
fn cases_of_ports() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Alter, Destroy, Edit, Lose, LoseState};
    use ObjectKind::{Bridge, Dhcp, HostEntry};
    const APP: &str = "ports = [\"vip\", { network = \"private\" }]";
    const CACHE: &str = "ports = [{ network = \"lab\", dns_name = \"redis\" }]";
    const SLAAC: &str = "[subnet.lab-slaac]\nnetwork = \"lab\"\ncidr = \"fd40::/64\"\n";
    vec![
        ("ports from nothing", vec![]),
        (
            "a port goes from a server to another",
            vec![Edit(&[(APP, "ports = [\"free\"]"), (CACHE, "ports = [\"vip\"]")])],
        ),
        (
            "two servers exchange their ports",
            vec![
                Edit(&[(APP, "ports = [\"vip\"]"), (CACHE, "ports = [\"free\"]")]),
                Edit(&[
                    ("ports = [\"vip\"]", "ports = [\"swap\"]"),
                    ("ports = [\"free\"]", "ports = [\"vip\"]"),
                    ("ports = [\"swap\"]", "ports = [\"free\"]"),
                ]),
            ],
        ),
        (
            "a port is moved",
            vec![Edit(&[
                ("[port.vip]", "[[moved]]\nfrom = \"port.vip\"\nto = \"port.front\"\n[port.front]"),
                ("\"vip\"", "\"front\""),
            ])],
        ),
        ("the server of a port goes", vec![Edit(&[("[server.app]", "[server.app]\ncount = 0")])]),
        ("the server of a port goes, and another comes to it", vec![Edit(&[("[server.app]", "[server.app-2]")])]),
        ("ports in another order", vec![Edit(&[(APP, "ports = [{ network = \"private\" }, \"vip\"]")])]),
        ("a port gets another address", vec![Edit(&[("10.40.0.40", "10.40.0.41")])]),
        (
            "two ports exchange their addresses",
            vec![
                Edit(&[(
                    "[port.free]\nnetwork = \"lab\"",
                    "[port.free]\nnetwork = \"lab\"\nfixed_ips = [\"10.40.0.41\"]",
                )]),
                Edit(&[("10.40.0.40", "swap"), ("10.40.0.41", "10.40.0.40"), ("swap", "10.40.0.41")]),
            ],
        ),
        ("a port gets another MAC", vec![Edit(&[("[port.vip]", "[port.vip]\nmac_address = \"fa:16:3e:00:00:01\"")])]),
        (
            "a port goes to another network",
            vec![Edit(&[("[port.free]\nnetwork = \"lab\"", "[port.free]\nnetwork = \"closed\"")])],
        ),
        ("a cable is pulled", vec![Edit(&[("[port.vip]", "[port.vip]\nadmin_state_up = false")])]),
        ("another name in DNS", vec![Edit(&[("redis", "valkey")])]),
        ("another option", vec![Edit(&[("pxelinux.0", "ipxe.efi")])]),
        ("an option less", vec![Edit(&[("extra_dhcp_opts", "# ")])]),
        ("another domain", vec![Edit(&[("lab.internal", "other.internal")])]),
        ("another record", vec![Edit(&[("dns_record.www", "dns_record.web")])]),
        ("other routes", vec![Edit(&[("10.99.0.0/16", "10.98.0.0/16")])]),
        ("an IPv6 subnet less", vec![Edit(&[(SLAAC, "")])]),
        (
            "an IPv6 subnet more",
            vec![
                Edit(&[(SLAAC, "")]),
                Edit(&[(
                    "[subnet.lab-v6]",
                    "[subnet.lab-more]\nnetwork = \"lab\"\ncidr = \"fd42::/64\"\n[subnet.lab-v6]",
                )]),
            ],
        ),
        ("another mode of IPv6", vec![Edit(&[("fd40::/64\"", "fd40::/64\"\nipv6_mode = \"dhcpv6-stateful\"")])]),
        ("no DHCP any more", vec![Edit(&[("ipv6_mode = \"dhcpv6-stateful\"", "dhcp = false")])]),
        (
            "entries change in every way, and their network too",
            vec![Edit(&[
                ("10.40.0.40", "10.40.0.41"),
                ("redis", "valkey"),
                ("10.99.0.0/16", "10.98.0.0/16"),
                ("[port.free]\nnetwork = \"lab\"", "[port.other]\nnetwork = \"lab\""),
                ("count = 2", "count = 1"),
            ])],
        ),
        (
            "entries change, and their network does not",
            vec![Edit(&[
                ("10.40.0.40", "10.40.0.41"),
                ("redis", "valkey"),
                ("[port.free]\nnetwork = \"lab\"", "[port.other]\nnetwork = \"lab\""),
            ])],
        ),
        ("a network with all of it vanishes", vec![Lose(Bridge, "lab"), Lose(Dhcp, "lab"), Lose(HostEntry, "vip")]),
        (
            "an option is changed by hand",
            vec![Alter(HostEntry, "vip", |object| {
                if let Object::HostEntry(entry) = object {
                    entry.options.clear();
                    entry.hostname = "other".into();
                }
            })],
        ),
        ("the state is lost, with ports", vec![LoseState]),
        (
            "the state is lost, with ports, and the spec edited",
            vec![LoseState, Edit(&[("redis", "valkey"), (SLAAC, "")])],
        ),
        ("everything goes, with ports", vec![Destroy]),
    ]
}

/// Cases of what [`SEEDS`] adds.
fn cases_of_seeds() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Alter, Destroy, Edit, Lose, LoseState, Replace};
    use ObjectKind::{Disk, Domain, Seed};
    vec![
        ("seeds from nothing", vec![]),
        ("other user data", vec![Edit(&[("hunter2", "hunter3")])]),
        ("other user data, and back", vec![Edit(&[("hunter2", "hunter3")]), Edit(&[("hunter3", "hunter2")])]),
        ("another way to be told", vec![Edit(&[("config_drive = true", "config_drive = false")])]),
        ("another key", vec![Edit(&[("key_pairs = [\"me\"]", "key_pairs = []")])]),
        ("a seed less", vec![Edit(&[("metadata = ", "# "), ("key_pairs = ", "# "), ("config_drive = ", "# ")])]),
        (
            "a seed more",
            vec![
                Edit(&[("metadata = ", "# "), ("key_pairs = ", "# "), ("config_drive = ", "# ")]),
                Edit(&[("# { role", "metadata = { role"), ("# true", "config_drive = true")]),
            ],
        ),
        ("a server with a seed less", vec![Edit(&[("count = 3", "count = 1")])]),
        (
            "to be rebuilt from now on",
            vec![Edit(&[("config_drive", "on_user_data_change = \"rebuild\"\nconfig_drive")])],
        ),
        ("nothing any more is to change", vec![Edit(&[("\"rebuild\"", "\"ignore\""), ("hunter2", "hunter3")])]),
        (
            "rebuilt with another image",
            vec![Edit(&[("hunter2", "hunter3"), ("image = \"debian\"", "image = \"tiny\"")])],
        ),
        ("an address that nobody hands out", vec![Edit(&[("10.50.0.9", "10.50.0.10")])]),
        ("now somebody hands it out", vec![Edit(&[("dhcp = false", "dhcp = true")])]),
        ("a seed vanishes", vec![Lose(Seed, "fixed")]),
        ("a seed vanishes that was not to change", vec![Edit(&[("hunter2", "hunter3")]), Lose(Seed, "same")]),
        ("a seed and its disk vanish", vec![Lose(Seed, "anew"), Lose(Disk, "anew"), Lose(Domain, "anew")]),
        (
            "a drive is emptied",
            vec![Alter(Domain, "fixed", |object| {
                if let Object::Domain(domain) = object {
                    domain.seed = None;
                }
            })],
        ),
        ("the state is lost, with seeds", vec![LoseState]),
        ("the state is lost, with seeds, and the spec edited", vec![LoseState, Edit(&[("hunter2", "hunter3")])]),
        ("rebuilt, and told anew", vec![Replace("many-1"), Replace("next"), Replace("same"), Replace("anew")]),
        ("rebuilt after other user data", vec![Edit(&[("hunter2", "hunter3")]), Replace("same")]),
        (
            "beside, with seeds",
            vec![
                Edit(&[("on_user_data_change", "lifecycle = { create_before_destroy = true }\non_user_data_change")]),
                Edit(&[("hunter2", "hunter3"), ("image = \"debian\"", "image = \"tiny\"")]),
            ],
        ),
        ("everything goes, with seeds", vec![Destroy]),
    ]
}

/// Cases of what [`DISKS`] adds.
fn cases_of_disks() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Alter, Destroy, Edit, Lose, LoseState};
    use ObjectKind::{Disk, Domain, Volume};
    const ONE: &str = "volumes = [\"data\", { volume = \"logs\", bus = \"scsi\", cache = \"none\" }]";
    const OTHER: &str = "volumes = [\"copy\"]";
    vec![
        ("disks from nothing", vec![]),
        ("a volume goes to another", vec![Edit(&[("\"data\", ", ""), (OTHER, "volumes = [\"copy\", \"data\"]")])]),
        (
            "two servers exchange their volumes",
            vec![Edit(&[
                (ONE, "volumes = [\"copy\"]"),
                ("# other\nvolumes = [\"copy\"]", "volumes = [\"data\", \"logs\"]"),
            ])],
        ),
        (
            "a volume on SATA goes to another, and back",
            vec![
                Edit(&[("\"data\", ", "{ volume = \"data\", bus = \"sata\" }, ")]),
                Edit(&[("{ volume = \"data\", bus = \"sata\" }, ", ""), (OTHER, "volumes = [\"copy\", \"data\"]")]),
                Edit(&[(", \"data\"]", "]"), ("{ volume = \"logs\"", "\"data\", { volume = \"logs\"")]),
            ],
        ),
        ("a volume goes to one that is off", vec![Edit(&[("\"data\", ", ""), ("# off", "volumes = [\"data\"]")])]),
        (
            "a volume comes from one that is off",
            vec![
                Edit(&[("\"data\", ", ""), ("# off", "volumes = [\"data\"]")]),
                Edit(&[("volumes = [\"data\"]", ""), (OTHER, "volumes = [\"copy\", \"data\"]")]),
            ],
        ),
        ("a volume is detached", vec![Edit(&[("\"data\", ", "")])]),
        ("a volume is attached", vec![Edit(&[("\"data\", ", "")]), Edit(&[(OTHER, "volumes = [\"copy\", \"data\"]")])]),
        ("a volume goes", vec![Edit(&[("\"data\", ", ""), ("[volume.data]\nsize = \"1 GiB\"\n", "")])]),
        ("a volume grows", vec![Edit(&[("[volume.data]\nsize = \"1 GiB\"", "[volume.data]\nsize = \"2 GiB\"")])]),
        (
            "a volume grows and goes to another",
            vec![Edit(&[
                ("[volume.data]\nsize = \"1 GiB\"", "[volume.data]\nsize = \"2 GiB\""),
                ("\"data\", ", ""),
                (OTHER, "volumes = [\"copy\", \"data\"]"),
            ])],
        ),
        ("a volume is of another format", vec![Edit(&[("[volume.data]", "[volume.data]\nformat = \"raw\"")])]),
        (
            "a volume is of another format and goes to another",
            vec![Edit(&[
                ("[volume.data]", "[volume.data]\nformat = \"raw\""),
                ("\"data\", ", ""),
                (OTHER, "volumes = [\"copy\", \"data\"]"),
            ])],
        ),
        (
            "volumes are made anew and exchanged",
            vec![Edit(&[
                (ONE, "volumes = [\"copy\"]"),
                ("# other\nvolumes = [\"copy\"]", "volumes = [\"data\", \"logs\"]"),
                ("[volume.data]", "[volume.data]\nformat = \"raw\""),
                ("[volume.copy]", "[volume.copy]\nformat = \"raw\""),
            ])],
        ),
        (
            "a volume is of another image",
            vec![Edit(&[("[volume.copy]\nimage = \"debian\"", "[volume.copy]\nimage = \"tiny\"")])],
        ),
        ("a new version of the image of a volume", vec![Edit(&[("debian.qcow2", "debian-2.qcow2")])]),
        ("another bus", vec![Edit(&[("bus = \"scsi\"", "bus = \"virtio\"")])]),
        ("another cache", vec![Edit(&[("cache = \"none\"", "cache = \"unsafe\"")])]),
        (
            "another bus of the root disk",
            vec![Edit(&[("root_disk = { cache = \"none\" }", "root_disk = { bus = \"sata\" }")])],
        ),
        ("a disk less", vec![Edit(&[("{ name = \"scratch\", size = \"1 GiB\" }, ", "")])]),
        ("a disk more", vec![Edit(&[("disks = [", "disks = [{ name = \"more\", size = \"1 GiB\" }, ")])]),
        ("another ephemeral disk", vec![Edit(&[("ephemeral = \"1 GiB\"", "ephemeral = \"2 GiB\"")])]),
        ("no ephemeral disk", vec![Edit(&[("ephemeral = \"1 GiB\"", "")])]),
        ("another swap", vec![Edit(&[("swap = \"64 MiB\"", "swap = \"32 MiB\"")])]),
        ("no swap", vec![Edit(&[("swap = \"64 MiB\"", "")])]),
        (
            "unmanaged, and swap is another",
            vec![
                Edit(&[("# other", "power = \"unmanaged\"")]),
                Edit(&[("swap = \"64 MiB\"", "swap = \"32 MiB\""), (OTHER, "")]),
            ],
        ),
        (
            "a raw disk goes, and the image that it was a copy of",
            vec![
                Edit(&[
                    ("image = \"tiny\" }]", "image = \"other\" }]"),
                    ("[image.tiny]", "[image.other]\nsource = \"/images/other.raw\"\nformat = \"raw\"\n[image.tiny]"),
                ]),
                Edit(&[
                    (", { name = \"raw\", size = \"1 GiB\", format = \"raw\", image = \"other\" }", ""),
                    ("[image.other]\nsource = \"/images/other.raw\"\nformat = \"raw\"\n", ""),
                ]),
            ],
        ),
        (
            "a disk vanishes, and goes with the image that it lay over",
            vec![
                Edit(&[
                    ("image = \"debian\"\nsize", "image = \"other\"\nsize"),
                    ("[image.tiny]", "[image.other]\nsource = \"/images/other.raw\"\nformat = \"raw\"\n[image.tiny]"),
                ]),
                Lose(Volume, "copy"),
                Edit(&[
                    ("[volume.copy]\nimage = \"other\"\nsize = \"1 GiB\"\n", ""),
                    ("[\"copy\"]", "[]"),
                    ("[image.other]\nsource = \"/images/other.raw\"\nformat = \"raw\"\n", ""),
                ]),
            ],
        ),
        ("a server with disks less", vec![Edit(&[("count = 2", "count = 1")])]),
        ("a server with a volume goes, and another comes to it", vec![Edit(&[("[server.one]", "[server.other-one]")])]),
        ("a volume vanishes", vec![Lose(Volume, "data")]),
        ("a disk and its domain vanish", vec![Lose(Volume, "many-1/scratch"), Lose(Domain, "many-1")]),
        ("a disk and a volume vanish", vec![Lose(Disk, "one"), Lose(Volume, "one/swap"), Lose(Volume, "logs")]),
        (
            "a disk is taken out by hand",
            vec![Alter(Domain, "one", |object| {
                if let Object::Domain(domain) = object {
                    domain.disks.clear();
                }
            })],
        ),
        ("the state is lost, with disks", vec![LoseState]),
        (
            "the state is lost, with disks, and the spec edited",
            vec![LoseState, Edit(&[("\"data\", ", ""), (OTHER, "volumes = [\"copy\", \"data\"]")])],
        ),
        ("everything goes into the trash", vec![Destroy]),
        ("everything goes for good", vec![Edit(&[("trash_ttl = \"7d\"", "trash_ttl = \"0\"")]), Edit(&[]), Destroy]),
    ]
}

const IMPORT: (&str, &str) = (
    "[server.db]",
    "[server.taken]\nimage = \"debian\"\nflavor = \"half\"\nnetworks = [\"private\", \"closed\"]\n[flavor.half]\nram = \"128 MiB\"\n\
     disk = \"512 MiB\"\n[[import]]\nto = \"server.taken\"\nid = \"old-web\"\n[server.db]",
);

const NO_IMPORT: (&str, &str) = ("[[import]]\nto = \"server.taken\"\nid = \"old-web\"\n", "");

fn cases_of_imports() -> Vec<(&'static str, Vec<Change>)> {
    use Change::{Define, Destroy, Edit, Lose, LoseState, Replace};
    use ObjectKind::Domain;
    const TAKEN: (&str, &str) =
        ("[server.taken]\nimage = \"debian\"\nflavor = \"half\"\nnetworks = [\"private\", \"closed\"]\n", "");
    const OTHER: (&str, &str) = ("[server.taken]\nimage = \"debian\"", "[server.taken]\nimage = \"tiny\"");
    const BESIDE: (&str, &str) = ("[server.taken]", "[server.taken]\nlifecycle = { create_before_destroy = true }");
    const LARGER: (&str, &str) = ("disk = \"512 MiB\"", "disk = \"2 GiB\"");
    vec![
        ("a domain is taken over that is off", vec![Define(false), Edit(&[IMPORT])]),
        ("a domain is taken over that runs", vec![Define(true), Edit(&[IMPORT])]),
        ("a domain is taken over, and its disk grows", vec![Define(false), Edit(&[IMPORT, LARGER])]),
        ("what was taken over grows", vec![Define(true), Edit(&[IMPORT]), Edit(&[LARGER])]),
        ("what was taken over loses its block", vec![Define(true), Edit(&[IMPORT]), Edit(&[NO_IMPORT])]),
        ("what was taken over goes", vec![Define(true), Edit(&[IMPORT]), Edit(&[NO_IMPORT, TAKEN])]),
        ("what was taken over is destroyed", vec![Define(true), Edit(&[IMPORT]), Edit(&[]), Destroy]),
        ("what was taken over gets another image", vec![Define(true), Edit(&[IMPORT]), Edit(&[OTHER])]),
        ("what was taken over gets another image beside", vec![Define(true), Edit(&[IMPORT]), Edit(&[OTHER, BESIDE])]),
        ("what was taken over is made anew", vec![Define(true), Edit(&[IMPORT]), Edit(&[]), Replace("taken")]),
        ("what was taken over, with the state lost", vec![Define(false), Edit(&[IMPORT]), Edit(&[]), LoseState]),
        (
            "what was taken over, with the state and the block lost",
            vec![Define(false), Edit(&[IMPORT]), Edit(&[NO_IMPORT]), LoseState],
        ),
        ("what was taken over vanishes", vec![Define(true), Edit(&[IMPORT]), Edit(&[]), Lose(Domain, "taken")]),
    ]
}

/// All cases, each with the spec that it begins with.
fn all_cases() -> Vec<(&'static str, String, Vec<Change>)> {
    let base = cases()
        .into_iter()
        .chain(cases_of_lifecycle())
        .chain(cases_of_imports())
        .map(|(case, changes)| (case, BASE.to_owned(), changes));
    let ports = cases_of_ports().into_iter().map(|(case, changes)| (case, format!("{BASE}{PORTS}"), changes));
    // Without other servers, for the sake of time.
    let alone = BASE.split("[server.web]").next().expect("a beginning");
    let seeds = cases_of_seeds().into_iter().map(|(case, changes)| (case, format!("{alone}{SEEDS}"), changes));
    let disks = format!("{}{DISKS}", alone.replace("data_dir", "trash_ttl = \"7d\"\ndata_dir"));
    let disks = cases_of_disks().into_iter().map(|(case, changes)| (case, disks.clone(), changes));
    base.chain(ports).chain(seeds).chain(disks).collect()
}

/// The host and the store as they are before the last run of a case, and the spec of that run.
fn prepare(spec: &str, changes: &[Change], twice: bool) -> (SimHost, MemoryStore, String) {
    let host = SimHost::new().twice(twice);
    let mut store = MemoryStore::default();
    let mut text = spec.to_owned();
    if !changes.is_empty() {
        converge(&text, &host, &store);
    }
    let edits = changes.iter().filter(|change| matches!(change, Change::Edit(_))).count();
    let mut edited = 0;
    for change in changes {
        match change {
            Change::Edit(pairs) => {
                for (old, new) in *pairs {
                    assert!(text.contains(old), "{old:?} is not in the spec");
                    text = text.replace(old, new);
                }
                edited += 1;
                if edited < edits {
                    converge(&text, &host, &store);
                }
            }
            Change::Lose(ObjectKind::Base, _) => {
                let id = host.objects().into_keys().find(|key| key.kind == ObjectKind::Base).expect("a base").id;
                assert!(host.lose(&base_key(&id)));
            }
            Change::Lose(kind, id) => assert!(host.lose(&ObjectKey::new(*kind, *id)), "there is no {kind} {id}"),
            Change::Alter(kind, id, alter) => assert!(host.alter(&ObjectKey::new(*kind, *id), alter)),
            Change::LoseState => store = MemoryStore::default(),
            Change::Destroy => text.clear(),
            Change::Replace(_) => {}
            Change::Define(on) => host.define(old(), ByteSize::mib(512), *on),
        }
    }
    (host, store, text)
}

/// The plan of the last run of a case.
fn plan_last(text: &str, changes: &[Change], recorded: Recorded, host: &SimHost) -> Plan {
    let replace: Vec<String> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Replace(server) => Some(format!("server.{server}")),
            _ => None,
        })
        .collect();
    if replace.is_empty() { plan(text, recorded, host) } else { plan_anew(text, &replace, false, recorded, host) }
}

fn assert_settled(case: &str, text: &str, host: &SimHost, store: &MemoryStore) {
    let plan = plan(text, store.snapshot(), host);
    assert!(plan.is_empty(), "{case}: the plan is not empty:\n{}", report::plan::render(&plan));
    assert_eq!(host.broken(), Vec::<String>::new(), "{case}");
    assert!(plan.left_alone.is_empty(), "{case}: {:?} is left", plan.left_alone);
    let made: Vec<ObjectKey> = store.snapshot().records.into_keys().collect();
    // What was fetched stays in the cache.
    let is_kept = |key: &ObjectKey| key.kind == ObjectKind::Base && !made.contains(key);
    let there: Vec<ObjectKey> = host.objects().into_keys().filter(|key| !is_kept(key)).collect();
    assert_eq!(made, there, "{case}: what is recorded is not what is there");
}

/// Wherever it is cut off, what others defined keeps what it is, and its disk is where it was.
#[test]
fn what_is_taken_over_stays_what_it_is_wherever_the_run_is_cut_off() {
    let text = BASE.replace(IMPORT.0, IMPORT.1);
    let key = ObjectKey::new(ObjectKind::Domain, "taken");
    for (on, defers) in [(false, false), (true, false), (true, true)] {
        for when in [When::Before, When::After] {
            for deed in 0.. {
                let (host, store) = (SimHost::new(), MemoryStore::default());
                host.define(old(), ByteSize::mib(512), on);
                let fuse = Fuse::new(deed, when);
                let first = plan(&text, store.snapshot(), &host);
                let change = first.changes.iter().find(|change| change.key == key).expect("an import");
                let cost = if on { Disruption::Reboot } else { Disruption::None };
                assert_eq!((&change.reason, change.cost()), (&Reason::Imported("old-web".into()), cost));
                let first = if defers { first.defer_reboots() } else { first };
                let fused_host = Fused::<dyn Host>(&host, Arc::clone(&fuse));
                walk(&first, &fused_host, &Fused::<dyn Store>(&store, Arc::clone(&fuse)), 1);
                let second = plan(&text, store.snapshot(), &host);
                let second = if defers { second.defer_reboots() } else { second };
                assert!(walk(&second, &host, &store, 1).is_complete());
                assert_settled(&format!("{on} {defers}, cut {when:?} deed {deed}"), &text, &host, &store);
                let Object::Domain(is) = host.objects()[&key].clone() else { panic!("a domain") };
                let macs = |domain: &Domain| domain.nics.iter().map(|nic| nic.mac).collect::<Vec<Mac>>();
                let (was, kept) = (old(), |it: &Domain| (it.name.clone(), it.uuid, it.disk.clone(), macs(it)));
                assert_eq!(kept(&is), kept(&was));
                assert_eq!(host.files(), [(was.disk, ByteSize::mib(512))].into());
                assert_eq!(host.boots("taken"), u32::from(!defers), "{on} {defers}, cut {when:?} deed {deed}");
                let waiting = plan(&text, store.snapshot(), &host).waiting;
                assert_eq!(waiting.len(), usize::from(defers), "{waiting:?}");
                if !fuse.has_blown() {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_was_taken_over_leaves_its_disk_where_it_is() {
    for (spec, replace) in
        [("", None), (BASE, None), (&BASE.replace(IMPORT.0, IMPORT.1), Some("server.taken".to_owned()))]
    {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        host.define(old(), ByteSize::mib(512), true);
        converge(&BASE.replace(IMPORT.0, IMPORT.1), &host, &store);
        match replace {
            Some(server) => {
                let plan = plan_anew(spec, &[server], false, store.snapshot(), &host);
                assert!(walk(&plan, &host, &store, 1).is_complete());
                assert_settled("made anew", spec, &host, &store);
                assert!(disk_of(&host, "taken").starts_with("/data"));
            }
            None => drop(converge(spec, &host, &store)),
        }
        assert_eq!(host.files(), [(old().disk, ByteSize::mib(512))].into());
        assert!(!host.trash().iter().any(|object| object.address().name.as_str() == "taken"), "{:?}", host.trash());
    }
}

#[test]
fn an_imported_disk_that_is_gone_is_not_made_anew_by_itself() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    host.define(old(), ByteSize::mib(512), false);
    let text = BASE.replace(IMPORT.0, IMPORT.1);
    converge(&text, &host, &store);
    assert!(host.lose_file(&old().disk));
    let desired = common::desired(&text);
    let Err(PlanError::Spec(problems)) = reconcile::plan(&desired, store.snapshot(), &host) else { panic!("a plan") };
    assert_eq!(problems[0].code.as_deref(), Some("imported-disk-gone"), "{problems:?}");
    let plan = plan_anew(&text, &["server.taken".into()], false, store.snapshot(), &host);
    assert!(walk(&plan, &host, &store, 1).is_complete());
    assert_settled("made anew", &text, &host, &store);
}

#[test]
fn a_run_that_is_not_cut_off_converges() {
    for twice in [false, true] {
        for (case, spec, changes) in all_cases() {
            let (host, store, text) = prepare(&spec, &changes, twice);
            let last = plan_last(&text, &changes, store.snapshot(), &host);
            let outcome = walk(&last, &host, &store, 1);
            let failures: Vec<String> = outcome.failures().map(|(_, error)| report::error::chain(error)).collect();
            assert!(outcome.is_complete(), "{case}: {failures:#?}");
            assert_settled(case, &text, &host, &store);
        }
    }
}

/// The servers of the project, each with how often its guest was started; none for one that is off.
fn boots(host: &SimHost) -> BTreeMap<String, Option<u32>> {
    let keys = host.objects().into_keys().filter(|key| key.kind == ObjectKind::Domain);
    keys.map(|key| (key.id.clone(), host.guest(&key.id).map(|_| host.boots(&key.id)))).collect()
}

/// What a plan says of the guests that run.
fn announced(plan: &novella::plan::Plan) -> BTreeMap<String, Disruption> {
    let domains = plan.changes.iter().filter(|change| change.key.kind == ObjectKind::Domain);
    domains.map(|change| (change.key.id.clone(), change.cost())).collect()
}

/// A guest that ran before is started again if the plan said so, and else goes on.
fn assert_announced(
    case: &str,
    said: &BTreeMap<String, Disruption>,
    before: &BTreeMap<String, Option<u32>>,
    host: &SimHost,
) {
    for (server, before) in before.iter().filter_map(|(server, before)| Some((server, (*before)?))) {
        let is = host.guest(server).map(|_| host.boots(server));
        let said = said.get(server).copied().unwrap_or_default();
        let goes_on = is == Some(before);
        assert_eq!(goes_on, said < Disruption::Reboot, "{case}: {server}: {said:?} was said; boots {before} -> {is:?}");
    }
}

#[test]
fn what_is_said_of_guests_is_what_happens() {
    for defers in [false, true] {
        for (case, spec, changes) in all_cases() {
            let (host, store, text) = prepare(&spec, &changes, false);
            let before = boots(&host);
            let plan = plan_last(&text, &changes, store.snapshot(), &host);
            let plan = if defers { plan.defer_reboots() } else { plan };
            assert!(walk(&plan, &host, &store, 1).is_complete(), "{case}");
            assert_announced(case, &announced(&plan), &before, &host);
            assert_settled(case, &text, &host, &store);
        }
    }
}

#[test]
fn a_deferred_run_that_is_cut_off_anywhere_is_mended_by_the_next() {
    let concerned = ["more memory, and a network more", "networks in another order", "much at once", "a network less"];
    for (case, spec, changes) in all_cases().into_iter().filter(|(case, ..)| concerned.contains(case)) {
        for when in [When::Before, When::After] {
            for deed in 0.. {
                let (host, store, text) = prepare(&spec, &changes, false);
                let fuse = Fuse::new(deed, when);
                let first = plan(&text, store.snapshot(), &host).defer_reboots();
                let fused_host = Fused::<dyn Host>(&host, Arc::clone(&fuse));
                walk(&first, &fused_host, &Fused::<dyn Store>(&store, Arc::clone(&fuse)), 1);
                if !fuse.has_blown() {
                    break;
                }
                let case = format!("{case}, cut {when:?} deed {deed}");
                let before = boots(&host);
                let second = plan(&text, store.snapshot(), &host).defer_reboots();
                assert!(walk(&second, &host, &store, 1).is_complete(), "{case}");
                assert_announced(&case, &announced(&second), &before, &host);
                assert_settled(&case, &text, &host, &store);
                let waiting: Vec<String> =
                    plan(&text, store.snapshot(), &host).waiting.into_keys().map(|it| it.to_string()).collect();
                for server in &waiting {
                    let name = server.trim_start_matches("server.").parse().expect("a name");
                    host.reboot(&name).expect("it runs");
                }
                assert!(plan(&text, store.snapshot(), &host).waiting.is_empty(), "{case}");
            }
        }
    }
}

#[test]
fn what_waits_for_a_reboot_is_told_until_the_guest_is_started_again() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let edited = BASE.replace("128 MiB", "256 MiB");
    let deferred = plan(&edited, store.snapshot(), &host).defer_reboots();
    assert!(deferred.beyond(Disruption::Live).is_empty());
    assert!(walk(&deferred, &host, &store, 1).is_complete());
    let waiting = || {
        plan(&edited, store.snapshot(), &host)
            .waiting
            .into_iter()
            .map(|(it, what)| format!("{it} {what:?}"))
            .collect::<Vec<_>>()
    };
    let all = ["server.db [\"memory\"]", "server.web-1 [\"memory\"]", "server.web-2 [\"memory\"]"];
    assert_eq!(waiting(), all);
    assert_eq!(host.guest("db").expect("a guest").memory, novella::value::ByteSize::mib(128));

    // An edit that a guest can take does not reboot it.
    let before = boots(&host);
    converge(&edited.replace("[network.private]", "[network.private]\nmtu = 1400"), &host, &store);
    converge(&edited, &host, &store);
    assert_eq!(boots(&host), before);
    assert_eq!(waiting(), all);

    // Started again by somebody else, by us, or with an edit that takes it.
    host.switch(&"web-1".parse().expect("a name"), true);
    assert_eq!(waiting(), [all[0], all[2]]);
    host.reboot(&"db".parse().expect("a name")).expect("it runs");
    assert_eq!(waiting(), [all[2]]);
    converge(&edited.replace("256 MiB", "384 MiB"), &host, &store);
    assert_eq!(waiting(), [""; 0]);
}

/// The root disk of a server.
fn disk_of(host: &SimHost, server: &str) -> std::path::PathBuf {
    match &host.objects()[&ObjectKey::new(ObjectKind::Disk, server)] {
        Object::Disk(disk) => disk.path.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rebuild_that_was_begun_is_finished_and_one_that_was_not_is_forgotten() {
    let replace = ["server.db".to_owned()];
    for spec in
        [BASE.to_owned(), BASE.replace("[server.db]", "[server.db]\nlifecycle = { create_before_destroy = true }")]
    {
        let mut ends = [0; 2];
        for when in [When::Before, When::After] {
            for deed in 0.. {
                let (host, store) = (SimHost::new(), MemoryStore::default());
                converge(&spec, &host, &store);
                let (before, boots) = (disk_of(&host, "db"), host.boots("db"));
                let fuse = Fuse::new(deed, when);
                let first = plan_anew(&spec, &replace, true, store.snapshot(), &host);
                let fused_host = Fused::<dyn Host>(&host, Arc::clone(&fuse));
                walk(&first, &fused_host, &Fused::<dyn Store>(&store, Arc::clone(&fuse)), 1);
                if !fuse.has_blown() {
                    break;
                }
                converge(&spec, &host, &store);
                let is_new = disk_of(&host, "db") != before;
                assert_eq!(is_new, host.boots("db") > boots, "cut {when:?} deed {deed}: a restart without a new disk");
                ends[usize::from(is_new)] += 1;
            }
        }
        assert!(ends.iter().all(|end| *end > 0), "{ends:?}");
    }
}

#[test]
fn a_rebuilt_server_keeps_all_but_its_disk() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    // Other servers are edited too, and are not touched.
    let edited = BASE.replace("debian.qcow2", "debian-2.qcow2").replace("count = 2", "count = 3");
    let before = host.objects();
    let plan = plan_anew(&edited, &["server.web-1".into()], true, store.snapshot(), &host);
    assert!(walk(&plan, &host, &store, 1).is_complete());
    let after = host.objects();
    let changed: Vec<String> = after
        .iter()
        .filter(|(key, object)| before.get(*key) != Some(*object))
        .map(|(key, _)| key.to_string())
        .collect();
    let [base, disk, domain] = &changed[..] else { panic!("{changed:?}") };
    assert!(base.starts_with("base image") && disk == "disk web-1" && domain == "domain web-1", "{changed:?}");
    let domain = |objects: &BTreeMap<ObjectKey, Object>| match &objects[&ObjectKey::new(ObjectKind::Domain, "web-1")] {
        Object::Domain(domain) => domain.clone(),
        other => panic!("{other:?}"),
    };
    let (was, is) = (domain(&before), domain(&after));
    assert_eq!((&was.uuid, &was.name, &was.nics), (&is.uuid, &is.name, &is.nics));
    assert_ne!(was.disk, is.disk);

    // The rest is still to be done, and a second one in a row is another disk again.
    converge(&edited, &host, &store);
    assert_settled("after the rest", &edited, &host, &store);
    let first = disk_of(&host, "web-1");
    let plan = plan_anew(&edited, &["server.web-1".into()], true, store.snapshot(), &host);
    assert!(walk(&plan, &host, &store, 1).is_complete());
    assert_ne!(disk_of(&host, "web-1"), first);
    assert_settled("rebuilt again", &edited, &host, &store);
    // It is found where the state is lost.
    let is = disk_of(&host, "web-1");
    converge(&edited, &host, &MemoryStore::default());
    assert_eq!(disk_of(&host, "web-1"), is);
}

#[test]
fn a_disk_that_is_made_beside_the_old_one_is_there_before_the_guest_goes_down() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = BASE.replace("count = 2", "count = 1\nlifecycle = { create_before_destroy = true }");
    converge(&spec, &host, &store);
    let boots = host.boots("web-1");
    let edited = spec.replace("image = \"debian\"", "image = \"tiny\"");
    let plan = plan(&edited, store.snapshot(), &host);
    let steps: Vec<String> = petgraph::algo::toposort(&plan.steps, None)
        .expect("an order")
        .into_iter()
        .map(|node| (plan.steps[node], &plan.changes[plan.steps[node].change]))
        .filter(|(_, change)| change.address.to_string() == "server.web-1")
        .map(|(step, change)| format!("{:?} {} ({:?})", step.deed, change.key.kind, change.action))
        .collect();
    assert_eq!(steps, ["Ensure disk (CreateThenDelete)", "Ensure domain (Update)"]);
    assert_eq!(plan.beyond(Disruption::Reboot).len(), 1, "it is told as a replacement");
    assert!(walk(&plan, &host, &store, 1).is_complete());
    assert_eq!(host.boots("web-1"), boots + 1, "more than one restart");
    assert_settled("beside", &edited, &host, &store);
}

#[test]
fn others_start_and_stop_what_is_unmanaged() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let spec = BASE.replace("count = 2", "count = 2\npower = \"unmanaged\"");
    converge(&spec, &host, &store);
    let web: novella::address::Name = "web-1".parse().expect("a name");
    assert!(host.guest("web-1").is_none(), "it is defined and not started");
    for on in [true, false, true] {
        host.switch(&web, on);
        assert!(plan(&spec, store.snapshot(), &host).is_empty());
    }
    let boots = host.boots("web-1");
    let edited = spec.replace("128 MiB", "256 MiB");
    let plan = converge(&edited, &host, &store);
    let said: BTreeMap<String, _> =
        plan.changes.iter().map(|it| (it.key.to_string(), (it.disruption, it.deferred))).collect();
    assert_eq!(said["domain web-1"], (Disruption::Live, true));
    assert_eq!(said["domain web-2"], (Disruption::None, false), "it is off");
    assert_eq!(host.boots("web-1"), boots);
    // It stays as it is when it is ours again.
    converge(&BASE.replace("128 MiB", "256 MiB"), &host, &store);
    assert_eq!(host.boots("web-1"), boots);
    assert!(host.guest("web-2").is_some());
}

#[test]
fn a_run_that_is_cut_off_anywhere_is_mended_by_the_next() {
    let mut cuts = 0;
    for (case, spec, changes) in all_cases() {
        for when in [When::Before, When::After] {
            for deed in 0.. {
                let (host, store, text) = prepare(&spec, &changes, false);
                let fuse = Fuse::new(deed, when);
                let first = plan_last(&text, &changes, store.snapshot(), &host);
                let fused_host = Fused::<dyn Host>(&host, Arc::clone(&fuse));
                let fused_store = Fused::<dyn Store>(&store, Arc::clone(&fuse));
                walk(&first, &fused_host, &fused_store, 1);
                if !fuse.has_blown() {
                    break;
                }
                cuts += 1;
                let case = format!("{case}, cut {when:?} deed {deed}");
                if case.starts_with("rebuilt onto a smaller disk") {
                    // What was not begun is refused unless it is asked for again.
                    let second = plan_last(&text, &changes, store.snapshot(), &host);
                    assert!(walk(&second, &host, &store, 1).is_complete(), "{case}");
                }
                converge(&text, &host, &store);
                assert_settled(&case, &text, &host, &store);
            }
        }
    }
    println!("{cuts} runs were cut off and mended");
    assert!(cuts > 1000, "only {cuts} cuts were tried");
}

/// Wherever it is cut off: what is to be forgotten is forgotten, stays on the host, and so do the images under it.
#[test]
fn what_is_disowned_stays_wherever_the_run_is_cut_off() {
    let servers = BASE.find("[server.web]").expect("servers");
    let images = BASE.find("[image.debian]").expect("images");
    let disowned =
        "[[removed]]\nfrom = \"server.web-1\"\n[[removed]]\nfrom = \"server.db\"\n[[removed]]\nfrom = \"server.no\"\n";
    for (spec, left) in [(&BASE[..servers], 9), (&BASE[..images], 5)] {
        let text = format!("{spec}{disowned}");
        for when in [When::Before, When::After] {
            for deed in 0.. {
                let (host, store) = (SimHost::new(), MemoryStore::default());
                converge(BASE, &host, &store);
                let whole = host.objects();
                let fuse = Fuse::new(deed, when);
                let first = plan(&text, store.snapshot(), &host);
                let fused_host = Fused::<dyn Host>(&host, Arc::clone(&fuse));
                walk(&first, &fused_host, &Fused::<dyn Store>(&store, Arc::clone(&fuse)), 1);
                let blown = fuse.has_blown();
                converge(&text, &host, &store);
                let again = plan(&text, store.snapshot(), &host);
                assert!(again.is_empty(), "{}", report::plan::render(&again));
                let (there, records) = (host.objects(), store.snapshot().records);
                let stays = |key: &&ObjectKey| matches!(key.id.split('/').next(), Some("web-1" | "db"));
                for key in whole.keys().filter(stays) {
                    assert_eq!(there.get(key), whole.get(key), "{key}, cut {when:?} deed {deed}");
                    assert!(!records.contains_key(key), "{key}");
                }
                assert!(!there.keys().any(|key| key.id == "web-2" || key.id == "spare"));
                let bases = |keys: Vec<&ObjectKey>| keys.iter().filter(|key| key.kind == ObjectKind::Base).count();
                assert_eq!(
                    bases(there.keys().collect()),
                    bases(whole.keys().collect()),
                    "no base is taken from under a disk"
                );
                assert_eq!(records.len(), left, "{:?}", records.keys());
                if !blown {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_run_that_is_cut_off_twice_with_an_edit_in_between_converges() {
    let edits: &[&[(&str, &str)]] = &[
        &[("image = \"debian\"", "image = \"tiny\""), ("10.20.0.50", "10.20.0.60")],
        &[("count = 2", "count = 1"), ("[network.private]", "[network.private]\nbridge = \"br-lab\"")],
    ];
    for first_cut in 0..60 {
        for second_cut in (0..60).step_by(3) {
            let host = SimHost::new();
            let store = MemoryStore::default();
            let mut text = BASE.to_owned();
            converge(&text, &host, &store);
            for (cut, pairs) in [first_cut, second_cut].into_iter().zip(edits) {
                for (old, new) in *pairs {
                    text = text.replace(old, new);
                }
                let fuse = Fuse::new(cut, When::After);
                let plan = plan(&text, store.snapshot(), &host);
                walk(
                    &plan,
                    &Fused::<dyn Host>(&host, Arc::clone(&fuse)),
                    &Fused::<dyn Store>(&store, Arc::clone(&fuse)),
                    1,
                );
            }
            converge(&text, &host, &store);
            assert_settled(&format!("cuts {first_cut} and {second_cut}"), &text, &host, &store);
        }
    }
}

#[test]
fn what_was_begun_is_finished_even_if_it_looks_done() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let edited = BASE.replace("128 MiB", "256 MiB");
    let key = ObjectKey::new(ObjectKind::Domain, "web-1");
    let first = plan(&edited, store.snapshot(), &host);
    let change = first.changes.iter().find(|change| change.key == key).expect("an update");
    // Defined anew, and cut off while the guest was being shut down.
    let want = change.want.clone().expect("a domain");
    store.put(&key, &Record::intended(want.clone(), change.made.as_ref())).expect("written");
    assert!(host.alter(&key, |object| *object = want));

    let second = plan(&edited, store.snapshot(), &host);
    let change = second.changes.iter().find(|change| change.key == key).expect("it is not forgotten");
    assert_eq!((change.action, &change.reason), (Action::Update, &Reason::Unfinished));
    assert_eq!(change.disruption, Disruption::Reboot, "the guest may still run as it was");
    converge(&edited, &host, &store);
    assert_settled("begun and finished", &edited, &host, &store);
}

/// A host on which nothing goes at once: a removal takes something away and fails.
struct Clinging<'a>(&'a SimHost);

impl Host for Clinging<'_> {
    fn facts(&self) -> Result<HostFacts, HostError> {
        self.0.facts()
    }
    fn observe(&self) -> Result<Observed, HostError> {
        self.0.observe()
    }
    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        self.0.ensure(object)
    }
    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        self.0.remove(key)?;
        Err(HostError::refused("half of it is left"))
    }
    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        self.0.release(domain, volumes)
    }
    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        self.0.reload(server)
    }
}

#[test]
fn what_was_removed_by_half_is_removed_again() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let edited = BASE.replace("count = 2", "count = 1");
    let key = ObjectKey::new(ObjectKind::Domain, "web-2");
    walk(&plan(&edited, store.snapshot(), &host), &Clinging(&host), &store, 1);
    assert!(!host.objects().contains_key(&key));
    let second = plan(&edited, store.snapshot(), &host);
    let change = second.changes.iter().find(|change| change.key == key).expect("it is not forgotten");
    assert_eq!(change.action, Action::Delete);
    converge(&edited, &host, &store);
    assert_settled("removed by half", &edited, &host, &store);
}

/// A host on which one object cannot be made; whether it panics over it.
struct Stubborn<'a>(&'a SimHost, ObjectKey, bool);

impl Host for Stubborn<'_> {
    fn facts(&self) -> Result<HostFacts, HostError> {
        self.0.facts()
    }
    fn observe(&self) -> Result<Observed, HostError> {
        self.0.observe()
    }
    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        assert!(!self.2 || object.key() != self.1, "a defect");
        if object.key() == self.1 { Err(HostError::refused("no")) } else { self.0.ensure(object) }
    }
    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        if *key == self.1 { Err(HostError::refused("no")) } else { self.0.remove(key) }
    }
    fn release(&self, domain: &ObjectKey, volumes: &[ObjectKey]) -> Result<(), HostError> {
        self.0.release(domain, volumes)
    }
    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        self.0.reload(server)
    }
}

#[test]
fn a_failed_step_keeps_back_its_dependents_and_nothing_else() {
    let host = SimHost::new();
    let store = MemoryStore::default();
    let first = plan(BASE, Recorded::default(), &host);
    for (parallelism, panics) in [(1, false), (8, false), (1, true), (8, true)] {
        let stubborn = Stubborn(&host, ObjectKey::new(ObjectKind::Dhcp, "closed"), panics);
        let outcome = walk(&first, &stubborn, &store, parallelism);
        assert_eq!(outcome.failures().count(), 1);
        let there: Vec<String> = host.objects().into_keys().map(|key| key.to_string()).collect();
        for made in ["domain web-1", "domain web-2", "host entry db/private", "disk spare", "bridge closed"] {
            assert!(there.iter().any(|key| key == made), "{made} is missing from {there:?}");
        }
        for kept_back in ["host entry db/closed", "domain db", "domain spare", "dhcp closed"] {
            assert!(!there.iter().any(|key| key == kept_back), "{kept_back} was made");
        }
    }
    converge(BASE, &host, &store);
    assert_settled("after the failure", BASE, &host, &store);
}

#[test]
fn a_state_that_is_lost_takes_no_choice_with_it() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    // Choices that would be made otherwise now: an address in another order, a disk over another base.
    let text = BASE.replace("debian.qcow2", "debian-2.qcow2");
    let text = text.replace("fixed_ip = \"10.20.0.50\"\n", "");
    let text = format!("{text}\n[server.alpha]\nimage = \"debian\"\nflavor = \"small\"\nnetworks = [\"private\"]\n");
    converge(&text, &host, &store);
    let objects = || host.objects().into_iter().filter(|(key, _)| key.kind != ObjectKind::Base).collect::<Vec<_>>();
    let whole = objects();

    let store = MemoryStore::default();
    let found = converge(&text, &host, &store);
    // Where a base came from cannot be found again.
    let kept = |it: &_| matches!(it, (ObjectKind::Base, Action::Update) | (_, Action::Record));
    assert!(
        found.changes.iter().map(|it| (it.key.kind, it.action)).all(|it| kept(&it)),
        "{}",
        report::plan::render(&found)
    );
    assert_eq!(objects(), whole);
    assert_settled("after the loss", &text, &host, &store);
}

#[test]
fn many_workers_come_to_the_same_end_as_one() {
    let (one, many) = (SimHost::new(), SimHost::new());
    for (host, parallelism) in [(&one, 1), (&many, 16)] {
        let store = MemoryStore::default();
        let plan = plan(BASE, Recorded::default(), host);
        assert!(walk(&plan, host, &store, parallelism).is_complete());
        assert_settled("from nothing", BASE, host, &store);
    }
    assert_eq!(one.objects(), many.objects());
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let host = SimHost::new();
    host.occupy(Claim::DomainName("default.db".into()));
    let plan = plan(BASE, Recorded::default(), &host);
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!(plan.conflicts[0].key.to_string(), "domain db");
    assert!(plan.changes.iter().all(|change| change.key.to_string() != "domain db"));
}

#[test]
fn a_network_that_the_host_is_on_already_is_refused() {
    let host = SimHost::new();
    host.join("eth0", "10.20.0.7/16".parse().expect("a network"));
    let refused = novella::reconcile::plan(&common::desired(BASE), Recorded::default(), &host).expect_err("refused");
    let novella::reconcile::PlanError::Spec(problems) = refused else { panic!("{refused}") };
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].message, "10.20.0.0/24 is in use on this host: `eth0` has 10.20.0.7/16");

    // What was there first stays, and what comes is looked at, also on a bridge that is there.
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    host.join("eth0", "10.20.0.7/16".parse().expect("a network"));
    assert!(plan(BASE, store.snapshot(), &host).is_empty());
    let edited = BASE.replace("10.30.0.0/24", "10.20.64.0/24");
    novella::reconcile::plan(&common::desired(&edited), store.snapshot(), &host).expect_err("refused");
}

#[test]
fn a_lost_object_is_the_only_one_that_is_made_again() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    for (kind, id) in [
        (ObjectKind::Dhcp, "private"),
        (ObjectKind::HostEntry, "web-1/private"),
        (ObjectKind::Domain, "web-1"),
        (ObjectKind::Firewall, "novella-default"),
    ] {
        let key = ObjectKey::new(kind, id);
        host.lose(&key);
        let plan = converge(BASE, &host, &store);
        let changes: Vec<_> = plan.changes.iter().map(|change| (&change.key, change.action, &change.reason)).collect();
        assert_eq!(changes, [(&key, Action::Create, &Reason::Vanished)]);
    }
}

#[test]
fn a_server_keeps_its_address_when_the_state_is_lost() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let late = BASE.replace(
        "[server.spare]",
        "[server.early]\nimage=\"tiny\"\nflavor=\"small\"\nnetworks=[\"private\"]\n[server.spare]",
    );
    converge(BASE, &host, &store);
    converge(&late, &host, &store);
    let before = host.objects();
    let plan = converge(&late, &host, &MemoryStore::default());
    assert!(plan.changes.iter().all(|change| change.action == Action::Record), "{}", report::plan::render(&plan));
    assert_eq!(host.objects(), before);
}

#[test]
fn what_nobody_knows_of_is_left_alone_and_told() {
    let host = SimHost::new();
    converge(BASE, &host, &MemoryStore::default());
    let before = host.objects();
    let plan = converge("", &host, &MemoryStore::default());
    let unknown: Vec<ObjectKey> = before.keys().filter(|key| key.kind != ObjectKind::Base).cloned().collect();
    assert_eq!(plan.left_alone, unknown, "an image in the cache is nobody's");
    assert_eq!(host.objects(), before);
    assert!(report::plan::render(&plan).contains("bridge closed, bridge private"));
}

#[test]
fn a_host_entry_changed_by_hand_is_put_right_under_its_guest() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let key = ObjectKey::new(ObjectKind::HostEntry, "db/private");
    host.alter(&key, |object| {
        if let Object::HostEntry(entry) = object {
            entry.addresses[0].address = [10, 20, 0, 99].into();
        }
    });
    let plan = converge(BASE, &host, &store);
    let changed: Vec<&ObjectKey> = plan.changes.iter().map(|change| &change.key).collect();
    assert_eq!(changed, [&key], "the guest goes on");
}

#[test]
fn what_is_left_of_something_that_is_gone_is_taken_away() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let key = ObjectKey::new(ObjectKind::Disk, "spare");
    host.lose(&key);
    let less = BASE.replace("[server.spare]", "[server.spare]\ncount = 0");
    let plan = plan(&less, store.snapshot(), &host);
    assert!(plan.changes.iter().any(|change| change.key == key && change.action == Action::Forget));
    // What cannot be taken away is not forgotten.
    assert_eq!(walk(&plan, &Stubborn(&host, key.clone(), false), &store, 1).failures().count(), 1);
    assert!(store.snapshot().records.contains_key(&key));
    converge(&less, &host, &store);
    assert_settled("after the second run", &less, &host, &store);
}

/// The order in which the steps of domains are done, by one worker.
fn order_of_domains(plan: &novella::plan::Plan, host: &SimHost, store: &MemoryStore) -> Vec<String> {
    struct Listener(std::sync::Mutex<Vec<String>>);
    impl apply::Observer for Listener {
        fn event(&self, change: &novella::plan::diff::Change, deed: Deed, event: apply::Event<'_>) {
            if change.key.kind == ObjectKind::Domain && matches!(event, apply::Event::Started) {
                self.0.lock().expect("a list").push(format!("{deed:?} {}", change.key.id));
            }
        }
    }
    let listener = Listener(std::sync::Mutex::default());
    let options = apply::Options { parallelism: 1, ..apply::Options::default() };
    let outcome = apply::apply(plan, host, store, options, &std::sync::atomic::AtomicBool::new(false), &listener);
    assert!(outcome.is_complete());
    listener.0.into_inner().expect("a list")
}

#[test]
fn a_server_starts_after_those_it_depends_on_and_stops_before_them() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    // Against the alphabet, which is the order without a word.
    let spec = BASE.replace("[server.db]", "[server.db]\ndepends_on = [\"web\", \"spare\"]");
    let run = |text: &str| order_of_domains(&plan(text, store.snapshot(), &host), &host, &store);
    let started = ["Ensure spare", "Ensure web-1", "Ensure web-2", "Ensure db"];
    assert_eq!(run(&spec), started);
    // Booted anew.
    let more = spec.replace("128 MiB", "256 MiB").replace("power = \"off\"", "");
    assert_eq!(run(&more), started);
    // Off, and on again.
    let off = more.replace("flavor = \"small\"", "flavor = \"small\"\npower = \"off\"");
    assert_eq!(run(&off), ["Ensure db", "Ensure spare", "Ensure web-1", "Ensure web-2"]);
    assert_eq!(run(&more), started);
    // What it depended on goes by the record, though the spec says nothing of it any more.
    assert_eq!(run(""), ["Remove db", "Remove spare", "Remove web-1", "Remove web-2"]);
}

#[test]
fn a_new_dependency_is_written_down_and_disrupts_nobody() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let plan = converge(&BASE.replace("[server.db]", "[server.db]\ndepends_on = [\"web\"]"), &host, &store);
    let changes: Vec<_> = plan.changes.iter().map(|it| (it.key.to_string(), it.action, it.disruption)).collect();
    assert_eq!(changes, [("domain db".to_owned(), Action::Update, Disruption::None)]);
}

#[test]
fn an_image_that_nothing_needs_stays_in_the_cache_and_is_taken_up_again() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let bases = || host.objects().into_keys().filter(|key| key.kind == ObjectKind::Base).collect::<Vec<ObjectKey>>();
    let before = bases();
    let gone = plan("", store.snapshot(), &host);
    assert!(walk(&gone, &host, &store, 1).is_complete());
    assert_settled("all is gone", "", &host, &store);
    assert_eq!(bases(), before);
    let again = plan(BASE, store.snapshot(), &host);
    let of_bases: Vec<Action> =
        again.changes.iter().filter(|change| change.key.kind == ObjectKind::Base).map(|change| change.action).collect();
    assert_eq!(of_bases, vec![Action::Record; before.len()]);
    assert!(walk(&again, &host, &store, 1).is_complete());
    assert_settled("all is back", BASE, &host, &store);
}

/// A part of a plan comes to its end alone, does to guests what it says, and leaves the rest to the next whole plan.
#[test]
fn what_is_applied_in_part_converges_with_the_whole() {
    let mut parts = 0;
    for (case, spec, changes) in all_cases() {
        let whole = {
            let (host, store, text) = prepare(&spec, &changes, false);
            plan_last(&text, &changes, store.snapshot(), &host)
        };
        let addresses: BTreeSet<Address> = whole.changes.iter().map(|change| change.address.clone()).collect();
        for address in addresses {
            for scope in [Scope::Only([address.clone()].into()), Scope::Without([address.clone()].into())] {
                let (host, store, text) = prepare(&spec, &changes, false);
                let before = boots(&host);
                let part = plan_last(&text, &changes, store.snapshot(), &host).confine(&scope).expect("an order");
                let is_in = part.changes.iter().any(|change| change.address == address);
                assert_eq!(is_in, matches!(scope, Scope::Only(_)), "{case}: {scope:?}");
                let outcome = walk(&part, &host, &store, 1);
                let failures: Vec<String> = outcome.failures().map(|(_, error)| report::error::chain(error)).collect();
                // Where the state is lost, nothing tells who has a disk that another is to get.
                let is_lost = changes.iter().any(|change| matches!(change, Change::LoseState));
                assert!(outcome.is_complete() || is_lost, "{case}: {scope:?}: {failures:#?}");
                if outcome.is_complete() {
                    assert_announced(&format!("{case}: {scope:?}"), &announced(&part), &before, &host);
                }
                // What was asked for is asked for again.
                let rest = plan_last(&text, &changes, store.snapshot(), &host);
                assert!(walk(&rest, &host, &store, 1).is_complete(), "{case}: {scope:?}");
                assert_settled(&format!("{case}: {scope:?}"), &text, &host, &store);
                parts += usize::from(!part.left_out.is_empty());
            }
        }
    }
    println!("{parts} parts");
    assert!(parts > 500, "{parts}");
}

/// The addresses of what a plan changes.
fn changed(plan: &novella::plan::Plan) -> String {
    let addresses: BTreeSet<String> = plan.changes.iter().map(|change| change.address.to_string()).collect();
    addresses.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_part_has_what_it_needs_and_no_more() {
    let only = |text: &str, host: &SimHost, store: &MemoryStore, address: &str| {
        let (kind, name) = address.split_once('.').expect("an address");
        let kind = ResourceKind::ALL.into_iter().find(|it| it.as_str() == kind).expect("a kind");
        let address = Address::new(kind, name.parse().expect("a name"));
        let part = |scope| changed(&plan(text, store.snapshot(), host).confine(&scope).expect("an order"));
        (part(Scope::Only([address.clone()].into())), part(Scope::Without([address].into())))
    };
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let web = "host.local image.debian network.private server.web-1";
    let others =
        "host.local image.debian image.tiny network.closed network.private server.db server.spare server.web-2";
    assert_eq!(only(BASE, &host, &store, "server.web-1"), (web.into(), others.into()));
    let (alone, rest) = ("host.local image.tiny network.closed server.spare", "image.debian");
    assert_eq!(only(BASE, &host, &store, "server.spare").0, alone);
    assert!(only(BASE, &host, &store, "host.local").1.contains(rest));
    assert!(!only(BASE, &host, &store, "host.local").1.contains("server"));
    converge(BASE, &host, &store);
    // A network goes with those who are on it, and stays for one that stays.
    assert_eq!(
        only("", &host, &store, "network.closed"),
        (
            "image.tiny network.closed server.db server.spare".into(),
            "host.local image.debian image.tiny network.private server.db server.spare server.web-1 server.web-2"
                .into()
        )
    );
    assert_eq!(only("", &host, &store, "server.web-1").0, "server.web-1");
    // An address is given away before it is taken.
    let swapped = BASE.replace("10.20.0.50", "10.20.0.51").replace(
        "[server.spare]",
        "[server.other]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\nfixed_ip = \"10.20.0.50\"\n\
         [server.spare]",
    );
    assert_eq!(only(&swapped, &host, &store, "server.other"), ("server.db server.other".into(), "server.db".into()));
    // A new version of an image is for new servers, and does not touch the others.
    let newer = BASE.replace("debian.qcow2", "debian-2.qcow2").replace("count = 2", "count = 3");
    assert_eq!(only(&newer, &host, &store, "server.web-3").0, "image.debian server.web-3");
}

#[test]
fn a_part_says_what_it_leaves_out_and_who_still_waits() {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(BASE, &host, &store);
    let larger = BASE.replace("128 MiB", "256 MiB");
    let deferred = plan(&larger, store.snapshot(), &host).defer_reboots();
    assert!(walk(&deferred, &host, &store, 1).is_complete());
    let edited = larger.replace("10.20.0.50", "10.20.0.51");
    let db = Address::new(ResourceKind::Server, "db".parse().expect("a name"));
    let whole = plan(&edited, store.snapshot(), &host);
    assert!(!whole.waiting.contains_key(&db), "it is started again by this");
    let part = whole.confine(&Scope::Without([db.clone()].into())).expect("an order");
    assert!(part.waiting.contains_key(&db), "it is not, in this part");
    assert_eq!(part.left_out, [db].into());
    let said = part.warnings.last().expect("a warning");
    assert_eq!(said.message, "this plan is not the whole: `server.db` would change too");
}

#[test]
fn what_is_in_the_way_keeps_back_who_needs_it() {
    let host = SimHost::new();
    host.occupy(Claim::DomainName("default.db".into()));
    let part = |scope: &Scope| plan(BASE, Recorded::default(), &host).confine(scope).expect("an order");
    let address = |name: &str| Address::new(ResourceKind::Server, name.parse().expect("a name"));
    assert_eq!(part(&Scope::Only([address("db")].into())).conflicts.len(), 1);
    assert!(part(&Scope::Only([address("web-1")].into())).conflicts.is_empty());
    let rest = part(&Scope::Without([address("db")].into()));
    assert!(rest.conflicts.is_empty() && !changed(&rest).contains("db") && changed(&rest).contains("server.spare"));

    let host = SimHost::new();
    let bridges = BASE.replace("[network.closed]", "[network.closed]\nbridge = \"br-closed\"");
    host.occupy(Claim::Link("br-closed".into()));
    let closed = Address::new(ResourceKind::Network, "closed".parse().expect("a name"));
    let rest = plan(&bridges, Recorded::default(), &host).confine(&Scope::Without([closed].into())).expect("an order");
    assert!(rest.conflicts.is_empty());
    assert_eq!(changed(&rest), "host.local image.debian image.tiny network.private server.web-1 server.web-2");
}
