//! What one poll of a task may have from I/O before the others get their turn.
//!
//! ```text
//!   the runtime polls a task ── renew ──► PER_POLL ── an answer: spend ──► ... ──► 0
//!                                                                                 │
//!   next poll: renewed ◄── the task's waker is woken, and the answer is Pending ◄─┘
//! ```
//!
//! A task whose I/O is always ready would never return from its poll, and no other task, no timer
//! and no completion of its core would ever be seen. The count is the thread's, so it holds for all
//! that a task polls, by whichever wakers, and costs one decrement.
//!
//! A flush that has nothing to wait for goes with the answer before it: who flushes after each
//! write, as HTTP/2 does, is to have as many writes as others. Who only flushes pays for it.
//!
//! Only answers count. Whoever polls a thousand futures that have nothing to say has spent nothing:
//! else the last of them would never be asked.

use std::cell::Cell;

/// The answers of one poll.
pub(crate) const PER_POLL: i32 = 128;

/// After so many refusals in one poll, somebody in it does not heed them: a foreign executor that
/// blocks inside of a task, say. It would wait for ever, so it gets another allowance.
const REFUSALS: i32 = 1 << 14;

thread_local! {
    /// Below zero, it counts the refusals.
    static LEFT: Cell<i32> = const { Cell::new(PER_POLL) };

    /// An answer was given, and no flush since.
    static UNFLUSHED: Cell<bool> = const { Cell::new(false) };
}

/// The poll of a task, or of the root future, begins.
#[inline]
pub(crate) fn renew() {
    LEFT.set(PER_POLL);
}

/// Whether there may be one more answer. If not, the caller wakes its waker and answers `Pending`,
/// before it has taken anything from anyone.
#[inline]
pub(crate) fn is_left() -> bool {
    LEFT.get() > 0 || !refuse()
}

#[cold]
fn refuse() -> bool {
    let refusals = -LEFT.get();
    if refusals == REFUSALS {
        renew();
        return false;
    }
    LEFT.set(-(refusals + 1));
    true
}

/// One answer was given.
#[inline]
pub(crate) fn spend() {
    LEFT.set(LEFT.get() - 1);
    UNFLUSHED.set(true);
}

/// A flush is answered. Whether that goes with an answer before.
#[cfg(any(test, feature = "tokio-io", feature = "futures-io", feature = "hyper"))]
#[inline]
pub(crate) fn take_flush() -> bool {
    UNFLUSHED.replace(false)
}

/// Whether this poll has had all its answers.
#[inline]
pub(crate) fn is_spent() -> bool {
    LEFT.get() <= 0
}

/// Runs `poll` with an allowance of its own: for a last chance, whose answer has to be the truth.
pub(crate) fn with_fresh<R>(poll: impl FnOnce() -> R) -> R {
    let before = LEFT.replace(PER_POLL);
    let result = poll();
    LEFT.set(before);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spend_all() -> i32 {
        let mut answers = 0;
        while is_left() {
            spend();
            answers += 1;
        }
        answers
    }

    #[test]
    fn a_poll_has_its_answers_and_the_next_one_has_them_again() {
        for _ in 0..3 {
            renew();
            assert_eq!(spend_all(), PER_POLL);
            assert!(is_spent() && !is_left());
        }
    }

    #[test]
    fn a_last_chance_takes_nothing_from_the_rest() {
        renew();
        spend_all();
        assert_eq!(with_fresh(spend_all), PER_POLL);
        assert!(is_spent());
    }

    #[test]
    fn who_never_heeds_a_refusal_is_not_held_up_for_ever() {
        renew();
        spend_all();
        let refused = (1..).find(|_| is_left()).expect("endless");
        assert_eq!(refused, REFUSALS, "one was refused before");
        assert_eq!(spend_all(), PER_POLL);
    }
}
