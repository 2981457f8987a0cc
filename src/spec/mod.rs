//! What the files say, word for word.
//!
//! [`schema`] holds one struct a table, with `Option` wherever a person may stay silent; [`values`] the types of its
//! fields; [`source`] the texts, and where each key stands in them; [`mod@load`] reads all files and finds all their
//! problems at once. [`layers`] has what a table takes from another, [`variables`] what a value takes from outside, [`lock`] what
//! the images were when they were first fetched. [`json_schema`] tells editors all this, and [`mod@fmt`] spaces a file.

pub mod fmt;
pub mod json_schema;
pub mod layers;
pub mod load;
pub mod lock;
pub mod schema;
pub mod source;
pub mod values;
pub mod variables;

pub use load::{Inputs, Loaded, load, load_with};
pub use schema::Spec;
pub use source::Source;
