//! HTTPS: a router over HTTP/1 and HTTP/2, whichever the client agrees to, and a client of both.
//!
//! ```text
//!   curl, openssl, a browser ──► TCP ──► TLS (rustls) ──ALPN──► HTTP/1 or HTTP/2 ──► axum::Router
//!                                        quoit-tls              quoit-http
//! ```

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Version};
use quoit::net::TcpStream;
use quoit::rt::QuoitExecutor;
use quoit_tls::rustls::crypto::ring::Ticketer;
use quoit_tls::rustls::pki_types::pem::PemObject;
use quoit_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use quoit_tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use quoit_tls::{TlsConnector, TlsInfo};

/// Who a server is: its certificates, its own first, and the key of that.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From two files in PEM.
    pub fn read(chain: &Path, key: &Path) -> io::Result<Self> {
        let certificates = CertificateDer::pem_file_iter(chain).map_err(io::Error::other)?;
        let chain = certificates.collect::<Result<_, _>>().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
        Ok(Self { chain, key })
    }

    /// One that vouches for itself, for these names, and its certificate in PEM, for its clients.
    pub fn self_signed(names: &[&str]) -> io::Result<(Self, String)> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Ok((Self { chain: vec![made.cert.der().clone()], key }, made.cert.pem()))
    }
}

/// TLS for HTTP: both protocols are offered, and sessions are resumed by tickets.
pub fn server_config(identity: Identity) -> io::Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(identity.chain, identity.key);
    let mut config = config.map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().map_err(io::Error::other)?;
    Ok(Arc::new(config))
}

/// `/` says hello, `/tls` what was agreed on, `/large` a mebibyte.
pub fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello from the ring, in private\n" }))
        .route("/tls", get(agreed))
        .route("/large", get(|| async { vec![b'x'; 1 << 20] }))
}

async fn agreed(Extension(tls): Extension<TlsInfo>, version: Version) -> String {
    let mut text = format!("{version:?}");
    if let Some(version) = tls.protocol_version() {
        let _ = write!(text, " over {version:?}");
    }
    if let Some(kind) = tls.handshake_kind() {
        let _ = write!(text, ", {kind:?}");
    }
    let _ = writeln!(text, ", asked for {}", tls.server_name().unwrap_or("nobody in particular"));
    text
}

/// A client's configuration: whom it trusts, in PEM, and what it offers to speak.
pub fn connector(roots: &str, protocols: &[&str]) -> io::Result<TlsConnector> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        let certificate = certificate.map_err(io::Error::other)?;
        store.add(certificate).map_err(io::Error::other)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config).into())
}

/// One request on a connection of its own, by the protocol that the server agrees to.
pub async fn fetch(
    connector: &TlsConnector,
    address: &str,
    name: &str,
    path: &str,
) -> io::Result<Response<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    let to = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let stream = connector.connect(to, stream).await?;
    let request = Request::get(format!("https://{name}{path}")).header("host", name);
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let (mut sender, connection) =
            http2::handshake(QuoitExecutor, stream).await.map_err(io::Error::other)?;
        quoit::spawn(connection);
        whole(sender.send_request(request).await).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        quoit::spawn(connection);
        whole(sender.send_request(request).await).await
    }
}

async fn whole(response: hyper::Result<Response<Incoming>>) -> io::Result<Response<Bytes>> {
    let (head, body) = response.map_err(io::Error::other)?.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(Response::from_parts(head, body))
}
