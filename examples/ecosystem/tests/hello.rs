//! Real requests: by the standard library's sockets, and by hyper's own client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};

use std::time::{Duration, Instant};

use ecosystem::hello;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use quoit::net::{TcpListener, TcpStream};

/// The server on this core; its tasks end with the runtime.
async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = hello::router(echo.local_addr().unwrap());
    quoit::spawn(hello::echo(echo));
    quoit::spawn(quoit_http::serve(listener, router).into_future());
    address
}

/// One request on a connection of its own, by blocking calls on another thread.
async fn ask(address: SocketAddr, request: String) -> String {
    let asked = quoit::task::spawn_blocking(move || {
        let mut stream = StdStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    });
    asked.await.unwrap().unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
}

#[quoit::test]
async fn answers_real_requests() {
    let address = start().await;
    let hello = ask(address, get("/")).await;
    assert!(hello.starts_with("HTTP/1.1 200 OK\r\n"), "{hello}");
    assert!(hello.ends_with("\r\n\r\nhello from the ring\n"), "{hello}");

    // The handler awaits a socket of the core before it answers.
    let echo = ask(address, get("/echo/around")).await;
    assert!(echo.ends_with("\r\n\r\naround"), "{echo}");

    let body = r#"{"numbers":[40,2]}"#;
    let length = body.len();
    let sum = ask(
        address,
        format!(
            "POST /sum HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    );
    let sum = sum.await;
    assert!(sum.ends_with(r#"{"sum":42}"#), "{sum}");

    let missing = ask(address, get("/nowhere")).await;
    assert!(missing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{missing}");
}

#[quoit::test]
async fn keeps_connections_alive_without_delay() {
    let address = start().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let connection = quoit::spawn(connection);
    let started = Instant::now();
    for number in 0..100 {
        let request = Request::get(format!("/echo/{number}")).header("host", "test");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, number.to_string());
    }
    // Nagle's algorithm against delayed acknowledgements would make it 40 ms for each.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[quoit::test]
async fn large_bodies_arrive_whole() {
    let address = start().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    quoit::spawn(connection);
    let numbers: Vec<i64> = (0..200_000).collect();
    let body = serde_json::to_vec(&serde_json::json!({ "numbers": numbers })).unwrap();
    assert!(body.len() > 1 << 20 && body.len() < 2 << 20, "within axum's limit: {}", body.len());
    let request = Request::post("/sum").header("host", "test");
    let request = request.header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let sum: i64 = numbers.iter().sum();
    assert_eq!(body, format!(r#"{{"sum":{sum}}}"#));
}

/// A peer that goes away in the middle of a request ends its own task only.
#[quoit::test]
async fn survives_peers_that_leave() {
    let address = start().await;
    let leaving = quoit::task::spawn_blocking(move || {
        for end in [0, 10, 30] {
            let mut stream = StdStream::connect(address).unwrap();
            stream.write_all(&get("/echo/half").as_bytes()[..end]).unwrap();
        }
    });
    leaving.await.unwrap();
    assert!(ask(address, get("/")).await.ends_with("hello from the ring\n"));
}
