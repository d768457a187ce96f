//! The tasks of one core: who lives, who is ready, and how a wake finds its way.
//!
//! ```text
//!   wake, abort ── this core is current ──────► local cell QUEUED ──► run queue
//!               └─ anywhere else ──► state MAILED ──► inbox ──► (next turn) ──┘
//! ```
//!
//! Every living task stands in `living`, which owns the core's one reference to it; the reference
//! goes when the task is complete and out of the run queue. User code (futures, wakers,
//! destructors) runs in here, so nothing in here is borrowed while it does.

mod end;

use std::cell::{Cell, OnceCell, RefCell};
use std::mem;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::task::Poll;

pub(crate) use self::end::refuse;
use crate::io::allowance;
use crate::io::histogram::Histogram;
use crate::io::system;
use crate::io::trace::{self, SpanKind};
use crate::runtime::id::{self, Ids};
use crate::runtime::inbox::{Inbox, Mail, SharedInbox};
use crate::runtime::join::JoinHandle;
use crate::runtime::run_queue::RunQueue;
use crate::runtime::stall::{SharedWatched, Watched};
use crate::runtime::state::{Completion, State};
use crate::runtime::sync::{Arc, thread_local_const};
use crate::runtime::task::{ABORTED, DONE, Header, QUEUED, RawTask, Reference, quietly};
use crate::runtime::traced::Label;

thread_local_const! {
    /// The tasks of the core whose program runs on this thread now; null outside.
    static CURRENT: Cell<*const Tasks> = Cell::new(ptr::null());
}

/// What has been counted since the core started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) spawned: u64,
    pub(crate) polls: u64,
    pub(crate) panicked: u64,
    pub(crate) mail: u64,
    /// Of the loop, which counts them here, where all can be asked for.
    pub(crate) turns: u64,
    pub(crate) parks: u64,
}

#[derive(Debug)]
pub(crate) struct Tasks {
    inbox: SharedInbox,
    ready: RunQueue,
    living: RefCell<Vec<RawTask>>,
    /// The root future was woken on this core.
    pub(crate) root_woken: Cell<bool>,
    /// No task is taken on any more: `spawn` answers with a cancelled one.
    closed: Cell<bool>,
    /// Cells made on this core less cells freed on it; see `inbox`.
    cells: Cell<isize>,
    leaked: Cell<usize>,
    ids: Ids,
    counts: Cell<Counts>,
    /// How long polls took, if that is asked for.
    times: OnceCell<RefCell<Histogram>>,
    /// What a watchdog sees of the polls, if there is one.
    watched: OnceCell<SharedWatched>,
}

impl Tasks {
    pub(crate) fn new(inbox: SharedInbox) -> Self {
        Self {
            inbox,
            ready: RunQueue::new(),
            living: RefCell::new(Vec::new()),
            root_woken: Cell::new(false),
            closed: Cell::new(false),
            cells: Cell::new(0),
            leaked: Cell::new(0),
            ids: Ids::default(),
            counts: Cell::new(Counts::default()),
            times: OnceCell::new(),
            watched: OnceCell::new(),
        }
    }

    pub(crate) fn inbox(&self) -> &SharedInbox {
        &self.inbox
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.get()
    }

    /// From now on polls are timed.
    pub(crate) fn time_polls(&self) {
        self.times.get_or_init(RefCell::default);
    }

    pub(crate) fn poll_times(&self) -> Option<Histogram> {
        self.times.get().map(|times| *times.borrow())
    }

    /// From now on a watchdog sees when a poll begins and ends.
    pub(crate) fn watch(&self, watched: SharedWatched) {
        self.watched.get_or_init(|| watched);
    }

    #[inline]
    pub(crate) fn watched(&self) -> Option<&Watched> {
        self.watched.get().map(|watched| &**watched)
    }

    /// How many wait in the run queue, and the most that ever did.
    pub(crate) fn ready(&self) -> (usize, usize) {
        (self.ready.len(), self.ready.peak())
    }

    pub(crate) fn living(&self) -> usize {
        self.living.borrow().len()
    }

    /// Puts the tasks that are ready in another order.
    pub(crate) fn arrange(&self, arrange: impl FnOnce(&mut [RawTask])) {
        if self.ready.len() > 1 {
            self.ready.arrange(arrange);
        }
    }

    /// Where the living tasks were spawned.
    pub(crate) fn places(&self) -> Vec<&'static Location<'static>> {
        // SAFETY: living: the core's reference.
        self.living.borrow().iter().map(|task| unsafe { task.header() }.location).collect()
    }

    /// Whether a task waits in the run queue.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.len() != 0
    }

    /// Makes this the current core of the thread until the guard goes.
    pub(crate) fn enter(&self) -> Entered<'_> {
        let before = CURRENT.with(|current| current.replace(self));
        Entered { before, _tasks: Some(self) }
    }

    pub(crate) fn spawn<F: Future + 'static>(
        &self,
        future: F,
        location: &'static Location<'static>,
    ) -> JoinHandle<F::Output> {
        self.spawn_as(self.next_id(), future, Label::task(location))
    }

    /// An id for `spawn_as`.
    #[inline]
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.next()
    }

    /// Starts a task whose id was given out before.
    pub(crate) fn spawn_as<F: Future + 'static>(
        &self,
        id: u64,
        future: F,
        label: Label<'_>,
    ) -> JoinHandle<F::Output> {
        let inbox = NonNull::from(&*self.inbox);
        let task = RawTask::new(future, State::new(), inbox, id, label);
        self.cells.set(self.cells.get() + 1);
        self.count(|counts| counts.spawned += 1);
        // SAFETY: the new task came with a reference for the core.
        unsafe { self.take_on(task) };
        // SAFETY: and with one for its only handle; the type is that of the future.
        unsafe { JoinHandle::new(task) }
    }

    /// Polls up to `budget` of the tasks that are ready now. Those that become ready meanwhile wait
    /// for the next slice, so that a task which yields lets the core see its ring. A task that has
    /// spent its I/O allowance ends the slice, for the same reason. Answers how many polls it comes
    /// to: then, all of the budget.
    #[inline]
    pub(crate) fn run(&self, budget: usize) -> usize {
        let count = self.ready.len().min(budget);
        let mut clock = (self.times.get().is_some() || trace::is_on()).then(system::now);
        let is_watched = clock.is_some() || self.watched.get().is_some();
        for _ in 0..count {
            let Some(task) = self.ready.pop() else { break };
            allowance::renew();
            // SAFETY: it was in the queue, which no longer holds it.
            unsafe {
                if is_watched { self.step_watched(task, &mut clock) } else { self.step(task) }
            };
            if allowance::is_spent() {
                return budget;
            }
        }
        count
    }

    /// Sorts what other threads sent since the last time.
    #[inline]
    pub(crate) fn read_inbox(&self) {
        while let Some(mail) = self.inbox.receive() {
            self.count(|counts| counts.mail += 1);
            match mail {
                Mail::Wake(task) => {
                    if task.header().state.take_mail() {
                        self.abort(task.raw());
                    } else {
                        self.schedule(task.raw());
                    }
                }
                Mail::Adopt(task) => {
                    if task.header().state.take_mail() {
                        let local = &task.header().local;
                        local.set(local.get() | ABORTED);
                    }
                    self.count(|counts| counts.spawned += 1);
                    // SAFETY: the mail's sender made a reference for the core besides the mail's
                    // own.
                    unsafe { self.take_on(task.raw()) };
                }
            }
        }
    }

    /// # Safety
    ///
    /// A reference of the core's comes with the task, which is new, marked QUEUED and in no queue.
    unsafe fn take_on(&self, task: RawTask) {
        if self.closed.get() {
            // SAFETY: handed on.
            return unsafe { self.turn_away(task) };
        }
        let mut living = self.living.borrow_mut();
        let slot = u32::try_from(living.len()).expect("fewer than 2^32 tasks fit into memory");
        // SAFETY: alive: the core's reference.
        unsafe { task.header() }.slot.set(slot);
        living.push(task);
        // SAFETY: the core's reference keeps it until it is out of the queue; it is in none yet.
        unsafe { self.ready.push(task) };
    }

    /// A task's turn as others see it: the watchdog, the histogram, the timeline. With a clock,
    /// that is read once: a turn begins when the one before it has ended.
    ///
    /// # Safety
    ///
    /// As `step`.
    #[cold]
    unsafe fn step_watched(&self, task: RawTask, clock: &mut Option<u64>) {
        // SAFETY: the core's reference, which a queued task always has.
        let Header { id, location, .. } = *unsafe { task.header() };
        let polls = self.counts.get().polls;
        let polling = self.watched().map(|watched| watched.begin(location, id));
        // SAFETY: the caller's promise.
        unsafe { self.step(task) };
        drop(polling);
        let Some(clock) = clock else { return };
        let began = mem::replace(clock, system::now());
        trace::end(trace::is_on().then_some(began), SpanKind::Task, || id as i64);
        if let (Some(times), true) = (self.times.get(), self.counts.get().polls > polls) {
            times.borrow_mut().record(clock.saturating_sub(began));
        }
    }

    /// A task's turn.
    ///
    /// # Safety
    ///
    /// `task` was just popped from the run queue of this core, which is current.
    #[inline]
    unsafe fn step(&self, task: RawTask) {
        // SAFETY: the core's reference, which a queued task always has.
        let header = unsafe { task.header() };
        let local = header.local.get();
        header.local.set(local & !QUEUED);
        if local & DONE != 0 {
            // SAFETY: it ended while queued, so `end` left the core's reference to us.
            unsafe { task.release() };
            return;
        }
        if local & ABORTED != 0 {
            // SAFETY: not DONE, and tasks are not polled while another is at its turn.
            unsafe { self.cancel(task) };
            return;
        }
        self.count(|counts| counts.polls += 1);
        // SAFETY: as above.
        let polled = unsafe { task.poll() };
        if let Poll::Ready(has_panicked) = polled {
            self.count_end(has_panicked);
            // SAFETY: its outcome was just stored.
            unsafe { self.end(task) };
        }
    }

    /// # Safety
    ///
    /// On the current core; the task is not DONE and not being polled.
    unsafe fn cancel(&self, task: RawTask) {
        // SAFETY: handed on.
        unsafe {
            self.count_end(task.cancel());
            self.end(task);
        }
    }

    #[inline]
    fn count_end(&self, has_panicked: bool) {
        if has_panicked {
            self.count(|counts| counts.panicked += 1);
        }
    }

    /// The outcome is stored: take the task off the books and tell its joiner.
    ///
    /// # Safety
    ///
    /// As `cancel`, and the outcome was just stored. The core's reference may be gone afterwards.
    unsafe fn end(&self, task: RawTask) {
        // SAFETY: the core's reference is still held.
        let header = unsafe { task.header() };
        let local = header.local.get();
        // From here on wakes pass it by, whatever destructors and wakers below may do.
        header.local.set(local | DONE);
        self.strike(header.slot.get());
        // Woken during its last poll, it is still linked into the queue, which then keeps it.
        let queued = local & QUEUED != 0;
        // SAFETY: rule 3. Taken before the task may be gone.
        let local_joiner = unsafe { header.replace_local_joiner(None) };
        // SAFETY: the outcome was stored; `queued` says who has the core's reference from here on.
        unsafe { complete(task, !queued) };
        if let Some(joiner) = local_joiner {
            quietly(|| joiner.wake());
        }
    }

    /// Takes a task out of `living`.
    fn strike(&self, slot: u32) {
        if slot == u32::MAX {
            return;
        }
        let mut living = self.living.borrow_mut();
        living.swap_remove(slot as usize);
        if let Some(moved) = living.get(slot as usize) {
            // SAFETY: living: the core's reference.
            unsafe { moved.header() }.slot.set(slot);
        }
    }

    #[inline]
    fn schedule(&self, task: RawTask) {
        // SAFETY: the caller's waker, handle or mail keeps it; the core is current.
        let local = &unsafe { task.header() }.local;
        if local.get() & (QUEUED | DONE) == 0 {
            local.set(local.get() | QUEUED);
            // SAFETY: not DONE: the core's reference keeps it; not QUEUED: it is in no queue.
            unsafe { self.ready.push(task) };
        }
    }

    fn abort(&self, task: RawTask) {
        // SAFETY: as in `schedule`.
        let local = &unsafe { task.header() }.local;
        local.set(local.get() | ABORTED);
        self.schedule(task);
    }

    #[inline(always)]
    pub(crate) fn count(&self, add: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.get();
        add(&mut counts);
        self.counts.set(counts);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        debug_assert_eq!(self.living(), 0, "the core drops its tasks before it goes");
        // SAFETY: once, and this core is no longer current, so nobody counts in `cells` any more.
        unsafe { Inbox::settle(Arc::as_ptr(&self.inbox), self.cells.get()) };
    }
}

/// While it lives, the core is the current one of this thread, or none is.
#[derive(Debug)]
pub(crate) struct Entered<'a> {
    before: *const Tasks,
    /// Keeps what `CURRENT` points to.
    _tasks: Option<&'a Tasks>,
}

/// Makes the thread one without a core until the guard goes.
pub(crate) fn leave() -> Entered<'static> {
    let before = CURRENT.with(|current| current.replace(ptr::null()));
    Entered { before, _tasks: None }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with(|current| current.set(self.before));
    }
}

/// Runs `action` with the current core's tasks; None outside a core.
#[inline]
pub(crate) fn with_current<R>(action: impl FnOnce(&Tasks) -> R) -> Option<R> {
    let tasks = CURRENT.with(Cell::get);
    // SAFETY: null, or set by an `Entered` that still borrows what it points to.
    unsafe { tasks.as_ref() }.map(action)
}

/// The same, if the current core is the one of this inbox.
#[inline]
pub(crate) fn on_core<R>(inbox: *const Inbox, action: impl FnOnce(&Tasks) -> R) -> Option<R> {
    with_current(|tasks| ptr::eq(Arc::as_ptr(&tasks.inbox), inbox).then(|| action(tasks))).flatten()
}

/// # Safety
///
/// The caller holds a reference for the whole call.
#[inline]
pub(crate) unsafe fn wake_by_ref(task: RawTask) {
    // SAFETY: the caller's reference.
    let header = unsafe { task.header() };
    if on_core(header.inbox.as_ptr(), |tasks| tasks.schedule(task)).is_none() && header.state.mail()
    {
        mail(task);
    }
}

/// Has the core drop the future at the task's next turn.
///
/// # Safety
///
/// The caller holds a reference for the whole call.
pub(crate) unsafe fn abort(task: RawTask) {
    // SAFETY: the caller's reference.
    let header = unsafe { task.header() };
    if on_core(header.inbox.as_ptr(), |tasks| tasks.abort(task)).is_none()
        && header.state.mail_abort()
    {
        mail(task);
    }
}

/// Puts a task that was just marked as mailed into its core's inbox. The caller's own reference
/// keeps the inbox meanwhile.
#[cold]
fn mail(task: RawTask) {
    // SAFETY: the caller's reference.
    let header = unsafe { task.header() };
    header.state.add_reference();
    // SAFETY: the reference that was just added.
    let reference = unsafe { Reference::from_raw(task) };
    // SAFETY: rule 2: the inbox outlives the cell.
    unsafe { header.inbox.as_ref() }.send(Mail::Wake(reference));
}

/// Notes a wake of the root future if the current core is the one of `inbox`.
#[inline]
pub(crate) fn wake_root(inbox: &SharedInbox) -> bool {
    on_core(Arc::as_ptr(inbox), |tasks| tasks.root_woken.set(true)).is_some()
}

/// Starts a task on the core of `inbox`, from any thread. Only the closure travels; the future is
/// made, polled and dropped over there.
pub(crate) fn send<C, F>(inbox: &SharedInbox, start: C, label: Label<'_>) -> JoinHandle<F::Output>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    let id = on_core(Arc::as_ptr(inbox), Tasks::next_id);
    send_as(id.unwrap_or_else(|| id::reserve(1)), inbox, start, label)
}

/// The same for a task whose id was given out before.
pub(crate) fn send_as<C, F>(
    id: u64,
    inbox: &SharedInbox,
    start: C,
    label: Label<'_>,
) -> JoinHandle<F::Output>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future + 'static,
    F::Output: Send + 'static,
{
    // Until its first poll this holds the closure and nothing else (rule 7).
    let future = async move { start().await };
    let here = with_current(|tasks| Arc::ptr_eq(&tasks.inbox, inbox)) == Some(true);
    if here {
        return with_current(|tasks| tasks.spawn_as(id, future, label)).expect("just asked");
    }
    Inbox::add_cell(inbox);
    let task = RawTask::new(future, State::mailed(), NonNull::from(&**inbox), id, label);
    // SAFETY: three references: the mail's, the handle's, the core's.
    let (mail, handle) = unsafe { (Reference::from_raw(task), JoinHandle::new(task)) };
    inbox.send(Mail::Adopt(mail));
    handle
}

/// Publishes the outcome, or drops it if nobody will take it; and wakes the joiner elsewhere.
///
/// # Safety
///
/// The stage is the caller's and the outcome was just stored. With `release`, the caller owns the
/// core's reference and does not use the task again.
unsafe fn complete(task: RawTask, release: bool) {
    // SAFETY: the core's reference.
    let header = unsafe { task.header() };
    match header.state.complete(release) {
        Completion::Released | Completion::Kept => return,
        Completion::WakeJoiner => header.joiner.with(|joiner| {
            // SAFETY: rule 5: JOINER was set with COMPLETE, so nobody writes any more.
            if let Some(joiner) = unsafe { &*joiner } {
                quietly(|| joiner.wake_by_ref());
            }
        }),
        // SAFETY: rule 4: detached, so the stage stays the caller's.
        Completion::DropOutcome => unsafe { task.drop_outcome() },
    }
    if release {
        // SAFETY: the core's reference, not used again.
        unsafe { task.release() };
    }
}

/// Frees a cell whose last reference is gone, and takes it off its core's count.
///
/// # Safety
///
/// As `RawTask::free`.
pub(crate) unsafe fn free(task: RawTask) {
    // SAFETY: not freed yet.
    let inbox = unsafe { task.header() }.inbox.as_ptr();
    // SAFETY: handed on.
    unsafe { task.free() };
    if on_core(inbox, |tasks| tasks.cells.set(tasks.cells.get() - 1)).is_none() {
        // SAFETY: the cell was counted there, once.
        unsafe { Inbox::forget_cell(inbox) };
    }
}
