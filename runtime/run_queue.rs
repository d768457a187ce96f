//! The tasks that are ready, first in, first out: a list threaded through the tasks themselves.
//!
//! It allocates nothing and needs no limit: a task is in it at most once. It owns no references: a
//! queued task is kept by its core's own reference, which `tasks` gives up only when the task is
//! complete *and* out of this list.

use std::cell::Cell;

use crate::runtime::task::RawTask;

#[derive(Debug)]
pub(crate) struct RunQueue {
    first: Cell<Option<RawTask>>,
    last: Cell<Option<RawTask>>,
    length: Cell<usize>,
    /// The most that it has been.
    peak: Cell<usize>,
}

impl RunQueue {
    pub(crate) fn new() -> Self {
        let (first, last) = (Cell::new(None), Cell::new(None));
        Self { first, last, length: Cell::new(0), peak: Cell::new(0) }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length.get()
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.get()
    }

    /// Puts a task at the back.
    ///
    /// # Safety
    ///
    /// This thread owns the task's core, the task is not in a queue, and it is not freed before it
    /// has been popped.
    #[inline]
    pub(crate) unsafe fn push(&self, task: RawTask) {
        // SAFETY: alive and ours by the contract.
        unsafe { task.header() }.next.set(None);
        match self.last.replace(Some(task)) {
            // SAFETY: it is in the queue, hence alive and ours.
            Some(last) => unsafe { last.header() }.next.set(Some(task)),
            None => self.first.set(Some(task)),
        }
        let length = self.length.get() + 1;
        self.length.set(length);
        if length > self.peak.get() {
            self.peak.set(length);
        }
    }

    /// Puts the tasks in the order that `arrange` makes of them.
    pub(crate) fn arrange(&self, arrange: impl FnOnce(&mut [RawTask])) {
        let mut tasks: Vec<RawTask> = std::iter::from_fn(|| self.pop()).collect();
        arrange(&mut tasks);
        // SAFETY: each was in this queue a moment ago, and is in none now.
        tasks.into_iter().for_each(|task| unsafe { self.push(task) });
    }

    /// Takes the task at the front.
    #[inline]
    pub(crate) fn pop(&self) -> Option<RawTask> {
        let task = self.first.get()?;
        // SAFETY: it is in the queue, hence alive and ours.
        let next = unsafe { task.header() }.next.take();
        if next.is_none() {
            self.last.set(None);
        }
        self.first.set(next);
        self.length.set(self.length.get() - 1);
        Some(task)
    }
}
