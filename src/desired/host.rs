//! The machine that holds everything.

use std::path::PathBuf;
use std::sync::Arc;

use crate::address::{Address, ResourceKind};
use crate::desired::Problems;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::schema::HostSpec;
use crate::spec::values::{MaintenanceSpec, VirtTypeSpec};
use crate::value::ByteSize;
use crate::window::Window;

/// How the host is used.
#[derive(Clone, Debug, PartialEq)]
pub struct HostConfig {
    /// How libvirt is reached.
    pub libvirt_uri: String,
    /// How domains are run.
    pub virt_type: VirtTypeSpec,
    /// Where images and disks are kept: absolute.
    pub data_dir: PathBuf,
    /// How many virtual processors a real one stands for.
    pub cpu_allocation_ratio: f64,
    /// How much memory may be promised for each byte there is.
    pub ram_allocation_ratio: f64,
    /// How much disk may be promised for each byte there is.
    pub disk_allocation_ratio: f64,
    /// Processors kept for the host.
    pub reserved_cpus: u32,
    /// Memory kept for the host.
    pub reserved_memory: ByteSize,
    /// Disk space kept for the host.
    pub reserved_disk: ByteSize,
    /// How long disks that are taken away are kept in the trash, in seconds; none for not at all.
    pub trash_ttl: Option<u32>,
    /// When guests may be rebooted by the daemon, where a server has no windows of its own.
    pub maintenance: Arc<[Window]>,
}

/// A week, in seconds.
const TRASH_TTL: u32 = 7 * 86_400;

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            libvirt_uri: "qemu:///system".into(),
            virt_type: VirtTypeSpec::Auto,
            data_dir: "/var/lib/novella".into(),
            cpu_allocation_ratio: 4.0,
            ram_allocation_ratio: 1.0,
            disk_allocation_ratio: 1.0,
            reserved_cpus: 0,
            reserved_memory: ByteSize::mib(512),
            reserved_disk: ByteSize(0),
            trash_ttl: Some(TRASH_TTL),
            maintenance: Arc::default(),
        }
    }
}

/// The connections to the libvirt of this machine. Bridges and disks are made here, so a far libvirt would miss them.
const LOCAL_URIS: [&str; 4] = ["qemu:///system", "qemu:///session", "qemu+unix:///", "test:///"];

pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> HostConfig {
    let local = Address::local_host();
    for name in spec.hosts.keys().filter(|name| **name != local.name) {
        let host = Address::new(ResourceKind::Host, name.clone());
        problems.push(
            Diagnostic::error(format!("`{host}` is not this machine"))
                .on(&host, "")
                .help("only `[host.local]` can be used for now"),
        );
    }
    match spec.hosts.get(&local.name) {
        Some(host) => local_host(host, &local, problems),
        None => HostConfig::default(),
    }
}

fn local_host(spec: &HostSpec, address: &Address, problems: &mut Problems<'_>) -> HostConfig {
    let default = HostConfig::default();
    let mut ratio = |key: &str, value: Option<f64>, default: f64| {
        let ratio = value.unwrap_or(default);
        if !(ratio.is_finite() && ratio > 0.0) {
            problems.push(Diagnostic::error(format!("`{key}` must be more than 0")).on(address, key));
        }
        ratio
    };
    let config = HostConfig {
        cpu_allocation_ratio: ratio("cpu_allocation_ratio", spec.cpu_allocation_ratio, default.cpu_allocation_ratio),
        ram_allocation_ratio: ratio("ram_allocation_ratio", spec.ram_allocation_ratio, default.ram_allocation_ratio),
        disk_allocation_ratio: ratio(
            "disk_allocation_ratio",
            spec.disk_allocation_ratio,
            default.disk_allocation_ratio,
        ),
        libvirt_uri: spec.libvirt_uri.clone().unwrap_or(default.libvirt_uri),
        virt_type: spec.virt_type.unwrap_or(default.virt_type),
        data_dir: spec.data_dir.as_ref().map_or(default.data_dir, PathBuf::from),
        reserved_cpus: spec.reserved_host_cpus.unwrap_or(default.reserved_cpus),
        reserved_memory: spec.reserved_host_memory.map_or(default.reserved_memory, |size| size.0),
        reserved_disk: spec.reserved_host_disk.map_or(default.reserved_disk, |size| size.0),
        trash_ttl: spec.trash_ttl.map_or(default.trash_ttl, |ttl| Some(ttl.0).filter(|seconds| *seconds > 0)),
        maintenance: spec.maintenance.as_ref().map_or(default.maintenance, windows),
    };
    if !LOCAL_URIS.iter().any(|uri| config.libvirt_uri.starts_with(uri)) || has_controls(&config.libvirt_uri) {
        problems.push(
            Diagnostic::error("`libvirt_uri` must name the libvirt of this machine")
                .on(address, "libvirt_uri")
                .help("use `\"qemu:///system\"`, or leave it out"),
        );
    }
    let plain = config
        .data_dir
        .components()
        .all(|part| matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_)));
    let text = config.data_dir.to_string_lossy();
    // A comma would end the value where a path stands in an option of dnsmasq or QEMU.
    if !config.data_dir.is_absolute() || !plain || has_controls(&text) || text.contains([',', '"', '\'']) {
        problems.push(
            Diagnostic::error("`data_dir` must be a plain absolute path")
                .on(address, "data_dir")
                .help("write it like `\"/var/lib/novella\"`, without `..`, commas or quotes"),
        );
    }
    config
}

/// The windows that are written.
pub(super) fn windows(written: &MaintenanceSpec) -> Arc<[Window]> {
    written.0.iter().map(|window| window.0).collect()
}

/// Whether a text has characters that would change the terminal or the file it is written to.
pub(super) fn has_controls(text: &str) -> bool {
    text.chars().any(char::is_control)
}
