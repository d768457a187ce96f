//! Making a runtime: the choices, and what a core is built from.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::io::buffer::PoolConfig;
use crate::io::pool::Pool;
use crate::io::proactor::{Config, Proactor};
use crate::io::ring::readiness::epoll::EVENTS_MAX;
use crate::io::ring::{Prepared, RingChoice, prepare};
use crate::io::services::{Limits, Sends};
use crate::io::system::{self, Threads};
use crate::runtime::core::{Core, Pace};
use crate::runtime::cores::Cores;
use crate::runtime::hooks::Hooks;
use crate::runtime::one::Runtime;
use crate::runtime::stall::{Detector, Stall, Watchdog};

/// What dropping a runtime gives its I/O to end well.
pub(crate) const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// Large enough that one receive takes what a busy peer has sent, and one send passes it on: at 16
/// messages of 16 KiB in flight that costs two thirds of what buffers of 16 KiB do. An idle
/// connection holds none, and small messages touch only the first page of each.
///
/// A little more than 64 KiB: a message of just that size is then a short read, which tells the
/// readiness ring that the socket is empty and saves it a call; and the buffers begin at different
/// places in the sets of the cache.
const BUFFER_SIZE: u32 = 64 * 1024 + 256;
/// See [`EVENTS_MAX`] for the least that the readiness ring is fast with.
const BUFFERS: u16 = 32;
const _: () = assert!(BUFFERS as usize >= EVENTS_MAX, "each event may fill a buffer");

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
    thread_keep_alive: Duration,
    pub(crate) threads: Threads,
    start_paused: bool,
    limits: Limits,
    buffers: PoolConfig,
    hooks: Hooks,
    time_polls: bool,
    stalls: Detector,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            ring: RingChoice::Auto,
            cores: Cores::One,
            pin: None,
            pace: Pace { task_budget: 64, spin: Duration::ZERO },
            max_blocking_threads: 512,
            thread_keep_alive: Duration::from_secs(10),
            threads: Threads::default(),
            start_paused: false,
            limits: Limits::default(),
            buffers: PoolConfig { count: BUFFERS, size: BUFFER_SIZE, limit: 1024 },
            hooks: Hooks::default(),
            time_polls: false,
            stalls: Detector::default(),
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

    /// How long a thread for blocking work that has none stays. Default: 10 seconds.
    pub fn thread_keep_alive(mut self, idle: Duration) -> Self {
        self.thread_keep_alive = idle;
        self
    }

    /// What the names of the threads that the runtime starts begin with: `name-core-0`,
    /// `name-blocking-0`, each counted on. The kernel shows the first 15 bytes. Default: `quoit`.
    ///
    /// # Panics
    ///
    /// When it has a zero byte in it, which no name of a thread can have.
    #[track_caller]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.threads.name = name.into();
        assert!(!self.threads.name.contains('\0'), "no name of a thread has a zero byte in it");
        self
    }

    /// How many bytes of stack the threads that the runtime starts have: those for blocking work,
    /// and the cores of [`run`](Self::run). Default: as [`std::thread`] has it, 2 MiB.
    ///
    /// Nothing is checked here. As long as the machine can start no thread with such a stack,
    /// blocking work is refused, and what files on the readiness ring need a thread for answers
    /// [`ResourceBusy`](std::io::ErrorKind::ResourceBusy).
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.threads.stack_size = Some(bytes);
        self
    }

    /// Whether the clock of each core stands still from the start, as after
    /// [`time::pause`](crate::time::pause). Default: it runs.
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::time::{self, Instant};
    ///
    /// let runtime = quoit::Runtime::builder().start_paused(true).build()?;
    /// runtime.block_on(async {
    ///     let start = Instant::now();
    ///     time::sleep(Duration::from_secs(3600)).await;
    ///     assert_eq!(start.elapsed(), Duration::from_secs(3600));
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn start_paused(mut self, paused: bool) -> Self {
        self.start_paused = paused;
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

    /// Whether a send of a buffer is tried at once and submitted only for what the socket did not
    /// take, or always submitted, with all others of its turn. Default: by load. On io_uring sends
    /// are submitted while completions come four or more at a time and the core has at most 128
    /// streams; unless the first of a turn then waits for more than 250 microseconds: those that
    /// wait are handed in, and for a while all are tried at once, as they are otherwise, and on
    /// readiness.
    pub fn send_inline(mut self, inline: bool) -> Self {
        self.limits.sends = if inline { Sends::AtOnce } else { Sends::Submitted };
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

    /// Whether to measure how long each poll of a task takes, for
    /// [`Metrics::poll_times`](crate::Metrics::poll_times). Default: no.
    ///
    /// In a [simulation](crate::sim), where nothing takes time, they are not measured.
    ///
    /// It costs a look at the clock per poll, and one more each time the core goes from its I/O
    /// back to its tasks: more than the poll of a small task does.
    ///
    /// ```
    /// let runtime = quoit::Runtime::builder().time_polls(true).build()?;
    /// runtime.block_on(async { quoit::spawn(async {}).await.unwrap() });
    /// let times = runtime.metrics().poll_times.unwrap();
    /// println!("99 of 100 polls took at most {:?} ns", times.quantile(0.99));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn time_polls(mut self, timed: bool) -> Self {
        self.time_polls = timed;
        self
    }

    /// Calls `action` on the thread of each core before it sleeps, because it has nothing to do.
    ///
    /// The core is the current one, as for its tasks. If `action` wakes or spawns a task, the core
    /// does not sleep, but looks for I/O and goes on. A panic comes out where the core is driven.
    /// In a [simulation](crate::sim) nobody sleeps, and it is not called.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    /// use std::time::Duration;
    ///
    /// let sleeps = Arc::new(AtomicUsize::new(0));
    /// let count = sleeps.clone();
    /// let builder = quoit::Runtime::builder();
    /// let runtime = builder.on_thread_park(move || drop(count.fetch_add(1, Relaxed))).build()?;
    /// runtime.block_on(quoit::time::sleep(Duration::from_millis(1)));
    /// assert!(sleeps.load(Relaxed) > 0);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_thread_park(mut self, action: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.on_thread_park = Some(Arc::new(action));
        self
    }

    /// Calls `action` on the thread of each core after it has slept: as often as the action of
    /// [`on_thread_park`](Self::on_thread_park) was.
    pub fn on_thread_unpark(mut self, action: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.on_thread_unpark = Some(Arc::new(action));
        self
    }

    /// Reports each poll that takes longer than `limit`, while it is still going on: what blocks a
    /// core, where it was spawned, and, with the feature `stacks`, where it stands. Default: nobody
    /// looks.
    ///
    /// A thread of its own looks at the polls of all cores, four times per limit (at most once in a
    /// millisecond, at least once a second). So a stall is reported at most a quarter of the limit
    /// late (that, or a millisecond); a poll that is shorter is never reported. Each poll costs its
    /// core a few plain stores. A stall is reported again when it has gone on for twice as long, at
    /// least once a minute, and when it is over. Ten different stalls of a runtime are reported at
    /// once, and then one per second; the others are counted in the next report, and all of them in
    /// [`Metrics::stalls`](crate::Metrics::stalls).
    ///
    /// The time is that of the wall: a core that is kept from running by other programs, a debugger
    /// or `SIGSTOP` is stalled, too. Seen are the polls of tasks and of the future of
    /// [`run`](Self::run) or [`block_on`](Runtime::block_on), with the destructors that they run.
    /// Not seen is [blocking work](crate::task::spawn_blocking), which may take its time; nor what
    /// is done in the hooks of this builder, in wakers of other executors, and in the destructors
    /// at the runtime's end. In a [simulation](crate::sim) nobody looks.
    ///
    /// For the stack, the stalled thread gets a real-time signal that nobody had a handler for when
    /// the first was taken. As by any signal, a system call that it waits in may end early with
    /// `EINTR` (signal(7) tells which do); all of `std` begins such calls again.
    ///
    /// # Panics
    ///
    /// When it is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (report, reports) = std::sync::mpsc::channel();
    /// let runtime = quoit::Runtime::builder()
    ///     .stall_limit(Duration::from_millis(20))
    ///     .on_stall(move |stall| drop(report.send(stall.to_string())))
    ///     .build()?;
    /// runtime.block_on(async {
    ///     let task = quoit::spawn(async { std::thread::sleep(Duration::from_millis(100)) });
    ///     task.await.unwrap();
    /// });
    /// // "core 1 (main) is stalled: task 1, spawned at src/main.rs:9:16, has been in one poll .."
    /// assert!(reports.recv().unwrap().contains("is stalled"));
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "every poll takes longer than no time at all");
        self.stalls.limit = Some(limit);
        self
    }

    /// What to do with a stall that [`stall_limit`](Self::stall_limit) has found. Default: it is
    /// printed to standard error.
    ///
    /// `action` runs on the thread that looks, which the end of the runtime waits for: it should be
    /// short, and wait for no core. If it panics, that is the end of this report, and no more.
    pub fn on_stall(mut self, action: impl Fn(&Stall) + Send + Sync + 'static) -> Self {
        self.stalls.action = Arc::new(action);
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
        let watchdog = self.watchdog()?;
        Ok(self.runtime(prepared, pool.clone())?.that_ends(pool, watchdog))
    }

    /// Who looks for stalls, if anybody shall. Not in a simulation, which never comes here.
    pub(crate) fn watchdog(&self) -> io::Result<Option<Watchdog>> {
        Watchdog::start(&self.stalls, &self.threads)
    }

    pub(crate) fn pool(&self) -> Arc<Pool> {
        Pool::new(self.threads.clone(), self.max_blocking_threads, self.thread_keep_alive)
    }

    /// One core, whose ring is settled, and whose pool others end.
    pub(crate) fn runtime(&self, ring: Prepared, pool: Arc<Pool>) -> io::Result<Runtime> {
        let config = Config { prepared: ring, limits: self.limits, buffers: self.buffers, pool };
        let proactor = Proactor::new(&config)?;
        if self.start_paused {
            proactor.clock().pause();
        }
        let core = Core::new(proactor, self.pace, self.hooks.clone());
        // A real clock would not be the same twice.
        if self.time_polls && !core.proactor().is_simulated() {
            core.tasks().time_polls();
        }
        Ok(Runtime::on(core))
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
