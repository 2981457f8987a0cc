//! Where the nodes of a graph stand: in columns, each node left of what it needs, and no line across a node.
//!
//! This is Sugiyama's way. A line over several columns has a bend in each; lines to the same node share their bends, so that
//! they run together. Order and height within a column come from the columns beside it, in turns from the left and from
//! the right.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::toposort;
use petgraph::graph::{DiGraph, NodeIndex};

/// How often the columns are gone through, once from each side.
const ROUNDS: usize = 12;

/// The height of a bend, and the least distance between two things in a column; a node has the height 1.
const BEND: f64 = 0.3;
const GAP: f64 = 0.35;

/// A node or a bend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Whether it is a line on its way, and no node.
    pub is_bend: bool,
    /// The number of its column, from the left.
    pub column: usize,
    /// Where its middle is, from the top, in heights of a node.
    pub middle: f64,
}

impl Item {
    const fn new(is_bend: bool, column: usize) -> Self {
        Self { is_bend, column, middle: 0.0 }
    }

    fn height(&self) -> f64 {
        GAP + if self.is_bend { BEND } else { 1.0 }
    }
}

/// A graph with everything in its place.
#[derive(Debug)]
pub(super) struct Layers {
    /// Nodes first, by their numbers.
    pub items: Vec<Item>,
    /// Pieces of lines, from an item to one in the next column.
    pub lines: BTreeSet<(usize, usize)>,
    /// How high all of it is.
    pub height: f64,
}

impl Layers {
    /// Places this many nodes with these edges between them, which go in no circle.
    pub(super) fn new(nodes: usize, edges: &[(usize, usize)]) -> Self {
        let columns = columns(nodes, edges);
        let mut items: Vec<Item> = columns.iter().map(|&column| Item::new(false, column)).collect();
        let (mut lines, mut bends) = (BTreeSet::new(), BTreeMap::new());
        for &(from, to) in edges {
            let mut last = from;
            for column in columns[from] + 1..columns[to] {
                let bend = *bends.entry((to, column)).or_insert_with(|| {
                    items.push(Item::new(true, column));
                    items.len() - 1
                });
                lines.insert((last, bend));
                last = bend;
            }
            lines.insert((last, to));
        }
        let mut layers = Self { items, lines, height: 0.0 };
        layers.settle();
        layers
    }

    /// Gives every item its height.
    fn settle(&mut self) {
        let mut columns: Vec<Vec<usize>> = Vec::new();
        for (number, item) in self.items.iter().enumerate() {
            columns.resize_with(columns.len().max(item.column + 1), Vec::new);
            columns[item.column].push(number);
        }
        let mut beside = [vec![Vec::new(); self.items.len()], vec![Vec::new(); self.items.len()]];
        for &(from, to) in &self.lines {
            beside[0][to].push(from);
            beside[1][from].push(to);
        }
        let [left, right] = &beside;
        let both: Vec<Vec<usize>> =
            left.iter().zip(right).map(|(left, right)| [&left[..], &right[..]].concat()).collect();
        for column in &columns {
            self.stand(column, &both);
        }
        for _ in 0..ROUNDS {
            for column in &mut columns {
                self.sort(column, left);
            }
            for column in columns.iter_mut().rev() {
                self.sort(column, right);
            }
        }
        for _ in 0..ROUNDS {
            for column in &columns {
                self.stand(column, &both);
            }
        }
        let edge = |item: &Item| item.middle - item.height() / 2.0;
        let top = self.items.iter().map(edge).fold(f64::INFINITY, f64::min);
        for item in &mut self.items {
            item.middle -= top;
        }
        self.height = self.items.iter().map(|item| item.middle + item.height() / 2.0).fold(0.0, f64::max);
    }

    /// The middle of those beside an item; where it is itself if there are none.
    fn wanted(&self, item: usize, beside: &[Vec<usize>]) -> f64 {
        let beside = &beside[item];
        match beside.len() {
            0 => self.items[item].middle,
            many => beside.iter().map(|&other| self.items[other].middle).sum::<f64>() / many as f64,
        }
    }

    /// Sorts a column by where its items want to be, and lets them stand there.
    fn sort(&mut self, column: &mut [usize], beside: &[Vec<usize>]) {
        column.sort_by(|&a, &b| self.wanted(a, beside).total_cmp(&self.wanted(b, beside)));
        self.stand(column, beside);
    }

    /// Puts the items of a column as near to where they want to be as they can be in this order, and apart.
    fn stand(&mut self, column: &[usize], beside: &[Vec<usize>]) {
        // Less the room of those above, places must not fall: neighbours that would are put together at their mean.
        let mut above = 0.0;
        let mut rooms = Vec::new();
        let mut pools: Vec<(f64, usize)> = Vec::new();
        for &item in column {
            let height = self.items[item].height();
            let room = above + height / 2.0;
            above += height;
            let mut pool = (self.wanted(item, beside) - room, 1);
            while let Some((sum, many)) = pools.pop_if(|last| last.0 / last.1 as f64 > pool.0 / pool.1 as f64) {
                pool = (pool.0 + sum, pool.1 + many);
            }
            pools.push(pool);
            rooms.push(room);
        }
        let places = pools.into_iter().flat_map(|(sum, many)| std::iter::repeat_n(sum / many as f64, many));
        for ((&item, room), place) in column.iter().zip(rooms).zip(places) {
            self.items[item].middle = place + room;
        }
    }
}

/// The column of each node: left of all that it needs, and then as far to the right as that lets it.
fn columns(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut graph = DiGraph::<(), (), usize>::default();
    graph.extend_with_edges(edges);
    while graph.node_count() < nodes {
        graph.add_node(());
    }
    let order: Vec<NodeIndex<usize>> = toposort(&graph, None).unwrap_or_default();
    let mut columns = vec![0; nodes];
    for node in &order {
        for next in graph.neighbors(*node) {
            columns[next.index()] = columns[next.index()].max(columns[node.index()] + 1);
        }
    }
    for node in order.iter().rev() {
        if let Some(nearest) = graph.neighbors(*node).map(|next| columns[next.index()]).min() {
            columns[node.index()] = nearest - 1;
        }
    }
    columns
}
