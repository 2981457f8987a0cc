//! What the daemon says as it goes, and how things are with it.

use std::fmt::Write as _;

use crate::report::history::time;
use crate::report::journal::Priority;
use crate::report::{ADD, BOLD, CHANGE, REMOVE, clean, clean_line, count, line, line_as, note_as, span, table};
use crate::store::lock::Holder;
use crate::watch::pending::Pending;
use crate::watch::socket::work::Now;
use crate::watch::status::{Health, LastPass, RefusedApproval, Status};

/// It has begun.
pub fn began(specs: &std::path::Path) {
    line(format_args!("{BOLD}Watching `{}`.{BOLD:#}", clean_line(&specs.display().to_string())));
}

/// It can be asked for metrics there.
pub fn serves(address: std::net::SocketAddr) {
    line(format_args!("Metrics are at http://{address}/metrics."));
}

/// It has ended, as it was asked to.
pub fn ended() {
    line(format_args!("{BOLD}Ended.{BOLD:#} What was made stays; nothing watches over it now."));
}

/// The spec in the directory is no good.
pub fn rejected(text: &str, has_good: bool) {
    note_as(Priority::Error, text);
    note_as(
        Priority::Warning,
        match has_good {
            true => "The last good spec stays in force.",
            false => "There is no good spec yet: nothing is done.",
        },
    );
}

/// It is good again.
pub fn accepted() {
    line(format_args!("{ADD}The spec is good again.{ADD:#}"));
}

/// A pass could not be made.
pub fn failed(error: &str) {
    note_as(Priority::Error, format_args!("{REMOVE}error{REMOVE:#}: {}", clean(error)));
}

/// A pass has something to do.
pub fn begins(summary: &str) {
    line(format_args!("{BOLD}Applying:{BOLD:#} {summary}."));
}

/// Another plan waits for a person, or none does any more.
pub fn pending(pending: Option<&Pending>) {
    match pending {
        None => line("Nothing waits for approval any more."),
        Some(pending) => line_as(
            Priority::Warning,
            format_args!(
                "{CHANGE}Waiting for approval:{CHANGE:#} {}. `novella approve {}` lets it go; `novella status` tells more.",
                pending.summary,
                pending.digest.short()
            ),
        ),
    }
}

/// An approval was refused.
pub fn refused(refused: &RefusedApproval) {
    note_as(
        Priority::Warning,
        format_args!(
            "{CHANGE}The approval of {} is refused:{CHANGE:#} {}",
            refused.digest.short(),
            clean(&refused.why)
        ),
    );
}

/// There is no socket to ask it.
pub fn no_socket(error: &std::io::Error) {
    note_as(
        Priority::Warning,
        format_args!("warning: no socket can be made, so `apply` and `status` cannot ask: {error}"),
    );
}

/// What is done just now; nothing where no pass runs.
pub fn now(now: &Now, unix: u64) -> String {
    let mut text = String::new();
    let Some(since) = now.pass_since else { return text };
    push(&mut text, format_args!("\n{BOLD}A pass runs{BOLD:#}, begun {}.", ago(since, unix)));
    if !now.steps.is_empty() {
        let rows = now.steps.iter().map(|it| {
            vec![it.address.clone(), clean_line(&it.object).to_string(), it.deed.clone(), ago(it.since, unix)]
        });
        text.push_str(&table::render(&["RESOURCE", "OBJECT", "STEP", "SINCE"], &rows.collect::<Vec<_>>()));
    }
    text
}

/// How things are. `holder` is the daemon, if one runs.
pub fn status(status: Option<&Status>, holder: Option<&Holder>, now: u64) -> String {
    let mut text = String::new();
    match (status, holder) {
        (None, None) => {
            return format!(
                "{REMOVE}No daemon has ever watched over this state.{REMOVE:#} `novella watch` starts one.\n"
            );
        }
        (_, None) => push(
            &mut text,
            format_args!("{REMOVE}{BOLD}not running{BOLD:#}{REMOVE:#}: what follows is the last that was told"),
        ),
        (None, Some(holder)) => push(&mut text, format_args!("{holder}: it has told nothing yet")),
        (Some(_), Some(_)) => {}
    }
    let Some(status) = status else { return text };
    let ago = |at| ago(at, now);
    let style = match status.health {
        Health::Healthy => ADD,
        Health::WaitingForReboot | Health::PendingApproval => CHANGE,
        Health::Degraded => REMOVE,
    };
    push(&mut text, format_args!("{style}{BOLD}{}{BOLD:#}{style:#}", status.health.as_str()));
    row(
        &mut text,
        "Daemon",
        format!("pid {}, novella {}, since {}", status.pid, status.version, time(status.started_at)),
    );
    row(
        &mut text,
        "Spec",
        match &status.spec {
            Some(spec) => format!("{}, in force since {}", spec.digest.short(), time(spec.since)),
            None => "none was good yet: nothing is done".into(),
        },
    );
    let last = status.last_pass.as_ref();
    row(&mut text, "Last pass", last.map_or_else(|| "none yet".into(), |pass| pass_of(pass, now)));
    // The pass after it has found nothing to do, or so it should be.
    if let Some(applied) = status.last_applied.as_ref().filter(|applied| last != Some(applied)) {
        row(&mut text, "Applied", pass_of(applied, now));
    }
    if let Some(holder) = &status.waiting_for {
        row(&mut text, "Waits for", holder.clone());
    }
    if let Some(failure) = &status.failure {
        row(
            &mut text,
            "Failure",
            format!("since {}, {}: {}", time(failure.since), count(failure.failures as usize, "time"), failure.error),
        );
    }
    if let Some(why) = &status.without_inotify {
        row(&mut text, "Saves", format!("are only seen at the next interval: {why}"));
    }
    if let Some(why) = &status.without_events {
        row(&mut text, "Damage", format!("is only seen at the next interval: {why}"));
    }
    if let Some(rejected) = &status.rejected {
        push(
            &mut text,
            format_args!("\n{REMOVE}Not in force{REMOVE:#}, what the directory has since {}:", time(rejected.since)),
        );
        for problem in &rejected.problems {
            push(&mut text, format_args!("  {}", clean_line(problem)));
        }
    }
    if !status.troubles.is_empty() {
        push(&mut text, format_args!(""));
        let rows = status.troubles.iter().map(|(address, it)| {
            vec![address.clone(), it.object.clone(), ago(it.since), it.failures.to_string(), it.error.clone()]
        });
        text.push_str(&table::render(&["TROUBLE", "OBJECT", "SINCE", "FAILURES", "WHY"], &rows.collect::<Vec<_>>()));
    }
    if let Some(pending) = &status.pending {
        let title = format!("since {}: {}", time(pending.since), pending.summary);
        push(&mut text, format_args!("\n{CHANGE}Waiting for approval{CHANGE:#} {title}"));
        let rows = pending.changes.iter().map(|it| {
            let why = if it.why.is_empty() { "waits with another".into() } else { it.why.join(", ") };
            vec![it.address.clone(), it.object.clone(), why]
        });
        text.push_str(&table::render(&["RESOURCE", "OBJECT", "WHY"], &rows.collect::<Vec<_>>()));
        push(&mut text, format_args!("`novella approve {}` lets it go.", pending.digest.short()));
        for (server, opens) in &status.windows {
            push(&mut text, format_args!("{server} goes by itself when its window opens, {}.", time(*opens)));
        }
    }
    if let Some(refused) = &status.refused_approval {
        let what = format!("approval of {}, {}: {}", refused.digest.short(), ago(refused.at), refused.why);
        push(&mut text, format_args!("\n{CHANGE}Refused:{CHANGE:#} {}", clean_line(&what)));
    }
    if !status.waiting_for_reboot.is_empty() {
        let servers = status.waiting_for_reboot.iter().map(|(server, what)| format!("{server} ({})", what.join(", ")));
        let servers: Vec<String> = servers.collect();
        push(&mut text, format_args!("\n{CHANGE}Waiting for a reboot:{CHANGE:#} {}", clean_line(&servers.join(", "))));
    }
    text
}

fn ago(at: u64, now: u64) -> String {
    format!("{} ago", span(now.saturating_sub(at)))
}

/// When, what, and how long it took.
fn pass_of(pass: &LastPass, now: u64) -> String {
    let what = pass.summary.as_deref().unwrap_or("nothing to do");
    let left = if pass.not_done > 0 { format!(", {} not done", count(pass.not_done, "step")) } else { String::new() };
    format!("{}, {what}{left} ({} ms)", ago(pass.at, now), pass.took_ms)
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

fn row(text: &mut String, name: &str, value: String) {
    push(text, format_args!("{BOLD}{name:<9}{BOLD:#} {}", clean_line(&value)));
}
