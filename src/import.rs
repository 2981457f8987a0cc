//! A domain of others as a spec: what is written is read back at once and carried as far as a plan would carry it, and the
//! domain that comes of it is compared with the one that is there. So what is not told as a difference is the same.

use crate::address::Name;
use crate::blueprint::import::{self, Import};
use crate::blueprint::key::{disk_key, domain_key};
use crate::blueprint::object::{Object, VirtType};
use crate::blueprint::{self, HostFacts, found};
use crate::desired::{self, Desired, HostConfig};
use crate::diagnostic::{Diagnostic, Severity, has_errors};
use crate::host::domain_xml::compare::differences;
use crate::host::domain_xml::foreign::{self, Described, Foreign, Unsayable, Way};
use crate::host::domain_xml::foreign_network::Networks;
use crate::host::domain_xml::import::{ReadAs, Unfit, read_as};
use crate::host::domain_xml::write;
use crate::plan::world::{Differing, Imported, Observed, Recorded};
use crate::spec::load::load_texts;

/// What the server is to be a part of.
#[derive(Clone, Debug)]
pub struct Place {
    /// The project.
    pub project: Name,
    /// The host as the spec wants it used.
    pub host: HostConfig,
    /// How domains are run on it.
    pub virt_type: VirtType,
}

/// Tells a domain as a server of these networks.
///
/// # Errors
/// When the domain has what no server can have.
pub fn describe(server: &Name, foreign: &Foreign, networks: &Networks, place: &Place) -> Result<Described, Unsayable> {
    let taken_over = foreign::describe(server, foreign, networks, Way::TakenOver, &[])?;
    let desired = read_back(&taken_over, networks, place)?;
    let unfit = import::pending(&desired, &Recorded::default())
        .into_iter()
        .find_map(|(_, import)| read_as(&foreign.xml, &import).err());
    let (way, desired) = match &unfit {
        None => (Way::TakenOver, desired),
        Some(unfit) => {
            let way = Way::Beside(unfit);
            (way, read_back(&foreign::describe(server, foreign, networks, way, &[])?, networks, place)?)
        }
    };
    let found = against(&desired, server, foreign, place.virt_type)?;
    foreign::describe(server, foreign, networks, way, &found)
}

/// What was written, as novella understands it.
fn read_back(described: &Described, networks: &Networks, place: &Place) -> Result<Desired, Unsayable> {
    let (networks, _) = networks.toml();
    let loaded = load_texts([("networks.toml", networks.as_str()), ("server.toml", described.toml.as_str())]);
    let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let problems: Vec<Diagnostic> = loaded.diagnostics.into_iter().chain(problems).collect();
    let mut desired = match desired {
        Some(desired) if !has_errors(&problems) => desired,
        _ => return Err(refused(problems)),
    };
    desired.project.clone_from(&place.project);
    desired.host.clone_from(&place.host);
    Ok(desired)
}

/// In what a server of a spec differs from a domain, which it keeps where the spec has an `[[import]]` of it.
///
/// # Errors
/// When the spec asks for what cannot be had, or the domain cannot be taken over.
pub fn against(
    desired: &Desired,
    server: &Name,
    foreign: &Foreign,
    virt_type: VirtType,
) -> Result<Vec<Differing>, Unsayable> {
    let recorded = Recorded::default();
    let mut observed = Observed::default();
    for (_, import) in import::pending(desired, &recorded).into_iter().filter(|(_, it)| it.server == *server) {
        see(&import, foreign, &mut observed)?;
    }
    let chosen = found::with_found(desired, &recorded, &observed);
    let blueprint = blueprint::lower(desired, &chosen, &HostFacts::unknown(virt_type)).map_err(refused)?;
    let domain = blueprint.objects.get(&domain_key(server)).and_then(Object::as_domain);
    let domain = domain.ok_or_else(|| refused(Vec::new()))?;
    let here = write(domain).map_err(|error| field(error.to_string(), "write it in another way in the domain"))?;
    Ok(differences(&foreign.xml, &here)?)
}

/// Notes the domain and its disk as a host that looked at them would.
fn see(import: &Import, foreign: &Foreign, observed: &mut Observed) -> Result<(), Unsayable> {
    let ReadAs { marked, macs } = read_as(&foreign.xml, import).map_err(|Unfit { why, help }| field(why, &help))?;
    let mut facts = marked.facts;
    facts.insert("power".into(), if foreign.running { "on" } else { "off" }.into());
    let told = |name: &str| facts.get(name).cloned().unwrap_or_default();
    let size = foreign.capacities.values().next().copied().unwrap_or_default();
    let disk = [
        ("path", told("disk")),
        ("imported", "true".into()),
        ("format", told("disk_format")),
        ("size", size.to_string()),
        ("base", "none".into()),
    ];
    observed.objects.insert(disk_key(&import.server), disk.map(|(name, value)| (name.into(), value)).into());
    let key = domain_key(&import.server);
    observed.objects.insert(key.clone(), facts);
    observed.imports.insert(key, Imported { id: import.id.clone(), macs, ..Imported::default() });
    Ok(())
}

/// The first of the problems that stand in the way.
fn refused(problems: Vec<Diagnostic>) -> Unsayable {
    let problem = problems.into_iter().find(|problem| problem.severity == Severity::Error);
    let Some(problem) = problem else { return field("it makes no domain", "please report this defect of novella") };
    field(problem.message, problem.help.as_deref().unwrap_or("change it in the domain"))
}

fn field(why: impl Into<String>, help: &str) -> Unsayable {
    Unsayable::Field { field: "spec".into(), why: why.into(), help: help.into() }
}
