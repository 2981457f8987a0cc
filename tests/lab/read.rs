//! What novella says, in a form that can be compared.

/// The changes of a plan, one a line: `server.web ~ domain # changed on the host, live`.
pub fn changes(plan: &str) -> Vec<String> {
    let mut changes = Vec::new();
    let mut resource = "";
    for line in plan.lines() {
        if let Some(head) = line.strip_prefix("  # ") {
            resource = head.split(' ').next().unwrap_or_default();
        } else if let Some(object) = object(line) {
            changes.push(format!("{resource} {}", object.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    changes
}

/// What a plan says of the attributes of one of its changes, one a line: `~ mtu = 1500 -> 1400`. The change is named by
/// its first words: `network.private ~ bridge`.
pub fn attributes(plan: &str, change: &str) -> Vec<String> {
    let mut attributes = Vec::new();
    let (mut resource, mut inside) = ("", false);
    for line in plan.lines() {
        if let Some(head) = line.strip_prefix("  # ") {
            resource = head.split(' ').next().unwrap_or_default();
            inside = false;
        } else if let Some(object) = object(line) {
            inside = format!("{resource} {object}").starts_with(change);
        } else if inside && line.starts_with("        ") {
            attributes.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    attributes
}

/// The value that a plan shows for a new object: of the server `web`, the `address`.
pub fn planned(plan: &str, change: &str, attribute: &str) -> String {
    let attributes = attributes(plan, change);
    let prefix = format!("+ {attribute} = ");
    let value = attributes.iter().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("{change} has no {attribute}:\n{plan}")).to_owned()
}

/// The steps that a run began, sorted: `server.web domain Creating`. A step that was tried again is there once.
pub fn steps(out: &str) -> Vec<String> {
    let mut steps: Vec<String> = out
        .lines()
        .filter_map(|line| {
            let (what, doing) = line.strip_suffix("...")?.rsplit_once(": ")?;
            Some(format!("{} {doing}", what.replacen(": ", " ", 1)))
        })
        .collect();
    steps.sort();
    steps
}

/// A line that begins with the symbol of an action is about an object; attributes stand further in.
fn object(line: &str) -> Option<&str> {
    let text = line.strip_prefix("  ")?;
    let (symbol, title) = text.split_at_checked(3)?;
    let known = ["+", "~", "-/+", "+/-", "-", ".", "="].contains(&symbol.trim());
    (known && title.starts_with(' ')).then(|| text.trim_start())
}
