//! A web server that misbehaves to order.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// The first byte of `Range: bytes=N-`.
    pub from: Option<usize>,
    pub if_range: Option<String>,
}

pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves each request, in a thread of its own, by `answer(number from 0, request, stream)`.
    pub fn start(answer: impl Fn(usize, &Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (seen, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (answer, log, done) = (Arc::new(answer), Arc::clone(&seen), Arc::clone(&over));
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let (mut stream, answer, log) = (stream.expect("a client"), Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    let number = {
                        let mut log = log.lock().expect("no panic");
                        log.push(request.clone());
                        log.len() - 1
                    };
                    answer(number, &request, &mut stream);
                });
            }
        });
        Self { address, seen, over, listener: Some(listener) }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.listener.take().map(JoinHandle::join);
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let (method, path) = (first.split(' ').next()?.to_owned(), first.split(' ').nth(1)?.to_owned());
    let mut request = Request { method, path, ..Request::default() };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "if-range" => request.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(request)
}

/// Writes a head; the connection ends after the body. A client that has gone away is no matter.
pub fn head(stream: &mut TcpStream, status: &str, fields: &[(&str, String)]) {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{text}\r\n").as_bytes());
}

/// Serves a file as a good server does, the rest of it where the client has the beginning of the same.
pub fn good(stream: &mut TcpStream, request: &Request, etag: &str, bytes: &[u8]) {
    good_until(stream, request, etag, bytes, bytes.len());
}

/// The same, but sends nothing beyond byte `end`.
pub fn good_until(stream: &mut TcpStream, request: &Request, etag: &str, bytes: &[u8], end: usize) {
    let fields = |length: usize| [("ETag", etag.to_owned()), ("Content-Length", length.to_string())];
    match request.from.filter(|from| *from < bytes.len() && request.if_range.as_deref() == Some(etag)) {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            let [etag, length] = fields(bytes.len() - from);
            head(stream, "206 Partial Content", &[etag, length, ("Content-Range", range)]);
            let _ = stream.write_all(&bytes[from..end.max(from)]);
        }
        None => {
            head(stream, "200 OK", &fields(bytes.len()));
            let _ = stream.write_all(&bytes[..end]);
        }
    }
}

/// Says nothing more until the client goes away.
pub fn stall(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0]);
}
