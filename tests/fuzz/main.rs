//! Random programs over the public interface, on simulated hosts, with an exact oracle.
//!
//! ```text
//!   program.rs   what is run: drawn from a seed, shrinkable, printable
//!   life.rs      a run of it, and what has to hold afterwards
//!   place.rs     tasks, cores, and the objects that they share
//!   streams.rs   operations on listeners and streams     ledger.rs   their oracle
//!   files.rs     operations on files                     model.rs    their oracle
//!   shrink.rs    a failing program without what it does not need
//! ```
//!
//! `QUOIT_SEEDS=n` runs `n` programs, from `QUOIT_FIRST_SEED` on; `QUOIT_SEED=n` that one alone. A
//! failure prints the smallest program that was found to fail in the same way.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod files;
mod ledger;
mod life;
mod model;
mod place;
mod program;
mod shrink;
mod streams;

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use program::Program;

/// What a run of this test gets through in a few seconds, in debug.
const PROGRAMS: u64 = 300;

#[test]
fn random_programs_keep_the_contract() {
    static AT: AtomicU64 = AtomicU64::new(0);
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let chosen = number("QUOIT_SEED");
    let first = chosen.or(number("QUOIT_FIRST_SEED")).unwrap_or(0);
    let count = if chosen.is_some() { 1 } else { number("QUOIT_SEEDS").unwrap_or(PROGRAMS) };
    watch(&AT);
    let hook = std::panic::take_hook();
    life::note_panics();
    let (mut done, mut size, mut found) = (0, 0, None);
    for seed in first..first + count {
        AT.store(seed, Ordering::Relaxed);
        let program = Program::draw(seed);
        let outcome = life::run(&program);
        (done, size) = (done + outcome.done, size + program.size() as u64);
        let again = (seed % 8 == 0 || chosen.is_some()).then(|| life::run(&program));
        if again.is_some_and(|again| again != outcome) {
            found = Some((program, "a second run went another way".to_owned()));
        } else if let Some(failure) = outcome.failures.first() {
            let failure = failure.clone();
            eprintln!("QUOIT_SEED={seed} fails, and is shrunk: {failure}");
            found = Some((shrink::shrink(program, &failure), failure));
        }
        if found.is_some() {
            break;
        }
    }
    std::panic::set_hook(hook);
    if let Some((program, before)) = found {
        let failures = life::run(&program).failures.join("\n");
        panic!("{before}\nshrunk:\n{program}{failures}\nreplay: QUOIT_SEED={}", program.seed);
    }
    println!("{count} programs with {size} operations; {done} bookings");
    assert!(count < 100 || done > 10 * count, "the programs do hardly anything");
}

/// A program that never comes back is named, and ends the test.
fn watch(at: &'static AtomicU64) {
    std::thread::spawn(move || {
        let mut before = u64::MAX;
        loop {
            // Shrinking one takes some time, too.
            std::thread::sleep(Duration::from_secs(120));
            let seed = at.load(Ordering::Relaxed);
            if seed == before {
                eprintln!("the program of QUOIT_SEED={seed} does not come to an end");
                std::process::abort();
            }
            before = seed;
        }
    });
}
