//! `fmt` on random noise: nothing is lost, nothing means another thing, and a second time changes nothing.

mod common;

use common::{BASE, PORTS, SEEDS};
use novella::spec::fmt::format;
use proptest::prelude::*;
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

/// What may stand between two tokens, in places where that means nothing.
const NOISE: [&str; 9] =
    [" ", "   ", "\t", "\n", "\n\n\n", "\r\n", "# noise  \n", "  # more = [noise]\n", "\n # }, \"ü\n\n"];

fn parsed(text: &str) -> Option<toml::Table> {
    text.parse().ok()
}

fn comments(text: &str) -> Vec<&str> {
    let comments = Source::new(text).lex().filter(|token| token.kind() == TokenKind::Comment);
    comments.map(|token| text[token.span().start()..token.span().end()].trim_end()).collect()
}

#[track_caller]
fn holds(text: &str) {
    let once = format(0, text).expect("TOML");
    assert_eq!(parsed(&once), parsed(text), "{text}");
    assert_eq!(comments(&once), comments(text), "{text}");
    assert_eq!(format(0, &once).expect("TOML"), once, "{text}");
}

/// What a spec does not have, and TOML does.
const ODD: &str = r#"
a.b . "c d" = 1.5e3
when = 2026-01-01 10:00:00.5Z
[[table]]
x = [[1, [2]], [{ a = { b = [] } }]]
[[table]]
y = '''
  kept  
''' # behind
z = -inf
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_spaced_and_nothing_is_lost(which in 0usize..4, noise in prop::collection::vec((any::<prop::sample::Index>(), 0usize..NOISE.len()), 0..40)) {
        let mut text = [BASE, PORTS, SEEDS, ODD][which].to_owned();
        let meant = parsed(&text);
        for (at, what) in noise {
            let ends: Vec<usize> = Source::new(&text).lex().map(|token| token.span().end()).collect();
            let mut noisy = text.clone();
            noisy.insert_str(*at.get(&ends), NOISE[what]);
            if parsed(&noisy) == meant {
                text = noisy;
            }
        }
        holds(&text);
    }

    #[test]
    fn whatever_is_toml_stays_what_it_is(text in "([a-z]=(1|\"x\"|\\[(1,? ?\n?#?){0,3}\\])?( #\r?\n|\n|\\[|\\]| ){1,2}){0,6}") {
        if parsed(&text).is_some() {
            holds(&text);
        } else {
            prop_assert!(format(0, &text).is_err());
        }
    }
}

/// What we show to others is as we say it should be.
#[test]
fn our_own_specs_have_the_form() {
    for directory in ["examples/quickstart", "examples/dual-stack", "examples/cloud-init", "examples/vars", "specs"] {
        for path in novella::spec::load::list(std::path::Path::new(directory)).expect("a directory") {
            let text = std::fs::read_to_string(&path).expect("a text");
            assert_eq!(format(0, &text).expect("TOML"), text, "{}", path.display());
        }
    }
}
