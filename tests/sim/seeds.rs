//! What a seed is worth: the same run each time, and many of them in a second.
//!
//! ```text
//! QUOIT_SEEDS=100 cargo test --release --test sim seeds:: -- --nocapture --test-threads=1
//! ```

use std::env;

use quoit::sim::Sim;

use crate::crash::crashes_at_any_time;
use crate::echo::eight_clients;
use crate::faults::with_faults;

/// `QUOIT_SEEDS=n` runs `n` times as many.
fn seeds(count: u64) -> u64 {
    let times = env::var("QUOIT_SEEDS").map_or(1, |text| text.parse().expect("a number"));
    count * times
}

fn run(seed: u64, scenario: fn(&mut Sim)) -> Sim {
    let mut sim = Sim::new(seed);
    scenario(&mut sim);
    sim.run().unwrap();
    sim
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let scenarios = [eight_clients, with_faults, crashes_at_any_time];
    let mut hashes = Vec::new();
    let mut differ = 0;
    for seed in 0..seeds(100) {
        let scenario = scenarios[seed as usize % scenarios.len()];
        let [one, other] = [0; 2].map(|_| run(seed, scenario).trace_hash());
        differ += u64::from(one != other);
        hashes.push(one);
    }
    println!("{} seeds, run twice: {differ} differ", hashes.len());
    assert_eq!(differ, 0);
    // And another seed gives another run: the hash is not blind.
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
}

/// What this thread has had of the processor, in seconds.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the memory is ours.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[test]
fn seeds_per_cpu_second() {
    let count = seeds(20);
    let start = cpu_seconds();
    for seed in 0..count {
        assert_eq!(run(seed, eight_clients).books().connections, 8);
    }
    let rate = count as f64 / (cpu_seconds() - start);
    println!("eight clients: {rate:.0} seeds per CPU-second");
    assert!(cfg!(debug_assertions) || rate >= 200.0, "only {rate:.0} seeds per CPU-second");
}
