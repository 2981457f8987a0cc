//! A day in minutes: a daemon lives through everything that happens to a host in a day, in a random order, and all is to be
//! at the end as if the last spec had been applied to an empty host.
//!
//! It takes minutes, and runs with `NOVELLA_DAY=SEED:EVENTS` alone: `1:36` has each event once.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::dice::Dice;
use crate::drift::{CASES, Case, DB, Devices, WEB};
use crate::lab::{Lab, NOVELLA, Running, assert_same, base, note, server, skip};
use crate::libvirtd::START;
use crate::save::{WAYS, in_place};
use crate::watch::{PATIENCE, handles, status, until};

const MS: Duration = Duration::from_millis(1);

/// How much memory a daemon may gain between its first rest and its last, in KiB: what its first passes have touched.
const GAIN: u64 = 32 * 1024;

/// All that was made: domains, bridges, rules, servers of DHCP, files. In which order libvirt names controllers, and how the
/// kernel numbers links, goes by what was there before.
const PICTURE: &str = r#"
for domain in $(virsh -q list --all --name | sort); do virsh -q domstate $domain; virsh -q dumpxml --inactive $domain | sort; done
for link in /sys/class/net/brq*; do
    echo ${link##*/} $(cat $link/address $link/mtu $link/ifalias) $(ip -br addr show dev ${link##*/} | cut -c 33-)
done
nft list ruleset
ps -eo args= | grep '/[d]nsmasq' | sort
cd /var/lib/novella/default
find . | grep -Ev '/(log|leases[^/]*|pid|console.log)$' | sort
grep -r . networks/*/hosts networks/*/names networks/*/options networks/*/*.conf networks/*/*.json | grep -v bridge_index | sort
"#;

/// Something that happens: what it is called, and how it is done. Gives what came of it.
type Deed = (&'static str, fn(&mut Day) -> String);

const DEEDS: [Deed; 16] = [
    ("servers are added", Day::more_servers),
    ("servers are taken away, and somebody says yes", Day::fewer_servers),
    ("servers are taken away, and it is thought better of", Day::fewer_servers_after_all_not),
    ("a server with a port comes or goes", Day::side),
    ("an interface comes or goes as the guest runs", Day::interface),
    ("another MTU", Day::mtu),
    ("an approval comes too late", Day::stale),
    ("a reboot waits, and somebody says yes", Day::reboot),
    ("a reboot waits for its window", Day::window),
    ("a broken save, and the rules are flushed under it", Day::broken),
    ("the spec is gone, and a guest is pulled down", Day::gone),
    ("fifty saves in a row, each fifth broken", Day::burst),
    ("all rules are flushed", Day::flush),
    ("libvirtd is killed and started anew", Day::libvirtd),
    ("the daemon is killed in the midst of a pass", Day::kill),
    ("somebody applies by hand", Day::by_hand),
];

#[derive(Clone, Copy)]
enum Event {
    Damage(&'static Case),
    Deed(Deed),
}

/// The last good spec.
#[derive(Clone)]
struct Spec {
    nodes: usize,
    side: bool,
    back: bool,
    large: bool,
    mtu: bool,
}

impl Spec {
    fn text(&self) -> String {
        let base = if self.mtu { base().replace("[network.back]", "[network.back]\nmtu = 1400") } else { base() };
        let large = "\n[flavor.large]\nram = \"128 MiB\"\ndisk = \"64 MiB\"\n";
        let mut db = server("db", &format!("fixed_ip = \"{DB}\"\nshutdown_timeout = 10"));
        if self.back {
            db = db.replace("[\"private\"]", "[\"private\", \"back\"]");
        }
        if self.large {
            db = db.replace("\"small\"", "\"large\"");
        }
        let mut text = [&base, large, &server("web", &format!("fixed_ip = \"{WEB}\"")), &db].concat();
        if self.nodes > 0 {
            text.push_str(&server("node", &format!("count = {}\npower = \"off\"", self.nodes)));
        }
        if self.side {
            let port = "\n[port.side]\nnetwork = \"private\"\nfixed_ips = [\"10.20.0.100\"]\n";
            let side = server("side", "power = \"off\"").replace("networks = [\"private\"]", "ports = [\"side\"]");
            text.push_str(&[port, &side].concat());
        }
        text
    }
}

/// A daemon from its start to its end.
struct Life {
    daemon: Running,
    /// The files that it had open and its memory in KiB when it first came to rest.
    rest: (usize, u64),
    /// How much of what it has said was noted.
    noted: [usize; 2],
}

struct Day {
    lab: Lab,
    dice: Dice,
    devices: Devices,
    begun: Instant,
    spec: Spec,
    /// The boots of the guests: of `web`, which nobody touches, and of `db`.
    boots: [String; 2],
    life: Option<Life>,
}

#[test]
fn a_day_in_minutes() {
    let Ok(told) = std::env::var("NOVELLA_DAY") else {
        return skip("a day takes five minutes: `NOVELLA_DAY=1:36` lives through one");
    };
    let (seed, events) = told.split_once(':').expect("NOVELLA_DAY=SEED:EVENTS");
    let (seed, events) = (seed.parse().expect("a seed"), events.parse().expect("a number of events"));
    let Some(lab) = Lab::with_guests("day") else { return };
    note(format_args!("NOVELLA_DAY={seed}:{events}"));
    let mut day = Day::begin(lab, seed);
    let mut deck: Vec<Event> = Vec::new();
    for _ in 0..events {
        if deck.is_empty() {
            deck = DEEDS.into_iter().map(Event::Deed).chain(CASES.iter().map(Event::Damage)).collect();
        }
        let event = deck.swap_remove(day.dice.below(deck.len()));
        day.event(event);
    }
    day.end();
}

impl Day {
    fn begin(lab: Lab, seed: u64) -> Self {
        let spec = Spec { nodes: 2, side: false, back: false, large: false, mtu: false };
        fs::create_dir(lab.dir().join("good")).expect("a directory");
        lab.spec(&spec.text());
        let devices = Devices::of(&lab.novella(&["plan"]).success().out);
        let mut day = Self {
            lab,
            dice: Dice::new(seed),
            devices,
            begun: Instant::now(),
            spec,
            boots: Default::default(),
            life: None,
        };
        day.start(&[]);
        day.boots = [WEB, DB].map(|address| day.lab.boot_of(address));
        day.say("all is made from nothing");
        day
    }

    fn event(&mut self, event: Event) {
        let (name, told) = match event {
            Event::Damage(case) => {
                self.lab.sh(&self.devices.damage(case.damage));
                (case.name, format!("mended after {:.1?}", self.settled()))
            }
            Event::Deed((name, deed)) => (name, deed(self)),
        };
        assert_eq!(self.lab.boot_of(WEB), self.boots[0], "{name}: web was booted anew");
        self.boots[1] = self.lab.boot_of(DB);
        self.say(&format!("{name}: {told}"));
    }

    /// Notes what happened, and what the daemon has said of it.
    fn say(&mut self, what: &str) {
        let at = self.begun.elapsed().as_secs();
        note(format_args!("{:02}:{:02} {what}", at / 60, at % 60));
        let Life { daemon, noted, .. } = self.life.as_mut().expect("it runs");
        for (said, noted) in [daemon.so_far(), daemon.err_so_far()].iter().zip(noted) {
            let told = ["Applying:", "Waiting for", "The last good", "The spec is", "The approval"];
            for line in said[*noted..].lines().filter(|line| told.iter().any(|it| line.starts_with(it))) {
                note(format_args!("        {line}"));
            }
            *noted = said.len();
        }
    }

    fn daemon(&self) -> &Running {
        &self.life.as_ref().expect("it runs").daemon
    }

    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&self.lab, self.daemon(), what, is_so)
    }

    fn file(&self) -> PathBuf {
        self.lab.specs().join("spec.toml")
    }

    /// Saves a text in one of the ways there are. Gives its name.
    fn save(&mut self, text: &str) -> &'static str {
        let (way, save) = self.dice.pick(WAYS).expect("a way");
        save(&self.file(), text);
        way
    }

    /// Makes an edit and saves it. Gives the way.
    fn edit(&mut self, edit: impl FnOnce(&mut Spec)) -> &'static str {
        edit(&mut self.spec);
        self.save(&self.spec.text())
    }

    /// Waits until the host is what the last good spec says, without the daemon's word for it, and says yes to what waits.
    fn settled(&self) -> Duration {
        self.comes_to_rest(true)
    }

    /// The same with nothing to say yes to.
    fn settled_unasked(&self) -> Duration {
        self.comes_to_rest(false)
    }

    fn comes_to_rest(&self, is_approved: bool) -> Duration {
        let good = self.lab.dir().join("good");
        in_place(&good.join("spec.toml"), &self.spec.text());
        let begun = Instant::now();
        let mut approved = Value::Null;
        loop {
            let mut plan = self.lab.command(NOVELLA);
            plan.arg("--specs").arg(&good).arg("--state").arg(self.lab.state()).args(["plan", "--detailed-exitcode"]);
            let plan = plan.output().expect("novella");
            let [out, err] = [plan.stdout, plan.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if plan.status.code() == Some(0) && !err.contains("is at work") {
                return begun.elapsed();
            }
            let told = status(&self.lab);
            if is_approved && told["pending"] != Value::Null && told["pending"]["digest"] != approved {
                approved = told["pending"]["digest"].clone();
                self.approve(&told);
            }
            let said = || format!("{told:#}\n{out}{err}\n{}{}", self.daemon().so_far(), self.daemon().err_so_far());
            assert!(begun.elapsed() < PATIENCE, "the host is not what it is to be:\n{}", said());
        }
    }

    /// Says yes to what waits. It may be another plan by now.
    fn approve(&self, told: &Value) {
        let digest = told["pending"]["digest"].as_str().expect("a digest");
        self.lab.novella(&["approve", digest, "--allow-mass-delete"]);
    }

    /// Starts a daemon and waits until it has come to rest.
    fn start(&mut self, arguments: &[&str]) {
        let daemon = self.lab.start(&[&["watch", "--interval", "2s"], arguments].concat());
        self.life = Some(Life { daemon, rest: (0, 0), noted: [0, 0] });
        self.settled_unasked();
        self.until("it tells of itself", |told| told["health"] == "healthy");
        let rest = self.rest();
        self.life.as_mut().expect("it runs").rest = rest;
    }

    /// The files that the daemon has open, and its memory in KiB.
    fn rest(&self) -> (usize, u64) {
        let pid = self.daemon().pid.expect("it runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let memory =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")?.trim().parse().ok());
        (handles(self.daemon()), memory.expect("a number"))
    }

    /// Looks that the daemon holds no more than in its first rest.
    fn check(&mut self) {
        self.until("it is well", |told| told["health"] == "healthy");
        let (files_before, memory_before) = self.life.as_ref().expect("it runs").rest;
        // Some are open for a moment: whoever asks has one, and so has a libvirtd that was started anew.
        self.until("it has no more files open than at first", |_| self.rest().0 <= files_before);
        let (files, memory) = self.rest();
        note(format_args!("        daemon: {files_before} → {files} files, {memory_before} → {memory} KiB"));
        assert!(memory <= memory_before + GAIN, "{memory_before} → {memory} KiB");
    }

    fn stop(&mut self, signal: Signal) {
        let Life { daemon, .. } = self.life.take().expect("it runs");
        assert!(daemon.signal(signal));
        let run = daemon.wait();
        assert_eq!(run.status.success(), signal == Signal::SIGTERM, "{run:#?}");
    }

    fn more_servers(&mut self) -> String {
        let more = 1 + self.dice.below(3);
        let way = self.edit(|spec| spec.nodes += more);
        format!("{more}, saved {way}, made after {:.1?}", self.settled_unasked())
    }

    /// Takes servers out of the spec, and waits until that waits.
    fn take_away(&mut self) -> (&'static str, Value) {
        if self.spec.nodes == 0 {
            self.more_servers();
        }
        let fewer = 1 + self.dice.below(self.spec.nodes);
        let way = self.edit(|spec| spec.nodes -= fewer);
        let told = self.until("it waits", |told| told["pending"]["losses"] == fewer);
        assert_eq!(told["health"], "pending_approval");
        (way, told)
    }

    fn nodes(&self) -> usize {
        self.lab.sh("virsh -q list --all --name | grep -c '^default.node' || true").parse().expect("a number")
    }

    fn fewer_servers(&mut self) -> String {
        let (way, told) = self.take_away();
        let (losses, before) = (&told["pending"]["losses"], self.nodes());
        assert_eq!(before as u64, self.spec.nodes as u64 + losses.as_u64().expect("a number"), "nobody was asked");
        self.approve(&told);
        let took = self.settled();
        assert_eq!(self.nodes(), self.spec.nodes);
        format!("{losses}, saved {way}, gone {took:.1?} after the approval")
    }

    fn fewer_servers_after_all_not(&mut self) -> String {
        let before = self.spec.clone();
        let (_, told) = self.take_away();
        self.spec = before;
        let way = self.edit(|_| {});
        self.until("nothing waits", |told| told["pending"] == Value::Null && told["health"] == "healthy");
        self.settled_unasked();
        format!("{} waited, and stay, saved {way}", told["pending"]["losses"])
    }

    fn side(&mut self) -> String {
        let way = self.edit(|spec| spec.side = !spec.side);
        let what = if self.spec.side { "comes" } else { "goes" };
        format!("{what}, saved {way}, after {:.1?}", self.settled())
    }

    fn interface(&mut self) -> String {
        let before = self.boots[1].clone();
        let way = self.edit(|spec| spec.back = !spec.back);
        let took = self.settled();
        let interfaces = self.lab.sh("virsh -q domiflist default.db | grep -c .");
        assert_eq!(interfaces, if self.spec.back { "2" } else { "1" });
        let is_same = self.lab.boot_of(DB) == before;
        format!(
            "{interfaces} now, saved {way}, after {took:.1?}, {}",
            if is_same { "as it runs" } else { "with a reboot" }
        )
    }

    fn mtu(&mut self) -> String {
        let way = self.edit(|spec| spec.mtu = !spec.mtu);
        format!("saved {way}, after {:.1?}", self.settled_unasked())
    }

    /// An approval that was given for one spec and comes to be read under another.
    fn stale(&mut self) -> String {
        let before = self.spec.clone();
        let (_, told) = self.take_away();
        let file = self.lab.state().join("watch/approval.json");
        // So that the daemon does not see it now. It is not there to be asked either, and the approval goes by its file.
        assert!(self.daemon().signal(Signal::SIGSTOP));
        let [socket, aside] = ["novella.sock", "aside.sock"].map(|name| self.lab.state().join(name));
        fs::rename(&socket, &aside).expect("a socket");
        self.approve(&told);
        fs::rename(&aside, &socket).expect("a socket");
        let approval = fs::read(&file).expect("an approval");
        fs::remove_file(&file).expect("removed");
        self.daemon().resume();
        let taken = self.spec.nodes;
        self.edit(|spec| spec.mtu = !spec.mtu);
        let other = self.until("another spec waits", |now| {
            now["pending"] != Value::Null && now["pending"]["spec"] != told["pending"]["spec"]
        });
        fs::write(&file, approval).expect("written");
        let told = self.until("it is refused", |now| now["refused_approval"] != other["refused_approval"]);
        assert_eq!(self.nodes(), before.nodes, "{taken} were to be left");
        self.edit(|spec| spec.nodes = before.nodes);
        self.settled_unasked();
        self.until("nothing waits", |told| told["pending"] == Value::Null);
        format!("refused: {}", told["refused_approval"]["why"].as_str().unwrap_or_default())
    }

    /// Saves what takes a reboot, and waits until that waits.
    fn resize(&mut self) -> Value {
        self.edit(|spec| spec.large = !spec.large);
        let told = self.until("a reboot waits", |told| told["pending"].to_string().contains("needs a reboot"));
        assert_eq!(self.lab.boot_of(DB), self.boots[1], "nobody was asked");
        told
    }

    fn reboot(&mut self) -> String {
        let told = self.resize();
        self.approve(&told);
        let took = self.settled();
        self.lab.boot_after(&self.boots[1], DB);
        format!("done {took:.1?} after the approval")
    }

    /// The window opens for a daemon that is started with one that is open.
    fn window(&mut self) -> String {
        self.check();
        self.resize();
        self.stop(Signal::SIGTERM);
        let window = self.lab.sh("echo $(date +%H:00)-$(date -d '2 hours' +%H:00)");
        self.start(&["--maintenance", &window]);
        self.lab.boot_after(&self.boots[1], DB);
        self.stop(Signal::SIGTERM);
        self.start(&[]);
        format!("{window}, and was done in it, unasked")
    }

    fn broken(&mut self) -> String {
        let text = self.spec.text();
        let way = self.save(&text[..text.rfind("flavor = ").expect("a flavor") + 12]);
        self.until("it sees that", |told| told["rejected"] != Value::Null);
        self.lab.sh("nft flush ruleset");
        let took = self.settled_unasked();
        self.edit(|spec| spec.nodes += 1);
        self.until("it is good again", |told| told["rejected"] == Value::Null);
        format!(
            "saved {way}, mended by the last good spec after {took:.1?}; the next made after {:.1?}",
            self.settled_unasked()
        )
    }

    fn gone(&mut self) -> String {
        fs::remove_file(self.file()).expect("removed");
        self.until("it sees that", |told| told["rejected"] != Value::Null);
        self.lab.sh("virsh -q destroy default.db");
        let took = self.settled_unasked();
        in_place(&self.file(), &self.spec.text());
        self.until("it is good again", |told| told["rejected"] == Value::Null);
        format!("it runs again after {took:.1?}")
    }

    fn burst(&mut self) -> String {
        let last = self.spec.nodes + 2;
        for number in 0..50 {
            self.spec.nodes = last - number % 2;
            let text = if number % 5 == 2 { "[server.web\n".to_owned() } else { self.spec.text() };
            in_place(&self.file(), &text);
            sleep(20 * MS);
        }
        let nodes = self.spec.nodes;
        format!("the last, of {nodes} servers, after {:.1?}", self.settled())
    }

    fn flush(&mut self) -> String {
        self.lab.sh("nft flush ruleset");
        format!("mended after {:.1?}", self.settled_unasked())
    }

    fn libvirtd(&mut self) -> String {
        self.lab.sh(&format!("kill -9 $(pgrep -x libvirtd); sleep 1\n{START}"));
        format!("all is as it was after {:.1?}", self.settled_unasked())
    }

    fn kill(&mut self) -> String {
        self.check();
        let before = self.daemon().so_far().matches("Applying:").count();
        self.edit(|spec| spec.nodes += 3);
        let deadline = Instant::now() + PATIENCE;
        while self.daemon().so_far().matches("Applying:").count() == before {
            assert!(Instant::now() < deadline, "it does not begin");
            sleep(2 * MS);
        }
        let after = self.dice.below(400) as u32 * MS;
        sleep(after);
        self.stop(Signal::SIGKILL);
        let begun = Instant::now();
        self.start(&[]);
        format!("{after:?} after it began; all is made and quiet {:.1?} after the start of the next", begun.elapsed())
    }

    /// What the daemon hears of as well.
    fn by_hand(&mut self) -> String {
        let way = self.edit(|spec| spec.nodes += 2);
        let run = self.lab.apply();
        format!("saved {way}, applied after {:.1?}, settled after {:.1?} more", run.took, self.settled_unasked())
    }

    /// The evening: what there is, is what an apply from nothing makes of the last spec.
    fn end(mut self) {
        self.settled_unasked();
        self.check();
        self.lab.assert_settled("at the end of the day");
        assert_eq!(self.lab.novella(&["drift"]).success().out, "No drift. The host is as it was made.\n");
        self.lab.novella(&["status"]).success();
        self.stop(Signal::SIGTERM);
        let lab = &self.lab;
        assert_eq!(lab.sh("ps -eo stat=,comm= | grep '^Z' || true"), "", "the dead are buried");
        let running = ["novella", "virsh", "dnsmasq", "qemu-system-x86"].map(|name| lab.count(name));
        assert_eq!(running, [0, 0, 2, 2]);
        let day = self.picture();
        lab.destroy();
        assert_eq!(lab.left(), [""; 0]);
        fs::remove_dir_all(lab.state()).expect("the state");
        lab.apply();
        assert_same(&day, &self.picture(), "the host at the end of the day, and made from nothing");
        note(format_args!("{} lines about the host are the same after an apply from nothing", day.lines().count()));
        lab.destroy();
        assert_eq!(lab.left(), [""; 0]);
    }

    /// What the system's own tools say that there is of the project.
    fn picture(&self) -> String {
        self.lab.sh(PICTURE)
    }
}
