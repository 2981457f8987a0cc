//! From the file as it is published to the one that is cached: unpacked, checked, converted.
//!
//! A guest boots from qcow2 and raw. All else becomes qcow2 once, by `qemu-img convert`: its format is said and never
//! probed, the file was looked at before, and what it may take of the host is limited, for such a file may be made to harm
//! whoever reads it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::blueprint::object::{Base, BaseRole, ImageFormat};
use crate::host::images::base::{Place, cannot_cache};
use crate::host::images::fetch::Fetched;
use crate::host::images::packing::Packing;
use crate::host::images::{Images, content, foreign};
use crate::host::{HostError, command, files};
use crate::value::ByteSize;

/// The most memory that a conversion may map. QEMU's tools need some 400 MiB of it, whatever the image.
const CONVERT_MEMORY: ByteSize = ByteSize::gib(2);
/// The most processor time that it may take, in seconds.
const CONVERT_SECONDS: u32 = 3600;

/// A file that can be put in its place.
pub(super) struct Prepared {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// The size of the disk in it, in bytes, where it is one.
    pub(super) virtual_size: Option<u64>,
}

impl Images {
    /// Makes of a fetched file the one that is cached.
    pub(super) fn prepare(&self, base: &Base, place: &Place, fetched: &Fetched) -> Result<Prepared, HostError> {
        let failed = |error| cannot_cache(base, error);
        let mut path = place.part.clone();
        let mut file = fetched.file.try_clone().map_err(failed)?;
        if let Some(packing) = packing(base, &file).map_err(failed)? {
            path.clone_from(&place.unpacked);
            file = self.unpack(base, packing, &file, &path)?;
        }
        if let Some(format) = base.converted_from {
            foreign::check(&file, format).map_err(|unfit| unusable(base, unfit))?;
            self.convert(base, format, &path, &place.converted)?;
            path.clone_from(&place.converted);
            file = files::open_regular(&path).map_err(failed)?;
        }
        let virtual_size = content::check(&file, base.role).map_err(|unfit| unusable(base, unfit))?;
        Ok(Prepared { path, file, virtual_size })
    }

    fn convert(&self, base: &Base, format: ImageFormat, from: &Path, to: &Path) -> Result<(), HostError> {
        let deed = || format!("cannot convert image `{}` from {} to qcow2", base.image, format.as_str());
        // The file is made here, so that qemu-img follows no symbolic link.
        files::create_new(to, 0o600).map_err(|error| HostError::new(deed(), error))?;
        let room = self.room().map_err(|error| HostError::new(deed(), error))?.bytes();
        let mut convert = Command::new(command::find("prlimit", "util-linux")?);
        convert.arg(format!("--as={}", CONVERT_MEMORY.bytes()));
        convert.arg(format!("--cpu={CONVERT_SECONDS}"));
        convert.arg(format!("--fsize={room}"));
        convert.arg("--core=0").arg(command::find("qemu-img", "qemu-utils")?);
        convert.args(["convert", "-q", "-f", format.as_str(), "-O", "qcow2", "--"]).arg(from).arg(to);
        tracing::info!(image = %base.image, format = format.as_str(), "converting to qcow2");
        command::run(&mut convert, None, deed).map(drop).map_err(|error| {
            error.help(format!(
                "get a good copy of it; a conversion may use {} of memory, and what the file system has free: {}",
                CONVERT_MEMORY,
                ByteSize(room).about()
            ))
        })
    }
}

/// How a file is compressed, where that is not what it is for: a kernel unpacks its initial ramdisk itself.
fn packing(base: &Base, file: &File) -> std::io::Result<Option<Packing>> {
    match base.role {
        BaseRole::Disk(_) | BaseRole::Kernel => Packing::of(file),
        BaseRole::Initrd => Ok(None),
    }
}

fn unusable(base: &Base, unfit: content::Unfit) -> HostError {
    let help = unfit.help();
    HostError::new(format!("cannot use image `{}` from `{}`", base.image, base.source.shown()), unfit).help(help)
}
