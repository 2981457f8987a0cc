//! dnsmasq: one process for each network, one file for each host entry.
