//! The JSON Schema of the language, against what the loader takes and refuses, and what Taplo makes of it.
//!
//! The last takes a `taplo` with a language server (`cargo install taplo-cli --features lsp`) on the path, or that which
//! `NOVELLA_TEST_TAPLO` names.

#![allow(clippy::print_stdout, reason = "it says why something is skipped")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use common::{BASE, PORTS, SEEDS, assert_golden};
use novella::address::ResourceKind;
use novella::spec::json_schema;
use novella::spec::load::load_texts;
use serde_json::{Value, json};

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
        "[server.web]\nmaintenance = \"nightly\"",
        "[host.local]\nmaintenance = [2]",
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
    for text in [
        "[server.web]\ncount = \"${var.n}\"\nnetworks = \"${var.nets}\"",
        "[vars]\nx = 1\ny = { type = \"list\" }",
        "[host.local]\nmaintenance = \"sat 02:00-04:00\"",
        "[server.web]\nmaintenance = [\"02:00-04:00\", \"${var.window}\"]",
        "[server.web]\nmaintenance = \"${var.windows}\"",
    ] {
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

/// Taplo as an editor has it: a process that is asked by JSON, each message behind its length.
struct Taplo {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Taplo {
    /// Starts it in this directory; none where there is no such program, or one without a language server.
    fn start(directory: &Path) -> Option<Self> {
        let program = std::env::var_os("NOVELLA_TEST_TAPLO").unwrap_or_else(|| "taplo".into());
        let serves =
            Command::new(&program).args(["lsp", "--help"]).output().is_ok_and(|output| output.status.success());
        if !serves {
            return None;
        }
        let mut child = Command::new("timeout")
            .arg("120")
            .arg(program)
            .args(["lsp", "stdio"])
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("taplo");
        let input = child.stdin.take().expect("its input");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let mut taplo = Self { child, input, output };
        let root = format!("file://{}", directory.display());
        taplo.ask(
            "initialize",
            &json!({
                "capabilities": {}, "rootUri": root, "workspaceFolders": [{ "uri": root, "name": "specs" }],
            }),
        );
        taplo.send(&json!({ "jsonrpc": "2.0", "method": "initialized", "params": {} }));
        Some(taplo)
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{text}", text.len()).expect("taplo reads");
        self.input.flush().expect("taplo reads");
    }

    fn receive(&mut self) -> Value {
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("a line"), 0, "taplo has ended");
            match line.trim_end().split_once(": ") {
                Some(("Content-Length", number)) => length = number.parse().expect("a length"),
                Some(_) => {}
                None => break,
            }
        }
        let mut text = vec![0; length];
        self.output.read_exact(&mut text).expect("a message");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message.get("method").is_none() && message["id"] == method {
                return message["result"].clone();
            }
            // What it wants to know itself is how it is set up: it is to look for no schemas in the world.
            if let (Some(id), Some(items)) = (message.get("id"), message["params"]["items"].as_array()) {
                let settings = vec![json!({ "schema": { "enabled": true, "catalogs": [] } }); items.len()];
                self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": settings }));
            }
        }
    }

    /// What it offers at the end of a text: what is shown, and what is said of it.
    fn complete(&mut self, path: &Path, text: &str) -> Vec<(String, String)> {
        std::fs::write(path, text).expect("a spec");
        let document =
            json!({ "uri": format!("file://{}", path.display()), "languageId": "toml", "version": 1, "text": text });
        self.send(&json!({
            "jsonrpc": "2.0", "method": "textDocument/didOpen", "params": { "textDocument": document },
        }));
        let last = text.lines().last().unwrap_or_default();
        let at = if text.ends_with('\n') { 0 } else { last.len() };
        let position = json!({ "line": text.matches('\n').count(), "character": at });
        let offered = self.ask("textDocument/completion", &json!({ "textDocument": document, "position": position }));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = offered.as_array().into_iter().flatten();
        items.map(|item| (text(&item["label"]), text(&item["documentation"]["value"]))).collect()
    }
}

impl Drop for Taplo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With each of the two ways in which README names the schema.
#[test]
fn taplo_completes_keys_and_values_with_their_meaning() {
    for (head, config) in [
        ("#:schema ../novella.schema.json\n", ""),
        ("", "include = [\"specs/**/*.toml\"]\n[schema]\npath = \"novella.schema.json\"\n"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let specs = directory.path().join("specs");
        std::fs::create_dir(&specs).expect("a directory");
        std::fs::copy("docs/novella.schema.json", directory.path().join("novella.schema.json")).expect("the schema");
        if !config.is_empty() {
            std::fs::write(directory.path().join(".taplo.toml"), config).expect("its configuration");
        }
        let Some(mut taplo) = Taplo::start(directory.path()) else {
            println!(
                "skipped: there is no taplo with a language server; `cargo install taplo-cli --features lsp`, or name one with \
                 NOVELLA_TEST_TAPLO"
            );
            return;
        };
        let offered = taplo.complete(&specs.join("keys.toml"), &format!("{head}[server.web]\n"));
        for (key, meaning) in novella::spec::json_schema::keys(ResourceKind::Server) {
            let said: Vec<&str> = offered.iter().filter(|(it, _)| *it == key).map(|(_, said)| said.as_str()).collect();
            // What is a table of its own says what that is.
            let is_table = ["lifecycle", "root_disk"].contains(&key.as_str());
            assert!(
                said.contains(&meaning.as_str()) || is_table && !said.is_empty(),
                "{key}: {meaning:?} and {said:?}"
            );
        }
        let image: Vec<_> = offered.iter().filter(|(key, _)| key == "image").collect();
        assert_eq!(image, [&("image".to_owned(), "The image. Needed.".to_owned())]);
        println!("{} keys are offered", offered.len());

        let offered = taplo.complete(&specs.join("values.toml"), &format!("{head}[server.web]\npower = "));
        for (value, meaning) in [("\"on\"", "Running."), ("\"off\"", "Defined and shut off.")] {
            assert!(offered.contains(&(value.into(), meaning.into())), "{offered:?}");
        }
    }
}
