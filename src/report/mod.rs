//! All that a person or a pipe reads.
//!
//! Nothing outside this module prints, the log included. Text that comes from a spec or a host goes through [`clean`] or
//! [`clean_line`], so that it cannot speak to the terminal.

pub mod addresses;
pub mod console;
pub mod diagnostics;
pub mod document;
pub mod drift;
pub mod error;
pub mod explain;
pub mod github;
pub mod graph;
pub mod history;
pub mod html;
pub mod images;
pub mod journal;
pub mod json;
pub mod leases;
pub mod located;
pub mod markdown;
pub mod plan;
pub mod progress;
pub mod records;
pub mod stream;
pub mod table;
pub mod topology;
pub mod watch;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{LazyLock, OnceLock};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressDrawTarget};
use journal::Priority;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Green: made.
pub const ADD: Style = AnsiColor::Green.on_default();
/// Yellow: changed.
pub const CHANGE: Style = AnsiColor::Yellow.on_default();
/// Red: taken away, or wrong.
pub const REMOVE: Style = AnsiColor::Red.on_default();
/// What the eye should find.
pub const BOLD: Style = Style::new().bold();
/// What it may pass over.
pub const DIM: Style = Style::new().dimmed();

/// The lines that are drawn over as work goes on. Whatever else is written makes them step aside for a moment.
static LIVE: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout()));

/// In which way problems are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// As text on standard error.
    #[default]
    Text,
    /// The same, and as annotations of a GitHub workflow on standard output.
    Github,
    /// As lines of JSON on standard output, and nowhere else.
    Stream,
}

static VOICE: OnceLock<Voice> = OnceLock::new();

/// Tells problems in this way from now on. The first call counts, as with the arguments that a program is started with.
pub fn speak(voice: Voice) {
    let _ = VOICE.set(voice);
}

fn voice() -> Voice {
    VOICE.get().copied().unwrap_or_default()
}

/// Writes text to standard output. Colours are dropped where nobody sees them.
pub fn out(text: impl Display) {
    out_as(Priority::Info, text);
}

fn out_as(priority: Priority, text: impl Display) {
    // Put together first: without colours a text comes in pieces, and each would be a write of its own.
    let whole = if *journal::IS_OUTPUT {
        journal::prefixed(priority, &text.to_string()).into_bytes()
    } else {
        let mut whole = AutoStream::new(Vec::new(), AutoStream::choice(&io::stdout()));
        // Writing to memory cannot fail.
        let _ = write!(whole, "{text}");
        whole.into_inner()
    };
    LIVE.suspend(|| {
        let mut stdout = io::stdout().lock();
        // A pipe that was closed is no concern of ours: whoever closed it has read enough.
        let _ = stdout.write_all(&whole).and_then(|()| stdout.flush());
    });
}

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    line_as(Priority::Info, text);
}

/// The same, which matters so much to the journal.
pub fn line_as(priority: Priority, text: impl Display) {
    out_as(priority, format_args!("{text}\n"));
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    note_as(Priority::Info, text);
}

/// The same, which matters so much to the journal.
pub fn note_as(priority: Priority, text: impl Display) {
    LIVE.suspend(|| {
        let _ = if *journal::IS_ERROR {
            io::stderr().lock().write_all(journal::prefixed(priority, &text.to_string()).as_bytes())
        } else {
            writeln!(anstream::stderr().lock(), "{text}")
        };
    });
}

/// Whether the log goes to the journal, which keeps the level of each message itself.
pub fn is_journal() -> bool {
    *journal::IS_ERROR
}

/// Where the log goes: to standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl MakeWriter<'_> for Log {
    type Writer = Message;

    fn make_writer(&self) -> Message {
        Message(Priority::Info)
    }

    fn make_writer_for(&self, metadata: &Metadata<'_>) -> Message {
        Message(metadata.level().into())
    }
}

/// Takes one message of the log with each write, without colours.
#[derive(Clone, Copy, Debug)]
pub struct Message(Priority);

impl io::Write for Message {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        note_as(self.0, clean(String::from_utf8_lossy(bytes).trim_end_matches('\n')));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard output is a terminal, on which lines can be drawn over.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether somebody watches standard error, who wants to know how things go.
pub fn is_attended() -> bool {
    std::io::stderr().is_terminal()
}

/// So many of a thing: `1 network`, `2 networks`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// So many seconds in the largest unit that they fill: `59s`, `3m`, `23h`, `7d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The text without anything that a terminal would obey or a reader be fooled by: control characters and those that turn
/// the direction of writing are shown as escapes. Line breaks stay.
pub fn clean(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_hostile(c))
}

/// The same for what belongs on one line: line breaks are shown as escapes too, so that none of it passes for a line of
/// ours.
pub fn clean_line(text: &str) -> Cow<'_, str> {
    escape(text, is_hostile)
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::new(), |mut escaped, c| {
        if hostile(c) {
            escaped.extend(c.escape_default())
        } else {
            escaped.push(c)
        }
        escaped
    });
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(clean("web \u{e9}\n"), "web \u{e9}\n");
        assert_eq!(clean("\x1b[31mred\u{7}\r"), "\\u{1b}[31mred\\u{7}\\r");
        assert_eq!(clean("\u{9b}2J\u{202e}txt"), "\\u{9b}2J\\u{202e}txt");
        assert_eq!(clean_line("a\nb\u{2028}c"), "a\\nb\\u{2028}c");
    }
}
