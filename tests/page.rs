//! The page of a plan: what is in it, and how a browser shows it.
//!
//! The second takes Chromium: `chromium`, or what `NOVELLA_TEST_CHROMIUM` names.

#![allow(clippy::print_stdout, reason = "it says why something is skipped")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{BASE, PORTS, SEEDS, converge, desired, plan};
use novella::address::Name;
use novella::host::sim::SimHost;
use novella::reconcile;
use novella::report;
use novella::report::graph::{Format, Graph};
use novella::spec::Source;
use novella::store::memory::MemoryStore;

/// Text that would become a part of the page if it were not escaped.
const HOSTILE: &str = "</dd><img src=x onerror=alert(1)><script>alert(2)</script>";

/// The pages of some plans, each by what it shows.
fn pages() -> Vec<(&'static str, String)> {
    let large = format!("{}{PORTS}{SEEDS}", BASE.replace("count = 2", "count = 30"));
    let edited = large
        .replace("count = 30", "count = 31")
        .replace("10.20.0.50", "10.20.0.60")
        .replace("[server.spare]", "[server.a-name-that-is-as-long-as-a-name-can-be-with-sixty-3-characters]")
        .replace("hunter2", "hunter3")
        .replace("redis", "valkey");
    let hostile = BASE.replace("kernel = ", &format!("cmdline = \"{HOSTILE}\"\nkernel = "));
    let page = |specs: &[&str]| {
        let (host, store) = (SimHost::new(), MemoryStore::default());
        let (last, before) = specs.split_last().expect("a spec");
        for spec in before {
            converge(spec, &host, &store);
        }
        let recorded = store.snapshot();
        let plan = plan(last, recorded.clone(), &host);
        report::html::render(&plan, &recorded, &Source::default(), &Name::default_project(), None)
    };
    vec![
        ("all is new", page(&[&large])),
        ("much changes", page(&[&large, &edited])),
        ("all goes", page(&[BASE, ""])),
        ("nothing changes", page(&[BASE, BASE])),
        ("hostile", page(&[&hostile])),
    ]
}

#[test]
fn a_page_needs_nothing_and_takes_nothing_in() {
    for (what, page) in pages() {
        for outside in ["<link", "<img", "<iframe", "<script ", "url(", "@import", " style="] {
            assert!(!page.contains(outside), "{what}: {outside}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{what}");
        assert!(!page.contains("hunter"), "{what}");
        for tag in ["details", "dl", "table", "svg", "g", "ul", "section", "div", "title", "text"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{what}: {tag}");
        }
    }
    let pages = pages();
    let page = |what: &str| &pages.iter().find(|(it, _)| *it == what).expect("a page").1;
    for shown in ["10.20.0.50</text>", "10.20.0.60</text>", "fd41::", "server.web-31", "port.vip", "10.40.0.40"] {
        assert!(page("much changes").contains(shown), "{shown}");
    }
    assert!(page("nothing changes").contains("No changes.") && page("nothing changes").contains(">web-1</text>"));
    assert!(page("hostile").contains("&lt;img src=x onerror=alert(1)&gt;"));
}

/// Pictures of graphs, in a page around them.
fn graphs() -> Vec<(&'static str, String)> {
    let (host, store) = (SimHost::new(), MemoryStore::default());
    converge(&format!("{BASE}{PORTS}{SEEDS}"), &host, &store);
    let edited =
        BASE.replace("[server.spare]", "[server.a-name-that-is-as-long-as-a-name-can-be-with-sixty-3-characters]");
    let (blueprint, _) = reconcile::blueprint(&desired(&edited), &store.snapshot(), &host).expect("a blueprint");
    let plan = plan(&edited, store.snapshot(), &host);
    let blueprint = Graph::of_objects(&blueprint);
    let page = |graph: &Graph| {
        let picture = graph.render(Format::Svg);
        format!(
            "<!doctype html><body><div class=\"scroll\" tabindex=0 aria-label=\"Graph\" style=\"overflow:auto\">{picture}</div>"
        )
    };
    vec![("a graph", page(&blueprint)), ("a graph with a plan", page(&blueprint.with_objects_of(&plan)))]
}

/// Where Chromium is.
fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("NOVELLA_TEST_CHROMIUM").map(PathBuf::from);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&paths).map(|it| it.join("chromium")).find(|it| it.is_file()))
}

/// Looks at all pages in frames of several widths, and writes what is wrong into itself.
const JUDGE: &str = r##"
const wrong = [];
let looked = 0;
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const light = (color) => {
  const [r, g, b] = channels(color).slice(0, 3).map((it) => it / 255).map((it) => it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const behind = (view, element) => {
  const box = element.closest("g") && element.closest("g").querySelector(":scope > rect.box");
  if (box) return view.getComputedStyle(box).fill;
  for (let it = element; it; it = it.parentElement) {
    const color = view.getComputedStyle(it).backgroundColor;
    const [, , , alpha = 1] = channels(color);
    if (alpha > 0) return color;
  }
  return "rgb(255, 255, 255)";
};
addEventListener("load", () => {
  for (const frame of document.querySelectorAll("iframe")) {
    const view = frame.contentWindow, page = frame.contentDocument, say = (what) => wrong.push(`${frame.title}: ${what}`);
    page.querySelectorAll("details").forEach((it) => (it.open = true));
    const root = page.documentElement;
    if (root.clientWidth !== frame.clientWidth) say(`${root.clientWidth} px of ${frame.clientWidth}`);
    if (root.scrollWidth > root.clientWidth) say(`is ${root.scrollWidth} px wide`);
    if (view.matchMedia("(prefers-color-scheme: dark)").matches !== DARK) say("has the other colours");
    for (const it of page.querySelectorAll(".scroll")) {
      if (it.tabIndex !== 0 || !it.getAttribute("aria-label")) say("cannot be scrolled by key");
    }
    for (const it of page.querySelectorAll("svg text")) {
      const { x, width } = it.getBBox();
      if (x < 0 || x + width > it.ownerSVGElement.width.baseVal.value + 1) say(`${it.textContent} reaches out of the picture`);
    }
    for (const it of page.querySelectorAll("svg rect.box")) {
      const name = it.parentElement.querySelector(".name").getBBox(), box = it.getBBox();
      if (name.x + name.width > box.x + box.width) say(`${it.parentElement.textContent} reaches out of its box`);
    }
    const walker = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE", "TITLE"].includes(element.tagName.toUpperCase())) continue;
      const style = view.getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
      const seen = contrast(ink, behind(view, element));
      looked += 1;
      if (seen < 4.5) say(`${seen.toFixed(2)} to 1: ${walker.currentNode.data.trim()}`);
    }
    const tools = page.getElementById("tools"), all = [...page.querySelectorAll(".resource")];
    if (all.length === 0) continue;
    if (!tools || tools.hidden) { say("the script did not run"); continue; }
    const visible = () => all.filter((it) => it.getClientRects().length > 0).length;
    page.getElementById("search").value = all.at(-1).id;
    page.getElementById("search").dispatchEvent(new Event("input"));
    if (visible() === 0 || visible() === all.length && all.length > 1) say(`the filter shows ${visible()} of ${all.length}`);
    page.getElementById("search").value = "";
    page.getElementById("search").dispatchEvent(new Event("input"));
    tools.querySelectorAll("[data-verdict]").forEach((it) => it.click());
    if (visible() !== 0) say(`${visible()} are shown where none are wanted`);
    tools.querySelectorAll("[data-verdict]").forEach((it) => it.click());
    page.getElementById("fold").click();
    if (page.querySelector(".resource[open]")) say("something is not folded");
  }
  document.body.replaceChildren();
  const found = document.createElement("pre");
  found.textContent = [`looked at ${looked}`, ...wrong].join("\n");
  document.body.append(found);
});
"##;

#[test]
fn a_browser_shows_it_narrow_and_wide_light_and_dark() {
    let Some(chromium) = chromium() else {
        println!("skipped: there is no Chromium; `apt-get install chromium`, or name one with NOVELLA_TEST_CHROMIUM");
        return;
    };
    for dark in [false, true] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut text =
            format!("<!doctype html><meta charset=utf-8><script>const DARK = {dark};{JUDGE}</script><body>\n");
        for (what, page) in pages().into_iter().chain(graphs()) {
            for width in [400, 700, 1400] {
                let page = page.replace('&', "&amp;").replace('"', "&quot;");
                text.push_str(&format!(
                    "<iframe title=\"{what}, {width}\" style=\"border:0;width:{width}px;height:900px\" srcdoc=\"{page}\"></iframe>\n"
                ));
            }
        }
        let file = directory.path().join("judge.html");
        std::fs::write(&file, text).expect("a page");
        let output = Command::new(&chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
            ])
            .args(["--enable-logging=stderr", "--window-size=1500,1000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
            .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
            .arg(format!("file://{}", file.display()))
            .output()
            .expect("Chromium");
        let said = String::from_utf8_lossy(&output.stderr);
        let console: Vec<&str> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{console:#?}");
        let shown = String::from_utf8_lossy(&output.stdout);
        let found = shown.split("<pre>").nth(1).and_then(|rest| rest.split("</pre>").next()).expect("a verdict");
        let (looked, wrong) = found.split_once('\n').unwrap_or((found, ""));
        println!("{}: {looked} pieces of text", if dark { "dark" } else { "light" });
        assert_eq!(wrong, "");
        let pieces: usize = looked.trim_start_matches("looked at ").parse().expect("a number");
        assert!(pieces > 3000, "{pieces}");
    }
}
