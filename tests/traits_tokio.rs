//! tokio's reader and writer traits on our streams, on both rings.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures::poll;
use quoit::net::TcpStream;
use quoit::time::timeout;
use quoit::{RingChoice, Runtime};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::common::{SOON, check, pair, pattern, soon, with_std};

#[test]
fn vectored_writes_go_out_whole_and_as_one() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (mut stream, mut peer) = runtime.block_on(with_std());
        assert!(AsyncWrite::is_write_vectored(&stream) && AsyncWrite::is_write_vectored(&&stream));
        let parts = ["five ", "parts", ", ", "one", " call"];
        let parts = parts.map(|part| IoSlice::new(part.as_bytes()));
        let before = runtime.metrics().ring.direct_calls;
        let write = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &parts));
        assert_eq!(runtime.block_on(write).unwrap(), 20);
        assert_eq!(runtime.metrics().ring.direct_calls - before, 1);
        let mut received = [0; 20];
        peer.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"five parts, one call");
        let (reader, writer) = stream.into_split();
        assert!(AsyncWrite::is_write_vectored(&writer));
        drop(reader);
    }
}

/// A short answer has emptied the socket, the first one of a stream too.
#[test]
fn a_short_read_is_not_asked_again() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (mut stream, mut peer) = runtime.block_on(with_std());
        for word in [&b"first"[..], b"second"] {
            peer.write_all(word).unwrap();
            let mut into = [0; 64];
            // The watch may have to tell of the second.
            assert_eq!(runtime.block_on(stream.read(&mut into)).unwrap(), word.len());
            let before = runtime.metrics().ring.direct_calls;
            runtime.block_on(async {
                let waits = poll_fn(|cx| {
                    let mut buffer = ReadBuf::new(&mut into);
                    Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut buffer).is_pending())
                });
                assert!(waits.await);
            });
            assert_eq!(runtime.metrics().ring.direct_calls, before, "{ring:?}");
        }
    }
}

/// No watch has told of it, for none was asked for.
#[test]
fn what_came_after_a_short_read_is_there_for_who_does_not_wait() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (stream, mut peer) = runtime.block_on(with_std());
        let mut arrive = |bytes: &[u8]| {
            peer.write_all(bytes).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut into = [0; 64];
        arrive(b"short");
        assert_eq!(runtime.block_on(stream.read(&mut into)).unwrap(), 5);
        for _ in 0..2 {
            arrive(b"more");
            let tried = runtime.block_on(async { stream.try_read(&mut into) });
            assert_eq!(tried.unwrap(), 4, "{ring:?}");
        }
    }
}

#[quoit::test]
async fn shutdown_sends_fin_behind_committed_bytes() {
    let (stream, mut peer) = with_std().await;
    let committed = pattern(0, 6_000_000);
    let mut send = pin!(stream.send(committed));
    assert!(poll!(&mut send).is_pending());
    let mut writer = &stream;
    let mut shutdown = pin!(AsyncWriteExt::shutdown(&mut writer));
    assert!(poll!(&mut shutdown).is_pending(), "committed bytes stand before the FIN");
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        peer.write_all(b"still listening?").unwrap();
        received
    });
    soon("the shutdown", shutdown).await.unwrap();
    send.await.unwrap();
    let received = reader.join().unwrap();
    assert_eq!(received.len(), 6_000_000);
    check(&received, 0);
    assert_eq!(&stream.recv().await.unwrap()[..], b"still listening?");
    let mut writer = &stream;
    AsyncWriteExt::shutdown(&mut writer).await.expect("a second one does no harm");
    let late = AsyncWriteExt::write_all(&mut writer, b"late").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
}

/// The rest of the reader's buffer is not touched: a runtime that fills it with zeroes pays for
/// every read with the whole buffer.
#[quoit::test]
async fn reads_write_nothing_but_what_was_read() {
    let (mut stream, mut peer) = with_std().await;
    for tier in ["direct", "leased"] {
        if tier == "leased" {
            peer.write_all(b"x").unwrap();
            stream.recv().await.unwrap();
        }
        peer.write_all(b"ten bytes!").unwrap();
        let mut memory = [MaybeUninit::new(0xA5_u8); 64];
        let mut buffer = ReadBuf::uninit(&mut memory);
        soon("the read", poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buffer)))
            .await
            .unwrap();
        assert_eq!(buffer.filled(), b"ten bytes!");
        assert_eq!(buffer.initialized().len(), 10, "{tier}: more was claimed than was read");
        // SAFETY: all of it was initialised at the start.
        let rest = memory[10..].iter().map(|byte| unsafe { byte.assume_init() });
        assert!(rest.into_iter().all(|byte| byte == 0xA5), "{tier}");
    }
    let mut full = [0; 0];
    assert_eq!(AsyncReadExt::read(&mut stream, &mut full).await.unwrap(), 0, "no room, no end");
}

/// One task waits to read while another waits to write; each is woken for its own.
#[quoit::test]
async fn both_directions_have_a_waker_of_their_own() {
    let (stream, mut peer) = with_std().await;
    let (mut reader, mut writer) = stream.into_split();
    let reading = quoit::spawn(async move {
        let mut buffer = [0; 8];
        let count = AsyncReadExt::read(&mut reader, &mut buffer).await.unwrap();
        (reader, buffer[..count].to_vec())
    });
    let writing = quoit::spawn(async move {
        AsyncWriteExt::write_all(&mut writer, &pattern(0, 8_000_000)).await.unwrap();
        writer
    });
    quoit::time::sleep(Duration::from_millis(5)).await;
    assert!(!reading.is_finished() && !writing.is_finished());
    peer.write_all(b"read me").unwrap();
    let (reader, read) = soon("the read", reading).await.unwrap();
    assert_eq!(read, b"read me");
    assert!(!writing.is_finished());
    let draining = std::thread::spawn(move || {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        received
    });
    drop(soon("the write", writing).await.unwrap());
    let received = draining.join().unwrap();
    assert_eq!(received.len(), 8_000_000);
    check(&received, 0);
    drop(reader);
}

/// A flush has nothing to wait for here, and is no answer to the write.
#[quoit::test]
async fn a_write_that_waits_is_woken_though_a_flush_was_answered() {
    let (mut stream, mut peer) = with_std().await;
    let chunk = vec![0; 1 << 20];
    poll_fn(|cx| {
        while Pin::new(&mut stream).poll_write(cx, &chunk).map(Result::unwrap).is_ready() {}
        Pin::new(&mut stream).poll_flush(cx)
    })
    .await
    .unwrap();
    quoit::task::yield_now().await;
    let mut is_told = false;
    let write = poll_fn(|cx| {
        let written = Pin::new(&mut stream).poll_write(cx, &chunk);
        if !is_told {
            assert!(written.is_pending());
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
            is_told = true;
        }
        written
    });
    let reader = quoit::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(20));
        peer.read_to_end(&mut Vec::new()).unwrap();
    });
    assert!(soon("the write", write).await.unwrap() > 0);
    drop(stream);
    reader.await.unwrap();
}

/// What a write reports is what the kernel has: an error never comes later than that.
#[quoit::test]
async fn a_failed_write_is_told_and_told_again() {
    let (mut stream, peer) = with_std().await;
    let socket = socket2::Socket::from(peer);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    quoit::time::sleep(Duration::from_millis(5)).await;
    let first = AsyncWriteExt::write(&mut stream, b"lost").await.unwrap_err();
    for _ in 0..2 {
        let again = AsyncWriteExt::flush(&mut stream).await.unwrap_err();
        assert_eq!(again.kind(), first.kind());
        let again = AsyncWriteExt::shutdown(&mut stream).await.unwrap_err();
        assert_eq!(again.kind(), first.kind());
    }
}

#[quoit::test]
async fn small_messages_are_not_held_back() {
    let (client, server) = pair().await;
    assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
    let echo = quoit::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(server);
        tokio::io::copy(&mut reader, &mut writer).await
    });
    let (mut reader, mut writer) = tokio::io::split(client);
    let started = std::time::Instant::now();
    for _ in 0..50 {
        // Two small writes before a read: with Nagle's algorithm each round waits for a delayed
        // acknowledgement, about 40 ms.
        writer.write_all(b"pi").await.unwrap();
        writer.write_all(b"ng").await.unwrap();
        reader.read_exact(&mut [0; 4]).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
    writer.shutdown().await.unwrap();
    assert_eq!(soon("the end", echo).await.unwrap().unwrap(), 200);
}

/// A read whose future is gone has left its waker behind, and must not bar the way.
#[quoit::test]
async fn a_dropped_read_does_not_block_the_next_of_any_tier() {
    let (stream, mut peer) = with_std().await;
    let mut buffer = [0; 8];
    for round in 0..4 {
        let mut reader = &stream;
        let mut read = Box::pin(AsyncReadExt::read(&mut reader, &mut buffer));
        assert!(poll!(&mut read).is_pending());
        drop(read);
        peer.write_all(b"bytes").unwrap();
        match round {
            0 => assert_eq!(soon("a read", stream.read(&mut buffer)).await.unwrap(), 5),
            1 => {
                let read = soon("an exact read", stream.read_exact(&mut buffer[..5]));
                assert_eq!(read.await.unwrap(), 5);
            }
            2 => assert_eq!(soon("a lease", stream.recv()).await.unwrap().len(), 5),
            _ => assert_eq!(
                soon("a read", AsyncReadExt::read(&mut &stream, &mut buffer)).await.unwrap(),
                5
            ),
        }
    }
    // Nor does a forgotten waker keep the budget of received bytes from being enforced.
    let mut reader = &stream;
    let mut read = Box::pin(AsyncReadExt::read(&mut reader, &mut buffer));
    assert!(poll!(&mut read).is_pending());
    drop(read);
    peer.set_nonblocking(true).unwrap();
    let mut sent = 0;
    for _ in 0..100 {
        while let Ok(count) = peer.write(&pattern(sent % 251, 65_536)) {
            sent += count;
        }
        quoit::time::sleep(Duration::from_micros(500)).await;
    }
    assert!(sent < 64 << 20, "the peer could send {sent} bytes that nobody reads");
    let mut received = 0;
    while received < sent {
        let lease = soon("a lease", stream.recv()).await.unwrap();
        check(&lease, received);
        received += lease.len();
    }
}

#[quoit::test]
async fn lends_received_bytes_in_place() {
    let (mut stream, mut peer) = with_std().await;
    peer.write_all(b"first line\nsecond line\nrest").unwrap();
    let mut line = String::new();
    assert_eq!(soon("a line", stream.read_line(&mut line)).await.unwrap(), 11);
    assert_eq!(line, "first line\n");

    // Not consumed, it stays for any tier; consumed by parts, the rest stays.
    assert_eq!(soon("bytes", stream.fill_buf()).await.unwrap(), b"second line\nrest");
    AsyncBufReadExt::consume(&mut stream, 2);
    AsyncBufReadExt::consume(&mut stream, 5);
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"line\n");
    AsyncBufReadExt::consume(&mut stream, 3); // nothing is lent: takes nothing
    assert_eq!(soon("bytes", stream.fill_buf()).await.unwrap(), b"rest");
    assert_eq!(&stream.recv().await.unwrap()[..], b"rest");

    peer.write_all(b"to the half").unwrap();
    let (mut reader, writer) = stream.into_split();
    assert_eq!(soon("bytes", reader.fill_buf()).await.unwrap(), b"to the half");
    AsyncBufReadExt::consume(&mut reader, 3);
    let mut stream = reader.reunite(writer).unwrap();
    assert_eq!(soon("bytes", stream.fill_buf()).await.unwrap(), b"the half");
    AsyncBufReadExt::consume(&mut stream, 100);
    drop(peer);
    assert_eq!(soon("the end", stream.fill_buf()).await.unwrap(), b"");
}

/// Waiting in `fill_buf` passes through the poller's place as all polls do.
#[quoit::test]
async fn reads_lines_as_they_come() {
    let (client, server) = pair().await;
    let writing = quoit::spawn(async move {
        for number in 0..500 {
            client.send_all(format!("line {number}\nli")).await.unwrap();
            client.send_all(format!("ne {number} again\n")).await.unwrap();
            if number % 7 == 0 {
                quoit::task::yield_now().await;
            }
        }
    });
    let mut lines = server.lines();
    for number in 0..500 {
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line, format!("line {number}"));
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        assert_eq!(line, format!("line {number} again"));
    }
    assert!(soon("the end", lines.next_line()).await.unwrap().is_none());
    writing.await.unwrap();
}

/// The bytes that `fill_buf` lends belong to the core's pool; the slice outlives the runtime.
#[test]
fn a_lent_slice_outlives_its_runtime() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (mut stream, mut peer) = runtime.block_on(with_std());
        peer.write_all(&pattern(0, 10_000)).unwrap();
        let lent = runtime.block_on(stream.fill_buf()).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        drop(runtime);
        // The pool's memory is gone by now, unless the slice's part of it is kept.
        let churn: Vec<_> = (0..64).map(|_| vec![0xEE_u8; 16 * 1024]).collect();
        check(lent, 0);
        drop(churn);
        AsyncBufReadExt::consume(&mut stream, 1); // nothing left to take, and no panic
        drop(stream);
    }
}

/// A writer that changes between native and foreign calls.
async fn write_every_way(client: &mut TcpStream, total: usize) {
    let (bytes, mut at) = (pattern(0, total), 0);
    while at < total {
        let end = (at + 1 + at % 9973).min(total);
        at = match at % 4 {
            0 => {
                client.send_all(bytes[at..end].to_vec()).await.unwrap();
                end
            }
            1 => {
                AsyncWriteExt::write_all(client, &bytes[at..end]).await.unwrap();
                end
            }
            2 => {
                (*client).write_all(&bytes[at..end]).await.unwrap();
                end
            }
            // Dropped, it has written nothing: a slice never queues.
            _ => {
                let written = once(AsyncWriteExt::write(client, &bytes[at..end])).await;
                at + written.map_or(0, Result::unwrap)
            }
        };
    }
    AsyncWriteExt::shutdown(client).await.unwrap();
}

/// One reader that changes between native and foreign calls, and drops what does not answer.
async fn read_every_way(server: &mut TcpStream, total: usize) {
    // Through `&mut`, tokio's methods come before ours of the same name.
    let (mut at, mut buffer, mut step) = (0, vec![0; 8192], 0_usize);
    while at < total {
        step += 1;
        let room = (1 + step * 7919 % 8191).min(total - at);
        let into = &mut buffer[..room];
        let count = match step % 5 {
            0 => once(AsyncReadExt::read(server, into)).await.map(Result::unwrap),
            1 => {
                let Some(lent) = once(server.fill_buf()).await else { continue };
                let lent = lent.unwrap();
                let count = lent.len().min(room);
                into[..count].copy_from_slice(&lent[..count]);
                AsyncBufReadExt::consume(server, count);
                Some(count)
            }
            2 => {
                let Some(lease) = once(server.recv()).await else { continue };
                let lease = lease.unwrap();
                check(&lease, at);
                at += lease.len();
                continue;
            }
            3 => once((*server).read_exact(into)).await.map(|read| read.map(|_| room).unwrap()),
            _ => once((*server).read(into)).await.map(Result::unwrap),
        };
        let count = count.unwrap_or(0);
        check(&buffer[..count], at);
        at += count;
    }
    assert_eq!(at, total);
    assert_eq!(AsyncReadExt::read(server, &mut buffer).await.unwrap(), 0);
}

#[quoit::test]
async fn tiers_mix_without_loss_repetition_or_disorder() {
    const TOTAL: usize = 2_000_000;
    let (mut client, mut server) = pair().await;
    let writing = quoit::spawn(async move {
        write_every_way(&mut client, TOTAL).await;
        client
    });
    timeout(SOON * 4, read_every_way(&mut server, TOTAL)).await.unwrap();
    soon("the writer", writing).await.unwrap();
}

/// Two polls with a turn between, then dropped.
async fn once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll!(&mut future) {
        return Some(output);
    }
    quoit::task::yield_now().await;
    match poll!(&mut future) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

#[quoit::test]
async fn tokios_own_loops_run_on_our_streams() {
    const TOTAL: usize = 1_500_000;
    // client <-> front | proxy | back <-> server
    let ((client, mut front), (mut back, server)) = (pair().await, pair().await);
    let proxy =
        quoit::spawn(
            async move { tokio::io::copy_bidirectional(&mut front, &mut back).await.unwrap() },
        );
    let echo = quoit::spawn(async move {
        let (mut reader, mut writer) = server.into_split();
        let count = tokio::io::copy_buf(&mut reader, &mut writer).await.unwrap();
        AsyncWriteExt::shutdown(&mut writer).await.unwrap();
        count
    });
    let (mut reader, mut writer) = tokio::io::split(client);
    let sending = quoit::spawn(async move {
        writer.write_all(&pattern(0, TOTAL)).await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut received = Vec::new();
    soon("all of it", reader.read_to_end(&mut received)).await.unwrap();
    check(&received, 0);
    assert_eq!(received.len(), TOTAL);
    assert_eq!(soon("the proxy", proxy).await.unwrap(), (TOTAL as u64, TOTAL as u64));
    assert_eq!(soon("the echo", echo).await.unwrap(), TOTAL as u64);
    drop(sending.await.unwrap());
}
