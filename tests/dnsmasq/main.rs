//! Real dnsmasq, real DHCP clients.

mod addresses;
mod guests;
mod ipv6;
mod lab;
mod live;
mod names;
mod options;
mod process;
mod random;
mod wire;
