//! Flavors.

use std::collections::BTreeMap;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::hardware::CpuModel;
use crate::desired::Problems;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::schema::FlavorSpec;
use crate::spec::values::{CpuMode, Size};
use crate::value::ByteSize;

/// A size.
#[derive(Clone, Debug, PartialEq)]
pub struct Flavor {
    /// Its name.
    pub name: Name,
    /// Processors.
    pub vcpus: u32,
    /// How many a running server can be brought to, where that is declared.
    pub max_vcpus: Option<u32>,
    /// Memory.
    pub ram: ByteSize,
    /// How much a running server can be brought to, where that is declared.
    pub max_ram: Option<ByteSize>,
    /// The size of the root disk.
    pub disk: ByteSize,
    /// Its processor; the usual one where nothing is said.
    pub cpu: Option<CpuModel>,
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
        let max_ram = written.max_ram.map(|size| size.0);
        for (key, ram) in [("ram", Some(ram)), ("max_ram", max_ram)] {
            if let Some(ram) = ram.filter(|ram| ram.bytes() % ByteSize::mib(1).bytes() != 0) {
                problems.push(
                    Diagnostic::error(format!("a server cannot have {ram} of memory"))
                        .on(&address, key)
                        .help("libvirt counts memory in whole MiB"),
                );
            }
        }
        let max_vcpus = written.max_vcpus;
        let mut at_least = |key: &str, of: &str, too_small: Option<(String, String)>| {
            if let Some((most, has)) = too_small {
                problems.push(
                    Diagnostic::error(format!("`{key}` is {most}, and `{of}` is {has}"))
                        .code("maximum-below-size")
                        .on(&address, key)
                        .help("the maximum is what a running server can be brought to: at least what it starts with"),
                );
            }
        };
        let too_few = max_vcpus.filter(|most| *most < vcpus).map(|most| (most.to_string(), vcpus.to_string()));
        at_least("max_vcpus", "vcpus", too_few);
        let too_little = max_ram.filter(|most| *most < ram).map(|most| (most.to_string(), ram.to_string()));
        at_least("max_ram", "ram", too_little);
        let cpu = cpu(&address, written, problems);
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
        let name = name.clone();
        flavors.insert(name.clone(), Flavor { name, vcpus, max_vcpus, ram, max_ram, disk, cpu, ephemeral, swap });
    }
    flavors
}

fn cpu(address: &Address, written: &FlavorSpec, problems: &mut Problems<'_>) -> Option<CpuModel> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let problem = match (written.cpu_mode, &written.cpu_model) {
        (mode, None) => {
            return mode.map(|mode| match mode {
                CpuMode::HostModel => CpuModel::HostModel,
                CpuMode::HostPassthrough => CpuModel::HostPassthrough,
                CpuMode::Maximum => CpuModel::Maximum,
            });
        }
        (Some(_), Some(_)) => {
            Diagnostic::error("`cpu_mode` and `cpu_model` both say which processor").help("leave one of them out")
        }
        (None, Some(name)) if name.is_empty() || !name.chars().all(plain) => {
            Diagnostic::error("this is not the name of a processor")
                .help("`virsh domcapabilities` lists them, as `EPYC` or `Skylake-Server`")
        }
        (None, Some(name)) => return Some(CpuModel::Named(name.clone())),
    };
    problems.push(problem.code("cpu-model").on(address, "cpu_model"));
    None
}
