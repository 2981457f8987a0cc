//! `novella schema`.

use crate::report;
use crate::spec::json_schema;

pub(super) fn run() {
    report::line(serde_json::to_string_pretty(&json_schema::document()).unwrap_or_default());
}
