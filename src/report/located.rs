//! A diagnostic with its place in numbers, as tools read it.

use serde::Serialize;

use crate::address::Address;
use crate::diagnostic::{Diagnostic, Place, Severity};
use crate::report::clean;
use crate::spec::Source;

/// A diagnostic in the shape that Terraform's has in JSON, with its name.
#[derive(Debug, Serialize)]
pub struct Located {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What is wrong.
    pub summary: String,
    /// What else is known of it, and the way out; empty where there is none.
    pub detail: String,
    /// The resource or key that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where it is in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
}

/// A piece of a file.
#[derive(Debug, Serialize)]
pub struct Range {
    /// The file, as the spec's directory was given.
    pub filename: String,
    /// Where it begins.
    pub start: Position,
    /// Where it ends: behind its last character.
    pub end: Position,
}

/// A place in a file.
#[derive(Debug, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in it, from 1.
    pub column: usize,
    /// The byte in the file, from 0.
    pub byte: usize,
}

impl Located {
    /// The diagnostic at its place in the source.
    pub fn new(diagnostic: &Diagnostic, source: &Source) -> Self {
        let span = source.locate(&diagnostic.place);
        let range = span.and_then(|span| {
            let position = |byte| {
                let (line, column) = source.line_column(span.file, byte);
                Position { line, column, byte }
            };
            let filename = source.files.get(span.file)?.path.display().to_string();
            Some(Range { filename, start: position(span.bytes.start), end: position(span.bytes.end) })
        });
        let related = diagnostic.related.iter().filter_map(|(place, label)| {
            let span = source.locate(place)?;
            let file = source.files.get(span.file)?.path.display();
            Some(format!("{label} ({file}:{})", source.line_column(span.file, span.bytes.start).0))
        });
        let help = diagnostic.help.as_ref().map(|help| format!("help: {help}"));
        let detail: Vec<String> = diagnostic.label.clone().into_iter().chain(related).chain(help).collect();
        Self {
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            code: diagnostic.code.clone(),
            summary: diagnostic.message.clone(),
            detail: detail.join("\n"),
            address: match &diagnostic.place {
                Place::Key(key) => Some(key.clone()),
                Place::Nowhere | Place::Span(_) => None,
            },
            range,
        }
    }

    /// An error that has no place in a spec.
    pub fn error(summary: impl Into<String>, help: Option<&str>, address: Option<&Address>) -> Self {
        Self {
            severity: "error",
            code: None,
            summary: summary.into(),
            detail: help.map(|help| format!("help: {help}")).unwrap_or_default(),
            address: address.map(ToString::to_string),
            range: None,
        }
    }

    /// All that it says, cleaned.
    pub fn text(&self) -> String {
        let all =
            if self.detail.is_empty() { self.summary.clone() } else { format!("{}\n{}", self.summary, self.detail) };
        clean(&all).into_owned()
    }
}
