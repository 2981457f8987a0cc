//! One struct a table, as it is written. A field that is not written is `None`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::address::Name;
use crate::blueprint::object::{DiskFormat, Power};
use crate::spec::values::{Cidr, Forward, GatewaySpec, Ip, Pool, Size, VirtTypeSpec};
use crate::value::Sha256;

/// All that the files of a spec say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// `[project]`.
    pub project: ProjectSpec,
    /// `[host.NAME]`.
    pub hosts: BTreeMap<Name, HostSpec>,
    /// `[network.NAME]`.
    pub networks: BTreeMap<Name, NetworkSpec>,
    /// `[subnet.NAME]`.
    pub subnets: BTreeMap<Name, SubnetSpec>,
    /// `[image.NAME]`.
    pub images: BTreeMap<Name, ImageSpec>,
    /// `[flavor.NAME]`.
    pub flavors: BTreeMap<Name, FlavorSpec>,
    /// `[server.NAME]`.
    pub servers: BTreeMap<Name, ServerSpec>,
}

/// `[project]`: what keeps two specs on one host apart.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ProjectSpec {
    /// Part of every identity: changing it makes everything anew. Default `default`.
    pub name: Option<Name>,
}

/// `[host.local]`: the machine that holds everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct HostSpec {
    /// How libvirt is reached. Default `qemu:///system`.
    pub libvirt_uri: Option<String>,
    /// How domains are run. Default `auto`.
    pub virt_type: Option<VirtTypeSpec>,
    /// Where images and disks are kept. Default `/var/lib/novella`.
    pub data_dir: Option<String>,
    /// How many virtual processors a real one stands for (Nova's `cpu_allocation_ratio`). Default 4.
    pub cpu_allocation_ratio: Option<f64>,
    /// The same for memory (Nova's `ram_allocation_ratio`). Default 1.
    pub ram_allocation_ratio: Option<f64>,
    /// The same for disk space (Nova's `disk_allocation_ratio`). Default 1.
    pub disk_allocation_ratio: Option<f64>,
    /// Processors kept for the host (Nova's `reserved_host_cpus`). Default 0.
    pub reserved_host_cpus: Option<u32>,
    /// Memory kept for the host (Nova's `reserved_host_memory_mb`). Default 512 MiB.
    pub reserved_host_memory: Option<Size>,
    /// Disk space kept for the host (Nova's `reserved_host_disk_mb`). Default 0.
    pub reserved_host_disk: Option<Size>,
}

/// `[network.NAME]`: one bridge with one dnsmasq.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct NetworkSpec {
    /// What it lets in and out. Default `nat`.
    pub forward: Option<Forward>,
    /// The MTU in bytes. Default 1500.
    pub mtu: Option<u32>,
    /// The name of the bridge. Default `brq` and 11 characters of the network's id.
    pub bridge: Option<String>,
    /// The DNS domain of its guests. Default `novella.internal`.
    pub domain: Option<String>,
}

/// `[subnet.NAME]`: a range of addresses on a network.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SubnetSpec {
    /// The network it is on. Needed.
    pub network: Option<Name>,
    /// Its addresses. Needed.
    pub cidr: Option<Cidr>,
    /// The router. Default the first address, which the host then has; `"none"` for no router.
    pub gateway: Option<GatewaySpec>,
    /// From which addresses ports are served. Default all but network, broadcast and gateway.
    pub pools: Option<Vec<Pool>>,
    /// The DNS servers the guests are told. Default the network's own dnsmasq.
    pub dns: Option<Vec<Ip>>,
}

/// `[image.NAME]`: a disk, a kernel, or both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ImageSpec {
    /// A path (from the file it stands in) or an http(s) URL.
    pub source: Option<String>,
    /// The format of the disk. Needed with `source`.
    pub format: Option<DiskFormat>,
    /// What the disk hashes to.
    pub sha256: Option<Sha256>,
    /// The least disk a flavor must have.
    pub min_disk: Option<Size>,
    /// The least memory a flavor must have.
    pub min_ram: Option<Size>,
    /// A kernel to boot directly: a path or URL.
    pub kernel: Option<String>,
    /// What the kernel hashes to.
    pub kernel_sha256: Option<Sha256>,
    /// The initial ramdisk that goes with the kernel.
    pub initrd: Option<String>,
    /// What the initial ramdisk hashes to.
    pub initrd_sha256: Option<Sha256>,
    /// The kernel's command line. Default `root=/dev/vda console=ttyS0`.
    pub cmdline: Option<String>,
}

/// `[flavor.NAME]`: a size.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct FlavorSpec {
    /// Processors. Default 1.
    pub vcpus: Option<u32>,
    /// Memory. Needed.
    pub ram: Option<Size>,
    /// The size of the root disk. Needed.
    pub disk: Option<Size>,
}

/// `[server.NAME]`: a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ServerSpec {
    /// The image. Needed.
    pub image: Option<Name>,
    /// The flavor. Needed.
    pub flavor: Option<Name>,
    /// The networks, in the order of its interfaces. At least one.
    pub networks: Option<Vec<Name>>,
    /// An address it is to have, in a subnet of one of its networks.
    pub fixed_ip: Option<Ip>,
    /// Whether it is to run. Default `on`.
    pub power: Option<Power>,
    /// How many seconds it may take to shut down before it is forced off. Default 60.
    pub shutdown_timeout: Option<u32>,
    /// Makes so many of it, named `NAME-1` and on.
    pub count: Option<u32>,
}
