//! Reads the header of a qcow2 file, trusting nothing in it.
