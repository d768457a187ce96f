//! The server's handshake: at once, or with a configuration that is chosen when the client has said
//! what it wants.
//!
//! ```text
//!   TlsAcceptor ──────── accept ───────────────────────────────► Accept ──► TlsStream
//!   LazyConfigAcceptor ──► StartHandshake ── into_stream(config) ──┘
//!                          who is asked for? which protocols?
//! ```

use std::fmt;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::server::{Acceptor, ClientHello};
use tokio_rustls::rustls::{ServerConfig, ServerConnection};

use crate::limit::{self, Limit};
use crate::stream::ServerStream;

/// Accepts TLS connections with one configuration.
///
/// # Examples
///
/// See the [crate](crate).
#[derive(Clone)]
pub struct TlsAcceptor {
    inner: tokio_rustls::TlsAcceptor,
    limit: Option<Duration>,
}

impl From<Arc<ServerConfig>> for TlsAcceptor {
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { inner: config.into(), limit: Some(limit::DEFAULT) }
    }
}

impl TlsAcceptor {
    /// How long a handshake may take, 10 s unless set; `None` is for ever.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// The server's handshake on a stream.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) around a [`rustls::Error`] when the peer does
    /// not keep to the protocol, or nothing could be agreed on; the peer is told by an alert.
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when it goes away,
    /// [`TimedOut`](io::ErrorKind::TimedOut) when it takes too long, and the stream's own errors.
    ///
    /// # Panics
    ///
    /// Outside a quoit runtime, unless there is no [`handshake_timeout`](Self::handshake_timeout).
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the stream.
    ///
    /// # Examples
    ///
    /// See the [crate](crate).
    ///
    /// [`rustls::Error`]: crate::rustls::Error
    pub fn accept<IO>(&self, stream: IO) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.accept_with(stream, |_| ())
    }

    /// As [`accept`](Self::accept), with a look at the connection before anything has been read.
    ///
    /// # Cancel safety
    ///
    /// As [`accept`](Self::accept).
    pub fn accept_with<IO, F>(&self, stream: IO, change: F) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut ServerConnection),
    {
        Accept { inner: self.inner.accept_with(stream, change), limit: Limit::new(self.limit) }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        self.inner.config()
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The handshake of [`TlsAcceptor::accept`].
#[must_use = "futures do nothing unless awaited"]
pub struct Accept<IO> {
    inner: tokio_rustls::Accept<IO>,
    limit: Limit,
}

impl<IO> Accept<IO> {
    /// The stream; `None` when the handshake is over.
    #[must_use]
    pub fn get_ref(&self) -> Option<&IO> {
        self.inner.get_ref()
    }

    /// The stream; `None` when the handshake is over.
    pub fn get_mut(&mut self) -> Option<&mut IO> {
        self.inner.get_mut()
    }
}

impl<IO> Future for Accept<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    type Output = io::Result<ServerStream<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(stream) => Poll::Ready(stream.map(ServerStream)),
            Poll::Pending => self.limit.poll(cx).map(Err),
        }
    }
}

impl<IO> fmt::Debug for Accept<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Waits for what the client wants, before a configuration is chosen for it.
///
/// # Errors
///
/// As [`TlsAcceptor::accept`].
///
/// # Panics
///
/// As [`TlsAcceptor::accept`].
///
/// # Cancel safety
///
/// Dropped, it drops the stream.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use quoit::net::TcpStream;
/// use quoit_tls::rustls::ServerConfig;
/// use quoit_tls::rustls::server::Acceptor;
/// use quoit_tls::{LazyConfigAcceptor, server::TlsStream};
///
/// async fn accept(
///     stream: TcpStream,
///     inner: Arc<ServerConfig>,
///     public: Arc<ServerConfig>,
/// ) -> std::io::Result<TlsStream<TcpStream>> {
///     let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
///     let is_inner = start.client_hello().server_name() == Some("inner.test");
///     start.into_stream(if is_inner { inner } else { public }).await
/// }
/// ```
#[must_use = "futures do nothing unless awaited"]
pub struct LazyConfigAcceptor<IO> {
    inner: tokio_rustls::LazyConfigAcceptor<IO>,
    limit: Limit,
}

impl<IO> LazyConfigAcceptor<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// Waits for a client on a stream.
    pub fn new(acceptor: Acceptor, stream: IO) -> Self {
        let inner = tokio_rustls::LazyConfigAcceptor::new(acceptor, stream);
        Self { inner, limit: Limit::new(Some(limit::DEFAULT)) }
    }

    /// How long the whole handshake may take, also what comes after the choice: 10 s unless set;
    /// `None` is for ever.
    pub fn handshake_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = Limit::new(limit.into());
        self
    }

    /// Takes the stream back after an error, to answer without TLS, say. What was read of it is
    /// lost.
    pub fn take_io(&mut self) -> Option<IO> {
        self.inner.take_io()
    }
}

impl<IO> Future for LazyConfigAcceptor<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    type Output = io::Result<StartHandshake<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(Ok(inner)) => {
                let limit = mem::replace(&mut self.limit, Limit::None);
                Poll::Ready(Ok(StartHandshake { inner, limit }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.limit.poll(cx).map(Err),
        }
    }
}

impl<IO> fmt::Debug for LazyConfigAcceptor<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A handshake whose client has said what it wants, from [`LazyConfigAcceptor`].
#[derive(Debug)]
#[must_use = "the client waits for an answer"]
pub struct StartHandshake<IO> {
    inner: tokio_rustls::StartHandshake<IO>,
    limit: Limit,
}

impl<IO> StartHandshake<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// What the client wants: the name that it asks for, and the protocols, among others.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.inner.client_hello()
    }

    /// The stream.
    #[must_use]
    pub fn get_ref(&self) -> &IO {
        &self.inner.io
    }

    /// The rest of the handshake, within what is left of its time.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the stream.
    pub fn into_stream(self, config: Arc<ServerConfig>) -> Accept<IO> {
        self.into_stream_with(config, |_| ())
    }

    /// As [`into_stream`](Self::into_stream), with a look at the connection before it goes on.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the stream.
    pub fn into_stream_with<F>(self, config: Arc<ServerConfig>, change: F) -> Accept<IO>
    where
        F: FnOnce(&mut ServerConnection),
    {
        Accept { inner: self.inner.into_stream_with(config, change), limit: self.limit }
    }
}
