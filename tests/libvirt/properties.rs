//! Any domain survives the way into libvirt and back.

use novella::blueprint::object::{BaseRef, DirectBoot, DiskFormat, Domain, Nic, Object, Power, VirtType};
use novella::value::{ByteSize, Mac};
use proptest::prelude::*;
use uuid::Uuid;

use crate::Bench;

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    r#"/[ -~äß€𝄞]{1,40}"#.prop_filter("libvirt drops trailing slashes of none", |path| !path.ends_with('/')).prop_map(Into::into)
}

fn nics() -> impl Strategy<Value = Vec<Nic>> {
    prop::collection::btree_map(
        "[a-z]([a-z0-9-]{0,10}[a-z0-9])?",
        (any::<[u8; 6]>(), "[a-z0-9]{1,11}", 68..9000u32),
        0..4,
    )
    .prop_map(|nics| {
        let plug = |(index, (network, (mut mac, name, mtu))): (usize, (String, ([u8; 6], String, u32)))| Nic {
            network: network.parse().expect("a name"),
            bridge: format!("brq{name}"),
            tap: format!("tap{name}"),
            mac: {
                mac[0] &= 0xfe;
                mac[5] = index as u8;
                Mac(mac)
            },
            mtu,
        };
        nics.into_iter().enumerate().map(plug).collect()
    })
}

fn domain(bench: &Bench) -> impl Strategy<Value = Domain> + use<> {
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
        (prop::option::of(base), nics(), prop::option::of(boot)),
    )
        .prop_map(move |((vcpus, mib, disk, uuid, kvm, on, shutdown_timeout), (base, nics, boot))| Domain {
            uuid: Uuid::from_u128(uuid),
            virt_type: if kvm { VirtType::Kvm } else { VirtType::Qemu },
            vcpus,
            memory: ByteSize::mib(mib),
            disk,
            base,
            nics,
            boot,
            power: if on { Power::On } else { Power::Off },
            shutdown_timeout,
            ..template.clone()
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
