//! What shells complete: bash, zsh and fish themselves, with the scripts that novella prints for them.

#![allow(clippy::print_stdout, reason = "it says why something is skipped")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::BASE;
use common::place::{Place, Said, files};
use novella::address::Name;
use novella::blueprint::Layout;
use novella::plan::Plan;
use novella::plan::world::Recorded;
use novella::value::Sha256;
use novella::watch::pending::{Limits, Origin, Pending};

/// Runs a script in a shell, in a place, with our novella on the path; none where there is no such shell.
fn shell(place: &Place, shell: &str, arguments: &[&str]) -> Option<Said> {
    let novella = Path::new(env!("CARGO_BIN_EXE_novella")).parent().expect("a directory");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([PathBuf::from(novella)].into_iter().chain(std::env::split_paths(&path)));
    let output = Command::new("timeout")
        .args(["60", shell])
        .args(arguments)
        .current_dir(place.0.path())
        .env("PATH", path.expect("a path"))
        .env("NOVELLA_BACKEND", "sim")
        .env("TERM", "xterm")
        .env("HOME", place.0.path())
        .output()
        .expect("`timeout`");
    if output.status.code() == Some(127) {
        println!("skipped: there is no {shell}");
        return None;
    }
    Some(Said::from(output))
}

/// What bash makes of lines, each up to its last word.
fn bash(place: &Place, lines: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut script = "source <(novella completions bash)\n\
        complete_line() {\n\
            COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; COMPREPLY=()\n\
            $(complete -p novella | sed 's/.*-F \\([^ ]*\\) .*/\\1/') novella \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"\n\
            echo \"${COMPREPLY[@]}\"\n\
        }\n"
        .to_owned();
    for line in lines {
        let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
        script.push_str(&format!("complete_line {}\n", words.join(" ")));
    }
    let said = shell(place, "bash", &["--norc", "-c", &script])?.ends(0);
    assert_eq!(said.err, "");
    let offered = said.out.lines().map(|line| line.split(' ').map(str::to_owned).collect());
    Some(offered.collect())
}

/// What is offered but options.
fn words(offered: &[String]) -> Vec<&str> {
    offered.iter().map(String::as_str).filter(|word| !word.is_empty() && !word.starts_with('-')).collect()
}

#[test]
fn bash_knows_what_the_spec_and_the_state_have() {
    let place = Place::new(BASE);
    let Some(offered) = bash(
        &place,
        &[
            "novella ssh ",
            "novella stop db we",
            "novella console server.d",
            "novella plan --target net",
            "novella apply --replace ",
            "novella explain server.db.fla",
            "novella ip list ",
            "novella image update ",
            "novella state show ",
            "novella approve ",
            "novella gra",
            "novella plan --targ",
        ],
    ) else {
        return;
    };
    let offered: Vec<Vec<&str>> = offered.iter().map(|it| words(it)).collect();
    assert_eq!(offered[0], ["db", "spare", "web-1", "web-2"]);
    assert_eq!(offered[1], ["web-1", "web-2"]);
    assert_eq!(offered[2], ["server.db"]);
    assert!(offered[3].contains(&"network.private"), "{:?}", offered[3]);
    assert_eq!(offered[4], ["server.db", "server.spare", "server.web-1", "server.web-2"]);
    assert_eq!(offered[5], ["server.db.flavor"]);
    assert!(offered[6].contains(&"private"), "{:?}", offered[6]);
    assert!(!offered[7].is_empty() && !offered[7].contains(&"private"), "{:?}", offered[7]);
    assert_eq!((offered[8].len(), offered[9].len()), (0, 0), "nothing is recorded, and nothing waits");
    assert_eq!(offered[10], ["graph"]);

    place.novella(&["apply", "--auto-approve"]).ends(0);
    // What the spec has no more is still there, and a spec with mistakes is still read.
    place.write(&format!("{}\n[server.half]\nflavor = \"none\"\n", BASE.replace("[server.spare]", "[server.other]")));
    let before = files(place.0.path());
    let offered = bash(
        &place,
        &["novella ssh ", "novella state show server.s", "novella ssh --specs nowhere ", "novella history show "],
    );
    assert_eq!(files(place.0.path()), before, "something was written");
    let offered = offered.expect("bash was there");
    assert_eq!(words(&offered[0]), ["db", "half", "other", "spare", "web", "web-1", "web-2"]);
    assert_eq!(words(&offered[1]), ["server.spare"]);
    assert_eq!(words(&offered[2]), ["db", "spare", "web-1", "web-2"], "the state is there");
    assert_eq!(words(&offered[3]), ["1"]);
}

/// A digest is offered while a plan waits, and a disk while it is in the trash of this machine.
#[test]
fn bash_knows_what_waits_and_what_is_in_the_trash() {
    let place = Place::new(BASE);
    let data = place.path("data");
    place.write(&BASE.replace("/data", data.to_str().expect("UTF-8")));
    let trash = Layout::new(&data, &Name::default_project()).trash();
    std::fs::create_dir_all(&trash).expect("the trash");
    let entry = serde_json::json!({
        "id": "db-20260101", "address": "server.db", "format": "qcow2", "size": null, "base": null, "why": "removed",
        "since": 1, "until": 2,
    });
    std::fs::write(trash.join("db-20260101.json"), entry.to_string()).expect("an entry");
    std::fs::write(trash.join("db-20260101"), "a disk").expect("a disk");
    let plan = common::plan(BASE, Recorded::default(), &novella::host::sim::SimHost::new());
    let nothing = Plan { changes: Vec::new(), ..plan.clone() };
    let spec = Sha256::of(b"a spec");
    let origin = Origin { spec: &spec, resources: 0, limits: Limits::default(), unix: 1 };
    let (pending, text) = Pending::new(&plan, &nothing, &Default::default(), origin).expect("a plan that waits");
    let watch = place.path("state/sim/watch");
    std::fs::create_dir_all(&watch).expect("what watch keeps");
    Pending::write(&watch, Some(&(pending.clone(), text))).expect("what waits");

    let lines = ["novella approve ", "novella --backend libvirt trash restore "];
    let Some(offered) = bash(&place, &lines) else { return };
    assert_eq!(words(&offered[0]), [pending.digest.short()]);
    assert_eq!(words(&offered[1]), if cfg!(feature = "libvirt") { vec!["db-20260101"] } else { vec![] });
}

#[test]
fn fish_says_what_each_is() {
    let place = Place::new(BASE);
    let script =
        "novella completions fish | source; complete -C 'novella ssh w'; complete -C 'novella explain server.db.fla'";
    let Some(said) = shell(&place, "fish", &["--no-config", "-c", script]) else { return };
    let said = said.ends(0);
    assert_eq!(said.out, "web-1\nweb-2\nserver.db.flavor\tThe flavor. Needed.\n");
    assert_eq!(said.err, "");
}

/// Zsh completes only at a terminal: it gets one.
#[test]
fn zsh_writes_the_rest_of_a_name() {
    let place = Place::new(BASE);
    let script = r#"
        zmodload zsh/zpty
        zpty inner zsh -f -i
        zpty -w inner 'autoload -U compinit; compinit -u -D; source <(novella completions zsh); print rea\dy'
        zpty -r inner said $'*ready\r\n*'
        zpty -w -n inner $'novella ssh sp\t'
        zpty -r inner said '*novella ssh spare*'
        zpty -d inner
        print done
    "#;
    let Some(said) = shell(&place, "zsh", &["-f", "-c", script]) else { return };
    said.ends(0).out("done");
}

#[test]
fn every_shell_has_a_script_that_asks_novella() {
    let place = Place::new(BASE);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        place.novella(&["completions", shell]).ends(0).out("NOVELLA_COMPLETE").out("novella");
    }
    let offered = bash(&place, &["novella ", "novella wait web-1 --for ", "novella image "]);
    for (offered, word) in offered.iter().flatten().zip(["destroy", "cloud-init", "prune"]) {
        assert!(offered.iter().any(|it| it == word), "{offered:?}");
    }
}
