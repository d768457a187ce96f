//! One core's I/O: who waits for which request, and who owns what was lent to the kernel.
//!
//! ```text
//!  futures ──poll──► resources ──submit──► ring            kernel
//!     ▲                  │  ▲                │                │
//!     │ wake             │  └── dispatch ◄── completions ◄────┘
//!     └── effects ◄──────┘       (turn)
//! ```
//!
//! Resources (streams, listeners, operations) own their requests and live in tables here; futures
//! hold a key and wait for a change of state. So dropping a future changes nothing in the kernel
//! and loses nothing: what arrives later waits in the resource.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use crate::io::buffer::{BufferCounters, BufferPool, PoolConfig};
use crate::io::clock::Clock;
use crate::io::histogram::Histogram;
use crate::io::mailbox::{self, CoreId, Doorbell, Key, Mailbox};
use crate::io::pool::{Pool, contain};
use crate::io::request::{Completion, Token};
use crate::io::ring::simulated::{Simulated, world};
use crate::io::ring::{Prepared, Ring, RingCounters, RingKind, RingReport, Waiting};
use crate::io::services::{ErrorCounters, Limits, ResourceCounters, Services};
use crate::io::system;
use crate::io::tables::Tables;
use crate::io::timers::{Expiry, Timers};

/// What a core's I/O is made of.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) prepared: Prepared,
    pub(crate) limits: Limits,
    pub(crate) buffers: PoolConfig,
    pub(crate) pool: Arc<Pool>,
}

/// What a turn does when nothing is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Park {
    /// Comes back at once.
    No,
    /// Waits, at most until this time of the core's clock.
    Until(Option<u64>),
}

/// What was left when a core's I/O was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Requests that were cancelled and reaped.
    pub(crate) cancelled: usize,
    /// Requests that the kernel still holds: their memory and descriptors are leaked.
    pub(crate) leaked: usize,
}

/// What a core's I/O has done, and what is alive; see `Metrics`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Census {
    pub(crate) ring: RingCounters,
    pub(crate) resources: ResourceCounters,
    pub(crate) errors: ErrorCounters,
    pub(crate) batches: Histogram,
    pub(crate) buffers: BufferCounters,
    pub(crate) streams: usize,
    pub(crate) foreign: usize,
    pub(crate) streams_starved: usize,
    pub(crate) listeners: usize,
    pub(crate) accept_queue: usize,
    pub(crate) operations: usize,
    pub(crate) requests: usize,
    pub(crate) leases: usize,
}

pub(crate) struct Proactor {
    mailbox: Arc<Mailbox>,
    clock: Rc<Clock>,
    report: RingReport,
    pool: Arc<Pool>,
    tables: RefCell<ManuallyDrop<Tables>>,
    closed: Cell<bool>,
    /// With a stopped clock: the turn before found nothing.
    quiet: Cell<bool>,
    // Kept between turns, so that a turn allocates nothing.
    completions: Cell<Vec<Completion>>,
    expired: Cell<Vec<Expiry>>,
    wakers: Cell<Vec<Waker>>,
}

thread_local! {
    static CURRENT: Cell<*const Proactor> = const { Cell::new(std::ptr::null()) };
}

/// Makes a proactor the current one of this thread until it is dropped. Entries nest.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    proactor: *const Proactor,
    core: CoreId,
    entered: std::marker::PhantomData<&'a Proactor>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.proactor);
        mailbox::set_current_core(self.core);
    }
}

/// Makes the thread one without a core until the guard is dropped.
pub(crate) fn leave() -> Entered<'static> {
    Entered {
        core: mailbox::set_current_core(0),
        proactor: CURRENT.replace(std::ptr::null()),
        entered: std::marker::PhantomData,
    }
}

impl Proactor {
    pub(crate) fn new(config: &Config) -> io::Result<Rc<Self>> {
        let mailbox = match world::current() {
            Some(world) if config.prepared.kind() == RingKind::Simulated => {
                Mailbox::simulated(world.next_core(), world.rung().clone())
            }
            _ => Mailbox::open().map_err(with_remedy)?,
        };
        Self::build(config, &mailbox).map_err(|error| {
            mailbox.close();
            with_remedy(error)
        })
    }

    fn build(config: &Config, mailbox: &Arc<Mailbox>) -> io::Result<Rc<Self>> {
        let ring = Ring::new(&config.prepared, mailbox, &config.pool, config.buffers.limit)?;
        let buffers = BufferPool::new(config.buffers, mailbox)?;
        let clock = Rc::new(match config.prepared.kind() {
            RingKind::Simulated => Clock::simulated(world::current().map_or(0, |one| one.clock())),
            RingKind::Uring | RingKind::Readiness => Clock::new(),
        });
        let services = Services::new(ring, buffers, clock.clone(), config.limits);
        Ok(Rc::new(Self {
            mailbox: mailbox.clone(),
            clock,
            report: config.prepared.report().clone(),
            pool: config.pool.clone(),
            tables: RefCell::new(ManuallyDrop::new(Tables::new(services))),
            closed: Cell::new(false),
            quiet: Cell::new(false),
            completions: Cell::default(),
            expired: Cell::default(),
            wakers: Cell::default(),
        }))
    }

    pub(crate) fn id(&self) -> CoreId {
        self.mailbox.core()
    }

    /// Shut down: what is put on the tables now is not served any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(crate) fn enter(self: &Rc<Self>) -> Entered<'_> {
        Entered {
            core: mailbox::set_current_core(self.id()),
            proactor: CURRENT.replace(Rc::as_ptr(self)),
            entered: std::marker::PhantomData,
        }
    }

    /// Runs `f` with the core whose program runs on this thread; `None` outside.
    #[inline]
    pub(crate) fn with_current<R>(f: impl FnOnce(&Self) -> R) -> Option<R> {
        // SAFETY: only an entry guard sets the pointer, from an `Rc` that the guard borrows, and
        // takes it back before that borrow ends.
        unsafe { CURRENT.get().as_ref() }.map(f)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        self.mailbox.doorbell()
    }

    pub(crate) fn ring_report(&self) -> &RingReport {
        &self.report
    }

    /// While this thread is the core's to wait on: timers on time, if its ring would not see to it.
    pub(crate) fn exact_waits(&self) -> Option<system::ExactWaits> {
        let coarse = self.report.kind() == RingKind::Readiness;
        coarse.then(system::ExactWaits::begin)
    }

    /// # Panics
    ///
    /// When the core is simulated.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        let mut tables = self.tables.borrow_mut();
        let descriptor = tables.services.ring.as_fd().map(|descriptor| descriptor.as_raw_fd());
        let descriptor = descriptor.expect("a simulated core has no descriptor");
        // SAFETY: the ring is dropped with the proactor, or leaked.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.with_simulated(|_| ()).is_some()
    }

    /// Asks the simulated ring.
    pub(crate) fn with_simulated<R>(&self, f: impl FnOnce(&Simulated) -> R) -> Option<R> {
        self.tables.borrow().services.ring.as_simulated().map(f)
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.tables.borrow().services.timers.next_deadline()
    }

    /// How long somebody else may wait for this core, in nanoseconds.
    pub(crate) fn longest_wait(&self) -> Option<u64> {
        let left = self.next_deadline().map(|at| at.saturating_sub(self.clock.now()));
        let sleep = self.tables.borrow().services.ring.longest_sleep();
        left.into_iter().chain(sleep).min()
    }

    /// Connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.tables.borrow().streams.len()
    }

    /// All that is counted, and what is alive.
    pub(crate) fn census(&self) -> Census {
        let mut tables = self.tables.borrow_mut();
        let accept_queue = tables.accept_queue();
        let services = &tables.services;
        let mut ring = services.ring.counters();
        ring.direct_calls += services.direct_calls;
        let (hungry, fed) = services.starved.counts();
        Census {
            ring,
            resources: services.counters,
            errors: services.errors,
            batches: services.batches,
            buffers: services.buffers.counters(),
            streams: tables.streams.len(),
            foreign: tables.foreign.len(),
            streams_starved: hungry + fed,
            listeners: tables.listeners.len(),
            accept_queue,
            operations: tables.operations.len(),
            requests: services.ring.in_flight(),
            leases: services.buffers.leases(),
        }
    }

    /// Borrows the tables, then runs what has to happen outside them.
    #[inline]
    pub(crate) fn with_tables<R>(&self, f: impl FnOnce(&mut Tables) -> R) -> R {
        let mut tables = self.tables.borrow_mut();
        let result = f(&mut tables);
        if tables.services.effects.is_empty() {
            return result;
        }
        self.run_effects(tables);
        result
    }

    pub(crate) fn with_timers<R>(&self, f: impl FnOnce(&mut Timers) -> R) -> R {
        f(&mut self.tables.borrow_mut().services.timers)
    }

    /// Wakes and drops, with the tables free: either may call back into this proactor.
    fn run_effects(&self, mut tables: std::cell::RefMut<'_, ManuallyDrop<Tables>>) {
        let effects = &mut tables.services.effects;
        let mut wakers = std::mem::replace(&mut effects.wakers, self.wakers.take());
        let rest = (!effects.is_empty()).then(|| {
            (std::mem::take(&mut effects.dropped_wakers), std::mem::take(&mut effects.abandoned))
        });
        drop(tables);
        each(wakers.drain(..), Waker::wake);
        self.wakers.set(wakers);
        if let Some((discarded, abandoned)) = rest {
            each(discarded.into_iter(), drop);
            each(abandoned.into_iter(), |(payload, outcome)| payload.abandon(outcome));
        }
    }

    /// Whether a turn would have work, without a system call.
    #[inline]
    pub(crate) fn wants_turn(&self) -> bool {
        !self.mailbox.is_empty() || self.tables.borrow_mut().services.ring.wants_turn()
    }

    /// One turn: hand in what was asked, take what is done, tell who waits.
    pub(crate) fn turn(&self, park: Park, still_idle: &dyn Fn() -> bool) {
        self.read_mail();
        self.with_tables(Tables::replenish);
        let mut completions = self.completions.take();
        let waiting = self.waiting(park, still_idle);
        let outcome = self.turn_ring(waiting, &mut completions);
        self.doorbell().awake();
        if let Err(error) = outcome {
            panic!("the ring of core {} has failed: {error}", self.id());
        }
        self.fire_timers();
        if !completions.is_empty() {
            self.quiet.set(false);
            self.with_tables(|tables| {
                for completion in completions.drain(..) {
                    tables.dispatch(completion);
                }
                tables.services.telling = false;
            });
        }
        self.completions.set(completions);
        self.read_mail();
    }

    fn turn_ring(&self, waiting: Waiting, completions: &mut Vec<Completion>) -> io::Result<()> {
        let Tables { services, streams, .. } = &mut **self.tables.borrow_mut();
        services.batching.before_turn(|| self.clock.now());
        let outcome = services.ring.turn(waiting, completions);
        services.batching.after_turn(completions.len(), streams.len());
        services.batches.record(completions.len() as u64);
        services.telling = !completions.is_empty();
        outcome
    }

    /// How long this turn may wait. Sleep is announced before the queues are looked at once more,
    /// so a message that comes in between rings the bell.
    fn waiting(&self, park: Park, still_idle: &dyn Fn() -> bool) -> Waiting {
        let Park::Until(limit) = park else {
            self.quiet.set(false);
            return Waiting::No;
        };
        self.doorbell().sleep();
        if !self.may_sleep() || !still_idle() {
            self.quiet.set(false);
            return Waiting::No;
        }
        let next = match (limit, self.next_deadline()) {
            (Some(limit), Some(timer)) => Some(limit.min(timer)),
            (limit, timer) => limit.or(timer),
        };
        if let (true, Some(next)) = (self.clock.jumps(), next) {
            // A stopped clock moves only here, when nothing else can happen before that time: the
            // ring gets one turn to show that nothing is there.
            if self.quiet.replace(true) {
                self.clock.advance_to(next);
            }
            return Waiting::No;
        }
        Waiting::Until(next.and_then(|next| self.clock.to_system(next)))
    }

    /// Announces a sleep on the descriptor, as `waiting` does one in the ring: from here on
    /// messages ring the bell. True: nobody here has anything to do that it would not show.
    pub(crate) fn rest(&self) -> bool {
        self.doorbell().sleep();
        let mut tables = self.tables.borrow_mut();
        // A stream that found no buffer is fed when the next turn begins: nothing in the kernel
        // waits for it until then.
        let all_fed = tables.services.starved.is_empty();
        let rests = tables.services.ring.rest() && all_fed;
        drop(tables);
        rests && self.may_sleep()
    }

    /// Nobody here has anything to do that would not wake the core.
    pub(crate) fn may_sleep(&self) -> bool {
        self.mailbox.is_empty() && !self.tables.borrow().can_feed()
    }

    #[inline]
    fn fire_timers(&self) {
        let next = self.next_deadline();
        if next.is_some_and(|next| next <= self.clock.now()) {
            self.fire_those_due();
        }
    }

    #[inline(never)]
    fn fire_those_due(&self) {
        let mut expired = self.expired.take();
        self.with_tables(|tables| {
            let now = tables.services.clock.now();
            tables.services.timers.expire(now, &mut expired);
            if !expired.is_empty() {
                // Whoever is woken may start something that the ring has to show first.
                self.quiet.set(false);
            }
            for expiry in expired.drain(..) {
                match expiry {
                    Expiry::Wake(waker) => tables.services.effects.wake(Some(waker)),
                    Expiry::Token(token) => tables.on_timer(Token(token)),
                }
            }
        });
        self.expired.set(expired);
    }

    fn read_mail(&self) {
        while let Some(message) = self.mailbox.pop() {
            self.quiet.set(false);
            self.with_tables(|tables| tables.on_message(message));
        }
    }

    pub(crate) fn release_operation(&self, key: Key) {
        self.with_tables(|tables| tables.release_operation(key));
    }

    /// Ends all I/O of this core: committed bytes and FIN go out until `deadline`, then everything
    /// is cancelled and reaped. What the kernel still holds after that is leaked, never freed.
    ///
    /// The deadline is of the machine's clock: the core's may have been stopped, and moved by hand.
    pub(crate) fn shutdown(&self, deadline: u64) -> Closed {
        let Some(mut ending) = self.begin_end(deadline) else { return Closed::default() };
        while !self.has_ended(&mut ending) {
            let left = ending.until.saturating_sub(self.clock.ending());
            let limit = self.clock.now().saturating_add(left);
            // The turn begins with the mail, which may bring the last answer: no sleep after that.
            self.turn(Park::Until(Some(limit)), &|| !self.is_through(&ending));
        }
        ending.closed
    }

    /// The same in steps, for who gives the turns: between two of them, ask `has_ended`. `None`: it
    /// was done before.
    pub(crate) fn begin_end(&self, deadline: u64) -> Option<Ending> {
        if self.closed.replace(true) {
            return None;
        }
        self.clock.resume();
        self.with_tables(Tables::close_all);
        Some(Ending { until: deadline, is_cancelled: false, closed: Closed::default() })
    }

    /// Nothing is left to wait for in this part of the end.
    fn is_through(&self, ending: &Ending) -> bool {
        let services = &self.tables.borrow().services;
        let left = if ending.is_cancelled {
            services.ring.in_flight()
        } else {
            self.tables.borrow().streams.len()
        };
        left == 0
    }

    /// Goes on to the next part of the end when it is time; `true` after the last.
    pub(crate) fn has_ended(&self, ending: &mut Ending) -> bool {
        if !self.is_through(ending) && self.clock.ending() < ending.until {
            return false;
        }
        if !ending.is_cancelled {
            self.with_tables(|tables| ending.closed.cancelled = tables.cancel_all());
            ending.is_cancelled = true;
            ending.until = self.clock.ending().saturating_add(GRACE).max(ending.until);
            return self.has_ended(ending);
        }
        self.mailbox.close();
        self.with_tables(Tables::strand_all);
        ending.closed.leaked = self.tables.borrow().services.ring.in_flight();
        true
    }
}

/// The end of a core's I/O, on the way.
#[derive(Debug)]
pub(crate) struct Ending {
    /// When the part that goes on is over.
    pub(crate) until: u64,
    is_cancelled: bool,
    pub(crate) closed: Closed,
}

/// Runs foreign code for each item. Should it panic, the others get theirs all the same: a wake
/// that is lost leaves somebody waiting for ever, and an outcome may own a descriptor.
#[inline]
fn each<T>(mut items: impl ExactSizeIterator<Item = T>, action: impl Fn(T)) {
    while items.len() > 0 {
        contain(|| items.by_ref().for_each(&action));
    }
}

/// Why a core could not start, and what would help.
fn with_remedy(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => io::Error::new(
            error.kind(),
            format!("a core needs some descriptors: {error}; raise RLIMIT_NOFILE (`ulimit -n`)"),
        ),
        _ => error,
    }
}

/// What cancelled requests get to come back, at least.
const GRACE: u64 = 100_000_000;

impl Drop for Proactor {
    fn drop(&mut self) {
        self.mailbox.close();
        let tables = self.tables.get_mut();
        // While the kernel holds a request it may write to what the tables own, even after the ring
        // is closed: then leaking them is the only sound answer.
        if tables.services.ring.in_flight() == 0 {
            // SAFETY: nothing touches the tables after this: the proactor is going.
            unsafe { ManuallyDrop::drop(tables) };
        }
    }
}

impl std::fmt::Debug for Proactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proactor").field("core", &self.id()).finish_non_exhaustive()
    }
}

/// The error of what is polled on a core which does not own it.
#[cold]
pub(crate) fn off_core(what: &str, owner: CoreId, has_detach: bool) -> io::Error {
    if mailbox::find(owner).is_none() {
        let text = format!("{what} belonged to core {owner}, which is gone");
        return io::Error::new(io::ErrorKind::NotConnected, text);
    }
    let or_else = if has_detach { ", or detach it first" } else { "" };
    io::Error::other(format!(
        "{what} belongs to core {owner} and was polled on core {}; poll it there{or_else}",
        mailbox::current_core()
    ))
}

/// The error of I/O that is polled outside a runtime.
pub(crate) fn outside(what: &str) -> io::Error {
    io::Error::other(format!(
        "{what} was polled outside a quoit runtime; run it within `quoit::block_on` or a Runtime"
    ))
}
