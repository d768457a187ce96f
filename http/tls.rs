//! TLS by `quoit-tls`.

use std::io;

use quoit::net::TcpStream;
use quoit_tls::server::TlsStream;
use quoit_tls::{TlsAcceptor, TlsInfo};

use crate::handshake::{Agreed, Handshake};

impl Handshake for TlsAcceptor {
    type Io = TlsStream<TcpStream>;

    async fn begin(&self, stream: TcpStream) -> io::Result<Agreed<Self::Io>> {
        Ok(self.accept(stream).await?.into())
    }
}

/// With its ALPN, and with [`TlsInfo`] for each request.
///
/// ```
/// use std::sync::Arc;
/// use quoit::net::TcpStream;
/// use quoit_http::Agreed;
/// use quoit_tls::rustls::ServerConfig;
/// use quoit_tls::rustls::server::Acceptor;
/// use quoit_tls::{LazyConfigAcceptor, server::TlsStream};
///
/// # fn serve(
/// #     listener: quoit::net::TcpListener,
/// #     router: axum::Router,
/// #     inner: Arc<ServerConfig>,
/// #     public: Arc<ServerConfig>,
/// # ) {
/// // Another configuration for each name.
/// let choose = move |stream: TcpStream| {
///     let (inner, public) = (inner.clone(), public.clone());
///     async move {
///         let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
///         let is_inner = start.client_hello().server_name() == Some("inner.test");
///         let stream = start.into_stream(if is_inner { inner } else { public }).await?;
///         Ok(Agreed::from(stream))
///     }
/// };
/// # let server =
/// quoit_http::serve(listener, router).tls(choose)
/// # ; drop(server);
/// # }
/// ```
impl<IO> From<TlsStream<IO>> for Agreed<TlsStream<IO>> {
    fn from(stream: TlsStream<IO>) -> Self {
        let info = TlsInfo::from(stream.get_ref().1);
        let mut agreed = Self::new(stream).extension(info.clone());
        agreed.protocol = info.alpn_protocol().map(<[u8]>::to_vec);
        agreed
    }
}
