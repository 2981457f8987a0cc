//! Draws what is wrong with a spec: file, line, column, the lines themselves, and the way out.

use std::borrow::Cow;
use std::collections::BTreeSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Severity, Span, has_errors};
use crate::report::github::annotation;
use crate::report::journal::Priority;
use crate::report::located::Located;
use crate::report::{Voice, clean, clean_line, count, is_hostile, note_as, out, stream, voice};
use crate::spec::Source;
use crate::spec::source::SourceFile;

/// Prints all of them, and a last line that counts them.
pub fn print(diagnostics: &[Diagnostic], source: &Source) {
    if diagnostics.is_empty() {
        return;
    }
    match voice() {
        Voice::Text => {}
        Voice::Stream => {
            diagnostics.iter().for_each(|it| stream::diagnostic(&Located::new(it, source)));
            return;
        }
        Voice::Github => out(diagnostics.iter().map(|it| annotation(&Located::new(it, source))).collect::<String>()),
    }
    let priority = if has_errors(diagnostics) { Priority::Error } else { Priority::Warning };
    note_as(priority, render(diagnostics, source, Renderer::styled()));
}

/// All of them as text without colours.
pub fn to_text(diagnostics: &[Diagnostic], source: &Source) -> String {
    render(diagnostics, source, Renderer::plain())
}

fn render(diagnostics: &[Diagnostic], source: &Source, renderer: Renderer) -> String {
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut sorted: Vec<(Option<Span>, &Diagnostic)> =
        diagnostics.iter().map(|diagnostic| (source.locate(&diagnostic.place), diagnostic)).collect();
    sorted.sort_by_key(|(span, _)| span.as_ref().map(|span| (span.file, span.bytes.start, span.bytes.end)));
    // What several inherit is wrong once.
    sorted.dedup_by(|(one, this), (other, that)| {
        one.is_some() && one == other && (&this.message, &this.help) == (&that.message, &that.help)
    });
    let errors = sorted.iter().filter(|(_, diagnostic)| diagnostic.severity == Severity::Error).count();
    let warnings = sorted.len() - errors;
    let mut text = String::new();
    for (span, diagnostic) in sorted {
        text.push_str(&one(diagnostic, span, source, &renderer));
        text.push_str("\n\n");
    }
    let counted = [(errors, "error"), (warnings, "warning")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| count(number, word))
        .collect::<Vec<_>>()
        .join(", ");
    text.push_str(&counted);
    text
}

fn one(diagnostic: &Diagnostic, span: Option<Span>, source: &Source, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut title = level.primary_title(clean_line(&diagnostic.message));
    if let Some(code) = &diagnostic.code {
        title = title.id(code.as_str());
    }
    let mut group = Group::with_title(title);
    let related = diagnostic.related.iter().filter_map(|(place, label)| Some((source.locate(place)?, label.as_str())));
    let related: Vec<(Span, &str)> = related.collect();
    if let Some((span, file)) = span.as_ref().and_then(|span| Some((span, source.files.get(span.file)?))) {
        let mut primary = AnnotationKind::Primary.span(within(file, span));
        if let Some(label) = &diagnostic.label {
            primary = primary.label(clean(label));
        }
        let beside = |number: usize, file: &SourceFile| {
            let context = |(other, label): &(Span, &str)| {
                AnnotationKind::Context.span(within(file, other)).label(clean(label).into_owned())
            };
            related.iter().filter(|(other, _)| other.file == number).map(context).collect::<Vec<_>>()
        };
        group = group.element(snippet(source, span.file).annotation(primary).annotations(beside(span.file, file)));
        let others: BTreeSet<usize> =
            related.iter().map(|(other, _)| other.file).filter(|it| *it != span.file).collect();
        for (number, file) in others.into_iter().filter_map(|number| Some((number, source.files.get(number)?))) {
            group = group.element(snippet(source, number).annotations(beside(number, file)));
        }
    } else if let Some(label) = &diagnostic.label {
        group = group.element(Level::NOTE.message(clean(label)));
    }
    for it in span.iter().flat_map(|span| source.uses_in(span)) {
        let note = format!("`var.{}` comes from `{}`", it.name, source.shown(&it.from));
        group = group.element(Level::NOTE.message(clean_line(&note).into_owned()));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(clean(help)));
    }
    renderer.render(&[group])
}

fn snippet(source: &Source, number: usize) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let (text, path) = source
        .files
        .get(number)
        .map_or(("", Cow::Borrowed("")), |file| (file.text.as_str(), file.path.to_string_lossy()));
    let hidden = source.hidden.iter().filter(|span| span.file == number).map(|span| span.bytes.clone());
    let text = match without(text, hidden) {
        Cow::Borrowed(text) => clean_source(text),
        Cow::Owned(text) => Cow::Owned(clean_source(&text).into_owned()),
    };
    Snippet::source(text).path(clean_line(&path).into_owned())
}

/// A text in which nothing has moved, with asterisks in these places.
fn without(text: &str, places: impl Iterator<Item = std::ops::Range<usize>>) -> Cow<'_, str> {
    let mut bytes = Cow::Borrowed(text.as_bytes());
    for place in places {
        for byte in bytes.to_mut().get_mut(place).into_iter().flatten().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    match bytes {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        // A value is whole characters.
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// A text in which nothing has moved, without what the renderer lets through: it replaces most of what is hostile itself.
fn clean_source(text: &str) -> Cow<'_, str> {
    let missed = |c: char| is_hostile(c) && c.len_utf8() > 1;
    if !text.contains(missed) {
        return Cow::Borrowed(text);
    }
    // Of the same length in UTF-8, so that spans stay true.
    let mask = |c: char| {
        if !missed(c) {
            c
        } else if c.len_utf8() == 2 {
            '·'
        } else {
            '\u{fffd}'
        }
    };
    Cow::Owned(text.chars().map(mask).collect())
}

/// The bytes of a span, held within its file and its first line: a table may go on for pages.
fn within(file: &SourceFile, span: &Span) -> std::ops::Range<usize> {
    let length = file.text.len();
    let start = span.bytes.start.min(length);
    let line_end = file.text[start..].find('\n').map_or(length, |end| start + end);
    start..span.bytes.end.clamp(start, line_end.max(start))
}
