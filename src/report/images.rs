//! The image cache, for people and for scripts.

use std::time::Duration;

use serde_json::json;

use crate::address::Name;
use crate::report::{clean_line, span, table};
use crate::value::{ByteSize, Sha256};

/// One file in the cache.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the cache.
    pub id: String,
    /// The image that it is of, where the state or the spec tells.
    pub image: Option<Name>,
    /// What it is kept as.
    pub format: String,
    /// Where it came from.
    pub source: Option<String>,
    /// What it hashed to as it was published.
    pub sha256: Option<Sha256>,
    /// The room it takes.
    pub size: ByteSize,
    /// How long it was of no use.
    pub unused_for: Duration,
    /// Whether the lock file has it.
    pub locked: bool,
    /// Whether the spec pins it.
    pub pinned: bool,
    /// The servers that need it, and the disks over it that belong to none of them.
    pub users: Vec<String>,
}

/// It in a sentence: the image where it is known, else its name in the cache.
pub fn title(row: &Row) -> String {
    match &row.image {
        Some(image) => format!("image.{image}, {} {}", row.format, clean_line(&row.id)),
        None => clean_line(&row.id).into_owned(),
    }
}

/// A line for each.
pub fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "The cache is empty. `novella apply` fetches what servers need.\n".into();
    }
    let cells = |row: &Row| {
        let users = match &row.users[..] {
            [] => "-".to_owned(),
            few if few.len() <= 3 => few.join(", "),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        vec![
            row.image.as_ref().map_or("-".into(), ToString::to_string),
            row.format.clone(),
            row.size.about(),
            span(row.unused_for.as_secs()),
            if row.pinned {
                "pinned"
            } else if row.locked {
                "locked"
            } else {
                "-"
            }
            .into(),
            users,
            row.source.clone().unwrap_or_else(|| "unknown, or only a part".into()),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table::render(&["IMAGE", "FORMAT", "SIZE", "UNUSED FOR", "DIGEST", "USERS", "SOURCE"], &rows)
}

/// The same for scripts.
pub fn json(rows: &[Row]) -> String {
    let row = |row: &Row| {
        json!({
            "id": row.id,
            "image": row.image,
            "format": row.format,
            "source": row.source,
            "sha256": row.sha256,
            "size_bytes": row.size.bytes(),
            "unused_for_seconds": row.unused_for.as_secs(),
            "locked": row.locked,
            "pinned": row.pinned,
            "users": row.users,
        })
    };
    let images: Vec<_> = rows.iter().map(row).collect();
    let text = serde_json::to_string_pretty(&json!({ "format_version": "1.0", "images": images }));
    // Plain data: serialising it to memory cannot fail.
    format!("{}\n", text.unwrap_or_default())
}
