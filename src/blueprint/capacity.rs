//! Proves that the servers fit on the host before anything is touched (reference B2).

use crate::address::Address;
use crate::desired::Desired;
use crate::diagnostic::Diagnostic;
use crate::value::ByteSize;

/// What a host has to share out among its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: ByteSize,
    /// The size of the file system under the data directory.
    pub disk: ByteSize,
}

/// Checks all servers together, running or not: one that is off must be able to start.
pub fn check(desired: &Desired, capacity: Option<Capacity>) -> Vec<Diagnostic> {
    let Some(capacity) = capacity else { return Vec::new() };
    let host = &desired.host;
    let flavors = || desired.servers.values().filter_map(|server| desired.flavors.get(&server.flavor));
    let needs_vcpus = flavors().map(|flavor| u64::from(flavor.vcpus)).sum();
    let needs_ram = flavors().fold(0, |sum: u64, flavor| sum.saturating_add(flavor.ram.bytes()));
    let needs_disk = flavors().fold(0, |sum: u64, flavor| sum.saturating_add(flavor.disk.bytes()));
    let mut problems = Vec::new();
    let mut claim = |what: &str, key: &str, needs: u64, has: u64, kept: u64, ratio: f64, show: fn(u64) -> String| {
        let limit = share(has.saturating_sub(kept), ratio);
        if needs > limit {
            let kept = if kept > 0 { format!(" less {} kept for the host", show(kept)) } else { String::new() };
            problems.push(
                Diagnostic::error(format!(
                    "the servers need {} of {what}, and the host has {}",
                    show(needs),
                    show(limit)
                ))
                .on(&Address::local_host(), key)
                .label(format!("{} there{kept}, times {ratio}", show(has)))
                .help(format!("use smaller flavors or fewer servers, or raise `{key}` in `[host.local]`")),
            );
        }
    };
    let count = |count: u64| count.to_string();
    let size = |bytes: u64| about(bytes);
    claim(
        "vCPUs",
        "cpu_allocation_ratio",
        needs_vcpus,
        capacity.vcpus.into(),
        host.reserved_cpus.into(),
        host.cpu_allocation_ratio,
        count,
    );
    claim(
        "memory",
        "ram_allocation_ratio",
        needs_ram,
        capacity.memory.bytes(),
        host.reserved_memory.bytes(),
        host.ram_allocation_ratio,
        size,
    );
    claim(
        "disk",
        "disk_allocation_ratio",
        needs_disk,
        capacity.disk.bytes(),
        host.reserved_disk.bytes(),
        host.disk_allocation_ratio,
        size,
    );
    problems
}

/// So much of an amount, rounded down. A ratio has few digits, so thousandths lose nothing.
fn share(amount: u64, ratio: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and a ratio is positive")]
    let thousandths = (ratio * 1000.0).round() as u128;
    u64::try_from(u128::from(amount) * thousandths / 1000).unwrap_or(u64::MAX)
}

/// A size in MiB: near enough to compare, and readable where an exact one is not.
fn about(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
