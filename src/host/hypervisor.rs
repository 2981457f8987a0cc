//! Domains, through libvirt.
