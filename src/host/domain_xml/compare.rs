//! Two domains side by side: every element, attribute and text in which they differ.
//!
//! Nothing is looked for by its name, so nothing can be overlooked. What does not count stands here: what libvirt chooses
//! by itself and a guest does not see (`LEFT_OUT`, `is_implied`), and what a word that is not there means
//! (`DEFAULTS`, `spell_out`).

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use super::NAMESPACE;
use crate::plan::world::Differing;

/// What libvirt chooses by itself: elements for their text, attributes behind `@`, `*` for any one element.
const LEFT_OUT: [&str; 31] = [
    // Of a running domain, and of its devices on this host.
    "@id",
    "devices/*/alias@name",
    "devices/disk/source@index",
    // The programs and the place of the process that runs it.
    "devices/emulator",
    "resource/partition",
    // The names on the host's side, and those of disks that the guest is not told.
    "devices/interface/target@dev",
    "devices/disk/target@dev",
    // Where devices are plugged in, and the numbers of what they are plugged into.
    "devices/*/address@type",
    "devices/*/address@domain",
    "devices/*/address@bus",
    "devices/*/address@slot",
    "devices/*/address@function",
    "devices/*/address@multifunction",
    "devices/*/address@controller",
    "devices/*/address@target",
    "devices/*/address@unit",
    "devices/*/address@port",
    "devices/controller@index",
    "devices/controller/model@name",
    "devices/controller/target@chassis",
    "devices/controller/target@chassisNr",
    "devices/controller/target@port",
    // Whether libvirt refuses to start it on a host with another processor.
    "cpu@check",
    "cpu/model@fallback",
    // The file of the firmware's variables, which is told apart.
    "os/nvram",
    "os/nvram@template",
    // Written for SPICE and VNC alike, and without a guest's notice.
    "devices/graphics/listen@fromConfig",
    "devices/graphics@socket",
    "devices/serial/source@path",
    "devices/console/source@path",
    "devices/console@tty",
];

/// What it means where an attribute is not there: the element that it belongs to, the attribute, the value.
const DEFAULTS: [(&str, &str, &str); 24] = [
    ("memory", "unit", "KiB"),
    ("currentMemory", "unit", "KiB"),
    ("vcpu", "placement", "static"),
    ("clock", "offset", "utc"),
    ("devices/disk", "device", "disk"),
    ("devices/disk/driver", "name", "qemu"),
    ("devices/disk/driver", "type", "raw"),
    ("devices/disk/driver", "cache", "writeback"),
    ("devices/disk/driver", "discard", "ignore"),
    ("devices/interface/mtu", "size", "1500"),
    ("devices/interface/link", "state", "up"),
    ("devices/serial/target", "type", "isa-serial"),
    ("devices/serial/target", "port", "0"),
    ("devices/serial/target/model", "name", "isa-serial"),
    ("devices/console/target", "type", "serial"),
    ("devices/console/target", "port", "0"),
    ("devices/graphics", "port", "-1"),
    ("devices/graphics/listen", "type", "address"),
    ("devices/graphics/listen", "address", "127.0.0.1"),
    ("devices/video/model", "heads", "1"),
    ("devices/video/model", "primary", "yes"),
    ("on_poweroff", "", "destroy"),
    ("on_reboot", "", "restart"),
    ("on_crash", "", "destroy"),
];

/// Attributes that hold a secret.
const HIDDEN: [&str; 1] = ["passwd"];

/// In what a domain of others, `there`, differs from one that [`write`](super::write) has written, `here`.
///
/// # Errors
/// When one of them is not XML.
pub fn differences(there: &str, here: &str) -> Result<Vec<Differing>, roxmltree::Error> {
    let (there, here) = (Document::parse(there)?, Document::parse(here)?);
    let (mut there, mut here) = (Element::read(there.root_element()), Element::read(here.root_element()));
    without_own(&mut here, &there);
    align_disks(&there, &mut here);
    normalise(&mut there);
    normalise(&mut here);
    let mut found = Vec::new();
    compare("", &there, &here, &mut found);
    Ok(found)
}

/// An element with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
    children: Vec<Element>,
}

impl Element {
    fn read(node: Node) -> Self {
        let qualified = |namespace: Option<&str>, name: &str| match namespace
            .and_then(|uri| node.lookup_prefix(uri))
            .filter(|prefix| !prefix.is_empty())
        {
            Some(prefix) => format!("{prefix}:{name}"),
            None => name.to_owned(),
        };
        let tag = node.tag_name();
        let text: String = node.children().filter(Node::is_text).filter_map(|text| text.text()).collect();
        Self {
            name: match tag.namespace() {
                Some(NAMESPACE) => format!("{NAMESPACE}:{}", tag.name()),
                namespace => qualified(namespace, tag.name()),
            },
            attributes: node
                .attributes()
                .map(|it| (qualified(it.namespace(), it.name()), it.value().to_owned()))
                .collect(),
            text: text.trim().to_owned(),
            children: node.children().filter(Node::is_element).map(Self::read).collect(),
        }
    }

    fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn value(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute).map(String::as_str)
    }

    fn is_bare(&self) -> bool {
        self.attributes.is_empty() && self.text.is_empty() && self.children.is_empty()
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The first child of this name, which is made if there is none.
    fn child_mut(&mut self, name: &str) -> &mut Self {
        let place = self.children.iter().position(|child| child.name == name).unwrap_or_else(|| {
            self.children.push(Self::new(name));
            self.children.len() - 1
        });
        &mut self.children[place]
    }

    fn children_mut<'e>(&'e mut self, name: &'static str) -> impl Iterator<Item = &'e mut Self> {
        self.children.iter_mut().filter(move |child| child.name == name)
    }

    fn take(&mut self, name: &str) -> Option<Self> {
        let place = self.children.iter().position(|child| child.name == name)?;
        Some(self.children.remove(place))
    }

    /// As XML on one line.
    fn in_short(&self) -> String {
        let (name, attributes) = (&self.name, self.attributes_in_short());
        if self.text.is_empty() && self.children.is_empty() {
            return format!("<{name}{attributes}/>");
        }
        let children: String = self.children.iter().map(Self::in_short).collect();
        format!("<{name}{attributes}>{}{children}</{name}>", self.text)
    }

    fn attributes_in_short(&self) -> String {
        self.attributes.iter().map(|(name, value)| format!(" {name}='{}'", shown(name, value))).collect()
    }
}

fn shown<'v>(attribute: &str, value: &'v str) -> &'v str {
    if HIDDEN.contains(&attribute) { "(not shown)" } else { value }
}

/// Takes out what novella adds on the host's side: its mark, and the log of a console that has none there.
fn without_own(domain: &mut Element, there: &Element) {
    if let Some(mut metadata) = domain.take("metadata") {
        metadata.children.retain(|child| child.name != format!("{NAMESPACE}:server"));
        domain.children.extend(Some(metadata).filter(|metadata| !metadata.is_bare()));
    }
    let is_logged = |serial: &Element| serial.name == "serial" && serial.child("log").is_some();
    if !there.child("devices").is_some_and(|devices| devices.children.iter().any(is_logged)) {
        domain.child_mut("devices").children_mut("serial").for_each(|serial| drop(serial.take("log")));
    }
}

/// Puts disks into the order that they have there, as far as their serial numbers tell: libvirt sorts them by what they are
/// plugged into.
fn align_disks(there: &Element, here: &mut Element) {
    let disks = |domain: &Element| -> Vec<(usize, Option<String>)> {
        let devices = domain.child("devices").into_iter().flat_map(|devices| devices.children.iter().enumerate());
        let is_disk =
            |disk: &Element| disk.name == "disk" && disk.value("device").is_none_or(|device| device == "disk");
        let serial = |disk: &Element| disk.child("serial").map(|serial| serial.text.clone());
        devices.filter(|(_, disk)| is_disk(disk)).map(|(place, disk)| (place, serial(disk))).collect()
    };
    for (number, (_, serial)) in disks(there).into_iter().enumerate().filter(|(_, (_, serial))| serial.is_some()) {
        let has = disks(here);
        let is = has.iter().skip(number).find(|(_, its)| *its == serial).map(|(place, _)| *place);
        if let (Some(is), Some((place, _))) = (is, has.get(number)) {
            here.child_mut("devices").children.swap(is, *place);
        }
    }
}

fn normalise(domain: &mut Element) {
    for (path, attribute, value) in DEFAULTS {
        let path: Vec<&str> = path.split('/').collect();
        fill_in(domain, &path, attribute, value);
    }
    spell_out(domain);
    let devices = domain.child_mut("devices");
    for disk in devices.children_mut("disk") {
        without_chain(disk);
    }
    for interface in devices.children_mut("interface") {
        say_where(interface);
    }
    for graphics in devices.children_mut("graphics") {
        listen(graphics);
    }
    // The first serial port is written as a console once more.
    let log = devices.child("serial").and_then(|serial| serial.child("log")).cloned();
    for console in devices.children_mut("console").filter(|console| console.child("log") == log.as_ref()) {
        console.take("log");
    }
    leave_out(domain, "");
    domain.children.retain(|child| !is_implied("", child));
    domain.child_mut("devices").children.retain(|device| !is_implied("devices", device));
}

/// Says what is meant where nothing is said. Devices that are not there are not made, parts of them are.
fn fill_in(element: &mut Element, path: &[&str], attribute: &str, value: &str) {
    match path {
        [] if attribute.is_empty() && element.text.is_empty() => element.text = value.into(),
        [] if attribute.is_empty() => {}
        [] => {
            let its = element.attributes.entry(attribute.into()).or_insert_with(|| value.into());
            // Some say it in so many words.
            if its == "default" {
                *its = value.into();
            }
        }
        ["devices", kind, rest @ ..] => {
            let devices = element.child_mut("devices");
            devices
                .children
                .iter_mut()
                .filter(|it| it.name == *kind)
                .for_each(|it| fill_in(it, rest, attribute, value));
        }
        [name, rest @ ..] => fill_in(element.child_mut(name), rest, attribute, value),
    }
}

/// The defaults that depend on other values.
fn spell_out(domain: &mut Element) {
    let memory = domain.child_mut("memory").clone();
    let current = domain.child_mut("currentMemory");
    if current.text.is_empty() {
        (current.text, current.attributes) = (memory.text, memory.attributes);
    }
    let vcpu = domain.child_mut("vcpu");
    let all = vcpu.text.clone();
    vcpu.attributes.entry("current".into()).or_insert(all);
    let cpu = domain.child_mut("cpu");
    match cpu.value("mode") {
        Some("host-passthrough" | "maximum") => fill_in(cpu, &[], "migratable", "on"),
        Some("custom") => fill_in(cpu, &[], "match", "exact"),
        _ => {}
    }
    starts(domain);
    let os = domain.child_mut("os");
    // libvirt writes no command line that is empty.
    os.children.retain(|child| child.name != "cmdline" || !child.is_bare());
    // A version stands for a machine as it was, so that guests do not notice an update of QEMU.
    let kind = os.child_mut("type");
    for (family, is) in [("pc-q35-", "q35"), ("pc-i440fx-", "pc")] {
        if kind.value("machine").is_some_and(|machine| machine.starts_with(family)) {
            kind.attributes.insert("machine".into(), is.into());
        }
    }
    firmware(os);
    let devices = domain.child_mut("devices");
    for video in devices.children_mut("video") {
        let model = video.child_mut("model");
        if model.value("type") == Some("vga") {
            fill_in(model, &[], "vram", "16384");
        }
    }
    // Without a word there is one for USB.
    let is_usb = |it: &Element| it.name == "controller" && it.value("type") == Some("usb");
    if !devices.children.iter().any(is_usb) {
        let mut usb = Element::new("controller");
        usb.attributes.insert("type".into(), "usb".into());
        usb.attributes.insert("model".into(), "qemu-xhci".into());
        devices.children.push(usb);
    }
    for usb in devices.children.iter_mut().filter(|it| is_usb(it) && it.value("model") == Some("qemu-xhci")) {
        fill_in(usb, &[], "ports", "15");
    }
}

/// To start from the one disk that has a place in the order is to start from a disk.
fn starts(domain: &mut Element) {
    if domain.child("os").is_some_and(|os| os.child("boot").is_some()) {
        return;
    }
    let devices = domain.child_mut("devices");
    let mut ordered: Vec<&mut Element> = devices.children.iter_mut().filter(|it| it.child("boot").is_some()).collect();
    let is_one = match ordered.as_mut_slice() {
        [] => true,
        [it] if it.name == "disk" && it.value("device") == Some("disk") => {
            let boot =
                it.child("boot").is_some_and(|boot| boot.attributes.keys().eq(["order"]) && boot.children.is_empty());
            boot && it.take("boot").is_some()
        }
        _ => false,
    };
    if is_one {
        domain.child_mut("os").child_mut("boot").attributes.insert("dev".into(), "hd".into());
    }
}

/// UEFI is named by its features, or by the file that it is in. The file is libvirt's choice where the features are named.
fn firmware(os: &mut Element) {
    let is_pflash = |loader: &Element| loader.value("type") == Some("pflash");
    let is_named = os.value("firmware") == Some("efi");
    if !is_named && !os.child("loader").is_some_and(is_pflash) {
        return;
    }
    let mut secure = false;
    if let Some(loader) = os.children_mut("loader").next() {
        secure = loader.attributes.remove("secure").is_some_and(|secure| secure == "yes");
        for (attribute, usual) in [("readonly", "yes"), ("type", "pflash")] {
            if loader.value(attribute) == Some(usual) {
                loader.attributes.remove(attribute);
            }
        }
        if is_named {
            loader.text.clear();
        }
    }
    os.children.retain(|child| child.name != "loader" || !child.is_bare());
    os.attributes.insert("firmware".into(), "efi".into());
    let features = os.child_mut("firmware");
    for name in ["enrolled-keys", "secure-boot"] {
        let is_it = |feature: &Element| feature.name == "feature" && feature.value("name") == Some(name);
        if !features.children.iter().any(is_it) {
            let mut feature = Element::new("feature");
            feature.attributes.insert("name".into(), name.into());
            feature.attributes.insert("enabled".into(), if secure { "yes" } else { "no" }.into());
            features.children.push(feature);
        }
    }
}

/// Takes out what a disk lies over: its content is told apart.
fn without_chain(element: &mut Element) {
    let Some(mut backing) = element.take("backingStore") else { return };
    without_chain(&mut backing);
    backing.attributes.retain(|name, _| !matches!(name.as_str(), "type" | "index"));
    for (child, its) in [("format", &["type"][..]), ("source", &["file", "index"][..])] {
        let Some(mut child) = backing.take(child) else { continue };
        child.attributes.retain(|name, _| !its.contains(&name.as_str()));
        child.children.retain(|label| label.name != "seclabel" || label.value("relabel") != Some("no"));
        backing.children.extend(Some(child).filter(|child| !child.is_bare()));
    }
    element.children.extend(Some(backing).filter(|backing| !backing.is_bare()));
}

/// Makes one word of the kind and the name of what an interface is plugged into.
fn say_where(interface: &mut Element) {
    let kind = interface.attributes.remove("type").unwrap_or_default();
    let source = interface.child_mut("source");
    let on = ["network", "bridge", "dev"].into_iter().find_map(|name| source.attributes.remove(name));
    source.text = [kind, on.unwrap_or_default()].join(" ").trim().to_owned();
}

/// The address to listen at is written twice, and a port that is chosen at the start is none.
fn listen(graphics: &mut Element) {
    let at = graphics.child_mut("listen").value("address").map(str::to_owned);
    if graphics.attributes.get("listen").is_some_and(|it| Some(it) == at.as_ref()) {
        graphics.attributes.remove("listen");
    }
    if graphics.value("port") == Some("-1") {
        graphics.attributes.insert("autoport".into(), "yes".into());
    }
    if graphics.value("autoport") == Some("yes") {
        graphics.attributes.remove("port");
    }
}

/// Takes out what is [`LEFT_OUT`], and elements of which nothing is left by that.
fn leave_out(element: &mut Element, path: &str) {
    let is_left_out = |path: &str| LEFT_OUT.iter().any(|it| matches(it, path));
    element.attributes.retain(|name, _| !is_left_out(&format!("{path}@{name}")));
    if is_left_out(path) {
        element.text.clear();
    }
    element.children.retain_mut(|child| {
        let was_bare = child.is_bare();
        let path = below(path, &child.name);
        leave_out(child, &path);
        was_bare || !child.is_bare()
    });
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

/// Whether a path is of this pattern.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once("/*/") {
        None => pattern == path,
        Some((first, last)) => path
            .strip_prefix(first)
            .and_then(|path| path.strip_prefix('/')?.split_once('/'))
            .is_some_and(|(_, rest)| rest == last),
    }
}

/// What libvirt adds to every domain, or to one that has a device of that kind.
fn is_implied(parent: &str, element: &Element) -> bool {
    let only = |names: &[&str]| {
        element.text.is_empty()
            && element.children.is_empty()
            && element.attributes.keys().all(|name| names.contains(&name.as_str()))
    };
    let is = |name: &str, value: &str| element.value(name) == Some(value);
    match (parent, element.name.as_str()) {
        // What other devices are plugged into is seen by these.
        ("devices", "controller") => {
            ["pci", "sata", "ide", "fdc", "virtio-serial", "ccid"].iter().any(|kind| is("type", kind))
                && only(&["type", "model", "ports"])
        }
        // Every machine has these.
        ("devices", "input") => {
            is("bus", "ps2") && (is("type", "mouse") || is("type", "keyboard")) && only(&["type", "bus"])
        }
        ("devices", "audio") => is("id", "1") && is("type", "none") && only(&["id", "type"]),
        ("devices", "watchdog") => is("model", "itco") && is("action", "reset") && only(&["model", "action"]),
        // What libvirt's confinement does by itself.
        ("", "seclabel") => is("type", "dynamic") && is("relabel", "yes") && only(&["type", "model", "relabel"]),
        ("", "metadata") => element.is_bare(),
        _ => false,
    }
}

/// What tells an element from its siblings of the same name, beside the order.
fn discriminator(path: &str, element: &Element) -> String {
    let told =
        |attributes: &[&str]| attributes.iter().filter_map(|name| element.value(name)).collect::<Vec<_>>().join(" ");
    match (path, element.name.as_str()) {
        ("devices", "disk") => told(&["device"]).replace("disk", ""),
        ("devices", "controller") => told(&["type"]),
        ("devices", "input") => told(&["type", "bus"]),
        (path, _) if path.starts_with("devices") || path == "metadata" => String::new(),
        _ => told(&["name"]),
    }
}

fn compare(path: &str, there: &Element, here: &Element, found: &mut Vec<Differing>) {
    let mut differ = |path: String, there: Option<String>, here: Option<String>| {
        if there != here {
            found.push(Differing { field: path, there, here });
        }
    };
    // Two kinds of a thing have nothing that could be compared one by one.
    let kinds = there.value("type").zip(here.value("type")).filter(|(there, here)| there != here);
    let is_a_kind = path.contains('/') && there.name != "driver" && there.attributes.len() + here.attributes.len() > 2;
    if kinds.is_some() && is_a_kind {
        return differ(path.to_owned(), Some(there.in_short()), Some(here.in_short()));
    }
    let names = here.attributes.keys().filter(|name| !there.attributes.contains_key(*name));
    for name in there.attributes.keys().chain(names) {
        let side = |element: &Element| element.value(name).map(|value| shown(name, value).to_owned());
        if there.value(name) != here.value(name) {
            differ(format!("{path}@{name}"), side(there), side(here));
        }
    }
    let text = |element: &Element| Some(element.text.clone()).filter(|text| !text.is_empty());
    differ(path.to_owned(), text(there), text(here));
    for (label, there, here) in pairs(path, there, here) {
        let path = below(path, &label);
        match (there, here) {
            (Some(there), Some(here)) => compare(&path, there, here, found),
            (there, here) => alone(&path, there, here, found),
        }
    }
}

/// A child with the one that it is on the other side, and what it is called.
type Pair<'e> = (String, Option<&'e Element>, Option<&'e Element>);

/// The children that only their order tells apart.
struct Group<'e> {
    name: &'e str,
    kind: String,
    /// Those there, and those here.
    sides: [Vec<&'e Element>; 2],
}

fn pairs<'e>(path: &str, there: &'e Element, here: &'e Element) -> Vec<Pair<'e>> {
    let mut groups: Vec<Group> = Vec::new();
    for (side, of) in [there, here].into_iter().enumerate() {
        for child in &of.children {
            let (name, kind) = (child.name.as_str(), discriminator(path, child));
            let place = groups.iter().position(|it| it.name == name && it.kind == kind).unwrap_or_else(|| {
                groups.push(Group { name, kind, sides: Default::default() });
                groups.len() - 1
            });
            groups[place].sides[side].push(child);
        }
    }
    let mut pairs = Vec::new();
    for Group { name, kind, sides: [there, here] } in groups {
        let many = there.len().max(here.len());
        let is_numbered = many > 1 || kind.is_empty() && matches!((path, name), ("devices", "disk" | "interface"));
        for number in 0..many {
            let label = match (kind.as_str(), is_numbered) {
                ("", false) => name.to_owned(),
                ("", true) => format!("{name}[{}]", number + 1),
                (kind, false) => format!("{name}[{kind}]"),
                (kind, true) => format!("{name}[{kind} {}]", number + 1),
            };
            pairs.push((label, there.get(number).copied(), here.get(number).copied()));
        }
    }
    pairs
}

/// What only one of them has: a device as a whole, all else part by part.
fn alone(path: &str, there: Option<&Element>, here: Option<&Element>, found: &mut Vec<Differing>) {
    let Some(element) = there.or(here) else { return };
    let is_whole = path.starts_with("devices/") || path.starts_with("metadata/");
    let itself = if is_whole { element.clone() } else { Element { children: Vec::new(), ..element.clone() } };
    if is_whole || !itself.is_bare() || element.children.is_empty() {
        let told = Some(itself.in_short());
        let (there, here) = if there.is_some() { (told, None) } else { (None, told) };
        found.push(Differing { field: path.to_owned(), there, here });
    }
    if is_whole {
        return;
    }
    let nothing = Element::default();
    let (there, here) = (there.unwrap_or(&nothing), here.unwrap_or(&nothing));
    for (label, there, here) in pairs(path, there, here) {
        alone(&below(path, &label), there, here, found);
    }
}
