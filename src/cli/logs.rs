//! `novella logs`: what a guest has said on its console.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::servers::{Servers, machine};
use crate::cli::{Global, Stop, candidates};
use crate::host::HostError;
use crate::report;
use crate::report::console::{Cleaner, raw};

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// virtlogd keeps so many older logs beside the one it writes (`max_backups` in virtlogd.conf), unless it is told otherwise.
const OLDER: u32 = 9;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server, as `web` or `server.web`
    #[arg(add = candidates::servers())]
    server: String,
    /// Go on with what is said from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<usize>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let domain = servers.one(&arguments.server)?;
    machine(&servers.target(global)?, "read")?;
    let path = &domain.console_log;
    let cannot = |error| HostError::new(format!("cannot read the console log `{}`", path.display()), error);
    let mut show = Show { cleaner: report::is_terminal().then(Cleaner::default) };
    let mut log = Log::new(path.clone());
    let said = log.whole().map_err(cannot)?;
    if said.is_empty() && !arguments.follow {
        report::note(format_args!("note: `server.{}` has not said anything on its console yet", domain.server));
    }
    // Whoever reads a pipe may have read enough.
    let mut reads = show.piece(arguments.tail.map_or(&said[..], |lines| tail(&said, lines))).is_ok();
    while arguments.follow && reads {
        std::thread::sleep(LOOK);
        let news = log.news().map_err(cannot)?;
        reads = news.is_empty() || show.piece(&news).is_ok();
    }
    Ok(())
}

/// To a terminal goes what it must not obey, cleaned; to a pipe, each byte as the guest said it.
struct Show {
    cleaner: Option<Cleaner>,
}

impl Show {
    fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.cleaner {
            Some(cleaner) => raw(cleaner.next(bytes).as_bytes()),
            None => raw(bytes),
        }
    }
}

/// A log that grows, and is begun anew now and then.
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    at: u64,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, at: 0 }
    }

    /// What was added since the last look. Nothing as long as there is no such file.
    pub(super) fn news(&mut self) -> io::Result<Vec<u8>> {
        let mut news = Vec::new();
        if self.file.is_none() {
            self.open()?;
        }
        self.read(&mut news)?;
        // Rotated: what was last written to the old one has been read, for it was renamed before the new one was made.
        let there = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(news),
            there => there?,
        };
        let open = self.file.as_ref().map(File::metadata).transpose()?;
        if open.is_some_and(|open| (open.dev(), open.ino()) != (there.dev(), there.ino())) {
            self.read(&mut news)?;
            self.open()?;
            self.read(&mut news)?;
        }
        Ok(news)
    }

    /// All that is kept: older logs, the oldest first, then the log itself.
    pub(super) fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        for number in (0..OLDER).rev() {
            match File::open(older(&self.path, number)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                file => drop(file?.read_to_end(&mut whole)?),
            }
        }
        self.file = None;
        whole.extend(self.news()?);
        Ok(whole)
    }

    fn open(&mut self) -> io::Result<()> {
        (self.file, self.at) = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => (None, 0),
            file => (Some(file?), 0),
        };
        Ok(())
    }

    fn read(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.metadata()?.len() < self.at {
            // Truncated.
            io::Seek::rewind(file)?;
            self.at = 0;
        }
        self.at += file.read_to_end(into)? as u64;
        Ok(())
    }
}

fn older(log: &Path, number: u32) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The last lines. One that is not ended yet counts.
fn tail(text: &[u8], lines: usize) -> &[u8] {
    let ended = text.strip_suffix(b"\n").unwrap_or(text);
    let mut breaks = ended.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => breaks.nth(before).map_or(text, |at| &text[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_lines_are_found() {
        for (text, lines, expected) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 9, "a\nb\n"),
            ("a\nb\n", 1, "b\n"),
            ("a\nb\n", 0, ""),
            ("\n\n", 1, "\n"),
            ("", 3, ""),
        ] {
            assert_eq!(tail(text.as_bytes(), lines), expected.as_bytes(), "{text:?} {lines}");
        }
    }

    #[test]
    fn a_log_is_followed_across_rotation_and_truncation() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("console.log");
        let append = |text: &str| {
            use std::io::Write as _;
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("the log");
            file.write_all(text.as_bytes()).expect("written");
        };
        let rotate = || {
            for number in [1, 0] {
                let _ = fs::rename(older(&path, number), older(&path, number + 1));
            }
            fs::rename(&path, older(&path, 0)).expect("rotated");
        };
        let mut log = Log::new(path.clone());
        let mut expect = |news: &str, what: &str| {
            assert_eq!(String::from_utf8(log.news().expect("news")).expect("UTF-8"), news, "{what}");
        };
        expect("", "there is none yet");
        append("one\n");
        expect("one\n", "it was made");
        expect("", "nothing is said twice");
        append("two\n");
        rotate();
        expect("two\n", "renamed, and no new one");
        append("three\n");
        expect("three\n", "a new one");
        append("four\n");
        rotate();
        append("five\n");
        expect("four\nfive\n", "the end of the old one, then the new one");
        fs::write(&path, "6\n").expect("truncated");
        expect("6\n", "truncated");
        let all = Log::new(path.clone()).whole().expect("all");
        assert_eq!(String::from_utf8(all).expect("UTF-8"), "one\ntwo\nthree\nfour\n6\n");
    }
}
