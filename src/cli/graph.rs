//! `novella graph`.

use crate::cli::session::{self, Target};
use crate::cli::{Global, Stop};
use crate::report::graph::{Format, Graph};
use crate::{reconcile, report};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Draw the objects of the host in place of the tables of the spec
    #[arg(long)]
    objects: bool,
    /// Colour what the plan would create, update, replace or delete
    #[arg(long)]
    plan: bool,
    /// The language of the graph
    #[arg(long, value_name = "FORMAT", default_value = "dot")]
    format: Format,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let (desired, source) = session::spec(global)?;
    let mut graph = Graph::of_resources(&desired, &source);
    if arguments.objects || arguments.plan {
        let recorded = session::recorded(global)?;
        let target = Target::open(global, &desired, session::no_progress())?;
        let no_plan = |error| session::no_plan(&error, &source);
        if arguments.objects {
            let (blueprint, _) = reconcile::blueprint(&desired, &recorded, target.host()).map_err(no_plan)?;
            graph = Graph::of_objects(&blueprint);
        }
        if arguments.plan {
            let plan = reconcile::plan(&desired, recorded, target.host()).map_err(no_plan)?;
            graph = match arguments.objects {
                true => graph.with_objects_of(&plan),
                false => graph.with_resources_of(&plan, &desired),
            };
        }
    }
    report::out(graph.render(arguments.format));
    Ok(())
}
