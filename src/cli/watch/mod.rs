//! `novella watch`: the daemon that applies what is saved, and keeps it so.

mod pass;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::apply::Options;
use crate::blueprint::facts::Disruption;
use crate::cli::apply::{disruption, threads};
use crate::cli::{Backend, Global, INTERRUPTED, Stop, session};
use crate::report;
use crate::store::StoreError;
use crate::store::lock::StateLock;
use crate::value::parse_span;
use crate::watch;
use crate::watch::daemon::{Config, Daemon};
use crate::watch::http;
use crate::watch::outside::Outside;
use crate::watch::socket::server::{Inside, Server};
use crate::watch::socket::work::Work;
use crate::window::Window;
use pass::Reconciler;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Arguments {
    /// How often to look at the host and the spec with nothing heard of
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = interval)]
    interval: Duration,
    /// How long a spec must not have changed before it is read
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = moment)]
    debounce: Duration,
    /// The most that a guest may notice of what is done without asking
    #[arg(long, value_name = "WHAT", default_value = "live", value_parser = disruption())]
    max_disruption: Disruption,
    /// How many resources one approval may destroy or replace, unless it was given with `--allow-mass-delete`
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_deletes: usize,
    /// How many of a hundred recorded resources one approval may destroy or replace, unless it was given so or is for one
    #[arg(long, value_name = "P", default_value_t = 50, value_parser = percent())]
    max_delete_percent: usize,
    /// When any guest may be rebooted, beside its `maintenance`: `Sat 02:00-04:00`, or `02:00-04:00` each day; may be repeated
    #[arg(long, value_name = "WHEN")]
    maintenance: Vec<Window>,
    /// Serve `/metrics` for Prometheus and `/healthz` there: a loopback address, as `127.0.0.1:9464`
    #[arg(long, value_name = "ADDR", value_parser = http::loopback)]
    metrics: Option<SocketAddr>,
    /// How many steps run at once, at most
    #[arg(long, value_name = "N", default_value_t = Options::default().parallelism, value_parser = threads())]
    parallelism: usize,
}

fn percent() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(0..=100)
}

/// A length of time from a second on.
fn interval(text: &str) -> Result<Duration, String> {
    let length = session::length(text)?;
    if length.is_zero() { Err("write at least `1s`".into()) } else { Ok(length) }
}

/// A length of time, also in milliseconds.
fn moment(text: &str) -> Result<Duration, String> {
    let milliseconds = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    let moment = milliseconds.map(Duration::from_millis);
    let moment = moment.or_else(|| parse_span(text).map(|seconds| Duration::from_secs(seconds.into())));
    moment.ok_or_else(|| "write it as `300ms` or `2s`".into())
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let state = session::state_dir(global);
    let dir = watch::directory(&state);
    let _only = only_one(&state, &dir)?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut outside = Outside::new(&dir).map_err(|error| Stop::error(&error, None))?;
    outside.hear_signals(Arc::clone(&stop), INTERRUPTED).map_err(|error| Stop::error(&error, None))?;
    if global.backend == Backend::Libvirt {
        outside.hear_host();
    }
    let config = config(global, arguments, &dir);
    let metrics = arguments.metrics.map(|address| http::Server::begin(address, Arc::clone(&config.board)));
    let metrics = metrics
        .transpose()
        .map_err(|error| Stop::error(&error, Some("let it have another port, or end who has it: `ss -ltnp` tells")))?;
    let work = Arc::new(Work::default());
    let mut reconciler = Reconciler::new(global, arguments, &dir, stop, Arc::clone(&work));
    report::watch::began(&global.specs);
    metrics.iter().for_each(|server| report::watch::serves(server.address()));
    // Without it, verbs go to the state themselves, and what is done just now cannot be told.
    let inside = Inside { work, inputs: config.inputs.clone(), ask: outside.asks() };
    let _server = Server::begin(&state, inside).inspect_err(report::watch::no_socket);
    Daemon::new(&config, &mut outside, &mut reconciler).run();
    Ok(())
}

fn config(global: &Global, arguments: &Arguments, dir: &Path) -> Config {
    Config {
        inputs: global.inputs(),
        dir: dir.to_owned(),
        interval: arguments.interval,
        debounce: arguments.debounce,
        board: Arc::default(),
        maintenance: arguments.maintenance.clone(),
    }
}

/// The right to be the daemon of a state.
fn only_one(state: &Path, dir: &Path) -> Result<StateLock, StoreError> {
    if let Some(holder) = StateLock::holder(dir) {
        let what = format!("the state in `{}` is watched over by {holder}", state.display());
        return Err(
            StoreError::refused(what).help("end that one first, or give this one a state of its own with `--state`")
        );
    }
    StateLock::acquire(dir, "watch", Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Verb};
    use crate::watch::daemon::Wake;
    use crate::watch::fake::{Event, Fake};
    use crate::watch::settle::Sign;
    use crate::watch::status::{Health, Status};

    fn spec(count: usize) -> String {
        format!(
            "novella = 1\n[network.a]\n[subnet.a]\nnetwork = \"a\"\ncidr = \"10.0.0.0/24\"\n\
             [image.i]\nsource = \"/i.raw\"\nformat = \"raw\"\n[flavor.f]\nram = \"128 MiB\"\ndisk = \"1 GiB\"\n\
             [server.s]\nimage = \"i\"\nflavor = \"f\"\nnetworks = [\"a\"]\ncount = {count}\n"
        )
    }

    /// The files below a directory that this process has open.
    fn open_below(directory: &Path) -> usize {
        let all = fs::read_dir("/proc/self/fd").expect("proc").filter_map(Result::ok);
        all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(directory))).count()
    }

    #[test]
    fn six_hours_leave_nothing_behind() {
        let place = tempfile::tempdir().expect("a directory");
        let [specs, state] = ["specs", "state"].map(|name| place.path().join(name));
        fs::create_dir(&specs).expect("a directory");
        fs::write(specs.join("spec.toml"), spec(1)).expect("a spec");
        let arguments = ["novella".as_ref(), "watch".as_ref(), "--backend".as_ref(), "sim".as_ref()];
        let arguments = arguments.into_iter().chain(["--specs".as_ref(), specs.as_os_str()]);
        let cli = Cli::parse_from(arguments.chain(["--state".as_ref(), state.as_os_str()]));
        let Verb::Watch(arguments) = &cli.verb else { panic!("another verb") };
        let state = session::state_dir(&cli.global);
        let dir = watch::directory(&state);
        let _only = only_one(&state, &dir).expect("nobody else");
        // Each half an hour a server more, and in between something is lost and something broken.
        let hours = Duration::from_hours(1);
        let told = || Some(Wake::Spec(Sign::Changed));
        let mut events: Vec<Event<'_>> = Vec::new();
        for half in 1..12_u32 {
            let (file, host) = (specs.join("spec.toml"), state.join("host.json"));
            let save = |text: String| {
                let file = file.clone();
                move || fs::write(&file, &text).expect("saved")
            };
            events.push((hours / 2 * half, Box::new(save(spec(1 + half as usize))), told()));
            events.push((hours / 2 * half + hours / 6, Box::new(save("[".into())), told()));
            events.push((hours / 2 * half + hours / 5, Box::new(save(spec(1 + half as usize))), told()));
            let lose = move || {
                let text = fs::read_to_string(&host).expect("the host");
                let mut it: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                it["objects"].as_array_mut().expect("objects").retain(|object| object["kind"] != "bridge");
                fs::write(&host, it.to_string()).expect("written");
            };
            events.push((hours / 2 * half + hours / 4, Box::new(lose), None));
        }
        let open = open_below(place.path());
        let most = std::cell::Cell::new(0);
        for number in 0..60 {
            let look = || most.set(most.get().max(open_below(place.path())));
            events.push((hours / 10 * number, Box::new(look), None));
        }
        events.sort_by_key(|(at, ..)| *at);
        let mut world = Fake { now: Duration::ZERO, end: hours * 6, events };
        let config = config(&cli.global, arguments, &dir);
        let mut reconciler = Reconciler::new(&cli.global, arguments, &dir, Arc::default(), Arc::default());
        Daemon::new(&config, &mut world, &mut reconciler).run();
        drop(world);

        let status = Status::read(&dir).expect("a status").expect("a status");
        assert_eq!(status.health, Health::Healthy, "{status:#?}");
        assert!((360..460).contains(&status.passes), "{}", status.passes);
        assert_eq!((open_below(place.path()), most.get()), (open, open));
        let recorded = crate::store::export::read_only(&state).expect("a state").recorded;
        let servers = recorded.records.values().filter(|record| record.object.as_domain().is_some());
        assert_eq!(servers.count(), 12);
    }
}
