//! A file that grows at its end, with holes where there are only zeros: raw images are mostly empty.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

pub(super) struct Sparse {
    pub(super) file: File,
    /// How long it is by now.
    pub(super) done: u64,
    /// How much of that was no hole.
    pub(super) written: u64,
}

impl Sparse {
    /// Goes on at the beginning of a file.
    pub(super) fn new(file: File) -> Self {
        Self { file, done: 0, written: 0 }
    }

    pub(super) fn write(&mut self, block: &[u8]) -> io::Result<()> {
        let end = self.done + block.len() as u64;
        if block.iter().all(|byte| *byte == 0) {
            self.file.set_len(end)?;
        } else {
            self.file.write_all_at(block, self.done)?;
            self.written += block.len() as u64;
        }
        self.done = end;
        Ok(())
    }
}
