//! The client's handshake.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use crate::limit::{self, Limit};
use crate::stream::ClientStream;

/// Makes TLS connections with one configuration.
///
/// # Examples
///
/// See the [crate](crate).
#[derive(Clone)]
pub struct TlsConnector {
    inner: tokio_rustls::TlsConnector,
    limit: Option<Duration>,
}

impl From<Arc<ClientConfig>> for TlsConnector {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self { inner: config.into(), limit: Some(limit::DEFAULT) }
    }
}

impl TlsConnector {
    /// How long a handshake may take, 10 s unless set; `None` is for ever.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = limit.into();
        self
    }

    /// The client's handshake on a stream, with the server that has this name.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) around a [`rustls::Error`] when the server's
    /// certificate is not good for that name, it does not keep to the protocol, or nothing could be
    /// agreed on. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when it goes away,
    /// [`TimedOut`](io::ErrorKind::TimedOut) when it takes too long, and the stream's own errors.
    ///
    /// With TLS 1.3 a server that wants a certificate and does not like the client's says so after
    /// the client's handshake has ended: the first read gives that error.
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
    pub fn connect<IO>(&self, name: ServerName<'static>, stream: IO) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_with(name, stream, |_| ())
    }

    /// As [`connect`](Self::connect), with a look at the connection before the handshake.
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_with<IO, F>(
        &self,
        name: ServerName<'static>,
        stream: IO,
        change: F,
    ) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut ClientConnection),
    {
        Connect {
            inner: self.inner.connect_with(name, stream, change),
            limit: Limit::new(self.limit),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        self.inner.config()
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The handshake of [`TlsConnector::connect`].
#[must_use = "futures do nothing unless awaited"]
pub struct Connect<IO> {
    inner: tokio_rustls::Connect<IO>,
    limit: Limit,
}

impl<IO> Connect<IO> {
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

impl<IO> Future for Connect<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    type Output = io::Result<ClientStream<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(stream) => Poll::Ready(stream.map(ClientStream)),
            Poll::Pending => self.limit.poll(cx).map(Err),
        }
    }
}

impl<IO> fmt::Debug for Connect<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("limit", &self.limit).finish_non_exhaustive()
    }
}
