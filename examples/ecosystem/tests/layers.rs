//! Each layer does its work: too many, too long, too large.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use ecosystem::layers::{AT_ONCE, LIMIT, router};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use quoit::net::{TcpListener, TcpStream};
use quoit::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);

/// The server on this core; its tasks end with the runtime.
async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    quoit::spawn(quoit_http::serve(listener, router()).into_future());
    address
}

/// One request on a connection of its own: the answer's status, its encoding, and its body.
async fn ask(address: SocketAddr, path: &str) -> (StatusCode, Option<String>, Bytes) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    quoit::spawn(connection);
    let request = Request::get(path).header("host", "test").header("accept-encoding", "gzip");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    let response = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    let encoding = response.headers().get("content-encoding");
    let encoding = encoding.map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    let body = timeout(SOON, response.into_body().collect()).await.unwrap().unwrap();
    (status, encoding, body.to_bytes())
}

#[quoit::test]
async fn what_is_long_is_compressed() {
    let (status, encoding, body) = ask(start().await, "/long").await;
    assert_eq!((status, encoding.as_deref()), (StatusCode::OK, Some("gzip")));
    let wanted = "the same again, ".repeat(1000);
    assert!(body.len() < wanted.len() / 10, "{} bytes", body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, wanted);
}

#[quoit::test]
async fn what_takes_too_long_is_given_up() {
    let address = start().await;
    let started = Instant::now();
    let (status, _, body) = ask(address, "/slow/60000").await;
    assert_eq!((status, &body[..]), (StatusCode::SERVICE_UNAVAILABLE, &b"it takes too long\n"[..]));
    assert!(started.elapsed() >= LIMIT, "{:?}", started.elapsed());
    assert_eq!(ask(address, "/slow/1").await.0, StatusCode::OK);
}

#[quoit::test]
async fn what_is_too_much_is_refused() {
    let address = start().await;
    for _ in 0..2 {
        let answers = join_all((0..AT_ONCE + 3).map(|_| ask(address, "/slow/800"))).await;
        let count = |status| answers.iter().filter(|answer| answer.0 == status).count();
        assert_eq!((count(StatusCode::OK), count(StatusCode::SERVICE_UNAVAILABLE)), (AT_ONCE, 3));
    }
}
