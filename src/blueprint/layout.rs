//! Where the files of a project are.

use std::path::{Path, PathBuf};

use crate::address::{Name, VolumeId};
use crate::blueprint::hardware::Firmware;
use crate::blueprint::object::{BaseRole, DiskFormat, ImageFormat};
use crate::value::Sha256;

/// Where the files of a project are on a host. All lies under one directory that is ours alone.
///
/// ```text
/// <data_dir>/<project>/base/<id>               cached images, mode 0444
/// <data_dir>/<project>/instances/<server>/     disk.qcow2, seed-<digest>.img, nvram-<kind>.fd, console.log
/// <data_dir>/<project>/volumes/<volume>.qcow2  disks of their own; <server>/<disk>.qcow2: those of one server
/// <data_dir>/<project>/trash/                  disks that were taken away, each beside what is known of it
/// <data_dir>/<project>/networks/<network>/     hosts/, leases, pid, log, dhcp.json
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The project, part of every mark.
    pub project: Name,
    /// `<data_dir>/<project>`.
    pub root: PathBuf,
}

impl Layout {
    /// The layout of a project under a data directory.
    pub fn new(data_dir: &Path, project: &Name) -> Self {
        Self { project: project.clone(), root: data_dir.join(project.as_str()) }
    }

    /// The image cache.
    pub fn bases(&self) -> PathBuf {
        self.root.join("base")
    }

    /// The directory of all servers' files.
    pub fn instances(&self) -> PathBuf {
        self.root.join("instances")
    }

    /// The directory of one server's files.
    pub fn instance(&self, server: &str) -> PathBuf {
        self.instances().join(server)
    }

    /// A server's root disk.
    pub fn disk(&self, server: &str) -> PathBuf {
        self.instance(server).join("disk.qcow2")
    }

    /// The directory of all disks beside root disks.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// A disk beside root disks.
    pub fn volume(&self, id: &VolumeId, format: DiskFormat) -> PathBuf {
        let directory = match id {
            VolumeId::Own(_) => self.volumes(),
            VolumeId::Inline { server, .. } => self.volumes().join(server.as_str()),
        };
        directory.join(format!("{}.{}", id.label(), format.as_str()))
    }

    /// What was taken away and is not gone yet.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// What a server's cloud-init is told, by the digest of the image.
    pub fn seed(&self, server: &str, digest: &Sha256) -> PathBuf {
        self.instance(server).join(format!("seed-{}.img", digest.short()))
    }

    /// Where the firmware of a server keeps what it is to remember; nowhere where it is a BIOS.
    pub fn nvram(&self, server: &str, firmware: Firmware) -> Option<PathBuf> {
        let kind = match firmware {
            Firmware::Bios => return None,
            Firmware::Uefi => "uefi",
            Firmware::SecureBoot => "secure-boot",
        };
        Some(self.instance(server).join(format!("nvram-{kind}.fd")))
    }

    /// A server's console log.
    pub fn console_log(&self, server: &str) -> PathBuf {
        self.instance(server).join("console.log")
    }

    /// The directory of all networks' files.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }

    /// The directory of one network's dnsmasq.
    pub fn network(&self, network: &str) -> PathBuf {
        self.networks().join(network)
    }

    /// A cached file. Its role, and the format it was converted from, are part of the name, so that the same bytes may
    /// serve in two ways.
    pub fn base(&self, content: &str, role: BaseRole, converted_from: Option<ImageFormat>) -> (String, PathBuf) {
        let id = match converted_from {
            Some(format) => format!("{content}.{}.{role}", format.as_str()),
            None => format!("{content}.{role}"),
        };
        let path = self.bases().join(&id);
        (id, path)
    }

    /// The id of the cached file at a path; none where it is another file.
    pub fn base_id(&self, path: &Path) -> Option<String> {
        (path.parent() == Some(&self.bases())).then(|| path.file_name()?.to_str().map(str::to_owned)).flatten()
    }
}
