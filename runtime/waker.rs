//! The two wakers: of a task, and of the future that `block_on` polls.
//!
//! Both are fully thread-safe. A task's waker is a pointer to the task with a reference: a clone is
//! one atomic addition, a wake on the task's own core touches no shared word at all, and a wake
//! from anywhere else mails the task and rings the doorbell.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Wake, Waker};

use crate::io::waiters;
use crate::runtime::inbox::SharedInbox;
use crate::runtime::sync::{AtomicBool, Ordering};
use crate::runtime::task::RawTask;
use crate::runtime::tasks;

/// A `static`, so that `Waker::will_wake` can compare by address.
static TASK: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

/// Tells the I/O that copying these wakers does nothing but count; unless a subscriber is told.
pub(crate) fn vouch() {
    if !cfg!(feature = "tracing") {
        waiters::trust(&TASK);
    }
}

/// The waker that a poll lends to its future, without a reference of its own: the core's holds the
/// task for as long as the poll runs.
#[inline]
pub(crate) fn borrowed(task: RawTask) -> ManuallyDrop<Waker> {
    // SAFETY: the table keeps the contract of `RawWaker`: each function is thread-safe.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(task.as_ptr(), &TASK)) })
}

unsafe fn clone(task: *const ()) -> RawWaker {
    // SAFETY: the pointer of a waker came from `borrowed`, and the waker being cloned keeps the
    // task.
    let header = unsafe { RawTask::from_ptr(task).header() };
    header.state.add_reference();
    header.span.tell("waker.clone");
    RawWaker::new(task, &TASK)
}

unsafe fn wake(task: *const ()) {
    // By reference, then the drop: the waker's own reference must outlast the sending
    // (`Inbox::send`).
    // SAFETY: as in `clone`; the reference of the waker ends here.
    unsafe {
        let task = RawTask::from_ptr(task);
        task.header().span.tell("waker.wake");
        tasks::wake_by_ref(task);
        task.release();
    }
}

unsafe fn wake_by_ref(task: *const ()) {
    // SAFETY: as in `clone`; the waker keeps its reference for the whole call.
    unsafe {
        let task = RawTask::from_ptr(task);
        task.header().span.tell("waker.wake_by_ref");
        tasks::wake_by_ref(task);
    }
}

unsafe fn release(task: *const ()) {
    // SAFETY: as in `clone`; the reference of the waker ends here.
    unsafe {
        let task = RawTask::from_ptr(task);
        task.header().span.tell("waker.drop");
        task.release();
    }
}

/// The waker of the root future. One per core, used for every `block_on`.
#[derive(Debug)]
pub(crate) struct RootWaker {
    inbox: SharedInbox,
    /// Woken from elsewhere. A wake on the core sets a plain cell of `Tasks` instead.
    woken: AtomicBool,
}

impl RootWaker {
    pub(crate) fn new(inbox: SharedInbox) -> Arc<Self> {
        Arc::new(Self { inbox, woken: AtomicBool::new(false) })
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }

    pub(crate) fn take(&self) -> bool {
        // The load spares the locked instruction on every turn without a foreign wake.
        self.is_woken() && self.woken.swap(false, Ordering::AcqRel)
    }
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if tasks::wake_root(&self.inbox) {
            return;
        }
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.inbox.ring();
        }
    }
}
