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

mod away;
mod receive;
mod send;
mod socket;

use std::net::Shutdown;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Poll;

pub(crate) use self::away::Away;
pub(crate) use self::receive::Receiving;
pub(crate) use self::send::{Commit, SendNow, Sending};
pub(crate) use self::socket::{Farewell, Remains, Socket};
use crate::io::buffer::Lease;
use crate::io::mailbox::{Key, Wait, WaiterId};
use crate::io::operation::{self, Operations};
use crate::io::planted::{self, Bug};
use crate::io::request::{Completion, call};
use crate::io::services::{Kind, Services};
use crate::io::timers::TimerKey;
use crate::io::waiters::{Caller, HOLDER, Waiters};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    #[default]
    Open,
    Sending,
    Lingering,
    Ending,
}

pub(crate) struct Stream {
    socket: Arc<Socket>,
    pub(crate) receive: Receiving,
    pub(crate) send: Sending,
    parting: Option<Box<Parting>>,
}

/// What only a stream knows whose end takes time, or that is about to leave its core. It stands
/// apart, so that an idle connection does not pay for it.
#[derive(Default)]
struct Parting {
    /// As long as the sending half has not ended: see `Stream::phase`.
    phase: Phase,
    /// Who waits to take the stream off this core. Meanwhile nothing new is armed.
    movers: Waiters,
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
        let (receive, send) = (Receiving::default(), Sending::default());
        Self { socket, receive, send, parting: None }
    }

    /// Those who wait stand where they stood. Answers whether a read that is half-way is the first.
    pub(crate) fn come_back(&mut self, away: Away) -> bool {
        away.end(&mut self.receive, &mut self.send)
    }

    fn parting(&mut self) -> &mut Parting {
        self.parting.get_or_insert_default()
    }

    fn phase(&self) -> Phase {
        if self.send.has_ended() {
            return Phase::Ending;
        }
        self.parting.as_ref().map_or(Phase::Open, |parting| parting.phase)
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

    /// Takes over what the socket has kept: from another core, or given back elsewhere. A read
    /// that is half-way may stand in line here already.
    pub(crate) fn collect(
        &mut self,
        waiter: Option<WaiterId>,
        holder_stands: bool,
        services: &mut Services,
    ) {
        let (Remains { unread, received, sent }, held) = self.socket.take();
        self.receive.take_over(received);
        self.send.take_over(sent);
        if held {
            self.receive.unread(Lease::from_vec(unread));
            if !holder_stands {
                self.receive.hold();
            }
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
            Wait::Write | Wait::Accept | Wait::Incoming => self.send.withdraw(waiter, services),
            Wait::Writable => self.send.overlook(waiter, services),
            Wait::Idle => {
                let phase = self.phase();
                let Some(parting) = &mut self.parting else { return };
                let (waker, _) = parting.movers.strike(waiter);
                services.effects.discard(waker);
                if parting.movers.is_empty() {
                    if phase == Phase::Open {
                        self.parting = None;
                    }
                    self.receive.resume(services);
                    self.send.resume(services);
                } else {
                    parting.movers.notify(&mut services.effects.wakers);
                }
            }
        }
    }

    /// The last handle is gone: send what is committed, tell the peer, and close.
    pub(crate) fn release(&mut self, key: Key, services: &mut Services) {
        if self.phase() == Phase::Open {
            self.advance(Phase::Sending, key, services);
        }
    }

    /// As `release`, and `closing` is told when it is over.
    pub(crate) fn release_for(&mut self, key: Key, closing: Key, services: &mut Services) {
        self.parting().told = Some(closing);
        self.release(key, services);
    }

    /// Resets the connection now.
    pub(crate) fn abort(&mut self, key: Key, services: &mut Services) {
        // A socket that is not connected any more has nothing to reset.
        let _ = call::reset_on_close(self.number());
        self.end(key, services);
    }

    /// The next step of closing from this phase, as far as it goes now.
    fn advance(&mut self, phase: Phase, key: Key, services: &mut Services) {
        if phase == Phase::Sending {
            let unsent = self.send.has_unsent();
            if (unsent || self.receive.has_unread(self.number())) && !self.send.has_failed() {
                if self.parting().linger.is_none() {
                    let linger = self.socket.linger();
                    let timer = services.start_timer(Kind::Linger, key, linger);
                    let parting = self.parting();
                    (parting.phase, parting.linger) = (phase, Some(timer));
                }
                if unsent {
                    return;
                }
                self.parting().phase = Phase::Lingering;
                if call::shutdown(self.number(), Shutdown::Write).is_ok() {
                    self.keep_lent();
                    self.receive.discard(key, self.socket.number(), services);
                } else {
                    self.end(key, services);
                }
            } else {
                if self.send.has_failed() {
                    self.parting().error = self.send.error();
                }
                self.end(key, services);
            }
        }
        if self.phase() == Phase::Lingering && self.receive.has_ended() {
            self.end(key, services);
        }
    }

    fn end(&mut self, key: Key, services: &mut Services) {
        if self.phase() == Phase::Ending {
            return;
        }
        services.stop_timer(self.parting.as_mut().and_then(|parting| parting.linger.take()));
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
            self.parting().cut_off = true;
        }
        if self.send.has_unsent() || self.phase() == Phase::Lingering {
            self.parting().error = libc::ETIMEDOUT;
        }
        self.end(key, services);
    }

    /// Nobody closes or moves it: there is nothing to settle.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.parting.is_none() && !self.send.has_ended()
    }

    /// After any event: takes the next step of closing. `true` when the stream can go.
    pub(crate) fn settle(&mut self, key: Key, services: &mut Services) -> bool {
        let phase = self.phase();
        if phase == Phase::Open {
            let Some(parting) = &mut self.parting else { return false };
            if self.receive.is_idle() && self.send.is_idle() {
                // Any of them may go: one that is not polled again holds up nobody.
                parting.movers.notify_all(&mut services.effects.wakers);
            }
            return false;
        }
        self.advance(phase, key, services);
        let is_idle =
            self.is_idle() || (planted::is(Bug::DescriptorClosedTooSoon) && self.send.is_idle());
        self.phase() == Phase::Ending && is_idle
    }

    /// Off the table: tells who waits and lets the descriptor go.
    pub(crate) fn close(self, operations: &mut Operations, services: &mut Services) {
        let Self { socket, receive, send, parting } = self;
        let parting = parting.map(|parting| *parting).unwrap_or_default();
        let Parting { mut movers, linger, told, error, cut_off, .. } = parting;
        movers.notify_all(&mut services.effects.wakers);
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
        services.line_up(&mut self.parting().movers, waiter, caller)
    }

    /// What the handle keeps of a stream that leaves this core, and the lines that stay here.
    pub(crate) fn part(&mut self, services: &mut Services) -> (Remains, Away) {
        let received = self.receive.failure();
        let unread = self.receive.take_unread();
        let remains = Remains { unread, received, sent: self.send.error() };
        let is_held = self.socket.is_held();
        let (reads, writes) = (&mut self.receive, &mut self.send);
        (remains, Away::of(reads, writes, is_held, services))
    }
}
