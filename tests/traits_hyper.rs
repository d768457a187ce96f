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
        fn poll(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            std::task::Poll::Pending
        }
    }
    impl hyper::rt::Sleep for Never {}
    let mut sleep: Pin<Box<dyn hyper::rt::Sleep>> = Box::pin(Never);
    QuoitTimer.reset(&mut sleep, QuoitTimer.now() + Duration::from_secs(1));
    sleep.await;
}
