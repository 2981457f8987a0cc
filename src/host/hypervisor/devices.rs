//! Devices that come and go while a guest runs.

use std::thread;
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt::sys;

use super::connection::{LibvirtError, failed};
use super::read;
use crate::blueprint::object::{self, Nic};
use crate::host::HostError;
use crate::host::domain_xml::{self, Read};

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// How long a guest may take to let go of an interface. One that is still booting does so when its kernel is up.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two requests. A guest that is still booting does not hear the first.
const ASK_EVERY: Duration = Duration::from_secs(6);

/// Takes the interfaces that are not wanted from a running guest, and gives it those that it lacks, in their order.
pub(super) fn exchange(domain: &Domain, wanted: &object::Domain, live: &Read) -> Result<(), HostError> {
    let nics = wanted.nic_facts();
    for (fact, xml) in live.nics.iter().filter(|(fact, _)| !nics.contains(fact)) {
        detach(domain, &wanted.name, fact, xml)?;
    }
    let lacking = |nic: &&Nic| !live.nics.iter().any(|(fact, _)| *fact == nic.fact());
    for nic in wanted.nics.iter().filter(lacking) {
        let deed = || format!("cannot plug interface `{}` into running domain `{}`", nic.tap, wanted.name);
        let xml = domain_xml::write_interface(nic).map_err(|error| HostError::new(deed(), error))?;
        tracing::debug!(domain = wanted.name, tap = nic.tap, "plugging an interface in");
        domain.attach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE).map_err(|error| failed(deed(), error))?;
    }
    Ok(())
}

/// Asks a guest to let go of an interface, and waits until it has.
fn detach(domain: &Domain, name: &str, nic: &str, xml: &str) -> Result<(), HostError> {
    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
    let begun = Instant::now();
    let mut next = begun;
    tracing::debug!(domain = name, nic, "taking an interface out");
    while read(domain, 0).map_err(look)?.nics.iter().any(|(fact, _)| fact == nic) {
        if begun.elapsed() >= LET_GO_TIMEOUT {
            let server = name.split_once('.').map_or(name, |(_, server)| server);
            return Err(HostError::refused(format!(
                "the guest of domain `{name}` does not let go of its interface {nic} within {} s",
                LET_GO_TIMEOUT.as_secs()
            ))
            .help(format!(
                "it loses it with its next start: `novella reboot {server}`; or let its system come up, and apply again"
            )));
        }
        if Instant::now() >= next {
            next = Instant::now() + ASK_EVERY;
            if let Err(error) = domain.detach_device_flags(xml, sys::VIR_DOMAIN_AFFECT_LIVE) {
                // It may be at it already, or be done.
                tracing::debug!(domain = name, nic, error = %LibvirtError(error), "the guest could not be asked");
            }
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Makes the mark of a running guest that of its definition.
pub(super) fn mark(domain: &Domain, wanted: &object::Domain) -> Result<(), HostError> {
    let deed = || format!("cannot mark running domain `{}`", wanted.name);
    let [key, namespace, mark] = domain_xml::write_mark(wanted).map_err(|error| HostError::new(deed(), error))?;
    let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    let live = sys::VIR_DOMAIN_AFFECT_LIVE;
    domain.set_metadata(element, Some(&mark), Some(&key), Some(&namespace), live).map_err(|error| failed(deed(), error))
}
