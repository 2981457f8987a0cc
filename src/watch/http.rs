//! `GET /metrics` and `GET /healthz`, on a loopback address.
//!
//! There is no password and no encryption, so nobody from elsewhere may come. Clients do not disturb the daemon: each has a
//! thread of its own for a moment, there are so many at most, a request has so many bytes at most, and what is answered was
//! put together before. Each connection is for one request.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::watch::clients;
use crate::watch::metrics::{Board, CONTENT_TYPE};

/// The longest request that is read, in bytes.
const LONGEST: usize = 8 * 1024;

/// How many headers it may have.
const MOST_HEADERS: usize = 64;

/// How long a client may take, from its connection on.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many clients are served at once.
const MOST: usize = 32;

/// A loopback address and a port, as `127.0.0.1:9464` or `[::1]:9464`.
///
/// # Errors
/// How to write it instead.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write it as `127.0.0.1:9464` or `[::1]:9464`")?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("who reads it is not asked for a password, so it may only be a loopback address: \
                      `127.0.0.1:9464` or `[::1]:9464`; let a proxy carry it further"
            .into()),
    }
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on `{address}`")]
pub struct CannotListen {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Serves, until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to serve what is on the board.
    ///
    /// # Errors
    /// When the port cannot be had, as when another program has it.
    pub fn begin(address: SocketAddr, board: Arc<Board>) -> Result<Self, CannotListen> {
        let failed = |source| CannotListen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let serve = move || {
            let answers = move |stream| Client { stream, deadline: Instant::now() + PATIENCE }.answer(&board);
            clients::serve("scrape", MOST, &is_over, || listener.accept().map(|(client, _)| client), answers);
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(serve).map_err(failed)?;
        Ok(Self { address, ends, thread: Some(thread) })
    }

    /// Where: also the port that the system has chosen where 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // It wakes up, and sees that it is over. Where it cannot be woken up, it goes with the process.
        if TcpStream::connect_timeout(&self.address, PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// What is answered.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    body: String,
    /// Whether only what stands before the body was asked for.
    only_head: bool,
}

impl Answer {
    fn plain(status: &'static str, line: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{line}\n"), only_head: false }
    }
}

/// What is answered to these bytes; none if they are not yet a whole request.
fn answer(request: &[u8], board: &Board) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let (method, target) = match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => (parsed.method?, parsed.path?),
        Ok(httparse::Status::Partial) if request.len() < LONGEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Answer::plain("431 Request Header Fields Too Large", "this request is too long"));
        }
        Err(error) => return Some(Answer::plain("400 Bad Request", &format!("this is no request: {error}"))),
    };
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    let answer = match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            let answer = Answer::plain("200 OK", "");
            Answer { content_type: CONTENT_TYPE, body: board.metrics(), ..answer }
        }
        ("GET" | "HEAD", "/healthz") => {
            let (is_well, line) = board.health();
            Answer::plain(if is_well { "200 OK" } else { "503 Service Unavailable" }, &line)
        }
        (_, "/metrics" | "/healthz") => Answer::plain("405 Method Not Allowed", "only GET and HEAD are taken"),
        _ => Answer::plain("404 Not Found", "there are /metrics and /healthz"),
    };
    Some(Answer { only_head: method == "HEAD", ..answer })
}

/// Somebody who asks, and until when.
struct Client {
    stream: TcpStream,
    deadline: Instant,
}

impl Client {
    fn answer(mut self, board: &Board) -> io::Result<()> {
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        let answer = loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            request.extend_from_slice(&buffer[..count]);
            if let Some(answer) = answer(&request, board) {
                break answer;
            }
        };
        let Answer { status, content_type, body, only_head } = answer;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let mut text = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        if !only_head {
            text.push_str(&body);
        }
        self.write(text.as_bytes())?;
        // To close a connection on which there is something that was not read would take the answer back.
        self.stream.shutdown(std::net::Shutdown::Write)?;
        while self.read(&mut buffer)? > 0 {}
        Ok(())
    }

    /// How much time there is. One who is slow has no more of it for that.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(self.left()?)?;
            match self.stream.write(bytes)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_taken() {
        for text in ["127.0.0.1:9464", "[::1]:9464", "127.9.9.9:0"] {
            assert!(loopback(text).is_ok(), "{text}");
        }
        for text in ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464", "[fe80::1]:9464", "[::ffff:127.0.0.1]:9464"] {
            assert!(loopback(text).is_err_and(|error| error.contains("only be a loopback address")), "{text}");
        }
        for text in ["", "9464", "127.0.0.1", "::1:9464", "localhost:9464", "127.0.0.1:70000"] {
            assert!(loopback(text).is_err_and(|error| error.starts_with("write it as")), "{text}");
        }
    }

    #[test]
    fn a_request_is_whole_or_waited_for_or_refused() {
        let board = Board::default();
        let status =
            |request: &str| answer(request.as_bytes(), &board).map(|it| (it.status[..3].to_owned(), it.only_head));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        let long = format!("GET /{}", "a".repeat(LONGEST));
        for (request, expected) in [
            ("", None),
            ("GET", None),
            ("GET /metrics HTTP/1.1\r\nHost: a", None),
            ("GET /metrics HTTP/1.1\r\n\r\n", Some(("200", false))),
            ("GET /metrics?a=/b HTTP/1.0\r\n\r\nmore", Some(("200", false))),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", Some(("503", true))),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Some(("405", false))),
            ("GET / HTTP/1.1\r\n\r\n", Some(("404", false))),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Some(("404", false))),
            ("GET /../metrics HTTP/1.1\r\n\r\n", Some(("404", false))),
            ("PRI * HTTP/2.0\r\n\r\n", Some(("400", false))),
            ("\u{1}\u{2}", Some(("400", false))),
            (many.as_str(), Some(("431", false))),
            (long.as_str(), Some(("431", false))),
        ] {
            let expected = expected.map(|(status, only_head)| (status.to_owned(), only_head));
            assert_eq!(status(request), expected, "{}", request.get(..40).unwrap_or(request));
        }
    }
}
