//! A moment of a core's clock.
//!
//! `std`'s instants cannot be made from a number, and a clock that can be paused needs that; so
//! this is our own, one number wide.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use crate::io::proactor::Proactor;
use crate::io::ring::simulated::world;
use crate::io::system;

/// A moment of the current core's clock, in nanoseconds.
///
/// This is `CLOCK_MONOTONIC` (see `clock_gettime(2)`: it never goes back, and does not count the
/// time that the machine is suspended) unless the clock was [paused](crate::time::pause). Moments
/// of different cores can be compared as long as none of their clocks was ever paused.
///
/// The range is 292 years to either side of the machine's start. The operators saturate at its
/// ends instead of panicking, so `Instant::now() + Duration::MAX` is a deadline that never comes;
/// the `checked` methods tell.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time::Instant;
///
/// let start = Instant::now();
/// let deadline = start + Duration::from_secs(5);
/// assert_eq!(deadline - start, Duration::from_secs(5));
/// assert_eq!(start - deadline, Duration::ZERO);
/// assert_eq!(start.checked_add(Duration::MAX), None);
/// ```
// Signed, so that `now - timeout` is right shortly after the machine has started.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant(i64);

impl Instant {
    /// The time now: of the current core's clock on a core, of the machine's elsewhere.
    ///
    /// # Examples
    ///
    /// ```
    /// use quoit::time::Instant;
    ///
    /// let start = Instant::now();
    /// assert!(Instant::now() >= start);
    /// ```
    #[must_use]
    pub fn now() -> Self {
        let now = Proactor::with_current(|proactor| proactor.clock().now());
        Self::from_nanoseconds(now.unwrap_or_else(elsewhere))
    }

    /// The same moment of the machine's clock, from a [`std::time::Instant`].
    ///
    /// Exact up to a constant of the process, which is well below a microsecond; so a round trip
    /// changes nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let moment = std::time::Instant::now();
    /// assert_eq!(quoit::time::Instant::from_std(moment).into_std(), moment);
    /// ```
    #[must_use]
    pub fn from_std(std: std::time::Instant) -> Self {
        let (std_moment, moment) = system::moment();
        let moment = Self::from_nanoseconds(moment);
        match std.checked_duration_since(std_moment) {
            Some(later) => moment + later,
            None => moment - std_moment.duration_since(std),
        }
    }

    /// The same moment of the machine's clock, as a [`std::time::Instant`]; see
    /// [`from_std`](Self::from_std).
    ///
    /// # Examples
    ///
    /// ```
    /// let moment = quoit::time::Instant::now();
    /// assert_eq!(quoit::time::Instant::from_std(moment.into_std()), moment);
    /// ```
    #[must_use]
    pub fn into_std(self) -> std::time::Instant {
        let (std_moment, moment) = system::moment();
        let moment = Self::from_nanoseconds(moment);
        match self.checked_duration_since(moment) {
            Some(later) => std_moment + later,
            None => std_moment - moment.duration_since(self),
        }
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.checked_duration_since(earlier).unwrap_or_default()
    }

    /// The time from `earlier` to this moment; `None` if `earlier` is later.
    #[must_use]
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        (self >= earlier).then(|| Duration::from_nanos(self.0.abs_diff(earlier.0)))
    }

    /// The time from `earlier` to this moment; zero if `earlier` is later. The same as
    /// [`duration_since`](Self::duration_since), for those who want to say so.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }

    /// The time since this moment; zero if it is still to come.
    ///
    /// # Panics
    ///
    /// Inside a [simulation](crate::sim), when this is a moment of the machine's clock.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::time::{self, Instant};
    ///
    /// # quoit::block_on(async {
    /// let start = Instant::now();
    /// time::sleep(Duration::from_millis(1)).await;
    /// assert!(start.elapsed() >= Duration::from_millis(1));
    /// # });
    /// ```
    #[must_use]
    pub fn elapsed(self) -> Duration {
        let now = Proactor::with_current(|proactor| {
            let clock = proactor.clock();
            assert!(!clock.is_foreign(self.nanoseconds()), "{FOREIGN}");
            clock.now()
        });
        Self::from_nanoseconds(now.unwrap_or_else(elsewhere)).duration_since(self)
    }

    /// The moment `duration` later; `None` if there is none.
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add_unsigned(nanoseconds).map(Self)
    }

    /// The moment `duration` earlier; `None` if there is none.
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let nanoseconds = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub_unsigned(nanoseconds).map(Self)
    }

    pub(crate) fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
    }

    /// As `io` counts: nanoseconds since the machine's start. What was before is as past as that.
    pub(crate) fn nanoseconds(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

/// What is said to a program that takes a moment of the machine's clock into a simulation.
pub(super) const FOREIGN: &str = "a simulated program counts from a moment of the machine's clock; \
                                  take `Instant::now()` inside of the simulation";

/// The time where there is no core: the machine's, or that of a simulated world.
#[cold]
fn elsewhere() -> u64 {
    world::current().map_or_else(system::now, |world| world.clock())
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(i64::MAX))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        self.checked_sub(duration).unwrap_or(Self(i64::MIN))
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero if `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(std: std::time::Instant) -> Self {
        Self::from_std(std)
    }
}

impl From<Instant> for std::time::Instant {
    fn from(instant: Instant) -> Self {
        instant.into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_the_range_saturate_or_tell() {
        let now = Instant::now();
        assert_eq!(now + Duration::MAX, Instant(i64::MAX));
        assert_eq!(now - Duration::MAX, Instant(i64::MIN));
        assert_eq!(now.checked_add(Duration::MAX), None);
        assert_eq!(now.checked_sub(Duration::MAX), None);
        assert_eq!(now.checked_add(Duration::ZERO), Some(now));
        assert_eq!(Instant(i64::MAX) - Instant(i64::MIN), Duration::from_nanos(u64::MAX));
        assert_eq!(
            Instant(i64::MIN).checked_add(Duration::from_nanos(u64::MAX)),
            Some(now + Duration::MAX)
        );
    }

    #[test]
    fn a_moment_before_the_machine_started_is_a_moment() {
        let start = Instant(5);
        let before = start - Duration::from_secs(3600);
        assert_eq!(start - before, Duration::from_secs(3600));
        assert_eq!(before.nanoseconds(), 0);
        assert_eq!(Instant::from_std(before.into_std()), before);
    }

    #[test]
    fn conversions_round_trip_and_agree_with_the_clock() {
        let before = Instant::now();
        let std = std::time::Instant::now();
        let after = Instant::now();
        let ours = Instant::from_std(std);
        assert_eq!(ours.into_std(), std);
        // Not to the nanosecond: the two clocks are tied together by one reading of each.
        let slack = Duration::from_millis(1);
        assert!(before - slack <= ours && ours <= after + slack);
        for far in [Duration::from_secs(1 << 32), Duration::from_nanos(1)] {
            assert_eq!(Instant::from_std((before + far).into_std()), before + far);
            assert_eq!(Instant::from_std((before - far).into_std()), before - far);
        }
    }
}
