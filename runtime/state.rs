//! The shared word of a task: four facts that cross threads, and the reference count.
//!
//! ```text
//!  bit        set by                         cleared by              says
//!  COMPLETE   the core, once                 never                   the outcome is in the cell
//!  DETACHED   the JoinHandle's drop, once    never                   nobody will take the outcome
//!  JOINER     the JoinHandle                 the JoinHandle          the joiner's slot has a waker
//!  MAILED     whoever mails the task         the core, reading mail  it is in the inbox, once
//!  ABORTED    an abort from elsewhere        never                   drop the future at its turn
//!  the rest   counts references: wakers, handles, the inbox's entry, and one of the core's
//! ```
//!
//! COMPLETE and DETACHED race; each is set by one atomic step that reads the other, so exactly one
//! side sees both, and that side drops the outcome. Nothing here is touched by a wake on the core
//! itself: "is it queued" is the core's own business, and lives in a plain cell of the header.

use crate::runtime::sync::{AtomicUsize, Ordering, fence};

const COMPLETE: usize = 1 << 0;
const DETACHED: usize = 1 << 1;
const JOINER: usize = 1 << 2;
const MAILED: usize = 1 << 3;
const ABORTED: usize = 1 << 4;
const REFERENCE: usize = 1 << 5;

/// The count that means somebody leaks wakers in a loop. Half of what fits, so that no number of
/// threads can add enough between the check and the abort to wrap it.
const REFERENCES_MAX: usize = usize::MAX / 2;

/// What the core has to do after it has set COMPLETE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Completion {
    /// Nothing, and the core's reference is gone: the handle will take the outcome. The core must
    /// not touch the task again.
    Released,
    /// Nothing more; the core keeps its reference, as it asked to.
    Kept,
    /// Wake the joiner, whose waker stays in its slot.
    WakeJoiner,
    /// Drop the outcome: the handle went away.
    DropOutcome,
}

#[derive(Debug)]
pub(crate) struct State(AtomicUsize);

impl State {
    /// For a task that its own core spawns: one reference of the core's, one of the handle's.
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(2 * REFERENCE))
    }

    /// For a task that is mailed to its core: the inbox's entry carries a third reference.
    pub(crate) fn mailed() -> Self {
        Self(AtomicUsize::new((3 * REFERENCE) | MAILED))
    }

    /// The outcome may be taken, if this is asked by the one handle that may.
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        // Acquire: pairs with `complete`, so that the outcome is seen with the bit.
        self.0.load(Ordering::Acquire) & COMPLETE != 0
    }

    #[inline]
    pub(crate) fn add_reference(&self) {
        // Relaxed: the caller has a reference, so nothing can be freed meanwhile.
        let before = self.0.fetch_add(REFERENCE, Ordering::Relaxed);
        if before > REFERENCES_MAX {
            // Unwinding would let the count go on; a wrapped count is a use after free.
            std::process::abort();
        }
    }

    /// Gives a reference up; true: it was the last, and the caller frees the cell.
    #[inline]
    #[must_use]
    pub(crate) fn drop_reference(&self) -> bool {
        // The only holder needs no locked instruction: nobody is left to race with.
        if self.0.load(Ordering::Acquire) / REFERENCE == 1 {
            return true;
        }
        // Release: what this thread did with the task comes before its end.
        if self.0.fetch_sub(REFERENCE, Ordering::Release) / REFERENCE != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        true
    }

    /// Marks the task as mailed; true: the caller must put it into the inbox.
    #[must_use]
    pub(crate) fn mail(&self) -> bool {
        // A read-modify-write even where the bit is set already: the core's clearing then acquires
        // what this thread wrote before it woke the task.
        let before = self.0.fetch_or(MAILED, Ordering::AcqRel);
        before & (MAILED | COMPLETE) == 0
    }

    /// Like `mail`, and asks the core to drop the future.
    #[must_use]
    pub(crate) fn mail_abort(&self) -> bool {
        let before = self.0.fetch_or(MAILED | ABORTED, Ordering::AcqRel);
        before & (MAILED | COMPLETE) == 0
    }

    /// The core took the task out of its inbox; true: it shall be aborted.
    pub(crate) fn take_mail(&self) -> bool {
        self.0.fetch_and(!MAILED, Ordering::AcqRel) & ABORTED != 0
    }

    /// The outcome is stored. With `release`, and when nothing is left to do, the same step gives
    /// up the core's reference.
    pub(crate) fn complete(&self, release: bool) -> Completion {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            debug_assert_eq!(now & COMPLETE, 0, "a task completes once");
            let (next, then) = if now & DETACHED != 0 {
                (now | COMPLETE, Completion::DropOutcome)
            } else if now & JOINER != 0 {
                (now | COMPLETE, Completion::WakeJoiner)
            } else if release {
                ((now | COMPLETE) - REFERENCE, Completion::Released)
            } else {
                (now | COMPLETE, Completion::Kept)
            };
            // Release: publishes the outcome. Acquire: sees the joiner's waker.
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return then,
                Err(found) => now = found,
            }
        }
    }

    /// The handle goes away. True: done, its reference is gone too. False: the task is complete, so
    /// the outcome is the caller's to drop, and the reference its to give up.
    #[must_use]
    pub(crate) fn detach(&self) -> bool {
        self.unless_complete(|now| {
            debug_assert_eq!(now & (JOINER | DETACHED), 0, "one handle, its waker taken back");
            // The core's reference remains, so this cannot be the last.
            (now | DETACHED) - REFERENCE
        })
    }

    /// The joiner's waker is in its slot, and now only to be read. False: complete, still ours.
    #[must_use]
    pub(crate) fn publish_joiner(&self) -> bool {
        self.unless_complete(|now| now | JOINER)
    }

    /// The slot is the handle's again. False: complete, and the core is waking it.
    #[must_use]
    pub(crate) fn retract_joiner(&self) -> bool {
        self.unless_complete(|now| now & !JOINER)
    }

    /// Whether the joiner's slot holds a waker; only the handle may ask.
    pub(crate) fn has_joiner(&self) -> bool {
        self.0.load(Ordering::Relaxed) & JOINER != 0
    }

    fn unless_complete(&self, change: impl Fn(usize) -> usize) -> bool {
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            if now & COMPLETE != 0 {
                return false;
            }
            let next = change(now);
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(found) => now = found,
            }
        }
    }
}
