//! `novella destroy`.

use crate::cli::apply::{Arguments, Errand, Locking, Watched, carry_out};
use crate::cli::{Global, Stop};
use crate::plan::saved::Options;

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    carry_out(global, arguments, errand())
}

/// To take away all that was made.
pub(super) fn errand() -> Errand {
    Errand {
        operation: "destroy",
        options: Options { destroy: true, ..Options::default() },
        images: Locking::Unused,
        watched: Watched::Refuse,
        question: "Do you really want to destroy all resources?\n  Novella will destroy all that it made, as shown above. \
                   There is no undo but for disks that go to the trash.",
        complete: "Destroy complete!",
        saved: None,
    }
}
