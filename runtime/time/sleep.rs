//! A future that is ready at a deadline.
//!
//! ```text
//!               poll before the deadline
//!     idle ─────────────────────────────► armed at a core
//!      ▲                                     │
//!      └──── fired · polled elsewhere ───────┘  (removed there by message)
//!
//!     made where no core is ── polled in a simulation: begins to wait there ──► idle
//! ```
//!
//! It holds two numbers and a key, nothing of the wheel's, so it is `Send` and `Sync` as it is.
//! The wheel knows it by its waker; a key whose timer is gone has fired.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Instant;
use super::instant::FOREIGN;
use crate::io::clock::Clock;
use crate::io::mailbox::{self, CoreId, Message};
use crate::io::proactor::Proactor;
use crate::io::timers::{Expiry, TimerKey};

/// Waits for `duration` from now. Zero is ready at once, [`Duration::MAX`] never.
///
/// Made outside of a [simulation](crate::sim) and polled inside of it, it waits from its first poll
/// on: "now" was a moment of another clock.
///
/// # Panics
///
/// The future panics when it is polled outside a runtime.
///
/// # Cancel safety
///
/// Dropping it loses nothing but the wait. Kept and polled again, it still is ready at its
/// deadline.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// # quoit::block_on(async {
/// quoit::time::sleep(Duration::from_millis(1)).await;
/// # });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    Sleep::after(duration)
}

/// Waits until `deadline`, which may have passed.
///
/// # Panics
///
/// The future panics when it is polled outside a runtime, and when it is polled inside a
/// [simulation](crate::sim) although the deadline is a moment of the machine's clock.
///
/// # Cancel safety
///
/// As with [`sleep`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{Instant, sleep_until};
///
/// # quoit::block_on(async {
/// let deadline = Instant::now() + Duration::from_millis(1);
/// sleep_until(deadline).await;
/// assert!(Instant::now() >= deadline);
/// # });
/// ```
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: Timer::Idle, reset_to_past: false }
}

/// Future of [`sleep`] and [`sleep_until`]: ready once its deadline has come, never before.
///
/// It may be sent to another core between polls; the timer follows. It is `Unpin`: in a loop, await
/// `&mut sleep` without pinning it.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited or polled"]
pub struct Sleep {
    deadline: Instant,
    timer: Timer,
    /// The timer is due, but the core has not fired it yet.
    reset_to_past: bool,
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Idle,
    /// The deadline is so many nanoseconds after a moment of the machine's clock.
    Outside {
        wait: u64,
    },
    /// There is, or was until it fired, a timer at this core.
    Armed {
        core: CoreId,
        key: TimerKey,
    },
}

impl Sleep {
    pub(super) fn after(duration: Duration) -> Self {
        match Proactor::with_current(|proactor| proactor.clock().now()) {
            Some(now) => sleep_until(Instant::from_nanoseconds(now) + duration),
            None => Self::outside(duration),
        }
    }

    #[cold]
    fn outside(duration: Duration) -> Self {
        let wait = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self { timer: Timer::Outside { wait }, ..sleep_until(Instant::now() + duration) }
    }

    /// When it is ready.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether the deadline has come.
    #[must_use]
    pub fn is_elapsed(&self) -> bool {
        self.deadline <= Instant::now()
    }

    /// Sets another deadline, earlier or later, whether or not the first has come.
    ///
    /// A task that awaits it now will be woken at the new deadline, if this is called on the same
    /// core; on another core the task has to poll it again first.
    ///
    /// # Examples
    ///
    /// An idle timer that every message puts off:
    ///
    /// ```
    /// use std::{pin::pin, time::Duration};
    /// use quoit::time::{self, Instant, sleep};
    ///
    /// # quoit::block_on(async {
    /// time::pause();
    /// let idle = Duration::from_secs(30);
    /// let mut timer = pin!(sleep(idle));
    /// time::advance(Duration::from_secs(20)).await;
    /// timer.as_mut().reset(Instant::now() + idle);
    /// time::advance(Duration::from_secs(20)).await;
    /// assert!(!timer.is_elapsed());
    /// # });
    /// ```
    pub fn reset(self: Pin<&mut Self>, deadline: Instant) {
        self.get_mut().set_deadline(deadline);
    }

    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.reset_to_past = false;
        let Timer::Armed { core, key } = self.timer else {
            self.timer = Timer::Idle;
            return;
        };
        self.reset_to_past = deadline <= Instant::now();
        if core != mailbox::current_core() {
            return self.disarm();
        }
        let reset = Proactor::with_current(|proactor| {
            proactor.with_timers(|timers| timers.reset(key, deadline.nanoseconds()))
        });
        if reset != Some(true) {
            self.timer = Timer::Idle;
        }
    }

    /// Ready when the core has fired a timer for this deadline, were it long past.
    pub(super) fn poll_timer(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Timer::Armed { core, key } = self.timer else {
            self.arm(cx);
            return Poll::Pending;
        };
        if core != mailbox::current_core() {
            self.disarm();
            self.arm(cx);
            return Poll::Pending;
        }
        with_core(|proactor| {
            match proactor.with_timers(|timers| timers.will_wake(key, cx.waker())) {
                Some(true) => Poll::Pending,
                Some(false) => {
                    // Wakers are foreign code: neither cloned nor dropped while the wheel is
                    // borrowed.
                    let waker = cx.waker().clone();
                    drop(proactor.with_timers(|timers| timers.replace_waker(key, waker)));
                    Poll::Pending
                }
                None => {
                    self.timer = Timer::Idle;
                    Poll::Ready(())
                }
            }
        })
    }

    fn arm(&mut self, cx: &Context<'_>) {
        self.timer = with_core(|proactor| {
            let expiry = Expiry::Wake(cx.waker().clone());
            let deadline = self.deadline.nanoseconds();
            let key = proactor.with_timers(|timers| timers.insert(deadline, expiry));
            Timer::Armed { core: proactor.id(), key }
        });
    }

    /// The time now, of a clock that the deadline belongs to.
    fn now(&mut self) -> u64 {
        with_core(|proactor| {
            let clock = proactor.clock();
            if clock.is_simulated() {
                self.enter_simulation(clock);
            }
            clock.now()
        })
    }

    #[cold]
    fn enter_simulation(&mut self, clock: &Clock) {
        if let Timer::Outside { wait } = self.timer {
            self.deadline = Instant::from_nanoseconds(clock.now()) + Duration::from_nanos(wait);
            self.timer = Timer::Idle;
        }
        assert!(!clock.is_foreign(self.deadline.nanoseconds()), "{FOREIGN}");
    }

    fn disarm(&mut self) {
        let Timer::Armed { core, key } = self.timer else { return };
        self.timer = Timer::Idle;
        if core == mailbox::current_core() {
            drop(Proactor::with_current(|proactor| {
                proactor.with_timers(|timers| timers.remove(key))
            }));
        } else {
            // It fails only if that core is gone, and its timers with it.
            let _ = mailbox::post(core, Message::RemoveTimer(key));
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // An armed one need not look at the clock: the core does, before it polls anybody again.
        let armed_here = match this.timer {
            Timer::Armed { core, .. } => core == mailbox::current_core(),
            Timer::Idle | Timer::Outside { .. } => false,
        };
        // Unless it was set to a time that had passed: its timer fires, but only at the next turn.
        if !armed_here || this.reset_to_past {
            let now = this.now();
            if this.deadline.nanoseconds() <= now {
                this.disarm();
                return Poll::Ready(());
            }
        }
        this.poll_timer(cx)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[track_caller]
fn with_core<R>(f: impl FnOnce(&Proactor) -> R) -> R {
    match Proactor::with_current(f) {
        Some(result) => result,
        None => panic!("a quoit timer was polled outside a quoit runtime"),
    }
}
