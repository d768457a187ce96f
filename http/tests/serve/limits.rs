//! What a client may take: time for a head, time without a request, connections, descriptors.

use std::convert::Infallible;
use std::future::{IntoFuture, ready};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get as on_get, post as on_post};
use futures::StreamExt;
use http_body_util::Full;
use hyper::{Request, Response};
use quoit::net::TcpSocket;
use quoit::time::{Instant, sleep};
use quoit_http::{RequestBody, Trouble};
use tower::service_fn;

use crate::tools::{Alive, MS, body, get, soon, start, started, until};

const LIMIT: Duration = Duration::from_millis(150);

/// Beyond any limit that a test sets.
const LONG: Duration = Duration::from_millis(400);

fn hello() -> Router {
    let slow = || async {
        sleep(LONG).await;
        "slow"
    };
    Router::new().route("/", on_get(|| async { "hello" })).route("/slow", on_get(slow))
}

#[quoit::test]
async fn a_head_that_does_not_come_in_time_ends_its_connection() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let server = start(hello(), |serve| {
        serve.header_timeout(LIMIT).on_error(move |trouble| {
            let Trouble::HeaderTimeout { peer } = trouble else { panic!("{trouble}") };
            tell.lock().unwrap().push(peer);
        })
    })
    .await;
    let started = Instant::now();
    let trickling = server.client().await;
    let mut silent = server.client().await;
    let peers = [&trickling, &silent].map(|client| client.stream.local_addr().unwrap());
    // A byte now and then is no head: it puts nothing off.
    trickling.send("GET / HTTP/1.1\r\n").await;
    let writer = async {
        while trickling.stream.send_all("x").await.is_ok() {
            sleep(10 * MS).await;
        }
    };
    soon(writer).await;
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    silent.end().await;
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    until("both are told", || told.lock().unwrap().len() == 2).await;
    assert!(peers.iter().all(|peer| told.lock().unwrap().contains(peer)));
    let report = server.end().await;
    assert_eq!((report.header_timeouts, report.idle_timeouts, report.errors), (2, 0, 0));
}

/// The time for a further head starts with its first byte, not with the end of the request before.
#[quoit::test]
async fn a_connection_may_be_quiet_for_longer_than_a_head_may_take() {
    let server = start(hello(), |serve| serve.header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("/").await.1, "hello");
        sleep(LONG).await;
    }
    let started = Instant::now();
    client.send("GET / HTT").await;
    client.end().await;
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    assert_eq!(server.end().await.header_timeouts, 1);
}

#[quoit::test]
async fn an_idle_connection_is_closed() {
    let server = start(hello(), |serve| serve.idle_timeout(LIMIT)).await;
    let mut client = server.client().await;
    assert_eq!(client.get("/").await.1, "hello");
    sleep(LIMIT / 2).await;
    assert_eq!(client.get("/").await.1, "hello");
    let started = Instant::now();
    client.end().await;
    // The server's clock started when it had written the answer, a moment before we had read it.
    assert!(started.elapsed() >= LIMIT - 50 * MS, "{:?}", started.elapsed());

    // With HTTP/2 the client is told that this is the end, and ends well.
    let (mut sender, connection) = server.http2().await;
    assert_eq!(body(soon(sender.send_request(get("/"))).await.unwrap()).await, "hello");
    soon(connection).await.unwrap().unwrap();
    assert!(sender.is_closed());
    assert_eq!(server.end().await.idle_timeouts, 2);
}

#[quoit::test]
async fn a_connection_whose_request_takes_long_is_not_idle() {
    let server = start(hello(), |serve| serve.idle_timeout(LIMIT).header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    assert_eq!(client.get("/slow").await.1, "slow");
    drop(client);
    let (mut sender, connection) = server.http2().await;
    assert_eq!(body(soon(sender.send_request(get("/slow"))).await.unwrap()).await, "slow");
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let report = server.end().await;
    assert_eq!((report.requests, report.idle_timeouts, report.header_timeouts), (2, 0, 0));
}

/// The last stream ends in a task of its own, and nobody polls the connection for that.
#[quoit::test]
async fn a_connection_whose_streams_were_reset_is_idle() {
    let waiting = Alive::default();
    let handler = {
        let waiting = waiting.clone();
        move || async move {
            let _one = waiting.one();
            std::future::pending::<()>().await;
        }
    };
    let router = Router::new().route("/", on_get(handler));
    let server = start(router, |serve| serve.idle_timeout(LIMIT)).await;
    let (mut sender, connection) = server.http2().await;
    let stream = quoit::spawn(sender.send_request(get("/")));
    until("it has begun", || waiting.count() == 1).await;
    sleep(LONG).await;
    stream.abort();
    until("the handler is gone", || waiting.count() == 0).await;
    let started = Instant::now();
    soon(connection).await.unwrap().unwrap();
    assert!(started.elapsed() >= LIMIT - 50 * MS, "{:?}", started.elapsed());
    let report = server.end().await;
    assert_eq!((report.idle_timeouts, report.errors), (1, 0));
}

/// What comes is its body, though the response has ended, and neither idleness nor a slow head.
#[quoit::test]
async fn a_request_that_goes_on_after_its_response_has_its_time() {
    const LENGTH: usize = 8;
    let read = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let read = read.clone();
        move |body: Body| async move {
            quoit::spawn(async move {
                let mut body = body.into_data_stream();
                while let Some(data) = body.next().await {
                    read.lock().unwrap().extend_from_slice(&data.unwrap());
                }
            });
            "early"
        }
    };
    let router = hello().route("/early", on_post(handler));
    let server = start(router, |serve| serve.idle_timeout(LIMIT).header_timeout(LIMIT)).await;
    for head in [format!("content-length: {LENGTH}"), "transfer-encoding: chunked".into()] {
        let is_chunked = head.starts_with("transfer");
        let mut client = server.client().await;
        client.send(format!("POST /early HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n")).await;
        assert_eq!(client.response().await.1, "early");
        for _ in 0..LENGTH {
            sleep(LIMIT / 3).await;
            client.send(if is_chunked { "1\r\nx\r\n" } else { "x" }).await;
        }
        client.send(if is_chunked { "0\r\n\r\n" } else { "" }).await;
        until("it has come", || read.lock().unwrap().len() == LENGTH).await;
        read.lock().unwrap().clear();
        // From here on it is idle, and the next head may take as long as any other.
        sleep(LIMIT / 2).await;
        assert_eq!(client.get("/").await.1, "hello");
        let started = Instant::now();
        client.send("GET / HTT").await;
        client.end().await;
        assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    }
    let report = server.end().await;
    assert_eq!((report.header_timeouts, report.idle_timeouts, report.errors), (2, 0, 0));
}

/// What is left of a body that nobody wants hyper reads, if it is there, so as to keep the
/// connection: no head has begun by that.
#[quoit::test]
async fn what_is_left_of_a_body_is_no_slow_head() {
    let deaf = |body: Body| async move {
        sleep(LIMIT / 2).await;
        drop(body);
        "deaf"
    };
    let router = hello().route("/deaf", on_post(deaf));
    let server = start(router, |serve| serve.header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    client.send("POST /deaf HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n").await;
    // hyper takes one part ahead: the other one is there, and not read, when the body is dropped.
    for part in ["le", "ft"] {
        sleep(LIMIT / 8).await;
        client.send(part).await;
    }
    assert_eq!(client.response().await.1, "deaf");
    sleep(LONG).await;
    assert_eq!(client.get("/").await.1, "hello");
    drop(client);
    let report = server.end().await;
    assert_eq!((report.requests, report.header_timeouts, report.errors), (2, 0, 0));
}

/// A body that came with its head is over, whoever drops it: what follows is a head, with a limit,
/// also while the server shuts down.
#[quoit::test]
async fn a_head_after_a_body_that_nobody_read_has_its_limit() {
    // hyper may read such a body before or after its response, and from its own buffer.
    for (is_stopped, is_dropped_in_the_call, expect) in [
        (false, false, ""),
        (true, false, ""),
        (false, false, "expect: 100-continue\r\n"),
        (true, false, "expect: 100-continue\r\n"),
        (false, true, ""),
        (true, true, ""),
    ] {
        let mut server = if is_dropped_in_the_call {
            let deaf = service_fn(|_: Request<RequestBody>| {
                ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("deaf")))))
            });
            started(move |listener, stopped| {
                let serve = quoit_http::serve(listener, deaf).header_timeout(LIMIT);
                serve.drain_timeout(None).with_graceful_shutdown(stopped).into_future()
            })
            .await
        } else {
            let router = hello().route("/deaf", on_post(|| async { "deaf" }));
            start(router, |serve| serve.header_timeout(LIMIT).drain_timeout(None)).await
        };
        let mut client = server.client().await;
        let head =
            format!("POST /deaf HTTP/1.1\r\nhost: test\r\n{expect}content-length: 4\r\n\r\n");
        client.send(format!("{head}left")).await;
        assert_eq!(client.response().await.1, "deaf");
        let begun = Instant::now();
        client.send("GET / HTT").await;
        if is_stopped {
            sleep(LIMIT / 3).await;
            server.stop();
        }
        client.end().await;
        assert!(begun.elapsed() >= LIMIT, "{:?}", begun.elapsed());
        let report = if is_stopped { server.report().await } else { server.end().await };
        assert_eq!((report.header_timeouts, report.cut.len()), (1, 0));
    }
}

/// A body that is held, and not looked at, is over when a further request has come.
#[quoit::test]
async fn a_body_that_is_kept_does_not_keep_its_connection() {
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let handler = move |body: Body| async move {
        let mut body = body.into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "x");
        *keep.lock().unwrap() = Some(body);
        "kept"
    };
    let router = hello().route("/keep", on_post(handler));
    let server = start(router, |serve| serve.header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    let head = "POST /keep HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}1\r\nx\r\n")).await;
    assert_eq!(client.response().await.1, "kept");
    client.send("0\r\n\r\n").await;
    assert_eq!(client.get("/").await.1, "hello");
    client.send("GET / HTT").await;
    client.end().await;
    assert_eq!(server.end().await.header_timeouts, 1);
}

/// Nor does the end of such a body end another one.
#[quoit::test]
async fn a_body_that_is_kept_ends_no_other() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    let handler = move |body: Body| async move {
        keep.lock().unwrap().push(body.into_data_stream());
        "kept"
    };
    let router = hello().route("/keep", on_post(handler));
    let server = start(router, |serve| serve.header_timeout(LIMIT)).await;
    let mut client = server.client().await;
    let head = "POST /keep HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n";
    client.send(format!("{head}xx")).await;
    assert_eq!(client.response().await.1, "kept");
    client.send(head).await;
    assert_eq!(client.response().await.1, "kept");
    // The first goes. Of the second something is to come, and that is no head, however slow.
    drop(kept.lock().unwrap().remove(0));
    for _ in 0..2 {
        client.send("x").await;
        sleep(LONG).await;
    }
    drop(kept.lock().unwrap().remove(0));
    assert_eq!(client.get("/").await.1, "hello");
    drop(client);
    let report = server.end().await;
    assert_eq!((report.requests, report.header_timeouts, report.errors), (3, 0, 0));
}

/// Neither what it gets for its pings, nor what it does not take of that, is a response.
#[quoit::test]
async fn a_peer_that_only_pings_is_idle() {
    // RFC 9113: the preface, SETTINGS; HEADERS of stream 1, END_STREAM and END_HEADERS, whose
    // fields stand in the static table of RFC 7541: GET, http, /.
    const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
        \0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
    const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0quoitpng";
    let server = start(hello(), |serve| serve.idle_timeout(5 * LIMIT)).await;
    let reading = server.client().await.stream;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let deaf = socket.connect(server.address).await.unwrap();
    for stream in [&reading, &deaf] {
        stream.send_all(START).await.unwrap();
    }
    let started = Instant::now();
    let pings = async {
        while reading.send_all(PING).await.is_ok() {
            sleep(20 * MS).await;
        }
    };
    let acknowledgements =
        async { while reading.recv().await.is_ok_and(|lease| !lease.is_empty()) {} };
    // Soon the server can write no more, as nobody reads.
    let flood =
        quoit::spawn(async move { while deaf.send_all(PING.repeat(1000)).await.is_ok() {} });
    soon(async { futures::join!(pings, acknowledgements) }).await;
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    let report = server.end().await;
    assert_eq!((report.requests, report.idle_timeouts), (2, 2));
    flood.abort();
}

/// The kernel and the listener hold those that come beyond the limit.
#[quoit::test]
async fn no_more_connections_than_wanted_are_served() {
    let server = start(hello(), |serve| serve.max_connections(2)).await;
    let mut first = server.client().await;
    let mut second = server.client().await;
    assert_eq!(first.get("/").await.1, "hello");
    assert_eq!(second.get("/").await.1, "hello");
    let mut third = server.client().await;
    third.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(third.is_quiet(LONG).await, "it is connected, and waits");
    assert_eq!(second.get("/").await.1, "hello");
    drop(first);
    assert_eq!(third.response().await.1, "hello");
    drop((second, third));
    assert_eq!(server.end().await.connections, 3);
}

/// Runs `a_server_short_of_descriptors` in a process that has few.
#[test]
fn a_shortage_of_descriptors_passes() {
    let this = std::env::current_exe().unwrap();
    let child = "limits::a_server_short_of_descriptors";
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(this);
    let output = shell.args([child, "--exact", "--ignored"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[quoit::test]
#[ignore = "needs a process with 64 descriptors; see a_shortage_of_descriptors_passes"]
async fn a_server_short_of_descriptors() {
    let told = Arc::new(Mutex::new(0));
    let tell = told.clone();
    let server = start(hello(), |serve| {
        serve.on_error(move |trouble| {
            assert!(matches!(trouble, Trouble::Accept(_)), "{trouble}");
            *tell.lock().unwrap() += 1;
        })
    })
    .await;
    let mut first = server.client().await;
    assert_eq!(first.get("/").await.1, "hello");
    // One descriptor is left: the client's end of a connection whose other end there is none for.
    let mut taken = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        taken.push(file);
    }
    taken.pop().unwrap();
    let mut second = server.client().await;
    until("the shortage is told", || *told.lock().unwrap() > 0).await;
    assert_eq!(first.get("/").await.1, "hello");
    drop(taken);
    assert_eq!(second.get("/").await.1, "hello");
    drop((first, second));
    assert_eq!(server.end().await.connections, 2);
}
