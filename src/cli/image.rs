//! `novella image`: the image cache, and the lock file of the images.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;

use crate::address::{Name, ResourceKind};
use crate::blueprint::key::{ObjectKind, domain_key};
use crate::blueprint::object::{BaseRole, Locked, Object, Source};
use crate::cli::session::{self, Target};
use crate::cli::{Global, Stop, candidates, lock};
use crate::desired::{Desired, ImageFile};
use crate::host::HostError;
use crate::host::images::{Cached, Images};
use crate::plan::world::Recorded;
use crate::report;
use crate::report::images::{self, Row};
use crate::spec::lock::{FILE, Part};
use crate::store::Store as _;
use crate::store::sled::SledStore;
use crate::value::ByteSize;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what is in the cache: from where, how large, who uses it
    List(List),
    /// Drop from the cache what nothing needs
    Prune(Prune),
    /// Write what the images are to `images.lock`, those that are not in it yet
    Lock,
    /// Look at the sources of images anew, and write what they are now to `images.lock`
    Update(Update),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Prune {
    /// Only what was of no use for so long
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = session::length)]
    older_than: Duration,
    /// However short the time
    #[arg(long, conflicts_with = "older_than")]
    all: bool,
    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
struct Update {
    /// The images, by name; all of them if none is named
    #[arg(value_name = "IMAGE", add = candidates::images())]
    images: Vec<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    match &arguments.what {
        What::List(list) => {
            let (desired, _) = session::spec(global)?;
            let target = Target::open(global, &desired, session::no_progress())?;
            let rows = rows(&desired, &session::recorded(global)?, &cache(&target)?.cached()?);
            report::out(if list.json { images::json(&rows) } else { images::table(&rows) });
            Ok(())
        }
        What::Prune(arguments) => prune(global, arguments),
        What::Lock => renew(global, &[], false),
        What::Update(arguments) => renew(global, &arguments.images, true),
    }
}

/// A simulated host fetches nothing.
fn cache(target: &Target) -> Result<&Images, Stop> {
    let refused = || HostError::refused("a simulated host has no image cache").help("leave `--backend sim` out");
    Ok(target.images().ok_or_else(refused)?)
}

fn prune(global: &Global, arguments: &Prune) -> Result<(), Stop> {
    let (desired, _) = session::spec(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let images = cache(&target)?;
    // What is made or taken away meanwhile could need one.
    let store =
        if arguments.dry_run { None } else { Some(SledStore::open(&session::state_dir(global), "image prune")?) };
    let recorded = match &store {
        Some(store) => store.load()?,
        None => session::recorded(global)?,
    };
    let needed = Needed::new(&recorded, &images.servers()?);
    let least = if arguments.all { Duration::ZERO } else { arguments.older_than };
    let (mut dropped, mut room) = (0, 0);
    for row in rows(&desired, &recorded, &images.cached()?) {
        if needed.has(&row.id) || !row.users.is_empty() || row.unused_for < least {
            continue;
        }
        if arguments.dry_run || images.prune(&row.id, least)? {
            report::line(format_args!(
                "{} {} ({})",
                if arguments.dry_run { "would drop" } else { "dropped" },
                images::title(&row),
                row.size.about()
            ));
            (dropped, room) = (dropped + 1, room + row.size.bytes());
        }
    }
    if let Some(store) = &store
        && store.load()?.records.is_empty()
    {
        target.tidy();
    }
    let words = if arguments.dry_run { "would be dropped" } else { "dropped" };
    report::line(format_args!("{} {words}, {} free by it.", report::count(dropped, "image"), ByteSize(room).about()));
    Ok(())
}

/// What may not go, whatever the disks say.
struct Needed {
    /// What a record is of, or needs.
    recorded: BTreeSet<String>,
    /// A server has files, and no record tells which kernel it boots: the state was lost.
    unknown_servers: bool,
}

impl Needed {
    fn new(recorded: &Recorded, servers: &[Name]) -> Self {
        let keys = recorded.records.iter().flat_map(|(key, record)| record.needs().into_iter().chain([key.clone()]));
        let is_known = |server: &Name| recorded.records.contains_key(&domain_key(server));
        Self {
            recorded: keys.filter(|key| key.kind == ObjectKind::Base).map(|key| key.id).collect(),
            unknown_servers: !servers.iter().all(is_known),
        }
    }

    fn has(&self, id: &str) -> bool {
        let boots = [BaseRole::Kernel, BaseRole::Initrd].iter().any(|role| id.ends_with(&format!(".{role}")));
        self.recorded.contains(id) || boots && self.unknown_servers
    }
}

/// What is in the cache, with what the spec and the state know of it.
fn rows(desired: &Desired, recorded: &Recorded, cached: &[Cached]) -> Vec<Row> {
    let mut names: BTreeMap<&str, Name> = BTreeMap::new();
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for record in recorded.records.values() {
        if let Object::Base(base) = &record.object {
            names.insert(&base.id, base.image.clone());
        }
        if let Object::Disk(_) | Object::Domain(_) = &record.object {
            for need in record.needs().into_iter().filter(|need| need.kind == ObjectKind::Base) {
                users.entry(need.id).or_default().insert(record.object.address().to_string());
            }
        }
    }
    let row = |cached: &Cached| {
        let files = desired.images.values().flat_map(|image| image.files().map(|(_, file)| (&image.name, file)));
        let is_it = |file: &ImageFile| {
            let digest = file.sha256.as_ref().or(file.locked.as_ref().map(|locked| &locked.sha256));
            digest.is_some() && digest == cached.sha256.as_ref()
        };
        let mut its: Vec<(&Name, &ImageFile)> = files.filter(|(_, file)| is_it(file)).collect();
        its.sort_by_key(|(name, _)| *name);
        let mut users = users.get(&cached.id).cloned().unwrap_or_default();
        let known: BTreeSet<String> = users.clone();
        users.extend(cached.disks.iter().filter_map(|disk| {
            let server =
                disk.parent().and_then(|it| it.file_name()).map(|it| format!("server.{}", it.to_string_lossy()));
            let is_known = disk.ends_with("disk.qcow2") && server.is_some_and(|server| known.contains(&server));
            (!is_known).then(|| disk.display().to_string())
        }));
        Row {
            id: cached.id.clone(),
            image: names.get(cached.id.as_str()).or(its.first().map(|(name, _)| *name)).cloned(),
            format: cached.format.clone(),
            source: cached.source.clone(),
            sha256: cached.sha256.clone(),
            size: ByteSize(cached.room),
            unused_for: cached.unused_for,
            locked: its.iter().any(|(_, file)| file.locked.is_some()),
            pinned: its.iter().any(|(_, file)| file.sha256.is_some()),
            users: users.into_iter().collect(),
        }
    };
    cached.iter().map(row).collect()
}

/// Looks at the sources of images, and writes what they are: those that are not locked yet, or with `anew` all.
fn renew(global: &Global, only: &[String], anew: bool) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    let target = Target::open(global, &desired, session::no_progress())?;
    let images = cache(&target)?;
    let mut named = BTreeSet::new();
    for name in only {
        named.insert(session::find(ResourceKind::Image, &desired.images, name, &source)?.name.clone());
    }
    let mut locks = lock::current(&desired);
    let (mut looked, mut changed) = (0, 0);
    for (image, part, file) in lock::lockable(&desired) {
        let Source::Url(url) = &file.source else { continue };
        let is_asked = if anew { named.is_empty() || named.contains(image) } else { file.locked.is_none() };
        if !is_asked {
            continue;
        }
        let now = images.look_at(image, url, file.sums.as_ref(), file.locked.as_ref())?;
        report::line(told(image, part, file.locked.as_ref(), &now));
        looked += 1;
        changed += usize::from(file.locked.as_ref() != Some(&now));
        locks.set(image, part, now);
    }
    let path = global.specs.join(FILE);
    let failed = |error| HostError::new(format!("cannot write `{}`", path.display()), error);
    lock::write(global, &source, &locks).map_err(failed)?;
    report::line(match (looked, changed) {
        (0, _) if anew => {
            "There is nothing to lock: the spec pins its images, or they are files of this host.".to_owned()
        }
        (_, 0) => format!("`{}` is up to date.", path.display()),
        _ => {
            format!("{} written to `{}`.", report::count(changed, "entry").replace("entrys", "entries"), path.display())
        }
    });
    if anew && changed > 0 {
        report::line("The servers that there are keep their disks; new ones get what is locked now.");
    }
    Ok(())
}

/// What became of one file: the old digest and the new one.
fn told(image: &Name, part: Part, before: Option<&Locked>, now: &Locked) -> String {
    let what =
        if part == Part::Source { format!("image.{image}") } else { format!("image.{image} ({})", part.as_str()) };
    let size = |locked: &Locked| ByteSize(locked.size).about();
    match before {
        Some(before) if before.sha256 == now.sha256 => format!("{what}: unchanged, {}", now.sha256),
        Some(before) => format!("{what}: {} ({}) -> {} ({})", before.sha256, size(before), now.sha256, size(now)),
        None => format!("{what}: {} ({})", now.sha256, size(now)),
    }
}
