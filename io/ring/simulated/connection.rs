//! A TCP connection in memory: two pipes and two ends.
//!
//! ```text
//!   end 0 ── send ──► [ pipe 0: on the way | arrived ] ── receive ──► end 1
//!         ◄─ receive ─ [ arrived | on the way :pipe 1 ] ◄── send ─────
//! ```
//!
//! A pipe is the sender's and the receiver's buffer in one, so a reader that does not read stops
//! the writer; what was read is room again when the sender has heard of it. When bytes, FIN and
//! resets arrive, the network decides (`network`): here stands what they do. The answers are those
//! of Linux's `tcp_sendmsg`, `tcp_recvmsg`, `tcp_poll` and `tcp_reset`, each error told once.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};

/// Which end of a connection: 0 connected, 1 accepted.
pub(super) type Side = usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fin {
    #[default]
    No,
    Sent,
    Arrived,
    /// It came to a socket that a reset had closed.
    Lost,
}

/// Bytes that travel together, and when they are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) count: usize,
    pub(super) due: u64,
}

/// One direction, named by its sender.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    /// How many of them the receiver can see.
    arrived: usize,
    /// Bytes that the receiver has taken, as long as the sender has not heard of it.
    unheard: usize,
    capacity: usize,
    pub(super) fin: Fin,
    pub(super) fin_due: u64,
    /// What is on the way, in order.
    pub(super) segments: VecDeque<Segment>,
    /// The arrival of the front is a coming event.
    pub(super) is_scheduled: bool,
    /// An acknowledgement is a coming event.
    pub(super) is_answered: bool,
    /// Nothing gets through since then.
    pub(super) stalled_at: Option<u64>,
    /// Bytes that nobody will ever receive.
    lost: u64,
}

impl Pipe {
    fn free(&self) -> usize {
        self.capacity.saturating_sub(self.bytes.len() + self.unheard)
    }

    /// The kernel tells of room only when there is a good part of it (`sk_stream_is_writeable`).
    fn has_room(&self) -> bool {
        self.free() * 3 >= self.capacity
    }

    /// Whether the receiver has taken bytes of which the sender has not heard.
    pub(super) fn has_unheard(&self) -> bool {
        self.unheard > 0
    }

    fn on_the_way(&self) -> usize {
        self.bytes.len() - self.arrived
    }

    /// When the last of what was sent is due, at the earliest.
    pub(super) fn last_due(&self) -> u64 {
        self.segments.back().map_or(0, |segment| segment.due)
    }

    /// What stands at the front of the way, if anything does: when it is due.
    pub(super) fn front_due(&self) -> Option<u64> {
        match self.segments.front() {
            Some(segment) => Some(segment.due),
            None => (self.fin == Fin::Sent).then_some(self.fin_due),
        }
    }

    /// Drops what is on the way.
    fn cut_off(&mut self) {
        self.lost += self.on_the_way() as u64;
        self.bytes.truncate(self.arrived);
        self.segments.clear();
    }

    /// Drops everything.
    fn clear(&mut self) {
        self.lost += self.bytes.len() as u64;
        self.bytes.clear();
        self.segments.clear();
        self.arrived = 0;
    }
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) address: SocketAddr,
    pub(super) host: usize,
    /// The life of the host that the end belongs to.
    pub(super) boot: usize,
    pub(super) is_open: bool,
    /// Its host went down without a word: there is no kernel left that knows of it.
    pub(super) is_gone: bool,
    /// The error that the next call answers (`sk_err`).
    error: i32,
    /// Reset: nothing goes in or out any more (`TCP_CLOSE`).
    pub(super) is_dead: bool,
    reads_no_more: bool,
    /// A send found the pipe full, so room will be told (`SOCK_NOSPACE`).
    wants_room: bool,
    /// Events so far; a watch answers those that come after it.
    readable: u64,
    writable: u64,
}

impl End {
    pub(super) fn new(address: SocketAddr, host: usize, boot: usize) -> Self {
        Self {
            address,
            host,
            boot,
            is_open: true,
            is_gone: false,
            error: 0,
            is_dead: false,
            reads_no_more: false,
            wants_room: false,
            readable: 0,
            writable: 0,
        }
    }

    /// Something about the state has changed: every watch is told (`sk_state_change`).
    fn changed(&mut self) {
        self.readable += 1;
        self.writable += 1;
    }
}

/// What a close tells the other side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    Nothing,
    Fin,
    Reset,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) pipes: [Pipe; 2],
    pub(super) ends: [End; 2],
    /// The listener that waits for the handshake's last part.
    pub(super) half_open: Option<u64>,
}

impl Connection {
    pub(super) fn new(ends: [End; 2], capacities: [usize; 2], listener: u64) -> Self {
        let pipe = |capacity| Pipe { capacity, ..Pipe::default() };
        Self { pipes: capacities.map(pipe), ends, half_open: Some(listener) }
    }

    /// Whether the handshakes of both directions are over, or a reset came: no call on the
    /// connection finds one any more (`ENOTCONN`).
    pub(super) fn is_over(&self, side: Side) -> bool {
        self.ends[side].is_dead || self.pipes.iter().all(|pipe| pipe.fin == Fin::Arrived)
    }

    pub(super) fn send(&mut self, side: Side, bytes: &[u8]) -> i32 {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[side]);
        if end.error != 0 {
            return -std::mem::take(&mut end.error);
        }
        if end.is_dead || pipe.fin != Fin::No {
            return -libc::EPIPE;
        }
        let count = bytes.len().min(pipe.free());
        if count < bytes.len() {
            end.wants_room = true;
        }
        if count == 0 && !bytes.is_empty() {
            return -libc::EAGAIN;
        }
        pipe.bytes.extend(&bytes[..count]);
        count as i32
    }

    /// Takes up to `room` of the bytes that have arrived; `Err` is a negated error number, and no
    /// bytes are the end.
    pub(super) fn receive(&mut self, side: Side, room: usize, peek: bool) -> Result<Vec<u8>, i32> {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[1 - side]);
        if pipe.arrived > 0 {
            let count = pipe.arrived.min(room);
            if peek {
                return Ok(pipe.bytes.range(..count).copied().collect());
            }
            pipe.arrived -= count;
            pipe.unheard += count;
            return Ok(pipe.bytes.drain(..count).collect());
        }
        if pipe.fin == Fin::Arrived {
            return Ok(Vec::new());
        }
        if end.error != 0 {
            return Err(-std::mem::take(&mut end.error));
        }
        if end.is_dead || end.reads_no_more {
            return Ok(Vec::new());
        }
        Err(-libc::EAGAIN)
    }

    /// The sender hears what the receiver has taken. `true`: so it has room again, and waits for
    /// some.
    pub(super) fn hear(&mut self, sender: Side) -> bool {
        let pipe = &mut self.pipes[sender];
        pipe.unheard = 0;
        let capacity = pipe.capacity;
        self.resize(sender, capacity)
    }

    /// What a side sends gets so much room (socket(7), `SO_SNDBUF`). `true`: that is more than it
    /// had, and its sender waits for some.
    pub(super) fn resize(&mut self, sender: Side, capacity: usize) -> bool {
        let (end, pipe) = (&mut self.ends[sender], &mut self.pipes[sender]);
        pipe.capacity = capacity;
        let tells = end.wants_room && pipe.has_room();
        if tells {
            end.wants_room = false;
            end.writable += 1;
        }
        tells
    }

    pub(super) fn unread(&self, side: Side) -> usize {
        self.pipes[1 - side].arrived
    }

    pub(super) fn take_error(&mut self, side: Side) -> i32 {
        std::mem::take(&mut self.ends[side].error)
    }

    /// The events of poll(2) that hold now, of those in `mask`.
    pub(super) fn events(&self, side: Side, mask: i16) -> i16 {
        let (end, into, out) = (&self.ends[side], &self.pipes[1 - side], &self.pipes[side]);
        let ended = end.is_dead || into.fin == Fin::Arrived || end.reads_no_more;
        let mut events = 0;
        if ended {
            events |= libc::POLLIN | libc::POLLRDHUP;
        }
        if into.arrived > 0 {
            events |= libc::POLLIN;
        }
        if end.is_dead || out.fin != Fin::No || out.has_room() {
            events |= libc::POLLOUT;
        }
        let mut always = 0;
        if end.is_dead || (ended && out.fin != Fin::No) {
            always |= libc::POLLHUP;
        }
        if end.error != 0 {
            always |= libc::POLLERR;
        }
        events & mask | always
    }

    /// How many events of a direction there were.
    pub(super) fn count_of_events(&self, side: Side, writable: bool) -> u64 {
        let end = &self.ends[side];
        if writable { end.writable } else { end.readable }
    }

    /// A watch for room has been asked for (`tcp_poll` notes it as a send would).
    pub(super) fn want_room(&mut self, side: Side) {
        if !self.pipes[side].has_room() {
            self.ends[side].wants_room = true;
        }
    }

    /// Ends a direction, or both. A negative answer is an error.
    pub(super) fn shut_down(&mut self, side: Side, how: Shutdown) -> i32 {
        if self.is_over(side) {
            return -libc::ENOTCONN;
        }
        if how != Shutdown::Read && self.pipes[side].fin == Fin::No {
            self.pipes[side].fin = Fin::Sent;
        }
        if how != Shutdown::Write {
            self.ends[side].reads_no_more = true;
        }
        self.ends[side].changed();
        0
    }

    /// Closes an end. Unread input, or the wish, makes it a reset (RFC 2525, 2.17); what had been
    /// sent is then lost as far as it arrives after that.
    pub(super) fn close(&mut self, side: Side, resets: bool) -> Farewell {
        let end = &mut self.ends[side];
        end.is_open = false;
        if end.is_dead {
            return Farewell::Nothing;
        }
        let into = &mut self.pipes[1 - side];
        let unread = into.arrived;
        into.lost += unread as u64;
        into.bytes.drain(..unread);
        into.arrived = 0;
        if resets || unread > 0 {
            // A kernel that was told to reset sends no FIN, and knows nothing of the rest.
            end.is_dead = true;
            return Farewell::Reset;
        }
        if self.pipes[side].fin != Fin::No {
            return Farewell::Nothing;
        }
        self.pipes[side].fin = Fin::Sent;
        Farewell::Fin
    }

    /// Resets the connection and keeps the end open (`tcp_disconnect`). `true`: the other side will
    /// hear of it.
    pub(super) fn disconnect(&mut self, side: Side) -> bool {
        let tells = !self.ends[side].is_dead;
        self.pipes[1 - side].clear();
        let end = &mut self.ends[side];
        end.is_dead = true;
        end.changed();
        tells
    }

    /// The end's host is no more: nobody answers for it.
    pub(super) fn vanish(&mut self, side: Side) {
        let end = &mut self.ends[side];
        (end.is_open, end.is_gone) = (false, true);
        let into = &mut self.pipes[1 - side];
        into.lost += into.arrived as u64;
        into.bytes.drain(..into.arrived);
        into.arrived = 0;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ends.iter().all(|end| !end.is_open)
    }

    /// Bytes sent and neither received nor lost, and those that are lost.
    pub(super) fn balance(&self) -> (u64, u64) {
        let waiting = self.pipes.iter().map(|pipe| pipe.bytes.len() as u64).sum();
        (waiting, self.pipes.iter().map(|pipe| pipe.lost).sum())
    }

    /// Bytes come to an end of the connection. `false`: nobody is there to take them.
    pub(super) fn arrive(&mut self, side: Side, count: usize) -> bool {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[1 - side]);
        if end.is_open && !end.is_dead {
            pipe.arrived += count;
            end.readable += 1;
            return true;
        }
        pipe.bytes.drain(pipe.arrived..pipe.arrived + count);
        pipe.lost += count as u64;
        false
    }

    /// The end of the stream comes, if it was sent and no reset was quicker: a closed socket drops
    /// what follows (`tcp_rcv_state_process`), or the reset would look like an orderly end.
    /// `false`: nothing comes.
    pub(super) fn arrive_fin(&mut self, side: Side) -> bool {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[1 - side]);
        if end.is_dead {
            pipe.fin = Fin::Lost;
            return false;
        }
        let comes = pipe.fin == Fin::Sent;
        if comes {
            pipe.fin = Fin::Arrived;
            end.changed();
        }
        comes
    }

    /// A reset comes to an end, or the end gives up waiting for an answer.
    pub(super) fn fail(&mut self, side: Side, error: i32) {
        let has_fin = self.pipes[1 - side].fin == Fin::Arrived;
        let end = &mut self.ends[side];
        // The peer had finished and now refuses: writing is what went wrong (`tcp_reset`).
        end.error = if has_fin && error == libc::ECONNRESET { libc::EPIPE } else { error };
        end.is_dead = true;
        end.changed();
        if self.ends[1 - side].is_open {
            // What has arrived there is there to be read, whatever becomes of this end.
            self.pipes[side].cut_off();
        } else {
            self.pipes[side].clear();
        }
        self.pipes[1 - side].cut_off();
    }
}
