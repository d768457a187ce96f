//! Timers: quoit's, once a context with timers is there, as tokio asks when they are made.

mod sleep;
mod timeout;

use std::time::Duration as StdDuration;

pub use quoit::time::{Instant, Interval, MissedTickBehavior, advance, pause, resume};
pub use sleep::Sleep;
pub use std::time::Duration;
pub use timeout::Timeout;

use crate::runtime::require_time;

/// What timers fail with.
pub mod error {
    pub use quoit::time::Elapsed;
    pub use tokio_real::time::error::Error;
}

/// Waits for `duration`.
#[track_caller]
pub fn sleep(duration: StdDuration) -> Sleep {
    Sleep::new(Instant::now() + duration, require_time())
}

/// Waits until `deadline`.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(deadline, require_time())
}

/// Gives `future` so long.
#[track_caller]
pub fn timeout<F: IntoFuture>(duration: StdDuration, future: F) -> Timeout<F::IntoFuture> {
    require_time();
    Timeout::new(quoit::time::timeout(duration, future))
}

/// Gives `future` until `deadline`.
#[track_caller]
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    require_time();
    Timeout::new(quoit::time::timeout_at(deadline, future))
}

/// Ticks every `period`, at once for the first time.
#[track_caller]
pub fn interval(period: StdDuration) -> Interval {
    assert!(period > StdDuration::ZERO, "`period` must be non-zero.");
    require_time();
    quoit::time::interval(period)
}

/// Ticks every `period` from `start` on.
#[track_caller]
pub fn interval_at(start: Instant, period: StdDuration) -> Interval {
    assert!(period > StdDuration::ZERO, "`period` must be non-zero.");
    require_time();
    quoit::time::interval_at(start, period)
}
