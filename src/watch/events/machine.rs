//! What happens on this machine.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::blueprint::Layout;
use crate::desired::Desired;
use crate::host::dhcp::Dnsmasq;
use crate::watch::events::Tell;
use crate::watch::events::kernel::Kernel;
use crate::watch::events::libvirt::Libvirt;

/// Whose objects it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    layout: Layout,
    libvirt_uri: String,
}

/// Hears what happens, as long as it lives.
pub struct Events {
    scope: Scope,
    kernel: Kernel,
    _libvirt: Option<Libvirt>,
    dnsmasq: Dnsmasq,
    /// The dnsmasq processes whose end is heard, by pid.
    processes: BTreeMap<i32, OwnedFd>,
}

impl Events {
    /// Begins to hear what happens to the project of a spec.
    ///
    /// # Errors
    /// Why it cannot, as a phrase.
    pub fn hear(desired: &Desired, tell: Tell) -> Result<Self, String> {
        let scope = Self::scope(desired);
        let kernel = Kernel::hear(&desired.project, Arc::clone(&tell))
            .map_err(|error| format!("the kernel does not tell of changes: {error}"))?;
        // The test driver of libvirt is another one in each process.
        let is_told = !scope.libvirt_uri.starts_with("test:");
        let libvirt = is_told.then(|| Libvirt::hear(&scope.libvirt_uri, &desired.project, tell)).transpose()?;
        let dnsmasq = Dnsmasq::new(scope.layout.clone());
        Ok(Self { scope, kernel, _libvirt: libvirt, dnsmasq, processes: BTreeMap::new() })
    }

    /// Whether it hears what happens to the project of this spec.
    pub fn is_about(&self, desired: &Desired) -> bool {
        self.scope == Self::scope(desired)
    }

    fn scope(desired: &Desired) -> Scope {
        let layout = Layout::new(&desired.host.data_dir, &desired.project);
        Scope { layout, libvirt_uri: desired.host.libvirt_uri.clone() }
    }

    /// Also hears the end of those dnsmasq processes that were started meanwhile. One that ends before this is found gone by
    /// the pass that comes after it.
    pub fn renew(&mut self) {
        let pids = self.dnsmasq.pids();
        self.processes.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            if !self.processes.contains_key(&pid)
                && let Ok(process) = self.kernel.hear_end_of(pid)
            {
                self.processes.insert(pid, process);
            }
        }
    }
}
