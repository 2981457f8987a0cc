//! Images.

use std::collections::BTreeMap;
use std::path::Path;

use crate::address::{Address, Name, ResourceKind};
use crate::blueprint::object::{DiskFormat, Source};
use crate::desired::Problems;
use crate::desired::host::has_controls;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;
use crate::spec::schema::ImageSpec;
use crate::value::{ByteSize, Sha256};

/// An image: a disk, a kernel, or both.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its name.
    pub name: Name,
    /// The disk, with its format.
    pub disk: Option<(ImageFile, DiskFormat)>,
    /// The kernel.
    pub kernel: Option<ImageFile>,
    /// The initial ramdisk.
    pub initrd: Option<ImageFile>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The least disk a flavor must have.
    pub min_disk: ByteSize,
    /// The least memory a flavor must have.
    pub min_ram: ByteSize,
    /// Whether no plan may take its files away.
    pub prevent_destroy: bool,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFile {
    /// Where it comes from.
    pub source: Source,
    /// What it must hash to.
    pub sha256: Option<Sha256>,
}

/// Nova's command line for an image with a kernel (reference F2).
const DEFAULT_CMDLINE: &str = "root=/dev/vda console=ttyS0";

pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> BTreeMap<Name, Image> {
    spec.images.iter().map(|(name, written)| (name.clone(), image(name, written, problems))).collect()
}

fn image(name: &Name, written: &ImageSpec, problems: &mut Problems<'_>) -> Image {
    let address = Address::new(ResourceKind::Image, name.clone());
    let mut file = |key: &str, text: &Option<String>, sha256: &Option<Sha256>| {
        let text = text.as_ref()?;
        match source(text, &problems.source.base) {
            Ok(Source::Url(url)) if url.starts_with("http://") && sha256.is_none() => {
                let pin = if key == "source" { "sha256".into() } else { format!("{key}_sha256") };
                problems.push(
                    Diagnostic::error("this could be changed on the way: it is neither encrypted nor pinned")
                        .on(&address, key)
                        .help(format!("use `https://`, or write what it must hash to: `{pin} = \"…\"`")),
                );
                None
            }
            Ok(source) => Some(ImageFile { source, sha256: sha256.clone() }),
            Err((message, help)) => {
                problems.push(Diagnostic::error(message).on(&address, key).help(help));
                None
            }
        }
    };
    let disk = file("source", &written.source, &written.sha256);
    let kernel = file("kernel", &written.kernel, &written.kernel_sha256);
    let initrd = file("initrd", &written.initrd, &written.initrd_sha256);
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
                "add `format = \"qcow2\"` or `format = \"raw\"`; a format that is guessed lets a guest choose it",
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
    let cmdline = written.cmdline.clone().unwrap_or_else(|| DEFAULT_CMDLINE.into());
    if has_controls(&cmdline) {
        problems.push(Diagnostic::error("a command line may not have control characters").on(&address, "cmdline"));
    }
    Image {
        name: name.clone(),
        disk: disk.zip(written.format),
        kernel,
        initrd,
        cmdline,
        min_disk: written.min_disk.map_or(ByteSize(0), |size| size.0),
        min_ram: written.min_ram.map_or(ByteSize(0), |size| size.0),
        prevent_destroy: written.lifecycle.unwrap_or_default().prevent_destroy.unwrap_or(false),
    }
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
