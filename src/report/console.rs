//! What a guest says, made fit for a terminal.

use std::io;

use anstream::adapter::StripBytes;

use crate::report::{LIVE, clean};

/// Takes the console of a guest in pieces, wherever they are cut, and gives text that no terminal obeys: colours and all
/// other sequences are left out, line ends are those of this side, and what else is hostile is shown as escapes. Tabs stay.
#[derive(Default)]
pub struct Cleaner {
    sequences: StripBytes,
    /// The beginning of a character whose end has not come yet.
    cut: Vec<u8>,
    returned: bool,
}

impl Cleaner {
    /// The next piece, cleaned.
    pub fn next(&mut self, bytes: &[u8]) -> String {
        let mut plain = std::mem::take(&mut self.cut);
        for piece in self.sequences.strip_next(bytes) {
            plain.extend(piece);
        }
        let mut text = String::new();
        let mut rest = &plain[..];
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(bad) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = after.get(bad..).unwrap_or_default();
                        }
                        None => {
                            self.cut = after.to_owned();
                            rest = &[];
                        }
                    }
                }
            }
        }
        self.lines(&text)
    }

    /// A serial line ends with `\r\n`, with more of `\r` where two ends add one, and a lone `\r` begins the line anew.
    fn lines(&mut self, text: &str) -> String {
        let mut whole = String::new();
        for c in text.chars() {
            if c == '\r' {
                self.returned = true;
                continue;
            }
            if std::mem::take(&mut self.returned) && c != '\n' {
                whole.push('\n');
            }
            match c {
                '\n' | '\t' => whole.push(c),
                _ => whole.push_str(&clean(c.encode_utf8(&mut [0; 4]))),
            }
        }
        whole
    }
}

/// Writes bytes to standard output as they are.
///
/// # Errors
/// When they cannot be written, as when nobody reads them any more.
pub fn raw(bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;
    LIVE.suspend(|| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_cleaned_wherever_it_is_cut() {
        for (said, shown) in [
            ("Linux 6.1\r\n[  \u{1b}[0;32mOK\u{1b}[0m  ] up\r\r\n", "Linux 6.1\n[  OK  ] up\n"),
            ("10%\r20%\rdone\n", "10%\n20%\ndone\n"),
            ("a\tb ä€ \u{202e}c", "a\tb ä€ \\u{202e}c"),
            ("\u{1b}]0;title\u{7}login: ", "login: "),
        ] {
            assert_eq!(Cleaner::default().next(said.as_bytes()), shown);
            for cut in 0..said.len() {
                let (first, second) = said.as_bytes().split_at(cut);
                let mut cleaner = Cleaner::default();
                let pieces = [cleaner.next(first), cleaner.next(second)].concat();
                assert_eq!(pieces, shown, "{said:?} cut at {cut}");
            }
        }
        assert_eq!(Cleaner::default().next(b"a\xffb\xc3"), "ab", "what is no text is left out");
        let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        let all: Vec<u8> = (0..=255).collect();
        assert!(!Cleaner::default().next(&all).contains(obeyed));
    }
}
