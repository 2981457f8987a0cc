//! What refers to what, for Graphviz and Mermaid, and as a picture.

mod layers;
mod svg;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::ValueEnum;

use crate::address::ResourceKind;
use crate::blueprint::Blueprint;
use crate::desired::Desired;
use crate::plan::{Action, Plan};
use crate::report::{clean_line, plan};
use crate::spec::Source;

/// The language that a graph is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Graphviz.
    Dot,
    /// Mermaid, which Markdown shows on many sites.
    Mermaid,
    /// A picture that needs nothing else.
    Svg,
}

/// What becomes of a thing, with the action that it stands for and its colour; the worse is behind.
const VERDICTS: [(&str, Action, &str); 4] = [
    ("create", Action::Create, "#2e7d32"),
    ("update", Action::Update, "#f9a825"),
    ("replace", Action::Replace, "#ad1457"),
    ("delete", Action::Delete, "#c62828"),
];

/// Things, and which needs which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    nodes: BTreeMap<String, Option<&'static str>>,
    edges: BTreeSet<(String, String)>,
}

impl Graph {
    /// The tables of a spec. Templates are none, and servers of one table are one.
    pub fn of_resources(desired: &Desired, source: &Source) -> Self {
        let servers: BTreeSet<_> = desired.servers.values().map(|server| &server.declared).collect();
        let addresses = source.addresses();
        let real = addresses.iter().filter(|it| it.kind != ResourceKind::Server || servers.contains(it));
        let mut graph = Self { nodes: real.map(|it| (it.to_string(), None)).collect(), edges: BTreeSet::new() };
        graph.edges.extend(desired.references.iter().map(|it| (it.from.to_string(), it.to.to_string())));
        graph
    }

    /// The objects of a host.
    pub fn of_objects(blueprint: &Blueprint) -> Self {
        let mut graph = Self::default();
        for (key, object) in &blueprint.objects {
            graph.nodes.insert(key.to_string(), None);
            let needs = object.needs().into_iter().filter(|need| blueprint.objects.contains_key(need));
            graph.edges.extend(needs.map(|need| (key.to_string(), need.to_string())));
        }
        graph
    }

    /// The same, with what a plan does to each resource. One that goes is there as well.
    #[must_use]
    pub fn with_resources_of(mut self, plan: &Plan, desired: &Desired) -> Self {
        for (address, verdict) in plan::verdicts(plan) {
            self.mark(desired.declared(address).to_string(), verdict);
        }
        self
    }

    /// The same, with what a plan does to each object. One that goes is there as well.
    #[must_use]
    pub fn with_objects_of(mut self, plan: &Plan) -> Self {
        for change in &plan.changes {
            let verdict = match change.action {
                Action::Create | Action::Record => "create",
                Action::Update => "update",
                Action::Replace | Action::CreateThenDelete => "replace",
                Action::Delete | Action::Forget | Action::Disown => "delete",
            };
            self.mark(change.key.to_string(), verdict);
        }
        self
    }

    fn mark(&mut self, node: String, verdict: &'static str) {
        let rank = |verdict: &str| VERDICTS.iter().position(|(word, ..)| *word == verdict);
        let was = self.nodes.entry(node).or_default();
        if was.and_then(rank) < rank(verdict) {
            *was = Some(verdict);
        }
    }

    /// It as text.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Dot => self.dot(),
            Format::Mermaid => self.mermaid(),
            Format::Svg => svg::draw(self),
        }
    }

    /// What becomes of any of it.
    fn verdicts(&self) -> impl Iterator<Item = &'static (&'static str, Action, &'static str)> {
        VERDICTS.iter().filter(|(word, ..)| self.nodes.values().any(|it| *it == Some(word)))
    }

    fn dot(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", clean_line(text).replace('\\', "\\\\").replace('"', "\\\""));
        let mut text = "digraph novella {\n  rankdir = \"LR\";\n  node [shape = \"box\"];\n".to_owned();
        // Writing to a string cannot fail, here and below.
        for (node, verdict) in &self.nodes {
            let _ = match VERDICTS.iter().find(|(word, ..)| Some(*word) == *verdict) {
                Some((word, _, colour)) => {
                    writeln!(text, "  {} [color = \"{colour}\", tooltip = \"{word}\"];", quoted(node))
                }
                None => writeln!(text, "  {};", quoted(node)),
            };
        }
        for (from, to) in &self.edges {
            let _ = writeln!(text, "  {} -> {};", quoted(from), quoted(to));
        }
        text + "}\n"
    }

    fn mermaid(&self) -> String {
        let numbers: BTreeMap<&String, usize> = self.nodes.keys().zip(0..).collect();
        let mut text = "flowchart LR\n".to_owned();
        for (node, number) in &numbers {
            let label = clean_line(node).replace('"', "#quot;");
            let class = self.nodes[*node].map(|verdict| format!(":::{verdict}")).unwrap_or_default();
            let _ = writeln!(text, "  n{number}[\"{label}\"]{class}");
        }
        for (from, to) in &self.edges {
            if let (Some(from), Some(to)) = (numbers.get(from), numbers.get(to)) {
                let _ = writeln!(text, "  n{from} --> n{to}");
            }
        }
        for (word, _, colour) in self.verdicts() {
            let _ = writeln!(text, "  classDef {word} stroke:{colour},stroke-width:3px");
        }
        text
    }
}
