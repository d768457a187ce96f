//! The completion engine: *do it and tell me*.
//!
//! ```text
//!   submit ──► submission queue ─┐                     one io_uring_enter per turn
//!   cancel ──► (backlog if full) ├─► enter ──► kernel  submits what was queued, waits if told,
//!                                │     │               and runs completion work on this thread
//!   completions ◄── reap ◄───────┴─────┘
//! ```
//!
//! What is once in the submission queue belongs to the kernel, even when the enter fails: only a
//! completion without `MORE` retires a request. Progress is therefore read from the completion
//! queue and never from what `enter` returns.

mod buffers;
mod enter;
mod notice;
pub(crate) mod setup;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use io_uring::types::CancelBuilder;
use io_uring::{EnterFlags, IoUring, opcode, squeue, types};

use self::buffers::BufferRing;
use self::enter::{Entrance, WaitArgument};
use self::notice::Notice;
use self::setup::Setup;
use super::job::{Job, NO_THREAD};
use super::kernel_timer::KernelTimer;
use super::{Provided, RingCounters, Waiting};
use crate::io::mailbox::Mailbox;
use crate::io::pool::Pool;
use crate::io::request::{Completion, Features, Flags, Request, Token};
use crate::io::trace::{self, SpanKind};

/// Tokens of the engine's own submissions; the proactor's never have the top bit.
const DOORBELL: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;
const INTERNAL: u64 = 1 << 63;

/// How many requests for a device are handed in early, the first time in a turn. While this core
/// goes through a batch of completions, a device that had answered them all would have nothing to
/// do before the turn submits what they led to. So the first two go out at once, and then in lots
/// twice as large each time: every lot costs a system call.
const LOT: u32 = 2;

/// How long somebody else may wait for this ring if nothing can tell him that it has something.
const UNNOTICED: u64 = 1_000_000;

pub(crate) struct Uring {
    // Fields drop in order: the entrance would keep the ring open, and the kernel must let go of
    // the buffers before they are freed.
    entrance: Entrance,
    ring: IoUring,
    buffers: BufferRing,
    setup: Setup,
    /// Entries that found the queue full while the kernel took no submissions. Bounded by the
    /// requests in flight, each of which has at most itself and one cancel here.
    backlog: VecDeque<squeue::Entry>,
    in_flight: usize,
    doorbell_armed: bool,
    kernel_timer: KernelTimer,
    timer_armed: bool,
    notice: Option<Notice>,
    /// The kernel has refused a notice.
    unnoticed: bool,
    /// Queued requests that a device could already work on, and how many of them make a lot.
    for_device: u32,
    lot: u32,
    mailbox: Arc<Mailbox>,
    pool: Arc<Pool>,
    counters: RingCounters,
}

impl Uring {
    pub(super) fn new(
        setup: &Setup,
        mailbox: &Arc<Mailbox>,
        pool: &Arc<Pool>,
        buffers_max: u16,
    ) -> io::Result<Self> {
        let ring = setup.create()?;
        let buffers = BufferRing::register(&ring, buffers_max)
            .map_err(|error| setup::Refusal::error("io_uring_register", &error))?;
        Ok(Self {
            entrance: Entrance::of(&ring),
            ring,
            buffers,
            setup: *setup,
            backlog: VecDeque::new(),
            in_flight: 0,
            doorbell_armed: false,
            kernel_timer: KernelTimer::new()?,
            timer_armed: false,
            notice: None,
            unnoticed: false,
            for_device: 0,
            lot: LOT,
            mailbox: mailbox.clone(),
            pool: pool.clone(),
            counters: RingCounters::default(),
        })
    }

    /// # Safety
    ///
    /// As `Ring::submit`.
    #[inline]
    pub(super) unsafe fn submit(&mut self, token: Token, request: &Request) {
        debug_assert_eq!(token.0 & INTERNAL, 0, "the top bit is the engine's");
        self.in_flight += 1;
        self.counters.submissions += 1;
        match request.encode(self.features()) {
            Some(entry) => self.push(entry.user_data(token.0)),
            None => self.submit_to_pool(token, *request),
        }
        if request.is_for_device() {
            self.for_device += 1;
            if self.for_device >= self.lot {
                self.hand_in();
            }
        }
    }

    /// Submits what is queued before the turn comes to it.
    pub(super) fn hand_in(&mut self) {
        (self.for_device, self.lot) = (0, self.lot.saturating_mul(2));
        self.counters.enters += 1;
        let queued = self.ring.submission().len() as u32;
        let argument = WaitArgument::default();
        // SAFETY: what is queued was pushed under the contract of `submit`, and the argument is the
        // kernel's. Nothing is lost if it takes none of it now: the turn submits what is left, and
        // hears of errors.
        let _ = unsafe { self.entrance.enter(queued, 0, EnterFlags::EXT_ARG, &argument) };
    }

    /// For the few operations that an older kernel's ring lacks.
    fn submit_to_pool(&mut self, token: Token, request: Request) {
        self.counters.pool_jobs += 1;
        // SAFETY: the submitter keeps all that the request names until the completion, which is the
        // job's answer.
        let job = unsafe { Job::new(token, request, &self.mailbox, NO_THREAD) };
        // One that the pool has no room for answers when it is dropped.
        drop(self.pool.submit(Box::new(move || job.run())));
    }

    pub(super) fn complete_from_pool(&mut self, token: Token, result: i32) -> Completion {
        self.in_flight -= 1;
        self.counters.completions += 1;
        Completion::done(token, result)
    }

    pub(super) fn cancel(&mut self, token: Token) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(token.0)).build();
        self.push(entry.user_data(CANCEL));
    }

    pub(super) fn provide(&mut self, buffers: impl Iterator<Item = Provided>) {
        self.buffers.provide(buffers);
    }

    #[inline]
    pub(super) fn wants_turn(&mut self) -> bool {
        let submissions = self.ring.submission();
        let told = !submissions.is_empty() || submissions.taskrun() || submissions.cq_overflow();
        drop(submissions);
        told || (!self.setup.shows_work() && !self.ring.completion().is_empty())
    }

    pub(super) fn turn(
        &mut self,
        waiting: Waiting,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        if !self.doorbell_armed {
            self.doorbell_armed = true;
            self.watch(self.mailbox.doorbell().as_fd().as_raw_fd(), DOORBELL);
        }
        if let (false, Some(timer)) = (self.timer_armed, self.kernel_timer.number()) {
            self.timer_armed = true;
            self.watch(timer, TIMER);
        }
        self.flush_backlog();
        // A busy core that looks in has mostly nothing to hand in; where the ring shows its work,
        // the kernel need not be asked whether there is any.
        let idle = waiting == Waiting::No && self.setup.shows_work() && !self.wants_turn();
        if !idle {
            self.enter(waiting)?;
        }
        self.reap(completions);
        Ok(())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Readable when there is something to do. Where the kernel refuses that, the ring itself, and
    /// `longest_sleep` is short.
    pub(super) fn as_fd(&mut self) -> BorrowedFd<'_> {
        if self.notice.is_none() && !self.unnoticed {
            self.notice = Notice::register(&self.ring, &self.mailbox).ok();
            self.unnoticed = self.notice.is_none();
        }
        match &self.notice {
            Some(notice) => notice.as_fd(),
            // SAFETY: the ring owns its descriptor and is borrowed for as long.
            None => unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) },
        }
    }

    /// See `Ring::rest`.
    pub(super) fn rest(&mut self) {
        if let Some(notice) = &mut self.notice {
            notice.lower();
        }
    }

    /// See `Ring::longest_sleep`.
    pub(super) fn longest_sleep(&self) -> Option<u64> {
        self.unnoticed.then_some(UNNOTICED)
    }

    pub(super) fn counters(&self) -> RingCounters {
        self.counters
    }

    fn features(&self) -> &Features {
        &self.setup.features
    }

    /// One multishot poll for the life of the ring: it answers each write to the doorbell, and each
    /// time that the kernel's timer fires, so their counters never need to be read.
    fn watch(&mut self, number: i32, token: u64) {
        let entry = opcode::PollAdd::new(types::Fd(number), libc::POLLIN as u32).multi(true);
        self.push(entry.build().user_data(token));
    }

    #[inline]
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: the entry encodes a request whose submitter keeps all it names until the terminal
        // completion, or one of the engine's own, which name nothing but descriptors of ours.
        if self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok() {
            return;
        }
        self.counters.queue_full += 1;
        self.backlog.push_back(entry);
        self.flush_backlog();
    }

    /// Moves the backlog into the queue, submitting in between. What the kernel does not take now
    /// stays for the next turn; nothing is dropped.
    fn flush_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                self.backlog.pop_front();
            } else if self.ring.submission().is_full()
                && (self.enter(Waiting::No).is_err() || self.ring.submission().is_full())
            {
                return;
            }
        }
    }

    fn enter(&mut self, waiting: Waiting) -> io::Result<()> {
        let to_submit = self.ring.submission().len() as u32;
        let wait = waiting != Waiting::No && self.ring.completion().is_empty();
        // What stands in the backlog, the watch over the timer perhaps, is not with the kernel yet.
        let may_hand_on = wait && self.backlog.is_empty();
        let waiting = if may_hand_on { self.kernel_timer.take_over(waiting) } else { waiting };
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        let mut time = types::Timespec::new();
        let mut argument = WaitArgument::default();
        if let (true, Waiting::Until(Some(deadline))) = (wait, waiting) {
            time = self.timespec(deadline);
            argument.time = std::ptr::from_ref(&time) as u64;
            if self.setup.absolute_wait {
                flags |= EnterFlags::ABS_TIMER;
            }
        }
        if self.setup.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        self.counters.enters += 1;
        (self.for_device, self.lot) = (0, LOT);
        let began = trace::begin();
        // SAFETY: what is queued was pushed under the contract of `submit`; `argument` is the
        // kernel's `io_uring_getevents_arg`, and `time`, which it points to, lives past the call.
        let result = unsafe { self.entrance.enter(to_submit, u32::from(wait), flags, &argument) };
        let _ = &time;
        trace::end(began, SpanKind::Enter, || self.ring.completion().len() as i64);
        match result {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is up; a signal came; the kernel wants completions taken first. In each
                // case the queues tell what happened, and the next turn goes on.
                Some(libc::ETIME | libc::EINTR) => Ok(()),
                Some(libc::EAGAIN | libc::EBUSY) => {
                    self.counters.enters_refused += 1;
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// The deadline as the wait wants it: absolute where the kernel can, else what is left.
    fn timespec(&self, deadline: u64) -> types::Timespec {
        let nanoseconds = if self.setup.absolute_wait {
            deadline
        } else {
            deadline.saturating_sub(crate::io::system::now())
        };
        types::Timespec::new()
            .sec(nanoseconds / 1_000_000_000)
            .nsec((nanoseconds % 1_000_000_000) as u32)
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        let submissions_overflow = self.ring.submission().cq_overflow();
        self.counters.overflows += u64::from(submissions_overflow);
        let queue = self.ring.completion();
        for entry in queue {
            let (token, flags) = (entry.user_data(), Flags(entry.flags()));
            if token & INTERNAL != 0 {
                match token {
                    DOORBELL => self.doorbell_armed = flags.more(),
                    TIMER => {
                        self.timer_armed = flags.more();
                        self.kernel_timer.fired();
                        if entry.result() < 0 {
                            self.kernel_timer.give_up();
                        }
                    }
                    // A cancel's own answer says nothing that its target's does not say.
                    _ => {}
                }
                continue;
            }
            self.in_flight -= usize::from(!flags.more());
            self.counters.completions += 1;
            completions.push(Completion { token: Token(token), result: entry.result(), flags });
        }
    }
}
