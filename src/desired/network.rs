//! Networks.

use std::collections::BTreeMap;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::{DnsRecord, Problems, Subnet};
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::values::Forward;

/// A network: one bridge, one dnsmasq, some subnets.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Its name.
    pub name: Name,
    /// What it lets in and out.
    pub forward: Forward,
    /// The MTU in bytes.
    pub mtu: u32,
    /// The name of the bridge, where the spec sets it.
    pub bridge: Option<String>,
    /// The DNS domain of its guests.
    pub domain: String,
    /// Its subnets, by name.
    pub subnets: Vec<Subnet>,
    /// What its DNS knows beside its ports.
    pub records: Vec<DnsRecord>,
    /// Whether no plan may take it away.
    pub prevent_destroy: bool,
}

/// The DNS domain of guests whose network names none. `internal` is set aside for private use (ICANN, 2024).
const DEFAULT_DOMAIN: &str = "novella.internal";

/// The least MTU an IPv4 host must take (RFC 791: 576), and the most a bridge can have.
const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// The least MTU of a link with IPv6 (RFC 8200, 5).
pub(super) const MTU_V6: u32 = 1280;

pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> BTreeMap<Name, Network> {
    let mut networks = BTreeMap::new();
    for (name, written) in &spec.networks {
        let address = Address::new(ResourceKind::Network, name.clone());
        let mtu = written.mtu.unwrap_or(1500);
        if !MTU.contains(&mtu) {
            problems.push(
                Diagnostic::error(format!("an MTU of {mtu} is not possible")).on(&address, "mtu").help(format!(
                    "it may be from {} to {}",
                    MTU.start(),
                    MTU.end()
                )),
            );
        }
        if let Some(bridge) = &written.bridge
            && let Err(why) = device_name(bridge)
        {
            problems.push(
                Diagnostic::error(format!("`{}` cannot be the name of a bridge: {why}", bridge.escape_default()))
                    .on(&address, "bridge")
                    .help("use lowercase letters, digits and `-`, like `br-lab`"),
            );
        }
        let domain = domain(written.domain.as_deref().unwrap_or(DEFAULT_DOMAIN), &address, problems);
        let network = Network {
            name: name.clone(),
            forward: written.forward.unwrap_or_default(),
            mtu,
            bridge: written.bridge.clone(),
            domain,
            subnets: Vec::new(),
            records: Vec::new(),
            prevent_destroy: written.lifecycle.unwrap_or_default().prevent_destroy.unwrap_or(false),
        };
        networks.insert(name.clone(), network);
    }
    networks
}

/// A DNS domain. With a name before it, it must stay below the 253 characters that a name may have (RFC 1035, 2.3.4).
pub(super) fn domain(text: &str, address: &Address, problems: &mut Problems<'_>) -> String {
    if text.len() > 189 || !text.split('.').all(|label| label.parse::<Name>().is_ok()) {
        problems.push(
            Diagnostic::error(format!("`{}` is not a DNS domain", text.escape_default()))
                .code("domain")
                .on(address, "domain")
                .help("write it like `lab.internal`, in lowercase letters, digits and `-`"),
        );
    }
    text.to_owned()
}

/// `^[a-z][a-z0-9-]{0,14}$`: the kernel takes more, and gives some of it a meaning (`br%d` makes `br0`).
fn device_name(text: &str) -> Result<(), &'static str> {
    if text.len() > 15 {
        return Err("the kernel allows at most 15 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("it must start with a lowercase letter");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("it may have only lowercase letters, digits and `-`");
    }
    Ok(())
}
