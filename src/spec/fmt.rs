//! The canonical spacing of a spec file.
//!
//! It works on the tokens of the text and touches only what is between them, so no comment is lost and no value is another.
//! Order and line breaks stay as they are written:
//!
//! - one space around `=`, after `,` and inside of `{ }`; none inside of `[ ]`, around dots, or before `,`
//! - keys and headers start at the margin; what stands in a list of several lines, four spaces further in than its line
//! - at most one blank line in a row, none at the beginning or the end
//! - at least one space before a comment behind a value; whoever aligns them may

use toml::de::DeTable;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use crate::diagnostic::{Diagnostic, Span};
use crate::spec::load::syntax_errors;

/// The text with canonical spacing. `file` is its number in the source, for what is wrong with it.
///
/// # Errors
/// When the text is not TOML.
pub fn format(file: usize, text: &str) -> Result<String, Vec<Diagnostic>> {
    let (_, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax_errors(file, errors));
    }
    let formatted = spaced(text);
    let parse = |text: &str| text.parse::<toml::Table>();
    match (parse(text), parse(&formatted)) {
        (Ok(before), Ok(after)) if before == after => Ok(formatted),
        _ => Err(vec![
            Diagnostic::error("this cannot be formatted without changing what it says")
                .at(Span { file, bytes: 0..0 })
                .help("this is a defect of novella, please report it; the file stays as it is"),
        ]),
    }
}

/// What is written so far.
#[derive(Default)]
struct Writer<'i> {
    text: String,
    /// The line that is written.
    line: String,
    indent: usize,
    /// How many blank lines stand before it.
    blank: usize,
    /// For each bracket that is open, how far in its line is.
    open: Vec<usize>,
    /// Whether the line is a table's header, whose brackets are none of a value.
    header: bool,
    /// The token before on this line, and the space behind it.
    before: Option<TokenKind>,
    space: &'i str,
}

fn spaced(text: &str) -> String {
    let mut writer = Writer::default();
    let mut usual = None;
    for token in Source::new(text).lex() {
        let piece = text.get(token.span().start()..token.span().end()).unwrap_or_default();
        match token.kind() {
            TokenKind::Whitespace => writer.space = piece,
            TokenKind::Newline => {
                usual.get_or_insert(piece);
                writer.end_line(piece);
            }
            TokenKind::Eof => writer.end_line(usual.unwrap_or("\n")),
            kind => writer.token(kind, piece),
        }
    }
    writer.text
}

impl Writer<'_> {
    fn token(&mut self, kind: TokenKind, piece: &str) {
        use TokenKind::{LeftCurlyBracket, LeftSquareBracket, RightCurlyBracket, RightSquareBracket};
        let closes = matches!(kind, RightSquareBracket | RightCurlyBracket);
        match self.before {
            None => {
                self.header = self.open.is_empty() && kind == LeftSquareBracket;
                self.indent = self.open.last().map_or(0, |outer| outer + usize::from(!closes));
            }
            Some(before) => {
                let gap = gap(before, kind, self.space).to_owned();
                self.line.push_str(&gap);
            }
        }
        if !self.header && matches!(kind, LeftSquareBracket | LeftCurlyBracket) {
            self.open.push(self.indent);
        } else if !self.header && closes {
            self.open.pop();
        }
        self.line.push_str(if kind == TokenKind::Comment { piece.trim_end() } else { piece });
        (self.before, self.space) = (Some(kind), "");
    }

    fn end_line(&mut self, newline: &str) {
        if self.line.is_empty() {
            self.blank += 1;
        } else {
            if self.blank > 0 && !self.text.is_empty() {
                self.text.push_str(newline);
            }
            self.text.extend(std::iter::repeat_n("    ", self.indent));
            self.text.push_str(&self.line);
            self.text.push_str(newline);
            self.blank = 0;
            self.line.clear();
        }
        (self.before, self.space) = (None, "");
    }
}

/// What stands between two tokens of a line, where `space` stands now.
fn gap(before: TokenKind, kind: TokenKind, space: &str) -> &str {
    use TokenKind::{
        Atom, Comma, Comment, Equals, LeftCurlyBracket, LeftSquareBracket, RightCurlyBracket, RightSquareBracket,
    };
    match (before, kind) {
        (_, Comment) => {
            if space.is_empty() {
                " "
            } else {
                space
            }
        }
        (_, Comma | RightSquareBracket) | (LeftSquareBracket, _) | (LeftCurlyBracket, RightCurlyBracket) => "",
        (_, Equals | RightCurlyBracket) | (Equals | Comma | LeftCurlyBracket, _) => " ",
        // A date and its time.
        (Atom, Atom) => " ",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spacing_is_canonical_and_nothing_else_changes() {
        for (text, expected) in [
            ("", ""),
            ("\n\n\n", ""),
            ("a=1", "a = 1\n"),
            (
                "  a  =   1   # one  \n\n\n\n[ b . c ]#two\nd=[1 ,2,3 ]\n\n",
                "a = 1   # one\n\n[b.c] #two\nd = [1, 2, 3]\n",
            ),
            ("a={b=1,c=[ {d=1} ],e={ }}\n", "a = { b = 1, c = [{ d = 1 }], e = {} }\n"),
            ("[[ a ]]\n\tb . c = 1.5\r\n", "[[a]]\nb.c = 1.5\r\n"),
            ("a =2026-01-01 10:00:00\n", "a = 2026-01-01 10:00:00\n"),
            ("a = '''\n  x  \n\n\n'''  \n", "a = '''\n  x  \n\n\n'''\n"),
            (
                "a = [ # first\n1,\n\n\n  # own\n\t { b = [\n2\n] , c=1},\n ]\n",
                "a = [ # first\n    1,\n\n    # own\n    { b = [\n        2\n    ], c = 1 },\n]\n",
            ),
            ("\u{feff}a=1\n", "a = 1\n"),
        ] {
            assert_eq!(format(0, text).as_deref(), Ok(expected), "{text:?}");
            assert_eq!(format(0, expected).as_deref(), Ok(expected), "twice: {text:?}");
        }
        assert_eq!(
            format(3, "a = ").expect_err("no TOML")[0].place,
            crate::diagnostic::Place::Span(Span { file: 3, bytes: 4..4 })
        );
    }
}
