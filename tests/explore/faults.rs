//! Faults: whatever call is refused, the program ends, and what arrives is the start of what was
//! sent; what only costs time is seen by nobody.

use quoit::sim::explore::Explorer;

use crate::check;
use crate::whole::conversation;

/// A conversation has hundreds of points: many seeds come to all of them.
fn explorer(name: &str) -> Explorer<'static> {
    Explorer::new(name).seeds(20).points_per_seed(80)
}

#[test]
fn every_call_that_fails() {
    let found = explorer("every call that fails").fail(|explore| async {
        // An error is an answer; a panic, a hang or something left over is none.
        let _ = conversation(explore).await;
    });
    check(&found);
}

#[test]
fn every_call_that_is_hindered() {
    let found = explorer("every call that is hindered").hinder(|explore| async {
        assert!(conversation(explore).await.unwrap(), "nobody hears of what costs time only");
    });
    check(&found);
}
