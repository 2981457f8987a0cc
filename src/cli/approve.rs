//! `novella approve`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cli::handover::{caller, refused};
use crate::cli::{FAILED, Global, Stop, candidates, session};
use crate::report;
use crate::report::{ADD, BOLD};
use crate::store::who::person;
use crate::store::{StoreError, lock::StateLock};
use crate::value::unix_now;
use crate::watch;
use crate::watch::pending::Pending;
use crate::watch::socket::client::Conversation;
use crate::watch::socket::protocol::{Ask, Refusal, Told};

/// How long a daemon that is in the midst of a pass is waited for.
const A_PASS: Duration = Duration::from_mins(5);

/// After this time it is said that it is waited for.
const A_MOMENT: Duration = Duration::from_secs(2);

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
    let state = session::state_dir(global);
    let dir = watch::directory(&state);
    let holder = StateLock::holder(&dir);
    if let (Some(digest), Some(_)) = (&arguments.digest, &holder)
        && let Some(told) = ask(&state, digest, arguments.allow_mass_delete)?
    {
        return match told {
            Told::Approved { summary } => {
                approved(&summary);
                Ok(())
            }
            Told::Refused(refusal) => Err(refused(&refusal)),
            _ => Err(refused(&Refusal::new("the daemon answers something else"))),
        };
    }
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
    let approval = pending.approval(digest, arguments.allow_mass_delete, &person(), unix_now());
    let approval = approval.map_err(|refusal| refused(&refusal))?;
    approval.write(&dir).map_err(|error| StoreError::new("cannot write the approval", error))?;
    approved(&pending.summary);
    if holder.is_none() {
        report::note("note: no daemon runs; the next one does it, if the plan is still the same");
    }
    Ok(())
}

fn approved(summary: &str) {
    report::line(format_args!("{ADD}{BOLD}Approved:{BOLD:#}{ADD:#} {}.", report::clean_line(summary)));
}

/// Asks the daemon; none if that cannot be asked, and a file has to do.
fn ask(state: &Path, digest: &str, allow_mass_delete: bool) -> Result<Option<Told>, Stop> {
    let ask = Ask::Approve { digest: digest.to_owned(), allow_mass_delete, by: caller() };
    let Ok(mut conversation) = Conversation::begin(state, ask) else { return Ok(None) };
    let begun = Instant::now();
    let mut wait = A_MOMENT;
    loop {
        match conversation.next(wait) {
            Ok(Some(Told::Error(_))) => return Ok(None),
            Ok(Some(told)) => return Ok(Some(told)),
            Ok(None) if begun.elapsed() < A_PASS => {
                if wait == A_MOMENT {
                    report::note("note: waiting for the pass that runs");
                    wait = A_PASS.saturating_sub(A_MOMENT);
                }
            }
            Ok(None) => {
                let help = "`novella status` shows what it does";
                return Err(refused(&Refusal::new("the daemon does not answer; nothing was approved").help(help)));
            }
            Err(error) => {
                let help = "`novella status` shows whether it still waits";
                let error = Refusal::new(format!("the daemon has not answered: {error}")).help(help);
                return Err(refused(&error));
            }
        }
    }
}
