//! Writes specs of any size.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use novella::desired::Desired;

/// How many servers stand in one file: a file may have 1 MiB.
const SERVERS_A_FILE: usize = 2000;

/// The image of a spec that is only planned.
pub const NO_IMAGE: &str = "/images/base.qcow2";

/// A spec with so many networks and servers, the servers spread over the networks and shut off, each with a table of its
/// own. The project has its files in `data_dir`.
pub fn write(dir: &Path, project: &str, networks: usize, servers: usize, image: &str, data_dir: &Path) -> PathBuf {
    let dir = dir.join(project);
    fs::create_dir_all(&dir).expect("a directory");
    // Writing to a string cannot fail.
    let mut text = format!(
        r#"novella = 1

[project]
name = "{project}"

[host.local]
data_dir = "{}"
virt_type = "qemu"
cpu_allocation_ratio = 1000.0
ram_allocation_ratio = 1000.0
disk_allocation_ratio = 1000.0

[image.base]
source = "{image}"
format = "qcow2"

[flavor.small]
ram = "128 MiB"
disk = "1 GiB"
"#,
        data_dir.display()
    );
    // Two projects on one host may not have the same addresses.
    let second = 64 + project.bytes().map(usize::from).sum::<usize>() % 128;
    for network in 0..networks {
        let _ = write!(
            text,
            "\n[network.net-{network}]\n\n[subnet.net-{network}-v4]\nnetwork = \"net-{network}\"\n\
             cidr = \"10.{second}.{network}.0/24\"\n"
        );
    }
    fs::write(dir.join("networks.toml"), text).expect("a file");
    for (number, first) in (0..servers).step_by(SERVERS_A_FILE).enumerate() {
        let mut text = String::new();
        for server in first..servers.min(first + SERVERS_A_FILE) {
            let _ = write!(
                text,
                "[server.vm-{server}]\nimage = \"base\"\nflavor = \"small\"\nnetworks = [\"net-{}\"]\npower = \"off\"\n\n",
                server % networks
            );
        }
        fs::write(dir.join(format!("servers-{number}.toml")), text).expect("a file");
    }
    dir
}

/// A network that nobody is on, with an MTU: the file, and what it says. To be edited, it is cheap.
pub const EDGE: &str = "edge.toml";

pub fn edge(mtu: usize) -> String {
    format!("[network.edge]\nmtu = {mtu}\n\n[subnet.edge-v4]\nnetwork = \"edge\"\ncidr = \"10.250.0.0/24\"\n")
}

/// A network that is a /16, with so many servers on it.
pub fn of_ports(ports: usize) -> Desired {
    let text = format!(
        "[network.n]\n[subnet.s]\nnetwork = \"n\"\ncidr = \"10.1.0.0/16\"\n[image.i]\nsource = \"/i\"\nformat = \"raw\"\n\
         [flavor.f]\nram = \"64 MiB\"\ndisk = \"1 GiB\"\n[server.s]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"n\"]\n\
         count = {ports}\n"
    );
    let loaded = novella::spec::load::load_texts([("spec.toml", text.as_str())]);
    let (desired, problems) = novella::desired::resolve(&loaded.spec, &loaded.source);
    desired.unwrap_or_else(|| panic!("{problems:#?}"))
}
