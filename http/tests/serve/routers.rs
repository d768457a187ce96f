//! A router of axum as people write it, and a service that never leaves its core.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get as on_get, post as on_post};
use axum::{Json, Router};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use quoit::net::{TcpListener, TcpStream};
use quoit::rt::QuoitExecutor;
use quoit_http::{RequestBody, Shards};
use serde::{Deserialize, Serialize};
use tower::service_fn;

use crate::tools::{body, get, post, soon, start};

#[derive(Clone, Default)]
struct Shared {
    added: Arc<AtomicU64>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    a: u64,
    b: u64,
}

#[derive(Debug, Deserialize, Serialize, PartialEq)]
struct Sum {
    sum: u64,
    asked: u64,
}

async fn add(State(shared): State<Shared>, Json(pair): Json<Pair>) -> Json<Sum> {
    let asked = shared.added.fetch_add(1, Relaxed) + 1;
    Json(Sum { sum: pair.a + pair.b, asked })
}

/// Awaits the core's timer and its sockets, in a future that axum wants to be `Send`.
async fn relay(Path(port): Path<u16>, Query(pair): Query<Pair>) -> Result<String, StatusCode> {
    let asked = async {
        quoit::time::sleep(crate::tools::MS).await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.send_all(format!("{}+{}", pair.a, pair.b)).await?;
        stream.shutdown().await?;
        let mut answer = [0; 16];
        let mut length = 0;
        loop {
            match stream.read(&mut answer[length..]).await? {
                0 => break std::io::Result::Ok(String::from_utf8_lossy(&answer[..length]).into()),
                count => length += count,
            }
        }
    };
    asked.await.map_err(|_| StatusCode::BAD_GATEWAY)
}

fn router() -> Router {
    Router::new()
        .route("/add", on_post(add))
        .route("/relay/{port}", on_get(relay))
        .with_state(Shared::default())
}

#[quoit::test]
async fn a_router_is_served_as_it_is() {
    let server = start(router(), |serve| serve).await;
    let mut http1 = server.http1().await;
    let (mut http2, _connection) = server.http2().await;
    let json = |body: &'static str| {
        let mut request = post("/add", body);
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        request
    };
    let answer = soon(http1.send_request(json(r#"{"a":40,"b":2}"#))).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(body(answer).await, r#"{"sum":42,"asked":1}"#);
    let answer = soon(http2.send_request(json(r#"{"a":1,"b":2}"#))).await.unwrap();
    assert_eq!(body(answer).await, r#"{"sum":3,"asked":2}"#, "they share the router's state");

    for (request, status) in [
        (json(r#"{"a":1}"#), 422),
        (json("{"), 400),
        (post("/add", "{}"), 415),
        (get("/add"), 405),
        (get("/nowhere"), 404),
    ] {
        http1.ready().await.unwrap();
        let what = format!("{request:?}");
        assert_eq!(soon(http1.send_request(request)).await.unwrap().status(), status, "{what}");
    }
    drop((http1, http2));
    assert_eq!(server.end().await.requests, 7);
}

#[quoit::test]
async fn a_handler_awaits_sockets_of_its_core() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    quoit::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let question = stream.recv().await.unwrap();
        assert_eq!(&question[..], b"40+2");
        stream.send_all("42").await.unwrap();
    });
    let server = start(router(), |serve| serve).await;
    let mut sender = server.http1().await;
    let answer = soon(sender.send_request(get(&format!("/relay/{port}?a=40&b=2")))).await.unwrap();
    assert_eq!(body(answer).await, "42");
    drop(sender);
    server.end().await;
}

/// Neither the service, nor its futures, nor its bodies are `Send`.
#[quoit::test]
async fn a_service_need_not_be_send() {
    let count = Rc::new(Cell::new(0));
    let service = {
        let count = count.clone();
        service_fn(move |_: Request<RequestBody>| {
            let count = count.clone();
            async move {
                quoit::task::yield_now().await;
                count.set(count.get() + 1);
                let bytes = Full::new(Bytes::from("local"));
                Ok::<_, Infallible>(Response::new(bytes.map_frame(move |frame| {
                    let _ = &count;
                    frame
                })))
            }
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serve = quoit_http::serve(listener, service).with_graceful_shutdown(stopped);
    let server = quoit::spawn(serve.into_future());

    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    quoit::spawn(connection);
    assert_eq!(body(soon(sender.send_request(get("/"))).await.unwrap()).await, "local");
    drop(sender);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(QuoitExecutor, stream).await.unwrap();
    quoit::spawn(connection);
    assert_eq!(body(soon(sender.send_request(get("/"))).await.unwrap()).await, "local");
    drop(sender);
    assert_eq!(count.get(), 2);
    stop.send(()).unwrap();
    assert!(soon(server).await.unwrap().unwrap().is_clean());
}

/// Each core has a share of the connections, and serves it alone.
#[test]
fn every_core_serves_its_share() {
    const CORES: usize = 2;
    let shards = quoit::run(Shards::bind("127.0.0.1:0", CORES)).unwrap().unwrap();
    let address = shards.local_addr();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let asking = std::thread::spawn(move || {
        let asked = quoit::run(async move {
            let mut per_core = [0; CORES];
            for _ in 0..200 {
                let stream = TcpStream::connect(address).await.unwrap();
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(stream).await.unwrap();
                quoit::spawn(connection);
                let answer = soon(sender.send_request(get("/"))).await.unwrap();
                let text = String::from_utf8(body(answer).await.to_vec()).unwrap();
                per_core[text.parse::<usize>().unwrap()] += 1;
            }
            per_core
        });
        stop.send(true).unwrap();
        asked.unwrap()
    });
    let program = move |core: quoit::CoreHandle| {
        let listener = shards.take(core.index()).unwrap();
        assert!(shards.take(core.index()).is_none(), "one for each core");
        let mut stopped = stopped.clone();
        let router =
            Router::new().route("/", on_get(move || async move { core.index().to_string() }));
        quoit_http::serve(listener, router)
            .with_graceful_shutdown(async move { stopped.wait_for(|stop| *stop).await.map(drop) })
            .into_future()
    };
    let reports = quoit::Runtime::builder().cores(quoit::Cores::Count(CORES)).run(program).unwrap();
    let per_core = asking.join().unwrap();
    for (report, asked) in reports.into_iter().zip(per_core) {
        let report = report.unwrap();
        assert!(report.is_clean() && asked > 0, "{report:?}, {per_core:?}");
        assert_eq!(report.requests, asked);
    }
}
