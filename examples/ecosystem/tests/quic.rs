//! QUIC on both rings: what comes back is what was sent, on many streams at once, and an endpoint
//! that is closed leaves nothing on its core. And HTTP/3 over it, by h3 as it is.

use std::time::Duration;

use bytes::{Buf, Bytes};
use ecosystem::quic;
use hyper::{Request, Response};
use quoit::time::timeout;

/// Each stream has bytes of its own.
fn bytes_of(stream: usize, count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * (2 * stream + 1) % 251) as u8).collect()
}

#[quoit::test]
async fn streams_come_back_as_they_were_sent() {
    const STREAMS: usize = 8;
    const LENGTH: usize = 1 << 20;
    let any = "127.0.0.1:0".parse().unwrap();
    let (server, certificate) = quic::server(any, quic::ECHO).unwrap();
    let address = server.local_addr().unwrap();
    let serving = quoit::spawn(quic::echo(server.clone()));
    let client = quic::client(any, quic::ECHO, certificate).unwrap();
    let work = async {
        // Two connections, which share the client's socket and the server's.
        let mut tasks = Vec::new();
        let mut connections = Vec::new();
        for half in 0..2 {
            let connection = client.connect(address, "localhost").unwrap().await.unwrap();
            for stream in half * STREAMS / 2..(half + 1) * STREAMS / 2 {
                let connection = connection.clone();
                tasks.push(quoit::spawn(async move {
                    let (mut send, mut receive) = connection.open_bi().await.unwrap();
                    let sender = quoit::spawn(async move {
                        send.write_all(&bytes_of(stream, LENGTH)).await.unwrap();
                        send.finish().unwrap();
                    });
                    let back = receive.read_to_end(LENGTH + 1).await.unwrap();
                    assert!(back == bytes_of(stream, LENGTH), "stream {stream}");
                    sender.await.unwrap();
                }));
            }
            connections.push(connection);
        }
        for task in tasks {
            task.await.unwrap();
        }
        for connection in connections {
            connection.close(0_u8.into(), b"");
        }
        client.wait_idle().await;
        server.close(0_u8.into(), b"");
        server.wait_idle().await;
        serving.await.unwrap();
    };
    timeout(Duration::from_secs(60), work).await.expect("no hang");
}

/// A server of HTTP/3 that answers with the path and the body that it got.
async fn serve_h3(connection: quinn::Connection) {
    let connection = h3_quinn::Connection::new(connection);
    let mut requests = h3::server::Connection::<_, Bytes>::new(connection).await.unwrap();
    // The client's end of the connection is the end of the loop, be it told as an error or not.
    while let Ok(Some(request)) = requests.accept().await {
        quoit::spawn(async move {
            let (request, mut stream) = request.resolve_request().await.unwrap();
            stream.send_response(Response::new(())).await.unwrap();
            let path = Bytes::copy_from_slice(request.uri().path().as_bytes());
            stream.send_data(path).await.unwrap();
            while let Some(mut data) = stream.recv_data().await.unwrap() {
                stream.send_data(data.copy_to_bytes(data.remaining())).await.unwrap();
            }
            stream.finish().await.unwrap();
        });
    }
}

#[quoit::test]
async fn http3_requests_are_answered() {
    let any = "127.0.0.1:0".parse().unwrap();
    let (server, certificate) = quic::server(any, "h3").unwrap();
    let address = server.local_addr().unwrap();
    let serving = quoit::spawn({
        let server = server.clone();
        async move { serve_h3(server.accept().await.unwrap().await.unwrap()).await }
    });
    let client = quic::client(any, "h3", certificate).unwrap();
    let work = async {
        let connection = client.connect(address, "localhost").unwrap().await.unwrap();
        let (mut driver, mut sender) =
            h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
        let driving = quoit::spawn(async move { driver.wait_idle().await });
        for number in 0..20 {
            let body = bytes_of(number, 100_000);
            let request = Request::post(format!("https://localhost/{number}")).body(()).unwrap();
            let mut stream = sender.send_request(request).await.unwrap();
            stream.send_data(Bytes::from(body.clone())).await.unwrap();
            stream.finish().await.unwrap();
            assert_eq!(stream.recv_response().await.unwrap().status(), 200);
            let mut answer = Vec::new();
            while let Some(data) = stream.recv_data().await.unwrap() {
                answer.extend_from_slice(data.chunk());
            }
            assert!(answer == [format!("/{number}").into_bytes(), body].concat(), "{number}");
        }
        drop(sender);
        driving.await.unwrap();
        serving.await.unwrap();
        client.wait_idle().await;
        server.close(0_u8.into(), b"");
        server.wait_idle().await;
    };
    timeout(Duration::from_secs(60), work).await.expect("no hang");
}
