//! Operations with a time limit.
//!
//! ```text
//!   polled ──► ready: that is the answer
//!     │ pending
//!     ▼
//!   time up? ──► expire ──► given up: TimedOut
//!                      └──► asked to end: whatever its end brings is the answer; a late success
//!                           is one
//! ```

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::io::alarm::Alarm;
use crate::io::allowance;

pin_project! {
    /// An operation with a time limit, from its `timeout` method.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Timed<F> {
        #[pin]
        operation: F,
        alarm: Alarm,
        expired: bool,
        put_off: bool,
    }
}

impl<F> Timed<F> {
    pub(crate) fn new(operation: F, limit: Duration) -> Self {
        Self { operation, alarm: Alarm::new(limit), expired: false, put_off: false }
    }
}

/// What an operation does when its time is up.
pub(crate) trait Expire: Future {
    /// Ends it, as far as that takes nothing from anyone. `Pending`: the end is on its way, and the
    /// operation itself will answer. Else it leaves its line: the future may be kept for long.
    fn expire(self: Pin<&mut Self>) -> Poll<Self::Output>;

    /// The last word on an answer that came after the time was up.
    fn settle(output: Self::Output) -> Self::Output {
        output
    }
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the operation's time limit has passed")
}

/// Asks a future whose time is up for the last time, or puts that off to its task's next turn.
///
/// If there was no allowance left when it was asked before, its `Pending` may not have been the
/// truth. Once it waits for a fresh one, so that a loop around this starves nobody. If others of
/// the task use that up, too, it gets one of its own: else it might never end.
pub(crate) fn last_chance<R>(
    unheard: bool,
    put_off: &mut bool,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<R>,
) -> Poll<Option<R>> {
    if unheard && !std::mem::replace(put_off, true) {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    match allowance::with_fresh(|| poll(cx)) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    }
}

impl<F: Expire> Future for Timed<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let unheard = allowance::is_spent();
        if let Poll::Ready(output) = this.operation.as_mut().poll(cx) {
            return Poll::Ready(if *this.expired { F::settle(output) } else { output });
        }
        if *this.expired || this.alarm.poll(cx).is_pending() {
            return Poll::Pending;
        }
        if unheard {
            let poll = |cx: &mut Context<'_>| this.operation.as_mut().poll(cx);
            if let Some(output) = ready!(last_chance(unheard, this.put_off, cx, poll)) {
                return Poll::Ready(output);
            }
        }
        *this.expired = true;
        if let Poll::Ready(output) = this.operation.as_mut().expire() {
            return Poll::Ready(output);
        }
        this.operation.poll(cx).map(F::settle)
    }
}
