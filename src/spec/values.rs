//! The types of a spec's fields. Each refuses what it cannot mean, and says how to write it instead.
//!
//! In an error text, what stands behind a line break is the way out, and behind another the name of the diagnostic.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use crate::address::{Address, Name};
use crate::blueprint::disk::{Bus, Cache, Discard};
use crate::blueprint::object::DiskFormat;
use crate::spec::schema::PortSpec;
use crate::value::{ByteSize, InvalidSize, Secret, ip_number, parse_span};
use crate::window::Window;

/// Reads a field that is written as a string, by its `FromStr`.
struct Text<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text {
    ($type:ty, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text($expected, std::marker::PhantomData))
            }
        }
    };
}

/// A size, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub ByteSize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;

        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512 MiB\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map(Size).map_err(|error| match error {
                    InvalidSize::NoUnit(count) => no_unit(count),
                    other => E::custom(other),
                })
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<Size, E> {
                match u64::try_from(count) {
                    Ok(count) => Err(no_unit(count)),
                    Err(_) => Err(E::invalid_type(Unexpected::Signed(count), &self)),
                }
            }
        }

        fn no_unit<E: Error>(count: u64) -> E {
            E::custom(format!("a size needs a unit\nwrite `\"{count} MiB\"` or `\"{count} GiB\"`"))
        }

        deserializer.deserialize_any(SizeVisitor)
    }
}

/// The most of something there may be; none where there is no limit, which is written as `-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<T>(pub Option<T>);

impl<'de> Deserialize<'de> for Limit<u64> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitVisitor;

        impl Visitor<'_> for LimitVisitor {
            type Value = Limit<u64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("how many there may be, or -1 for no limit")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                match u64::try_from(number) {
                    Ok(number) => Ok(Limit(Some(number))),
                    Err(_) if number == -1 => Ok(Limit(None)),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_any(LimitVisitor)
    }
}

impl<'de> Deserialize<'de> for Limit<ByteSize> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// As `Size`, but for the one number that needs no unit.
        struct LimitVisitor;

        impl Visitor<'_> for LimitVisitor {
            type Value = Limit<ByteSize>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512 MiB\", or -1")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Size::deserialize(text.into_deserializer()).map(|size| Limit(Some(size.0)))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                match number {
                    -1 => Ok(Limit(None)),
                    number => Size::deserialize(number.into_deserializer()).map(|size| Limit(Some(size.0))),
                }
            }
        }

        deserializer.deserialize_any(LimitVisitor)
    }
}

/// A network in CIDR notation (RFC 4632, RFC 4291), without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub IpNet);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || format!("`{text}` is not a network in CIDR notation\nwrite it as `10.20.0.0/24` or `fd00:20::/64`");
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let bits: u8 = prefix.parse().map_err(|_| form())?;
        // Catches the likes of `/08` and `/+8`, which other tools read in other ways.
        let net = IpNet::new(address, bits).ok().filter(|_| bits.to_string() == prefix).ok_or_else(form)?;
        if net.trunc() != net {
            return Err(format!("`{text}` has host bits set\nthe network is `{}`\nhost-bits", net.trunc()));
        }
        Ok(Self(net))
    }
}

text!(Cidr, "a network such as \"10.20.0.0/24\" or \"fd00:20::/64\"");

/// A gateway: an address, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewaySpec {
    /// This address.
    Address(IpAddr),
    /// No router is announced.
    None,
}

impl FromStr for GatewaySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self::None) } else { text.parse::<Ip>().map(|ip| Self::Address(ip.0)) }
    }
}

text!(GatewaySpec, "an IP address, or \"none\"");

/// An IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub IpAddr);

impl FromStr for Ip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let help = if text.contains('/') {
                "leave out the prefix length"
            } else {
                "write it as `10.20.0.11` or `fd00:20::11`"
            };
            format!("`{text}` is not an IP address\n{help}")
        })
    }
}

text!(Ip, "an IP address such as \"10.20.0.11\"");

/// A range of addresses from which ports are served, both ends included: `"10.20.0.10-10.20.0.99"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first address.
    pub first: IpAddr,
    /// The last address, of the same version and not below the first.
    pub last: IpAddr,
}

impl Pool {
    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// How many addresses it has, as far as that can be counted.
    pub fn size(&self) -> u128 {
        (ip_number(self.last) - ip_number(self.first)).saturating_add(1)
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<IpAddr>().ok()?, last.trim().parse::<IpAddr>().ok()?))
        });
        match ends.filter(|(first, last)| first.is_ipv4() == last.is_ipv4()) {
            Some((first, last)) if first <= last => Ok(Self { first, last }),
            Some((first, last)) => Err(format!("the pool `{text}` ends before it starts\nwrite `{last}-{first}`")),
            None => Err(format!("`{text}` is not a range of addresses\nwrite it as `10.20.0.10-10.20.0.99`")),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

text!(Pool, "a range of addresses such as \"10.20.0.10-10.20.0.99\"");

/// The address of a resource: `"server.web"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpec(pub Address);

impl FromStr for AddressSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = |_| format!("`{text}` is not the address of a resource\nwrite it as `\"server.web\"`");
        text.parse().map(Self).map_err(form)
    }
}

text!(AddressSpec, "an address such as \"server.web\"");

/// A libvirt domain, by its name or its UUID: `"old-web"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainId(pub String);

impl FromStr for DomainId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(format!("{text:?} is not the name or UUID of a domain\n`virsh list --all` shows them"));
        }
        Ok(Self(text.to_owned()))
    }
}

text!(DomainId, "the name or UUID of a domain such as \"old-web\"");

/// How long a lease lasts, in seconds: `"90s"`, `"30m"`, `"12h"`, `"7d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime(pub u32);

/// dnsmasq makes anything shorter two minutes.
const LIFETIME: std::ops::RangeInclusive<u32> = 120..=365 * 86_400;

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a length of time\nwrite it as `\"30m\"`, `\"12h\"` or `\"7d\"`");
        match parse_span(text).ok_or_else(form)? {
            seconds if LIFETIME.contains(&seconds) => Ok(Self(seconds)),
            _ => Err(format!("a lease of `{text}` is not possible\nit may last from two minutes to a year")),
        }
    }
}

text!(Lifetime, "a length of time such as \"12h\"");

/// How long something is kept, in seconds: `"12h"`, `"7d"`; `"0"` for not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive(pub u32);

impl FromStr for TimeToLive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(0));
        }
        parse_span(text).map(Self).ok_or_else(|| {
            format!("`{text}` is not a length of time\nwrite it as `\"12h\"` or `\"7d\"`, or `\"0\"` for not at all")
        })
    }
}

text!(TimeToLive, "a length of time such as \"7d\", or \"0\"");

/// A time in which guests may be rebooted: `"Sat 02:00-04:00"`, or `"02:00-04:00"` each day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec(pub Window);

impl FromStr for WindowSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let text = text.escape_debug();
            format!("`{text}` is not a window\nwrite it as `\"Sat 02:00-04:00\"`, or `\"02:00-04:00\"` for each day")
        })
    }
}

text!(WindowSpec, "a window such as \"Sat 02:00-04:00\"");

/// When guests may be rebooted: one window, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceSpec(pub Vec<WindowSpec>);

impl<'de> Deserialize<'de> for MaintenanceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = MaintenanceSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a window such as \"Sat 02:00-04:00\", or a list of them")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MaintenanceSpec, E> {
                text.parse().map(|window| MaintenanceSpec(vec![window])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, windows: A) -> Result<MaintenanceSpec, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(windows)).map(MaintenanceSpec)
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

/// How the guests on an IPv6 subnet get their addresses (Neutron's `ipv6_address_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Ipv6Mode {
    /// Each makes its own from the prefix and its MAC (RFC 4862).
    #[default]
    #[serde(rename = "slaac")]
    Slaac,
    /// The same, and DHCPv6 tells the rest (RFC 8415, 4.2: stateless).
    #[serde(rename = "dhcpv6-stateless")]
    Dhcpv6Stateless,
    /// DHCPv6 hands them out.
    #[serde(rename = "dhcpv6-stateful")]
    Dhcpv6Stateful,
}

/// A route that guests are told of (Neutron's `host_routes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostRouteSpec {
    /// Where it leads.
    pub destination: Cidr,
    /// The router on the subnet that knows the way.
    pub nexthop: Ip,
}

/// A DHCP option of one port (Neutron's `extra_dhcp_opts`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DhcpOptSpec {
    /// The option by its name, such as `bootfile-name`, or by its number.
    pub name: String,
    /// What it says.
    pub value: String,
    /// 4 or 6. Default 4.
    pub ip_version: Option<u8>,
}

/// An address that a port is to have: itself, or the subnet that it is to come from, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixedIpSpec {
    /// The subnet.
    pub subnet: Option<Name>,
    /// The address.
    pub ip_address: Option<Ip>,
}

/// A value that may be written as a string or as a table.
trait TextOrTable<'de>: Sized {
    /// What the table is read as.
    type Table: Deserialize<'de>;
    /// What may stand there, in words.
    const EXPECTED: &'static str;
    /// What a string means.
    fn of_text(text: &str) -> Result<Self, String>;
    /// What a table means.
    fn of_table(table: Self::Table) -> Self;
}

struct TextOrTableVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: TextOrTable<'de>> Visitor<'de> for TextOrTableVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::of_text(text).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Table::deserialize(MapAccessDeserializer::new(map)).map(T::of_table)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FixedIpTable {
    /// The subnet that it is to come from.
    subnet: Option<Name>,
    /// The address.
    ip_address: Option<Ip>,
}

impl TextOrTable<'_> for FixedIpSpec {
    type Table = FixedIpTable;
    const EXPECTED: &'static str = "an IP address, or a table with `subnet` and `ip_address`";

    fn of_text(text: &str) -> Result<Self, String> {
        Ok(Self { subnet: None, ip_address: Some(text.parse()?) })
    }

    fn of_table(table: FixedIpTable) -> Self {
        Self { subnet: table.subnet, ip_address: table.ip_address }
    }
}

impl<'de> Deserialize<'de> for FixedIpSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTableVisitor(std::marker::PhantomData))
    }
}

/// A port of a server: one of its own by name, or one that is made for the server.
#[derive(Clone, Debug, PartialEq)]
pub enum PortRef {
    /// `"vip"`, which `[port.vip]` declares.
    Own(Name),
    /// `{ network = "private", … }`.
    Inline(Box<PortSpec>),
}

impl TextOrTable<'_> for PortRef {
    type Table = PortSpec;
    const EXPECTED: &'static str = "the name of a port, or a table such as `{ network = \"NETWORK\" }`";

    fn of_text(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Own).map_err(|error| format!("`{text}` is not the name of a port: {error}"))
    }

    fn of_table(table: PortSpec) -> Self {
        Self::Inline(Box::new(table))
    }
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTableVisitor(std::marker::PhantomData))
    }
}

/// How a disk is attached to a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachmentSpec {
    /// What it is plugged into. Default what the image says, else `virtio`.
    pub bus: Option<Bus>,
    /// How it is cached. Default `writeback`.
    pub cache: Option<Cache>,
    /// What becomes of blocks that the guest does not need any more. Default `unmap`.
    pub discard: Option<Discard>,
}

/// A volume of a server: by its name, or with what more is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRef {
    /// The volume.
    pub volume: Name,
    /// How it is attached.
    pub attachment: AttachmentSpec,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeTable {
    /// The volume.
    volume: Name,
    /// What it is plugged into. Default what the image of the server says, else `virtio`.
    bus: Option<Bus>,
    /// How it is cached. Default `writeback`.
    cache: Option<Cache>,
    /// What becomes of blocks that the guest does not need any more. Default `unmap`.
    discard: Option<Discard>,
}

impl TextOrTable<'_> for VolumeRef {
    type Table = VolumeTable;
    const EXPECTED: &'static str = "the name of a volume, or a table such as `{ volume = \"VOLUME\", bus = \"scsi\" }`";

    fn of_text(text: &str) -> Result<Self, String> {
        let volume = text.parse().map_err(|error| format!("`{text}` is not the name of a volume: {error}"))?;
        Ok(Self { volume, attachment: AttachmentSpec::default() })
    }

    fn of_table(VolumeTable { volume, bus, cache, discard }: VolumeTable) -> Self {
        Self { volume, attachment: AttachmentSpec { bus, cache, discard } }
    }
}

impl<'de> Deserialize<'de> for VolumeRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTableVisitor(std::marker::PhantomData))
    }
}

/// A disk that a server has beside its root disk, and that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Its name among the disks of the server.
    pub name: Name,
    /// Its size.
    pub size: Size,
    /// Its format. Default `qcow2`.
    pub format: Option<DiskFormat>,
    /// The image that it begins as. Default none: it is empty.
    pub image: Option<Name>,
    /// What it is plugged into. Default what the image of the server says, else `virtio`.
    pub bus: Option<Bus>,
    /// How it is cached. Default `writeback`.
    pub cache: Option<Cache>,
    /// What becomes of blocks that the guest does not need any more. Default `unmap`.
    pub discard: Option<Discard>,
}

impl DiskSpec {
    /// How it is attached.
    pub fn attachment(&self) -> AttachmentSpec {
        AttachmentSpec { bus: self.bus, cache: self.cache, discard: self.discard }
    }
}

/// A file that is put into a guest (Nova's injected files).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Where it is put.
    pub path: String,
    /// What it holds.
    pub content: Option<Secret>,
    /// The file that holds that, as a path from the directory of the spec.
    pub source: Option<String>,
    /// Its mode in octal digits. Default `0644`.
    pub mode: Option<String>,
    /// Its user and group. Default `root:root`.
    pub owner: Option<String>,
}

/// What may become of a server by an edit (Terraform's `lifecycle`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleSpec {
    /// Whether a plan that would take it away, or its disk, is refused. Default `false`.
    pub prevent_destroy: Option<bool>,
    /// The keys whose changes are ignored once it is made; `all` of them. Default none.
    pub ignore_changes: Option<Vec<String>>,
    /// Whether a new root disk is made before the guest is shut down. Default `false`.
    pub create_before_destroy: Option<bool>,
}

/// What may become of a network or a volume by an edit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// Whether a plan that would take it away is refused. Default `false`.
    pub prevent_destroy: Option<bool>,
}

/// What becomes of a guest when what its cloud-init was told changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUserDataChange {
    /// Nothing: it keeps what it was made with.
    Ignore,
    /// It goes on, and cloud-init takes the next boot for the first of a new instance.
    #[default]
    NextBoot,
    /// The same, but with other user data it gets a new root disk.
    Rebuild,
}

/// The types of records that the DNS of a network can have beside those of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// An IPv4 address (RFC 1035).
    A,
    /// An IPv6 address (RFC 3596).
    Aaaa,
    /// Another name for a name (RFC 1035).
    Cname,
    /// Where a service is (RFC 2782).
    Srv,
    /// Free text (RFC 1035).
    Txt,
}

impl RecordType {
    /// The word in the spec and in zone files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }
}

/// What a network lets in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Out with the host's address (masquerade), in only what answers.
    #[default]
    Nat,
    /// In and out as it is; the world outside must know the way back.
    Routed,
    /// Neither in nor out.
    Isolated,
}

impl Forward {
    /// The word in the spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }
}

/// What starts a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareSpec {
    /// SeaBIOS.
    Bios,
    /// UEFI.
    Uefi,
}

/// The version of a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TpmVersion {
    /// TPM 2.0.
    #[serde(rename = "2.0")]
    V2,
}

/// Which kind of hypervisor an image is made for (Glance's `hypervisor_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HypervisorType {
    /// QEMU, with KVM or without.
    Qemu,
    /// QEMU with KVM.
    Kvm,
}

/// Which processors an image is made for (Glance's `architecture`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Architecture {
    /// 64-bit x86.
    #[serde(rename = "x86_64", alias = "amd64")]
    X86,
}

/// Where a guest's processor comes from (Nova's `cpu_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CpuMode {
    /// The host's, as near as a name and a list of features come to it.
    HostModel,
    /// The host's own.
    HostPassthrough,
    /// All that can be had.
    Maximum,
}

/// How domains are to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VirtTypeSpec {
    /// With KVM where a guest really runs under it, else by emulation.
    #[default]
    Auto,
    /// With KVM.
    Kvm,
    /// By emulation (TCG).
    Qemu,
}
