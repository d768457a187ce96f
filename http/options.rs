//! What all connections of one server have in common.

use std::io;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use quoit::rt::{QuoitExecutor, QuoitTimer};

/// Which protocols are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Versions {
    /// Whichever the client starts with.
    Both,
    Http1,
    Http2,
}

impl Versions {
    /// Those among them that a handshake leaves, by what it has agreed on.
    pub(crate) fn agreed(self, protocol: Option<&[u8]>) -> io::Result<Self> {
        let agreed = match protocol {
            Some(b"h2") => Self::Http2,
            Some(b"http/1.1" | b"http/1.0") => Self::Http1,
            _ => return Ok(self),
        };
        if self != Self::Both && self != agreed {
            let name = String::from_utf8_lossy(protocol.unwrap_or_default());
            let text = format!(
                "the handshake has agreed on {name}, which this server does not speak: \
                 take it out of the protocols offered (ALPN)"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(agreed)
    }
}

/// How long what may take. `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) header: Option<Duration>,
    pub(crate) idle: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) versions: Versions,
    pub(crate) limits: Limits,
    pub(crate) http1: http1::Builder,
    pub(crate) http2: http2::Builder<QuoitExecutor>,
}

impl Options {
    pub(crate) fn new() -> Self {
        let mut http1 = http1::Builder::new();
        // That timeout runs while a connection is idle, too, and costs each request a further round
        // of reading and writing.
        http1.timer(QuoitTimer).header_read_timeout(None);
        let mut http2 = http2::Builder::new(QuoitExecutor);
        http2.timer(QuoitTimer);
        let limits =
            Limits { header: Some(Duration::from_secs(30)), idle: Some(Duration::from_secs(75)) };
        Self { versions: Versions::Both, limits, http1, http2 }
    }
}
