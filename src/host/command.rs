//! Runs the programs that novella relies on: by absolute path, never through a shell.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::host::HostError;

/// Where programs are looked for. `PATH` is not asked: a root tool does not let its caller choose what it runs.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The absolute path of a program.
///
/// # Errors
/// When it is not installed; the help names the Debian package that has it.
pub fn find(program: &str, package: &str) -> Result<PathBuf, HostError> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(program)).find(|path| path.is_file()).ok_or_else(
        || HostError::refused(format!("`{program}` is not installed")).help(format!("apt install {package}")),
    )
}

/// Runs a program to its end and gives what it wrote on standard output.
///
/// # Errors
/// When it cannot be started or fails; the error's cause is what it wrote on standard error. `deed` says in the error
/// what was to be done.
pub fn run(command: &mut Command, input: Option<&[u8]>, deed: impl Fn() -> String) -> Result<Vec<u8>, HostError> {
    let failed = |error: std::io::Error| HostError::new(deed(), error);
    command.env("LC_ALL", "C").stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends without reading all says why on its standard error.
        let _ = stdin.write_all(input);
    }
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
    if status.success() {
        return Ok(stdout);
    }
    let said = String::from_utf8_lossy(&stderr);
    let said = if said.trim().is_empty() { status.to_string() } else { said.trim().to_owned() };
    Err(HostError::new(deed(), said))
}
