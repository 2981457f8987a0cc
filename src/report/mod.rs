//! All that a person or a pipe reads.
//!
//! Nothing outside this module prints. Text that comes from a spec or a host goes through [`clean`], so that it cannot
//! speak to the terminal.

pub mod diagnostics;
pub mod error;
pub mod plan;
pub mod progress;
pub mod table;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};

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

/// Writes text to standard output. Colours are dropped where nobody sees them.
pub fn out(text: impl Display) {
    let mut stdout = anstream::stdout().lock();
    // A pipe that was closed is no concern of ours: whoever closed it has read enough.
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a line to standard output.
pub fn line(text: impl Display) {
    out(format_args!("{text}\n"));
}

/// Writes a line to standard error.
pub fn note(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Whether standard output is a terminal, on which lines can be drawn over.
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The text without anything that a terminal would obey or a reader be fooled by: control characters and those that turn
/// the direction of writing are shown as escapes.
pub fn clean(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hostile) {
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
    }
}
