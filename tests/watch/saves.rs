//! Every way in which a spec is saved, lost and found again. Each ends in exactly the state of the last good one.

use std::fs;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::BASE;
use crate::common::place::Place;
use crate::common::save::{WAYS, in_place, renamed};
use crate::home::Home;

fn with(count: usize) -> String {
    BASE.replace("count = 2", &format!("count = {count}"))
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn every_editor_is_heard() {
    let home = Home::new(BASE);
    for (number, (name, save)) in WAYS.into_iter().enumerate() {
        save(&home.file(), &with(3 + number));
        home.settled(&with(3 + number));
        let status = home.until("it rests", |status| status["health"] == "healthy");
        assert_eq!(status["pending"], serde_json::Value::Null, "{name}");
    }
    // Of what was cut off in between, nothing was ever done, and nothing was to wait.
    assert!(!home.said().contains("Waiting for approval"), "{}", home.said());
    assert!(!home.said().contains("Destroying"), "{}", home.said());
}

#[test]
fn a_thousand_saves_in_ten_seconds_end_in_the_last() {
    let home = Home::new(BASE);
    let begun = Instant::now();
    for save in 0..1000_u32 {
        // Every tenth is broken.
        let text = if save % 10 == 5 { "[server.web\n".to_owned() } else { with(2 + save as usize / 250) };
        if save % 2 == 0 {
            in_place(&home.file(), &text)
        } else {
            renamed(&home.file(), &text)
        }
        sleep((begun + (save + 1) * 10 * MS).saturating_duration_since(Instant::now()));
    }
    in_place(&home.file(), &with(7));
    home.settled(&with(7));
    let status = home.until("it rests", |status| status["health"] == "healthy" && status["rejected"].is_null());
    assert!(status["passes"].as_u64().expect("a number") < 30, "{status:#}");
    assert!(!home.said().contains("Destroying"), "{}", home.said());
}

#[test]
fn what_is_broken_empty_unreadable_or_gone_keeps_the_last_good_spec() {
    let home = Home::new(BASE);
    let spec = home.until("it rests", |status| status["health"] == "healthy")["spec"].clone();
    let file = home.file();
    let cases: [(&str, &dyn Fn(), &str); 7] = [
        ("broken", &|| in_place(&file, "[server.web\n"), "spec.toml:1: "),
        ("half", &|| in_place(&file, &BASE[..BASE.len() - 20]), ""),
        ("wrong", &|| in_place(&file, &BASE.replace("flavor = \"small\"", "flavor = \"none\"")), "none"),
        ("empty", &|| in_place(&file, ""), "there is nothing in `"),
        (
            "not to be read",
            &|| {
                fs::remove_file(&file).expect("removed");
                symlink("/nowhere", &file).expect("a link");
            },
            "cannot read `",
        ),
        ("gone", &|| fs::remove_file(&file).expect("removed"), "there is no `*.toml` file"),
        ("no directory", &|| fs::remove_dir(home.specs()).expect("removed"), "cannot read the specs in"),
    ];
    for (name, spoil, problem) in cases {
        spoil();
        let status = home.until(&format!("it sees that the spec is {name}"), |status| {
            let problems = status["rejected"]["problems"].to_string();
            problems.contains(problem) && status["rejected"] != serde_json::Value::Null
        });
        assert_eq!(status["health"], "degraded", "{name}");
        assert_eq!(status["spec"], spec, "{name}: the last good one is in force");
        home.place.novella(&["status"]).ends(1).out("Not in force");
        home.settled(BASE);
    }
    // The directory comes back: as another one, which nobody listens to yet.
    fs::create_dir(home.specs()).expect("a directory");
    in_place(&file, &with(3));
    home.settled(&with(3));
    home.until("all is well", |status| status["health"] == "healthy" && status["rejected"].is_null());
    in_place(&file, &with(4));
    home.settled(&with(4));
    assert!(!home.said().contains("Destroying"), "{}", home.said());
}

#[test]
fn the_repair_goes_on_by_the_last_good_spec() {
    let home = Home::with(Place::new(BASE), &["--interval", "1s"]);
    home.settled(BASE);
    in_place(&home.file(), "[server.web\n");
    home.until("it sees that", |status| status["rejected"] != serde_json::Value::Null);
    home.lose("domain");
    home.settled(BASE);
    assert_eq!(home.status()["health"], "degraded");
}

#[test]
fn directories_and_links_that_become_others_are_seen() {
    let place = Place::new(BASE);
    fs::rename(place.path("specs"), place.path("one")).expect("renamed");
    symlink("one", place.path("specs")).expect("a link");
    let home = Home::with(place, &["--interval", "1h"]);
    home.settled(BASE);
    home.until("it rests", |status| status["health"] == "healthy");
    let handles = home.handles();
    for round in 0..20 {
        let (count, name) = (3 + round, if round % 2 == 0 { "two" } else { "one" });
        let directory = home.place.path(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).expect("a directory");
        fs::write(directory.join("spec.toml"), with(count)).expect("a spec");
        // In one step, as `ln -sfn` does not do it.
        symlink(name, home.place.path("next")).expect("a link");
        fs::rename(home.place.path("next"), home.specs()).expect("renamed");
        home.settled(&with(count));
        // It hears what happens there from now on.
        renamed(&home.file(), &with(count + 1));
        home.settled(&with(count + 1));
    }
    // Whoever asks for its status has a handle of it for a moment.
    home.until("it holds no more what it does not listen to any more", |_| home.handles() <= handles);
}

#[test]
fn what_nobody_tells_of_is_seen_by_and_by() {
    // The link leads to a directory whose own is replaced: no event comes.
    let place = Place::new(BASE);
    fs::create_dir(place.path("deep")).expect("a directory");
    fs::rename(place.path("specs"), place.path("deep/specs")).expect("renamed");
    symlink("deep/specs", place.path("specs")).expect("a link");
    let home = Home::with(place, &["--interval", "1s"]);
    home.settled(BASE);
    fs::rename(home.place.path("deep"), home.place.path("old")).expect("renamed");
    fs::create_dir_all(home.place.path("deep/specs")).expect("a directory");
    fs::write(home.place.path("deep/specs/spec.toml"), with(3)).expect("a spec");
    home.settled(&with(3));
}

#[test]
fn with_nothing_good_from_the_start_nothing_is_done() {
    let mut home = Home::new(BASE);
    home.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(home.end(), Some(0));
    in_place(&home.file(), "[server.web\n");
    home.again(&["--interval", "1s"]);
    let status = home.until("it says so", |status| status["rejected"] != serde_json::Value::Null);
    assert_eq!((&status["health"], &status["spec"]), (&"degraded".into(), &serde_json::Value::Null));
    home.place.novella(&["status"]).ends(1).out("none was good yet: nothing is done");
    home.lose("domain");
    sleep(2500 * MS);
    assert!(!home.said().contains("Destroying"), "{}", home.said());
    home.place.novella(&["plan", "--specs", "as-it-should-be", "--detailed-exitcode"]).ends(2);
    in_place(&home.file(), &with(3));
    home.settled(&with(3));
}

#[test]
fn what_the_host_cannot_be_made_leaves_the_spec_before_in_force() {
    let home = Home::with(Place::new(BASE), &["--interval", "1s"]);
    home.settled(BASE);
    // Valid, and more than there are addresses for.
    let many = BASE.replace("10.30.0.0/24", "10.30.0.0/30");
    in_place(&home.file(), &many);
    home.until("it sees that", |status| status["rejected"]["problems"].to_string().contains("address"));
    home.lose("domain");
    home.settled(BASE);
    in_place(&home.file(), &with(3));
    home.settled(&with(3));
    home.until("all is well", |status| status["health"] == "healthy");
}
