//! `novella fmt`.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, fchown};
use similar::TextDiff;
use tempfile::NamedTempFile;

use crate::cli::{FAILED, Global, Stop, UNFORMATTED};
use crate::diagnostic::{Diagnostic, has_errors};
use crate::host::HostError;
use crate::host::files::sync_parent;
use crate::report;
use crate::spec::source::SourceFile;
use crate::spec::{Source, fmt, load};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The files, or directories of `*.toml` files; those of the spec and its overlays where none is named
    files: Vec<PathBuf>,
    /// Write nothing; exit with 3 where a file is not as it should be
    #[arg(long)]
    check: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    diff: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let mut problems = Vec::new();
    let mut source = Source::default();
    let named = if arguments.files.is_empty() {
        [&global.specs].into_iter().chain(&global.given.overlays).collect()
    } else {
        arguments.files.iter().collect::<Vec<&PathBuf>>()
    };
    for path in named {
        let files = if path.is_dir() { load::list(path) } else { Ok(vec![path.clone()]) };
        match files {
            Ok(files) => source.files.extend(files.into_iter().filter_map(|file| load::read_file(file, &mut problems))),
            Err(error) => problems.push(Diagnostic::error(format!("cannot read `{}`: {error}", path.display()))),
        }
    }
    let mut others = 0;
    for (number, SourceFile { path, text }) in source.files.iter().enumerate() {
        match fmt::format(number, text) {
            Ok(formatted) if formatted == *text => {}
            Ok(formatted) => {
                others += 1;
                let name = path.display().to_string();
                if arguments.diff {
                    let diff = TextDiff::from_lines(text, &formatted);
                    let diff = diff.unified_diff().header(&name, &name).to_string();
                    report::out(report::clean(&diff));
                } else {
                    report::line(report::clean_line(&name));
                }
                if !arguments.check && !arguments.diff {
                    write(path, &formatted)
                        .map_err(|error| HostError::new(format!("cannot write `{}`", path.display()), error))?;
                }
            }
            Err(errors) => problems.extend(errors),
        }
    }
    report::diagnostics::print(&problems, &source);
    if has_errors(&problems) {
        return Err(Stop(FAILED));
    }
    if arguments.check && others > 0 { Err(Stop(UNFORMATTED)) } else { Ok(()) }
}

/// Writes a file whole or not at all, with the owner and the mode that it has. A link stays a link.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let was = path.metadata()?;
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    file.write_all(text.as_bytes())?;
    fchown(file.as_file(), Some(Uid::from_raw(was.uid())), Some(Gid::from_raw(was.gid())))?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(was.mode() & 0o7777))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    sync_parent(&path)
}
