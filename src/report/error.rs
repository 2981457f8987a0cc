//! Joins the causes of an error into one text. This is the only place that does.

use std::error::Error;

use crate::apply::StepError;
use crate::plan::diff::Change;
use crate::report::github::annotation;
use crate::report::journal::Priority;
use crate::report::located::Located;
use crate::report::{BOLD, REMOVE, Voice, clean, note_as, out, stream, voice};

/// An error with all its causes, one behind the other, each said once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.contains(said.trim()) {
            text.push_str(": ");
            text.push_str(said.trim());
        }
        cause = error.source();
    }
    clean(&text).into_owned()
}

/// Prints an error with its causes, and the way out where one is known.
pub fn print(what: &dyn Error, help: Option<&str>) {
    print_named(what, None, help);
}

/// The same of one that has a name.
pub fn print_named(what: &dyn Error, name: Option<&str>, help: Option<&str>) {
    say(&Located { code: name.map(str::to_owned), ..Located::error(chain(what), help, None) });
}

/// Prints what is wrong.
pub fn say(it: &Located) {
    match voice() {
        Voice::Text => {}
        Voice::Stream => return stream::diagnostic(it),
        Voice::Github => out(annotation(it)),
    }
    let code = it.code.as_ref().map(|code| format!("[{code}]")).unwrap_or_default();
    let priority = if it.severity == "error" { Priority::Error } else { Priority::Warning };
    note_as(priority, format_args!("{REMOVE}{BOLD}{}{code}{BOLD:#}{REMOVE:#}: {}", it.severity, clean(&it.summary)));
    if !it.detail.is_empty() {
        note_as(priority, format_args!("  {}", clean(&it.detail)));
    }
}

/// Prints why a step of a plan failed.
pub fn step(change: &Change, error: &StepError) {
    let (code, help) = match error {
        StepError::Host(error) => (error.code.as_deref(), error.help.as_deref()),
        StepError::Store(error) => (None, error.help.as_deref()),
    };
    if voice() != Voice::Stream {
        note_as(Priority::Error, format_args!("\n{BOLD}{}{BOLD:#} ({})", change.address, change.key));
    }
    let located = Located::error(chain(error), help, Some(&change.address));
    say(&Located { code: code.map(str::to_owned), ..located });
}
