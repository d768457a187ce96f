//! How a core's tasks end with it, although destructors may start tasks.
//!
//! ```text
//!   drop_all:  generation 1 ── its destructors spawn ──► generation 2 ──► .. ──► generation 64
//!              then `closed`: what is there now is leaked and counted
//!   closed:    spawn ── dropped at once, inside the drop that spawned it, 8 deep ──► leaked
//!   gone:      mail ── dropped on the thread that finds it, the same 8 deep ──► leaked
//! ```
//!
//! A leaked task was never polled: its future stays as it is, and its handle says cancelled.

use std::cell::Cell;

use super::{Tasks, complete};
use crate::runtime::sync::thread_local_const;
use crate::runtime::task::{QUEUED, RawTask, Reference};

/// So many generations of tasks are dropped when a core ends: those that are there, those that
/// their destructors start, and so on.
const GENERATIONS: usize = 64;

/// Where no task is taken on, the next one is dropped inside the drop of the one that started it:
/// so deep at most.
const REFUSALS_MAX: u32 = 8;

thread_local_const! {
    /// Refused tasks that are being dropped on this thread, each inside the other.
    static REFUSING: Cell<u32> = Cell::new(0);
}

/// Drops a task that is not taken on. `false`: it is one of a chain that would never end.
fn refusing(drop: impl FnOnce()) -> bool {
    let depth = REFUSING.with(Cell::get);
    if depth == REFUSALS_MAX {
        return false;
    }
    REFUSING.with(|refusing| refusing.set(depth + 1));
    drop();
    REFUSING.with(|refusing| refusing.set(depth));
    true
}

impl Tasks {
    /// Drops every task, those that appear meanwhile included, and takes on no more. Answers how
    /// many. The core is current, and none of its tasks is running.
    ///
    /// A destructor may start a task whose destructor starts a task, for ever. So they go by
    /// generations, and what is there after `GENERATIONS` of them is leaked and counted.
    pub(crate) fn drop_all(&self) -> usize {
        let mut dropped = 0;
        for _ in 0..GENERATIONS {
            self.read_inbox();
            let generation = self.take_living();
            if generation.is_empty() {
                break;
            }
            dropped += generation.len();
            for task in generation {
                // SAFETY: it was living: not DONE, and the core's reference is held. Nothing is
                // being polled, so nothing but this ends a task.
                unsafe { self.cancel(task) };
            }
        }
        self.closed.set(true);
        for task in self.take_living() {
            // SAFETY: as above; and it came after the first generation, when no task was polled.
            unsafe { self.leak(task) };
        }
        // All of these are DONE; a step gives up the reference that the queue stood for.
        self.run(usize::MAX);
        self.inbox.close();
        dropped
    }

    /// Tasks that were neither run to their end nor dropped.
    pub(crate) fn leaked(&self) -> usize {
        self.leaked.get()
    }

    /// All who live, each out of its slot.
    fn take_living(&self) -> Vec<RawTask> {
        let living = self.living.take();
        for task in &living {
            // SAFETY: living: the core's reference.
            unsafe { task.header() }.slot.set(u32::MAX);
        }
        living
    }

    /// Ends a new task that came when the core takes on no more.
    ///
    /// # Safety
    ///
    /// As `take_on`.
    pub(super) unsafe fn turn_away(&self, task: RawTask) {
        // SAFETY: alive: the core's reference.
        let header = unsafe { task.header() };
        header.slot.set(u32::MAX);
        header.local.set(header.local.get() & !QUEUED);
        let dropped = refusing(|| {
            // SAFETY: new, hence not DONE and not being polled.
            unsafe { self.cancel(task) };
        });
        if !dropped {
            // SAFETY: as above.
            unsafe { self.leak(task) };
        }
    }

    /// Ends a task whose future stays as it is, for ever.
    ///
    /// # Safety
    ///
    /// As `cancel`, and the task was never polled.
    unsafe fn leak(&self, task: RawTask) {
        self.leaked.set(self.leaked.get() + 1);
        // SAFETY: handed on.
        unsafe {
            task.leak();
            self.end(task);
        }
    }
}

/// Ends a mailed task whose core is gone, on whatever thread finds it.
pub(crate) fn refuse(task: Reference) {
    let dropped = refusing(|| {
        // SAFETY: rule 7: it never started. Its panic is its handle's to tell: no core counts it.
        let _ = unsafe { task.raw().cancel() };
    });
    // SAFETY: as above. The core's reference is ours, since no core took it on.
    unsafe {
        if !dropped {
            task.raw().leak();
        }
        complete(task.raw(), true);
    }
}
