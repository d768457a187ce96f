//! Clocks of simulated hosts: each jumps, and drifts at a rate of its own.
//!
//! ```text
//!   local ▲            ╱  faster: a second of the world is more than one here
//!         │    ┌─ ─ ─ ╱
//!         │   ╱ jump
//!         │  ╱ since
//!         └─────────────► the world's time
//! ```

use crate::io::clock::SIMULATED_BEGINNING;

/// Parts of a rate.
const MILLION: i128 = 1_000_000;

#[derive(Debug)]
pub(super) struct HostClock {
    /// A moment of the world, and what this clock showed then.
    since: u64,
    local: u64,
    /// Nanoseconds that it gains in a millisecond of the world.
    rate: i32,
}

impl HostClock {
    pub(super) fn new() -> Self {
        Self { since: 0, local: SIMULATED_BEGINNING, rate: 0 }
    }

    /// What it shows at a moment of the world.
    pub(super) fn at(&self, world: u64) -> u64 {
        let passed = i128::from(world - self.since);
        let local = i128::from(self.local) + passed * self.pace() / MILLION;
        u64::try_from(local).unwrap_or(u64::MAX)
    }

    /// The first moment of the world at which it shows `local`, or what was then if that is past.
    pub(super) fn when(&self, local: u64) -> u64 {
        let left = i128::from(local.saturating_sub(self.local));
        // Rounded up: earlier it does not show it yet.
        let passed = (left * MILLION + self.pace() - 1) / self.pace();
        u64::try_from(i128::from(self.since) + passed).unwrap_or(u64::MAX)
    }

    fn pace(&self) -> i128 {
        MILLION + i128::from(self.rate)
    }

    /// From now on it has another rate.
    ///
    /// # Panics
    ///
    /// When it would stand, or go back.
    pub(super) fn set_rate(&mut self, now: u64, parts_per_million: i32) {
        assert!(parts_per_million > -1_000_000, "a clock goes on, however slowly");
        *self = Self { since: now, local: self.at(now), rate: parts_per_million };
    }

    pub(super) fn jump(&mut self, by: u64) {
        self.local = self.local.saturating_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_never_too_early_and_at_most_a_nanosecond_late() {
        for rate in [-999_999, -500_000, -3, 0, 7, 500, 999_999, i32::MAX] {
            let mut clock = HostClock::new();
            clock.set_rate(12_345, rate);
            for passed in [0, 1, 2, 999, 1_000_000_007, 86_400_000_000_000] {
                let local = SIMULATED_BEGINNING + 12_345 + passed;
                let world = clock.when(local);
                assert!(clock.at(world) >= local || world == u64::MAX, "{rate} {passed}");
                assert!(world == 12_345 || clock.at(world - 1) < local, "{rate} {passed}");
            }
        }
    }

    #[test]
    fn rates_and_jumps_add_up() {
        let mut clock = HostClock::new();
        assert_eq!(clock.at(1_000), SIMULATED_BEGINNING + 1_000);
        clock.set_rate(1_000, 500_000);
        assert_eq!(clock.at(3_000), SIMULATED_BEGINNING + 4_000);
        clock.jump(10);
        clock.set_rate(3_000, -500_000);
        assert_eq!(clock.at(5_000), SIMULATED_BEGINNING + 5_010);
        assert_eq!(clock.when(u64::MAX), u64::MAX);
        clock.jump(u64::MAX);
        assert_eq!(clock.at(u64::MAX), u64::MAX);
    }
}
