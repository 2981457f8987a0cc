//! Saved plans: `plan --out FILE` writes one, `apply FILE` carries it out, `show FILE` shows it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::address::Name;
use crate::cli::{FAILED, Stop};
use crate::host::HostError;
use crate::plan::Plan;
use crate::plan::saved::{self, Options, Saved, Stale, State, Unreadable};
use crate::plan::world::Recorded;
use crate::report::located::Located;
use crate::report::{self, clean, clean_line};
use crate::spec::{Source, load};
use crate::store::snapshot;

/// What tells these records from others, on this machine and where a snapshot of them was carried.
pub(super) fn state(recorded: &Recorded) -> State {
    State::of(&snapshot::without_secrets(recorded.clone()))
}

/// A plan that starts from this state, without its text.
pub(super) fn of(plan: &Plan, options: Options, state: State, (project, source): (&Name, &Source)) -> Saved {
    Saved {
        novella_plan: saved::VERSION,
        novella_version: env!("CARGO_PKG_VERSION").into(),
        timestamp: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        project: project.clone(),
        options,
        spec: source.digest(),
        state,
        assumptions: Vec::new(),
        changes: saved::changes(plan),
        text: String::new(),
    }
}

/// Writes a plan that starts from this state, and from a host of which this was assumed, for its owner only.
pub(super) fn write(
    file: &Path,
    plan: &Plan,
    options: Options,
    (state, assumptions): (State, Vec<String>),
    of_what: (&Name, &Source),
) -> Result<(), Stop> {
    let text = anstream::adapter::strip_str(&report::plan::render(plan)).to_string();
    let saved = Saved { assumptions, text, ..of(plan, options, state, of_what) };
    snapshot::put_in_place(file, report::json::document(&saved).as_bytes()).map_err(|error| {
        let error = HostError::new(format!("cannot write the plan `{}`", file.display()), error);
        Stop::error(&error, None)
    })?;
    let file = file.display().to_string();
    report::note(format_args!("note: the plan is saved; `novella apply {}` carries it out", clean_line(&file)));
    Ok(())
}

/// A saved plan, and where it is.
pub(super) struct SavedFile {
    path: PathBuf,
    /// What it says.
    pub plan: Saved,
}

impl SavedFile {
    /// Reads it.
    pub(super) fn read(path: &Path) -> Result<Self, Stop> {
        let refuse = |why: String, help: Option<&str>| {
            Stop::error(&HostError::new(format!("cannot read the plan `{}`", path.display()), why), help)
        };
        let mut file = load::open(path).map_err(|why| refuse(why, None))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| refuse(error.to_string(), None))?;
        match Saved::decode(&bytes) {
            Ok(plan) => Ok(Self { path: path.to_owned(), plan }),
            Err(error) => {
                let help = match &error {
                    Unreadable::Shape(_) => format!("`novella plan --out {}` writes one", path.display()),
                    Unreadable::Format(_) | Unreadable::Version(_) => again(path, &Options::default()),
                };
                Err(refuse(report::error::chain(&error), Some(&help)))
            }
        }
    }

    /// Refuses it where the project or the spec is another.
    pub(super) fn is_of(&self, project: &Name, source: &Source) -> Result<(), Stop> {
        if self.plan.project != *project {
            let other = &self.plan.project;
            let error =
                format!("the plan `{}` is of the project `{other}`, and the spec is of `{project}`", self.shown());
            return Err(Stop::error(
                &HostError::refused(error),
                Some("name the directory of its spec with `--specs DIR`"),
            ));
        }
        self.fresh(self.plan.check_spec(&source.digest()))
    }

    /// Refuses it where the state is another.
    pub(super) fn starts_from(&self, recorded: &Recorded) -> Result<(), Stop> {
        self.fresh(self.plan.check_state(&state(recorded)))
    }

    /// Refuses it where something else is to be done.
    pub(super) fn does_what(&self, plan: &Plan) -> Result<(), Stop> {
        self.fresh(self.plan.check_changes(plan))
    }

    /// Shows it.
    pub(super) fn show(&self) {
        let Saved { timestamp, project, options, text, .. } = &self.plan;
        let about = format!("Made at {timestamp} for the project `{project}` by `novella plan{options}`.");
        report::out(format_args!("{}\n{}\n", clean(text), clean_line(&about)));
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn fresh(&self, checked: Result<(), Stale>) -> Result<(), Stop> {
        let Err(stale) = checked else { return Ok(()) };
        let again = again(&self.path, &self.plan.options);
        let help = match &stale {
            Stale::Spec => format!("{again}, or give the same `--var`, `--var-file` and `--overlay` as then"),
            Stale::Host(_) if !self.plan.assumptions.is_empty() => {
                let assumed = self.plan.assumptions.join(", ");
                format!("{again}; it was made without a look at the host: {assumed}")
            }
            Stale::State { .. } | Stale::Host(_) => again,
        };
        let summary = format!("the plan `{}` is stale: {stale}; nothing was done", self.shown());
        report::error::say(&Located { code: Some("stale-plan".into()), ..Located::error(summary, Some(&help), None) });
        Err(Stop(FAILED))
    }
}

fn again(path: &Path, options: &Options) -> String {
    format!("make it anew with `novella plan{options} --out {}`", path.display())
}
