//! The lock file of the images: what may not go on without, what an `apply` adds to it, how it is written.

use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::object::{Base, BaseRole, Locked, Object};
use crate::cli::session::Target;
use crate::cli::{FAILED, Global, Stop};
use crate::desired::{Desired, ImageFile};
use crate::diagnostic::Diagnostic;
use crate::host::files;
use crate::plan::world::Recorded;
use crate::report;
use crate::report::{BOLD, clean_line};
use crate::spec::Source;
use crate::spec::lock::{FILE, ImageLock, Part};

/// The files of images that the lock file is to tell of.
pub(super) fn lockable(desired: &Desired) -> impl Iterator<Item = (&Name, Part, &ImageFile)> {
    let files = desired.images.values().flat_map(|image| image.files().map(|(part, file)| (&image.name, part, file)));
    files.filter(|(_, _, file)| file.is_lockable())
}

/// Refuses a spec of which an image is neither pinned nor locked.
pub(super) fn require(desired: &Desired, source: &Source) -> Result<(), Stop> {
    let missing = lockable(desired).filter(|(_, _, file)| file.locked.is_none());
    let problem = |(image, part, _): (&Name, Part, &ImageFile)| {
        let address = Address::new(ResourceKind::Image, image.clone());
        Diagnostic::error(format!("`{address}` is not locked"))
            .code("not-locked")
            .on(&address, part.as_str())
            .label(format!("`{FILE}` does not have it as it is here"))
            .help("run `novella image lock`, and keep what it writes in version control")
    };
    let problems: Vec<Diagnostic> = missing.map(problem).collect();
    report::diagnostics::print(&problems, source);
    if problems.is_empty() { Ok(()) } else { Err(Stop(FAILED)) }
}

/// Adds to the lock file what was fetched and is not in it. Where it cannot be written that is said, and nothing else comes
/// of it: what is in the cache stays what it is.
pub(super) fn gain(global: &Global, desired: &Desired, source: &Source, target: &Target, made: &Recorded) {
    let Some(images) = target.images() else { return };
    let mut lock = current(desired);
    let mut gained = Vec::new();
    for (image, part, file) in lockable(desired).filter(|(_, _, file)| file.locked.is_none()) {
        let bases = made.records.values().filter_map(|record| match &record.object {
            Object::Base(base) => Some(base),
            _ => None,
        });
        let its = bases.filter(|base| is_of(base, part, file)).max_by_key(|base| base.sha256.is_none());
        let fetched = its.and_then(|base| images.locked(base));
        if let Some(locked) = fetched {
            lock.set(image, part, Locked { source: file.source.shown(), ..locked });
            gained.push(format!("image.{image}"));
        }
    }
    if gained.is_empty() {
        return;
    }
    gained.dedup();
    let path = global.specs.join(FILE);
    match write(global, source, &lock) {
        Ok(()) => report::line(format_args!("{BOLD}Locked:{BOLD:#} {} in `{}`.", gained.join(", "), path.display())),
        Err(error) => report::note(format_args!(
            "note: `{}` could not be written: {}; {} can become something else for others\n  help: run `novella image lock` \
             where it can be written",
            path.display(),
            clean_line(&error.to_string()),
            gained.join(", "),
        )),
    }
}

/// Whether a cached file is this file of an image.
fn is_of(base: &Base, part: Part, file: &ImageFile) -> bool {
    let role = match base.role {
        BaseRole::Disk(_) => Part::Source,
        BaseRole::Kernel => Part::Kernel,
        BaseRole::Initrd => Part::Initrd,
    };
    role == part && base.source == file.source
}

/// What the lock file says of the images that the spec has, and of nothing else.
pub(super) fn current(desired: &Desired) -> ImageLock {
    let mut lock = ImageLock::default();
    for (image, part, file) in lockable(desired) {
        if let Some(locked) = &file.locked {
            lock.set(image, part, locked.clone());
        }
    }
    lock
}

/// Writes the lock file, unless it says so already. It belongs to whoever the directory belongs to.
pub(super) fn write(global: &Global, source: &Source, lock: &ImageLock) -> io::Result<()> {
    if source.lock == *lock {
        return Ok(());
    }
    let path = global.specs.join(FILE);
    files::write_atomic(&path, lock.text().as_bytes(), 0o644)?;
    let directory = std::fs::metadata(&global.specs)?;
    if nix::unistd::Uid::effective().is_root() {
        lchown(&path, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(())
}
