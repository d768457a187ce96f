//! Half-closed connections: each direction ends by itself, also with bytes under way, and a
//! shutdown that comes too late says so.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::rc::Rc;

use crate::common::*;

#[quoit::test(seeds = 16)]
async fn both_ends_may_finish_at_once() {
    for _ in 0..5 {
        let (stream, mut peer) = pair().await;
        let total = fewer(300_000, 20);
        assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
        let writer = aside(async move {
            peer.write_all(&bytes_of(1, 0, total)).await.unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            read_to_end(&mut peer).await
        });
        within("send", stream.send_all(bytes_of(2, 0, total))).await.unwrap();
        within("shutdown", stream.shutdown()).await.unwrap();
        let bytes = received(&stream, total).await;
        check_bytes(1, 0, &bytes);
        assert!(within("the end", stream.recv()).await.unwrap().is_empty());
        let (bytes, error) = writer.join().await;
        assert!(error.is_none() && bytes.len() == total, "{} {error:?}", bytes.len());
        check_bytes(2, 0, &bytes);
        within("close", stream.close()).await.unwrap();
    }
}

#[quoit::test(seeds = 16)]
async fn after_a_shutdown_writes_fail_and_reads_go_on() {
    let (stream, mut peer) = pair().await;
    within("shutdown", stream.shutdown()).await.unwrap();
    let error = within("send", stream.send("x")).await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::BrokenPipe);
    let error = within("write", stream.write(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    peer.write_all(b"still heard").await.unwrap();
    assert_eq!(received(&stream, 11).await, b"still heard");
}

/// Whoever shuts down after a reset has nothing to lose (the kernel's `ENOTCONN` is not told, as a
/// close would not tell it), but what is said of the stream from then on is the reset.
#[quoit::test(seeds = 16)]
async fn a_shutdown_after_a_reset_does_not_hide_it() {
    for armed in [false, true] {
        let (stream, peer) = pair().await;
        if armed {
            assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
        }
        peer.reset();
        some_turns().await;
        within("shutdown", stream.shutdown()).await.unwrap();
        let error = within("recv", stream.recv()).await.unwrap_err();
        assert!(is_reset(&error), "armed {armed}: {error}");
        let error = within("send", stream.send("x")).await.unwrap_err();
        let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(kinds.contains(&error.error().kind()), "armed {armed}: {error}");
    }
}

/// Bytes of both directions are under way when the reset comes: each side is told, none hangs.
#[quoit::test(seeds = 16)]
async fn a_reset_under_a_half_closed_connection_is_told() {
    let (stream, mut peer) = pair().await;
    within("shutdown", stream.shutdown()).await.unwrap();
    peer.write_all(b"first").await.unwrap();
    assert_eq!(received(&stream, 5).await, b"first");
    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    peer.reset();
    let error = within("recv", stream.recv()).await.unwrap_err();
    assert!(is_reset(&error), "{error}");
}

/// Those who wait to read are told of a shutdown of our own, as they are of the peer's.
#[quoit::test(seeds = 16)]
async fn a_shutdown_of_reading_ends_every_wait_for_bytes() {
    for how in [Shutdown::Read, Shutdown::Both] {
        for by_lease in [false, true] {
            let (stream, mut peer) = pair().await;
            let stream = Rc::new(stream);
            let shared = stream.clone();
            let reader = quoit::spawn(async move {
                if by_lease {
                    shared.recv().await.map(|lease| lease.len())
                } else {
                    shared.read(&mut [0; 10]).await
                }
            });
            let shared = stream.clone();
            let looker = quoit::spawn(async move {
                loop {
                    shared.readable().await?;
                    match shared.try_read(&mut [0; 10]) {
                        // Who waits to read comes first.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        done => return done,
                    }
                }
            });
            some_turns().await;
            within("shutdown", stream.shutdown_with(how)).await.unwrap();
            assert_eq!(within("the reader", reader).await.unwrap().unwrap(), 0, "{how:?}");
            assert_eq!(within("who looks", looker).await.unwrap().unwrap(), 0, "{how:?}");
            if how == Shutdown::Read {
                stream.send_all("still said").await.unwrap();
                peer.read_exact(&mut [0; 10]).await.unwrap();
            } else {
                assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
                let error = within("send", stream.send("x")).await.unwrap_err();
                assert_eq!(error.error().kind(), ErrorKind::BrokenPipe);
            }
        }
    }
}

/// The peer's end is told to those who look, with bytes before it and without, and again to those
/// who look later.
#[quoit::test(seeds = 16)]
async fn the_peers_end_is_readable() {
    for text in [b"".as_slice(), b"last"] {
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let shared = stream.clone();
        let early = quoit::spawn(async move { shared.readable().await });
        some_turns().await;
        peer.write_all(text).await.unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        within("who looked before", early).await.unwrap().unwrap();
        let mut bytes = Vec::new();
        loop {
            within("who looks now", stream.readable()).await.unwrap();
            let mut some = [0; 10];
            match stream.try_read(&mut some) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&some[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert_eq!(bytes, text);
        within("who looks afterwards", stream.readable()).await.unwrap();
        stream.send_all("the other way is open").await.unwrap();
        peer.read_exact(&mut [0; 21]).await.unwrap();
    }
}
