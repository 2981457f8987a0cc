//! Looking at a domain of others. It is never touched.

use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use super::connection::{failed, is};
use super::{Hypervisor, read};
use crate::host::HostError;
use crate::host::domain_xml::foreign::{Foreign, targets};
use crate::value::ByteSize;

impl Hypervisor {
    /// A domain that is not ours, by its name in libvirt.
    ///
    /// # Errors
    /// When there is none of this name, or it carries our mark.
    pub fn foreign(&self, name: &str) -> Result<Foreign, HostError> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(HostError::refused(format!("{name:?} is not the name of a domain")));
        }
        self.connection.run(|connect| {
            let cannot = |error: Error| match is(&error, &[ErrorNumber::NoDomain]) {
                true => HostError::refused(format!("there is no domain `{name}`")).help("see `virsh list --all`"),
                false => failed(format!("cannot look at domain `{name}`"), error),
            };
            let domain = connect.lookup_domain_by_name(name).map_err(cannot)?;
            if let Some(marked) = read(&domain, sys::VIR_DOMAIN_XML_INACTIVE).map_err(cannot)?.marked {
                let (project, server) = (marked.project, marked.server);
                return Err(HostError::refused(format!(
                    "domain `{name}` is novella's already: `server.{server}` of project `{project}`"
                )));
            }
            let xml = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(cannot)?;
            let capacities = targets(&xml).into_iter().filter_map(|target| Some((capacity(&domain, &target)?, target)));
            let capacities = capacities.map(|(size, target)| (target, size)).collect();
            Ok(Foreign { capacities, autostart: domain.autostart().map_err(cannot)?, xml })
        })
    }
}

/// How much a disk holds; nothing where libvirt cannot tell, as of a file that is missing.
fn capacity(domain: &Domain, target: &str) -> Option<ByteSize> {
    // Of a file that is missing it says 0.
    domain.block_info(target, 0).ok().map(|info| ByteSize(info.capacity)).filter(|size| size.bytes() > 0)
}
