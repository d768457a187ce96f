//! What goes with a stream that leaves its core: the bytes of a read that is half-way, an error
//! that nobody has heard of, and the peace of its peer when it is dropped where no core is.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::net::TcpStream;
use quoit::time::Instant;

use crate::common::*;

const SEEDS: u64 = 8;

type Reading = Pin<Box<dyn Future<Output = io::Result<[u8; 8]>> + Send>>;

/// A read that has taken five bytes, or some of them, of the eight it wants; told of by these
/// wakes.
async fn half_way(stream: &Arc<TcpStream>, peer: &mut Peer, wakes: &Arc<Wakes>) -> Reading {
    let shared = stream.clone();
    let mut read: Reading = Box::pin(async move {
        let mut into = [0; 8];
        shared.read_exact(&mut into).await?;
        Ok(into)
    });
    assert!(wakes.poll(read.as_mut()).is_pending());
    let before = wakes.count();
    peer.write_all(b"12345").await.unwrap();
    until("the read is told", || wakes.count() > before).await;
    assert!(wakes.poll(read.as_mut()).is_pending(), "it wants three more");
    if is_simulated() {
        // What it waited for may have ended for nothing, and left it without a byte.
        for _ in 0..3 {
            some_turns().await;
            assert!(wakes.poll(read.as_mut()).is_pending(), "it wants three more");
        }
    }
    read
}

#[test]
fn a_read_dropped_elsewhere_while_its_stream_leaves_gives_its_bytes_back() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (stream, mut peer) = pair().await;
            let (stream, wakes) = (Arc::new(stream), Wakes::new());
            let read = half_way(&stream, &mut peer, &wakes).await;
            {
                let mut detach = pin!(stream.detach());
                let is_away = wakes.poll(detach.as_mut()).is_ready();
                assert_eq!(is_away, is_on_epoll(), "else its watch is being cancelled");
                some_turns().await;
                // The core hears of the drop only in its next turn, and the detach ends before.
                outside(|| drop(read));
                assert!(is_away || wakes.poll(detach.as_mut()).is_ready());
            }
            peer.write_all(b"678").await.unwrap();
            core.elsewhere(|| async move {
                let mut into = [0; 8];
                within("read", stream.read_exact(&mut into)).await.unwrap();
                assert_eq!(&into, b"12345678");
            })
            .await;
        },
    );
}

#[test]
fn a_read_that_is_half_way_keeps_its_place_when_the_stream_moves() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            for by_lease in [false, true] {
                let (stream, mut peer) = pair().await;
                let (stream, wakes) = (Arc::new(stream), Wakes::new());
                let read = half_way(&stream, &mut peer, &wakes).await;
                within("detach", stream.detach()).await.unwrap();
                peer.write_all(b"678").await.unwrap();
                let moved = stream.clone();
                core.elsewhere(move || expect_the_place_kept(moved, read, by_lease)).await;
            }
        },
    );
}

async fn expect_the_place_kept(stream: Arc<TcpStream>, read: Reading, by_lease: bool) {
    let wakes = Wakes::new();
    let mut bytes = Vec::new();
    {
        let mut other = pin!(stream.recv());
        assert!(wakes.poll(other.as_mut()).is_pending());
        some_turns().await;
        let polled = wakes.poll(other.as_mut());
        assert!(polled.is_pending(), "what was taken comes before: {polled:?}");
        let error = stream.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        outside(|| drop(read));
        if by_lease {
            bytes.extend_from_slice(&within("recv", other).await.unwrap());
        }
    }
    let mut rest = vec![0; 8 - bytes.len()];
    within("the rest", stream.read_exact(&mut rest)).await.unwrap();
    bytes.extend(rest);
    assert_eq!(bytes, b"12345678");
}

#[quoit::test(seeds = 8)]
async fn a_read_that_is_half_way_goes_on_when_the_stream_comes_back() {
    for taken_up in [false, true] {
        let (stream, mut peer) = pair().await;
        let (stream, wakes) = (Arc::new(stream), Wakes::new());
        let mut read = half_way(&stream, &mut peer, &wakes).await;
        within("detach", stream.detach()).await.unwrap();
        if taken_up {
            stream.write_all(b"bound again").await.unwrap();
        }
        assert!(wakes.poll(read.as_mut()).is_pending());
        peer.write_all(b"678and").await.unwrap();
        let mut next = [0; 3];
        let mut behind = Box::pin(stream.read_exact(&mut next));
        assert!(wakes.poll(behind.as_mut()).is_pending(), "it stands behind");
        assert_eq!(&within("the read", read).await.unwrap(), b"12345678");
        within("the next", behind).await.unwrap();
        assert_eq!(&next, b"and");
    }
}

#[test]
fn a_detached_stream_takes_its_error_along() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            for by_lease in [false, true] {
                let (stream, peer) = pair().await;
                if by_lease {
                    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
                } else {
                    assert!(dropped_at(Moment::Waiting, stream.read(&mut [0])).await.is_none());
                }
                some_turns().await;
                peer.reset();
                some_turns().await;
                within("detach", stream.detach()).await.unwrap();
                let stream = if by_lease {
                    // What took the descriptor would see an orderly end.
                    stream.into_std().expect_err("an error that nobody has seen").into_stream()
                } else {
                    stream
                };
                let stream = core
                    .elsewhere(|| async move {
                        for _ in 0..2 {
                            let error = within("recv", stream.recv()).await.unwrap_err();
                            assert!(is_reset(&error), "{error}");
                        }
                        within("detach", stream.detach()).await.unwrap();
                        stream
                    })
                    .await;
                // A simulated stream has no descriptor to give.
                assert!(is_simulated() || stream.into_std().is_ok(), "now it has been seen");
            }
        },
    );
}

/// What a stream is when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Accepted,
    Detached,
    /// All that came is with the handle, and nothing with the kernel.
    Kept,
}

async fn in_state(state: State) -> (TcpStream, Peer) {
    let (stream, mut peer) = pair().await;
    if state == State::Accepted {
        peer.write_all(&bytes_of(2, 0, 100_000)).await.unwrap();
        // What arrives at a socket that is closed is answered by a reset, so it has to be there.
        some_turns().await;
        return (stream, peer);
    }
    stream.send_all("the reply").await.unwrap();
    peer.write_all(b"unread").await.unwrap();
    if state == State::Kept {
        assert!(dropped_at(Moment::Woken, stream.recv()).await.is_none());
    } else {
        assert!(dropped_at(Moment::Woken, stream.readable()).await.is_none());
    }
    some_turns().await;
    within("detach", stream.detach()).await.unwrap();
    (stream, peer)
}

async fn expect_an_orderly_end(state: State, peer: &mut Peer) {
    let (bytes, error) = read_to_end(peer).await;
    assert!(error.is_none(), "{state:?}: {error:?}");
    assert_eq!(bytes, if state == State::Accepted { b"" } else { b"the reply".as_slice() });
}

#[test]
fn an_unbound_stream_dropped_where_no_core_is_lingers_on_the_core_that_had_it() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            for state in [State::Accepted, State::Detached, State::Kept] {
                let (stream, mut peer) = in_state(state).await;
                outside(|| drop(stream));
                some_turns().await;
                // The peer goes on writing meanwhile: that must not turn into a reset either.
                for _ in 0..5 {
                    peer.write_all(&bytes_of(2, 100_000, 100_000)).await.unwrap();
                    some_turns().await;
                }
                let reader = aside(async move { expect_an_orderly_end(state, &mut peer).await });
                until("it is gone", || core.metrics().streams_open == 0).await;
                reader.join().await;
            }
        },
    );
}

#[test]
fn an_unbound_stream_that_outlives_its_core_ends_with_fin() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            for state in [State::Accepted, State::Detached, State::Kept] {
                let other = core.other().await;
                let (stream, mut peer) = other.run(move || in_state(state)).await;
                assert!(other.end(PATIENCE).await.is_clean());
                outside(|| drop(stream));
                expect_an_orderly_end(state, &mut peer).await;
            }
        },
    );
}

#[test]
fn abort_resets_now_from_anywhere() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            for (bound, on_another_core) in [(false, false), (true, false), (true, true)] {
                let (stream, mut peer) = narrow_pair().await;
                peer.write_all(b"unread").await.unwrap();
                if bound {
                    let unsent = stream.send(vec![0; 1_500_000]);
                    assert!(dropped_at(Moment::Waiting, unsent).await.is_none());
                }
                some_turns().await;
                let start = Instant::now();
                if on_another_core {
                    core.elsewhere(|| async { stream.abort() }).await;
                } else {
                    outside(|| stream.abort());
                }
                until("it is gone", || core.metrics().streams_open == 0).await;
                assert!(start.elapsed() < Duration::from_secs(2), "bound: {bound}");
                let (_, error) = read_to_end(&mut peer).await;
                assert!(error.is_some_and(|error| is_reset(&error)), "bound: {bound}");
            }
        },
    );
}
