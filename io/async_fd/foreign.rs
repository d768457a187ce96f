//! A foreign descriptor on a core's table: for each direction, what is known of its readiness.
//!
//! ```text
//!              poll_ready                  terminal completion
//!   Unknown ──────────────► Armed ─────────────────────────────► Ready(events)
//!    ▲  ▲                     │ detach, release                     │
//!    │  │                     ▼                                     │
//!    │  ├───────────────── at once, on readiness                    │
//!    │  └─────────────── Cancelling                                 │
//!    └───────────────────────── clear: a call said WouldBlock ──────┘
//! ```
//!
//! The poll has one answer and looks at the *level* when it is armed, so nothing can be missed
//! between a call that would block and the next wait, and clearing too much costs a look, never a
//! wake. It belongs to the descriptor, not to who waits: a dropped wait leaves it armed, and its
//! answer is there for the next.
//!
//! What is polled is a duplicate of the user's descriptor, which nobody else knows. So it can be
//! closed when its poll has ended, and the ring has forgotten it, whatever the user has done
//! with his own by then. (io_uring resolves the number of a request when it is submitted, which is
//! in a later turn, and holds the file as long as the request lives.)

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Poll;

use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{Key, WaiterId};
use crate::io::net::handle::gone;
use crate::io::request::{self, Completion, Interest, Request};
use crate::io::services::{Kind, Services};
use crate::io::waiters::{Caller, Waiters};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Unknown,
    Armed,
    Cancelling,
    /// The events of poll(2) that were told.
    Ready(i32),
    /// The kernel refused to poll, for this error: one wait is told so.
    Refused(i32),
}

/// One direction. All who wait are observers: none takes anything by being told.
#[derive(Default)]
struct Side {
    state: State,
    waiters: Waiters,
}

impl Side {
    fn is_in_flight(&self) -> bool {
        matches!(self.state, State::Armed | State::Cancelling)
    }
}

pub(crate) struct Foreign {
    descriptor: Arc<Descriptor>,
    sides: [Side; 2],
    /// Futures that take it off this core. While there are any, nothing is armed.
    movers: Waiters,
    closing: bool,
}

impl Foreign {
    pub(crate) fn new(descriptor: Arc<Descriptor>) -> Self {
        let (sides, movers) = (Default::default(), Waiters::default());
        Self { descriptor, sides, movers, closing: false }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.descriptor.number()
    }

    fn side(&mut self, interest: Interest) -> &mut Side {
        &mut self.sides[interest as usize]
    }

    /// The events that make this direction ready, as far as is known.
    pub(crate) fn poll_ready(
        &mut self,
        key: Key,
        interest: Interest,
        observer: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<i32>> {
        let answer = match self.side(interest).state {
            State::Ready(events) => Some(Ok(events)),
            State::Refused(error) => {
                self.side(interest).state = State::Unknown;
                Some(Err(io::Error::from_raw_os_error(error)))
            }
            _ if services.closing => Some(Err(gone())),
            _ => None,
        };
        if let Some(answer) = answer {
            if let Some(observer) = observer.take() {
                self.overlook(interest, observer, services);
            }
            return Poll::Ready(answer);
        }
        self.arm(key, interest, services);
        services.look_out(&mut self.side(interest).waiters, observer, caller)
    }

    /// What is known, without waiting.
    pub(crate) fn is_ready(&mut self, interest: Interest) -> bool {
        matches!(self.side(interest).state, State::Ready(_))
    }

    /// A call said that this direction is not ready.
    pub(crate) fn clear(&mut self, interest: Interest) {
        let side = self.side(interest);
        if let State::Ready(_) = side.state {
            side.state = State::Unknown;
        }
    }

    fn arm(&mut self, key: Key, interest: Interest, services: &mut Services) {
        let is_leaving = self.closing || !self.movers.is_empty();
        let descriptor = self.number();
        let side = self.side(interest);
        if side.state != State::Unknown || is_leaving {
            return;
        }
        side.state = State::Armed;
        let poll = request::Poll { descriptor, interest, multishot: false };
        // SAFETY: the entry stays on the table, with its descriptor, until this is terminal.
        unsafe { services.submit(kind_of(interest), key, &Request::Poll(poll)) };
    }

    pub(crate) fn on_poll(
        &mut self,
        interest: Interest,
        completion: Completion,
        services: &mut Services,
    ) {
        let side = self.side(interest);
        side.state = match completion.result {
            // Nothing is known if it was cancelled, or interrupted: who waits asks again.
            error if [libc::ECANCELED, libc::EINTR, libc::EAGAIN].contains(&-error) => {
                State::Unknown
            }
            error @ ..0 => State::Refused(-error),
            events => State::Ready(events),
        };
        side.waiters.notify(&mut services.effects.wakers);
        if !self.is_in_flight() {
            self.movers.notify(&mut services.effects.wakers);
        }
    }

    fn is_in_flight(&self) -> bool {
        self.sides.iter().any(Side::is_in_flight)
    }

    /// Asks for all polls to end. Ready: none is in flight.
    pub(crate) fn poll_idle(
        &mut self,
        key: Key,
        mover: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<()> {
        self.quiesce(key, services);
        if self.is_in_flight() {
            return services.line_up(&mut self.movers, mover, caller);
        }
        Poll::Ready(())
    }

    fn quiesce(&mut self, key: Key, services: &mut Services) {
        for interest in BOTH {
            let side = self.side(interest);
            if side.state == State::Armed {
                let at_once = services.end_poll(kind_of(interest), key);
                side.state = if at_once { State::Unknown } else { State::Cancelling };
            }
        }
    }

    pub(crate) fn overlook(
        &mut self,
        interest: Interest,
        observer: WaiterId,
        services: &mut Services,
    ) {
        services.effects.discard(self.side(interest).waiters.overlook(observer));
    }

    /// A future that would have taken it off this core is dropped: others may wait again.
    pub(crate) fn stays(&mut self, mover: WaiterId, services: &mut Services) {
        let (waker, _) = self.movers.strike(mover);
        services.effects.discard(waker);
        self.movers.notify(&mut services.effects.wakers);
        if self.movers.is_empty() {
            for side in &mut self.sides {
                side.waiters.notify(&mut services.effects.wakers);
            }
        }
    }

    /// The last handle is gone.
    pub(crate) fn release(&mut self, key: Key, services: &mut Services) {
        self.closing = true;
        self.quiesce(key, services);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing && !self.is_in_flight()
    }

    /// Off the table: whoever waits looks again, and finds it elsewhere or gone.
    pub(crate) fn close(mut self, services: &mut Services) {
        for side in &mut self.sides {
            side.waiters.notify_all(&mut services.effects.wakers);
        }
        self.movers.notify_all(&mut services.effects.wakers);
    }
}

pub(crate) const BOTH: [Interest; 2] = [Interest::Readable, Interest::Writable];

fn kind_of(interest: Interest) -> Kind {
    match interest {
        Interest::Readable => Kind::ForeignReadable,
        Interest::Writable => Kind::ForeignWritable,
    }
}
