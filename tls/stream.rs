//! The streams that a handshake gives: of a server, of a client, or of either.
//!
//! Each is `tokio-rustls`' own, with a name of ours so that hyper's traits can be put on it.

use tokio_rustls::rustls::{ClientConnection, CommonState, ServerConnection};
use tokio_rustls::{client, server};

use crate::split::{ReadHalf, WriteHalf, into_split};

/// A stream of a server, from [`TlsAcceptor::accept`](crate::TlsAcceptor::accept).
#[derive(Debug)]
pub struct ServerStream<IO>(pub(crate) server::TlsStream<IO>);

impl<IO> ServerStream<IO> {
    /// The stream below, and rustls' connection.
    #[must_use]
    pub fn get_ref(&self) -> (&IO, &ServerConnection) {
        self.0.get_ref()
    }

    /// The stream below, and rustls' connection. Whoever reads or writes below breaks the protocol.
    pub fn get_mut(&mut self) -> (&mut IO, &mut ServerConnection) {
        self.0.get_mut()
    }

    /// The stream below, and rustls' connection with what it holds of both directions.
    #[must_use]
    pub fn into_inner(self) -> (IO, ServerConnection) {
        self.0.into_inner()
    }

    /// Halves for two tasks.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        into_split(self)
    }
}

/// A stream of a client, from [`TlsConnector::connect`](crate::TlsConnector::connect).
#[derive(Debug)]
pub struct ClientStream<IO>(pub(crate) client::TlsStream<IO>);

impl<IO> ClientStream<IO> {
    /// The stream below, and rustls' connection.
    #[must_use]
    pub fn get_ref(&self) -> (&IO, &ClientConnection) {
        self.0.get_ref()
    }

    /// The stream below, and rustls' connection. Whoever reads or writes below breaks the protocol.
    pub fn get_mut(&mut self) -> (&mut IO, &mut ClientConnection) {
        self.0.get_mut()
    }

    /// The stream below, and rustls' connection with what it holds of both directions.
    #[must_use]
    pub fn into_inner(self) -> (IO, ClientConnection) {
        self.0.into_inner()
    }

    /// Halves for two tasks.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        into_split(self)
    }
}

/// A stream of either side, for code that does not care which.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "both are large, and one is not boxed for the other")]
pub enum TlsStream<IO> {
    /// A client's.
    Client(ClientStream<IO>),
    /// A server's.
    Server(ServerStream<IO>),
}

impl<IO> TlsStream<IO> {
    /// The stream below, and what both sides' connections have in common.
    #[must_use]
    pub fn get_ref(&self) -> (&IO, &CommonState) {
        match self {
            Self::Client(stream) => {
                let (io, connection) = stream.get_ref();
                (io, connection)
            }
            Self::Server(stream) => {
                let (io, connection) = stream.get_ref();
                (io, connection)
            }
        }
    }

    /// The stream below, and what both sides' connections have in common.
    pub fn get_mut(&mut self) -> (&mut IO, &mut CommonState) {
        match self {
            Self::Client(stream) => {
                let (io, connection) = stream.get_mut();
                (io, connection)
            }
            Self::Server(stream) => {
                let (io, connection) = stream.get_mut();
                (io, connection)
            }
        }
    }

    /// Halves for two tasks.
    #[must_use]
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        into_split(self)
    }
}

impl<IO> From<ClientStream<IO>> for TlsStream<IO> {
    fn from(stream: ClientStream<IO>) -> Self {
        Self::Client(stream)
    }
}

impl<IO> From<ServerStream<IO>> for TlsStream<IO> {
    fn from(stream: ServerStream<IO>) -> Self {
        Self::Server(stream)
    }
}
