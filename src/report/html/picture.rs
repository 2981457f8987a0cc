//! The picture of a topology, as SVG: a bar for each network, a box for each server, and a wire for each port.

use std::fmt::Write as _;

use crate::address::Name;
use crate::blueprint::facts::Disruption;
use crate::report::html::{class, class_of};
use crate::report::plan::{Verdict, symbol};
use crate::report::topology::{Fate, NetworkView, PortView, ServerView, Topology};

/// How many boxes are drawn, at most; those that change come first.
const MOST: usize = 100;

/// The most characters of a name that are drawn.
const NAME: usize = 20;

// All lengths are in pixels.

/// How wide a letter is, at most: pictures are written in 13 pixels of a font whose letters are all as wide.
pub(in crate::report) const CHARACTER: usize = 8;

const LINE: usize = 15;
const GAP: usize = 10;
const BAR: usize = 10;
const LEAST_COLUMN: usize = 108;

/// A server, or a port without one.
struct Node<'t> {
    name: String,
    full: String,
    verdict: Option<Verdict>,
    cost: Disruption,
    is_free: bool,
    ports: Vec<&'t PortView>,
}

impl Node<'_> {
    fn height(&self) -> usize {
        let wires: usize = self.ports.iter().map(|port| wire_height(port)).sum();
        wires.max(if self.cost > Disruption::None { 46 } else { 32 })
    }
}

/// The lines of text above a wire: the class of each, and the address.
fn labels(port: &PortView) -> Vec<(&'static str, String)> {
    let lost = port.before.iter().filter(|address| !port.after.contains(address));
    let lost = lost.map(|address| ("inked gone remove", address.to_string()));
    let kept = port.after.iter().map(|address| {
        let class = if port.before.contains(address) { "" } else { "inked add" };
        (class, address.to_string())
    });
    lost.chain(kept).collect()
}

fn wire_height(port: &PortView) -> usize {
    LINE * labels(port).len().max(1) + 8
}

/// Writes the picture with its legend.
pub(super) fn draw(page: &mut String, topology: &Topology) {
    let mut boxes: Vec<Node<'_>> = topology.servers.iter().map(server).chain(topology.free.iter().map(free)).collect();
    let left = boxes.len().saturating_sub(MOST);
    if left > 0 {
        boxes.sort_by_key(|it| it.verdict.is_none());
        boxes.truncate(MOST);
    }
    boxes.sort_by_key(|it| (it.is_free, in_turn(&it.full)));
    page.push_str("<figure>\n<ul class=\"legend\">\n");
    for (class, words) in
        [("add", "+ comes"), ("change", "~ changes"), ("remove", "- goes, or is made anew"), ("stay", "stays")]
    {
        let _ = writeln!(page, "<li class=\"chip {class}\">{words}</li>");
    }
    page.push_str(
        "</ul>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Picture of networks and servers\">\n",
    );
    Picture::new(&topology.networks, &boxes).write(page, &boxes);
    page.push_str("</div>\n");
    if left > 0 {
        let _ = writeln!(page, "<figcaption class=\"dim\">{left} more are not drawn; the table has all.</figcaption>");
    }
    page.push_str("</figure>\n");
}

fn server(server: &ServerView) -> Node<'_> {
    Node {
        name: short(server.name.as_str()),
        full: format!("server.{}", server.name),
        verdict: server.verdict,
        cost: if server.verdict == Some(Verdict::Delete) { Disruption::None } else { server.cost },
        is_free: false,
        ports: server.ports.iter().collect(),
    }
}

fn free(port: &PortView) -> Node<'_> {
    let verdict = match port.fate {
        Fate::Comes => Some(Verdict::Create),
        Fate::Goes => Some(Verdict::Delete),
        Fate::Changes => Some(Verdict::Update),
        Fate::Stays => None,
    };
    let full = port.label();
    Node { name: short(&full), full, verdict, cost: Disruption::None, is_free: true, ports: vec![port] }
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME {
        return name.to_owned();
    }
    // Names that differ often do so at their ends.
    let (head, tail) = (NAME - 9, name.chars().count() - 8);
    name.chars().take(head).chain(['…']).chain(name.chars().skip(tail)).collect()
}

/// By which names are sorted so that 10 comes after 9.
fn in_turn(name: &str) -> (String, usize, String) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name.len(), name.to_owned())
}

struct Column<'t> {
    network: &'t NetworkView,
    /// The left edge of its bar.
    bar: usize,
}

/// Where everything is.
struct Picture<'t> {
    columns: Vec<Column<'t>>,
    /// The width of the boxes.
    boxes: usize,
    /// Where the bars begin.
    top: usize,
    width: usize,
    height: usize,
}

impl<'t> Picture<'t> {
    fn new(networks: &'t [NetworkView], boxes: &[Node<'_>]) -> Self {
        let characters = boxes.iter().map(|it| it.name.chars().count()).max().unwrap_or(0);
        let box_width = (characters * CHARACTER + 44).max(96);
        let mut right = box_width;
        let mut columns = Vec::new();
        for network in networks {
            let ports = boxes.iter().flat_map(|it| &it.ports).filter(|port| port.network == network.name);
            let addresses = ports.flat_map(|port| labels(port)).map(|(_, text)| text.len());
            let subnets = network.subnets.iter().map(|(_, cidr)| cidr.to_string().len());
            let name = short(network.name.as_str()).chars().count() + 2;
            let widest = addresses.chain(subnets).chain([name]).max().unwrap_or(0);
            right += (widest * CHARACTER + 2 * GAP).max(LEAST_COLUMN);
            columns.push(Column { network, bar: right - BAR });
        }
        let subnets = networks.iter().map(|network| network.subnets.len()).max().unwrap_or(0);
        let top = LINE * (subnets + 1) + GAP;
        let height = top + GAP + boxes.iter().map(|it| it.height() + GAP).sum::<usize>();
        Self { columns, boxes: box_width, top, width: right + 1, height }
    }

    fn write(&self, page: &mut String, boxes: &[Node<'_>]) {
        let (width, height) = (self.width, self.height);
        let _ = writeln!(
            page,
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{} networks and {} servers; the table below says the same in words\">",
            self.columns.len(),
            boxes.iter().filter(|it| !it.is_free).count(),
        );
        for column in &self.columns {
            self.network(page, column);
        }
        let mut y = self.top + GAP;
        for it in boxes {
            self.boxed(page, it, y);
            y += it.height() + GAP;
        }
        page.push_str("</svg>\n");
    }

    fn network(&self, page: &mut String, column: &Column<'_>) {
        let (network, right) = (column.network, column.bar + BAR);
        let (sign, class) = sign(network.verdict);
        let _ = writeln!(
            page,
            "<g class=\"{class}\"><title>network.{}</title><text class=\"name inked\" x=\"{right}\" y=\"{}\" \
             text-anchor=\"end\">{sign}{}</text>",
            network.name,
            LINE - 3,
            short(network.name.as_str()),
        );
        for (number, (name, cidr)) in network.subnets.iter().enumerate() {
            let _ = writeln!(
                page,
                "<text class=\"faint\" x=\"{right}\" y=\"{}\" text-anchor=\"end\"><title>subnet.{name}</title>{cidr}</text>",
                LINE * (number + 2) - 3,
            );
        }
        let _ = writeln!(
            page,
            "<rect class=\"bar\" x=\"{}\" y=\"{}\" width=\"{BAR}\" height=\"{}\" rx=\"3\"/></g>",
            column.bar,
            self.top,
            self.height - self.top,
        );
    }

    fn boxed(&self, page: &mut String, it: &Node<'_>, y: usize) {
        let (sign, class) = sign(it.verdict);
        let mut wire = y + it.height().saturating_sub(it.ports.iter().map(|port| wire_height(port)).sum()) / 2;
        for port in &it.ports {
            self.wire(page, port, wire);
            wire += wire_height(port);
        }
        let free = if it.is_free { " free" } else { "" };
        let middle = y + it.height() / 2;
        let baseline = if it.cost > Disruption::None { middle - 3 } else { middle + 5 };
        let _ = write!(
            page,
            "<g class=\"{class}\"><title>{}</title><rect class=\"box{free}\" x=\"1\" y=\"{y}\" width=\"{}\" height=\"{}\" \
             rx=\"6\"/><text class=\"name inked\" x=\"12\" y=\"{baseline}\">{sign}{}</text>",
            it.full,
            self.boxes - 1,
            it.height(),
            it.name,
        );
        if it.cost > Disruption::None {
            let _ = write!(
                page,
                "<text class=\"{} inked\" x=\"12\" y=\"{}\">{}</text>",
                class_of(it.cost),
                baseline + LINE,
                it.cost.as_str()
            );
        }
        page.push_str("</g>\n");
    }

    fn wire(&self, page: &mut String, port: &PortView, y: usize) {
        let Some(column) = self.column(&port.network) else { return };
        let class = match port.fate {
            Fate::Comes => "add",
            Fate::Goes => "remove",
            Fate::Changes => "change",
            Fate::Stays => "stay",
        };
        let labels = labels(port);
        let at = y + LINE * labels.len().max(1) + 2;
        let (from, to) = (self.boxes, column.bar);
        let _ = writeln!(
            page,
            "<g class=\"{class}\"><title>{} {}</title><path class=\"halo\" d=\"M{from} {at}H{to}\"/>\
             <path class=\"wire {class}\" d=\"M{from} {at}H{to}\"/><circle class=\"dot\" cx=\"{}\" cy=\"{at}\" r=\"6\"/>",
            port.label(),
            port.mac,
            to + BAR / 2,
        );
        for (number, (class, text)) in labels.iter().enumerate() {
            let _ = writeln!(
                page,
                "<text class=\"{class}\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{text}</text>",
                to - 6,
                at - LINE * (labels.len() - 1 - number) - 5,
            );
        }
        page.push_str("</g>\n");
    }

    fn column(&self, network: &Name) -> Option<&Column<'t>> {
        self.columns.iter().find(|column| column.network.name == *network)
    }
}

/// The sign before a name, and the class of what is done.
fn sign(verdict: Option<Verdict>) -> (String, &'static str) {
    match verdict {
        Some(verdict) => (format!("{} ", symbol(verdict.action()).0), class(verdict.action())),
        None => (String::new(), "stay"),
    }
}
