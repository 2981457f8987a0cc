//! The side of the verbs.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::watch::socket::protocol::{Answer, Ask, InForce, Request, Told, VERSION};
use crate::watch::socket::work::Now;
use crate::watch::socket::{PATIENCE, path, short, write};

/// The longest line that is read.
const LONGEST: usize = 1 << 20;

/// How long the daemon may take to read its spec.
const TO_READ: Duration = Duration::from_secs(10);

/// Something that was asked, and the answers.
#[derive(Debug)]
pub struct Conversation {
    answers: BufReader<UnixStream>,
    /// What there is of the next line.
    line: Vec<u8>,
}

impl Conversation {
    /// Asks the daemon of the state in `state`.
    ///
    /// # Errors
    /// When it does not listen.
    pub fn begin(state: &Path, ask: Ask) -> io::Result<Self> {
        let stream = short(&path(state), |path| UnixStream::connect(path))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let conversation = Self { answers: BufReader::new(stream), line: Vec::new() };
        conversation.say(ask)?;
        Ok(conversation)
    }

    /// The next answer; none if none comes for so long.
    ///
    /// # Errors
    /// When the daemon has closed the connection, or says what nobody understands.
    pub fn next(&mut self, most: Duration) -> io::Result<Option<Told>> {
        self.answers.get_ref().set_read_timeout(Some(most))?;
        let left = LONGEST.saturating_sub(self.line.len());
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        match (&mut self.answers).take(left).read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let answer: Answer = serde_json::from_slice(&std::mem::take(&mut self.line))?;
                Ok(Some(answer.told))
            }
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks that what was asked for end after the steps that run.
    ///
    /// # Errors
    /// When the daemon does not listen any more.
    pub fn stop(&self) -> io::Result<()> {
        self.say(Ask::Stop)
    }

    fn say(&self, ask: Ask) -> io::Result<()> {
        write(self.answers.get_ref(), &Request { version: VERSION, ask })
    }
}

/// Asks for something that is answered at once.
fn ask(state: &Path, ask: Ask, most: Duration) -> io::Result<Told> {
    Conversation::begin(state, ask)?.next(most)?.ok_or_else(|| ErrorKind::TimedOut.into())
}

fn not_that(told: Told) -> io::Error {
    match told {
        Told::Error(error) => io::Error::other(error),
        _ => io::Error::other("it answers something else"),
    }
}

/// Asks the daemon of the state in `state` what it does just now.
///
/// # Errors
/// When it does not answer.
pub fn now(state: &Path) -> io::Result<Now> {
    match ask(state, Ask::Now, PATIENCE)? {
        Told::Now(now) => Ok(now),
        told => Err(not_that(told)),
    }
}

/// Asks the daemon of the state in `state` for the spec that it goes by, as it is in its directory now.
///
/// # Errors
/// When it does not answer.
pub fn spec(state: &Path) -> io::Result<InForce> {
    match ask(state, Ask::Spec, TO_READ)? {
        Told::Spec(spec) => Ok(spec),
        told => Err(not_that(told)),
    }
}
