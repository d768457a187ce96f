//! The contract under thousands of seeds: one core on the simulated ring, where a seed decides what
//! completes when, and the program drops its futures wherever it likes.
//!
//! After each seed the books must balance, and the same seed must give the same run. A failure
//! names its seed; `QUOIT_SEED=n` runs that one alone, and `QUOIT_SEEDS=n` runs `n` times as many.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod connect;
mod detach;
mod dice;
mod end;
mod files;
mod listen;
mod order;
#[cfg(feature = "planted")]
mod planted;
mod talk;

use std::env;
use std::fmt::Debug;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use quoit::__private::{Simulation, simulate};
use quoit::{Builder, Runtime};

use dice::Dice;

/// Runs a scenario under each seed, some of them twice.
fn under_seeds<F>(seeds: u64, scenario: impl Fn(Dice) -> F)
where
    F: Future,
    F::Output: Debug + PartialEq,
{
    under_seeds_and(seeds, scenario, |_| {});
}

/// As `under_seeds`, and looks at each run.
fn under_seeds_and<F>(
    seeds: u64,
    scenario: impl Fn(Dice) -> F,
    look: impl Fn(&Simulation<F::Output>),
) where
    F: Future,
    F::Output: Debug + PartialEq,
{
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let (chosen, times) = (number("QUOIT_SEED"), number("QUOIT_SEEDS").unwrap_or(1));
    let (first, last) = chosen.map_or((0, seeds * times), |seed| (seed, seed + 1));
    for seed in first..last {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let run = run(seed, &scenario);
            look(&run);
            if seed % 8 == 0 || chosen.is_some() {
                let again = self::run(seed, &scenario);
                assert_eq!(run.trace, again.trace, "a second run went another way");
                assert_eq!(run.output, again.output, "a second run had another result");
            }
        }));
        if let Err(panic) = outcome {
            eprintln!("failed under seed {seed}; QUOIT_SEED={seed} replays it");
            resume_unwind(panic);
        }
    }
}

fn run<F: Future>(seed: u64, scenario: impl Fn(Dice) -> F) -> Simulation<F::Output> {
    let run = simulate(seed, builder(seed), |chance| scenario(Dice::new(chance)));
    check_books(&run);
    run
}

/// Small limits, so that each is met often.
fn builder(seed: u64) -> Builder {
    let dice = Dice::of_seed(!seed);
    let count = dice.up_to(4) as u16;
    let limit = count + dice.below(4) as u16;
    let builder = Runtime::builder()
        .buffers(count, dice.up_to(64) as u32, limit)
        .accept_ahead(dice.up_to(4))
        .receive_ahead(dice.up_to(200))
        .send_ahead(dice.up_to(200));
    let builder = match dice.below(3) {
        0 => builder,
        mode => builder.send_inline(mode == 1),
    };
    builder.task_budget(dice.up_to(8))
}

/// What came is what went plus what is there; and at the end nothing is there.
fn check_books<T>(run: &Simulation<T>) {
    let Simulation { after, report, books, .. } = run;
    assert!(report.is_clean(), "{report:?}");
    let resources = after.resources;
    assert_eq!(resources.unknown_completions, 0, "{after:?}");
    assert_eq!(books.connections, books.accepted + books.refused, "{books:?}");
    assert_eq!(books.accepted, resources.connections_accepted, "{books:?} {resources:?}");
    assert_eq!(
        resources.connections_accepted,
        resources.connections_delivered + resources.connections_undelivered,
        "{resources:?}"
    );
    let alive = [
        after.streams_open,
        after.listeners_open,
        after.operations_open,
        after.requests_in_flight,
        after.leases_out,
        after.tasks_alive,
        books.open,
    ];
    assert_eq!(alive, [0; 7], "streams, listeners, operations, requests, leases, tasks, numbers");
}
