//! `novella rebuild`.

use crate::cli::apply::{self, Errand, Locking, Watched, carry_out};
use crate::cli::{Global, Stop, candidates};
use crate::plan::saved::Options;

#[derive(Debug, clap::Args)]
pub(super) struct RebuildArguments {
    #[command(flatten)]
    common: apply::Arguments,
    /// The servers, as `web` or `server.web`
    #[arg(value_name = "SERVER", required = true, add = candidates::servers())]
    servers: Vec<String>,
}

pub(super) fn run(global: &Global, arguments: &RebuildArguments) -> Result<(), Stop> {
    let address = |written: &String| match written.contains('.') {
        true => written.clone(),
        false => format!("server.{written}"),
    };
    let errand = Errand {
        operation: "rebuild",
        options: Options {
            replace: arguments.servers.iter().map(address).collect(),
            only_these: true,
            ..Options::default()
        },
        images: Locking::Gain,
        watched: Watched::Between,
        question: "Do you really want to rebuild these servers?\n  What is on their root disks is lost. They keep their \
                   addresses, MACs and names.",
        complete: "Rebuild complete!",
        saved: None,
    };
    carry_out(global, &arguments.common, errand)
}
