//! What it says to a terminal, a file and the journal, and what the log says of passes and steps.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use serde_json::Value;

use crate::common::BASE;
use crate::common::place::Place;
use crate::home::Home;

/// A daemon that has made [`BASE`], logging so.
fn logs(place: Place, log: &str, change: impl FnOnce(&mut Command)) -> Home {
    let home = Home::so(place, &["--interval", "1h", "--log", log], change);
    home.until("it has made it", |status| status["health"] == "healthy");
    home
}

fn log(home: &Home) -> String {
    fs::read_to_string(home.place.path("err")).expect("what it logs")
}

#[test]
fn each_message_of_a_step_says_of_which() {
    // A part of the program, a level for all, and both.
    for filter in ["debug", "novella::apply=debug", "warn,novella::apply::walk=trace"] {
        let home = logs(Place::new(BASE), filter, |_| {});
        let log = log(&home);
        let spec = home.status()["spec"]["digest"].as_str().expect("a digest")[..16].to_owned();
        let pass = format!("pass{{number=1 spec=\"{spec}\"}}:step{{");
        for step in [
            "address=server.web-1 object=domain web-1 deed=\"ensure\"}: novella::apply::walk: begins",
            "address=network.private object=bridge private deed=\"ensure\"}: novella::apply::walk: done elapsed=",
        ] {
            let told = log.lines().any(|line| line.starts_with("DEBUG ") && line.contains(&format!("{pass}{step}")));
            assert!(told, "{filter}: {step}\n{log}");
        }
        let lost = log.lines().filter(|line| line.contains("apply::walk") && !line.contains(&pass));
        assert_eq!(lost.collect::<Vec<_>>(), [""; 0], "{filter}");
    }
    // By hand, there is no pass.
    let place = Place::new(BASE);
    let said = place.novella(&["apply", "--auto-approve", "--log", "novella::apply=debug"]).ends(0);
    assert!(said.err.contains("DEBUG step{address=server.web-1 object=disk web-1 "), "{}", said.err);
}

#[test]
fn without_a_journal_all_is_as_it_was() {
    for stream in [None, Some("1:2"), Some("journal"), Some("")] {
        let home = logs(Place::new(BASE), "debug", |command| {
            stream.map(|stream| command.env("JOURNAL_STREAM", stream));
        });
        let said = home.said();
        assert!(said.contains("\nApplying: ") && said.contains("\nDEBUG pass{"), "{said}");
        assert!(!said.lines().any(|line| line.starts_with('<')), "{said}");
    }
}

#[test]
fn the_journal_is_told_how_much_each_line_matters() {
    let place = Place::new(BASE);
    // As a service has it: both streams are the same.
    let journal = File::options().create(true).append(true).open(place.path("err")).expect("a file");
    let meta = journal.metadata().expect("a file");
    let home = logs(place, "warn,novella::apply=debug", |command| {
        command
            .stdout(journal)
            .env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()))
            .env("CLICOLOR_FORCE", "1");
    });
    fs::write(home.file(), "[").expect("saved");
    home.until("it is rejected", |status| status["rejected"] != Value::Null);
    fs::write(home.file(), BASE.replace("count = 2", "count = 1")).expect("saved");
    home.until("something waits", |status| status["pending"] != Value::Null);
    let log = log(&home);
    assert!(log.lines().all(|line| ["<3>", "<4>", "<6>", "<7>"].iter().any(|it| line.starts_with(it))), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
    for (line, count) in [
        ("<6>Watching `specs`.", 1),
        ("<6>Applying: ", 1),
        ("<6>server.web-1: domain: Creating...", 1),
        ("<7>pass{number=1 ", 2),
        ("<3>error: ", 1),
        ("<3>1 error", 1),
        ("<4>The last good spec stays in force.", 1),
        ("<6>The spec is good again.", 1),
        ("<4>Waiting for approval: ", 1),
    ] {
        let found = log.lines().filter(|it| it.starts_with(line)).count();
        assert!(found >= count, "{line:?}, {found} times\n{log}");
    }
}

#[test]
fn only_the_stream_that_is_the_journal_is_spoken_to_so() {
    let place = Place::new(BASE);
    let meta = File::create(place.path("err")).and_then(|file| file.metadata()).expect("a file");
    let home = logs(place, "novella::apply=debug", |command| {
        command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    });
    let out = fs::read_to_string(home.place.path("out")).expect("what it says");
    assert!(out.starts_with("Watching ") && !out.lines().any(|line| line.starts_with('<')), "{out}");
    let log = log(&home);
    assert!(!log.is_empty() && log.lines().all(|line| line.starts_with("<7>")), "{log}");
}
