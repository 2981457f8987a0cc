//! What the system's own tools say is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::Value;

use crate::lab::Lab;
use crate::model::PROJECT;

/// Everything in one go, for entering a lab takes its time.
const LOOK: &str = r#"
set -e
ip -j -d link; echo; echo @@@
ip -j -4 address; echo; echo @@@
nft list ruleset; echo @@@
for process in /proc/[0-9]*; do
    [ "$(cat "$process/comm" 2>/dev/null)" = dnsmasq ] || continue
    [ "$(sed -n 's/^State:\t\(.\).*/\1/p' "$process/status")" != Z ] || continue
    echo "${process#/proc/} $(tr '\0' ' ' <"$process/cmdline")"
done
echo @@@
for domain in $(virsh -q -c qemu:///system list --all --name); do
    echo "$domain"
    virsh -q -c qemu:///system domstate "$domain"
    virsh -q -c qemu:///system dumpxml --inactive "$domain"
    echo @@
done
echo @@@
for disk in "$0"/*/instances/*/disk.qcow2; do
    [ ! -e "$disk" ] || { echo "$disk"; qemu-img info -U --output=json "$disk"; echo @@; }
done
"#;

#[derive(Debug, Default)]
pub struct World {
    pub links: Vec<Value>,
    /// The addresses of each link, with their prefix lengths.
    pub addresses: BTreeMap<String, BTreeSet<String>>,
    pub ruleset: String,
    /// Pid and command line.
    pub dnsmasqs: Vec<(String, String)>,
    /// State and definition, by name.
    pub domains: BTreeMap<String, (String, String)>,
    /// What qemu-img says, by server.
    pub disks: BTreeMap<String, Value>,
    /// The inodes of the disks.
    pub inodes: BTreeMap<String, u64>,
    /// MAC and address of each host entry, by server and network.
    pub ports: BTreeMap<(String, String), (String, String)>,
    /// What stands beside it for DNS.
    pub names: BTreeMap<(String, String), String>,
    /// All files and directories of the project, from its directory on.
    pub files: BTreeSet<String>,
}

impl World {
    pub fn look(lab: &Lab) -> Self {
        let mut world = Self::default();
        let said = lab.sh(&format!(
            "data={}; set -- ; sh -c '{}' \"$data\"",
            lab.data().display(),
            LOOK.replace('\'', r"'\''")
        ));
        let parts: Vec<&str> = said.split("@@@\n").collect();
        let [links, addresses, ruleset, dnsmasqs, domains, disks] = parts[..] else { panic!("what is this? {said}") };
        let array = |text: &str| match serde_json::from_str(text.trim()) {
            Ok(Value::Array(array)) => array,
            other => panic!("no array: {other:?} in {text}"),
        };
        world.links = array(links);
        for link in array(addresses) {
            let of_link = link["addr_info"].as_array().into_iter().flatten();
            let told = of_link.map(|it| format!("{}/{}", it["local"].as_str().unwrap_or_default(), it["prefixlen"]));
            world.addresses.insert(string(&link["ifname"]), told.collect());
        }
        world.ruleset = ruleset.to_owned();
        world.dnsmasqs = dnsmasqs
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(pid, line)| (pid.into(), line.into()))
            .collect();
        for domain in domains.split("@@\n").filter(|it| !it.trim().is_empty()) {
            let (name, rest) = domain.split_once('\n').expect("a name");
            let (state, xml) = rest.split_once('\n').expect("a state");
            world.domains.insert(name.into(), (state.into(), xml.trim().into()));
        }
        for disk in disks.split("@@\n").filter(|it| !it.trim().is_empty()) {
            let (path, json) = disk.split_once('\n').expect("a path");
            let server = Path::new(path).parent().and_then(Path::file_name).expect("a directory").to_string_lossy();
            world.disks.insert(server.clone().into_owned(), serde_json::from_str(json).expect("JSON"));
            world.inodes.insert(server.into_owned(), fs::metadata(path).expect("a disk").ino());
        }
        let root = lab.data().join(PROJECT);
        walk(&root, &root, &mut world.files);
        for file in &world.files {
            if let ["networks", network, "hosts", server] = file.split('/').collect::<Vec<_>>()[..] {
                let line = fs::read_to_string(root.join(file)).expect("a host entry");
                let words: Vec<&str> = line.trim_end().split(',').collect();
                let [mac, address, name] = words[..] else { panic!("{file}: {line}") };
                assert_eq!(name, format!("{server}."), "{file}");
                let key = (server.to_owned(), network.to_owned());
                if let Ok(names) = fs::read_to_string(root.join("networks").join(network).join("names").join(server)) {
                    world.names.insert(key.clone(), names);
                }
                world.ports.insert(key, (mac.into(), address.into()));
            }
        }
        world
    }

    /// The bridges that carry the project's mark, by network.
    pub fn bridges(&self) -> Vec<(String, &Value)> {
        let mark = format!("novella:{PROJECT}:network.");
        let named = |link: &Value| link["ifalias"].as_str()?.strip_prefix(&mark).map(str::to_owned);
        self.links.iter().filter_map(|link| Some((named(link)?, link))).collect()
    }
}

pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn walk(root: &Path, directory: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        into.insert(path.strip_prefix(root).expect("below").to_string_lossy().into_owned());
        if path.is_dir() {
            walk(root, &path, into);
        }
    }
}
