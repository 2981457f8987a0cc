//! What is laid over a spec, and what its variables are given: `--overlay`, `--var`, `--var-file` and the environment.
//!
//! They may stand before and after the verb, and all of them count. What clap calls a global argument does not do that: those
//! behind the verb take the place of those before it.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::spec::variables::{ENVIRONMENT, Given};

/// What was given, in the order in which it stands: the later counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    /// `--overlay`.
    pub overlays: Vec<PathBuf>,
    /// `--var` and `--var-file`.
    variables: Vec<Given>,
}

/// The command with these options, for itself and for all its verbs.
pub(super) fn everywhere(command: Command) -> Command {
    let option = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
    let path = || clap::value_parser!(PathBuf);
    command
        .arg(
            option("overlay").value_name("DIR").value_parser(path()).help(
                "A directory whose tables are laid over those of the spec, key by key; the later over the earlier",
            ),
        )
        .arg(
            option("var")
                .value_name("NAME=VALUE")
                .help("Give a variable of the spec its value; `NOVELLA_VAR_NAME` does the same"),
        )
        .arg(
            option("var-file")
                .value_name("FILE")
                .value_parser(path())
                .help("Give variables the values that a TOML file has"),
        )
        .mut_subcommands(everywhere)
}

impl Arguments {
    /// Those of the command and of its verb.
    pub(super) fn read(matches: &ArgMatches) -> Self {
        let indices = |id: &str| matches.indices_of(id).into_iter().flatten();
        let paths = |id: &str| matches.get_many::<PathBuf>(id).into_iter().flatten().cloned();
        let texts = matches.get_many::<String>("var").into_iter().flatten().cloned();
        let mut given: Vec<(usize, Given)> = indices("var").zip(texts.map(Given::Argument)).collect();
        given.extend(indices("var-file").zip(paths("var-file").map(Given::File)));
        given.sort_by_key(|(index, _)| *index);
        let mut all =
            Self { overlays: paths("overlay").collect(), variables: given.into_iter().map(|(_, it)| it).collect() };
        if let Some((_, verb)) = matches.subcommand() {
            let rest = Self::read(verb);
            all.overlays.extend(rest.overlays);
            all.variables.extend(rest.variables);
        }
        all
    }

    /// What variables are given here, over what the environment gives.
    pub(super) fn given(&self) -> Vec<Given> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?.strip_prefix(ENVIRONMENT)?.to_owned();
            Some(Given::Environment { name, value: value.to_string_lossy().into_owned() })
        });
        environment.chain(self.variables.iter().cloned()).collect()
    }
}
