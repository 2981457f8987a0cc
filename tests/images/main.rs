//! The image cache, the disks over it and the seeds beside them, on real files, with a real (and often bad) web server and the real qemu-img.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod cache;
mod disks;
mod fetch;
mod header;
mod lab;
mod observe;
mod published;
mod seeds;
mod server;
mod trash;
mod verbs;
