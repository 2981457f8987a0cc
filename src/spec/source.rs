//! The texts of a spec, and where each key stands in them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use crate::address::Address;
use crate::diagnostic::{Place, Span};
use crate::spec::lock::ImageLock;
use crate::spec::variables::ENVIRONMENT;
use crate::value::{Secret, Sha256};

/// One file of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, as given.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// All files of a spec, with the place of every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The directory of the files, absolute. Relative paths in a spec start here.
    pub base: PathBuf,
    /// The files, in the order of their names.
    pub files: Vec<SourceFile>,
    /// What is in the files that a spec names, by their paths as written. Those that cannot be read are missing.
    pub contents: HashMap<String, Secret>,
    /// What the images were when they were first fetched.
    pub lock: ImageLock,
    /// The values that are not to be shown, for they may be secrets.
    pub hidden: Vec<Span>,
    /// The addresses of tables that extend what is not there: what they have not may have been meant to come from that.
    pub incomplete: BTreeSet<String>,
    /// Where variables stand in values.
    pub uses: Vec<Use>,
    keys: HashMap<String, Span>,
}

/// A variable in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The value.
    pub span: Span,
    /// The variable's name.
    pub name: String,
    /// Where the variable's own value stands.
    pub from: Span,
}

impl Source {
    /// The variables that stand in a value, each once.
    pub fn uses_in(&self, span: &Span) -> Vec<&Use> {
        let within = |it: &&Use| {
            it.span.file == span.file && span.bytes.start <= it.span.bytes.start && it.span.bytes.end <= span.bytes.end
        };
        let mut uses: Vec<&Use> = self.uses.iter().filter(within).collect();
        uses.sort_by_key(|it| &it.name);
        uses.dedup_by_key(|it| &it.name);
        uses
    }

    /// A place as people name it: `web.toml:9`.
    pub fn shown(&self, span: &Span) -> String {
        let path = self.files.get(span.file).map_or_else(String::new, |file| file.path.display().to_string());
        // What is given on the command line or by the environment has one line.
        if path == "--var" || path.starts_with(ENVIRONMENT) {
            return path;
        }
        format!("{path}:{}", self.line_column(span.file, span.bytes.start).0)
    }

    /// Notes where the value of `key` stands.
    pub fn note(&mut self, key: String, span: Span) {
        self.keys.insert(key, span);
    }

    /// Where the value of `key` stands, if it is written.
    pub fn key(&self, key: &str) -> Option<&Span> {
        self.keys.get(key)
    }

    /// The keys that are written in a table, in order, with where their values stand.
    pub fn keys_of(&self, address: &str) -> Vec<(&str, &Span)> {
        let own = |(key, span)| {
            let key: &str = str::strip_prefix(key, address)?.strip_prefix('.')?;
            (!key.contains(['.', '['])).then_some((key, span))
        };
        let mut keys: Vec<(&str, &Span)> =
            self.keys.iter().filter_map(|(key, span)| own((key.as_str(), span))).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// The tables that are declared, templates among them.
    pub fn addresses(&self) -> BTreeSet<Address> {
        self.keys.keys().filter_map(|key| key.parse().ok()).collect()
    }

    /// What stands at a place; none if it is not to be shown.
    pub fn text(&self, span: &Span) -> Option<&str> {
        let shows = |hidden: &Span| {
            hidden.file != span.file || hidden.bytes.end <= span.bytes.start || span.bytes.end <= hidden.bytes.start
        };
        let text = self.files.get(span.file)?.text.get(span.bytes.clone())?;
        self.hidden.iter().all(shows).then_some(text)
    }

    /// Where a problem is; for a key that is not written, the table it would be in.
    pub fn locate(&self, place: &Place) -> Option<Span> {
        match place {
            Place::Nowhere => None,
            Place::Span(span) => Some(span.clone()),
            Place::Key(key) => {
                let mut key = key.as_str();
                loop {
                    if let Some(span) = self.keys.get(key) {
                        return Some(span.clone());
                    }
                    key = key.rsplit_once(['.', '['])?.0;
                }
            }
        }
    }

    /// A digest of the names and the texts of all files, by which one version of a spec is told from another.
    pub fn digest(&self) -> Sha256 {
        let files = self.files.iter().map(|file| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            format!("{name} {}\n", Sha256::of(file.text.as_bytes()))
        });
        Sha256::of(files.collect::<String>().as_bytes())
    }

    /// The line and column, both from 1, of a byte of a file. A column is a character.
    pub fn line_column(&self, file: usize, byte: usize) -> (usize, usize) {
        let text = self.files.get(file).map_or("", |file| file.text.as_str());
        let before = &text[..text.floor_char_boundary(byte.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }
}
