//! Time: [`sleep`], [`timeout`], [`interval`], and a clock that tests can stop.
//!
//! Names and behaviour are tokio's where they exist there, with two differences. Deadlines are
//! exact to the nanosecond and never rounded up to a millisecond. And a [`Sleep`] is `Unpin`,
//! `Send` and `Sync`, and may be polled on another core than before; it moves there.
//!
//! # Testing with time
//!
//! After [`pause`] the clock of this core stands still. When the core has nothing else to do, it
//! jumps to the next timer instead of waiting for it; [`advance`] moves it by hand. So an hour
//! takes no time, and the same program sees the same times in each run:
//!
//! ```
//! use std::time::Duration;
//! use quoit::time::{self, Instant};
//!
//! # quoit::block_on(async {
//! time::pause();
//! let start = Instant::now();
//! time::sleep(Duration::from_secs(3600)).await;
//! assert_eq!(start.elapsed(), Duration::from_secs(3600));
//! # });
//! ```

mod instant;
mod interval;
mod sleep;
mod timeout;

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::time::Duration;

pub use self::instant::Instant;
pub use self::interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use self::sleep::{Sleep, sleep, sleep_until};
pub use self::timeout::{Elapsed, Timeout, timeout, timeout_at};
use crate::io::clock::Clock;
use crate::io::proactor::Proactor;
use crate::io::ring::simulated::world;
use crate::io::system::{WallTime, time_of_day_now, wall_time};

/// Stops the clock of the current core.
///
/// From now on, [`Instant::now`] on this core answers the same until [`advance`] moves it, or
/// until the core has nothing to do but to wait for a timer: then the clock jumps to it at once.
/// It does not jump while somebody awaits work on a blocking thread. I/O in flight does not hold
/// it back, as in tokio: a timeout around a socket operation that has to wait expires at once.
///
/// Other cores, other threads and [`std::time::Instant`] are not affected.
///
/// # Panics
///
/// If the clock stands already, or outside a runtime.
///
/// # Examples
///
/// ```
/// use quoit::time::{self, Instant};
///
/// # quoit::block_on(async {
/// time::pause();
/// let start = Instant::now();
/// std::thread::yield_now();
/// assert_eq!(Instant::now(), start);
/// # });
/// ```
#[track_caller]
pub fn pause() {
    let already_paused = with_clock(|clock| {
        let already = clock.is_paused();
        clock.pause();
        already
    });
    assert!(!already_paused, "`pause` was called, but the clock of this core stands already");
}

/// Lets the clock of the current core run again, from the time at which it stands.
///
/// # Panics
///
/// If the clock is not paused, or outside a runtime.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time;
///
/// # quoit::block_on(async {
/// time::pause();
/// time::sleep(Duration::from_secs(60)).await; // takes no time
/// time::resume();
/// time::sleep(Duration::from_millis(1)).await; // takes a millisecond
/// # });
/// ```
#[track_caller]
pub fn resume() {
    let was_paused = with_clock(|clock| {
        let was_paused = clock.is_paused();
        clock.resume();
        was_paused
    });
    assert!(was_paused, "`resume` was called, but the clock of this core runs");
}

/// Moves the paused clock of the current core on by `duration`, and returns when the timers that
/// this makes due have fired.
///
/// Their tasks have been woken by then, in the order of their deadlines, but need not have run to
/// an end: a task that sleeps again, or passes something on to another, goes on afterwards. The
/// clock goes to the new time in one step, so all of them see that time. To let everything happen
/// at its own time, rather [`sleep`].
///
/// # Panics
///
/// If the clock is not paused, or outside a runtime.
///
/// # Cancel safety
///
/// The clock has moved at the first poll; dropping the future later leaves it there.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time;
///
/// # quoit::block_on(async {
/// time::pause();
/// let sleep = time::sleep(Duration::from_secs(10));
/// time::advance(Duration::from_secs(9)).await;
/// assert!(!sleep.is_elapsed());
/// time::advance(Duration::from_secs(1)).await;
/// assert!(sleep.is_elapsed());
/// # });
/// ```
pub async fn advance(duration: Duration) {
    let now = with_clock(|clock| {
        assert!(clock.is_paused(), "`advance` was called, but the clock of this core runs");
        clock.advance(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        clock.now()
    });
    // A timer that is due already fires at the core's next turn, behind all that are due with it.
    let mut last = sleep_until(Instant::from_nanoseconds(now));
    poll_fn(|cx| last.poll_timer(cx)).await;
}

/// The time of day.
///
/// It is `CLOCK_REALTIME` (clock_gettime(2)), which may jump either way; inside a
/// [simulation](crate::sim), that of the host. For measuring there is [`Instant`].
///
/// # Examples
///
/// ```
/// let now = quoit::time::time_of_day();
/// assert!(now > std::time::UNIX_EPOCH);
/// ```
#[must_use]
pub fn time_of_day() -> WallTime {
    match world::current() {
        Some(world) => {
            let (seconds, rest) = (world.time_of_day() / SECOND, world.time_of_day() % SECOND);
            wall_time(seconds as i64, rest as u32).expect("2^64 nanoseconds after 1970 are a time")
        }
        None => time_of_day_now(),
    }
}

const SECOND: u64 = 1_000_000_000;

#[track_caller]
fn with_clock<R>(f: impl FnOnce(&Clock) -> R) -> R {
    match Proactor::with_current(|proactor| f(proactor.clock())) {
        Some(result) => result,
        None => panic!("the clock of a core was asked for outside a quoit runtime"),
    }
}
