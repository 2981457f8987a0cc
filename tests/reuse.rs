//! Variables, `extends` and overlays: what they come to is compared with a spec that says the same at length.

mod common;

use std::path::{Path, PathBuf};

use novella::spec::load::load_texts;
use novella::spec::variables::Given;
use novella::spec::{Inputs, Loaded, load_with};
use novella::{desired, report};
use tempfile::TempDir;

/// Files by their paths in a directory of their own, of which `specs` and `over-*` are layers.
fn inputs(files: &[(&str, &str)]) -> (TempDir, Inputs) {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
    let mut overlays: Vec<PathBuf> = std::fs::read_dir(root.path())
        .expect("the directory")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("over-")))
        .collect();
    overlays.sort();
    let inputs = Inputs { directory: root.path().join("specs"), overlays, given: Vec::new() };
    (root, inputs)
}

fn said(loaded: &Loaded, root: &Path) -> String {
    let (_, problems) = desired::resolve(&loaded.spec, &loaded.source);
    let text = report::diagnostics::to_text(&[loaded.diagnostics.clone(), problems].concat(), &loaded.source);
    text.replace(&format!("{}/", root.display()), "")
}

#[track_caller]
fn same(files: &[(&str, &str)], given: &[Given], plain: &str) {
    let (root, mut inputs) = inputs(files);
    inputs.given = given.to_vec();
    let loaded = load_with(&inputs);
    assert!(loaded.diagnostics.is_empty(), "{}", said(&loaded, root.path()));
    let expected = load_texts([("plain.toml", plain)]).spec;
    let mut spec = loaded.spec;
    // What was extended is no part of what is meant.
    spec.servers.values_mut().for_each(|server| server.extends = None);
    spec.images.values_mut().for_each(|image| image.extends = None);
    spec.flavors.values_mut().for_each(|flavor| flavor.extends = None);
    assert_eq!(spec, expected);
}

fn argument(text: &str) -> Given {
    Given::Argument(text.into())
}

fn environment(name: &str, value: &str) -> Given {
    Given::Environment { name: name.into(), value: value.into() }
}

#[test]
fn windows_are_extended_and_laid_over_as_a_whole() {
    let spec = "[vars]\nnight = \"02:00-04:00\"\n[host.local]\nmaintenance = \"${var.night}\"\n\
                [server.base]\nabstract = true\nmaintenance = [\"Sat 02:00-04:00\", \"${var.night}\"]\n\
                [server.web]\nextends = \"base\"\n[server.db]\nextends = \"base\"\nmaintenance = []\n";
    let over = "[server.web]\nmaintenance = \"Sun 01:00-02:00\"\n[host.local]\nmaintenance = [\"Mon 01:00-02:00\"]\n";
    same(
        &[("specs/spec.toml", spec)],
        &[],
        "[host.local]\nmaintenance = \"02:00-04:00\"\n[server.db]\nmaintenance = []\n\
         [server.web]\nmaintenance = [\"Sat 02:00-04:00\", \"02:00-04:00\"]\n",
    );
    same(
        &[("specs/spec.toml", spec), ("over-a/spec.toml", over)],
        &[],
        "[host.local]\nmaintenance = \"Mon 01:00-02:00\"\n[server.db]\nmaintenance = []\n\
         [server.web]\nmaintenance = \"Sun 01:00-02:00\"\n",
    );
}

const VARS: &str = r#"
[vars]
count = 2
ram = "1 GiB"
on = true
ratio = 1.5
nets = ["a", "b"]
zone = { type = "string", description = "where it is" }
[host.local]
cpu_allocation_ratio = "${var.ratio}"
[flavor.small]
ram = "${var.ram}"
[server.web]
count = "${var.count}"
networks = "${var.nets}"
config_drive = "${var.on}"
image = "debian-${var.zone}"
metadata = { where = "${var.zone}-${var.count}-${var.on}" }
user_data = "echo ${HOME} $${var.zone} $$ ${var.zone} $"
"#;

const PLAIN: &str = r#"
[host.local]
cpu_allocation_ratio = 1.5
[flavor.small]
ram = "1 GiB"
[server.web]
count = 2
networks = ["a", "b"]
config_drive = true
image = "debian-z"
metadata = { where = "z-2-true" }
user_data = "echo ${HOME} $${var.zone} $$ z $"
"#;

#[test]
fn a_variable_that_is_the_whole_value_keeps_its_type() {
    same(&[("specs/a.toml", VARS)], &[argument("zone=z")], PLAIN);
}

#[test]
fn what_is_given_later_counts() {
    let plain = PLAIN.replace("1 GiB", "4 GiB").replace("count = 2", "count = 3").replace("z-2", "z-3");
    let plain = plain.replace(r#"["a", "b"]"#, r#"["c"]"#).replace("true", "false").replace("1.5", "2");
    let files = [
        ("specs/a.toml", VARS),
        ("one.toml", "ram = \"2 GiB\"\ncount = 9\nratio = 2"),
        ("two.toml", "ram = \"4 GiB\"\nzone = \"z\""),
    ];
    let (root, _) = inputs(&files);
    let file = |name: &str| Given::File(root.path().join(name));
    let nets = argument("nets=[\"c\"]");
    let all = [
        environment("ram", "8 GiB"),
        environment("on", "false"),
        environment("another_program", "x"),
        argument("ram=16 GiB"),
        file("one.toml"),
        file("two.toml"),
        nets,
        argument("count=3"),
    ];
    same(&files, &all, &plain);
}

#[test]
fn a_server_extends_another() {
    same(
        &[(
            "specs/a.toml",
            r#"
[server.base]
abstract = true
image = "debian"
networks = ["a", "b"]
metadata = { team = "x", role = "none" }
[server.middle]
abstract = true
extends = "base"
flavor = "small"
[server.web]
extends = "middle"
networks = ["c"]
metadata = { role = "web" }
[server.aaa]
extends = "web"
flavor = "large"
[flavor.small]
ram = "1 GiB"
disk = "1 GiB"
[flavor.large]
extends = "small"
ram = "2 GiB"
"#,
        )],
        &[],
        r#"
[server.web]
image = "debian"
flavor = "small"
networks = ["c"]
metadata = { team = "x", role = "web" }
[server.aaa]
image = "debian"
flavor = "large"
networks = ["c"]
metadata = { team = "x", role = "web" }
[flavor.small]
ram = "1 GiB"
disk = "1 GiB"
[flavor.large]
ram = "2 GiB"
disk = "1 GiB"
"#,
    );
}

#[test]
fn overlays_are_laid_over_the_spec_key_by_key() {
    same(
        &[
            (
                "specs/a.toml",
                r#"
[vars]
ram = "1 GiB"
zone = { type = "string" }
[project]
name = "shop"
[flavor.small]
ram = "${var.ram}"
disk = "1 GiB"
[server.web]
image = "${var.zone}"
networks = ["a"]
metadata = { team = "x", role = "web" }
[server.debug]
image = "debian"
"#,
            ),
            (
                "over-1/b.toml",
                r#"
[vars]
ram = "2 GiB"
zone = "one"
[server.web]
networks = ["b"]
metadata = { role = "front" }
[server.debug]
abstract = true
[server.more]
extends = "debug"
"#,
            ),
            ("over-2/b.toml", "[vars]\nzone = \"two\"\n[flavor.small]\ndisk = \"2 GiB\"\n[project]\nname = \"prod\""),
        ],
        &[],
        r#"
[project]
name = "prod"
[flavor.small]
ram = "2 GiB"
disk = "2 GiB"
[server.web]
image = "two"
networks = ["b"]
metadata = { team = "x", role = "front" }
[server.more]
image = "debian"
"#,
    );
}

/// What is wrong with `tests/reuse/CASE`, in which `given` has what `--var` is.
#[test]
fn mistakes_are_told_where_they_are() {
    let golden = Path::new("tests/reuse");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(golden).expect("cases").map(|entry| entry.expect("entry").path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let overlay = Some(case.join("overlay")).filter(|path| path.exists());
        let given = std::fs::read_to_string(case.join("given")).unwrap_or_default();
        let file = Some(case.join("vars.toml")).filter(|path| path.exists()).map(Given::File);
        let inputs = Inputs {
            directory: case.join("specs"),
            overlays: overlay.into_iter().collect(),
            given: file
                .into_iter()
                .chain(given.lines().map(|line| match line.strip_prefix("NOVELLA_VAR_") {
                    Some(line) => {
                        let (name, value) = line.split_once('=').expect("a value");
                        environment(name, value)
                    }
                    None => argument(line),
                }))
                .collect(),
        };
        let loaded = load_with(&inputs);
        common::assert_golden(&case.join("expected.txt"), &format!("{}\n", said(&loaded, &case)));
    }
}
