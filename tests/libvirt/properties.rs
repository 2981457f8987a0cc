//! Any domain survives the way into libvirt and back.

use std::path::PathBuf;

use novella::address::VolumeId;
use novella::blueprint::disk::{Attachment, Bus, Cache, Discard, DomainDisk, LETTERS};
use novella::blueprint::object::{BaseRef, DirectBoot, DiskFormat, Domain, Nic, Object, Power, VirtType};
use novella::value::{ByteSize, Mac};
use proptest::prelude::*;
use uuid::Uuid;

use crate::Bench;

/// Paths and text as people may write them, with what XML and shells hold special.
fn path() -> impl Strategy<Value = PathBuf> {
    "/[ -~äß€𝄞]{0,40}[a-z<&'\"]".prop_map(PathBuf::from)
}

fn nics() -> impl Strategy<Value = Vec<Nic>> {
    let nic = (any::<[u8; 5]>(), "[a-z0-9]{1,11}", 68..9000u32);
    prop::collection::btree_map("[a-z]([a-z0-9-]{0,10}[a-z0-9])?", nic, 0..4).prop_map(|nics| {
        let mut made = Vec::new();
        for (network, ([a, b, c, d, e], name, mtu)) in nics {
            // Unicast, and unlike the others: two interfaces of one domain with one MAC address cannot be told apart.
            let mac = Mac([a & 0xfe, b, c, d, e, made.len() as u8]);
            let network = network.parse().expect("a name");
            let (bridge, tap) = (format!("brq{name}"), format!("tap{name}"));
            made.push(Nic { network, port: None, bridge, tap, mac, mtu, unplugged: mtu % 2 == 1 });
        }
        made
    })
}

fn disks() -> impl Strategy<Value = Vec<DomainDisk>> {
    let buses = prop::sample::select(vec![Bus::Virtio, Bus::Scsi, Bus::Sata]);
    let caches = vec![Cache::None, Cache::Writeback, Cache::Writethrough, Cache::Unsafe, Cache::Directsync];
    let how = (buses, prop::sample::select(caches), prop::sample::select(vec![Discard::Unmap, Discard::Ignore]));
    let disk = (path(), prop::option::of(path()), how, prop::bool::ANY);
    prop::collection::btree_map("[a-z]([a-z0-9-]{0,18}[a-z0-9])?", disk, 0..5).prop_map(|disks| {
        let letters = LETTERS.zip(disks);
        type Its = (PathBuf, Option<PathBuf>, (Bus, Cache, Discard), bool);
        let disk = |(letter, (name, (path, base, (bus, cache, discard), raw))): (char, (String, Its))| DomainDisk {
            volume: VolumeId::Own(name.parse().expect("a name")),
            path,
            format: if raw { DiskFormat::Raw } else { DiskFormat::Qcow2 },
            base: base.filter(|_| !raw).map(|path| BaseRef { id: "b".into(), path, format: DiskFormat::Raw }),
            target: Bus::target(bus, letter),
            attachment: Attachment { bus, cache, discard },
        };
        letters.map(disk).collect()
    })
}

pub fn domain(bench: &Bench) -> impl Strategy<Value = Domain> + use<> {
    let template = bench.domain("web");
    let boot = (path(), prop::option::of(path()), "[ -~äß€𝄞]{0,80}").prop_map(|(kernel, initrd, cmdline)| DirectBoot {
        kernel: ("k".into(), kernel),
        initrd: initrd.map(|initrd| ("i".into(), initrd)),
        cmdline,
    });
    let base = (path(), prop::bool::ANY).prop_map(|(path, raw)| BaseRef {
        id: "b".into(),
        path,
        format: if raw { DiskFormat::Raw } else { DiskFormat::Qcow2 },
    });
    (
        (1..255u32, 1..1_000_000u64, path(), any::<u128>(), prop::bool::ANY, prop::bool::ANY, 0..1000u32),
        (prop::option::of(base), nics(), prop::option::of(boot), prop::option::of(path()), disks()),
    )
        .prop_map(move |((vcpus, mib, disk, uuid, kvm, on, shutdown_timeout), (base, nics, boot, seed, disks))| {
            Domain {
                uuid: Uuid::from_u128(uuid),
                virt_type: if kvm { VirtType::Kvm } else { VirtType::Qemu },
                vcpus,
                memory: ByteSize::mib(mib),
                disk,
                imported: on,
                disk_format: if kvm { DiskFormat::Raw } else { DiskFormat::Qcow2 },
                base,
                root_disk: disks.last().map(|disk| disk.attachment).unwrap_or_default(),
                disks,
                nics,
                boot,
                seed,
                power: if on { Power::On } else { Power::Off },
                shutdown_timeout,
                ..template.clone()
            }
        })
}

#[test]
fn any_domain_is_seen_as_it_was_made() {
    let bench = Bench::new("any");
    proptest!(ProptestConfig::with_cases(100), |(domain in domain(&bench))| {
        bench.hypervisor.ensure(&domain).expect("made");
        let seen = bench.facts(&domain).expect("there");
        for (fact, wanted) in Object::Domain(domain.clone()).facts() {
            prop_assert_eq!(seen.get(&fact), Some(&wanted), "{}", fact);
        }
        bench.hypervisor.remove("web").expect("removed");
        prop_assert!(bench.facts(&domain).is_none());
    });
}
