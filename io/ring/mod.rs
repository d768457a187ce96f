//! The seam: who answers a request.
//!
//! ```text
//!   proactor ── submit(token, request) ──►  Uring      the kernel does it        (completion)
//!            ── cancel(token) ───────────►  Readiness  we do it when epoll says  (readiness)
//!                                           Simulated  a seed decides            (test)
//!            ◄─ Completion{token,result,flags} ── wait
//! ```
//!
//! All engines answer the same requests with the same completions, multishot, provided buffers and
//! cancellation included. Nobody else matches on the kind of ring.

mod choice;
mod job;
mod kernel_timer;
pub(crate) mod readiness;
pub(crate) mod simulated;
pub(crate) mod uring;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub(crate) use self::choice::{Prepared, prepare};
pub use self::choice::{RingChoice, RingKind, RingReport};
use self::readiness::Readiness;
use self::simulated::Simulated;
use self::uring::Uring;
use crate::io::mailbox::Mailbox;
use crate::io::pool::Pool;
use crate::io::request::{Attempt, Completion, ReadAt, Request, Token};

/// How long a turn may wait for the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// Take what is there and come back.
    No,
    /// Until a completion, the doorbell, or this time of `CLOCK_MONOTONIC` in nanoseconds.
    Until(Option<u64>),
}

/// What the ring has done so far. Counting is a few plain additions per turn, so it is always on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingCounters {
    /// Waits and submissions: `io_uring_enter`, or `epoll_wait`.
    pub enters: u64,
    /// Direct non-blocking system calls: a `send` tried at once, and every attempt of the readiness
    /// ring.
    pub direct_calls: u64,
    /// `epoll_ctl` calls of the readiness ring.
    pub registrations: u64,
    /// Requests submitted.
    pub submissions: u64,
    /// Completions taken.
    pub completions: u64,
    /// Requests that went to a pool thread.
    pub pool_jobs: u64,
    /// Times that the kernel's completion queue overflowed into its memory.
    pub overflows: u64,
    /// Submissions that found the submission queue full, and went in after an enter of their own.
    pub queue_full: u64,
    /// Enters that the kernel sent back (`EAGAIN`, `EBUSY`), and that the next turn did again.
    pub enters_refused: u64,
    /// Attempts of the readiness ring that found nothing to do yet (`EAGAIN`), and wait for epoll.
    pub would_block: u64,
}

impl RingCounters {
    /// Every system call that was made for I/O.
    #[must_use]
    pub fn system_calls(&self) -> u64 {
        self.enters + self.direct_calls + self.registrations
    }
}

/// Memory of one provided buffer, as the pool tells the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Provided {
    pub(crate) id: u16,
    pub(crate) address: *mut u8,
    pub(crate) length: u32,
}

/// One core's ring.
pub(crate) enum Ring {
    Uring(Box<Uring>),
    Readiness(Box<Readiness>),
    Simulated(Box<Simulated>),
}

impl Ring {
    /// Makes the ring that was prepared for a core. `buffers_max` bounds the ids that `provide`
    /// will ever name.
    pub(crate) fn new(
        prepared: &Prepared,
        mailbox: &Arc<Mailbox>,
        pool: &Arc<Pool>,
        buffers_max: u16,
    ) -> io::Result<Self> {
        Ok(match prepared.kind() {
            RingKind::Uring => {
                Self::Uring(Box::new(Uring::new(prepared.setup(), mailbox, pool, buffers_max)?))
            }
            RingKind::Readiness => {
                Self::Readiness(Box::new(Readiness::new(mailbox, pool, buffers_max)?))
            }
            RingKind::Simulated => Self::Simulated(Box::new(Simulated::new(mailbox))),
        })
    }

    /// Submits a request. It cannot fail: what the kernel refuses comes back as its completion.
    ///
    /// # Safety
    ///
    /// Every descriptor and all memory that the request names stays valid and in place until the
    /// terminal completion of `token`, whatever happens meanwhile; and no other request of this
    /// ring carries the same token before then.
    #[inline]
    pub(crate) unsafe fn submit(&mut self, token: Token, request: &Request) {
        match self {
            // SAFETY: handed on.
            Self::Uring(ring) => unsafe { ring.submit(token, request) },
            // SAFETY: handed on.
            Self::Readiness(ring) => unsafe { ring.submit(token, request) },
            // SAFETY: handed on.
            Self::Simulated(ring) => unsafe { ring.submit(token, request) },
        }
    }

    /// Asks for the request of `token` to end early. Its terminal completion still comes, with
    /// whatever it came to; a request that is over already is left alone.
    pub(crate) fn cancel(&mut self, token: Token) {
        match self {
            Self::Uring(ring) => ring.cancel(token),
            Self::Readiness(ring) => ring.cancel(token),
            Self::Simulated(ring) => ring.cancel(token),
        }
    }

    /// Ends a poll at once, where nothing but this ring has it. True: nothing more comes of it, no
    /// terminal completion either. False: it is as it was, and to be cancelled.
    ///
    /// Not while completions wait to be told: one of them may be of this poll.
    pub(crate) fn withdraw(&mut self, token: Token) -> bool {
        match self {
            // What the kernel has, it has to give back.
            Self::Uring(_) | Self::Simulated(_) => false,
            Self::Readiness(ring) => ring.withdraw(token),
        }
    }

    /// Tries a read at once, without submitting it.
    ///
    /// # Safety
    ///
    /// The descriptor is open, and the memory writable, for this call.
    #[inline]
    pub(crate) unsafe fn try_read(&self, read: ReadAt) -> Attempt {
        match self {
            // SAFETY: handed on.
            Self::Uring(_) | Self::Readiness(_) => unsafe { read.attempt() },
            // SAFETY: handed on.
            Self::Simulated(ring) => unsafe { ring.try_read(read) },
        }
    }

    /// Forgets a descriptor number: its last request has ended and it is about to be closed, so the
    /// number may soon mean something else.
    pub(crate) fn forget(&mut self, descriptor: i32) {
        match self {
            Self::Uring(_) | Self::Simulated(_) => {}
            Self::Readiness(ring) => ring.forget(descriptor),
        }
    }

    /// As `forget`, for a descriptor whose file others may hold open: closing the number would not
    /// end its registration, which names a number that cannot be used to end it any more.
    pub(crate) fn unwatch(&mut self, descriptor: i32) {
        match self {
            Self::Uring(_) | Self::Simulated(_) => {}
            Self::Readiness(ring) => ring.unwatch(descriptor),
        }
    }

    /// Gives buffers to lend to receives.
    pub(crate) fn provide(&mut self, buffers: impl Iterator<Item = Provided>) {
        match self {
            Self::Uring(ring) => ring.provide(buffers),
            Self::Readiness(ring) => ring.provide(buffers),
            Self::Simulated(ring) => ring.provide(buffers),
        }
    }

    /// Submits what is queued, waits as told, and appends what has completed.
    pub(crate) fn turn(
        &mut self,
        waiting: Waiting,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        match self {
            Self::Uring(ring) => ring.turn(waiting, completions),
            Self::Readiness(ring) => ring.turn(waiting, completions),
            Self::Simulated(ring) => {
                ring.turn(completions);
                Ok(())
            }
        }
    }

    /// The simulated ring, for the simulation that drives it.
    pub(crate) fn as_simulated(&self) -> Option<&Simulated> {
        match self {
            Self::Uring(_) | Self::Readiness(_) => None,
            Self::Simulated(ring) => Some(ring),
        }
    }

    /// Whether a turn would have work, as far as user space can see without a system call.
    #[inline]
    pub(crate) fn wants_turn(&mut self) -> bool {
        match self {
            Self::Uring(ring) => ring.wants_turn(),
            Self::Readiness(ring) => ring.wants_turn(),
            Self::Simulated(ring) => ring.wants_turn(),
        }
    }

    /// Hands in what is queued before the turn comes to it, where somebody would do it at once.
    pub(crate) fn hand_in(&mut self) {
        if let Self::Uring(ring) = self {
            ring.hand_in();
        }
    }

    /// Whether requests handed in together cost less than calls of their own.
    #[inline]
    pub(crate) fn gains_by_batches(&self) -> bool {
        !matches!(self, Self::Readiness(_))
    }

    /// Somebody is about to wait for the descriptor instead of a turn. What shows there from now on
    /// is news; true: there is nothing else.
    pub(crate) fn rest(&mut self) -> bool {
        match self {
            Self::Uring(ring) => ring.rest(),
            // What did not fit into the last wait has had its edge.
            Self::Readiness(ring) if ring.has_more() => return false,
            Self::Readiness(_) | Self::Simulated(_) => {}
        }
        !self.wants_turn()
    }

    /// How long the core may sleep although nothing shows, in nanoseconds. `turn` knows by itself;
    /// this is for who waits elsewhere.
    pub(crate) fn longest_sleep(&self) -> Option<u64> {
        match self {
            Self::Uring(ring) => ring.longest_sleep(),
            Self::Readiness(ring) => ring.longest_sleep(),
            Self::Simulated(_) => None,
        }
    }

    /// A result that a pool thread has sent back through the mailbox.
    pub(crate) fn complete_from_pool(&mut self, token: Token, result: i32) -> Completion {
        match self {
            Self::Uring(ring) => ring.complete_from_pool(token, result),
            Self::Readiness(ring) => ring.complete_from_pool(token, result),
            Self::Simulated(_) => panic!("no simulated request goes to a pool thread: {token:?}"),
        }
    }

    /// Requests without their terminal completion.
    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Uring(ring) => ring.in_flight(),
            Self::Readiness(ring) => ring.in_flight(),
            Self::Simulated(ring) => ring.in_flight(),
        }
    }

    /// Readable when something has come up since `rest`. A simulated ring has nothing that a kernel
    /// knows.
    pub(crate) fn as_fd(&mut self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Uring(ring) => Some(ring.as_fd()),
            Self::Readiness(ring) => Some(ring.as_fd()),
            Self::Simulated(_) => None,
        }
    }

    pub(crate) fn counters(&self) -> RingCounters {
        match self {
            Self::Uring(ring) => ring.counters(),
            Self::Readiness(ring) => ring.counters(),
            Self::Simulated(ring) => ring.counters(),
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uring(_) => "Uring",
            Self::Readiness(_) => "Readiness",
            Self::Simulated(_) => "Simulated",
        })
    }
}
