//! A core's clock: the machine's, or one that a test has stopped and moves by hand.
//!
//! ```text
//!            pause                    advance, advance_to
//!   running ───────► frozen at t ─────────────────────────┐
//!      ▲               │    ▲                             │
//!      └───── resume ──┘    └─────────────────────────────┘
//! ```
//!
//! It never goes back: after `resume` it goes on from where it stood, so it then differs from the
//! machine's, and a deadline must be translated before the kernel waits for it (`to_system`).
//!
//! A core whose clock is frozen does not wait for a timer; it jumps to it, once it has nothing
//! else to do. Work on pool threads is something to do that the core cannot see: whoever awaits
//! it takes a `Hold`, and the clock does not jump while one exists.

use std::cell::Cell;
use std::sync::Arc;

use crate::io::mailbox::Doorbell;
use crate::io::system;

/// Where simulated clocks begin, in nanoseconds: no machine has been up for half of these 36 years,
/// so a moment of a machine's clock that got into a simulation is known by its size.
pub(crate) const SIMULATED_BEGINNING: u64 = 1 << 60;

#[derive(Debug)]
pub(crate) struct Clock {
    frozen_at: Cell<Option<u64>>,
    /// What to add to the machine's clock, modulo 2^64.
    offset: Cell<u64>,
    /// A simulation's clock: it never runs.
    is_simulated: bool,
    holds: Arc<()>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            frozen_at: Cell::new(None),
            offset: Cell::new(0),
            is_simulated: false,
            holds: Arc::new(()),
        }
    }

    /// A clock that whoever drives the core moves on, and that cannot be resumed.
    pub(crate) fn simulated(now: u64) -> Self {
        Self { frozen_at: Cell::new(Some(now)), is_simulated: true, ..Self::new() }
    }

    /// Nanoseconds; those of `CLOCK_MONOTONIC` unless the clock has ever been paused.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match self.frozen_at.get() {
            Some(time) => time,
            None => system::now().wrapping_add(self.offset.get()),
        }
    }

    /// The time that ending a runtime counts: the machine's, since that passes even where a test
    /// has stopped the core's clock; in a simulation its own.
    pub(crate) fn ending(&self) -> u64 {
        if self.is_simulated { self.now() } else { system::now() }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.is_simulated
    }

    /// Whether this clock cannot have been where `time` comes from. What a program has calculated
    /// to lie before all time is no moment of the machine's either.
    pub(crate) fn is_foreign(&self, time: u64) -> bool {
        self.is_simulated && (1..SIMULATED_BEGINNING / 2).contains(&time)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.frozen_at.get().is_some()
    }

    /// Stops the clock where it is; nothing changes if it stands already.
    pub(crate) fn pause(&self) {
        self.frozen_at.set(Some(self.now()));
    }

    /// Lets the clock go on from where it stands; nothing changes if it runs already, or is a
    /// simulation's.
    pub(crate) fn resume(&self) {
        if self.is_simulated {
            return;
        }
        if let Some(time) = self.frozen_at.take() {
            self.offset.set(time.wrapping_sub(system::now()));
        }
    }

    /// Moves a stopped clock on, at most to the end of time.
    pub(crate) fn advance(&self, nanoseconds: u64) {
        self.advance_to(self.now().saturating_add(nanoseconds));
    }

    /// Moves a stopped clock on to `time`, if it is not there yet. A running clock cannot be moved:
    /// asking for it is an error of ours.
    pub(crate) fn advance_to(&self, time: u64) {
        let stands_at = self.frozen_at.get().expect("only a paused clock can be advanced");
        self.frozen_at.set(Some(stands_at.max(time)));
    }

    /// What the machine's clock will show when this one shows `deadline`; `None` if it stands,
    /// since then no time of the machine's is worth waiting for.
    pub(crate) fn to_system(&self, deadline: u64) -> Option<u64> {
        if self.is_paused() {
            return None;
        }
        match self.offset.get() {
            0 => Some(deadline),
            _ => Some(system::now().saturating_add(deadline.saturating_sub(self.now()))),
        }
    }

    /// Whether an idle core jumps to its next timer instead of waiting for it.
    pub(crate) fn jumps(&self) -> bool {
        self.is_paused() && Arc::strong_count(&self.holds) == 1
    }

    /// Keeps a stopped clock from jumping until the hold is dropped, on whatever thread.
    pub(crate) fn hold(&self, doorbell: &Arc<Doorbell>) -> Hold {
        Hold { count: Some(self.holds.clone()), doorbell: doorbell.clone() }
    }
}

/// See [`Clock::hold`].
#[derive(Debug)]
pub(crate) struct Hold {
    count: Option<Arc<()>>,
    doorbell: Arc<Doorbell>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // First let go, then ring: a core that went to sleep because of this hold must look again.
        self.count = None;
        self.doorbell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_clock_stands_and_moves_by_hand() {
        let clock = Clock::new();
        assert!(!clock.is_paused() && !clock.jumps());
        clock.pause();
        let start = clock.now();
        assert!(clock.is_paused() && clock.jumps());
        assert_eq!(clock.now(), start);
        clock.advance(5);
        assert_eq!(clock.now(), start + 5);
        clock.advance_to(start);
        assert_eq!(clock.now(), start + 5, "a clock never goes back");
        clock.advance(u64::MAX);
        assert_eq!(clock.now(), u64::MAX);
    }

    #[test]
    fn a_resumed_clock_goes_on_from_where_it_stood() {
        const HOUR: u64 = 3_600_000_000_000;
        let clock = Clock::new();
        let start = clock.now();
        clock.pause();
        clock.advance(HOUR);
        clock.resume();
        let ahead = clock.now();
        assert!(ahead >= start + HOUR && ahead < start + 2 * HOUR);
        let here = system::now();
        let there = clock.to_system(ahead + HOUR).expect("it runs");
        assert!(there >= here && there <= system::now() + HOUR, "an hour of either clock");
        clock.pause();
        assert!(clock.now() >= ahead);
    }

    #[test]
    fn the_end_of_time_stays_the_end_of_time() {
        let clock = Clock::new();
        assert_eq!(clock.to_system(u64::MAX), Some(u64::MAX));
        assert_eq!(clock.to_system(7), Some(7));
        clock.pause();
        clock.advance(3_600_000_000_000);
        assert_eq!(clock.to_system(7), None);
        clock.resume();
        assert!(clock.to_system(u64::MAX).is_some_and(|time| time > u64::MAX / 2));
    }
}
