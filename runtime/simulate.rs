//! Running one program inside a world of its own, for the library's own tests: one host with one
//! core, whose books can be looked at afterwards. Not public interface; see `sim` for that.
//!
//! ```text
//!   boot ─► run the body ─► shut down ─► look at the books ─► drop it
//!              │ metrics       │ metrics
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::io::ring::simulated::world::World;
pub use crate::io::ring::simulated::{Books, Chance};
use crate::io::ring::simulated::{FaultPlan, Link, Rings, Weather};
use crate::runtime::one::Report;
use crate::runtime::sim::driver::{Driver, Plan, Step};
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
    pub(crate) plan: FaultPlan,
    /// A hash of all that happened, in order: the same seed gives the same.
    pub trace: u64,
}

/// More steps than any of these programs takes: one that goes on for ever.
const STEPS_MAX: u64 = 1_000_000;

/// Small buffers and a quick loopback.
fn weather(seed: u64) -> Weather {
    let mut chance = Chance::of(seed, 3);
    Weather {
        link: Link::new((1, 200_000), None),
        loopback: Link::new((1, 200_000), None),
        capacity_max: 1 << chance.up_to(12),
    }
}

/// Runs `body` on a simulated ring whose every choice comes from `seed`. The body gets choices of
/// its own.
///
/// # Panics
///
/// When the program waits for what can never happen, or comes to no end, and when it breaks a rule
/// of the kernel's.
pub fn simulate<F: Future>(
    seed: u64,
    builder: Builder,
    body: impl FnOnce(Chance) -> F,
) -> Simulation<F::Output> {
    simulate_under(FaultPlan::none(), seed, builder, body)
}

/// As `simulate`, with a fault that is planned.
pub(crate) fn simulate_under<F: Future>(
    plan: FaultPlan,
    seed: u64,
    builder: Builder,
    body: impl FnOnce(Chance) -> F,
) -> Simulation<F::Output> {
    const GRACE: Duration = Duration::from_secs(60);
    let world = World::new(seed, weather(seed));
    world.set_rings(Rings::drawn(&mut Chance::of(seed, 6)));
    world.set_plan(plan);
    let _entered = world.enter();
    let output = Rc::new(Cell::new(None));
    let mut driver = Driver::new(world.clone());
    driver.grace = Some(GRACE);
    let mut body = Some((body, output.clone()));
    driver.add(Plan {
        name: "host".to_owned(),
        program: Box::new(move |_| {
            let (body, output) = body.take().expect("it is started once");
            Box::pin(async move {
                output.set(Some(body(Chance::new(seed)).await));
                Ok(())
            })
        }),
        builder,
        cores: 1,
        is_client: true,
    });
    driver.boot_all();
    while !driver.is_over() {
        assert!(
            driver.step() == Step::Went,
            "nothing can ever happen: the program waits for what nobody does\n{}",
            driver.describe()
        );
        assert!(driver.steps < STEPS_MAX, "the program comes to no end: {STEPS_MAX} steps");
    }
    driver.end_all();
    let core = driver.cores.pop().expect("it is there until it is dropped");
    assert!(driver.cores.is_empty(), "the program ends the further cores that it starts");
    let metrics = core.metrics.expect("its program has returned");
    let (report, after) = core.result().expect("it has ended");
    drop(core);
    let (books, plan, trace) = (world.books(), world.plan(), world.trace());
    let output = output.take().expect("the body has returned");
    Simulation { output, metrics, after, report, books, plan, trace }
}
