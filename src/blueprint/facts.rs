//! What is known of an object, attribute by attribute; which of it cannot be changed in place, and what a change of it does
//! to a running guest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::PortId;
use crate::blueprint::dhcp::{Assignment, IpVersion};
use crate::blueprint::disk::Content;
use crate::blueprint::hardware::Firmware;
use crate::blueprint::key::ObjectKind;
use crate::blueprint::object::{Firewall, Object, Rule};
use crate::value::span;

/// What is known of an object, attribute by attribute, as text.
///
/// A wanted or recorded object gives all its facts; an observed one those that its adapter can read, in the same words.
/// Only attributes on both sides are compared.
pub type Facts = BTreeMap<Cow<'static, str>, String>;

/// What a change does to a running guest, from nothing to the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disruption {
    /// No guest is concerned.
    #[default]
    None,
    /// The guest goes on running.
    Live,
    /// The guest is shut down and started again.
    Reboot,
    /// The guest's disk or the guest itself is made anew.
    Replace,
}

impl Disruption {
    /// All of them, from nothing to the worst.
    pub const ALL: [Self; 4] = [Self::None, Self::Live, Self::Reboot, Self::Replace];

    /// The word that plans use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Live => "live",
            Self::Reboot => "reboot",
            Self::Replace => "replace",
        }
    }
}

impl Object {
    /// What it is, attribute by attribute.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut put = |name: &'static str, value: String| {
            facts.insert(Cow::Borrowed(name), value);
        };
        match self {
            Self::Firewall(it) => {
                put("table", format!("inet {}", it.table));
                put("ip_forward", on_off(it.ip_forward));
                put("ip6_forward", on_off(it.ip6_forward));
                put("rules", it.rules.len().to_string());
                // By chain, for only within a chain does the order mean anything, and be seen on a host.
                let mut rules: Vec<&Rule> = it.rules.iter().collect();
                rules.sort_by_key(|rule| rule.chain);
                let marks: Vec<String> = rules.into_iter().map(Firewall::rule_mark).collect();
                put("ruleset", Firewall::ruleset_digest(marks.iter().map(String::as_str)));
                for (network, forward) in &it.networks {
                    facts.insert(Cow::Owned(format!("network.{network}")), forward.clone());
                }
            }
            Self::Bridge(it) => {
                put("device", it.device.clone());
                put("mac", it.mac.to_string());
                put("mtu", it.mtu.to_string());
                put("addresses", join(&it.addresses));
                put("state", "up".into());
                put("stp", on_off(false));
                put("forward_delay", "0".into());
            }
            Self::Dhcp(it) => {
                put("bridge", it.bridge.clone());
                put("directory", it.dir.display().to_string());
                put("mtu", it.mtu.to_string());
                put("domain", it.domain.clone());
                put("process", "running".into());
                // So that one too many is seen as well.
                put("subnets", join(&it.ranges.iter().map(|range| &range.subnet).collect::<Vec<_>>()));
                put("records", join(&it.records.keys().collect::<Vec<_>>()));
                for range in &it.ranges {
                    let mut put = |attribute: &str, value: String| {
                        facts.insert(Cow::Owned(format!("subnet.{}{attribute}", range.subnet)), value);
                    };
                    let router = range.router.map_or("none".into(), |router| router.to_string());
                    put("", format!("{} {}", range.cidr, range.assignment.as_str()));
                    put(".router", router);
                    if range.assignment == Assignment::Static {
                        continue;
                    }
                    put(".dns", if range.dns.is_empty() { "itself".into() } else { join(&range.dns) });
                    put(".lease", span(range.lease_seconds));
                    if !range.routes.is_empty() {
                        put(".routes", join(&range.routes));
                    }
                    if let Some(domain) = &range.domain {
                        put(".domain", domain.clone());
                    }
                }
                for (name, records) in &it.records {
                    facts.insert(Cow::Owned(format!("record.{name}")), join(records));
                }
            }
            Self::HostEntry(it) => {
                let addresses: Vec<IpAddr> = it.addresses.iter().map(|it| it.address).collect();
                let served = it.served();
                // The others have it in their name.
                if matches!(it.port, PortId::Own(_)) {
                    put("network", it.network.to_string());
                }
                put("address", join(&addresses));
                put("dhcp", if served.is_empty() { "none".into() } else { join(&served) });
                put("mac", it.mac.to_string());
                put("hostname", it.hostname.clone());
                let names: BTreeSet<String> = it.names().map(|(_, name)| name).collect();
                put("dns_name", join(&names.into_iter().collect::<Vec<_>>()));
                put("options", it.options.len().to_string());
                for option in &it.options {
                    let version = if option.version == IpVersion::V6 { "option6" } else { "option" };
                    facts.insert(Cow::Owned(format!("{version}.{}", option.name)), option.value.to_string());
                }
            }
            Self::Base(it) => {
                put("path", it.path.display().to_string());
                put("source", it.source.shown());
                put("role", it.role.to_string());
                put("content", "whole".into());
                if let Some(sha256) = &it.sha256 {
                    put("sha256", sha256.to_string());
                }
                if let Some(format) = it.converted_from {
                    put("converted_from", format.as_str().into());
                }
            }
            Self::Disk(it) => {
                put("path", it.path.display().to_string());
                put("image", it.image.to_string());
                put("format", it.format.as_str().into());
                if it.imported {
                    put("imported", "true".into());
                }
                put("size", it.size.to_string());
                put("base", it.base.as_ref().map_or("none".into(), |base| base.path.display().to_string()));
                if let Some(digest) = &it.user_data {
                    put("user_data", digest.clone());
                }
            }
            Self::Volume(it) => {
                put("path", it.path.display().to_string());
                if let Some(image) = &it.image {
                    put("image", image.to_string());
                }
                put("format", it.format.as_str().into());
                // What is swapped out is worth nothing after a reboot: another size is another disk.
                put(if it.content == Content::Swap { "swap" } else { "size" }, it.size.to_string());
                put("base", it.backing().map_or("none".into(), |base| base.path.display().to_string()));
            }
            Self::Seed(it) => {
                put("path", it.path.display().to_string());
                put("datasource", it.datasource.as_str().into());
                put("content", "whole".into());
                put("sha256", it.image.digest().to_string());
            }
            Self::Domain(it) => {
                put("name", it.name.clone());
                put("uuid", it.uuid.to_string());
                if it.imported {
                    put("imported", "true".into());
                    put("disk_format", it.disk_format.as_str().into());
                }
                put("type", it.virt_type.as_str().into());
                put("vcpus", it.vcpus.to_string());
                if let Some(most) = it.max_vcpus {
                    put("max_vcpus", most.to_string());
                }
                put("memory", it.memory.to_string());
                if let Some(most) = it.max_memory {
                    put("max_memory", most.to_string());
                }
                if it.hardware.firmware != Firmware::Bios {
                    put("firmware", it.hardware.firmware.as_str().into());
                }
                if let Some(nvram) = &it.hardware.nvram {
                    put("nvram", nvram.display().to_string());
                }
                if it.hardware.tpm {
                    put("tpm", "2.0".into());
                }
                if let Some(cpu) = &it.hardware.cpu {
                    put("cpu", cpu.to_string());
                }
                put("disk", it.disk.display().to_string());
                put("root_disk", it.root_disk.fact(&it.root_target()));
                // So that one too many is seen as well.
                let labels: BTreeSet<&str> = it.disks.iter().map(|disk| disk.volume.label().as_str()).collect();
                let labels: Vec<&str> = labels.into_iter().collect();
                put("disks", if labels.is_empty() { "none".into() } else { join(&labels) });
                put("power", it.power.as_str().into());
                if !it.depends_on.is_empty() {
                    put("depends_on", join(&it.depends_on));
                }
                put("console_log", it.console_log.display().to_string());
                put("shutdown_timeout", format!("{} s", it.shutdown_timeout));
                put("definition", it.definition());
                put("seed", it.seed.as_ref().map_or("none".into(), |seed| seed.display().to_string()));
                if let Some(boot) = &it.boot {
                    put("kernel", boot.kernel.1.display().to_string());
                    put("cmdline", boot.cmdline.clone());
                    if let Some(initrd) = &boot.initrd {
                        put("initrd", initrd.1.display().to_string());
                    }
                }
                for disk in &it.disks {
                    let label = disk.volume.label();
                    facts.insert(Cow::Owned(format!("disk.{label}")), disk.fact());
                    facts.insert(Cow::Owned(format!("disk.{label}.source")), disk.source());
                }
                for nic in &it.nics {
                    let label = nic.label();
                    facts.insert(Cow::Owned(format!("nic.{label}")), nic.fact());
                    facts.insert(Cow::Owned(format!("nic.{label}.bridge")), nic.bridge.clone());
                    facts.insert(Cow::Owned(format!("nic.{label}.mtu")), nic.mtu.to_string());
                    facts.insert(
                        Cow::Owned(format!("nic.{label}.link")),
                        if nic.unplugged { "down" } else { "up" }.into(),
                    );
                }
            }
        }
        facts
    }

    /// Its facts, without those that are written down on no host: what a look at one can tell at most.
    pub fn visible_facts(&self) -> Facts {
        let mut facts = self.facts();
        match self {
            Self::Domain(_) => drop(facts.remove("depends_on")),
            // No disk tells what it was made from, but what it lies over.
            Self::Disk(_) => facts.retain(|name, _| !matches!(name.as_ref(), "image" | "user_data")),
            _ => {}
        }
        facts
    }
}

impl ObjectKind {
    /// Whether a change of this fact takes a removal and a new object, because the thing itself cannot be changed.
    pub fn replaces(self, fact: &str) -> bool {
        match self {
            // A base is mended in its place, for disks lie over it.
            Self::Firewall | Self::Dhcp | Self::Base | Self::Seed => false,
            Self::Bridge => fact == "device",
            Self::HostEntry => fact == "network",
            Self::Disk => matches!(fact, "path" | "image" | "base" | "format" | "user_data"),
            Self::Volume => matches!(fact, "path" | "image" | "base" | "format" | "swap"),
            Self::Domain => matches!(fact, "uuid" | "name"),
        }
    }

    /// What a change of this fact does to a running guest.
    pub fn disruption(self, fact: &str) -> Disruption {
        match self {
            // Nothing is lost with what was swapped out.
            Self::Disk | Self::Volume if self.replaces(fact) && fact != "swap" => Disruption::Replace,
            Self::Domain
                if fact.starts_with("nic.") && [".bridge", ".mtu", ".link"].iter().any(|it| fact.ends_with(it)) =>
            {
                Disruption::Live
            }
            Self::Domain if fact == "depends_on" => Disruption::None,
            Self::Domain if fact == "disk" => Disruption::Replace,
            // What is in the drive is read when the guest boots.
            Self::Domain if matches!(fact, "shutdown_timeout" | "seed" | "imported") => Disruption::Live,
            Self::Domain => Disruption::Reboot,
            _ => Disruption::Live,
        }
    }
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.into()
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
