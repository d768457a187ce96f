//! A future with a deadline.
//!
//! Expiry is not a race: the inner future is asked first, and once more after the deadline, so
//! what has happened by then counts. Only then is it dropped, and what it waited for stays with
//! its resource.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::{Instant, Sleep, sleep, sleep_until};
use crate::io::allowance;
use crate::io::timed::last_chance;

/// Gives `future` `duration` to be ready, and drops it otherwise.
///
/// The future is polled before the clock is looked at, and once more when the time is over; then
/// it is dropped before this returns. So zero asks it whether it is ready already, and
/// [`Duration::MAX`] waits for ever.
///
/// What one quoit operation had not returned by then stays in its resource: a timed-out `recv`
/// loses no byte, a timed-out `accept` no connection. What *your* future had already taken into
/// itself is dropped with it: a function that reads a header and then a body loses the header.
///
/// # Errors
///
/// [`Elapsed`], if the time is over first. It converts into [`io::Error`] of kind
/// [`TimedOut`](io::ErrorKind::TimedOut).
///
/// # Panics
///
/// The future panics when it is polled outside a runtime, or after it was ready.
///
/// # Cancel safety
///
/// That of `future`, which is dropped too.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{sleep, timeout};
///
/// # quoit::block_on(async {
/// let answer = timeout(Duration::from_secs(1), async { 42 }).await;
/// assert_eq!(answer, Ok(42));
///
/// let slow = sleep(Duration::from_secs(3600));
/// assert!(timeout(Duration::from_millis(1), slow).await.is_err());
/// # });
/// ```
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: Some(future.into_future()), sleep: sleep(duration), put_off: false }
}

/// Gives `future` until `deadline` to be ready, and drops it otherwise; see [`timeout`].
///
/// # Errors
///
/// [`Elapsed`], if the deadline comes first.
///
/// # Panics
///
/// The future panics when it is polled outside a runtime, or after it was ready.
///
/// # Cancel safety
///
/// That of `future`, which is dropped too.
///
/// # Examples
///
/// One deadline for two steps:
///
/// ```
/// use std::time::Duration;
/// use quoit::time::{Elapsed, Instant, timeout_at};
///
/// async fn steps() -> Result<u32, Elapsed> {
///     let deadline = Instant::now() + Duration::from_secs(1);
///     let first = timeout_at(deadline, async { 1 }).await?;
///     timeout_at(deadline, async { first + 1 }).await
/// }
/// # quoit::block_on(async {
/// assert_eq!(steps().await, Ok(2));
/// # });
/// ```
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    Timeout { future: Some(future.into_future()), sleep: sleep_until(deadline), put_off: false }
}

pin_project! {
    /// Future of [`timeout`] and [`timeout_at`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Timeout<F> {
        // Gone when it is ready or its time is over.
        #[pin]
        future: Option<F>,
        sleep: Sleep,
        put_off: bool,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(mut future) = this.future.as_mut().as_pin_mut() else {
            panic!("`Timeout` was polled after it was ready");
        };
        let unheard = allowance::is_spent();
        let outcome = match future.as_mut().poll(cx) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => {
                ready!(Pin::new(this.sleep).poll(cx));
                // Time has passed since it was asked.
                ready!(last_chance(unheard, this.put_off, cx, |cx| future.poll(cx)))
            }
        };
        // Its drop may free what others wait for; they need not wait for ours too.
        this.future.set(None);
        Poll::Ready(outcome.ok_or(Elapsed(())))
    }
}

/// The time given to [`timeout`] was over before the future was ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(io::ErrorKind::TimedOut, elapsed)
    }
}
