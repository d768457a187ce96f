//! What seeds have found on the simulated ring, told again on the real ones.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::net::Shutdown;

use quoit::net::{TcpListener, TcpStream};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// A slice read that empties the socket is not told of the end again when the watch has told of it
/// together with the bytes.
#[quoit::test]
async fn an_end_that_came_with_the_last_bytes_is_read() {
    let (client, server) = pair().await;
    let mut into = [0; 64];
    let reading = quoit::spawn(async move {
        let mut first = [0; 64];
        let count = server.read(&mut first).await.unwrap();
        assert_eq!(&first[..count], b"last");
        (server.read(&mut into).await.unwrap(), server)
    });
    // It waits, under an armed watch.
    for _ in 0..100 {
        quoit::task::yield_now().await;
    }
    client.send_all("last").await.unwrap();
    client.shutdown(Shutdown::Write).await.unwrap();
    let limit = std::time::Duration::from_secs(5);
    let (count, _server) = quoit::time::timeout(limit, reading).await.expect("no hang").unwrap();
    assert_eq!(count, 0);
}
