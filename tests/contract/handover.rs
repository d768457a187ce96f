//! What goes with a stream that leaves its core: the bytes of a read that is half-way, an error
//! that nobody has heard of, and the peace of its peer when it is dropped where no core is.

use std::io::ErrorKind;
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use quoit::net::TcpStream;

use crate::common::*;

/// A read that has taken five bytes of the eight it wants, told of by these wakes.
macro_rules! half_way {
    ($stream:expr, $peer:expr, $into:expr, $wakes:expr) => {{
        let mut read = Box::pin($stream.read_exact($into));
        assert!($wakes.poll(read.as_mut()).is_pending());
        let before = $wakes.count();
        $peer.write_all(b"12345").await.unwrap();
        until("the read is told", || $wakes.count() > before).await;
        assert!($wakes.poll(read.as_mut()).is_pending(), "it wants three more");
        read
    }};
}

#[test]
fn a_read_dropped_elsewhere_while_its_stream_leaves_gives_its_bytes_back() {
    on_each_ring(|builder| {
        builder.clone().build().unwrap().block_on(async {
            let (stream, mut peer) = pair().await;
            let (mut into, wakes) = ([0; 8], Wakes::new());
            let read = half_way!(stream, peer, &mut into, wakes);
            let mut detach = pin!(stream.detach());
            assert!(wakes.poll(detach.as_mut()).is_pending(), "its watch is being cancelled");
            some_turns().await;
            // The core hears of the drop only in its next turn, and the detach ends before.
            thread::scope(|scope| scope.spawn(move || drop(read)).join().unwrap());
            assert!(wakes.poll(detach.as_mut()).is_ready());
            peer.write_all(b"678").await.unwrap();
            elsewhere(&builder, async || {
                within("read", stream.read_exact(&mut into)).await.unwrap();
            });
            assert_eq!(&into, b"12345678");
        });
    });
}

#[test]
fn a_read_that_is_half_way_keeps_its_place_when_the_stream_moves() {
    on_each_ring(|builder| {
        builder.clone().build().unwrap().block_on(async {
            for by_lease in [false, true] {
                let (stream, mut peer) = pair().await;
                let (mut into, wakes) = ([0; 8], Wakes::new());
                let read = half_way!(stream, peer, &mut into, wakes);
                within("detach", stream.detach()).await.unwrap();
                peer.write_all(b"678").await.unwrap();
                elsewhere(&builder, async || {
                    let wakes = Wakes::new();
                    let mut bytes = Vec::new();
                    {
                        let mut other = pin!(stream.recv());
                        assert!(wakes.poll(other.as_mut()).is_pending());
                        some_turns().await;
                        assert!(wakes.poll(other.as_mut()).is_pending(), "five come before");
                        let error = stream.try_read(&mut [0]).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        thread::scope(|scope| scope.spawn(move || drop(read)).join().unwrap());
                        if by_lease {
                            bytes.extend_from_slice(&within("recv", other).await.unwrap());
                        }
                    }
                    let mut rest = vec![0; 8 - bytes.len()];
                    within("the rest", stream.read_exact(&mut rest)).await.unwrap();
                    bytes.extend(rest);
                    assert_eq!(bytes, b"12345678");
                });
            }
        });
    });
}

#[quoit::test(seeds = 8)]
async fn a_read_that_is_half_way_goes_on_when_the_stream_comes_back() {
    for taken_up in [false, true] {
        let (stream, mut peer) = pair().await;
        let (mut into, wakes) = ([0; 8], Wakes::new());
        let mut read = half_way!(stream, peer, &mut into, wakes);
        within("detach", stream.detach()).await.unwrap();
        if taken_up {
            stream.write_all(b"bound again").await.unwrap();
        }
        assert!(wakes.poll(read.as_mut()).is_pending());
        peer.write_all(b"678and").await.unwrap();
        let mut next = [0; 3];
        let mut behind = Box::pin(stream.read_exact(&mut next));
        assert!(wakes.poll(behind.as_mut()).is_pending(), "it stands behind");
        within("the read", read).await.unwrap();
        within("the next", behind).await.unwrap();
        assert_eq!((&into, &next), (b"12345678", b"and"));
    }
}

#[test]
fn a_detached_stream_takes_its_error_along() {
    on_each_ring(|builder| {
        builder.clone().build().unwrap().block_on(async {
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
                elsewhere(&builder, async || {
                    for _ in 0..2 {
                        let error = within("recv", stream.recv()).await.unwrap_err();
                        assert!(is_reset(&error), "{error}");
                    }
                    within("detach", stream.detach()).await.unwrap();
                });
                assert!(stream.into_std().is_ok(), "now it has been seen");
            }
        });
    });
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
        return (stream, peer);
    }
    stream.send_all("the reply").await.unwrap();
    peer.write_all(b"unread").await.unwrap();
    if state == State::Kept {
        assert!(dropped_at(Moment::Woken, stream.recv()).await.is_none());
    } else {
        assert!(dropped_at(Moment::Woken, stream.readable()).await.is_none());
    }
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
    on_each_runtime(
        |builder| builder,
        async |runtime: &Core| {
            for state in [State::Accepted, State::Detached, State::Kept] {
                let (stream, mut peer) = in_state(state).await;
                thread::spawn(move || drop(stream)).join().unwrap();
                some_turns().await;
                // The peer goes on writing meanwhile: that must not turn into a reset either.
                for _ in 0..5 {
                    peer.write_all(&bytes_of(2, 100_000, 100_000)).await.unwrap();
                    some_turns().await;
                }
                let reader = aside(async move { expect_an_orderly_end(state, &mut peer).await });
                until("it is gone", || runtime.metrics().streams_open == 0).await;
                reader.join().await;
            }
        },
    );
}

#[test]
fn an_unbound_stream_that_outlives_its_core_ends_with_fin() {
    on_each_ring(|builder| {
        for state in [State::Accepted, State::Detached, State::Kept] {
            let runtime = builder.clone().build().unwrap();
            let (stream, mut peer) = runtime.block_on(in_state(state));
            assert!(runtime.shutdown(Duration::from_secs(5)).is_clean());
            drop(stream);
            futures::executor::block_on(expect_an_orderly_end(state, &mut peer));
        }
    });
}

#[test]
fn abort_resets_now_from_anywhere() {
    on_each_runtime(
        |builder| builder,
        async |runtime: &Core| {
            for bound in [false, true] {
                let (stream, mut peer) = narrow_pair().await;
                peer.write_all(b"unread").await.unwrap();
                if bound {
                    let unsent = stream.send(vec![0; 1_500_000]);
                    assert!(dropped_at(Moment::Waiting, unsent).await.is_none());
                }
                some_turns().await;
                let start = Instant::now();
                thread::spawn(move || stream.abort()).join().unwrap();
                until("it is gone", || runtime.metrics().streams_open == 0).await;
                assert!(start.elapsed() < Duration::from_secs(2), "bound: {bound}");
                let (_, error) = read_to_end(&mut peer).await;
                assert!(error.is_some_and(|error| is_reset(&error)), "bound: {bound}");
            }
        },
    );
}
