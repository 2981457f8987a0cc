//! One struct a table, as it is written. A field that is not written is `None`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::address::Name;
use crate::blueprint::disk::Bus;
use crate::blueprint::object::{DiskFormat, ImageFormat, Power};
use crate::spec::values::{
    AddressSpec, Architecture, AttachmentSpec, Cidr, CpuMode, DhcpOptSpec, DiskSpec, DomainId, FileSpec, FirmwareSpec,
    FixedIpSpec, Forward, GatewaySpec, GuardSpec, HostRouteSpec, HypervisorType, Ip, Ipv6Mode, LifecycleSpec, Lifetime,
    Limit, MaintenanceSpec, OnUserDataChange, Pool, PortRef, RecordType, Size, TimeToLive, TpmVersion, VirtTypeSpec,
    VolumeRef,
};
use crate::value::{ByteSize, Mac, Secret, Sha256};

/// All that the files of a spec say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    /// `[project]`.
    pub project: ProjectSpec,
    /// `[quota]`.
    pub quota: QuotaSpec,
    /// `[host.NAME]`.
    pub hosts: BTreeMap<Name, HostSpec>,
    /// `[network.NAME]`.
    pub networks: BTreeMap<Name, NetworkSpec>,
    /// `[subnet.NAME]`.
    pub subnets: BTreeMap<Name, SubnetSpec>,
    /// `[dns_record.NAME]`.
    pub dns_records: BTreeMap<Name, DnsRecordSpec>,
    /// `[port.NAME]`.
    pub ports: BTreeMap<Name, PortSpec>,
    /// `[image.NAME]`.
    pub images: BTreeMap<Name, ImageSpec>,
    /// `[flavor.NAME]`.
    pub flavors: BTreeMap<Name, FlavorSpec>,
    /// `[keypair.NAME]`.
    pub keypairs: BTreeMap<Name, KeypairSpec>,
    /// `[volume.NAME]`.
    pub volumes: BTreeMap<Name, VolumeSpec>,
    /// `[server.NAME]`.
    pub servers: BTreeMap<Name, ServerSpec>,
    /// `[[moved]]`.
    pub moved: Vec<MovedSpec>,
    /// `[[removed]]`.
    pub removed: Vec<RemovedSpec>,
    /// `[[import]]`.
    pub imports: Vec<ImportSpec>,
}

/// `[[moved]]`: a resource that was recorded under another name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct MovedSpec {
    /// The address that it had. Needed.
    pub from: Option<AddressSpec>,
    /// The address that it has in this spec. Needed.
    pub to: Option<AddressSpec>,
}

/// `[[removed]]`: a resource that is to be forgotten and not destroyed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct RemovedSpec {
    /// The address that it had. Needed.
    pub from: Option<AddressSpec>,
}

/// `[[import]]`: a server that is a libvirt domain of others, until it is taken over.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ImportSpec {
    /// The address of the server that it is in this spec. Needed.
    pub to: Option<AddressSpec>,
    /// The name or the UUID of the domain. Needed.
    pub id: Option<DomainId>,
}

/// `[project]`: what keeps two specs on one host apart.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ProjectSpec {
    /// Part of every identity: changing it makes everything anew. Default `default`.
    pub name: Option<Name>,
}

/// `[quota]`: how much the spec may ask for, in the names of Nova and Neutron. What is not written, or `-1`, has no limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct QuotaSpec {
    /// Servers.
    pub instances: Option<Limit<u64>>,
    /// Processors of all servers.
    pub cores: Option<Limit<u64>>,
    /// Memory of all servers.
    pub ram: Option<Limit<ByteSize>>,
    /// Root disks of all servers.
    pub disk: Option<Limit<ByteSize>>,
    /// Volumes of their own.
    pub volumes: Option<Limit<u64>>,
    /// Networks.
    pub networks: Option<Limit<u64>>,
    /// Subnets.
    pub subnets: Option<Limit<u64>>,
    /// Ports, of servers and of their own.
    pub ports: Option<Limit<u64>>,
    /// Keys.
    pub key_pairs: Option<Limit<u64>>,
    /// Items of metadata of any one server.
    pub metadata_items: Option<Limit<u64>>,
    /// Files that are put into any one server.
    pub injected_files: Option<Limit<u64>>,
    /// Bytes of any one of these.
    pub injected_file_content_bytes: Option<Limit<u64>>,
}

/// `[host.local]`: the machine that holds everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
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
    /// How long disks that are taken away are kept in the trash. Default a week; `"0"` for not at all.
    pub trash_ttl: Option<TimeToLive>,
    /// When the daemon may reboot guests that need it, in the time zone of this machine. Default never without asking.
    pub maintenance: Option<MaintenanceSpec>,
}

/// `[network.NAME]`: one bridge with one dnsmasq.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct NetworkSpec {
    /// What it lets in and out. Default `nat`.
    pub forward: Option<Forward>,
    /// The MTU in bytes. Default 1500.
    pub mtu: Option<u32>,
    /// The name of the bridge. Default `brq` and 11 characters of the network's id.
    pub bridge: Option<String>,
    /// The DNS domain of its guests. Default `novella.internal`.
    pub domain: Option<String>,
    /// Whether it may be taken away.
    pub lifecycle: Option<GuardSpec>,
}

/// `[subnet.NAME]`: a range of addresses on a network.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
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
    /// More routes that the guests are told, by DHCP option 121 (RFC 3442).
    pub host_routes: Option<Vec<HostRouteSpec>>,
    /// Whether addresses are handed out (Neutron's `enable_dhcp`). Default `true`.
    pub dhcp: Option<bool>,
    /// How long a lease lasts. Default a day.
    pub lease_time: Option<Lifetime>,
    /// The DNS domain of its addresses. Default that of the network.
    pub domain: Option<String>,
    /// How guests get their IPv6 addresses. Default `slaac`.
    pub ipv6_mode: Option<Ipv6Mode>,
}

/// `[dns_record.NAME]`: a name in the DNS of a network, beside those of its ports.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct DnsRecordSpec {
    /// The network whose guests are told. Needed.
    pub network: Option<Name>,
    /// The type of record. Needed.
    pub r#type: Option<RecordType>,
    /// The name, in the network's domain. Default that of the table.
    pub name: Option<String>,
    /// What it says, as a zone file has it. Needed.
    pub records: Option<Vec<String>>,
}

/// `[port.NAME]`, and a port in the `ports` of a server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// The network it is on. Needed.
    pub network: Option<Name>,
    /// The addresses it is to have, or the subnets they are to come from. Default one of each IP version.
    pub fixed_ips: Option<Vec<FixedIpSpec>>,
    /// Its MAC address. Default one that is derived from its name.
    pub mac_address: Option<Mac>,
    /// Whether its cable is plugged in. Default `true`.
    pub admin_state_up: Option<bool>,
    /// DHCP options for it alone, as for booting over the network.
    pub extra_dhcp_opts: Option<Vec<DhcpOptSpec>>,
    /// The name the guest is told and known by in DNS. Default that of its server; of a port that no server has, its own.
    pub dns_name: Option<Name>,
    /// Refused until they are enforced.
    #[schemars(skip)]
    pub security_groups: Option<toml::Value>,
    /// Refused until they are enforced.
    #[schemars(skip)]
    pub allowed_address_pairs: Option<toml::Value>,
    /// Refused until it is enforced.
    #[schemars(skip)]
    pub port_security_enabled: Option<toml::Value>,
}

/// `[image.NAME]`: a disk, a kernel, or both.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ImageSpec {
    /// The image that has what is not written here.
    pub extends: Option<Name>,
    /// A path (from the file it stands in) or an http(s) URL.
    pub source: Option<String>,
    /// The format of the disk. Needed with `source`.
    pub format: Option<ImageFormat>,
    /// What the disk hashes to, as it is published.
    pub sha256: Option<Sha256>,
    /// A list of digests, as `sha256sum` writes it: a path or an `https://` URL. Counts for each file from the web without a digest.
    pub sha256sums: Option<String>,
    /// The same, as `sha512sum` writes it. An image has one of the two.
    pub sha512sums: Option<String>,
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
    /// What starts it (Glance's `hw_firmware_type`). Default `bios`.
    pub firmware: Option<FirmwareSpec>,
    /// Whether the firmware starts only what is signed (Glance's `os_secure_boot`). Default `false`.
    pub secure_boot: Option<bool>,
    /// The TPM that it needs (Glance's `hw_tpm_version`). Default none.
    pub tpm: Option<TpmVersion>,
    /// The hypervisor that it is made for. Default any.
    pub hypervisor_type: Option<HypervisorType>,
    /// The processors that it is made for. Default `x86_64`, and nothing else can be.
    pub architecture: Option<Architecture>,
    /// What the disks of its servers are plugged into, where they do not say (Glance's property). Default `virtio`.
    pub hw_disk_bus: Option<Bus>,
}

/// `[flavor.NAME]`: a size.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct FlavorSpec {
    /// The flavor that has what is not written here.
    pub extends: Option<Name>,
    /// Processors. Default 1.
    pub vcpus: Option<u32>,
    /// How many processors a running server can be brought to. Default `vcpus`.
    pub max_vcpus: Option<u32>,
    /// Memory. Needed.
    pub ram: Option<Size>,
    /// How much memory a running server can be brought to. Default `ram`.
    pub max_ram: Option<Size>,
    /// The size of the root disk. Needed.
    pub disk: Option<Size>,
    /// Where its processor comes from. Default `host-model`, by emulation `maximum`.
    pub cpu_mode: Option<CpuMode>,
    /// A processor that QEMU has by name, in place of `cpu_mode`.
    pub cpu_model: Option<String>,
    /// The size of a further disk with a file system on it, which goes with the server (Nova's `ephemeral`). Default none.
    pub ephemeral: Option<Size>,
    /// The size of a disk to swap to (Nova's `swap`). Default none.
    pub swap: Option<Size>,
}

/// `[volume.NAME]`: a disk that outlives servers and moves between them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct VolumeSpec {
    /// Its size. Needed.
    pub size: Option<Size>,
    /// Its format. Default `qcow2`.
    pub format: Option<DiskFormat>,
    /// The image that it begins as (Cinder's `imageRef`). Default none: it is empty.
    pub image: Option<Name>,
    /// Whether it may be taken away.
    pub lifecycle: Option<GuardSpec>,
}

/// `[keypair.NAME]`: a public key, with which somebody may log in.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct KeypairSpec {
    /// The line in `id_ed25519.pub`. Needed.
    pub public_key: Option<String>,
}

/// `[server.NAME]`: a virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct ServerSpec {
    /// The server that has what is not written here, but for `abstract`: maps become one, lists do not.
    pub extends: Option<Name>,
    /// Whether it is only there for others to extend. Default `false`.
    pub r#abstract: Option<bool>,
    /// The image. Needed.
    pub image: Option<Name>,
    /// The flavor. Needed.
    pub flavor: Option<Name>,
    /// The networks, in the order of its interfaces.
    pub networks: Option<Vec<Name>>,
    /// The ports, in the order of its interfaces, where more is to be said than the names of networks.
    pub ports: Option<Vec<PortRef>>,
    /// An address it is to have, in a subnet of one of its networks.
    pub fixed_ip: Option<Ip>,
    /// Whether it is to run. Default `on`.
    pub power: Option<Power>,
    /// The servers that are started before it, and stopped after it.
    pub depends_on: Option<Vec<Name>>,
    /// Refused: guests would be started before their bridges are there.
    #[schemars(skip)]
    pub autostart: Option<toml::Value>,
    /// How many seconds it may take to shut down before it is forced off. Default 60.
    pub shutdown_timeout: Option<u32>,
    /// When the daemon may reboot it, if it needs that. Default what the host has; `[]` for never without asking.
    pub maintenance: Option<MaintenanceSpec>,
    /// What cloud-init is told to do: its text.
    pub user_data: Option<Secret>,
    /// The file that holds that text, as a path from the directory of the spec.
    pub user_data_file: Option<String>,
    /// The keys with which one may log in.
    pub key_pairs: Option<Vec<Name>>,
    /// What the guest is told about itself.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Files that are put into the guest.
    pub files: Option<Vec<FileSpec>>,
    /// Whether all that is told in the way of OpenStack, and not by a NoCloud seed. Default `false`.
    pub config_drive: Option<bool>,
    /// What becomes of a guest when that changes. Default `next_boot`.
    pub on_user_data_change: Option<OnUserDataChange>,
    /// How its root disk is attached.
    pub root_disk: Option<AttachmentSpec>,
    /// The volumes that it has.
    pub volumes: Option<Vec<VolumeRef>>,
    /// Further disks, which go with it.
    pub disks: Option<Vec<DiskSpec>>,
    /// What may become of it by an edit.
    pub lifecycle: Option<LifecycleSpec>,
    /// Makes so many of it, named `NAME-1` and on.
    pub count: Option<u32>,
}
