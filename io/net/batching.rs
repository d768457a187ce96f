//! When sends go to the kernel together.
//!
//! A send tried at once is a system call of its own, and then it is done. A submitted one shares
//! the call that ends the turn, but its stream is looked at twice: when it is queued, and when it
//! is told. Which is cheaper depends on the load, so the core looks at what it gets:
//!
//! ```text
//!   few completions at a time ───────► a call would be shared by nobody ──────────┐
//!   many streams ────────────────────► the second look finds them out of cache ───┼──► at once
//!   a first send that waits too long ► the program takes its time: hand them in, ─┘
//!   otherwise ──► submitted            and leave it for a while
//! ```
//!
//! On one core with its client (AMD EPYC, Linux 6.18), 64-byte echo by a hand-written ring costs 4
//! to 8 % less with submissions for 16 and 64 connections, and nothing for 1024. Only the
//! completion ring gains: on readiness, a submission is tried by a call, too.

use std::mem;

/// As many completions of one turn are a batch.
const FEW: usize = 4;

/// The same in a simulation, where more would seldom come together.
const FEW_SIMULATED: usize = 2;

/// The streams of a core, above which a second look is not for free.
const MANY: usize = 128;

/// How long the first send of a turn may wait to be handed in, in nanoseconds. It is looked at with
/// every `LOOK`th send and at the end of the turn, so it is overstepped by the time that so many
/// polls take, or by one that blocks the core.
const PATIENCE: u64 = 250_000;
const LOOK: u32 = 4;

/// For so many turns with completions a program that took its time sends at once.
const PENANCE: u32 = 100;

/// How a send that nothing stands before goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    AtOnce,
    Submitted,
    /// At once, and those that are queued are to be handed in: they have waited for long.
    Late,
}

/// What was learned from the turns so far.
#[derive(Debug)]
pub(crate) struct Batching {
    few: usize,
    /// The last completions were a batch.
    is_on: bool,
    /// Sends that were submitted since the last turn, and when the first of them was.
    queued: u32,
    first: u64,
    penance: u32,
}

impl Batching {
    pub(crate) fn new(is_simulated: bool) -> Self {
        let few = if is_simulated { FEW_SIMULATED } else { FEW };
        Self { few, is_on: false, queued: 0, first: 0, penance: 0 }
    }

    /// How the next send goes out.
    #[inline]
    pub(crate) fn way(&mut self, now: impl FnOnce() -> u64) -> Way {
        if !self.is_on {
            return Way::AtOnce;
        }
        if self.queued == 0 {
            self.first = now();
        } else if self.queued % LOOK == 0 && self.has_waited(now()) {
            self.queued = 0;
            return Way::Late;
        }
        self.queued += 1;
        Way::Submitted
    }

    /// The ring has the next turn, in which it hands in what is queued.
    #[inline]
    pub(crate) fn before_turn(&mut self, now: impl FnOnce() -> u64) {
        if mem::take(&mut self.queued) > 0 {
            self.has_waited(now());
        }
    }

    /// The ring has had its turn. One without completions says nothing: timers and other cores wake
    /// tasks, too.
    #[inline]
    pub(crate) fn after_turn(&mut self, completions: usize, streams: usize) {
        if completions > 0 {
            self.penance = self.penance.saturating_sub(1);
            self.is_on = self.penance == 0 && completions >= self.few && streams <= MANY;
        }
    }

    /// Whether the first send has waited for too long.
    fn has_waited(&mut self, now: u64) -> bool {
        let is_late = now.saturating_sub(self.first) > PATIENCE;
        if is_late {
            (self.is_on, self.penance) = (false, PENANCE);
        }
        is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_on_after(batching: &mut Batching, completions: usize, streams: usize) -> bool {
        batching.before_turn(|| panic!("nothing was sent"));
        batching.after_turn(completions, streams);
        batching.is_on
    }

    #[test]
    fn a_batch_on_few_streams_is_answered_together() {
        let mut batching = Batching::new(false);
        assert_eq!(batching.way(|| panic!("at first")), Way::AtOnce);
        for (completions, streams, on) in [
            (FEW, MANY, true),
            // Nothing: what tasks are woken by besides changes nothing.
            (0, MANY, true),
            (FEW - 1, MANY, false),
            (0, MANY, false),
            (FEW, 1, true),
            (FEW, MANY + 1, false),
            (1000, MANY, true),
            (1, 1, false),
        ] {
            assert_eq!(is_on_after(&mut batching, completions, streams), on, "{completions}");
        }
        assert!(is_on_after(&mut Batching::new(true), FEW_SIMULATED, 1));
    }

    #[test]
    fn the_first_send_is_handed_in_when_it_has_waited_for_long() {
        let mut batching = Batching::new(false);
        batching.after_turn(FEW, 1);
        for _ in 0..5 * LOOK {
            assert_eq!(batching.way(|| 7), Way::Submitted);
        }
        assert_eq!(batching.way(|| 7 + PATIENCE), Way::Submitted, "not yet");
        for _ in 1..LOOK {
            assert_eq!(batching.way(|| panic!("not with each")), Way::Submitted);
        }
        assert_eq!(batching.way(|| 8 + PATIENCE), Way::Late);
        assert_eq!(batching.way(|| panic!("it is off")), Way::AtOnce);
        // What was handed in does not wait any more.
        assert!(!is_on_after(&mut batching, FEW, 1));
    }

    #[test]
    fn who_takes_his_time_sends_at_once_for_a_while() {
        let mut batching = Batching::new(false);
        batching.after_turn(FEW, 1);
        assert_eq!(batching.way(|| 0), Way::Submitted);
        batching.before_turn(|| PATIENCE);
        batching.after_turn(FEW, 1);
        assert_eq!(batching.way(|| 0), Way::Submitted, "that was quick");
        batching.before_turn(|| PATIENCE + 1);
        for _ in 1..PENANCE {
            assert!(!is_on_after(&mut batching, FEW, 1));
            assert!(!is_on_after(&mut batching, 0, 1), "and that is none of them");
        }
        assert!(is_on_after(&mut batching, FEW, 1));
    }
}
