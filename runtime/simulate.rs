//! Running a program inside a simulation: one core on the simulated ring, under a clock that jumps.
//! Not public interface.
//!
//! ```text
//!   enter a world ─► build the core ─► run the body ─► shut down ─► drop it ─► leave the world
//!                                          │ metrics      │ metrics    │ books
//! ```

use std::time::Duration;

use crate::io::ring::Prepared;
use crate::io::ring::simulated::Plan;
use crate::io::ring::simulated::world::World;
pub use crate::io::ring::simulated::{Books, Chance};
use crate::runtime::builder::Report;
use crate::runtime::{Builder, Metrics};

/// What became of a simulated program.
#[derive(Debug)]
#[non_exhaustive]
pub struct Simulation<T> {
    /// What the body returned.
    pub output: T,
    /// The core when the body had returned.
    pub metrics: Metrics,
    /// The core when it was shut down.
    pub after: Metrics,
    /// What the shutdown said.
    pub report: Report,
    /// The simulated kernel when the core was gone.
    pub books: Books,
    /// What could have gone wrong, or did.
    pub(crate) plan: Plan,
    /// A hash of all that happened, in order: the same seed gives the same.
    pub trace: u64,
}

/// Runs `body` on a simulated ring whose every choice comes from `seed`. The body gets choices of
/// its own. What it may not use: files, names to resolve, other threads.
///
/// # Panics
///
/// When the program waits for what can never happen, and when it breaks a rule of the kernel's.
pub fn simulate<F: Future>(
    seed: u64,
    builder: Builder,
    body: impl FnOnce(Chance) -> F,
) -> Simulation<F::Output> {
    simulate_under(Plan::none(), seed, builder, body)
}

/// As `simulate`, with a fault that is planned.
pub(crate) fn simulate_under<F: Future>(
    plan: Plan,
    seed: u64,
    builder: Builder,
    body: impl FnOnce(Chance) -> F,
) -> Simulation<F::Output> {
    const GRACE: Duration = Duration::from_secs(60);
    let world = World::new(seed, plan);
    let _entered = world.enter();
    let mut runtime = builder.build_on(Prepared::simulated(seed)).expect("nothing can be refused");
    let output = runtime.block_on(body(Chance::new(seed)));
    let metrics = runtime.metrics();
    let report = runtime.end(GRACE);
    let after = runtime.metrics();
    drop(runtime);
    let (books, plan, trace) = (world.books(), world.plan(), world.trace());
    Simulation { output, metrics, after, report, books, plan, trace }
}
