//! The changes that nobody waits for any more but the kernel may still make.
//!
//! ```text
//!   write future dropped in flight ──► orphan(ticket, range) ──┐
//!                                                              ▼
//!   sync, set_len, close, overlapping write ──► poll_clear: is one in my range? ──► wait
//!                                                              ▲
//!   the write's payload goes, at its terminal completion ──────┘ settle(ticket): wakes them
//! ```
//!
//! That is what makes dropping a write harmless: it may happen or not, but never behind the back of
//! something later. (What the kernel still holds when its core ends is an error for those who wait:
//! nobody will ever tell its end.) A file's clones share one ledger, on whichever cores they are.
//! As long as no write is dropped in flight it costs one load of a counter that never changes.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::io::mailbox::{self, CoreId};
use crate::io::pool::contain;

/// Names one change of a file. Numbers are per file and never used twice.
pub(super) type Ticket = u64;

/// Every byte, and the length.
pub(super) const EVERYTHING: Range<u64> = 0..u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// How many orphans there are, for those who only ask whether there is one.
    count: AtomicUsize,
    tickets: AtomicU64,
    books: Mutex<Books>,
}

/// Both lists are bounded by the changes in flight.
#[derive(Debug, Default)]
struct Books {
    orphans: Vec<Orphan>,
    /// Changes that were over before their future was dropped: a core shut down and retired them
    /// while another thread still held the future.
    early: Vec<Ticket>,
    /// Those who wait for an orphan, each once. Any settlement wakes all: there are few.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
struct Orphan {
    ticket: Ticket,
    range: Range<u64>,
    core: CoreId,
}

impl Ledger {
    pub(super) fn ticket(&self) -> Ticket {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// The future of a change was dropped while it was in flight on `core`. To be called before the
    /// operation is let go, so that nobody slips in between.
    pub(super) fn orphan(&self, ticket: Ticket, range: Range<u64>, core: CoreId) {
        let mut books = self.books();
        if let Some(index) = books.early.iter().position(|early| *early == ticket) {
            books.early.swap_remove(index);
            return;
        }
        books.orphans.push(Orphan { ticket, range, core });
        self.count.store(books.orphans.len(), Ordering::Release);
    }

    /// The kernel is done with a change that its future did not see the end of.
    pub(super) fn settle(&self, ticket: Ticket) {
        let mut books = self.books();
        match books.orphans.iter().position(|orphan| orphan.ticket == ticket) {
            Some(index) => {
                books.orphans.swap_remove(index);
            }
            None => books.early.push(ticket),
        }
        self.count.store(books.orphans.len(), Ordering::Release);
        let waiting = std::mem::take(&mut books.waiting);
        // A waker may run anything, such as another drop on this file.
        drop(books);
        for waker in waiting {
            // And if it panics, the others wait all the same.
            contain(|| waker.wake());
        }
    }

    /// Ready when no orphan touches the range. The error names a core that ended with the kernel
    /// still holding one.
    #[inline]
    pub(super) fn poll_clear(&self, range: &Range<u64>, waker: &Waker) -> Poll<Result<(), CoreId>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_orphans(range, waker)
    }

    /// A core has ended while the kernel still held a change of its: who waits finds out which.
    pub(super) fn strand(&self, wakers: &mut Vec<Waker>) {
        wakers.append(&mut self.books().waiting);
    }

    #[cold]
    fn poll_orphans(&self, range: &Range<u64>, waker: &Waker) -> Poll<Result<(), CoreId>> {
        // Foreign code: neither copied nor dropped under the lock.
        let mut copy = Some(waker.clone());
        let mut books = self.books();
        let overlaps =
            |orphan: &&Orphan| orphan.range.start < range.end && range.start < orphan.range.end;
        let Some(orphan) = books.orphans.iter().find(overlaps) else {
            return Poll::Ready(Ok(()));
        };
        if mailbox::find(orphan.core).is_none() {
            return Poll::Ready(Err(orphan.core));
        }
        if !books.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            books.waiting.extend(copy.take());
        }
        drop(books);
        drop(copy);
        Poll::Pending
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing in here panics half-way through a change of the books.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    use super::*;
    use crate::io::mailbox::Mailbox;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn clear(ledger: &Ledger, range: Range<u64>) -> Poll<Result<(), CoreId>> {
        ledger.poll_clear(&range, Waker::noop())
    }

    #[test]
    fn only_who_overlaps_waits() {
        let mailbox = Mailbox::open().unwrap();
        let ledger = Ledger::default();
        let ticket = ledger.ticket();
        ledger.orphan(ticket, 10..20, mailbox.core());
        for free in [0..10, 20..30, 10..10] {
            assert_eq!(clear(&ledger, free), Poll::Ready(Ok(())));
        }
        for taken in [0..11, 19..20, 12..13, EVERYTHING] {
            assert_eq!(clear(&ledger, taken), Poll::Pending);
        }
        ledger.settle(ticket);
        assert_eq!(clear(&ledger, EVERYTHING), Poll::Ready(Ok(())));
        mailbox.close();
    }

    #[test]
    fn a_settlement_wakes_each_waiter_once() {
        let mailbox = Mailbox::open().unwrap();
        let (ledger, count) = (Ledger::default(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        let (first, second) = (ledger.ticket(), ledger.ticket());
        ledger.orphan(first, 0..1, mailbox.core());
        ledger.orphan(second, 0..1, mailbox.core());
        assert!(ledger.poll_clear(&(0..1), &waker).is_pending());
        assert!(ledger.poll_clear(&(0..1), &waker).is_pending());
        ledger.settle(first);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(ledger.poll_clear(&(0..1), &waker).is_pending(), "the second is still there");
        ledger.settle(second);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        mailbox.close();
    }

    #[test]
    fn one_that_was_over_before_it_was_orphaned_holds_nobody_up() {
        let ledger = Ledger::default();
        let ticket = ledger.ticket();
        ledger.settle(ticket);
        ledger.orphan(ticket, 0..1, 0);
        assert_eq!(clear(&ledger, EVERYTHING), Poll::Ready(Ok(())));
        assert!(ledger.books().early.is_empty());
    }

    #[test]
    fn an_orphan_of_a_core_that_is_gone_is_an_error_and_not_a_wait() {
        let mailbox = Mailbox::open().unwrap();
        let (ledger, core) = (Ledger::default(), mailbox.core());
        ledger.orphan(ledger.ticket(), 0..1, core);
        mailbox.close();
        assert_eq!(clear(&ledger, 0..1), Poll::Ready(Err(core)));
    }
}
