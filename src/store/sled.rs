//! Records on disk, in sled, behind guards that sled lacks.
