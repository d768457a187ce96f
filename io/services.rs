//! What a resource may reach while the tables are borrowed: ring, buffers, timers, and the list of
//! what has to happen afterwards.
//!
//! Wakers and user drops may run anything, the runtime's own calls included. So nothing here wakes
//! or drops: it is put on the `Effects` and runs when the tables are free again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::io::buffer::BufferPool;
use crate::io::clock::Clock;
use crate::io::histogram::Histogram;
use crate::io::mailbox::{Key, WaiterId};
use crate::io::net::batching::{Batching, Way};
use crate::io::payload::AnyPayload;
use crate::io::request::{Request, Token};
use crate::io::ring::Ring;
use crate::io::timers::{Expiry, TimerKey, Timers};
use crate::io::waiters::{Caller, Waiters};

/// What kind of resource a token belongs to, and which of its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Receive = 1,
    Send = 2,
    WatchReadable = 3,
    WatchWritable = 4,
    Accept = 5,
    Operation = 6,
    Linger = 7,
    AcceptAgain = 8,
    ForeignReadable = 9,
    ForeignWritable = 10,
}

impl Kind {
    /// `63: the engine's own | 62..56: kind | 55..32: generation | 31..0: index`
    #[inline]
    pub(crate) fn token(self, key: Key) -> Token {
        Token(u64::from(key.index) | u64::from(key.generation) << 32 | (self as u64) << 56)
    }

    #[inline]
    pub(crate) fn of(token: Token) -> Option<(Self, Key)> {
        let key =
            Key { index: token.0 as u32, generation: (token.0 >> 32) as u32 & ((1 << 24) - 1) };
        let kind = match (token.0 >> 56) as u8 {
            1 => Self::Receive,
            2 => Self::Send,
            3 => Self::WatchReadable,
            4 => Self::WatchWritable,
            5 => Self::Accept,
            6 => Self::Operation,
            7 => Self::Linger,
            8 => Self::AcceptAgain,
            9 => Self::ForeignReadable,
            10 => Self::ForeignWritable,
            _ => return None,
        };
        Some((kind, key))
    }
}

/// Streams that found no buffer, first come first served; but those that got nothing since they
/// last tried go before those that did.
#[derive(Debug, Default)]
pub(crate) struct Starved {
    empty: VecDeque<Key>,
    fed: VecDeque<Key>,
}

impl Starved {
    pub(crate) fn push(&mut self, key: Key, is_fed: bool) {
        if is_fed { &mut self.fed } else { &mut self.empty }.push_back(key);
    }

    /// The next of the one kind or the other.
    pub(crate) fn pop(&mut self, is_fed: bool) -> Option<Key> {
        if is_fed { &mut self.fed } else { &mut self.empty }.pop_front()
    }

    /// How many got nothing, and how many something.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.empty.len(), self.fed.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.empty.is_empty() && self.fed.is_empty()
    }
}

/// Bounds of one core, from the builder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections taken from the kernel ahead of `accept`, per listener.
    pub(crate) accept_ahead: usize,
    /// Received bytes that wait for the program, per stream.
    pub(crate) receive_ahead: usize,
    /// Committed bytes that wait for the kernel, per stream.
    pub(crate) send_ahead: usize,
    pub(crate) sends: Sends,
}

/// How a buffer goes out that nothing stands before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sends {
    /// Tried at once; only what is left is submitted.
    AtOnce,
    Submitted,
    /// Submitted while that is cheaper, otherwise tried at once.
    ByLoad,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accept_ahead: 64,
            receive_ahead: 256 * 1024,
            send_ahead: 256 * 1024,
            sends: Sends::ByLoad,
        }
    }
}

/// How long a dropped stream waits for its peer's end, unless it says otherwise.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// The books of one core's resources: what came is what went plus what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceCounters {
    /// Connections that the kernel handed over.
    pub connections_accepted: u64,
    /// Connections that `accept` handed on.
    pub connections_delivered: u64,
    /// Connections that were closed because their listener was dropped before `accept` took them.
    pub connections_undelivered: u64,
    /// Times that a receive found no provided buffer.
    pub buffers_exhausted: u64,
    /// Receives into private memory because every provided buffer was lent.
    pub private_receives: u64,
    /// Completions that nobody knows: always zero, unless the kernel errs.
    pub unknown_completions: u64,
}

/// Completions that carried an error, by what it means. Most of them are business as usual: a
/// cancelled request, a receive that found no buffer, a peer that has reset its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ErrorCounters {
    /// `ECANCELED`: a request that was taken back, by a drop, a timeout or a full queue.
    pub cancelled: u64,
    /// `ENOBUFS`: no provided buffer was free.
    pub no_buffers: u64,
    /// `EAGAIN`, `EINTR` and `EALREADY`: not now; tried again.
    pub again: u64,
    /// `EMFILE`, `ENFILE` and `ENOMEM`: the process or the machine has run out of something.
    pub shortages: u64,
    /// The connection or its network has failed: `ECONNRESET`, `ECONNREFUSED`, `ECONNABORTED`,
    /// `EPROTO`, `EPIPE`, `ENOTCONN`, `ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`.
    pub connections: u64,
    /// Any other.
    pub others: u64,
}

impl ErrorCounters {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { cancelled, no_buffers, again, shortages, connections, others } = self;
        cancelled + no_buffers + again + shortages + connections + others
    }

    #[cold]
    pub(crate) fn count(&mut self, number: i32) {
        let counter = match number {
            libc::ECANCELED => &mut self.cancelled,
            libc::ENOBUFS => &mut self.no_buffers,
            libc::EAGAIN | libc::EINTR | libc::EALREADY => &mut self.again,
            libc::EMFILE | libc::ENFILE | libc::ENOMEM => &mut self.shortages,
            libc::ECONNRESET | libc::ECONNREFUSED | libc::ECONNABORTED | libc::EPIPE => {
                &mut self.connections
            }
            libc::EPROTO
            | libc::ENOTCONN
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH => &mut self.connections,
            _ => &mut self.others,
        };
        *counter += 1;
    }
}

/// What has to happen when the tables are free again.
#[derive(Default)]
pub(crate) struct Effects {
    pub(crate) wakers: Vec<Waker>,
    pub(crate) dropped_wakers: Vec<Waker>,
    /// Payloads of operations that nobody waits for, each with the outcome.
    pub(crate) abandoned: Vec<(AnyPayload, i64)>,
}

impl Effects {
    #[inline]
    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
    }

    #[inline]
    pub(crate) fn discard(&mut self, waker: Option<Waker>) {
        self.dropped_wakers.extend(waker);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wakers.is_empty() && self.dropped_wakers.is_empty() && self.abandoned.is_empty()
    }
}

/// How many answers tasks may have at once, without a turn of the core in between.
///
/// An answer that needs no waiting is the fastest there is, and a task that gets nothing else never
/// lets the others run. So each task has a few in a row, and then waits for its turn like anyone.
#[derive(Debug)]
pub(crate) struct AtOnce {
    /// The task that had the last one, as its waker tells: compared, and never followed.
    task: *const (),
    in_a_row: u8,
    /// What all tasks together still have in this turn. It bounds wakers that differ for one task.
    left: u16,
}

impl AtOnce {
    const IN_A_ROW: u8 = 4;
    const A_TURN: u16 = 256;
    const FRESH: Self = Self { task: std::ptr::null(), in_a_row: 0, left: Self::A_TURN };

    /// Whether the task may have one more.
    #[inline]
    pub(crate) fn grant(&mut self, waker: &Waker) -> bool {
        if self.task != waker.data() {
            (self.task, self.in_a_row) = (waker.data(), 0);
        }
        let granted = self.in_a_row < Self::IN_A_ROW && self.left > 0;
        if granted {
            self.in_a_row += 1;
            self.left -= 1;
        }
        granted
    }
}

pub(crate) struct Services {
    pub(crate) ring: Ring,
    pub(crate) buffers: BufferPool,
    pub(crate) timers: Timers,
    pub(crate) clock: Rc<Clock>,
    pub(crate) limits: Limits,
    pub(crate) effects: Effects,
    pub(crate) counters: ResourceCounters,
    /// Completions with an error.
    pub(crate) errors: ErrorCounters,
    /// Completions per turn of the ring.
    pub(crate) batches: Histogram,
    /// Direct calls of resources; the ring counts its own.
    pub(crate) direct_calls: u64,
    /// Streams whose receive found no buffer, oldest first; each stands here once.
    pub(crate) starved: Starved,
    pub(crate) at_once: AtOnce,
    /// No new receives: the runtime is shutting down.
    pub(crate) closing: bool,
    pub(crate) batching: Batching,
    /// Completions have come whose resources have not heard of them yet.
    pub(crate) telling: bool,
    next_waiter: WaiterId,
    /// Buffers that have come back and are not with the ring yet.
    returned: Vec<u16>,
}

impl Services {
    pub(crate) fn new(ring: Ring, buffers: BufferPool, clock: Rc<Clock>, limits: Limits) -> Self {
        Self {
            timers: Timers::new(clock.now()),
            batching: Batching::new(clock.is_simulated()),
            ring,
            buffers,
            clock,
            limits,
            effects: Effects::default(),
            counters: ResourceCounters::default(),
            errors: ErrorCounters::default(),
            batches: Histogram::default(),
            direct_calls: 0,
            starved: Starved::default(),
            at_once: AtOnce::FRESH,
            closing: false,
            telling: false,
            next_waiter: crate::io::waiters::POLLER,
            returned: Vec::new(),
        }
    }

    /// A number for a future that waits; the same one as long as it lives.
    #[inline]
    pub(crate) fn waiter(&mut self, waiter: &mut Option<WaiterId>) -> WaiterId {
        *waiter.get_or_insert_with(|| {
            let next = self.next_waiter.checked_add(1);
            self.next_waiter = next.expect("counting 2^64 waiters outlives the machine");
            self.next_waiter
        })
    }

    /// A future stands in line, or renews its waker, and is told when it is its turn.
    #[inline]
    pub(crate) fn line_up<T>(
        &mut self,
        line: &mut Waiters,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
    ) -> Poll<T> {
        let old = line.enrol(self.waiter(waiter), caller);
        self.effects.discard(old);
        Poll::Pending
    }

    /// The same for who only looks.
    pub(crate) fn look_out<T>(
        &mut self,
        line: &mut Waiters,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
    ) -> Poll<T> {
        let old = line.observe(self.waiter(waiter), caller);
        self.effects.discard(old);
        Poll::Pending
    }

    /// Whether a send that nothing stands before is submitted, and not tried at once.
    #[inline]
    pub(crate) fn submits_send(&mut self, hurries: bool) -> bool {
        match self.limits.sends {
            _ if hurries => false,
            Sends::AtOnce => false,
            Sends::Submitted => true,
            Sends::ByLoad if !self.ring.gains_by_batches() => false,
            Sends::ByLoad => match self.batching.way(|| self.clock.now()) {
                Way::AtOnce => false,
                Way::Submitted => true,
                Way::Late => {
                    self.ring.hand_in();
                    false
                }
            },
        }
    }

    /// Submits for a resource.
    ///
    /// # Safety
    ///
    /// As `Ring::submit`: the resource keeps what the request names until the terminal completion.
    #[inline]
    pub(crate) unsafe fn submit(&mut self, kind: Kind, key: Key, request: &Request) {
        // SAFETY: handed on.
        unsafe { self.ring.submit(kind.token(key), request) };
    }

    #[inline]
    pub(crate) fn cancel(&mut self, kind: Kind, key: Key) {
        self.ring.cancel(kind.token(key));
    }

    /// Ends a poll of a resource. True: at once. False: its terminal completion tells.
    pub(crate) fn end_poll(&mut self, kind: Kind, key: Key) -> bool {
        let at_once = !self.telling && self.ring.withdraw(kind.token(key));
        if !at_once {
            self.cancel(kind, key);
        }
        at_once
    }

    /// Starts a timer whose expiry comes back to a resource.
    pub(crate) fn start_timer(&mut self, kind: Kind, key: Key, after: Duration) -> TimerKey {
        let nanoseconds = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        let deadline = self.clock.now().saturating_add(nanoseconds);
        self.timers.insert(deadline, Expiry::Token(kind.token(key).0))
    }

    pub(crate) fn stop_timer(&mut self, timer: Option<TimerKey>) {
        if let Some(Expiry::Wake(waker)) = timer.and_then(|timer| self.timers.remove(timer)) {
            self.effects.discard(Some(waker));
        }
    }

    /// A turn begins: returned buffers go to the ring again, and everyone may have answers at once.
    #[inline]
    pub(crate) fn replenish(&mut self) {
        self.at_once = AtOnce::FRESH;
        if self.buffers.has_returned() {
            self.buffers.take_returned(&mut self.returned);
            let Self { ring, buffers, returned, .. } = self;
            ring.provide(returned.drain(..).map(|id| buffers.provided(id)));
        }
    }

    /// More buffers for the ring. `false`: the limit is reached, or the system gives no memory.
    pub(crate) fn grow_buffers(&mut self) -> bool {
        let Self { ring, buffers, .. } = self;
        match buffers.grow() {
            Ok(provided) => {
                let mut count = 0;
                ring.provide(provided.inspect(|_| count += 1));
                count > 0
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;

    use super::*;

    struct Nobody(#[expect(dead_code, reason = "a size, for an address of its own")] u8);

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_task_has_a_few_answers_at_once_and_others_have_theirs() {
        let tasks: Vec<_> = (0..100).map(|n| Waker::from(Arc::new(Nobody(n)))).collect();
        let mut at_once = AtOnce::FRESH;
        let greedy = |at_once: &mut AtOnce, task| (0..10).filter(|_| at_once.grant(task)).count();
        assert_eq!(greedy(&mut at_once, &tasks[0]), 4);
        assert_eq!(greedy(&mut at_once, &tasks[1]), 4);
        let others: usize = tasks.iter().map(|task| greedy(&mut at_once, task)).sum();
        assert_eq!(others, 256 - 8, "all together have an end, too");
    }
}
