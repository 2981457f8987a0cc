//! What people read: the text of plans and of diagnostics, kept in files.
//!
//! `tests/golden/<case>/` has specs `1.toml`, `2.toml`…, each applied on the simulated host after the one before; the plan
//! of each is in `N.plan.txt`, and beside it in the other forms. A line `# lose KIND ID` in a spec takes that object from the
//! host before the plan is made, `# replace ADDRESS` asks for that to be made anew, and `# define` is a domain of others.
//! `tests/diagnostics/<case>/` has one spec in any number of files; what is wrong with it is in `expected.txt`.

mod common;

use std::path::Path;
use std::sync::LazyLock;

use common::{BASE, assert_golden, folders, old, plain, plan, plan_anew, walk};
use novella::address::{Address, ResourceKind};
use novella::blueprint::key::{ObjectKey, ObjectKind};
use novella::blueprint::object::Claim;
use novella::host::sim::SimHost;
use novella::plan::Scope;
use novella::plan::world::Recorded;
use novella::reconcile;
use novella::report;
use novella::report::explain::{Known, explain};
use novella::report::graph::{Format, Graph};
use novella::spec::Source;
use novella::spec::variables::Given;
use novella::spec::{Inputs, load::load_texts, load_with};
use novella::store::memory::MemoryStore;
use novella::value::ByteSize;

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
            if text.lines().any(|line| line == "# define") {
                host.define(old(), ByteSize::mib(512), true);
            }
            let replace: Vec<String> =
                text.lines().filter_map(|line| line.strip_prefix("# replace ")).map(str::to_owned).collect();
            let recorded = store.snapshot();
            let plan = match replace.is_empty() {
                true => plan(&text, recorded.clone(), &host),
                false => plan_anew(&text, &replace, false, recorded.clone(), &host),
            };
            let golden =
                |ending: &str, text: &str| assert_golden(&folder.join(format!("{number}.plan.{ending}")), text);
            golden("txt", &plain(&report::plan::render(&plan)));
            let json = report::document::render(&plan, &recorded, &Source::default());
            assert_valid(&json);
            golden("json", &json);
            golden(
                "md",
                &report::markdown::render(&plan, &recorded, &Source::default(), None, report::markdown::LIMIT),
            );
            assert!(walk(&plan, &host, &store, 1).is_complete());
        }
    }
}

/// A plan in JSON is what `docs/plan.schema.json` says.
#[track_caller]
fn assert_valid(json: &str) {
    static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plan.schema.json");
        let schema = std::fs::read_to_string(path).expect("the schema");
        let schema = serde_json::from_str(&schema).expect("JSON");
        jsonschema::draft202012::meta::validate(&schema).expect("a schema");
        jsonschema::draft202012::new(&schema).expect("a schema")
    });
    let plan = serde_json::from_str(json).expect("JSON");
    let problems: Vec<String> =
        SCHEMA.iter_errors(&plan).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn what_no_golden_plan_has_is_in_the_schema_too() {
    let json = |host: &SimHost, scope: Option<&str>| {
        let mut plan = plan(BASE, Recorded::default(), host);
        if let Some(server) = scope {
            let address = Address::new(ResourceKind::Server, server.parse().expect("a name"));
            plan = plan.confine(&Scope::Only([address].into())).expect("an order");
        }
        let json = report::document::render(&plan, &Recorded::default(), &Source::default());
        assert_valid(&json);
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON")
    };
    let host = SimHost::new();
    host.occupy(Claim::DomainName("default.db".into()));
    let whole = json(&host, None);
    assert_eq!(whole["conflicts"][0]["address"], "server.db");
    assert_eq!((&whole["errored"], &whole["complete"]), (&true.into(), &false.into()));
    let part = json(&host, Some("web-1"));
    assert_eq!(part["warnings"][0]["code"], "partial-plan");
    assert_eq!((&part["errored"], &part["complete"]), (&false.into(), &false.into()));
    assert!(part["left_out"].as_array().is_some_and(|it| it.contains(&"server.db".into())));
    // A schema that everything passes says nothing.
    let schema = std::panic::catch_unwind(|| assert_valid(&whole.to_string().replace("\"create\"", "\"made\"")));
    assert!(schema.is_err());
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
    let created = graph.with_resources_of(&new, &before);
    assert_golden(&folder.join("created.mmd"), &created.render(Format::Mermaid));
    assert_golden(&folder.join("created.svg"), &created.render(Format::Svg));
    assert!(walk(&new, &host, &store, 1).is_complete());

    let (desired, source) = load("256 MiB");
    let recorded = store.snapshot();
    let (blueprint, observed) = reconcile::blueprint(&desired, &recorded, &host).expect("a blueprint");
    let plan = reconcile::plan(&desired, recorded.clone(), &host).expect("a plan");
    let graph = Graph::of_objects(&blueprint).with_objects_of(&plan);
    assert_golden(&folder.join("objects.dot"), &graph.render(Format::Dot));
    assert_golden(&folder.join("objects.svg"), &graph.render(Format::Svg));
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

/// A point of a picture that stands in an attribute.
fn number(node: roxmltree::Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no {name} in {node:?}"))
}

/// Every example, and a large spec: boxes stand apart, names are in full, and each edge runs from the right to the left of
/// boxes, past all others.
#[test]
fn pictures_of_graphs_are_xml_in_which_nothing_overlaps() {
    let large = format!("{}{}", BASE.replace("count = 2", "count = 40"), common::PORTS);
    let mut specs = vec![("large".to_owned(), load_texts([("large.toml", large.as_str())]))];
    for folder in ["k3s", "router", "two-tier", "volumes"] {
        let directory = Path::new("examples").join(folder);
        specs.push((folder.to_owned(), load_with(&Inputs { directory, ..Inputs::default() })));
    }
    for (name, loaded) in specs {
        let (desired, problems) = novella::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{name}: {problems:?}"));
        let (host, store) = (SimHost::new(), MemoryStore::default());
        let plan = reconcile::plan(&desired, store.snapshot(), &host).expect("a plan");
        let (blueprint, _) = reconcile::blueprint(&desired, &store.snapshot(), &host).expect("a blueprint");
        let resources = Graph::of_resources(&desired, &loaded.source);
        for graph in [resources, Graph::of_objects(&blueprint), Graph::of_objects(&blueprint).with_objects_of(&plan)] {
            let text = graph.render(Format::Svg);
            let picture = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let boxes: Vec<[f64; 4]> = picture
                .descendants()
                .filter(|node| node.attribute("class") == Some("box"))
                .map(|node| ["x", "y", "width", "height"].map(|it| number(node, it)))
                .collect();
            let dot = graph.render(Format::Dot);
            let named = dot.lines().filter(|line| line.starts_with("  \"") && !line.contains(" -> "));
            let named: Vec<&str> = named.filter_map(|line| line.split('"').nth(1)).collect();
            assert!(boxes.len() >= named.len() && !named.is_empty(), "{name}");
            for full in named {
                let is_there = picture
                    .descendants()
                    .filter(|node| node.has_tag_name("text"))
                    .any(|node| node.text().is_some_and(|text| text == full || text.ends_with(&format!(" {full}"))));
                assert!(is_there, "{name}: {full}");
            }
            for (number, [x, y, width, height]) in boxes.iter().enumerate() {
                for [left, top, wide, high] in &boxes[number + 1..] {
                    let apart = x + width < *left || left + wide < *x || y + height < *top || top + high < *y;
                    assert!(apart, "{name}: {x},{y} and {left},{top}");
                }
            }
            assert!(picture.descendants().any(|node| node.attribute("class") == Some("line")), "{name}");
            for line in picture.descendants().filter(|node| node.attribute("class") == Some("line")) {
                let path = line.attribute("d").expect("a path");
                let (curve, on) = path[1..].split_once('h').map_or((&path[1..], "0"), |(curve, on)| (curve, on));
                let points: Vec<f64> = curve.split(['C', ' ']).map(|it| it.parse().expect("a number")).collect();
                let (start, end) = (points[0], points[6]);
                let through = end + on.parse::<f64>().expect("a length");
                for [x, y, width, height] in &boxes {
                    // Between two columns there is nothing, and what goes through a column meets no box in it.
                    let in_the_way = start < x + width - 0.1 && x + 0.1 < end;
                    let crossed = end < x + width && *x < through - 0.1 && *y < points[7] && points[7] < y + height;
                    assert!(!in_the_way && !crossed, "{name}: {path} and the box at {x},{y}");
                }
            }
        }
    }
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
