//! What a core has done so far, as one plain snapshot.
//!
//! ```text
//!   core: plain additions, always ──► Runtime::metrics   on its thread: a copy
//!                                └──► Handle::metrics    from anywhere: the core is asked for one
//! ```
//!
//! Nothing of it is shared, so counting costs no atomic instruction and nobody who looks slows a
//! core down.

use crate::io::buffer::BufferCounters;
use crate::io::histogram::Histogram;
use crate::io::mailbox::CoreId;
use crate::io::proactor::{Census, Proactor};
use crate::io::ring::RingCounters;
use crate::io::services::{ErrorCounters, ResourceCounters};
use crate::io::system;
use crate::runtime::stall::Watched;
use crate::runtime::tasks::{self, Tasks};

/// Counters of one core, from [`Runtime::metrics`](crate::Runtime::metrics) on its thread, and from
/// [`Handle::metrics`](crate::Handle::metrics) on any. Keeping them costs a few plain additions;
/// taking the snapshot copies about a kilobyte.
///
/// Unless said otherwise a counter counts from the start of its core and never goes down. What goes
/// up and down is named after a state: alive, waiting, open, in flight, in use, out.
///
/// ```
/// let runtime = quoit::Runtime::new()?;
/// runtime.block_on(async {
///     quoit::spawn(async {}).await.unwrap();
/// });
/// let metrics = runtime.metrics();
/// assert_eq!((metrics.tasks_spawned, metrics.tasks_alive), (1, 0));
/// assert_eq!((metrics.task_polls, metrics.tasks_panicked), (1, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Which core this is: the number that errors about a core name, the same for its whole life,
    /// and no other core's in this process.
    pub core: u64,
    /// Processor time of the thread that drives the core, in nanoseconds, with what it did before
    /// and besides. Its growth over a second, divided by a second, is how busy the core is: what is
    /// lacking it has slept or waited for a processor. Zero in a [simulation](crate::sim).
    pub processor_time: u64,
    /// Tasks that have been spawned and have not ended.
    pub tasks_alive: usize,
    /// Tasks spawned, on this core or sent to it.
    pub tasks_spawned: u64,
    /// Tasks whose future has panicked, whether or not anybody asks their handle.
    pub tasks_panicked: u64,
    /// Polls of tasks.
    pub task_polls: u64,
    /// How long polls of tasks took, in nanoseconds; `None` without
    /// [`Builder::time_polls`](crate::Builder::time_polls).
    pub poll_times: Option<Histogram>,
    /// Tasks that wait for their turn.
    pub tasks_ready: usize,
    /// The most that have waited for their turn at once.
    pub tasks_ready_peak: usize,
    /// Tasks that other threads woke, aborted or sent here.
    pub remote_wakes: u64,
    /// What other threads have sent and the core has not looked at yet.
    pub remote_waiting: usize,
    /// Turns of the proactor.
    pub turns: u64,
    /// Turns that were allowed to wait, since nothing was ready.
    pub parks: u64,
    /// How many completions each turn of the ring has brought. Answers of pool threads come beside
    /// the turns and are not in it.
    pub completions_per_turn: Histogram,
    /// Polls that took longer than [`Builder::stall_limit`](crate::Builder::stall_limit), each once
    /// it was found; zero without one.
    pub stalls: u64,
    /// What the ring has done.
    pub ring: RingCounters,
    /// Completions with an error.
    pub errors: ErrorCounters,
    /// The books of the core's resources.
    pub resources: ResourceCounters,
    /// The pool that leases come from.
    pub buffers: BufferCounters,
    /// Streams that are open, or closing in the background.
    pub streams_open: usize,
    /// Streams whose receive waits for a buffer.
    pub streams_starved: usize,
    /// Listeners that are open.
    pub listeners_open: usize,
    /// Connections that the core has taken from the kernel and that wait for `accept`.
    pub connections_waiting: usize,
    /// Operations that are in flight or not taken yet.
    pub operations_open: usize,
    /// Requests without their terminal completion.
    pub requests_in_flight: usize,
    /// Leases that are out.
    pub leases_out: usize,
}

impl Metrics {
    pub(crate) fn of(tasks: &Tasks, proactor: &Proactor) -> Self {
        let counts = tasks.counts();
        let (tasks_ready, tasks_ready_peak) = tasks.ready();
        let core: CoreId = proactor.id();
        let census: Census = proactor.census();
        Self {
            core,
            processor_time: if proactor.is_simulated() { 0 } else { system::processor_time() },
            tasks_alive: tasks.living(),
            tasks_spawned: counts.spawned,
            tasks_panicked: counts.panicked,
            task_polls: counts.polls,
            poll_times: tasks.poll_times(),
            tasks_ready,
            tasks_ready_peak,
            remote_wakes: counts.mail,
            remote_waiting: tasks.inbox().len(),
            turns: counts.turns,
            parks: counts.parks,
            stalls: tasks.watched().map_or(0, Watched::stalls),
            completions_per_turn: census.batches,
            ring: census.ring,
            errors: census.errors,
            resources: census.resources,
            buffers: census.buffers,
            streams_open: census.streams,
            streams_starved: census.streams_starved,
            listeners_open: census.listeners,
            connections_waiting: census.accept_queue,
            operations_open: census.operations,
            requests_in_flight: census.requests,
            leases_out: census.leases,
        }
    }

    /// Of the core that runs here; `None` outside a runtime.
    pub(crate) fn here() -> Option<Self> {
        let books = tasks::with_current(|tasks| {
            Proactor::with_current(|proactor| Self::of(tasks, proactor))
        });
        books.flatten()
    }
}

/// The books of the core that runs here, for tests whose body has no `Runtime`: in a simulation
/// nobody has.
///
/// # Panics
///
/// Outside a runtime.
#[must_use]
pub fn books_here() -> Metrics {
    Metrics::here().expect("there is a core on this thread")
}
