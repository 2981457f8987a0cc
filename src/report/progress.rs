//! What goes on while a plan is walked: live lines on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use indicatif::{ProgressBar, ProgressStyle};

use crate::apply::{Event, Observer};
use crate::blueprint::key::ObjectKey;
use crate::host::OnProgress;
use crate::plan::Deed;
use crate::plan::diff::{Action, Change};
use crate::report::plan::{doing, title};
use crate::report::{BOLD, CHANGE, LIVE, REMOVE, clean, error, is_terminal, line};

/// Shows the progress of a walk on standard output.
#[derive(Debug)]
pub struct Progress {
    bars: Option<Bars>,
}

#[derive(Debug, Default)]
struct Bars {
    /// The live line of each object that is worked on.
    live: Mutex<HashMap<ObjectKey, ProgressBar>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { bars: is_terminal().then(Bars::default) }
    }
}

impl Progress {
    /// Takes the progress of long steps, such as downloads.
    pub fn sink(self: &Arc<Self>) -> OnProgress {
        let progress = Arc::clone(self);
        Arc::new(move |key, done, total| progress.bytes(key, done, total))
    }

    fn bytes(&self, key: &ObjectKey, done: u64, total: Option<u64>) {
        let Some(bars) = &self.bars else { return };
        let live = bars.live.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bar) = live.get(key) else { return };
        match total {
            Some(total) if bar.length() != Some(total) => {
                bar.set_length(total);
                bar.set_style(style("{spinner} {msg} [{elapsed}] {bar:24} {bytes}/{total_bytes} {bytes_per_sec}"));
            }
            // What was fetched is unpacked, and nobody knows how much that is.
            None if bar.length().is_some() => {
                bar.unset_length();
                bar.set_style(style("{spinner} {msg} [{elapsed}] {bytes} {bytes_per_sec}"));
            }
            Some(_) | None => {}
        }
        bar.set_position(done);
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that cannot be written to shows nothing either way.
            Some(_) => drop(LIVE.println(painted(text))),
            None => line(text),
        }
    }

    fn start(&self, change: &Change, what: &str) {
        match &self.bars {
            None => line(format_args!("{what}: {}...", doing(change.action))),
            Some(bars) => {
                let bar = LIVE.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {msg} [{elapsed}]"));
                bar.set_message(painted(&format!("{what}: {}...", doing(change.action))));
                bar.enable_steady_tick(Duration::from_millis(200));
                bars.live.lock().unwrap_or_else(PoisonError::into_inner).insert(change.key.clone(), bar);
            }
        }
    }

    fn end(&self, change: &Change, text: &str) {
        if let Some(bars) = &self.bars
            && let Some(bar) = bars.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&change.key)
        {
            bar.finish_and_clear();
        }
        self.say(text);
    }
}

impl Observer for Progress {
    fn event(&self, change: &Change, deed: Deed, event: Event<'_>) {
        let what = format!("{BOLD}{}{BOLD:#}: {}", change.address, title(change));
        // Book-keeping is over before it could be read.
        let quiet = matches!(deed, Deed::Record | Deed::Forget | Deed::Disown | Deed::Reload);
        match event {
            Event::Started if quiet => {}
            Event::Started => self.start(change, &what),
            Event::Done { .. } if quiet => {}
            Event::Done { elapsed } => {
                self.end(change, &format!("{what}: {} complete after {}", deed_noun(change, deed), seconds(elapsed)));
            }
            Event::Retrying { error, wait } => self.say(&format!(
                "{what}: {CHANGE}will be tried again in {}{CHANGE:#}: {}",
                seconds(wait),
                error::chain(error)
            )),
            Event::Failed { error, elapsed } => self.end(
                change,
                &format!("{what}: {REMOVE}failed after {}{REMOVE:#}: {}", seconds(elapsed), clean(&error.to_string())),
            ),
            Event::Skipped => self.say(&format!("{what}: skipped, for something it waits for failed")),
        }
    }
}

/// The text with its colours, unless none are wanted: live lines do not pass the stream that would drop them.
fn painted(text: &str) -> String {
    match AutoStream::choice(&std::io::stdout()) {
        ColorChoice::Never => anstream::adapter::strip_str(text).to_string(),
        _ => text.to_owned(),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn deed_noun(change: &Change, deed: Deed) -> &'static str {
    match (deed, change.action) {
        (Deed::Remove, _) => "Destruction",
        (Deed::Release, _) => "Detachment",
        (_, Action::Update) => "Modifications",
        _ => "Creation",
    }
}

/// A time as Terraform gives it, with tenths where whole seconds would say nothing.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) { format!("{:.1}s", time.as_secs_f64()) } else { format!("{}s", time.as_secs()) }
}
