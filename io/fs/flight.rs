//! One request of a file, from its submission to its answer.
//!
//! ```text
//!   Fresh(payload) ──first poll──► InFlight ──answer──► Over
//!        ▲                           │  │
//!        └────── EINTR, EAGAIN ──────┘  └─ dropped: a change goes on the ledger; then the slot is
//!                                          an orphan, and keeps the payload to the end
//! ```

use std::future::Future;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use super::ledger::Ticket;
use super::operation::time_is_up;
use super::shared::Shared;
use crate::io::operation::Pending;
use crate::io::payload::{AnyPayload, Payload};
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
            let Stage::Fresh(payload) = mem::replace(&mut this.stage, Stage::Over) else {
                panic!("polled after completion")
            };
            if time_is_up() {
                return Poll::Ready(Err((timed_out(), Some(payload))));
            }
            return this.submit(payload, cx);
        };
        match pending.poll(cx) {
            Poll::Pending => {
                if time_is_up() && !mem::replace(&mut this.cancelled, true) {
                    pending.cancel();
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err((error, None))),
            Poll::Ready(Ok((outcome, mut payload))) => {
                this.stage = Stage::Over;
                let goes_on = is_interrupted(outcome)
                    || outcome == -i64::from(libc::EAGAIN)
                        && (this.request)(&mut payload).may_wait();
                if this.cancelled && (goes_on || outcome == -i64::from(libc::ECANCELED)) {
                    return Poll::Ready(Err((timed_out(), Some(payload))));
                }
                if goes_on {
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
    stage: MarkStage,
    ticket: Ticket,
}

enum MarkStage {
    Fresh(Arc<Shared>),
    /// The request is submitted.
    Armed(Arc<Shared>),
    /// The kernel is done with it. The ledger is told when the future is dropped, if it ever is;
    /// until then the file may end.
    Landed(Weak<Shared>),
    /// The future has its answer.
    Over,
}

impl Mark {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { stage: MarkStage::Fresh(shared.clone()), ticket: shared.ledger.ticket() }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The request is being submitted, for the first time or again.
    pub(super) fn arm(&mut self, shared: &Arc<Shared>) -> RawFd {
        let shared = match mem::replace(&mut self.stage, MarkStage::Over) {
            MarkStage::Fresh(shared) | MarkStage::Armed(shared) => shared,
            MarkStage::Landed(_) | MarkStage::Over => shared.clone(),
        };
        let number = shared.number();
        self.stage = MarkStage::Armed(shared);
        number
    }

    /// The future has its answer.
    pub(super) fn disarm(&mut self) {
        self.stage = MarkStage::Over;
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let shared = match &self.stage {
            MarkStage::Fresh(_) | MarkStage::Over => return,
            MarkStage::Armed(shared) => Some(shared.clone()),
            MarkStage::Landed(shared) => shared.upgrade(),
        };
        // A file that is gone has nobody who waits.
        if let Some(shared) = shared {
            shared.ledger.settle(self.ticket);
        }
    }
}

/// The change is all there is to it: its request names no memory.
impl Payload for Mark {
    fn landed(&mut self, _: i64) -> Option<AnyPayload> {
        let MarkStage::Armed(shared) = mem::replace(&mut self.stage, MarkStage::Over) else {
            panic!("what lands was submitted")
        };
        self.stage = MarkStage::Landed(Arc::downgrade(&shared));
        shared.let_go()
    }

    fn stranded(&mut self, wakers: &mut Vec<Waker>) {
        if let MarkStage::Armed(shared) = &self.stage {
            shared.strand(wakers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;
    use std::thread;
    use std::time::Duration;

    use super::super::ledger::EVERYTHING;
    use super::*;
    use crate::io::request::{Nop, Open};
    use quoit::time::timeout;
    use quoit::{RingChoice, Runtime};

    const SOON: Duration = Duration::from_secs(5);

    fn shared() -> Arc<Shared> {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        Arc::new(Shared::new(std::os::fd::OwnedFd::from(file).into()))
    }

    /// A change that the kernel never ends, as far as the core knows: it opens a FIFO whose other
    /// end nobody has.
    #[test]
    fn a_core_that_ends_with_a_change_in_flight_leaves_nobody_waiting() {
        let path = std::env::temp_dir().join(format!("quoit-stranded-{}", std::process::id()));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        let (shared, flags) = (shared(), libc::O_WRONLY | libc::O_CLOEXEC);
        let core = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
        core.block_on(async {
            let mark = Mark::new(&shared);
            let change = (&*shared, mark.ticket(), 0..1);
            let request = |mark: &mut Mark| {
                mark.arm(&shared);
                Request::Open(Open { path: name.as_ptr(), flags, mode: 0 })
            };
            // SAFETY: the name lives until the pool thread has answered, see below.
            let flight = unsafe { Flight::changing(mark, change, request) };
            assert!(timeout(Duration::from_millis(20), flight).await.is_err());
        });
        let waits = shared.clone();
        let waiting = thread::spawn(move || {
            quoit::block_on(async { timeout(SOON, waits.clear(EVERYTHING)).await })
        });
        let closing = thread::spawn(move || {
            quoit::block_on(async { timeout(SOON, shared.surrender()).await.map(|r| r.map(drop)) })
        });
        thread::sleep(Duration::from_millis(50));
        let report = core.shutdown(Duration::from_millis(10));
        let waited = waiting.join().unwrap();
        let closed = closing.join().unwrap();
        drop(std::fs::File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(report.requests_leaked, 1);
        let error = waited.expect("it is told").unwrap_err();
        assert!(error.to_string().contains("still with the kernel"), "{error}");
        let error = closed.expect("it is told").unwrap_err();
        assert!(error.to_string().contains("still with the kernel"), "{error}");
    }

    /// What the ledger is told when, of a change that has landed.
    #[test]
    fn a_change_that_has_landed_lets_go_of_the_file_and_is_still_settled() {
        quoit::block_on(async {
            let shared = shared();
            let mark = Mark::new(&shared);
            let change = (&*shared, mark.ticket(), 0..1);
            let request = |mark: &mut Mark| {
                mark.arm(&shared);
                Request::Nop(Nop)
            };
            // SAFETY: the request names nothing.
            let mut flight = Box::pin(unsafe { Flight::changing(mark, change, request) });
            std::future::poll_fn(|cx| {
                assert!(flight.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(Arc::strong_count(&shared), 2);
            quoit::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(Arc::strong_count(&shared), 1, "the kernel is done");
            drop(flight);
            timeout(SOON, shared.clear(EVERYTHING)).await.expect("settled").unwrap();
        });
    }
}
