//! Who runs novella, and when: for people to read, and proof of nothing.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// The time in seconds since 1970 (UTC). A clock before that counts as 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
