//! Taking over a domain of others: looking at it as if it carried our mark, and setting the mark.

use std::path::PathBuf;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::connection::{failed, is};
use super::power::{self, State};
use super::{Hypervisor, found, guest, read};
use crate::blueprint::facts::Facts;
use crate::blueprint::guest::{Guest, pending};
use crate::blueprint::import::{Import, NOT_IMPORTABLE};
use crate::blueprint::key::domain_key;
use crate::blueprint::object::{self, Claim, DiskFormat};
use crate::host::HostError;
use crate::host::domain_xml;
use crate::host::domain_xml::import::{ReadAs, Unfit, first_disk, read_as};
use crate::host::images::imported::Imported as ImportedDisk;
use crate::plan::world::{Differing, Imported, Observed};

/// A domain of others as it was seen.
struct Foreign {
    facts: Facts,
    guest: Option<Guest>,
    claims: Vec<Claim>,
    imported: Imported,
    disk: Option<ImportedDisk>,
}

impl Hypervisor {
    /// Adds a domain of others to what was seen, as the server that it is to be. Gives its root disk. Nothing is added where it
    /// carries the mark of this server already.
    ///
    /// # Errors
    /// When there is none, it is novella's already, or it cannot be taken over without loss.
    pub fn observe_foreign(&self, import: &Import, into: &mut Observed) -> Result<Option<ImportedDisk>, HostError> {
        let seen = self.connection.run(|connect| self.look_at_foreign(connect, import))?;
        let Some(Foreign { facts, guest, claims, imported, disk }) = seen else { return Ok(None) };
        let key = domain_key(&import.server);
        into.foreign.retain(|claim| !claims.contains(claim));
        into.guests.extend(guest.map(|guest| (key.clone(), guest)));
        into.imports.insert(key.clone(), imported);
        into.objects.insert(key, facts);
        Ok(disk)
    }

    fn look_at_foreign(&self, connect: &Connect, import: &Import) -> Result<Option<Foreign>, HostError> {
        let id = &import.id;
        let look = |error: Error| failed(format!("cannot look at domain `{id}`"), error);
        let unfit = |Unfit { why, help }| refused(id, &why, help);
        let Some(domain) = domain(connect, id).map_err(look)? else {
            if import.begun {
                return Ok(None);
            }
            let help =
                "`virsh list --all` shows what there is; where it was taken over and is gone since, take the block out";
            return Err(HostError::refused(format!("there is no domain `{id}`")).code(NOT_IMPORTABLE).help(help));
        };
        let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(look)?;
        let defined = domain_xml::read(&xml).unwrap_or_default();
        if let Some(marked) = &defined.marked {
            if self.is_ours(marked, import.server.as_str()) {
                return Ok(None);
            }
            let what = format!("`server.{}` of project `{}`", marked.server, marked.project);
            let help = "name another domain, or take the block out";
            let error = HostError::refused(format!("domain `{id}` is novella's already: {what}"));
            return Err(error.code(NOT_IMPORTABLE).help(help));
        }
        can_be_taken_over(&domain, id)?;
        let ReadAs { marked, macs } = read_as(&xml, import).map_err(unfit)?;
        // No definition has that.
        let is_started = domain.autostart().map_err(look)?;
        let differing = is_started.then(|| Differing {
            field: "autostart".into(),
            there: Some("on".into()),
            here: Some("off".into()),
        });
        let state = power::state(&domain).map_err(look)?;
        let mut facts = marked.facts;
        facts.insert("power".into(), state.to_string());
        let mut taps = defined.taps;
        let guest = match state {
            State::Off => None,
            State::On => {
                let xml = domain.xml_desc(0).map_err(look)?;
                let mut live = domain_xml::read(&xml).unwrap_or_default();
                taps.extend(live.taps.clone());
                live.marked = Some(read_as(&xml, import).map_err(unfit)?.marked);
                let mut guest = guest(&live);
                if guest.facts.get("disk") != facts.get("disk") {
                    let help = "bring the two together: `virsh blockcommit --active --pivot`";
                    return Err(refused(id, "it runs from another disk than it is defined with", help));
                }
                let nics: Vec<String> = defined.nics.into_iter().map(|(fact, _)| fact).collect();
                guest.pending = pending(&guest.facts, &guest.nics, &facts, &nics);
                Some(guest)
            }
            _ => return Err(refused(id, &format!("it is {state}"), "resume it, or shut it down")),
        };
        let mut claims: Vec<Claim> = taps.into_iter().map(Claim::Link).collect();
        claims.push(Claim::DomainName(domain.name().map_err(look)?));
        claims.push(Claim::DomainUuid(domain.uuid().map_err(look)?));
        let format = facts.get("disk_format").map_or("", String::as_str);
        let format = DiskFormat::ALL.into_iter().find(|it| it.as_str() == format);
        let disk = facts.get("disk").map(PathBuf::from).zip(format);
        let disk = disk.map(|(path, format)| ImportedDisk { path, format });
        let differing = differing.into_iter().collect();
        let imported = Imported { id: id.clone(), macs, definition: xml, differing };
        Ok(Some(Foreign { facts, guest, claims, imported, disk }))
    }

    /// Sets our mark on a domain of others, which stays what it is. Succeeds when it carries the mark of this server already.
    ///
    /// # Errors
    /// When it is not the one that was imported, or is what could not be taken over any more.
    pub(super) fn claim(&self, domain: &Domain, wanted: &object::Domain) -> Result<(), HostError> {
        let name = &wanted.name;
        let look = |error| failed(format!("cannot look at domain `{name}`"), error);
        let deed = || format!("cannot mark domain `{name}`");
        if domain.name().map_err(look)? != *name {
            return Err(super::not_ours(&format!("domain {}", wanted.uuid)));
        }
        can_be_taken_over(domain, name)?;
        let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(look)?;
        let is_another = |disk: &PathBuf| *disk != wanted.disk && !wanted.disk.starts_with(&self.layout.root);
        if let Some(disk) = first_disk(&xml).filter(is_another) {
            let why = format!("its disk is `{}` by now", disk.display());
            return Err(refused(name, &why, "somebody has changed it meanwhile: plan again"));
        }
        // It would be started before its bridges are there.
        if domain.autostart().map_err(look)? {
            domain.set_autostart(false).map_err(|error| failed(deed(), error))?;
        }
        let [key, namespace, mark] = domain_xml::write_claim(wanted).map_err(|error| HostError::new(deed(), error))?;
        let mut flags = sys::VIR_DOMAIN_AFFECT_CONFIG;
        if power::state(domain).map_err(look)? != State::Off {
            flags |= sys::VIR_DOMAIN_AFFECT_LIVE;
        }
        let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
        tracing::debug!(domain = name, "taking it over");
        domain
            .set_metadata(element, Some(&mark), Some(&key), Some(&namespace), flags)
            .map_err(|error| failed(deed(), error))?;
        let marked = read(domain, sys::VIR_DOMAIN_XML_INACTIVE).map_err(look)?.marked;
        match marked.is_some_and(|marked| self.is_ours(&marked, wanted.server.as_str())) {
            true => Ok(()),
            false => Err(HostError::refused(format!("domain `{name}` does not keep our mark"))),
        }
    }
}

/// The domain of this name, or of this UUID.
fn domain(connect: &Connect, id: &str) -> Result<Option<Domain>, Error> {
    match (found(connect.lookup_domain_by_name(id))?, id.parse::<Uuid>()) {
        (Some(domain), _) => Ok(Some(domain)),
        (None, Ok(uuid)) => found(connect.lookup_domain_by_uuid(uuid)),
        (None, Err(_)) => Ok(None),
    }
}

/// Whether nothing is lost when a domain is defined anew over what it is.
fn can_be_taken_over(domain: &Domain, id: &str) -> Result<(), HostError> {
    let look = |error| failed(format!("cannot look at domain `{id}`"), error);
    if !domain.is_persistent().map_err(look)? {
        let help = format!("give it a definition: `virsh dumpxml {id} >{id}.xml && virsh define {id}.xml`");
        return Err(refused(id, "it is transient, and gone when it stops", help));
    }
    // A driver that knows no such thing has none.
    let saved = match domain.has_managed_save(0) {
        Err(error) if !is(&error, &[ErrorNumber::NoSupport]) => return Err(look(error)),
        saved => saved.unwrap_or_default(),
    };
    if saved {
        let help = format!("start it and shut it down; or drop what it had in memory: `virsh managedsave-remove {id}`");
        return Err(refused(id, "its guest is saved, as it ran", help));
    }
    Ok(())
}

fn refused(id: &str, why: &str, help: impl Into<String>) -> HostError {
    HostError::refused(format!("domain `{id}` cannot be taken over: {why}")).code(NOT_IMPORTABLE).help(help)
}
