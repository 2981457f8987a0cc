//! What a guest takes while it runs: interfaces and disks that come and go, what is in its drive, cables.

use std::thread;
use std::time::{Duration, Instant};

use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::connection::{LibvirtError, failed, is};
use super::power::{self, State};
use super::{differs_but_for, guest, read};
use crate::blueprint::disk::Bus;
use crate::blueprint::facts::Facts;
use crate::blueprint::guest::Guest;
use crate::blueprint::object::{self, DomainDisk, Nic, Object, Power};
use crate::host::HostError;
use crate::host::domain_xml::{self, Read, ReadDisk, Unwritable};

/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// How long a guest may take to let go of an interface or a disk. One that is still booting does so when its kernel is up.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(30);

/// How long is waited for a guest to take or give back memory. It goes on with it after that.
const BALLOON_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two requests. A guest that is still booting does not hear the first.
const ASK_EVERY: Duration = Duration::from_secs(6);

/// Gives a running guest what it can take as it runs. Gives the host sides of the interfaces that it has then.
pub(super) fn change(domain: &Domain, wanted: &object::Domain) -> Result<Vec<String>, HostError> {
    let name = &wanted.name;
    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
    let state = power::state(domain).map_err(look)?;
    if wanted.power == Power::Off || state == State::Off {
        return Ok(Vec::new());
    }
    let mut live = read(domain, 0).map_err(look)?;
    let nics = wanted.nic_facts();
    let has = guest(&live);
    if has.is_foreign() {
        return Ok(live.taps);
    }
    if state == State::On {
        resize(domain, wanted, &has)?;
    }
    let takes = has.takes(&nics, &wanted.disks);
    if state == State::On && (takes.nics && has.nics != nics || takes.disks) {
        if takes.nics {
            exchange(domain, wanted, &live)?;
        }
        if takes.disks {
            exchange_disks(domain, wanted, &live)?;
        }
        live = read(domain, 0).map_err(look)?;
    }
    // The mark of the guest tells of what it was started with, and now it is the same as what is defined.
    if let Some(marked) = &live.marked
        && !differs_but_for(wanted, &live, |fact| fact == "definition" || fact.starts_with("nic.") || is_of_disks(fact))
        && guest(&live).nics == nics
        && marked.facts.get("definition") != Some(&wanted.definition())
    {
        mark(domain, wanted)?;
        // The mark also tells which interface is whose.
        live = read(domain, 0).map_err(look)?;
    }
    let facts = live.marked.map(|marked| marked.facts).unwrap_or_default();
    change_medium(domain, wanted, &facts)?;
    plug_cables(domain, wanted, &facts)?;
    Ok(live.taps)
}

/// Brings a running guest to the processors and the memory that are wanted, as far as it can be.
fn resize(domain: &Domain, wanted: &object::Domain, guest: &Guest) -> Result<(), HostError> {
    let name = &wanted.name;
    let lacks = |fact: &str, amount: &str| {
        guest.resizes(fact, wanted) && guest.facts.get(fact).is_some_and(|has| has != amount)
    };
    if lacks("vcpus", &wanted.vcpus.to_string()) {
        tracing::debug!(domain = name, vcpus = wanted.vcpus, "plugging processors in");
        domain
            .set_vcpus_flags(wanted.vcpus, sys::VIR_DOMAIN_AFFECT_LIVE)
            .map_err(|error| failed(format!("cannot plug processors into running domain `{name}`"), error))?;
    }
    let memory = wanted.memory.to_string();
    if lacks("memory", &memory) {
        let look = |error| failed(format!("cannot look at domain `{name}`"), error);
        tracing::debug!(domain = name, memory, "changing what its balloon holds");
        domain
            .set_memory_flags(wanted.memory.bytes() >> 10, sys::VIR_DOMAIN_AFFECT_LIVE)
            .map_err(|error| failed(format!("cannot change the memory of running domain `{name}`"), error))?;
        let begun = Instant::now();
        while self::guest(&read(domain, 0).map_err(look)?).facts.get("memory") != Some(&memory) {
            if begun.elapsed() >= BALLOON_TIMEOUT {
                tracing::warn!(
                    domain = name,
                    memory,
                    "its guest is slow to change its memory, or has no balloon driver"
                );
                break;
            }
            thread::sleep(POLL);
        }
    }
    Ok(())
}

/// Whether a fact tells of the disks beside the root disk.
fn is_of_disks(fact: &str) -> bool {
    fact == "disks" || fact.starts_with("disk.")
}

/// Takes the disks that are not wanted from a running guest, and gives it those that it lacks.
fn exchange_disks(domain: &Domain, wanted: &object::Domain, live: &Read) -> Result<(), HostError> {
    let is_it = |label: &str, read: &ReadDisk, disk: &DomainDisk| {
        disk.volume.label().as_str() == label && disk.source() == read.disk.source
    };
    for (label, read) in &live.disks {
        if !wanted.disks.iter().any(|disk| is_it(label, read, disk)) {
            detach_disk(domain, &wanted.name, label, &read.xml)?;
        }
    }
    let mut has_scsi = live.has_scsi;
    let attach = |xml: Result<String, Unwritable>, what: &str| {
        let deed = || format!("cannot attach {what} to running domain `{}`", wanted.name);
        let xml = xml.map_err(|error| HostError::new(deed(), error))?;
        tracing::debug!(domain = wanted.name, what, "attaching");
        domain.attach_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE).map_err(|error| failed(deed(), error))
    };
    for disk in &wanted.disks {
        if live.disks.iter().any(|(label, read)| is_it(label, read, disk)) {
            continue;
        }
        if disk.attachment.bus == Bus::Scsi && !std::mem::replace(&mut has_scsi, true) {
            attach(domain_xml::write_scsi_controller(), "a SCSI controller")?;
        }
        attach(domain_xml::write_disk(disk), &format!("disk `{}`", disk.volume.label()))?;
    }
    Ok(())
}

/// Asks a guest to let go of a disk, and waits until it has.
pub(super) fn detach_disk(domain: &Domain, name: &str, label: &str, xml: &str) -> Result<(), HostError> {
    let has = |read: &Read| read.disks.contains_key(label);
    detach(domain, name, &format!("disk `{label}`"), xml, &has)
}

/// Takes the interfaces that are not wanted from a running guest, and gives it those that it lacks, in their order.
fn exchange(domain: &Domain, wanted: &object::Domain, live: &Read) -> Result<(), HostError> {
    let nics = wanted.nic_facts();
    for (fact, xml) in live.nics.iter().filter(|(fact, _)| !nics.contains(fact)) {
        let has = |read: &Read| read.nics.iter().any(|(its, _)| its == fact);
        detach(domain, &wanted.name, &format!("interface {fact}"), xml, &has)?;
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

/// Asks a guest to let go of a device, and waits until it has.
fn detach(domain: &Domain, name: &str, what: &str, xml: &str, has: &dyn Fn(&Read) -> bool) -> Result<(), HostError> {
    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
    let begun = Instant::now();
    let mut next = begun;
    tracing::debug!(domain = name, what, "taking it out");
    while has(&read(domain, 0).map_err(look)?) {
        if begun.elapsed() >= LET_GO_TIMEOUT {
            let server = name.split_once('.').map_or(name, |(_, server)| server);
            return Err(HostError::refused(format!(
                "the guest of domain `{name}` does not let go of its {what} within {} s",
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
                tracing::debug!(domain = name, what, error = %LibvirtError(error), "the guest could not be asked");
            }
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Makes the mark of a running guest that of its definition.
fn mark(domain: &Domain, wanted: &object::Domain) -> Result<(), HostError> {
    let deed = || format!("cannot mark running domain `{}`", wanted.name);
    let [key, namespace, mark] = domain_xml::write_mark(wanted).map_err(|error| HostError::new(deed(), error))?;
    let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
    let live = sys::VIR_DOMAIN_AFFECT_LIVE;
    domain.set_metadata(element, Some(&mark), Some(&key), Some(&namespace), live).map_err(|error| failed(deed(), error))
}

/// Puts the wanted seed into the drive of a running guest, so that it finds it also when it reboots by itself. One that
/// was started without a drive has it at its next start.
fn change_medium(domain: &Domain, wanted: &object::Domain, live: &Facts) -> Result<(), HostError> {
    let name = &wanted.name;
    let deed = || format!("cannot change what is in the drive of domain `{name}`");
    let is = live.get("seed").map_or("none", String::as_str);
    let seed = wanted.seed.as_ref().map(|seed| seed.to_string_lossy());
    if is == "none" || is == seed.as_deref().unwrap_or(domain_xml::EMPTY) {
        return Ok(());
    }
    // It is where it was when the guest was started; the root disk may come to another bus with the next start.
    let on_virtio = live.get("root_disk").is_some_and(|root| root.starts_with("vd"));
    let root = if on_virtio { Bus::Virtio } else { Bus::Scsi };
    let xml = domain_xml::write_drive(wanted.seed.as_deref(), root).map_err(|error| HostError::new(deed(), error))?;
    tracing::debug!(domain = name, "changing what is in its drive");
    // Also while the guest holds the drive shut: who reads it just then reads it again.
    let flags = sys::VIR_DOMAIN_AFFECT_LIVE | sys::VIR_DOMAIN_DEVICE_MODIFY_FORCE;
    match domain.update_device_flags(&xml, flags) {
        Err(error) if is_unsupported(&error) => {
            tracing::warn!(domain = name, "its drive cannot be changed while it runs: it is at its next start");
            Ok(())
        }
        outcome => outcome.map(drop).map_err(|error| failed(deed(), error)),
    }
}

/// Plugs the cables of a running guest in or pulls them, where they are not as they should be.
fn plug_cables(domain: &Domain, wanted: &object::Domain, live: &Facts) -> Result<(), HostError> {
    let name = &wanted.name;
    let facts = Object::Domain(wanted.clone()).facts();
    for nic in &wanted.nics {
        let link = format!("nic.{}.link", nic.label());
        let is = live.get(link.as_str());
        if is.is_none() || is == facts.get(link.as_str()) {
            continue;
        }
        let deed = || format!("cannot set the link state of `{}` of domain `{name}`", nic.tap);
        // As it was started: neither the MTU nor, once that is gone, the bridge can be changed by this.
        let started = |fact: &str| live.get(format!("nic.{}.{fact}", nic.label()).as_str());
        let nic = &Nic {
            bridge: started("bridge").unwrap_or(&nic.bridge).clone(),
            mtu: started("mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(nic.mtu),
            ..nic.clone()
        };
        let xml = domain_xml::write_interface(nic).map_err(|error| HostError::new(deed(), error))?;
        tracing::debug!(domain = name, tap = nic.tap, unplugged = nic.unplugged, "setting the link state");
        domain.update_device_flags(&xml, sys::VIR_DOMAIN_AFFECT_LIVE).map_err(|error| failed(deed(), error))?;
    }
    Ok(())
}

fn is_unsupported(error: &Error) -> bool {
    is(error, &[ErrorNumber::NoSupport, ErrorNumber::OperationUnsupported, ErrorNumber::ArgumentUnsupported])
}
