//! One task: one allocation, freed by whoever lets go last, emptied only by its core.
//!
//! ```text
//!   Header  state · vtable · inbox · id · location · joiner     any thread, by the rules below
//!           next · slot · local · local_joiner                  the core only
//!   Stage   Running(future) ──poll, abort──► Finished(outcome) ──taken, dropped──► Empty
//! ```
//!
//! A task lives on one core from spawn to completion:
//!
//! ```text
//!            spawn                    poll: Pending
//!   (mailed) ─────► QUEUED ──run──► running ─────► idle ──wake──► QUEUED
//!                     ▲                │ wake: QUEUED at once, at the back of the queue
//!                     └────────────────┤
//!                                      └─ Ready, panic, abort ──► DONE ──► last reference: freed
//! ```
//!
//! Who may touch what:
//!
//! 1. `state` is atomic: any thread that holds a reference.
//! 2. `vtable`, `inbox`, `id`, `location`, `span` never change: any thread that holds a reference.
//!    The inbox outlives the cell, because every cell is counted in it.
//! 3. `next`, `slot`, `local` and `local_joiner` belong to the core: only its thread, while that
//!    core is current. A handle that is polled there uses `local_joiner`, and so no locked
//!    instruction.
//! 4. `stage` belongs to the core until COMPLETE is set; then to the one JoinHandle, unless it had
//!    detached; then it stays the core's. So a future is dropped on its core always. An outcome is
//!    dropped by the core or by the handle, and a handle can only be elsewhere if `T: Send`.
//! 5. `joiner` belongs to the handle while JOINER is clear. While it is set, the core and the
//!    handle may read and nobody writes; only the handle clears it, and not after COMPLETE. `free`
//!    drops it.
//! 6. The cell is freed by the last reference, on any thread. By then the stage is `Empty`: the
//!    core's own reference goes only after COMPLETE, and rule 4's owner empties the stage before
//!    its own goes.
//! 7. A task that another core mailed is not started: its future holds a `Send` closure and nothing
//!    else. So if the core is gone when the mail arrives, the sender may drop it (`tasks::refuse`).

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe, Location};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::task::{Context, Poll, Waker};

use crate::runtime::id::Running;
use crate::runtime::inbox::Inbox;
use crate::runtime::state::State;
use crate::runtime::sync::UnsafeCell;
use crate::runtime::traced::{self, Label, SpanId, Traced};
use crate::runtime::{tasks, waker};

/// What a task came to.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why there is no output.
pub(crate) enum Failure {
    Cancelled,
    Panicked(Box<dyn Any + Send>),
}

/// Set in `local`: the task is in the run queue, or in the mail that will put it there.
pub(crate) const QUEUED: u8 = 1 << 0;
/// Set in `local`: the outcome is stored; never polled, queued or dropped again.
pub(crate) const DONE: u8 = 1 << 1;
/// Set in `local`: the next turn drops the future.
pub(crate) const ABORTED: u8 = 1 << 2;

/// The part of a task that does not depend on its future.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) state: State,
    vtable: &'static Vtable,
    /// How other threads reach the core; also the identity of the core.
    pub(crate) inbox: NonNull<Inbox>,
    /// The next task in the run queue.
    pub(crate) next: Cell<Option<RawTask>>,
    pub(crate) id: u64,
    pub(crate) location: &'static Location<'static>,
    pub(crate) span: SpanId,
    /// Whom to wake when the task is complete: the handle was polled away from the core.
    pub(crate) joiner: UnsafeCell<Option<Waker>>,
    /// The same: it was polled on the core.
    local_joiner: UnsafeCell<Option<Waker>>,
    /// Where the task stands in its core's list of living tasks.
    pub(crate) slot: Cell<u32>,
    pub(crate) local: Cell<u8>,
}

impl Header {
    /// Exchanges the waker of a handle that is polled on the core.
    ///
    /// # Safety
    ///
    /// Rule 3: the core is current.
    #[inline]
    pub(crate) unsafe fn replace_local_joiner(&self, waker: Option<Waker>) -> Option<Waker> {
        // SAFETY: one thread, and no reference outlives this call.
        self.local_joiner.with_mut(|slot| mem::replace(unsafe { &mut *slot }, waker))
    }

    /// Whether the handle was last polled on the core with this waker.
    ///
    /// # Safety
    ///
    /// Rule 3: the core is current.
    #[inline]
    pub(crate) unsafe fn has_local_joiner(&self, waker: &Waker) -> bool {
        // SAFETY: one thread; comparing two wakers runs no code of theirs.
        let slot =
            |slot: *const Option<Waker>| unsafe { &*slot }.as_ref().map(|it| it.will_wake(waker));
        self.local_joiner.with(slot) == Some(true)
    }
}

/// What the core and the handle do with a stage whose type they do not know.
struct Vtable {
    poll: unsafe fn(RawTask) -> Poll<bool>,
    cancel: unsafe fn(RawTask) -> bool,
    leak: unsafe fn(RawTask),
    take: unsafe fn(RawTask, *mut ()),
    drop_outcome: unsafe fn(RawTask),
    free: unsafe fn(RawTask),
}

enum Stage<F: Future> {
    Running(F),
    Finished(Outcome<F::Output>),
    Empty,
}

/// `repr(C)`: a pointer to the cell is a pointer to its header.
#[repr(C)]
struct TaskCell<F: Future> {
    header: Header,
    stage: UnsafeCell<Stage<F>>,
}

/// The bytes of a task whose future `spawned` makes.
#[cfg(test)]
pub(super) fn cell_size<A, F: Future>(_spawned: fn(A) -> F) -> usize {
    size_of::<TaskCell<F>>()
}

/// A pointer to a task. It owns nothing; see [`Reference`] for one that does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawTask(NonNull<Header>);

impl RawTask {
    /// Makes a cell. Its references are those that `state` was made with, the caller's to hand out;
    /// and the caller has counted the cell in the inbox.
    pub(crate) fn new<F: Future>(
        future: F,
        state: State,
        inbox: NonNull<Inbox>,
        id: u64,
        label: Label<'_>,
    ) -> Self {
        let (future, span) = traced::task(future, id, label);
        let header = Header {
            state,
            vtable: const {
                &Vtable {
                    poll: poll::<Traced<F>>,
                    cancel: cancel::<Traced<F>>,
                    leak: leak::<Traced<F>>,
                    take: take::<Traced<F>>,
                    drop_outcome: drop_outcome::<Traced<F>>,
                    free: free::<Traced<F>>,
                }
            },
            inbox,
            next: Cell::new(None),
            id,
            location: label.place,
            span,
            joiner: UnsafeCell::new(None),
            local_joiner: UnsafeCell::new(None),
            slot: Cell::new(0),
            // Whoever makes a task puts it into the queue, or mails it there.
            local: Cell::new(QUEUED),
        };
        let cell = Box::new(TaskCell { header, stage: UnsafeCell::new(Stage::Running(future)) });
        Self(NonNull::from(Box::leak(cell)).cast())
    }

    /// # Safety
    ///
    /// A reference is held for as long as the answer is used.
    #[inline(always)]
    pub(crate) unsafe fn header<'a>(self) -> &'a Header {
        // SAFETY: the cell lives while a reference is held, and its header is only shared.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *const () {
        self.0.as_ptr().cast_const().cast()
    }

    /// # Safety
    ///
    /// `pointer` came from `as_ptr`.
    #[inline(always)]
    pub(crate) unsafe fn from_ptr(pointer: *const ()) -> Self {
        // SAFETY: it came from a `NonNull`, and keeps the provenance of the whole cell.
        Self(unsafe { NonNull::new_unchecked(pointer.cast_mut().cast()) })
    }

    /// Polls the future. Ready: the outcome (or, when true, the panic) is stored and the future is
    /// gone.
    ///
    /// # Safety
    ///
    /// Rules 3 and 4: on the core, which is current, and the task is not DONE and not being polled.
    #[inline]
    pub(crate) unsafe fn poll(self) -> Poll<bool> {
        // SAFETY: handed on.
        unsafe {
            let _running = Running::enter(self.header().id);
            (self.header().vtable.poll)(self)
        }
    }

    /// Drops the future and stores that it was cancelled, or, when true, the panic of its drop.
    ///
    /// # Safety
    ///
    /// As `poll`; or rule 7.
    pub(crate) unsafe fn cancel(self) -> bool {
        // SAFETY: handed on.
        unsafe {
            let _running = Running::enter(self.header().id);
            (self.header().vtable.cancel)(self)
        }
    }

    /// Stores that it was cancelled, and leaves the future undropped for ever.
    ///
    /// # Safety
    ///
    /// As `cancel`, and the task was never polled.
    pub(crate) unsafe fn leak(self) {
        // SAFETY: handed on.
        unsafe { (self.header().vtable.leak)(self) }
    }

    /// Moves the outcome out.
    ///
    /// # Safety
    ///
    /// COMPLETE was seen, the stage is the caller's by rule 4, nobody took the outcome, and `T` is
    /// the output of the future that this task was made with.
    pub(crate) unsafe fn take<T>(self) -> Outcome<T> {
        let mut outcome = mem::MaybeUninit::<Outcome<T>>::uninit();
        // SAFETY: `take` of this very output type writes the whole outcome.
        unsafe {
            (self.header().vtable.take)(self, outcome.as_mut_ptr().cast());
            outcome.assume_init()
        }
    }

    /// Drops the outcome, if it is still there. Does not unwind.
    ///
    /// # Safety
    ///
    /// The stage is the caller's by rule 4.
    pub(crate) unsafe fn drop_outcome(self) {
        // SAFETY: handed on.
        unsafe {
            let _running = Running::enter(self.header().id);
            (self.header().vtable.drop_outcome)(self)
        }
    }

    /// Frees the cell.
    ///
    /// # Safety
    ///
    /// The caller gave up the last reference; the stage is `Empty` (rule 6).
    pub(crate) unsafe fn free(self) {
        // SAFETY: handed on.
        unsafe { (self.header().vtable.free)(self) }
    }

    /// Gives up one reference, and frees the cell if it was the last.
    ///
    /// # Safety
    ///
    /// The caller owns the reference and does not use it again.
    #[inline]
    pub(crate) unsafe fn release(self) {
        // SAFETY: the reference is still held here.
        if unsafe { self.header() }.state.drop_reference() {
            // SAFETY: it was the last.
            unsafe { tasks::free(self) };
        }
    }
}

impl fmt::Debug for RawTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawTask({:p})", self.0)
    }
}

/// One owned reference.
#[derive(Debug)]
pub(crate) struct Reference(RawTask);

// SAFETY: what a reference gives access to is rules 1 and 2, and giving it up is rule 6.
unsafe impl Send for Reference {}
// SAFETY: as above.
unsafe impl Sync for Reference {}

impl Reference {
    /// # Safety
    ///
    /// The caller owns a reference, which this value now owns.
    pub(crate) unsafe fn from_raw(task: RawTask) -> Self {
        Self(task)
    }

    pub(crate) fn raw(&self) -> RawTask {
        self.0
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: we hold a reference as long as `self` lives.
        unsafe { self.0.header() }
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        self.header().state.add_reference();
        Self(self.0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: the reference is ours and not used again.
        unsafe { self.0.release() };
    }
}

/// Runs a user's destructor or waker whose panic has nowhere to go (the panic hook has reported
/// it).
pub(crate) fn quietly(action: impl FnOnce()) {
    let Err(payload) = panic::catch_unwind(AssertUnwindSafe(action)) else { return };
    // A payload may panic in turn when it is dropped: leaking the second one ends the chain.
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
}

/// # Safety
///
/// `task` was made with an `F`, and is alive.
unsafe fn stage<'a, F: Future>(task: RawTask) -> &'a UnsafeCell<Stage<F>> {
    // SAFETY: `repr(C)` and the type by the contract; a field projection, so that no reference to
    // the whole cell is made while others look at the header.
    unsafe { &(*task.0.cast::<TaskCell<F>>().as_ptr()).stage }
}

unsafe fn poll<F: Future>(task: RawTask) -> Poll<bool> {
    // SAFETY: the vtable belongs to `F`.
    let stage = unsafe { stage::<F>(task) };
    let waker = waker::borrowed(task);
    let polled = panic::catch_unwind(AssertUnwindSafe(|| {
        let unwound = DropWhileUnwinding(stage);
        let polled = stage.with_mut(|stage| {
            // SAFETY: rule 4: the stage is the core's, and it polls each task once at a time.
            let Stage::Running(future) = (unsafe { &mut *stage }) else {
                panic!("a task was polled after its end");
            };
            // SAFETY: the cell never moves, and the future is dropped in place.
            unsafe { Pin::new_unchecked(future) }.poll(&mut Context::from_waker(&waker))
        });
        mem::forget(unwound);
        polled
    }));
    let outcome = match polled {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(output)) => {
            // The value stands even if dropping what is left of the future panics.
            // SAFETY: as above, and the poll is over.
            quietly(|| unsafe { drop_future(stage) });
            Ok(output)
        }
        Err(payload) => Err(Failure::Panicked(payload)),
    };
    let has_panicked = outcome.is_err();
    // SAFETY: as above, and the future was dropped either way.
    stage.with_mut(|stage| unsafe { ptr::write(stage, Stage::Finished(outcome)) });
    Poll::Ready(has_panicked)
}

/// Drops a future whose poll panics while that panic unwinds, so that its destructors see
/// [`std::thread::panicking`]. A second panic that leaves one of them is caught in here: beyond a
/// destructor it would end the process.
struct DropWhileUnwinding<'a, F: Future>(&'a UnsafeCell<Stage<F>>);

impl<F: Future> Drop for DropWhileUnwinding<'_, F> {
    fn drop(&mut self) {
        // SAFETY: made only by `poll`, whose stage it is; and the poll is over.
        quietly(|| unsafe { drop_future(self.0) });
    }
}

unsafe fn cancel<F: Future>(task: RawTask) -> bool {
    // SAFETY: the vtable belongs to `F`.
    let stage = unsafe { stage::<F>(task) };
    // SAFETY: rule 4 (or 7): the stage is the caller's.
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| unsafe { drop_future(stage) }));
    let failure = match dropped {
        Ok(()) => Failure::Cancelled,
        Err(payload) => Failure::Panicked(payload),
    };
    let has_panicked = matches!(failure, Failure::Panicked(_));
    // SAFETY: as above.
    stage.with_mut(|stage| unsafe { ptr::write(stage, Stage::Finished(Err(failure))) });
    has_panicked
}

unsafe fn leak<F: Future>(task: RawTask) {
    // SAFETY: the vtable belongs to `F`.
    let stage = unsafe { stage::<F>(task) };
    // SAFETY: rule 4 (or 7): the stage is the caller's. The future was never polled, hence never
    // pinned: its place may be used again without its drop.
    stage.with_mut(|stage| unsafe { ptr::write(stage, Stage::Finished(Err(Failure::Cancelled))) });
}

/// Drops the future where it is; afterwards the stage may only be overwritten.
///
/// # Safety
///
/// The stage is the caller's and was not dropped before.
unsafe fn drop_future<F: Future>(stage: &UnsafeCell<Stage<F>>) {
    // SAFETY: by the contract. Not an assignment: that would move what a destructor may look at.
    stage.with_mut(|stage| unsafe { ptr::drop_in_place(stage) });
}

unsafe fn take<F: Future>(task: RawTask, into: *mut ()) {
    // SAFETY: the vtable belongs to `F`.
    let stage = unsafe { stage::<F>(task) };
    // SAFETY: rule 4: the stage is the caller's.
    let Some(outcome) = stage.with_mut(|stage| unsafe { empty(&mut *stage) }) else {
        panic!("a JoinHandle was polled after it had given its result");
    };
    // SAFETY: `into` is the caller's room for exactly this type.
    unsafe { into.cast::<Outcome<F::Output>>().write(outcome) };
}

unsafe fn drop_outcome<F: Future>(task: RawTask) {
    // SAFETY: the vtable belongs to `F`.
    let stage = unsafe { stage::<F>(task) };
    // SAFETY: rule 4: the stage is the caller's.
    let outcome = stage.with_mut(|stage| unsafe { empty(&mut *stage) });
    quietly(|| drop(outcome));
}

/// Takes the outcome out of a stage, if it is there. To replace the stage as a whole would copy as
/// many bytes as its future had.
fn empty<F: Future>(stage: &mut Stage<F>) -> Option<Outcome<F::Output>> {
    let Stage::Finished(outcome) = stage else { return None };
    // SAFETY: it is read once: the stage is overwritten in the next line, without dropping it.
    let outcome = unsafe { ptr::read(outcome) };
    // SAFETY: a reference is valid for writes.
    unsafe { ptr::write(stage, Stage::Empty) };
    Some(outcome)
}

unsafe fn free<F: Future>(task: RawTask) {
    // SAFETY: the last reference is gone, and the pointer came from this box.
    let cell = unsafe { Box::from_raw(task.0.cast::<TaskCell<F>>().as_ptr()) };
    if cfg!(any(debug_assertions, loom)) {
        // SAFETY: nobody else is left.
        let empty = cell.stage.with(|stage| matches!(unsafe { &*stage }, Stage::Empty));
        assert!(empty, "a task was freed with its future or outcome inside");
    }
    drop(cell);
}
