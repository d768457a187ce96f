//! Starting a task on the current core, and stepping aside.

use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::runtime::join::JoinHandle;
use crate::runtime::tasks;

/// Starts a task on the current core and returns the handle to its result.
///
/// The future need not be `Send`: it stays on this core from its first poll to its drop. It is
/// polled for the first time when its turn comes, never inside `spawn`. To start one on another
/// core, see [`Handle::spawn_with`](crate::Handle::spawn_with).
///
/// A panic of the task ends that task only, and is delivered by the handle.
///
/// # Panics
///
/// Outside a runtime.
///
/// # Examples
///
/// ```
/// quoit::block_on(async {
///     let task = quoit::spawn(async { "done" });
///     assert_eq!(task.await.unwrap(), "done");
/// });
/// ```
#[track_caller]
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    spawn_at(future, Location::caller())
}

/// `spawn`, for callers that pass on where they were called.
#[track_caller]
pub(crate) fn spawn_at<F: Future + 'static>(
    future: F,
    location: &'static Location<'static>,
) -> JoinHandle<F::Output> {
    match tasks::with_current(|tasks| tasks.spawn(future, location)) {
        Some(handle) => handle,
        None => panic!(
            "spawn was called outside a quoit runtime; call it inside `block_on`, or use a `Handle`"
        ),
    }
}

/// Lets every other task that is ready, and the I/O, have a turn before this one goes on.
///
/// Use it inside long computations: a core runs one task at a time, and nothing else moves
/// meanwhile.
///
/// # Cancel safety
///
/// Cancel safe: there is nothing to lose.
///
/// # Examples
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// quoit::block_on(async {
///     let done = Rc::new(Cell::new(false));
///     let shared = done.clone();
///     drop(quoit::spawn(async move { shared.set(true) }));
///     while !done.get() {
///         quoit::task::yield_now().await;
///     }
/// });
/// ```
pub fn yield_now() -> impl Future<Output = ()> {
    YieldNow { yielded: false }
}

struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
