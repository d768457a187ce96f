//! Close: what is committed goes out, then FIN, and the peer never sees a reset that nobody asked
//! for, nor an orderly end that is none.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::Duration;

use quoit::buffer::Lease;
use quoit::net::TcpStream;
use quoit::task;
use quoit::time::Instant;

use crate::common::*;

const LONG: usize = 1_500_000;
const SEEDS: u64 = 8;

async fn closed(runtime: &Core) {
    until("the stream is off the table", || runtime.metrics().streams_open == 0).await;
    until("nothing is in flight", || runtime.metrics().requests_in_flight == 0).await;
}

#[test]
fn a_dropped_stream_sends_what_is_committed_then_fin() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (stream, mut peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            drop(stream);
            let reader = aside(async move { read_to_end(&mut peer).await });
            closed(runtime).await;
            let (bytes, error) = reader.join().await;
            assert!(error.is_none(), "{error:?}");
            assert_eq!(bytes.len(), LONG);
            check_bytes(1, 0, &bytes);
        },
    );
}

/// The last answer to a send closes the stream, and one to its watch may have come with it.
#[test]
fn a_stream_that_ends_with_its_last_send_knows_of_its_watch() {
    on_each_runtime(
        |builder| builder,
        async |runtime| {
            let submitted = || runtime.metrics().ring.submissions;
            for parts in 1..30 {
                let (stream, peer) = narrow_pair().await;
                let mut peer = peer.into_std();
                assert!(dropped_at(Moment::Waiting, stream.read(&mut [0])).await.is_none());
                let sent = dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await;
                assert!(sent.is_none());
                drop(stream);
                peer.set_nonblocking(true).unwrap();
                let (mut bytes, mut before, mut left) = (Vec::new(), submitted(), parts);
                while let Err(error) = peer.read_to_end(&mut bytes) {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    // A part went out, and the next one is tried in the next turn, together with
                    // what comes of this.
                    if before != submitted() {
                        (before, left) = (submitted(), left - 1);
                        if left == 0 {
                            peer.shutdown(Shutdown::Write).unwrap();
                        }
                    }
                    task::yield_now().await;
                }
                assert_eq!(bytes.len(), LONG);
                closed(runtime).await;
                assert_eq!(runtime.metrics().resources.unknown_completions, 0, "{parts}");
            }
        },
    );
}

/// A close that meets input on the way may have to reset, and then the peer is told: what it got is
/// all of the reply, or it ends with an error.
#[quoit::test(seeds = 40)]
async fn a_reset_never_looks_like_the_end_of_a_reply() {
    let (stream, mut peer) = pair().await;
    peer.write_all(b"on the way").await.unwrap();
    stream.send_all("the reply").await.unwrap();
    drop(stream);
    let (bytes, error) = read_to_end(&mut peer).await;
    let is_told = error.as_ref().is_some_and(is_reset);
    assert!(is_told || bytes == b"the reply" && error.is_none(), "{bytes:?} {error:?}");
}

/// How much of the input the program has seen when it drops the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    /// The stream was never used.
    Unused,
    /// It was only written to.
    Nothing,
    /// A receive is armed, and what came waits in the stream.
    Received,
    /// A part was read.
    Part,
}

#[test]
fn a_stream_dropped_with_unread_input_ends_with_fin_and_not_with_a_reset() {
    for seen in [Seen::Unused, Seen::Nothing, Seen::Received, Seen::Part] {
        on_all_rings(
            SEEDS,
            |builder| builder,
            async |runtime| {
                println!("{seen:?}");
                let (stream, mut peer) = pair().await;
                peer.write_all(&bytes_of(2, 0, 100_000)).await.unwrap();
                // What is on the way at a close is not unread, and meets a reset.
                some_turns().await;
                match seen {
                    Seen::Unused => {}
                    Seen::Nothing => stream.send_all("the reply").await.unwrap(),
                    Seen::Received => {
                        assert!(dropped_at(Moment::Woken, stream.recv()).await.is_none());
                        some_turns().await;
                        stream.send_all("the reply").await.unwrap();
                    }
                    Seen::Part => {
                        stream.read_exact(&mut [0; 1_000]).await.unwrap();
                        stream.send_all("the reply").await.unwrap();
                    }
                }
                drop(stream);
                some_turns().await;
                // The peer goes on writing meanwhile: that must not turn into a reset either.
                peer.write_all(&bytes_of(2, 100_000, 100_000)).await.unwrap();
                some_turns().await;
                let reader = aside(async move {
                    let (bytes, error) = read_to_end(&mut peer).await;
                    assert!(error.is_none(), "{error:?}");
                    bytes
                });
                closed(runtime).await;
                let reply: &[u8] = if seen == Seen::Unused { b"" } else { b"the reply" };
                assert_eq!(reader.join().await, reply);
            },
        );
    }
}

#[test]
fn the_linger_time_bounds_how_long_a_dropped_stream_stays() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (stream, mut peer) = pair().await;
            assert_eq!(stream.linger(), Duration::from_secs(5), "the documented default");
            stream.set_linger(Duration::from_millis(60));
            peer.write_all(b"nobody reads this").await.unwrap();
            assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
            some_turns().await;
            let start = Instant::now();
            drop(stream);
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "FIN goes out at once");
            closed(runtime).await;
            let lingered = start.elapsed();
            assert!(lingered >= Duration::from_millis(55), "{lingered:?}");
            assert!(lingered < Duration::from_secs(4), "{lingered:?}: the default, not ours");
        },
    );
}

#[test]
fn a_stream_that_could_not_send_all_ends_with_a_reset() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (stream, mut peer) = narrow_pair().await;
            stream.set_linger(Duration::from_millis(30));
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            drop(stream);
            closed(runtime).await;
            // An orderly end here would make half a message look like all of it.
            let (bytes, error) = read_to_end(&mut peer).await;
            assert!(bytes.len() < LONG);
            assert!(error.is_some_and(|error| is_reset(&error)), "{} bytes, then FIN", bytes.len());
        },
    );
}

#[test]
fn close_tells_what_became_of_it() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (stream, _peer) = pair().await;
            within("unused", stream.close()).await.unwrap();

            let (stream, mut peer) = pair().await;
            stream.send_all("bye").await.unwrap();
            within("idle", stream.close()).await.unwrap();
            assert_eq!(read_to_end(&mut peer).await.0, b"bye");

            let (stream, mut peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            let reader = aside(async move { read_to_end(&mut peer).await.0.len() });
            within("unsent", stream.close()).await.unwrap();
            assert_eq!(reader.join().await, LONG);

            // Nobody reads: the linger time passes with bytes unsent.
            let (stream, peer) = narrow_pair().await;
            stream.set_linger(Duration::from_millis(20));
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            let error = within("linger", stream.close()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            drop(peer);

            // The peer resets while bytes are unsent.
            let (stream, peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            let closing = quoit::spawn(stream.close());
            some_turns().await;
            peer.reset();
            let error = within("reset", closing).await.unwrap().unwrap_err();
            assert!(is_reset(&error) || error.kind() == ErrorKind::BrokenPipe, "{error}");
            closed(runtime).await;
        },
    );
}

#[test]
fn a_close_that_is_dropped_closes_all_the_same() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            for moment in [Moment::Unpolled, Moment::Waiting, Moment::Woken] {
                let (stream, mut peer) = pair().await;
                peer.write_all(b"unread").await.unwrap();
                some_turns().await;
                stream.send_all("reply").await.unwrap();
                let reader = aside(async move {
                    pause(Duration::from_millis(10)).await;
                    read_to_end(&mut peer).await
                });
                dropped_at(moment, stream.close()).await;
                closed(runtime).await;
                let (bytes, error) = reader.join().await;
                assert!(bytes == b"reply" && error.is_none(), "{moment:?}: {bytes:?} {error:?}");
            }
        },
    );
}

#[test]
fn abort_resets_now() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            for armed in [false, true] {
                let (stream, mut peer) = narrow_pair().await;
                if armed {
                    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
                    assert!(
                        dropped_at(Moment::Waiting, stream.send(vec![0; LONG])).await.is_none()
                    );
                    peer.write_all(b"unread").await.unwrap();
                }
                some_turns().await;
                stream.abort();
                closed(runtime).await;
                let (_, error) = read_to_end(&mut peer).await;
                assert!(error.is_some_and(|error| is_reset(&error)), "armed: {armed}");
            }
        },
    );
}

#[quoit::test(seeds = 8)]
async fn half_closed_connections_go_on_in_the_other_direction() {
    let (stream, mut peer) = narrow_pair().await;
    // The peer ends first: we read its end and go on writing.
    peer.write_all(b"that is all").await.unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(received(&stream, 11).await, b"that is all");
    for _ in 0..3 {
        assert!(within("the end", stream.recv()).await.unwrap().is_empty());
        assert_eq!(within("the end", stream.read(&mut [0])).await.unwrap(), 0);
    }
    let reader = aside(async move { read_to_end(&mut peer).await.0 });
    within("send", stream.send(bytes_of(3, 0, LONG))).await.unwrap();
    within("close", stream.close()).await.unwrap();
    let bytes = reader.join().await;
    assert_eq!(bytes.len(), LONG);
    check_bytes(3, 0, &bytes);

    // We end first: what is committed goes before the FIN, and we go on reading.
    let (stream, mut peer) = narrow_pair().await;
    assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(4, 0, LONG))).await.is_none());
    let peer = aside(async move {
        let (bytes, error) = read_to_end(&mut peer).await;
        assert!(error.is_none(), "{error:?}");
        peer.write_all(&bytes_of(5, 0, bytes.len())).await.unwrap();
        bytes.len()
    });
    within("shutdown", stream.shutdown()).await.unwrap();
    let mut place = 0;
    loop {
        let lease = within("recv", stream.recv()).await.unwrap();
        if lease.is_empty() {
            break;
        }
        check_bytes(5, place, &lease);
        place += lease.len();
    }
    assert_eq!((place, peer.join().await), (LONG, LONG));
}

#[quoit::test(seeds = 8)]
async fn a_reset_in_the_middle_reaches_reader_and_writer() {
    for _ in 0..10 {
        let (stream, mut peer) = narrow_pair().await;
        let stream = std::rc::Rc::new(stream);
        let shared = stream.clone();
        let writer = quoit::spawn(async move {
            loop {
                if let Err(failed) = shared.send(vec![7; 100_000]).await {
                    return failed.into_parts();
                }
            }
        });
        let shared = stream.clone();
        let reader = quoit::spawn(async move {
            loop {
                match shared.recv().await {
                    Ok(lease) if lease.is_empty() => return None,
                    Ok(_) => {}
                    Err(error) => return Some(error),
                }
            }
        });
        some_turns().await;
        peer.write_all(&[1; 10_000]).await.unwrap();
        peer.read_exact(&mut [0; 10_000]).await.unwrap();
        peer.reset();
        let (error, buffer) = within("writer", writer).await.unwrap();
        assert!(is_reset(&error) || error.kind() == ErrorKind::BrokenPipe, "{error}");
        assert_eq!(buffer.expect("it comes back").len(), 100_000);
        let read = within("reader", reader).await.unwrap();
        assert!(read.is_none_or(|error| is_reset(&error)));
    }
}

/// Lends every buffer of the pool, so that further receives find none.
async fn exhaust(stream: &TcpStream, peer: &mut Peer, buffers: usize) -> Vec<Lease> {
    let mut leases = Vec::new();
    while leases.len() < buffers {
        peer.write_all(b"x").await.unwrap();
        leases.push(within("recv", stream.recv()).await.unwrap());
    }
    leases
}

#[test]
fn a_closing_stream_that_finds_no_buffer_still_sees_its_peers_end() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(4, 4096, 4),
        async |runtime| {
            let (hoarder, mut source) = pair().await;
            let (stream, mut peer) = pair().await;
            assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
            let leases = exhaust(&hoarder, &mut source, 8).await;
            peer.write_all(&bytes_of(1, 0, 30_000)).await.unwrap();
            some_turns().await;
            stream.send_all("reply").await.unwrap();
            let start = Instant::now();
            drop(stream);
            let (bytes, error) = read_to_end(&mut peer).await;
            assert!(bytes == b"reply" && error.is_none(), "{bytes:?} {error:?}");
            peer.write_all(&bytes_of(1, 0, 30_000)).await.unwrap();
            some_turns().await;
            drop(peer);
            until("the stream is off the table", || runtime.metrics().streams_open == 1).await;
            assert!(start.elapsed() < Duration::from_secs(4), "it waited for its linger time");
            drop(leases);
            task::yield_now().await;
        },
    );
}
