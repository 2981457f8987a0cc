//! The verbs that do something with one guest, with guests that run.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::termios::tcgetattr;

use crate::lab::{Lab, NOVELLA, base, note, server, skip};

const WEB: &str = "10.20.0.2";

/// A person at a terminal of 80 columns, who runs novella.
struct Seat {
    child: Child,
    keyboard: File,
    seen: Arc<Mutex<Vec<u8>>>,
    terminal: OwnedFd,
}

impl Seat {
    fn at(lab: &Lab, arguments: &[&str]) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("a terminal"));
        let mut command = lab.command(NOVELLA);
        command.args(lab.globals()).args(arguments).stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("scripts/lab");
        drop(command);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (File::from(pty.master.try_clone().expect("a terminal")), Arc::clone(&seen));
        // It ends when nobody holds the other side any more, and with the test otherwise.
        thread::spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(read @ 1..) = screen.read(&mut piece) {
                kept.lock().expect("the screen").extend(&piece[..read]);
            }
        });
        Self { child, keyboard: pty.master.into(), seen, terminal: pty.slave }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("the screen")).into_owned()
    }

    #[track_caller]
    fn sees(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.screen().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is never seen: {:?}", self.screen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a keyboard");
    }

    /// Waits for the end, and for what is still to be seen.
    fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                thread::sleep(Duration::from_millis(50));
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.screen());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether keys are passed on as they are.
    fn is_raw(&self) -> bool {
        use nix::sys::termios::LocalFlags;
        !tcgetattr(&self.terminal).expect("a terminal").local_flags.contains(LocalFlags::ICANON)
    }
}

fn presses(lab: &Lab) -> usize {
    lab.console("web").iter().filter(|line| *line == "power button").count()
}

/// Nothing but this server is planned to change, because of what was done to it.
#[track_caller]
fn assert_drift(lab: &Lab, server: &str) {
    let plan = lab.plan();
    let line = format!("server.{server} ~ domain # changed on the host");
    assert!(matches!(&plan[..], [only] if only.starts_with(&line)), "{plan:?}");
}

#[test]
fn power_by_hand_is_for_the_moment() {
    let Some(lab) = Lab::with_guests("verbs-power") else { return };
    lab.spec(&[base(), server("web", ""), server("xray", "power = \"off\"")].concat());
    lab.apply();
    let run = lab.novella(&["wait", "web", "server.web", "--timeout", "60s"]).success();
    assert!(run.out.starts_with(&format!("server.web: has {WEB} after ")), "{run:?}");
    assert_eq!((run.out.lines().count(), run.err.as_str()), (1, ""), "each server once: {run:?}");
    lab.boot_of(WEB);

    // Somebody else's: one without a mark, and one with the mark of another project.
    lab.sh("virsh -q dumpxml --inactive default.web | sed '/<uuid>/d; /<interface/,/<\\/interface/d; /<disk/,/<\\/disk/d' > x
            sed 's/default.web/other/; /<metadata>/,/<\\/metadata>/d; /<log /d' x > other.xml
            sed 's/>default.web</>web</; s/project=\"default\"/project=\"p2\"/; /<log /d' x > p2.xml
            virsh -q define other.xml && virsh -q start other
            virsh -q define p2.xml && virsh -q start web; rm x other.xml p2.xml");
    let others = "virsh -q list --name | grep -cx -e other -e web";

    let run = lab.novella(&["stop", "web"]).success();
    assert!(run.out.starts_with("server.web: shut off after "), "{run:?}");
    assert!(run.err.contains("note: the spec says `power = \"on\"` for server.web: the next `apply` starts it again"));
    assert_eq!(presses(&lab), 1, "by its power button");
    let run = lab.novella(&["stop", "web", "xray"]).success();
    assert!(run.out.contains("server.web: is off already") && run.out.contains("server.xray: is off already"));
    assert_eq!(lab.sh(others), "2", "others are left alone");
    assert_eq!(lab.novella(&["stop", "other"]).code(), Some(1));
    assert_eq!(lab.sh(others), "2", "others are left alone");

    let run = lab.novella(&["wait", "web", "xray", "--for", "running", "--timeout", "1s"]);
    assert_eq!(run.code(), Some(1), "{run:?}");
    for server in ["web", "xray"] {
        let said = format!("error: `server.{server}` is not at `running` after 1.");
        assert!(run.err.contains(&said), "{run:?}");
    }
    assert!(run.err.contains("it is shut off\n  help: `novella start web` turns it on"), "{run:?}");
    for verb in [&["vnc", "web"][..], &["ssh", "web"]] {
        let run = lab.novella(verb);
        assert!(run.code() == Some(1) && run.err.contains("help: `novella start web` turns it on"), "{run:?}");
    }

    // What was stopped is drift, and what looks at a guest need not wait for the one who mends it.
    assert_drift(&lab, "web");
    let mending = lab.start(&["apply", "--auto-approve"]);
    lab.novella(&["logs", "web"]).success();
    lab.novella(&["wait", "web", "--for", "running"]).success();
    let run = lab.novella(&["vnc", "web"]).success();
    let (address, port) = run.out.trim().rsplit_once(':').expect("an address");
    assert_eq!(address, "127.0.0.1");
    lab.sh(&format!("exec timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && head -c 3 <&3 | grep -q RFB'"));
    assert!(run.err.contains(&format!("`remote-viewer vnc://127.0.0.1:{port}`")), "{run:?}");
    let json: serde_json::Value =
        serde_json::from_str(&lab.novella(&["vnc", "web", "--json"]).success().out).expect("JSON");
    assert_eq!((&json["server"], json["port"].to_string()), (&"web".into(), port.to_owned()));
    mending.wait().success();
    lab.assert_settled("after the repair");

    let run = lab.novella(&["start", "web"]).success();
    assert_eq!((run.out.as_str(), run.err.as_str()), ("server.web: runs already\n", ""));
    // Before it could feel the button.
    let run = lab.novella(&["stop", "web", "--force"]).success();
    assert!(run.out.starts_with("server.web: forced off after ") && !run.err.contains("WARN"), "{run:?}");
    assert_eq!(presses(&lab), 1, "by force");
    let run = lab.novella(&["start", "server.web", "xray"]).success();
    assert!(run.out.contains("server.web: started after ") && run.out.contains("server.xray: started after "));
    assert!(
        run.err.contains("note: the spec says `power = \"off\"` for server.xray: the next `apply` shuts it off again")
    );
    assert!(!run.err.contains("server.web"), "{run:?}");
    // A guest that was paused by hand is not running.
    lab.sh("virsh -q suspend default.web");
    assert!(lab.novella(&["wait", "web", "--timeout", "0s"]).err.contains("it is paused"));
    lab.novella(&["start", "web"]).success();
    assert_eq!(lab.sh("virsh domstate default.web"), "running");
    assert_drift(&lab, "xray");
    lab.apply();
    assert_eq!(lab.sh("virsh domstate default.xray"), "shut off");
    lab.assert_settled("after it was shut off");
    assert_eq!(lab.sh(others), "2", "others are left alone");

    // One whose bridge is gone is not started, and says why.
    lab.novella(&["stop", "web"]).success();
    lab.sh("ip link del $(ls -d /sys/class/net/*/bridge | cut -d/ -f5 | xargs -n1 ip -o addr show dev | awk '/10.20.0.1/ { print $2 }')");
    let run = lab.novella(&["start", "web"]);
    assert_eq!(run.code(), Some(1));
    assert!(
        run.err.contains("cannot start domain `default.web`: ") && run.err.contains("help: `novella plan`"),
        "{run:?}"
    );
    lab.apply();

    // A domain that is gone cannot be turned on, and the others are.
    lab.sh("virsh -q undefine default.xray");
    lab.novella(&["stop", "web"]).success();
    let run = lab.novella(&["start", "xray", "web"]);
    assert_eq!(run.code(), Some(1));
    assert!(run.err.contains("there is no domain of `server.xray` on this host"), "{run:?}");
    assert!(run.out.contains("server.web: started after "), "{run:?}");
}

#[test]
fn a_console_is_sat_at_and_read() {
    let Some(lab) = Lab::with_guests("verbs-console") else { return };
    lab.spec(&[base(), server("web", "")].concat());

    // It is waited for before there is anything of it.
    let waiting = lab.start(&["wait", "web", "--timeout", "90s"]);
    lab.apply();
    waiting.wait().success();
    let mut follow = lab.start(&["logs", "web", "--follow"]);
    follow.wait_for("press Enter for a shell");

    let run = lab.novella(&["console", "web"]);
    assert!(run.code() == Some(1) && run.err.contains("`console` needs a terminal"), "{run:?}");

    let mut seat = Seat::at(&lab, &["console", "web"]);
    seat.sees("Ctrl-] leaves it");
    assert!(!seat.screen().contains("error"), "{}", seat.screen());
    seat.types("\r");
    seat.sees("#");
    assert!(seat.is_raw());
    // Ctrl-C is the guest's.
    seat.types("\u{3}echo h''i-$((40 + 2))\r");
    seat.sees("hi-42");
    follow.wait_for("hi-42");

    // The tiny guest plays a server with SSH and cloud-init. What it was asked to say is on the console too, and is not yet
    // said by that.
    let run = lab.novella(&["wait", "web", "--for", "ssh", "--timeout", "1s"]);
    let said = format!("no SSH server at {WEB}:22");
    assert!(run.code() == Some(1) && run.err.contains(&said), "{run:?}");
    seat.types("while :; do printf 'SSH-2.0-tiny\\r\\n' | nc -l -p 22; done &\r");
    let run = lab.novella(&["wait", "web", "--for", "ssh", "--timeout", "30s"]).success();
    assert!(run.out.contains(&format!("server.web: greets by SSH at {WEB} after ")), "{run:?}");

    let cloud_init = |timeout| lab.novella(&["wait", "web", "--for", "cloud-init", "--timeout", timeout]);
    assert!(cloud_init("0s").err.contains("cloud-init has said nothing on the console since it was started"));
    seat.types("echo \"Cloud-init v. 22.4 running 'modules:final' at $(date -R). Up 1 seconds\"\r");
    seat.sees("\nCloud-init v. 22.4 running");
    let run = cloud_init("1s");
    assert!(run.code() == Some(1) && run.err.contains("cloud-init is at `modules:final`"), "{run:?}");
    seat.types("echo \"Cloud-init v. 22.4 finished at $(date -R). Datasource None.  Up 2 seconds\"\r");
    let run = cloud_init("30s").success();
    assert!(run.out.contains("server.web: cloud-init has finished after "), "{run:?}");

    // A second one is told, unless it insists.
    let mut second = Seat::at(&lab, &["console", "web"]);
    assert_eq!(second.ends().code(), Some(1), "{}", second.screen());
    assert!(second.screen().contains("`--force` takes it from them"), "{}", second.screen());
    let mut second = Seat::at(&lab, &["console", "web", "--force"]);
    second.sees("Ctrl-] leaves it");
    assert_eq!(seat.ends().code(), Some(0), "{}", seat.screen());
    assert!(seat.screen().contains("somebody else took it") && !seat.is_raw(), "{}", seat.screen());

    // What a terminal would obey is for pipes.
    second.types("\rprintf '\\033[31mcol''our\\033[0m\\007\\n'\r");
    second.sees("\u{1b}[31mcolour");
    follow.wait_for("\u{1b}[31mcolour\u{1b}[0m\u{7}\r\n");
    let mut logs = Seat::at(&lab, &["logs", "web", "-n", "20"]);
    assert!(logs.ends().success());
    assert!(logs.screen().contains("\ncolour\r\n") && !logs.screen().contains('\u{1b}'), "{:?}", logs.screen());
    let run = lab.novella(&["logs", "web", "--tail", "3"]).success();
    assert_eq!(run.out.matches('\n').count(), 2, "the prompt is a line that has not ended: {run:?}");

    second.types("\u{1d}");
    assert_eq!(second.ends().code(), Some(0), "{}", second.screen());
    assert!(!second.is_raw());

    // Whoever follows goes on when the guest is started again, and whoever waits is not fooled by what was.
    let mut third = Seat::at(&lab, &["console", "web"]);
    third.sees("Ctrl-] leaves it");
    lab.novella(&["stop", "web", "--force"]).success();
    assert_eq!(third.ends().code(), Some(0), "{}", third.screen());
    assert!(third.screen().contains("it was shut off") && !third.is_raw(), "{}", third.screen());
    // The clocks may differ by seconds.
    thread::sleep(Duration::from_secs(6));
    let before = follow.so_far().matches("novella-guest: ready").count();
    lab.novella(&["start", "web"]).success();
    let run = lab.novella(&["wait", "web", "--timeout", "60s", "--json"]).success();
    let json: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
    assert_eq!(json["servers"][0]["address"], WEB);
    let waited = json["servers"][0]["seconds"].as_f64().expect("seconds");
    note(format_args!("the guest had its address after {waited} s"));
    assert!(waited > 0.3, "the lease of the last boot was taken for an answer: {run:?}");
    assert!(cloud_init("0s").err.contains("cloud-init has said nothing"), "what was said before the start counts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while follow.so_far().matches("novella-guest: ready").count() == before {
        assert!(Instant::now() < deadline, "it does not follow");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(follow.is_going_on());
    assert!(follow.signal(Signal::SIGINT));
    follow.wait();
}

/// A throw-away SSH server at the address of a guest: the host of the lab takes the address, as far as it asks itself.
const SSHD: &str = r#"
set -e
cd "$1"
pkill -F sshd.pid 2>/dev/null || true
rm -f host host.pub
ssh-keygen -q -t ed25519 -N '' -f host
[ -e key ] || ssh-keygen -q -t ed25519 -N '' -f key
grep -q ^sshd: /etc/passwd || {
    cp /etc/passwd passwd
    echo sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin >>passwd
    mount --bind passwd /etc/passwd
}
mkdir -p /run/sshd
ip addr replace 10.20.0.2/32 dev lo
cat >config <<EOF
ListenAddress 10.20.0.2
HostKey $1/host
PidFile $1/sshd.pid
AuthorizedKeysFile $1/key.pub
StrictModes no
PermitRootLogin prohibit-password
EOF
"$2" -f config -E "$1/sshd.log" 3>&- >/dev/null 2>&1 </dev/null
"#;

#[test]
fn a_server_is_logged_in_to_by_its_own_host_key() {
    let sshd = std::env::var("NOVELLA_TEST_SSHD").unwrap_or_else(|_| "/usr/sbin/sshd".into());
    if !std::path::Path::new(&sshd).is_file() {
        return skip("there is no SSH server to log in to (apt install openssh-server)");
    }
    let Some(lab) = Lab::with_guests("verbs-ssh") else { return };
    let web = [base(), server("web", "")].concat();
    lab.spec(&web);
    lab.apply();
    let dir = lab.dir().to_str().expect("UTF-8").to_owned();
    let serve = || {
        let run = lab.command("sh").args(["-c", SSHD, "-", &dir, &sshd]).output().expect("scripts/lab");
        assert!(run.status.success(), "{run:?}");
    };
    let key = format!("{dir}/key");
    let ssh = |server: &str, command: &[&str]| {
        let options = ["ssh", server, "--user", "root", "--", "-i", &key, "-o", "BatchMode=yes", "-F", "none"];
        lab.novella(&[&options[..], command].concat())
    };
    serve();
    let run = ssh("web", &["echo in-$((40 + 2))"]).success();
    assert_eq!(run.out, "in-42\n", "{run:?}");
    assert_eq!(ssh("server.web", &["exit", "7"]).code(), Some(7), "the code is that of the command");
    let known = lab.sh(&format!("stat -c %a {0}; cat {0}", lab.state().join("known_hosts").display()));
    assert!(known.starts_with("600\nweb.") && known.lines().count() == 2, "{known}");

    serve();
    let run = ssh("web", &["true"]);
    assert!(run.code() == Some(255) && run.err.contains("IDENTIFICATION HAS CHANGED"), "somebody else's key: {run:?}");

    // Another server has the address now, and then web is made anew. Neither is a reason for fear.
    lab.spec(&[base(), server("late", &format!("fixed_ip = \"{WEB}\""))].concat());
    lab.apply();
    ssh("late", &["true"]).success();
    lab.spec(&web);
    lab.apply();
    serve();
    ssh("web", &["true"]).success();
}
