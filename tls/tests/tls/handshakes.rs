//! Who is who, what is agreed on, sessions that are resumed, and what fails.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::time::Instant;
use quoit_tls::rustls::server::{Acceptor, NoServerSessionStorage, WebPkiClientVerifier};
use quoit_tls::rustls::{
    AlertDescription, CertificateError, Error, HandshakeKind, ProtocolVersion,
};
use quoit_tls::rustls::{ClientConfig, crypto, version};
use quoit_tls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::tools::{Client, Identity, Server, shake, soon, tcp};

fn cause(error: &io::Error) -> &Error {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("rustls says why")
}

async fn exchange(client: &mut Client, server: &mut Server) {
    client.write_all(b"question").await.unwrap();
    client.flush().await.unwrap();
    let mut text = [0; 8];
    soon(server.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"question");
    server.write_all(b"answer").await.unwrap();
    server.flush().await.unwrap();
    soon(client.read_exact(&mut text[..6])).await.unwrap();
    assert_eq!(&text[..6], b"answer");
}

#[quoit::test]
async fn both_versions_shake_hands_and_talk() {
    let identity = Identity::of("test");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    for (one, want) in
        [(&version::TLS13, ProtocolVersion::TLSv1_3), (&version::TLS12, ProtocolVersion::TLSv1_2)]
    {
        let config = ClientConfig::builder_with_protocol_versions(&[one]);
        let config = config.with_root_certificates(identity.roots()).with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let (client, server) = shake(&connector, "test", &acceptor).await;
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        exchange(&mut client, &mut server).await;
        let info = TlsInfo::from(server.get_ref().1);
        assert_eq!(info.protocol_version(), Some(want));
        assert_eq!(info.server_name(), Some("test"));
        assert!(info.negotiated_cipher_suite().is_some() && info.peer_certificates().is_none());
        assert_eq!(client.get_ref().1.protocol_version(), Some(want));
    }
}

#[quoit::test]
async fn a_stranger_and_another_name_are_refused_and_told_why() {
    let identity = Identity::of("test");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let stranger = TlsConnector::from(Arc::new(Identity::of("test").client()));
    let known = TlsConnector::from(Arc::new(identity.client()));
    for (connector, to, is_name) in [(&stranger, "test", false), (&known, "other", true)] {
        let (client, server) = shake(connector, to, &acceptor).await;
        let (client, server) = (client.unwrap_err(), server.unwrap_err());
        assert_eq!(client.kind(), io::ErrorKind::InvalidData);
        let Error::InvalidCertificate(why) = cause(&client) else { panic!("{client}") };
        let name = matches!(
            why,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        );
        assert_eq!(name, is_name, "{client}");
        assert!(matches!(cause(&server), Error::AlertReceived(_)), "{server}");
    }
}

#[quoit::test]
async fn protocols_are_agreed_on_or_not() {
    let identity = Identity::of("test");
    let cases: [(&[&str], &[&str], Option<&str>); 4] = [
        (&["h2", "http/1.1"], &["http/1.1", "h2"], Some("h2")),
        (&["h2"], &[], None),
        (&[], &["h2"], None),
        (&[], &[], None),
    ];
    let list = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect();
    let with = |ours: &[&str], theirs: &[&str]| {
        let (mut server, mut client) = (identity.server(), identity.client());
        server.alpn_protocols = list(ours);
        client.alpn_protocols = list(theirs);
        (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)))
    };
    for (ours, theirs, want) in cases {
        let (acceptor, connector) = with(ours, theirs);
        let (client, server) = shake(&connector, "test", &acceptor).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        let info = TlsInfo::from(server.get_ref().1);
        assert_eq!(info.alpn_protocol(), want.map(str::as_bytes));
        assert_eq!(client.get_ref().1.alpn_protocol(), want.map(str::as_bytes));
    }
    let (acceptor, connector) = with(&["h2"], &["smtp"]);
    let (client, server) = shake(&connector, "test", &acceptor).await;
    assert!(matches!(cause(&server.unwrap_err()), Error::NoApplicationProtocol));
    let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert_eq!(*cause(&client.unwrap_err()), alert);
}

#[quoit::test]
async fn a_configuration_is_chosen_by_name() {
    let (one, two) = (Identity::of("one"), Identity::of("two"));
    for (to, of) in [("one", &one), ("two", &two)] {
        let (client, server) = tcp().await;
        let connector = TlsConnector::from(Arc::new(of.client()));
        let accept = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), server).await?;
            let chosen = match start.client_hello().server_name() {
                Some("one") => one.server(),
                Some("two") => two.server(),
                name => panic!("{name:?}"),
            };
            start.into_stream(Arc::new(chosen)).await
        };
        let connect = connector.connect(crate::tools::name(to), client);
        let (client, server) = soon(async { futures::join!(connect, accept) }).await;
        exchange(&mut client.unwrap(), &mut server.unwrap()).await;
    }
}

/// By tickets, and by what the server keeps; and by neither.
#[quoit::test]
async fn sessions_are_resumed() {
    let identity = Identity::of("test");
    let mut tickets = identity.server();
    tickets.ticketer = crypto::ring::Ticketer::new().unwrap();
    let mut nothing = identity.server();
    nothing.session_storage = Arc::new(NoServerSessionStorage {});
    for (config, is_resumed) in [(identity.server(), true), (tickets, true), (nothing, false)] {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        for one in [&version::TLS13, &version::TLS12] {
            let config = ClientConfig::builder_with_protocol_versions(&[one]);
            let config = config.with_root_certificates(identity.roots()).with_no_client_auth();
            let connector = TlsConnector::from(Arc::new(config));
            let mut full = 0;
            for _ in 0..4 {
                let (client, server) = shake(&connector, "test", &acceptor).await;
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                // With the first read, the client takes its tickets.
                exchange(&mut client, &mut server).await;
                let kind = TlsInfo::from(server.get_ref().1).handshake_kind().unwrap();
                assert_eq!(client.get_ref().1.handshake_kind(), Some(kind));
                full += usize::from(kind != HandshakeKind::Resumed);
            }
            assert_eq!(full, if is_resumed { 1 } else { 4 }, "{one:?}");
        }
    }
}

#[quoit::test]
async fn clients_show_their_certificates() {
    let (identity, user) = (Identity::of("test"), Identity::of("user"));
    let verifier = WebPkiClientVerifier::builder(user.roots().into()).build().unwrap();
    let config = quoit_tls::rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
    let chain = vec![identity.certificate.clone()];
    let config = config.with_single_cert(chain, identity.key.clone_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let connector = |who: &Identity| {
        let config = ClientConfig::builder().with_root_certificates(identity.roots());
        let chain = vec![who.certificate.clone()];
        let config = config.with_client_auth_cert(chain, who.key.clone_key()).unwrap();
        TlsConnector::from(Arc::new(config))
    };
    let (client, server) = shake(&connector(&user), "test", &acceptor).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    exchange(&mut client, &mut server).await;
    let info = TlsInfo::from(server.get_ref().1);
    assert_eq!(info.peer_certificates(), Some(&[user.certificate.clone()][..]));

    // With TLS 1.3 the client learns it by its first read.
    for connector in
        [connector(&Identity::of("user")), TlsConnector::from(Arc::new(identity.client()))]
    {
        let (client, server) = shake(&connector, "test", &acceptor).await;
        server.unwrap_err();
        let error = soon(client.unwrap().read(&mut [0])).await.unwrap_err();
        assert!(matches!(cause(&error), Error::AlertReceived(_)), "{error}");
    }
}

#[quoit::test]
async fn garbage_gets_an_alert_and_silence_an_end() {
    let identity = Identity::of("test");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let (client, server) = tcp().await;
    client.send_all("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let error = soon(acceptor.accept(server)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let alert = soon(client.recv()).await.unwrap();
    assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert (RFC 8446, section 6): {alert:?}");

    let connector = TlsConnector::from(Arc::new(identity.client()));
    let (client, server) = tcp().await;
    server.send_all("220 ready when you are\r\n").await.unwrap();
    let error = soon(connector.connect(crate::tools::name("test"), client)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);

    for bytes in [&[][..], &[22, 3, 1]] {
        let (client, server) = tcp().await;
        client.send_all(bytes.to_vec()).await.unwrap();
        client.shutdown().await.unwrap();
        let error = soon(acceptor.accept(server)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[quoit::test]
async fn a_handshake_has_a_limit_on_either_side() {
    const LIMIT: Duration = Duration::from_millis(100);
    let identity = Identity::of("test");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server())).handshake_timeout(LIMIT);
    let connector = TlsConnector::from(Arc::new(identity.client())).handshake_timeout(LIMIT);
    let begun = Instant::now();
    let (silent, server) = tcp().await;
    let error = soon(acceptor.accept(server)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("handshake_timeout"), "{error}");
    drop(silent);
    let (client, deaf) = tcp().await;
    let error = soon(connector.connect(crate::tools::name("test"), client)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(deaf);
    assert!(begun.elapsed() >= 2 * LIMIT);

    // One time for both parts of a choice; and the stream comes back.
    let (silent, server) = tcp().await;
    let lazy = LazyConfigAcceptor::new(Acceptor::default(), server).handshake_timeout(LIMIT);
    let mut lazy = std::pin::pin!(lazy);
    let error = soon(lazy.as_mut()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let stream: TcpStream = lazy.take_io().unwrap();
    stream.send_all("too slow").await.unwrap();
    assert_eq!(soon(silent.recv()).await.unwrap()[..], b"too slow"[..]);
}
