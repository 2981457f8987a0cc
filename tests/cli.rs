//! The command line: words, streams and exit codes, on the simulated host.

mod common;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::BASE;
use tempfile::TempDir;

/// A directory with a spec and a state.
struct Place(TempDir);

impl Place {
    fn new(spec: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("specs")).expect("specs");
        let place = Self(directory);
        place.write(spec);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, spec: &str) {
        std::fs::write(self.path("specs/spec.toml"), spec).expect("the spec");
    }

    fn novella(&self, arguments: &[&str]) -> Said {
        self.answer(arguments, "")
    }

    /// Runs novella on the simulated host, with this on its standard input.
    fn answer(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_novella"))
            .args(arguments)
            .args(["--backend", "sim"])
            .current_dir(self.0.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("novella");
        // It may have ended without reading.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        Said::from(child.wait_with_output().expect("an end"))
    }
}

/// What a run wrote, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn out(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    #[track_caller]
    fn err(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {self:#?}");
        self
    }
}

/// Every file below a directory with its bytes.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("bytes")));
        }
    }
    found.sort();
    found
}

#[test]
fn a_life_from_plan_to_destroy() {
    let place = Place::new(BASE);
    place.novella(&["validate"]).ends(0).out("Success! The configuration is valid: 2 networks, 2 images, 4 servers.");
    place
        .novella(&["plan"])
        .ends(0)
        .out("# server.web-1 will be created")
        .out("Plan: 9 to add, 0 to change, 0 to destroy.");
    place.novella(&["plan", "--detailed-exitcode"]).ends(2);
    place
        .novella(&["apply", "--auto-approve"])
        .ends(0)
        .out("server.web-1: domain: Creation complete after")
        .out("Apply complete! Resources: 9 added, 0 changed, 0 destroyed.");
    place
        .novella(&["plan", "--detailed-exitcode"])
        .ends(0)
        .out("No changes. Your infrastructure matches the configuration.");
    place.novella(&["apply"]).ends(0).out("Apply complete! Resources: 0 added, 0 changed, 0 destroyed.");
    place.novella(&["show"]).ends(0).out("db      running   local  10.20.0.50").out("spare   shut off");
    let json: serde_json::Value = serde_json::from_str(&place.novella(&["show", "--json"]).ends(0).out).expect("JSON");
    assert_eq!(json["servers"][0]["server"], "db");
    assert_eq!(json["servers"][0]["ports"][0]["addresses"][0], "10.20.0.50");

    place.write(&BASE.replace("128 MiB", "256 MiB").replace("count = 2", "count = 1"));
    place
        .novella(&["apply", "--auto-approve"])
        .ends(0)
        .out("# server.web-2 will be destroyed")
        .out("Will be rebooted: server.db, server.web-1")
        .out("Apply complete! Resources: 0 added, 3 changed, 1 destroyed.");

    place.novella(&["plan", "--destroy"]).ends(0).out("Plan: 0 to add, 0 to change, 8 to destroy.");
    place
        .novella(&["destroy", "--auto-approve"])
        .ends(0)
        .out("Destroy complete! Resources: 0 added, 0 changed, 8 destroyed.");
    place.novella(&["show"]).ends(0).out("There are no servers.");
}

#[test]
fn only_yes_is_a_yes() {
    let place = Place::new(BASE);
    for answer in ["", "no\n", "y\n", "YES\n"] {
        place.answer(&["apply"], answer).ends(1).out("Only 'yes' will be accepted").err("nothing was done");
    }
    place.novella(&["plan", "--detailed-exitcode"]).ends(2);
    place.answer(&["apply"], "yes\n").ends(0).out("Apply complete!");
    place.answer(&["destroy"], "no\n").ends(1).out("There is no undo.");
    place.novella(&["plan", "--detailed-exitcode"]).ends(0);
}

#[test]
fn an_empty_or_broken_spec_never_means_destroy() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(&place.path("state"));
    place.write("[server.web\n");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("spec.toml:1").err("1 error");
    std::fs::remove_file(place.path("specs/spec.toml")).expect("gone");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("there is no `*.toml` file in `specs`");
    std::fs::remove_dir(place.path("specs")).expect("gone");
    place.novella(&["apply", "--auto-approve"]).ends(1).err("cannot read the specs in `specs`").err("--specs DIR");
    assert_eq!(files(&place.path("state")), before);
}

#[test]
fn verbs_that_look_change_nothing() {
    let place = Place::new(BASE);
    for verb in [&["validate"][..], &["plan"], &["show"], &["plan", "--destroy"]] {
        place.novella(verb).ends(0);
        assert!(!place.path("state").exists(), "{verb:?} made a state");
    }
    place.novella(&["apply", "--auto-approve"]).ends(0);
    let before = files(place.0.path());
    for verb in [&["validate"][..], &["plan"], &["show"], &["show", "--json"], &["plan", "--destroy"]] {
        place.novella(verb).ends(0);
    }
    assert_eq!(files(place.0.path()), before);
}

#[test]
fn a_plan_is_the_same_every_time() {
    let place = Place::new(BASE);
    let first = place.novella(&["plan"]).ends(0).out;
    for _ in 0..3 {
        assert_eq!(place.novella(&["plan"]).ends(0).out, first);
    }
    assert!(!first.contains('\x1b'), "no colours in a pipe");
}

#[test]
fn specs_in_several_files_are_one() {
    let place = Place::new("[network.a]\n");
    let other = "[subnet.a-v4]\nnetwork = \"a\"\ncidr = \"10.0.0.0/24\"\n";
    std::fs::write(place.path("specs/other.toml"), other).expect("a file");
    std::fs::write(place.path("specs/.hidden.toml"), "nonsense").expect("a file");
    std::fs::write(place.path("specs/notes.txt"), "nonsense").expect("a file");
    place.novella(&["plan"]).ends(0).out("10.0.0.1/24");
}

#[test]
fn root_does_not_do_what_anybody_may_write() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new(BASE);
    std::fs::set_permissions(place.path("specs/spec.toml"), std::fs::Permissions::from_mode(0o666)).expect("mode");
    let root = nix::unistd::geteuid().is_root();
    let said = place.novella(&["plan"]).ends(i32::from(root));
    if root {
        said.err("anybody may write to it").err("chmod o-w");
    }
}

#[test]
fn a_data_directory_does_not_move_under_what_lies_in_it() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    place.write(&BASE.replace("/data", "/elsewhere"));
    place.novella(&["plan"]).ends(1).err("`/data/default`").err("set `data_dir` in `[host.local]` back to `/data`");
    place.write(&format!("[project]\nname = \"other\"\n{BASE}").replace("novella = 1", ""));
    place.novella(&["plan"]).ends(1).err("set `name` in `[project]` back to `default`").err("`--state`");
}

#[test]
fn a_simulated_host_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let place = Place::new(BASE);
    place.novella(&["apply", "--auto-approve"]).ends(0);
    std::fs::write(place.path("state/sim/host.json"), "{").expect("a broken file");
    place.novella(&["plan"]).ends(1).err("cannot read the simulated host").err("help:");
}

#[test]
fn wrong_arguments_are_told_apart_from_failures() {
    let place = Place::new(BASE);
    place.novella(&["aply"]).ends(2).err("apply");
    place.novella(&["plan", "--backend", "xen"]).ends(2);
    place.novella(&["apply", "--parallelism", "0"]).ends(2).err("1..=256");
    place.novella(&["--version"]).ends(0).out("novella ");
}

#[test]
fn completions_name_the_verbs() {
    let place = Place::new(BASE);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        place.novella(&["completions", shell]).ends(0).out("destroy");
    }
}

#[test]
fn a_log_has_no_colours_where_none_are_wanted() {
    let place = Place::new(BASE);
    let said = place.novella(&["apply", "--auto-approve", "--log", "trace", "--no-color"]);
    assert!(said.err.contains("DEBUG") || said.err.contains("TRACE"), "{}", said.err);
    assert!(!said.err.contains('\u{1b}'), "{}", said.err);
}
