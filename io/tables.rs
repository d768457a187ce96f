//! The tables of one core: what every completion, timer and message is about.
//!
//! ```text
//!   completion  ──► dispatch   ─┐ a token names kind and key
//!   timer       ──► on_timer   ─┼──► stream, listener or operation ──► settle: off the table when
//!   other cores ──► on_message ─┘                                     closed and let go of
//! ```
//!
//! A resource leaves its table only when it is closed and no request of it is in flight; then the
//! ring forgets the descriptor's number, and only then is it closed. In another order a number that
//! is used again would be served by what the ring remembers of the old one.

use std::collections::BTreeMap;
use std::os::fd::IntoRawFd;
use std::task::Poll;

use crate::io::async_fd::foreign::Foreign;
use crate::io::mailbox::{Key, Message, Wait, WaiterId};
use crate::io::net::listener::Listener;
use crate::io::net::stream::{Away, Farewell, Remains, Stream};
use crate::io::operation::{self, Operations};
use crate::io::request::{Completion, Interest, Token};
use crate::io::services::{Kind, Services};
use crate::io::slab::Slab;
use crate::io::waiters::Caller;

/// The tables of one core, borrowed together.
pub(crate) struct Tables {
    pub(crate) services: Services,
    pub(crate) streams: Slab<Stream>,
    pub(crate) listeners: Slab<Listener>,
    pub(crate) foreign: Slab<Foreign>,
    pub(crate) operations: Operations,
    /// The lines of streams that have left with futures waiting, under the names that these know.
    away: BTreeMap<Key, Away>,
}

impl Tables {
    pub(crate) fn new(services: Services) -> Self {
        let (streams, listeners, foreign) = (Slab::new(), Slab::new(), Slab::new());
        let operations = Slab::new();
        Self { services, streams, listeners, foreign, operations, away: BTreeMap::new() }
    }

    /// A stream is bound to this core; `before` is what it was called when this core had it last,
    /// and none had it since. To be followed by `collect`, which is to be told what this answers:
    /// whether a read that is half-way stands first.
    pub(crate) fn insert_stream(&mut self, before: Option<Key>, mut stream: Stream) -> (Key, bool) {
        let away = before.and_then(|key| Some((key, self.away.remove(&key)?)));
        let Some((key, away)) = away else { return (self.streams.insert(stream), false) };
        let holder_stands = stream.come_back(away);
        self.streams.put_back(key, stream);
        (key, holder_stands)
    }

    /// A stream with nothing in flight leaves this core.
    pub(crate) fn part_stream(&mut self, key: Key) -> Option<Remains> {
        let mut stream = self.streams.take(key)?;
        let (remains, away) = stream.part(&mut self.services);
        if away.is_empty() {
            self.streams.give_up(key);
        } else {
            self.away.insert(key, away);
        }
        self.services.ring.forget(stream.number());
        stream.close(&mut self.operations, &mut self.services);
        Some(remains)
    }

    fn withdraw(&mut self, key: Key, wait: Wait, waiter: WaiterId) {
        if let Some(stream) = self.streams.get_mut(key) {
            return stream.withdraw(wait, waiter, &mut self.services);
        }
        let Some(away) = self.away.get_mut(&key) else { return };
        away.withdraw(wait, waiter);
        if away.is_empty() {
            self.away.remove(&key);
            self.streams.give_up(key);
        }
    }

    pub(crate) fn replenish(&mut self) {
        self.services.replenish();
        if !self.services.starved.is_empty() {
            self.feed_starved();
        }
    }

    /// Streams that found no buffer get their turn before the core sleeps: leases that tasks have
    /// just returned would otherwise leave them waiting for an unrelated event.
    ///
    /// No more of them at once than there are buffers: each of the others would find none again,
    /// and a submission and a completion would have been for nothing.
    fn feed_starved(&mut self) {
        let free = self.services.buffers.free();
        let most = if free == 0 { usize::MAX } else { free };
        // Who finds nothing again goes to the back, and is not asked twice.
        let (empty, fed) = self.services.starved.counts();
        for turn in 0..(empty + fed).min(most) {
            let Some(key) = self.services.starved.pop(turn >= empty) else { break };
            if let Some(stream) = self.streams.get_mut(key) {
                stream.feed(key, &mut self.services);
                // A closing stream may have met its peer's end by this.
                self.settle_stream(key);
            }
        }
        let starved = !self.services.starved.is_empty();
        self.services.buffers.set_starved(starved);
    }

    /// A stream waits for a buffer, and there are some: the core must not sleep.
    pub(crate) fn can_feed(&self) -> bool {
        !self.services.starved.is_empty() && self.services.buffers.free() > 0
    }

    #[inline]
    pub(crate) fn dispatch(&mut self, completion: Completion) {
        if completion.result < 0 {
            self.services.errors.count(-completion.result);
        }
        let Some((kind, key)) = Kind::of(completion.token) else {
            return self.on_stranger(completion);
        };
        let services = &mut self.services;
        match kind {
            Kind::Receive | Kind::WatchReadable | Kind::WatchWritable | Kind::Send => {
                let Some(stream) = self.streams.get_mut(key) else {
                    return self.on_stranger(completion);
                };
                let operations = &mut self.operations;
                match kind {
                    Kind::Receive => stream.on_receive(key, completion, services),
                    Kind::Send => stream.on_send(key, completion, operations, services),
                    Kind::WatchReadable => stream.on_readable(completion, services),
                    _ => stream.on_writable(completion, services),
                }
                if !stream.stays() {
                    self.settle_stream(key);
                }
            }
            Kind::Accept => {
                let Some(listener) = self.listeners.get_mut(key) else {
                    return self.on_stranger(completion);
                };
                listener.on_accept(key, completion, services);
                self.settle_listener(key);
            }
            Kind::ForeignReadable | Kind::ForeignWritable => {
                let Some(foreign) = self.foreign.get_mut(key) else {
                    return self.on_stranger(completion);
                };
                let interest = match kind {
                    Kind::ForeignReadable => Interest::Readable,
                    _ => Interest::Writable,
                };
                foreign.on_poll(interest, completion, services);
                self.settle_foreign(key);
            }
            Kind::Operation => {
                let outcome = i64::from(completion.result);
                operation::finish(&mut self.operations, key, outcome, services);
            }
            Kind::Linger | Kind::AcceptAgain => self.on_stranger(completion),
        }
    }

    /// A completion that nobody knows is counted and left alone, but a buffer that it lends is ours
    /// to give back.
    fn on_stranger(&mut self, completion: Completion) {
        self.services.counters.unknown_completions += 1;
        if let Some(buffer) = completion.flags.buffer() {
            // SAFETY: the completion says that the kernel lends us this buffer.
            drop(unsafe { self.services.buffers.lease(buffer, 0) });
        }
    }

    pub(crate) fn on_timer(&mut self, token: Token) {
        match Kind::of(token) {
            Some((Kind::Linger, key)) => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.on_linger_over(key, &mut self.services);
                    self.settle_stream(key);
                }
            }
            Some((Kind::AcceptAgain, key)) => {
                if let Some(listener) = self.listeners.get_mut(key) {
                    listener.on_back_off_over(key, &mut self.services);
                }
            }
            other => panic!("no such timer: {other:?}"),
        }
    }

    pub(crate) fn on_message(&mut self, message: Message) {
        match message {
            Message::ReleaseStream(key) => self.release_stream(key),
            Message::FinishStream(key) => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.send.finish(stream.number());
                }
            }
            Message::ReleaseListener(key) => self.release_listener(key),
            Message::ReleaseForeign(key) => self.release_foreign(key),
            Message::ReleaseOperation(key) => self.release_operation(key),
            Message::Withdraw { key, wait: Wait::Accept, waiter } => {
                if let Some(listener) = self.listeners.get_mut(key) {
                    listener.withdraw(waiter, &mut self.services);
                }
            }
            Message::Withdraw { key, wait: Wait::Incoming, waiter } => {
                if let Some(listener) = self.listeners.get_mut(key) {
                    listener.overlook(waiter, &mut self.services);
                }
            }
            Message::Withdraw { key, wait: Wait::ForeignReadable, waiter } => {
                if let Some(foreign) = self.foreign.get_mut(key) {
                    foreign.overlook(Interest::Readable, waiter, &mut self.services);
                }
            }
            Message::Withdraw { key, wait: Wait::ForeignWritable, waiter } => {
                if let Some(foreign) = self.foreign.get_mut(key) {
                    foreign.overlook(Interest::Writable, waiter, &mut self.services);
                }
            }
            Message::Withdraw { key, wait: Wait::ForeignIdle, waiter } => {
                if let Some(foreign) = self.foreign.get_mut(key) {
                    foreign.stays(waiter, &mut self.services);
                }
            }
            Message::Withdraw { key, wait, waiter } => self.withdraw(key, wait, waiter),
            Message::GivenBack { key, waiter } => self.collect(key, waiter, false),
            Message::AbortStream(key) => self.abort_stream(key),
            Message::Linger(farewell) => self.linger(farewell),
            Message::RemoveTimer(timer) => self.services.stop_timer(Some(timer)),
            Message::Complete { token, result, opened } => {
                // From here on the outcome owns it.
                let _ = opened.map(IntoRawFd::into_raw_fd);
                let completion = self.services.ring.complete_from_pool(Token(token), result);
                self.dispatch(completion);
            }
        }
    }

    /// Puts a future in its line, though it asks for nothing yet.
    #[cold]
    pub(crate) fn enrol(
        &mut self,
        key: Key,
        wait: Wait,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
    ) {
        let services = &mut self.services;
        // Who only looks stands in no line. Who moves a resource does so only once it is being
        // quiesced.
        if !matches!(wait, Wait::Accept | Wait::Read | Wait::Write) {
            return;
        }
        if wait == Wait::Accept {
            if let Some(listener) = self.listeners.get_mut(key) {
                let _: Poll<()> = listener.wait(waiter, caller, services);
            }
        } else if let Some(stream) = self.streams.get_mut(key) {
            let _: Poll<()> = match wait {
                Wait::Read => stream.receive.wait(waiter, caller, services),
                Wait::Write | Wait::Accept => stream.send.wait(waiter, caller, services),
                _ => Poll::Pending,
            };
        }
    }

    pub(crate) fn release_operation(&mut self, key: Key) {
        operation::release(&mut self.operations, key, &mut self.services);
    }

    pub(crate) fn release_stream(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.release(key, &mut self.services);
            self.settle_stream(key);
        }
    }

    pub(crate) fn abort_stream(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.abort(key, &mut self.services);
            self.settle_stream(key);
        }
    }

    /// A stream takes over what its socket has kept for it.
    pub(crate) fn collect(&mut self, key: Key, waiter: Option<WaiterId>, holder_stands: bool) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.collect(waiter, holder_stands, &mut self.services);
        } else if let Some(waiter) = waiter {
            // It has left, and so did its socket: only the place was here.
            self.withdraw(key, Wait::Read, waiter);
        }
    }

    /// Ends a stream that has no handle and was on no core. A core that is ending takes on nothing:
    /// then dropping it is the end.
    pub(crate) fn linger(&mut self, farewell: Farewell) {
        if !self.services.closing {
            let key = self.streams.insert(Stream::new(farewell.take()));
            self.collect(key, None, false);
            self.release_stream(key);
        }
    }

    pub(crate) fn release_listener(&mut self, key: Key) {
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.release(key, &mut self.services);
            self.settle_listener(key);
        }
    }

    pub(crate) fn release_foreign(&mut self, key: Key) {
        if let Some(foreign) = self.foreign.get_mut(key) {
            foreign.release(key, &mut self.services);
            self.settle_foreign(key);
        }
    }

    fn settle_foreign(&mut self, key: Key) {
        if self.foreign.get_mut(key).is_some_and(|foreign| foreign.is_over()) {
            self.close_foreign(key);
        }
    }

    /// Takes a foreign descriptor off the table: none of its polls is in flight. Its file may stay
    /// open elsewhere, so the ring has to be told while our number is open.
    pub(crate) fn close_foreign(&mut self, key: Key) {
        if let Some(foreign) = self.foreign.remove(key) {
            self.services.ring.unwatch(foreign.number());
            foreign.close(&mut self.services);
        }
    }

    /// Takes a stream off the table when it is closed and the kernel has let go of it.
    pub(crate) fn settle_stream(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.settle(key, &mut self.services) {
            return;
        }
        let stream = self.streams.remove(key).expect("just seen");
        self.services.ring.forget(stream.number());
        stream.close(&mut self.operations, &mut self.services);
    }

    pub(crate) fn settle_listener(&mut self, key: Key) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if !listener.is_over() {
            return;
        }
        let listener = self.listeners.remove(key).expect("just seen");
        self.services.ring.forget(listener.number());
        listener.close(&mut self.operations, &mut self.services);
    }

    /// Lets go of every resource as if its last handle had been dropped.
    pub(crate) fn close_all(&mut self) {
        self.services.closing = true;
        for key in self.listeners.keys() {
            self.release_listener(key);
        }
        for key in self.foreign.keys() {
            self.release_foreign(key);
        }
        for key in self.streams.keys() {
            self.release_stream(key);
        }
    }

    /// The core is gone, for others, with what the kernel still holds.
    pub(crate) fn strand_all(&mut self) {
        operation::strand_all(&mut self.operations, &mut self.services);
    }

    /// Connections that wait for an `accept`.
    pub(crate) fn accept_queue(&mut self) -> usize {
        let keys = self.listeners.keys().into_iter();
        keys.map(|key| self.listeners.get_mut(key).map_or(0, |listener| listener.queued())).sum()
    }

    /// Asks the kernel to end everything that is still in flight.
    pub(crate) fn cancel_all(&mut self) -> usize {
        let before = self.services.ring.in_flight();
        for key in self.streams.keys() {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.on_linger_over(key, &mut self.services);
                self.settle_stream(key);
            }
        }
        for key in self.operations.keys() {
            self.services.cancel(Kind::Operation, key);
            self.release_operation(key);
        }
        before
    }
}
