//! The bugs that these tests are there for, planted: each is found, and by which seed is told.
//!
//! `cargo test --features planted --test seeded planted -- --nocapture`

use std::fmt::Debug;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quoit::__private::planted::{Bug, plant};

use crate::dice::Dice;
use crate::{listen, run, talk};

/// Within so many seeds.
const SEEDS: u64 = 2000;

/// The first seed under which a scenario fails while the bug is there.
fn find<F>(bug: Bug, scenario: impl Fn(Dice) -> F)
where
    F: Future,
    F::Output: Debug,
{
    let fails = |seed: &u64| {
        let planted = plant(bug);
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(run(*seed, &scenario))));
        drop(planted);
        outcome.is_err()
    };
    let seed = (0..SEEDS).find(fails).unwrap_or_else(|| panic!("{bug:?} was not found"));
    // It was the bug, and not the scenario.
    run(seed, &scenario);
    println!("{bug:?} is found by seed {seed}");
}

#[test]
fn a_late_accept_that_is_lost_is_found() {
    find(Bug::LostLateAccept, listen::accepts);
}

#[test]
fn a_late_read_that_is_lost_is_found() {
    find(Bug::LostLateRead, talk::conversations);
}

#[test]
fn a_buffer_that_is_freed_early_is_found() {
    find(Bug::BufferFreedEarly, talk::conversations);
}

#[test]
fn a_send_out_of_order_is_found() {
    find(Bug::SendOutOfOrder, talk::conversations);
}

#[test]
fn a_descriptor_that_is_closed_too_soon_is_found() {
    find(Bug::DescriptorClosedTooSoon, talk::conversations);
}
