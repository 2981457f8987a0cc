//! What happens on the host to the objects of a project: to its domains, links, rules and dnsmasq processes.
//!
//! | file | what it hears |
//! |---|---|
//! | `libvirt` | domains that start, end, are defined or changed; a libvirtd that ends or is back |
//! | `kernel` | bridges, taps, their addresses, our nft table; the end of a dnsmasq |
//!
//! It is only heard that something happened. What is to be done about it, a pass finds out, which looks at everything; so an
//! event too many costs a look, and one that was missed is made good by the next look.

#[cfg(feature = "libvirt")]
mod kernel;
#[cfg(feature = "libvirt")]
mod libvirt;
#[cfg(feature = "libvirt")]
mod machine;
#[cfg(not(feature = "libvirt"))]
mod without_libvirt;

use std::sync::Arc;

#[cfg(feature = "libvirt")]
pub use machine::Events;
#[cfg(not(feature = "libvirt"))]
pub use without_libvirt::Events;

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Something happened to an object that may be ours.
    Something,
    /// libvirt is there, now or again.
    Libvirt,
}

/// Who is told.
pub type Tell = Arc<dyn Fn(Heard) + Send + Sync>;
