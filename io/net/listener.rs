//! A listening socket: it owns its accept request and the connections that nobody has taken yet.
//!
//! ```text
//!           accept()              ahead of the program by the limit
//!   Idle ─────────────► Armed ─────────────────────────────────────► Cancelling
//!    ▲                    │ no descriptor, no memory                     │
//!    │                    ▼                                              │
//!    ├── time passed ── BackingOff                                       │
//!    └──────────────── terminal completion, room again ◄─────────────────┘
//! ```
//!
//! A dropped `accept()` loses nothing: what arrives waits here for the next one. Running out of
//! descriptors is told to who waits, with the remedy; the connection stays in the kernel's queue,
//! and the next try waits a while, so a loop around `accept` does not spin.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::io::descriptor::Descriptor;
use crate::io::mailbox::{Key, WaiterId};
use crate::io::operation::{self, Operations};
use crate::io::planted::{self, Bug};
use crate::io::request::{Accept, Completion, Request};
use crate::io::services::{Kind, Services};
use crate::io::timers::TimerKey;
use crate::io::waiters::{Caller, Waiters};

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Armed,
    Cancelling,
    BackingOff(TimerKey),
}

/// What a stream of connections is told.
#[cfg(feature = "futures-core")]
pub(crate) struct Next {
    pub(crate) result: io::Result<Descriptor>,
    /// The listener is not at its end: another connection may come.
    pub(crate) goes_on: bool,
}

pub(crate) struct Listener {
    descriptor: Arc<Descriptor>,
    /// Connections ahead of the program; bounded by `Limits::accept_ahead`, overshot by what one
    /// turn brings.
    queue: VecDeque<Descriptor>,
    waiters: Waiters,
    state: State,
    error: Option<i32>,
    back_off: Duration,
    closing: bool,
    /// Who waits for the close, and gets what nobody took.
    closed: Option<Key>,
}

impl Listener {
    pub(crate) fn new(descriptor: Arc<Descriptor>) -> Self {
        Self {
            descriptor,
            queue: VecDeque::new(),
            waiters: Waiters::default(),
            state: State::Idle,
            error: None,
            back_off: BACK_OFF_MIN,
            closing: false,
            closed: None,
        }
    }

    pub(crate) fn number(&self) -> RawFd {
        self.descriptor.number()
    }

    /// Connections that nobody has taken yet.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next connection.
    pub(crate) fn poll_accept(
        &mut self,
        key: Key,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<Descriptor>> {
        if self.waiters.may_go(*waiter) {
            if let Some(next) = self.next(key, services) {
                if let Some(id) = waiter.take() {
                    self.withdraw(id, services);
                }
                return Poll::Ready(next.map_err(explain));
            }
        }
        self.wait(waiter, caller, services)
    }

    /// The next connection, for who has no place in line, as a stream that may be kept for long and
    /// not polled: it waits as an observer, and goes behind whoever has asked before it.
    #[cfg(feature = "futures-core")]
    pub(crate) fn poll_flow(
        &mut self,
        key: Key,
        observer: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<Next> {
        if self.waiters.may_look(*observer) {
            if let Some(next) = self.next(key, services) {
                if let Some(observer) = observer.take() {
                    self.overlook(observer, services);
                }
                let goes_on = next.as_ref().err().is_none_or(|error| is_shortage(*error));
                return Poll::Ready(Next { result: next.map_err(explain), goes_on });
            }
        }
        services.look_out(&mut self.waiters, observer, caller)
    }

    /// What the next in line gets, if it is there. Otherwise it is on its way from now on.
    fn next(&mut self, key: Key, services: &mut Services) -> Option<Result<Descriptor, i32>> {
        let next = match self.queue.pop_front() {
            Some(connection) => {
                services.counters.connections_delivered += 1;
                Some(Ok(connection))
            }
            None => self.error.take().map(Err),
        };
        if self.state == State::Idle && self.queue.len() <= services.limits.accept_ahead / 2 {
            self.arm(key, services);
        }
        next
    }

    pub(crate) fn wait<T>(
        &mut self,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<T> {
        services.line_up(&mut self.waiters, waiter, caller)
    }

    pub(crate) fn on_accept(&mut self, key: Key, completion: Completion, services: &mut Services) {
        let lost = planted::is(Bug::LostLateAccept) && self.state == State::Cancelling;
        if completion.is_terminal() {
            self.state = State::Idle;
        }
        let mut goes_on = true;
        match completion.result {
            number if number >= 0 => {
                services.counters.connections_accepted += 1;
                self.back_off = BACK_OFF_MIN;
                // A shortage that nobody was told of is over.
                self.error = None;
                // SAFETY: the kernel has just made this number for us.
                let connection = unsafe { Descriptor::from_raw(number) };
                if !lost {
                    self.queue.push_back(connection);
                }
            }
            error if is_shortage(-error) => self.back_off(key, -error, services),
            error if is_of_the_connection(-error) || error == -libc::ECANCELED => {}
            error => {
                self.error = Some(-error);
                goes_on = false;
            }
        }
        if !self.queue.is_empty() || self.error.is_some() {
            self.waiters.notify(&mut services.effects.wakers);
        }
        let full = self.queue.len() >= services.limits.accept_ahead;
        match self.state {
            State::Armed if full || self.closing => {
                self.state = State::Cancelling;
                services.cancel(Kind::Accept, key);
            }
            // Also with a shortage untold: it may be long over, and nobody may ever ask.
            State::Idle if !full && goes_on => self.arm(key, services),
            _ => {}
        }
    }

    /// No descriptor or no memory for a connection: tell, and leave the kernel alone for a while.
    fn back_off(&mut self, key: Key, error: i32, services: &mut Services) {
        self.error = Some(error);
        if self.state == State::Idle && !self.closing {
            let timer = services.start_timer(Kind::AcceptAgain, key, self.back_off);
            self.state = State::BackingOff(timer);
            self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        }
    }

    pub(crate) fn on_back_off_over(&mut self, key: Key, services: &mut Services) {
        if let State::BackingOff(_) = self.state {
            self.state = State::Idle;
            self.arm(key, services);
        }
    }

    fn arm(&mut self, key: Key, services: &mut Services) {
        if self.state != State::Idle || self.closing || services.closing {
            return;
        }
        self.state = State::Armed;
        let request = Request::Accept(Accept { descriptor: self.number() });
        // SAFETY: the listener stays on the table, with its descriptor, until this is terminal.
        unsafe { services.submit(Kind::Accept, key, &request) };
    }

    pub(crate) fn withdraw(&mut self, waiter: WaiterId, services: &mut Services) {
        let (waker, was_first) = self.waiters.strike(waiter);
        services.effects.discard(waker);
        if was_first && (!self.queue.is_empty() || self.error.is_some()) {
            self.waiters.notify(&mut services.effects.wakers);
        }
    }

    /// An observer is not to be told any more.
    pub(crate) fn overlook(&mut self, observer: WaiterId, services: &mut Services) {
        services.effects.discard(self.waiters.overlook(observer));
    }

    /// The last handle is gone.
    pub(crate) fn release(&mut self, key: Key, services: &mut Services) {
        self.closing = true;
        match self.state {
            State::Armed => {
                self.state = State::Cancelling;
                services.cancel(Kind::Accept, key);
            }
            State::BackingOff(timer) => {
                services.stop_timer(Some(timer));
                self.state = State::Idle;
            }
            State::Idle | State::Cancelling => {}
        }
    }

    /// As `release`, and `closed` gets the connections that nobody took.
    pub(crate) fn release_for(&mut self, key: Key, closed: Key, services: &mut Services) {
        self.closed = Some(closed);
        self.release(key, services);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing && self.state == State::Idle
    }

    /// Off the table: undelivered connections go to who closed the listener, or are closed and
    /// counted.
    pub(crate) fn close(mut self, operations: &mut Operations, services: &mut Services) {
        self.waiters.notify_all(&mut services.effects.wakers);
        let Some(closed) = self.closed else {
            services.counters.connections_undelivered += self.queue.len() as u64;
            return;
        };
        if let Some(undelivered) = operation::payload_mut::<Vec<Descriptor>>(operations, closed) {
            services.counters.connections_delivered += self.queue.len() as u64;
            undelivered.extend(self.queue.drain(..));
        }
        operation::finish(operations, closed, 0, services);
    }
}

/// Nothing is wrong with the listener or the connection; the process or the system is out of
/// something (accept(2)).
fn is_shortage(error: i32) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&error)
}

/// The error belongs to the connection that would have been accepted: the next one may be fine
/// (accept(2), "Error handling").
fn is_of_the_connection(error: i32) -> bool {
    [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EPERM,
        libc::ETIMEDOUT,
        libc::EINTR,
        libc::EAGAIN,
    ]
    .contains(&error)
}

fn explain(number: i32) -> io::Error {
    let error = io::Error::from_raw_os_error(number);
    match number {
        libc::EMFILE | libc::ENFILE => io::Error::new(
            error.kind(),
            format!(
                "accept: {error}; the connection stays queued and accept tries again by itself; \
                 close descriptors or raise the limit (`ulimit -n`)"
            ),
        ),
        _ => error,
    }
}
