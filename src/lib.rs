//! Novella makes the virtual machines of a Linux host what a few TOML files say.
//!
//! It is a small compiler for infrastructure. Text becomes a typed tree, the tree is resolved, lowered to concrete objects
//! of the host with nothing left to decide, compared with what was made and with what is there; the difference is a graph
//! of steps, and a dull machine walks it.
//!
//! ```text
//! specs/*.toml → Spec → Desired → Blueprint ─┐
//!                              Recorded (state/) ├→ changes → Plan → apply → Outcome
//!                              Observed (host)  ─┘
//! ```
//!
//! Each stage has a type and a room of its own:
//!
//! | stage | room | what it is |
//! |---|---|---|
//! | [`spec::Spec`] | [`spec`] | what the files say, with the place of each key beside it |
//! | [`desired::Desired`] | [`desired`] | what the user meant: holding one is the proof that the spec is valid |
//! | [`blueprint::Blueprint`] | [`blueprint`] | what the host must hold: every address, MAC, UUID, name and path is chosen |
//! | [`plan::world::Recorded`], [`plan::world::Observed`] | [`plan::world`] | what was made, what is there |
//! | [`plan::Plan`] | [`plan`] | the changes and the order of the steps |
//! | [`apply::Outcome`] | [`apply`] | what came of each step |
//!
//! Everything but [`host`], [`store`], [`apply`] and the edges ([`cli`], [`report`], [`watch`]) is pure: no clock, no environment, no
//! I/O. There is no code that rolls back. A run that failed or was killed is repaired by running again, for each step
//! writes its intent, does its deed, and writes the fact.
//!
//! A walk from the command line: [`cli`] reads the spec with [`spec::load`](fn@spec::load) and [`desired::resolve`], asks
//! [`reconcile::plan`] for a plan, shows it with [`report::plan`], and hands it to [`apply::apply`] with a [`host::Host`]
//! and a [`store::Store`]. [`watch`] does the same again and again, with nobody there.

pub mod address;
pub mod apply;
pub mod blueprint;
pub mod choice;
pub mod cli;
pub mod desired;
pub mod diagnostic;
pub mod host;
pub mod import;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod spec;
pub mod store;
pub mod value;
pub mod watch;
pub mod window;
pub mod wishes;
