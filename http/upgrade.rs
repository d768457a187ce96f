//! The stream under an upgraded connection, given back as it is.

use bytes::Bytes;
use hyper::rt::{Read, Write};
use hyper::upgrade::{self, Upgraded};
use quoit::net::TcpStream;

use crate::slots::Slot;
use crate::wire::Wire;

/// An upgraded connection in its parts; see [`downcast`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<T = TcpStream> {
    /// The connection's stream.
    pub stream: T,
    /// What the peer had already sent of the new protocol. It comes before anything that the stream
    /// gives.
    pub read_buf: Bytes,
    /// The connection's place among those that are open: as long as it is held, the connection
    /// counts for [`max_connections`](crate::Serve::max_connections), and a shutdown waits for it.
    pub slot: Slot,
}

/// Takes an upgraded connection of [`serve`](crate::serve) apart, for those who want to go on with
/// leases and owned buffers. [`Upgraded`] itself reads and writes as hyper's traits have it.
///
/// # Errors
///
/// Gives the connection back if it is not a [`TcpStream`] of this crate: a stream of an HTTP/2
/// connection, for one, or one of TLS, for which there is [`downcast_to`].
///
/// # Examples
///
/// An echo behind an upgrade:
///
/// ```
/// use axum::{Router, extract::Request, http::StatusCode, routing::get};
///
/// async fn upgrade(mut request: Request) -> (StatusCode, [(&'static str, &'static str); 2]) {
///     let upgrade = hyper::upgrade::on(&mut request);
///     quoit::spawn(async move {
///         let Ok(upgraded) = upgrade.await else { return };
///         let parts = quoit_http::downcast(upgraded).expect("it was HTTP/1");
///         let _ = parts.stream.send_all(Vec::from(parts.read_buf)).await;
///         while let Ok(lease) = parts.stream.recv().await {
///             if lease.is_empty() || parts.stream.send(lease).await.is_err() {
///                 break;
///             }
///         }
///     });
///     (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
/// }
///
/// let router = Router::<()>::new().route("/echo", get(upgrade));
/// # drop(router);
/// ```
pub fn downcast(upgraded: Upgraded) -> Result<Parts, Upgraded> {
    downcast_to(upgraded)
}

/// As [`downcast`], for what a [`Handshake`](crate::Handshake) has made of the stream:
/// `quoit_tls::server::TlsStream<TcpStream>`, say.
///
/// # Errors
///
/// Gives the connection back if it is something else.
///
/// # Examples
///
/// ```
/// use hyper::upgrade::Upgraded;
/// use quoit::net::TcpStream;
/// use quoit_http::{Parts, downcast_to};
///
/// fn apart(upgraded: Upgraded) -> Option<Parts<TcpStream>> {
///     downcast_to(upgraded).ok()
/// }
/// # let _ = apart;
/// ```
pub fn downcast_to<T>(upgraded: Upgraded) -> Result<Parts<T>, Upgraded>
where
    T: Read + Write + Unpin + Send + 'static,
{
    match upgraded.downcast::<Wire<T>>() {
        Ok(parts) => Ok(apart(parts, |stream| stream)),
        // What came of a handshake.
        Err(upgraded) => Ok(apart(upgraded.downcast::<Wire<Box<T>>>()?, |stream| *stream)),
    }
}

fn apart<I, T>(parts: upgrade::Parts<Wire<I>>, stream: impl FnOnce(I) -> T) -> Parts<T> {
    let (io, rest, slot) = parts.io.into_parts();
    let read_buf = if rest.is_empty() {
        parts.read_buf
    } else {
        // In this order: the protocol reads all that was kept before it reads the socket.
        Bytes::from([&parts.read_buf[..], &rest[..]].concat())
    };
    Parts { stream: stream(io), read_buf, slot }
}
