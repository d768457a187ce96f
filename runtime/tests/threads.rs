//! What crosses threads: wakers, handles, messages.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::{LONG, NOW, counted, on_thread, settle};
use crate::runtime::{AbortHandle, Handle, JoinError, JoinHandle, Runtime};

#[test]
fn the_last_waker_elsewhere_frees_only_the_cell() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(1);
    let task = runtime.spawn(future);
    settle(&runtime);
    let waker = books.waker();
    books.forget_waker();
    task.abort();
    settle(&runtime);
    drop(task);
    assert_eq!(books.counts(), (1, 1, 0));
    assert_eq!(books.dropped_on(), [thread::current().id()]);
    on_thread(move || drop(waker));
    assert_eq!(books.counts(), (1, 1, 0));
    assert_eq!(Arc::strong_count(&books), 1);
}

#[test]
fn handles_cross_threads_when_their_output_may() {
    fn sendable<T: Send + Sync + Unpin>() {}
    sendable::<JoinHandle<u32>>();
    sendable::<AbortHandle>();
    sendable::<Handle>();
    sendable::<JoinError>();

    // Dropped elsewhere after the end: the output goes there, the future went here.
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(0);
    let task = runtime.spawn(future);
    settle(&runtime);
    let there = on_thread(move || {
        drop(task);
        thread::current().id()
    });
    assert_eq!(books.dropped_on(), [thread::current().id(), there]);
    // Dropped elsewhere before the end: both here.
    let (books, future) = counted(0);
    let task = runtime.spawn(future);
    on_thread(move || drop(task));
    settle(&runtime);
    assert_eq!(books.dropped_on(), [thread::current().id(); 2]);
}

#[test]
fn a_handle_is_awaited_by_another_core_and_by_a_foreign_executor() {
    let runtime = Runtime::new().unwrap();
    let first = runtime.spawn(async { 1 });
    let second = runtime.spawn(async { 2 });
    let (done, is_done) = mpsc::channel();
    let thread = thread::spawn(move || {
        let other = Runtime::new().unwrap();
        let first = other.block_on(first).unwrap();
        let second = futures::executor::block_on(second).unwrap();
        done.send(first + second).unwrap();
    });
    let deadline = Instant::now() + LONG;
    let sum = loop {
        runtime.turn(Some(Duration::from_millis(1)));
        if let Ok(sum) = is_done.try_recv() {
            break sum;
        }
        assert!(Instant::now() < deadline, "the other thread was never woken");
    };
    assert_eq!(sum, 3);
    thread.join().unwrap();
}

#[test]
fn senders_race_with_the_end_of_their_core() {
    for _ in 0..50 {
        let runtime = Runtime::new().unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (handle, sent) = (runtime.handle(), sent.clone());
                thread::spawn(move || {
                    let tasks: Vec<_> = (0..100)
                        .map(|_| {
                            let sent = sent.clone();
                            handle.spawn_with(move || async move {
                                sent.fetch_add(1, Ordering::SeqCst);
                            })
                        })
                        .collect();
                    tasks.into_iter().map(futures::executor::block_on).collect()
                })
            })
            .collect();
        while sent.load(Ordering::SeqCst) < 20 {
            runtime.turn(NOW);
        }
        drop(runtime);
        let mut ran = 0;
        for thread in threads {
            let results: Vec<Result<(), _>> = thread.join().unwrap();
            ran += results.iter().filter(|result| result.is_ok()).count();
        }
        assert_eq!(ran, sent.load(Ordering::SeqCst), "each ran or was cancelled");
        assert_eq!(Arc::strong_count(&sent), 1, "no closure is stranded");
    }
}

#[test]
fn wakes_from_many_threads_are_never_lost() {
    let runtime = Runtime::new().unwrap();
    let balls: Vec<_> = (0..4)
        .map(|_| {
            let (to, from) = mpsc::channel::<Waker>();
            let hit = Arc::new(AtomicUsize::new(0));
            let thread = thread::spawn({
                let hit = hit.clone();
                move || {
                    for waker in from {
                        hit.fetch_add(1, Ordering::SeqCst);
                        waker.wake();
                    }
                }
            });
            let task = runtime.spawn(async move {
                for round in 1..=2_000 {
                    let mut asked = false;
                    poll_fn(|context| {
                        if hit.load(Ordering::SeqCst) == round {
                            return Poll::Ready(());
                        }
                        if !asked {
                            asked = true;
                            to.send(context.waker().clone()).unwrap();
                        }
                        Poll::Pending
                    })
                    .await;
                }
            });
            (thread, task)
        })
        .collect();
    for (thread, task) in balls {
        runtime.block_on(task).unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn a_spinning_core_is_woken_without_having_slept() {
    let runtime = Runtime::builder().spin(LONG).build().unwrap();
    let (books, future) = counted(1);
    let thread = thread::spawn({
        let books = books.clone();
        move || {
            while books.waker.lock().unwrap().is_none() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            books.waker().wake();
        }
    });
    let task = runtime.spawn(future);
    drop(runtime.block_on(task).unwrap());
    thread.join().unwrap();
    assert_eq!(books.counts(), (2, 1, 1));
    let metrics = runtime.metrics();
    assert_eq!((metrics.parks, metrics.remote_wakes), (0, 1));
}

#[test]
fn what_was_sent_waits_to_be_seen() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    assert_eq!(runtime.metrics().remote_waiting, 0);
    on_thread(move || (0..3).for_each(|_| drop(handle.spawn(async {}))));
    assert_eq!(runtime.metrics().remote_waiting, 3, "the core stands still");
    settle(&runtime);
    let metrics = runtime.metrics();
    assert_eq!((metrics.remote_waiting, metrics.tasks_spawned, metrics.tasks_alive), (0, 3, 0));
}
