//! Where the files of a project are.

use std::path::{Path, PathBuf};

use crate::address::{Name, VolumeId};
use crate::blueprint::hardware::Firmware;
use crate::blueprint::object::{BaseRole, DiskFormat, ImageFormat};
use crate::value::Sha256;

/// The generation of a disk that nothing was before.
pub const FIRST_DISK: u32 = 1;

/// The name of the file that tells where an imported disk is.
pub const IMPORTED: &str = "imported.json";

/// Where the files of a project are on a host. All lies under one directory that is ours alone.
///
/// ```text
/// <data_dir>/<project>/base/<id>               cached images, mode 0444
/// <data_dir>/<project>/instances/<server>/     disk.qcow2 or disk-<generation>.qcow2, seed-<digest>.img, nvram-<kind>.fd,
///                                              console.log; imported.json: where a disk is that was imported
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

    /// A server's first root disk.
    pub fn disk(&self, server: &str) -> PathBuf {
        self.disk_of(server, FIRST_DISK)
    }

    /// A server's root disk of this generation. One that is made anew when that is asked for, or beside the one before it, is
    /// of the next: so it is told from the one before by its name alone.
    pub fn disk_of(&self, server: &str, generation: u32) -> PathBuf {
        let name = if generation == FIRST_DISK { "disk.qcow2".into() } else { format!("disk-{generation}.qcow2") };
        self.instance(server).join(name)
    }

    /// The generation of a root disk with this path or name; none if it is none.
    pub fn disk_generation(path: &Path) -> Option<u32> {
        let name = path.file_name()?.to_str()?.strip_suffix(".qcow2")?.strip_prefix("disk")?;
        if name.is_empty() {
            return Some(FIRST_DISK);
        }
        let number = name.strip_prefix('-')?;
        let generation = number.parse::<u32>().ok().filter(|generation| *generation > FIRST_DISK)?;
        (generation.to_string() == number).then_some(generation)
    }

    /// The generation of the root disk of a server that this is; none if it is a file of others.
    pub fn generation_of(&self, server: &str, path: &Path) -> Option<u32> {
        Self::disk_generation(path).filter(|generation| self.disk_of(server, *generation) == path)
    }

    /// What is known of a server's root disk that was imported, and lies elsewhere.
    pub fn imported(&self, server: &str) -> PathBuf {
        self.instance(server).join(IMPORTED)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_tells_its_generation() {
        let layout = Layout::new(Path::new("/data"), &Name::default_project());
        for generation in [1, 2, 10] {
            assert_eq!(Layout::disk_generation(&layout.disk_of("web", generation)), Some(generation));
        }
        for other in ["disk-1.qcow2", "disk-02.qcow2", "disk-+2.qcow2", "disk-.qcow2", "disk2.qcow2", "disk.qcow2.part"]
        {
            assert_eq!(Layout::disk_generation(Path::new(other)), None, "{other}");
        }
    }
}
