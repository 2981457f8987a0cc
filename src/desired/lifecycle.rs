//! What may become of a resource by an edit, in Terraform's words.

use std::collections::BTreeSet;

use crate::address::Address;
use crate::desired::Problems;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::spec::values::LifecycleSpec;

/// How a server changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// Whether no plan may take it away, or its disk.
    pub prevent_destroy: bool,
    /// What stays as it was made, whatever the spec says later.
    pub ignore_changes: BTreeSet<Ignored>,
    /// Whether a new root disk is made before the guest is shut down.
    pub create_before_destroy: bool,
}

/// Something about a server whose changes can be ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// What its root disk was made from, and the kernel that it boots.
    Image,
    /// Its processors, its memory and the size of its root disk.
    Flavor,
    /// Its interfaces, and their order.
    Networks,
    /// The addresses that its interfaces ask for.
    FixedIp,
    /// Whether it runs.
    Power,
    /// The servers that it waits for.
    DependsOn,
    /// How long it may take to shut down.
    ShutdownTimeout,
    /// What its guest is told. That is one medium of which the state has no more than a digest: it stays as a whole.
    UserData,
}

impl Ignored {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::Flavor,
        Self::Networks,
        Self::FixedIp,
        Self::Power,
        Self::DependsOn,
        Self::ShutdownTimeout,
        Self::UserData,
    ];

    /// The key of a server that it stands for; the first of several.
    pub fn as_str(self) -> &'static str {
        self.keys()[0]
    }

    /// The keys of a server that it stands for.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Image => &["image"],
            Self::Flavor => &["flavor"],
            Self::Networks => &["networks", "ports"],
            Self::FixedIp => &["fixed_ip"],
            Self::Power => &["power"],
            Self::DependsOn => &["depends_on"],
            Self::ShutdownTimeout => &["shutdown_timeout"],
            Self::UserData => &["user_data", "user_data_file", "key_pairs", "metadata", "files", "config_drive"],
        }
    }
}

/// Stands for every key.
const ALL: &str = "all";

pub(super) fn resolve(address: &Address, written: Option<&LifecycleSpec>, problems: &mut Problems<'_>) -> Lifecycle {
    let Some(written) = written else { return Lifecycle::default() };
    let mut ignore_changes = BTreeSet::new();
    for (index, word) in written.ignore_changes.iter().flatten().enumerate() {
        let mut found =
            Ignored::ALL.into_iter().filter(|it| word == ALL || it.keys().contains(&word.as_str())).peekable();
        if found.peek().is_none() {
            let keys = Ignored::ALL.iter().flat_map(|it| it.keys()).copied().chain([ALL]);
            let help = match did_you_mean(word, keys.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use some of {}", keys.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")),
            };
            problems.push(
                Diagnostic::error(format!("changes of `{}` cannot be ignored", word.escape_debug()))
                    .code("ignore-changes")
                    .on(address, &format!("lifecycle.ignore_changes[{index}]"))
                    .help(help),
            );
        }
        ignore_changes.extend(found);
    }
    Lifecycle {
        prevent_destroy: written.prevent_destroy.unwrap_or(false),
        ignore_changes,
        create_before_destroy: written.create_before_destroy.unwrap_or(false),
    }
}
