//! `novella destroy`.

use crate::cli::apply::{Arguments, Errand, Locking, carry_out};
use crate::cli::{Global, Stop};
use crate::reconcile;

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let errand = Errand {
        operation: "destroy",
        plan: reconcile::plan_destroy_with,
        replace: Vec::new(),
        only_these: false,
        defer_reboots: false,
        images: Locking::Unused,
        question: "Do you really want to destroy all resources?\n  Novella will destroy all that it made, as shown above. \
                   There is no undo but for disks that go to the trash.",
        complete: "Destroy complete!",
    };
    carry_out(global, arguments, &errand)
}
