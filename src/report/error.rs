//! Joins the causes of an error into one text. This is the only place that does.

use std::error::Error;

use crate::report::{BOLD, REMOVE, clean, note};

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
    let name = name.map(|name| format!("[{name}]")).unwrap_or_default();
    note(format_args!("{REMOVE}{BOLD}error{name}{BOLD:#}{REMOVE:#}: {}", chain(what)));
    if let Some(help) = help {
        note(format_args!("  help: {}", clean(help)));
    }
}
