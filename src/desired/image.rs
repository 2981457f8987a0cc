//! Images.

use std::collections::BTreeMap;
use std::path::Path;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::disk::Bus;
use crate::blueprint::hardware::Firmware;
use crate::blueprint::object::{ImageFormat, Locked, Source, Sums};
use crate::desired::Problems;
use crate::desired::host::has_controls;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::lock::Part;
use crate::spec::schema::ImageSpec;
use crate::spec::values::{FirmwareSpec, HypervisorType};
use crate::value::{ByteSize, Sha256};

/// An image: a disk, a kernel, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its name.
    pub name: Name,
    /// The disk, with its format.
    pub disk: Option<(ImageFile, ImageFormat)>,
    /// The kernel.
    pub kernel: Option<ImageFile>,
    /// The initial ramdisk.
    pub initrd: Option<ImageFile>,
    /// The kernel's command line.
    pub cmdline: String,
    /// What starts a server of it.
    pub firmware: Firmware,
    /// Whether it needs a TPM.
    pub tpm: bool,
    /// Whether it is made for KVM alone.
    pub needs_kvm: bool,
    /// The least disk a flavor must have.
    pub min_disk: ByteSize,
    /// The least memory a flavor must have.
    pub min_ram: ByteSize,
    /// What the disks of its servers are plugged into, where they do not say.
    pub disk_bus: Bus,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// Where it comes from.
    pub source: Source,
    /// What it must hash to, as it is published.
    pub sha256: Option<Sha256>,
    /// A list of digests that has its name, where the spec gives none.
    pub sums: Option<Sums>,
    /// What it was when it was first fetched, where the spec gives no digest.
    pub locked: Option<Locked>,
}

impl ImageFile {
    /// Whether the lock file is to say what it is: the spec does not, and it is others who can change it.
    pub fn is_lockable(&self) -> bool {
        self.sha256.is_none() && matches!(self.source, Source::Url(_))
    }
}

impl Image {
    /// Its files, each with the key that names it.
    pub fn files(&self) -> impl Iterator<Item = (Part, &ImageFile)> {
        let disk = self.disk.as_ref().map(|(file, _)| (Part::Source, file));
        let kernel = self.kernel.as_ref().map(|file| (Part::Kernel, file));
        let initrd = self.initrd.as_ref().map(|file| (Part::Initrd, file));
        [disk, kernel, initrd].into_iter().flatten()
    }
}

pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> BTreeMap<Name, Image> {
    spec.images.iter().map(|(name, written)| (name.clone(), image(name, written, problems))).collect()
}

fn image(name: &Name, written: &ImageSpec, problems: &mut Problems<'_>) -> Image {
    let address = Address::new(ResourceKind::Image, name.clone());
    let sums = sums(&address, written, problems);
    let mut file = |part: Part, text: &Option<String>, sha256: &Option<Sha256>| {
        let (key, text) = (part.as_str(), text.as_ref()?);
        match source(text, &problems.source.base) {
            Ok(Source::Url(url)) if url.starts_with("http://") && sha256.is_none() && sums.is_none() => {
                let pin = if key == "source" { "sha256".into() } else { format!("{key}_sha256") };
                problems.push(
                    Diagnostic::error("this could be changed on the way: it is neither encrypted nor pinned")
                        .on(&address, key)
                        .help(format!(
                            "use `https://`, or write what it must hash to: `{pin} = \"…\"`, or the list that says it: `sha256sums` \
                             or `sha512sums`"
                        )),
                );
                None
            }
            Ok(source) => {
                let mut file = ImageFile { source, sha256: sha256.clone(), sums: None, locked: None };
                if file.is_lockable() {
                    let locked = problems.source.lock.get(name, part);
                    file.locked = locked.filter(|it| it.source == file.source.shown()).cloned();
                    file.sums.clone_from(&sums);
                }
                Some(file)
            }
            Err((message, help)) => {
                problems.push(Diagnostic::error(message).on(&address, key).help(help));
                None
            }
        }
    };
    let disk = file(Part::Source, &written.source, &written.sha256);
    let kernel = file(Part::Kernel, &written.kernel, &written.kernel_sha256);
    let initrd = file(Part::Initrd, &written.initrd, &written.initrd_sha256);
    let files: Vec<&ImageFile> = [&disk, &kernel, &initrd].into_iter().flatten().collect();
    if let Some(sums) = &sums
        && !files.is_empty()
        && !files.iter().any(|file| file.is_lockable())
    {
        let key = sums.key();
        problems.push(
            Diagnostic::error(format!(
                "`{key}` has nothing to say: each file has a digest of its own, or is on this host"
            ))
            .on(&address, key)
            .help("leave it out, or the digests"),
        );
    }
    if written.source.is_none() && written.kernel.is_none() {
        problems.push(
            Diagnostic::error(format!("`{address}` has neither a disk nor a kernel"))
                .on(&address, "")
                .help("add `source = \"PATH or URL\"` and `format = \"qcow2\"`"),
        );
    }
    if written.source.is_some() && written.format.is_none() {
        problems.push(
            Diagnostic::error(format!("`{address}` needs the `format` of its disk")).on(&address, "source").help(
                "add `format = \"qcow2\"` or another of raw, vmdk, vdi, vhdx, vpc; a format that is guessed lets a guest choose it",
            ),
        );
    }
    let orphans = [
        ("format", "source", written.format.is_some() && written.source.is_none()),
        ("sha256", "source", written.sha256.is_some() && written.source.is_none()),
        ("initrd", "kernel", written.initrd.is_some() && written.kernel.is_none()),
        ("cmdline", "kernel", written.cmdline.is_some() && written.kernel.is_none()),
        ("kernel_sha256", "kernel", written.kernel_sha256.is_some() && written.kernel.is_none()),
        ("initrd_sha256", "initrd", written.initrd_sha256.is_some() && written.initrd.is_none()),
    ];
    for (key, of, orphan) in orphans {
        if orphan {
            problems.push(
                Diagnostic::error(format!("`{key}` means nothing without `{of}`"))
                    .on(&address, key)
                    .help(format!("add `{of}`, or leave `{key}` out")),
            );
        }
    }
    // Nova's command line for an image with a kernel (reference F2).
    let root = written.hw_disk_bus.unwrap_or_default().target('a');
    let cmdline = written.cmdline.clone().unwrap_or_else(|| format!("root=/dev/{root} console=ttyS0"));
    if has_controls(&cmdline) {
        problems.push(Diagnostic::error("a command line may not have control characters").on(&address, "cmdline"));
    }
    Image {
        name: name.clone(),
        disk: disk.zip(written.format),
        kernel,
        initrd,
        cmdline,
        firmware: firmware(&address, written, problems),
        tpm: written.tpm.is_some(),
        needs_kvm: written.hypervisor_type == Some(HypervisorType::Kvm),
        min_disk: written.min_disk.map_or(ByteSize(0), |size| size.0),
        min_ram: written.min_ram.map_or(ByteSize(0), |size| size.0),
        disk_bus: written.hw_disk_bus.unwrap_or_default(),
    }
}

fn firmware(address: &Address, written: &ImageSpec, problems: &mut Problems<'_>) -> Firmware {
    match (written.firmware, written.secure_boot) {
        (None | Some(FirmwareSpec::Bios), Some(true)) => {
            problems.push(
                Diagnostic::error("secure boot takes UEFI")
                    .code("secure-boot-without-uefi")
                    .on(address, "secure_boot")
                    .help("add `firmware = \"uefi\"`"),
            );
            Firmware::Bios
        }
        (Some(FirmwareSpec::Uefi), Some(true)) => Firmware::SecureBoot,
        (Some(FirmwareSpec::Uefi), _) => Firmware::Uefi,
        (None | Some(FirmwareSpec::Bios), _) => Firmware::Bios,
    }
}

/// The list of digests of an image. Whoever can change it on the way can change the image.
fn sums(address: &Address, written: &ImageSpec, problems: &mut Problems<'_>) -> Option<Sums> {
    let (key, text, sums): (_, _, fn(Source) -> Sums) = match (&written.sha256sums, &written.sha512sums) {
        (None, None) => return None,
        (Some(text), None) => ("sha256sums", text, Sums::Sha256),
        (None, Some(text)) => ("sha512sums", text, Sums::Sha512),
        (Some(text), Some(_)) => {
            problems.push(
                Diagnostic::error("`sha256sums` and `sha512sums` both say what the files must hash to")
                    .on(address, "sha512sums")
                    .help("leave one of them out"),
            );
            ("sha256sums", text, Sums::Sha256)
        }
    };
    let (message, help) = match source(text, &problems.source.base) {
        Ok(Source::Url(url)) if url.starts_with("http://") => (
            "a list of digests that could be changed on the way vouches for nothing".into(),
            "use `https://`, or give the digest itself: `sha256 = \"…\"`",
        ),
        Ok(source) => return Some(sums(source)),
        Err(problem) => problem,
    };
    problems.push(Diagnostic::error(message).on(address, key).help(help));
    None
}

/// Where a text says the bytes are. An error is a message and the way out.
fn source(text: &str, base: &Path) -> Result<Source, (String, &'static str)> {
    if text.is_empty() || has_controls(text) {
        return Err(("this is not a path or URL".into(), "write a path, or a URL that starts with `https://`"));
    }
    match text.split_once("://") {
        Some(("https" | "http", rest)) if !rest.is_empty() => {
            if rest.split('/').next().is_some_and(|host| host.contains('@')) {
                return Err((
                    "a URL with a password in it would be written to the state".into(),
                    "leave `user:password@` out",
                ));
            }
            Ok(Source::Url(text.to_owned()))
        }
        Some((scheme, _)) => Err((
            format!("`{}://` is not supported", scheme.escape_default()),
            "use `https://`, or a path without a scheme",
        )),
        None => Ok(Source::File(normal(&base.join(text)))),
    }
}

/// The path without `.` and `..`, by its text alone.
fn normal(path: &Path) -> std::path::PathBuf {
    let mut normal = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}
