//! Workflow commands of GitHub Actions: annotations at the lines that they are about, and text that is none.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::report::clean_line;
use crate::report::located::Located;
use crate::value::Sha256;

/// One annotation, with a line break at its end: `::error file=…,line=…,col=…,title=…::what is wrong`.
pub fn annotation(it: &Located) -> String {
    let mut properties = String::new();
    if let Some(range) = &it.range {
        let _ = write!(
            properties,
            "file={},line={},col={},",
            property(&clean_line(&range.filename)),
            range.start.line,
            range.start.column
        );
        if range.end.line == range.start.line {
            let _ = write!(properties, "endColumn={},", range.end.column);
        }
    }
    let title = it.code.as_deref().map_or("novella".into(), |code| format!("novella: {code}"));
    format!("::{} {properties}title={}::{}\n", it.severity, property(&title), data(&it.text()))
}

/// Text in which the runner looks for no commands: what a spec says must not pass for one.
pub fn inert(text: &str) -> String {
    // Nobody who writes a spec can know it.
    let token = Sha256::of(format!("{:?} {}", SystemTime::now(), std::process::id()).as_bytes()).to_string();
    format!("::stop-commands::{token}\n{text}::{token}::\n")
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostic;
    use crate::spec::load::load_texts;

    #[test]
    fn annotations_stand_at_their_lines_and_are_escaped() {
        let loaded = load_texts([("a,b:c.toml", "novella = 1\n[network.n]\nbridge = \"x\"\n")]);
        let address = crate::address::Address::new(crate::address::ResourceKind::Network, "n".parse().expect("a name"));
        let problem =
            Diagnostic::error("50% of\n::error::`x`").code("host-bits").on(&address, "bridge").help("a: b, c");
        assert_eq!(
            annotation(&Located::new(&problem, &loaded.source)),
            "::error file=a%2Cb%3Ac.toml,line=3,col=10,endColumn=13,title=novella%3A host-bits::50%25 of%0A::error::`x`%0Ahelp: a: b, c\n"
        );
        let warning = Diagnostic::warning("w");
        assert_eq!(annotation(&Located::new(&warning, &loaded.source)), "::warning title=novella::w\n");
    }

    #[test]
    fn text_is_between_two_tokens() {
        let said = inert("::error::x\n");
        let token = said.lines().next().and_then(|line| line.strip_prefix("::stop-commands::")).expect("a token");
        assert_eq!(token.len(), 64);
        assert_eq!(said, format!("::stop-commands::{token}\n::error::x\n::{token}::\n"));
    }
}
