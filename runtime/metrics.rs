//! What a core has done so far, as one plain snapshot.

use crate::io::proactor::Proactor;
use crate::io::ring::RingCounters;
use crate::io::services::ResourceCounters;
use crate::runtime::tasks::{self, Tasks};

/// Counters of one core, from [`Runtime::metrics`](crate::Runtime::metrics). Taking the snapshot
/// and keeping the counters costs a few plain additions.
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
    /// Tasks that have been spawned and have not ended.
    pub tasks_alive: usize,
    /// Tasks spawned, on this core or sent to it.
    pub tasks_spawned: u64,
    /// Tasks whose future has panicked, whether or not anybody asks their handle.
    pub tasks_panicked: u64,
    /// Polls of tasks.
    pub task_polls: u64,
    /// Tasks that other threads woke, aborted or sent here.
    pub remote_wakes: u64,
    /// What other threads have sent and the core has not looked at yet.
    pub remote_waiting: usize,
    /// Turns of the proactor.
    pub turns: u64,
    /// Turns that were allowed to wait, since nothing was ready.
    pub parks: u64,
    /// What the ring has done.
    pub ring: RingCounters,
    /// The books of the core's resources.
    pub resources: ResourceCounters,
    /// Streams that are open, or closing in the background.
    pub streams_open: usize,
    /// Listeners that are open.
    pub listeners_open: usize,
    /// Operations that are in flight or not taken yet.
    pub operations_open: usize,
    /// Requests without their terminal completion.
    pub requests_in_flight: usize,
    /// Leases that are out.
    pub leases_out: usize,
}

impl Metrics {
    /// All but the turns, which the loop counts.
    pub(crate) fn of(tasks: &Tasks, proactor: &Proactor) -> Self {
        let counts = tasks.counts();
        let [streams_open, listeners_open, operations_open, requests_in_flight, leases_out] =
            proactor.census();
        Self {
            tasks_alive: tasks.living(),
            tasks_spawned: counts.spawned,
            tasks_panicked: counts.panicked,
            task_polls: counts.polls,
            remote_wakes: counts.mail,
            remote_waiting: tasks.inbox().len(),
            turns: 0,
            parks: 0,
            ring: proactor.ring_counters(),
            resources: proactor.resource_counters(),
            streams_open,
            listeners_open,
            operations_open,
            requests_in_flight,
            leases_out,
        }
    }
}

/// The books of the core that runs here, for tests whose body has no `Runtime`: in a simulation
/// nobody has. Turns and parks are not among them.
///
/// # Panics
///
/// Outside a runtime.
#[must_use]
pub fn books_here() -> Metrics {
    let books = tasks::with_current(|tasks| {
        Proactor::with_current(|proactor| Metrics::of(tasks, proactor))
    });
    books.flatten().expect("there is a core on this thread")
}
