//! An operation on a file, which may be given a time limit.
//!
//! ```text
//!   Timed ── time is up ──► Operation: expired ── polled with UP set ──► Flight
//!                                                     Fresh: never submitted ◄──┤
//!                                        in flight: cancelled, and waited for ◄─┘
//! ```
//!
//! The operations are async functions of several steps. That time is up is therefore told to
//! whichever step is polled, by a word of the thread's, and not handed down through all of them.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::io::timed::{Expire, Timed};

thread_local! {
    /// The operation that is being polled has no more time.
    static UP: Cell<bool> = const { Cell::new(false) };
}

/// Whether the step that is being polled shall come to its end.
#[inline]
pub(super) fn time_is_up() -> bool {
    UP.get()
}

pin_project! {
    /// Future of an operation on a file.
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Operation<F> {
        #[pin]
        steps: F,
        expired: bool,
    }
}

impl<F: Future> Operation<F> {
    #[inline]
    pub(super) fn new(steps: F) -> Self {
        Self { steps, expired: false }
    }

    /// Asks the operation to end after `limit`, with [`TimedOut`](std::io::ErrorKind::TimedOut) and
    /// the buffer, if it has one. The answer comes when the kernel has let go, and a late success
    /// is a success.
    ///
    /// Not everything can be stopped. A read or write that has reached the disk runs to its end,
    /// and on the readiness ring so does all that a thread has begun: even the opening of a FIFO
    /// that no one else opens. To go on without waiting for that, use
    /// [`time::timeout`](crate::time::timeout), which drops the operation.
    ///
    /// What has several parts (`read_exact_at`, `write_all_at`) ends between two of them: so, after
    /// `TimedOut`, some bytes may have been written.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # quoit::block_on(async {
    /// # let path = std::env::current_exe()?;
    /// let file = quoit::fs::File::open(path).await?;
    /// let read = file.read_at(Vec::with_capacity(64), 0);
    /// let (count, _) = read.timeout(Duration::from_secs(5)).await?;
    /// assert_eq!(count, 64);
    /// # std::io::Result::Ok(())
    /// # }).unwrap();
    /// ```
    pub fn timeout(self, limit: Duration) -> Timed<Self> {
        Timed::new(self, limit)
    }
}

/// Takes the word back, also when a poll panics.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        UP.set(self.0);
    }
}

impl<F: Future> Future for Operation<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // One without a limit of its own is bound by that of the operation it is a step of.
        let _restore = this.expired.then(|| Restore(UP.replace(true)));
        this.steps.poll(cx)
    }
}

impl<F: Future> Expire for Operation<F> {
    fn expire(self: Pin<&mut Self>) -> Poll<Self::Output> {
        *self.project().expired = true;
        Poll::Pending
    }
}

impl<F> std::fmt::Debug for Operation<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operation").field("expired", &self.expired).finish_non_exhaustive()
    }
}
