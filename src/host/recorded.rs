//! A host that is only known by the records: what was recorded is taken to be there, and nothing else. For plans that are
//! made where the host is not, or must not be asked.

use crate::blueprint::HostFacts;
use crate::blueprint::guest::Guest;
use crate::blueprint::key::ObjectKey;
use crate::blueprint::object::{Object, Power, VirtType};
use crate::desired::HostConfig;
use crate::host::{Host, HostError};
use crate::plan::world::{Observed, Recorded};
use crate::spec::values::VirtTypeSpec;

/// What the records tell of a host.
#[derive(Clone, Debug)]
pub struct RecordedHost {
    facts: HostFacts,
    /// Whether nothing tells that KVM works.
    assumes_kvm: bool,
    observed: Observed,
}

impl RecordedHost {
    /// The host that holds what was recorded. What it can do is in `facts`, where that was ever asked; else the spec or
    /// the recorded domains tell how domains are run, and KVM is taken to work where they do not.
    pub fn new(recorded: &Recorded, facts: Option<HostFacts>, config: &HostConfig) -> Self {
        let made = || recorded.records.values().find_map(|record| record.object.as_domain().map(|it| it.virt_type));
        let virt_type = match config.virt_type {
            VirtTypeSpec::Kvm => Some(VirtType::Kvm),
            VirtTypeSpec::Qemu => Some(VirtType::Qemu),
            VirtTypeSpec::Auto => facts.as_ref().map(|facts| facts.virt_type).or_else(made),
        };
        let (capacity, abilities) = facts.map_or((None, None), |facts| (facts.capacity, facts.abilities));
        Self {
            facts: HostFacts { virt_type: virt_type.unwrap_or(VirtType::Kvm), capacity, abilities, cache: None },
            assumes_kvm: virt_type.is_none(),
            observed: observed(recorded),
        }
    }

    /// What is taken for granted, as phrases for people.
    pub fn assumptions(&self) -> Vec<&'static str> {
        let mut assumptions = vec![match self.observed.objects.is_empty() {
            true => "there is taken to be nothing",
            false => "what was recorded is taken to be there",
        }];
        if self.assumes_kvm {
            assumptions.push("KVM is taken to work");
        }
        if self.facts.capacity.is_none() {
            assumptions.push("room is taken to be enough");
        }
        assumptions
    }
}

/// What is to be seen on a host that holds all that was recorded.
fn observed(recorded: &Recorded) -> Observed {
    let mut observed = Observed::default();
    for (key, record) in &recorded.records {
        let mut facts = record.object.visible_facts();
        if let Some(domain) = record.object.as_domain()
            && domain.power != Power::Off
        {
            // Of a guest that others start and stop, it is taken that it runs: so nothing is called harmless that is not.
            facts.insert("power".into(), Power::On.as_str().into());
            observed.guests.insert(key.clone(), Guest::started_as(domain));
        }
        observed.objects.insert(key.clone(), facts);
    }
    observed
}

impl Host for RecordedHost {
    fn facts(&self) -> Result<HostFacts, HostError> {
        Ok(self.facts.clone())
    }

    fn observe(&self) -> Result<Observed, HostError> {
        Ok(self.observed.clone())
    }

    fn ensure(&self, object: &Object) -> Result<(), HostError> {
        Err(nothing_to_change(&object.key()))
    }

    fn remove(&self, key: &ObjectKey) -> Result<(), HostError> {
        Err(nothing_to_change(key))
    }

    fn release(&self, domain: &ObjectKey, _: &[ObjectKey]) -> Result<(), HostError> {
        Err(nothing_to_change(domain))
    }

    fn reload(&self, server: &ObjectKey) -> Result<(), HostError> {
        Err(nothing_to_change(server))
    }
}

fn nothing_to_change(key: &ObjectKey) -> HostError {
    HostError::refused(format!("cannot change {key} on a host that is only known by the records"))
}
