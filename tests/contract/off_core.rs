//! Handles are `Send`, cores are not shared: what a handle does on a core that does not own it, on
//! a thread without a core, and after its core is gone; and how a stream moves.

use std::io::{ErrorKind, Read};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::buffer::Lease;
use quoit::net::{OwnedReadHalf, OwnedWriteHalf, TcpListener, TcpStream};
use quoit::{task, time};

use crate::common::*;

const SEEDS: u64 = 8;

fn is_send_and_sync<T: Send + Sync>() {}
fn is_send<T: Send>(value: T) -> T {
    value
}

#[test]
fn handles_and_the_futures_that_hold_them_are_send() {
    is_send_and_sync::<TcpStream>();
    is_send_and_sync::<TcpListener>();
    is_send_and_sync::<OwnedReadHalf>();
    is_send_and_sync::<OwnedWriteHalf>();
    is_send_and_sync::<Lease>();
    // A future that holds each of ours across an await.
    drop(is_send(async {
        let (listener, address) = listen().await;
        let stream = TcpStream::connect(address).await?;
        let (other, _) = listener.accept().timeout(Duration::from_secs(1)).await?;
        let lease = time::timeout(Duration::from_secs(1), stream.recv()).await??;
        other.send(lease).timeout(Duration::from_secs(1)).await?;
        other.read_exact(&mut [0; 4]).await?;
        other.read_until(0, &mut Vec::new(), 10).await?;
        other.write_all(b"x").await?;
        stream.detach().await?;
        stream.close().await?;
        listener.close().await
    }));
}

#[test]
fn another_core_is_told_who_owns_a_handle() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (stream, mut peer) = pair().await;
            let (listener, address) = listen().await;
            assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
            assert!(dropped_at(Moment::Waiting, listener.accept()).await.is_none());
            let (stream, listener) = core
                .elsewhere(|| async move {
                    expect_to_be_told_who_owns(&stream, &listener).await;
                    (stream, listener)
                })
                .await;
            // Where it belongs it goes on.
            peer.write_all(b"still here").await.unwrap();
            assert_eq!(received(&stream, 10).await, b"still here");
            let _peer = connect(address).await;
            accept(&listener).await;
        },
    );
}

async fn expect_to_be_told_who_owns(stream: &TcpStream, listener: &TcpListener) {
    let offers_detach = |error: std::io::Error| {
        let text = error.to_string();
        assert!(text.contains("belongs to core"), "{text}");
        text.contains("detach it first")
    };
    assert!(offers_detach(stream.recv().await.unwrap_err()));
    assert!(offers_detach(stream.read(&mut [0]).await.unwrap_err()));
    assert!(offers_detach(stream.read_exact(&mut [0]).await.unwrap_err()));
    assert!(offers_detach(stream.write(b"x").await.unwrap_err()));
    assert!(offers_detach(stream.flush().await.unwrap_err()));
    assert!(offers_detach(stream.readable().await.unwrap_err()));
    assert!(offers_detach(stream.try_read(&mut [0]).unwrap_err()));
    assert!(offers_detach(stream.detach().await.unwrap_err()));
    assert!(!offers_detach(listener.accept().await.unwrap_err()), "a listener stays");
    let (error, buffer) = stream.send("mine").await.unwrap_err().into_parts();
    assert!(offers_detach(error));
    assert_eq!(buffer, Some("mine"), "it was never lent");
}

#[test]
fn a_future_that_waits_here_and_is_polled_there_offers_detach_and_leaves_the_line() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (stream, mut peer) = narrow_pair().await;
            let stream = Arc::new(stream);
            let wakes = Wakes::new();
            let (one, two) = (stream.clone(), stream.clone());
            let mut recv = Box::pin(async move { one.recv().await });
            let mut send = Box::pin(async move { two.send(vec![1; 1_000_000]).await });
            assert!(wakes.poll(recv.as_mut()).is_pending());
            assert!(wakes.poll(send.as_mut()).is_pending());
            core.elsewhere(|| async move {
                assert!(recv.await.is_err());
                let (error, buffer) = send.await.unwrap_err().into_parts();
                assert!(error.to_string().contains("belongs to core"), "{error}");
                assert!(buffer.is_none(), "it is lent to the kernel, over there");
            })
            .await;
            peer.write_all(b"next").await.unwrap();
            assert_eq!(received(&stream, 4).await, b"next");
            let reader = aside(async move { read_to_end(&mut peer).await.0.len() });
            let stream = Arc::into_inner(stream).expect("the futures are gone");
            within("close", stream.close()).await.unwrap();
            assert_eq!(reader.join().await, 1_000_000, "what was committed goes out");
        },
    );
}

/// Where no core is, and on a core that is not theirs.
#[test]
fn handles_dropped_elsewhere_are_released_where_they_belong() {
    for on_another_core in [false, true] {
        on_all_rings(
            SEEDS,
            |builder| builder,
            async |core| {
                let (stream, mut peer) = pair().await;
                assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
                let (narrow, mut reader) = narrow_pair().await;
                let send = narrow.send(vec![1; 1_000_000]);
                assert!(dropped_at(Moment::Waiting, send).await.is_none());
                let (_read, write) = narrow.into_split();
                let (listener, address) = listen().await;
                assert!(dropped_at(Moment::Waiting, listener.accept()).await.is_none());
                let all = (stream, write, listener);
                if on_another_core {
                    core.elsewhere(|| async { drop(all) }).await;
                } else {
                    outside(|| drop(all));
                }

                until("the listener goes", || core.metrics().listeners_open == 0).await;
                until_refused(address).await;
                until("the stream goes", || core.metrics().streams_open == 1).await;
                assert!(peer.read(&mut [0]).await.is_ok_and(|count| count == 0), "FIN");
                let half = aside(async move { read_to_end(&mut reader).await });
                until("all is sent", || half.is_finished()).await;
                let (bytes, error) = half.join().await;
                assert!(bytes.len() == 1_000_000 && error.is_none());
            },
        );
    }
}

#[test]
fn waiting_futures_dropped_elsewhere_pass_their_wakes_on() {
    for on_another_core in [false, true] {
        on_all_rings(
            SEEDS,
            |builder| builder,
            async |core| {
                let (stream, mut peer) = pair().await;
                let stream = Arc::new(stream);
                let shared = stream.clone();
                let (one, two) = (Wakes::new(), Wakes::new());
                let mut first = Box::pin(async move { shared.recv().await.map(drop) });
                let mut second = pin!(stream.recv());
                assert!(one.poll(first.as_mut()).is_pending());
                assert!(two.poll(second.as_mut()).is_pending());
                peer.write_all(b"x").await.unwrap();
                until("the first in line is told", || one.count() == 1).await;
                let first = is_send(first);
                if on_another_core {
                    core.elsewhere(|| async { drop(first) }).await;
                } else {
                    outside(|| drop(first));
                }
                until("the wake passes on", || two.count() == 1).await;
                assert!(two.poll(second.as_mut()).is_ready());
            },
        );
    }
}

#[test]
fn after_its_core_is_gone_a_handle_is_not_connected() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let other = core.other().await;
            let (stream, listener, lease, _peer) = other
                .run(|| async {
                    let (stream, mut peer) = pair().await;
                    peer.write_all(b"k").await.unwrap();
                    let lease = stream.recv().await.unwrap();
                    let (listener, _) = listen().await;
                    assert!(dropped_at(Moment::Waiting, listener.accept()).await.is_none());
                    (stream, listener, lease, peer)
                })
                .await;
            other.drop().await;
            for _ in 0..2 {
                let error = within("recv", stream.recv()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotConnected);
                let (error, _) = within("send", stream.send("x")).await.unwrap_err().into_parts();
                assert_eq!(error.kind(), ErrorKind::NotConnected);
                let error = within("accept", listener.accept()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotConnected);
            }
            let error = within("detach", stream.detach()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
            let error = within("close", stream.close()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
            assert!(within("close", listener.close()).await.is_err());
            assert_eq!(lease, b"k");
        },
    );
}

#[test]
fn a_detached_stream_takes_its_unread_bytes_to_another_core_and_back() {
    /// Reads a little from `place` on, and lets the stream go. The place it has come to.
    async fn read_some(stream: &TcpStream, mut place: usize, by_lease: bool) -> usize {
        for _ in 0..3 {
            let mut slice = [0; 700];
            if by_lease {
                let lease = within("recv", stream.recv()).await.unwrap();
                check_bytes(3, place, &lease);
                place += lease.len();
            } else {
                let count = within("read", stream.read(&mut slice)).await.unwrap();
                check_bytes(3, place, &slice[..count]);
                place += count;
            }
        }
        within("detach", stream.detach()).await.unwrap();
        place
    }
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let length = fewer(600_000, 30);
            let (mut stream, peer) = pair().await;
            let writer = write_aside(peer, 3, length);
            let other = core.other().await;
            let (mut place, mut by_lease) = (0, true);
            while place < length {
                place = read_some(&stream, place, by_lease).await;
                (stream, place) = other
                    .run(move || async move {
                        let place = read_some(&stream, place, !by_lease).await;
                        (stream, place)
                    })
                    .await;
                by_lease = !by_lease;
            }
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end, and no byte twice");
            writer.join().await;
            assert!(other.end(PATIENCE).await.is_clean());
        },
    );
}

#[test]
fn detach_sends_what_is_committed_first() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |_| {
            let (stream, mut peer) = narrow_pair().await;
            let send = stream.send(bytes_of(1, 0, 1_000_000));
            assert!(dropped_at(Moment::Waiting, send).await.is_none());
            assert!(time::timeout(Duration::from_millis(5), stream.detach()).await.is_err());
            let reader = aside(async move { read_to_end(&mut peer).await.0 });
            within("detach", stream.detach()).await.unwrap();
            if is_simulated() {
                // It has no descriptor to give.
                drop(stream);
            } else {
                drop(stream.into_std().expect("unbound, and nothing unread"));
            }
            let bytes = reader.join().await;
            assert_eq!(bytes.len(), 1_000_000);
            check_bytes(1, 0, &bytes);
        },
    );
}

#[quoit::test(seeds = 8)]
async fn detach_ends_every_watch() {
    // Watches for reading, for writing or for both are armed, and nothing ever happens on them.
    for (reads, writes) in [(true, false), (false, true), (true, true)] {
        let (stream, mut peer) = narrow_pair().await;
        if reads {
            assert!(dropped_at(Moment::Waiting, stream.read(&mut [0])).await.is_none());
        }
        if writes {
            while stream.try_write(&[1; 100_000]).is_ok() {}
            assert!(dropped_at(Moment::Waiting, stream.writable()).await.is_none());
        }
        some_turns().await;
        within("detach", stream.detach()).await.unwrap();
        peer.write_all(b"more").await.unwrap();
        assert_eq!(received(&stream, 4).await, b"more");
    }
}

#[quoit::test(seeds = 8)]
async fn a_detach_that_is_dropped_leaves_the_stream_usable() {
    for moment in [Moment::Waiting, Moment::Woken] {
        for by_lease in [false, true] {
            let (stream, mut peer) = pair().await;
            let mut byte = [0];
            if by_lease {
                assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
            } else {
                assert!(dropped_at(Moment::Waiting, stream.read(&mut byte)).await.is_none());
            }
            some_turns().await;
            let dropped = dropped_at(moment, stream.detach()).await;
            // A simulated watch may have ended by itself, with nobody to ask for another.
            let takes_a_turn = by_lease || !is_on_epoll();
            assert!(dropped.is_none() == takes_a_turn || is_simulated(), "{by_lease}");
            peer.write_all(b"ab").await.unwrap();
            within("read", stream.read_exact(&mut byte)).await.unwrap();
            assert_eq!(within("recv", stream.recv()).await.unwrap(), b"b");
            stream.send_all("reply").await.unwrap();
            within("detach", stream.detach()).await.unwrap();
            // A simulated stream has no descriptor to give.
            assert!(is_simulated() || stream.into_owned_fd().is_ok());
        }
    }
}

#[quoit::test(seeds = 8)]
async fn those_who_wait_do_not_hold_up_a_detach() {
    let (stream, mut peer) = narrow_pair().await;
    let stream = std::rc::Rc::new(stream);
    while stream.try_write(&[0; 100_000]).is_ok() {}
    let (one, two) = (stream.clone(), stream.clone());
    let reader = quoit::spawn(async move { one.recv().await });
    let writer = quoit::spawn(async move { two.write(b"x").await });
    some_turns().await;
    within("detach", stream.detach()).await.unwrap();
    // They go on by binding the stream again.
    peer.write_all(b"y").await.unwrap();
    assert_eq!(within("reader", reader).await.unwrap().unwrap(), b"y");
    let drain = aside(async move { read_to_end(&mut peer).await.0.last().copied() });
    assert_eq!(within("writer", writer).await.unwrap().unwrap(), 1);
    let stream = std::rc::Rc::into_inner(stream).expect("the tasks are done");
    within("close", stream.close()).await.unwrap();
    assert_eq!(drain.join().await, Some(b'x'));
}

#[quoit::test(seeds = 8)]
async fn those_who_wait_go_on_when_a_detach_is_dropped() {
    for moment in [Moment::Waiting, Moment::Woken] {
        let (stream, mut peer) = narrow_pair().await;
        let stream = std::rc::Rc::new(stream);
        while stream.try_write(&[0; 100_000]).is_ok() {}
        let (one, two) = (stream.clone(), stream.clone());
        let reader = quoit::spawn(async move { one.recv().await });
        let writer = quoit::spawn(async move { two.write(b"x").await });
        some_turns().await;
        assert!(dropped_at(moment, stream.detach()).await.is_none());
        peer.write_all(b"y").await.unwrap();
        assert_eq!(within("reader", reader).await.unwrap().unwrap(), b"y");
        let drain = aside(async move { read_to_end(&mut peer).await.0.last().copied() });
        assert_eq!(within("writer", writer).await.unwrap().unwrap(), 1);
        let stream = std::rc::Rc::into_inner(stream).expect("the tasks are done");
        within("close", stream.close()).await.unwrap();
        assert_eq!(drain.join().await, Some(b'x'));
    }
}

/// On the real rings only: a simulated stream has no descriptor to give.
#[quoit::test]
async fn a_stream_gives_its_descriptor_away_only_unbound_and_read() {
    let (stream, mut peer) = pair().await;
    peer.write_all(b"unread").await.unwrap();
    assert!(dropped_at(Moment::Woken, stream.recv()).await.is_none());
    some_turns().await;
    let stream = stream.into_std().expect_err("bound").into_stream();
    within("detach", stream.detach()).await.unwrap();
    let stream = stream.into_std().expect_err("unread").into_stream();
    assert_eq!(stream.recv().await.unwrap(), b"unread");
    within("detach", stream.detach()).await.unwrap();
    let mut std = stream.into_std().expect("free");
    peer.write_all(b"for std").await.unwrap();
    let mut read = [0; 7];
    std.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"for std");
    task::yield_now().await;
}

#[test]
fn leases_outlive_their_runtime_and_return_from_anywhere() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let length = fewer(300_000, 20);
            let other = core.other().await;
            let (stream, peer) = other.run(pair).await;
            let writer = write_aside(peer, 6, length);
            let leases: Vec<Lease> = other
                .run(|| async move {
                    let mut leases = Vec::new();
                    loop {
                        let lease = within("recv", stream.recv()).await.unwrap();
                        if lease.is_empty() {
                            return leases;
                        }
                        leases.push(lease);
                    }
                })
                .await;
            writer.join().await;
            assert!(other.metrics().await.leases_out > 0);
            other.drop().await;
            let (kept, mut place) = (Mutex::new(Vec::new()), 0);
            outside(|| {
                for mut lease in leases {
                    check_bytes(6, place, &lease);
                    place += lease.len();
                    let front = lease.split_to(lease.len() / 2);
                    outside(|| drop(front));
                    kept.lock().unwrap().push(lease);
                }
            });
            assert_eq!(place, length);
            // The rest, from a core to which they never belonged.
            drop(kept);
        },
    );
}
