//! The process: how it starts, ends, is lost and found again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use novella::blueprint::key::{dhcp_key, host_entry_key};
use novella::blueprint::object::Object;
use novella::host::HostError;

use crate::lab::{BRIDGE, chain, entry, ip, kill_and_wait, lab};

const MACS: [&str; 4] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03", "fa:16:3e:00:00:04"];

#[test]
fn a_killed_dnsmasq_is_seen_and_started_again_with_its_leases() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        assert_eq!(guest.address().as_deref(), Some("10.9.0.11"));
        let before = lab.dnsmasq.leases("private").expect("leases");
        kill_and_wait(lab.pid());
        assert!(lab.net("pid").exists(), "the pid file is stale");
        assert_eq!(lab.process_state(), "stopped");
        // A host entry may come before the server is back, and one with a stale lease in its way.
        let db = lab.host("db", MACS[1], [10, 9, 0, 12]);
        assert_eq!(lab.process_state(), "stopped", "a host entry starts nothing");
        lab.start();
        lab.assert_settled(&[&web, &db]);
        assert_eq!(lab.dnsmasq.leases("private").expect("leases"), before);
        assert!(guest.resolve("web").contains("10.9.0.11"), "its name is known without its asking again");
    });
}

#[test]
fn a_stale_pid_file_kills_nobody() {
    lab(|lab| {
        lab.start();
        let mine = lab.pid();
        // Not even one whose words are ours.
        let words = ["-c", "sleep 60 & wait", "sh", &format!("--pid-file={}", lab.net("pid").display())];
        let mut foreign = Command::new("/bin/sh").args(words).process_group(0).spawn().expect("sh");
        let pid_text = format!("{}\n", foreign.id());
        fs::write(lab.net("pid"), &pid_text).expect("pid file");
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        lab.remove("web");
        let db = lab.host("db", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.11"), "dnsmasq was told of the removal");
        lab.assert_settled(&[&db]);
        assert_eq!(lab.pid(), mine);
        kill_and_wait(mine);
        assert_eq!(lab.process_state(), "stopped");
        fs::write(lab.net("pid"), &pid_text).expect("pid file");
        lab.start();
        fs::write(lab.net("pid"), &pid_text).expect("pid file");
        lab.dnsmasq.remove_server("private").expect("removed");
        assert!(lab.pids().is_empty());
        assert!(foreign.try_wait().expect("sleep").is_none(), "a foreign process was killed");
        killpg(Pid::from_raw(foreign.id() as i32), Signal::SIGKILL).expect("kill");
        foreign.wait().expect("wait");
    });
}

#[test]
fn there_is_never_a_second_dnsmasq() {
    lab(|lab| {
        lab.start();
        let first = lab.pid();
        for lost in ["pid", "dhcp.json"] {
            fs::remove_file(lab.net(lost)).expect("lost");
            lab.start();
            lab.assert_settled(&[]);
            lab.pid();
        }
        assert_ne!(lab.pid(), first, "one without a record is started anew, for nobody knows on which bridge");
        // One with other options, as an older version of ours would have left it, beside the right one.
        let rogue = || {
            let mut arguments = lab.dnsmasq.arguments(&lab.dhcp());
            // Without DNS, or the kernel would not let it have its addresses twice.
            arguments.push("--port=0".into());
            Command::new("/usr/sbin/dnsmasq").args(arguments).status().expect("dnsmasq").success()
        };
        kill_and_wait(lab.pid());
        assert!(rogue());
        assert_eq!(lab.process_state(), "running with other options");
        lab.start();
        lab.assert_settled(&[]);
        assert!(rogue(), "two dnsmasq start on one bridge without a complaint");
        assert_eq!(lab.pids().len(), 2);
        assert_eq!(lab.process_state(), "running more than once");
        lab.start();
        lab.assert_settled(&[]);
        lab.pid();
        // All files gone under a running one.
        fs::remove_dir_all(lab.net("")).expect("removed");
        assert_eq!(lab.process_state(), "running without a record");
        lab.start();
        lab.assert_settled(&[]);
        lab.pid();
    });
}

#[test]
fn what_a_kill_leaves_behind_is_made_good() {
    lab(|lab| {
        let dhcp = lab.dhcp();
        let web = entry("web", MACS[0], [10, 9, 0, 11]);
        let text = |error: HostError| chain(&error);
        assert!(text(lab.dnsmasq.ensure_host(&web).expect_err("no server")).contains("has no DHCP server"));

        // Killed while the directory was made, then with the record half written, then before the start.
        fs::create_dir_all(lab.net("hosts")).expect("directory");
        assert_eq!(lab.process_state(), "stopped");
        fs::write(lab.net("dhcp.json.new"), "{\"netw").expect("half a record");
        fs::write(lab.net("dhcp.json"), "{\"network\":\"priv").expect("half a record");
        assert_eq!(lab.observe()[&dhcp_key(&dhcp.network)].len(), 1, "an unreadable record tells nothing");
        lab.start();
        lab.assert_settled(&[]);

        // Killed while a host entry was written.
        fs::write(lab.net("web.hosts.new"), "fa:16:3e:00").expect("half an entry");
        lab.assert_settled(&[]);
        lab.dnsmasq.ensure_host(&web).expect("host entry");
        lab.assert_settled(&[&web]);
        assert!(!lab.net("web.hosts.new").exists());

        // Garbled by a power loss, or unreadable for dnsmasq.
        let key = host_entry_key(&web.port);
        for garbage in ["", "fa:16:3e:00:00:01,10.9.0.11", "fa:16:3e:00:00:01,10.9.0.11,web.\nx", "\u{1b}[2J\n"] {
            fs::write(lab.net("hosts/web"), garbage).expect("garbage");
            assert_eq!(lab.observe()[&key]["hostname"], "(unreadable)");
            lab.put(&web);
            lab.assert_settled(&[&web]);
        }
        for (file, garbage) in
            [("names/web", "10.9.0.11"), ("names/web", "x web.lab.example\n"), ("options/web", "224,x\n")]
        {
            fs::write(lab.net(file), garbage).expect("garbage");
            fs::set_permissions(lab.net(file), fs::Permissions::from_mode(0o644)).expect("mode");
            assert_eq!(lab.observe()[&key]["hostname"], "(unreadable)");
            lab.put(&web);
            lab.assert_settled(&[&web]);
        }
        for lost in ["names/web", "hosts/web"] {
            fs::remove_file(lab.net(lost)).expect("lost");
            assert_ne!(lab.observe().get(&key), Some(&Object::HostEntry(web.clone()).facts()));
            lab.put(&web);
            lab.assert_settled(&[&web]);
        }
        for garbage in ["", "tag:one,option:router,10.9.0.66\n"] {
            fs::write(lab.net("options/network.options"), garbage).expect("garbage");
            assert_eq!(lab.process_state(), "running with other options");
            lab.start();
            lab.assert_settled(&[&web]);
        }
        fs::set_permissions(lab.net("hosts/web"), fs::Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(lab.observe()[&key]["hostname"], "(unreadable)");
        lab.put(&web);
        lab.assert_settled(&[&web]);

        // Killed after a removal, before dnsmasq was told of it: the next entry has the same address.
        fs::write(lab.net("reload"), "").expect("mark");
        fs::remove_file(lab.net("hosts/web")).expect("removed");
        let db = lab.host("db", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.11"));
        lab.assert_settled(&[&db]);

        // Killed in the midst of striking out a lease: stopped, with the lease still there.
        kill_and_wait(lab.pid());
        fs::write(lab.net("leases.new"), "17").expect("half a file");
        lab.remove("db");
        let web = lab.host("web", MACS[2], [10, 9, 0, 11]);
        assert_eq!(lab.dnsmasq.leases("private").expect("leases"), []);
        lab.start();
        assert_eq!(lab.client(MACS[2]).address().as_deref(), Some("10.9.0.11"));
        lab.assert_settled(&[&web]);

        // A directory of entries that was removed is one that dnsmasq no longer watches.
        fs::remove_dir_all(lab.net("hosts")).expect("removed");
        assert_eq!(lab.process_state(), "running without host entries");
        lab.start();
        lab.dnsmasq.ensure_host(&web).expect("host entry");
        let db = lab.host("db", MACS[3], [10, 9, 0, 12]);
        assert_eq!(lab.client(MACS[3]).address().as_deref(), Some("10.9.0.12"));
        lab.assert_settled(&[&db, &web]);
    });
}

#[test]
fn a_bridge_made_anew_gets_a_dnsmasq_that_hears_it() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        ip(&format!("link del {BRIDGE}"));
        assert_eq!(lab.process_state(), "running on a bridge that is gone");
        let error = lab.dnsmasq.ensure_server(&lab.dhcp()).expect_err("no bridge");
        assert!(chain(&error).contains(&format!("bridge `{BRIDGE}`: No such device")), "{}", chain(&error));
        lab.make_bridge();
        assert_eq!(lab.process_state(), "running on a bridge that is gone");
        lab.start();
        lab.assert_settled(&[&web]);
        assert_eq!(lab.client(MACS[0]).address().as_deref(), Some("10.9.0.11"));
    });
}

#[test]
fn a_changed_network_restarts_its_dnsmasq_and_keeps_its_leases() {
    lab(|lab| {
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        guest.address().expect("lease");
        let pid = lab.pid();
        lab.start();
        assert_eq!(lab.pid(), pid, "nothing to do");
        let mut dhcp = lab.dhcp();
        dhcp.mtu = 1300;
        dhcp.ranges[0].lease_seconds = 600;
        lab.dnsmasq.ensure_server(&dhcp).expect("restart");
        assert_ne!(lab.pid(), pid);
        assert_eq!(lab.observe()[&dhcp_key(&dhcp.network)], Object::Dhcp(dhcp).facts());
        assert_eq!(lab.dnsmasq.leases("private").expect("leases").len(), 1);
        let told = guest.dhcp(2, "").expect("lease");
        assert_eq!((told["ip"].as_str(), told["mtu"].as_str(), told["lease"].as_str()), ("10.9.0.11", "1300", "600"));
    });
}

#[test]
fn removing_leaves_nothing_but_what_is_not_ours() {
    lab(|lab| {
        lab.dnsmasq.remove_server("private").expect("nothing to remove");
        lab.remove("web");
        assert_eq!(lab.files(), [] as [&str; 0]);
        assert_eq!(lab.observe(), BTreeMap::new());
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        fs::write(lab.net("db.hosts.new"), "").expect("leftover");
        lab.dnsmasq.remove_server("private").expect("removed");
        lab.dnsmasq.remove_server("private").expect("removed twice");
        assert_eq!((lab.pids(), lab.files()), (vec![], vec![]));
        assert_eq!(lab.observe(), BTreeMap::new());

        lab.start();
        fs::write(lab.net("notes.txt"), "mine").expect("foreign file");
        lab.dnsmasq.remove_server("private").expect("removed");
        assert!(lab.pids().is_empty());
        assert_eq!(lab.files(), [lab.net("").display().to_string(), lab.net("notes.txt").display().to_string()]);
    });
}

#[test]
fn the_process_is_on_its_own() {
    lab(|lab| {
        let inherited = fs::File::open("/dev/zero").expect("file");
        lab.start();
        let proc = PathBuf::from(format!("/proc/{}", lab.pid()));
        for fd in fs::read_dir(proc.join("fd")).expect("fds").flatten() {
            let target = fs::read_link(fd.path()).unwrap_or_default().display().to_string();
            let own = ["/dev/null", "socket:", "pipe:", "anon_inode:inotify"].iter().any(|it| target.starts_with(it))
                || target.starts_with(lab.net("").to_str().expect("text"));
            assert!(own, "it holds {target}");
        }
        drop(inherited);
        assert_eq!(fs::read(proc.join("environ")).expect("environ"), b"LC_ALL=C\0");
        let status = fs::read_to_string(proc.join("status")).expect("status");
        assert!(status.lines().any(|it| it == "PPid:\t1"), "{status}");
        let uid: u32 = status
            .lines()
            .find_map(|it| it.strip_prefix("Uid:\t"))
            .expect("uid")
            .split('\t')
            .next()
            .expect("uid")
            .parse()
            .expect("uid");
        assert_ne!(uid, 0, "it is not root");
        assert!(!lab.log().contains("ermission denied"), "{}", lab.log());

        let checked = Command::new("/usr/sbin/dnsmasq")
            .arg("--test")
            .args(lab.dnsmasq.arguments(&lab.dhcp()))
            .output()
            .expect("dnsmasq");
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.contains("syntax check OK"), "{said}");
    });
}

#[test]
fn a_start_that_fails_says_why() {
    lab(|lab| {
        let other = lab.dir.path().join("other");
        fs::create_dir(&other).expect("directory");
        let pid_file = format!("--pid-file={}", other.join("pid").display());
        let foreign = |more: &[&str]| {
            let mut command = Command::new("/usr/sbin/dnsmasq");
            command.args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", &pid_file]).args(more);
            assert!(command.status().expect("dnsmasq").success());
        };
        // A DNS server on all addresses.
        foreign(&[]);
        let error = lab.dnsmasq.ensure_server(&lab.dhcp()).expect_err("port taken");
        assert!(chain(&error).starts_with("cannot start the DHCP server of network `private`: "), "{}", chain(&error));
        assert!(chain(&error).contains("Address already in use"), "{}", chain(&error));
        assert!(error.help.as_deref().is_some_and(|it| it.contains("bind-dynamic")));
        assert_eq!(lab.process_state(), "stopped");
        kill_and_wait(lab.pid());
        // Another dnsmasq on our bridge.
        foreign(&["--bind-dynamic", &format!("--interface={BRIDGE}")]);
        let its = lab.pid();
        let error = lab.dnsmasq.ensure_server(&lab.dhcp()).expect_err("bridge taken");
        assert!(chain(&error).contains("Address already in use"), "{}", chain(&error));
        assert_eq!(lab.pid(), its, "it was left alone, and none was started beside it");
        kill_and_wait(its);
        lab.start();
        lab.assert_settled(&[]);

        for (field, value) in
            [("domain", "a,b"), ("domain", ""), ("domain", "a\nb"), ("bridge", "br*"), ("bridge", "a,b")]
        {
            let mut dhcp = lab.dhcp();
            if field == "domain" {
                dhcp.domain = value.into()
            } else {
                dhcp.bridge = value.into()
            }
            lab.dnsmasq.ensure_server(&dhcp).expect_err("refused");
        }
        let mut elsewhere = lab.dhcp();
        elsewhere.dir = other;
        lab.dnsmasq.ensure_server(&elsewhere).expect_err("refused");
        lab.assert_settled(&[]);
    });
}
