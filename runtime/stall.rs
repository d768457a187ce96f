//! Finds polls that take too long, while they are still going on.
//!
//! ```text
//!   core      begin ─ poll ─ end        a few plain stores each: no clock, no lock
//!               └── Watched ──┐         polls begun · the task, and where it was spawned
//!   watchdog  look .... look .... look  a thread of its own: the same poll for so long?
//!                                 └──►  report, with the stack; again after twice the time;
//!                                       and once more when it is over
//! ```
//!
//! Looking from outside is what makes it possible to tell of a poll that never ends, and to see
//! where it stands; and it spares the core a look at the clock per poll. The price is precision: a
//! poll is found when it has gone on for the limit since it was *first seen*, hence a quarter of
//! the limit late at most, and a poll that is shorter than the limit is never reported.

mod report;
mod watchdog;

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

pub use self::report::{Stall, StallState};
pub(crate) use self::watchdog::{Detector, Watchdog};
use crate::io::mailbox::CoreId;
use crate::io::system;
use crate::io::system::stack::Thread;

/// What a core shows of the poll that is going on. Only the core writes, but for `told`.
#[derive(Debug)]
pub(crate) struct Watched {
    core: CoreId,
    thread: Thread,
    /// Polls begun.
    polls: AtomicU64,
    /// Where the future that is being polled came from; null: none is.
    place: AtomicPtr<Location<'static>>,
    task: AtomicU64,
    /// The number of the poll that was reported last.
    told: AtomicU64,
    /// When that was over, as the core saw it; zero: it is not.
    over: AtomicU64,
    /// Polls beyond the limit. The watchdog counts.
    stalls: AtomicU64,
}

/// As its core and the watchdog share it (of std also in the models, which have no watchdog).
pub(crate) type SharedWatched = std::sync::Arc<Watched>;

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    poll: u64,
    place: &'static Location<'static>,
    /// Zero: the root future.
    task: u64,
}

impl Watched {
    /// Made on the thread that drives the core.
    pub(crate) fn new(core: CoreId) -> Self {
        Self {
            core,
            thread: Thread::current(),
            polls: AtomicU64::new(0),
            place: AtomicPtr::new(ptr::null_mut()),
            task: AtomicU64::new(0),
            told: AtomicU64::new(0),
            over: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        }
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// A poll begins; it ends with the guard, also by a panic.
    #[inline]
    pub(crate) fn begin(&self, place: &'static Location<'static>, task: u64) -> Polling<'_> {
        // Each release publishes what came before: who sees this poll's number no longer sees the
        // place of the one before, and who sees its place sees its task.
        self.polls.store(self.polls.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.task.store(task, Ordering::Relaxed);
        self.place.store(ptr::from_ref(place).cast_mut(), Ordering::Release);
        Polling(self)
    }

    /// The poll that is going on.
    fn look(&self) -> Option<Seen> {
        let poll = self.polls.load(Ordering::Acquire);
        let place = self.place.load(Ordering::Acquire);
        let task = self.task.load(Ordering::Relaxed);
        // SAFETY: null, or made from a reference that is valid for ever.
        let place = unsafe { place.cast_const().as_ref() }?;
        // A poll that has begun meanwhile is for the next look.
        (self.polls.load(Ordering::Acquire) == poll).then_some(Seen { poll, place, task })
    }
}

/// While it lives, a poll goes on.
#[derive(Debug)]
pub(crate) struct Polling<'a>(&'a Watched);

impl Drop for Polling<'_> {
    #[inline]
    fn drop(&mut self) {
        let Self(watched) = self;
        watched.place.store(ptr::null_mut(), Ordering::Release);
        if watched.told.load(Ordering::Relaxed) == watched.polls.load(Ordering::Relaxed) {
            watched.over.store(system::now(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
