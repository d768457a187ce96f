//! Tasks: spawning, joining, blocking work, local sets.

mod join;
mod join_set;
mod local_set;

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

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

thread_local! {
    /// The task that the blocking work of this thread belongs to.
    static WORK: RefCell<Option<WorkId>> = const { RefCell::new(None) };
}

/// The id of a task that is being made for blocking work, which may start before it is known.
#[derive(Clone)]
pub(crate) struct WorkId(Arc<OnceLock<Id>>);

impl WorkId {
    pub(crate) fn set<T>(&self, task: &JoinHandle<T>) {
        self.0.set(task.id()).expect("a piece of work has one task");
    }
}

/// Blocking work as a tokio program sees it: inside the runtime's context, with a task's id.
pub(crate) fn blocking<F, R>(handle: Handle, work: F) -> (impl FnOnce() -> R + Send, WorkId)
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let id = WorkId(Arc::new(OnceLock::new()));
    let known = id.clone();
    let work = move || {
        let _context = handle.enter();
        let before = WORK.replace(Some(known));
        let result = work();
        WORK.set(before);
        result
    };
    (work, id)
}

/// The id of the running task.
#[track_caller]
pub fn id() -> Id {
    try_id().expect("Can't get a task id when not inside a task")
}

/// The id of the running task, if one is running.
pub fn try_id() -> Option<Id> {
    let set = tokio_real::task::try_id().map(Id::Set);
    let core = || quoit::task::try_id().map(Id::Core);
    let work = || WORK.with_borrow(|work| work.as_ref().map(|id| *id.0.wait()));
    set.or_else(core).or_else(work)
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
