//! `novella doctor`.

use nix::unistd::Uid;

use crate::blueprint::Layout;
use crate::blueprint::dhcp::IpVersion;
use crate::cli::{FAILED, Global, Stop};
use crate::desired::{self, HostConfig};
use crate::diagnostic::has_errors;
use crate::host::hypervisor::Hypervisor;
use crate::host::kvm::{self, Kvm};
use crate::host::{HostError, command, firewall};
use crate::report::{self, ADD, CHANGE, REMOVE};
use crate::spec;

/// What came of one check.
enum Finding {
    /// All is well.
    Good(String),
    /// It works, with less than there could be.
    Warn(String, String),
    /// It does not work until this is done.
    Bad(String, String),
}

use Finding::{Bad, Good, Warn};

pub(super) fn run(global: &Global) -> Result<(), Stop> {
    // A spec with mistakes in it is no reason not to look at the machine.
    let loaded = spec::load_with(&global.inputs());
    let project = desired::project(&loaded.spec);
    let desired = desired::resolve(&loaded.spec, &loaded.source).0.filter(|_| !has_errors(&loaded.diagnostics));
    let mut findings = vec![rights()];
    if desired.is_none() && !loaded.source.files.is_empty() {
        findings.push(Warn(
            "the spec has mistakes, so the machine is looked at as if `[host.local]` said nothing".into(),
            "see `novella validate`".into(),
        ));
    }
    let host = desired.map_or_else(HostConfig::default, |it| it.host);
    let layout = Layout::new(&host.data_dir, &project);
    findings.extend(libvirt(&host, layout));
    findings.push(kvm());
    for (program, package, what) in [
        ("qemu-system-x86_64", "qemu-system-x86", "runs the guests"),
        ("qemu-img", "qemu-utils", "makes the disks"),
        ("mke2fs", "e2fsprogs", "makes the file systems of ephemeral disks"),
        ("dnsmasq", "dnsmasq-base", "hands out the addresses"),
        ("nft", "nftables", "sets the packet rules"),
    ] {
        findings.push(match command::find(program, package) {
            Ok(path) => Good(format!("{} {what}", path.display())),
            Err(error) => bad(&error),
        });
    }
    findings.extend(forwarding());
    findings.extend(foreign_drop(&project));
    for finding in &findings {
        print(finding);
    }
    let failed = findings.iter().filter(|finding| matches!(finding, Bad(..))).count();
    if failed == 0 {
        report::line("\nThis machine is ready.");
        Ok(())
    } else {
        report::line(format_args!("\n{failed} of {} checks failed.", findings.len()));
        Err(Stop(FAILED))
    }
}

fn rights() -> Finding {
    if Uid::effective().is_root() {
        Good("running as root".into())
    } else {
        Bad(
            "not running as root: bridges, rules and disks cannot be made".into(),
            "run it with sudo; `novella validate` and `--backend sim` need no rights".into(),
        )
    }
}

fn libvirt(host: &HostConfig, layout: Layout) -> Vec<Finding> {
    match Hypervisor::new(&host.libvirt_uri, layout).and_then(|hypervisor| hypervisor.about()) {
        Ok(about) => {
            let reached = Good(format!("libvirt {} with {} at {}", about.libvirt, about.hypervisor, about.uri));
            let confined = match about.confinement {
                Some(model) => Good(format!("guests are confined by {model}")),
                None => Warn(
                    "guests are kept from the host's files by their user id alone".into(),
                    "turn on AppArmor or SELinux, and `security_driver` in /etc/libvirt/qemu.conf".into(),
                ),
            };
            vec![reached, confined]
        }
        Err(error) => vec![bad(&error)],
    }
}

fn kvm() -> Finding {
    match kvm::probe(None) {
        Kvm::Usable => Good("KVM works: a guest ran under it".into()),
        Kvm::Unusable(reason) => Warn(
            format!("KVM cannot be used, so guests run by emulation, many times slower: {reason}"),
            reason.help().into(),
        ),
    }
}

fn forwarding() -> Vec<Finding> {
    let of = |version| match firewall::forwards(version) {
        Some(true) => Good(format!("the host forwards {version} packets")),
        Some(false) => Good(format!(
            "the host does not forward {version} packets yet; `apply` turns it on when a network needs it"
        )),
        None => Warn(format!("cannot tell whether the host forwards {version} packets"), "mount /proc".into()),
    };
    let loses = firewall::loses_its_route().filter(|_| firewall::forwards(IpVersion::V6) == Some(false)).map(|name| {
        Warn(
            format!("a network with IPv6 cannot be made: the host would lose its own default route on `{name}`"),
            format!("`sysctl net.ipv6.conf.{name}.accept_ra=2`, and the same in /etc/sysctl.d"),
        )
    });
    [IpVersion::V4, IpVersion::V6].into_iter().map(of).chain(loses).collect()
}

/// Docker, firewalld and ufw drop what they do not know, bridged guests among it (moby#52612).
fn foreign_drop(project: &crate::address::Name) -> Vec<Finding> {
    match firewall::Nft::new(project).foreign_forward_drop() {
        Ok(chains) => chains
            .into_iter()
            .map(|chain| {
                Warn(
                    format!("the chain `{chain}` drops forwarded packets that it does not know, those of guests too"),
                    format!(
                        "accept them there: `nft insert rule {chain} iifname \"brq*\" accept` and `oifname \"brq*\"`"
                    ),
                )
            })
            .collect(),
        Err(error) => vec![bad(&error)],
    }
}

fn bad(error: &HostError) -> Finding {
    Bad(report::error::chain(error), error.help.clone().unwrap_or_default())
}

fn print(finding: &Finding) {
    let (word, style, text, fix) = match finding {
        Good(text) => ("ok", ADD, text, ""),
        Warn(text, fix) => ("warn", CHANGE, text, fix.as_str()),
        Bad(text, fix) => ("FAIL", REMOVE, text, fix.as_str()),
    };
    report::line(format_args!("{style}{word:<5}{style:#} {}", report::clean(text)));
    if !fix.is_empty() {
        report::line(format_args!("      fix: {}", report::clean(fix)));
    }
}
