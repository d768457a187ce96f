//! Ticks, one per period, and what to do about those that were missed.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(feature = "futures-core")]
use futures_core::{Stream, stream::FusedStream};

use super::{Instant, Sleep, sleep, sleep_until};

/// A tick that comes later than this has been missed. Less is the ordinary delay of a busy
/// machine, and no reason to shift the ticks that follow.
const TOLERANCE: Duration = Duration::from_millis(5);

/// Ticks every `period`, the first time at once.
///
/// # Panics
///
/// If `period` is zero. The ticks panic when they are polled outside a runtime.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{self, Instant, interval};
///
/// # quoit::block_on(async {
/// time::pause();
/// let start = Instant::now();
/// let mut ticks = interval(Duration::from_secs(10));
/// for n in 0..3 {
///     assert_eq!(ticks.tick().await, start + Duration::from_secs(10) * n);
/// }
/// # });
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    Interval { next: sleep(Duration::ZERO), ..interval_at(Instant::now(), period) }
}

/// Ticks every `period`, the first time at `start`.
///
/// # Panics
///
/// If `period` is zero. The ticks panic when they are polled outside a runtime.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{self, Instant, interval_at};
///
/// # quoit::block_on(async {
/// time::pause();
/// let start = Instant::now() + Duration::from_secs(50);
/// let mut ticks = interval_at(start, Duration::from_secs(10));
/// assert_eq!(ticks.tick().await, start);
/// # });
/// ```
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "the period of an interval must not be zero");
    Interval { next: sleep_until(start), period, missed: MissedTickBehavior::default() }
}

/// What an [`Interval`] does when a tick came too late: more than 5 ms after its time, or more
/// than one period if that is shorter.
///
/// With a period of 50, and a task that once takes 110 after its tick, ticks come at
///
/// ```text
/// Burst   0   50 ────────► 160  160  200  250
/// Delay   0   50 ────────► 160  210  260  310
/// Skip    0   50 ────────► 160  200  250  300
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum MissedTickBehavior {
    /// Ticks at once until it has caught up: their number is right, their distance is not.
    #[default]
    Burst,
    /// Starts anew from the late tick: the distance is right, the phase shifts.
    Delay,
    /// Leaves out the missed ticks: the phase is right, the number is not.
    Skip,
}

impl MissedTickBehavior {
    fn next(self, due: Instant, now: Instant, period: Duration) -> Instant {
        match self {
            Self::Burst => due + period,
            Self::Delay => now + period,
            Self::Skip => {
                let late = now - due;
                // Both are below 2^64 nanoseconds, or `due + period` is never.
                let into_period = late.as_nanos() % period.as_nanos();
                now + (period - Duration::from_nanos(into_period as u64))
            }
        }
    }
}

/// Ticks at a fixed rate; made by [`interval`] and [`interval_at`].
#[derive(Debug)]
pub struct Interval {
    next: Sleep,
    period: Duration,
    missed: MissedTickBehavior,
}

impl Interval {
    /// Waits for the next tick and answers the time that it was meant for.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no tick: the next call gets it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # quoit::block_on(async {
    /// let mut ticks = quoit::time::interval(Duration::from_millis(1));
    /// let first = ticks.tick().await;
    /// let second = ticks.tick().await;
    /// assert_eq!(second - first, Duration::from_millis(1));
    /// # });
    /// ```
    pub async fn tick(&mut self) -> Instant {
        poll_fn(|cx| self.poll_tick(cx)).await
    }

    /// The poll form of [`tick`](Self::tick): ready once for each tick, and otherwise wakes the
    /// task of the last call when the tick has come.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Instant> {
        ready!(Pin::new(&mut self.next).poll(cx));
        let due = self.next.deadline();
        let now = Instant::now();
        let next = if now - due > TOLERANCE.min(self.period) {
            self.missed.next(due, now, self.period)
        } else {
            due + self.period
        };
        self.next.set_deadline(next);
        Poll::Ready(due)
    }

    /// The next tick comes one period from now.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::time::{self, Instant, interval};
    ///
    /// # quoit::block_on(async {
    /// time::pause();
    /// let mut ticks = interval(Duration::from_secs(10));
    /// ticks.tick().await;
    /// time::sleep(Duration::from_secs(7)).await;
    /// ticks.reset();
    /// let start = Instant::now();
    /// assert_eq!(ticks.tick().await, start + Duration::from_secs(10));
    /// # });
    /// ```
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// The next tick comes at once.
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick comes after `duration`, and the others follow at the period.
    pub fn reset_after(&mut self, duration: Duration) {
        self.reset_at(Instant::now() + duration);
    }

    /// The next tick comes at `deadline`, and the others follow at the period.
    pub fn reset_at(&mut self, deadline: Instant) {
        self.next.set_deadline(deadline);
    }

    /// What happens when a tick comes too late.
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed
    }

    /// Sets what happens when a tick comes too late; at first it is [`MissedTickBehavior::Burst`].
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed = behavior;
    }

    /// The time between two ticks.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }
}

/// The ticks, without an end: each item is the time that it was meant for, as
/// [`tick`](Interval::tick) answers it.
///
/// ```
/// use std::time::Duration;
/// use futures::StreamExt;
/// use quoit::time::{self, interval};
///
/// # quoit::block_on(async {
/// time::pause();
/// let mut ticks = interval(Duration::from_secs(10)).take(3);
/// let first = ticks.next().await.unwrap();
/// assert_eq!(ticks.next().await, Some(first + Duration::from_secs(10)));
/// # });
/// ```
#[cfg(feature = "futures-core")]
impl Stream for Interval {
    type Item = Instant;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        self.get_mut().poll_tick(cx).map(Some)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

#[cfg(feature = "futures-core")]
impl FusedStream for Interval {
    fn is_terminated(&self) -> bool {
        false
    }
}
