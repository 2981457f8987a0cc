//! Real dnsmasq, real DHCP clients.

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lab::{BRIDGE, chain, entry, ip, kill_and_wait, lab};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use novella::blueprint::key::{dhcp_key, host_entry_key};
use novella::blueprint::object::{HostEntry, Object};
use novella::host::HostError;
use novella::value::Mac;

const MACS: [&str; 4] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02", "fa:16:3e:00:00:03", "fa:16:3e:00:00:04"];

#[test]
fn a_guest_is_told_exactly_what_was_planned() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let db = lab.host("db", MACS[1], [10, 9, 1, 12]);
        lab.assert_settled(&[&web, &db]);

        let guest = lab.client(MACS[0]);
        let told = guest.dhcp(2, "").expect("lease");
        for (option, value) in [
            ("ip", "10.9.0.11"),
            ("subnet", "255.255.255.0"),
            ("router", "10.9.0.1"),
            ("dns", "10.9.0.1"),
            ("mtu", "1400"),
            ("domain", "lab.example"),
            ("hostname", "web"),
            ("lease", "3600"),
        ] {
            assert_eq!(told.get(option).map(String::as_str), Some(value), "{option}");
        }

        // The other subnet has no router, and DNS servers of its own.
        let other = lab.client(MACS[1]);
        let told = other.dhcp(2, "").expect("lease");
        assert_eq!(told["ip"], "10.9.1.12");
        assert_eq!(told.get("router"), None);
        assert_eq!(told["dns"], "192.0.2.1 192.0.2.2");

        assert_eq!(lab.client(MACS[2]).dhcp(2, ""), None, "a stranger gets nothing");

        let leases = lab.dnsmasq.leases("private").expect("leases");
        let mut seen: Vec<_> =
            leases.iter().map(|it| (it.client.mac().expect("a MAC").to_string(), it.address.to_string())).collect();
        seen.sort();
        assert_eq!(seen, [(MACS[0].into(), "10.9.0.11".into()), (MACS[1].into(), "10.9.1.12".into())]);
        assert!(leases.iter().all(|it| it.expires > 1_700_000_000 && it.hostname.is_some()));

        for name in ["db", "db.lab.example"] {
            assert!(guest.resolve(name).contains("10.9.1.12"), "{name} resolves: {}", guest.resolve(name));
        }
        assert!(guest.resolve("nobody.lab.example").contains("NXDOMAIN"), "our own domain is not asked elsewhere");
        assert!(!lab.log().contains(MACS[2]), "a stranger cannot make the log grow");
        lab.assert_settled(&[&web, &db]);
    });
}

#[test]
fn a_guest_resolves_names_of_the_world_through_the_host() {
    lab(|lab| {
        let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let server = resolv.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<Ipv4Addr>().ok());
        let Some(server) = server else {
            return lab::skip("this host has no IPv4 name server");
        };
        // The host's name server, as this network has it.
        if !server.is_loopback() {
            ip(&format!("addr add {server}/32 dev lo"));
        }
        let status = Command::new("/usr/sbin/dnsmasq")
            .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .args([&format!("--listen-address={server}"), "--address=/world.example/192.0.2.7"])
            .arg(format!("--pid-file={}", lab.dir.path().join("world").display()))
            .status();
        assert!(status.expect("dnsmasq").success());
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        guest.address().expect("lease");
        let said = guest.resolve("world.example");
        assert!(said.contains("192.0.2.7"), "{said}");
    });
}

#[test]
fn names_that_mean_something_to_dnsmasq_are_just_names() {
    lab(|lab| {
        lab.start();
        for (n, name) in ["ignore", "infinite", "h1"].into_iter().enumerate() {
            lab.host(name, MACS[n], [10, 9, 0, 20 + n as u8]);
            let told = lab.client(MACS[n]).dhcp(2, "").expect(name);
            assert_eq!((told["ip"].as_str(), told["hostname"].as_str()), (&*format!("10.9.0.{}", 20 + n), name));
            assert_eq!(told["lease"], "3600", "{name}");
        }
        let mut odd = entry("odd", MACS[3], [10, 9, 0, 30]);
        odd.hostname = "1h".into();
        lab.put(&odd);
        let told = lab.client(MACS[3]).dhcp(2, "").expect("lease");
        assert_eq!((told["hostname"].as_str(), told["lease"].as_str()), ("1h", "3600"));

        for bad in ["", "a,b", "a\nfa:16:3e:00:00:09,10.9.0.99,x", "-a", "a.b", "A", "a#", "ä"] {
            odd.hostname = bad.into();
            let error = lab.dnsmasq.ensure_host(&odd).expect_err("refused");
            assert!(chain(&error).contains("is not a host name"), "{}", chain(&error));
        }
        for bad in ["../../x", "/etc/passwd", "", ".", ".."] {
            lab.dnsmasq.reload(bad).expect_err("refused");
            lab.dnsmasq.remove_server(bad).expect_err("refused");
            lab.dnsmasq.leases(bad).expect_err("refused");
        }
    });
}

#[test]
fn guests_with_one_client_id_keep_their_own_addresses() {
    lab(|lab| {
        lab.start();
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        lab.host("db", MACS[1], [10, 9, 0, 12]);
        let (web, db) = (lab.client(MACS[0]), lab.client(MACS[1]));
        for _ in 0..2 {
            assert_eq!(web.dhcp(2, "-C -x 61:ff000102").expect("lease")["ip"], "10.9.0.11");
            assert_eq!(db.dhcp(2, "-C -x 61:ff000102").expect("lease")["ip"], "10.9.0.12");
        }
        assert_eq!(lab.dnsmasq.leases("private").expect("leases").len(), 2);
    });
}

#[test]
fn a_host_is_added_and_removed_under_a_running_guest() {
    lab(|lab| {
        lab.start();
        let web = lab.host("web", MACS[0], [10, 9, 0, 11]);
        let guest = lab.client(MACS[0]);
        assert_eq!(guest.address().as_deref(), Some("10.9.0.11"));
        let pid = lab.pid();
        let pings = thread::scope(|scope| {
            let pings = scope.spawn(|| guest.run("/usr/bin/ping -n -i 0.01 -c 200 -W 1 10.9.0.1"));
            thread::sleep(Duration::from_millis(300));
            lab.host("db", MACS[1], [10, 9, 0, 12]);
            assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.12"));
            lab.remove("db");
            lab.remove("db");
            assert_eq!(lab.client(MACS[1]).address(), None, "a removed host is served no more");
            pings.join().expect("ping")
        });
        assert!(pings.contains("200 received"), "{pings}");
        assert_eq!(lab.pid(), pid, "the process went on");
        lab.assert_settled(&[&web]);
    });
}

#[test]
fn a_recycled_address_is_given_out_at_the_first_try() {
    lab(|lab| {
        lab.start();
        let keep = lab.host("keep", MACS[2], [10, 9, 0, 13]);
        assert_eq!(lab.client(MACS[2]).address().as_deref(), Some("10.9.0.13"));
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let old = lab.client(MACS[0]);
        assert_eq!(old.address().as_deref(), Some("10.9.0.11"));
        old.unplug();
        lab.remove("web");
        let db = lab.host("db", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        lab.assert_settled(&[&keep, &db]);
        let leases = lab.dnsmasq.leases("private").expect("leases");
        assert!(
            leases.iter().any(|it| it.client.mac().is_some_and(|mac| mac.to_string() == MACS[2])),
            "the lease of another is kept: {leases:?}"
        );
    });
}

#[test]
fn a_port_may_change_its_mac_its_address_and_exchange_them() {
    lab(|lab| {
        lab.start();
        // New MAC under the same server and address, with a lease of the old one.
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[0]).address().as_deref(), Some("10.9.0.11"));
        lab.host("web", MACS[1], [10, 9, 0, 11]);
        let web = lab.client(MACS[1]);
        assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        // New address for the same MAC, with a lease of the old one; and the old address to another at once.
        lab.host("web", MACS[1], [10, 9, 0, 12]);
        lab.host("db", MACS[2], [10, 9, 0, 11]);
        let db = lab.client(MACS[2]);
        assert_eq!(db.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.12");
        // Two exchange their addresses: both are removed, then made.
        lab.remove("web");
        lab.remove("db");
        let starts = lab.log().matches("started, version").count();
        let one = lab.host("web", MACS[1], [10, 9, 0, 11]);
        let two = lab.host("db", MACS[2], [10, 9, 0, 12]);
        assert_eq!(lab.log().matches("started, version").count(), starts + 1, "one restart for both");
        assert_eq!(web.dhcp(1, "").expect("first try")["ip"], "10.9.0.11");
        assert_eq!(db.dhcp(1, "").expect("first try")["ip"], "10.9.0.12");
        lab.assert_settled(&[&one, &two]);
    });
}

#[test]
fn a_changed_entry_leaves_its_old_address_free() {
    lab(|lab| {
        lab.start();
        // No leases at all: what stands in the way is only what dnsmasq remembers of the files.
        lab.host("web", MACS[0], [10, 9, 0, 11]);
        let pid = lab.pid();
        lab.host("web", MACS[1], [10, 9, 0, 11]);
        assert_eq!(lab.client(MACS[1]).address().as_deref(), Some("10.9.0.11"));
        lab.host("web", MACS[1], [10, 9, 0, 12]);
        let db = lab.host("db", MACS[2], [10, 9, 0, 13]);
        lab.remove("db");
        let other =
            HostEntry { port: lab::port("other"), hostname: "other".into(), mac: MACS[3].parse().expect("mac"), ..db };
        lab.put(&other);
        assert_eq!(lab.client(MACS[3]).address().as_deref(), Some("10.9.0.13"));
        assert_eq!(lab.pid(), pid, "a signal was enough");
    });
}

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
        fs::write(lab.net("web.host.new"), "fa:16:3e:00").expect("half an entry");
        lab.assert_settled(&[]);
        lab.dnsmasq.ensure_host(&web).expect("host entry");
        lab.assert_settled(&[&web]);
        assert!(!lab.net("web.host.new").exists());

        // Garbled by a power loss, or unreadable for dnsmasq.
        let key = host_entry_key(&web.port);
        for garbage in ["", "fa:16:3e:00:00:01,10.9.0.11", "fa:16:3e:00:00:01,10.9.0.11,web.\nx", "\u{1b}[2J\n"] {
            fs::write(lab.net("hosts/web"), garbage).expect("garbage");
            assert_eq!(lab.observe()[&key]["hostname"], "(unreadable)");
            lab.dnsmasq.ensure_host(&web).expect("host entry");
            lab.assert_settled(&[&web]);
        }
        fs::set_permissions(lab.net("hosts/web"), fs::Permissions::from_mode(0o600)).expect("mode");
        assert_eq!(lab.observe()[&key]["hostname"], "(unreadable)");
        lab.dnsmasq.ensure_host(&web).expect("host entry");
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
        fs::write(lab.net("db.host.new"), "").expect("leftover");
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
fn a_hundred_hosts_come_at_once() {
    lab(|lab| {
        lab.start();
        let pid = lab.pid();
        let dnsmasq = &lab.dnsmasq;
        let entries: Vec<HostEntry> = (0..100)
            .map(|n| entry(&format!("web-{n}"), &Mac([0xfa, 0x16, 0x3e, 0, 1, n]).to_string(), [10, 9, 0, 100 + n]))
            .collect();
        let everywhere = |deed: &(dyn Fn(&HostEntry) + Sync)| {
            let begin = Instant::now();
            thread::scope(|scope| {
                for part in entries.chunks(10) {
                    scope.spawn(move || part.iter().for_each(deed));
                }
            });
            begin.elapsed()
        };
        let took = everywhere(&|entry| dnsmasq.ensure_host(entry).expect("host entry"));
        assert!(took < Duration::from_secs(2), "took {took:?}");
        lab.assert_settled(&entries.iter().collect::<Vec<_>>());
        assert_eq!(lab.pid(), pid, "no restart");
        assert!(!lab.log().contains("duplicate"), "{}", lab.log());
        let last = lab.client(&entries[99].mac.to_string());
        assert_eq!(last.address().as_deref(), Some("10.9.0.199"));
        let took = everywhere(&|entry| dnsmasq.remove_host(&entry.port).expect("removed"));
        assert!(took < Duration::from_secs(2), "took {took:?}");
        lab.assert_settled(&[]);
        assert_eq!(last.address(), None);
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
