//! What a shell offers where an argument names something: it is read from the spec and the state, in silence.
//!
//! The shell runs novella with the line as it is so far, so `--specs` and all else that stands on it counts. A spec with
//! mistakes in it offers what can be read.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::FromArgMatches as _;
use clap_complete::env::CompleteEnv;
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::address::{Address, ResourceKind};
use crate::cli::session::{self, Target};
use crate::cli::{Global, command, given};
use crate::desired::{self, Desired};
use crate::spec::{self, Source, json_schema};
use crate::store::export;
use crate::store::history::{self, Begun};
use crate::watch::{self, pending::Pending};

/// The variable by which a shell asks.
pub(super) const ASKED: &str = "NOVELLA_COMPLETE";

/// Answers if it is a shell that asks, and ends then.
pub(super) fn answer() {
    CompleteEnv::with_factory(command).var(ASKED).complete();
}

/// Servers of the spec and the state, as `web` or `server.web`.
pub(super) fn servers() -> ArgValueCompleter {
    named(ResourceKind::Server)
}

/// Networks, as `private` or `network.private`.
pub(super) fn networks() -> ArgValueCompleter {
    named(ResourceKind::Network)
}

/// Images of the spec, by name.
pub(super) fn images() -> ArgValueCompleter {
    completer(|global, _| names(&declared(global), ResourceKind::Image))
}

/// Addresses of the spec and the state.
pub(super) fn addresses() -> ArgValueCompleter {
    completer(|global, _| known(global).iter().map(candidate).collect())
}

/// Addresses of servers.
pub(super) fn server_addresses() -> ArgValueCompleter {
    completer(|global, _| of_kind(&known(global), ResourceKind::Server).map(candidate).collect())
}

/// Addresses of what has a disk that can be in the trash.
pub(super) fn disks() -> ArgValueCompleter {
    completer(|global, _| {
        let known = known(global);
        [ResourceKind::Server, ResourceKind::Volume]
            .iter()
            .flat_map(|kind| of_kind(&known, *kind))
            .map(candidate)
            .collect()
    })
}

/// Addresses of the state.
pub(super) fn recorded_addresses() -> ArgValueCompleter {
    completer(|global, _| recorded(global).iter().map(candidate).collect())
}

/// Addresses, and behind them their keys.
pub(super) fn questions() -> ArgValueCompleter {
    completer(|global, written| {
        let (address, _) = written.rsplit_once('.').unwrap_or_default();
        let Ok(of) = address.parse::<Address>() else {
            return known(global).iter().map(candidate).collect();
        };
        let key = |(key, meaning): (String, String)| {
            CompletionCandidate::new(format!("{address}.{key}")).help(Some(meaning.into()))
        };
        json_schema::keys(of.kind).into_iter().map(key).collect()
    })
}

/// What disks are called in the trash.
pub(super) fn trashed() -> ArgValueCompleter {
    completer(|global, _| {
        let (Some(desired), _) = read(global) else { return Vec::new() };
        let Ok(target) = Target::open(global, &desired, session::no_progress()) else { return Vec::new() };
        let entries = target.images().and_then(|images| images.trash().ok()).unwrap_or_default();
        let candidate = |entry: crate::host::images::trash::Entry| {
            CompletionCandidate::new(entry.id).help(Some(entry.address.to_string().into()))
        };
        entries.into_iter().map(candidate).collect()
    })
}

/// The numbers of the runs in the history, the last first.
pub(super) fn runs() -> ArgValueCompleter {
    completer(|global, _| {
        let entries = history::read(&session::state_dir(global)).unwrap_or_default();
        let run = |entry: history::Entry| {
            let Begun { number, operation, summary, .. } = entry.begun;
            CompletionCandidate::new(number.to_string()).help(Some(format!("{operation}: {summary}").into()))
        };
        entries.into_iter().rev().map(run).collect()
    })
}

/// The digest of the plan that waits.
pub(super) fn digests() -> ArgValueCompleter {
    completer(|global, _| {
        let pending = Pending::read(&watch::directory(&session::state_dir(global))).ok().flatten();
        let candidate = |it: Pending| CompletionCandidate::new(it.digest.short()).help(Some(it.summary.into()));
        pending.map(candidate).into_iter().collect()
    })
}

/// Offers what `find` finds for what is written so far, as far as it goes on from there.
fn completer(find: impl Fn(&Global, &str) -> Vec<CompletionCandidate> + Send + Sync + 'static) -> ArgValueCompleter {
    ArgValueCompleter::new(move |written: &OsStr| {
        let (Some(global), Some(written)) = (global(), written.to_str()) else { return Vec::new() };
        let mut found = find(&global, written);
        found.retain(|it| it.get_value().to_string_lossy().starts_with(written));
        found
    })
}

fn named(kind: ResourceKind) -> ArgValueCompleter {
    completer(move |global, written| {
        let known = known(global);
        let mut found = names(&known, kind);
        if !written.is_empty() {
            found.extend(of_kind(&known, kind).map(candidate));
        }
        found
    })
}

fn candidate(address: &Address) -> CompletionCandidate {
    CompletionCandidate::new(address.to_string())
}

fn names(known: &BTreeSet<Address>, kind: ResourceKind) -> Vec<CompletionCandidate> {
    of_kind(known, kind).map(|address| CompletionCandidate::new(address.name.as_str())).collect()
}

/// What the line says that holds for every verb.
fn global() -> Option<Global> {
    let line = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let matches = command().ignore_errors(true).try_get_matches_from(line.collect::<Vec<OsString>>()).ok()?;
    let mut global = Global::from_arg_matches(&matches).ok()?;
    global.given = given::Arguments::read(&matches);
    Some(global)
}

fn read(global: &Global) -> (Option<Desired>, Source) {
    let loaded = spec::load_with(&global.inputs());
    (desired::resolve(&loaded.spec, &loaded.source).0, loaded.source)
}

/// What the spec has, with the servers that a `count` makes, and without templates.
fn declared(global: &Global) -> BTreeSet<Address> {
    let (desired, source) = read(global);
    let mut addresses = source.addresses();
    if let Some(desired) = desired {
        addresses.retain(|it| it.kind != ResourceKind::Server);
        addresses.extend(desired.servers.keys().map(|name| Address::new(ResourceKind::Server, name.clone())));
    }
    addresses
}

fn recorded(global: &Global) -> BTreeSet<Address> {
    let read = export::read_only(&session::state_dir(global)).map(|read| read.recorded).unwrap_or_default();
    read.records.values().map(|record| record.object.address()).collect()
}

fn known(global: &Global) -> BTreeSet<Address> {
    let mut known = declared(global);
    known.append(&mut recorded(global));
    known
}

fn of_kind(known: &BTreeSet<Address>, kind: ResourceKind) -> impl Iterator<Item = &Address> {
    known.iter().filter(move |it| it.kind == kind)
}
