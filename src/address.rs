//! Names and addresses: how a person points at a thing in a spec.
//!
//! An [`Address`] is the header of a TOML table, `[server.web]` → `server.web`. It is the identity of a resource: a
//! resource is never known by its position or its count.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A resource name: `^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`.
///
/// The rule is that of a DNS label (RFC 1123) with a letter first, so a name is safe as host name, file name, libvirt
/// domain name and in a dnsmasq line, and two names that look the same are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The most characters a name may have (RFC 1035, 2.3.4: a label is 63 octets or less).
    pub const MAX_LEN: usize = 63;

    /// `default`, the project of a spec that names none.
    pub fn default_project() -> Self {
        Self("default".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(&'static str);

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let bytes = text.as_bytes();
        let Some((first, last)) = bytes.first().zip(bytes.last()) else {
            return Err(InvalidName("a name may not be empty"));
        };
        if bytes.len() > Self::MAX_LEN {
            return Err(InvalidName("a name has at most 63 characters"));
        }
        if !first.is_ascii_lowercase() {
            return Err(InvalidName("a name starts with a lowercase letter"));
        }
        if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
            return Err(InvalidName("a name has only lowercase letters, digits and `-`"));
        }
        if *last == b'-' {
            return Err(InvalidName("a name does not end with `-`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What kind of resource a spec table declares.
///
/// The order is the order in which a plan lists resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// The machine that holds everything (`[host.local]`).
    Host,
    /// A layer-2 network: one bridge, one dnsmasq.
    Network,
    /// A range of addresses on a network.
    Subnet,
    /// A name in the DNS of a network, beside those of ports.
    DnsRecord,
    /// A port of its own, which servers come to and leave.
    Port,
    /// A disk image, cached once and used by many servers.
    Image,
    /// A size: vCPUs, memory, disk.
    Flavor,
    /// A public key, with which somebody may log in.
    Keypair,
    /// A virtual machine.
    Server,
}

impl ResourceKind {
    /// Every kind, in order.
    pub const ALL: [Self; 9] = [
        Self::Host,
        Self::Network,
        Self::Subnet,
        Self::DnsRecord,
        Self::Port,
        Self::Image,
        Self::Flavor,
        Self::Keypair,
        Self::Server,
    ];

    /// The word in the table header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::DnsRecord => "dns_record",
            Self::Port => "port",
            Self::Image => "image",
            Self::Flavor => "flavor",
            Self::Keypair => "keypair",
            Self::Server => "server",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The address of a resource: its kind and its name, shown as `server.web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// The kind of resource.
    pub kind: ResourceKind,
    /// Its name, unique in its kind.
    pub name: Name,
}

impl Address {
    /// The address of the resource `name` of this kind.
    pub fn new(kind: ResourceKind, name: Name) -> Self {
        Self { kind, name }
    }

    /// `host.local`, the machine novella runs on.
    pub fn local_host() -> Self {
        Self::new(ResourceKind::Host, Name("local".into()))
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address is KIND.NAME, as `server.web`")]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (word, name) = text.split_once('.').ok_or(InvalidAddress)?;
        let kind = ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or(InvalidAddress)?;
        Ok(Self::new(kind, name.parse().map_err(|_| InvalidAddress)?))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.name)
    }
}

/// Which port: one that is declared by itself, or the one that a server has on a network.
///
/// Shown as `vip` and `web/private`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PortId {
    /// `[port.NAME]`. It outlives the servers that use it (reference C3).
    Own(Name),
    /// Made for a server, and gone with it.
    Inline {
        /// The server.
        server: Name,
        /// The network it is on; a server has one such port a network.
        network: Name,
    },
}

impl PortId {
    /// The port that a server has on a network.
    pub fn inline(server: &Name, network: &Name) -> Self {
        Self::Inline { server: server.clone(), network: network.clone() }
    }

    /// The resource under which people see it: itself, or its server.
    pub fn address(&self) -> Address {
        match self {
            Self::Own(name) => Address::new(ResourceKind::Port, name.clone()),
            Self::Inline { server, .. } => Address::new(ResourceKind::Server, server.clone()),
        }
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => f.pad(name.as_str()),
            Self::Inline { server, network } => f.pad(&format!("{server}/{network}")),
        }
    }
}

impl FromStr for PortId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('/') {
            Some((server, network)) => Ok(Self::Inline { server: server.parse()?, network: network.parse()? }),
            None => text.parse().map(Self::Own),
        }
    }
}

impl TryFrom<String> for PortId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<PortId> for String {
    fn from(id: PortId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "web", "web-1", "a1", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().expect(good).as_str(), good);
        }
        for bad in ["", "1a", "-a", "a-", "Web", "a_b", "a.b", "a/b", "ä", "a\nb", "a b", "..", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} must be refused");
        }
    }
}
