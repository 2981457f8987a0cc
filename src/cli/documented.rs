//! What the documents say one can type is what the program takes.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::command;

/// The README of the project and of each example.
fn readmes() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = std::fs::read_dir(root.join("examples")).expect("the examples");
    let examples = examples.map(|entry| entry.expect("an entry").path().join("README.md"));
    examples.chain([root.join("README.md")]).collect()
}

/// The words of a line as a shell takes them, as far as our documents go: quotes, but no escapes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The arguments of each call of novella in the console blocks of a document, the name of the program first.
fn calls(text: &str) -> Vec<Vec<String>> {
    let typed = text.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands = typed.map(|line| line.split(" # ").next().unwrap_or(line)).flat_map(|line| line.split(" && "));
    let call = |command: &str| {
        let words = words(command);
        let is_before = |word: &&String| *word == "sudo" || word.contains('=');
        let before = words.iter().take_while(is_before).count();
        (words.get(before)? == "novella").then(|| words[before..].to_vec())
    };
    commands.filter_map(call).collect()
}

#[test]
fn what_is_shown_at_a_prompt_is_taken() {
    let mut seen = 0;
    for file in readmes() {
        let text = std::fs::read_to_string(&file).expect("a document");
        for call in calls(&text) {
            let taken = command().try_get_matches_from(&call);
            assert!(taken.is_ok(), "{}: `{}`: {}", file.display(), call.join(" "), taken.expect_err("not taken"));
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} were found");
}

#[test]
fn each_verb_of_the_table_has_the_options_beside_it() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let table = text.lines().skip_while(|line| !line.starts_with("| verb |")).skip(2);
    let table: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    let known = command();
    let mut named = Vec::new();
    for row in &table {
        let ticked = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<String>>();
        let cells: Vec<&str> = row.split('|').collect();
        let (verbs, options) = (ticked(cells[1]), ticked(cells[2]));
        // A word in capitals stands for a value.
        let is_verb = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase());
        let paths: Vec<Vec<&str>> = verbs.iter().map(|verb| verb.split(' ').take_while(is_verb).collect()).collect();
        named.extend(paths.iter().map(|path| path[0].to_owned()));
        for option in options.iter().filter(|option| option.starts_with("--")) {
            let name = option.split(' ').next().unwrap_or(option);
            let is_taken = paths.iter().any(|path| {
                let line = ["novella"].iter().chain(path).chain([&name]).copied();
                let error = known.clone().try_get_matches_from(line).err().map(|error| error.kind());
                error != Some(ErrorKind::UnknownArgument) && error != Some(ErrorKind::InvalidSubcommand)
            });
            assert!(is_taken, "{row}: there is no `{name}`");
        }
    }
    let verbs = known.get_subcommands().filter(|verb| !verb.is_hide_set()).map(|verb| verb.get_name().to_owned());
    let missing: Vec<String> = verbs.filter(|verb| !named.contains(verb)).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
