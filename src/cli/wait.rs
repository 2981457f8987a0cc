//! `novella wait`.
//!
//! | `--for` | it is so when |
//! |---|---|
//! | `running` | libvirt says that the guest runs |
//! | `ip` | and the guest answers, by ARP or neighbour discovery, for the address that `ssh` would go to |
//! | `ssh` | and an SSH server greets on port 22 there |
//! | `cloud-init` | the guest runs, and cloud-init has said on the console, since it was started, that it finished |
//!
//! A lease tells nothing: it outlives the guest.

use std::fmt;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use jiff::fmt::rfc2822;
use serde::Serialize;

use crate::address::Name;
use crate::blueprint::object::Domain;
use crate::cli::logs::Log;
use crate::cli::servers::{Place, Servers, domain, machine, places};
use crate::cli::session::{self, Target};
use crate::cli::{FAILED, Global, Stop, candidates};
use crate::host::HostError;
use crate::host::hypervisor::Hypervisor;
use crate::host::machine::Machine;
use crate::plan::world::{Observed, Recorded};
use crate::report::{self, BOLD, DIM};
use crate::store::export;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long a guest may take to answer a look.
const PATIENCE: Duration = Duration::from_millis(700);

/// How far the clocks of host and guest may differ.
const CLOCKS: u64 = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The servers, as `web` or `server.web`; all of them are waited for
    #[arg(required = true, value_name = "SERVER", add = candidates::servers())]
    servers: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", default_value = "ip")]
    what: What,
    /// How long to wait at most, as `90s`, `5m`, `2h`, `1d`; `0s` looks once
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = session::length)]
    timeout: Duration,
    /// Print JSON when it is over
    #[arg(long)]
    json: bool,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    /// The guest runs
    Running,
    /// It answers for its address
    Ip,
    /// An SSH server greets there
    Ssh,
    /// cloud-init has finished
    CloudInit,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Ip => "ip",
            Self::Ssh => "ssh",
            Self::CloudInit => "cloud-init",
        })
    }
}

/// What came of it for one server.
#[derive(Debug, Serialize)]
struct Row {
    server: Name,
    done: bool,
    /// The address that was waited for.
    address: Option<IpAddr>,
    seconds: f64,
    /// What is missing, where it was not done.
    missing: Option<String>,
}

/// What a look tells: what is so, or what is not yet.
type Look = Result<String, Missing>;

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    Made,
    Domain,
    Power,
    Other(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::Made => "it has not been made yet",
            Self::Domain => "it has no domain on this host",
            Self::Power => "it is shut off",
            Self::Other(what) => what,
        })
    }
}

impl Missing {
    fn help(&self, server: &Name) -> String {
        match self {
            Self::Made | Self::Domain => "`novella apply` makes it".into(),
            Self::Power => format!("`novella start {server}` turns it on"),
            Self::Nothing | Self::Other(_) => format!("`novella logs {server}` shows what it says"),
        }
    }
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let names = servers.named(&arguments.servers)?;
    let target = servers.target(global)?;
    if arguments.what != What::Running {
        machine(&target, "wait for but `--for running`")?;
    }
    let wait =
        Wait { global, target: &target, what: arguments.what, timeout: arguments.timeout, quiet: arguments.json };
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for name in &names {
            let (wait, rows, recorded) = (&wait, &rows, &servers.recorded);
            scope.spawn(move || {
                let row = wait.wait(name, recorded.clone());
                rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|a, b| a.server.cmp(&b.server));
    if arguments.json {
        let json = serde_json::json!({ "format_version": "1.0", "for": arguments.what, "servers": rows });
        report::out(report::json::document(&json));
    }
    if rows.iter().all(|row| row.done) { Ok(()) } else { Err(Stop(FAILED)) }
}

struct Wait<'a> {
    global: &'a Global,
    target: &'a Target,
    what: What,
    timeout: Duration,
    quiet: bool,
}

impl Wait<'_> {
    /// Waits for one server, and says what came of it.
    fn wait(&self, name: &Name, mut recorded: Recorded) -> Row {
        let begun = Instant::now();
        let mut said = Missing::Nothing;
        loop {
            let made = domain(&recorded, name);
            let place = made.and_then(|made| places(&recorded, made).into_iter().next());
            let look = match made {
                Some(made) => self.look(made, place.as_ref()),
                None => Ok(Err(Missing::Made)),
            };
            let waited = begun.elapsed();
            let row = |missing: Option<String>| Row {
                server: name.clone(),
                done: missing.is_none(),
                address: place.as_ref().map(|place| place.address),
                seconds: (waited.as_secs_f64() * 1000.0).round() / 1000.0,
                missing,
            };
            let missing = match look {
                Ok(Ok(so)) => {
                    if !self.quiet {
                        let took = report::progress::seconds(waited);
                        report::line(format_args!("{BOLD}server.{name}{BOLD:#}: {so} after {took}"));
                    }
                    return row(None);
                }
                Ok(Err(missing)) => missing,
                Err(error) => {
                    report::note(format_args!("{BOLD}server.{name}{BOLD:#}: cannot be waited for"));
                    report::error::print(&error, error.help.as_deref());
                    return row(Some(report::error::chain(&error)));
                }
            };
            if waited >= self.timeout {
                let waited = report::progress::seconds(waited);
                let error =
                    HostError::refused(format!("`server.{name}` is not at `{}` after {waited}: {missing}", self.what));
                report::error::print(&error, Some(&missing.help(name)));
                return row(Some(missing.to_string()));
            }
            if missing != said && report::is_attended() {
                report::note(format_args!(
                    "{DIM}server.{name}: {}...{DIM:#}",
                    report::clean_line(&missing.to_string())
                ));
                said = missing;
            }
            let unmade = made.is_none();
            std::thread::sleep(LOOK.min(self.timeout.saturating_sub(waited)));
            // Another run may be making it.
            if unmade && let Ok(read) = export::read_only(&session::state_dir(self.global)) {
                recorded = read.recorded;
            }
        }
    }

    fn look(&self, made: &Domain, place: Option<&Place>) -> Result<Look, HostError> {
        let power = match self.target {
            Target::Machine(machine) => machine.hypervisor().power(&made.server)?,
            Target::Sim(sim) => power(&crate::host::Host::observe(sim.as_ref())?, &made.server),
        };
        match power.as_deref() {
            Some("on") => {}
            Some("off") => return Ok(Err(Missing::Power)),
            Some(other) => return Ok(Err(Missing::Other(format!("it is {other}")))),
            None => return Ok(Err(Missing::Domain)),
        }
        let Target::Machine(machine) = self.target else { return Ok(Ok("runs".into())) };
        match self.what {
            What::Running => Ok(Ok("runs".into())),
            What::CloudInit => {
                let said = Log::new(made.console_log.clone()).whole().map_err(|error| {
                    HostError::new(format!("cannot read the console log `{}`", made.console_log.display()), error)
                })?;
                Ok(cloud_init(&String::from_utf8_lossy(&said), Hypervisor::running_since(&made.name)))
            }
            What::Ip | What::Ssh => {
                let Some(place) = place else { return Ok(Err(Missing::Other("it has no address".into()))) };
                match answers(machine, place)? {
                    Err(missing) => Ok(Err(missing)),
                    Ok(so) if self.what == What::Ip => Ok(Ok(so)),
                    Ok(_) => Ok(greets(place.address)),
                }
            }
        }
    }
}

fn power(observed: &Observed, server: &Name) -> Option<String> {
    observed.objects.get(&crate::blueprint::key::domain_key(server))?.get("power").cloned()
}

fn answers(machine: &Machine, place: &Place) -> Result<Look, HostError> {
    let Place { address, mac, bridge, .. } = place;
    if machine.links().answers(bridge, *address, *mac, PATIENCE)? {
        return Ok(Ok(format!("has {address}")));
    }
    let means = if address.is_ipv4() { "ARP" } else { "neighbour discovery" };
    Ok(Err(Missing::Other(format!("{mac} does not answer {means} for {address}"))))
}

/// Whether an SSH server is there. It may say other lines before it says who it is (RFC 4253, 4.2).
fn greets(address: IpAddr) -> Look {
    let to = SocketAddr::new(address, 22);
    let read = || -> std::io::Result<Vec<u8>> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let begun = Instant::now();
        let (mut said, mut piece) = (Vec::new(), [0; 512]);
        while !is_greeting(&said) && said.len() < 8192 && begun.elapsed() < PATIENCE * 3 {
            match (&stream).read(&mut piece)? {
                0 => break,
                read => said.extend(piece.get(..read).unwrap_or_default()),
            }
        }
        Ok(said)
    };
    match read() {
        Ok(said) if is_greeting(&said) => Ok(format!("greets by SSH at {address}")),
        Ok(_) => Err(Missing::Other(format!("what listens at {to} does not greet as an SSH server"))),
        Err(error) => Err(Missing::Other(format!("no SSH server at {to}: {error}"))),
    }
}

fn is_greeting(said: &[u8]) -> bool {
    said.split_inclusive(|byte| *byte == b'\n').any(|line| line.starts_with(b"SSH-") && line.ends_with(b"\n"))
}

/// How far cloud-init is by what stands on the console since the guest was started. A console log goes on over many
/// starts, so what is older does not count.
///
/// ```text
/// Cloud-init v. 22.4.2 running 'modules:final' at Thu, 24 Sep 2026 10:00:09 +0000. Up 12.10 seconds.
/// Cloud-init v. 22.4.2 finished at Thu, 24 Sep 2026 10:00:09 +0000. Datasource DataSourceNoCloud.  Up 12.34 seconds
/// ```
fn cloud_init(said: &str, since: Option<SystemTime>) -> Look {
    let since = since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    let steps = said.lines().rev().filter_map(|line| {
        let (_, line) = line.split_once("Cloud-init v. ")?;
        let (_, line) = line.split_once(' ')?;
        let (step, when) = line.split_once(" at ")?;
        (date(when)? + CLOCKS >= since).then(|| step.trim_start_matches("running ").trim_matches('\'').to_owned())
    });
    match steps.into_iter().next() {
        Some(step) if step == "finished" => Ok("cloud-init has finished".into()),
        Some(step) => Err(Missing::Other(format!("cloud-init is at `{step}`"))),
        None => Err(Missing::Other("cloud-init has said nothing on the console since it was started".into())),
    }
}

/// A date as cloud-init writes it (RFC 5322, 3.3), in seconds since 1970; whatever follows it.
fn date(text: &str) -> Option<u64> {
    let (date, _) = text.split_once(". ").unwrap_or((text, ""));
    u64::try_from(rfc2822::parse(date.trim()).ok()?.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::session::length;

    #[test]
    fn dates_are_read() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 +0000. Datasource", 0),
            ("Thu, 24 Sep 2026 10:00:09 +0000. Up 1.00 seconds", 1_790_244_009),
            ("Thu, 24 Sep 2026 12:00:09 +0200", 1_790_244_009),
            ("Tue, 29 Feb 2028 23:59:59 -0130", 1_835_486_999),
        ] {
            assert_eq!(date(text), Some(seconds), "{text}");
        }
        for bad in ["", "$(date -R)", "Thu, 24 Foo 2026 10:00:09 +0000", "Thu, 24 Sep 2026 10:00:09"] {
            assert_eq!(date(bad), None, "{bad}");
        }
    }

    #[test]
    fn cloud_init_counts_since_the_guest_was_started() {
        let line = |what: &str, minute: u32| {
            let when = format!("Thu, 24 Sep 2026 10:{minute:02}:00 +0000");
            format!("[ 12.3] cloud-init[1]: Cloud-init v. 22.4.2-0ubuntu1~20 {what} at {when}. Up 1 seconds\r\n")
        };
        let since = |minute: u64| Some(UNIX_EPOCH + Duration::from_secs(1_790_244_000 + minute * 60));
        let first = line("running 'init-local'", 1) + &line("finished", 2);
        let second = first.clone() + &line("running 'init-local'", 11);
        let nothing = "cloud-init has said nothing on the console since it was started";
        for (said, started, expected) in [
            ("", None, Err(nothing)),
            ("login: ", since(0), Err(nothing)),
            (&first, since(0), Ok("cloud-init has finished")),
            (&first, None, Ok("cloud-init has finished")),
            (&first, since(10), Err(nothing)),
            (&second, since(10), Err("cloud-init is at `init-local`")),
            (&second, None, Err("cloud-init is at `init-local`")),
            (&(second.clone() + &line("finished", 12)), since(10), Ok("cloud-init has finished")),
            ("# echo Cloud-init v. 1 finished at $(date -R)", since(0), Err(nothing)),
        ] {
            let is = cloud_init(said, started).map_err(|missing| missing.to_string());
            assert_eq!(is.as_deref().map_err(String::as_str), expected, "{said}");
        }
    }

    #[test]
    fn a_greeting_is_a_whole_line() {
        for (said, is) in [
            ("SSH-2.0-OpenSSH_9.2\r\n", true),
            ("be good\r\nSSH-2.0-x\n", true),
            ("SSH-2.0-Open", false),
            ("HTTP/1.0 400 Bad Request\r\n", false),
            ("", false),
        ] {
            assert_eq!(is_greeting(said.as_bytes()), is, "{said:?}");
        }
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("5m", 300), ("5 m", 300), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(length(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "m", "-5m", "1.5h", "5M", "5min", "99999999999s"] {
            assert!(length(bad).is_err(), "{bad}");
        }
    }
}
