//! Lines for the journal of systemd: each behind its priority, as sd-daemon(3) has it, and without colours.

use std::io;
use std::os::fd::AsFd;
use std::sync::LazyLock;

use nix::sys::stat::fstat;
use tracing::Level;

/// How much a line matters, as syslog(3) has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Something is wrong.
    Error,
    /// Somebody should look at it.
    Warning,
    /// It is told.
    Info,
    /// It is told to those who look for a defect.
    Debug,
}

impl Priority {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Error => "<3>",
            Self::Warning => "<4>",
            Self::Info => "<6>",
            Self::Debug => "<7>",
        }
    }
}

impl From<&Level> for Priority {
    fn from(level: &Level) -> Self {
        match *level {
            Level::ERROR => Self::Error,
            Level::WARN => Self::Warning,
            Level::INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Whether standard output goes to the journal.
pub(super) static IS_OUTPUT: LazyLock<bool> = LazyLock::new(|| is_journal(io::stdout()));

/// Whether standard error does.
pub(super) static IS_ERROR: LazyLock<bool> = LazyLock::new(|| is_journal(io::stderr()));

/// Whether a stream is the one that the service manager has tied to the journal, and not what it was turned to since.
fn is_journal(stream: impl AsFd) -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let named = named.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    fstat(stream).is_ok_and(|it| named == Some((it.st_dev, it.st_ino)))
}

/// The text with the priority before each line. Empty lines say nothing there.
pub(super) fn prefixed(priority: Priority, text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    let lines = plain.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("{}{line}\n", priority.prefix())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{BOLD, REMOVE};

    #[test]
    fn each_line_has_its_priority_and_no_colour() {
        let text = format!("\n{BOLD}server.web{BOLD:#} (disk)\n{REMOVE}error{REMOVE:#}: no\n\n  | <6>\n");
        assert_eq!(prefixed(Priority::Error, &text), "<3>server.web (disk)\n<3>error: no\n<3>  | <6>\n");
    }
}
