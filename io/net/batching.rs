//! When sends go to the kernel together.
//!
//! A send tried at once is a system call of its own, and then it is done. A submitted one shares
//! the call that ends the turn, but its stream is looked at twice: when it is queued, and when it
//! is told. Which is cheaper depends on the load, so the core looks at what it gets:
//!
//! ```text
//!   few completions at a time ──────► a call would be shared by nobody ──────────┐
//!   many streams ───────────────────► the second look finds them out of cache ───┼──► at once
//!   a program that takes its time ──► the first answers would wait for the last ─┘
//!   otherwise ──► submitted
//! ```
//!
//! On one core with its client (AMD EPYC, Linux 6.18), 64-byte echo by a hand-written ring costs 4
//! to 8 % less with submissions for 16 and 64 connections, and nothing for 1024. Only the
//! completion ring gains: on readiness, a submission is tried by a call, too.

/// As many completions of one turn are a batch.
const FEW: usize = 4;

/// The streams of a core, above which a second look is not for free.
const MANY: usize = 128;

/// What the program may take for each completion, in nanoseconds. A turn of io_uring brings some
/// twenty, so the first answer waits for less than half a millisecond.
const QUICK: u64 = 20_000;

/// What was learned from the turns so far.
#[derive(Debug)]
pub(crate) struct Batching {
    /// The batch that the program has now: its size, and since when.
    handed: Option<(u64, u64)>,
    was_quick: bool,
    is_on: bool,
}

impl Batching {
    pub(crate) fn new() -> Self {
        Self { handed: None, was_quick: true, is_on: false }
    }

    /// Whether what is sent now is to be submitted.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The program has had its turn, and the ring has the next.
    #[inline]
    pub(crate) fn before_turn(&mut self, now: impl FnOnce() -> u64) {
        if let Some((count, since)) = self.handed.take() {
            self.was_quick = now().saturating_sub(since) <= count * QUICK;
        }
    }

    /// The ring has had its turn. One without completions says nothing: the program still has those
    /// from before.
    #[inline]
    pub(crate) fn after_turn(
        &mut self,
        completions: usize,
        streams: usize,
        now: impl FnOnce() -> u64,
    ) {
        if completions == 0 {
            return;
        }
        let is_batch = completions >= FEW && streams <= MANY;
        self.handed = is_batch.then(|| (completions as u64, now()));
        self.is_on = is_batch && self.was_quick;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn that brings `completions`, after the program took so long for the ones before.
    fn turn(batching: &mut Batching, took: u64, completions: usize, streams: usize) -> bool {
        // What is handed out at zero is back at `took`.
        batching.before_turn(|| took);
        batching.after_turn(completions, streams, || 0);
        batching.is_on()
    }

    #[test]
    fn a_batch_on_few_streams_is_answered_together() {
        let mut batching = Batching::new();
        assert!(!batching.is_on());
        for (completions, streams, on) in [
            (FEW, MANY, true),
            (FEW - 1, MANY, false),
            (FEW, 1, true),
            (FEW, MANY + 1, false),
            (1000, MANY, true),
            (1, 1, false),
        ] {
            assert_eq!(
                turn(&mut batching, 0, completions, streams),
                on,
                "{completions}, {streams}"
            );
        }
    }

    #[test]
    fn a_turn_that_brings_nothing_changes_nothing() {
        let mut batching = Batching::new();
        assert!(!turn(&mut batching, 0, 0, 1));
        assert!(turn(&mut batching, 0, FEW, 1));
        assert!(turn(&mut batching, 0, 0, 1));
        assert!(!turn(&mut batching, 0, 1, 1));
        assert!(!turn(&mut batching, 0, 0, 1));
    }

    #[test]
    fn who_takes_his_time_sends_at_once_until_he_is_quick_again() {
        let mut batching = Batching::new();
        let limit = FEW as u64 * QUICK;
        assert!(turn(&mut batching, 0, FEW, 1));
        assert!(turn(&mut batching, limit, FEW, 1));
        assert!(!turn(&mut batching, limit + 1, FEW, 1));
        assert!(!turn(&mut batching, limit + 1, FEW, 1));
        // A turn that brought nothing in between, and one that was no batch, keep what is known.
        assert!(!turn(&mut batching, limit + 1, 0, 1));
        assert!(!turn(&mut batching, 0, 1, 1));
        assert!(!turn(&mut batching, 0, FEW, 1));
        assert!(turn(&mut batching, limit, FEW, 1));
    }
}
