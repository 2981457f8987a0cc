//! novella

pub mod address;
pub mod blueprint;
pub mod host;
pub mod plan;
pub mod store;
pub mod value;
