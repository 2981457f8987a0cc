//! Compressed images: known by their first bytes, unpacked as a stream, and no further than is sane.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::blueprint::key::base_key;
use crate::blueprint::object::Base;
use crate::host::images::Images;
use crate::host::images::base::cannot_cache;
use crate::host::images::fetch::{BLOCK, ROOM_CHECK, TELL};
use crate::host::images::sparse::Sparse;
use crate::host::{HostError, files};
use crate::value::ByteSize;

/// The most memory that unpacking may take, in bytes. `xz -9` asks for 65 MiB, `zstd --long` for 128 MiB.
const MOST_MEMORY: u64 = 160 << 20;
/// The same as a window of zstd, as a power of two.
const MOST_WINDOW_LOG: u32 = 27;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Zstd,
}

impl Packing {
    /// How a file is compressed, by its first bytes: no disk and no kernel begins with these. What its name says is not
    /// asked, for a name can be wrong.
    pub(super) fn of(file: &File) -> io::Result<Option<Self>> {
        let mut first = [0; 6];
        let got = file.read_at(&mut first, 0)?;
        let magics: [(&[u8], Self); 3] =
            [(b"\x1f\x8b", Self::Gzip), (b"\xfd7zXZ\0", Self::Xz), (b"\x28\xb5\x2f\xfd", Self::Zstd)];
        Ok(magics.into_iter().find(|(magic, _)| first[..got].starts_with(magic)).map(|(_, packing)| packing))
    }

    /// What the file unpacks to. Several parts one behind the other, as parallel packers make them, count as one.
    fn reader<'f>(self, file: &'f File) -> io::Result<Box<dyn Read + 'f>> {
        let packed = BufReader::with_capacity(BLOCK, file);
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Xz => {
                let stream = Stream::new_stream_decoder(MOST_MEMORY, CONCATENATED).map_err(io::Error::from)?;
                Box::new(XzDecoder::new_stream(packed, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(MOST_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

impl Images {
    /// Unpacks a file to another one.
    pub(super) fn unpack(&self, base: &Base, packing: Packing, packed: &File, to: &Path) -> Result<File, HostError> {
        let failed = |error: io::Error| HostError::new(format!("cannot unpack image `{}`", base.image), error);
        let broken =
            |error| failed(error).help("get a good copy of the image, or unpack it yourself and name that file");
        let mut at_start = packed;
        at_start.rewind().map_err(failed)?;
        let mut reader = packing.reader(packed).map_err(failed)?;
        let file = files::create_new(to, 0o600).map_err(|error| cannot_cache(base, error))?;
        let mut sparse = Sparse::new(file);
        let (key, mut block, mut checked, mut told) = (base_key(&base.id), vec![0; BLOCK], 0, Instant::now());
        loop {
            let got = files::read_up_to(&mut reader, &mut block).map_err(broken)?;
            if got == 0 {
                break;
            }
            if sparse.done + got as u64 > self.most_unpacked.bytes() {
                let error = failed(io::Error::other(format!("it is larger than {} unpacked", self.most_unpacked)));
                return Err(error.help("a file that small with so much in it is most likely made to fill a disk"));
            }
            sparse.write(&block[..got]).map_err(|error| self.cannot_write(base, to, None, error))?;
            if sparse.written - checked >= ROOM_CHECK {
                self.make_room(0).map_err(failed)?;
                checked = sparse.written;
            }
            if told.elapsed() >= TELL {
                (self.on_progress)(&key, sparse.done, None);
                told = Instant::now();
            }
        }
        Ok(sparse.file)
    }

    /// The same, unpacking no image to more than this. The default is 1 TiB.
    #[must_use]
    pub fn with_most_unpacked(mut self, most: ByteSize) -> Self {
        self.most_unpacked = most;
        self
    }
}
