//! A checksummed JSON copy of the state for those who only read.
