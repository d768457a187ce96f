//! What one thread did, and when: spans of time for pictures of the loop.
//!
//! ```text
//!   began = begin() ── None: nobody records, and that look is all it costs ──▶
//!         └─ Some(now) ── the call, the poll ──▶ end(began, kind, n): a span, the oldest forgotten
//! ```
//!
//! It belongs to the thread and not to a core, so that the very place of a system call can tell,
//! which knows no core. Reading the clock twice per span makes what is recorded slower by some
//! 50 ns each: a record shows the order and the shape, never the price.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::io::system;

/// What took the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpanKind {
    /// `io_uring_enter` or `epoll_wait`.
    Enter,
    /// A direct `recv`.
    Receive,
    /// A direct `send` or `sendmsg`.
    Send,
    /// Anything else that the readiness ring tries (`accept4`, `poll`, `preadv2`), or `epoll_ctl`.
    Call,
    /// A task was polled; its system calls are spans of their own within.
    Task,
}

/// One span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub began: u64,
    /// Nanoseconds that it took.
    pub took: u64,
    /// What it was.
    pub kind: SpanKind,
    /// `Enter`: completions that can be taken or events that came; `Receive`, `Send`, `Call`: the
    /// answer, negative for an error; `Task`: its number.
    pub n: i64,
}

thread_local! {
    static LIMIT: Cell<usize> = const { Cell::new(0) };
    static SPANS: RefCell<VecDeque<Span>> = const { RefCell::new(VecDeque::new()) };
}

/// Records the last `limit` spans of this thread from now on; 0 stops.
pub fn start(limit: usize) {
    SPANS.with_borrow_mut(|spans| *spans = VecDeque::with_capacity(limit));
    LIMIT.set(limit);
}

/// What was recorded on this thread since the last time, in the order of the ends.
#[must_use]
pub fn take() -> Vec<Span> {
    SPANS.with_borrow_mut(|spans| spans.drain(..).collect())
}

/// Whether this thread records.
#[inline]
pub(crate) fn is_on() -> bool {
    LIMIT.get() > 0
}

/// Now, if this thread records.
#[inline]
pub(crate) fn begin() -> Option<u64> {
    is_on().then(system::now)
}

/// The span ends here; `n` is asked only if it is recorded.
#[inline]
pub(crate) fn end(began: Option<u64>, kind: SpanKind, n: impl FnOnce() -> i64) {
    if let Some(began) = began {
        let took = system::now().saturating_sub(began);
        push(Span { began, took, kind, n: n() });
    }
}

#[cold]
fn push(span: Span) {
    SPANS.with_borrow_mut(|spans| {
        if spans.len() >= LIMIT.get() {
            spans.pop_front();
        }
        spans.push_back(span);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: i64) {
        end(begin(), SpanKind::Call, || n);
    }

    fn numbers() -> Vec<i64> {
        take().iter().map(|span| span.n).collect()
    }

    #[test]
    fn off_it_records_nothing_and_on_it_keeps_the_last() {
        one(1);
        assert_eq!(numbers(), []);
        start(3);
        (0..5).for_each(one);
        assert_eq!(numbers(), [2, 3, 4]);
        one(5);
        assert_eq!(numbers(), [5]);
        start(0);
        one(6);
        assert_eq!(numbers(), []);
    }

    #[test]
    fn another_thread_is_not_recorded() {
        start(3);
        std::thread::spawn(|| one(1)).join().expect("it does not panic");
        assert_eq!(numbers(), []);
        start(0);
    }
}
