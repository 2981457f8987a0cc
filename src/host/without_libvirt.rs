//! What stands in for this machine in a novella that was built without libvirt: types of which there is no value. So those
//! who work on a machine need not know that there may be none; they are only never reached.

use crate::host::HostError;

/// Why there is no machine.
fn built_without() -> HostError {
    HostError::refused("this novella was built without libvirt, and cannot work on this machine").help(
        "use one that was built with the feature `libvirt`; `validate`, `plan --state-file`, `plan --empty-state`, what \
         only reads the state, and `--backend sim` work with this one",
    )
}

/// The real host, which there is not.
pub mod machine {
    use super::built_without;
    use super::hypervisor::Hypervisor;
    use super::links::Links;
    use crate::address::Name;
    use crate::blueprint::HostFacts;
    use crate::blueprint::key::ObjectKey;
    use crate::blueprint::object::{Domain, Object};
    use crate::desired::Desired;
    use crate::host::dhcp::Lease;
    use crate::host::images::Images;
    use crate::host::{Host, HostError, OnProgress};
    use crate::plan::world::Observed;

    /// This machine, which cannot be had.
    #[derive(Debug)]
    pub enum Machine {}

    impl Machine {
        /// # Errors
        /// Always.
        pub fn new(_: &Desired, _: OnProgress) -> Result<Self, HostError> {
            Err(built_without())
        }

        /// Never called.
        pub fn remember(&self) {
            match *self {}
        }

        /// Never called.
        pub fn leases(&self, _: &Name) -> Result<Vec<Lease>, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn hypervisor(&self) -> &Hypervisor {
            match *self {}
        }

        /// Never called.
        pub fn images(&self) -> &Images {
            match *self {}
        }

        /// Never called.
        pub fn links(&self) -> &Links {
            match *self {}
        }

        /// Never called.
        pub fn tidy(&self) {
            match *self {}
        }

        /// Never called.
        pub fn reboot(&self, _: &Domain) -> Result<(), HostError> {
            match *self {}
        }
    }

    impl Host for Machine {
        fn facts(&self) -> Result<HostFacts, HostError> {
            match *self {}
        }

        fn observe(&self) -> Result<Observed, HostError> {
            match *self {}
        }

        fn ensure(&self, _: &Object) -> Result<(), HostError> {
            match *self {}
        }

        fn remove(&self, _: &ObjectKey) -> Result<(), HostError> {
            match *self {}
        }

        fn release(&self, _: &ObjectKey, _: &[ObjectKey]) -> Result<(), HostError> {
            match *self {}
        }

        fn reload(&self, _: &ObjectKey) -> Result<(), HostError> {
            match *self {}
        }
    }
}

/// The libvirt of this machine, which there is not.
pub mod hypervisor {
    use std::time::SystemTime;

    use super::built_without;
    use crate::address::Name;
    use crate::blueprint::Layout;
    use crate::host::HostError;

    /// libvirt, which cannot be had.
    #[derive(Debug)]
    pub enum Hypervisor {}

    /// What libvirt says of itself.
    #[derive(Debug)]
    pub struct About {
        /// The URI in use.
        pub uri: String,
        /// libvirt's version.
        pub libvirt: String,
        /// The hypervisor's name and version.
        pub hypervisor: String,
        /// What confines guests.
        pub confinement: Option<String>,
    }

    /// A serial console, which cannot be had.
    #[derive(Debug)]
    pub enum Console {}

    impl Hypervisor {
        /// # Errors
        /// Always.
        pub fn new(_: &str, _: Layout) -> Result<Self, HostError> {
            Err(built_without())
        }

        /// Never called.
        pub fn about(&self) -> Result<About, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn power(&self, _: &Name) -> Result<Option<String>, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn start(&self, _: &Name) -> Result<bool, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn stop(&self, _: &Name, _: bool) -> Result<bool, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn console(&self, _: &Name, _: bool) -> Result<Console, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn foreign(&self, _: &str) -> Result<crate::host::domain_xml::foreign::Foreign, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn all_foreign(&self) -> Result<Vec<crate::host::domain_xml::foreign::Foreign>, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn vnc(&self, _: &Name) -> Result<(String, u16), HostError> {
            match *self {}
        }

        /// Nothing runs that is known of.
        pub fn running_since(_: &str) -> Option<SystemTime> {
            None
        }
    }

    /// Nothing is known of the host.
    pub fn on_host() -> Vec<(String, ipnet::IpNet)> {
        Vec::new()
    }

    impl Console {
        /// Never called.
        pub fn read(&self, _: &mut [u8]) -> Result<usize, HostError> {
            match *self {}
        }

        /// Never called.
        pub fn write(&self, _: &[u8]) -> Result<(), HostError> {
            match *self {}
        }
    }
}

/// The links of this machine, which cannot be had.
mod links {
    use std::net::IpAddr;
    use std::time::Duration;

    use crate::host::HostError;
    use crate::value::Mac;

    /// Never had.
    #[derive(Debug)]
    pub enum Links {}

    impl Links {
        /// Never called.
        pub fn answers(&self, _: &str, _: IpAddr, _: Mac, _: Duration) -> Result<bool, HostError> {
            match *self {}
        }
    }
}
