//! Many seeds, and what to say when one fails.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Sim;

/// Every so many seeds, one is run a second time.
const TWICE: u64 = 8;

/// Runs a simulation under the seeds from zero to `seeds`.
///
/// `body` adds hosts and clients to the world that it is given. It may also run it, to look at it
/// afterwards; otherwise it is run then. A panic, and an error of [`Sim::run`], fail the seed.
///
/// Some of the seeds are run twice: where the two runs differ, the program takes something from
/// outside of its world, and that is a failure too.
///
/// On a failure, standard error has the seed, what was drawn from it, and the last events. With
/// `QUOIT_SEED=n` in the environment only that seed is run, and with `QUOIT_SEEDS=n`, `n` times as
/// many. `QUOIT_SIMULATION_TRACE=1` shows all events while they happen.
///
/// # Panics
///
/// With the failure of the first seed that fails.
///
/// # Examples
///
/// ```
/// use quoit::net::{TcpListener, TcpStream};
///
/// quoit::sim::check(20, |sim| {
///     sim.host("server", || async {
///         let listener = TcpListener::bind("0.0.0.0:1000").await.unwrap();
///         loop {
///             drop(listener.accept().await);
///         }
///     });
///     sim.client("client", async {
///         let stream = TcpStream::connect("server:1000").await?;
///         assert!(stream.recv().await.map_or(true, |lease| lease.is_empty()));
///         std::io::Result::Ok(())
///     });
/// });
/// ```
pub fn check(seeds: u64, body: impl Fn(&mut Sim)) {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>());
    let number = |name| number(name).map(|parsed| parsed.expect("QUOIT_SEED(S) is a number"));
    let (chosen, times) = (number("QUOIT_SEED"), number("QUOIT_SEEDS").unwrap_or(1));
    let all = chosen.map_or(0..seeds.saturating_mul(times), |seed| seed..seed + 1);
    for seed in all {
        let trace = run(seed, &body);
        if seed % TWICE == 0 || chosen.is_some() {
            let again = run(seed, &body);
            assert!(
                trace == again,
                "a second run of seed {seed} went another way: the program takes time, random \
                 numbers, threads or I/O from outside of its simulation; with \
                 QUOIT_SIMULATION_TRACE=1 and QUOIT_SEED={seed} the first difference can be seen"
            );
        }
    }
}

/// Runs one seed, and answers the hash of its trace.
fn run(seed: u64, body: &impl Fn(&mut Sim)) -> u64 {
    let mut sim = Sim::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        body(&mut sim);
        if !sim.has_run {
            if let Err(failure) = sim.run() {
                panic!("{failure}\n{}", failure.waiting());
            }
        }
        let books = sim.books();
        assert!(books.are_balanced(), "the simulation itself has lost something: {books:?}");
    }));
    if let Err(panic) = outcome {
        eprintln!(
            "the simulation fails under seed {seed}, after {:?} of its time\n\
             what was drawn:\n{}the last events:\n{}\
             replay it with QUOIT_SEED={seed}",
            sim.world().elapsed(),
            sim.options(),
            sim.trace(),
        );
        resume_unwind(panic);
    }
    sim.trace_hash()
}
