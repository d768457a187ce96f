//! Streams whose receive found no provided buffer: exhaustion is never the user's error.
//!
//! ```text
//!                buffers in the ring, or
//!              ┌► the pool may grow ───────► Armed again
//!   Starved ───┤ none   direct receive into
//!              └► private memory ──────────► Starved; the watch tells when there is more
//! ```
//!
//! Buffers go to whoever the kernel comes to first, which is the order of submission. So who got
//! nothing the last time is submitted first: a busy stream that takes all there is stands behind.

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
        if services.buffers.free() > 0 || services.grow_buffers() {
            self.state = State::Idle;
            return self.arm(key, number, services);
        }
        if !self.ready && self.watch == Watch::Armed {
            // The watch will tell; until then only a returned buffer can help.
            services.starved.push(key, false);
            return;
        }
        self.feed_privately(key, number, services);
    }

    /// All buffers are lent: receives into memory of its own.
    fn feed_privately(&mut self, key: Key, number: RawFd, services: &mut Services) {
        let mut memory = Vec::with_capacity(PRIVATE);
        services.direct_calls += 1;
        match call::receive(number, memory.spare_capacity_mut(), false) {
            error if request::would_block(error) => {
                self.ready = false;
                self.arm_watch(key, number, services);
                services.starved.push(key, false);
            }
            count if count > 0 => {
                // SAFETY: the kernel has just written that many bytes.
                unsafe { memory.set_len(count as usize) };
                memory.shrink_to_fit();
                services.counters.private_receives += 1;
                self.push(Lease::from_vec(memory));
                if self.bytes >= services.limits.receive_ahead && !self.discarding {
                    self.state = State::Idle;
                } else {
                    services.starved.push(key, true);
                }
                self.nudge(services);
            }
            end => self.ended(end, services),
        }
    }

    fn ended(&mut self, result: i32, services: &mut Services) {
        self.state = State::Idle;
        self.end = Some(if result == 0 { End::Eof } else { End::error(-result) });
        self.nudge(services);
    }
}
