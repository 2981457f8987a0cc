//! The project's nft table.
//!
//! The table `inet novella-<project>` is ours by its name. It is always written as a whole, in one transaction: a packet
//! meets the old rules or the new ones, never half of them, and connections that are open stay open. Each rule carries
//! a digest of its own text as its comment, by which it is known again when the table is listed, for nft lists a rule in
//! other words than it was given.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::address::Name;
use crate::blueprint::dhcp::IpVersion;
use crate::blueprint::facts::Facts;
use crate::blueprint::key::{firewall_key, firewall_table};
use crate::blueprint::object::{Firewall, Rule, RuleChain};
use crate::host::{HostError, command};
use crate::plan::world::Observed;

/// The host's switch for forwarding packets (`ip-sysctl.rst` of the kernel).
const fn switch(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "/proc/sys/net/ipv4/ip_forward",
        IpVersion::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
    }
}

/// The nft table of one project.
pub struct Nft {
    project: Name,
    table: String,
}

impl Nft {
    /// The table of a project. Looks at nothing yet.
    pub fn new(project: &Name) -> Self {
        Self { project: project.clone(), table: firewall_table(project) }
    }

    /// Adds our table, if it is there.
    ///
    /// # Errors
    /// When `nft` is not installed or fails.
    pub fn observe(&self, into: &mut Observed) -> Result<(), HostError> {
        let listed = match json(&["list", "table", "inet", &self.table], || {
            format!("cannot read nft table `inet {}`", self.table)
        }) {
            Ok(listed) => listed,
            Err(error) if cause(&error).contains("No such file or directory") => return Ok(()),
            Err(error) => return Err(error),
        };
        let (rules, marks) = marks(&listed);
        let mut facts = Facts::from([
            (Cow::Borrowed("table"), format!("inet {}", self.table)),
            (Cow::Borrowed("rules"), rules.to_string()),
            (Cow::Borrowed("ruleset"), Firewall::ruleset_digest(marks.iter().map(String::as_str))),
        ]);
        // That it is on is nobody's difference, for others may need it.
        for (fact, version) in [("ip_forward", IpVersion::V4), ("ip6_forward", IpVersion::V6)] {
            if forwards(version) == Some(false) {
                facts.insert(Cow::Borrowed(fact), "off".to_owned());
            }
        }
        into.objects.insert(firewall_key(&self.project), facts);
        Ok(())
    }

    /// Writes the table, and turns the host's forwarding on if it is needed. Never turns it off.
    ///
    /// # Errors
    /// When a rule is not one rule, `nft` fails, or forwarding cannot be turned on.
    pub fn ensure(&self, firewall: &Firewall) -> Result<(), HostError> {
        if firewall.table != self.table {
            return Err(HostError::refused(format!("table `inet {}` is not novella's", firewall.table)));
        }
        let script = self.script(firewall)?;
        tracing::debug!(table = self.table, rules = firewall.rules.len(), "writing nft table");
        self.load(&script, || format!("cannot write nft table `inet {}`", self.table))?;
        // After the rules, so that no packet is forwarded that they drop.
        for (needed, version) in [(firewall.ip_forward, IpVersion::V4), (firewall.ip6_forward, IpVersion::V6)] {
            if needed && forwards(version) == Some(false) {
                turn_on(version)?;
            }
        }
        Ok(())
    }

    /// Removes the table. Forwarding is left as it is.
    ///
    /// # Errors
    /// When `nft` is not installed or fails.
    pub fn remove(&self) -> Result<(), HostError> {
        // `add` first, for `delete` fails on what is not there.
        let script = format!("add table inet {0}\ndelete table inet {0}\n", self.table);
        self.load(&script, || format!("cannot remove nft table `inet {}`", self.table))
    }

    /// The chains of others that drop the packets of our networks unless their own rules accept them, as
    /// `family table chain`: an accept in our table does not overrule a drop in another (moby#52612).
    ///
    /// # Errors
    /// When `nft` is not installed or fails.
    pub fn foreign_forward_drop(&self) -> Result<Vec<String>, HostError> {
        let listed = json(&["list", "chains"], || "cannot list the nft chains".to_owned())?;
        let dropping = items(&listed, "chain").filter(|chain| {
            let (family, table) = (text(chain, "family"), text(chain, "table"));
            text(chain, "hook") == "forward"
                && text(chain, "policy") == "drop"
                && matches!(family, "ip" | "ip6" | "inet" | "bridge")
                && (family, table) != ("inet", &self.table)
        });
        Ok(dropping.map(|it| format!("{} {} {}", text(it, "family"), text(it, "table"), text(it, "name"))).collect())
    }

    /// The table as one nft script, which nft loads in one transaction.
    fn script(&self, firewall: &Firewall) -> Result<String, HostError> {
        let mut script = format!("add table inet {0}\ndelete table inet {0}\ntable inet {0} {{\n", self.table);
        // Writing to a string cannot fail.
        let _ = writeln!(script, "comment \"novella:{}\"", self.project);
        for chain in RuleChain::ALL {
            let (kind, priority) = base(chain);
            let hook = chain.as_str();
            let _ = writeln!(script, "chain {hook} {{\ntype {kind} hook {hook} priority {priority}; policy accept;");
            for rule in firewall.rules.iter().filter(|rule| rule.chain == chain) {
                let _ = writeln!(script, "{} comment \"{}\"", one_rule(rule)?, Firewall::rule_mark(rule));
            }
            script.push_str("}\n");
        }
        script.push_str("}\n");
        Ok(script)
    }

    fn load(&self, script: &str, deed: impl Fn() -> String) -> Result<(), HostError> {
        let mut nft = Command::new(command::find("nft", "nftables")?);
        command::run(nft.args(["-f", "-"]), Some(script.as_bytes()), deed).map(drop).map_err(advise)
    }
}

/// The type and priority of a chain, which is named like its hook. 0 is what nft calls `filter`, 100 `srcnat`.
fn base(chain: RuleChain) -> (&'static str, i32) {
    match chain {
        RuleChain::Input | RuleChain::Forward => ("filter", 0),
        RuleChain::Postrouting => ("nat", 100),
    }
}

fn json(arguments: &[&str], deed: impl Fn() -> String) -> Result<Value, HostError> {
    let mut nft = Command::new(command::find("nft", "nftables")?);
    let said = command::run(nft.arg("-j").args(arguments), None, &deed).map_err(advise)?;
    serde_json::from_slice(&said).map_err(|error| HostError::new(deed(), error))
}

fn turn_on(version: IpVersion) -> Result<(), HostError> {
    let deed = || format!("cannot turn on {version} forwarding");
    if version == IpVersion::V6
        && let Some(interface) = loses_its_route()
    {
        return Err(HostError::new(deed(), format!("the host would lose its own default route on `{interface}`")).help(
            format!(
                "let it heed router advertisements while it forwards: `sysctl net.ipv6.conf.{interface}.accept_ra=2`, and \
                 the same in /etc/sysctl.d"
            ),
        ));
    }
    tracing::info!("turning on {version} forwarding");
    let name = switch(version).trim_start_matches("/proc/sys/").replace('/', ".");
    std::fs::write(switch(version), "1\n")
        .map_err(|error| HostError::new(deed(), error).help(format!("run as root: `sysctl {name}=1`")))
}

/// Whether the host forwards packets of this version; none where that cannot be read.
pub fn forwards(version: IpVersion) -> Option<bool> {
    let value = std::fs::read_to_string(Path::new(switch(version))).ok()?;
    Some(value.trim() != "0")
}

/// The interface by which the host has its own way into the world from router advertisements, and would lose it if it
/// forwarded IPv6: a router does not heed them, unless it is told to (`accept_ra` 2 in `ip-sysctl.rst`).
pub fn loses_its_route() -> Option<String> {
    /// Of `/proc/net/ipv6_route`: a default route that was advertised (`RTF_DEFAULT` in `linux/ipv6_route.h`).
    const ADVERTISED: u32 = 0x0001_0000;
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    let interfaces = routes.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(words.get(8)?, 16).ok()?;
        (flags & ADVERTISED != 0).then(|| words.get(9).map(|name| (*name).to_owned()))?
    });
    // With 0 it heeds no new ones, and loses what it has from old ones all the same.
    let loses = |name: &String| {
        let accepts = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"));
        accepts.is_ok_and(|value| value.trim() != "2")
    };
    interfaces.into_iter().find(loses)
}

/// How many rules a listed table has, and the marks of all that it holds, in order. What is not as we write it gets a
/// mark that no rule of ours has, so that the table differs from any that is wanted.
fn marks(listed: &Value) -> (usize, Vec<String>) {
    let (mut rules, mut marks) = (0, Vec::new());
    for chain in RuleChain::ALL {
        for rule in items(listed, "rule").filter(|rule| text(rule, "chain") == chain.as_str()) {
            rules += 1;
            marks.push(match text(rule, "comment") {
                "" => format!("unknown rule {rule}"),
                mark => mark.to_owned(),
            });
        }
        let (kind, priority) = base(chain);
        let as_written = items(listed, "chain").any(|it| {
            text(it, "name") == chain.as_str()
                && text(it, "type") == kind
                && text(it, "hook") == chain.as_str()
                && it["prio"] == priority
                && text(it, "policy") == "accept"
        });
        if !as_written {
            marks.push(format!("no chain {}", chain.as_str()));
        }
    }
    let ours = |name: &str| RuleChain::ALL.iter().any(|chain| chain.as_str() == name);
    for (kind, item) in listed["nftables"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten() {
        let as_written = match kind.as_str() {
            "metainfo" => true,
            // With a flag: a dormant table does nothing.
            "table" => item["flags"].is_null(),
            "chain" => ours(text(item, "name")),
            "rule" => ours(text(item, "chain")),
            _ => false,
        };
        if !as_written {
            rules += usize::from(kind == "rule");
            marks.push(format!("unknown {kind} {item}"));
        }
    }
    (rules, marks)
}

/// The text of a rule, if it cannot end the rule, the chain or the script it is written into.
fn one_rule(rule: &Rule) -> Result<&str, HostError> {
    let odd = |c: char| c.is_control() || matches!(c, ';' | '#' | '{' | '}' | '\\');
    if rule.text.trim().is_empty() || rule.text.contains(odd) || rule.text.matches('"').count() % 2 == 1 {
        return Err(HostError::refused(format!("{:?} is not one nft rule", rule.text)));
    }
    Ok(&rule.text)
}

fn items<'a>(listed: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    listed["nftables"].as_array().into_iter().flatten().filter_map(move |item| item.get(kind))
}

fn text<'a>(item: &'a Value, field: &str) -> &'a str {
    item[field].as_str().unwrap_or_default()
}

fn cause(error: &HostError) -> String {
    error.source.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn advise(error: HostError) -> HostError {
    if cause(&error).contains("Operation not permitted") {
        return error.help("run as root or with CAP_NET_ADMIN");
    }
    error
}
