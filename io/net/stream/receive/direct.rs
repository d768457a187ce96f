//! Reads into slices: what waits in leases first, else a direct receive, told by a watch when to
//! try.
//!
//! ```text
//!                 received less than asked for, or nothing
//!     ┌────────────────────────────────────────────────────────────────┐
//!     │                                                                ▼
//!   READY: a direct receive may find something           not ready: the watch is armed
//!     ▲                                                                │
//!     └──────────────────────── the watch tells ───────────────────────┘
//! ```
//!
//! The watch tells of each change once. So what it said of the peer's end is kept: from then on a
//! short answer is no sign of an empty socket, and only the end itself, or "not now", is believed.

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;
use std::task::Poll;

use super::{End, Receiving, State, Watch, submit_watch};
use crate::io::mailbox::{Key, WaiterId};
use crate::io::request::{self, Completion, call};
use crate::io::services::{Kind, Services};
use crate::io::waiters::Caller;

impl Receiving {
    /// Reads into a slice. With `keep_place` the reader stays first in line, for reads that want
    /// more than one call gives.
    pub(crate) fn poll_slice(
        &mut self,
        key: Key,
        number: RawFd,
        (waiter, keep_place): (&mut Option<WaiterId>, bool),
        into: &mut [MaybeUninit<u8>],
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<usize>> {
        if self.waiters.may_go(*waiter) {
            match self.try_slice(key, number, into, services) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    if keep_place && result.is_ok() {
                        // Not to wait: it will ask again, or end.
                        self.waiters.keep(services.waiter(waiter));
                    } else {
                        self.served(waiter, services);
                    }
                    return Poll::Ready(result);
                }
            }
        }
        self.wait(waiter, caller, services)
    }

    /// Reads what is there, if nobody stands in line: a `read_exact` that has taken a part may
    /// still have to put it back, and what was given out past it would then have overtaken.
    pub(crate) fn try_read(
        &mut self,
        key: Key,
        number: RawFd,
        into: &mut [MaybeUninit<u8>],
        services: &mut Services,
    ) -> io::Result<usize> {
        if !self.waiters.may_go(None) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Without a watch nobody has told of what has come since: this is the one to look.
        self.ready |= self.watch == Watch::Idle;
        self.try_slice(key, number, into, services)
    }

    /// Reads what is there. `WouldBlock` arms what will tell when to try again.
    fn try_slice(
        &mut self,
        key: Key,
        number: RawFd,
        into: &mut [MaybeUninit<u8>],
        services: &mut Services,
    ) -> io::Result<usize> {
        if self.bytes > 0 {
            let count = self.copy(into, true);
            if self.ahead
                && self.state == State::Idle
                && self.bytes <= services.limits.receive_ahead / 2
                && self.end.is_none()
            {
                self.arm(key, number, services);
            }
            return Ok(count);
        }
        if let Some(end) = self.end {
            return self.tell(end).map(|()| 0);
        }
        if self.state != State::Idle {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.ready {
            self.arm_watch(key, number, services);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        services.direct_calls += 1;
        let result = call::receive(number, into, false);
        self.after_direct(key, number, result, into.len(), services)
    }

    /// Looks at what is there without taking it.
    pub(crate) fn poll_peek(
        &mut self,
        key: Key,
        number: RawFd,
        waiter: &mut Option<WaiterId>,
        into: &mut [MaybeUninit<u8>],
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<usize>> {
        if self.waiters.may_go(*waiter) {
            let peeked = if self.bytes > 0 {
                Ok(self.copy(into, false))
            } else if let Some(end) = self.end {
                self.tell(end).map(|()| 0)
            } else if self.state == State::Idle && self.ready {
                services.direct_calls += 1;
                match call::receive(number, into, true) {
                    0 => Ok(0),
                    count if count > 0 => Ok(count as usize),
                    // The kernel tells an error once, to a peek too: it is kept for the read.
                    error => self.after_direct(key, number, error, into.len(), services),
                }
            } else {
                if self.state == State::Idle {
                    self.arm_watch(key, number, services);
                }
                Err(io::ErrorKind::WouldBlock.into())
            };
            if !peeked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.served(waiter, services);
                return Poll::Ready(peeked);
            }
        }
        self.wait(waiter, caller, services)
    }

    /// Waits until a read would not wait, and takes no place in line.
    pub(crate) fn poll_ready(
        &mut self,
        key: Key,
        number: RawFd,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<()> {
        let direct = self.state == State::Idle && self.ready && self.watch == Watch::Armed;
        let there = self.bytes > 0 || self.end.is_some() || direct;
        if there && self.waiters.may_look(*waiter) {
            if let Some(observer) = waiter.take() {
                self.overlook(observer, services);
            }
            return Poll::Ready(());
        }
        if self.state == State::Idle && !there {
            // The watch answers at once when something is there already.
            self.ready = false;
            self.arm_watch(key, number, services);
        }
        services.look_out(&mut self.waiters, waiter, caller)
    }

    /// A completion of the watch.
    pub(crate) fn on_readable(&mut self, completion: Completion, services: &mut Services) {
        if completion.is_terminal() {
            self.watch = Watch::Idle;
        }
        match completion.result {
            cancelled if cancelled == -libc::ECANCELED => {}
            // Refused: nothing would ever tell a reader to try again.
            error @ ..0 => self.end = self.end.or(Some(End::error(-error))),
            events => {
                self.ready = true;
                self.hung_up |= events & request::HANG_UP != 0;
            }
        }
        if self.state == State::Starved {
            return;
        }
        self.waiters.notify(&mut services.effects.wakers);
    }

    /// What a direct receive came to.
    fn after_direct(
        &mut self,
        key: Key,
        number: RawFd,
        result: i32,
        asked: usize,
        services: &mut Services,
    ) -> io::Result<usize> {
        match result {
            error if request::would_block(error) => {
                self.ready = false;
                self.arm_watch(key, number, services);
                Err(io::ErrorKind::WouldBlock.into())
            }
            0 => {
                self.end = Some(End::Eof);
                Ok(0)
            }
            count if count > 0 => {
                let count = count as usize;
                // A short answer emptied the socket, so asking again at once is a wasted call. The
                // watch tells: of the next bytes if it is armed, and else, when the next read arms
                // it, of what has come by then.
                if count < asked && self.watch != Watch::Cancelling && !self.hung_up {
                    self.ready = false;
                }
                Ok(count)
            }
            error => {
                let end = *self.end.insert(End::error(-error));
                self.tell(end).map(|()| 0)
            }
        }
    }

    pub(super) fn arm_watch(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.watch == Watch::Idle && !self.paused {
            self.watch = Watch::Armed;
            submit_watch(Kind::WatchReadable, key, number, services);
        }
    }

    /// Copies from the front, as far as it goes.
    fn copy(&mut self, into: &mut [MaybeUninit<u8>], take: bool) -> usize {
        let mut count = 0;
        if !take {
            let rest = self.rest.iter().flat_map(|rest| rest.iter());
            for lease in self.first.iter().chain(rest) {
                count += copy_front(&mut into[count..], lease);
            }
            return count;
        }
        self.lent = false;
        while let Some(first) = &mut self.first {
            let copied = copy_front(&mut into[count..], first);
            if copied == 0 {
                break;
            }
            count += copied;
            if copied == first.len() {
                self.pop();
            } else {
                first.advance(copied);
                self.bytes -= copied;
            }
        }
        count
    }
}

fn copy_front(into: &mut [MaybeUninit<u8>], from: &[u8]) -> usize {
    let count = into.len().min(from.len());
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and any byte is a valid one.
    let from = unsafe { mem::transmute::<&[u8], &[MaybeUninit<u8>]>(&from[..count]) };
    into[..count].copy_from_slice(from);
    count
}
