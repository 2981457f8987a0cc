//! The socket of the daemon: what it does just now, in the midst of a pass too, and what it is asked to do.
//!
//! `novella.sock` in the directory of the state is for the owner of the daemon and root. A client writes one request, a JSON
//! object on a line, and gets answers of that form:
//!
//! ```text
//! → {"version":1,"ask":"now"}
//! ← {"version":1,"now":{"pass_since":1790000000,"steps":[{"address":"server.web","object":"…","deed":"ensure","since":…}]}}
//!
//! → {"version":1,"ask":"spec"}
//! ← {"version":1,"spec":{"digest":"…","directory":"/etc/novella","novella":"0.1.0"}}
//!
//! → {"version":1,"ask":"approve","digest":"909e2040797eed8e","allow_mass_delete":false}
//! ← {"version":1,"approved":{"summary":"0 to add, 0 to change, 1 to destroy"}}
//!
//! → {"version":1,"ask":"apply","plan":{…},"parallelism":10}        the plan as `plan --out` has it, without its text
//! ← {"version":1,"taken":{}}                                       now the client has to give the state away
//! ← {"version":1,"step":{"address":"server.web","object":{…},"deed":"ensure","event":"started"}}
//! ← {"version":1,"bytes":{"object":{…},"done":4096,"total":65536}}
//! → {"version":1,"ask":"stop"}                                     at any time: end after the steps that run
//! ← {"version":1,"ended":{"interrupted":true,"error":null}}
//!
//! ← {"version":1,"refused":{"code":"stale-plan","summary":"…","help":"…"}}
//! ← {"version":1,"error":"…"}
//! ```
//!
//! | file | what it knows |
//! |---|---|
//! | [`protocol`] | what is said |
//! | [`server`] | the side of the daemon |
//! | [`client`] | the side of the verbs |
//! | [`work`] | what is done just now |
//!
//! Clients do not disturb the daemon: each has a thread of its own, there are so many at most, and a line has so many bytes at
//! most. One that leaves in the midst of a plan that it has handed over changes nothing: it goes on. One that does not read
//! is told no more. Who is alive says the lock of the daemon, so that who has it may replace a socket that another has left.

pub mod client;
pub mod protocol;
pub mod server;
pub mod work;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// How long the other side may take for a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether the other side has something to say.
const GLANCE: Duration = Duration::from_millis(100);

/// The longest path that a socket can have, in bytes.
const LONGEST_PATH: usize = 107;

/// Where the socket of the daemon of the state in `state` is.
pub fn path(state: &Path) -> PathBuf {
    state.join("novella.sock")
}

/// Does something with a path that is short enough for a socket.
fn short<T>(path: &Path, deed: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.as_os_str().len() > LONGEST_PATH => {
            let parent = File::open(parent)?;
            deed(&Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name))
        }
        _ => deed(path),
    }
}

fn write(mut stream: &UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}
