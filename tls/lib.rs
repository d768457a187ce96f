//! TLS on [quoit]'s streams: [rustls], through [`tokio_rustls`].
//!
//! The names are those of `tokio-rustls`, and so is the machinery, which needs nothing of tokio's
//! runtime. What is added is what a server on quoit wants besides: a limit of time on every
//! handshake, hyper's traits on the streams (feature `hyper`), halves, and what a handshake has
//! agreed on in one value ([`TlsInfo`]).
//!
//! ```
//! use std::sync::Arc;
//! use quoit::net::{TcpListener, TcpStream};
//! use quoit_tls::rustls::pki_types::{PrivateKeyDer, ServerName};
//! use quoit_tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
//! use quoit_tls::{TlsAcceptor, TlsConnector};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # quoit::block_on(async {
//! let made = rcgen::generate_simple_self_signed(["example.test".to_owned()])?;
//! let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
//! let certificate = made.cert.der().clone();
//!
//! let config = ServerConfig::builder()
//!     .with_no_client_auth()
//!     .with_single_cert(vec![certificate.clone()], key)?;
//! let acceptor = TlsAcceptor::from(Arc::new(config));
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! quoit::spawn(async move {
//!     let (stream, _) = listener.accept().await?;
//!     let mut stream = acceptor.accept(stream).await?;
//!     stream.write_all(b"nobody else can read this").await?;
//!     stream.shutdown().await
//! });
//!
//! let mut roots = RootCertStore::empty();
//! roots.add(certificate)?;
//! let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
//! let connector = TlsConnector::from(Arc::new(config));
//! let stream = TcpStream::connect(address).await?;
//! let mut stream = connector.connect(ServerName::try_from("example.test")?, stream).await?;
//! let mut text = String::new();
//! stream.read_to_string(&mut text).await?;
//! assert_eq!(text, "nobody else can read this");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Certificates, protocols, sessions
//!
//! All of it is rustls' own configuration, which is taken as it is: ALPN
//! (`config.alpn_protocols`), client certificates (`with_client_cert_verifier`,
//! `with_client_auth_cert`), certificates by name (`with_cert_resolver`), session resumption
//! (`config.ticketer`, `config.session_storage` of a server, `config.resumption` of a client). A
//! whole configuration by the name that the client asks for is chosen with [`LazyConfigAcceptor`].
//!
//! The implementation of the cryptography is chosen by a feature of rustls: `ring` or `aws_lc_rs`,
//! here or in your own dependency on rustls. Without one, a configuration needs its provider by
//! `builder_with_provider`. TLS 1.2 is the feature `tls12`.
//!
//! # The end of a stream
//!
//! `shutdown` sends `close_notify`, then FIN. Reading goes on until the peer's own `close_notify`,
//! which is the end (`Ok(0)`); its writing may go on until it has enough (RFC 8446, section 6.1).
//! A stream that ends without one was cut, perhaps by somebody who wants the rest unread: that is
//! [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).
//!
//! Dropping a stream sends no `close_notify`, and loses what was written and not flushed.
//!
//! # Cancel safety
//!
//! | dropped | what is lost |
//! |---|---|
//! | a handshake | the connection |
//! | one read (`read`, `fill_buf`) | nothing: what has come stays in the stream for the next one |
//! | one write (`write`) | nothing: it was not begun, or had said how much it took |
//! | `flush`, `shutdown` | nothing: the next call goes on |
//! | tokio's loops (`read_exact`, `write_all`) | what they had taken or given, as tokio has it |
//!
//! What `write` has taken may still be in the stream, as in a `BufWriter`, until it is flushed.
//!
//! # Simulation
//!
//! The streams run on simulated hosts. The random numbers of the cryptography are not drawn from
//! the seed, so what is on the wire differs from run to run; its lengths and turns do not, except
//! for those of signatures with a length that varies (ECDSA).
//!
//! # Reading the code
//!
//! ```text
//!   acceptor.rs, connector.rs   the handshakes ── limit.rs   their time
//!        └──► stream.rs         server::TlsStream, client::TlsStream, either
//!               ├─ traits.rs    tokio's and hyper's on them
//!               ├─ split.rs     halves
//!               └─ info.rs      what was agreed on
//! ```

#![forbid(unsafe_code)]

mod acceptor;
mod connector;
mod info;
mod limit;
mod split;
mod stream;
mod traits;

/// The server's side.
pub mod server {
    pub use crate::acceptor::{Accept, LazyConfigAcceptor, StartHandshake, TlsAcceptor};
    pub use crate::stream::ServerStream as TlsStream;
}

/// The client's side.
pub mod client {
    pub use crate::connector::{Connect, TlsConnector};
    pub use crate::stream::ClientStream as TlsStream;
}

pub use acceptor::{Accept, LazyConfigAcceptor, StartHandshake, TlsAcceptor};
pub use connector::{Connect, TlsConnector};
pub use info::TlsInfo;
pub use split::{ReadHalf, ReuniteError, WriteHalf};
pub use stream::TlsStream;
pub use tokio_rustls::rustls;
