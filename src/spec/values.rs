//! The types of a spec's fields. Each refuses what it cannot mean, and says how to write it instead.
//!
//! In an error text, what stands behind a line break is the way out.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

use crate::value::{ByteSize, InvalidSize};

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

/// An IPv4 network in CIDR notation (RFC 4632), without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub Ipv4Net);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a network in CIDR notation\nwrite it as `10.20.0.0/24`");
        let (address, prefix) = text.split_once('/').ok_or_else(form)?;
        if address.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err("IPv6 subnets are not supported yet\nuse an IPv4 network such as `10.20.0.0/24`".into());
        }
        let address: Ipv4Addr = address.parse().map_err(|_| form())?;
        let bits: u8 = prefix.parse().map_err(|_| form())?;
        let net = Ipv4Net::new(address, bits).map_err(|_| form())?;
        if net.trunc() != net {
            return Err(format!("`{text}` has host bits set\nthe network is `{}`", net.trunc()));
        }
        // Catches the likes of `/08` and `/+8`, which other tools read in other ways.
        if net.to_string() != text {
            return Err(form());
        }
        Ok(Self(net))
    }
}

text!(Cidr, "a network such as \"10.20.0.0/24\"");

/// A gateway: an address, or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewaySpec {
    /// This address.
    Address(Ipv4Addr),
    /// No router is announced.
    None,
}

impl FromStr for GatewaySpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self::None) } else { text.parse::<Ip>().map(|ip| Self::Address(ip.0)) }
    }
}

text!(GatewaySpec, "an IPv4 address, or \"none\"");

/// An IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip(pub Ipv4Addr);

impl FromStr for Ip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            let help = if text.contains('/') { "leave out the prefix length" } else { "write it as `10.20.0.11`" };
            format!("`{text}` is not an IPv4 address\n{help}")
        })
    }
}

text!(Ip, "an IPv4 address such as \"10.20.0.11\"");

/// A range of addresses from which ports are served, both ends included: `"10.20.0.10-10.20.0.99"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The first address.
    pub first: Ipv4Addr,
    /// The last address, not below the first.
    pub last: Ipv4Addr,
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<Ipv4Addr>().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
        });
        match ends {
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

/// What a network lets in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// How domains are to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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
