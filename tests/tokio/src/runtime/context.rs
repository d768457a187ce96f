//! Which runtime is current on a thread, and which core is running on it.
//!
//! A context is more than a core: the threads of blocking work and those inside an `enter` guard
//! have one, too.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::MutexGuard;

use super::Handle;

thread_local! {
    static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
    static DRIVEN: Cell<u64> = const { Cell::new(0) };
}

const NO_CONTEXT: &str =
    "there is no reactor running, must be called from the context of a Tokio 1.x runtime";

/// While it lives, a runtime is the current one of the thread.
#[derive(Debug)]
#[must_use]
pub struct EnterGuard<'a> {
    // The guard has no lifetime: dropping it does not use the handle, which may have been moved.
    _entered: Entered,
    handle: PhantomData<&'a Handle>,
}

#[derive(Debug)]
struct Entered {
    depth: usize,
    // It stays on its thread, but may be looked at from others.
    thread: PhantomData<MutexGuard<'static, ()>>,
}

impl EnterGuard<'_> {
    pub(super) fn new(handle: Handle) -> Self {
        // While the thread ends there may be no place for it; then there is no context either.
        let depth = CONTEXTS.try_with(|contexts| {
            let mut contexts = contexts.borrow_mut();
            contexts.push(handle);
            contexts.len()
        });
        let depth = depth.unwrap_or(0);
        let entered = Entered { depth, thread: PhantomData };
        Self { _entered: entered, handle: PhantomData }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let taken = CONTEXTS.try_with(|contexts| {
            let mut contexts = contexts.borrow_mut();
            let innermost = contexts.len() == self.depth;
            contexts.truncate(self.depth.saturating_sub(1));
            innermost
        });
        if taken == Ok(false) && !std::thread::panicking() {
            panic!(
                "`EnterGuard` values dropped out of order. Guards returned by `Handle::enter()` \
                 must be dropped in the reverse order as they were acquired."
            );
        }
    }
}

/// The current runtime of this thread.
pub(crate) fn current() -> Option<Handle> {
    CONTEXTS.with_borrow(|contexts| contexts.last().cloned())
}

/// Whether the core of that runtime is running on this thread right now.
pub(crate) fn drives(id: u64) -> bool {
    DRIVEN.get() == id
}

/// The index of the current worker: that of the one thread which runs a core.
pub fn worker_index() -> Option<usize> {
    (DRIVEN.get() != 0).then_some(0)
}

/// Notes which runtime's core runs on this thread until the guard goes.
pub(super) struct Driving {
    before: u64,
}

impl Driving {
    pub(super) fn new(id: u64) -> Self {
        Self { before: DRIVEN.replace(id) }
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        DRIVEN.set(self.before);
    }
}

/// The current runtime, which must have been built with timers.
#[track_caller]
pub(crate) fn require_time() -> Handle {
    let Some(handle) = current() else { panic!("{NO_CONTEXT}") };
    assert!(
        handle.has_time(),
        "A Tokio 1.x context was found, but timers are disabled. Call `enable_time` on the \
         runtime builder to enable timers."
    );
    handle
}

/// The current runtime, which must have been built with I/O.
#[track_caller]
pub(crate) fn require_io() -> Handle {
    let Some(handle) = current() else { panic!("{NO_CONTEXT}") };
    assert!(
        handle.has_io(),
        "A Tokio 1.x context was found, but IO is disabled. Call `enable_io` on the runtime \
         builder to enable IO."
    );
    handle
}
