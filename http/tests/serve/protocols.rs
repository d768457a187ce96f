//! HTTP/1 and HTTP/2 on one port: keep-alive, pipelining, streams, bodies, peers that go away.

use std::convert::Infallible;
use std::future::{IntoFuture, ready};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::routing::{get as on_get, post as on_post};
use futures::future::join_all;
use futures::stream;
use http_body_util::Full;
use hyper::{Request, Response, Version};
use quoit_http::{RequestBody, Trouble};
use tokio::sync::Notify;
use tower::service_fn;

use crate::tools::{Alive, MS, body, get, header, post, soon, start, started, until};

fn words() -> Router {
    Router::new()
        .route("/{word}", on_get(|Path(word): Path<String>| async { word }))
        .route("/echo", on_post(|body: Body| async { body }))
}

#[quoit::test]
async fn a_connection_is_kept_alive_and_requests_may_be_pipelined() {
    let server = start(words(), |serve| serve).await;
    let mut client = server.client().await;
    let request = |word: &str| format!("GET /{word} HTTP/1.1\r\nhost: test\r\n\r\n");
    client.send([request("one"), request("two"), request("three")].concat()).await;
    for word in ["one", "two", "three"] {
        let (head, body) = client.response().await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!((header(&head, "connection"), body.as_str()), (None, word));
    }
    assert_eq!(client.get("/four").await.1, "four");
    drop(client);
    let report = server.end().await;
    assert_eq!((report.connections, report.requests, report.errors), (1, 4, 0));
}

#[quoit::test]
async fn a_client_that_wants_to_close_is_told_goodbye() {
    let server = start(words(), |serve| serve).await;
    let mut client = server.client().await;
    client.send("GET /last HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert_eq!((header(&head, "connection"), body.as_str()), (Some("close"), "last"));
    client.end().await;
    server.end().await;
}

/// All have come before the first is answered, on one connection.
#[quoit::test]
async fn streams_of_http2_do_not_wait_for_each_other() {
    let gate = Arc::new(Notify::new());
    let waiting = Alive::default();
    let handler = {
        let (gate, waiting) = (gate.clone(), waiting.clone());
        move |Path(number): Path<u64>| async move {
            let one = waiting.one();
            gate.notified().await;
            drop(one);
            number.to_string()
        }
    };
    let router = Router::new().route("/{number}", on_get(handler));
    let server = start(router, |serve| serve).await;
    let (mut sender, connection) = server.http2().await;
    let answers: Vec<_> =
        (0..20).map(|number| sender.send_request(get(&format!("/{number}")))).collect();
    let open = async {
        until("all streams are open", || waiting.count() == 20).await;
        gate.notify_waiters();
    };
    let (answers, ()) = futures::join!(join_all(answers), open);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(body(answer).await, number.to_string());
    }
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let report = server.end().await;
    assert_eq!((report.connections, report.requests, report.errors), (1, 20, 0));
}

/// The first bytes may come one at a time, and look like the preface for long.
#[quoit::test]
async fn the_protocol_is_told_from_bytes_that_trickle() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let server = start(words(), |serve| serve).await;

    let mut client = server.client().await;
    for byte in PREFACE {
        client.send([*byte]).await;
        quoit::time::sleep(MS).await;
    }
    let frame = client.bytes(9).await;
    assert_eq!(frame[3], 4, "SETTINGS (RFC 9113, section 6.5) come first: {frame:?}");
    drop(client);

    let mut client = server.client().await;
    for piece in ["P", "OST /ec", "ho HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\no", "k"] {
        client.send(piece).await;
        quoit::time::sleep(MS).await;
    }
    assert_eq!(client.response().await.1, "ok");
    drop(client);
    server.end().await;
}

#[quoit::test]
async fn one_protocol_only() {
    let server = start(words(), |serve| serve.http1_only()).await;
    let (mut sender, connection) = server.http2().await;
    assert!(soon(sender.send_request(get("/word"))).await.is_err());
    soon(connection).await.unwrap().unwrap_err();
    assert_eq!(server.client().await.get("/word").await.1, "word");
    assert_eq!(server.end().await.errors, 1);

    let server = start(words(), |serve| serve.http2_only()).await;
    let (mut sender, connection) = server.http2().await;
    assert_eq!(body(soon(sender.send_request(get("/word"))).await.unwrap()).await, "word");
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let mut client = server.http1().await;
    assert!(soon(client.send_request(get("/word"))).await.is_err());
    drop(client);
    assert_eq!(server.end().await.errors, 1);
}

/// Up and down at once: neither side holds all of it before it goes on.
#[quoit::test]
async fn bodies_of_a_mebibyte_go_up_and_down() {
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let data = Bytes::from(data);
    let server = start(words(), |serve| serve).await;

    let mut sender = server.http1().await;
    let answer = soon(sender.send_request(post("/echo", data.clone()))).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_11);
    assert!(body(answer).await == data, "another body came back over HTTP/1");
    drop(sender);

    let (mut sender, connection) = server.http2().await;
    let answer = soon(sender.send_request(post("/echo", data.clone()))).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    assert!(body(answer).await == data, "another body came back over HTTP/2");
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    assert_eq!(server.end().await.requests, 2);
}

/// Zeros without end; and how many such bodies there are.
fn endless(alive: &Alive) -> Router {
    let alive = alive.clone();
    let handler = move || async move {
        let one = alive.one();
        let zeros = stream::repeat_with(move || {
            let _ = &one;
            Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096]))
        });
        Body::from_stream(zeros)
    };
    Router::new().route("/", on_get(handler))
}

#[quoit::test]
async fn a_reset_in_the_middle_of_a_response_leaves_nothing() {
    let alive = Alive::default();
    let told = Arc::new(Notify::new());
    let tell = told.clone();
    let server = start(endless(&alive), |serve| {
        serve.on_error(move |trouble| {
            assert!(matches!(trouble, Trouble::Connection { .. }), "{trouble}");
            tell.notify_one();
        })
    })
    .await;
    let before = quoit::__private::books_here();

    let mut client = server.client().await;
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.bytes(100_000).await;
    assert_eq!(alive.count(), 1);
    client.stream.abort();
    soon(told.notified()).await;
    assert_eq!(alive.count(), 0, "the body is gone with its connection");

    let (mut sender, connection) = server.http2().await;
    let answer = soon(sender.send_request(get("/"))).await.unwrap();
    until("some of it is on its way", || alive.count() == 1).await;
    connection.abort();
    drop((sender, answer));
    until("the body is gone with its connection", || alive.count() == 0).await;

    until("all is closed", || {
        let books = quoit::__private::books_here();
        let open = |books: &quoit::Metrics| (books.streams_open, books.tasks_alive);
        open(&books) == open(&before) && books.leases_out == 0
    })
    .await;
    let report = server.end().await;
    assert_eq!((report.connections, report.requests, report.panics), (2, 2, 0));
    assert!(report.errors >= 1);
}

#[quoit::test]
async fn a_panic_ends_its_connection_only() {
    let router = words().route("/panic", on_get(|| async { panic!("on purpose") as () }));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = start(router, |serve| {
        serve.on_error(move |trouble| tell.send(trouble.to_string()).unwrap())
    })
    .await;
    let mut other = server.client().await;
    let mut client = server.client().await;
    let peer = client.stream.local_addr().unwrap();
    client.send("GET /panic HTTP/1.1\r\nhost: test\r\n\r\n").await;
    client.end().await;
    let trouble = soon(told.recv()).await.unwrap();
    assert!(trouble.contains("on purpose"), "{trouble}");
    assert!(trouble.starts_with(&format!("{peer}: ")), "{trouble}");
    assert_eq!(other.get("/still").await.1, "still");
    drop(other);
    let report = server.end().await;
    assert_eq!((report.panics, report.errors, report.requests), (1, 0, 2));
}

/// Nagle's algorithm against delayed acknowledgements would make each take 40 ms.
#[quoit::test]
async fn requests_one_after_the_other_are_not_delayed() {
    let server = start(words(), |serve| serve).await;
    let mut client = server.client().await;
    let started = quoit::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(client.get("/word").await.1, "word");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(client);
    server.end().await;
}

/// Over HTTP/2 it is a stream that ends, and the connection goes on.
#[quoit::test]
async fn a_panic_ends_its_stream_only() {
    let router = words().route("/panic", on_get(|| async { panic!("on purpose") as () }));
    let server = start(router, |serve| serve.idle_timeout(Duration::from_millis(150))).await;
    let (mut sender, connection) = server.http2().await;
    soon(sender.send_request(get("/panic"))).await.unwrap_err();
    assert_eq!(body(soon(sender.send_request(get("/still"))).await.unwrap()).await, "still");
    // What panicked is not in flight for ever.
    soon(connection).await.unwrap().unwrap();
    let report = server.end().await;
    assert_eq!((report.idle_timeouts, report.panics, report.errors), (1, 0, 0));
}

/// Also when it is the call itself that panics, and not what it answers.
#[quoit::test]
async fn a_call_that_panics_ends_its_stream_only() {
    let server = started(|listener, stopped| {
        let service = service_fn(|request: Request<RequestBody>| {
            assert_ne!(request.uri().path(), "/panic", "on purpose");
            ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("still")))))
        });
        quoit_http::serve(listener, service).with_graceful_shutdown(stopped).into_future()
    })
    .await;
    let (mut sender, connection) = server.http2().await;
    soon(sender.send_request(get("/panic"))).await.unwrap_err();
    assert_eq!(body(soon(sender.send_request(get("/still"))).await.unwrap()).await, "still");
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let report = server.end().await;
    assert_eq!((report.panics, report.errors, report.requests), (0, 0, 2));
}

/// A service that is dropped in the middle of a request may panic then.
#[quoit::test]
async fn a_panic_of_what_is_left_is_told() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose");
        }
    }
    let begun = Alive::default();
    let handler = {
        let begun = begun.clone();
        move || async move {
            let (_one, _bomb) = (begun.one(), Bomb);
            std::future::pending::<()>().await;
        }
    };
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let server = start(words().route("/bomb", on_get(handler)), |serve| {
        serve.on_error(move |trouble| tell.send(trouble.to_string()).unwrap())
    })
    .await;
    let client = server.client().await;
    client.send("GET /bomb HTTP/1.1\r\nhost: test\r\n\r\n").await;
    until("it has begun", || begun.count() == 1).await;
    drop(client);
    let trouble = soon(told.recv()).await.unwrap();
    assert!(trouble.contains("on purpose"), "{trouble}");
    assert_eq!(server.end().await.panics, 1);
}
