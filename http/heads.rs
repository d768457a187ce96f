//! When HTTP/1 begins to wait for a head.
//!
//! ```text
//!   head ──► body ──────────────► end
//!     └────► response ──► end          both ended: the next head is waited for
//! ```
//!
//! Until then what comes is the body of a request, whose response may have ended long before. Only
//! hyper knows, and it does one thing that can be seen: it starts the timer of its own timeout for
//! heads. So it gets a timer that tells, and whose time never comes: what happens to slow heads is
//! decided in `watch.rs`, which does not count the time in which nothing has come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;

use crate::activity::Activity;

/// The timer of one connection of HTTP/1.
#[derive(Debug)]
pub(crate) struct Heads(Arc<Activity>);

impl Heads {
    /// Has a connection that is built like this tell its activity.
    pub(crate) fn watch(http1: &mut http1::Builder, activity: &Arc<Activity>) {
        // How long it is does not matter: `Never` does not look.
        http1.timer(Self(activity.clone())).header_read_timeout(Duration::from_secs(1));
    }
}

impl Timer for Heads {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.await_head();
        Box::pin(Never)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.await_head();
        Box::pin(Never)
    }

    fn now(&self) -> Instant {
        self.0.born().into_std()
    }

    fn reset(&self, _: &mut Pin<Box<dyn Sleep>>, _: Instant) {
        self.0.await_head();
    }
}

struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for Never {}
