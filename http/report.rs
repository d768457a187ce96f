//! What a server tells: of single troubles while it runs, and of everything when it has ended.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use quoit::task::JoinError;

/// An error of any kind, as services and bodies have them.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Something went wrong that the server outlives; see [`Serve::on_error`](crate::Serve::on_error).
///
/// # Examples
///
/// ```
/// use quoit_http::Trouble;
///
/// let trouble = Trouble::HeaderTimeout { peer: ([127, 0, 0, 1], 4711).into() };
/// assert_eq!(trouble.to_string(), "127.0.0.1:4711: no request came in time");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// No connection could be accepted, for want of descriptors or memory as a rule. It stays in
    /// the kernel's queue, and the server tries again.
    Accept(io::Error),
    /// A handshake ([`Serve::tls`](crate::Serve::tls)) failed: there was no HTTP on this
    /// connection.
    Handshake {
        /// The other end.
        peer: SocketAddr,
        /// Its error.
        error: io::Error,
    },
    /// A connection ended with an error: the peer reset it, or did not keep to the protocol, or the
    /// service or a response's body failed.
    Connection {
        /// The other end.
        peer: SocketAddr,
        /// hyper's error, or the socket's.
        error: BoxError,
    },
    /// A connection was closed because the head of a request was not complete in time, or the
    /// handshake before it.
    HeaderTimeout {
        /// The other end.
        peer: SocketAddr,
    },
    /// The service panicked. Over HTTP/1 that ends the connection; over HTTP/2 it ends the stream,
    /// whose task is hyper's own, and only
    /// [`Metrics::tasks_panicked`](quoit::Metrics::tasks_panicked) tells of it.
    Panic {
        /// The other end.
        peer: SocketAddr,
        /// What it said.
        error: JoinError,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(error) => write!(f, "accept: {error}"),
            Self::Handshake { peer, error } => write!(f, "{peer}: handshake: {error}"),
            Self::Connection { peer, error } => write!(f, "{peer}: {error}"),
            Self::HeaderTimeout { peer } => write!(f, "{peer}: no request came in time"),
            Self::Panic { peer, error } => write!(f, "{peer}: the service: {error}"),
        }
    }
}

impl Error for Trouble {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Accept(error) | Self::Handshake { error, .. } => Some(error),
            Self::Connection { error, .. } => Some(&**error),
            Self::HeaderTimeout { .. } => None,
            Self::Panic { error, .. } => Some(error),
        }
    }
}

/// What a server did, from [`serve`](crate::serve).
///
/// # Examples
///
/// ```
/// # use quoit::net::{TcpListener, TcpStream};
/// # quoit::block_on(async {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// # let router = axum::Router::<()>::new();
/// let report = quoit_http::serve(listener, router).with_graceful_shutdown(async {}).await?;
/// assert!(report.is_clean());
/// assert_eq!(report.connections, 0);
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests that reached the service.
    pub requests: u64,
    /// Connections whose handshake failed.
    pub handshake_errors: u64,
    /// Connections that ended with an error of HTTP.
    pub errors: u64,
    /// Connections that ended with a panic of the service.
    pub panics: u64,
    /// Connections that were closed because no head of a request, or no handshake, came in time.
    pub header_timeouts: u64,
    /// Connections that were closed because they were idle.
    pub idle_timeouts: u64,
    /// The peers whose connections had not ended when the time to drain was over, and were cut.
    pub cut: Vec<SocketAddr>,
    /// Upgraded connections that were open then. They belong to whoever asked for the upgrade, and
    /// are open still.
    pub upgraded: usize,
}

impl Report {
    /// Whether every connection came to an end of its own.
    ///
    /// # Examples
    ///
    /// See [`Report`].
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cut.is_empty() && self.upgraded == 0
    }
}
