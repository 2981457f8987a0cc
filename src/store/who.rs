//! Who runs novella: for people to read, and proof of nothing.

use nix::unistd::{Uid, User};

/// The longest name that is kept, in characters.
const MAX_LEN: usize = 64;

/// Whoever has called sudo, else the user that novella runs as, by name or else by number.
pub fn person() -> String {
    named(Uid::current(), std::env::var("SUDO_USER").ok())
}

/// The user with this number, by name or else by number. Root may be somebody else, by `claimed`.
pub fn named(uid: Uid, claimed: Option<String>) -> String {
    let caller = claimed.filter(|user| uid.is_root() && !user.is_empty());
    let name = caller.or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.name));
    name.map_or_else(|| uid.to_string(), |name| name.chars().take(MAX_LEN).collect())
}
