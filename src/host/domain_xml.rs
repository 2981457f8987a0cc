//! The XML of a domain: written from a blueprint, read back as facts.
