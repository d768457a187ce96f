//! The readiness engine: try; on "not now" wait for epoll; try again.
//!
//! It gives the answers of the completion ring, multishot, provided buffers and cancellation
//! included, by doing the kernel's part itself:
//!
//! ```text
//!            submit                              turn
//!   request ───────► queue ──► attempt ──► done ─────────────────────────────► Completion
//!                      ▲          │ ├────► more ──► Completion with MORE, and
//!                      │          │ │               back to the queue, or to wait when drained
//!                      │          │ └────► blocking: a pool thread ──► mailbox ──► Completion
//!                      │          ▼ would block
//!                      └─────── wait in the list of (descriptor, direction)
//!                        event            registered once for each direction, edge-triggered
//! ```
//!
//! An answer to an event costs one share of `epoll_wait` and one attempt; `epoll_ctl` is called
//! once in a descriptor's life for each direction in which somebody ever waits. Completions come
//! from `turn` alone, never from `submit` or `cancel`.
//!
//! **Fairness.** A turn makes one round: each descriptor and direction that may be ready has its
//! requests tried once, or once more if an event follows on a drained answer (an accept, which
//! moves no bytes, up to `visit::SMALL_ANSWERS_MAX` times), and who could go on is tried again in
//! the next turn, which then does not sleep, behind those who have had nothing. So a busy stream
//! gets one buffer per turn, like any other, and the last one only if nobody else wants it.

mod buffers;
pub(crate) mod epoll;
mod pending;
mod sources;
#[cfg(test)]
mod tests;
mod visit;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use self::buffers::Provisions;
use self::epoll::{EDGES_OF_DOORBELL, EVENTS_MAX, Epoll};
use self::pending::{List, Requests, waits_for};
use self::sources::{Side, Sources};
use super::job::{Job, NO_THREAD};
use super::kernel_timer::KernelTimer;
use super::{Provided, RingCounters, Waiting};
use crate::io::mailbox::Mailbox;
use crate::io::pool::Pool;
use crate::io::request::{Attempt, Completion, Flags, Interest, Request, Token};
use crate::io::system;
use crate::io::trace::{self, SpanKind};

/// The epoll data of the ring's own. No descriptor has the number that the lower half spells.
const DOORBELL: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// How long to sleep at most while the pool has no room for our jobs, in nanoseconds. Nothing tells
/// when it has: the jobs that fill it may be another core's.
const POOL_RETRY: u64 = 1_000_000;

/// What one turn receives before it lets the program have it. Received bytes are copied on soon,
/// and the second copy is cheap only while they are in the cache; what is ready beyond that waits
/// for the next turn, in order.
const BYTES_PER_TURN: u32 = 512 * 1024;

/// The bytes that a descriptor with one request takes at most: its source, the entry of the
/// request, and the beginnings of chains, which are fewer than the entries once
/// these are many.
#[cfg(test)]
pub(crate) const WAITING_SIZE: usize =
    size_of::<sources::Source>() + size_of::<pending::Pending>() + size_of::<u32>();

/// One core's readiness ring.
pub(crate) struct Readiness {
    epoll: Epoll,
    kernel_timer: KernelTimer,
    sources: Sources,
    requests: Requests,
    /// Sides to try in the next turn. Bounded by two per descriptor: a side stands here once.
    queue: Vec<(u32, Side)>,
    /// Sides that had an answer and could go on: they are tried after those in the queue, which
    /// have had none. Bounded likewise.
    again: Vec<(u32, Side)>,
    /// The queue of the turn that is going on; empty in between.
    round: Vec<(u32, Side)>,
    /// Requests to try that name no descriptor to wait for.
    loose: List,
    /// Jobs that the pool had no room for. Bounded by the requests in flight.
    refused: VecDeque<(Token, Box<dyn FnOnce() + Send>)>,
    /// Terminal completions of cancelled requests. Bounded by the requests in flight.
    cancelled: Vec<Token>,
    buffers: Provisions,
    /// Bytes that this turn may still receive.
    budget: u32,
    /// The last wait told as much as it can at once: there may be more.
    cut_short: bool,
    mailbox: Arc<Mailbox>,
    pool: Arc<Pool>,
    in_flight: usize,
    counters: RingCounters,
}

impl Readiness {
    pub(crate) fn new(
        mailbox: &Arc<Mailbox>,
        pool: &Arc<Pool>,
        buffers_max: u16,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let doorbell = mailbox.doorbell().as_fd().as_raw_fd();
        // Edge-triggered, so nobody has to read the counter down again.
        let result = epoll.register(doorbell, EDGES_OF_DOORBELL, DOORBELL);
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        let mut kernel_timer = KernelTimer::new()?;
        if let Some(timer) = kernel_timer.number() {
            if epoll.register(timer, EDGES_OF_DOORBELL, TIMER) < 0 {
                kernel_timer.give_up();
            }
        }
        Ok(Self {
            epoll,
            kernel_timer,
            sources: Sources::default(),
            requests: Requests::default(),
            queue: Vec::new(),
            again: Vec::new(),
            round: Vec::new(),
            loose: List::EMPTY,
            refused: VecDeque::new(),
            cancelled: Vec::new(),
            buffers: Provisions::new(buffers_max),
            budget: 0,
            cut_short: false,
            mailbox: mailbox.clone(),
            pool: pool.clone(),
            in_flight: 0,
            counters: RingCounters::default(),
        })
    }

    /// # Safety
    ///
    /// As `Ring::submit`: what the request names stays valid until the terminal completion, and the
    /// token is not in flight.
    pub(crate) unsafe fn submit(&mut self, token: Token, request: &Request) {
        self.counters.submissions += 1;
        self.in_flight += 1;
        let index = self.requests.insert(token, request);
        let Some((number, side)) = waits_for(request).map(place) else {
            self.requests.append(&mut self.loose, index);
            return;
        };
        let source = self.sources.open(number);
        self.requests.append(source.waiting(side), index);
        let poll = matches!(request, Request::Poll(_));
        if poll {
            source.set_polled(side, true);
        }
        // Known to be drained: the attempt would be a wasted call. But readiness may stand where
        // there is nothing to move, so whoever asks for readiness itself gets a look of his own.
        if poll || !source.is_blocked(side) {
            self.enqueue(number, side);
        }
    }

    pub(crate) fn cancel(&mut self, token: Token) {
        let Some(index) = self.requests.find(token) else { return };
        if self.requests.is_with_pool(index) {
            // A job that a thread has taken runs to its end. One that is still here answers when it
            // is dropped, by the same way through the mailbox.
            self.refused.retain(|(refused, _)| *refused != token);
            return;
        }
        self.retire(index);
        self.cancelled.push(token);
    }

    /// See `Ring::withdraw`. Nothing is lent with a poll, so nothing has to come back of it.
    pub(crate) fn withdraw(&mut self, token: Token) -> bool {
        let Some(index) = self.requests.find(token) else { return false };
        debug_assert!(matches!(self.requests.request(index), Request::Poll(_)), "it lends nothing");
        self.retire(index);
        self.in_flight -= 1;
        true
    }

    /// # Panics
    ///
    /// Panics when requests wait for the descriptor: they end first.
    pub(crate) fn forget(&mut self, descriptor: i32) {
        self.sources.forget(number_of(descriptor));
    }

    /// # Panics
    ///
    /// As `forget`.
    pub(crate) fn unwatch(&mut self, descriptor: i32) {
        let source = self.sources.get(number_of(descriptor));
        if source.is_some_and(|source| source.is_registered()) {
            self.counters.registrations += 1;
            self.epoll.remove(descriptor);
        }
        self.forget(descriptor);
    }

    pub(crate) fn provide(&mut self, buffers: impl Iterator<Item = Provided>) {
        for buffer in buffers {
            self.buffers.add(buffer);
        }
    }

    /// Tries what is queued, waits as told when that gave nothing, and tries what has become ready.
    ///
    /// # Errors
    ///
    /// Those of epoll_wait(2) but `EINTR`, which ends the wait without events.
    pub(crate) fn turn(
        &mut self,
        waiting: Waiting,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        self.budget = BYTES_PER_TURN;
        if self.wants_turn() || !self.refused.is_empty() {
            self.begin_turn(completions);
        }

        // A turn that gave something still asks epoll, without waiting: a core that never idles
        // would otherwise never hear of new readiness.
        let idle = completions.is_empty() && self.queue.is_empty() && self.again.is_empty();
        let waiting = if idle { self.patience(waiting) } else { Waiting::No };
        let waiting = self.kernel_timer.take_over(waiting);
        self.counters.enters += 1;
        let began = trace::begin();
        let ready = self.epoll.wait(waiting)?;
        trace::end(began, SpanKind::Enter, || ready as i64);
        self.cut_short = ready == EVENTS_MAX;
        for index in 0..ready {
            let event = self.epoll.event(index);
            self.dispatch(event, completions);
        }
        Ok(())
    }

    /// What does not need epoll. Apart from the rest: who answers one peer after the other has
    /// nothing of this, and then the code of it is not fetched, either.
    #[inline(never)]
    fn begin_turn(&mut self, completions: &mut Vec<Completion>) {
        self.retry_refused();
        self.end_cancelled(completions);
        self.try_loose(completions);
        self.try_queued(completions);
    }

    #[inline]
    pub(crate) fn wants_turn(&self) -> bool {
        // Not the refused jobs: the pool gets no emptier by asking again at once.
        let queued = !self.queue.is_empty() || !self.again.is_empty();
        queued || !self.loose.is_empty() || !self.cancelled.is_empty()
    }

    /// Whether the last wait may have left something.
    pub(crate) fn has_more(&self) -> bool {
        self.cut_short
    }

    /// See `Ring::longest_sleep`.
    pub(crate) fn longest_sleep(&self) -> Option<u64> {
        (!self.refused.is_empty()).then_some(POOL_RETRY)
    }

    /// # Panics
    ///
    /// Panics when no pool thread has the request of `token`: each job answers once.
    pub(crate) fn complete_from_pool(&mut self, token: Token, result: i32) -> Completion {
        let index = self.requests.find(token).expect("a pool job answers for a request in flight");
        assert!(self.requests.is_with_pool(index), "only a job answers from the pool");
        self.requests.remove(index);
        self.in_flight -= 1;
        self.counters.completions += 1;
        Completion::done(token, result)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Readable when epoll has events for us, the doorbell among them. What `wants_turn` tells is
    /// not to be seen from outside.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(crate) fn counters(&self) -> RingCounters {
        self.counters
    }

    fn enqueue(&mut self, number: u32, side: Side) {
        let source = &mut self.sources[number];
        if !source.is_queued(side) {
            source.set_queued(side, true);
            self.queue.push((number, side));
        }
    }

    fn enqueue_again(&mut self, number: u32, side: Side) {
        let source = &mut self.sources[number];
        if !source.is_queued(side) {
            source.set_queued(side, true);
            self.again.push((number, side));
        }
    }

    fn patience(&self, waiting: Waiting) -> Waiting {
        if self.refused.is_empty() {
            return waiting;
        }
        let retry = system::now() + POOL_RETRY;
        match waiting {
            Waiting::No => Waiting::No,
            Waiting::Until(deadline) => {
                Waiting::Until(Some(deadline.map_or(retry, |deadline| deadline.min(retry))))
            }
        }
    }

    fn end_cancelled(&mut self, completions: &mut Vec<Completion>) {
        for token in self.cancelled.drain(..) {
            self.in_flight -= 1;
            self.counters.completions += 1;
            completions.push(Completion::done(token, -libc::ECANCELED));
        }
    }

    fn try_loose(&mut self, completions: &mut Vec<Completion>) {
        while let Some((index, _)) = self.requests.ends(self.loose) {
            self.requests.unlink(&mut self.loose, index);
            self.counters.direct_calls += 1;
            let request = self.requests.aside(index).expect("what names no descriptor is aside");
            // SAFETY: the submitter keeps what the request names until its terminal completion.
            match unsafe { request.attempt(&mut self.buffers) } {
                Attempt::Done { result } => {
                    let token = self.requests.remove(index);
                    self.post(token, result, completions);
                }
                Attempt::Blocking => self.hand_over(index),
                Attempt::More { .. } | Attempt::WouldBlock(_) => {
                    panic!("{request:?} names nothing to wait for")
                }
            }
        }
    }

    fn try_queued(&mut self, completions: &mut Vec<Completion>) {
        let mut round = mem::replace(&mut self.queue, mem::take(&mut self.round));
        round.append(&mut self.again);
        let mut tried = 0;
        while tried < round.len().min(EVENTS_MAX) && self.budget > 0 {
            let (number, side) = round[tried];
            self.sources[number].set_queued(side, false);
            self.visit_all(number, side, completions);
            tried += 1;
        }
        round.drain(..tried);
        // Those that did not get their turn stand before those that want another.
        round.append(&mut self.queue);
        mem::swap(&mut round, &mut self.queue);
        self.round = round;
    }

    /// Posts an answer of a request that goes on.
    fn go_on(
        &mut self,
        index: u32,
        result: i32,
        buffer: Option<u16>,
        completions: &mut Vec<Completion>,
    ) {
        if buffer.is_some() {
            self.budget = self.budget.saturating_sub(result.unsigned_abs());
        }
        let flags = Flags::NONE.with_more();
        let flags = buffer.map_or(flags, |buffer| flags.with_buffer(buffer));
        self.counters.completions += 1;
        completions.push(Completion { token: self.requests[index].token, result, flags });
    }

    /// Ends a request that waits for a descriptor.
    fn end(&mut self, index: u32, result: i32, completions: &mut Vec<Completion>) {
        let token = self.retire(index);
        self.post(token, result, completions);
    }

    /// Posts the terminal completion.
    fn post(&mut self, token: Token, result: i32, completions: &mut Vec<Completion>) {
        self.in_flight -= 1;
        self.counters.completions += 1;
        completions.push(Completion::done(token, result));
    }

    /// Frees a request that waits no more, and takes it out of the list that it waits in.
    fn retire(&mut self, index: u32) -> Token {
        let list = match self.requests.waits_for(index).map(place) {
            Some((number, side)) => self.sources[number].waiting(side),
            None => &mut self.loose,
        };
        self.requests.unlink(list, index);
        if let Some(Request::Connect(connect)) = self.requests.aside(index) {
            // Who gets the socket now may close it, or use it on another core, without a word to
            // this ring: a number that still counted as registered would then never be watched.
            self.forget(connect.descriptor);
        }
        self.requests.remove(index)
    }

    /// Gives a request that stands in no list to the pool.
    fn hand_over(&mut self, index: u32) {
        let request = self.requests.give_away(index);
        let token = self.requests[index].token;
        let has_thread = self.pool.has_thread();
        let unless_run = if has_thread { libc::ECANCELED } else { NO_THREAD };
        // SAFETY: the submitter keeps what the request names until its terminal completion, and
        // that is made of the job's answer.
        let job = unsafe { Job::new(token, request, &self.mailbox, unless_run) };
        if has_thread {
            self.refused.push_back((token, Box::new(move || job.run())));
            self.retry_refused();
        } else if matches!(request, Request::Close(_)) {
            // A number that is never closed would be lost. A dropped file is closed here, too.
            job.run();
        }
    }

    /// Offers jobs to the pool in order, until it has no room.
    fn retry_refused(&mut self) {
        while let Some((token, job)) = self.refused.pop_front() {
            match self.pool.submit(job) {
                Ok(()) => self.counters.pool_jobs += 1,
                Err(job) => {
                    self.refused.push_front((token, job));
                    return;
                }
            }
        }
    }
}

/// Which side of which descriptor that is.
#[inline]
fn place((descriptor, interest): (i32, Interest)) -> (u32, Side) {
    (number_of(descriptor), Side::of(interest))
}

#[inline]
fn number_of(descriptor: i32) -> u32 {
    u32::try_from(descriptor).expect("an open descriptor's number is not negative")
}
