//! Asking a web server for a file: what it may do, and which of its failures may pass.

use std::io;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::blueprint::object::Source;
use crate::host::HostError;

const MAX_REDIRECTS: u32 = 5;

/// A client that gives up on a server that says nothing for so long, and follows a few redirects. It sends no
/// credentials to the host of a redirect, which is ureq's default.
pub(super) fn agent(patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .timeout_resolve(Some(patience))
        .timeout_connect(Some(patience))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_per_write(Some(patience))
        .user_agent(concat!("novella/", env!("CARGO_PKG_VERSION")))
        // Compressed on the way, a file has neither a known length nor a place to resume from.
        .accept_encoding("identity")
        .build()
        .into()
}

/// One thing that is asked for.
pub(super) struct Web<'a> {
    pub(super) agent: &'a Agent,
    /// What it is, for errors: `` image `debian` ``.
    pub(super) what: String,
    pub(super) source: &'a Source,
}

impl Web<'_> {
    /// It could not be had.
    pub(super) fn failed(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
        HostError::new(format!("cannot fetch {} from `{}`", self.what, self.source.shown()), cause)
    }

    /// Asks for a file, or for the rest of it from a byte on if it is still the same. Where encryption is all that vouches
    /// for the bytes, no redirect may leave it.
    pub(super) fn get(
        &self,
        url: &str,
        only_encrypted: bool,
        from: Option<(u64, &str)>,
    ) -> Result<Response<Body>, HostError> {
        let encrypted = url.starts_with("https://") && only_encrypted;
        let mut request = self.agent.get(url).config().https_only(encrypted).build();
        if let Some((offset, etag)) = from {
            request = request.header(header::RANGE, format!("bytes={offset}-")).header(header::IF_RANGE, etag);
        }
        request.call().map_err(|error| self.broken(error))
    }

    /// What became of a connection.
    pub(super) fn broken(&self, error: ureq::Error) -> HostError {
        use io::ErrorKind as Kind;
        let transient = match &error {
            ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
            ureq::Error::Io(error) => matches!(
                error.kind(),
                Kind::ConnectionReset
                    | Kind::ConnectionAborted
                    | Kind::ConnectionRefused
                    | Kind::BrokenPipe
                    | Kind::UnexpectedEof
                    | Kind::TimedOut
                    | Kind::WouldBlock
                    | Kind::NetworkDown
                    | Kind::NetworkUnreachable
                    | Kind::HostUnreachable
            ),
            _ => false,
        };
        let help = match &error {
            ureq::Error::HostNotFound => Some("check the host in the URL, and the name servers of this host"),
            ureq::Error::RequireHttpsOnly(_) => {
                Some("pin the image with `sha256`, and a redirect to `http://` is fine")
            }
            _ => None,
        };
        let failed = self.failed(error).transient(transient);
        if let Some(help) = help { failed.help(help) } else { failed }
    }

    /// An answer that is of no use.
    pub(super) fn unexpected(&self, status: StatusCode) -> HostError {
        let transient = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
        let failed = self.failed(format!("the server answered {status}")).transient(transient);
        if transient { failed } else { failed.help("check the URL of the image") }
    }

    /// Asks what a server says of a file.
    pub(super) fn head(&self, url: &str) -> Result<Response<Body>, HostError> {
        let response = self.agent.head(url).call().map_err(|error| self.broken(error))?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(self.unexpected(response.status())) }
    }
}

/// The ETag that vouches for every byte. A weak one does not (RFC 9110, 8.8.1).
pub(super) fn strong_etag(response: &Response<Body>) -> Option<String> {
    field(response, &header::ETAG).filter(|etag| is_etag(etag))
}

/// When the file was last changed. Within the second it may have been changed again, so a digest must tell.
pub(super) fn last_modified(response: &Response<Body>) -> Option<String> {
    field(response, &header::LAST_MODIFIED)
}

/// Whether a validator is a strong ETag, and not a time.
pub(super) fn is_etag(validator: &str) -> bool {
    validator.starts_with('"')
}

fn field(response: &Response<Body>, name: &header::HeaderName) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    (value.len() <= 256).then(|| value.to_owned())
}
