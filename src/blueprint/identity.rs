//! UUIDs, device names and MAC addresses, derived from project and address.
//!
//! The same spec gives the same identities on every host and in every run, so nothing is made twice and a plan can show
//! them all.

use uuid::Uuid;

use crate::address::{Address, Name, PortId, ResourceKind};
use crate::value::Mac;

/// The namespace of all novella projects (RFC 9562, 5.5): a random UUID, fixed for good.
const NAMESPACE: Uuid = Uuid::from_u128(0x5b0b_4a5e_0c7e_4f0e_9d51_8d2f_6f1a_c3b7);

/// Nova's and Neutron's `base_mac` (reference C6).
const BASE_MAC: [u8; 3] = [0xfa, 0x16, 0x3e];

/// How often a MAC address is chosen anew when it is taken: Neutron's `mac_generation_retries` (reference C6).
pub const MAC_GENERATION_RETRIES: u32 = 16;

/// How the name of every tap begins (reference C12).
pub const TAP: &str = "tap";

/// Derives the identities of one project.
#[derive(Clone, Debug)]
pub struct Identity {
    project: Uuid,
}

impl Identity {
    /// For the project of this name.
    pub fn new(project: &Name) -> Self {
        Self { project: Uuid::new_v5(&NAMESPACE, project.as_str().as_bytes()) }
    }

    /// The id of a resource.
    pub fn resource(&self, address: &Address) -> Uuid {
        self.named(&address.to_string())
    }

    /// The id of a port.
    pub fn port(&self, port: &PortId) -> Uuid {
        match port {
            PortId::Own(_) => self.resource(&port.address()),
            PortId::Inline { .. } => self.named(&format!("server.{port}")),
        }
    }

    /// The id of a network.
    pub fn network(&self, name: &Name) -> Uuid {
        self.resource(&Address::new(ResourceKind::Network, name.clone()))
    }

    /// The name of the bridge of the network with this id: `brq` and 11 characters (reference B3).
    pub fn bridge(network: Uuid) -> String {
        device("brq", network)
    }

    /// The name of the tap of the port with this id: [`TAP`] and 11 characters.
    pub fn tap(port: Uuid) -> String {
        device(TAP, port)
    }

    /// A MAC address for the thing with this id; another one with each attempt.
    pub fn mac(id: Uuid, attempt: u32) -> Mac {
        let drawn = Uuid::new_v5(&id, &attempt.to_be_bytes());
        let [a, b, c, ..] = *drawn.as_bytes();
        let [x, y, z] = BASE_MAC;
        Mac([x, y, z, a, b, c])
    }

    fn named(&self, name: &str) -> Uuid {
        Uuid::new_v5(&self.project, name.as_bytes())
    }
}

/// A device name with the first 11 characters of an id, the hyphen among them as Neutron has it.
fn device(prefix: &str, id: Uuid) -> String {
    let mut text = Uuid::encode_buffer();
    format!("{prefix}{}", &id.hyphenated().encode_lower(&mut text)[..11])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_depend_on_project_and_name_and_nothing_else() {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let one = Identity::new(&name("one"));
        let two = Identity::new(&name("two"));
        let port = one.port(&PortId::inline(&name("web"), &name("private")));
        assert_eq!(port, Identity::new(&name("one")).port(&PortId::inline(&name("web"), &name("private"))));
        assert_ne!(port, two.port(&PortId::inline(&name("web"), &name("private"))));
        assert_ne!(port, one.port(&PortId::inline(&name("web"), &name("public"))));
        assert_ne!(Identity::mac(port, 0), Identity::mac(port, 1));
        assert_eq!(Identity::mac(port, 0).0[..3], BASE_MAC);
        assert_eq!(Identity::tap(port).len(), 14);
        assert!(Identity::tap(port).starts_with("tap"));
    }
}
