//! What seeds have found on the simulated ring, told again on the real ones.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::time::{Duration, Instant};

use quoit::{RingChoice, Runtime, time};

use crate::common::pair;

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
    client.shutdown().await.unwrap();
    let limit = Duration::from_secs(5);
    let (count, _server) = time::timeout(limit, reading).await.expect("no hang").unwrap();
    assert_eq!(count, 0);
}

/// A detach waits in a line of its own: the reader that stands first in the readers' would only
/// have armed the receive again.
#[quoit::test]
async fn a_detach_ends_though_a_read_waits_for_a_silent_peer() {
    let (client, server) = pair().await;
    let server = std::rc::Rc::new(server);
    let reader = server.clone();
    let reading = quoit::spawn(async move { reader.recv().await.unwrap().to_vec() });
    for _ in 0..100 {
        quoit::task::yield_now().await;
    }
    let limit = Duration::from_secs(5);
    time::timeout(limit, server.detach()).await.expect("no hang").unwrap();
    client.send_all("late").await.unwrap();
    assert_eq!(time::timeout(limit, reading).await.expect("no hang").unwrap(), b"late");
}

/// A shutdown's limit counts from the core's own clock, which may be far ahead of the machine's.
#[test]
fn a_shutdown_keeps_its_limit_though_the_clock_was_moved() {
    let runtime = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    let _client = runtime.block_on(async {
        let (client, server) = pair().await;
        client.send_all("unread").await.unwrap();
        server.readable().await.unwrap();
        server.set_linger(Duration::from_secs(600));
        time::pause();
        time::advance(Duration::from_secs(3600)).await;
        client
    });
    let start = Instant::now();
    assert!(runtime.shutdown(Duration::from_millis(50)).is_clean());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A stopped clock jumps to the end of the wait, as it does to a timer.
#[test]
fn a_turn_under_a_stopped_clock_waits_no_longer_than_told() {
    let runtime = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    let start = runtime.block_on(async {
        time::pause();
        time::Instant::now()
    });
    for _ in 0..3 {
        runtime.turn(Some(Duration::from_secs(3600)));
    }
    assert!(runtime.block_on(async move { start.elapsed() }) >= Duration::from_secs(3600));
}
