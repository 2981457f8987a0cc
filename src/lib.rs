//! novella

pub mod address;
pub mod apply;
pub mod blueprint;
pub mod cli;
pub mod desired;
pub mod diagnostic;
pub mod host;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod spec;
pub mod store;
pub mod value;
