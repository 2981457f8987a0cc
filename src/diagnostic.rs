//! What is wrong with a spec, where, and what to do about it.
//!
//! A diagnostic is plain data. It points at a [`Place`]; the spec's [`Source`](crate::spec::source::Source) knows where in
//! which file that is, and `report` draws it.

use std::ops::Range;

use crate::address::Address;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can be done until this is mended.
    Error,
    /// Worth knowing; work goes on.
    Warning,
}

/// Bytes of one file of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The file, by its number in the source.
    pub file: usize,
    /// The bytes in it.
    pub bytes: Range<usize>,
}

/// Where a problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere in particular.
    Nowhere,
    /// At these bytes.
    Span(Span),
    /// At the value of this key, such as `server.web.flavor`; at the nearest table above it if the key is not written.
    Key(String),
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, where it has one: `pool-exhausted`. It stays the same when the words are changed.
    pub code: Option<String>,
    /// What is wrong: a lowercase phrase with names in backticks.
    pub message: String,
    /// Where.
    pub place: Place,
    /// A few words at the place itself.
    pub label: Option<String>,
    /// Other places that have to do with it, and how.
    pub related: Vec<(Place, String)>,
    /// The way out.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at no place yet.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: None,
            message: message.into(),
            place: Place::Nowhere,
            label: None,
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning at no place yet.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same, by this name.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        self.code = Some(code.to_owned());
        self
    }

    /// The same, at this place.
    #[must_use]
    pub fn placed(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The same, at this span.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        self.place = Place::Span(span);
        self
    }

    /// The same, at the key `key` of the table of a resource; at the table's header where `key` is empty.
    #[must_use]
    pub fn on(mut self, resource: &Address, key: &str) -> Self {
        self.place = Place::of(resource, key);
        self
    }

    /// The same, with words at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same, with one more place.
    #[must_use]
    pub fn related(mut self, place: Place, label: impl Into<String>) -> Self {
        self.related.push((place, label.into()));
        self
    }

    /// The same, with a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Place {
    /// The key `key` of the table of a resource; the table itself where `key` is empty.
    pub fn of(resource: &Address, key: &str) -> Self {
        Self::Key(if key.is_empty() { resource.to_string() } else { format!("{resource}.{key}") })
    }
}

/// Whether any of these is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// The candidate that a person most likely meant by `word`, if one is near enough.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).div_ceil(3).min(3))
        .min()
        .map(|(_, candidate)| candidate)
}
