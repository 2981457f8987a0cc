//! Flavors.

use std::collections::BTreeMap;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::Problems;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::values::Size;
use crate::value::ByteSize;

/// A size.
#[derive(Clone, Debug, PartialEq)]
pub struct Flavor {
    /// Its name.
    pub name: Name,
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub ram: ByteSize,
    /// The size of the root disk.
    pub disk: ByteSize,
    /// The size of a further disk with a file system on it, where it has one.
    pub ephemeral: Option<ByteSize>,
    /// The size of a disk to swap to, where it has one.
    pub swap: Option<ByteSize>,
}

/// A swap area of less has no room for anything (mkswap(8): at least ten pages); a file system neither.
const LEAST: ByteSize = ByteSize::mib(1);

pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> BTreeMap<Name, Flavor> {
    let mut flavors = BTreeMap::new();
    for (name, written) in &spec.flavors {
        let address = Address::new(ResourceKind::Flavor, name.clone());
        let vcpus = written.vcpus.unwrap_or(1);
        if vcpus == 0 {
            problems
                .push(Diagnostic::error("a server needs a processor").on(&address, "vcpus").help("write `vcpus = 1`"));
        }
        let mut size = |key: &str, value: &Option<Size>, example: &str| {
            let size = problems.need(&address, key, value, example).map_or(ByteSize(0), |size| size.0);
            if value.is_some() && size.bytes() == 0 {
                problems.push(
                    Diagnostic::error(format!("`{key}` may not be nothing"))
                        .on(&address, key)
                        .help(format!("write `{key} = {example}`")),
                );
            }
            size
        };
        let ram = size("ram", &written.ram, "\"512 MiB\"");
        let disk = size("disk", &written.disk, "\"10 GiB\"");
        if ram.bytes() % ByteSize::mib(1).bytes() != 0 {
            problems.push(
                Diagnostic::error(format!("a server cannot have {ram} of memory"))
                    .on(&address, "ram")
                    .help("libvirt counts memory in whole MiB"),
            );
        }
        // In Nova, 0 is none.
        let mut further = |key: &str, value: &Option<Size>| {
            let size = value.map(|size| size.0).filter(|size| size.bytes() > 0)?;
            if size < LEAST {
                problems.push(
                    Diagnostic::error(format!("a disk of {size} is too small for `{key}`"))
                        .on(&address, key)
                        .help(format!("write at least `{key} = \"{LEAST}\"`, or leave it out")),
                );
            }
            Some(size)
        };
        let ephemeral = further("ephemeral", &written.ephemeral);
        let swap = further("swap", &written.swap);
        flavors.insert(name.clone(), Flavor { name: name.clone(), vcpus, ram, disk, ephemeral, swap });
    }
    flavors
}
