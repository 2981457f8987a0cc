//! Proves that the servers fit on the host before anything is touched (reference B2).

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::desired::sum::{self, Part};
use crate::desired::{Desired, Flavor};
use crate::diagnostic::Diagnostic;
use crate::value::ByteSize;

/// What a host has to share out among its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    let needs = |amount: fn(&Flavor) -> u64| {
        sum::by_table(desired.servers.values(), |server| desired.flavors.get(&server.flavor).map_or(0, amount))
    };
    let further = desired.volumes.values();
    let further = further.map(|volume| Part { table: volume.id.address(), count: 1, each: volume.size.bytes() });
    let disks = sum::largest_first(needs(|flavor| flavor.disk.bytes()).into_iter().chain(further));
    let count: fn(u64) -> String = |count| count.to_string();
    let claims = [
        (
            ("vCPUs", "cpu_allocation_ratio", count),
            (
                // What a guest can be brought to must be there when it is.
                needs(|flavor| flavor.max_vcpus.unwrap_or(flavor.vcpus).into()),
                capacity.vcpus.into(),
                host.reserved_cpus.into(),
                host.cpu_allocation_ratio,
            ),
        ),
        (
            ("memory", "ram_allocation_ratio", about),
            (
                needs(|flavor| flavor.max_ram.unwrap_or(flavor.ram).bytes()),
                capacity.memory.bytes(),
                host.reserved_memory.bytes(),
                host.ram_allocation_ratio,
            ),
        ),
        (
            ("disk", "disk_allocation_ratio", about),
            (disks, capacity.disk.bytes(), host.reserved_disk.bytes(), host.disk_allocation_ratio),
        ),
    ];
    let mut problems = Vec::new();
    for ((what, key, show), (parts, has, kept, ratio)) in claims {
        let needs = sum::total(&parts);
        let limit = share(u64::saturating_sub(has, kept), ratio);
        if needs > limit {
            let kept = if kept > 0 { format!(" less {} kept for the host", show(kept)) } else { String::new() };
            problems.push(
                Diagnostic::error(format!(
                    "the servers need {} of {what} ({}), and the host has {}",
                    show(needs),
                    sum::arithmetic(&parts, show),
                    show(limit)
                ))
                .on(&Address::local_host(), key)
                .label(format!("{} there{kept}, times {ratio}", show(has)))
                .help(format!("use smaller flavors or fewer servers, or raise `{key}` in `[host.local]`")),
            );
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::load_texts;

    #[test]
    fn each_amount_is_checked_against_what_is_kept_and_promised() {
        let spec = "[host.local]\nreserved_host_cpus = 1\nram_allocation_ratio = 1.5\n[network.n]\n[subnet.s]\nnetwork = \"n\"\n\
                    cidr = \"10.0.0.0/24\"\n[image.i]\nsource = \"/i\"\nformat = \"raw\"\n[flavor.f]\nvcpus = 2\nram = \"1 GiB\"\n\
                    disk = \"10 GiB\"\n[server.a]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"n\"]\ncount = 3\npower = \"off\"\n";
        let loaded = load_texts([("spec.toml", spec)]);
        let (desired, problems) = crate::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?}"));
        let said = |vcpus, mib, gib| {
            let capacity = Capacity { vcpus, memory: ByteSize::mib(mib), disk: ByteSize::gib(gib) };
            check(&desired, Some(capacity)).into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        // 3 × 2 vCPUs of (3 - 1) × 4; 3 GiB of (2560 - 512) MiB × 1.5; 30 GiB.
        assert_eq!(said(3, 2560, 30), Vec::<String>::new());
        assert_eq!(
            said(2, 2558, 29),
            [
                "the servers need 6 of vCPUs (server.a 3 × 2), and the host has 4",
                "the servers need 3072 MiB of memory (server.a 3 × 1024 MiB), and the host has 3069 MiB",
                "the servers need 30720 MiB of disk (server.a 3 × 10240 MiB), and the host has 29696 MiB",
            ]
        );
        assert_eq!(check(&desired, None), []);
    }
}
