//! The slice tier: reads and writes that the kernel never sees across a return from `poll`.
//!
//! Every test runs on both rings. What is checked byte for byte is a counting pattern, so that a
//! byte lost, repeated or out of order shows where it happened.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use quoit::net::TcpStream;
use quoit::time::timeout;

use crate::common::{SOON, check, pair, pattern, soon, with_std};

/// A small generator of our own: the same run for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn reset(peer: std::net::TcpStream) {
    let socket = socket2::Socket::from(peer);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

#[quoit::test]
async fn reads_what_is_there_and_then_the_end() {
    let (client, server) = pair().await;
    client.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 16];
    assert_eq!(server.read(&mut []).await.unwrap(), 0, "an empty slice is no end");
    assert_eq!(soon("a read", server.read(&mut buffer)).await.unwrap(), 5);
    assert_eq!(&buffer[..5], b"hello");
    client.shutdown().await.unwrap();
    for _ in 0..2 {
        assert_eq!(soon("the end", server.read(&mut buffer)).await.unwrap(), 0);
    }
    server.write_all(b"still open this way").await.unwrap();
    assert_eq!(&client.recv().await.unwrap()[..], b"still open this way");
}

/// Data and FIN can come as one event; the short read that follows must not hide the end.
#[quoit::test]
async fn the_end_behind_a_short_read_is_seen() {
    for _ in 0..50 {
        let (stream, mut peer) = with_std().await;
        let mut buffer = [0; 64];
        {
            let mut read = pin!(stream.read(&mut buffer));
            assert!(poll!(&mut read).is_pending());
            quoit::task::yield_now().await;
            quoit::time::sleep(Duration::from_micros(200)).await;
            peer.write_all(b"last words").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(soon("the last words", read).await.unwrap(), 10);
        }
        assert_eq!(soon("the end", stream.read(&mut buffer)).await.unwrap(), 0);
    }
}

#[quoit::test]
async fn a_reset_behind_a_short_read_is_seen() {
    for _ in 0..20 {
        let (stream, mut peer) = with_std().await;
        let mut buffer = [0; 64];
        let error = {
            let mut read = pin!(stream.read(&mut buffer));
            assert!(poll!(&mut read).is_pending());
            quoit::time::sleep(Duration::from_micros(200)).await;
            peer.write_all(b"last words").unwrap();
            reset(peer);
            // The kernel may drop what it had received when the reset comes.
            soon("an answer", read).await
        };
        let error = match error {
            Ok(10) => soon("the reset", stream.read(&mut buffer)).await.unwrap_err(),
            Ok(count) => panic!("{count} bytes"),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let again = soon("the reset again", stream.read(&mut buffer)).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::ConnectionReset);
    }
}

#[quoit::test]
async fn peek_takes_nothing_not_even_an_error() {
    let (stream, mut peer) = with_std().await;
    let mut buffer = [0; 4];
    peer.write_all(b"abcdef").unwrap();
    assert_eq!(soon("a peek", stream.peek(&mut buffer)).await.unwrap(), 4);
    assert_eq!(&buffer, b"abcd");
    assert_eq!(soon("a read", stream.read(&mut buffer[..2])).await.unwrap(), 2);
    assert_eq!(&buffer[..2], b"ab");
    // From the lease tier on, peeks look at what waits there.
    let lease = soon("a lease", stream.recv()).await.unwrap();
    assert_eq!(&lease[..], b"cdef");
    peer.write_all(b"gh").unwrap();
    assert_eq!(soon("a peek", stream.peek(&mut buffer)).await.unwrap(), 2);
    assert_eq!(&stream.recv().await.unwrap()[..], b"gh");

    let (stream, peer) = with_std().await;
    {
        let mut peek = pin!(stream.peek(&mut buffer));
        assert!(poll!(&mut peek).is_pending());
        reset(peer);
        let error = soon("the peek", peek).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    let error = soon("the read", stream.read(&mut buffer)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionReset, "the peek took the error");
}

#[quoit::test]
async fn read_exact_gives_back_what_it_had_when_it_is_dropped() {
    let (stream, mut peer) = with_std().await;
    peer.write_all(b"0123456789").unwrap();
    let mut buffer = [0; 16];
    {
        let mut exact = pin!(stream.read_exact(&mut buffer));
        assert!(poll!(&mut exact).is_pending());
        quoit::time::sleep(Duration::from_millis(1)).await;
        assert!(poll!(&mut exact).is_pending());
    }
    assert_eq!(&soon("a lease", stream.recv()).await.unwrap()[..], b"0123456789");

    peer.write_all(b"one\ntwo").unwrap();
    let mut line = b"so far ".to_vec();
    assert_eq!(soon("a line", stream.read_until(b'\n', &mut line, 80)).await.unwrap(), 4);
    assert_eq!(line, b"so far one\n");
    {
        let mut half = pin!(stream.read_until(b'\n', &mut line, 80));
        assert!(poll!(&mut half).is_pending());
    }
    assert_eq!(line, b"so far one\n");
    let long = soon("too long", stream.read_until(b'\n', &mut line, 2)).await;
    assert_eq!(long.unwrap_err().kind(), ErrorKind::InvalidData);
    peer.write_all(b"\n").unwrap();
    line.clear();
    assert_eq!(soon("a line", stream.read_until(b'\n', &mut line, 4)).await.unwrap(), 4);
    assert_eq!(line, b"two\n");

    peer.write_all(b"short").unwrap();
    drop(peer);
    let short = soon("the end", stream.read_exact(&mut buffer)).await.unwrap_err();
    assert_eq!(short.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(soon("what it had", stream.read(&mut buffer)).await.unwrap(), 5);
    assert_eq!(&buffer[..5], b"short");
}

/// Nobody comes between the two halves of one `read_exact`: `try_read` neither.
#[quoit::test]
async fn a_half_done_read_keeps_its_place() {
    let (stream, mut peer) = with_std().await;
    let (mut first, mut second) = ([0; 8], [0; 8]);
    peer.write_all(b"0123").unwrap();
    {
        let mut exact = pin!(stream.read_exact(&mut first));
        assert!(poll!(&mut exact).is_pending());
        let mut other = pin!(stream.read(&mut second));
        assert!(poll!(&mut other).is_pending());
        peer.write_all(b"4567rest").unwrap();
        quoit::time::sleep(Duration::from_millis(1)).await;
        let refused = stream.try_read(&mut [0; 8]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock, "bytes that others wait for");
        soon("the first", exact).await.unwrap();
        assert_eq!(soon("the second", other).await.unwrap(), 4);
    }
    assert_eq!((&first, &second[..4]), (b"01234567", &b"rest"[..]));
}

/// One reader that changes between all tiers and drops whatever does not answer at once.
async fn read_every_way(stream: &TcpStream, total: usize, seed: u64) {
    let (mut random, mut at, mut dropped) = (Random(seed), 0, 0_u32);
    let mut buffer = vec![0; 20_000];
    while at < total {
        let room = (1 + random.below(buffer.len() - 1)).min(total - at);
        let (way, polls) = (random.below(8), random.below(4));
        match read_one_way(stream, way, polls, &mut buffer[..room], at).await {
            Some(0) => panic!("the end at byte {at} of {total}"),
            Some(count) => at += count,
            None => dropped += 1,
        }
        if random.below(64) == 0 {
            quoit::task::yield_now().await;
        }
    }
    assert_eq!(at, total);
    assert!(dropped > 40, "only {dropped} futures were dropped");
    assert_eq!(soon("the end", stream.read(&mut buffer)).await.unwrap(), 0);
}

/// How many bytes were taken, all as they should be; `None` if the future was dropped.
async fn read_one_way(
    stream: &TcpStream,
    way: usize,
    polls: usize,
    into: &mut [u8],
    at: usize,
) -> Option<usize> {
    let count = match way {
        0 => {
            let lease = attempt(stream.recv(), polls).await?.unwrap();
            check(&lease, at);
            return Some(lease.len());
        }
        1 => {
            let read = stream.recv_into(Vec::with_capacity(into.len()));
            let (count, bytes) = attempt(read, polls).await?.unwrap();
            check(&bytes, at);
            return Some(count);
        }
        2 => {
            let mut line = Vec::new();
            let count = attempt(stream.read_until(200, &mut line, 1024), polls).await?.unwrap();
            assert_eq!(line.len(), count);
            check(&line, at);
            return Some(count);
        }
        3 => {
            let peeked = attempt(stream.peek(into), polls).await?.unwrap();
            check(&into[..peeked], at);
            return None;
        }
        4 => match stream.try_read(into) {
            Ok(count) => count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                attempt(stream.readable(), polls).await?.unwrap();
                return None;
            }
        },
        5 => {
            attempt(stream.read_exact(into), polls).await?.unwrap();
            into.len()
        }
        _ => attempt(stream.read(into), polls).await?.unwrap(),
    };
    check(&into[..count], at);
    Some(count)
}

/// Polls a future so many times, with a turn of the core in between, then drops it.
async fn attempt<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = poll!(&mut future) {
            return Some(output);
        }
        quoit::task::yield_now().await;
    }
    match poll!(&mut future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// A writer that changes between slices, vectored slices and owned buffers.
async fn write_every_way(stream: &TcpStream, total: usize, seed: u64) {
    let (mut random, mut at) = (Random(seed), 0);
    while at < total {
        let bytes = pattern(at, (1 + random.below(30_000)).min(total - at));
        at += match random.below(5) {
            0 => {
                stream.write_all(&bytes).await.unwrap();
                bytes.len()
            }
            1 => stream.send(bytes).await.unwrap().0,
            2 => {
                let parts: Vec<_> = bytes.chunks(777).map(IoSlice::new).collect();
                stream.write_vectored(&parts).await.unwrap()
            }
            3 => match stream.try_write(&bytes) {
                Ok(count) => count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    stream.writable().await.unwrap();
                    0
                }
            },
            _ => {
                // Dropped before it commits it sends nothing; a slice write never queues.
                attempt(stream.write(&bytes), random.below(3)).await.map_or(0, Result::unwrap)
            }
        };
        if random.below(16) == 0 {
            quoit::task::yield_now().await;
        }
    }
    stream.shutdown().await.unwrap();
}

#[quoit::test]
async fn tiers_mix_without_loss_repetition_or_disorder() {
    const TOTAL: usize = 3_000_000;
    for seed in 1..=3 {
        let (client, server) = pair().await;
        let writer = quoit::spawn(async move {
            write_every_way(&client, TOTAL, seed).await;
            client
        });
        timeout(SOON * 4, read_every_way(&server, TOTAL, seed + 100)).await.unwrap();
        writer.await.unwrap();
    }
}

#[quoit::test]
async fn bulk_goes_both_ways_at_once() {
    const TOTAL: usize = 4_000_000;
    let (client, server) = pair().await;
    let read = async |stream: &TcpStream| {
        let (mut at, mut buffer) = (0, vec![0; 65_536]);
        loop {
            let count = stream.read(&mut buffer).await.unwrap();
            if count == 0 {
                return at;
            }
            check(&buffer[..count], at);
            at += count;
        }
    };
    let write = async |stream: &TcpStream| {
        stream.write_all(&pattern(0, TOTAL)).await.unwrap();
        stream.shutdown().await.unwrap();
    };
    let everything =
        async { futures::join!(read(&client), write(&client), read(&server), write(&server)) };
    let (there, (), back, ()) = timeout(SOON * 4, everything).await.unwrap();
    assert_eq!((there, back), (TOTAL, TOTAL));
}

#[quoit::test]
async fn a_full_socket_wakes_its_writer() {
    let (stream, mut peer) = with_std().await;
    let chunk = pattern(0, 251 * 256);
    let mut sent = 0;
    loop {
        match stream.try_write(&chunk[sent % 251..]) {
            Ok(count) => sent += count,
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    let mut writable = pin!(stream.writable());
    assert!(poll!(&mut writable).is_pending());
    let mut write = pin!(stream.write(&chunk[sent % 251..]));
    assert!(poll!(&mut write).is_pending());
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        received
    });
    soon("room", writable).await.unwrap();
    sent += soon("the write", write).await.unwrap();
    stream.shutdown().await.unwrap();
    let received = reader.join().unwrap();
    assert_eq!(received.len(), sent);
    check(&received, 0);
}

/// A stream whose only request in flight is the watch of a full socket can still move.
#[quoit::test]
async fn detaches_after_it_was_full() {
    let (stream, mut peer) = with_std().await;
    // A task of its own: the first of a runtime is polled oftener than it is woken.
    let task = quoit::spawn(async move {
        let chunk = vec![7; 100_000];
        let mut sent = 0;
        while let Ok(count) = stream.try_write(&chunk) {
            sent += count;
        }
        quoit::time::sleep(Duration::from_millis(1)).await;
        stream.detach().await.unwrap();
        drop(stream.into_std().unwrap());
        sent
    });
    let sent = soon("to detach", task).await.unwrap();
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
}

#[quoit::test]
async fn a_write_after_a_failure_says_so() {
    let (stream, peer) = with_std().await;
    reset(peer);
    quoit::time::sleep(Duration::from_millis(5)).await;
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    let first = stream.write(b"lost").await.unwrap_err();
    assert!(kinds.contains(&first.kind()), "{first}");
    for _ in 0..2 {
        assert_eq!(stream.write(b"lost").await.unwrap_err().kind(), first.kind());
        assert_eq!(stream.flush().await.unwrap_err().kind(), first.kind());
        assert_eq!(stream.send_all("lost").await.unwrap_err().kind(), first.kind());
        assert_eq!(stream.try_write(b"lost").unwrap_err().kind(), first.kind());
        soon("readiness", stream.writable()).await.unwrap();
    }
    let shut = stream.shutdown().await.unwrap_err();
    assert_eq!(shut.kind(), first.kind());
}

/// A slice write waits until what is committed has gone, and comes right behind it.
#[quoit::test]
async fn a_slice_comes_behind_committed_bytes() {
    let (stream, mut peer) = with_std().await;
    let committed = pattern(0, 251 * 40_000);
    let length = committed.len();
    let mut send = pin!(stream.send(committed));
    assert!(poll!(&mut send).is_pending());
    assert_eq!(stream.try_write(b"!").unwrap_err().kind(), ErrorKind::WouldBlock);
    let mut write = pin!(stream.write(&[0, 1, 2]));
    assert!(poll!(&mut write).is_pending());
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        received
    });
    assert_eq!(soon("the write", write).await.unwrap(), 3);
    assert_eq!(send.await.unwrap().0, length);
    stream.shutdown().await.unwrap();
    let received = reader.join().unwrap();
    assert_eq!(received.len(), length + 3);
    check(&received, 0);
}

#[quoit::test]
async fn readable_and_try_read_work_together() {
    let (stream, mut peer) = with_std().await;
    let mut buffer = [0; 8];
    assert_eq!(stream.try_read(&mut []).unwrap(), 0);
    for round in 0..20 {
        let refused = stream.try_read(&mut buffer).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        let mut readable = pin!(stream.readable());
        assert!(poll!(&mut readable).is_pending(), "round {round}");
        peer.write_all(b"ping").unwrap();
        soon("readiness", readable).await.unwrap();
        assert_eq!(stream.try_read(&mut buffer).unwrap(), 4);
    }
    drop(peer);
    soon("readiness", stream.readable()).await.unwrap();
    assert_eq!(stream.try_read(&mut buffer).unwrap(), 0);
}

#[quoit::test]
async fn halves_share_one_stream() {
    let (client, mut server) = pair().await;
    let (reader, writer) = client.into_split();
    let echo = quoit::spawn(async move {
        let (from, to) = server.split();
        let mut buffer = [0; 1000];
        loop {
            match from.read(&mut buffer).await? {
                0 => break to.shutdown().await,
                count => to.write_all(&buffer[..count]).await?,
            }
        }
    });
    let sender = quoit::spawn(async move {
        writer.write_all(&pattern(0, 500_000)).await?;
        io::Result::Ok(writer) // dropped: FIN
    });
    let mut received = vec![0; 500_000];
    soon("the echo", reader.read_exact(&mut received)).await.unwrap();
    check(&received, 0);
    drop(sender.await.unwrap().unwrap());
    assert_eq!(soon("the end", reader.read(&mut received)).await.unwrap(), 0);
    echo.await.unwrap().unwrap();
}
