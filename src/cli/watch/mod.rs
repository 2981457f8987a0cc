//! `novella watch`: the daemon that applies what is saved, and keeps it so.

mod pass;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::apply::Options;
use crate::blueprint::facts::Disruption;
use crate::cli::apply::{disruption, threads};
use crate::cli::{Global, INTERRUPTED, Stop, session};
use crate::report;
use crate::store::StoreError;
use crate::store::lock::StateLock;
use crate::value::parse_span;
use crate::watch;
use crate::watch::daemon::{Config, Daemon};
use crate::watch::outside::Outside;
use crate::watch::window::Window;
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
    /// When guests may be rebooted, as `Sat 02:00-04:00`, or `02:00-04:00` each day; can be given more than once
    #[arg(long, value_name = "WHEN")]
    maintenance: Vec<Window>,
    /// How many steps run at once, at most
    #[arg(long, value_name = "N", default_value_t = Options::default().parallelism, value_parser = threads())]
    parallelism: usize,
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
    let config = config(global, arguments, &dir);
    let mut reconciler = Reconciler::new(global, arguments, &dir, stop);
    report::watch::began(&global.specs);
    Daemon::new(&config, &mut outside, &mut reconciler).run();
    Ok(())
}

fn config(global: &Global, arguments: &Arguments, dir: &Path) -> Config {
    Config {
        inputs: global.inputs(),
        dir: dir.to_owned(),
        interval: arguments.interval,
        debounce: arguments.debounce,
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
