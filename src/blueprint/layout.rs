//! Where the files of a project are.

use std::path::{Path, PathBuf};

use crate::address::Name;
use crate::blueprint::object::BaseRole;
use crate::value::Sha256;

/// The generation of a disk that nothing was before.
pub const FIRST_DISK: u32 = 1;

/// Where the files of a project are on a host. All lies under one directory that is ours alone.
///
/// ```text
/// <data_dir>/<project>/base/<id>               cached images, mode 0444
/// <data_dir>/<project>/instances/<server>/     disk.qcow2 or disk-<generation>.qcow2, seed-<digest>.img, console.log
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

    /// What a server's cloud-init is told, by the digest of the image.
    pub fn seed(&self, server: &str, digest: &Sha256) -> PathBuf {
        self.instance(server).join(format!("seed-{}.img", digest.short()))
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

    /// A cached file. Its role is part of the name, so that the same bytes may serve in two roles.
    pub fn base(&self, content: &str, role: BaseRole) -> (String, PathBuf) {
        let id = format!("{content}.{role}");
        let path = self.bases().join(&id);
        (id, path)
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
