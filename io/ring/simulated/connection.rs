//! A TCP connection in memory: two pipes and two ends.
//!
//! ```text
//!   end 0 ── send ──► [ pipe 0: on the way | arrived ] ── receive ──► end 1
//!         ◄─ receive ─ [ arrived | on the way :pipe 1 ] ◄── send ─────
//! ```
//!
//! A pipe is the sender's and the receiver's buffer in one, so a reader that does not read stops
//! the writer. What is sent becomes visible when it *arrives*, some bytes at a time, by chance;
//! then FIN does. A reset drops what is still on the way. The answers are those of Linux's
//! `tcp_sendmsg`, `tcp_recvmsg`, `tcp_poll` and `tcp_reset`, each error told once.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};

use super::random::Chance;
use super::trace::{Event, Trace};

/// Which end of a connection: 0 connected, 1 accepted.
pub(super) type Side = usize;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Fin {
    #[default]
    No,
    Sent,
    Arrived,
}

/// One direction, named by its sender.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// How many of them the receiver can see.
    arrived: usize,
    capacity: usize,
    fin: Fin,
}

impl Pipe {
    fn free(&self) -> usize {
        self.capacity - self.bytes.len()
    }

    /// The kernel tells of room only when there is a good part of it (`sk_stream_is_writeable`).
    fn has_room(&self) -> bool {
        self.free() * 3 >= self.capacity
    }

    fn on_the_way(&self) -> usize {
        self.bytes.len() - self.arrived
    }
}

#[derive(Debug)]
struct End {
    address: SocketAddr,
    is_open: bool,
    /// The error that the next call answers (`sk_err`).
    error: i32,
    /// Reset: nothing goes in or out any more (`TCP_CLOSE`).
    is_dead: bool,
    reads_no_more: bool,
    /// A send found the pipe full, so room will be told (`SOCK_NOSPACE`).
    wants_room: bool,
    /// A reset is on the way to this end.
    reset_comes: bool,
    /// Events so far; a watch answers those that come after it.
    readable: u64,
    writable: u64,
}

impl End {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_open: true,
            error: 0,
            is_dead: false,
            reads_no_more: false,
            wants_room: false,
            reset_comes: false,
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

#[derive(Debug)]
pub(super) struct Connection {
    pipes: [Pipe; 2],
    ends: [End; 2],
}

impl Connection {
    pub(super) fn new(addresses: [SocketAddr; 2], capacities: [usize; 2]) -> Self {
        let pipe = |capacity| Pipe { capacity, ..Pipe::default() };
        Self { pipes: capacities.map(pipe), ends: addresses.map(End::new) }
    }

    pub(super) fn address(&self, side: Side) -> SocketAddr {
        self.ends[side].address
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
            let bytes = pipe.bytes.drain(..count).collect();
            let has_room = pipe.has_room();
            let sender = &mut self.ends[1 - side];
            if sender.wants_room && has_room {
                sender.wants_room = false;
                sender.writable += 1;
            }
            return Ok(bytes);
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
    /// sent is then lost as far as it has not arrived.
    pub(super) fn close(&mut self, side: Side, resets: bool) {
        let end = &mut self.ends[side];
        end.is_open = false;
        end.reset_comes = false;
        if end.is_dead {
            return;
        }
        if resets || self.pipes[1 - side].arrived > 0 {
            self.ends[1 - side].reset_comes = self.ends[1 - side].is_open;
        } else if self.pipes[side].fin == Fin::No {
            self.pipes[side].fin = Fin::Sent;
        }
        self.pipes[1 - side].arrived = 0;
    }

    /// Resets the connection and keeps the end open (`tcp_disconnect`).
    pub(super) fn disconnect(&mut self, side: Side) {
        let other = 1 - side;
        self.ends[other].reset_comes = self.ends[other].is_open && !self.ends[side].is_dead;
        self.pipes[other].bytes.clear();
        self.pipes[other].arrived = 0;
        let end = &mut self.ends[side];
        (end.is_dead, end.reset_comes) = (true, false);
        end.changed();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.ends.iter().all(|end| !end.is_open)
    }

    /// Whether something is on its way to an end that would notice.
    pub(super) fn is_moving(&self) -> bool {
        (0..2).any(|side| {
            let (end, pipe) = (&self.ends[side], &self.pipes[1 - side]);
            let sender_is_open = self.ends[1 - side].is_open;
            end.reset_comes
                || (end.is_open || sender_is_open) && pipe.on_the_way() > 0 && !end.is_dead
                || end.is_open && pipe.fin == Fin::Sent && !end.is_dead
        })
    }

    /// Some of what is on the way arrives, by chance.
    pub(super) fn step(&mut self, chance: &mut Chance, trace: &mut Trace) {
        for side in 0..2 {
            if self.ends[side].reset_comes {
                if chance.one_in(2) {
                    trace.note(Event::ResetArrived { at: self.ends[side].address });
                    self.reset(side);
                }
            } else if !self.ends[side].is_dead {
                self.step_towards(side, chance, trace);
            }
        }
    }

    fn step_towards(&mut self, side: Side, chance: &mut Chance, trace: &mut Trace) {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[1 - side]);
        let at = end.address;
        if pipe.on_the_way() > 0 && chance.one_in(2) {
            let count = chance.up_to(pipe.on_the_way());
            trace.note(Event::Arrived { at, count });
            if end.is_open {
                pipe.arrived += count;
                end.readable += 1;
            } else {
                // Nobody is there to take it: the sender hears of that.
                pipe.bytes.drain(..count);
                self.ends[1 - side].reset_comes = self.ends[1 - side].is_open;
            }
        } else if pipe.on_the_way() == 0 && pipe.fin == Fin::Sent && chance.one_in(2) {
            trace.note(Event::FinArrived { at });
            pipe.fin = Fin::Arrived;
            end.changed();
        }
    }

    fn reset(&mut self, side: Side) {
        let has_fin = self.pipes[1 - side].fin == Fin::Arrived;
        let end = &mut self.ends[side];
        end.reset_comes = false;
        // The peer had finished and now refuses: writing is what went wrong (`tcp_reset`).
        end.error = if has_fin { libc::EPIPE } else { libc::ECONNRESET };
        end.is_dead = true;
        end.changed();
        self.pipes[side].bytes.clear();
        self.pipes[side].arrived = 0;
        let into = &mut self.pipes[1 - side];
        into.bytes.truncate(into.arrived);
    }
}
