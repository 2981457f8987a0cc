//! The image cache and the disks over it.
