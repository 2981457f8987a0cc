//! Where the files of a project are.

use std::path::{Path, PathBuf};

use crate::address::Name;
use crate::blueprint::object::{BaseRole, ImageFormat};
use crate::value::Sha256;

/// Where the files of a project are on a host. All lies under one directory that is ours alone.
///
/// ```text
/// <data_dir>/<project>/base/<id>               cached images, mode 0444
/// <data_dir>/<project>/instances/<server>/     disk.qcow2, seed-<digest>.img, console.log
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
}
