//! Certificates, and two ends of one connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::time::timeout;
use quoit_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use quoit_tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use quoit_tls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) type Server = server::TlsStream<TcpStream>;
pub(crate) type Client = client::TlsStream<TcpStream>;

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn of(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Self { certificate: made.cert.der().clone(), key }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    pub(crate) fn server(&self) -> ServerConfig {
        let chain = vec![self.certificate.clone()];
        let config = ServerConfig::builder().with_no_client_auth();
        config.with_single_cert(chain, self.key.clone_key()).unwrap()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::builder().with_root_certificates(self.roots()).with_no_client_auth()
    }
}

pub(crate) fn name(text: &str) -> ServerName<'static> {
    ServerName::try_from(text.to_owned()).unwrap()
}

pub(crate) async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = futures::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// Both handshakes on a connection of their own.
pub(crate) async fn shake(
    connector: &TlsConnector,
    to: &str,
    acceptor: &TlsAcceptor,
) -> (io::Result<Client>, io::Result<Server>) {
    let (client, server) = tcp().await;
    let connect = connector.connect(name(to), client);
    soon(async { futures::join!(connect, acceptor.accept(server)) }).await
}

/// Two ends that trust each other.
pub(crate) async fn pair() -> (Client, Server) {
    let identity = Identity::of("test");
    let connector = TlsConnector::from(Arc::new(identity.client()));
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let (client, server) = shake(&connector, "test", &acceptor).await;
    (client.unwrap(), server.unwrap())
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}
