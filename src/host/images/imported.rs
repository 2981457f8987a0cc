//! Root disks that were imported: files of others, which are used where they are. They are never made, shrunk, moved or taken
//! away; what is ours of one is a note beside where a disk of ours would be, `instances/<server>/imported.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Name;
use crate::blueprint::Layout;
use crate::blueprint::facts::Facts;
use crate::blueprint::import::{DISK_GONE, NOT_IMPORTABLE, way_out};
use crate::blueprint::object::{Disk, DiskFormat};
use crate::host::images::content::Unfit;
use crate::host::images::disk::{DiskFile, Grow};
use crate::host::images::{Images, facts, header};
use crate::host::qcow2::{Hazard, Invalid};
use crate::host::{HostError, files};
use crate::value::ByteSize;

/// Where an imported disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The file.
    pub path: PathBuf,
    /// Its format, which is never guessed.
    pub format: DiskFormat,
}

impl Imported {
    /// What is noted of the disk of a server; none where it was not imported.
    pub fn of(layout: &Layout, server: &str) -> Option<Self> {
        serde_json::from_reader(files::open_regular(&layout.imported(server)).ok()?).ok()
    }

    /// What is there of it; nothing where the file is gone.
    fn facts(&self) -> Option<Facts> {
        let mut seen = facts([("path", self.path.display().to_string()), ("imported", "true".into())]);
        match self.size() {
            Ok(size) => seen.extend(facts([
                ("format", self.format.as_str().into()),
                ("size", size.to_string()),
                ("base", "none".into()),
            ])),
            Err(Unfit::Io(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => seen.extend(facts([("format", "unknown".into())])),
        }
        Some(seen)
    }

    /// How large a disk it is, where it stands on its own.
    fn size(&self) -> Result<ByteSize, Unfit> {
        match self.format {
            DiskFormat::Qcow2 => {
                let header = header(&self.path).map_err(|error| match error {
                    Invalid::Io(error) => Unfit::Io(error),
                    other => Unfit::Header(other),
                })?;
                header.check_standalone()?;
                Ok(ByteSize(header.virtual_size))
            }
            DiskFormat::Raw => Ok(ByteSize(files::open_regular(&self.path)?.metadata()?.len())),
        }
    }
}

impl Images {
    /// The disk of a domain of others, as the root disk of a server.
    ///
    /// # Errors
    /// When it cannot be read, lies over another file or is one of ours.
    pub fn foreign_disk(&self, domain: &str, imported: &Imported) -> Result<Facts, HostError> {
        let refused = |why: String, help: String| {
            Err(HostError::refused(format!("domain `{domain}` cannot be taken over: {why}"))
                .help(help)
                .code(NOT_IMPORTABLE))
        };
        let path = imported.path.display();
        // Of any project.
        if self.layout.root.parent().is_some_and(|data_dir| imported.path.starts_with(data_dir)) {
            return refused(
                format!("its disk `{path}` is in novella's own directory"),
                "move it elsewhere first".into(),
            );
        }
        match (imported.size(), imported.facts()) {
            (Ok(_), Some(facts)) => Ok(facts),
            (Err(Unfit::Hazard(Hazard::Backing(backing))), _) => refused(
                format!("its disk `{path}` lies over another file, `{backing}`"),
                format!(
                    "make it stand on its own: `virsh blockpull {domain} {path} --wait` while it runs, or off `qemu-img \
                     rebase -f qcow2 -b \"\" {path}`"
                ),
            ),
            (Err(unfit), _) => {
                refused(format!("its disk `{path}` cannot be used: {unfit}"), "see `qemu-img info`".into())
            }
            (Ok(_), None) => refused(format!("its disk `{path}` is gone"), "put it back".into()),
        }
    }

    /// Sees to it that an imported disk is there and of the right size, and known to be the server's. A smaller one grows.
    ///
    /// # Errors
    /// When it is gone, lies over something or would have to shrink.
    pub(super) fn ensure_imported(&self, disk: &Disk, grow: &Grow<'_>) -> Result<(), HostError> {
        let file = DiskFile {
            what: format!("the disk of `server.{}`", disk.server),
            path: &disk.path,
            format: disk.format,
            size: disk.size,
            base: None,
        };
        if !file.is_there()? {
            let gone = format!("the disk of `server.{}`, `{}`, is gone", disk.server, disk.path.display());
            return Err(HostError::refused(gone).code(DISK_GONE).help(way_out(&disk.server)));
        }
        file.adjust(grow)?;
        let note = Imported { path: disk.path.clone(), format: disk.format };
        if Imported::of(&self.layout, disk.server.as_str()).as_ref() == Some(&note) {
            return Ok(());
        }
        let failed = |error: io::Error| {
            HostError::new(format!("cannot note where the disk of `server.{}` is", disk.server), error)
        };
        files::make_instance_dir(&self.layout, disk.server.as_str())?;
        let text = serde_json::to_vec(&note).map_err(|error| failed(error.into()))?;
        files::write_atomic(&self.layout.imported(disk.server.as_str()), &text, 0o600).map_err(failed)
    }

    /// The imported disk of a server, as facts.
    pub(super) fn imported_facts(&self, server: &Name) -> Option<Facts> {
        Imported::of(&self.layout, server.as_str())?.facts()
    }

    /// Forgets the imported disk of a server that has another by now. The file stays.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn forget_imported(&self, server: &Name, wanted: &Path) -> Result<(), HostError> {
        match Imported::of(&self.layout, server.as_str()) {
            Some(imported) if imported.path != wanted => {
                let note = self.layout.imported(server.as_str());
                files::remove(&note)
                    .and_then(|()| files::sync_parent(&note))
                    .map_err(|error| HostError::new(format!("cannot remove `{}`", note.display()), error))
            }
            _ => Ok(()),
        }
    }
}
