//! The program from end to end, in a lab: a private libvirtd, real guests, and the kernel's, dnsmasq's and nft's own word for
//! what there is.
//!
//! Each test has a lab, a spec and a state of its own. Where they cannot run, they say why and pass.
//!
//! - [`lab`]: a lab, and novella run in it.
//! - [`read`]: what novella says, in a form that can be compared.

#[path = "../common/dice.rs"]
mod dice;
mod lab;
mod read;
#[path = "../common/save.rs"]
mod save;

mod cloud;
mod day;
mod disks;
mod disruption;
mod drift;
mod edits;
mod exposure;
mod foreign;
mod images;
mod import;
mod interrupt;
mod ipv6;
mod kill;
mod libvirtd;
mod live;
mod looking;
mod package;
mod parts;
mod ports;
mod quickstart;
mod rebuild;
mod recycle;
mod saved;
mod seeds;
mod takeover;
mod traces;
mod verbs;
mod watch;
