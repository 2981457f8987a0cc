//! A graph as a picture that needs nothing else: no font, no script, no style from outside.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::report::clean_line;
use crate::report::graph::layers::{Item, Layers};
use crate::report::graph::{Graph, VERDICTS};
use crate::report::html::{CHARACTER, escape};
use crate::report::plan::symbol;

// All lengths are in pixels.
const BOX: f64 = 28.0;
const PADDING: usize = 10;
const MARGIN: f64 = 12.0;
const ARROW: f64 = 8.0;
const LEGEND: f64 = 30.0;
/// The least room between two columns, and how much of the height of the picture it gets beside: steep lines need room.
const BETWEEN: f64 = 56.0;
const STEEP: f64 = 0.06;

/// Without variables, which not all that show SVG know.
const STYLE: &str = "\
svg { color-scheme: light dark; }
text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, \"DejaVu Sans Mono\", monospace; fill: #1f2328; }
.paper { fill: #ffffff; }
.box { fill: #f6f8fa; stroke: #59636e; stroke-width: 1.5; }
.line { fill: none; stroke: #818b98; stroke-width: 1.5; }
.arrow { fill: #59636e; }
.create text { fill: #116329; } .create .box { fill: #dafbe1; stroke: #116329; }
.update text { fill: #704600; } .update .box { fill: #fff3c4; stroke: #704600; }
.replace text, .delete text { fill: #a40e26; } .replace .box, .delete .box { fill: #ffe5e3; stroke: #a40e26; }
.delete .box { stroke-dasharray: 4 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .paper { fill: #0d1117; }
  .box { fill: #161b22; stroke: #9da7b3; }
  .line { stroke: #656c76; }
  .arrow { fill: #9da7b3; }
  .create text { fill: #7ee787; } .create .box { fill: #12261e; stroke: #7ee787; }
  .update text { fill: #f2cc60; } .update .box { fill: #272115; stroke: #f2cc60; }
  .replace text, .delete text { fill: #ffa198; } .replace .box, .delete .box { fill: #301417; stroke: #ffa198; }
}
";

/// A column: where it begins, and how wide it is.
#[derive(Clone, Copy)]
struct Column {
    left: f64,
    width: f64,
}

/// Draws it.
pub(super) fn draw(graph: &Graph) -> String {
    let nodes: Vec<(&String, Option<&str>)> = graph.nodes.iter().map(|(name, verdict)| (name, *verdict)).collect();
    let number = |name: &String| nodes.binary_search_by_key(&name, |(it, _)| it).ok();
    let edges: Vec<_> = graph.edges.iter().filter_map(|(from, to)| Some((number(from)?, number(to)?))).collect();
    let layers = Layers::new(nodes.len(), &edges);
    let labels: Vec<String> = nodes.iter().map(|(name, verdict)| signed(*verdict, &clean_line(name))).collect();
    let columns = place(&layers, &labels);

    let legend: Vec<(&str, String)> = graph.verdicts().map(|(word, ..)| (*word, signed(Some(word), word))).collect();
    let head = MARGIN + if legend.is_empty() { 0.0 } else { LEGEND };
    let words: f64 = legend.iter().map(|(_, label)| width(label) + MARGIN).sum();
    let right = columns.last().map_or(0.0, |column| column.left + column.width + MARGIN);
    let (wide, high) = (right.max(words + MARGIN).ceil(), (head + layers.height * BOX + MARGIN).ceil());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         role=\"img\">\n<title>{} nodes, each left of what it needs</title>\n<style>\n{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{wide}\" height=\"{high}\"/>\n",
        nodes.len(),
    );
    let mut left = MARGIN;
    for (word, label) in legend {
        boxed(&mut text, word, &label, Column { left, width: width(&label) }, MARGIN + BOX / 2.0);
        left += width(&label) + MARGIN;
    }
    let middle = |item: &Item| head + item.middle * BOX;
    // Writing to a string cannot fail, here and below.
    for &(from, to) in &layers.lines {
        let (from, to) = (&layers.items[from], &layers.items[to]);
        let (start, end) = (columns[from.column].left + columns[from.column].width, columns[to.column].left);
        let (above, below, half) = (middle(from), middle(to), f64::midpoint(start, end));
        let _ = write!(
            text,
            "<path class=\"line\" d=\"M{start:.1} {above:.1}C{half:.1} {above:.1} {half:.1} {below:.1} {end:.1} {below:.1}"
        );
        if to.is_bend {
            let _ = write!(text, "h{:.1}", columns[to.column].width);
        }
        text.push_str("\"/>\n");
    }
    for ((item, label), (_, verdict)) in layers.items.iter().zip(&labels).zip(&nodes) {
        boxed(&mut text, verdict.unwrap_or_default(), label, columns[item.column], middle(item));
    }
    for node in edges.iter().map(|(_, to)| to).collect::<BTreeSet<_>>() {
        let item = &layers.items[*node];
        let _ = writeln!(
            text,
            "<path class=\"arrow\" d=\"M{:.1} {:.1}l-{ARROW} -4v8z\"/>",
            columns[item.column].left,
            middle(item)
        );
    }
    text + "</svg>\n"
}

/// Where the columns are.
fn place(layers: &Layers, labels: &[String]) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for (item, label) in layers.items.iter().zip(labels) {
        columns.resize(columns.len().max(item.column + 1), Column { left: 0.0, width: 0.0 });
        columns[item.column].width = columns[item.column].width.max(width(label));
    }
    let between = BETWEEN + STEEP * layers.height * BOX;
    let mut left = MARGIN;
    for column in &mut columns {
        column.left = left;
        left += column.width + between;
    }
    columns
}

/// How wide the box of a label is.
fn width(label: &str) -> f64 {
    (label.chars().count() * CHARACTER + 2 * PADDING) as f64
}

fn boxed(text: &mut String, class: &str, label: &str, Column { left, width }: Column, middle: f64) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(
        text,
        "<g{class}><rect class=\"box\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BOX}\" rx=\"6\"/>\
         <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        middle - BOX / 2.0,
        left + PADDING as f64,
        middle + 4.5,
        escape(label),
    );
}

/// A name with what becomes of it before, as in a plan.
fn signed(verdict: Option<&str>, name: &str) -> String {
    match VERDICTS.iter().find(|(word, ..)| Some(*word) == verdict) {
        Some((_, action, _)) => format!("{} {name}", symbol(*action).0),
        None => name.to_owned(),
    }
}
