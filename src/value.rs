//! Small values that specs and hosts share: sizes in bytes, MAC and IP addresses, digests, secrets, times.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

/// A size in bytes, written with a binary unit: `"512 MiB"`, `"20GiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl ByteSize {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many gibibytes.
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// It for people, where an exact size would be hard to read: rounded down to a tenth of the largest unit that is not
    /// more than it.
    pub fn about(self) -> String {
        let Some((unit, factor)) = UNITS.iter().find(|(_, factor)| self.0 >= *factor) else { return self.to_string() };
        let tenths = self.0 % factor / (factor / 1024) * 10 / 1024;
        let fraction = if tenths > 0 { format!(".{tenths}") } else { String::new() };
        format!("{}{fraction} {unit}", self.0 / factor)
    }
}

/// Why a text is not a [`ByteSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    /// No number, or a sign or fraction in it.
    #[error("a size is a whole number with a unit, such as `512 MiB`")]
    Number,
    /// A number with nothing behind it.
    #[error("a size needs a unit: write `{0} MiB` or `{0} GiB`")]
    NoUnit(u64),
    /// A unit that is not one of ours. Decimal and bare units mean different things to different tools, so none is
    /// accepted.
    #[error("`{0}` is not a unit of size; the units are KiB, MiB, GiB, TiB")]
    Unit(String),
    /// More than 2^63 - 1 bytes, the most that a file may have.
    #[error("a size may not exceed 8 EiB")]
    TooLarge,
}

impl FromStr for ByteSize {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return Err(InvalidSize::Number);
        }
        let count: u64 = text[..digits].parse().map_err(|_| InvalidSize::TooLarge)?;
        let unit = text[digits..].trim_start();
        if unit.is_empty() {
            return Err(InvalidSize::NoUnit(count));
        }
        if unit.starts_with(['.', ',']) {
            return Err(InvalidSize::Number);
        }
        let (_, factor) =
            UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| InvalidSize::Unit(unit.to_owned()))?;
        count.checked_mul(*factor).filter(|bytes| i64::try_from(*bytes).is_ok()).map(Self).ok_or(InvalidSize::TooLarge)
    }
}

impl TryFrom<String> for ByteSize {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<Self, InvalidSize> {
        match text.strip_suffix(" B").map(str::parse) {
            Some(Ok(bytes)) => Ok(Self(bytes)),
            _ => text.parse(),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves a whole number; bytes where none does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => f.pad(&format!("{} {unit}", self.0 / factor)),
            None => f.pad(&format!("{} B", self.0)),
        }
    }
}

/// A unicast Ethernet address, shown as `fa:16:3e:01:02:03`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Why a text is not a [`Mac`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMac {
    /// Not six pairs of hexadecimal digits with `:` between them.
    #[error("a MAC address is six pairs of hexadecimal digits, such as `fa:16:3e:01:02:03`")]
    Form,
    /// The group bit is set (IEEE 802: such an address names many stations; libvirt refuses it).
    #[error("a multicast MAC address cannot belong to an interface; make the second digit even")]
    Multicast,
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts
                .next()
                .filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))
                .ok_or(InvalidMac::Form)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMac::Form)?;
        }
        if parts.next().is_some() {
            return Err(InvalidMac::Form);
        }
        if octets[0] & 1 == 1 {
            return Err(InvalidMac::Multicast);
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for Mac {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// The address that an interface with this MAC gives itself on a /64 (RFC 4291, appendix A: the modified EUI-64; RFC
    /// 4862). A guest with privacy addresses (RFC 8981) has others beside it.
    pub fn eui64(self, net: Ipv6Net) -> Ipv6Addr {
        let [a, b, c, d, e, g] = self.0;
        let host = u64::from_be_bytes([a ^ 0x02, b, c, 0xff, 0xfe, d, e, g]);
        Ipv6Addr::from(u128::from(net.network()) & !u128::from(u64::MAX) | u128::from(host))
    }
}

/// A length of time in seconds in the largest unit that leaves a whole number: `1d`, `12h`, `90s`.
pub fn span(seconds: u32) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    match units.into_iter().find(|(size, _)| seconds > 0 && seconds.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", seconds / size),
        None => format!("{seconds}s"),
    }
}

/// The time in seconds since 1970 (UTC). A clock before that counts as 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The length of time that a text such as `90s`, `30m`, `12h` or `7d` means, in seconds.
pub fn parse_span(text: &str) -> Option<u32> {
    let (count, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_lowercase()).len());
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    count.trim_end().parse::<u32>().ok()?.checked_mul(factor)
}

/// An IP address as the number that it is, to count with.
pub fn ip_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The IP address with this number, of the same version as `like`.
pub fn ip_address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Whoever counts stays within a network, so nothing is cut off.
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// A SHA-256 digest.
pub type Sha256 = Sha2<256>;

/// A SHA-512 digest.
pub type Sha512 = Sha2<512>;

/// A digest of the SHA-2 family (FIPS 180-4) of so many bits, as lowercase hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha2<const BITS: usize>(String);

/// Why a text is not a [`Sha2`] of so many bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-{BITS} digest is {} hexadecimal digits, as `sha{BITS}sum FILE` prints it", BITS / 4)]
pub struct InvalidSha2<const BITS: usize>;

impl Sha256 {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_digest(&sha2::Sha256::digest(bytes))
    }

    /// The first 16 digits: enough to tell two apart, short enough to read.
    pub fn short(&self) -> &str {
        &self.0[..16]
    }
}

impl<const BITS: usize> Sha2<BITS> {
    /// The digest from its raw bytes, as a hasher's `finalize` gives them.
    pub fn from_digest(raw: &[u8]) -> Self {
        use fmt::Write as _;
        let mut hex = String::with_capacity(BITS / 4);
        for byte in raw {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex)
    }

    /// All its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const BITS: usize> FromStr for Sha2<BITS> {
    type Err = InvalidSha2<BITS>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == BITS / 4 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidSha2)
        }
    }
}

impl<const BITS: usize> TryFrom<String> for Sha2<BITS> {
    type Error = InvalidSha2<BITS>;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<const BITS: usize> From<Sha2<BITS>> for String {
    fn from(digest: Sha2<BITS>) -> Self {
        digest.0
    }
}

impl<const BITS: usize> fmt::Display for Sha2<BITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes that may hold a password or a key. They are never shown: not in an error, not in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The bytes themselves, for whoever has to write them where they belong.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes, not shown)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// From a string. What stands there in its place is not told.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(text.as_bytes().to_vec().into())
            }

            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom("it must be a string"))
            }

            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("it must be a string"))
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("it must be a string"))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_binary_unit() {
        assert_eq!("512 MiB".parse(), Ok(ByteSize::mib(512)));
        assert_eq!("20GiB".parse(), Ok(ByteSize::gib(20)));
        assert_eq!("512".parse::<ByteSize>(), Err(InvalidSize::NoUnit(512)));
        assert_eq!("10G".parse::<ByteSize>(), Err(InvalidSize::Unit("G".into())));
        assert_eq!("1.5 GiB".parse::<ByteSize>(), Err(InvalidSize::Number));
        assert_eq!("-1 GiB".parse::<ByteSize>(), Err(InvalidSize::Number));
        assert_eq!("9000000 TiB".parse::<ByteSize>(), Err(InvalidSize::TooLarge));
        assert_eq!("99999999999999999999 KiB".parse::<ByteSize>(), Err(InvalidSize::TooLarge));
    }

    #[test]
    fn sizes_survive_a_round_trip_through_text() {
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 3 << 30, (5 << 40) + 1] {
            let size = ByteSize(bytes);
            assert_eq!(ByteSize::try_from(String::from(size)), Ok(size));
        }
    }

    #[test]
    fn an_interface_names_itself_by_its_mac() {
        let mac: Mac = "fa:16:3e:01:02:03".parse().expect("a MAC address");
        let net = "fd00:20::/64".parse().expect("a network");
        assert_eq!(mac.eui64(net).to_string(), "fd00:20::f816:3eff:fe01:203");
    }

    #[test]
    fn spans_are_told_in_their_largest_unit_and_read_back() {
        for bad in ["", "1", "s", "1 w", "-1s", "1.5h", "99999999999d"] {
            assert_eq!(parse_span(bad), None, "{bad:?}");
        }
        for (seconds, text) in [(0, "0s"), (90, "90s"), (600, "10m"), (86_400, "1d"), (90_000, "25h")] {
            assert_eq!(span(seconds), text);
            assert_eq!(parse_span(text), Some(seconds));
        }
    }

    #[test]
    fn digests_have_as_many_digits_as_bits_ask_for() {
        let (short, long) = ("Ab".repeat(32), "Ab".repeat(64));
        assert_eq!(short.parse::<Sha256>().map(|it| it.to_string()), Ok(short.to_lowercase()));
        assert_eq!(long.parse::<Sha512>().map(|it| it.to_string()), Ok(long.to_lowercase()));
        let told = |error: &dyn fmt::Display| error.to_string();
        assert_eq!(
            long.parse::<Sha256>().map_err(|error| told(&error)),
            Err("a SHA-256 digest is 64 hexadecimal digits, as `sha256sum FILE` prints it".into())
        );
        assert_eq!(
            short.parse::<Sha512>().map_err(|error| told(&error)),
            Err("a SHA-512 digest is 128 hexadecimal digits, as `sha512sum FILE` prints it".into())
        );
        assert!("xy".repeat(64).parse::<Sha512>().is_err());
    }

    #[test]
    fn macs_are_unicast() {
        assert_eq!("fa:16:3e:00:00:0A".parse::<Mac>().map(|m| m.to_string()), Ok("fa:16:3e:00:00:0a".into()));
        assert_eq!("01:16:3e:00:00:00".parse::<Mac>(), Err(InvalidMac::Multicast));
        for bad in ["", "fa:16:3e:00:00", "fa:16:3e:00:00:00:00", "fa-16-3e-00-00-00", "+a:16:3e:00:00:00"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }
}
