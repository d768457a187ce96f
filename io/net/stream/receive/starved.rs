//! Streams whose receive found no provided buffer: exhaustion is never the user's error.
//!
//! ```text
//!                       a returned buffer          received less than fits: Armed again
//!              ┌──────► direct receive into it ──► all of it full: Starved, behind the others
//!   Starved ───┤ none   buffers in the ring, or
//!              ├──────► the pool may grow ───────► Armed again
//!              │ none   direct receive into
//!              └──────► private memory ──────────► Starved; the watch tells when there is more
//! ```
//!
//! The first way is what keeps streams fair. A buffer that goes back to the ring is taken by
//! whoever the kernel comes to first, and that may be the same busy stream for ever.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use super::{End, Receiving, State, Watch};
use crate::io::buffer::Lease;
use crate::io::mailbox::Key;
use crate::io::request::{self, call};
use crate::io::services::Services;

/// The size of a private receive when every provided buffer is lent.
const PRIVATE: usize = 16 * 1024;

impl Receiving {
    /// Its turn among those that found no buffer.
    pub(crate) fn feed(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.state != State::Starved {
            return;
        }
        if self.feed_returned(key, number, services) {
            return;
        }
        if services.buffers.free() > 0 || services.grow_buffers() {
            return self.refill(key, number, services);
        }
        if !self.ready && self.watch == Watch::Armed {
            // The watch will tell; until then only a returned buffer can help.
            services.starved.push_back(key);
            return;
        }
        self.feed_privately(key, number, services);
    }

    /// The ring has buffers again.
    pub(crate) fn refill(&mut self, key: Key, number: RawFd, services: &mut Services) {
        if self.state == State::Starved {
            self.state = State::Idle;
            self.arm(key, number, services);
        }
    }

    /// Receives into a buffer that has come back. `false`: none has.
    fn feed_returned(&mut self, key: Key, number: RawFd, services: &mut Services) -> bool {
        let Some(buffer) = services.take_buffer() else { return false };
        // SAFETY: the pool's memory, of that length, and neither lent nor with the ring.
        let room = unsafe {
            let start = buffer.address.cast::<MaybeUninit<u8>>();
            std::slice::from_raw_parts_mut(start, buffer.length as usize)
        };
        services.direct_calls += 1;
        match call::receive(number, room, false) {
            count if count > 0 => {
                let count = count.unsigned_abs();
                // SAFETY: the kernel has just filled so much of it, and is done with it.
                self.push(unsafe { services.buffers.lease(buffer.id, count) });
                self.fed(count == buffer.length, key, number, services);
            }
            nothing => {
                services.put_back_buffer(buffer);
                if request::would_block(nothing) {
                    self.refill(key, number, services);
                } else {
                    self.ended(nothing, services);
                }
            }
        }
        true
    }

    /// All buffers are lent: receives into memory of its own.
    fn feed_privately(&mut self, key: Key, number: RawFd, services: &mut Services) {
        let mut memory = Vec::with_capacity(PRIVATE);
        services.direct_calls += 1;
        match call::receive(number, memory.spare_capacity_mut(), false) {
            error if request::would_block(error) => {
                self.ready = false;
                self.arm_watch(key, number, services);
                services.starved.push_back(key);
            }
            count if count > 0 => {
                // SAFETY: the kernel has just written that many bytes.
                unsafe { memory.set_len(count as usize) };
                memory.shrink_to_fit();
                services.counters.private_receives += 1;
                self.push(Lease::from_vec(memory));
                self.fed(true, key, number, services);
            }
            end => self.ended(end, services),
        }
    }

    /// It got something; `more`: it may have more, and stands behind the others for it.
    fn fed(&mut self, more: bool, key: Key, number: RawFd, services: &mut Services) {
        if self.bytes >= services.limits.receive_ahead && !self.discarding {
            self.state = State::Idle;
        } else if more {
            services.starved.push_back(key);
        } else {
            self.refill(key, number, services);
        }
        self.nudge(services);
    }

    fn ended(&mut self, result: i32, services: &mut Services) {
        self.state = State::Idle;
        self.end = Some(if result == 0 { End::Eof } else { End::Error(-result) });
        self.nudge(services);
    }
}
