//! Conservation: every future, output, payload and reference that goes in comes out exactly once,
//! on the core where it must.
//!
//! The futures count: polls, drops, drops of their outputs, and on which thread each drop happened.
//! A test states all counts after each step, so that a leak or a double drop cannot hide.

mod ends;
mod hooks;
mod identity;
mod life;
mod memory;
mod threads;

use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::runtime::Runtime;

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
