//! How long a handshake may take.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::time::{Sleep, sleep};

/// As long as Go's HTTP client gives a handshake (`http.DefaultTransport`).
pub(crate) const DEFAULT: Duration = Duration::from_secs(10);

/// The time of one handshake, from its first poll.
#[derive(Debug)]
pub(crate) enum Limit {
    None,
    Waiting(Duration),
    Running(Duration, Sleep),
}

impl Limit {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        limit.map_or(Self::None, Self::Waiting)
    }

    /// Gives the error once the time is over. To be polled when the handshake is pending.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Self::Waiting(limit) = *self {
            *self = Self::Running(limit, sleep(limit));
        }
        let Self::Running(limit, timer) = self else { return Poll::Pending };
        Pin::new(timer).poll(cx).map(|()| {
            let text = format!("the TLS handshake took longer than {limit:?} (handshake_timeout)");
            io::Error::new(io::ErrorKind::TimedOut, text)
        })
    }
}
