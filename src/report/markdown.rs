//! A plan as Markdown, for a comment on a merge request.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use crate::address::Address;
use crate::blueprint::facts::Disruption;
use crate::plan::Plan;
use crate::plan::diff::{Action, Change};
use crate::plan::world::Recorded;
use crate::report::html::escape;
use crate::report::plan::{
    Attribute, Marks, attributes_of, by_resource, count, disruption_words, nothing, reason_within, title, verdict,
    words,
};
use crate::report::topology::{Fate, PortView, ServerView, Topology};
use crate::report::{clean_line, diagnostics};
use crate::spec::Source;

/// The longest comment that GitHub takes, in characters. We count bytes, of which there are as many or more.
pub const LIMIT: usize = 65_536;

/// How many names a line has, at most.
const NAMED: usize = 10;

/// The plan in at most `limit` bytes. What has no room is left out by resource, the least disruptive first, and named.
pub fn render(plan: &Plan, recorded: &Recorded, source: &Source, most: Option<Disruption>, limit: usize) -> String {
    let mut text = summary(plan);
    text.push_str(&ports(&Topology::new(plan, recorded), limit / 3));
    text.push_str(&warnings(plan, source, limit / 6));
    let resources: Vec<Resource<'_>> = by_resource(plan)
        .iter()
        .map(|(address, changes)| Resource {
            address,
            cost: changes.iter().map(|(_, change)| change.cost()).max().unwrap_or_default(),
            text: details(address, changes, Marks { most, trash: plan.trash }),
        })
        .collect();
    let shown = fit(&resources, limit.saturating_sub(text.len()));
    let is_shown = |number: &usize| shown.contains(number);
    for number in (0..resources.len()).filter(is_shown) {
        text.push_str(&resources[number].text);
    }
    let cut: Vec<String> = (0..resources.len())
        .filter(|number| !is_shown(number))
        .map(|number| format!("`{}`", resources[number].address))
        .collect();
    if !cut.is_empty() {
        text.push_str(&cut_line(&cut, resources.len()));
    }
    text
}

struct Resource<'p> {
    address: &'p Address,
    cost: Disruption,
    text: String,
}

/// Says what was cut.
fn cut_line(cut: &[String], all: usize) -> String {
    format!(
        "\n**Cut:** {} of {all} resources have no room in a comment: {}. `novella plan` shows all.\n",
        cut.len(),
        some(cut)
    )
}

/// Those that fit, with a line that names the others; the most disruptive are taken first.
fn fit(resources: &[Resource<'_>], room: usize) -> BTreeSet<usize> {
    if resources.iter().map(|resource| resource.text.len()).sum::<usize>() <= room {
        return (0..resources.len()).collect();
    }
    let mut longest: Vec<String> = resources.iter().map(|resource| format!("`{}`", resource.address)).collect();
    longest.sort_by_key(|name| Reverse(name.len()));
    let mut left = room.saturating_sub(cut_line(&longest, resources.len()).len());
    let mut order: Vec<usize> = (0..resources.len()).collect();
    order.sort_by_key(|number| Reverse(resources[*number].cost));
    let mut fits = |number: &usize| match left.checked_sub(resources[*number].text.len()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    order.into_iter().filter(|number| fits(number)).collect()
}

fn summary(plan: &Plan) -> String {
    let resources = by_resource(plan);
    let mut text = if plan.is_empty() {
        format!("### No changes\n\n{}\n", nothing(plan))
    } else {
        let counts = count(&resources, |_| true);
        let disruption = disruption_words(&resources).unwrap_or_else(|| "none".into());
        format!("### Plan: {counts}\n\n**Disruption:** {disruption}.\n")
    };
    let addresses = |disruption: Disruption| -> Vec<String> {
        let worst = |changes: &Vec<(usize, &Change)>| changes.iter().map(|(_, change)| change.cost()).max();
        let hit = resources.iter().filter(|(_, changes)| worst(changes) == Some(disruption));
        hit.map(|(address, _)| format!("`{address}`")).collect()
    };
    let waiting: Vec<String> =
        plan.waiting.iter().map(|(address, what)| format!("`{address}` ({})", code(&what.join(", ")))).collect();
    let conflicts = plan.conflicts.iter().map(|it| format!("`{}` ({})", it.address, code(&it.claim.to_string())));
    let lines = [
        ("Rebooted", addresses(Disruption::Reboot)),
        ("Replaced or destroyed, with the disk", addresses(Disruption::Replace)),
        ("Waiting for a reboot", waiting),
        ("In the way, and not novella's", conflicts.collect()),
        ("Left out on demand", plan.left_out.iter().map(|address| format!("`{address}`")).collect()),
        ("Left alone, for nobody knows of it", plan.left_alone.iter().map(|key| code(&key.to_string())).collect()),
    ];
    for (what, names) in lines.into_iter().filter(|(_, names)| !names.is_empty()) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(text, "\n**{what}:** {}.\n", some(&names));
    }
    text
}

/// The first names, and how many more there are.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(NAMED);
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// A table of the ports that come, go or get another address.
fn ports(topology: &Topology, room: usize) -> String {
    let changed: Vec<_> = topology.ports().filter(|(_, port)| port.fate != Fate::Stays).collect();
    if changed.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n| | server | port | address | MAC | guest |\n|---|---|---|---|---|---|\n");
    let mut shown = 0;
    for (server, port) in &changed {
        let row = row(*server, port);
        if text.len() + row.len() > room {
            break;
        }
        text.push_str(&row);
        shown += 1;
    }
    if shown < changed.len() {
        let _ = write!(text, "\n… and {} more ports.\n", changed.len() - shown);
    }
    text
}

fn row(server: Option<&ServerView>, port: &PortView) -> String {
    let spans = |addresses: &[IpAddr], mark: &str| -> String {
        addresses.iter().map(|it| format!("{mark}`{it}`{mark}")).collect::<Vec<_>>().join(" ")
    };
    let (symbol, addresses) = match port.fate {
        Fate::Comes => ("+", spans(&port.after, "")),
        Fate::Goes => ("-", spans(&port.before, "~~")),
        Fate::Changes | Fate::Stays if port.before == port.after => ("~", spans(&port.after, "")),
        Fate::Changes | Fate::Stays => ("~", format!("{} → {}", spans(&port.before, "~~"), spans(&port.after, ""))),
    };
    let name = server.map_or("-".into(), |server| format!("`{}`", server.name));
    let notices = server.filter(|server| server.cost > Disruption::None).map_or("", |server| server.cost.as_str());
    format!("| `{symbol}` | {name} | `{}` | {addresses} | `{}` | {notices} |\n", port.label(), port.mac)
}

fn warnings(plan: &Plan, source: &Source, room: usize) -> String {
    if plan.warnings.is_empty() {
        return String::new();
    }
    let count = crate::report::count(plan.warnings.len(), "warning");
    let block = fold(&format!("⚠️ {count}"), "text", &diagnostics::to_text(&plan.warnings, source));
    if block.len() <= room { block } else { format!("\n**{count}**: `novella plan` shows them.\n") }
}

fn details(address: &Address, changes: &[(usize, &Change)], marks: Marks) -> String {
    let mut diff = String::new();
    for (_, change) in changes {
        object(&mut diff, change, marks);
    }
    let verdict = verdict(changes);
    let symbol = crate::report::plan::symbol(verdict.action()).0;
    fold(&format!("<code>{symbol}</code> <b>{address}</b> {}", escape(&words(changes))), "diff", diff.trim_end())
}

fn object(diff: &mut String, change: &Change, marks: Marks) {
    // What is changed is orange where diffs have colours.
    let symbol = match change.action {
        Action::Create => "+",
        Action::Update => "!",
        Action::Replace => "-/+",
        Action::CreateThenDelete => "+/-",
        Action::Delete => "-",
        Action::Forget | Action::Disown | Action::Record => " ",
    };
    let why = reason_within(change, marks);
    let why = if why.is_empty() { String::new() } else { format!("  # {why}") };
    let _ = writeln!(diff, "{symbol} {}{why}", clean_line(&title(change)));
    for Attribute { name, before, after, note } in attributes_of(change) {
        let note = if note.is_empty() { String::new() } else { format!("  # {note}") };
        let sides = [("-", before), ("+", after)].into_iter().filter_map(|(sign, value)| Some((sign, value?)));
        let sides: Vec<(&str, String)> = sides.collect();
        for (number, (sign, value)) in sides.iter().enumerate() {
            let note = if number + 1 == sides.len() { note.as_str() } else { "" };
            let _ = writeln!(diff, "{sign}   {name} = {value}{note}");
        }
    }
}

/// Text in a language that opens when its headline is clicked. The text cannot end it.
fn fold(headline: &str, language: &str, text: &str) -> String {
    let fence = "`".repeat(longest_run(text).max(2) + 1);
    format!("\n<details><summary>{headline}</summary>\n\n{fence}{language}\n{text}\n{fence}\n\n</details>\n")
}

/// Text as it stands, on a line.
fn code(text: &str) -> String {
    let text = clean_line(text);
    let fence = "`".repeat(longest_run(&text) + 1);
    let space = if fence.len() > 1 { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(code("plain"), "`plain`");
        assert_eq!(code("a``b\n# c"), "``` a``b\\n# c ```");
        let folded = fold("h", "diff", "+ x = ````\n</details>");
        assert!(folded.contains("\n`````diff\n") && folded.contains("\n`````\n\n</details>\n"), "{folded}");
    }

    #[test]
    fn the_most_disruptive_is_kept_and_the_rest_is_named() {
        let address = |name: &str| Address::new(crate::address::ResourceKind::Server, name.parse().expect("a name"));
        let names: Vec<Address> = (0..30).map(|number| address(&format!("web-{number}"))).collect();
        let resources: Vec<Resource<'_>> = names
            .iter()
            .enumerate()
            .map(|(number, address)| Resource {
                address,
                cost: if number == 20 { Disruption::Reboot } else { Disruption::None },
                text: "x".repeat(1000),
            })
            .collect();
        assert_eq!(fit(&resources, 30_000).len(), 30);
        let shown = fit(&resources, 5000);
        assert!(shown.contains(&20) && shown.contains(&0) && shown.len() == 4, "{shown:?}");
        assert_eq!(fit(&resources, 100), BTreeSet::new());
    }
}
