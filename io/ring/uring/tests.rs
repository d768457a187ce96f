//! The engine against this kernel: what no public call brings about.

use super::*;
use crate::io::system;
use std::time::Duration;

/// How rings are made here. `None`, and said so: not at all. Where they are required, a failure.
pub(super) fn setup() -> Option<Setup> {
    match Setup::probe() {
        Ok(setup) => Some(setup),
        Err(refusal) => {
            let required = std::env::var("QUOIT_REQUIRE_RINGS").unwrap_or_default();
            assert!(!required.contains("uring"), "io_uring is required: {}", refusal.reason);
            eprintln!("not looked at: io_uring cannot be used here: {}", refusal.reason);
            None
        }
    }
}

#[test]
fn a_timer_that_cannot_be_watched_is_done_without() {
    let Some(setup) = setup() else { return };
    let pool = Pool::new(system::Threads::default(), 4, Duration::from_secs(1));
    let mut ring = Uring::new(&setup, &Mailbox::open().unwrap(), &pool, 8).unwrap();
    let mut found = Vec::new();
    ring.turn(Waiting::No, &mut found).unwrap();
    assert!(ring.timer_armed && ring.kernel_timer.number().is_some());
    // What a refusal comes to: the watch ends with an error.
    let cancel = opcode::AsyncCancel::new(TIMER).build();
    ring.push(cancel.user_data(CANCEL));
    while ring.timer_armed {
        ring.turn(Waiting::No, &mut found).unwrap();
    }
    assert_eq!(ring.kernel_timer.number(), None);
    // So far away that the timer would have had it.
    let deadline = system::now() + 20_000_000;
    let mut turns = 0;
    while system::now() < deadline {
        ring.turn(Waiting::Until(Some(deadline)), &mut found).unwrap();
        turns += 1;
    }
    assert!(turns <= 2, "it slept, and did not spin: {turns} turns");
    assert!(!ring.timer_armed && found.is_empty());
}
