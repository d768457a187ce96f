//! Names of tasks: how they are given out, and whose code runs on this thread.
//!
//! ```text
//!   ids:      process (or simulated world) ── blocks of 4096 ──► core ── one by one ──► tasks
//!   running:  poll, drop of the future, drop of the outcome, blocking work ── inside one another
//! ```

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::ring::simulated::world;
use crate::runtime::sync::thread_local_const;

thread_local_const! {
    /// The task whose code runs on this thread.
    static RUNNING: Cell<u64> = Cell::new(NONE);
}

/// Stands for no task.
pub(crate) const NONE: u64 = 0;

/// Names one task. Ids are unique in the process and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId(pub(crate) u64);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of the task that is running.
///
/// See [`try_id`] for when that is.
///
/// # Panics
///
/// Outside a task.
///
/// # Examples
///
/// ```
/// quoit::block_on(async {
///     let task = quoit::spawn(async { quoit::task::id() });
///     let id = task.id();
///     assert_eq!(task.await.unwrap(), id);
/// });
/// ```
#[must_use]
#[track_caller]
pub fn id() -> TaskId {
    try_id().expect("the id of a task was asked for outside a task")
}

/// The id of the task that is running, or `None` outside a task (the future of
/// [`block_on`](crate::Runtime::block_on) is not one).
///
/// A task also runs while its future is dropped, for whatever reason, and while a result that
/// nobody took is; and [blocking work](crate::task::spawn_blocking) runs as its own task.
///
/// ```
/// # use quoit as _;
/// quoit::block_on(async {
///     assert_eq!(quoit::task::try_id(), None);
///     let task = quoit::spawn(async { quoit::task::try_id() });
///     let id = task.id();
///     assert_eq!(task.await.unwrap(), Some(id));
/// });
/// ```
#[must_use]
pub fn try_id() -> Option<TaskId> {
    match RUNNING.with(Cell::get) {
        NONE => None,
        id => Some(TaskId(id)),
    }
}

/// While it lives, what runs on this thread is that task's.
#[derive(Debug)]
pub(crate) struct Running {
    before: u64,
}

impl Running {
    #[inline]
    pub(crate) fn enter(id: u64) -> Self {
        Self { before: RUNNING.with(|running| running.replace(id)) }
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        RUNNING.with(|running| running.set(self.before));
    }
}

/// The ids of one core. They are taken in blocks, so that spawning touches no shared word.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    next: Cell<u64>,
    end: Cell<u64>,
}

impl Ids {
    const BLOCK: u64 = 4096;

    #[inline]
    pub(crate) fn next(&self) -> u64 {
        if self.next.get() == self.end.get() {
            let first = reserve(Self::BLOCK);
            self.next.set(first);
            self.end.set(first + Self::BLOCK);
        }
        self.next.replace(self.next.get() + 1)
    }
}

/// The first of `count` ids that nobody else gets, ever. None is zero.
pub(crate) fn reserve(count: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    match world::current() {
        // The same in each run of a seed, and nobody else's in its world.
        Some(world) => world.reserve_ids(count),
        None => NEXT.fetch_add(count, Ordering::Relaxed),
    }
}
