//! The task protocol under loom: every interleaving (up to a few preemptions) of a core with
//! threads that wake, join, abort, send and let go.
//!
//! ```text
//!   RUSTFLAGS="--cfg loom" cargo test --lib --release loom_
//! ```
//!
//! A model's main thread is the core. It runs the real `Tasks` with the real inbox, and sleeps on a
//! doorbell whose kernel part is a loom notification; so a lost wake is a deadlock, which loom
//! reports. It also reports an `Arc` that is never freed, and every task cell shares in the
//! inbox's: a leaked cell, or one that was counted twice, fails the model.

use std::future::poll_fn;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;

use crate::runtime::inbox::{Bell, Inbox};
use crate::runtime::join::JoinHandle;
use crate::runtime::tasks::{self, Tasks};
use crate::runtime::traced::Label;

/// Two threads are explored to this depth; with three it would take minutes, and they get one less.
const PREEMPTIONS_MAX: usize = 3;

fn model(threads: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX + 2 - threads);
    builder.check(body);
}

/// The mailbox's doorbell: the same protocol, a notification for the eventfd.
#[derive(Debug)]
struct ModelBell {
    asleep: AtomicBool,
    signal: loom::sync::Notify,
}

impl Bell for Arc<ModelBell> {
    fn ring(&self) {
        fence(Ordering::SeqCst);
        let asleep = &self.asleep;
        if asleep.load(Ordering::Relaxed)
            && asleep.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.signal.notify();
        }
    }
}

/// A core without a proactor.
struct ModelCore {
    tasks: Tasks,
    bell: Arc<ModelBell>,
}

impl ModelCore {
    fn new() -> Self {
        let signal = loom::sync::Notify::new();
        let bell = Arc::new(ModelBell { asleep: AtomicBool::new(false), signal });
        Self { tasks: Tasks::new(Inbox::new(Box::new(bell.clone()))), bell }
    }

    #[track_caller]
    fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        self.tasks.spawn(future, Location::caller())
    }

    fn turn(&self) {
        let _entered = self.tasks.enter();
        self.tasks.run(usize::MAX);
        self.tasks.read_inbox();
    }

    /// The loop, until all tasks have ended.
    fn run_to_end(&self) {
        loop {
            self.turn();
            if self.tasks.living() == 0 {
                return;
            }
            self.bell.asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !self.tasks.has_ready() && self.tasks.inbox().is_empty() {
                self.bell.signal.wait();
            }
            self.bell.asleep.store(false, Ordering::Relaxed);
        }
    }

    fn end(self) {
        let _entered = self.tasks.enter();
        self.tasks.drop_all();
    }
}

/// Waits for a future on a thread that is no core.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(loom::sync::Notify);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.notify();
        }
    }
    let unpark = std::sync::Arc::new(Unpark(loom::sync::Notify::new()));
    let waker = Waker::from(unpark.clone());
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => unpark.0.wait(),
        }
    }
}

/// Says on which thread it was dropped, and that it was dropped once.
struct Mark(Arc<Marks>);

struct Marks {
    drops: std::sync::atomic::AtomicUsize,
    only_on: Option<thread::ThreadId>,
}

impl Marks {
    fn on_this_thread() -> Arc<Self> {
        Self::new(Some(thread::current().id()))
    }

    fn new(only_on: Option<thread::ThreadId>) -> Arc<Self> {
        Arc::new(Self { drops: std::sync::atomic::AtomicUsize::new(0), only_on })
    }

    fn drops(&self) -> usize {
        self.drops.load(Ordering::SeqCst)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::SeqCst);
        // An assertion would be caught with the other panics of destructors.
        if self.0.only_on.is_some_and(|thread| thread != thread::current().id()) {
            self.0.drops.fetch_add(100, Ordering::SeqCst);
        }
    }
}

/// A place for a future to leave its waker in.
type Given = std::sync::Arc<Mutex<Option<Waker>>>;

/// Ready when all flags are up; leaves its waker once.
fn waits_for(flags: Vec<Arc<AtomicBool>>, given: Given, mark: Mark) -> impl Future<Output = ()> {
    poll_fn(move |context| {
        let _mark = &mark;
        let mut given = given.lock().unwrap();
        if given.is_none() {
            *given = Some(context.waker().clone());
        }
        // Relaxed on purpose: the wake must bring the flag along.
        if flags.iter().all(|flag| flag.load(Ordering::Relaxed)) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
}

#[test]
fn loom_remote_wakes_are_not_lost() {
    model(3, || {
        let core = ModelCore::new();
        let marks = Marks::on_this_thread();
        let flags = vec![Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
        let given = Given::default();
        let task = core.spawn(waits_for(flags.clone(), given.clone(), Mark(marks.clone())));
        core.turn();
        let waker = given.lock().unwrap().take().unwrap();
        let other = waker.clone();
        drop(given);
        let threads = flags.into_iter().zip([waker, other]).map(|(flag, waker)| {
            thread::spawn(move || {
                flag.store(true, Ordering::Relaxed);
                waker.wake();
            })
        });
        let threads: Vec<_> = threads.collect();
        core.run_to_end();
        assert!(task.is_finished());
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(marks.drops(), 1);
        drop(task);
        core.end();
    });
}

#[test]
fn loom_a_remote_wake_meets_a_local_one_and_the_end() {
    model(2, || {
        let core = ModelCore::new();
        let marks = Marks::on_this_thread();
        let flag = Arc::new(AtomicBool::new(false));
        let given = Given::default();
        let task = core.spawn(waits_for(vec![flag.clone()], given.clone(), Mark(marks.clone())));
        drop(task);
        core.turn();
        let waker = given.lock().unwrap().take().unwrap();
        let local = waker.clone();
        drop(given);
        let thread = thread::spawn(move || {
            // The last of these may free the cell, and then the core may be gone.
            waker.wake_by_ref();
            drop(waker);
        });
        flag.store(true, Ordering::Relaxed);
        {
            let _entered = core.tasks.enter();
            local.wake();
        }
        core.run_to_end();
        core.end();
        assert_eq!(marks.drops(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_joiner_elsewhere_gets_the_output() {
    model(2, || {
        let core = ModelCore::new();
        let (futures, outputs) = (Marks::on_this_thread(), Marks::new(None));
        let (future, output) = (Mark(futures.clone()), Mark(outputs.clone()));
        let task = core.spawn(async move {
            let _future = future;
            output
        });
        let thread = thread::spawn(move || block_on(task).map(drop).is_ok());
        core.run_to_end();
        core.end();
        assert!(thread.join().unwrap());
        assert_eq!((futures.drops(), outputs.drops()), (1, 1));
    });
}

#[test]
fn loom_a_handle_dropped_elsewhere_meets_the_end() {
    model(2, || {
        let core = ModelCore::new();
        let (futures, outputs) = (Marks::on_this_thread(), Marks::new(None));
        let (future, output) = (Mark(futures.clone()), Mark(outputs.clone()));
        let task = core.spawn(async move {
            let _future = future;
            output
        });
        let thread = thread::spawn(move || drop(task));
        core.run_to_end();
        core.end();
        thread.join().unwrap();
        assert_eq!((futures.drops(), outputs.drops()), (1, 1));
    });
}

/// A waker that counts, without synchronising anything.
struct Count(std::sync::atomic::AtomicUsize);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn loom_a_joiner_is_replaced_while_the_task_ends() {
    model(2, || {
        let core = ModelCore::new();
        let mut task = core.spawn(async { 5 });
        let wakers = [(); 2].map(|()| std::sync::Arc::new(Count(Default::default())));
        let theirs = wakers.clone();
        let thread = thread::spawn(move || {
            let mut last = 0;
            for (index, waker) in theirs.into_iter().enumerate() {
                let waker = Waker::from(waker);
                let mut context = Context::from_waker(&waker);
                if let Poll::Ready(output) = Pin::new(&mut task).poll(&mut context) {
                    return (output.ok(), last);
                }
                last = index + 1;
            }
            drop(task);
            (None, last)
        });
        core.run_to_end();
        core.end();
        let (output, last) = thread.join().unwrap();
        let woken = wakers.each_ref().map(|count| count.0.load(Ordering::SeqCst));
        assert!(woken.iter().sum::<usize>() <= 1, "one end, one wake");
        assert!(output.is_some() || last == 2, "pending as often as it was asked");
        assert!(wakers.iter().all(|waker| std::sync::Arc::strong_count(waker) == 1));
        assert_eq!(output.unwrap_or(5), 5);
    });
}

#[test]
fn loom_a_handle_polled_here_goes_elsewhere() {
    model(2, || {
        let core = ModelCore::new();
        let outputs = Marks::new(None);
        let output = Mark(outputs.clone());
        let mut task = core.spawn(async { output });
        let here = std::sync::Arc::new(Count(Default::default()));
        {
            let _entered = core.tasks.enter();
            let waker = Waker::from(here.clone());
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let thread = thread::spawn(move || block_on(task).map(drop).is_ok());
        core.run_to_end();
        core.end();
        assert!(thread.join().unwrap());
        assert_eq!(outputs.drops(), 1);
        assert_eq!(here.0.load(Ordering::SeqCst), 1);
        assert_eq!(std::sync::Arc::strong_count(&here), 1);
    });
}

#[test]
fn loom_an_abort_elsewhere_meets_the_end() {
    model(3, || {
        let core = ModelCore::new();
        let futures = Marks::on_this_thread();
        let flag = Arc::new(AtomicBool::new(false));
        let given = Given::default();
        let future = waits_for(vec![flag.clone()], given.clone(), Mark(futures.clone()));
        let mut task = core.spawn(future);
        core.turn();
        let waker = given.lock().unwrap().take().unwrap();
        drop(given);
        let abort = task.abort_handle();
        let aborts = thread::spawn(move || abort.abort());
        let wakes = thread::spawn(move || {
            flag.store(true, Ordering::Relaxed);
            waker.wake();
        });
        core.run_to_end();
        // Either way it ended once, and here.
        assert_eq!(futures.drops(), 1);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(result) = Pin::new(&mut task).poll(&mut context) else {
            panic!("it has ended");
        };
        assert!(result.is_ok_and(|()| true) || futures.drops() == 1);
        aborts.join().unwrap();
        wakes.join().unwrap();
        core.turn();
        drop(task);
        core.end();
    });
}

#[test]
fn loom_a_task_sent_to_an_ending_core_runs_or_is_cancelled() {
    model(2, || {
        let core = ModelCore::new();
        let closures = Marks::new(None);
        let ran = Arc::new(AtomicUsize::new(0));
        let inbox = core.tasks.inbox().clone();
        let (mark, theirs) = (Mark(closures.clone()), ran.clone());
        let thread = thread::spawn(move || {
            let start = move || {
                let _mark = mark;
                theirs.fetch_add(1, Ordering::Relaxed);
                async {}
            };
            let task = tasks::send(&inbox, start, Label::task(Location::caller()));
            drop(inbox);
            // Woken by the core or by ourselves, never stranded.
            block_on(task).is_ok()
        });
        core.turn();
        core.turn();
        core.end();
        let joined = thread.join().unwrap();
        assert_eq!(joined, ran.load(Ordering::Relaxed) == 1);
        assert_eq!(closures.drops(), 1);
    });
}

#[test]
fn loom_a_waker_outlives_its_core() {
    model(3, || {
        let core = ModelCore::new();
        let marks = Marks::on_this_thread();
        let given = Given::default();
        let never = Arc::new(AtomicBool::new(false));
        drop(core.spawn(waits_for(vec![never], given.clone(), Mark(marks.clone()))));
        core.turn();
        let waker = given.lock().unwrap().take().unwrap();
        let other = waker.clone();
        drop(given);
        let threads = [waker, other].map(|waker| thread::spawn(move || waker.wake()));
        core.end();
        assert_eq!(marks.drops(), 1, "dropped by its core, wherever its wakers are");
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn loom_the_sender_of_a_dead_core_cleans_up() {
    model(3, || {
        let core = ModelCore::new();
        let inbox = core.tasks.inbox().clone();
        core.end();
        let threads = [(); 2].map(|()| {
            let inbox = inbox.clone();
            thread::spawn(move || {
                let start = || async {};
                let mut task = pin!(tasks::send(&inbox, start, Label::task(Location::caller())));
                let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                // The other thread may be the one that refuses it.
                !matches!(polled, Poll::Ready(Ok(())))
            })
        });
        drop(inbox);
        for thread in threads {
            assert!(thread.join().unwrap(), "a dead core runs nothing");
        }
    });
}
