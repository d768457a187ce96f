//! Tasks: spawning, joining, blocking work, local sets.

mod join;
mod join_set;
mod local_set;

pub use join::{AbortHandle, Id, JoinError, JoinHandle};
pub use join_set::JoinSet;
pub use local_set::{LocalEnterGuard, LocalSet, spawn_local};
pub use quoit::task::LocalKey;
pub use tokio_real::task::{consume_budget, coop, unconstrained};

/// Futures with a name.
pub mod futures {
    pub use quoit::task::Scope as TaskLocalFuture;
}

use crate::runtime::{self, Handle};

/// Starts a task on the current runtime.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Handle::current().spawn(future)
}

/// Runs blocking work on the pool of the current runtime.
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Handle::current().spawn_blocking(work)
}

/// Lets the others have a turn.
pub async fn yield_now() {
    quoit::task::yield_now().await;
}

/// Blocks the thread, which a runtime of one thread does not allow.
#[track_caller]
pub fn block_in_place<R>(work: impl FnOnce() -> R) -> R {
    assert!(
        quoit::Handle::try_current().is_none(),
        "can call blocking only when running on the multi-threaded runtime"
    );
    work()
}

/// The id of the running task.
#[track_caller]
pub fn id() -> Id {
    try_id().expect("Can't get a task id when not inside a task")
}

/// The id of the running task, if one is running.
pub fn try_id() -> Option<Id> {
    let set = tokio_real::task::try_id().map(Id::Set);
    set.or_else(|| quoit::task::try_id().map(Id::Core))
}

/// Starts a task of the current runtime if that is a local one.
#[track_caller]
pub(crate) fn spawn_on_local_runtime<F>(future: F) -> Result<JoinHandle<F::Output>, F>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match runtime::current() {
        Some(handle) if handle.is_local() => Ok(handle.spawn_local(future)),
        _ => Err(future),
    }
}
