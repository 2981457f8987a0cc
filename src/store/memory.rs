//! Records in memory, for tests.
