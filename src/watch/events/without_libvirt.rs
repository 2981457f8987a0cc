//! What stands in for the events of this machine in a novella that was built without libvirt: there are none, for it cannot
//! work on this machine.

use crate::desired::Desired;
use crate::watch::events::Tell;

/// Events, which cannot be had.
pub enum Events {}

impl Events {
    /// # Errors
    /// Always.
    pub fn hear(_: &Desired, _: Tell) -> Result<Self, String> {
        Err("this novella was built without libvirt".into())
    }

    /// Never called.
    pub fn is_about(&self, _: &Desired) -> bool {
        match *self {}
    }

    /// Never called.
    pub fn renew(&mut self) {
        match *self {}
    }
}
