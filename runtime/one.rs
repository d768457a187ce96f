//! One core, driven by the thread that owns it: `Runtime`, and what its end came to.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::io::pool::Pool;
use crate::io::proactor::{Closed, Park};
use crate::io::ring::RingReport;
use crate::runtime::blocking::spawn_here;
use crate::runtime::builder::{Builder, DROP_DEADLINE, nanoseconds};
use crate::runtime::core::{Core, Left};
use crate::runtime::handle::Handle;
use crate::runtime::join::JoinHandle;
use crate::runtime::metrics::Metrics;
use crate::runtime::stall::Watchdog;
use crate::runtime::traced::Label;

/// Runs `future` on a new runtime with the default choices, and ends the runtime.
///
/// # Errors
///
/// When the runtime cannot be built; see [`Builder::build`].
///
/// # Panics
///
/// Inside a runtime, whose core it would block.
///
/// # Examples
///
/// ```
/// fn main() -> std::io::Result<()> {
///     quoit::run(async {
///         println!("hello from the ring");
///         Ok(())
///     })?
/// }
/// ```
#[track_caller]
pub fn run<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Runtime::new()?.block_on(future))
}

/// Runs `future` on a new runtime with the default choices, and ends the runtime.
///
/// # Panics
///
/// When the runtime cannot be built ([`run`] answers with the error instead), and inside a runtime.
///
/// # Examples
///
/// ```
/// assert_eq!(quoit::block_on(async { 6 * 7 }), 42);
/// ```
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    match Runtime::new() {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => panic!("the runtime could not be built: {error}"),
    }
}

/// One core: an executor and its ring, driven by the thread that owns it.
///
/// It is not `Send`; a [`Handle`] reaches it from elsewhere. Dropping it is
/// [`shutdown`](Self::shutdown) with five seconds.
///
/// # Examples
///
/// ```
/// let runtime = quoit::Runtime::new()?;
/// let answer = runtime.block_on(async { quoit::spawn(async { 42 }).await.unwrap() });
/// assert_eq!(answer, 42);
/// # std::io::Result::Ok(())
/// ```
pub struct Runtime {
    core: Core,
    /// Ended with the runtime, if that is the only one to use it.
    pool: Option<Arc<Pool>>,
    /// The same.
    watchdog: Option<Watchdog>,
}

impl Runtime {
    /// A runtime with the default choices.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    pub(crate) fn on(core: Core) -> Self {
        Self { core, pool: None, watchdog: None }
    }

    /// The same, and the pool and the watchdog are its own, to be ended with it.
    pub(crate) fn that_ends(mut self, pool: Arc<Pool>, watchdog: Option<Watchdog>) -> Self {
        self.pool = Some(pool);
        self.watch(watchdog.as_ref());
        self.watchdog = watchdog;
        self
    }

    /// Has a watchdog look at the core from now on.
    pub(crate) fn watch(&self, watchdog: Option<&Watchdog>) {
        if let Some(watchdog) = watchdog {
            self.core.tasks().watch(watchdog.watch(self.core.proactor().id()));
        }
    }

    /// The choices, to be changed.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Runs `future` and, besides it, every task, until `future` is ready.
    ///
    /// The future may borrow from the caller and need not be `Send`. When it is ready, other tasks
    /// stand still until the next `block_on` or [`turn`](Self::turn).
    ///
    /// On the readiness ring, it takes the thread's timer slack (`PR_SET_TIMERSLACK` in prctl(2))
    /// down to 1 ns, so that timers are as exact as those of io_uring, and puts it back at the end.
    ///
    /// # Panics
    ///
    /// When the future panics (a task's panic ends that task only), and inside any runtime, whose
    /// core it would block.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let text = String::from("borrowed");
    /// assert_eq!(runtime.block_on(async { text.len() }), 8);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.core.block_on(future, Location::caller())
    }

    /// Starts a task; it runs during [`block_on`](Self::block_on) and [`turn`](Self::turn).
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let task = runtime.spawn(async { 42 });
    /// assert_eq!(runtime.block_on(task).unwrap(), 42);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn<F: Future + 'static>(&self, future: F) -> JoinHandle<F::Output> {
        let task = self.core.tasks().spawn(future, Location::caller());
        self.core.knock();
        task
    }

    /// Runs `work`, which may block, on a thread of the runtime's pool, as
    /// [`task::spawn_blocking`](crate::task::spawn_blocking) does inside the runtime.
    ///
    /// The work starts at once; its result comes with a task, during
    /// [`block_on`](Self::block_on) and [`turn`](Self::turn).
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let sum = runtime.spawn_blocking(|| (1..=1_000_u64).sum::<u64>());
    /// assert_eq!(runtime.block_on(sum).unwrap(), 500_500);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let label = Label::blocking(Location::caller());
        let task = spawn_here(self.core.tasks(), self.core.proactor().pool(), work, label);
        self.core.knock();
        task
    }

    /// One round: tasks that are ready, then I/O and timers. For programs with a loop of their own.
    ///
    /// If nothing is ready it waits: at most for `wait`, with `None` until something happens, with
    /// `Duration::ZERO` not at all. Returns whether there is more to do right now. If not, call it
    /// again when [`as_fd`](Self::as_fd) is readable or [`next_deadline`](Self::next_deadline) has
    /// come: whatever happens from then on shows there, wakes and calls of your own on this thread
    /// included. Waiting for edges of the descriptor, as epoll can, is enough.
    ///
    /// `examples/ecosystem/src/guest.rs` is such a loop, inside a program of tokio's.
    ///
    /// # Panics
    ///
    /// Inside a task of this runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = quoit::Runtime::new()?;
    /// let task = runtime.spawn(async { quoit::task::yield_now().await });
    /// while runtime.turn(Some(Duration::ZERO)) {}
    /// assert!(task.is_finished());
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn turn(&self, wait: Option<Duration>) -> bool {
        let park = match wait {
            Some(Duration::ZERO) => Park::No,
            Some(wait) => {
                let now = self.core.proactor().clock().now();
                Park::Until(Some(now.saturating_add(nanoseconds(wait))))
            }
            None => Park::Until(None),
        };
        self.core.turn(park)
    }

    /// How long until the next timer is due; zero if it is already. `None`: no timer is pending.
    ///
    /// It may name a time before the next timer, never after it. While the readiness ring's pool
    /// has no room for its jobs, it names the time to try again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.core.proactor().longest_wait().map(Duration::from_nanos)
    }

    /// A way to this core from other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.core.tasks().inbox().clone(), self.core.proactor().pool().clone())
    }

    /// Which ring is in use, why, and what would give the other one.
    #[must_use]
    pub fn ring(&self) -> &RingReport {
        self.core.proactor().ring_report()
    }

    /// What the core has done so far. From other threads it is [`Handle::metrics`].
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::of(self.core.tasks(), self.core.proactor())
    }

    /// Ends the runtime: drops every task on this thread, sends what streams have committed and
    /// ends them, cancels what is left at the deadline, and reports what was lost.
    ///
    /// Tasks are dropped inside the runtime, in no particular order; those that they spawn
    /// meanwhile are dropped too (up to the bound at [`Report::tasks_leaked`]), and panics of their
    /// destructors end there. Their handles answer that they were cancelled. Wakers that are still
    /// around do nothing from then on.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = quoit::Runtime::new()?;
    /// drop(runtime.spawn(std::future::pending::<()>()));
    /// let report = runtime.shutdown(Duration::from_secs(1));
    /// assert_eq!(report.tasks_dropped, 1);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn shutdown(mut self, deadline: Duration) -> Report {
        self.end(deadline)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn end(&mut self, deadline: Duration) -> Report {
        let now = self.core.proactor().clock().ending();
        let deadline = now.saturating_add(nanoseconds(deadline));
        let Some((left, closed)) = self.core.shutdown(deadline) else {
            return Report::default();
        };
        let mut report = Report::new(left, self.core.tasks().leaked(), closed);
        if let Some(pool) = self.pool.take() {
            report.blocking_jobs_running = pool.shutdown(deadline);
        }
        report
    }
}

impl AsFd for Runtime {
    /// Becomes readable when something comes up for [`turn`](Runtime::turn) after it has returned
    /// `false`, timers apart; now and then it does so for nothing. Do not read it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.proactor().as_fd()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end(DROP_DEADLINE);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("ring", &self.ring().kind())
            .field("tasks_alive", &self.core.tasks().living())
            .finish_non_exhaustive()
    }
}

/// What ending a runtime came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Tasks that had not ended and were dropped.
    pub tasks_dropped: usize,
    /// Tasks that destructors of tasks had started, and whose own would have gone on so: they were
    /// never polled, and are leaked. 64 generations of them are dropped before that.
    pub tasks_leaked: usize,
    /// Connections that were still open, those included that dropped tasks had.
    pub connections_closed: usize,
    /// Requests that were cancelled at the deadline, or had nobody left to wait for them.
    pub requests_cancelled: usize,
    /// Requests that the kernel still held: their memory and descriptors are leaked, never freed.
    pub requests_leaked: usize,
    /// Blocking jobs that still ran at the deadline; their threads end when they do.
    pub blocking_jobs_running: usize,
}

impl Report {
    pub(crate) fn new(left: Left, tasks_leaked: usize, closed: Closed) -> Self {
        Self {
            tasks_dropped: left.tasks,
            tasks_leaked,
            connections_closed: left.connections,
            requests_cancelled: closed.cancelled,
            requests_leaked: closed.leaked,
            blocking_jobs_running: 0,
        }
    }

    /// Whether everything has come back: nothing is leaked and no blocking job runs on.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tasks_leaked == 0 && self.requests_leaked == 0 && self.blocking_jobs_running == 0
    }
}
