//! How other threads, and other cores, reach a core.

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use crate::io::pool::Pool;
use crate::io::proactor::Proactor;
use crate::runtime::blocking::spawn_there;
use crate::runtime::inbox::SharedInbox;
use crate::runtime::join::JoinHandle;
use crate::runtime::metrics::Metrics;
use crate::runtime::tasks;
use crate::runtime::traced::Label;

/// A way to one core from anywhere: `Send`, `Sync`, and cheap to clone.
///
/// It does not keep the core running. What is sent to a core that has ended is cancelled.
///
/// ```
/// let runtime = quoit::Runtime::new()?;
/// let handle = runtime.handle();
/// let thread = std::thread::spawn(move || {
///     // Only the closure travels; its future is made over there and need not be `Send`.
///     handle.spawn_with(|| async { *std::rc::Rc::new(25) })
/// });
/// let task = thread.join().unwrap();
/// assert_eq!(runtime.block_on(task).unwrap(), 25);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Handle {
    inbox: SharedInbox,
    /// The threads of its runtime; closed when that has ended.
    pool: Arc<Pool>,
}

// A panic on one thread leaves the inbox whole: nothing of a user's runs inside of it.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl Handle {
    pub(crate) fn new(inbox: SharedInbox, pool: Arc<Pool>) -> Self {
        Self { inbox, pool }
    }

    pub(crate) fn inbox(&self) -> &SharedInbox {
        &self.inbox
    }

    /// The handle of the core that is running on this thread.
    ///
    /// # Panics
    ///
    /// Outside a runtime; see [`try_current`](Self::try_current).
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        Self::try_current().expect("there is no quoit runtime on this thread")
    }

    /// The handle of the core that is running on this thread, if there is one.
    ///
    /// ```
    /// assert!(quoit::Handle::try_current().is_none());
    /// quoit::block_on(async { assert!(quoit::Handle::try_current().is_some()) });
    /// ```
    #[must_use]
    pub fn try_current() -> Option<Self> {
        let pool = Proactor::with_current(|proactor| proactor.pool().clone())?;
        tasks::with_current(|tasks| Self::new(tasks.inbox().clone(), pool))
    }

    /// Starts a task on the handle's core: sends `future` there.
    ///
    /// A future that is not `Send` is made over there, by [`spawn_with`](Self::spawn_with). If the
    /// core has ended, the task is cancelled.
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let thread = std::thread::spawn(move || handle.spawn(async { 25 }));
    /// assert_eq!(runtime.block_on(thread.join().unwrap()).unwrap(), 25);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tasks::send(&self.inbox, move || future, Label::task(Location::caller()))
    }

    /// Starts a task on the handle's core: sends `start` there, which makes the future.
    ///
    /// The future need not be `Send`, since it never travels. A panic of `start` or of the future
    /// is delivered by the handle. If the core has ended, the task is cancelled.
    ///
    /// # Examples
    ///
    /// See [`Handle`].
    #[track_caller]
    pub fn spawn_with<C, F>(&self, start: C) -> JoinHandle<F::Output>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future + 'static,
        F::Output: Send + 'static,
    {
        tasks::send(&self.inbox, start, Label::task(Location::caller()))
    }

    /// Runs `work`, which may block, on a thread of the core's pool, as
    /// [`task::spawn_blocking`](crate::task::spawn_blocking) does on the core itself.
    ///
    /// The work starts at once, whatever the core does meanwhile; its result comes with a task of
    /// that core, and so when it next has a turn. If the core has ended, the task is cancelled, and
    /// with it work that has not started.
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let thread = std::thread::spawn(move || handle.spawn_blocking(|| 6 * 7));
    /// assert_eq!(runtime.block_on(thread.join().unwrap()).unwrap(), 42);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        spawn_there(&self.inbox, &self.pool, work, Location::caller())
    }

    /// Asks the core what it has done so far: see [`Metrics`].
    ///
    /// The question is sent at once; the answer can be awaited anywhere, in a foreign executor too.
    /// It comes when the core next has a turn: late from one that is stalled, never from one that
    /// nobody drives. So put a [`timeout`](crate::time::timeout) around it where that matters.
    ///
    /// Asking is a task of that core: among those spawned and polled, not among those alive.
    ///
    /// # Errors
    ///
    /// The handle answers that the task was cancelled, if the core has ended.
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let handle = runtime.handle();
    /// let exporter = std::thread::spawn(move || quoit::block_on(handle.metrics()).unwrap());
    /// while !exporter.is_finished() {
    ///     runtime.turn(Some(std::time::Duration::from_millis(1)));
    /// }
    /// assert_eq!(exporter.join().unwrap().tasks_alive, 0);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn metrics(&self) -> JoinHandle<Metrics> {
        let ask = || async {
            let mut metrics = Metrics::here().expect("tasks run on their core");
            // Not this one, which is about to end.
            metrics.tasks_alive -= 1;
            metrics
        };
        tasks::send(&self.inbox, ask, Label::task(Location::caller()))
    }

    /// Whether the core has ended, so that whatever is sent there would be cancelled.
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let handle = runtime.handle();
    /// assert!(!handle.is_closed());
    /// drop(runtime);
    /// assert!(handle.is_closed());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox.is_closed()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}
