//! Making a runtime: the choices, and `Runtime`, which owns one core on the thread that made it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::io::buffer::PoolConfig;
use crate::io::pool::Pool;
use crate::io::proactor::{Closed, Config, Park, Proactor};
use crate::io::ring::{Prepared, RingChoice, RingReport, prepare};
use crate::io::services::Limits;
use crate::io::system;
use crate::runtime::blocking::spawn_here;
use crate::runtime::core::{Core, Pace};
use crate::runtime::cores::Cores;
use crate::runtime::handle::Handle;
use crate::runtime::join::JoinHandle;
use crate::runtime::metrics::Metrics;

/// What dropping a runtime gives its I/O to end well.
pub(crate) const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// How long an idle pool thread stays.
const POOL_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Runs `future` on a new runtime with the default choices, and ends the runtime.
///
/// # Errors
///
/// When the runtime cannot be built; see [`Builder::build`].
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

/// Large enough that one receive takes what a busy peer has sent, and one send passes it on: at 16
/// messages of 16 KiB in flight that costs two thirds of what buffers of 16 KiB do. An idle
/// connection holds none, and small messages touch only the first page of each.
///
/// A little more than 64 KiB: a message of just that size is then a short read, which tells the
/// readiness ring that the socket is empty and saves it a call; and the buffers begin at different
/// places in the sets of the cache.
const BUFFER_SIZE: u32 = 64 * 1024 + 256;
const BUFFERS: u16 = 32;

/// The choices for a runtime; [`Runtime::builder`] makes one with the defaults.
///
/// ```
/// use std::time::Duration;
///
/// let runtime = quoit::Runtime::builder()
///     .ring(quoit::RingChoice::Readiness)
///     .spin(Duration::from_micros(20))
///     .task_budget(128)
///     .build()?;
/// assert_eq!(runtime.block_on(async { 1 + 1 }), 2);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build` or `run`"]
pub struct Builder {
    pub(crate) ring: RingChoice,
    pub(crate) cores: Cores,
    pub(crate) pin: Option<bool>,
    pace: Pace,
    max_blocking_threads: usize,
    limits: Limits,
    buffers: PoolConfig,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            ring: RingChoice::Auto,
            cores: Cores::One,
            pin: None,
            pace: Pace { task_budget: 64, spin: Duration::ZERO },
            max_blocking_threads: 512,
            limits: Limits::default(),
            buffers: PoolConfig { count: BUFFERS, size: BUFFER_SIZE, limit: 1024 },
        }
    }

    /// Which ring to use. Default: [`RingChoice::Auto`].
    pub fn ring(mut self, choice: RingChoice) -> Self {
        self.ring = choice;
        self
    }

    /// On how many cores [`run`](Self::run) runs its program. Default: [`Cores::One`].
    pub fn cores(mut self, cores: Cores) -> Self {
        self.cores = cores;
        self
    }

    /// Whether [`run`](Self::run) ties the thread of each core to a CPU (sched_setaffinity(2)), in
    /// the order of the CPUs that this process may use. Default: if there are several cores and no
    /// CPU quota. Under a quota, processes that share a machine would all tie themselves to the
    /// same CPUs.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = Some(pin);
        self
    }

    /// How long an idle core watches for work before it sleeps in the kernel. It buys latency (a
    /// wake-up costs tens of microseconds) with a processor that is busy meanwhile. Default: zero.
    pub fn spin(mut self, at_most: Duration) -> Self {
        self.pace.spin = at_most;
        self
    }

    /// How many polls of tasks may pass before the ring has a turn in any case. Default: 64.
    ///
    /// A task whose I/O is always ready does not get past that: one poll of it has at most 128
    /// answers from I/O. Then the operation that asks for one more is pending once, the other
    /// tasks, the timers and the ring have their turn, and the task goes on after them.
    ///
    /// # Panics
    ///
    /// When it is zero.
    #[track_caller]
    pub fn task_budget(mut self, polls: usize) -> Self {
        assert!(polls > 0, "a budget of zero polls would never run a task");
        self.pace.task_budget = polls;
        self
    }

    /// How many threads may run blocking work at once. They start when they are needed. Default:
    /// 512.
    ///
    /// # Panics
    ///
    /// When it is zero.
    #[track_caller]
    pub fn max_blocking_threads(mut self, threads: usize) -> Self {
        assert!(threads > 0, "blocking work needs at least one thread");
        self.max_blocking_threads = threads;
        self
    }

    /// How many connections a listener takes from the kernel ahead of `accept`. Default: 64.
    pub fn accept_ahead(mut self, connections: usize) -> Self {
        self.limits.accept_ahead = connections.max(1);
        self
    }

    /// How many received bytes may wait in a stream for the program before its receive is
    /// suspended. It is a high-water mark: one turn may bring more. Default: 256 KiB.
    pub fn receive_ahead(mut self, bytes: usize) -> Self {
        self.limits.receive_ahead = bytes.max(1);
        self
    }

    /// How many committed bytes may wait in a stream for the kernel before further sends wait. A
    /// buffer is committed whole when there is any room. Default: 256 KiB.
    pub fn send_ahead(mut self, bytes: usize) -> Self {
        self.limits.send_ahead = bytes.max(1);
        self
    }

    /// Whether a send is tried at once and submitted only for what the socket did not take, or
    /// always submitted. Default: tried at once.
    pub fn send_inline(mut self, inline: bool) -> Self {
        self.limits.send_inline = inline;
        self
    }

    /// The pool that leases come from, per core: it starts with `count` buffers of `size` bytes and
    /// grows by as many, up to `limit`, when a receive finds none. Default: 32 of 65,792 bytes,
    /// limit 1024. When all are lent, receives go to private memory.
    ///
    /// # Panics
    ///
    /// When `count` or `size` is zero, or `limit` is below `count` or above 32768.
    #[track_caller]
    pub fn buffers(mut self, count: u16, size: u32, limit: u16) -> Self {
        assert!(count > 0 && size > 0, "a pool needs buffers of some size");
        assert!(limit >= count && limit <= 32768, "the limit lies between the count and 32768");
        self.buffers = PoolConfig { count, size, limit };
        self
    }

    /// Builds a runtime with one core, driven by this thread.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, with the likely remedy: memory (`memlock`), descriptors, or an
    /// io_uring that was asked for by name. With [`RingChoice::Auto`] a missing io_uring is no
    /// error. Inside a [simulation](crate::sim) it is
    /// [`Unsupported`](std::io::ErrorKind::Unsupported).
    pub fn build(self) -> io::Result<Runtime> {
        if self.cores != Cores::One {
            let text = "`build` makes a runtime of one core; `Builder::run` runs several";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let prepared = prepare(self.ring)?;
        self.build_on(prepared)
    }

    /// A runtime with one core whose ring is settled.
    pub(crate) fn build_on(self, prepared: Prepared) -> io::Result<Runtime> {
        let pool = self.pool();
        let mut runtime = self.runtime(prepared, pool.clone())?;
        runtime.pool = Some(pool);
        Ok(runtime)
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        Pool::new(self.max_blocking_threads, POOL_KEEP_ALIVE)
    }

    /// One core, whose ring is settled, and whose pool others end.
    pub(crate) fn runtime(&self, ring: Prepared, pool: Arc<Pool>) -> io::Result<Runtime> {
        let config = Config { prepared: ring, limits: self.limits, buffers: self.buffers, pool };
        let proactor = Proactor::new(&config)?;
        Ok(Runtime { core: Core::new(proactor, self.pace), pool: None })
    }

    /// Ends the pool that several cores shared, after the last of them.
    pub(crate) fn end_pool(pool: &Pool) {
        pool.shutdown(after(DROP_DEADLINE));
    }
}

/// So long from now, in nanoseconds of CLOCK_MONOTONIC. Ending is a matter of real time, whatever a
/// test has done to the core's clock.
fn after(wait: Duration) -> u64 {
    system::now().saturating_add(nanoseconds(wait))
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
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
        self.core.block_on(future)
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
        self.core.tasks().spawn(future, Location::caller())
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
        spawn_here(self.core.tasks(), self.core.proactor().pool(), work, Location::caller())
    }

    /// One round: tasks that are ready, then I/O and timers. For programs with a loop of their own.
    ///
    /// If nothing is ready it waits: at most for `wait`, with `None` until something happens, with
    /// `Duration::ZERO` not at all. Returns whether there is more to do right now. If not, call it
    /// again when [`as_fd`](Self::as_fd) is readable or [`next_deadline`](Self::next_deadline) has
    /// come.
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
    /// It may name a time before the next timer, never after it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let proactor = self.core.proactor();
        let now = proactor.clock().now();
        proactor.next_deadline().map(|at| Duration::from_nanos(at.saturating_sub(now)))
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

    /// What the core has done so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics {
            turns: self.core.turns(),
            parks: self.core.parks(),
            ..Metrics::of(self.core.tasks(), self.core.proactor())
        }
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
        let Some((tasks_dropped, closed)) = self.core.shutdown(deadline) else {
            return Report::default();
        };
        let mut report = Report::new(tasks_dropped, self.core.tasks().leaked(), closed);
        if let Some(pool) = self.pool.take() {
            report.blocking_jobs_running = pool.shutdown(deadline);
        }
        report
    }
}

impl AsFd for Runtime {
    /// Readable when [`turn`](Runtime::turn) would find something, timers apart.
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
    /// Connections that were still open.
    pub connections_closed: usize,
    /// Requests that were cancelled at the deadline, or had nobody left to wait for them.
    pub requests_cancelled: usize,
    /// Requests that the kernel still held: their memory and descriptors are leaked, never freed.
    pub requests_leaked: usize,
    /// Blocking jobs that still ran at the deadline; their threads end when they do.
    pub blocking_jobs_running: usize,
}

impl Report {
    pub(crate) fn new(tasks_dropped: usize, tasks_leaked: usize, closed: Closed) -> Self {
        Self {
            tasks_dropped,
            tasks_leaked,
            connections_closed: closed.connections,
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
