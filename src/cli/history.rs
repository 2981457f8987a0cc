//! `novella history`.

use clap::Subcommand;

use crate::cli::{Global, Stop, candidates, session};
use crate::report;
use crate::store::{StoreError, history};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    /// Show only the last N
    #[arg(short, long = "last", value_name = "N")]
    n: Option<usize>,
    /// Print JSON, with the steps, and times in seconds since 1970
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one run with its steps
    Show {
        /// Its number
        #[arg(value_name = "N", add = candidates::runs())]
        number: u64,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let entries = history::read(&session::state_dir(global))?;
    match &arguments.what {
        None => {
            let skipped = arguments.n.map_or(0, |n| entries.len().saturating_sub(n));
            let entries = &entries[skipped..];
            match arguments.json {
                true => report::line(report::history::json(entries)),
                false => report::out(report::history::render(entries)),
            }
        }
        Some(What::Show { number, json }) => {
            let Some(entry) = entries.iter().find(|entry| entry.begun.number == *number) else {
                let error = StoreError::refused(format!("the history has no run {number}"));
                return Err(error.help("`novella history` lists them; the oldest are dropped").into());
            };
            match json {
                true => report::line(report::history::one_json(entry)),
                false => report::out(report::history::one(entry)),
            }
        }
    }
    Ok(())
}
