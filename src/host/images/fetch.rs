//! The bytes of one image, from a file or a web server into a `.part`, hashed as they pass.
//!
//! A download that broke off goes on where it stopped, if the server says that the file is still the same, by its ETag or,
//! where a digest will tell, by when it was changed (RFC 9110, 13.1.5 and 14.2). The digest is always that of the whole
//! file, so the part is read again first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use ureq::Body;
use ureq::http::{Response, StatusCode, header};

use crate::blueprint::key::{ObjectKey, base_key};
use crate::blueprint::object::{Base, Source};
use crate::host::images::Images;
use crate::host::images::base::{Pin, PinnedBy, Place};
use crate::host::images::hash::{Hasher, Hashes};
use crate::host::images::sparse::Sparse;
use crate::host::images::web::{Web, is_etag, last_modified, strong_etag};
use crate::host::{HostError, OnProgress, files};
use crate::value::ByteSize;

pub(super) const BLOCK: usize = 256 << 10;
/// A download that broke off goes on at once if so many bytes came since it last did.
const GOOD_DEAL: u64 = 1 << 20;
/// How long a server is left in peace before that.
const BREATH: Duration = Duration::from_secs(1);
/// How often it is told how far it is.
pub(super) const TELL: Duration = Duration::from_millis(100);
/// How often room is looked for again while an image of unknown length comes, in bytes.
pub(super) const ROOM_CHECK: u64 = 64 << 20;

/// One image to be fetched. The caller holds its lock.
pub(super) struct Fetch<'a> {
    pub(super) images: &'a Images,
    pub(super) base: &'a Base,
    pub(super) place: &'a Place,
    /// What the bytes must hash to.
    pub(super) pinned: Option<&'a Pin>,
}

/// A whole image in its `.part`.
pub(super) struct Fetched {
    pub(super) file: File,
    pub(super) hashes: Hashes,
    pub(super) bytes: u64,
    pub(super) etag: Option<String>,
    /// What tells whether a file of this host is still the same.
    pub(super) stamp: Option<String>,
}

/// How far an earlier download helps.
enum Resumed {
    /// It is now whole.
    Whole(Fetched),
    /// The server answered with another thing than the rest.
    Anew(Response<Body>),
    /// Not at all.
    Nothing,
}

/// What a server said of the file of which the `.part` is the beginning.
#[derive(Serialize, Deserialize)]
struct Note {
    source: String,
    /// Its ETag, or when it was last changed.
    validator: String,
    total: u64,
    /// The boot in which it was written: only a digest tells whether bytes survived a power cut.
    boot: String,
}

impl Fetch<'_> {
    /// Fetches the image into its `.part`, and compares its digest.
    pub(super) fn run(&self) -> Result<Fetched, HostError> {
        let fetched = match &self.base.source {
            Source::File(path) => self.copy(path)?,
            Source::Url(url) => self.download_on(url)?,
        };
        self.check(&fetched.hashes)?;
        Ok(fetched)
    }

    /// Downloads, and goes on as long as each try gets a good deal further: a server that cuts its connections is slow, not
    /// broken.
    fn download_on(&self, url: &str) -> Result<Fetched, HostError> {
        let come = || fs::symlink_metadata(&self.place.part).map_or(0, |part| part.len());
        let mut before = come();
        loop {
            match self.download(url) {
                Err(error) if error.transient && come() >= before + GOOD_DEAL => {
                    tracing::info!(image = %self.base.image, %error, "goes on where it stopped");
                    before = come();
                    thread::sleep(BREATH);
                }
                other => return other,
            }
        }
    }

    fn download(&self, url: &str) -> Result<Fetched, HostError> {
        if url.starts_with("http://") && self.pinned.is_none() {
            let url = self.base.source.shown();
            tracing::warn!(image = %self.base.image, url, "neither encrypted nor pinned by `sha256`: it can be changed on the way");
        }
        match self.resume(url)? {
            Resumed::Whole(fetched) if self.check(&fetched.hashes).is_ok() => Ok(fetched),
            Resumed::Anew(response) => self.take(response),
            // Also where what was there had gone bad, which shows only in the digest.
            Resumed::Whole(_) | Resumed::Nothing => self.take(self.get(url, None)?),
        }
    }

    fn check(&self, hashes: &Hashes) -> Result<(), HostError> {
        let Some(pinned) = self.pinned else { return Ok(()) };
        let Err(unlike) = hashes.check(&pinned.digest, "wanted") else { return Ok(()) };
        let image = &self.base.image;
        let failed = self.failed(unlike);
        Err(match &pinned.by {
            PinnedBy::Spec => {
                failed.help("check that `sha256` and the source belong together, and that nobody has changed the file")
            }
            PinnedBy::Lock => failed.code("image-changed").help(format!(
                "it is not what `images.lock` says any more: if that is right, run `novella image update {image}`"
            )),
            PinnedBy::Sums(sums) => failed.help(format!(
                "`{}` says so; the two may be just about to be published: try again later",
                sums.source().shown()
            )),
            PinnedBy::Disks => failed
                .help("the source has changed since disks were made over it: declare the new file as another image"),
        })
    }

    fn web(&self) -> Web<'_> {
        Web { agent: &self.images.agent, what: format!("image `{}`", self.base.image), source: &self.base.source }
    }

    fn failed(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
        self.web().failed(cause)
    }

    fn get(&self, url: &str, from: Option<(u64, &str)>) -> Result<Response<Body>, HostError> {
        // Without a digest, encryption is all that vouches for the bytes: then no redirect may leave it.
        self.web().get(url, self.pinned.is_none(), from)
    }

    fn copy(&self, path: &Path) -> Result<Fetched, HostError> {
        // A named pipe must not make us wait for a writer; a symbolic link is the operator's own.
        let mut source =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(|error| {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let error = self.failed(error);
                if missing { error.help("check the path of the image; it must be on this host") } else { error }
            })?;
        let before = source.metadata().map_err(|error| self.failed(error))?;
        if !before.is_file() {
            return Err(self.failed("it is not a regular file"));
        }
        let mut sink = self.new_sink(Some(before.len()), room_of(&before))?;
        self.pour(&mut source, &mut sink, |error| self.failed(error))?;
        let after = source.metadata().map_err(|error| self.failed(error))?;
        if stamp(&before) != stamp(&after) || sink.sparse.done != before.len() {
            return Err(self.failed("it changed while it was copied").transient(true));
        }
        Ok(Fetched { stamp: Some(stamp(&before)), ..sink.finish(None) })
    }

    /// Goes on with what is there of an earlier download.
    fn resume(&self, url: &str) -> Result<Resumed, HostError> {
        let Some((file, note)) = self.kept() else { return Ok(Resumed::Nothing) };
        let mut sink = Sink::new(self, file, Some(note.total));
        sink.hash_what_is_there().map_err(|error| self.failed(error))?;
        if sink.sparse.done == note.total {
            return Ok(Resumed::Whole(sink.finish(Some(note.validator))));
        }
        let response = self.get(url, Some((sink.sparse.done, &note.validator)))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if continues(&response, sink.sparse.done, &note) => {
                self.make_room(note.total - sink.sparse.done)?;
                self.pour_body(response, &mut sink)?;
                Ok(Resumed::Whole(sink.finish(Some(note.validator))))
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(Resumed::Nothing),
            _ => Ok(Resumed::Anew(response)),
        }
    }

    /// The beginning that an earlier download left, if it can be gone on with.
    fn kept(&self) -> Option<(File, Note)> {
        let note = files::open_regular(&self.place.note).ok()?;
        let note: Note = serde_json::from_reader(io::BufReader::new(note)).ok()?;
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&self.place.part).ok()?;
        let found = file.metadata().ok()?;
        let trusted = self.pinned.is_some() || note.boot == boot_id();
        // Another name for the file would be another's file.
        let ours = found.is_file() && found.nlink() == 1 && note.source == self.base.source.shown();
        (trusted && ours && (1..=note.total).contains(&found.len())).then_some((file, note))
    }

    /// Takes in a whole file from its first byte.
    fn take(&self, response: Response<Body>) -> Result<Fetched, HostError> {
        if response.status() != StatusCode::OK {
            return Err(self.web().unexpected(response.status()));
        }
        let total = response.body().content_length();
        let chunked = response.headers().contains_key(header::TRANSFER_ENCODING);
        if total.is_none() && !chunked && self.pinned.is_none() {
            return Err(self.failed("the server does not say how long it is").help("pin the image with `sha256`"));
        }
        let mut sink = self.new_sink(total, total.unwrap_or(0))?;
        let validator = strong_etag(&response).or_else(|| last_modified(&response).filter(|_| self.pinned.is_some()));
        if let (Some(validator), Some(total)) = (&validator, total) {
            self.write_note(validator, total).map_err(|error| self.failed(error))?;
        }
        self.pour_body(response, &mut sink)?;
        Ok(sink.finish(validator))
    }

    fn write_note(&self, validator: &str, total: u64) -> io::Result<()> {
        let note = Note { source: self.base.source.shown(), validator: validator.to_owned(), total, boot: boot_id() };
        files::write_atomic(&self.place.note, &serde_json::to_vec(&note).map_err(io::Error::other)?, 0o600)
    }

    /// An empty `.part`, if there is room for what is to come. The note goes first, so that it never speaks of other
    /// bytes.
    fn new_sink(&self, total: Option<u64>, room: u64) -> Result<Sink<'_>, HostError> {
        let cleared = files::remove(&self.place.note).and_then(|()| files::remove(&self.place.part));
        cleared.map_err(|error| self.failed(error))?;
        self.make_room(room)?;
        let file = files::create_new(&self.place.part, 0o600);
        file.map(|file| Sink::new(self, file, total)).map_err(|error| self.failed(error))
    }

    fn pour_body(&self, response: Response<Body>, sink: &mut Sink<'_>) -> Result<(), HostError> {
        let mut body = response.into_body().into_reader();
        self.pour(&mut body, sink, |error| self.web().broken(ureq::Error::from(error)))?;
        match sink.total {
            Some(total) if sink.sparse.done != total => {
                let cause = format!("the server sent {} of {total} bytes", sink.sparse.done);
                Err(self.failed(cause).transient(true))
            }
            _ => Ok(()),
        }
    }

    /// Streams all of `source` on to the end of what is there.
    fn pour(
        &self,
        source: &mut impl Read,
        sink: &mut Sink<'_>,
        unreadable: impl Fn(io::Error) -> HostError,
    ) -> Result<(), HostError> {
        let mut block = vec![0; BLOCK];
        let mut checked = sink.sparse.done;
        loop {
            let got = match source.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            let (part, left) = (&self.place.part, sink.total.map(|total| total.saturating_sub(sink.sparse.done)));
            sink.write(&block[..got]).map_err(|error| self.images.cannot_write(self.base, part, left, error))?;
            if sink.total.is_none() && sink.sparse.done - checked >= ROOM_CHECK {
                self.make_room(0)?;
                checked = sink.sparse.done;
            }
        }
        sink.report(true);
        Ok(())
    }

    /// Refuses before anything is written when so many more bytes would eat into the reserve.
    fn make_room(&self, bytes: u64) -> Result<(), HostError> {
        self.images.make_room(bytes).map_err(|error| self.failed(error).help(MAKE_ROOM))
    }
}

/// Whether an answer goes on with exactly this file at exactly this byte.
fn continues(response: &Response<Body>, offset: u64, note: &Note) -> bool {
    let range = format!("bytes {offset}-{}/{}", note.total - 1, note.total);
    let said = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let validator = if is_etag(&note.validator) { strong_etag(response) } else { last_modified(response) };
    validator.as_ref() == Some(&note.validator) && said == Some(range.as_str())
}

/// Changes with each boot.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// How much room a copy of a file takes at most: its holes become holes again.
pub(super) fn room_of(file: &fs::Metadata) -> u64 {
    file.len().min(file.blocks().saturating_mul(512))
}

/// What tells whether a file of this host is still the same: its length and when it was changed.
pub(super) fn stamp(file: &fs::Metadata) -> String {
    format!("{}-{}.{:09}", file.len(), file.mtime(), file.mtime_nsec())
}

impl Images {
    /// What may still be written to the cache, in bytes.
    pub(super) fn room(&self) -> io::Result<ByteSize> {
        let found = nix::sys::statvfs::statvfs(&self.layout.bases())?;
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        Ok(ByteSize(free.saturating_sub(self.reserve.bytes())))
    }

    /// Whether so many more bytes leave the reserve free; an error in words if not.
    pub(super) fn make_room(&self, bytes: u64) -> io::Result<()> {
        let found = nix::sys::statvfs::statvfs(&self.layout.bases())?;
        let free = ByteSize(found.blocks_available().saturating_mul(found.fragment_size()));
        if bytes.saturating_add(self.reserve.bytes()) <= free.bytes() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "no room in `{}`: {} needed and {} to be left free, {} there",
            self.layout.bases().display(),
            ByteSize(bytes).about(),
            self.reserve.about(),
            free.about()
        )))
    }

    /// An image that could not be written on; `left` is what was still to come, where that is known.
    pub(super) fn cannot_write(&self, base: &Base, to: &Path, left: Option<u64>, error: io::Error) -> HostError {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let failed = HostError::new(format!("cannot write image `{}` to `{}`", base.image, to.display()), error);
        match left {
            Some(left) if full => failed.help(format!("{} more were needed: {MAKE_ROOM}", ByteSize(left).about())),
            None if full => failed.help(MAKE_ROOM),
            _ => failed,
        }
    }
}

const MAKE_ROOM: &str = "free some space, as with `novella image prune`, or choose another `data_dir`";

/// A file that grows at its end, its digests, and who is told.
struct Sink<'a> {
    sparse: Sparse,
    hasher: Hasher,
    total: Option<u64>,
    key: ObjectKey,
    on_progress: &'a OnProgress,
    reported: Instant,
}

impl<'a> Sink<'a> {
    fn new(fetch: &'a Fetch<'_>, file: File, total: Option<u64>) -> Self {
        let (key, on_progress) = (base_key(&fetch.base.id), &fetch.images.on_progress);
        on_progress(&key, 0, total);
        let (sparse, hasher) = (Sparse::new(file), Hasher::new(fetch.pinned.map(|pinned| &pinned.digest)));
        Self { sparse, hasher, total, key, on_progress, reported: Instant::now() }
    }

    fn hash_what_is_there(&mut self) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            let got = self.sparse.file.read_at(&mut block, self.sparse.done)?;
            if got == 0 {
                return Ok(());
            }
            self.hasher.update(&block[..got]);
            self.sparse.done += got as u64;
            self.report(false);
        }
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.sparse.write(block)?;
        self.hasher.update(block);
        self.report(false);
        Ok(())
    }

    fn report(&mut self, last: bool) {
        if last || self.reported.elapsed() >= TELL {
            self.reported = Instant::now();
            (self.on_progress)(&self.key, self.sparse.done, self.total);
        }
    }

    fn finish(self, validator: Option<String>) -> Fetched {
        let etag = validator.filter(|it| is_etag(it));
        let Sparse { file, done, .. } = self.sparse;
        Fetched { hashes: self.hasher.finish(), bytes: done, file, etag, stamp: None }
    }
}
