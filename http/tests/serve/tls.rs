//! The same server over TLS: which protocol, who asks, who fails, and the ends.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get as on_get;
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use quoit::net::{TcpListener, TcpStream};
use quoit::rt::QuoitExecutor;
use quoit::time::{Instant, sleep};
use quoit_http::{Agreed, Trouble, downcast, downcast_to, serve};
use quoit_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use quoit_tls::rustls::server::{Acceptor, WebPkiClientVerifier};
use quoit_tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use quoit_tls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsInfo, client, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::tools::{MS, Server, body, get, soon, started, until};

const LIMIT: Duration = Duration::from_millis(150);

/// A certificate for `test`, good for servers and clients, that vouches for itself.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["test".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Self { certificate: made.cert.der().clone(), key }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    fn server(&self, alpn: &[&str]) -> ServerConfig {
        let config = ServerConfig::builder().with_no_client_auth();
        let chain = vec![self.certificate.clone()];
        let mut config = config.with_single_cert(chain, self.key.clone_key()).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    fn connector(&self, alpn: &[&str]) -> TlsConnector {
        let config = ClientConfig::builder().with_root_certificates(self.roots());
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }
}

type Stream = client::TlsStream<TcpStream>;

async fn connect(server: &Server, connector: &TlsConnector) -> io::Result<Stream> {
    let stream = TcpStream::connect(server.address).await?;
    soon(connector.connect(ServerName::try_from("test").unwrap(), stream)).await
}

const BOTH: &[&str] = &["h2", "http/1.1"];

async fn whoami(Extension(tls): Extension<TlsInfo>, request: Request) -> String {
    let alpn = tls.alpn_protocol().map(String::from_utf8_lossy);
    let count = tls.peer_certificates().map_or(0, <[_]>::len);
    format!("{:?} {:?} {alpn:?} {count}", request.version(), tls.server_name())
}

fn router() -> Router {
    let slow = || async {
        sleep(2 * LIMIT).await;
        "slow"
    };
    Router::new().route("/", on_get(whoami)).route("/slow", on_get(slow))
}

/// Troubles as they are told.
type Told = Arc<Mutex<Vec<Trouble>>>;

/// A server with these protocols, and the connector that trusts it.
async fn start(identity: &Identity, alpn: &[&str]) -> (Server, Told) {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(alpn)));
    let told = Told::default();
    let tell = told.clone();
    let server = started(move |listener, stopped| {
        serve(listener, router())
            .tls(acceptor)
            .header_timeout(LIMIT)
            .idle_timeout(LIMIT)
            .on_error(move |trouble| tell.lock().unwrap().push(trouble))
            .with_graceful_shutdown(stopped)
            .into_future()
    });
    (server.await, told)
}

async fn get1(stream: Stream, path: &str) -> String {
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(stream).await.unwrap();
    quoit::spawn(connection);
    let text = body(soon(sender.send_request(get(path))).await.unwrap()).await;
    String::from_utf8_lossy(&text).into_owned()
}

#[quoit::test]
async fn the_protocol_is_the_one_agreed_on() {
    let identity = Identity::new();
    let (server, told) = start(&identity, BOTH).await;
    for (offer, want) in [
        (&["http/1.1"][..], r#"HTTP/1.1 Some("test") Some("http/1.1") 0"#),
        (&[], r#"HTTP/1.1 Some("test") None 0"#),
    ] {
        let stream = connect(&server, &identity.connector(offer)).await.unwrap();
        assert_eq!(get1(stream, "/").await, want);
    }
    let stream = connect(&server, &identity.connector(BOTH)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(QuoitExecutor, stream).await.unwrap();
    let connection = quoit::spawn(connection);
    let text = body(soon(sender.send_request(get("/"))).await.unwrap()).await;
    assert_eq!(&text[..], br#"HTTP/2.0 Some("test") Some("h2") 0"#);
    // Closed as an idle one: by GOAWAY and close_notify, which hyper takes for a good end.
    soon(connection).await.unwrap().unwrap();
    let report = server.end().await;
    let told = told.lock().unwrap();
    assert_eq!((report.connections, report.requests), (3, 3));
    assert!(told.is_empty(), "{told:?}");
    assert_eq!((report.idle_timeouts, report.handshake_errors), (1, 0));
}

/// A client with HTTP/1 that agreed on HTTP/2 gets an error of that, and the other way round.
#[quoit::test]
async fn what_was_agreed_on_is_meant() {
    let identity = Identity::new();
    let (server, told) = start(&identity, BOTH).await;
    for (offer, text) in [("h2", "GET / HTTP/1.1\r\n\r\n"), ("http/1.1", "PRI * HTTP/2.0\r\n\r\n")]
    {
        let mut stream = connect(&server, &identity.connector(&[offer])).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        drop(soon(stream.read_to_end(&mut Vec::new())).await);
    }
    until("both are told", || told.lock().unwrap().len() == 2).await;
    assert!(told.lock().unwrap().iter().all(|t| matches!(t, Trouble::Connection { .. })));
    assert_eq!(server.end().await.requests, 0);

    // A promise that the server was told not to keep is an error, with its remedy.
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(BOTH)));
    let (tell, said) = oneshot::channel();
    let mut tell = Some(tell);
    let server = started(move |listener, stopped| {
        serve(listener, router())
            .tls(acceptor)
            .http1_only()
            .on_error(move |trouble| tell.take().unwrap().send(trouble).unwrap())
            .with_graceful_shutdown(stopped)
            .into_future()
    });
    let server = server.await;
    let stream = connect(&server, &identity.connector(&["h2"])).await.unwrap();
    let trouble = soon(said).await.unwrap();
    assert!(trouble.to_string().contains("take it out of the protocols"), "{trouble}");
    drop(stream);
    assert_eq!(server.end().await.handshake_errors, 1);
}

#[quoit::test]
async fn a_failed_handshake_is_told_and_holds_nobody_up() {
    let identity = Identity::new();
    let (server, told) = start(&identity, BOTH).await;
    // Garbage, an end in the middle, a client that does not trust us; two say nothing and go.
    let garbage = server.client().await;
    garbage.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let half = server.client().await;
    half.send([22, 3, 1, 1]).await;
    half.stream.shutdown().await.unwrap();
    let peers = [&garbage, &half].map(|client| client.stream.local_addr().unwrap());
    drop(server.client().await);
    server.client().await.stream.abort();
    let error = connect(&server, &Identity::new().connector(BOTH)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    until("all are told", || told.lock().unwrap().len() == 3).await;
    for trouble in &*told.lock().unwrap() {
        assert!(matches!(trouble, Trouble::Handshake { .. }), "{trouble}");
    }
    for peer in peers {
        let is_told = |t: &Trouble| t.to_string().starts_with(&peer.to_string());
        assert!(told.lock().unwrap().iter().any(is_told), "{peer}");
    }
    // The alert, for the one who can read it: fatal, and a reason.
    let alert = soon(garbage.stream.recv()).await.unwrap();
    assert_eq!((alert[0], alert[5]), (21, 2), "{:?}", &alert[..]);
    let stream = connect(&server, &identity.connector(&[])).await.unwrap();
    assert!(get1(stream, "/").await.starts_with("HTTP/1.1"));
    let report = server.end().await;
    assert_eq!((report.connections, report.handshake_errors, report.errors), (6, 3, 0));
}

/// The time is for both, the handshake and the head.
#[quoit::test]
async fn a_handshake_that_takes_too_long_is_cut() {
    let identity = Identity::new();
    let (server, told) = start(&identity, BOTH).await;
    let begun = Instant::now();
    let mut silent = server.client().await;
    let mut half = server.client().await;
    half.send([22, 3, 1]).await;
    let mut quiet = connect(&server, &identity.connector(BOTH)).await.unwrap();
    silent.end().await;
    half.end().await;
    let cut = soon(quiet.read_to_end(&mut Vec::new())).await;
    drop(cut);
    assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
    until("all are told", || told.lock().unwrap().len() == 3).await;
    let is_timeout = |t: &Trouble| matches!(t, Trouble::HeaderTimeout { .. });
    assert!(told.lock().unwrap().iter().all(is_timeout));
    assert_eq!(server.end().await.header_timeouts, 3);
}

#[quoit::test]
async fn a_shutdown_waits_for_handshakes_that_have_begun() {
    for begins_after in [false, true] {
        a_handshake_may_end(begins_after).await;
    }
}

/// The client begins before the server is to stop, or soon after.
async fn a_handshake_may_end(begins_after: bool) {
    let identity = Identity::new();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(&[])));
    let server = started(move |listener, stopped| {
        serve(listener, router()).tls(acceptor).with_graceful_shutdown(stopped).into_future()
    });
    let mut server = server.await;
    let mut silent = server.client().await;
    let busy = connect(&server, &identity.connector(&[])).await.unwrap();
    let busy = quoit::spawn(get1(busy, "/slow"));

    // The client's first words come in two parts, and the second late.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let config = identity.connector(&[]).config().clone();
    let name = ServerName::try_from("test").unwrap();
    let mut session = quoit_tls::rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    if begins_after {
        server.stop();
        // It sees that, and is asked long before those who have said nothing are closed.
        for _ in 0..10 {
            quoit::task::yield_now().await;
        }
    }
    stream.send_all(hello[..10].to_vec()).await.unwrap();
    if !begins_after {
        sleep(20 * MS).await;
        server.stop();
    }
    silent.end().await;
    sleep(LIMIT).await;
    stream.send_all(hello[10..].to_vec()).await.unwrap();
    let mut text = Vec::new();
    while session.is_handshaking() {
        let lease = soon(stream.recv()).await.unwrap();
        assert!(!lease.is_empty(), "it was cut");
        session.read_tls(&mut &lease[..]).unwrap();
        session.process_new_packets().unwrap();
        session.write_tls(&mut text).unwrap();
    }
    io::Write::write_all(&mut session.writer(), b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    session.write_tls(&mut text).unwrap();
    stream.send_all(text).await.unwrap();
    let mut answer = Vec::new();
    // To the end, which is a close_notify: the session has no error for it.
    loop {
        let lease = soon(stream.recv()).await.unwrap();
        if lease.is_empty() {
            break;
        }
        session.read_tls(&mut &lease[..]).unwrap();
        session.process_new_packets().unwrap();
        drop(io::Read::read_to_end(&mut session.reader(), &mut answer));
    }
    assert_eq!(io::Read::read(&mut session.reader(), &mut [0]).unwrap(), 0);
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(soon(busy).await.unwrap(), "slow");
    let report = server.report().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.requests, report.handshake_errors), (2, 0));
}

#[quoit::test]
async fn a_handshake_that_never_ends_does_not_hold_up_a_shutdown_for_ever() {
    let identity = Identity::new();
    let (mut server, _) = start(&identity, BOTH).await;
    let mut half = server.client().await;
    half.send([22, 3, 1]).await;
    sleep(20 * MS).await;
    server.stop();
    half.end().await;
    let report = server.report().await;
    assert_eq!((report.header_timeouts, report.cut.len()), (1, 0));
}

/// Chosen by the name that is asked for; and the client shows who it is.
#[quoit::test]
async fn a_configuration_for_each_name_and_certificates_of_clients() {
    let (identity, client) = (Identity::new(), Identity::new());
    let verifier = WebPkiClientVerifier::builder(client.roots().into()).build().unwrap();
    let chain = vec![identity.certificate.clone()];
    let inner = ServerConfig::builder().with_client_cert_verifier(verifier);
    let inner = Arc::new(inner.with_single_cert(chain, identity.key.clone_key()).unwrap());
    let choose = move |stream: TcpStream| {
        let inner = inner.clone();
        async move {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            match start.client_hello().server_name() {
                Some("test") => Ok(Agreed::from(start.into_stream(inner).await?)),
                name => Err(io::Error::other(format!("nobody here is called {name:?}"))),
            }
        }
    };
    let (tell, said) = oneshot::channel();
    let mut tell = Some(tell);
    let server = started(move |listener, stopped| {
        serve(listener, router())
            .tls(choose)
            .on_error(move |trouble| tell.take().unwrap().send(trouble).unwrap())
            .with_graceful_shutdown(stopped)
            .into_future()
    });
    let server = server.await;
    let config = ClientConfig::builder().with_root_certificates(identity.roots());
    let chain = vec![client.certificate.clone()];
    let config = config.with_client_auth_cert(chain, client.key.clone_key()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connect(&server, &connector).await.unwrap();
    assert_eq!(get1(stream, "/").await, r#"HTTP/1.1 Some("test") None 1"#);

    let stream = TcpStream::connect(server.address).await.unwrap();
    let other = ServerName::try_from("other").unwrap();
    soon(connector.connect(other, stream)).await.unwrap_err();
    let trouble = soon(said).await.unwrap().to_string();
    assert!(trouble.contains("nobody here is called"), "{trouble}");
    assert_eq!(server.end().await.handshake_errors, 1);
}

#[quoit::test]
async fn an_upgraded_connection_is_given_back_with_its_tls() {
    async fn upgrade(mut request: Request) -> (StatusCode, [(&'static str, &'static str); 2]) {
        let upgrade = hyper::upgrade::on(&mut request);
        quoit::spawn(async move {
            let upgraded = downcast(upgrade.await.unwrap()).unwrap_err();
            let parts = downcast_to::<server::TlsStream<TcpStream>>(upgraded).unwrap();
            let (mut stream, slot) = (parts.stream, parts.slot);
            stream.write_all(&parts.read_buf).await.unwrap();
            let mut buffer = [0; 64];
            loop {
                let count = stream.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break;
                }
                stream.write_all(&buffer[..count]).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
            drop(slot);
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
    }
    let identity = Identity::new();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(BOTH)));
    let server = started(move |listener, stopped| {
        let router = Router::new().route("/", on_get(upgrade));
        serve(listener, router).tls(acceptor).with_graceful_shutdown(stopped).into_future()
    });
    let server = server.await;
    let mut stream = connect(&server, &identity.connector(&["http/1.1"])).await.unwrap();
    let text = "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst ";
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nfirst ") {
        answer.push(soon(stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    stream.write_all(b"second").await.unwrap();
    let mut echo = [0; 6];
    soon(stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"second");
    stream.shutdown().await.unwrap();
    assert_eq!(soon(stream.read(&mut echo)).await.unwrap(), 0);
    server.end().await;
}

/// What a peer has yet to take is in flight, also where TLS holds it.
#[quoit::test]
async fn a_peer_that_reads_slowly_is_not_idle_over_tls() {
    const LENGTH: usize = 32 << 20;
    let identity = Identity::new();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(BOTH)));
    let server = started(move |listener: TcpListener, stopped| {
        let router = Router::new().route("/", on_get(|| async { vec![7_u8; LENGTH] }));
        let server = serve(listener, router).tls(acceptor).idle_timeout(LIMIT);
        server.header_timeout(None).with_graceful_shutdown(stopped).into_future()
    });
    let server = server.await;
    let mut stream = connect(&server, &identity.connector(&["http/1.1"])).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    sleep(4 * LIMIT).await;
    let mut answer = Vec::new();
    // Its end is that of an idle connection.
    quoit::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.len() > LENGTH);
    let report = server.end().await;
    assert_eq!((report.requests, report.idle_timeouts, report.errors), (1, 1, 0));
}
