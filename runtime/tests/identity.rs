//! Whose code runs: the id that a future, its destructor and a result see, and what a destructor
//! sees of a panic.

use std::future::{Future, pending, poll_fn};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll};
use std::thread;

use super::{on_thread, settle};
use crate::runtime::{Runtime, TaskId, spawn, try_id, yield_now};

/// Tells who drops it.
struct Tell(Sender<Option<TaskId>>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.send(try_id()).unwrap();
    }
}

#[test]
fn a_future_is_dropped_as_its_task_whoever_ends_it() {
    let runtime = Runtime::new().unwrap();
    let (tell, told) = channel();
    let ends = |tell: Tell| async move {
        let _tell = tell;
        pending::<()>().await;
    };
    let aborted = runtime.spawn(ends(Tell(tell.clone())));
    let id = aborted.id();
    settle(&runtime);
    aborted.abort();
    settle(&runtime);
    assert_eq!(told.recv().unwrap(), Some(id));

    let id = runtime.spawn(ends(Tell(tell.clone()))).id();
    drop(runtime);
    assert_eq!(told.recv().unwrap(), Some(id), "dropped by the end of its core");

    // A mailed task whose core is gone is dropped by whoever finds it there.
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle();
    drop(runtime);
    let held = Tell(tell);
    let id = on_thread(move || handle.spawn_with(move || async move { drop(held) }).id());
    assert_eq!(told.recv().unwrap(), Some(id));
    assert_eq!(try_id(), None);
}

#[test]
fn a_result_that_nobody_takes_is_dropped_as_its_task() {
    let runtime = Runtime::new().unwrap();
    let (tell, told) = channel();
    // Detached before it ends: the core drops the result.
    let output = Tell(tell.clone());
    let id = runtime.spawn(async move { output }).id();
    settle(&runtime);
    assert_eq!(told.recv().unwrap(), Some(id));
    // Detached afterwards: the handle does, here in another task and there on another thread.
    let output = Tell(tell.clone());
    let task = runtime.spawn(async move { output });
    let id = task.id();
    settle(&runtime);
    let other = runtime.spawn(async move {
        drop(task);
        try_id()
    });
    let other_id = other.id();
    assert_eq!(runtime.block_on(other).unwrap(), Some(other_id), "its own id is back");
    assert_eq!(told.recv().unwrap(), Some(id));
    let output = Tell(tell.clone());
    let task = runtime.spawn(async move { output });
    let id = task.id();
    settle(&runtime);
    on_thread(move || drop(task));
    assert_eq!(told.recv().unwrap(), Some(id));
    // Taken, it is the taker's.
    let output = Tell(tell);
    let task = runtime.spawn(async move { output });
    runtime.block_on(async move { drop(task.await) });
    assert_eq!(told.recv().unwrap(), None);
}

#[test]
fn the_id_is_that_of_the_innermost_task() {
    let runtime = Runtime::new().unwrap();
    let task = runtime.spawn(async {
        let before = try_id();
        let inner = Runtime::new().unwrap();
        let task = inner.spawn(async { try_id() });
        inner.turn(Some(std::time::Duration::ZERO));
        assert_eq!(try_id(), before, "the inner runtime has had its turn");
        let inside = task.id();
        drop(inner);
        let seen = thread::spawn(try_id).join().unwrap();
        assert_eq!(seen, None, "another thread runs no task");
        let outside = spawn(async { yield_now().await }).id();
        (before, inside, outside)
    });
    let id = task.id();
    let (before, inside, outside) = runtime.block_on(task).unwrap();
    assert_eq!(before, Some(id));
    assert!(inside != id && outside != id && inside != outside);
}

/// Panics when it is polled, and maybe when it is dropped.
struct Boom {
    seen: Sender<bool>,
    again: bool,
}

impl Future for Boom {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        panic_any("polled");
    }
}

impl Drop for Boom {
    fn drop(&mut self) {
        self.seen.send(thread::panicking()).unwrap();
        if self.again {
            panic_any("dropped");
        }
    }
}

#[test]
fn a_panic_unwinds_through_the_drop_of_its_future() {
    let runtime = Runtime::new().unwrap();
    let (seen, saw) = channel();
    for again in [false, true] {
        let task = runtime.spawn(Boom { seen: seen.clone(), again });
        let error = runtime.block_on(task).unwrap_err();
        assert!(saw.recv().unwrap(), "a guard must be able to tell that it is dropped by a panic");
        assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "polled", "the first one");
    }
    assert!(!thread::panicking());
    // Without a panic there is none to be seen.
    let boom = Boom { seen, again: false };
    let mut polls = 0;
    let task = runtime.spawn(poll_fn(move |_| {
        let _held = &boom;
        polls += 1;
        Poll::Ready(polls)
    }));
    assert_eq!(runtime.block_on(task).unwrap(), 1);
    assert!(!saw.recv().unwrap());
    assert_eq!(runtime.metrics().tasks_panicked, 2);
}
