//! What a server's cloud-init is told: a small image beside its disk, named by its content.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::address::Name;
use crate::blueprint::facts::Facts;
use crate::blueprint::object::{Datasource, Seed};
use crate::blueprint::seed::volume::label_of;
use crate::host::images::{Images, facts, names_in};
use crate::host::{HostError, files};
use crate::value::Sha256;

/// The most bytes that are read of a file that is named as a seed: none of ours has more.
const MAX_BYTES: u64 = 64 << 20;

impl Images {
    /// Sees to it that the seed is there. Others of the server stay, for a domain may have them yet.
    ///
    /// # Errors
    /// When it is not there, and what it holds is not known any more.
    pub fn ensure_seed(&self, seed: &Seed) -> Result<(), HostError> {
        let server = seed.server.as_str();
        if seed.path != self.layout.seed(server, seed.image.digest()) {
            return Err(HostError::refused(format!("`{}` is not the seed of `server.{server}`", seed.path.display())));
        }
        if read(&seed.path).is_ok_and(|image| Sha256::of(&image) == *seed.image.digest()) {
            return Ok(());
        }
        let deed = || format!("cannot write the seed of `server.{server}`");
        let Some(volume) = seed.image.volume() else {
            return Err(HostError::new(deed(), "it is gone or damaged, and what it held was never written down")
                .help("plan again: it is made from what the spec says now"));
        };
        files::make_instance_dir(&self.layout, server)?;
        // libvirt gives it to the user that runs QEMU when a guest gets it.
        files::write_atomic(&seed.path, &volume.image(), 0o600).map_err(|error| HostError::new(deed(), error))
    }

    /// The seeds that a server has, but those that are to be kept.
    ///
    /// # Errors
    /// When its directory cannot be read.
    pub fn seeds_but(&self, server: &Name, kept: Option<&Path>) -> Result<Vec<PathBuf>, HostError> {
        let mut seeds = self.seeds(server)?;
        seeds.retain(|path| Some(path.as_path()) != kept);
        Ok(seeds)
    }

    /// Takes away seeds.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_seeds(&self, seeds: &[PathBuf]) -> Result<(), HostError> {
        for path in seeds {
            files::remove(path)
                .map_err(|error| HostError::new(format!("cannot remove the seed `{}`", path.display()), error))?;
        }
        Ok(())
    }

    /// Takes away all seeds of a server, and its directory if that is empty then.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove_seed(&self, server: &str) -> Result<(), HostError> {
        let server: Name = server
            .parse()
            .map_err(|_| HostError::refused(format!("`{}` is not the name of a server", server.escape_debug())))?;
        self.remove_seeds(&self.seeds(&server)?)?;
        let directory = self.layout.instance(server.as_str());
        for name in self.names_of(&server)? {
            // Of one that was cut off while it was written.
            if is_seed(name.to_string_lossy().trim_start_matches('.').trim_end_matches(".tmp")) {
                files::remove(&directory.join(name))
                    .map_err(|error| HostError::new(format!("cannot remove the seed of `server.{server}`"), error))?;
            }
        }
        // As a rule the disk is there yet.
        let _ = fs::remove_dir(&directory);
        Ok(())
    }

    /// What a server has of seeds, as facts; nothing if it has none.
    pub(super) fn seed_facts(&self, server: &Name) -> Result<Option<Facts>, HostError> {
        let seeds = self.seeds(server)?;
        if seeds.is_empty() {
            return Ok(None);
        }
        let images: Vec<Option<Vec<u8>>> = seeds.iter().map(|path| read(path).ok()).collect();
        let whole = images.iter().zip(&seeds).all(|(image, path)| {
            let digest = image.as_ref().map(|image| Sha256::of(image));
            digest.is_some_and(|digest| self.layout.seed(server.as_str(), &digest) == *path)
        });
        let paths: Vec<String> = seeds.iter().map(|path| path.display().to_string()).collect();
        let mut seen = facts([("path", paths.join(", ")), ("content", if whole { "whole" } else { "damaged" }.into())]);
        if let (true, [Some(image)]) = (whole, images.as_slice()) {
            let known = Datasource::ALL.into_iter().find(|it| label_of(image) == Some(it.label()));
            seen.extend(facts([
                ("sha256", Sha256::of(image).to_string()),
                ("datasource", known.map_or("unknown", Datasource::as_str).into()),
            ]));
        }
        Ok(Some(seen))
    }

    fn seeds(&self, server: &Name) -> Result<Vec<PathBuf>, HostError> {
        let directory = self.layout.instance(server.as_str());
        let names = self.names_of(server)?;
        let mut seeds: Vec<PathBuf> =
            names.iter().filter(|name| name.to_str().is_some_and(is_seed)).map(|name| directory.join(name)).collect();
        seeds.sort();
        Ok(seeds)
    }

    /// What is in the directory of a server, if it is one. Nobody else's is looked into through a link.
    pub(super) fn names_of(&self, server: &Name) -> Result<Vec<OsString>, HostError> {
        let directory = self.layout.instance(server.as_str());
        let is_dir = fs::symlink_metadata(&directory).is_ok_and(|found| found.is_dir());
        if is_dir { names_in(&directory) } else { Ok(Vec::new()) }
    }
}

/// Whether a name in a server's directory is that of a seed. See `Layout::seed`.
pub(super) fn is_seed(name: &str) -> bool {
    let digest = name.strip_prefix("seed-").and_then(|rest| rest.strip_suffix(".img"));
    digest.is_some_and(|digest| digest.len() == 16 && digest.bytes().all(|it| it.is_ascii_hexdigit()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    files::open_regular(path)?.take(MAX_BYTES).read_to_end(&mut image)?;
    Ok(image)
}
