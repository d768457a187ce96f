//! How a task runs: polls, wakes, its result, the root future.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::{counted, on_thread, settle};
use crate::runtime::{Handle, Runtime, block_on, yield_now};

#[test]
fn a_result_is_taken_once_and_dropped_once() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(0);
    let task = runtime.spawn(future);
    assert_eq!(books.counts(), (0, 0, 0), "spawn does not poll");
    let output = runtime.block_on(task).unwrap();
    assert_eq!(books.counts(), (1, 1, 0));
    drop(output);
    assert_eq!(books.counts(), (1, 1, 1));
    books.forget_waker();
    assert_eq!(Arc::strong_count(&books), 1);
}

#[test]
fn many_wakes_are_one_poll() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(2);
    let task = runtime.spawn(future);
    settle(&runtime);
    assert_eq!(books.counts(), (1, 0, 0));
    let waker = books.waker();
    for _ in 0..5 {
        waker.wake_by_ref();
    }
    let other = waker.clone();
    on_thread(move || (0..5).for_each(|_| other.wake_by_ref()));
    settle(&runtime);
    assert_eq!(books.counts(), (2, 0, 0));
    // On the core itself, where no mail is sent.
    runtime.block_on(async { (0..5).for_each(|_| waker.wake_by_ref()) });
    assert_eq!(runtime.metrics().remote_wakes, 1);
    settle(&runtime);
    assert_eq!(books.counts(), (3, 1, 0));
    drop(task);
    assert_eq!(books.counts(), (3, 1, 1));
    // A wake after the end does nothing.
    waker.wake_by_ref();
    on_thread(move || waker.wake());
    settle(&runtime);
    assert_eq!(books.counts(), (3, 1, 1));
}

#[test]
fn a_wake_during_a_poll_queues_at_the_back() {
    let runtime = Runtime::new().unwrap();
    let order = Rc::new(RefCell::new(Vec::new()));
    for name in ["a", "b"] {
        let order = order.clone();
        drop(runtime.spawn(async move {
            for round in 0..3 {
                order.borrow_mut().push(format!("{name}{round}"));
                yield_now().await;
            }
        }));
    }
    settle(&runtime);
    assert_eq!(*order.borrow(), ["a0", "b0", "a1", "b1", "a2", "b2"]);
}

#[test]
fn a_task_that_wakes_itself_and_ends_is_freed() {
    let runtime = Runtime::new().unwrap();
    let payload = Arc::new(());
    let held = payload.clone();
    let task = runtime.spawn(poll_fn(move |context| {
        context.waker().wake_by_ref();
        Poll::Ready(held.clone())
    }));
    settle(&runtime);
    assert_eq!(Arc::strong_count(&payload), 2, "the future is gone, the output waits");
    drop(task);
    assert_eq!(Arc::strong_count(&payload), 1);
}

#[test]
fn detached_output_is_dropped_on_the_core() {
    let runtime = Runtime::new().unwrap();
    let (books, future) = counted(1);
    drop(runtime.spawn(future));
    settle(&runtime);
    let waker = books.waker();
    on_thread(move || waker.wake());
    settle(&runtime);
    assert_eq!(books.counts(), (2, 1, 1));
    let here = thread::current().id();
    assert_eq!(books.dropped_on(), [here, here]);
}

#[test]
fn the_root_panic_comes_out_and_the_runtime_goes_on() {
    let runtime = Runtime::new().unwrap();
    let dropped_inside = Rc::new(Cell::new(false));
    struct Look(Rc<Cell<bool>>);
    impl Drop for Look {
        fn drop(&mut self) {
            self.0.set(Handle::try_current().is_some());
        }
    }
    let look = Look(dropped_inside.clone());
    let result = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async move {
            let _look = look;
            yield_now().await;
            panic!("root");
        })
    }));
    assert_eq!(*result.unwrap_err().downcast::<&str>().unwrap(), "root");
    assert!(dropped_inside.get(), "its locals are dropped on the core");
    assert!(Handle::try_current().is_none(), "and the core is left");
    assert_eq!(runtime.block_on(async { 2 }), 2);
}

#[test]
fn block_on_inside_a_runtime_says_so() {
    let runtime = Runtime::new().unwrap();
    let task = runtime.spawn(async { block_on(async {}) });
    let error = runtime.block_on(task).unwrap_err();
    assert!(error.to_string().contains("block_on was called inside a runtime"), "{error}");
}

#[test]
fn a_joiner_is_replaced_and_taken_back() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let runtime = Runtime::new().unwrap();
    let wakers = [(); 2].map(|()| Arc::new(Count(AtomicUsize::new(0))));
    let (books, future) = counted(1);
    let mut task = runtime.spawn(future);
    for count in &wakers {
        let waker = Waker::from(count.clone());
        for _ in 0..2 {
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    assert_eq!(Arc::strong_count(&wakers[0]), 1, "the first waker was let go");
    settle(&runtime);
    books.waker().wake();
    settle(&runtime);
    assert_eq!(wakers.each_ref().map(|count| count.0.load(Ordering::SeqCst)), [0, 1]);
    drop(task);
    books.forget_waker();
    assert_eq!(Arc::strong_count(&wakers[1]), 1);

    let mut task = runtime.spawn(pending::<()>());
    let waker = Waker::from(wakers[0].clone());
    assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
    drop((task, waker));
    assert_eq!(Arc::strong_count(&wakers[0]), 1, "a handle that goes takes its waker along");
}

#[test]
fn a_busy_task_does_not_keep_the_ring_from_turning() {
    let runtime = Runtime::builder().task_budget(8).build().unwrap();
    runtime.block_on(async {
        for _ in 0..800 {
            yield_now().await;
        }
    });
    let turns = runtime.metrics().turns;
    assert!(turns >= 90, "{turns} turns in 800 polls with a budget of 8");
}
