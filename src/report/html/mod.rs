//! A plan as a page: one file, which needs nothing else and no script to be read.
//!
//! `picture` draws the networks and servers.

mod picture;

use std::fmt::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::address::{Address, Name};
use crate::blueprint::facts::Disruption;
use crate::plan::Plan;
use crate::plan::diff::{Action, Change};
use crate::plan::world::Recorded;
pub(in crate::report) use crate::report::html::picture::CHARACTER;
use crate::report::plan::{
    Attribute, Counts, Marks, Resources, Verdict, attributes_of, by_resource, count, disruption_counts, nothing,
    reason_within, symbol, title, verdict, words,
};
use crate::report::topology::{Fate, PortView, ServerView, Sums, Topology};
use crate::report::{clean, diagnostics};
use crate::spec::Source;
use crate::value::ByteSize;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Up to so many resources are unfolded from the start.
const UNFOLDED: usize = 8;

/// The page of a plan of this project, made from what is recorded.
pub fn render(plan: &Plan, recorded: &Recorded, source: &Source, project: &Name, most: Option<Disruption>) -> String {
    let resources = by_resource(plan);
    let topology = Topology::new(plan, recorded);
    let headline = match plan.is_empty() {
        true => format!("No changes. {}", nothing(plan)),
        false => count(&resources, |_| true).to_string(),
    };
    let mut page = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src {}; script-src {}\">\n\
         <title>{project}: {headline}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#changes\">To the changes</a>\n<header>\n<h1>Plan of {project}</h1>\n<p>{headline}</p>\n\
         </header>\n<main>\n",
        hash(STYLE),
        hash(SCRIPT),
    );
    tiles(&mut page, plan, &resources, &topology);
    notes(&mut page, plan, source);
    if !topology.networks.is_empty() || !topology.servers.is_empty() {
        page.push_str("<h2 id=\"topology\">Networks and servers</h2>\n");
        picture::draw(&mut page, &topology);
        table(&mut page, &topology);
    }
    changes(&mut page, &resources, Marks { most, trash: plan.trash });
    let _ = write!(
        page,
        "</main>\n<footer>novella {}. The plan holds for the host and the state that it was made from.</footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
    );
    page
}

/// The source of an inline style or script, for the page's own policy: nothing that gets into the page otherwise runs.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

/// Text from outside, as text of the page.
pub(in crate::report) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The class that colours what is done.
const fn class(action: Action) -> &'static str {
    match action {
        Action::Create => "add",
        Action::Update => "change",
        Action::Replace | Action::CreateThenDelete | Action::Delete => "remove",
        Action::Forget | Action::Disown | Action::Record => "stay",
    }
}

fn class_of(disruption: Disruption) -> &'static str {
    match disruption {
        Disruption::None => "stay",
        Disruption::Live => "add",
        Disruption::Reboot => "change",
        Disruption::Replace => "remove",
    }
}

fn tiles(page: &mut String, plan: &Plan, resources: &Resources<'_>, topology: &Topology) {
    if !plan.is_empty() {
        page.push_str("<ul class=\"tiles\">\n");
        let Counts { import, add, change, destroy } = count(resources, |_| true);
        if import > 0 {
            let _ = writeln!(page, "<li class=\"add\"><b>{import}</b> to import</li>");
        }
        for (class, number, word) in
            [("add", add, "to add"), ("change", change, "to change"), ("remove", destroy, "to destroy")]
        {
            let class = if number > 0 { class } else { "stay" };
            let _ = writeln!(page, "<li class=\"{class}\"><b>{number}</b> {word}</li>");
        }
        for (kind, hit) in disruption_counts(resources) {
            let word = match kind {
                Disruption::None => "not disturbed",
                Disruption::Live => "changed live",
                Disruption::Reboot => "rebooted",
                Disruption::Replace => "lose their disk",
            };
            let _ = writeln!(page, "<li class=\"{}\"><b>{hit}</b> {word}</li>", class_of(kind));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("<ul class=\"tiles\">\n");
    let (before, after) = &topology.sums;
    let both = |number: &dyn Fn(&Sums) -> String| (number(before), number(after));
    let numbers = [
        ("servers", both(&|sums| sums.servers.to_string())),
        ("vCPUs", both(&|sums| sums.vcpus.to_string())),
        ("memory", both(&|sums| ByteSize(sums.memory).to_string())),
        ("disk", both(&|sums| ByteSize(sums.disk).to_string())),
    ];
    for (word, (before, after)) in numbers {
        let number = if before == after { after } else { format!("{before} → {after}") };
        let _ = writeln!(page, "<li class=\"sum\"><b>{number}</b> {word}</li>");
    }
    page.push_str("</ul>\n");
}

fn notes(page: &mut String, plan: &Plan, source: &Source) {
    let mut note = |class: &str, what: &str, items: Vec<String>| {
        if !items.is_empty() {
            let items =
                items.iter().map(|item| format!("<code>{}</code>", escape(item))).collect::<Vec<_>>().join(", ");
            let _ = writeln!(page, "<p class=\"note {class}\"><b>{what}</b> {items}</p>");
        }
    };
    let conflicts = plan.conflicts.iter().map(|it| format!("{} ({})", it.address, it.claim));
    note("remove", "In the way, and not novella's; this cannot be applied:", conflicts.collect());
    let waiting = plan.waiting.iter().map(|(address, what)| format!("{address} ({})", what.join(", ")));
    note("change", "Waiting for a reboot after this:", waiting.collect());
    note("change", "Left out on demand:", plan.left_out.iter().map(ToString::to_string).collect());
    let alone = plan.left_alone.iter().map(ToString::to_string).collect();
    note("stay", "Left alone, for neither the spec nor the state has it:", alone);
    if !plan.warnings.is_empty() {
        let _ = writeln!(
            page,
            "<div class=\"note change\"><b>{}</b><pre>{}</pre></div>",
            crate::report::count(plan.warnings.len(), "warning"),
            escape(&diagnostics::to_text(&plan.warnings, source)),
        );
    }
}

/// The picture in words.
fn table(page: &mut String, topology: &Topology) {
    page.push_str(
        "<details><summary>The same as a table</summary>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" \
         aria-label=\"Ports\">\n<table class=\"table\">\n<thead><tr><th scope=\"col\">Server</th><th scope=\"col\">Port</th>\
         <th scope=\"col\">Addresses</th><th scope=\"col\">MAC</th></tr></thead>\n<tbody>\n",
    );
    for (server, port) in topology.ports() {
        row(page, server, port);
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
}

fn row(page: &mut String, server: Option<&ServerView>, port: &PortView) {
    let list = |tag: &str, addresses: &[IpAddr]| -> String {
        let each = addresses.iter().map(|address| match tag {
            "" => format!("<code>{address}</code>"),
            tag => format!("<{tag}><code>{address}</code></{tag}>"),
        });
        each.collect::<Vec<_>>().join(" ")
    };
    let addresses = match port.fate {
        Fate::Comes => list("ins", &port.after),
        Fate::Goes => list("del", &port.before),
        Fate::Changes => format!("{} → {}", list("del", &port.before), list("ins", &port.after)),
        Fate::Stays => list("", &port.after),
    };
    let name = server.map_or("-", |server| server.name.as_str());
    let _ = writeln!(
        page,
        "<tr><td>{name}</td><td>{}</td><td>{addresses}</td><td><code>{}</code></td></tr>",
        port.label(),
        port.mac
    );
}

fn changes(page: &mut String, resources: &Resources<'_>, marks: Marks) {
    page.push_str("<h2 id=\"changes\" tabindex=\"-1\">Changes</h2>\n");
    if resources.is_empty() {
        page.push_str("<p>There are none.</p>\n");
        return;
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    for verdict in resources.values().map(|changes| verdict(changes)) {
        if !verdicts.contains(&verdict) {
            verdicts.push(verdict);
        }
    }
    page.push_str(
        "<div class=\"tools\" id=\"tools\" role=\"group\" aria-label=\"Filter\" hidden>\n\
         <input id=\"search\" type=\"search\" placeholder=\"Filter by any word\" aria-label=\"Filter by any word\">\n",
    );
    for verdict in verdicts {
        let symbol = symbol(verdict.action()).0;
        let word = match verdict {
            Verdict::Create => "create",
            Verdict::Update | Verdict::Import => "change",
            Verdict::Replace => "replace",
            Verdict::Delete => "destroy",
            Verdict::Forget | Verdict::Disown => "forget",
            Verdict::Record => "record",
        };
        let _ = writeln!(
            page,
            "<button type=\"button\" aria-pressed=\"true\" data-verdict=\"{symbol}\">{symbol} {word}</button>"
        );
    }
    page.push_str(
        "<button type=\"button\" id=\"unfold\">Unfold all</button>\n<button type=\"button\" id=\"fold\">Fold all</button>\n\
         <span id=\"shown\" class=\"dim\" role=\"status\"></span>\n</div>\n",
    );
    for (address, changes) in resources {
        resource(page, address, changes, marks, resources.len() <= UNFOLDED);
    }
}

fn resource(page: &mut String, address: &Address, changes: &[(usize, &Change)], marks: Marks, unfolded: bool) {
    let verdict = verdict(changes);
    let symbol = symbol(verdict.action()).0;
    let cost = changes.iter().map(|(_, change)| change.cost()).max().unwrap_or_default();
    let chip = match cost {
        Disruption::None => String::new(),
        // Its address says so.
        _ if verdict == Verdict::Delete => String::new(),
        cost => format!(" <span class=\"chip {}\">{}</span>", class_of(cost), cost.as_str()),
    };
    let open = if unfolded || cost >= Disruption::Reboot { " open" } else { "" };
    let _ = writeln!(
        page,
        "<details class=\"resource {}\" id=\"{address}\" data-verdict=\"{symbol}\"{open}>\n<summary><span class=\"symbol\">\
         {symbol}</span> <b>{address}</b> {}{chip}</summary>\n<div>",
        class(verdict.action()),
        escape(&words(changes)),
    );
    for (_, change) in changes {
        object(page, change, marks);
    }
    page.push_str("</div>\n</details>\n");
}

fn object(page: &mut String, change: &Change, marks: Marks) {
    let why = reason_within(change, marks);
    let why = if why.is_empty() { String::new() } else { format!(" <span class=\"dim\">{}</span>", escape(&why)) };
    let _ = writeln!(
        page,
        "<h3 class=\"{}\"><span class=\"symbol\">{}</span> {}{why}</h3>",
        class(change.action),
        symbol(change.action).0,
        escape(&title(change)),
    );
    let attributes = attributes_of(change);
    if attributes.is_empty() {
        return;
    }
    page.push_str("<dl>\n");
    for Attribute { name, before, after, note } in attributes {
        let side = |tag: &str, value: Option<String>| value.map(|it| format!("<{tag}>{}</{tag}>", escape(&it)));
        let sides: Vec<String> = [side("del", before), side("ins", after)].into_iter().flatten().collect();
        let note = if note.is_empty() { String::new() } else { format!(" <span class=\"dim\"># {note}</span>") };
        let _ = writeln!(page, "<dt>{}</dt><dd>{}{note}</dd>", escape(&name), sides.join(" → "));
    }
    page.push_str("</dl>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_text() {
        assert_eq!(escape("<b onclick='x'>\"&\u{202e}"), "&lt;b onclick=&#39;x&#39;&gt;&quot;&amp;\\u{202e}");
    }

    #[test]
    fn what_is_put_into_the_page_cannot_end_its_element() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
