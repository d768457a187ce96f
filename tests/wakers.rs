//! Wakers that are foreign code: copying or dropping one may call back into the runtime.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::task::JoinSet;
use quoit::time::{sleep, timeout};

use crate::common::with_std;

thread_local! {
    /// What the wakers call back to.
    static STREAM: RefCell<Option<Rc<TcpStream>>> = const { RefCell::new(None) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static COPIES: Cell<usize> = const { Cell::new(0) };
    static WAKES: Cell<usize> = const { Cell::new(0) };
}

static TABLE: RawWakerVTable = RawWakerVTable::new(copy, wake, wake, release);

/// Uses the runtime: its tables, its timers and its tasks.
fn meddle() {
    if BUSY.replace(true) {
        return;
    }
    let stream = STREAM.with_borrow(Clone::clone);
    if let Some(stream) = stream {
        assert!(stream.try_read(&mut [0]).is_err(), "nothing is there");
        drop(Box::pin(stream.recv()).as_mut().poll(&mut Context::from_waker(Waker::noop())));
        let mut timer = Box::pin(sleep(Duration::from_secs(60)));
        assert!(timer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(quoit::spawn(async {}));
    }
    BUSY.set(false);
}

unsafe fn copy(data: *const ()) -> RawWaker {
    COPIES.set(COPIES.get() + 1);
    meddle();
    RawWaker::new(data, &TABLE)
}

unsafe fn wake(_: *const ()) {
    WAKES.set(WAKES.get() + 1);
}

unsafe fn release(_: *const ()) {
    meddle();
}

/// A waker of this kind. Those with different numbers are different wakers.
fn waker(number: usize) -> Waker {
    let data = std::ptr::without_provenance(number + 1);
    // SAFETY: the functions are called on this thread alone, and the data is never followed.
    unsafe { Waker::from_raw(RawWaker::new(data, &TABLE)) }
}

/// Polls with one waker and then with another, so that one is kept and then replaced.
#[track_caller]
fn waits<F: Future + ?Sized>(mut future: Pin<&mut F>) {
    for number in [0, 0, 1] {
        let waker = waker(number);
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
}

async fn is_woken<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> T {
    let before = WAKES.get();
    let woken = async {
        while WAKES.get() == before {
            sleep(Duration::from_micros(200)).await;
        }
    };
    timeout(Duration::from_secs(5), woken).await.expect("a wake");
    loop {
        let waker = waker(2);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => sleep(Duration::from_millis(1)).await,
        }
    }
}

#[quoit::test]
async fn wakers_may_call_back_when_they_are_copied_and_dropped() {
    let (meddled, _silent) = with_std().await;
    STREAM.set(Some(Rc::new(meddled)));
    let (stream, mut peer) = with_std().await;

    let mut recv: Pin<Box<dyn Future<Output = _>>> = Box::pin(stream.recv());
    waits(recv.as_mut());
    let mut second = Box::pin(stream.recv());
    waits(second.as_mut());
    drop(second);
    peer.write_all(b"one").unwrap();
    assert_eq!(is_woken(recv).await.unwrap(), "one");

    let mut into = [0; 6];
    let mut exact: Pin<Box<dyn Future<Output = _>>> = Box::pin(stream.read_exact(&mut into));
    waits(exact.as_mut());
    peer.write_all(b"two").unwrap();
    sleep(Duration::from_millis(5)).await;
    waits(exact.as_mut());
    peer.write_all(b"six").unwrap();
    is_woken(exact).await.unwrap();
    assert_eq!(&into, b"twosix");

    while stream.try_write(&[0; 100_000]).is_ok() {}
    let mut write = Box::pin(stream.write(b"more"));
    waits(write.as_mut());
    drop(write);
    let mut send = Box::pin(stream.send(vec![0; 1_000_000]));
    waits(send.as_mut());
    let mut flush = Box::pin(stream.flush());
    waits(flush.as_mut());
    let mut detach = Box::pin(stream.detach());
    waits(detach.as_mut());
    drop((detach, flush, send));
    stream.abort();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut accept: Pin<Box<dyn Future<Output = _>>> = Box::pin(listener.accept());
    waits(accept.as_mut());
    let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    is_woken(accept).await.unwrap();

    let (idle, _peer) = with_std().await;
    let mut readable = Box::pin(idle.readable());
    waits(readable.as_mut());
    drop(readable);
    let mut recv = Box::pin(idle.recv());
    waits(recv.as_mut());
    // What a receive brings is kept, so on every ring a detach waits for its end.
    drop(recv);
    let mut detach: Pin<Box<dyn Future<Output = _>>> = Box::pin(idle.detach());
    waits(detach.as_mut());
    is_woken(detach).await.unwrap();
    STREAM.set(None);
}

#[quoit::test]
async fn files_timers_and_tasks_take_such_wakers_too() {
    let (meddled, _silent) = with_std().await;
    STREAM.set(Some(Rc::new(meddled)));
    let file = quoit::fs::File::open("/proc/self/exe").await.unwrap();
    let mut read: Pin<Box<dyn Future<Output = _>>> = Box::pin(file.read_at(vec![0; 1 << 18], 0));
    waits(read.as_mut());
    is_woken(read).await.unwrap();

    let mut timer: Pin<Box<dyn Future<Output = _>>> = Box::pin(sleep(Duration::from_millis(2)));
    waits(timer.as_mut());
    is_woken(timer).await;

    let mut join: Pin<Box<dyn Future<Output = _>>> =
        Box::pin(quoit::spawn(sleep(Duration::from_millis(2))));
    waits(join.as_mut());
    is_woken(join).await.unwrap();

    let mut set = JoinSet::new();
    set.spawn(sleep(Duration::from_millis(2)));
    let mut next: Pin<Box<dyn Future<Output = _>>> = Box::pin(set.join_next());
    waits(next.as_mut());
    is_woken(next).await.unwrap().unwrap();
    STREAM.set(None);
}

/// One that is known already is not copied again.
#[quoit::test]
async fn a_waker_that_is_kept_is_not_copied_again() {
    let (stream, _peer) = with_std().await;
    let mut recv = pin!(stream.recv());
    let waker = waker(0);
    let before = COPIES.get();
    for _ in 0..10 {
        assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(COPIES.get() - before, 1);
}
