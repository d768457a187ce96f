//! What tests of streams share: two ends, a limit that tells a hang, bytes that know their place.

#![allow(dead_code, reason = "each test takes what it needs of it")]
#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::future::Future;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::time::timeout;

/// Ample for anything that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Fails instead of hanging.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let start = quoit::time::Instant::now();
    match timeout(SOON, future).await {
        // A future that was ready and not woken is found out by the timeout's last look at it.
        Ok(output) if start.elapsed() < SOON => output,
        _ => panic!("{what} did not happen in {SOON:?}"),
    }
}

/// Both ends are ours: the one that connected, and the one that was accepted.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// One of ours, and a peer that acts at once, between two turns of the core.
pub(crate) async fn with_std() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(SOON)).unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (ours, peer)
}

/// So many bytes of a counting pattern: one that is lost, repeated or out of order shows where.
pub(crate) fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

pub(crate) fn check(received: &[u8], from: usize) {
    for (index, byte) in received.iter().enumerate() {
        assert_eq!(*byte, ((from + index) % 251) as u8, "byte {}", from + index);
    }
}
