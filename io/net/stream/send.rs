//! The sending half: what is committed, in order, and at most one send in flight.
//!
//! ```text
//!   send(buffer) ── nothing before it: tried at once ──► all taken: done, nothing was queued
//!        │            (or `batching` says: with others)   │ the rest
//!        └── room ──► committed: owned here, goes out ◄───┘
//!                     whole, even if the future is dropped
//!   write(slice) ── waits until nothing is committed, then direct: what it reports taken, is taken
//! ```
//!
//! Two sends in flight on one socket interleave their bytes, so there is one. A failure is kept:
//! every later write, flush and close says so.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;
use std::task::Poll;

use super::receive::{Watch, submit_watch};
use crate::io::mailbox::{Key, WaiterId};
use crate::io::operation::{self, Operations};
use crate::io::planted::{self, Bug};
use crate::io::request::{self, Completion, Request, SendBytes, call};
use crate::io::services::{Kind, Services};
use crate::io::waiters::{Caller, Waiters};

/// The most that one send offers; the rest follows when it is taken.
const OFFER_MAX: usize = 1 << 30;

/// A committed buffer, whose bytes belong to an operation's payload.
#[derive(Debug)]
struct Outgoing {
    address: *const u8,
    remaining: usize,
    taken: usize,
    operation: Key,
    cancelled: bool,
}

impl Outgoing {
    /// All taken, or stopped by its owner: the count. Else the stream's failure.
    fn outcome(&self, error: i32) -> i64 {
        if self.remaining == 0 || self.cancelled {
            self.taken as i64
        } else {
            -i64::from(if error == 0 { libc::ECONNABORTED } else { error })
        }
    }
}

/// A buffer that shall be committed: where its unsent bytes are, and how many went already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) address: *const u8,
    pub(crate) remaining: usize,
    pub(crate) taken: usize,
}

/// What became of a send that was tried.
#[derive(Debug)]
pub(crate) enum SendNow {
    /// The kernel has every byte.
    Taken,
    /// There is room: commit the buffer. So many bytes went already.
    Room {
        taken: usize,
    },
    /// No room, or others stand before: wait.
    Wait,
    Failed(io::Error),
}

#[derive(Default)]
pub(crate) struct Sending {
    /// There once a send did not go out at once, and from then on.
    backlog: Option<Box<Backlog>>,
    in_flight: bool,
    watch: Watch,
    /// A direct send found the socket full; the watch will tell.
    full: bool,
    ended: bool,
    /// FIN follows the last committed byte.
    finish: bool,
    /// The number of the error that it has failed with, which is below 4096; 0: it has not.
    error: u16,
    /// The stream is about to leave this core: nothing is watched for.
    paused: bool,
}

/// What only a stream knows whose sends had to wait. It stands apart, so that an idle connection
/// does not pay for it, and stays: who waited once will again, and allocates nothing for it then.
#[derive(Default)]
struct Backlog {
    queue: VecDeque<Outgoing>,
    /// Committed bytes that the kernel has not taken.
    bytes: usize,
    waiters: Waiters,
}

impl Sending {
    /// Tries to send a buffer, or finds out what it has to wait for.
    pub(crate) fn try_send(
        &mut self,
        number: RawFd,
        waiter: Option<WaiterId>,
        (bytes, hurries): (&[u8], bool),
        services: &mut Services,
    ) -> SendNow {
        if let Err(error) = self.check() {
            return SendNow::Failed(error);
        }
        if !self.may_go(waiter) || self.bytes() >= services.limits.send_ahead {
            return SendNow::Wait;
        }
        let overtakes = planted::is(Bug::SendOutOfOrder);
        let is_behind = (self.bytes() > 0 || self.in_flight) && !overtakes;
        if is_behind || services.submits_send(hurries) {
            return SendNow::Room { taken: 0 };
        }
        services.direct_calls += 1;
        match call::send(number, bytes) {
            count if count >= 0 && count as usize == bytes.len() => SendNow::Taken,
            count if count >= 0 => SendNow::Room { taken: count as usize },
            error if request::would_block(error) => SendNow::Room { taken: 0 },
            error => SendNow::Failed(self.fail(-error)),
        }
    }

    /// Takes a buffer over: it goes out whole before any later write.
    pub(crate) fn commit(
        &mut self,
        (key, number): (Key, RawFd),
        operation: Key,
        commit: Commit,
        operations: &mut Operations,
        services: &mut Services,
    ) {
        let Commit { address, remaining, taken } = commit;
        let outgoing = Outgoing { address, remaining, taken, operation, cancelled: false };
        let backlog = self.backlog();
        backlog.bytes += remaining;
        backlog.queue.push_back(outgoing);
        self.go_on(key, number, operations, services);
    }

    /// Writes a slice by a direct call, when nothing committed stands before it.
    pub(crate) fn poll_write(
        &mut self,
        (key, number): (Key, RawFd),
        waiter: &mut Option<WaiterId>,
        parts: &[IoSlice<'_>],
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<usize>> {
        if self.may_go(*waiter) {
            match self.write_now((key, number), parts, services) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.served(waiter, services);
                    return Poll::Ready(result);
                }
            }
        }
        self.wait(waiter, caller, services)
    }

    /// Writes what the socket takes at once, if nobody stands in line: writes go out in call order.
    pub(crate) fn try_write(
        &mut self,
        place: (Key, RawFd),
        parts: &[IoSlice<'_>],
        services: &mut Services,
    ) -> io::Result<usize> {
        self.check()?;
        if !self.may_go(None) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.write_now(place, parts, services)
    }

    fn write_now(
        &mut self,
        (key, number): (Key, RawFd),
        parts: &[IoSlice<'_>],
        services: &mut Services,
    ) -> io::Result<usize> {
        self.check()?;
        if self.bytes() > 0 || self.in_flight {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.full {
            self.arm_watch(key, number, services);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        services.direct_calls += 1;
        let result = match parts {
            [part] => call::send(number, part),
            parts => call::send_vectored(number, parts),
        };
        match result {
            count if count >= 0 => Ok(count as usize),
            error if request::would_block(error) => {
                self.full = true;
                self.arm_watch(key, number, services);
                Err(io::ErrorKind::WouldBlock.into())
            }
            error => Err(self.fail(-error)),
        }
    }

    /// Whether everything committed is taken by the kernel.
    pub(crate) fn is_flushed(&self) -> io::Result<bool> {
        self.check().map(|()| !self.has_unsent())
    }

    /// Waits until everything committed is taken by the kernel.
    pub(crate) fn poll_flush(
        &mut self,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<io::Result<()>> {
        match self.is_flushed() {
            Ok(false) => self.wait(waiter, caller, services),
            flushed => {
                self.served(waiter, services);
                Poll::Ready(flushed.map(drop))
            }
        }
    }

    /// Waits until a write would not wait, and takes no place in line.
    pub(crate) fn poll_ready(
        &mut self,
        (key, number): (Key, RawFd),
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<()> {
        let there = self.error != 0 || (!self.has_unsent() && !self.full);
        let backlog = self.backlog.as_deref();
        if there && backlog.is_none_or(|backlog| backlog.waiters.may_look(*waiter)) {
            if let Some(observer) = waiter.take() {
                self.overlook(observer, services);
            }
            return Poll::Ready(());
        }
        if self.full {
            self.arm_watch(key, number, services);
        }
        services.look_out(&mut self.backlog().waiters, waiter, caller)
    }

    /// An observer is not to be told any more.
    pub(super) fn overlook(&mut self, observer: WaiterId, services: &mut Services) {
        let Some(backlog) = &mut self.backlog else { return };
        services.effects.discard(backlog.waiters.overlook(observer));
    }

    /// Waits for room.
    pub(crate) fn wait<T>(
        &mut self,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<T> {
        services.line_up(&mut self.backlog().waiters, waiter, caller)
    }

    /// The writer has what it came for: the next in line may find room too.
    pub(crate) fn served(&mut self, waiter: &mut Option<WaiterId>, services: &mut Services) {
        let Some(id) = waiter.take() else { return };
        self.withdraw(id, services);
    }

    pub(crate) fn withdraw(&mut self, waiter: WaiterId, services: &mut Services) {
        let Some(backlog) = &mut self.backlog else { return };
        let (waker, was_first) = backlog.waiters.strike(waiter);
        services.effects.discard(waker);
        if was_first {
            backlog.waiters.notify(&mut services.effects.wakers);
        }
    }

    /// Stops a committed buffer. What the kernel has taken stays taken; the count comes with the
    /// operation's outcome, at once when the buffer was only queued.
    pub(crate) fn cancel(
        &mut self,
        (key, number): (Key, RawFd),
        operation: Key,
        operations: &mut Operations,
        services: &mut Services,
    ) {
        let Some(Backlog { queue, bytes, .. }) = self.backlog.as_deref_mut() else { return };
        let Some(place) = queue.iter().position(|outgoing| outgoing.operation == operation) else {
            return;
        };
        if place == 0 && self.in_flight {
            queue[0].cancelled = true;
            services.cancel(Kind::Send, key);
            return;
        }
        let outgoing = queue.remove(place).expect("just found");
        *bytes -= outgoing.remaining;
        operation::finish(operations, operation, outgoing.taken as i64, services);
        self.go_on(key, number, operations, services);
    }

    /// A completion of the send.
    pub(crate) fn on_send(
        &mut self,
        key: Key,
        number: RawFd,
        completion: Completion,
        operations: &mut Operations,
        services: &mut Services,
    ) {
        self.in_flight = false;
        let Backlog { queue, bytes, .. } = self.backlog();
        let front = queue.front_mut().expect("what is in flight stands first");
        match completion.result {
            count if count >= 0 => {
                let count = (count as usize).min(front.remaining);
                // SAFETY: within the buffer: the kernel has taken that many bytes of it.
                front.address = unsafe { front.address.add(count) };
                front.remaining -= count;
                front.taken += count;
                *bytes -= count;
            }
            error if [libc::ECANCELED, libc::EINTR, libc::EAGAIN].contains(&-error) => {}
            error => {
                self.fail(-error);
            }
        }
        self.go_on(key, number, operations, services);
    }

    /// Retires what is finished, submits what is next, and tells who waits.
    fn go_on(
        &mut self,
        key: Key,
        number: RawFd,
        operations: &mut Operations,
        services: &mut Services,
    ) {
        while let Some(Backlog { queue, bytes, .. }) = self.backlog.as_deref_mut() {
            let Some(front) = queue.front() else { break };
            let over = front.remaining == 0 || front.cancelled || self.ended;
            if self.in_flight || !(over || self.error != 0) {
                break;
            }
            let front = queue.pop_front().expect("just seen");
            *bytes -= front.remaining;
            let outcome = front.outcome(self.error());
            operation::finish(operations, front.operation, outcome, services);
        }
        let front = self.backlog.as_ref().and_then(|backlog| backlog.queue.front());
        if let (Some(front), false) = (front, self.in_flight) {
            self.in_flight = true;
            let length = front.remaining.min(OFFER_MAX) as u32;
            let request = SendBytes { descriptor: number, address: front.address, length };
            // SAFETY: the operation's payload owns the bytes until `finish`, which comes only after
            // this request's completion; the stream keeps the descriptor.
            unsafe { services.submit(Kind::Send, key, &Request::SendBytes(request)) };
        }
        if self.finish && !self.has_unsent() {
            self.finish(number);
        }
        if self.error != 0 || self.bytes() < services.limits.send_ahead {
            self.notify(services);
        }
    }

    /// Nothing will be written any more: FIN goes out after what is committed.
    pub(crate) fn finish(&mut self, number: RawFd) {
        self.finish = true;
        // What has ended may have been cut off: FIN after a part would pass for the end of the
        // whole. The close tells the peer.
        if !self.has_unsent() && !self.ended {
            // A connection that is already down has nothing to finish.
            let _ = call::shutdown(number, std::net::Shutdown::Write);
        }
    }

    /// A completion of the watch.
    pub(crate) fn on_writable(&mut self, completion: Completion, services: &mut Services) {
        if completion.is_terminal() {
            self.watch = Watch::Idle;
        }
        match completion.result {
            cancelled if cancelled == -libc::ECANCELED => {}
            // Refused: nothing would ever tell a writer to try again.
            error @ ..0 if self.error == 0 => {
                self.fail(-error);
            }
            _ => self.full = false,
        }
        self.notify(services);
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.in_flight && self.watch == Watch::Idle
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.error == 0 && (self.bytes() > 0 || self.in_flight)
    }

    /// Nothing will be sent any more, and what is in flight was asked to end.
    #[inline]
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn has_failed(&self) -> bool {
        self.error != 0
    }

    pub(super) fn error(&self) -> i32 {
        self.error.into()
    }

    /// How sending has failed on another core; 0: it has not.
    pub(super) fn take_over(&mut self, error: i32) {
        if error != 0 {
            self.fail(error);
        }
    }

    /// Asks for everything in flight to end, for good.
    pub(super) fn end(&mut self, key: Key, services: &mut Services) {
        self.ended = true;
        if self.in_flight {
            services.cancel(Kind::Send, key);
        }
        self.unwatch(key, services);
    }

    /// Asks for what is watched for to end, and watches for nothing until `resume`.
    pub(super) fn pause(&mut self, key: Key, services: &mut Services) {
        self.paused = true;
        self.unwatch(key, services);
    }

    /// Whoever waits may watch again.
    pub(super) fn resume(&mut self, services: &mut Services) {
        self.paused = false;
        self.notify(services);
    }

    fn unwatch(&mut self, key: Key, services: &mut Services) {
        if self.watch == Watch::Armed {
            let at_once = services.end_poll(Kind::WatchWritable, key);
            self.watch = if at_once { Watch::Idle } else { Watch::Cancelling };
        }
    }

    /// The places of those who wait, all of whom are told, as the stream leaves this core.
    pub(super) fn take_places(&mut self, services: &mut Services) -> Waiters {
        let Some(backlog) = &mut self.backlog else { return Waiters::default() };
        backlog.waiters.notify_all(&mut services.effects.wakers);
        backlog.waiters.take_places()
    }

    pub(super) fn restore_places(&mut self, places: Waiters) {
        if !places.is_empty() {
            self.backlog().waiters = places;
        }
    }

    /// Off the table: nothing is in flight any more. What was never offered is told so.
    pub(super) fn close(self, operations: &mut Operations, services: &mut Services) {
        let Some(mut backlog) = self.backlog else { return };
        backlog.waiters.notify_all(&mut services.effects.wakers);
        for outgoing in backlog.queue {
            let outcome = outgoing.outcome(self.error.into());
            operation::finish(operations, outgoing.operation, outcome, services);
        }
    }

    fn backlog(&mut self) -> &mut Backlog {
        self.backlog.get_or_insert_default()
    }

    /// Committed bytes that the kernel has not taken.
    #[inline]
    fn bytes(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    /// Whether `waiter` may be served now.
    #[inline]
    fn may_go(&self, waiter: Option<WaiterId>) -> bool {
        self.backlog.as_ref().is_none_or(|backlog| backlog.waiters.may_go(waiter))
    }

    fn notify(&mut self, services: &mut Services) {
        if let Some(backlog) = &mut self.backlog {
            backlog.waiters.notify(&mut services.effects.wakers);
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(self.error.into())) }
    }

    fn fail(&mut self, error: i32) -> io::Error {
        self.error = u16::try_from(error).expect("an error number is small, and positive");
        io::Error::from_raw_os_error(error)
    }

    fn arm_watch(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.watch == Watch::Idle && !self.paused {
            self.watch = Watch::Armed;
            submit_watch(Kind::WatchWritable, key, number, services);
        }
    }
}
