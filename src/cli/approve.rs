//! `novella approve`.

use crate::cli::{FAILED, Global, Stop, candidates, session};
use crate::report;
use crate::report::{ADD, BOLD};
use crate::store::who::person;
use crate::store::{StoreError, lock::StateLock};
use crate::value::unix_now;
use crate::watch;
use crate::watch::pending::{Approval, FEWEST_DIGITS, Pending};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The digest of the plan that waits, or its first 8 digits; without it, the plan is shown
    #[arg(value_name = "DIGEST", add = candidates::digests())]
    digest: Option<String>,
    /// Let it destroy and replace more resources than `--max-deletes` and `--max-delete-percent` of `watch` let
    #[arg(long, requires = "digest")]
    allow_mass_delete: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let dir = watch::directory(&session::state_dir(global));
    let cannot = |error| StoreError::new("cannot read the plan that waits", error);
    let Some(pending) = Pending::read(&dir).map_err(cannot)? else {
        report::note("Nothing waits for approval.");
        return Err(Stop(FAILED));
    };
    let Some(digest) = &arguments.digest else {
        report::out(Pending::text(&dir).map_err(cannot)?);
        report::line(format_args!("\n`novella approve {}` lets it go.", pending.digest.short()));
        return Ok(());
    };
    if digest.len() < FEWEST_DIGITS || !pending.digest.as_str().starts_with(digest.as_str()) {
        let error = StoreError::refused(format!("no plan waits that has the digest `{}`", digest.escape_default()));
        return Err(error.help(format!("what waits is {}; `novella approve` shows it", pending.digest.short())).into());
    }
    if let Some(why) = pending.exceeds().filter(|_| !arguments.allow_mass_delete) {
        return Err(StoreError::refused(why).into());
    }
    let approval = Approval {
        digest: pending.digest.clone(),
        spec: pending.spec.clone(),
        changes: pending.changes.iter().map(|change| change.digest.clone()).collect(),
        allow_mass_delete: arguments.allow_mass_delete,
        begun: false,
        by: person(),
        at: unix_now(),
    };
    approval.write(&dir).map_err(|error| StoreError::new("cannot write the approval", error))?;
    report::line(format_args!("{ADD}{BOLD}Approved:{BOLD:#}{ADD:#} {}.", pending.summary));
    if StateLock::holder(&dir).is_none() {
        report::note("note: no daemon runs; the next one does it, if the plan is still the same");
    }
    Ok(())
}
