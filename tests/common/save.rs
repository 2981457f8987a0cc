//! The ways in which editors and other programs save a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// A way to save.
pub type Save = fn(&Path, &str);

/// All of them.
pub const WAYS: [(&str, Save); 5] = [
    ("in place", in_place),
    ("renamed", renamed),
    ("with a backup", with_a_backup),
    ("slowly", cut_off_and_slowly_written),
    ("removed and made anew", removed_and_made_anew),
];

const MS: Duration = Duration::from_millis(1);

pub fn in_place(file: &Path, text: &str) {
    fs::write(file, text).expect("saved");
}

pub fn renamed(file: &Path, text: &str) {
    let other = file.with_extension("toml.tmp");
    fs::write(&other, text).expect("saved");
    fs::rename(other, file).expect("renamed");
}

/// As vim does it: what was there is kept under another name.
fn with_a_backup(file: &Path, text: &str) {
    fs::rename(file, file.with_extension("toml~")).expect("renamed");
    sleep(100 * MS);
    fs::write(file, text).expect("saved");
    fs::remove_file(file.with_extension("toml~")).expect("removed");
}

/// With pauses longer than the quiet that is waited for, each after a whole line: what is there may well be valid.
fn cut_off_and_slowly_written(file: &Path, text: &str) {
    let mut open = File::create(file).expect("cut off");
    sleep(500 * MS);
    for tables in text.split_inclusive("\n\n").collect::<Vec<_>>().chunks(4) {
        open.write_all(tables.concat().as_bytes()).expect("written");
        open.sync_all().expect("written");
        sleep(500 * MS);
    }
}

fn removed_and_made_anew(file: &Path, text: &str) {
    fs::remove_file(file).expect("removed");
    sleep(500 * MS);
    fs::write(file, text).expect("saved");
}
