//! How a task ends other than by itself: aborts, panics, the end of its core.

use std::cell::RefCell;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;

use super::{Books, LONG, Output, counted, on_thread, settle};
use crate::runtime::{AbortHandle, Handle, JoinError, Runtime, spawn, yield_now};

#[test]
fn abort_drops_the_future_without_another_poll() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(5);
    let task = runtime.spawn(future);
    settle(&runtime);
    let abort = task.abort_handle();
    assert!(!abort.is_finished());
    on_thread({
        let abort = abort.clone();
        move || abort.abort()
    });
    assert_eq!(books.counts(), (1, 0, 0), "an abort is a message");
    settle(&runtime);
    assert_eq!(books.counts(), (1, 1, 0));
    assert_eq!(books.dropped_on(), [thread::current().id()]);
    assert!(abort.is_finished());
    abort.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
}

#[test]
fn abort_before_the_first_poll_and_from_inside() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(0);
    let error = runtime.block_on(async {
        let task = spawn(future);
        task.abort();
        task.await.map(drop).unwrap_err()
    });
    assert!(error.is_cancelled());
    assert_eq!(books.counts(), (0, 1, 0));

    let own: Rc<RefCell<Option<AbortHandle>>> = Rc::default();
    let inner = own.clone();
    let task = runtime.spawn(async move {
        inner.borrow().as_ref().unwrap().abort();
        yield_now().await;
        unreachable!("aborted at its next turn");
    });
    *own.borrow_mut() = Some(task.abort_handle());
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(0);
    let task = runtime.spawn(future);
    settle(&runtime);
    task.abort();
    settle(&runtime);
    assert!(runtime.block_on(task).is_ok());
    assert_eq!(books.counts(), (1, 1, 1));
}

#[test]
fn panics_of_a_task_stay_with_its_handle() {
    let runtime = Runtime::new().unwrap();
    let (books, mut future) = counted(0);
    future.panics = true;
    let error = runtime.block_on(runtime.spawn(future)).map(drop).unwrap_err();
    assert!(error.is_panic() && !error.is_cancelled());
    let id = error.id();
    assert_eq!(error.to_string(), format!("task {id} panicked with message \"as asked\""));
    let debug = format!("JoinError::Panic(Id({id}), \"as asked\", ...)");
    assert_eq!(format!("{error:?}"), debug);
    let error = std::io::Error::from(error);
    assert!(error.get_ref().unwrap().is::<JoinError>());
    assert_eq!(books.counts(), (1, 1, 0));
    assert_eq!(runtime.block_on(async { 1 }), 1, "the core goes on");
}

/// Panics in its drop.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("bomb");
        }
    }
}

#[test]
fn panicking_destructors_are_caught() {
    let runtime = Runtime::new().unwrap();
    // Of an aborted future: its handle tells.
    let task = runtime.spawn(async {
        let _bomb = Bomb;
        pending::<()>().await;
    });
    settle(&runtime);
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_panic());
    // Of a detached output, and of a payload: nobody is there to tell.
    drop(runtime.spawn(async { Bomb }));
    drop(runtime.spawn(async { std::panic::panic_any(Bomb) }));
    settle(&runtime);
    // Of an output whose handle goes.
    let task = runtime.spawn(async { Bomb });
    settle(&runtime);
    drop(task);
    // Of the captures of a future that gave its value: the value stands.
    struct Done(#[allow(dead_code, reason = "for its drop")] Bomb);
    impl Future for Done {
        type Output = i32;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<i32> {
            Poll::Ready(3)
        }
    }
    assert_eq!(runtime.block_on(runtime.spawn(Done(Bomb))).unwrap(), 3);
    // At shutdown.
    drop(runtime.spawn(async {
        let _bomb = Bomb;
        pending::<()>().await;
    }));
    settle(&runtime);
    assert_eq!(runtime.shutdown(LONG).tasks_dropped, 1);
}

#[test]
fn shutdown_drops_everything_on_the_core() {
    struct Spawns(Arc<Books>, usize);
    impl Drop for Spawns {
        fn drop(&mut self) {
            assert!(Handle::try_current().is_some());
            self.0.futures_dropped.fetch_add(1, Ordering::SeqCst);
            if self.1 > 0 {
                let next = Self(self.0.clone(), self.1 - 1);
                drop(spawn(async move {
                    let _next = next;
                    pending::<()>().await;
                }));
            }
        }
    }
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(9);
    let waiting = runtime.spawn(future);
    settle(&runtime);
    let (queued_books, future) = counted(9);
    let queued = runtime.spawn(future);
    let spawns = Spawns(queued_books.clone(), 3);
    drop(runtime.spawn(async move {
        let _spawns = spawns;
        pending::<()>().await;
    }));
    let handle = runtime.handle();
    let mailed_books = Arc::new(Books::default());
    let output = Output(mailed_books.clone());
    let mailed = on_thread(move || handle.spawn_with(|| async move { output }));
    let waker = books.waker();
    let report = runtime.shutdown(LONG);
    assert_eq!(report.tasks_dropped, 7);
    assert_eq!(books.counts(), (1, 1, 0));
    assert_eq!(queued_books.counts(), (0, 5, 0));
    assert_eq!(mailed_books.counts(), (0, 0, 1));
    waker.wake();
    for task in [waiting, queued, mailed] {
        assert!(task.is_finished());
        assert!(futures::executor::block_on(task).map(drop).unwrap_err().is_cancelled());
    }
}

#[test]
fn what_is_sent_to_a_dead_core_is_cancelled() {
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    drop(runtime);
    let payload = Arc::new(());
    let held = payload.clone();
    let task = handle.spawn_with(move || async move { drop(held) });
    assert!(futures::executor::block_on(task).unwrap_err().is_cancelled());
    assert_eq!(Arc::strong_count(&payload), 1);
}

/// Starts itself again when it is dropped.
struct Again(Arc<AtomicUsize>, Handle);

impl Drop for Again {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let next = Self(self.0.clone(), self.1.clone());
        let start = move || async move {
            let _next = next;
            pending::<()>().await;
        };
        if Handle::try_current().is_some() {
            drop(spawn(start()));
        } else {
            drop(self.1.spawn_with(start));
        }
    }
}

#[test]
fn a_destructor_that_starts_itself_again_does_not_hold_up_the_end() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Runtime::new().unwrap();
        let drops = Arc::new(AtomicUsize::new(0));
        let again = Again(drops.clone(), runtime.handle());
        drop(runtime.spawn(async move {
            let _again = again;
            pending::<()>().await;
        }));
        let (books, future) = counted(9);
        drop(runtime.spawn(future));
        settle(&runtime);
        let late = Again(drops.clone(), runtime.handle());
        let report = runtime.shutdown(LONG);
        let before = drops.load(Ordering::SeqCst);
        // The core is gone: each is refused within the drop of the one before.
        drop(late);
        let after = drops.load(Ordering::SeqCst) - before;
        sender.send((report, before, after, books.counts())).unwrap();
    });
    let ended = receiver.recv_timeout(std::time::Duration::from_secs(20));
    let (report, before, after, counts) = ended.expect("it ends");
    assert_eq!((report.tasks_dropped, report.tasks_leaked), (65, 1));
    assert!(!report.is_clean());
    assert_eq!((before, after), (64, 9));
    assert_eq!(counts, (1, 1, 0), "nobody else is leaked");
}
