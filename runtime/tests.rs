//! Conservation: every future, output, payload and reference that goes in comes out exactly once, on
//! the core where it must.
//!
//! The futures count: polls, drops, drops of their outputs, and on which thread each drop happened. A
//! test states all counts after each step, so that a leak or a double drop cannot hide.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::runtime::{AbortHandle, Handle, JoinHandle, Runtime, spawn, yield_now};

const NOW: Option<Duration> = Some(Duration::ZERO);
const LONG: Duration = Duration::from_secs(20);

/// What happened to one task.
#[derive(Debug, Default)]
struct Books {
    polls: AtomicUsize,
    futures_dropped: AtomicUsize,
    outputs_dropped: AtomicUsize,
    drop_threads: Mutex<Vec<ThreadId>>,
    waker: Mutex<Option<Waker>>,
}

impl Books {
    fn counts(&self) -> (usize, usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.polls), load(&self.futures_dropped), load(&self.outputs_dropped))
    }

    fn dropped_on(&self) -> Vec<ThreadId> {
        self.drop_threads.lock().unwrap().clone()
    }

    fn waker(&self) -> Waker {
        self.waker.lock().unwrap().clone().expect("polled once")
    }

    /// The waker kept here holds its task; let go.
    fn forget_waker(&self) {
        drop(self.waker.lock().unwrap().take());
    }
}

/// An output that books its drop.
#[derive(Debug)]
struct Output(Arc<Books>);

impl Drop for Output {
    fn drop(&mut self) {
        self.0.outputs_dropped.fetch_add(1, Ordering::SeqCst);
        self.0.drop_threads.lock().unwrap().push(thread::current().id());
    }
}

/// Pending `waits` times, then ready (or a panic); keeps its last waker in the books.
struct Counted {
    books: Arc<Books>,
    waits: usize,
    panics: bool,
    /// Makes the future `!Send`, which is the point of it.
    _local: Rc<()>,
}

impl Future for Counted {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Output> {
        self.books.polls.fetch_add(1, Ordering::SeqCst);
        *self.books.waker.lock().unwrap() = Some(context.waker().clone());
        if self.waits > 0 {
            self.waits -= 1;
            return Poll::Pending;
        }
        assert!(!self.panics, "as asked");
        Poll::Ready(Output(self.books.clone()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.books.futures_dropped.fetch_add(1, Ordering::SeqCst);
        self.books.drop_threads.lock().unwrap().push(thread::current().id());
    }
}

fn counted(waits: usize) -> (Arc<Books>, Counted) {
    let books = Arc::new(Books::default());
    (books.clone(), Counted { books, waits, panics: false, _local: Rc::new(()) })
}

/// Turns until nothing is ready.
fn settle(runtime: &Runtime) {
    while runtime.turn(NOW) {}
}

fn on_thread<R: Send + 'static>(action: impl FnOnce() -> R + Send + 'static) -> R {
    thread::spawn(action).join().unwrap()
}

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
    assert!(error.to_string().ends_with("panicked: as asked"), "{error}");
    let error = std::io::Error::from(error);
    assert!(error.get_ref().unwrap().is::<crate::runtime::JoinError>());
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
    let task = runtime.spawn(async { crate::runtime::block_on(async {}) });
    let error = runtime.block_on(task).unwrap_err();
    assert!(error.to_string().contains("block_on was called inside a runtime"), "{error}");
}

#[test]
fn handles_cross_threads_when_their_output_may() {
    fn sendable<T: Send + Sync + Unpin>() {}
    sendable::<JoinHandle<u32>>();
    sendable::<AbortHandle>();
    sendable::<Handle>();
    sendable::<crate::runtime::JoinError>();

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
