//! A connected stream: it owns at most one receive and one send in flight, what has been received
//! and not taken, and what is committed and not sent.
//!
//! ```text
//!           last handle dropped
//!   Open ─────────────────────► Sending ──► Lingering ──► Ending ──► off the table, closed
//!                                  │  committed  FIN sent,   cancelled,   every request terminal,
//!                                  │  bytes go   input       waiting for  then forget the number,
//!                                  │  out        discarded   the kernel   then close it
//!                                  └── nothing unsent, nothing unread: straight to Ending
//! ```
//!
//! When the linger time passes with bytes unsent, the close is a reset: an orderly end would make
//! the part that went out look like the whole.
//!
//! The order at the end is the only right one: a number that is closed with a receive armed sends
//! no FIN, and a number that the engine still knows may soon serve a stranger.

mod receive;
mod send;
mod socket;

use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Poll;

pub(crate) use self::receive::Receiving;
pub(crate) use self::send::{Commit, SendNow, Sending};
pub(crate) use self::socket::{Farewell, Remains, Socket};
use crate::io::buffer::Lease;
use crate::io::mailbox::{Key, Wait, WaiterId};
use crate::io::operation::{self, Operations};
use crate::io::request::{Completion, call};
use crate::io::services::{Kind, Services};
use crate::io::timers::TimerKey;
use crate::io::waiters::{Caller, HOLDER, Waiters};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Sending,
    Lingering,
    Ending,
}

pub(crate) struct Stream {
    socket: Arc<Socket>,
    pub(crate) receive: Receiving,
    pub(crate) send: Sending,
    phase: Phase,
    /// Who waits to take the stream off this core. Meanwhile nothing new is armed.
    movers: Option<Box<Waiters>>,
    closing: Option<Box<Closing>>,
}

/// What only a stream knows whose end takes time, or is waited for. It stands apart, so that an
/// idle connection does not pay for it.
#[derive(Default)]
struct Closing {
    linger: Option<TimerKey>,
    /// Who waits for the close.
    told: Option<Key>,
    error: i32,
    /// It ends with bytes unsent.
    cut_off: bool,
}

impl Stream {
    /// To be followed by `collect`, once the handle says that the stream is here.
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self {
            socket,
            receive: Receiving::default(),
            send: Sending::default(),
            phase: Phase::Open,
            movers: None,
            closing: None,
        }
    }

    fn closing(&mut self) -> &mut Closing {
        self.closing.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn number(&self) -> RawFd {
        self.socket.number()
    }

    /// No request is in flight: the kernel holds nothing of this stream.
    fn is_idle(&self) -> bool {
        self.receive.is_idle() && self.send.is_idle()
    }

    /// A read ends and gives back what it had taken: it leaves the line, at `waiter` or, if the
    /// stream has moved since, at the place that was kept for it.
    pub(crate) fn give_back(
        &mut self,
        waiter: Option<WaiterId>,
        bytes: Vec<u8>,
        services: &mut Services,
    ) {
        self.receive.unread(Lease::from_vec(bytes));
        self.receive.withdraw(HOLDER, services);
        match waiter {
            Some(waiter) => self.receive.withdraw(waiter, services),
            // It stood in no line: others may be waiting for bytes.
            None => self.receive.nudge(services),
        }
    }

    /// Takes over what the socket has kept: from another core, or given back elsewhere.
    pub(crate) fn collect(&mut self, waiter: Option<WaiterId>, services: &mut Services) {
        let (Remains { unread, received, sent }, held) = self.socket.take();
        self.receive.take_over(received);
        self.send.take_over(sent);
        if held {
            self.receive.unread(Lease::from_vec(unread));
            self.receive.hold();
        } else {
            self.give_back(waiter, unread, services);
        }
    }

    /// Before received bytes are dropped: a slice may still point to those that were lent, for as
    /// long as the handle lives. It shares the socket with us.
    fn keep_lent(&mut self) {
        if let Some(lease) = self.receive.take_lent() {
            self.socket.keep_lent(lease);
        }
    }

    #[inline]
    pub(crate) fn on_receive(&mut self, key: Key, completion: Completion, services: &mut Services) {
        self.receive.on_receive(key, self.socket.number(), completion, services);
    }

    pub(crate) fn on_readable(&mut self, completion: Completion, services: &mut Services) {
        self.receive.on_readable(completion, services);
    }

    pub(crate) fn on_writable(&mut self, completion: Completion, services: &mut Services) {
        self.send.on_writable(completion, services);
        if completion.is_terminal() {
            // Who waits until nothing is in flight, to detach, stands in the other line.
            self.receive.nudge(services);
        }
    }

    pub(crate) fn on_send(
        &mut self,
        key: Key,
        completion: Completion,
        operations: &mut Operations,
        services: &mut Services,
    ) {
        self.send.on_send(key, self.socket.number(), completion, operations, services);
    }

    pub(crate) fn feed(&mut self, key: Key, services: &mut Services) {
        self.receive.feed(key, self.socket.number(), services);
    }

    /// A waiting future was dropped. If it stood first, the wake it may have had passes on.
    pub(crate) fn withdraw(&mut self, wait: Wait, waiter: WaiterId, services: &mut Services) {
        match wait {
            Wait::Read => self.receive.withdraw(waiter, services),
            Wait::Readable => self.receive.overlook(waiter, services),
            Wait::Write | Wait::Accept => self.send.withdraw(waiter, services),
            Wait::Writable => self.send.overlook(waiter, services),
            Wait::Idle => {
                let Some(movers) = &mut self.movers else { return };
                let (waker, _) = movers.strike(waiter);
                services.effects.discard(waker);
                if movers.is_empty() {
                    self.movers = None;
                    self.receive.resume(services);
                    self.send.resume(services);
                } else {
                    movers.notify(&mut services.effects.wakers);
                }
            }
        }
    }

    /// The last handle is gone: send what is committed, tell the peer, and close.
    pub(crate) fn release(&mut self, key: Key, services: &mut Services) {
        if self.phase == Phase::Open {
            self.phase = Phase::Sending;
            self.advance(key, services);
        }
    }

    /// As `release`, and `closing` is told when it is over.
    pub(crate) fn release_for(&mut self, key: Key, closing: Key, services: &mut Services) {
        self.closing().told = Some(closing);
        self.release(key, services);
    }

    /// Resets the connection now.
    pub(crate) fn abort(&mut self, key: Key, services: &mut Services) {
        // A socket that is not connected any more has nothing to reset.
        let _ = call::reset_on_close(self.number());
        self.end(key, services);
    }

    /// The next step of closing, as far as it goes now.
    fn advance(&mut self, key: Key, services: &mut Services) {
        if self.phase == Phase::Sending {
            let unsent = self.send.has_unsent();
            if (unsent || self.receive.has_unread(self.number())) && !self.send.has_failed() {
                if self.closing().linger.is_none() {
                    let linger = self.socket.linger();
                    let timer = services.start_timer(Kind::Linger, key, linger);
                    self.closing().linger = Some(timer);
                }
                if unsent {
                    return;
                }
                self.phase = Phase::Lingering;
                if call::shutdown(self.number(), Shutdown::Write).is_ok() {
                    self.keep_lent();
                    self.receive.discard(key, self.socket.number(), services);
                } else {
                    self.end(key, services);
                }
            } else {
                if self.send.has_failed() {
                    self.closing().error = self.send.error();
                }
                self.end(key, services);
            }
        }
        if self.phase == Phase::Lingering && self.receive.has_ended() {
            self.end(key, services);
        }
    }

    fn end(&mut self, key: Key, services: &mut Services) {
        if self.phase == Phase::Ending {
            return;
        }
        self.phase = Phase::Ending;
        if let Some(closing) = &mut self.closing {
            services.stop_timer(closing.linger.take());
        }
        self.keep_lent();
        self.receive.end(key, services);
        self.send.end(key, services);
    }

    /// Lingering took too long, or the core is closing.
    pub(crate) fn on_linger_over(&mut self, key: Key, services: &mut Services) {
        if self.send.has_unsent() {
            // FIN after a part would pass for the end of the whole. A socket that is not connected
            // any more has nothing to reset.
            let _ = call::reset_on_close(self.number());
            self.closing().cut_off = true;
        }
        if self.send.has_unsent() || self.phase == Phase::Lingering {
            self.closing().error = libc::ETIMEDOUT;
        }
        self.end(key, services);
    }

    /// After any event: takes the next step of closing. `true` when the stream can go.
    pub(crate) fn settle(&mut self, key: Key, services: &mut Services) -> bool {
        if self.phase == Phase::Open {
            if self.movers.is_some() && self.is_idle() {
                let wakers = &mut services.effects.wakers;
                self.movers.iter_mut().for_each(|movers| movers.notify(wakers));
            }
            return false;
        }
        self.advance(key, services);
        self.phase == Phase::Ending && self.is_idle()
    }

    /// Off the table: tells who waits and lets the descriptor go.
    pub(crate) fn close(self, operations: &mut Operations, services: &mut Services) {
        let Self { socket, receive, send, closing, movers, .. } = self;
        if let Some(mut movers) = movers {
            movers.notify_all(&mut services.effects.wakers);
        }
        let Closing { linger, told, error, cut_off } =
            closing.map(|closing| *closing).unwrap_or_default();
        services.stop_timer(linger);
        if services.closing && Arc::strong_count(&socket) > 1 {
            // A handle outlives the core and keeps the number open. Nobody will serve it again, so
            // the peer shall not wait for that. A socket that is not connected has nobody to tell.
            let _ = if cut_off {
                call::disconnect(socket.number())
            } else {
                call::shutdown(socket.number(), Shutdown::Both)
            };
        }
        receive.close(services);
        send.close(operations, services);
        if let Some(told) = told {
            operation::finish(operations, told, -i64::from(error), services);
        }
    }

    /// For moving to another core: asks for everything in flight to end, and waits until nothing
    /// is. Others who wait do so until the stream has moved, or stays after all.
    pub(crate) fn poll_idle(
        &mut self,
        key: Key,
        waiter: &mut Option<WaiterId>,
        caller: &mut Caller<'_>,
        services: &mut Services,
    ) -> Poll<()> {
        self.receive.pause(key, services);
        self.send.pause(key, services);
        if self.is_idle() {
            return Poll::Ready(());
        }
        let id = services.waiter(waiter);
        let old = self.movers.get_or_insert_default().enrol(id, caller);
        services.effects.discard(old);
        Poll::Pending
    }

    /// What the handle keeps of a stream that leaves this core.
    pub(crate) fn remains(&mut self) -> Remains {
        let received = self.receive.failure();
        Remains { unread: self.receive.take_unread(), received, sent: self.send.error() }
    }
}
