//! The JSON Schema of the language, against what the loader takes and refuses.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{BASE, PORTS, SEEDS, assert_golden};
use novella::address::ResourceKind;
use novella::spec::json_schema;
use novella::spec::load::load_texts;
use serde_json::Value;

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::new(&json_schema::document()).expect("a schema of draft 7")
}

fn value(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).expect("TOML")).expect("JSON")
}

/// Every `*.toml` below a directory.
fn specs(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(specs(&path));
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_is_valid_follows_the_schema() {
    let validator = validator();
    let mut texts =
        vec![("BASE".to_owned(), BASE.into()), ("PORTS".into(), PORTS.into()), ("SEEDS".into(), SEEDS.into())];
    for directory in ["examples", "specs", "tests/golden"] {
        let read = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).expect("a text"));
        // What variables are given in a file is no spec.
        texts.extend(specs(Path::new(directory)).into_iter().map(read).filter(|(path, _)| !path.contains("/values/")));
    }
    assert!(texts.len() > 10);
    for (path, text) in texts {
        let problems: Vec<String> =
            validator.iter_errors(&value(&text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(problems.is_empty(), "{path}: {problems:#?}");
    }
}

#[test]
fn what_is_wrong_does_not() {
    let validator = validator();
    for text in [
        "frob = 1",
        "novella = 2",
        "[server]\nweb = 1",
        "[server.Web]",
        "[server.web]\ncount = \"three\"",
        "[server.web]\npower = \"onn\"",
        "[server.web]\nautostart = true",
        "[server.web]\nports = [{ netwerk = \"a\" }]",
        "[server.web]\nports = [{ network = \"a\", fixed_ips = [\"10.0.0\"] }]",
        "[server.web]\nmetadata = { role = 1 }",
        "[flavor.small]\nram = \"512\"",
        "[flavor.small]\nram = 512",
        "[subnet.a]\ncidr = \"10.0.0.0\"",
        "[vars]\nx = { typ = \"string\" }",
        "[vars]\nX = 1",
        "[vars]\nx = 2026-01-01",
    ] {
        assert!(!validator.is_valid(&value(text)), "{text}");
    }
    for text in
        ["[server.web]\ncount = \"${var.n}\"\nnetworks = \"${var.nets}\"", "[vars]\nx = 1\ny = { type = \"list\" }"]
    {
        assert!(validator.is_valid(&value(text)), "{text}");
    }
}

/// The loader has its keys from serde, the schema from its own derive: they must be the same.
#[test]
fn every_key_is_in_the_schema() {
    let schema = json_schema::document();
    let tables = ResourceKind::ALL.map(|kind| {
        let named = &schema["properties"][kind.as_str()]["patternProperties"];
        let table = named.as_object().and_then(|named| named.values().next()).expect("tables by name");
        (format!("{kind}.x"), table.clone())
    });
    let project = ("project".to_owned(), schema["properties"]["project"].clone());
    for (address, table) in tables.into_iter().chain([project]) {
        let definition = table["$ref"].as_str().and_then(|it| it.strip_prefix("#")).expect("a reference");
        let described = schema.pointer(definition).expect("a definition")["properties"].as_object().expect("keys");
        let described: BTreeSet<&str> = described.keys().map(String::as_str).collect();
        let loaded = load_texts([("x.toml", format!("[{address}]\nqqqqqqqqqqqqqqqqqqqqqqqqq = 1").as_str())]);
        let help = loaded.diagnostics[0].help.clone().expect("what is known");
        let known: BTreeSet<&str> = help.split('`').skip(1).step_by(2).collect();
        assert!(!known.is_empty() && described.is_subset(&known), "{address}: {described:?} and {known:?}");
        // Those that are only read to be refused.
        for missing in known.difference(&described) {
            let refused = ["autostart", "security_groups", "allowed_address_pairs", "port_security_enabled"];
            assert!(refused.contains(missing), "{address}: `{missing}` is not in the schema");
        }
    }
}

#[test]
fn it_reads_as_it_should() {
    let text = serde_json::to_string_pretty(&json_schema::document()).expect("JSON");
    assert_golden(Path::new("docs/novella.schema.json"), &format!("{text}\n"));
}
