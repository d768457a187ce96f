//! How many connections are open, and who waits until one is not.
//!
//! A slot goes with the wire of its connection, also into an upgrade, and from there to whatever
//! thread the program likes. So it is the wire's end that frees it, not that of the task.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    open: AtomicUsize,
    waiter: Mutex<Option<Waker>>,
}

impl Slots {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, open: AtomicUsize::new(0), waiter: Mutex::new(None) })
    }

    /// How many are taken.
    pub(crate) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Takes one. The limit is the caller's to keep.
    pub(crate) fn take(self: &Arc<Self>) -> Slot {
        self.open.fetch_add(1, SeqCst);
        Slot(self.clone())
    }

    /// Waits until one is free. One waiter at a time.
    pub(crate) fn poll_free(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_at_most(self.limit.saturating_sub(1), cx)
    }

    /// Waits until none is taken. One waiter at a time.
    pub(crate) fn poll_all_free(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_at_most(0, cx)
    }

    fn poll_at_most(&self, count: usize, cx: &Context<'_>) -> Poll<()> {
        if self.open() <= count {
            return Poll::Ready(());
        }
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        // Again: a slot that was freed in between, on another thread, found nobody to wake.
        if self.open() <= count { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// The place of one connection among those that are open, from [`Parts`](crate::Parts). Dropping it
/// frees the place.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        let waiter = self.0.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}
