//! The texts of a spec, and where each key stands in them.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::diagnostic::{Place, Span};
use crate::spec::lock::ImageLock;
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
    keys: HashMap<String, Span>,
}

impl Source {
    /// Notes where the value of `key` stands.
    pub fn note(&mut self, key: String, span: Span) {
        self.keys.insert(key, span);
    }

    /// Where the value of `key` stands, if it is written.
    pub fn key(&self, key: &str) -> Option<&Span> {
        self.keys.get(key)
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
