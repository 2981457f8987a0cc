//! The same work without novella: the same system calls, programs and libvirt calls, one after the other, by someone who
//! knows beforehand what is to be made, and writes nothing down.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt as _;
use novella::blueprint::object::{Bridge, Dhcp, Disk, Domain, Firewall, HostEntry, Object, RuleChain, VirtType};
use novella::blueprint::{self, Blueprint, HostFacts, Layout};
use novella::host::dhcp::Dnsmasq;
use novella::host::domain_xml;
use novella::plan::world::Recorded;
use novella::{desired, spec};
use rtnetlink::packet_route::link::{BridgeStpState, InfoBridge};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec};
use tokio::runtime::{Builder, Runtime};
use virt::connect::Connect;
use virt::sys;

/// All objects of a project, and the ways to the host.
pub struct Raw {
    blueprint: Blueprint,
    dnsmasq: Dnsmasq,
    layout: Layout,
    /// Each domain and its definition, written before the clock runs.
    definitions: Vec<(String, String)>,
}

impl Raw {
    /// What the spec in this directory asks for.
    pub fn new(specs: &Path) -> Self {
        let loaded = spec::load(specs);
        let (desired, problems) = desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?}"));
        let facts = HostFacts::unknown(VirtType::Qemu);
        let blueprint = blueprint::lower(&desired, &Recorded::default(), &facts).expect("a blueprint");
        let layout = Layout::new(&desired.host.data_dir, &desired.project);
        let definitions = each(&blueprint, |object| match object {
            Object::Domain(domain) => Some(domain),
            _ => None,
        })
        .map(|domain: &Domain| (domain.name.clone(), domain_xml::write(domain).expect("XML")))
        .collect();
        Self { blueprint, dnsmasq: Dnsmasq::new(layout.clone()), layout, definitions }
    }

    /// Makes everything.
    pub fn make(&self) {
        let connect = Connect::open(Some("qemu:///system")).expect("libvirt");
        let netlink = Netlink::open();
        for object in self.blueprint.objects.values() {
            match object {
                Object::Firewall(it) => nft(&["-f", "-"], &ruleset(it)),
                Object::Bridge(it) => netlink.bridge(it),
                Object::Dhcp(it) => self.dhcp(it),
                Object::HostEntry(it) => self.host_entry(it),
                Object::Base(it) => {
                    let novella::blueprint::object::Source::File(source) = &it.source else { continue };
                    fs::create_dir_all(self.layout.bases()).expect("a directory");
                    fs::copy(source, &it.path).expect("a copy");
                }
                Object::Disk(it) => disk(it),
                // No server is told anything or has further disks; and a domain comes after all others, as its kind is the last.
                Object::Volume(_) | Object::Seed(_) | Object::Domain(_) => {}
            }
        }
        for (_, xml) in &self.definitions {
            connect.define_domain_xml(xml).expect("a definition");
        }
    }

    /// Asks for everything there is, in as few questions as there can be. Gives the number of the project's domains.
    pub fn look(&self) -> usize {
        let netlink = Netlink::open();
        netlink.look();
        nft(&["-j", "list", "table", "inet", &format!("novella-{}", self.layout.project)], "");
        let entries = each(&self.blueprint, |object| match object {
            Object::HostEntry(it) => Some(self.files_of(it)),
            _ => None,
        });
        for paths in entries {
            for path in paths {
                fs::read(path).expect("a file of a host entry");
            }
        }
        let connect = Connect::open(Some("qemu:///system")).expect("libvirt");
        let domains = connect.list_all_domains(0).expect("domains");
        let texts = domains.iter().map(|domain| domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).expect("XML"));
        let mark = format!("project=\"{}\"", self.layout.project);
        texts.filter(|text| text.contains(&mark)).count()
    }

    /// Undefines one domain.
    pub fn lose_one(&self) {
        let connect = Connect::open(Some("qemu:///system")).expect("libvirt");
        let domain = connect.lookup_domain_by_name(&self.definitions[0].0).expect("a domain");
        domain.undefine().expect("undefined");
    }

    /// Looks which domains there are, and defines the missing ones.
    pub fn repair(&self) {
        let connect = Connect::open(Some("qemu:///system")).expect("libvirt");
        let domains = connect.list_all_domains(0).expect("domains");
        let there: Vec<String> = domains.iter().map(|domain| domain.name().expect("a name")).collect();
        for (_, xml) in self.definitions.iter().filter(|(name, _)| !there.contains(name)) {
            connect.define_domain_xml(xml).expect("a definition");
        }
    }

    /// Takes everything away.
    pub fn clear(&self) {
        let connect = Connect::open(Some("qemu:///system")).expect("libvirt");
        for (name, _) in &self.definitions {
            connect.lookup_domain_by_name(name).expect("a domain").undefine().expect("undefined");
        }
        let netlink = Netlink::open();
        for object in self.blueprint.objects.values() {
            match object {
                Object::Dhcp(it) => {
                    let pid = fs::read_to_string(it.dir.join("pid")).expect("a pid");
                    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a pid"));
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a process");
                }
                Object::Bridge(it) => netlink.remove(&it.device),
                Object::Firewall(it) => nft(&["delete", "table", "inet", &it.table], ""),
                _ => {}
            }
        }
        fs::remove_dir_all(&self.layout.root).expect("our directory");
    }

    fn dhcp(&self, dhcp: &Dhcp) {
        let made = ["hosts", "names", "options"].map(|dir| dhcp.dir.join(dir));
        for dir in &made {
            fs::create_dir_all(dir).expect("a directory");
        }
        for dir in dhcp.dir.ancestors().take(2).chain(made.iter().map(std::path::PathBuf::as_path)) {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("a directory");
        }
        fs::write(dhcp.dir.join("macs.conf"), "").expect("a file");
        let started = Command::new("/usr/sbin/dnsmasq").args(self.dnsmasq.arguments(dhcp)).env_clear().status();
        assert!(started.expect("dnsmasq").success());
    }

    fn host_entry(&self, entry: &HostEntry) {
        let [host, names] = self.files_of(entry);
        let addresses: Vec<String> = entry.addresses.iter().map(|it| it.address.to_string()).collect();
        let name = entry.names().next().expect("a name").1;
        fs::write(&host, format!("{},{},{}.\n", entry.mac, addresses.join(","), entry.hostname)).expect("a host entry");
        fs::write(&names, format!("{} {name}\n", addresses[0])).expect("a name");
        for path in [host, names] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a file of a host entry");
        }
    }

    fn files_of(&self, entry: &HostEntry) -> [std::path::PathBuf; 2] {
        let port = entry.port.to_string();
        let server = port.split('/').next().unwrap_or_default();
        ["hosts", "names"].map(|dir| self.layout.network(entry.network.as_str()).join(dir).join(server))
    }
}

fn each<'a, T: 'a>(
    blueprint: &'a Blueprint,
    which: impl Fn(&'a Object) -> Option<T> + 'a,
) -> impl Iterator<Item = T> + 'a {
    blueprint.objects.values().filter_map(which)
}

fn disk(disk: &Disk) {
    let base = disk.base.as_ref().expect("a base");
    fs::create_dir_all(disk.path.parent().expect("a directory")).expect("a directory");
    let made = Command::new("/usr/bin/qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-u", "-F", base.format.as_str(), "-b"])
        .args([&base.path, &disk.path])
        .arg(disk.size.bytes().to_string())
        .status();
    assert!(made.expect("qemu-img").success());
}

fn ruleset(firewall: &Firewall) -> String {
    let rules = |chain: RuleChain| {
        let rules = firewall.rules.iter().filter(|rule| rule.chain == chain);
        rules.map(|rule| format!("{} comment \"{}\"\n", rule.text, Firewall::rule_mark(rule))).collect::<String>()
    };
    format!(
        "table inet {} {{\nchain forward {{\ntype filter hook forward priority filter; policy accept;\n{}}}\n\
         chain postrouting {{\ntype nat hook postrouting priority srcnat; policy accept;\n{}}}\n}}\n",
        firewall.table,
        rules(RuleChain::Forward),
        rules(RuleChain::Postrouting)
    )
}

fn nft(arguments: &[&str], input: &str) {
    let mut nft = Command::new("/usr/sbin/nft");
    let mut nft = nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("nft");
    nft.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    assert!(nft.wait().expect("nft").success());
}

/// rtnetlink as its documentation shows it.
struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    fn open() -> Self {
        let runtime = Builder::new_current_thread().enable_io().build().expect("a runtime");
        let guard = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
        runtime.spawn(connection);
        drop(guard);
        Self { runtime, handle }
    }

    fn index(&self, device: &str) -> u32 {
        let mut links = self.handle.link().get().match_name(device.to_owned()).execute();
        self.runtime.block_on(links.try_next()).expect("an answer").expect("a link").header.index
    }

    fn bridge(&self, bridge: &Bridge) {
        let new = LinkMessageBuilder::<LinkBridge>::new(&bridge.device)
            .append_info_data(InfoBridge::StpState(BridgeStpState::Disabled))
            .append_info_data(InfoBridge::ForwardDelay(0))
            .address(bridge.mac.0.to_vec())
            .mtu(bridge.mtu)
            .build();
        self.runtime.block_on(self.handle.link().add(new).execute()).expect("a bridge");
        let index = self.index(&bridge.device);
        let alias = LinkUnspec::new_with_index(index).alias(format!("bench:{}", bridge.network)).build();
        self.runtime.block_on(self.handle.link().set(alias).execute()).expect("an alias");
        fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bridge.device), "1").expect("a switch");
        for net in &bridge.addresses {
            let address = net.addr();
            let added = self.handle.address().add(index, address, net.prefix_len()).execute();
            self.runtime.block_on(added).expect("an address");
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        self.runtime.block_on(self.handle.link().set(up).execute()).expect("up");
    }

    fn remove(&self, device: &str) {
        let index = self.index(device);
        self.runtime.block_on(self.handle.link().del(index).execute()).expect("removed");
    }

    fn look(&self) {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>();
        self.runtime.block_on(links).expect("links");
        let addresses = self.handle.address().get().execute().try_collect::<Vec<_>>();
        self.runtime.block_on(addresses).expect("addresses");
    }
}
