//! Runs a program and tells how long it took and how much memory it had at most.
//!
//! The kernel tells the peak memory of children only for all of them together, so each run has a parent of its own: this
//! program again, which does nothing else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// The first argument of the parent of a run. What follows is the file for the output, the program and its arguments.
pub const PARENT: &str = "__measure";

/// What a run cost, and what it said.
pub struct Run {
    pub time: Duration,
    /// In bytes: of the program, or of the largest that it waited for.
    pub memory: u64,
    pub output: String,
}

/// Runs the program to its end. Panics if that is not a success: then there is nothing to measure.
pub fn run(program: &Path, arguments: &[&str], output: &Path) -> Run {
    let parent = std::env::current_exe().expect("this program");
    let told = Command::new(parent)
        .arg(PARENT)
        .args([output, program])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("a parent");
    let said = fs::read_to_string(output).unwrap_or_default();
    assert!(told.status.success(), "{} {arguments:?} failed:\n{said}", program.display());
    let told = String::from_utf8(told.stdout).expect("numbers");
    let mut numbers = told.split_whitespace().map(|number| number.parse::<u64>().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    Run { time: Duration::from_nanos(next()), memory: next() << 10, output: said }
}

/// The parent of one run.
pub fn parent(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let output = File::create(arguments.next().expect("a file")).expect("the file can be made");
    let program = arguments.next().expect("a program");
    let begun = Instant::now();
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(output).status();
    let time = begun.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what a process may always ask");
    let told = writeln!(std::io::stdout(), "{} {}", time.as_nanos(), usage.max_rss());
    if told.is_ok() && status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The middle one; of the two in the middle the later.
pub fn median<T: Ord + Copy>(values: &[T]) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// The value that so many of a hundred are not above.
pub fn part<T: Ord + Copy>(values: &[T], hundredths: usize) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * hundredths).div_ceil(100) - 1]
}
