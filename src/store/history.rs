//! What was done, by whom, and how it ended: `history.jsonl` in the state directory.
//!
//! A run adds a line when it begins and one when it has ended, each brought to the disk before it goes on. One that was
//! killed has no second line, and counts as interrupted. A line that a crash cut off is passed over. The file is for its
//! owner only; it is made shorter when it has [`MOST_ENTRIES`] or [`MOST_BYTES`]. Only who holds the lock of the state writes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;
use serde::{Deserialize, Serialize};

use crate::store::lock::StateLock;
use crate::store::who::person;
use crate::store::{StoreError, snapshot};
use crate::value::{Sha256, unix_now};

/// The file in the state directory.
const FILE: &str = "history.jsonl";

/// How many entries are kept at most.
pub const MOST_ENTRIES: usize = 1000;

/// How large the file becomes at most, but for the entry that is being written.
pub const MOST_BYTES: usize = 10 << 20;

/// How many steps an entry has at most. Of a run with more, only those that were not done are kept.
pub const MOST_STEPS: usize = 2000;

/// What is known of a run when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Counts the runs of this state, from 1.
    pub number: u64,
    /// When it began, in seconds since 1970 (UTC).
    pub started_at: u64,
    /// Who started it.
    pub user: String,
    /// Its process.
    pub pid: u32,
    /// The version of novella.
    pub version: String,
    /// What was called for, as on the command line: `apply`, `state rm`.
    pub operation: String,
    /// A digest of the spec's files; none where the spec had no say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Sha256>,
    /// What was to be done, in a line.
    pub summary: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All was done.
    Complete,
    /// Something failed.
    Failed,
    /// It was told to stop, and did.
    Stopped,
    /// It ended without a word: it was killed, or the machine went down.
    Interrupted,
    /// It has not ended yet.
    UnderWay,
}

impl Outcome {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::UnderWay => "under way",
        }
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The resource.
    pub address: String,
    /// The object.
    pub object: String,
    /// What was to be done to it: `ensure`, `remove`, `record`, `forget`, `disown`, `reload`.
    pub deed: String,
    /// `done`, `failed`, `skipped`, `not started`.
    pub result: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is known of a run when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which run.
    pub number: u64,
    /// When, in seconds since 1970 (UTC).
    pub ended_at: u64,
    /// How.
    pub outcome: Outcome,
    /// Its steps, in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// How many steps are not in that list.
    #[serde(default)]
    pub left_out: usize,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its beginning.
    #[serde(flatten)]
    pub begun: Begun,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, in seconds since 1970 (UTC).
    pub ended_at: Option<u64>,
    /// Its steps, where it told them.
    pub steps: Vec<Step>,
    /// How many steps are not in that list.
    pub left_out: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begun(Begun),
    Ended(Ended),
}

/// A run whose beginning was written down.
#[derive(Debug)]
#[must_use = "a run that does not tell how it ended counts as interrupted"]
pub struct Journal {
    number: u64,
    file: File,
}

/// Writes down that a run begins on the state that was locked.
///
/// # Errors
/// When the history cannot be read or written.
pub fn begin(
    lock: &StateLock,
    operation: &str,
    spec: Option<Sha256>,
    summary: impl Into<String>,
) -> Result<Journal, StoreError> {
    begin_for(lock, person(), operation, spec, summary)
}

/// The same for somebody who is not the one that novella runs as.
///
/// # Errors
/// As [`begin`].
pub fn begin_for(
    lock: &StateLock,
    user: String,
    operation: &str,
    spec: Option<Sha256>,
    summary: impl Into<String>,
) -> Result<Journal, StoreError> {
    let begun = Begun {
        number: 0,
        started_at: unix_now(),
        user,
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        operation: operation.into(),
        spec,
        summary: summary.into(),
    };
    append(lock.dir(), begun).map_err(|error| cannot("write", lock.dir(), error))
}

fn cannot(deed: &str, dir: &Path, error: io::Error) -> StoreError {
    StoreError::new(format!("cannot {deed} the history in `{}`", dir.display()), error)
}

fn append(dir: &Path, mut begun: Begun) -> io::Result<Journal> {
    let path = dir.join(FILE);
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path)
    };
    let mut file = open()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    begun.number = 1 + lines(&text).next_back().map_or(0, |(_, line)| number_of(&line));
    if let Some(newest) = newest(&text, MOST_ENTRIES, MOST_BYTES) {
        snapshot::put_in_place(&path, newest.as_bytes())?;
        file = open()?;
    } else if text.is_empty() {
        File::open(dir)?.sync_all()?;
    }
    // What a crash cut off must not spoil the line that comes after.
    if file.seek(SeekFrom::End(0))? > 0 && !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    let number = begun.number;
    write(&mut file, &Line::Begun(begun))?;
    Ok(Journal { number, file })
}

impl Journal {
    /// Writes down how the run ended.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn end(mut self, outcome: Outcome, mut steps: Vec<Step>) -> io::Result<()> {
        let all = steps.len();
        if all > MOST_STEPS {
            steps.retain(|step| step.result != "done");
            steps.truncate(MOST_STEPS);
        }
        let left_out = all - steps.len();
        write(
            &mut self.file,
            &Line::Ended(Ended { number: self.number, ended_at: unix_now(), outcome, steps, left_out }),
        )
    }
}

/// One write, so that a crash leaves a line or a part of one, and no two parts.
fn write(file: &mut File, line: &Line) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    file.write_all(&bytes)?;
    file.sync_data()
}

/// The lines that are whole, each with its text.
fn lines(text: &str) -> impl DoubleEndedIterator<Item = (&str, Line)> {
    text.lines().filter_map(|line| Some((line, serde_json::from_str(line).ok()?)))
}

const fn number_of(line: &Line) -> u64 {
    match line {
        Line::Begun(begun) => begun.number,
        Line::Ended(ended) => ended.number,
    }
}

/// The newest entries, where there is no room for one more: nine tenths of what is kept, so that this is seldom done.
fn newest(text: &str, most_entries: usize, most_bytes: usize) -> Option<String> {
    // Each run looks, so what is in the lines is not read for it.
    let entries = text.lines().filter(|line| line.starts_with("{\"begun\"")).count();
    if entries < most_entries && text.len() < most_bytes {
        return None;
    }
    let (most_entries, most_bytes) = (most_entries / 10 * 9, most_bytes / 10 * 9);
    let mut kept: Vec<&str> = Vec::new();
    let (mut entries, mut bytes) = (0, 0);
    for (written, line) in lines(text).rev() {
        entries += usize::from(matches!(line, Line::Begun(_)));
        bytes += written.len() + 1;
        if entries > most_entries || bytes > most_bytes {
            break;
        }
        kept.push(written);
    }
    Some(kept.into_iter().rev().flat_map(|line| [line, "\n"]).collect())
}

/// The entries in the history of the state in `dir`, the oldest first. Writes nothing.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(dir: &Path) -> Result<Vec<Entry>, StoreError> {
    let text = match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot("read", dir, error)),
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (_, line) in lines(&text) {
        match line {
            Line::Begun(begun) => entries.push(Entry {
                begun,
                outcome: Outcome::Interrupted,
                ended_at: None,
                steps: Vec::new(),
                left_out: 0,
            }),
            // An end whose beginning was dropped tells nothing.
            Line::Ended(Ended { number, ended_at, outcome, steps, left_out }) => {
                if let Some(entry) = entries.iter_mut().rev().find(|entry| entry.begun.number == number) {
                    (entry.outcome, entry.ended_at) = (outcome, Some(ended_at));
                    (entry.steps, entry.left_out) = (steps, left_out);
                }
            }
        }
    }
    if let Some(last) = entries.last_mut().filter(|last| last.ended_at.is_none())
        && StateLock::holder(dir).is_some_and(|holder| holder.pid == last.begun.pid)
    {
        last.outcome = Outcome::UnderWay;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn state() -> (tempfile::TempDir, StateLock) {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = StateLock::acquire(dir.path(), "apply", Duration::ZERO).expect("the lock");
        (dir, lock)
    }

    fn outcomes(dir: &Path) -> Vec<(u64, Outcome)> {
        let entries = read(dir).expect("the history");
        entries.iter().map(|entry| (entry.begun.number, entry.outcome)).collect()
    }

    #[test]
    fn a_run_that_was_killed_is_interrupted_wherever_its_line_was_cut() {
        use Outcome::{Complete, Interrupted, UnderWay};
        let (dir, lock) = state();
        let one = begin(&lock, "apply", None, "one").expect("one");
        one.end(Complete, Vec::new()).expect("an end");
        drop(begin(&lock, "apply", None, "two").expect("two"));
        let whole = std::fs::read(dir.path().join(FILE)).expect("the file");
        assert_eq!(outcomes(dir.path()), [(1, Complete), (2, UnderWay)]);
        drop(lock);
        let first = whole.iter().position(|byte| *byte == b'\n').expect("a line") + 1;
        for cut in first..=whole.len() {
            std::fs::write(dir.path().join(FILE), &whole[..cut]).expect("a cut");
            let before = outcomes(dir.path());
            assert!(before.starts_with(&[(1, Interrupted)]) || before.starts_with(&[(1, Complete)]), "{before:?}");
            let lock = StateLock::acquire(dir.path(), "apply", Duration::ZERO).expect("the lock");
            let next = begin(&lock, "state rm", None, "three").expect("three");
            next.end(Complete, Vec::new()).expect("an end");
            let after = outcomes(dir.path());
            assert_eq!(after[..after.len() - 1], before, "cut at {cut}");
            assert_eq!(after.last().map(|it| it.1), Some(Complete), "cut at {cut}");
            assert_eq!(after.last().map(|it| it.0), before.last().map(|it| it.0 + 1), "cut at {cut}");
        }
    }

    #[test]
    fn only_the_newest_are_kept() {
        let (dir, lock) = state();
        for _ in 0..MOST_ENTRIES + 5 {
            begin(&lock, "apply", None, "").expect("begins").end(Outcome::Complete, Vec::new()).expect("ends");
        }
        let kept = outcomes(dir.path());
        assert!((MOST_ENTRIES / 10 * 9..=MOST_ENTRIES).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last().map(|it| it.0), Some(1005));
        assert!(kept.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "without a gap");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&dir.path().join(FILE).metadata().expect("the file").permissions());
        assert_eq!(mode & 0o777, 0o600);
        let long = "x".repeat(MOST_BYTES);
        begin(&lock, "apply", None, long).expect("begins").end(Outcome::Complete, Vec::new()).expect("ends");
        drop(begin(&lock, "apply", None, "").expect("begins"));
        assert_eq!(outcomes(dir.path()).len(), 1, "one that is too large goes first");
    }

    #[test]
    fn of_many_steps_those_that_were_not_done_are_kept() {
        let (dir, lock) = state();
        let step = |number: usize| Step {
            address: "server.web".into(),
            object: number.to_string(),
            deed: "ensure".into(),
            result: if number == 7 { "failed" } else { "done" }.into(),
            error: None,
        };
        let journal = begin(&lock, "apply", None, "").expect("begins");
        journal.end(Outcome::Failed, (0..=MOST_STEPS).map(step).collect()).expect("ends");
        let entries = read(dir.path()).expect("the history");
        assert_eq!((entries[0].steps.len(), entries[0].left_out), (1, MOST_STEPS));
        assert_eq!(entries[0].steps[0].object, "7");
    }
}
