//! Finds out whether KVM really works here.
