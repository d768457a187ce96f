//! Half-closed connections: each direction ends by itself, also with bytes under way, and a
//! shutdown that comes too late says so. And the owned halves, which are waited for by themselves.

use std::io::{ErrorKind, IoSlice};
use std::net::Shutdown;

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

#[quoit::test(seeds = 16)]
async fn a_reading_half_tells_when_there_is_something_to_read() {
    let (stream, mut peer) = pair().await;
    let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    let (reader, writer) = stream.into_split();
    for (half_local, half_remote) in
        [(reader.local_addr(), reader.peer_addr()), (writer.local_addr(), writer.peer_addr())]
    {
        assert_eq!((half_local.unwrap(), half_remote.unwrap()), (local, remote));
    }
    let mut room = [0; 8];
    let error = reader.try_read(&mut room).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(dropped_at(Moment::Waiting, reader.readable()).await.is_none(), "nothing is there");
    peer.write_all(b"12345").await.unwrap();
    let mut bytes = tried(&reader, 2).await;
    while bytes.len() < 5 {
        bytes.extend(tried(&reader, 5 - bytes.len()).await);
    }
    assert_eq!(bytes, b"12345");
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(tried(&reader, 1).await.is_empty(), "the end is something to read");
}

/// What `try_read` gives, which may find nothing once before `readable` waits for it.
async fn tried(reader: &quoit::net::OwnedReadHalf, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; room];
    for _ in 0..2 {
        within("readable", reader.readable()).await.unwrap();
        match reader.try_read(&mut bytes) {
            Ok(count) => {
                bytes.truncate(count);
                return bytes;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    panic!("it is readable, and nothing is there to read");
}

#[quoit::test(seeds = 16)]
async fn a_writing_half_tells_when_there_is_room() {
    let (stream, mut peer) = narrow_pair().await;
    let (_reader, writer) = stream.into_split();
    within("writable", writer.writable()).await.unwrap();
    let parts = [IoSlice::new(b"two "), IoSlice::new(b"parts")];
    assert_eq!(writer.try_write_vectored(&parts).unwrap(), 9);
    let mut written = 0;
    let error = loop {
        match writer.try_write(&bytes_of(3, written, 50_000)) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let wakes = Wakes::new();
    let mut writable = Box::pin(writer.writable());
    assert!(wakes.poll(writable.as_mut()).is_pending(), "{written} bytes and no end");
    let mut bytes = vec![0; 9 + written];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..9], b"two parts");
    check_bytes(3, 0, &bytes[9..]);
    until("it is told of the room", || wakes.count() > 0).await;
    within("writable", writable).await.unwrap();
    assert_eq!(writer.try_write(b"again").unwrap(), 5);
    drop(writer);
    assert_eq!(read_to_end(&mut peer).await.0, b"again");
}
