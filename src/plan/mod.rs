//! From what is wanted, made and seen to the steps that close the gap. Pure: no clock, no environment, no I/O.

pub mod world;
