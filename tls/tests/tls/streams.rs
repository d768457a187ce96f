//! Bytes, ends, halves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quoit::time::sleep;
use quoit_tls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::tools::{Client, Identity, Server, pair, pattern, soon};

#[quoit::test]
async fn an_end_is_told_each_way_and_the_other_goes_on() {
    let (mut client, mut server) = pair().await;
    let mut text = String::new();
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    soon(server.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "all of it");
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0, "an end is an end");

    // Half of the stream is closed, and the other half is not.
    text.clear();
    server.write_all(b"and the answer").await.unwrap();
    server.shutdown().await.unwrap();
    soon(client.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "and the answer");
    // Nothing but TLS' own end is below.
    let (client, _) = client.into_inner();
    let (server, _) = server.into_inner();
    assert!(soon(client.recv()).await.unwrap().is_empty());
    assert!(soon(server.recv()).await.unwrap().is_empty());
}

/// By the end of TCP alone, by whoever made it.
#[quoit::test]
async fn a_cut_is_no_end() {
    for is_client in [true, false] {
        let (client, server) = pair().await;
        let (mut left, mut right): (TlsStream<_>, TlsStream<_>) =
            if is_client { (client.into(), server.into()) } else { (server.into(), client.into()) };
        left.write_all(b"some of it").await.unwrap();
        left.flush().await.unwrap();
        drop(left);
        let mut text = Vec::new();
        let error = soon(right.read_to_end(&mut text)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(text, b"some of it");
    }
}

/// A byte that was changed on the way is found, and the peer is told.
#[quoit::test]
async fn what_was_tampered_with_is_refused() {
    let (client, mut server) = pair().await;
    let (below, _) = client.into_inner();
    let mut record = vec![23, 3, 3, 0, 32];
    record.extend_from_slice(&[7; 32]);
    below.send_all(record).await.unwrap();
    let error = soon(server.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[quoit::test]
async fn much_goes_both_ways_at_once() {
    let data = pattern(8 << 20);
    let (client, server) = pair().await;
    let echo = quoit::spawn(async move {
        let (mut read, mut write) = server.into_split();
        let copied = tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
        (copied, read.reunite(write).is_ok())
    });
    let (mut read, mut write) = client.into_split();
    let sent = data.clone();
    let sender = quoit::spawn(async move {
        for part in sent.chunks(100_001) {
            write.write_all(part).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    soon(read.read_to_end(&mut back)).await.unwrap();
    assert!(back == data, "something else came back");
    sender.await.unwrap();
    assert_eq!(echo.await.unwrap(), (data.len() as u64, true));
}

/// A read that fails has an alert sent. That takes the place of the writer who waits for room, and
/// he is to be told all the same.
#[quoit::test]
async fn a_read_that_fails_leaves_no_writer_behind() {
    let (client, server) = pair().await;
    let (below, _) = client.into_inner();
    let (mut read, mut write) = server.into_split();
    let writer = quoit::spawn(async move { write.write_all(&vec![7; 32 << 20]).await });
    sleep(Duration::from_millis(50)).await;
    assert!(!writer.is_finished(), "it waits for room");
    let mut record = vec![23, 3, 3, 0, 32];
    record.extend_from_slice(&[7; 32]);
    below.send_all(record).await.unwrap();
    let reader = quoit::spawn(async move { read.read(&mut [0]).await.unwrap_err().kind() });
    assert_eq!(soon(reader).await.unwrap(), io::ErrorKind::InvalidData);
    below.abort();
    assert!(soon(writer).await.unwrap().is_err(), "there is nobody to write to");
}

/// Both talk at once, and neither waits for the other to read: 2 MiB each way, by tasks of one
/// core.
#[quoit::test]
async fn both_may_write_before_they_read() {
    let data = pattern(2 << 20);
    let (client, server) = pair().await;
    let half = |stream: TlsStream<_>, data: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let length = data.len();
        let writer = quoit::spawn(async move {
            write.write_all(&data).await.unwrap();
            write.flush().await.unwrap();
            write
        });
        let mut back = vec![0; length];
        read.read_exact(&mut back).await.unwrap();
        (back, read.reunite(writer.await.unwrap()).is_ok())
    };
    let both =
        futures::future::join(half(client.into(), data.clone()), half(server.into(), data.clone()));
    let (one, two) = soon(both).await;
    assert!(one.0 == data && two.0 == data && one.1 && two.1);
}

#[quoit::test]
async fn lines_are_lent_and_vectors_are_one_record() {
    let (mut client, mut server) = pair().await;
    let parts = [io::IoSlice::new(b"one\ntw"), io::IoSlice::new(b"o\n")];
    assert_eq!(client.write_vectored(&parts).await.unwrap(), 8);
    client.flush().await.unwrap();
    let mut line = String::new();
    soon(server.read_line(&mut line)).await.unwrap();
    soon(server.read_line(&mut line)).await.unwrap();
    assert_eq!(line, "one\ntwo\n");
}

/// hyper's traits, by hyper itself, each way.
#[quoit::test]
async fn hyper_speaks_over_it() {
    use hyper::body::{Body, Bytes, Incoming};
    use hyper::{Request, Response, client, server, service::service_fn};
    use quoit::rt::QuoitTimer;

    let (client, server) = pair().await;
    let answer = async |request: Request<Incoming>| {
        Ok::<_, hyper::Error>(Response::new(request.into_body()))
    };
    let mut builder = server::conn::http1::Builder::new();
    builder.timer(QuoitTimer);
    let serving = quoit::spawn(builder.serve_connection(server, service_fn(answer)));
    let (mut sender, connection) = client::conn::http1::handshake::<_, One>(client).await.unwrap();
    quoit::spawn(connection);

    struct One(Option<Bytes>);
    impl Body for One {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(self.0.take().map(|data| Ok(hyper::body::Frame::data(data))))
        }
    }
    let data = Bytes::from(pattern(300_000));
    let request = Request::post("http://test/").body(One(Some(data.clone()))).unwrap();
    let mut body = soon(sender.send_request(request)).await.unwrap().into_body();
    let mut back = Vec::new();
    while let Some(frame) =
        soon(std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx))).await
    {
        back.extend_from_slice(frame.unwrap().data_ref().unwrap());
    }
    assert!(back == data);
    drop(sender);
    soon(serving).await.unwrap().unwrap();
}

/// All that holds a stream can go where code asks for `Send`.
#[test]
fn everything_is_send() {
    fn send<T: Send>(_: &T) {}
    let identity = Identity::of("test");
    let acceptor = TlsAcceptor::from(Arc::new(identity.server()));
    let connector = TlsConnector::from(Arc::new(identity.client()));
    send(&acceptor);
    send(&connector);
    fn is_send<T: Send>() {}
    is_send::<Client>();
    is_send::<Server>();
    is_send::<TlsStream<quoit::net::TcpStream>>();
    is_send::<quoit_tls::ReadHalf<Server>>();
    is_send::<quoit_tls::WriteHalf<Server>>();
    let whole = async move {
        let (client, server) = crate::tools::tcp().await;
        let connect = connector.connect(crate::tools::name("test"), client);
        let (client, server) = futures::join!(connect, acceptor.accept(server));
        let (mut client, mut server) = (client?, server?);
        client.write_all(b"x").await?;
        server.read(&mut [0]).await
    };
    send(&whole);
}
