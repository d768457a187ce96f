//! One request with one answer, and the future that waits for it.
//!
//! ```text
//!              submit                terminal completion             poll
//!   (payload) ────────► InFlight ──────────────────────► Finished ────────► payload handed back
//!                          │ future dropped                  │ future dropped
//!                          ▼                                 ▼
//!                       Orphaned ── terminal completion ──► payload dropped
//! ```
//!
//! The slot owns the payload: the buffer, the descriptor and every auxiliary struct that the kernel
//! may touch. The future holds a name and nothing else, so dropping or forgetting it changes
//! nothing for the kernel. Only the terminal completion retires a slot, and the payload of an
//! orphan is told the outcome, which may own something (a new descriptor) or mean something (a
//! failed sync).
//!
//! A future may be forgotten, or never polled again, and its payload stays. So what others wait for
//! does not hang on the future: the payload hears of the terminal completion, and lets go of it.

use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::task::{Context, Poll, Waker};

use crate::io::allowance;
use crate::io::mailbox::{self, CoreId, Key, Message};
use crate::io::payload::{AnyPayload, Payload};
use crate::io::proactor::{Proactor, off_core, outside};
use crate::io::request::{Attempt, Nop, ReadAt, Request};
use crate::io::services::{Kind, Services};
use crate::io::slab::Slab;
use crate::io::waiters::Caller;

/// A slot of the in-flight table.
pub(crate) struct Operation {
    payload: AnyPayload,
    waker: Option<Waker>,
    outcome: Option<i64>,
    orphaned: bool,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation")
    }
}

/// The in-flight table.
pub(crate) type Operations = Slab<Operation>;

/// Puts a payload in a slot whose outcome comes from elsewhere: a stream that sends it, a close.
pub(crate) fn open(operations: &mut Operations, payload: AnyPayload, waker: Option<Waker>) -> Key {
    operations.insert(Operation { payload, waker, outcome: None, orphaned: false })
}

/// Notes the outcome. The waiting future is woken; without one, the payload goes.
pub(crate) fn finish(operations: &mut Operations, key: Key, outcome: i64, services: &mut Services) {
    let Some(operation) = operations.get_mut(key) else { return };
    operation.outcome = Some(outcome);
    services.effects.wake(operation.waker.take());
    if operation.orphaned {
        abandon(operations, key, outcome, services);
    } else if let Some(left) = operation.payload.landed(outcome) {
        services.effects.abandoned.push((left, 0));
    }
}

/// The core ends: those who wait for what the kernel still holds are told.
pub(crate) fn strand_all(operations: &mut Operations, services: &mut Services) {
    for key in operations.keys() {
        let Some(operation) = operations.get_mut(key) else { continue };
        if operation.outcome.is_none() {
            operation.payload.stranded(&mut services.effects.wakers);
        }
    }
}

/// The future let go. What is in flight stays until its terminal completion; `true` if so.
pub(crate) fn release(operations: &mut Operations, key: Key, services: &mut Services) -> bool {
    let Some(operation) = operations.get_mut(key) else { return false };
    services.effects.discard(operation.waker.take());
    operation.orphaned = true;
    let Some(outcome) = operation.outcome else { return true };
    abandon(operations, key, outcome, services);
    false
}

fn abandon(operations: &mut Operations, key: Key, outcome: i64, services: &mut Services) {
    let operation = operations.remove(key).expect("just seen");
    services.effects.abandoned.push((operation.payload, outcome));
}

/// Looks whether the outcome is there, and takes it with the payload.
fn take(
    operations: &mut Operations,
    key: Key,
    caller: &mut Caller<'_>,
    services: &mut Services,
) -> Poll<(i64, AnyPayload)> {
    let operation = operations.get_mut(key).expect("an operation is there until it is taken");
    if operation.outcome.is_none() {
        if !operation.waker.as_ref().is_some_and(|old| caller.will_wake(old)) {
            if let Some(copy) = caller.copy() {
                services.effects.discard(operation.waker.replace(copy));
            }
        }
        return Poll::Pending;
    }
    let operation = operations.remove(key).expect("just seen");
    services.effects.discard(operation.waker);
    Poll::Ready((operation.outcome.expect("just seen"), operation.payload))
}

/// The right to the outcome of one operation whose payload is a `P`.
///
/// `Send` whatever `P` is: the payload stays on its core, and only there it is handed back.
#[derive(Debug)]
pub(crate) struct Pending<P> {
    core: CoreId,
    key: Option<Key>,
    payload: PhantomData<fn() -> P>,
}

impl<P: 'static> Pending<P> {
    /// Whether the operation is the current core's.
    pub(crate) fn is_here(&self) -> bool {
        self.core == mailbox::current_core()
    }

    pub(crate) fn new(core: CoreId, key: Key) -> Self {
        Self { core, key: Some(key), payload: PhantomData }
    }

    /// Submits a request made from the payload.
    ///
    /// # Safety
    ///
    /// What the request names is owned by the payload but lies outside of it, since the payload
    /// moves; it stays in place and is changed by nobody until the payload goes. Or it is static.
    pub(crate) unsafe fn submit(
        proactor: &Proactor,
        mut payload: P,
        waker: &Waker,
        request: impl FnOnce(&mut P) -> Request,
    ) -> Self
    where
        P: Payload,
    {
        let request = request(&mut payload);
        // Foreign code, hence before the tables are borrowed.
        let waker = Some(waker.clone());
        proactor.with_tables(|tables| {
            let key = open(&mut tables.operations, AnyPayload::new(payload), waker);
            // SAFETY: the slot owns the payload until the terminal completion.
            unsafe { tables.services.submit(Kind::Operation, key, &request) };
            Self::new(proactor.id(), key)
        })
    }

    pub(crate) fn core(&self) -> CoreId {
        self.core
    }

    /// Whether the outcome was taken already.
    pub(crate) fn key(&self) -> Option<Key> {
        self.key
    }

    /// The outcome and the payload. On a core that does not own the operation: an error.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(i64, P)>> {
        let key = self.key.expect("polled after completion");
        let taken = Proactor::with_current(|proactor| {
            if proactor.id() != self.core {
                return Poll::Ready(Err(off_core("this operation", self.core, false)));
            }
            Caller::run(cx.waker(), |caller| {
                proactor.with_tables(|tables| {
                    take(&mut tables.operations, key, caller, &mut tables.services).map(Ok)
                })
            })
        });
        let taken = taken.unwrap_or_else(|| Poll::Ready(Err(outside("an I/O operation"))));
        taken.map_ok(|(outcome, payload)| {
            self.key = None;
            (outcome, payload.take::<P>())
        })
    }

    /// Asks for an early end; the outcome still comes.
    pub(crate) fn cancel(&self) {
        let Some(key) = self.key else { return };
        Proactor::with_current(|proactor| {
            if proactor.id() == self.core {
                proactor.with_tables(|tables| tables.services.cancel(Kind::Operation, key));
            }
        });
    }
}

impl<P> Drop for Pending<P> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        if mailbox::current_core() == self.core {
            Proactor::with_current(|proactor| proactor.release_operation(key));
        } else {
            // A core that is gone has retired or leaked the operation; nothing is left to release.
            let _ = mailbox::post(self.core, Message::ReleaseOperation(key));
        }
    }
}

/// Sends nothing around the ring: what a round trip costs.
///
/// # Errors
///
/// Outside a runtime.
pub async fn nop() -> io::Result<()> {
    let mut pending: Option<Pending<()>> = None;
    poll_fn(|cx| {
        if pending.is_none() {
            pending = Proactor::with_current(|proactor| {
                // SAFETY: the request names nothing.
                unsafe { Pending::submit(proactor, (), cx.waker(), |()| Request::Nop(Nop)) }
            });
        }
        match &mut pending {
            Some(pending) => pending.poll(cx).map_ok(|_| ()),
            None => Poll::Ready(Err(outside("a round trip"))),
        }
    })
    .await
}

/// Tries a read at once, without an operation. `None`: the task has had its share of that, or there
/// is no core here.
///
/// # Safety
///
/// The descriptor is open, and the memory writable, for this call.
#[inline]
pub(crate) unsafe fn try_read(waker: &Waker, read: ReadAt) -> Option<Attempt> {
    Proactor::with_current(|proactor| {
        proactor.with_tables(|tables| {
            let services = &mut tables.services;
            if allowance::is_spent() || !services.at_once.grant(waker) {
                return None;
            }
            allowance::spend();
            services.direct_calls += 1;
            // SAFETY: handed on.
            Some(unsafe { services.ring.try_read(read) })
        })
    })?
}

/// The outcome of an operation as `io::Result`.
pub(crate) fn outcome_to_result(outcome: i64) -> io::Result<usize> {
    match usize::try_from(outcome) {
        Ok(value) => Ok(value),
        Err(_) => Err(io::Error::from_raw_os_error((-outcome) as i32)),
    }
}

/// The payload of an operation that is still open.
pub(crate) fn payload_mut<P: 'static>(operations: &mut Operations, key: Key) -> Option<&mut P> {
    operations.get_mut(key)?.payload.downcast_mut()
}
