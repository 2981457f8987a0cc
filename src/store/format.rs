//! How a record is written, and how each older way is read.
