//! What kind of machine a server is, apart from its size, and whether the host can be that (reference B1).

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::HostFacts;
use crate::blueprint::object::VirtType;
use crate::blueprint::server;
use crate::desired::Desired;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::plan::world::Recorded;

/// What starts the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// SeaBIOS.
    #[default]
    Bios,
    /// UEFI, which starts whatever it finds.
    Uefi,
    /// UEFI with the usual keys in it, which starts only what is signed with one of them.
    SecureBoot,
}

impl Firmware {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bios, Self::Uefi, Self::SecureBoot];

    /// The words in plans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::SecureBoot => "uefi with secure boot",
        }
    }
}

/// Which processor the guest sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuModel {
    /// The host's, as near as a name and a list of features come to it. Needs KVM.
    HostModel,
    /// The host's own. Needs KVM.
    HostPassthrough,
    /// All that can be had.
    Maximum,
    /// One that QEMU has by name, as `EPYC`.
    Named(String),
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostModel => "host-model",
            Self::HostPassthrough => "host-passthrough",
            Self::Maximum => "maximum",
            Self::Named(name) => name,
        })
    }
}

/// The machine of a domain, as far as it is not what every domain's is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// What starts it.
    pub firmware: Firmware,
    /// Where UEFI keeps what it is to remember: another file for each kind, for the keys are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvram: Option<PathBuf>,
    /// Whether it has a TPM 2.0.
    pub tpm: bool,
    /// Its processor; the usual one where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuModel>,
}

impl Hardware {
    /// Whether it is what every domain's is.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What the hypervisor of a host can do, where that differs from host to host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abilities {
    /// It has a firmware for UEFI.
    pub uefi: bool,
    /// One that insists on signatures.
    pub secure_boot: bool,
    /// It has a TPM to give.
    pub tpm: bool,
    /// The processors that it can be, by name.
    pub cpus: BTreeSet<String>,
}

/// Whether any server takes more than every host can do, so that [`Abilities`] matter.
pub fn asks_for_abilities(desired: &Desired) -> bool {
    desired.servers.values().any(|server| {
        let image = desired.images.get(&server.image);
        let flavor = desired.flavors.get(&server.flavor);
        image.is_some_and(|image| image.firmware != Firmware::Bios || image.tpm)
            || flavor.is_some_and(|flavor| flavor.cpu.is_some())
    })
}

/// Checks that the host can be what images and flavors ask for. Each is told of once.
pub fn check(desired: &Desired, recorded: &Recorded, host: &HostFacts) -> Vec<Diagnostic> {
    let (mut images, mut flavors) = (BTreeSet::new(), BTreeSet::new());
    let mut problems = Vec::new();
    for server in desired.servers.values() {
        let virt_type = server::virt_type(server, desired, recorded, host);
        if images.insert(&server.image) {
            problems.extend(image_fits(&server.image, desired, virt_type, host));
        }
        if flavors.insert(&server.flavor) {
            problems.extend(cpu_fits(&server.flavor, desired, virt_type, host));
        }
    }
    problems
}

fn image_fits(name: &Name, desired: &Desired, virt_type: VirtType, host: &HostFacts) -> Vec<Diagnostic> {
    let Some(image) = desired.images.get(name) else { return Vec::new() };
    let address = Address::new(ResourceKind::Image, name.clone());
    let lacks = |key: &str, what: &str, help: &str| {
        Diagnostic::error(format!("this host has no {what}")).code("not-on-this-host").on(&address, key).help(help)
    };
    let mut problems = Vec::new();
    if image.needs_kvm && virt_type == VirtType::Qemu {
        problems.push(lacks(
            "hypervisor_type",
            "KVM for it",
            "`novella doctor` says why; or leave `hypervisor_type` out",
        ));
    }
    let Some(abilities) = &host.abilities else { return problems };
    match image.firmware {
        Firmware::Uefi if !abilities.uefi => {
            problems.push(lacks(
                "firmware",
                "firmware for UEFI",
                "install it: on Debian and Ubuntu the package `ovmf`",
            ));
        }
        Firmware::SecureBoot if !abilities.secure_boot => problems.push(lacks(
            "secure_boot",
            "firmware for UEFI with secure boot",
            "install it: on Debian and Ubuntu the package `ovmf`",
        )),
        Firmware::Bios | Firmware::Uefi | Firmware::SecureBoot => {}
    }
    if image.tpm && !abilities.tpm {
        let help = "install one: on Debian and Ubuntu the packages `swtpm` and `swtpm-tools`";
        problems.push(lacks("tpm", "TPM for guests", help));
    }
    problems
}

fn cpu_fits(name: &Name, desired: &Desired, virt_type: VirtType, host: &HostFacts) -> Option<Diagnostic> {
    let cpu = desired.flavors.get(name)?.cpu.as_ref()?;
    let address = Address::new(ResourceKind::Flavor, name.clone());
    let lacks = |key: &str, help: String| {
        let message = format!("guests cannot have the processor `{cpu}` on this host");
        Some(Diagnostic::error(message).code("not-on-this-host").on(&address, key).help(help))
    };
    match cpu {
        CpuModel::HostModel | CpuModel::HostPassthrough if virt_type == VirtType::Qemu => lacks(
            "cpu_mode",
            "it takes KVM: `novella doctor` says why that cannot be used; or write `\"maximum\"`".into(),
        ),
        CpuModel::HostModel | CpuModel::HostPassthrough | CpuModel::Maximum => None,
        CpuModel::Named(model) => {
            let cpus = &host.abilities.as_ref()?.cpus;
            let known = || cpus.iter().map(String::as_str);
            match did_you_mean(model, known()) {
                _ if cpus.contains(model) => None,
                Some(near) => lacks("cpu_model", format!("did you mean `{near}`?")),
                None => lacks("cpu_model", format!("it can be one of {}", known().collect::<Vec<_>>().join(", "))),
            }
        }
    }
}
