//! The receiving half: one multishot receive, and what it brought.
//!
//! ```text
//!            poll_lease                 budget passed
//!   Idle ───────────────► Armed ───────────────────────► Cancelling
//!    ▲                      │ ENOBUFS                        │
//!    │                      ▼                                │
//!    │                   Starved ── see `starved` ──►       │
//!    └──────────────── terminal completion ◄─────────────────┘
//! ```
//!
//! Leases are the fast tier: the kernel fills provided buffers, and what nobody has taken waits
//! here for the next read of any tier. Slices are served by direct receives (`direct`); the kernel
//! never sees a slice. The two never run together: a direct receive while a multishot is armed
//! could overtake bytes that are already on their way.

mod direct;
#[cfg(feature = "futures-core")]
mod flow;
#[cfg(any(feature = "tokio-io", feature = "futures-io"))]
mod lend;
mod starved;

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::task::Poll;
use std::{io, mem};

use super::socket::Failure;
use crate::io::buffer::Lease;
use crate::io::mailbox::{Key, WaiterId};
use crate::io::planted::{self, Bug};
use crate::io::request::{self, Completion, Interest, ReceiveMany, Request, call};
use crate::io::services::{Kind, Services};
use crate::io::waiters::{Caller, Waiters};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Idle,
    /// `fed`: it has brought something since.
    Armed {
        fed: bool,
    },
    Cancelling,
    Starved,
}

/// How the stream of bytes ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Eof,
    Error(Failure),
}

impl End {
    fn error(number: i32) -> Self {
        Self::Error(Failure { number, told: false })
    }
}

/// A multishot poll that tells when a direct receive may find something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Watch {
    #[default]
    Idle,
    Armed,
    Cancelling,
}

pub(crate) struct Receiving {
    first: Option<Lease>,
    #[expect(clippy::box_collection, reason = "a pointer, not four words, while it is empty")]
    rest: Option<Box<VecDeque<Lease>>>,
    /// A slice may point to the first lease: see `lend`.
    lent: bool,
    /// Bytes received and not taken.
    bytes: usize,
    waiters: Waiters,
    end: Option<End>,
    state: State,
    watch: Watch,
    /// A direct receive may find something.
    ready: bool,
    /// The peer's end or an error was seen coming. It is told once, so the bytes before it are no
    /// sign that the socket is empty: what follows is fetched until the end itself comes.
    hung_up: bool,
    /// Leases are wanted: keep the multishot armed ahead of the reader.
    ahead: bool,
    /// Nobody will read any more: what comes is dropped.
    discarding: bool,
    /// The stream is about to leave this core: nothing new is armed.
    paused: bool,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            first: None,
            rest: None,
            lent: false,
            bytes: 0,
            waiters: Waiters::default(),
            end: None,
            state: State::Idle,
            watch: Watch::Idle,
            ready: true,
            hung_up: false,
            ahead: false,
            discarding: false,
            paused: false,
        }
    }
}

impl Receiving {
    /// The next lease: what came, in order; empty at the end of the stream.
    pub(crate) fn poll_lease(
        &mut self,
        key: Key,
        number: RawFd,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<Lease>> {
        if self.waiters.may_go(*waiter) {
            if let Some(next) = self.next_lease(key, number, services) {
                self.served(waiter, services);
                return Poll::Ready(next);
            }
        }
        self.wait(waiter, caller, services)
    }

    /// What the next reader gets, if it is there. Otherwise it is on its way from now on.
    #[inline]
    fn next_lease(
        &mut self,
        key: Key,
        number: RawFd,
        services: &mut Services,
    ) -> Option<io::Result<Lease>> {
        self.ahead = true;
        if let Some(lease) = self.pop() {
            // Not after an error: the kernel tells it once, and an orderly end from then on.
            if self.state == State::Idle
                && self.bytes <= services.limits.receive_ahead / 2
                && self.end.is_none()
            {
                self.arm(key, number, services);
            }
            return Some(Ok(lease));
        }
        if let Some(end) = self.end {
            return Some(self.tell(end).map(|()| Lease::empty()));
        }
        self.arm(key, number, services);
        None
    }

    /// A completion of the multishot receive.
    pub(crate) fn on_receive(
        &mut self,
        key: Key,
        number: RawFd,
        completion: Completion,
        services: &mut Services,
    ) {
        let before = self.state;
        if completion.is_terminal() {
            self.state = State::Idle;
        }
        if let Some(buffer) = completion.flags.buffer() {
            let length = completion.result.max(0).unsigned_abs();
            // SAFETY: the completion says that the kernel filled so much of this buffer and lends
            // it.
            let lease = unsafe { services.buffers.lease(buffer, length) };
            if matches!(before, State::Armed { .. }) || !planted::is(Bug::LostLateRead) {
                self.push(lease);
            }
        }
        match completion.result {
            1.. => {}
            0 => self.end = Some(End::Eof),
            error if error == -libc::ENOBUFS => {
                services.counters.buffers_exhausted += 1;
                // A cancelled receive may end in this, too: then it is not wanted any more.
                if let State::Armed { fed } = before {
                    self.state = State::Starved;
                    services.starved.push(key, fed);
                }
            }
            // Cancelled, interrupted, or not now: nothing is wrong with the stream.
            error if [libc::ECANCELED, libc::EINTR, libc::EAGAIN].contains(&-error) => {}
            error => self.end = Some(End::error(-error)),
        }
        self.after_event(key, number, services);
    }

    fn after_event(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.bytes > 0 || self.end.is_some() {
            self.waiters.notify(&mut services.effects.wakers);
        } else if self.state == State::Idle && !self.ahead {
            // Who waited out the receive, for slices or to look, goes on by direct receives.
            self.waiters.notify(&mut services.effects.wakers);
        }
        let over = self.bytes >= services.limits.receive_ahead && !self.discarding;
        match self.state {
            // The budget is a high-water mark: what the kernel has already taken still comes. A
            // waiting reader will take it at once, and then needs the receive again.
            State::Armed { .. } if over && self.waiters.is_empty() => {
                self.state = State::Cancelling;
                services.cancel(Kind::Receive, key);
            }
            State::Idle if !over && self.ahead && self.end.is_none() => {
                self.arm(key, number, services);
            }
            _ => {}
        }
    }

    /// Bytes go back in front, for the next read.
    pub(crate) fn unread(&mut self, bytes: Lease) {
        if bytes.is_empty() {
            return;
        }
        self.bytes += bytes.len();
        if self.lent {
            // Nothing is lent while a read stands in line, so these are of a stream that has moved
            // here. What somebody may be looking at has overtaken them, and stays where it is.
            self.rest.get_or_insert_default().push_front(bytes);
        } else if let Some(first) = self.first.replace(bytes) {
            self.rest.get_or_insert_default().push_front(first);
        }
    }

    /// Has the first in line look again.
    pub(super) fn nudge(&mut self, services: &mut Services) {
        self.waiters.notify(&mut services.effects.wakers);
    }

    pub(crate) fn withdraw(&mut self, waiter: WaiterId, services: &mut Services) {
        let (waker, was_first) = self.waiters.strike(waiter);
        services.effects.discard(waker);
        if was_first {
            self.waiters.notify(&mut services.effects.wakers);
        }
    }

    /// An observer is not to be told any more.
    pub(super) fn overlook(&mut self, observer: WaiterId, services: &mut Services) {
        services.effects.discard(self.waiters.overlook(observer));
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::Starved) && self.watch == Watch::Idle
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn has_unread(&self, number: RawFd) -> bool {
        self.bytes > 0 || (self.end.is_none() && call::unread(number) > 0)
    }

    /// Nobody reads any more: what is here and what comes is dropped, until the peer's end.
    pub(super) fn discard(&mut self, key: Key, number: RawFd, services: &mut Services) {
        self.discarding = true;
        self.ahead = true;
        self.paused = false;
        self.clear();
        if self.state == State::Idle && self.end.is_none() {
            self.arm(key, number, services);
        }
    }

    /// Asks for everything in flight to end, for good.
    pub(super) fn end(&mut self, key: Key, services: &mut Services) {
        self.discarding = true;
        self.clear();
        self.end.get_or_insert(End::error(libc::ECANCELED));
        self.quiesce(key, services);
    }

    /// Asks for everything in flight to end, and arms nothing until `resume`.
    pub(super) fn pause(&mut self, key: Key, services: &mut Services) {
        self.paused = true;
        self.quiesce(key, services);
    }

    /// Whoever waits may arm again what he waits for.
    pub(super) fn resume(&mut self, services: &mut Services) {
        self.paused = false;
        self.waiters.notify(&mut services.effects.wakers);
    }

    /// Asks for everything in flight to end. What it brings is kept.
    fn quiesce(&mut self, key: Key, services: &mut Services) {
        self.ahead = false;
        match self.state {
            State::Armed { .. } => {
                self.state = State::Cancelling;
                services.cancel(Kind::Receive, key);
            }
            State::Starved => self.state = State::Idle,
            State::Idle | State::Cancelling => {}
        }
        self.unwatch(key, services);
    }

    fn unwatch(&mut self, key: Key, services: &mut Services) {
        if self.watch == Watch::Armed {
            let at_once = services.end_poll(Kind::WatchReadable, key);
            self.watch = if at_once { Watch::Idle } else { Watch::Cancelling };
        }
    }

    pub(super) fn close(mut self, services: &mut Services) {
        self.clear();
        self.waiters.notify_all(&mut services.effects.wakers);
    }

    /// What a slice may still point to.
    pub(super) fn take_lent(&mut self) -> Option<Lease> {
        if self.lent { self.pop() } else { None }
    }

    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        let mut unread = Vec::with_capacity(self.bytes);
        while let Some(lease) = self.pop() {
            unread.extend_from_slice(&lease);
        }
        unread
    }

    fn arm(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.state != State::Idle || self.paused || (services.closing && !self.discarding) {
            return;
        }
        self.state = State::Armed { fed: false };
        self.unwatch(key, services);
        let request = Request::ReceiveMany(ReceiveMany { descriptor: number });
        // SAFETY: the stream stays on the table, with its descriptor, until this request is
        // terminal; the buffers are the pool's, which outlives the ring.
        unsafe { services.submit(Kind::Receive, key, &request) };
    }

    pub(crate) fn wait<T>(
        &mut self,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<T> {
        services.line_up(&mut self.waiters, waiter, caller)
    }

    /// The reader has what it came for: the next in line may find more.
    #[inline]
    fn served(&mut self, waiter: &mut Option<WaiterId>, services: &mut Services) {
        let Some(id) = waiter.take() else { return };
        let (waker, _) = self.waiters.strike(id);
        services.effects.discard(waker);
        self.waiters.notify(&mut services.effects.wakers);
    }

    fn push(&mut self, lease: Lease) {
        if let State::Armed { fed } = &mut self.state {
            *fed = true;
        }
        if lease.is_empty() || self.discarding {
            return;
        }
        self.bytes += lease.len();
        if self.first.is_none() {
            self.first = Some(lease);
        } else {
            self.rest.get_or_insert_default().push_back(lease);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Lease> {
        self.lent = false;
        let lease = self.first.take()?;
        self.bytes -= lease.len();
        if let Some(rest) = &mut self.rest {
            self.first = rest.pop_front();
        }
        Some(lease)
    }

    /// Answers a reader.
    fn tell(&mut self, end: End) -> io::Result<()> {
        let End::Error(Failure { number, .. }) = end else { return Ok(()) };
        self.end = Some(End::Error(Failure { number, told: true }));
        Err(io::Error::from_raw_os_error(number))
    }

    /// The error that has ended receiving, for another core. The end of the stream itself is told
    /// by the kernel again.
    pub(super) fn failure(&self) -> Option<Failure> {
        let Some(End::Error(failure)) = self.end else { return None };
        Some(failure)
    }

    /// An error that has ended receiving on another core.
    pub(super) fn take_over(&mut self, failure: Option<Failure>) {
        if let Some(failure) = failure {
            self.end = Some(End::Error(failure));
        }
    }

    /// The places of those who wait, all of whom are told, as the stream leaves this core.
    pub(super) fn take_places(&mut self, services: &mut Services) -> Waiters {
        self.waiters.notify_all(&mut services.effects.wakers);
        self.waiters.take_places()
    }

    /// Whether a read with a place of its own stands first.
    pub(super) fn is_led(&self) -> bool {
        self.waiters.is_led()
    }

    pub(super) fn restore_places(&mut self, places: Waiters) {
        self.waiters = places;
    }

    /// A read that has taken a part on another core comes before all others.
    pub(super) fn hold(&mut self) {
        self.waiters.hold();
    }

    fn clear(&mut self) {
        self.first = None;
        self.rest = None;
        self.bytes = 0;
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // Closing hands on what is lent. Without it, as when a core panics, leaking it is the only
        // sound answer.
        if self.lent {
            mem::forget(self.first.take());
        }
    }
}

pub(super) fn submit_watch(kind: Kind, key: Key, number: RawFd, services: &mut Services) {
    let interest =
        if kind == Kind::WatchReadable { Interest::Readable } else { Interest::Writable };
    let poll = request::Poll { descriptor: number, interest, multishot: true };
    // SAFETY: the stream stays on the table, with its descriptor, until this request is terminal.
    unsafe { services.submit(kind, key, &Request::Poll(poll)) };
}
