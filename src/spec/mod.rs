//! What the files say, word for word.
//!
//! [`schema`] holds one struct a table, with `Option` wherever a person may stay silent; [`values`] the types of its
//! fields; [`source`] the texts, and where each key stands in them; [`mod@load`] reads all files and finds all their
//! problems at once; [`lock`] has what the images were when they were first fetched.

pub mod load;
pub mod lock;
pub mod schema;
pub mod source;
pub mod values;

pub use load::{Loaded, load};
pub use schema::Spec;
pub use source::Source;
