//! What people read: the text of plans and of diagnostics, kept in files.
//!
//! `tests/golden/<case>/` has specs `1.toml`, `2.toml`…, each applied on the simulated host after the one before; the plan
//! of each is in `N.plan.txt`. A line `# lose KIND ID` in a spec takes that object from the host before the plan is made, and
//! `# replace ADDRESS` asks for that to be made anew.
//! `tests/diagnostics/<case>/` has one spec in any number of files; what is wrong with it is in `expected.txt`.

mod common;

use std::path::Path;

use common::{assert_golden, folders, plain, plan, plan_anew, walk};
use novella::blueprint::key::{ObjectKey, ObjectKind};
use novella::host::sim::SimHost;
use novella::report::explain::{Known, explain};
use novella::report::graph::{Format, Graph};
use novella::spec::variables::Given;
use novella::spec::{Inputs, load_with};
use novella::store::memory::MemoryStore;
use novella::{reconcile, report};

#[test]
fn plans_read_as_they_should() {
    for folder in folders("golden") {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        for number in 1.. {
            let Ok(text) = std::fs::read_to_string(folder.join(format!("{number}.toml"))) else {
                assert!(number > 1, "{} has no 1.toml", folder.display());
                break;
            };
            for line in text.lines().filter_map(|line| line.strip_prefix("# lose ")) {
                let kind = ObjectKind::ALL.into_iter().find(|kind| line.starts_with(kind.as_str())).expect("a kind");
                let key = ObjectKey::new(kind, line[kind.as_str().len()..].trim());
                assert!(host.lose(&key), "there is no {key}");
            }
            let replace: Vec<String> =
                text.lines().filter_map(|line| line.strip_prefix("# replace ")).map(str::to_owned).collect();
            let plan = match replace.is_empty() {
                true => plan(&text, store.snapshot(), &host),
                false => plan_anew(&text, &replace, false, store.snapshot(), &host),
            };
            assert_golden(&folder.join(format!("{number}.plan.txt")), &plain(&report::plan::render(&plan)));
            assert!(walk(&plan, &host, &store, 1).is_complete());
        }
    }
}

#[test]
fn diagnostics_read_as_they_should() {
    for folder in folders("diagnostics") {
        let mut files: Vec<(String, String)> = std::fs::read_dir(&folder)
            .expect("the folder")
            .map(|entry| entry.expect("entry").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .map(|path| (name(&path), std::fs::read_to_string(&path).expect("a text")))
            .collect();
        files.sort();
        let texts: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut said = common::diagnostics(&texts);
        let hostile = |c: char| c != '\n' && c.is_control() || matches!(c, '\u{61c}' | '\u{200f}' | '\u{202e}');
        assert!(!said.contains(hostile), "an escape got through in {}", folder.display());
        said.push('\n');
        assert_golden(&folder.join("expected.txt"), &said);
    }
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// `tests/explain/specs` as it was applied, with more memory than then.
#[test]
fn explanations_and_graphs_read_as_they_should() {
    let folder = Path::new("tests/explain");
    let (host, store) = (SimHost::new(), MemoryStore::default());
    let load = |ram: &str| {
        let given = vec![Given::Argument(format!("ram={ram}"))];
        let loaded = load_with(&Inputs { directory: folder.join("specs"), given, ..Inputs::default() });
        let (desired, problems) = novella::desired::resolve(&loaded.spec, &loaded.source);
        assert!(loaded.diagnostics.is_empty() && problems.is_empty());
        (desired.expect("a valid spec"), loaded.source)
    };
    let (before, source) = load("128 MiB");
    let new = reconcile::plan(&before, store.snapshot(), &host).expect("a plan");
    let graph = Graph::of_resources(&before, &source);
    assert_golden(&folder.join("resources.dot"), &graph.render(Format::Dot));
    let created = graph.with_resources_of(&new, &before).render(Format::Mermaid);
    assert_golden(&folder.join("created.mmd"), &created);
    assert!(walk(&new, &host, &store, 1).is_complete());

    let (desired, source) = load("256 MiB");
    let recorded = store.snapshot();
    let (blueprint, observed) = reconcile::blueprint(&desired, &recorded, &host).expect("a blueprint");
    let plan = reconcile::plan(&desired, recorded.clone(), &host).expect("a plan");
    let graph = Graph::of_objects(&blueprint).with_objects_of(&plan);
    assert_golden(&folder.join("objects.dot"), &graph.render(Format::Dot));
    let known =
        Known { desired: &desired, source: &source, blueprint: &blueprint, recorded: &recorded, observed: &observed };
    let mut said = String::new();
    for question in std::fs::read_to_string(folder.join("questions")).expect("questions").lines() {
        match explain(question, &known) {
            Ok(text) => said.push_str(&plain(&text)),
            Err(problem) => said.push_str(&format!("{}\n", report::diagnostics::to_text(&[*problem], &source))),
        }
        said.push_str("\n----\n\n");
    }
    assert!(!said.contains("hunter2"), "{said}");
    assert_golden(&folder.join("expected.txt"), &said);
}

/// What `docs/diagnostics.md` has is in the source, and what the source has is in it.
#[test]
fn diagnostics_with_a_name_are_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = std::fs::read_to_string(root.join("docs/diagnostics.md")).expect("the list");
    let listed: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let mut source = String::new();
    let mut open = vec![root.join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("entry").path()));
        } else {
            source.push_str(&std::fs::read_to_string(path).expect("a text"));
        }
    }
    for name in &listed {
        assert!(
            source.contains(&format!("\"{name}\"")) || source.contains(&format!("\\n{name}\"")),
            "there is no {name} in src/"
        );
    }
    for name in source.split(".code(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(listed.contains(&name), "{name} is not in docs/diagnostics.md");
    }
    // Some are given their name on a way that this does not see; those that have a case are seen there.
    for folder in folders("diagnostics") {
        let said = std::fs::read_to_string(folder.join("expected.txt")).expect("a text");
        for name in said.split("error[").chain(said.split("warning[")).skip(1).filter_map(|rest| rest.split(']').next())
        {
            assert!(listed.contains(&name) || !said.contains(&format!("[{name}]:")), "{name} is not listed");
        }
    }
}
