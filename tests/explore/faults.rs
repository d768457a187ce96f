//! Faults: whatever call is refused, the program ends, and what arrives is the start of what was
//! sent; what only costs time is seen by nobody.

use quoit::sim::explore::Explorer;

use crate::check;
use crate::whole::conversation;

#[test]
fn every_call_that_fails() {
    let found = Explorer::new("every call that fails").seeds(6).fail(|explore| async {
        // An error is an answer; a panic, a hang or something left over is none.
        let _ = conversation(explore).await;
    });
    check(&found);
}

#[test]
fn every_call_that_is_hindered() {
    let found = Explorer::new("every call that is hindered").seeds(5).hinder(|explore| async {
        assert!(conversation(explore).await.unwrap(), "nobody hears of what costs time only");
    });
    check(&found);
}
