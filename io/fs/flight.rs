//! One request of a file, from its submission to its answer.
//!
//! ```text
//!   Fresh(payload) ──first poll──► InFlight ──answer──► Over
//!        ▲                           │  │
//!        └────────── EINTR ──────────┘  └─ dropped: a change goes on the ledger; then the slot is
//!                                          an orphan, and keeps the payload to the end
//! ```

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ledger::Ticket;
use super::operation::time_is_up;
use super::shared::Shared;
use crate::io::operation::Pending;
use crate::io::payload::Payload;
use crate::io::proactor::{Proactor, outside};
use crate::io::request::Request;
use crate::io::timed::timed_out;

/// The answer with the payload. An error means that there is no answer: the request was never
/// submitted, or was stopped, and the payload comes back; or it was polled on another core than its
/// own and does not.
pub(super) type Landing<P> = Result<(i64, P), (io::Error, Option<P>)>;

#[must_use = "futures do nothing unless awaited or polled"]
pub(super) struct Flight<'a, P: Payload, F> {
    stage: Stage<P>,
    request: F,
    change: Option<Change<'a>>,
    /// Its time was up, and it was asked to end.
    cancelled: bool,
}

enum Stage<P> {
    Fresh(P),
    InFlight(Pending<P>),
    Over,
}

/// What a request may change, should nobody wait for its end.
struct Change<'a> {
    shared: &'a Shared,
    ticket: Ticket,
    range: Range<u64>,
}

impl<'a, P: Payload + Unpin, F: Fn(&mut P) -> Request> Flight<'a, P, F> {
    /// A request that changes nothing.
    ///
    /// # Safety
    ///
    /// What the request names is owned by the payload but lies outside of it, stays in place and is
    /// changed by nobody until the payload goes; or it is static.
    #[inline]
    pub(super) unsafe fn new(payload: P, request: F) -> Self {
        Self { stage: Stage::Fresh(payload), request, change: None, cancelled: false }
    }

    /// The same for a request that changes a range of the file. The payload has the mark of this
    /// ticket, and `request` arms it.
    ///
    /// # Safety
    ///
    /// As `new`.
    #[inline]
    pub(super) unsafe fn changing(
        payload: P,
        (shared, ticket, range): (&'a Shared, Ticket, Range<u64>),
        request: F,
    ) -> Self {
        let change = Some(Change { shared, ticket, range });
        Self { stage: Stage::Fresh(payload), request, change, cancelled: false }
    }

    fn submit(&mut self, payload: P, cx: &Context<'_>) -> Poll<Landing<P>> {
        let mut payload = Some(payload);
        let submitted = Proactor::with_current(|proactor| {
            let payload = payload.take().expect("called once");
            // SAFETY: the maker of this future vouches for what the request names.
            unsafe { Pending::submit(proactor, payload, cx.waker(), &self.request) }
        });
        let Some(pending) = submitted else {
            return Poll::Ready(Err((outside("a file operation"), payload)));
        };
        self.stage = Stage::InFlight(pending);
        Poll::Pending
    }
}

// The payload is only kept here, never pinned.
impl<P: Payload, F> Unpin for Flight<'_, P, F> {}

impl<P: Payload + Unpin, F: Fn(&mut P) -> Request> Future for Flight<'_, P, F> {
    type Output = Landing<P>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Stage::InFlight(pending) = &mut this.stage else {
            let Stage::Fresh(payload) = std::mem::replace(&mut this.stage, Stage::Over) else {
                panic!("polled after completion")
            };
            if time_is_up() {
                return Poll::Ready(Err((timed_out(), Some(payload))));
            }
            return this.submit(payload, cx);
        };
        match pending.poll(cx) {
            Poll::Pending => {
                if time_is_up() && !std::mem::replace(&mut this.cancelled, true) {
                    pending.cancel();
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err((error, None))),
            Poll::Ready(Ok((outcome, payload))) => {
                this.stage = Stage::Over;
                let interrupted = is_interrupted(outcome);
                if this.cancelled && (interrupted || outcome == -i64::from(libc::ECANCELED)) {
                    return Poll::Ready(Err((timed_out(), Some(payload))));
                }
                if interrupted {
                    return this.submit(payload, cx);
                }
                Poll::Ready(Ok((outcome, payload)))
            }
        }
    }
}

impl<P: Payload, F> Drop for Flight<'_, P, F> {
    fn drop(&mut self) {
        // Before the operation is let go, which may retire it at once.
        if let (Stage::InFlight(pending), Some(change)) = (&self.stage, self.change.take()) {
            change.shared.ledger.orphan(change.ticket, change.range, pending.core());
        }
    }
}

/// Whether a wait within the kernel was broken off. io_uring passes some system calls' inner code
/// for that on as it is, where others answer EINTR: `ERESTARTSYS` and its kin, 512 to 516
/// (include/linux/errno.h).
fn is_interrupted(outcome: i64) -> bool {
    outcome == -i64::from(libc::EINTR) || (-516..=-512).contains(&outcome)
}

/// In the payload of a change: the ledger hears when it is over and its future was not there.
pub(super) struct Mark {
    shared: Arc<Shared>,
    ticket: Ticket,
    armed: bool,
}

impl Mark {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), ticket: shared.ledger.ticket(), armed: false }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The request is being submitted.
    pub(super) fn arm(&mut self) -> &Shared {
        self.armed = true;
        &self.shared
    }

    /// The future has its answer.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.armed {
            self.shared.ledger.settle(self.ticket);
        }
    }
}

/// The change is all there is to it: its request names no memory.
impl Payload for Mark {}
