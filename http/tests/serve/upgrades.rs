//! Connections that become something else.

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get as on_get;
use quoit::time::sleep;
use std::time::Duration;

use crate::tools::{header, soon, start, until};

const LIMIT: Duration = Duration::from_millis(150);

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";

async fn upgrade(mut request: Request) -> (StatusCode, [(&'static str, &'static str); 2]) {
    let upgrade = hyper::upgrade::on(&mut request);
    quoit::spawn(async move {
        let parts = quoit_http::downcast(upgrade.await.unwrap()).unwrap();
        parts.stream.send_all(Vec::from(parts.read_buf)).await.unwrap();
        loop {
            let lease = parts.stream.recv().await.unwrap();
            if lease.is_empty() {
                break;
            }
            parts.stream.send(lease).await.unwrap();
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")])
}

fn router() -> Router {
    Router::new().route("/", on_get(upgrade)).route("/plain", on_get(|| async { "plain" }))
}

/// What came right behind the request belongs to the new protocol.
#[quoit::test]
async fn an_upgraded_connection_echoes() {
    let server = start(router(), |serve| serve).await;
    let mut client = server.client().await;
    assert_eq!(client.get("/plain").await.1, "plain");
    client.send([UPGRADE, "first "].concat()).await;
    let (head, _) = client.response().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "upgrade"), Some("echo"));
    assert_eq!(client.bytes(6).await, b"first ");
    client.send("second").await;
    assert_eq!(client.bytes(6).await, b"second");
    let long: Vec<u8> = (0..300_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let (_, back) = futures::join!(client.stream.send_all(long.clone()), async {
        let mut back = Vec::new();
        while back.len() < long.len() {
            back.extend_from_slice(&soon(client.stream.recv()).await.unwrap());
        }
        back
    });
    assert!(back == long, "something else came back");
    client.stream.shutdown().await.unwrap();
    client.end().await;
    let report = server.end().await;
    assert_eq!((report.connections, report.requests, report.errors), (1, 2, 0));
}

/// Its timeouts are over, its place is not.
#[quoit::test]
async fn an_upgraded_connection_counts_and_has_no_timeout() {
    let server =
        start(router(), |serve| serve.max_connections(1).idle_timeout(LIMIT).header_timeout(LIMIT))
            .await;
    let mut client = server.client().await;
    client.send(UPGRADE).await;
    client.response().await;
    let mut next = server.client().await;
    next.send("GET /plain HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(next.is_quiet(3 * LIMIT).await);
    client.send("still").await;
    assert_eq!(client.bytes(5).await, b"still");
    drop(client);
    assert_eq!(next.response().await.1, "plain");
    drop(next);
    let report = server.end().await;
    assert_eq!((report.header_timeouts, report.errors), (0, 0));
}

#[quoit::test]
async fn a_shutdown_waits_for_upgraded_connections_and_does_not_cut_them() {
    let mut server = start(router(), |serve| serve.drain_timeout(LIMIT)).await;
    let mut client = server.client().await;
    client.send(UPGRADE).await;
    client.response().await;
    server.stop();
    let report = server.report().await;
    assert_eq!((report.upgraded, report.cut.len()), (1, 0));
    assert!(!report.is_clean());
    client.send("still").await;
    assert_eq!(client.bytes(5).await, b"still");

    let mut server = start(router(), |serve| serve).await;
    let mut client = server.client().await;
    client.send(UPGRADE).await;
    client.response().await;
    server.stop();
    sleep(LIMIT).await;
    client.send("still").await;
    assert_eq!(client.bytes(5).await, b"still");
    drop(client);
    assert!(server.report().await.is_clean());
    until("the tasks are gone", || quoit::__private::books_here().tasks_alive == 1).await;
}
