//! JSON that is safe to look at.

use serde::Serialize;

use crate::report::is_hostile;

/// A document over several lines, with a line break at its end.
pub fn document(document: &impl Serialize) -> String {
    // To put plain data into memory cannot fail, here and below.
    tame(serde_json::to_string_pretty(document).unwrap_or_default())
}

/// An object on one line, with a line break at its end.
pub fn line(object: &impl Serialize) -> String {
    tame(serde_json::to_string(object).unwrap_or_default())
}

/// JSON lets through what a terminal obeys or a reader is fooled by: of control characters it escapes only those of ASCII.
/// All of them stand in strings, where an escape means the same.
fn tame(json: String) -> String {
    let mut tame = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if c != '\n' && is_hostile(c) {
            let mut units = [0; 2];
            tame.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            tame.push(c);
        }
    }
    tame.push('\n');
    tame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_gets_through_and_nothing_is_lost() {
        let said = "é\n\u{1b}[31m\u{7f}\u{9b}\u{202e}\"\\";
        let json = line(&said);
        assert_eq!(json, "\"é\\n\\u001b[31m\\u007f\\u009b\\u202e\\\"\\\\\"\n");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), said);
        assert_eq!(document(&[said]).lines().count(), 3);
    }
}
