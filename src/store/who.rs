//! Who runs novella: for people to read, and proof of nothing.

use nix::unistd::{Uid, User};

/// The longest name that is kept, in characters.
const MAX_LEN: usize = 64;

/// Whoever has called sudo, else the user that novella runs as, by name or else by number.
pub fn person() -> String {
    let uid = Uid::current();
    let caller = std::env::var("SUDO_USER").ok().filter(|user| uid.is_root() && !user.is_empty());
    let name = caller.or_else(|| User::from_uid(uid).ok().flatten().map(|user| user.name));
    name.map_or_else(|| uid.to_string(), |name| name.chars().take(MAX_LEN).collect())
}
