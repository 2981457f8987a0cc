//! What waits, and what lets it go.

use jiff::ToSpan as _;
use nix::sys::signal::Signal;
use novella::value::unix_now;
use novella::window;
use serde_json::Value;

use crate::common::BASE;
use crate::common::place::Place;
use crate::home::Home;

const MORE: &str = "count = 5";

fn save(home: &Home, text: &str) {
    std::fs::write(home.file(), text).expect("saved");
}

fn waits(home: &Home) -> Value {
    home.until("something waits", |status| status["pending"] != Value::Null)["pending"].clone()
}

fn short(pending: &Value) -> String {
    pending["digest"].as_str().expect("a digest")[..16].to_owned()
}

#[test]
fn what_is_taken_away_waits_and_goes_when_somebody_says_so() {
    let home = Home::new(BASE);
    // One goes, one comes: the one that comes does not wait.
    let text = BASE[..BASE.find("[server.spare]").expect("it")].replace("count = 2", "count = 3");
    save(&home, &text);
    let pending = waits(&home);
    home.place.novella(&["show"]).ends(0).out("spare").out("web-3");
    home.place.novella(&["status"]).ends(3).out("pending approval").out("server.spare").out("would be destroyed");
    home.place.novella(&["approve"]).ends(0).out("# server.spare will be destroyed").out(&short(&pending));
    home.place.novella(&["approve", "0123456789abcdef"]).ends(1).err("no plan waits that has the digest");
    home.place.novella(&["approve", &short(&pending)[..7]]).ends(1).err("no plan waits that has the digest");
    home.place
        .novella(&["approve", &short(&pending)[..8]])
        .ends(0)
        .out("Approved: 0 to add, 0 to change, 1 to destroy.");
    home.settled(&text);
    let status = home.until("all is well", |status| status["health"] == "healthy");
    assert!(status["last_applied"]["summary"].to_string().contains("approved by "), "{status:#}");
    home.place.novella(&["approve"]).ends(1).err("Nothing waits for approval.");
    home.place.novella(&["history"]).ends(0).out("approved by ");
    let files = ["pending.json", "pending.txt", "approval.json"];
    assert!(files.iter().all(|file| !home.place.path("state/sim/watch").join(file).exists()));
}

#[test]
fn an_approval_of_another_plan_is_refused() {
    let mut home = Home::new(BASE);
    save(&home, &BASE.replace("count = 2", "count = 1"));
    let pending = waits(&home);
    let (file, text) = (home.place.path("state/sim/watch/approval.json"), BASE.replace("count = 2", "count = 0"));
    // Without a daemon it is written down for the next one.
    home.signal(Signal::SIGKILL);
    home.end();
    home.place.novella(&["approve", &short(&pending)]).ends(0).err("note: no daemon runs");
    let approval = std::fs::read(&file).expect("an approval");
    home.again(&["--interval", "1h"]);
    home.settled(&BASE.replace("count = 2", "count = 1"));
    save(&home, &text);
    waits(&home);
    std::fs::write(&file, approval).expect("written");
    let status = home.until("it is refused", |status| status["refused_approval"] != Value::Null);
    assert_eq!(status["refused_approval"]["why"], "the spec was changed since");
    home.place.novella(&["status"]).ends(3).out("Refused: approval of");
    home.place.novella(&["show"]).ends(0).out("web-1");
    assert!(!file.exists());
}

#[test]
fn the_same_spec_with_another_plan_is_stale_too() {
    let home = Home::with(Place::new(BASE), &["--interval", "1s"]);
    home.settled(BASE);
    save(&home, &BASE.replace("count = 2", "count = 1"));
    let pending = waits(&home);
    // The guest runs no more: a domain that is off is taken away in another way than one that is gone.
    home.lose("disk");
    let other = home.until("another plan waits", |status| {
        status["pending"] != Value::Null && status["pending"]["digest"] != pending["digest"]
    });
    home.place.novella(&["approve", &short(&pending)]).ends(1).err(&short(&other["pending"]));
}

#[test]
fn too_many_at_once_take_a_word_more() {
    let five = BASE.replace("count = 2", MORE);
    let home = Home::new(&five);
    save(&home, &BASE.replace("count = 2", "count = 0"));
    let pending = waits(&home);
    assert_eq!(pending["losses"], 5);
    home.place.novella(&["approve", &short(&pending)]).ends(1).err("5 resources would be destroyed").err("at most 3 ");
    home.place.novella(&["approve", &short(&pending), "--allow-mass-delete"]).ends(0);
    home.settled(&BASE.replace("count = 2", "count = 0"));
}

#[test]
fn too_large_a_share_at_once_takes_a_word_more() {
    let five = BASE.replace("count = 2", MORE);
    let share = |percent| ["--interval", "1h", "--max-deletes", "9", "--max-delete-percent", percent];
    let mut home = Home::with(Place::new(&five), &share("50"));
    home.settled(&five);
    // All five are fewer than half of what is recorded.
    save(&home, &BASE.replace("count = 2", "count = 0"));
    let pending = waits(&home);
    let resources = pending["resources"].as_u64().expect("a number");
    assert!((11..50).contains(&resources), "{pending:#}");
    home.signal(Signal::SIGTERM);
    assert_eq!(home.end(), Some(0));
    // The plan that waits is under the limit of the daemon that runs now, also if another has written it down.
    home.again(&share("10"));
    home.until("it waits under another limit", |status| status["pending"]["max_delete_percent"] == 10);
    home.place
        .novella(&["approve", &short(&pending)])
        .ends(1)
        .err(&format!("5 resources of {resources}, {} %, would be", 500 / resources))
        .err("at most 10 % may be without `--allow-mass-delete` (`--max-delete-percent`)");
    home.place.novella(&["approve", &short(&pending), "--allow-mass-delete"]).ends(0);
    home.settled(&BASE.replace("count = 2", "count = 0"));
    // A single one is less than any share.
    home.signal(Signal::SIGTERM);
    assert_eq!(home.end(), Some(0));
    home.again(&share("0"));
    let text = BASE[..BASE.find("[server.spare]").expect("it")].replace("count = 2", "count = 0");
    save(&home, &text);
    home.place.novella(&["approve", &short(&waits(&home))]).ends(0);
    home.settled(&text);
}

#[test]
fn a_disk_that_is_gone_is_not_made_anew_by_itself() {
    let home = Home::with(Place::new(BASE), &["--interval", "1s"]);
    home.settled(BASE);
    home.lose("disk");
    let pending = waits(&home);
    assert!(pending.to_string().contains("is gone with what was in it"), "{pending:#}");
    assert!(
        !home.said().lines().skip_while(|line| !line.contains("Waiting")).any(|line| line.contains("disk: Creating"))
    );
    home.place.novella(&["approve", &short(&pending), "--allow-mass-delete"]).ends(0);
    home.settled(BASE);
}

#[test]
fn a_reboot_waits_for_a_word_or_for_its_window() {
    let more = BASE.replace("128 MiB", "256 MiB");
    let home = Home::new(BASE);
    save(&home, &more);
    let pending = waits(&home);
    assert!(pending.to_string().contains("needs a reboot"), "{pending:#}");
    // The guest that is off needs none.
    home.place.novella(&["show"]).ends(0);
    home.place.novella(&["approve", &short(&pending)]).ends(0);
    home.settled(&more);

    let home = Home::with(
        Place::new(BASE),
        &["--interval", "1h", "--maintenance", "00:00-12:00", "--maintenance", "12:00-24:00"],
    );
    home.settled(BASE);
    save(&home, &more);
    home.settled(&more);
    assert!(!home.said().contains("Waiting for approval"), "{}", home.said());
}

#[test]
fn a_reboot_waits_for_the_window_of_its_server() {
    let hour = |hours: i64| {
        let now = window::local(unix_now()).expect("a time");
        now.checked_add(hours.hours()).expect("a time").strftime("%H:%M").to_string()
    };
    let later = format!("maintenance = \"{}-{}\"", hour(2), hour(3));
    let always = r#"maintenance = "00:00-24:00""#;
    let spec = |host: &str, db: &str, ram: &str| {
        BASE.replace("[host.local]", &format!("[host.local]\n{host}"))
            .replace("[server.db]", &format!("[server.db]\n{db}"))
            .replace("128 MiB", ram)
    };
    let home = Home::new(&spec(always, &later, "128 MiB"));
    let opens = |status: &Value| status["windows"]["server.db"].as_u64();
    save(&home, &spec(always, &later, "256 MiB"));
    let status = home.until("one waits for its window", |status| opens(status).is_some());
    assert_eq!(status["windows"].as_object().map(serde_json::Map::len), Some(1), "{status:#}");
    let wait = opens(&status).expect("it").saturating_sub(unix_now());
    assert!((60 * 60..=2 * 60 * 60).contains(&wait), "{wait} s");
    let waiting: Vec<&Value> =
        status["pending"]["changes"].as_array().expect("it").iter().map(|it| &it["address"]).collect();
    assert_eq!(waiting, ["server.db"], "the others have the windows of the host");
    home.place.novella(&["status"]).ends(3).out("server.db goes by itself when its window opens, ");
    // `[]` keeps the windows of the host away from it.
    save(&home, &spec(always, "maintenance = []", "256 MiB"));
    home.until("it waits for somebody", |status| status["windows"] == serde_json::json!({}));
    home.place.novella(&["status"]).ends(3).out("needs a reboot");
    let open = spec("maintenance = []", always, "256 MiB");
    save(&home, &open);
    home.settled(&open);
}
