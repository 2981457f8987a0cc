//! What others do to a host.

use std::fs;

use crate::check::Memory;
use crate::dice::Dice;
use crate::lab::Lab;
use crate::model::PROJECT;
use crate::world::{World, string};

/// Does some damage, and says what in words; none if there was nothing to damage.
pub fn damage(lab: &Lab, world: &World, memory: &mut Memory, dice: &mut Dice) -> Option<String> {
    let root = lab.data().join(PROJECT);
    let files = |suffixes: &[&str]| -> Vec<String> {
        let found = world.files.iter().filter(|file| suffixes.iter().any(|suffix| file.ends_with(suffix)));
        found.cloned().collect()
    };
    // Whether it works is not the point: what is there may refuse.
    let run = |script: String| {
        lab.try_sh(&script);
        Some(script)
    };
    let bridge = dice.pick(world.bridges().into_iter().map(|(_, link)| string(&link["ifname"])));
    let domain = dice.pick(world.domains.keys().filter(|name| name.starts_with("walk.")).cloned());
    match dice.below(14) {
        0 => run(format!("ip link delete {}", bridge?)),
        1 => {
            let bridge = bridge?;
            let how = dice.pick([
                "link set BR mtu 900",
                "link set BR down",
                "link set BR address 02:00:00:00:00:01",
                "address flush dev BR",
                "address add 192.0.2.7/24 dev BR",
                "link set BR type bridge stp_state 1",
                "link set BR name lost",
            ])?;
            run(format!("ip {}", how.replace("BR", &bridge)))
        }
        2 | 3 => {
            let (pid, line) = dice.pick(world.dnsmasqs.iter())?;
            let signal = dice.pick(["KILL", "TERM"])?;
            lab.try_sh(&format!("kill -{signal} {pid}"));
            Some(format!("kill -{signal} {line}"))
        }
        4 => {
            let domain = domain?;
            let how = dice.pick([
                "undefine DOM",
                "undefine DOM",
                "setmaxmem DOM 40960 --config",
                "destroy DOM",
                "suspend DOM",
                "autostart DOM",
                "start DOM --paused",
            ])?;
            run(format!("virsh -c qemu:///system {}", how.replace("DOM", &domain)))
        }
        5 => {
            let disk = dice.pick(files(&["/disk.qcow2"]))?;
            memory.disks.remove(disk.split('/').nth(1)?);
            fs::remove_file(root.join(&disk)).ok()?;
            Some(format!("rm {disk}"))
        }
        6 => {
            let server = dice.pick(world.disks.keys().cloned())?;
            memory.disks.remove(&server);
            fs::remove_dir_all(root.join("instances").join(&server)).ok()?;
            Some(format!("rm -r instances/{server}"))
        }
        7 => {
            let base = dice.pick(
                files(&[".qcow2", ".raw", ".kernel", ".initrd"]).into_iter().filter(|it| it.starts_with("base/")),
            )?;
            if dice.once_in(2) {
                fs::remove_file(root.join(&base)).ok()?;
                Some(format!("rm {base}"))
            } else {
                let _ = fs::remove_file(root.join(&base));
                fs::write(root.join(&base), "short").ok()?;
                Some(format!("truncate {base}"))
            }
        }
        8 => {
            let entry = dice.pick(world.files.iter().filter(|it| it.contains("/hosts/") || it.contains("/names/")))?;
            if dice.once_in(2) {
                fs::remove_file(root.join(entry)).ok()?;
                Some(format!("rm {entry}"))
            } else {
                fs::write(root.join(entry), "rubbish\n").ok()?;
                Some(format!("rubbish in {entry}"))
            }
        }
        9 => {
            let file =
                dice.pick(files(&["/leases", "/dhcp.json", "/pid", "/log", "/macs.conf", "/network.options"]))?;
            fs::remove_file(root.join(&file)).ok()?;
            Some(format!("rm {file}"))
        }
        10 => {
            let network =
                dice.pick(world.files.iter().filter(|it| it.starts_with("networks/") && it.matches('/').count() == 1))?;
            let what = match dice.pick(["hosts", "names", "options"]) {
                Some(files) if dice.once_in(2) => format!("{network}/{files}"),
                _ => network.clone(),
            };
            fs::remove_dir_all(root.join(&what)).ok()?;
            Some(format!("rm -r {what}"))
        }
        11 => {
            let how = dice.pick([
                "flush table inet novella-walk",
                "delete table inet novella-walk",
                "add rule inet novella-walk forward counter accept",
                "insert rule inet novella-walk postrouting counter",
                "add chain inet novella-walk other",
            ])?;
            run(format!("nft '{how}'"))
        }
        12 => {
            fs::remove_file(lab.state().join("state.json")).ok()?;
            Some("rm state.json".into())
        }
        _ if dice.once_in(2) => {
            memory.disks.clear();
            fs::remove_dir_all(&root).ok()?;
            Some("rm -r the data directory".into())
        }
        _ => None,
    }
}
