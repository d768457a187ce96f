//! What tonic's generated clients send their calls through: HTTP/2 on quoit's streams.
//!
//! ```text
//!   StoreClient ──► Deadline ──► statuses ──► hyper-util's Client ──► HTTP/2 on a TcpStream
//!                 grpc-timeout   of errors    one connection, made when the first call needs it,
//!                                             and made again when it is lost
//! ```
//!
//! A channel may be cloned, and its clones used on any core. The connection is driven on the core
//! whose call made it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Response, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use quoit::net::TcpStream;
use quoit::rt::{QuoitExecutor, QuoitTimer};
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tower::util::{MapErr, MapResponse};

use crate::deadline::Deadline;
use crate::grpc_status::{Told, status_of, tell_response};

/// After this silence the server is asked whether it is still there, while a call waits for it.
const ASK_AFTER: Duration = Duration::from_secs(20);

/// How long it has to answer that.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// For the `with_origin` of a generated client, which knows the server's address.
pub type Channel = Deadline<
    MapResponse<
        MapErr<Client<Connector, Body>, fn(legacy::Error) -> Status>,
        fn(Response<Incoming>) -> Response<Told<Incoming>>,
    >,
>;

/// A channel without a connection yet.
pub fn channel() -> Channel {
    let client = Client::builder(QuoitExecutor)
        .timer(QuoitTimer)
        .pool_timer(QuoitTimer)
        .http2_only(true)
        .http2_keep_alive_interval(ASK_AFTER)
        .http2_keep_alive_timeout(ANSWER_WITHIN)
        .build(Connector);
    let statuses = MapErr::new(client, status_of as fn(_) -> _);
    Deadline::new(MapResponse::new(statuses, tell_response as fn(_) -> _))
}

/// Connects to the host and the port of a URI.
#[derive(Clone, Copy, Debug)]
pub struct Connector;

impl Service<Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let nowhere = || io::Error::new(io::ErrorKind::InvalidInput, format!("no host: {uri}"));
            let host = uri.host().ok_or_else(nowhere)?;
            // An IPv6 address stands in brackets there.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await.map(Wire)
        })
    }
}

/// The stream, under a name that `Connection` can be written for.
#[derive(Debug)]
pub struct Wire(TcpStream);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write(Pin::new(&mut self.0), cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.0)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Write::poll_write_vectored(Pin::new(&mut self.0), cx, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.0), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.0), cx)
    }
}
