//! The last good spec, and the one that is in the directory now.
//!
//! All or nothing: a spec that is broken, half saved, empty or gone changes nothing. The one before it stays in force, until
//! there is another that can be read whole and that the host can be made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::desired::{self, Desired};
use crate::diagnostic::{Diagnostic, Severity, has_errors};
use crate::report;
use crate::spec::load::Loaded;
use crate::spec::{self, Inputs, Source};
use crate::value::Sha256;

/// A spec that is valid.
#[derive(Clone, Debug)]
pub struct Good {
    /// What it means.
    pub desired: Desired,
    /// What it says.
    pub source: Source,
    /// Of all that it says, also in the files that it names.
    pub digest: Sha256,
}

/// A spec that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Of what it says, as far as that could be read.
    pub digest: Sha256,
    /// Whether it is valid, and the host cannot be made what it says: that may be another day.
    pub by_host: bool,
    /// Since when, in seconds since 1970 (UTC).
    pub since: u64,
    /// What is wrong with it, each in a line.
    pub problems: Vec<String>,
    /// The same with the lines of the files, for people.
    pub text: String,
}

/// What was read.
#[derive(Debug)]
pub enum Read {
    /// What was there before.
    Same,
    /// Another spec, and a good one.
    Other,
    /// Another spec, which is no good.
    Bad,
}

/// What the daemon knows of specs.
#[derive(Debug, Default)]
pub struct Specs {
    /// The one in force, if there was any yet.
    pub good: Option<Good>,
    /// The one that was in force before, as long as it is not known whether the host can be made what `good` says.
    before: Option<Good>,
    /// The one that is not in force, if that is what the directory has.
    pub rejected: Option<Rejected>,
}

impl Specs {
    /// Reads what is there. One that the host could not be made is tried again only on demand.
    pub fn read(&mut self, inputs: &Inputs, try_again: bool, unix: u64) -> Read {
        let loaded = spec::load_with(inputs);
        let digest = digest(&loaded);
        if self.knows(&digest) && !(try_again && self.rejected.as_ref().is_some_and(|it| it.by_host)) {
            return Read::Same;
        }
        let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
        let mut diagnostics = loaded.diagnostics;
        diagnostics.extend(problems);
        diagnostics.extend(blank(&loaded.source));
        let desired = match desired {
            Some(desired) if !has_errors(&diagnostics) => desired,
            _ => {
                self.reject(&diagnostics, &loaded.source, digest, false, unix);
                return Read::Bad;
            }
        };
        // One that is tried again stays rejected until that is known.
        self.rejected = self.rejected.take().filter(|rejected| rejected.digest == digest);
        if self.good.as_ref().is_some_and(|good| good.digest == digest) {
            // The way back to what is in force.
            return Read::Same;
        }
        // Of two that were not tried, the first was never in force.
        let was = self.good.replace(Good { desired, source: loaded.source, digest });
        self.before = self.before.take().or(was);
        Read::Other
    }

    /// Whether something else is there now than was last read.
    pub fn has_changed(&self, inputs: &Inputs) -> bool {
        !self.knows(&digest(&spec::load_with(inputs)))
    }

    fn knows(&self, digest: &Sha256) -> bool {
        let known = self.rejected.as_ref().map(|it| &it.digest).or(self.good.as_ref().map(|it| &it.digest));
        known == Some(digest)
    }

    /// The host could be compared with the spec in force.
    pub fn proven(&mut self) {
        self.before = None;
        let in_force = self.good.as_ref().map(|good| &good.digest);
        self.rejected = self.rejected.take().filter(|rejected| Some(&rejected.digest) != in_force);
    }

    /// The host cannot be made what the spec in force says: the one before it comes back, if there is one. Tells whether
    /// that is new.
    pub fn take_back(&mut self, diagnostics: &[Diagnostic], unix: u64) -> bool {
        let Some(bad) = self.good.take() else { return false };
        self.good = self.before.take();
        if self.rejected.as_ref().is_some_and(|rejected| rejected.digest == bad.digest) {
            return false;
        }
        self.reject(diagnostics, &bad.source, bad.digest, true, unix);
        true
    }

    fn reject(&mut self, diagnostics: &[Diagnostic], source: &Source, digest: Sha256, by_host: bool, unix: u64) {
        let errors = diagnostics.iter().filter(|it| it.severity == Severity::Error);
        let problems = errors.map(|it| in_a_line(it, source)).collect();
        let text = report::diagnostics::to_text(diagnostics, source);
        self.rejected = Some(Rejected { digest, by_host, since: unix, problems, text });
    }

    /// The files that the spec in force names.
    pub fn named(&self) -> Vec<PathBuf> {
        let source = self.good.iter().map(|good| &good.source);
        source.flat_map(|it| it.contents.keys().map(|path| it.base.join(path))).collect()
    }
}

/// A file with nothing in it is one that an editor has cut off and not written yet; that it is part of a spec is against all
/// likelihood.
fn blank(source: &Source) -> Vec<Diagnostic> {
    // What is given on the command line or by the environment is no file.
    let blank = source.files.iter().filter(|file| file.text.trim().is_empty() && file.path.exists());
    let problem = |file: &crate::spec::source::SourceFile| {
        Diagnostic::error(format!("there is nothing in `{}`", file.path.display()))
            .help("if that is meant, remove the file, or write a comment into it")
    };
    blank.map(problem).collect()
}

fn in_a_line(diagnostic: &Diagnostic, source: &Source) -> String {
    let place = source.locate(&diagnostic.place).map(|span| format!("{}: ", source.shown(&span)));
    report::clean_line(&format!("{}{}", place.unwrap_or_default(), diagnostic.message)).into_owned()
}

/// Of the files, of those that they name, of the lock of the images, and of what is wrong with them.
fn digest(loaded: &Loaded) -> Sha256 {
    let source = &loaded.source;
    let named: BTreeMap<&String, Sha256> =
        source.contents.iter().map(|(path, content)| (path, Sha256::of(content.bytes()))).collect();
    let problems: Vec<&str> = loaded.diagnostics.iter().map(|problem| problem.message.as_str()).collect();
    let said = format!("{} {} {named:?} {problems:?}", source.digest(), Sha256::of(source.lock.text().as_bytes()));
    Sha256::of(said.as_bytes())
}
