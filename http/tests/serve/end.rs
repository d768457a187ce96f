//! Shutting down: who is told, who is waited for, who is cut.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use quoit::net::{TcpListener, TcpStream};
use quoit::time::{Instant, sleep};
use tokio::sync::Notify;

use crate::tools::{Alive, MS, body, get, header, soon, start, until};

const LIMIT: Duration = Duration::from_millis(150);

/// `/` answers at once, `/gate` when the gate is opened; and how many wait there.
fn gated() -> (Router, Arc<Notify>, Alive) {
    let (gate, waiting) = (Arc::new(Notify::new()), Alive::default());
    let handler = {
        let (gate, waiting) = (gate.clone(), waiting.clone());
        move || async move {
            let one = waiting.one();
            gate.notified().await;
            drop(one);
            "done"
        }
    };
    let router =
        Router::new().route("/", on_get(|| async { "hello" })).route("/gate", on_get(handler));
    (router, gate, waiting)
}

#[quoit::test]
async fn what_is_in_flight_completes_and_what_is_idle_is_closed() {
    let (router, gate, waiting) = gated();
    let mut server = start(router, |serve| serve).await;
    let mut idle = server.client().await;
    assert_eq!(idle.get("/").await.1, "hello");
    let mut busy = server.client().await;
    busy.send("GET /gate HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let (mut sender, connection) = server.http2().await;
    let stream = quoit::spawn(sender.send_request(get("/gate")));
    until("both have begun", || waiting.count() == 2).await;

    server.stop();
    idle.end().await;
    let refused = TcpStream::connect(server.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(busy.is_quiet(LIMIT).await);
    // GOAWAY: no more streams on this connection.
    soon(sender.send_request(get("/gate"))).await.unwrap_err();
    assert_eq!(waiting.count(), 2, "those that had begun are waited for");

    gate.notify_waiters();
    let (head, text) = busy.response().await;
    assert_eq!((header(&head, "connection"), text.as_str()), (Some("close"), "done"));
    busy.end().await;
    assert_eq!(body(soon(stream).await.unwrap().unwrap()).await, "done");
    soon(connection).await.unwrap().unwrap();
    let report = server.report().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.connections, report.requests, report.errors), (3, 3, 0));
}

#[quoit::test]
async fn what_is_stuck_is_cut_and_reported() {
    let (router, _gate, waiting) = gated();
    let mut server = start(router, |serve| serve.drain_timeout(LIMIT)).await;
    let mut stuck = server.client().await;
    stuck.send("GET /gate HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let (mut sender, connection) = server.http2().await;
    let stream = quoit::spawn(sender.send_request(get("/gate")));
    until("both have begun", || waiting.count() == 2).await;
    let peer = stuck.stream.local_addr().unwrap();

    server.stop();
    let started = Instant::now();
    let report = server.report().await;
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    assert!(!report.is_clean() && report.cut.len() == 2 && report.cut.contains(&peer));
    assert_eq!(report.requests, 2);
    stuck.end().await;
    soon(stream).await.unwrap().unwrap_err();
    drop(soon(connection).await.unwrap());
    // The stream's task is one of its own.
    until("the handlers are gone", || waiting.count() == 0).await;
}

/// They were connected before the end, so they are served: as the last request of each.
#[quoit::test]
async fn connections_taken_ahead_are_served() {
    let (router, gate, waiting) = gated();
    let mut server = start(router, |serve| serve.max_connections(1)).await;
    let mut first = server.client().await;
    first.send("GET /gate HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("it has begun", || waiting.count() == 1).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let client = server.client().await;
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
        others.push(client);
    }
    // A turn or two, in which the listener takes them from the kernel.
    sleep(20 * MS).await;
    let mut late = server.client().await;
    sleep(20 * MS).await;
    server.stop();
    for client in &mut others {
        let (head, text) = client.response().await;
        assert_eq!((header(&head, "connection"), text.as_str()), (Some("close"), "hello"));
        client.end().await;
    }
    // One that asks nothing is not waited for.
    late.end().await;
    gate.notify_waiters();
    assert_eq!(first.response().await.1, "done");
    let report = server.report().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.connections, report.requests), (5, 4));
}

/// A connection that was accepted a moment ago is not idle: its client is about to ask.
#[quoit::test]
async fn a_first_request_that_is_on_its_way_is_served() {
    let (router, _gate, _waiting) = gated();
    let mut server = start(router, |serve| serve).await;
    let mut client = server.client().await;
    sleep(20 * MS).await;
    server.stop();
    sleep(20 * MS).await;
    let (head, text) = client.get("/").await;
    assert_eq!((header(&head, "connection"), text.as_str()), (Some("close"), "hello"));
    client.end().await;
    assert!(server.report().await.is_clean());
}

/// A shutdown is no time for a slow client: its head still has to come in time.
#[quoit::test]
async fn a_head_that_has_begun_has_its_time_and_no_more() {
    let (router, _gate, _waiting) = gated();
    let mut server = start(router, |serve| serve.header_timeout(4 * LIMIT)).await;
    let mut slow = server.client().await;
    slow.send("GET / HTT").await;
    let mut silent = server.client().await;
    silent.send("GET / HTT").await;
    sleep(20 * MS).await;
    server.stop();
    sleep(LIMIT).await;
    slow.send("P/1.1\r\nhost: test\r\n\r\n").await;
    assert_eq!(slow.response().await.1, "hello");
    slow.end().await;
    silent.end().await;
    let report = server.report().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.requests, report.header_timeouts), (1, 1));
}

#[quoit::test]
async fn a_server_that_is_dropped_drops_its_connections() {
    let (router, _gate, waiting) = gated();
    let server = start(router, |serve| serve).await;
    let mut client = server.client().await;
    client.send("GET /gate HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("it has begun", || waiting.count() == 1).await;
    let address = server.address;
    server.abort();
    client.end().await;
    assert_eq!(waiting.count(), 0);
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

/// Rather than to try for ever.
#[quoit::test]
async fn a_listener_that_cannot_accept_is_an_error() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::from_std(socket).unwrap();
    // Somebody else's: `accept` on another core binds it there.
    let listener = std::thread::spawn(move || {
        let runtime = quoit::Runtime::new().unwrap();
        let accept = async {
            let nobody = quoit::time::timeout(MS, listener.accept()).await;
            assert!(nobody.is_err());
        };
        runtime.block_on(accept);
        drop(runtime);
        listener
    });
    let served = quoit_http::serve(listener.join().unwrap(), Router::<()>::new());
    let error = soon(served.into_future()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
}

/// A keep-alive connection in the middle of its next head is not idle: that request is the last.
#[quoit::test]
async fn a_further_head_that_has_begun_is_served() {
    let (router, _gate, _waiting) = gated();
    let mut server = start(router, |serve| serve.header_timeout(4 * LIMIT)).await;
    let mut slow = server.client().await;
    let mut silent = server.client().await;
    for client in [&mut slow, &mut silent] {
        assert_eq!(client.get("/").await.1, "hello");
        client.send("GET / HTT").await;
    }
    sleep(20 * MS).await;
    server.stop();
    sleep(LIMIT).await;
    slow.send("P/1.1\r\nhost: test\r\n\r\n").await;
    let (head, text) = slow.response().await;
    assert_eq!((header(&head, "connection"), text.as_str()), (Some("close"), "hello"));
    slow.end().await;
    silent.end().await;
    let report = server.report().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.requests, report.header_timeouts), (3, 1));
}

/// Whatever protocols are spoken: the drain's own limit is twice as long as this test waits.
#[quoit::test]
async fn one_that_says_nothing_is_not_waited_for() {
    for version in ["both", "one", "two"] {
        let (router, _gate, _waiting) = gated();
        let mut server = start(router, |serve| match version {
            "one" => serve.http1_only(),
            "two" => serve.http2_only(),
            _ => serve,
        })
        .await;
        let mut silent = server.client().await;
        sleep(20 * MS).await;
        server.stop();
        silent.end().await;
        let report = server.report().await;
        assert!(report.is_clean() && report.errors == 0, "{version}: {report:?}");
    }
}

/// The service is done with it at once; the socket and its peer are not.
#[quoit::test]
async fn a_response_that_is_still_being_written_is_written_to_its_end() {
    let (router, length) = large();
    let mut server = start(router, |serve| serve).await;
    let mut client = server.client().await;
    client.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n").await;
    sleep(20 * MS).await;
    server.stop();
    sleep(2 * LIMIT).await;
    assert_eq!(client.response().await.1.len(), length);
    client.end().await;
    assert!(server.report().await.is_clean());
}

/// It has a request in flight, as far as its peer is concerned.
#[quoit::test]
async fn a_peer_that_reads_slowly_is_not_idle() {
    let (router, length) = large();
    let server = start(router, |serve| serve.idle_timeout(LIMIT).header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        client.send("GET /large HTTP/1.1\r\nhost: test\r\n\r\n").await;
        sleep(3 * LIMIT).await;
        assert_eq!(client.response().await.1.len(), length);
    }
    client.end().await;
    let report = server.end().await;
    assert_eq!((report.requests, report.idle_timeouts), (2, 1));
}

/// More than the kernel takes at once.
fn large() -> (Router, usize) {
    const LENGTH: usize = 32 << 20;
    (Router::new().route("/large", on_get(|| async { vec![7_u8; LENGTH] })), LENGTH)
}

/// RFC 9110, section 9.3.6: after its 2xx there is a tunnel, which nobody is about to close.
#[quoit::test]
async fn a_tunnel_made_at_the_end_is_not_told_to_close() {
    let connect = async |mut request: axum::extract::Request| {
        let upgrade = hyper::upgrade::on(&mut request);
        quoit::spawn(async move { drop(upgrade.await.unwrap()) });
    };
    let router = Router::new().fallback(connect);
    let mut server = start(router, |serve| serve).await;
    let mut client = server.client().await;
    sleep(20 * MS).await;
    server.stop();
    client.send("CONNECT test:1 HTTP/1.1\r\nhost: test:1\r\n\r\n").await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(header(&head, "connection"), None);
    client.end().await;
    assert!(server.report().await.is_clean());
}
