//! hyper's runtime traits on our streams and our runtime, on both rings. A whole server and client
//! are in `examples/ecosystem`.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::poll;
use hyper::rt::{Executor, Read, ReadBuf, Timer, Write};
use quoit::rt::{QuoitExecutor, QuoitTimer};
use quoit::time::{self, timeout};

use crate::common::{SOON, with_std};

#[quoit::test]
async fn reads_write_nothing_but_what_was_read() {
    let (mut stream, mut peer) = with_std().await;
    peer.write_all(b"request").unwrap();
    let mut memory = [MaybeUninit::new(0xA5_u8); 64];
    let mut buffer = ReadBuf::uninit(&mut memory);
    let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, buffer.unfilled()));
    timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!(buffer.filled(), b"request");
    // SAFETY: all of it was initialised at the start.
    let rest = memory[7..].iter().map(|byte| unsafe { byte.assume_init() });
    assert!(rest.into_iter().all(|byte| byte == 0xA5));
}

#[quoit::test]
async fn writes_are_vectored_and_shutdown_sends_fin() {
    let (mut stream, mut peer) = with_std().await;
    assert!(Write::is_write_vectored(&stream));
    let parts = [IoSlice::new(b"head "), IoSlice::new(b"body")];
    let write = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &parts));
    assert_eq!(timeout(SOON, write).await.unwrap().unwrap(), 9);
    poll_fn(|cx| Pin::new(&mut stream).poll_flush(cx)).await.unwrap();
    poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await.unwrap();
    let mut received = String::new();
    peer.read_to_string(&mut received).unwrap();
    assert_eq!(received, "head body");
}

/// Short ones are put together, long ones are not: it cannot be seen.
#[quoit::test]
async fn parts_of_any_length_go_out_in_order() {
    let (mut stream, mut peer) = with_std().await;
    let bytes: Vec<u8> = (0..6000_u32).map(|at| (at % 251) as u8).collect();
    for length in [1, 2, 30, 511, 512, 513, 6000] {
        for count in [1, 2, 3, 7] {
            let whole = &bytes[..length];
            let mut parts: Vec<_> =
                whole.chunks(length.div_ceil(count)).map(IoSlice::new).collect();
            parts.insert(parts.len() / 2, IoSlice::new(&[]));
            parts.insert(0, IoSlice::new(&[]));
            let write = poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &parts));
            assert_eq!(timeout(SOON, write).await.unwrap().unwrap(), length);
            let mut received = vec![0; length];
            peer.read_exact(&mut received).unwrap();
            assert!(received == whole, "{length} bytes in {count} parts");
        }
    }
}

/// HTTP/2 flushes after each write: a flush that has nothing to wait for takes nothing of what a
/// poll may have of I/O, unless it comes alone (`fairness.rs`).
#[quoit::test]
async fn a_flush_after_a_write_is_free() {
    let (mut stream, _peer) = with_std().await;
    let pairs = poll_fn(|cx| {
        let pair = |_: &u32| {
            let written = Pin::new(&mut stream).poll_write(cx, b"x");
            written.is_ready() && Pin::new(&mut stream).poll_flush(cx).is_ready()
        };
        Poll::Ready((0..100).take_while(pair).count())
    });
    assert_eq!(pairs.await, 100);
}

#[quoit::test]
async fn the_executor_takes_what_cannot_cross_threads() {
    let ran = Rc::new(Cell::new(false));
    let flag = ran.clone();
    QuoitExecutor.execute(async move { flag.set(true) });
    assert!(!ran.get(), "not inside the call");
    time::sleep(Duration::from_millis(1)).await;
    assert!(ran.get());
}

#[quoit::test(start_paused = true)]
async fn the_timer_keeps_the_time_of_its_core() {
    let timer = QuoitTimer;
    let (start, hour) = (timer.now(), Duration::from_secs(3600));
    timer.sleep(hour).await;
    assert_eq!(timer.now() - start, hour);
    timer.sleep_until(start + 2 * hour).await;
    assert_eq!(timer.now() - start, 2 * hour);
}

/// Set anew in place, as keep-alive timers are for each request: earlier, later, and after it
/// fired.
#[quoit::test(start_paused = true)]
async fn a_sleep_is_reset_without_a_new_one() {
    let timer = QuoitTimer;
    let second = Duration::from_secs(1);
    let start = timer.now();
    let mut sleep = timer.sleep(10 * second);
    let address =
        |sleep: &Pin<Box<dyn hyper::rt::Sleep>>| std::ptr::from_ref(&**sleep).cast::<u8>();
    let before = address(&sleep);
    assert!(poll!(&mut sleep).is_pending());
    for seconds in [20, 5, 30] {
        timer.reset(&mut sleep, start + seconds * second);
        assert_eq!(address(&sleep), before, "no new box");
    }
    sleep.as_mut().await;
    assert_eq!(timer.now() - start, 30 * second);
    timer.reset(&mut sleep, start + 40 * second);
    assert_eq!(address(&sleep), before);
    sleep.as_mut().await;
    assert_eq!(timer.now() - start, 40 * second);
}

/// A sleep of another timer is replaced by one of ours.
#[quoit::test(start_paused = true)]
async fn a_foreign_sleep_is_replaced() {
    struct Never;
    impl Future for Never {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }
    impl hyper::rt::Sleep for Never {}
    let mut sleep: Pin<Box<dyn hyper::rt::Sleep>> = Box::pin(Never);
    QuoitTimer.reset(&mut sleep, QuoitTimer.now() + Duration::from_secs(1));
    sleep.await;
}

/// Counts how often it was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One task may read while another one writes: each is woken for its own direction.
#[quoit::test]
async fn reading_and_writing_have_their_own_wakers() {
    let (mut stream, mut peer) = with_std().await;
    let (reader, writer) = (Arc::<Wakes>::default(), Arc::<Wakes>::default());
    let (read_waker, write_waker) = (Waker::from(reader.clone()), Waker::from(writer.clone()));
    let (mut reads, mut writes) =
        (Context::from_waker(&read_waker), Context::from_waker(&write_waker));
    let mut memory = [MaybeUninit::uninit(); 64];
    let mut buffer = ReadBuf::uninit(&mut memory);
    assert!(Pin::new(&mut stream).poll_read(&mut reads, buffer.unfilled()).is_pending());
    let mut written = 0;
    let mut waits = 0;
    // Many turns without room: the kernel grows its buffers meanwhile.
    while waits < 5 {
        match Pin::new(&mut stream).poll_write(&mut writes, &[7; 100_000]) {
            Poll::Ready(count) => (written, waits) = (written + count.unwrap(), 0),
            Poll::Pending => {
                waits += 1;
                time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    assert_eq!(reader.count(), 0);
    let told = writer.count();
    peer.write_all(b"request").unwrap();
    until("the reader is woken", || reader.count() > 0).await;
    assert_eq!(writer.count(), told, "there is no room yet");
    assert!(Pin::new(&mut stream).poll_read(&mut reads, buffer.unfilled()).is_ready());
    assert_eq!(buffer.filled(), b"request");
    let told = reader.count();
    let rest = std::thread::spawn(move || peer.read_exact(&mut vec![0; written]).map(|()| peer));
    until("the writer is woken", || writer.count() > 0).await;
    let _peer = rest.join().unwrap().unwrap();
    assert_eq!(reader.count(), told, "nothing came");
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            time::sleep(Duration::from_micros(200)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}: not in {SOON:?}"));
}

/// What was committed by a native send, and could not be sent, is told by the next call.
#[quoit::test]
async fn the_error_of_a_delayed_write_is_told() {
    let (mut stream, peer) = with_std().await;
    let committed = Box::pin(stream.send(vec![7; 30_000_000]));
    assert!(futures::poll!(committed).is_pending());
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let flushed = timeout(SOON, poll_fn(|cx| Pin::new(&mut stream).poll_flush(cx))).await.unwrap();
    assert_eq!(flushed.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let written = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, b"more")).await;
    assert!(written.is_err());
    let ended = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    assert!(ended.is_err(), "not all that was committed has gone out before the end");
}

/// Without it a response of two small writes waits for the peer's delayed acknowledgement.
#[quoit::test]
async fn small_writes_do_not_wait_for_acknowledgements() {
    let (client, server) = common::pair().await;
    assert!(client.nodelay().unwrap() && server.nodelay().unwrap());
}
